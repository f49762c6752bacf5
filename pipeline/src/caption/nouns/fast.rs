//! The rule `nouns` on the words of a caption, with all that it knows in tables.
//!
//! In: a caption. Out: its synsets, exactly those of [`Nouns::readings`], or [`Unusual`]: then the
//! caller cuts it by the rules and gives its tokens. Never: asks WordNet about a word that the
//! tables have, or joins words that are neighbours in no phrase.

use std::ops::Range;

use catlip_schemas::{SynsetId, Synsets};

use super::collected::{Collected, Found, Gap};
use super::lookup::{
    BEGINS_PHRASE, CHANGES_BEFORE_NOUN, HAS_ENDING, IS_DETERMINER, IS_GIVEN_NAME, IS_ODD,
    JOINS_COLOURS, Lookup, Meaning, Together,
};
use super::phrases::PHRASE_BYTES_MAX;
use super::tables::Class;
use super::{HALF_LETTERS_MIN, Nouns};
use crate::caption::fast::{PADDING, Unusual, Visitor, Word, is_space, words_then};
use crate::caption::lemmas::may_have_more_endings;

/// Synsets of most captions.
const SYNSETS_USUAL: usize = 8;

/// Words of a phrase at most; WordNet's longest has nine.
const PHRASE_WORDS_MAX: usize = 16;

/// Bytes of a joined phrase: its words, a `_` before each, and what is written behind it.
const JOINED_BYTES_MAX: usize = PHRASE_BYTES_MAX + PHRASE_WORDS_MAX + PADDING;

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
        let is_plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric());
        collected.word(Word::at(&letters, start..end, is_plain));
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
        let [word, next, ..] = &self.words[at..] else {
            let begins_phrase = self.words[at].entry.has(BEGINS_PHRASE);
            return if begins_phrase { self.not_before_quote().map(|()| 0) } else { Ok(0) };
        };
        if next.may_join {
            if word.entry.has(BEGINS_PHRASE) && self.may_begin([word, next]) {
                let num_words = self.words_of_phrase(at)?;
                return Ok(self.longest_phrase(&self.words[at..at + num_words]));
            }
        } else if next.gap == Gap::Quote && word.entry.has(BEGINS_PHRASE) {
            // A quote alone is a token, which a phrase may have: `ladies' room`.
            return Err(Unusual::Quotes);
        }
        Ok(0)
    }

    /// Whether two words, of which the second may join the first, may begin a phrase or be a
    /// compound.
    #[inline]
    fn may_begin(&self, words: [&Found; 2]) -> bool {
        self.lookup.may_be_neighbours(words.map(Found::known), true)
    }

    /// How many words from the one at `at` may be a phrase; the first two may.
    fn words_of_phrase(&self, at: usize) -> Result<usize, Unusual> {
        let mut num_bytes = self.letters_of(at).len();
        for num_words in 1..PHRASE_WORDS_MAX {
            let Some([word, next]) = self.words[at + num_words - 1..].first_chunk() else {
                return self.not_before_quote().map(|()| num_words);
            };
            let goes_on = match next.gap {
                Gap::Quote => return Err(Unusual::Quotes),
                Gap::Marks => false,
                Gap::Blank if num_words == 1 => true,
                Gap::Blank => self.lookup.may_be_neighbours([word, next].map(Found::known), false),
            };
            num_bytes += next.place().len();
            if !goes_on || num_bytes > PHRASE_BYTES_MAX {
                return Ok(num_words);
            }
        }
        Ok(PHRASE_WORDS_MAX)
    }

    /// That no quote stands behind the last word, as in `april fools'`.
    fn not_before_quote(&self) -> Result<(), Unusual> {
        let end = self.words.last().map_or(0, |word| word.place().end);
        let mut behind = self.letters[end..].iter().take_while(|&&letter| letter != 0);
        if behind.any(|&letter| letter == b'\'') { Err(Unusual::Quotes) } else { Ok(()) }
    }

    /// Takes the longest phrase that `words` begin with; its words, or 0 if there is none.
    fn longest_phrase(&mut self, words: &[Found]) -> usize {
        let mut joined = Joined { bytes: [0; JOINED_BYTES_MAX], len: 0 };
        // The bytes of the joined words up to each of them.
        let mut ends = [0; PHRASE_WORDS_MAX];
        for (word, end) in words.iter().zip(&mut ends) {
            joined.push(self.letters, word.place());
            *end = joined.len;
        }
        for num_words in (2..=words.len()).rev() {
            let joined = Word::at(&joined.bytes, 0..ends[num_words - 1], false);
            if let Some(mut phrase) = self.lookup.phrase(self.rule, joined) {
                // The last word of `mcdonald's` is a clitic, that of `solomon's-seal` is not.
                let last = &self.letters[words[num_words - 1].place()];
                phrase.head = phrase.head.filter(|_| !last.starts_with(b"'"));
                self.push_together(phrase);
                return num_words;
            }
        }
        0
    }

    /// Takes the word at `at`, or the compound that begins there; its words.
    #[inline]
    fn single(&mut self, at: usize, follows_given_name: bool) -> usize {
        let options = &self.rule.options;
        let Found { entry, is_plain, .. } = self.words[at];
        let Some(class) = entry.class else {
            if !is_plain && options.compounds {
                self.push_odd(at);
            }
            return 1;
        };
        let next = self.next(at);
        let is_verb = options.noun_filter
            && entry.has(HAS_ENDING)
            && next.is_some_and(|next| next.entry.has(IS_DETERMINER));
        let is_of_a_thing = class == Class::Posture && !self.is_somebody;
        if follows_given_name || is_verb || is_of_a_thing {
            if !is_plain && options.compounds {
                self.push_parts(at);
            }
            return 1;
        }
        if options.compounds
            && class == Class::Noun
            && next.is_some_and(|next| next.entry.class == Some(Class::Noun))
            && self.push_compound(at)
        {
            return 2;
        }
        if let Some(meaning) = self.before_noun(at).or_else(|| entry.meaning()) {
            self.push(meaning);
        }
        1
    }

    /// Takes a token that is no label as it stands.
    fn push_odd(&mut self, at: usize) {
        match self.rejoined(at) {
            Some(meaning) => self.push(meaning),
            None => self.push_parts(at),
        }
    }

    /// Takes the words of a token that is no label as a whole.
    fn push_parts(&mut self, at: usize) {
        for part in parts_of(self.letters_of(at)) {
            if let Some(meaning) = self.lookup.entry(self.rule, part).meaning() {
                self.push(meaning);
            }
        }
    }

    /// Takes the compound of two words, both of them nouns: `skate board`.
    fn push_compound(&mut self, at: usize) -> bool {
        let [word, next] = [&self.words[at], &self.words[at + 1]];
        let [first, second] = [self.letters_of(at), self.letters_of(at + 1)];
        // A compound with more endings is in no table; `ens` may be a part of one.
        let is_odd = may_have_more_endings(second) || second == b"ens" || word.entry.has(IS_ODD);
        let may_be_one = is_odd || next.may_join && self.may_begin([word, next]);
        if !may_be_one || first.len().min(second.len()) < HALF_LETTERS_MIN {
            return false;
        }
        let known = self.lookup.compound(&[first, b" ", second].concat());
        let rare = || {
            let whole = self.lookup.entry(self.rule, &[first, second].concat());
            whole.meaning()?;
            Some(Together::of_compound(self.rule, whole, next.entry))
        };
        let found = known.or_else(|| is_odd.then(rare).flatten());
        found.into_iter().for_each(|together| self.push_together(together));
        found.is_some()
    }

    /// See [`Nouns::before_noun`].
    #[inline]
    fn before_noun(&self, at: usize) -> Option<Meaning> {
        if !self.words[at].entry.has(CHANGES_BEFORE_NOUN) || !self.rule.options.senses {
            return None;
        }
        let class = |found: Option<&Found>| found.and_then(|found| found.entry.class);
        let next = self.next(at);
        let joins_a_colour = match next {
            Some(next) => {
                next.entry.has(JOINS_COLOURS) && class(self.next(at + 1)) == Some(Class::Colour)
            }
            None => self.words.get(at + 1).is_some_and(|next| {
                let gap = &self.letters[self.words[at].place().end..next.place().start];
                let marks = gap.iter().filter(|&&letter| !is_space(letter));
                marks.eq(b",") && next.entry.class == Some(Class::Colour)
            }),
        };
        let is_before = joins_a_colour || matches!(class(next), Some(Class::Noun | Class::Colour));
        self.lookup.sense_before_noun(self.letters_of(at)).filter(|_| is_before)
    }

    /// See [`Nouns::rejoined`].
    fn rejoined(&self, at: usize) -> Option<Meaning> {
        let letters = self.letters_of(at);
        if !letters.contains(&b'-') {
            return None;
        }
        let token = str::from_utf8(letters).ok()?;
        let is_odd = token.starts_with('-')
            || token.ends_with('-')
            || token.contains("--")
            || token.contains('\'');
        if is_odd || letters.len() > PHRASE_BYTES_MAX {
            return self.rule.rejoined(token).map(Meaning::of);
        }
        let first = token.split('-').next().unwrap_or_default().as_bytes();
        if self.lookup.entry(self.rule, first).has(BEGINS_PHRASE) {
            let joined = token.replace('-', "_").into_bytes();
            let joined = Word::at(&joined, 0..joined.len(), false);
            if let Some(phrase) = self.lookup.phrase(self.rule, joined) {
                return phrase.meaning;
            }
        }
        let joined: Vec<u8> = letters.iter().copied().filter(|&letter| letter != b'-').collect();
        self.lookup.entry(self.rule, &joined).meaning()
    }
}

/// Words of a phrase that are being joined.
struct Joined {
    bytes: [u8; JOINED_BYTES_MAX],
    len: usize,
}

impl Joined {
    /// Adds the word at `place` with `_` before it; a clitic stands at its word.
    fn push(&mut self, letters: &[u8], place: Range<usize>) {
        let word = &letters[place.clone()];
        if self.len > 0 && !word.starts_with(b"'") {
            self.bytes[self.len] = b'_';
            self.len += 1;
        }
        let from = letters[place.start..].first_chunk::<PADDING>();
        match (from, self.bytes[self.len..].first_chunk_mut::<PADDING>()) {
            // As many bytes for any short word; those behind it are not read.
            (Some(from), Some(to)) if word.len() <= PADDING => *to = *from,
            _ => self.bytes[self.len..self.len + word.len()].copy_from_slice(word),
        }
        self.len += word.len();
    }
}

/// See [`super::parts`]; cleaning leaves no curly quote.
fn parts_of(letters: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = letters.split(|letter| matches!(letter, b'/' | b'|' | b'_' | b'\''));
    parts.filter(|part| !part.is_empty() && part.len() < letters.len())
}

#[cfg(test)]
#[path = "fast_tests.rs"]
mod tests;
