//! The ledger, read again.
//!
//! In: a file of the column set `rejects`. Out: its entries. Never: writes it, which is `part`'s.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use catlip_schemas::ColumnSet;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::folder::Folder;
use crate::error::PrepError;

/// Reasons that speak of a shard as a whole.
pub const SHARD_DAMAGE: [&str; 2] = ["shard-cut", "shard-damaged"];
/// The reason of a sample without a caption in `caption.sources`.
pub const CAPTION_MISSING: &str = "caption-missing";
/// Begins the reasons of samples that the config does not want, which are no failures.
pub const FILTER_PREFIX: &str = "filter-";
/// Reasons that another sample of the shard brought about.
pub const SAMPLE_REPEATS: [&str; 2] = ["key-repeats", "member-repeats"];

/// An entry of the ledger.
pub struct Reject {
    /// Key of the sample, or of where it should be.
    pub key: String,
    /// The shard.
    pub shard: String,
    /// Byte in the shard (unpacked).
    pub offset: i64,
    /// One word.
    pub reason: String,
    /// What was found and expected.
    pub message: String,
}

/// The entries of a ledger, in their order.
///
/// # Errors
///
/// [`PrepError::Damaged`], [`PrepError::Parquet`], [`PrepError::Io`].
pub fn read_ledger(folder: &Folder, name: &str) -> Result<Vec<Reject>, PrepError> {
    let path = folder.path(name);
    let wrong = |e: &parquet::errors::ParquetError| PrepError::parquet("read", &path, e);
    let file = folder.open(name)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| wrong(&e))?;
    if builder.schema().fields() != ColumnSet::Rejects.schema().fields() {
        return Err(PrepError::Damaged {
            path: path.clone(),
            what: "schema".to_owned(),
            found: builder.schema().to_string(),
            expected: ColumnSet::Rejects.schema().to_string(),
        });
    }
    let mut all = Vec::new();
    for batch in builder.build().map_err(|e| wrong(&e))? {
        let batch = batch.map_err(|e| wrong(&e.into()))?;
        let text = |c: usize, row: usize| batch.column(c).as_string::<i32>().value(row).to_owned();
        let offsets = batch.column(2).as_primitive::<Int64Type>();
        all.extend((0..batch.num_rows()).map(|row| Reject {
            key: text(0, row),
            shard: text(1, row),
            offset: offsets.value(row),
            reason: text(4, row),
            message: text(5, row),
        }));
    }
    Ok(all)
}
