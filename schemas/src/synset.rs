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

    /// [`SynsetId::wnid`] as bytes, for those who write many. Of an offset with more than eight
    /// digits, which WordNet does not have, the last eight.
    pub fn wnid_bytes(self) -> [u8; KEY_BYTES] {
        key_bytes(eight_digits(self.0), 0)
    }

    /// [`SynsetId::corenet_key`] as the first so many of some bytes, likewise.
    pub fn corenet_key_bytes(self) -> ([u8; KEY_BYTES], usize) {
        let digits = eight_digits(self.0);
        // The last digit stays, as if it were not 0.
        let num_zeros = (digits | 1 << 56).trailing_zeros() / 8;
        (key_bytes(digits, num_zeros), KEY_BYTES - num_zeros as usize)
    }
}

/// Bytes of the longest key: `n` and eight digits.
pub const KEY_BYTES: usize = 9;

/// `n`, then digits without the first `num_zeros`; what is behind them is none.
fn key_bytes(digits: u64, num_zeros: u32) -> [u8; KEY_BYTES] {
    let text = (digits | u64::from_ne_bytes([b'0'; 8])) >> (8 * num_zeros);
    let mut bytes = [b'n'; KEY_BYTES];
    bytes[1..].copy_from_slice(&text.to_le_bytes());
    bytes
}

/// The last eight decimal digits of a number, the first of them in the lowest byte: in halves of
/// four, of two and of one, all halves at once. A product with a reciprocal and a shift divides.
fn eight_digits(number: i32) -> u64 {
    let number = number.unsigned_abs() % 100_000_000;
    let fours = u64::from(number / 10_000) | u64::from(number % 10_000) << 32;
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - 100 * hundreds) << 16;
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (twos - 10 * tens) << 8
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
    fn keys_as_bytes_are_the_keys_as_text() {
        let ends = [0, 1, 9, 10, 99, 100, 9999, 10_000, 99_999_999];
        for number in ends.into_iter().chain((0..100_000_000).step_by(997)) {
            let synset = SynsetId(number);
            assert_eq!(str::from_utf8(&synset.wnid_bytes()), Ok(&*synset.wnid()));
            let (bytes, num_bytes) = synset.corenet_key_bytes();
            assert_eq!(str::from_utf8(&bytes[..num_bytes]), Ok(&*synset.corenet_key()));
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        for wrong in ["", "n", "dog", "v2084071", "n-1", "n+1", "n123456789", "n02084071 "] {
            assert!(wrong.parse::<SynsetId>().is_err(), "{wrong:?}");
        }
    }
}
