//! Writes the captions of a scene, as people on the web would.
//!
//! In: what can be seen. Out: two or three captions. They name the scene's things in any order
//! and number, sometimes its ground, and also use words that nobody can see (`picture`, `sale`):
//! these give labels too. Never: a thing of [`THINGS`] or a ground that is not there.

use catlip_schemas::synset::SynsetId;

use super::ground::NAMED;
use super::random::Draws;
use super::scene::{Scene, Seen};
use super::things::THINGS;

/// Words that give a label and cannot be seen.
pub const UNSEEN: [(&str, SynsetId); 26] = [
    ("art", SynsetId(2_743_547)),
    ("birthday", SynsetId(15_250_178)),
    ("day", SynsetId(15_155_220)),
    ("design", SynsetId(928_077)),
    ("drawing", SynsetId(7_003_119)),
    ("dream", SynsetId(5_768_553)),
    ("family", SynsetId(8_078_020)),
    ("friend", SynsetId(10_112_591)),
    ("gift", SynsetId(13_265_011)),
    ("home", SynsetId(8_559_508)),
    ("idea", SynsetId(5_833_840)),
    ("illustration", SynsetId(6_999_233)),
    ("image", SynsetId(5_928_118)),
    ("journey", SynsetId(306_426)),
    ("memory", SynsetId(5_935_060)),
    ("morning", SynsetId(15_165_289)),
    ("party", SynsetId(8_256_968)),
    ("photograph", SynsetId(3_925_226)),
    ("picture", SynsetId(3_931_044)),
    ("postcard", SynsetId(6_627_938)),
    ("poster", SynsetId(6_793_426)),
    ("sale", SynsetId(1_114_824)),
    ("school", SynsetId(8_276_720)),
    ("sketch", SynsetId(4_227_144)),
    ("summer", SynsetId(15_237_250)),
    ("weekend", SynsetId(15_170_504)),
];

/// Beginnings with a word of [`UNSEEN`], with their weights: few are common, many are rare.
const OPENERS: [(&str, f32); 10] = [
    ("a picture of", 9.0),
    ("illustration:", 0.4),
    ("image of", 0.4),
    ("drawing of", 0.4),
    ("photograph with", 0.5),
    ("poster with", 0.3),
    ("postcard with", 0.3),
    ("a sketch of", 0.3),
    ("art:", 0.3),
    ("dream of", 0.2),
];
/// Endings with words of [`UNSEEN`], with their weights.
const TAILS: [(&str, f32); 12] = [
    ("for sale", 4.0),
    ("on a lovely day", 0.4),
    ("cute design", 0.4),
    ("my home", 0.4),
    ("in summer", 0.4),
    ("a gift for a friend", 0.3),
    ("from our weekend journey", 0.3),
    ("birthday idea", 0.3),
    ("for the school", 0.3),
    ("our family party", 0.3),
    ("early in the morning", 0.3),
    ("such a lovely memory", 0.3),
];
/// Beginnings that give no label.
const PLAIN_OPENERS: [&str; 8] = [
    "photo of",
    "clipart with",
    "view of",
    "behold:",
    "look at",
    "please enjoy",
    "digitally painted:",
    "we bought",
];
/// Endings that give no label.
const PLAIN_TAILS: [&str; 7] = [
    "so cute",
    "isn't it lovely",
    "all new",
    "very cheap",
    "just amazing",
    "(up close)",
    "which is really quite odd",
];
/// Words about a thing that give no label and are true of any.
const ADJECTIVES: [&str; 14] = [
    "lovely",
    "pretty",
    "cute",
    "cheerful",
    "funny",
    "strange",
    "charming",
    "beautiful",
    "odd",
    "neat",
    "colorful",
    "whimsical",
    "unique",
    "painted",
];
/// What stands between two things.
const JOINTS: [&str; 10] = [
    " and ",
    ", ",
    " with ",
    " near ",
    " beside ",
    " next to ",
    " & ",
    " along with ",
    " plus ",
    " not far from ",
];

/// How often a caption but the first leaves a thing of three or more unnamed.
const LEFT_OUT: f32 = 0.15;

/// Two captions, or three for every third scene.
pub fn captions(d: &mut Draws, scene: &Scene) -> Vec<String> {
    let count = 2 + usize::from(d.chance(0.33));
    let ground_named_by = d.below(count);
    let caption = |number: usize| {
        let mut seen = scene.seen.clone();
        d.shuffle(&mut seen);
        if number > 0 && seen.len() >= 3 && d.chance(LEFT_OUT) {
            seen.pop();
        }
        let named = number == ground_named_by || d.chance(0.4);
        let ground = scene.ground.filter(|_| named).map(|ground| d.pick(&NAMED[ground].phrases));
        sentence(d, &seen, ground)
    };
    (0..count).map(caption).collect()
}

/// One caption of the things `seen`, in this order.
fn sentence(d: &mut Draws, seen: &[Seen], ground: Option<&str>) -> String {
    let mut text = String::new();
    let opener = d.weighted(&[0.1, 0.22, 0.68]);
    match opener {
        0 => text.push_str(OPENERS[d.weighted(&OPENERS.map(|(_, weight)| weight))].0),
        1 => text.push_str(d.pick(&PLAIN_OPENERS)),
        _ => {}
    }
    // The ground may come first, after the first thing, or last.
    let ground_at = if text.is_empty() { d.below(3) } else { 1 + d.below(2) };
    if let (Some(ground), 0) = (ground, ground_at) {
        text.push_str(ground);
        text.push(',');
    }
    for (number, one) in seen.iter().enumerate() {
        match (number, text.is_empty()) {
            (0, true) => {}
            (0, false) => text.push(' '),
            _ if number + 1 == seen.len() && d.chance(0.5) => text.push_str(" and "),
            _ => text.push_str(d.pick(&JOINTS)),
        }
        text.push_str(&phrase(d, one));
        if let (Some(ground), 0, 1) = (ground, number, ground_at) {
            text.push(' ');
            text.push_str(ground);
        }
    }
    if let (Some(ground), 2) = (ground, ground_at) {
        text.push(' ');
        text.push_str(ground);
    }
    finish(d, text)
}

/// An ending, a full stop or none, and the letters' case.
fn finish(d: &mut Draws, mut text: String) -> String {
    let tail = match d.weighted(&[0.05, 0.13, 0.82]) {
        0 => Some(TAILS[d.weighted(&TAILS.map(|(_, weight)| weight))].0),
        1 => Some(d.pick(&PLAIN_TAILS)),
        _ => None,
    };
    if let Some(tail) = tail {
        text.push_str(d.pick(&[", ", " "]));
        text.push_str(tail);
    }
    text.push_str(d.pick(&[".", ".", "", "", "", "!"]));
    match d.weighted(&[0.6, 0.35, 0.05]) {
        0 => text[..1].to_uppercase() + &text[1..],
        1 => text,
        _ => text.to_uppercase(),
    }
}

/// `a tiny leaf`, `several cups`, `the scissors`.
fn phrase(d: &mut Draws, seen: &Seen) -> String {
    let thing = &THINGS[seen.thing];
    let adjective = match d.below(10) {
        0 if seen.radius > 0.33 => "huge",
        0 | 1 if seen.radius > 0.28 => "big",
        0 | 1 if seen.radius < 0.22 => "tiny",
        2 if seen.degrees.abs() > 15.0 => "tilted",
        3 | 4 => d.pick(&ADJECTIVES),
        _ => "",
    };
    let name = if seen.count > 1 { thing.many } else { thing.one };
    let first = if adjective.is_empty() { name } else { adjective };
    let article = match seen.count {
        1 if name == "scissors" => d.pick(&["", "some", "the", "these"]),
        1 => d.pick(&["a", "a", "a", "the", "this"]),
        2 => d.pick(&["", "some", "both", "2"]),
        _ => d.pick(&["", "some", "several", "3", "many"]),
    };
    let article = match article {
        "a" if first.starts_with(['a', 'e', 'i', 'o']) || first == "umbrella" => "an",
        other => other,
    };
    let words = [article, adjective, name].into_iter().filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// The other words of captions. None gives a label under the corenet rule with WordNet 3.0:
    /// it is no noun there, or another lemma heads its first sense.
    const PLAIN: &str = "2 3 a against all along amazing amid an and at beautiful behold beneath \
        beside big both bought bright by calm charming cheap cheerful clipart close colorful cute \
        digitally early enjoy far for fresh from funny golden huge in is isn it just look \
        lovely many my n near neat new next not odd of on our painted photo please plus pretty \
        quite really scissors several so soft some strange such t the these this tilted \
        tiny to under unique up very view warm we wet which whimsical wide with";

    fn words(caption: &str) -> Vec<String> {
        let lower = caption.to_lowercase();
        let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    /// Every word that gives a label, with its synset.
    fn lexicon() -> BTreeMap<&'static str, SynsetId> {
        let things = THINGS.iter().flat_map(|t| [(t.one, t.synset), (t.many, t.synset)]);
        let grounds = NAMED.iter().map(|ground| (ground.name, ground.synset));
        things.chain(grounds).chain(UNSEEN).collect()
    }

    /// Synsets of the words of a caption that name what can be seen.
    fn named(caption: &str) -> BTreeSet<SynsetId> {
        let unseen: BTreeSet<_> = UNSEEN.iter().map(|&(_, synset)| synset).collect();
        let synsets = words(caption)
            .iter()
            .filter_map(|w| lexicon().get(w.as_str()).copied())
            .collect::<BTreeSet<_>>();
        synsets.difference(&unseen).copied().collect()
    }

    fn scene(ground: Option<usize>, things: &[(usize, usize)]) -> Scene {
        let seen =
            |&(thing, count): &(usize, usize)| Seen { thing, count, radius: 0.3, degrees: 20.0 };
        Scene { side_px: 0, rgb: Vec::new(), ground, seen: things.iter().map(seen).collect() }
    }

    proptest! {
        #[test]
        fn captions_name_only_what_is_there_and_together_all_of_it(
            seed: u64,
            ground in proptest::option::of(0..NAMED.len()),
            things in proptest::collection::btree_map(0..THINGS.len(), 1..4_usize, 1..=5),
        ) {
            let scene = scene(ground, &things.into_iter().collect::<Vec<_>>());
            let things = scene.seen.iter().map(|seen| THINGS[seen.thing].synset);
            let there: BTreeSet<_> = things.chain(ground.map(|g| NAMED[g].synset)).collect();
            let captions = captions(&mut Draws::new(seed, &[]), &scene);
            prop_assert!((2..=3).contains(&captions.len()));
            let all: BTreeSet<_> = captions.iter().flat_map(|caption| named(caption)).collect();
            prop_assert_eq!(&all, &there, "{:?}", captions);
        }

        #[test]
        fn every_word_is_known(seed: u64, thing in 0..THINGS.len(), ground in 0..NAMED.len()) {
            let plain = PLAIN.split_whitespace();
            let known: BTreeSet<_> = plain.chain(lexicon().into_keys()).collect();
            let scene = scene(Some(ground), &[(thing, 1), ((thing + 1) % THINGS.len(), 2)]);
            for caption in captions(&mut Draws::new(seed, &[]), &scene) {
                for word in words(&caption) {
                    prop_assert!(known.contains(word.as_str()), "{word} in {caption:?}");
                }
            }
        }
    }

    #[test]
    fn phrases_have_the_unseen_words_that_the_table_says() {
        let said: BTreeSet<_> = OPENERS
            .iter()
            .map(|&(text, _)| text)
            .chain(TAILS.iter().map(|&(text, _)| text))
            .flat_map(words)
            .filter(|word| lexicon().contains_key(word.as_str()))
            .collect();
        let table: BTreeSet<_> = UNSEEN.iter().map(|&(word, _)| word.to_owned()).collect();
        assert_eq!(said, table);
        let plain = PLAIN_OPENERS.iter().chain(&PLAIN_TAILS).chain(&ADJECTIVES).chain(&JOINTS);
        for text in plain {
            assert!(
                named(text).is_empty() && !words(text).iter().any(|w| table.contains(w)),
                "{text}"
            );
        }
    }

    #[test]
    fn an_article_fits_the_word_after_it() {
        for number in 0..3000 {
            let scene = scene(None, &[(number % THINGS.len(), 1)]);
            let caption = captions(&mut Draws::new(11, &[number as u64]), &scene).remove(0);
            for pair in words(&caption).windows(2) {
                // "unique" begins with the sound of "you".
                let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']) && pair[1] != "unique";
                match pair[0].as_str() {
                    "a" => assert!(!vowel, "{caption}"),
                    "an" => assert!(vowel, "{caption}"),
                    _ => {}
                }
            }
        }
    }
}
