//! The tables beside the rules.

use proptest::prelude::*;
use std::sync::LazyLock;

use super::*;
use crate::caption::clean::clean;
use crate::caption::nouns::forms::Forms;
use crate::caption::nouns::phrases::phrase_forms;
use crate::caption::nouns::tables::Tables;
use crate::caption::nouns::{DETERMINERS, NounsOptions};
use crate::caption::tokens::tokens;

/// The rule, and the rule without each of its options.
static RULES: LazyLock<Vec<Nouns>> = LazyLock::new(|| {
    let all = NounsOptions::default();
    let names = all.by_name().map(|(name, _)| all.without(name));
    [all].into_iter().chain(names).map(Nouns::new).collect()
});

/// Whether the scanner cuts `caption`; panics if the tables read it otherwise than a rule does.
fn is_read(caption: &str) -> bool {
    let mut is_read = false;
    for rule in RULES.iter() {
        let expected = rule.literal_synsets(caption);
        let tokens = tokens(&clean(caption));
        assert_eq!(synsets_of(rule, rule.lookup(), &tokens), expected, "{}: {caption:?}", rule.id);
        if let Ok(found) = rule.fast_synsets(caption) {
            is_read = true;
            assert_eq!(found, expected, "{}: {caption:?}", rule.id);
        }
    }
    is_read
}

#[test]
fn phrases_compounds_names_and_colours_are_read_as_by_the_rules() {
    let captions = [
        "A man rows his fire truck past John Smith, sitting on two black/white skate boards.",
        "an orange cat, an orange and white cat, an orange, black and white cat, an orange.",
        "ice-cream at the traffic-lights; t-shirts, attorneys-general and -dog cat- a--b",
        "a chair sitting in a park. A dog's bed sits; a boy is sitting by an umbrella standing",
        "hot\u{A0}dogs and hot - dogs on a fire\u{A0}truck",
        "hot - dogs, queen anne's lace, man's clothing, mcdonald's, o'clock",
        "stock photos of runners' worlds _dog_ fire_trucks womens possess the posses",
        "gerard, fact mood, (john) dogs, john \"cats\", john - cars, john's house",
        "great solomon's-seal and a great solomon 's-seal",
        "heliothis ziass and heliothis zias",
        "skateboard ramp skate board ramp foot ball field dog house doghouse",
        "",
    ];
    for caption in captions {
        assert!(is_read(caption), "{caption}");
    }
    // The quote is a token of its own, which a phrase may have.
    for caption in ["the ladies' room", "april fools'", "april fools '?"] {
        assert_eq!(RULES[0].fast_synsets(caption), Err(Unusual::Quotes));
        is_read(caption);
    }
}

#[test]
fn words_with_more_endings_than_one_are_read_as_by_the_rules() {
    let many = "s".repeat(170);
    let captions = [
        "possess ion, dog sss, gem ens, the school busess and the hot dogss",
        "a boss, the mass medias, a glass house, wine glassess in glasses cases",
        "skate boardss and skate boardses, fire truckss, fire-truckss, skate-boardss",
        &format!("fire truck{}", &many[..68]),
        &format!("fire truck{}", &many[..70]),
        &format!("fire-truck{many}"),
        &format!("skate board{many}"),
        &format!("fire_truck{many} dog{many} house{many}"),
    ];
    for caption in captions {
        assert!(is_read(caption), "{caption}");
    }
}

#[test]
fn every_phrase_and_compound_is_read_as_by_the_rules() {
    let rule = &RULES[0];
    let compounds = Forms::of(rule).compounds(rule).into_iter().map(|(halves, _)| halves);
    let phrases = phrase_forms().into_iter().map(|phrase| phrase.replace('_', " "));
    let (mut num_read, mut wrong) = (0, Vec::new());
    for words in compounds.chain(phrases) {
        assert!(words.split(' ').count() < PHRASE_WORDS_MAX, "{words}");
        if let Ok(found) = rule.fast_synsets(&words) {
            num_read += 1;
            if found != rule.literal_synsets(&words) {
                wrong.push(words);
            }
        }
    }
    assert!(wrong.is_empty() && num_read > 140_000, "{num_read}, wrong: {wrong:?}");
}

/// Captions of words that the tables know.
fn caption() -> impl Strategy<Value = String> {
    let tables = Tables::embedded();
    let mut words: Vec<String> = tables
        .phrases
        .keys()
        .chain(tables.senses.keys())
        .chain(tables.classes.keys())
        .chain(tables.given_names.iter())
        .chain(&DETERMINERS)
        .map(|word| (*word).to_owned())
        .collect();
    words.extend(phrase_forms().into_iter().step_by(5).map(|phrase| phrase.replace('_', " ")));
    words.sort_unstable();
    let mark = "ss |ses |mens |[ -/:-@\\[-`{-~]| and |, |\\. |--|' |'s |s |-|\u{A0}|’|é";
    let part = prop_oneof![
        6 => proptest::sample::select(words),
        3 => Just(" ".to_owned()),
        1 => mark,
        1 => "[a-z]{1,9}",
    ];
    proptest::collection::vec(part, 0..14).prop_map(|parts| {
        parts.into_iter().enumerate().map(|(i, p)| if i % 2 == 0 { p } else { p + " " }).collect()
    })
}

proptest! {
    #[test]
    fn the_tables_read_every_caption_as_the_rules_do(caption in caption()) {
        is_read(&caption);
    }

    #[test]
    fn the_tables_read_any_text_as_the_rules_do(caption in any::<String>()) {
        is_read(&caption);
    }
}
