//! The tables beside the rules.

use proptest::prelude::*;
use std::sync::LazyLock;

use super::*;
use crate::caption::nouns::NounsOptions;

/// The rule, and the rule without each of its options.
static RULES: LazyLock<Vec<Nouns>> = LazyLock::new(|| {
    let all = NounsOptions::default();
    let names = all.by_name().map(|(name, _)| all.without(name));
    [all].into_iter().chain(names).map(Nouns::new).collect()
});

/// Whether the tables read `caption`; panics if they read it otherwise than a rule does.
fn is_read(caption: &str) -> bool {
    let mut is_read = false;
    for rule in RULES.iter() {
        if let Ok(found) = rule.fast_synsets(caption) {
            is_read = true;
            assert_eq!(found, rule.literal_synsets(caption), "{}: {caption:?}", rule.id);
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
        "skateboard ramp skate board ramp foot ball field dog house doghouse",
        "",
    ];
    for caption in captions {
        assert!(is_read(caption), "{caption}");
    }
    // The quote is a token of its own, which a phrase may have.
    let unusual = RULES[0].fast_synsets("the ladies' room");
    assert_eq!(unusual, Err(Unusual::Quotes));
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
    let mark = "[ -/:-@\\[-`{-~]| and |, |\\. |--|' |'s |s |-|\u{A0}|’|é";
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
