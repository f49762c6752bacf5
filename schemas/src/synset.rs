//! WordNet 3.0 noun synsets by their offset.

use std::fmt;
use std::str::FromStr;

use crate::error::SchemaError;

/// A WordNet 3.0 noun synset: its byte offset in `data.noun`, at most 15,300,280.
///
/// `i32` because Iceberg and Spark know no unsigned types. Printed as the wnid `n02084071`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SynsetId(pub i32);

impl SynsetId {
    /// ImageNet's name, zero-padded to eight digits: `n02084071`.
    pub fn wnid(self) -> String {
        format!("n{:08}", self.0)
    }

    /// CatLIP's name, not padded: `n2084071` (corenet `wordnet_tagged_classification.py`).
    pub fn corenet_key(self) -> String {
        format!("n{}", self.0)
    }
}

impl fmt::Display for SynsetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:08}", self.0)
    }
}

impl FromStr for SynsetId {
    type Err = SchemaError;

    /// Reads both `n2084071` and `n02084071`.
    fn from_str(text: &str) -> Result<Self, SchemaError> {
        text.strip_prefix('n')
            .filter(|d| (1..=8).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| SchemaError::SynsetKey { found: text.to_owned() })
    }
}

/// The synsets of one caption in token order, repeats kept: before any vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synsets(pub Vec<SynsetId>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_and_unpadded_keys_name_the_same_synset() {
        let dog: SynsetId = "n2084071".parse().unwrap();
        assert_eq!(dog, "n02084071".parse().unwrap());
        assert_eq!((dog.wnid().as_str(), dog.corenet_key().as_str()), ("n02084071", "n2084071"));
    }

    #[test]
    fn other_texts_are_no_keys() {
        for wrong in ["", "n", "dog", "v2084071", "n-1", "n+1", "n123456789", "n02084071 "] {
            assert!(wrong.parse::<SynsetId>().is_err(), "{wrong:?}");
        }
    }
}
