//! What people decided about words: the tables of `pipeline/nouns/`, read once.
//!
//! In: the committed tables, built into the binary (their README says where each comes from). Out:
//! look-ups by a word as captions write it.
//! Never: looks into WordNet, or reads a file at run time.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use catlip_schemas::SynsetId;
use foldhash::fast::FixedState;

/// Values by a word of this build; no stranger chooses the words, so the hash is a fast one.
pub type Map<V> = HashMap<&'static str, V, FixedState>;

/// Words of this build.
pub type Set = HashSet<&'static str, FixedState>;

/// Why a word is kept although it is seldom tagged as a noun, or dropped although it often is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Names a thing.
    Noun,
    /// An adjective in captions; the noun is the colour that is seen.
    Colour,
    /// How many things are seen.
    Numeral,
    /// What is done: a gerund.
    Activity,
    /// An activity of people and animals; things are said to sit and stand, too.
    Posture,
    /// No label.
    Other,
}

/// What a phrase of the table means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phrase {
    /// It is one thing.
    Synset(SynsetId),
    /// It is no phrase: its words are read one by one.
    Apart,
    /// It gives no label, nor do its words.
    Nothing,
}

/// The tables. Words and phrases are lower case; a phrase has one blank between its words.
#[derive(Debug)]
pub struct Tables {
    /// Times tagged as a noun, and times in all, in MASC; in WordNet's own corpus where MASC is
    /// silent.
    pub noun_shares: Map<(u32, u32)>,
    /// Words whose class is decided here, not by MASC.
    pub classes: Map<Class>,
    /// What a word means in captions where that is not WordNet's first sense.
    pub senses: Map<SynsetId>,
    /// What a word means before a noun, where that is another thing: `an orange shirt`.
    pub senses_before_noun: Map<SynsetId>,
    /// Plurals whose shortest lemma is another word.
    pub plurals: Map<SynsetId>,
    /// Phrases that WordNet has otherwise, or not at all.
    pub phrases: Map<Phrase>,
    /// Words whose first sense is one person.
    pub person_names: Set,
    /// Given names.
    pub given_names: Set,
}

/// What follows a word in `senses.tsv` whose sense is the one before a noun.
const BEFORE_NOUN: &str = " +";

static EMBEDDED: LazyLock<Tables> = LazyLock::new(|| Tables {
    noun_shares: rows(include_str!("../../../nouns/noun-share.tsv"))
        .map(|[word, nouns, times, _source]| (word, (number(nouns), number(times))))
        .collect(),
    classes: rows(include_str!("../../../nouns/words.tsv"))
        .map(|[word, class, _why]| (word, read_class(class)))
        .collect(),
    senses: senses().filter(|(word, _)| !word.ends_with(BEFORE_NOUN)).collect(),
    senses_before_noun: senses()
        .filter_map(|(word, synset)| Some((word.strip_suffix(BEFORE_NOUN)?, synset)))
        .collect(),
    plurals: rows(include_str!("../../../nouns/plurals.tsv"))
        .map(|[form, synset, _head, _why]| (form, read_synset(synset)))
        .collect(),
    phrases: rows(include_str!("../../../nouns/phrases.tsv"))
        .map(|[phrase, meaning, _head, _why]| (phrase, read_phrase(meaning)))
        .collect(),
    person_names: rows(include_str!("../../../nouns/person-names.txt"))
        .map(|[name]| name)
        .collect(),
    given_names: rows(include_str!("../../../nouns/given-names.txt")).map(|[name]| name).collect(),
});

impl Tables {
    /// The tables of this build.
    pub fn embedded() -> &'static Self {
        &EMBEDDED
    }
}

fn senses() -> impl Iterator<Item = (&'static str, SynsetId)> {
    rows(include_str!("../../../nouns/senses.tsv"))
        .map(|[word, synset, _head, _why]| (word, read_synset(synset)))
}

/// The rows of a table of `N` columns. Comments begin with `# `.
///
/// The tables are committed and tested with this code: a wrong row is a broken build.
fn rows<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    table.lines().filter(|line| !line.starts_with("# ")).map(|line| {
        let columns: Vec<_> = line.split('\t').collect();
        columns
            .try_into()
            .unwrap_or_else(|_| panic!("a table of `pipeline/nouns` has the row `{line}`"))
    })
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` in a table of `pipeline/nouns` is no number"))
}

fn read_synset(text: &str) -> SynsetId {
    text.parse().unwrap_or_else(|_| panic!("`{text}` in a table of `pipeline/nouns` is no synset"))
}

fn read_class(text: &str) -> Class {
    match text {
        "noun" => Class::Noun,
        "colour" => Class::Colour,
        "numeral" => Class::Numeral,
        "activity" => Class::Activity,
        "posture" => Class::Posture,
        "other" => Class::Other,
        _ => panic!("`{text}` in `pipeline/nouns/words.tsv` is no class"),
    }
}

fn read_phrase(text: &str) -> Phrase {
    match text {
        "apart" => Phrase::Apart,
        "nothing" => Phrase::Nothing,
        synset => Phrase::Synset(read_synset(synset)),
    }
}
