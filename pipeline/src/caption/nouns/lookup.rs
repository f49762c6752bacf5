//! All that the rule `nouns` knows, worked out beforehand: tables of words, phrases and compounds.
//!
//! In: the rule. Out: an [`Entry`] for each word, a [`Together`] for words that are read as one.
//! Never: asks WordNet about a word that the tables have.
//!
//! What a word means is a function of the word alone, and so is what a phrase means. Both are asked
//! once for every form, when the first caption comes; [`Forms`] has them all.

use catlip_schemas::SynsetId;

use super::forms::{Forms, on_every_core};
use super::neighbours::{Hint, Neighbours, NextWords};
use super::phrases::{begins_phrase, meaning};
use super::tables::{Class, Tables};
use super::words::word;
use super::{COLOUR_JOINTS, DETERMINERS, Nouns, is_alive};
use crate::caption::fast::Word;
use crate::caption::lemmas::{may_have_more_endings, shorter_forms};
use crate::caption::word_table::WordTable;

/// What the rule knows of every word and every phrase.
#[derive(Clone, Debug)]
pub struct Lookup {
    words: WordTable<Entry>,
    /// Every form of a phrase, with `_` between its words; none if they are read one by one.
    phrases: WordTable<Option<Together>>,
    /// Compounds, with a blank between their halves.
    compounds: WordTable<Together>,
    /// The words that are read as one with the next.
    neighbours: Neighbours,
    senses_before_noun: WordTable<Option<Meaning>>,
}

/// What the rule knows of a word: 8 bytes, so that a slot of the table has 16.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// The offset of what it means; 0 if it is no label.
    offset: i32,
    /// As what it is kept.
    pub class: Option<Class>,
    flags: u8,
    /// Which words may be the second of a phrase or compound that begins with it.
    pub next: NextWords,
}

/// The word has an ending.
pub const HAS_ENDING: u8 = 1;
/// What it means is a living being.
pub const IS_ALIVE: u8 = 2;
/// It is a given name.
pub const IS_GIVEN_NAME: u8 = 4;
/// A plural before it is a verb.
pub const IS_DETERMINER: u8 = 8;
/// It is `and` or a comma.
pub const JOINS_COLOURS: u8 = 16;
/// It means another thing before a noun.
pub const CHANGES_BEFORE_NOUN: u8 = 32;
/// It is the first word of a phrase.
pub const BEGINS_PHRASE: u8 = 128;
/// It may have any neighbour: it has a quote or underscore, or endings behind the ending of a word.
pub const IS_ODD: u8 = 64;

/// A synset, and whether it is a living being.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// The synset.
    pub synset: SynsetId,
    /// Whether it is a living being or a group of them.
    pub is_alive: bool,
}

/// What words mean together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Together {
    /// What they mean; none for a phrase that gives no label.
    pub meaning: Option<Meaning>,
    /// What the last of them means, if the whole is a kind of that and it is not cut at a quote.
    pub head: Option<Meaning>,
}

impl Lookup {
    /// Asks `rule` about every form of every word and phrase.
    pub fn new(rule: &Nouns) -> Self {
        let mut forms = Forms::of(rule);
        let neighbours = forms.join_neighbours();
        let phrases = on_every_core(forms.phrases(), |joined| Together::of_phrase(rule, joined));
        let phrases = forms.phrases().iter().map(String::as_str).zip(phrases.iter().copied());
        let compounds = forms.compounds(rule);
        let compounds = compounds.iter().map(|(halves, together)| (halves.as_str(), *together));
        let before_noun = Tables::embedded().senses_before_noun.iter();
        let before_noun = before_noun.map(|(word, synset)| (*word, Some(Meaning::of(*synset))));
        Self {
            words: WordTable::new(forms.words()),
            phrases: WordTable::new(phrases),
            compounds: WordTable::new(compounds),
            neighbours,
            senses_before_noun: WordTable::new(before_noun),
        }
    }

    /// What the rule knows of a word that the scanner gives.
    #[inline]
    pub fn entry_of(&self, rule: &Nouns, word: Word<'_>) -> Entry {
        match word.look_up(&self.words) {
            Some(entry) => entry,
            None if word.is_plain() && !may_have_more_endings(word.letters()) => Entry::default(),
            None => self.rare_entry(rule, word.letters()),
        }
    }

    /// What the rule knows of any word.
    pub fn entry(&self, rule: &Nouns, letters: &[u8]) -> Entry {
        self.words.get(letters).unwrap_or_else(|| self.rare_entry(rule, letters))
    }

    /// What the rule knows of a word that is in no table.
    fn rare_entry(&self, rule: &Nouns, letters: &[u8]) -> Entry {
        let may_mean = letters.contains(&b'_')
            || shorter_forms(letters).any(|form| self.words.get(form).is_some());
        // No lemma has a character outside ASCII, for which letters may have other bytes.
        let entry = match str::from_utf8(letters) {
            Ok(token) if may_mean => Entry::of(rule, token),
            _ => Entry::default(),
        };
        // A form of it may be the last word of a phrase without being a word.
        let may_end_a_phrase = may_have_more_endings(letters);
        entry.odd_if(may_mean || may_end_a_phrase || letters.contains(&b'\''))
    }

    /// What words mean together that are joined by `_`, if they are a phrase.
    pub fn phrase(&self, rule: &Nouns, joined: Word<'_>) -> Option<Together> {
        let letters = joined.letters();
        let may_mean = || shorter_forms(letters).any(|form| self.phrases.get(form).is_some());
        match joined.look_up(&self.phrases) {
            Some(known) => known,
            None if may_mean() => Together::of_phrase(rule, str::from_utf8(letters).ok()?),
            None => None,
        }
    }

    /// Whether two words may be neighbours in a phrase, or as its first words also the halves of a
    /// compound.
    #[inline]
    pub fn may_be_neighbours(&self, words: [(Hint, Entry); 2], is_first: bool) -> bool {
        let [(word, entry), (next, next_entry)] = words;
        entry.is_odd_beside(next_entry) || self.neighbours.may_have(word, next, is_first)
    }

    /// What two nouns mean that are joined by a blank, if they are one word without it.
    pub fn compound(&self, joined: &[u8]) -> Option<Together> {
        self.compounds.get(joined)
    }

    /// What a word means before a noun, where that is another thing.
    pub fn sense_before_noun(&self, word: &[u8]) -> Option<Meaning> {
        self.senses_before_noun.get(word).flatten()
    }
}

impl Entry {
    /// What `rule` knows of a word.
    pub fn of(rule: &Nouns, form: &str) -> Self {
        let found = word(&rule.options, form).ok();
        let tables = Tables::embedded();
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(found.is_some_and(|found| found.has_ending), HAS_ENDING)
            | flag(found.is_some_and(|found| is_alive(found.synset)), IS_ALIVE)
            | flag(rule.is_given_name(form), IS_GIVEN_NAME)
            | flag(DETERMINERS.contains(&form), IS_DETERMINER)
            | flag(COLOUR_JOINTS.contains(&form), JOINS_COLOURS)
            | flag(tables.senses_before_noun.contains_key(form), CHANGES_BEFORE_NOUN)
            | flag(form.contains(['_', '\'']), IS_ODD)
            | flag(rule.options.phrases && begins_phrase(form), BEGINS_PHRASE);
        Self {
            offset: found.map_or(0, |found| found.synset.0),
            class: found.map(|found| found.class),
            flags,
            next: NextWords::default(),
        }
    }

    /// This entry, odd if `is_odd`.
    pub fn odd_if(self, is_odd: bool) -> Self {
        Self { flags: self.flags | if is_odd { IS_ODD } else { 0 }, ..self }
    }

    /// Whether a word may be the next after this one in a phrase or compound: a first guess.
    #[inline]
    pub fn may_come_before(self, next: Hint, next_entry: Self) -> bool {
        // Without a branch, which would be a guess.
        self.next.may_have(next) | self.is_odd_beside(next_entry)
    }

    #[inline]
    fn is_odd_beside(self, next: Self) -> bool {
        (self.flags | next.flags) & IS_ODD != 0
    }

    /// Whether one of `flags` is set.
    #[inline]
    pub fn has(self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// What it means, if it is a label.
    #[inline]
    pub fn meaning(self) -> Option<Meaning> {
        let meaning = Meaning { synset: SynsetId(self.offset), is_alive: self.has(IS_ALIVE) };
        (self.offset != 0).then_some(meaning)
    }
}

impl Meaning {
    /// `synset` with what WordNet has above it.
    pub fn of(synset: SynsetId) -> Self {
        Self { synset, is_alive: is_alive(synset) }
    }
}

impl Together {
    /// What `joined` means, if it is a phrase.
    pub fn of_phrase(rule: &Nouns, joined: &str) -> Option<Self> {
        let Some(synset) = meaning(&rule.options, joined)? else { return Some(Self::default()) };
        let last = joined.rsplit('_').next().unwrap_or_default();
        let head = rule.head_of(last, synset).map(Meaning::of);
        Some(Self { meaning: Some(Meaning::of(synset)), head })
    }

    /// What a compound means, by the entries of the whole and of its second half.
    pub fn of_compound(rule: &Nouns, whole: Entry, second: Entry) -> Self {
        let (meaning, head) = (whole.meaning(), second.meaning());
        let is_kind = |head: &Meaning| {
            meaning.is_some_and(|meaning| rule.is_head(head.synset, meaning.synset))
        };
        Self { meaning, head: head.filter(is_kind) }
    }
}
