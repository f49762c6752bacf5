//! Every form of a word, phrase or compound that the rule `nouns` knows, and what it knows of it.
//!
//! In: the rule. Out: [`Forms`], for the tables of `lookup`.
//! Never: asked about a caption.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::thread;

use foldhash::fast::FixedState;

use super::lookup::{Entry, Together};
use super::neighbours::{Hint, Neighbours};
use super::phrases::{phrase_forms, without_repeats};
use super::tables::{Class, Tables};
use super::{COLOUR_JOINTS, DETERMINERS, HALF_LETTERS_MIN, Nouns};
use crate::caption::lemmas::{forms_of, shorter_forms};
use crate::caption::word_table::WordTable;
use crate::caption::wordnet::WordNet;

/// Threads beyond which the tables are made no faster.
const THREADS_MAX: usize = 16;

/// All forms.
pub struct Forms {
    words: Vec<String>,
    entries: Vec<Entry>,
    /// Rows of `words`.
    rows: WordTable<u32>,
    phrases: Vec<String>,
    /// Two nouns that are one word when they are joined, by the row of that word and their border.
    compounds: Vec<(usize, usize)>,
}

impl Forms {
    /// Asks `rule` about every word.
    pub fn of(rule: &Nouns) -> Self {
        let phrases = if rule.options.phrases { phrase_forms() } else { Vec::new() };
        let words = word_forms(&phrases);
        let rows = WordTable::new(words.iter().map(String::as_str).zip(0..));
        // `heliothis ziass` is a phrase by way of `zias` and `zia`, neither of them a word.
        let lasts: HashSet<&str, FixedState> =
            phrases.iter().filter_map(|phrase| phrase.rsplit('_').next()).collect();
        let is_known = |form: &[u8]| {
            rows.get(form).is_some() || str::from_utf8(form).is_ok_and(|form| lasts.contains(form))
        };
        let ends_oddly = |word: &String| shorter_forms(word.as_bytes()).any(is_known);
        let entry = |word: &String| Entry::of(rule, word).odd_if(ends_oddly(word));
        let entries = on_every_core(&words, entry);
        let mut forms = Self { words, entries, rows, phrases, compounds: Vec::new() };
        if rule.options.compounds {
            forms.compounds = forms.find_compounds();
        }
        forms
    }

    /// Every word with what is known of it.
    pub fn words(&self) -> impl Iterator<Item = (&str, Entry)> + Clone {
        self.words.iter().map(String::as_str).zip(self.entries.iter().copied())
    }

    /// Every phrase with `_` between its words.
    pub fn phrases(&self) -> &[String] {
        &self.phrases
    }

    /// Every compound with a blank between its halves, and what it means.
    pub fn compounds(&self, rule: &Nouns) -> Vec<(String, Together)> {
        let compound = |&(row, border): &(usize, usize)| {
            let (first, second) = self.words[row].split_at(border);
            let second_entry = self.entry(second).unwrap_or_default();
            (
                format!("{first} {second}"),
                Together::of_compound(rule, self.entries[row], second_entry),
            )
        };
        on_every_core(&self.compounds, compound)
    }

    /// Every two words that are neighbours; each first word is told its next ones.
    pub fn join_neighbours(&mut self) -> Neighbours {
        let mut neighbours = Neighbours::new();
        let halves = self.compounds.iter().map(|&(row, border)| self.words[row].split_at(border));
        let halves = halves.map(|(first, second)| (first, true, second));
        let phrases = self.phrases.iter().flat_map(|phrase| neighbours_in(phrase));
        for (word, is_first, next) in phrases.chain(halves) {
            let next = Hint::of_word(next.as_bytes());
            neighbours.insert(Hint::of_word(word.as_bytes()), next, is_first);
            if is_first && let Some(row) = self.rows.get(word.as_bytes()) {
                self.entries[row as usize].next.insert(next);
            }
        }
        neighbours
    }

    fn entry(&self, word: &str) -> Option<Entry> {
        Some(self.entries[self.rows.get(word.as_bytes())? as usize])
    }

    fn find_compounds(&self) -> Vec<(usize, usize)> {
        let is_noun = |word| self.entry(word).is_some_and(|entry| entry.class == Some(Class::Noun));
        let mut compounds = Vec::new();
        for (row, word) in self.words.iter().enumerate() {
            if self.entries[row].meaning().is_none() {
                continue;
            }
            for border in HALF_LETTERS_MIN..word.len().saturating_sub(HALF_LETTERS_MIN - 1) {
                let (first, second) = word.split_at(border);
                if is_noun(first) && is_noun(second) {
                    compounds.push((row, border));
                }
            }
        }
        compounds
    }
}

/// What `make` makes of each of `items`, in their order. Not by rayon: its waiting threads might
/// begin other work, which waits for these very tables.
pub fn on_every_core<T: Sync, M: Send>(items: &[T], make: impl Fn(&T) -> M + Sync) -> Vec<M> {
    let num_threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let (make, share) = (&make, items.len().div_ceil(num_threads).max(1));
    thread::scope(|scope| {
        let shares = items.chunks(share);
        let made = shares.map(|items| scope.spawn(move || items.iter().map(make).collect()));
        let made: Vec<thread::ScopedJoinHandle<'_, Vec<M>>> = made.collect();
        made.into_iter()
            .flat_map(|share| share.join().unwrap_or_else(|p| resume_unwind(p)))
            .collect()
    })
}

/// Every form that the rule may know more of than that it is none, without repeats.
fn word_forms(phrases: &[String]) -> Vec<String> {
    let tables = Tables::embedded();
    let listed = tables.classes.keys().chain(tables.plurals.keys()).chain(tables.senses.keys());
    let names = tables.given_names.iter().chain(&tables.person_names);
    let listed = listed.chain(tables.senses_before_noun.keys()).chain(names);
    let listed = listed.chain(&DETERMINERS).chain(&COLOUR_JOINTS).copied();
    let first = phrases.iter().filter_map(|phrase| phrase.split(['_', '\'']).next());
    let more = listed.chain(first).filter(|form| !form.is_empty()).map(str::to_owned);
    without_repeats(forms_of(WordNet::embedded()).into_iter().chain(more))
}

/// The words of a phrase that stand side by side, and whether they are its first ones; without
/// clitics: what has a quote is odd.
fn neighbours_in(phrase: &str) -> impl Iterator<Item = (&str, bool, &str)> {
    phrase.match_indices('_').map(move |(at, _)| {
        let before = &phrase[..at];
        let word = before.rsplit('_').next().unwrap_or_default();
        let next = phrase[at + 1..].split(['_', '\'']).next().unwrap_or_default();
        (word, word.len() == at, next)
    })
}
