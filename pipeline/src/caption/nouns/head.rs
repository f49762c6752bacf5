//! The rule `nouns` on the words of a caption, with all that it knows in tables.
//!
//! In: a caption. Out: its synsets, exactly those of [`Nouns::readings`], or [`Unusual`]: then the
//! caller cuts it by the rules and gives its tokens. Never: asks WordNet about a word that the
//! tables have, or joins words that are neighbours in no phrase.

use catlip_schemas::{SynsetId, Synsets};

use super::collected::{Collected, Found, Gap};
use super::lookup::{
    BEGINS_PHRASE, CHANGES_BEFORE_NOUN, Entry, HAS_ENDING, IS_DETERMINER, IS_GIVEN_NAME, IS_ODD,
    JOINS_COLOURS, Lookup, Meaning, Together,
};
use super::phrases::PHRASE_BYTES_MAX;
use super::tables::Class;
use super::{HALF_LETTERS_MIN, Nouns};
use crate::caption::fast::{PADDING, Unusual, Word, is_space, words_then};
use crate::caption::lemmas::may_have_more_endings;

/// Synsets of most captions.
const SYNSETS_USUAL: usize = 8;

/// The synsets of `caption` by `rule`, whose tables are `lookup`.
///
/// # Errors
///
/// [`Unusual`]: only the rules know how to cut this caption into tokens.
pub fn fast_synsets(rule: &Nouns, lookup: &Lookup, caption: &str) -> Result<Synsets, Unusual> {
    words_then(caption, &mut Collected::new(rule, lookup), |collected, letters| {
        Reader::new(rule, lookup, letters, &collected.words).read_all()
    })?
}

/// The synsets of a caption that is cut into `tokens`.
pub fn synsets_of(rule: &Nouns, lookup: &Lookup, tokens: &[String]) -> Synsets {
    let mut letters = tokens.join(" ").into_bytes();
    letters.resize(letters.len() + PADDING, 0);
    let mut collected = Collected::new(rule, lookup);
    let mut start = 0;
    for token in tokens {
        let end = start + token.len();
        collected.word(Word::at(&letters, start..end));
        start = end + 1;
    }
    let synsets = Reader::new(rule, lookup, &letters, &collected.words).read_all();
    synsets.unwrap_or_else(|_| rule.literal_synsets_of(tokens))
}

/// Reads the words of one caption.
struct Reader<'c> {
    rule: &'c Nouns,
    lookup: &'c Lookup,
    /// The letters of the caption, then [`PADDING`] bytes or more.
    letters: &'c [u8],
    /// Tokens of marks are among them, or the gaps tell of marks.
    words: &'c [Found],
    synsets: Vec<SynsetId>,
    /// A living being is among the synsets.
    is_somebody: bool,
}

impl<'c> Reader<'c> {
    fn new(rule: &'c Nouns, lookup: &'c Lookup, letters: &'c [u8], words: &'c [Found]) -> Self {
        let synsets = Vec::with_capacity(SYNSETS_USUAL);
        Self { rule, lookup, letters, words, synsets, is_somebody: false }
    }

    fn read_all(mut self) -> Result<Synsets, Unusual> {
        let mut follows_given_name = false;
        let mut at = 0;
        while at < self.words.len() {
            let num_words = self.phrase(at)?;
            if num_words > 0 {
                follows_given_name = false;
                at += num_words;
                continue;
            }
            let num_words = self.single(at, follows_given_name);
            // `john, dogs`: the comma is a token that is no surname.
            follows_given_name = self.words[at].entry.has(IS_GIVEN_NAME)
                && num_words == 1
                && self.next(at).is_some();
            at += num_words;
        }
        Ok(Synsets(self.synsets))
    }

    fn push(&mut self, meaning: Meaning) {
        self.synsets.push(meaning.synset);
        self.is_somebody |= meaning.is_alive;
    }

    fn push_together(&mut self, together: Together) {
        together.meaning.into_iter().chain(together.head).for_each(|meaning| self.push(meaning));
    }

    fn letters_of(&self, at: usize) -> &'c [u8] {
        &self.letters[self.words[at].place()]
    }

    /// The word behind the one at `at`, if no mark stands between.
    #[inline]
    fn next(&self, at: usize) -> Option<&'c Found> {
        self.words.get(at + 1).filter(|next| next.gap == Gap::Blank)
    }

    /// Takes the phrase that begins at `at`; its words, or 0 if there is none.
    #[inline]
    fn phrase(&mut self, at: usize) -> Result<usize, Unusual> {
        let [word, next, ..] = &self.words[at..] else { return Ok(0) };
        if !word.entry.has(BEGINS_PHRASE) {
            return Ok(0);
        }
        match next.gap {
            Gap::Quote => Err(Unusual::Quotes),
            Gap::Blank if next.may_join && self.may_begin([word, next]) => {
                let num_words = self.words_of_phrase(at)?;
                Ok(self.longest_phrase(&self.words[at..at + num_words]))
            }
            _ => Ok(0),
        }
    }

    /// Whether two words, of which the second may join the first, may begin a phrase or be a
    /// compound.
    #[inline]
    fn may_begin(&self, words: [&Found; 2]) -> bool {
        self.lookup.may_be_neighbours(words.map(Found::known), true)
    }

    /// How many words from the one at `at` may be a phrase; the first two may.
    fn words_of_phrase(&self, at: usize) -> Result<usize, Unusual> {
        let mut num_bytes = self.letters_of(at).len() + self.letters_of(at + 1).len();
        let mut last = at + 1;
        while let [word, next, ..] = &self.words[last..] {
            num_bytes += next.place().len();
            match next.gap {
                Gap::Quote => return Err(Unusual::Quotes),
                Gap::Blank
                    if num_bytes <= PHRASE_BYTES_MAX
                        && self.lookup.may_be_neighbours([word, next].map(Found::known), false) =>
                {
                    last += 1;
                }
                _ => break,
            }
        }
        Ok(last + 1 - at)
    }

    /// Takes the longest phrase that `words` begin with; its words, or 0 if there is none.
    fn longest_phrase(&mut self, words: &[Found]) -> usize {
        let mut joined = Joined::default();
        // The bytes of the joined words up to each of them.
        let mut ends = [0; PHRASE_BYTES_MAX];
        for (word, end) in words.iter().zip(&mut ends) {
            if !joined.push(self.letters, word.place()) {
                return 0;
            }
            *end = joined.len;
        }
        for num_words in (2..=words.len().min(ends.len())).rev() {
            let joined = Word::at(&joined.bytes, 0..ends[num_words - 1]);
            if let Some(phrase) = self.lookup.phrase(self.rule, joined) {
                self.push_together(phrase);
                return num_words;
            }
        }
        0
    }
