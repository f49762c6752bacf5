//! The rule of CatLIP's released models: corenet's `wordnet_tagged_classification.py`.
//!
//! In: a caption. Out: its synsets in token order, repeats kept.
//! Never: asks for the part of speech; `are` is a unit of area, as it is in CatLIP's vocabulary.

use catlip_schemas::{SynsetId, Synsets};

use super::LabelRule;
use super::clean::clean;
use super::lemmas::lemmatize;
use super::tokens::tokens;
use super::wordnet::WordNet;

/// The reference's rule: first sense, kept only if the lemma heads its synset.
#[derive(Debug)]
pub struct Corenet;

impl LabelRule for Corenet {
    fn id(&self) -> &'static str {
        "corenet-1"
    }

    fn synsets(&self, caption: &str) -> Synsets {
        let wordnet = WordNet::embedded();
        let tokens = tokens(&clean(caption));
        Synsets(tokens.iter().filter_map(|token| synset(wordnet, token)).collect())
    }
}

/// The synset of one token, if its lemma names it.
///
/// The name check drops most function words (`a` is angstrom, `in` is inch) and also `photo`,
/// whose synset is named photograph.
fn synset(wordnet: &WordNet, token: &str) -> Option<SynsetId> {
    let lemma = lemmatize(wordnet, token);
    let synset = wordnet.first_sense(&lemma)?;
    (wordnet.head_lemma(synset) == Some(&*lemma)).then_some(synset)
}
