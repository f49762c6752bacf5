//! The rule `nouns` on the words of a usual caption, with all that it knows in two tables.
//!
//! In: a caption. Out: its synsets, exactly those of [`Nouns::readings`], or [`Unusual`]: then the
//! caller reads it by the rules. Never: asks WordNet about a word that the tables have.
//!
//! What a word means is a function of the word alone, and so is what a phrase means. Both are asked
//! once for every form, when the first caption comes.

use catlip_schemas::{SynsetId, Synsets};

use super::phrases::{PHRASE_BYTES_MAX, is_kind_of, longest_phrase, meaning, phrase_forms};
use super::tables::{Class, Tables};
use super::words::word;
use super::{ALIVE, DETERMINERS, HALF_LETTERS_MIN, Nouns};
use crate::caption::fast::{Unusual, Visitor, Word, is_space, words_then};
use crate::caption::lemmas::{forms_of, may_have_more_endings};
use crate::caption::word_table::WordTable;
use crate::caption::wordnet::WordNet;

/// Words of most captions.
const WORDS_USUAL: usize = 32;

/// Synsets of most captions.
const SYNSETS_USUAL: usize = 8;

/// What the rule knows of every word and every phrase.
#[derive(Clone, Debug)]
pub struct FastTables {
    words: WordTable<Entry>,
    phrases: WordTable<PhraseEntry>,
}

/// What the rule knows of a word.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The offset of what it means; 0 if it is no label.
    offset: i32,
    /// As what it is kept.
    class: Option<Class>,
    flags: u8,
    /// Words of the longest phrase that begins with it, at most 255.
    longest: u8,
}

/// The word has an ending.
const HAS_ENDING: u8 = 1;
/// What it means is a living being.
const IS_ALIVE: u8 = 2;
/// It is a given name.
const IS_GIVEN_NAME: u8 = 4;
/// A plural before it is a verb.
const IS_DETERMINER: u8 = 8;
/// It is `and`.
const IS_AND: u8 = 16;
/// It means another thing before a noun.
const CHANGES_BEFORE_NOUN: u8 = 32;

/// What a phrase means.
#[derive(Clone, Copy, Debug, Default)]
struct PhraseEntry {
    /// The offset of its synset; 0 if it gives no label.
    offset: i32,
    /// The offset of its last word if it is a kind of that, else 0.
    head: i32,
}

impl FastTables {
    /// Asks `rule` about every form of every word and phrase.
    pub fn new(rule: &Nouns) -> Self {
        let forms = word_forms();
        let entries: Vec<Entry> = forms.iter().map(|form| Entry::of(rule, form)).collect();
        let phrases = if rule.options.phrases { phrase_forms() } else { Vec::new() };
        let entry_of = |form: &String| PhraseEntry::of(rule, form);
        let known: Vec<Option<PhraseEntry>> = phrases.iter().map(entry_of).collect();
        let known =
            phrases.iter().zip(&known).filter_map(|(form, known)| Some((form.as_str(), (*known)?)));
        Self {
            words: WordTable::new(forms.iter().map(String::as_str).zip(entries.iter().copied())),
            phrases: WordTable::new(known),
        }
    }

    /// What a word outside of captions means; 0 if it is no label.
    fn entry(&self, rule: &Nouns, letters: &[u8]) -> Entry {
        self.words.get(letters).unwrap_or_else(|| rare_entry(rule, letters))
    }
}

/// Every form that the rule may know more of than that it is none, without repeats.
fn word_forms() -> Vec<String> {
    let tables = Tables::embedded();
    let listed = tables.classes.keys().chain(tables.plurals.keys()).chain(tables.senses.keys());
    let names = tables.given_names.iter().chain(&tables.person_names);
    let listed = listed.chain(tables.senses_before_noun.keys()).chain(names);
    let listed = listed.chain(&DETERMINERS).chain(&["and"]).map(|form| (*form).to_owned());
    let first = |phrase: String| phrase.split(['_', '\'']).next().map(str::to_owned);
    let first = phrase_forms().into_iter().filter_map(first);
    let mut forms = forms_of(WordNet::embedded());
    forms.extend(listed.chain(first).filter(|form| !form.is_empty()));
    forms.sort_unstable();
    forms.dedup();
    forms
}

impl Entry {
    fn of(rule: &Nouns, form: &str) -> Self {
        let found = word(&rule.options, form).ok();
        let tables = Tables::embedded();
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(found.is_some_and(|found| found.has_ending), HAS_ENDING)
            | flag(found.is_some_and(|found| is_alive(found.synset)), IS_ALIVE)
            | flag(rule.is_given_name(form), IS_GIVEN_NAME)
            | flag(DETERMINERS.contains(&form), IS_DETERMINER)
            | flag(form == "and", IS_AND)
            | flag(tables.senses_before_noun.contains_key(form), CHANGES_BEFORE_NOUN);
        Self {
            offset: found.map_or(0, |found| found.synset.0),
            class: found.map(|found| found.class),
            flags,
            longest: longest_phrase(form).min(usize::from(u8::MAX)) as u8,
        }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl PhraseEntry {
    /// What `joined` means, if it is a phrase.
    fn of(rule: &Nouns, joined: &str) -> Option<Self> {
        let Some(synset) = meaning(&rule.options, joined)? else { return Some(Self::default()) };
        let last = joined.rsplit('_').next().filter(|last| !last.contains('\''));
        let head = last.and_then(|last| rule.head_of(last, synset)).map_or(0, |head| head.0);
        Some(Self { offset: synset.0, head })
    }
}

fn is_alive(synset: SynsetId) -> bool {
    is_kind_of(WordNet::embedded(), synset, |above| ALIVE.contains(&above))
}

/// What a word means that is in no table.
fn rare_entry(rule: &Nouns, letters: &[u8]) -> Entry {
    // No lemma has a character outside ASCII, for which letters have other bytes.
    let is_rare = may_have_more_endings(letters) || letters.contains(&b'_');
    match str::from_utf8(letters) {
        Ok(token) if is_rare => Entry::of(rule, token),
        _ => Entry::default(),
    }
}

/// A word of the caption.
#[derive(Clone, Copy, Debug)]
struct Found {
    start: usize,
    end: usize,
    is_plain: bool,
    entry: Entry,
}

/// Collects the words of a caption.
struct Collected<'r> {
    rule: &'r Nouns,
    tables: &'r FastTables,
    words: Vec<Found>,
}

impl Visitor for Collected<'_> {
    #[inline]
    fn word(&mut self, word: Word<'_>) {
        let entry = word.look_up(&self.tables.words);
        let entry = entry.unwrap_or_else(|| rare_entry(self.rule, word.letters()));
        let place = word.place();
        let is_plain = word.is_plain();
        self.words.push(Found { start: place.start, end: place.end, is_plain, entry });
    }
}

/// The synsets of `caption` by `rule`, whose tables are `tables`.
///
/// # Errors
///
/// [`Unusual`]: only the rules know the synsets of this caption.
pub fn fast_synsets(rule: &Nouns, tables: &FastTables, caption: &str) -> Result<Synsets, Unusual> {
    let words = Vec::with_capacity(WORDS_USUAL);
    let mut collected = Collected { rule, tables, words };
    words_then(caption, &mut collected, |collected, letters| {
        let synsets = Vec::with_capacity(SYNSETS_USUAL);
        let words = &collected.words;
        Reader { rule, tables, letters, words, synsets, is_somebody: false }.read_all()
    })?
}

/// Reads the words of one caption.
struct Reader<'c> {
    rule: &'c Nouns,
    tables: &'c FastTables,
    letters: &'c [u8],
    words: &'c [Found],
    synsets: Vec<SynsetId>,
    /// A living being is among the synsets.
    is_somebody: bool,
}

impl Reader<'_> {
    fn read_all(mut self) -> Result<Synsets, Unusual> {
        let mut follows_given_name = false;
        let mut at = 0;
        while at < self.words.len() {
            let entry = self.words[at].entry;
            let num_words = self.phrase(at)?;
            if num_words > 0 {
                follows_given_name = false;
                at += num_words;
                continue;
            }
            let num_words = self.single(at, follows_given_name);
            // `john, dogs`: the comma is a token that is no surname.
            follows_given_name =
                num_words == 1 && entry.has(IS_GIVEN_NAME) && self.next(at).is_some();
            at += num_words;
        }
        Ok(Synsets(self.synsets))
    }

    fn push(&mut self, offset: i32, is_alive: impl FnOnce() -> bool) {
        self.synsets.push(SynsetId(offset));
        // Asked only of a caption that has not got one yet.
        self.is_somebody = self.is_somebody || is_alive();
    }

    fn letters_of(&self, at: usize) -> &[u8] {
        &self.letters[self.words[at].start..self.words[at].end]
    }

    /// What stands between the word and the next, if there is one.
    fn gap(&self, at: usize) -> Option<&[u8]> {
        let next = self.words.get(at + 1)?;
        Some(&self.letters[self.words[at].end..next.start])
    }

    /// The word behind the one at `at`, if no mark stands between.
    fn next(&self, at: usize) -> Option<Entry> {
        let is_joined = self.gap(at)?.iter().all(|&letter| is_space(letter));
        is_joined.then(|| self.words[at + 1].entry)
    }

    /// Takes the phrase that begins at `at`; its words, or 0 if there is none.
    fn phrase(&mut self, at: usize) -> Result<usize, Unusual> {
        let longest = usize::from(self.words[at].entry.longest);
        if longest < 2 || !self.rule.options.phrases {
            return Ok(0);
        }
        let mut joined = Joined::default();
        // The bytes of the joined words up to each of them.
        let mut ends = [0; u8::MAX as usize];
        let mut num_words = 0;
        while num_words < longest && at + num_words < self.words.len() {
            if num_words > 0 && self.next(at + num_words - 1).is_none() {
                // A quote alone is a token, which a phrase may have: `ladies' room`.
                let gap = self.gap(at + num_words - 1).unwrap_or_default();
                match gap.contains(&b'\'') {
                    true => return Err(Unusual::Quotes),
                    false => break,
                }
            }
            if !joined.push(self.letters_of(at + num_words)) {
                break;
            }
            ends[num_words] = joined.len;
            num_words += 1;
        }
        for num_words in (2..=num_words).rev() {
            let joined = &joined.bytes[..ends[num_words - 1]];
            if let Some(entry) = self.phrase_entry(joined) {
                if entry.offset != 0 {
                    self.push(entry.offset, || is_alive(SynsetId(entry.offset)));
                }
                if entry.head != 0 {
                    self.push(entry.head, || is_alive(SynsetId(entry.head)));
                }
                return Ok(num_words);
            }
        }
        Ok(0)
    }

    fn phrase_entry(&self, joined: &[u8]) -> Option<PhraseEntry> {
        let known = self.tables.phrases.get(joined);
        if known.is_some() || !may_have_more_endings(joined) {
            return known;
        }
        PhraseEntry::of(self.rule, str::from_utf8(joined).ok()?)
    }

    /// Takes the word at `at`, or the compound that begins there; its words.
    fn single(&mut self, at: usize, follows_given_name: bool) -> usize {
        let options = &self.rule.options;
        let entry = self.words[at].entry;
        let Some(class) = entry.class else {
            match self.rejoined(at) {
                Some(synset) => self.push(synset.0, || is_alive(synset)),
                None => self.push_parts(at),
            }
            return 1;
        };
        let is_verb = options.noun_filter
            && entry.has(HAS_ENDING)
            && self.next(at).is_some_and(|next| next.has(IS_DETERMINER));
        let is_of_a_thing = class == Class::Posture && !self.is_somebody;
        if follows_given_name || is_verb || is_of_a_thing {
            self.push_parts(at);
            return 1;
        }
        if options.compounds && class == Class::Noun && self.push_compound(at) {
            return 2;
        }
        match self.before_noun(at) {
            Some(synset) => self.push(synset.0, || is_alive(synset)),
            None => self.push(entry.offset, || entry.has(IS_ALIVE)),
        }
        1
    }

    /// Takes the words of a token that is no label as a whole.
    fn push_parts(&mut self, at: usize) {
        if self.words[at].is_plain || !self.rule.options.compounds {
            return;
        }
        let (rule, tables) = (self.rule, self.tables);
        let letters = self.letters_of(at).to_vec();
        for part in parts_of(&letters) {
            let entry = tables.entry(rule, part);
            if entry.offset != 0 {
                self.push(entry.offset, || entry.has(IS_ALIVE));
            }
        }
    }

    /// Takes the compound of two words, both of them nouns: `skate board`.
    fn push_compound(&mut self, at: usize) -> bool {
        let Some(second) = self.next(at).filter(|next| next.class == Some(Class::Noun)) else {
            return false;
        };
        let (first_letters, second_letters) = (self.letters_of(at), self.letters_of(at + 1));
        if first_letters.len().min(second_letters.len()) < HALF_LETTERS_MIN {
            return false;
        }
        let mut joined = Joined::default();
        if !(joined.append(first_letters) && joined.append(second_letters)) {
            // No lemma is as long.
            return false;
        }
        let entry = self.tables.entry(self.rule, &joined.bytes[..joined.len]);
        if entry.offset == 0 {
            return false;
        }
        self.push(entry.offset, || entry.has(IS_ALIVE));
        let (synset, head) = (SynsetId(entry.offset), SynsetId(second.offset));
        if self.rule.is_head(head, synset) {
            self.push(head.0, || is_alive(head));
        }
        true
    }

    /// See [`Nouns::before_noun`].
    fn before_noun(&self, at: usize) -> Option<SynsetId> {
        if !self.words[at].entry.has(CHANGES_BEFORE_NOUN) || !self.rule.options.senses {
            return None;
        }
        let class = |entry: Option<Entry>| entry.and_then(|entry| entry.class);
        let next = self.next(at);
        let joins_a_colour = match next {
            Some(next) => next.has(IS_AND) && class(self.next(at + 1)) == Some(Class::Colour),
            None => {
                let mark = |&&letter: &&u8| !is_space(letter);
                let is_comma = self.gap(at).is_some_and(|gap| gap.iter().filter(mark).eq(b","));
                is_comma && class(self.words.get(at + 1).map(|w| w.entry)) == Some(Class::Colour)
            }
        };
        let is_before = joins_a_colour || matches!(class(next), Some(Class::Noun | Class::Colour));
        let token = str::from_utf8(self.letters_of(at)).ok().filter(|_| is_before)?;
        Tables::embedded().senses_before_noun.get(token).copied()
    }

    /// See [`Nouns::rejoined`].
    fn rejoined(&self, at: usize) -> Option<SynsetId> {
        let letters = self.letters_of(at);
        if self.words[at].is_plain || !self.rule.options.compounds || !letters.contains(&b'-') {
            return None;
        }
        let token = str::from_utf8(letters).ok()?;
        let is_odd = token.starts_with('-')
            || token.ends_with('-')
            || token.contains("--")
            || token.contains('\'');
        if is_odd || letters.len() > PHRASE_BYTES_MAX {
            return self.rule.rejoined(token);
        }
        let mut joined = Joined::default();
        let first = token.split('-').next().unwrap_or_default().as_bytes();
        if self.rule.options.phrases
            && usize::from(self.tables.entry(self.rule, first).longest) >= token.split('-').count()
            && token.split('-').all(|half| joined.push(half.as_bytes()))
            && let Some(entry) = self.phrase_entry(&joined.bytes[..joined.len])
        {
            return Some(SynsetId(entry.offset)).filter(|synset| synset.0 != 0);
        }
        let mut joined = Joined::default();
        if !token.split('-').all(|half| joined.append(half.as_bytes())) {
            return self.rule.rejoined(token);
        }
        let entry = self.tables.entry(self.rule, &joined.bytes[..joined.len]);
        Some(SynsetId(entry.offset)).filter(|synset| synset.0 != 0)
    }
}

/// See [`super::parts`]; no curly quote is left among letters.
fn parts_of(letters: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = letters.split(|letter| matches!(letter, b'/' | b'|' | b'_' | b'\''));
    parts.filter(|part| !part.is_empty() && part.len() < letters.len())
}

/// Bytes of joined words: those of the longest phrase with a `_` before every word but the first.
const JOINED_BYTES_MAX: usize = 2 * PHRASE_BYTES_MAX;

/// Words that are being joined.
struct Joined {
    bytes: [u8; JOINED_BYTES_MAX],
    len: usize,
}

impl Default for Joined {
    fn default() -> Self {
        Self { bytes: [0; JOINED_BYTES_MAX], len: 0 }
    }
}

impl Joined {
    /// Adds a word with `_` before it; a clitic stands at its word. Whether there was room.
    fn push(&mut self, word: &[u8]) -> bool {
        let is_apart = self.len > 0 && !word.starts_with(b"'");
        (!is_apart || self.append(b"_")) && self.append(word)
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        true
    }
}

#[cfg(test)]
#[path = "fast_tests.rs"]
mod tests;
