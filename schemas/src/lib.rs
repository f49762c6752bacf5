#![doc = include_str!("../FORMAT.md")]

pub mod key;
pub mod synset;
pub mod vocab;
pub mod labels;
pub mod columns;
pub mod manifest;
pub mod cursor;
pub mod checkpoint;
pub mod version;
pub mod error;

pub use columns::ColumnSet;
pub use cursor::{Cursor, SetCursor};
pub use error::SchemaError;
pub use key::{PartName, SampleId};
pub use labels::{LabelId, Labels};
pub use manifest::{
    ColumnSetEntry, Counts, FileEntry, JobConfig, Manifest, NumberedSource, Receipt, RowGroup,
    SourceEntry, SourceList, SourceUse, TombstonesEntry,
};
pub use synset::{SynsetId, Synsets};
pub use vocab::{Frequencies, Frequency, Vocab, VocabCut, VocabRow};
