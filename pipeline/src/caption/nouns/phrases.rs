//! Words that mean one thing together: `hot dog`, `traffic light`, `fire hydrant`.
//!
//! In: tokens. Out: at each token the longest phrase that begins there.
//! Never: joins across a punctuation mark, which is a token of its own.

use std::collections::HashSet;
use std::sync::LazyLock;

use catlip_schemas::SynsetId;
use foldhash::fast::FixedState;

use super::NounsOptions;
use super::tables::{Map, Phrase, Set, Tables};
use crate::caption::lemmas::{lemmatize, plurals_of};
use crate::caption::wordnet::WordNet;

/// Bytes of a phrase; WordNet's longest lemma has 71, and a plural has two more.
pub const PHRASE_BYTES_MAX: usize = 73;

/// Words that begin or end no phrase: WordNet has `the_street`, `looking_at`, `in_time`.
const FUNCTION_WORDS: [&str; 40] = [
    "a", "about", "all", "an", "and", "are", "as", "at", "away", "be", "by", "down", "for", "from",
    "her", "his", "in", "into", "is", "it", "its", "me", "my", "of", "off", "on", "onto", "or",
    "our", "out", "over", "that", "the", "their", "this", "to", "under", "up", "with", "your",
];

/// Words for how a thing looks: with them a phrase must be a kind of its last word, else it is an
/// idiom. A `black bear` is a bear; WordNet's `black cat` is no cat, its `white horse` a wave.
const LOOKS: [&str; 23] = [
    "big", "black", "blue", "brown", "dark", "dirty", "gray", "green", "grey", "large", "little",
    "long", "old", "orange", "pink", "purple", "red", "short", "small", "tall", "white", "yellow",
    "young",
];

/// A phrase of a caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its tokens.
    pub num_tokens: usize,
    /// What they mean together; none for a phrase that gives no label.
    pub synset: Option<SynsetId>,
}

/// Every phrase by its first word.
struct Phrases {
    /// Tokens of the longest phrase that begins with a word.
    longest: Map<usize>,
    /// WordNet's lemmas of several words that are phrases in captions, with `_`.
    lemmas: Set,
}

static PHRASES: LazyLock<Phrases> = LazyLock::new(|| {
    let (wordnet, tables) = (WordNet::embedded(), Tables::embedded());
    let mut phrases = Phrases { longest: Map::default(), lemmas: Set::default() };
    for lemma in wordnet.noun_lemmas() {
        if lemma.contains('_') && is_phrase(wordnet, lemma) {
            phrases.lemmas.insert(lemma);
            phrases.note_length(lemma, '_');
        }
    }
    for phrase in tables.phrases.keys() {
        phrases.note_length(phrase, ' ');
    }
    phrases
});

impl Phrases {
    fn note_length(&mut self, phrase: &'static str, blank: char) {
        let first = phrase.split([blank, '\'']).next().unwrap_or_default();
        let num_tokens = phrase.split([blank, '\'']).count();
        let longest = self.longest.entry(first).or_default();
        *longest = num_tokens.max(*longest);
    }
}

/// Whether a lemma of several words is meant where captions have these words in a row. A number
/// makes it a date, which WordNet has for the day's feast: `march_19` is Saint Joseph.
fn is_phrase(wordnet: &WordNet, lemma: &str) -> bool {
    let first = lemma.split('_').next().unwrap_or_default();
    let last = lemma.rsplit('_').next().unwrap_or_default();
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    if [first, last].iter().any(|word| FUNCTION_WORDS.contains(word) || is_number(word)) {
        return false;
    }
    !LOOKS.contains(&first) || is_kind_of_its_last_word(wordnet, lemma, last)
}

/// Whether the first sense of `lemma` lies below a sense of its last word, or is that of a place,
/// which has nothing above it but `city` and the like: `new york`.
fn is_kind_of_its_last_word(wordnet: &WordNet, lemma: &str, last: &str) -> bool {
    let Some(synset) = wordnet.first_sense(lemma) else { return false };
    !wordnet.is_noun_lemma(last)
        || wordnet.is_kind_of(synset, |above| wordnet.senses(last).any(|sense| sense == above))
}

/// The longest phrase that begins with the first of `tokens`. Takes time by the longest lemma, not
/// by the tokens.
pub fn phrase(options: &NounsOptions, tokens: &[String]) -> Option<Match> {
    let longest = *PHRASES.longest.get(tokens.first()?.as_str())?;
    let mut num_bytes = 0;
    let is_short = |token: &&String| {
        num_bytes += token.len();
        num_bytes <= PHRASE_BYTES_MAX
    };
    let longest = tokens.iter().take(longest).take_while(is_short).count();
    (2..=longest).rev().find_map(|num_tokens| {
        let synset = meaning(options, &join(&tokens[..num_tokens]))?;
        Some(Match { num_tokens, synset })
    })
}

/// Whether a phrase begins with `first`.
pub fn begins_phrase(first: &str) -> bool {
    PHRASES.longest.contains_key(first)
}

/// Every form that one step may bring to a phrase, with `_` between its words.
pub fn phrase_forms() -> Vec<String> {
    let irregular = WordNet::embedded().irregular_forms().filter(|form| form.contains('_'));
    let listed = Tables::embedded().phrases.keys().map(|phrase| phrase.replace(' ', "_"));
    let lemmas = PHRASES.lemmas.iter().map(|lemma| (*lemma).to_owned()).chain(listed);
    let lemmas: Vec<String> = lemmas.collect();
    let plurals = lemmas.iter().flat_map(|lemma| plurals_of(lemma)).collect::<Vec<_>>();
    without_repeats(irregular.map(str::to_owned).chain(plurals).chain(lemmas))
}

/// Each of `forms` once, in no order.
pub fn without_repeats(forms: impl Iterator<Item = String>) -> Vec<String> {
    forms.collect::<HashSet<_, FixedState>>().into_iter().collect()
}

/// Tokens with `_` between them; a clitic stands at its word: `man's_clothing`.
fn join(tokens: &[String]) -> String {
    let mut joined = String::new();
    for token in tokens {
        if !joined.is_empty() && !token.starts_with('\'') {
            joined.push('_');
        }
        joined.push_str(token);
    }
    joined
}

/// What a phrase means: a synset, or no label; none if it is no phrase.
pub fn meaning(options: &NounsOptions, joined: &str) -> Option<Option<SynsetId>> {
    let (wordnet, tables) = (WordNet::embedded(), Tables::embedded());
    let lemma = match PHRASES.lemmas.get(joined) {
        Some(lemma) => *lemma,
        None => &*lemmatize(wordnet, joined),
    };
    let forms = [joined, lemma].into_iter().take(if lemma == joined { 1 } else { 2 });
    let listed = { forms }.find_map(|form| tables.phrases.get(&*form.replace('_', " ")));
    let wordnet_sense = || PHRASES.lemmas.contains(lemma).then(|| wordnet.first_sense(lemma));
    match listed {
        Some(Phrase::Apart) => None,
        Some(Phrase::Nothing) => Some(None),
        // A phrase that WordNet has otherwise is a mended sense, one that it lacks is a phrase.
        Some(Phrase::Synset(_)) if !options.senses && wordnet.is_noun_lemma(lemma) => {
            wordnet_sense()
        }
        Some(Phrase::Synset(synset)) => Some(Some(*synset)),
        None => wordnet_sense(),
    }
}
