//! Receipts of parts and snapshots of the data set.
//!
//! In: what one part became. Out: a receipt, written last for a part; and a manifest, the unit of
//! truth. Never: a time, host, absolute path or thread count, so the same input and config give
//! the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::SchemaError;
use crate::version::{FORMAT_VERSION, check_version};

/// Where one row group lies in its file, and its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowGroup {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u32,
    /// CRC-32C of the bytes.
    pub crc32c: u32,
}

/// One written file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name of its column set.
    pub column_set: String,
    /// Path below the data set.
    pub file: String,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of the file, 64 hex digits.
    pub sha256: String,
    /// Its row groups in order.
    pub groups: Vec<RowGroup>,
}

/// The source shard as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Path relative to the input root, with `/`.
    pub shard: String,
    /// Bytes.
    pub bytes: u64,
    /// The store's ETag; for a local file `blake3-` and 32 hex digits over its size, first and
    /// last 64 KiB, which tells a changed file without reading it whole.
    pub etag: String,
}

/// What became of the samples of a shard: each is one row or one reject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Samples found.
    pub samples: u64,
    /// Rows written.
    pub rows: u64,
    /// Captions of those rows.
    pub captions: u64,
    /// Synsets of those captions, repeats counted.
    pub synsets: u64,
    /// Entries of the ledger by reason: a sample that is no row, or damage of the shard itself.
    pub rejects: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds the counts of another part.
    pub fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.rows += other.rows;
        self.captions += other.captions;
        self.synsets += other.synsets;
        for (reason, count) in &other.rejects {
            *self.rejects.entry(reason.clone()).or_default() += count;
        }
    }

    /// Takes away the counts of a part that is no longer there.
    pub fn subtract(&mut self, other: &Self) {
        self.samples = self.samples.saturating_sub(other.samples);
        self.rows = self.rows.saturating_sub(other.rows);
        self.captions = self.captions.saturating_sub(other.captions);
        self.synsets = self.synsets.saturating_sub(other.synsets);
        for (reason, count) in &other.rejects {
            if let Some(sum) = self.rejects.get_mut(reason) {
                *sum = sum.saturating_sub(*count);
            }
        }
        self.rejects.retain(|_, count| *count > 0);
    }

    /// Entries of the ledger.
    pub fn num_rejects(&self) -> u64 {
        self.rejects.values().sum()
    }
}

/// `receipts/part-*.json`: written last for a part, by exclusive create. No receipt, no part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Name of the part, such as `000042`.
    pub part: String,
    /// Hash of the config, 64 hex digits.
    pub config_hash: String,
    /// The shard it was made from.
    pub source: SourceEntry,
    /// What became of its samples.
    pub counts: Counts,
    /// Its files, one a column set.
    pub files: Vec<FileEntry>,
}

impl Receipt {
    /// Reads a receipt.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Json`], [`SchemaError::Version`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SchemaError> {
        read_versioned("receipt", bytes)
    }
}

/// Why a part number was given: a shard's samples, or those of them that were rejected before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceUse {
    /// All samples of the shard.
    #[default]
    Whole,
    /// Only the samples that stand in the ledger of this snapshot.
    RejectsOf(u64),
}

impl SourceUse {
    fn is_whole(&self) -> bool {
        *self == Self::Whole
    }
}

/// One part number: the shard that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberedSource {
    /// Path of the shard relative to the input root, with `/`.
    pub shard: String,
    /// Which of its samples.
    #[serde(default, skip_serializing_if = "SourceUse::is_whole")]
    pub samples: SourceUse,
}

/// `sources/part-000000.json`: shards in order, numbered from the number in the file's name.
///
/// Created exclusively before the first of these parts is made, and never changed, so that every
/// job on the data set gives a shard the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceList {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Number of the first shard below.
    pub first: u32,
    /// The shards.
    pub sources: Vec<NumberedSource>,
}

impl SourceList {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Json`], [`SchemaError::Version`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SchemaError> {
        read_versioned("list of sources", bytes)
    }

    /// Path below the data set of the list that begins with part `first`.
    pub fn file(first: u32) -> String {
        format!("sources/part-{first:06}.json")
    }
}

/// `receipts/config-1a2b3c4d.json`: the config of the receipts that carry these eight digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobConfig {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Hash of the config, 64 hex digits.
    pub config_hash: String,
    /// The config without `runtime` and `budget`.
    pub config: serde_json::Value,
    /// The column sets that a part gets, in the order in which they are written, without bytes.
    pub column_sets: Vec<ColumnSetEntry>,
}

impl JobConfig {
    /// Reads a config.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Json`], [`SchemaError::Version`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SchemaError> {
        read_versioned("config of receipts", bytes)
    }

    /// Path below the data set.
    pub fn file(config_tag: &str) -> String {
        format!("receipts/config-{config_tag}.json")
    }
}

/// One column set as a snapshot knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSetEntry {
    /// Its name.
    pub name: String,
    /// Id of its schema.
    pub schema_id: String,
    /// Rows of each row group but the last of a part, where that is fixed (`images`).
    pub rows_per_group: Option<u32>,
    /// Bytes of all its files.
    pub bytes: u64,
    /// How many parts have it, where not all have: readers refuse such a set until it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u64>,
    /// What made it, where it was not the run of the snapshot's config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<serde_json::Value>,
}

/// The table of parts that belongs to a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartsEntry {
    /// Path below the data set.
    pub file: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
    /// Parts.
    pub parts: u64,
}

/// The rows that a snapshot leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TombstonesEntry {
    /// Path below the data set.
    pub file: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
    /// Rows that are left out.
    pub rows: u64,
}

/// `manifest/00000007.json`: a snapshot, created by exclusive create and never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Its number, from 1.
    pub snapshot: u64,
    /// The snapshot it was made from.
    pub parent: Option<u64>,
    /// What was changed in it, for people; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// Hash of the config, 64 hex digits.
    pub config_hash: String,
    /// The config without `runtime.*`.
    pub config: serde_json::Value,
    /// What became of all samples; rows that are left out are counted.
    pub totals: Counts,
    /// The column sets by name.
    pub column_sets: Vec<ColumnSetEntry>,
    /// The table of parts.
    pub parts: PartsEntry,
    /// The rows that are left out; absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstones: Option<TombstonesEntry>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Json`], [`SchemaError::Version`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SchemaError> {
        read_versioned("manifest", bytes)
    }

    /// Path of snapshot `number` below the data set.
    pub fn file(number: u64) -> String {
        format!("manifest/{number:08}.json")
    }

    /// Path of the table of parts of snapshot `number` below the data set; readers take it from
    /// the manifest, since a commit that met another carries 8 digits of its hash.
    pub fn parts_file(number: u64) -> String {
        format!("manifest/{number:08}.parts.parquet")
    }

    /// Path of the tombstones of snapshot `number` below the data set, likewise.
    pub fn tombstones_file(number: u64) -> String {
        format!("tombstones/{number:08}.parquet")
    }
}

/// Reads JSON whose `format_version` is checked before any other field.
fn read_versioned<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, SchemaError> {
    #[derive(Deserialize)]
    struct Head {
        format_version: u32,
    }
    let json = |source| SchemaError::Json { what, source };
    let head: Head = serde_json::from_slice(bytes).map_err(json)?;
    check_version(what, head.format_version, FORMAT_VERSION)?;
    serde_json::from_slice(bytes).map_err(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_a_newer_version_is_refused_before_its_fields_are_read() {
        let error =
            Manifest::from_json(br#"{"format_version": 9, "unheard_of": true}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "manifest has format version 9, this program reads versions 1 to 2"
        );
    }

    #[test]
    fn counts_add_up_by_reason() {
        let mut sum = Counts::default();
        for (rows, reason) in [(3, "image-corrupt"), (4, "image-corrupt"), (5, "shard-cut")] {
            sum.merge(&Counts {
                samples: rows + 1,
                rows,
                rejects: BTreeMap::from([(reason.to_owned(), 1)]),
                ..Counts::default()
            });
        }
        assert_eq!((sum.samples, sum.rows, sum.num_rejects()), (15, 12, 3));
        assert_eq!(sum.rejects["image-corrupt"], 2);
        sum.subtract(&Counts {
            rows: 5,
            rejects: BTreeMap::from([("shard-cut".to_owned(), 1)]),
            ..Counts::default()
        });
        assert_eq!((sum.rows, sum.rejects.len()), (7, 1));
    }
}
