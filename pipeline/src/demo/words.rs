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
    ("illustration:", 4.0),
    ("image of", 2.0),
    ("drawing of", 1.0),
    ("photograph with", 0.5),
    ("poster with", 0.3),
    ("postcard with", 0.3),
    ("a quick sketch of", 0.3),
    ("art:", 0.3),
    ("dream of", 0.2),
];
/// Endings with words of [`UNSEEN`], with their weights.
const TAILS: [(&str, f32); 12] = [
    ("for sale", 6.0),
    ("on a lovely day", 3.0),
    ("cute design", 2.0),
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
    "- amazing",
    "(close-up)",
    "which is really quite odd",
];
/// Words about a thing that give no label and are true of any.
const ADJECTIVES: [&str; 14] = [
    "lovely", "pretty", "cute", "cheerful", "funny", "strange", "charming", "beautiful", "odd",
    "neat", "colorful", "whimsical", "unique", "painted",
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
    let opener = d.weighted(&[0.13, 0.22, 0.65]);
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
    let tail = match d.weighted(&[0.07, 0.13, 0.8]) {
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
