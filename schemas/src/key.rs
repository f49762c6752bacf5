//! Names of samples and parts.
//!
//! In: the path of a shard relative to the input root, and a WebDataset key. Out: a [`SampleId`]
//! that stays the same wherever the input is mounted. Never: an absolute path, host or time.

use std::fmt;
use std::str::FromStr;

use crate::error::SchemaError;

/// Length of a sample id. 128 bits: among 10^10 samples two collide with probability 1.5e-19.
pub const SAMPLE_ID_BYTES: usize = 16;

/// A sample's name: the first 16 bytes of BLAKE3 over its shard and key; printed as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleId(pub [u8; SAMPLE_ID_BYTES]);

impl SampleId {
    /// The id of `key` in the shard `shard_path`, which is relative to the input root, with `/`.
    ///
    /// The two are hashed with their lengths (u64, little-endian), so no two pairs run together.
    pub fn new(shard_path: &str, key: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in [shard_path.as_bytes(), key] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        let mut id = [0; SAMPLE_ID_BYTES];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..SAMPLE_ID_BYTES]);
        Self(id)
    }

    /// The first eight bytes as a number: uniform, so `% 100` draws a hold-out.
    pub fn prefix(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(head)
    }
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for SampleId {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let wrong = || SchemaError::SampleId { found: text.to_owned() };
        if text.len() != 2 * SAMPLE_ID_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut id = [0; SAMPLE_ID_BYTES];
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(id))
    }
}

/// A part's name: the number of its source shard in the input list, and which cut of it.
///
/// Printed as `000042`, or `000042.1` for the first cut of a shard that gave several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartName {
    /// Position of the source shard in the input list, from 0.
    pub shard: u32,
    /// 0 for a whole shard, else 1, 2, … for its cuts.
    pub cut: u32,
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cut {
            0 => write!(f, "{:06}", self.shard),
            cut => write!(f, "{:06}.{cut}", self.shard),
        }
    }
}

impl FromStr for PartName {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let wrong = || SchemaError::PartName { found: text.to_owned() };
        let (shard, cut) = text.split_once('.').map_or((text, None), |(s, c)| (s, Some(c)));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if shard.len() < 6 || !digits(shard) || cut.is_some_and(|c| !digits(c)) {
            return Err(wrong());
        }
        let name = Self {
            shard: shard.parse().map_err(|_| wrong())?,
            cut: cut.map_or(Ok(0), str::parse).map_err(|_| wrong())?,
        };
        if name.to_string() == text { Ok(name) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_id_is_pinned_by_the_format() {
        let id = SampleId::new("train/000.tar", b"000042");
        assert_eq!(id.to_string().parse::<SampleId>().unwrap(), id);
        assert_eq!(id, SampleId::new("train/000.tar", b"000042"));
        assert_ne!(SampleId::new("ab", b"c"), SampleId::new("a", b"bc"));
        assert_eq!(id.to_string(), "20ec8a08ab46741251907d35e4a38f1f");
    }

    #[test]
    fn a_sample_id_of_multibyte_text_is_refused() {
        assert!("é0000000000000000000000000000000".parse::<SampleId>().is_err());
        assert!("0".parse::<SampleId>().is_err());
    }

    #[test]
    fn part_names_read_back_as_they_are_written() {
        for (shard, cut, text) in
            [(42, 0, "000042"), (42, 1, "000042.1"), (1_000_000, 0, "1000000")]
        {
            let name = PartName { shard, cut };
            assert_eq!(name.to_string(), text);
            assert_eq!(text.parse::<PartName>().unwrap(), name);
        }
        for wrong in ["42", "000042.", "000042.0", "00004a", "", "+00042", "0000042"] {
            assert!(wrong.parse::<PartName>().is_err(), "{wrong}");
        }
    }
}
