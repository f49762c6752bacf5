//! Column sets: which columns a part has, in which file.
//!
//! Every column set is one Parquet file a part, all with the same rows in the same order.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema};

use crate::key::{PartName, SAMPLE_ID_BYTES};

/// Prefix of the column sets that hold synsets; the rule and its version follow.
pub const SYNSETS_PREFIX: &str = "synsets.";

/// Prefix of the column sets that were joined later: scores, recaptions; a name follows. Their
/// columns are those of the table that they came from.
pub const ADDED_PREFIX: &str = "added.";

/// A group of columns that is written, versioned and replaced as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColumnSet {
    /// Sample ids and compressed pixels.
    Images,
    /// Where each row came from, its size, its own json.
    Meta,
    /// The captions of each row.
    Captions,
    /// The synsets of each caption under one rule and version, such as `corenet-1`.
    Synsets(String),
    /// The ledger: samples that did not become rows. Its rows are not the part's rows.
    Rejects,
}

impl ColumnSet {
    /// Folder in the data set, and name in the manifest.
    pub fn name(&self) -> String {
        match self {
            Self::Images => "images".to_owned(),
            Self::Meta => "meta".to_owned(),
            Self::Captions => "captions".to_owned(),
            Self::Synsets(rule) => format!("{SYNSETS_PREFIX}{rule}"),
            Self::Rejects => "rejects".to_owned(),
        }
    }

    /// The set of that name; `None` for one that this version does not know (readers ignore it).
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "images" => Some(Self::Images),
            "meta" => Some(Self::Meta),
            "captions" => Some(Self::Captions),
            "rejects" => Some(Self::Rejects),
            other => other
                .strip_prefix(SYNSETS_PREFIX)
                .filter(|rule| !rule.is_empty())
                .map(|rule| Self::Synsets(rule.to_owned())),
        }
    }

    /// Id of the columns' schema, recorded in the manifest; the number rises with any change.
    pub fn schema_id(&self) -> &'static str {
        match self {
            Self::Images => "images-1",
            Self::Meta => "meta-1",
            Self::Captions => "captions-1",
            Self::Synsets(_) => "synsets-1",
            Self::Rejects => "rejects-1",
        }
    }

    /// Path of a part's file below the data set: `images/part-000042-1a2b3c4d.parquet`.
    pub fn file(&self, part: PartName, config_tag: &str) -> String {
        format!("{}/part-{part}-{config_tag}.parquet", self.name())
    }

    /// The columns, as Arrow sees them.
    pub fn schema(&self) -> Arc<Schema> {
        let fields = match self {
            Self::Images => vec![sample_id(), required("image", DataType::Binary)],
            Self::Meta => meta_fields(),
            Self::Captions => vec![required("captions", list(caption_struct()))],
            Self::Synsets(_) => vec![required("synsets", list(list(DataType::Int32)))],
            Self::Rejects => vec![
                required("key", DataType::Utf8),
                required("source_shard", DataType::Utf8),
                required("source_offset", DataType::Int64),
                required("stage", DataType::Utf8),
                required("reason", DataType::Utf8),
                required("message", DataType::Utf8),
            ],
        };
        Arc::new(Schema::new(fields))
    }
}

/// Path of a part's receipt below the data set.
pub fn receipt_file(part: PartName, config_tag: &str) -> String {
    format!("receipts/part-{part}-{config_tag}.json")
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn sample_id() -> Field {
    required("sample_id", DataType::FixedSizeBinary(SAMPLE_ID_BYTES as i32))
}

/// A list whose child is called `element`, as the Parquet specification says.
fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(required("element", element)))
}

fn caption_struct() -> DataType {
    DataType::Struct(Fields::from(vec![
        required("text", DataType::Utf8),
        required("origin", DataType::Utf8),
    ]))
}

fn meta_fields() -> Vec<Field> {
    vec![
        sample_id(),
        required("key", DataType::Utf8),
        required("source_shard", DataType::Utf8),
        Field::new("source_offset", DataType::Int64, true),
        required("source_bytes", DataType::Int64),
        required("encoding", DataType::Utf8),
        required("width", DataType::Int32),
        required("height", DataType::Int32),
        required("source_width", DataType::Int32),
        required("source_height", DataType::Int32),
        required("image_hash", DataType::FixedSizeBinary(16)),
        Field::new("json", DataType::Utf8, true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for set in [
            ColumnSet::Images,
            ColumnSet::Meta,
            ColumnSet::Captions,
            ColumnSet::Synsets("corenet-1".to_owned()),
            ColumnSet::Rejects,
        ] {
            assert_eq!(ColumnSet::from_name(&set.name()), Some(set));
        }
        assert_eq!(ColumnSet::from_name("aesthetics-2"), None);
        assert_eq!(ColumnSet::from_name("synsets."), None);
    }

    #[test]
    fn a_file_carries_part_and_config() {
        let part = PartName { shard: 42, cut: 0 };
        assert_eq!(
            ColumnSet::Synsets("corenet-1".to_owned()).file(part, "1a2b3c4d"),
            "synsets.corenet-1/part-000042-1a2b3c4d.parquet"
        );
    }
}
