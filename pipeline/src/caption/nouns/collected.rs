//! The words of a caption with what the tables know of each: what the scanner leaves for `fast`.
//!
//! In: words in order. Out: [`Found`] ones. Never: joins words.

use std::ops::Range;

use super::Nouns;
use super::lookup::{Entry, Lookup};
use super::neighbours::Hint;
use crate::caption::fast::{Visitor, Word, is_space};

/// Words of most captions: 24 take 960 bytes.
const WORDS_USUAL: usize = 24;

/// A word of the caption.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    start: usize,
    end: usize,
    hint: Hint,
    /// What is known of it.
    pub entry: Entry,
    /// Whether it is surely of letters and digits of ASCII alone.
    pub is_plain: bool,
    /// What stands between it and the word before.
    pub gap: Gap,
    /// Whether it may be the next of the word before in a phrase or compound: a first guess.
    pub may_join: bool,
}

/// What stands between two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// White space, or nothing.
    Blank,
    /// Marks, one of them a quote.
    Quote,
    /// Other marks.
    Marks,
}

impl Found {
    /// Where it stands among the letters of the caption.
    pub fn place(&self) -> Range<usize> {
        self.start..self.end
    }

    /// What tells whether it may be a neighbour.
    #[inline]
    pub fn known(&self) -> (Hint, Entry) {
        (self.hint, self.entry)
    }
}

/// Collects the words of a caption.
pub struct Collected<'r> {
    rule: &'r Nouns,
    lookup: &'r Lookup,
    /// The words.
    pub words: Vec<Found>,
    /// Where the last of them ends.
    end: usize,
    /// What is known of it.
    last: Entry,
}

impl<'r> Collected<'r> {
    /// No words yet.
    pub fn new(rule: &'r Nouns, lookup: &'r Lookup) -> Self {
        let words = Vec::with_capacity(WORDS_USUAL);
        Self { rule, lookup, words, end: 0, last: Entry::default() }
    }
}

impl Visitor for Collected<'_> {
    #[inline]
    fn word(&mut self, word: Word<'_>) {
        let entry = self.lookup.entry_of(self.rule, word);
        let hint = Hint::of(word.first_letters());
        let gap = Gap::of(word.gap(self.end));
        let may_join = (gap == Gap::Blank) & self.last.may_come_before(hint, entry);
        let (place, is_plain) = (word.place(), word.is_plain());
        self.last = entry;
        self.end = place.end;
        let (start, end) = (place.start, place.end);
        self.words.push(Found { start, end, hint, entry, is_plain, gap, may_join });
    }
}

impl Gap {
    #[inline]
    fn of(letters: &[u8]) -> Self {
        match letters {
            [] | [b' '] => Self::Blank,
            _ if letters.iter().all(|&letter| is_space(letter)) => Self::Blank,
            _ if letters.contains(&b'\'') => Self::Quote,
            _ => Self::Marks,
        }
    }
}
