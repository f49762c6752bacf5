//! What one word means: a pure function of the word, so that it can be worked out beforehand.
//!
//! In: a lower-case token. Out: the synset of the thing that it names, if it names one.
//! Never: looks at the words around it.

use std::borrow::Cow;

use catlip_schemas::SynsetId;

use super::NounsOptions;
use super::tables::{Class, Tables};
use crate::caption::explain::Outcome;
use crate::caption::lemmas::lemmatize;
use crate::caption::wordnet::WordNet;

/// Share of a word's times in MASC from which it is a noun.
const NOUN_SHARE_MIN: f64 = 0.5;

/// Times in MASC below which a form borrows those of its lemma: `chases` came once.
const FORM_TIMES_MIN: u32 = 3;

/// Words of fewer letters are units, symbols and parts of names: `m`, `co`, `st`.
const LETTERS_MIN: usize = 3;

/// A word that is a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it means.
    pub synset: SynsetId,
    /// As what it is kept.
    pub class: Class,
    /// Whether it has an ending: a plural, or a verb that looks like one.
    pub has_ending: bool,
}

/// The meaning of `token`.
///
/// # Errors
///
/// Why it is no label.
pub fn word(options: &NounsOptions, token: &str) -> Result<Word, Outcome> {
    let (wordnet, tables) = (WordNet::embedded(), Tables::embedded());
    if !token.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return Err(Outcome::unknown(token));
    }
    let plural = options.plurals.then(|| tables.plurals.get(token).copied()).flatten();
    let lemma = lemma(options, token);
    if plural.is_none() && !wordnet.is_noun_lemma(&lemma) {
        return Err(Outcome::unknown(token));
    }
    let class = class(options, token, &lemma);
    if class == Class::Other {
        return Err(Outcome::SeldomNoun);
    }
    let mended = options
        .senses
        .then(|| tables.senses.get(token).or_else(|| tables.senses.get(&*lemma)).copied())
        .flatten();
    if options.names && is_name(tables, token, &lemma, plural.or(mended).is_some()) {
        return Err(Outcome::PersonName);
    }
    let sense = plural.or(mended).or_else(|| wordnet.first_sense(&lemma));
    let synset = sense.ok_or_else(|| Outcome::unknown(token))?;
    let heads_its_synset = || wordnet.head_lemma(synset) == Some(&*lemma);
    let has_ending = token.ends_with('s') && lemma != token;
    if !options.synonyms && !heads_its_synset() {
        return Err(Outcome::OtherName);
    }
    Ok(Word { synset, class, has_ending })
}

/// The base form of `token`: the shortest lemma, but no ending is taken from what is no plural.
fn lemma<'a>(options: &NounsOptions, token: &'a str) -> Cow<'a, str> {
    let is_singular = ["ss", "us", "is"].iter().any(|ending| token.ends_with(ending));
    if options.plurals && is_singular && WordNet::embedded().is_noun_lemma(token) {
        return Cow::Borrowed(token);
    }
    lemmatize(WordNet::embedded(), token)
}

/// As what a word is kept, or [`Class::Other`] if it is dropped.
fn class(options: &NounsOptions, token: &str, lemma: &str) -> Class {
    let tables = Tables::embedded();
    let listed = tables.classes.get(token).copied();
    // A form that is well known speaks for itself: `shows` is a verb, whatever `show` is.
    let is_well_known =
        || tables.noun_shares.get(token).is_some_and(|&(_, times)| times >= FORM_TIMES_MIN);
    let listed = listed.or_else(|| tables.classes.get(lemma).filter(|_| !is_well_known()).copied());
    let is_kept = match listed {
        Some(Class::Colour) => options.colours,
        Some(Class::Numeral) => options.numerals,
        Some(Class::Activity | Class::Posture) => options.activities,
        Some(Class::Noun) => true,
        Some(Class::Other) | None => false,
    };
    match listed {
        Some(class) if is_kept => class,
        _ if !options.noun_filter => listed.filter(|&c| c != Class::Other).unwrap_or(Class::Noun),
        Some(Class::Other) => Class::Other,
        _ if token.len() < LETTERS_MIN => Class::Other,
        _ if noun_share(tables, token, lemma).is_some_and(|share| share < NOUN_SHARE_MIN) => {
            Class::Other
        }
        _ => Class::Noun,
    }
}

/// How often a word is a noun, 0 to 1; none for a word that MASC does not have.
fn noun_share(tables: &Tables, token: &str, lemma: &str) -> Option<f64> {
    let share = |word| tables.noun_shares.get(word).copied().unwrap_or_default();
    let (mut nouns, mut times) = share(token);
    if times < FORM_TIMES_MIN && lemma != token {
        let (lemma_nouns, lemma_times) = share(lemma);
        nouns += lemma_nouns;
        times += lemma_times;
    }
    (times > 0).then(|| f64::from(nouns) / f64::from(times))
}

/// Whether a word is a part of somebody's name: WordNet's person is hardly ever the one meant.
fn is_name(tables: &Tables, token: &str, lemma: &str, is_mended: bool) -> bool {
    tables.given_names.contains(token)
        || !is_mended
            && (tables.person_names.contains(token) || tables.person_names.contains(lemma))
}
