//! What must hold for any bytes; one function a parser.
//!
//! In: bytes. Out: nothing. Never: returns if a promise is broken: it panics.

pub mod drive;
pub mod image;
pub mod manifest;
pub mod pax;
pub mod pickle;
pub mod tar;

use std::sync::LazyLock;

use catlip_pipeline::caption::LabelRule;
use catlip_pipeline::caption::clean::clean;
use catlip_pipeline::caption::corenet::{Corenet, fast_synsets, literal_synsets};
use catlip_pipeline::caption::fast::{self, Visitor, Word};
use catlip_pipeline::caption::nouns::{Nouns, NounsOptions};
use catlip_pipeline::caption::tokens::tokens;

static NOUNS: LazyLock<Nouns> = LazyLock::new(|| Nouns::new(NounsOptions::default()));

/// Collects words, each character outside ASCII as U+FFFD.
struct Words(Vec<String>);

impl Visitor for Words {
    fn word(&mut self, word: Word<'_>) {
        let letters = word.letters().iter();
        let letter = |&l: &u8| if l.is_ascii() { char::from(l) } else { '\u{FFFD}' };
        self.0.push(letters.map(letter).collect());
    }
}

/// No caption panics; a caption that the fast path reads has the words and synsets of the rules
/// as they are defined.
///
/// # Panics
///
/// If it is not so.
pub fn captions(bytes: &[u8]) {
    // A caption that is not UTF-8 never reaches a rule.
    let Ok(caption) = str::from_utf8(bytes) else { return };
    let literal = literal_synsets(caption);
    assert_eq!(Corenet.synsets(caption), literal, "{caption:?}");
    let nouns = NOUNS.literal_synsets(caption);
    assert_eq!(NOUNS.synsets(caption), nouns, "{caption:?}");
    let mut words = Words(Vec::new());
    if fast::words(caption, &mut words).is_err() {
        return;
    }
    assert_eq!(fast_synsets(caption), Ok(literal), "{caption:?}");
    let is_mark = |c: char| ".,:;@#$%&?!*()[]{}>\"'`".contains(c);
    let plain = |token: &String| -> String {
        token.chars().map(|c| if c.is_ascii() { c } else { '\u{FFFD}' }).collect()
    };
    let expected = tokens(&clean(caption)).iter().map(plain).collect::<Vec<_>>();
    let has_word = |token: &&String| token.as_str() != "--" && !token.chars().all(is_mark);
    let found: Vec<_> = words.0.iter().filter(has_word).collect();
    let expected: Vec<_> = expected.iter().filter(has_word).collect();
    assert_eq!(found, expected, "{caption:?}");
}
