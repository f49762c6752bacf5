//! Which words stand side by side: a small set that is asked before the large tables.
//!
//! In: every phrase, and every compound that is written apart. Out: whether two words may be
//! neighbours in one of them. Never: denies two that are.

use std::ops::BitOrAssign;

/// An odd number whose product spreads low bits over the high ones.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// A hint at a word: its first eight letters, spread over a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint(u64);

impl Hint {
    /// The hint at the word of these first eight letters, the first lowest.
    #[inline]
    pub fn of(first_letters: u64) -> Self {
        Self((first_letters ^ first_letters >> 32).wrapping_mul(SPREAD))
    }

    /// The hint at `word`.
    pub fn of_word(word: &[u8]) -> Self {
        let mut letters = [0; 8];
        let len = word.len().min(letters.len());
        letters[..len].copy_from_slice(&word[..len]);
        Self::of(u64::from_le_bytes(letters))
    }
}

/// Pairs of neighbours, as a set that may hold more: 256 KB that stay near the core, where the
/// tables of words and phrases do not. Most words in a row are no neighbours.
#[derive(Clone, Debug)]
pub struct Neighbours(Box<[u64]>);

impl Neighbours {
    /// 2^21 bits for 121,000 pairs: one in seventeen others is taken for one of them.
    const BITS: u32 = 21;

    /// No pairs.
    pub fn new() -> Self {
        Self(vec![0; 1 << (Self::BITS - 6)].into())
    }

    /// Adds a word and the next; `is_first` if nothing stands before them.
    pub fn insert(&mut self, word: Hint, next: Hint, is_first: bool) {
        let bit = Self::bit(word, next, is_first);
        self.0[bit / 64].bitor_assign(1 << (bit % 64));
    }

    #[inline]
    fn bit(word: Hint, next: Hint, is_first: bool) -> usize {
        let mixed = word.0.rotate_left(if is_first { 32 } else { 16 }) ^ next.0;
        (mixed.wrapping_mul(SPREAD) >> (u64::BITS - Self::BITS)) as usize
    }

    /// Whether a word and the next may be neighbours.
    #[inline]
    pub fn may_have(&self, word: Hint, next: Hint, is_first: bool) -> bool {
        let bit = Self::bit(word, next, is_first);
        self.0[bit / 64] >> (bit % 64) & 1 == 1
    }
}

/// Some words, as a set of 16 bits that may hold more: who may be the next. A word that begins one
/// phrase or two has mostly a next word that is not even in here.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextWords(u16);

impl NextWords {
    /// Adds a word.
    pub fn insert(&mut self, next: Hint) {
        self.0.bitor_assign(Self::bit(next));
    }

    #[inline]
    fn bit(next: Hint) -> u16 {
        1 << (next.0 >> (u64::BITS - 4))
    }

    /// Whether a word may be among them.
    #[inline]
    pub fn may_have(self, next: Hint) -> bool {
        self.0 & Self::bit(next) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(word: &str) -> Hint {
        Hint::of_word(word.as_bytes())
    }

    #[test]
    fn every_pair_is_there_and_few_others() {
        let mut neighbours = Neighbours::new();
        for (word, next, is_first) in [("traffic", "light", true), ("of", "war", false)] {
            neighbours.insert(hint(word), hint(next), is_first);
        }
        let may_have =
            |word, next: &str, is_first| neighbours.may_have(hint(word), hint(next), is_first);
        assert!(may_have("traffic", "light", true) && may_have("of", "war", false));
        assert!(!may_have("traffic", "light", false) && !may_have("of", "war", true));
        assert!(!may_have("light", "traffic", true) && !may_have("of", "light", false));
        let others = (0..10_000).filter(|i| may_have("traffic", &i.to_string(), true));
        assert!(others.count() < 10);
    }

    #[test]
    fn a_word_among_the_next_ones_is_found() {
        let mut next = NextWords::default();
        assert!(!next.may_have(hint("light")));
        next.insert(hint("light"));
        assert!(next.may_have(hint("light")));
        let others = (0..1000).filter(|i| next.may_have(hint(&i.to_string()))).count();
        assert!((20..120).contains(&others), "{others}");
    }
}
