//! What a rule did with each token of a caption, and why.
//!
//! In: the steps that a rule returns beside its synsets. Out: reasons and synsets in words that
//! somebody understands who has never seen WordNet.
//! Never: judges a token itself. A rule explains what it did, so that the two cannot differ.

use std::fmt;

use catlip_schemas::{SynsetId, Synsets};

use super::wordnet::WordNet;

/// How a rule read one caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The caption after cleaning: what was cut into tokens.
    pub text: String,
    /// Every token in order.
    pub steps: Vec<Step>,
}

/// What became of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The token, as it stands in the cleaned caption.
    pub token: String,
    /// The base form that was looked up: `dog` for `dogs`.
    pub lemma: String,
    /// The synset that was found, whether it was kept or not.
    pub synset: Option<SynsetId>,
    /// Whether it was kept, and why.
    pub outcome: Outcome,
}

/// Why a token gave a label or none; its text is a half-sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The synset bears the lemma's name.
    Kept,
    /// The word or phrase usually means it.
    Meant,
    /// The synset bears the name of another of its lemmas.
    OtherName,
    /// No letter and no digit.
    Mark,
    /// Digits with dots, commas or the like.
    Number,
    /// A mark that the tokens' rules leave inside a word: `black/white`.
    Glued {
        /// The first such mark.
        mark: char,
    },
    /// No noun.
    NoNoun,
    /// In running text, or where it stands, the word is seldom a noun.
    SeldomNoun,
    /// A part of a person's name.
    PersonName,
    /// A part of a phrase that names no thing.
    Idiom,
}

impl Explanation {
    /// The synsets that were kept: what [`super::LabelRule::synsets`] returns.
    pub fn synsets(&self) -> Synsets {
        let kept = self.steps.iter().filter(|step| step.outcome.is_kept());
        Synsets(kept.filter_map(|step| step.synset).collect())
    }
}

impl Outcome {
    /// Whether the token's synset is one of the caption's.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept | Self::Meant)
    }

    /// Why `token` has no synset.
    pub fn unknown(token: &str) -> Self {
        let is_mark = |c: char| !c.is_alphanumeric();
        match token.chars().find(|&c| is_mark(c)) {
            _ if token.chars().all(is_mark) => Self::Mark,
            _ if !token.contains(char::is_alphabetic) => Self::Number,
            Some(mark) => Self::Glued { mark },
            None => Self::NoNoun,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => write!(f, "its synset bears its name"),
            Self::OtherName => write!(f, "its synset bears another name"),
            Self::Mark => write!(f, "a mark, not a word"),
            Self::Number => write!(f, "a number that WordNet lacks"),
            Self::Glued { mark } => write!(f, "\"{mark}\" makes it one word that WordNet lacks"),
            Self::NoNoun => write!(f, "no noun of WordNet"),
            Self::Meant => write!(f, "what it usually means"),
            Self::SeldomNoun => write!(f, "seldom a noun here"),
            Self::PersonName => write!(f, "part of a person's name"),
            Self::Idiom => write!(f, "part of a phrase that names no thing"),
        }
    }
}

/// A synset in words: `photograph (n03925226: also photo; a kind of representation)`.
///
/// Beside its name stands one word more that tells what is meant: `lemma`, unless that is the name.
pub fn describe(wordnet: &WordNet, synset: SynsetId, lemma: &str) -> String {
    let name = wordnet.head_lemma(synset).unwrap_or_default();
    let mut others = wordnet.lemmas(synset).skip(1);
    let other = if name == lemma { others.next() } else { others.find(|other| *other == lemma) };
    let above = wordnet.hypernyms(synset).next().and_then(|above| wordnet.head_lemma(above));
    let other = other.map(|other| format!("also {}", in_words(other)));
    let above = above.map(|above| format!("a kind of {}", in_words(above)));
    let facts: Vec<String> = other.into_iter().chain(above).collect();
    let colon = if facts.is_empty() { "" } else { ": " };
    format!("{} ({}{colon}{})", in_words(name), synset.wnid(), facts.join("; "))
}

/// A lemma as it is written: `hot dog` for `hot_dog`.
fn in_words(lemma: &str) -> String {
    lemma.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synset_is_described_by_its_words_and_what_it_is_a_kind_of() {
        let described = |lemma| {
            let wordnet = WordNet::embedded();
            describe(wordnet, wordnet.first_sense(lemma).unwrap(), lemma)
        };
        assert_eq!(described("dog"), "dog (n02084071: also canis familiaris; a kind of canine)");
        assert_eq!(
            described("photo"),
            "photograph (n03925226: also photo; a kind of representation)"
        );
        assert_eq!(
            described("image"),
            "image (n05928118: also mental image; a kind of representation)"
        );
        assert_eq!(described("entity"), "entity (n00001740)");
    }

    #[test]
    fn a_token_without_a_synset_is_a_mark_a_number_glued_or_no_noun() {
        let why = |token| Outcome::unknown(token).to_string();
        assert_eq!(why("..."), "a mark, not a word");
        assert_eq!(why("19.99"), "a number that WordNet lacks");
        assert_eq!(why("black/white"), "\"/\" makes it one word that WordNet lacks");
        assert_eq!(why("'dog"), "\"'\" makes it one word that WordNet lacks");
        assert_eq!(why("the"), "no noun of WordNet");
    }
}
