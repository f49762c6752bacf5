//! Rows that a snapshot leaves out.
//!
//! In: rows by part. Out: `tombstones/00000007.parquet`: `part, rows, dropped, bitmap`, one row
//! for each part that lost any. A bitmap is plain: bit `n & 7` of byte `n >> 3` stands for row n. A
//! part has about 10,000 rows, so a bitmap is about 1 KB, and zstd takes the zeros out of it;
//! roaring bitmaps would gain nothing at that size, and every engine can read these bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use catlip_schemas::PartName;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use bytes::Bytes;

use super::columns::{guarded, write_table};
use super::folder::Folder;
use crate::error::PrepError;
use crate::source::store::NewFile;

/// The rows of one part that are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bitmap {
    rows: u64,
    bits: Vec<u8>,
}

/// The rows of a data set that are left out, by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones(BTreeMap<PartName, Bitmap>);

impl Tombstones {
    /// Leaves out row `row` of a part of `rows` rows; whether it was there before.
    ///
    /// # Panics
    ///
    /// If the part has no such row, which callers found by reading the part.
    pub fn drop_row(&mut self, part: PartName, rows: u64, row: u64) -> bool {
        assert!(row < rows, "row {row} of part {part}, which has {rows} rows");
        let bytes = rows.div_ceil(8) as usize;
        let bitmap = self.0.entry(part).or_insert_with(|| Bitmap { rows, bits: vec![0; bytes] });
        let (byte, bit) = (&mut bitmap.bits[(row >> 3) as usize], 1u8 << (row & 7));
        let was_there = *byte & bit == 0;
        *byte |= bit;
        was_there
    }

    /// Whether row `row` of the part is left out.
    pub fn is_dropped(&self, part: PartName, row: u64) -> bool {
        let byte = self.0.get(&part).and_then(|bitmap| bitmap.bits.get((row >> 3) as usize));
        byte.is_some_and(|byte| byte >> (row & 7) & 1 == 1)
    }

    /// Which rows of the part are left out: bit `n & 7` of byte `n >> 3` stands for row n. `None`
    /// if none is.
    pub fn bitmap(&self, part: PartName) -> Option<&[u8]> {
        self.0.get(&part).map(|bitmap| &*bitmap.bits)
    }

    /// Rows of the part that are left out.
    pub fn in_part(&self, part: PartName) -> u64 {
        let bits = self.0.get(&part).map_or(&[][..], |bitmap| &bitmap.bits);
        bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// All rows that are left out.
    pub fn count(&self) -> u64 {
        self.0.keys().map(|&part| self.in_part(part)).sum()
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts that lost rows.
    pub fn parts(&self) -> impl Iterator<Item = PartName> + '_ {
        self.0.keys().copied()
    }

    /// Forgets a part that is no longer in the data set.
    pub fn forget(&mut self, part: PartName) {
        self.0.remove(&part);
    }
}

fn schema() -> Arc<Schema> {
    let field = |name, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("part", DataType::Utf8),
        field("rows", DataType::Int64),
        field("dropped", DataType::Int64),
        field("bitmap", DataType::Binary),
    ]))
}

/// Writes the table that will have the name `name`.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::DiskFull`].
pub fn write_tombstones(
    output: &Folder,
    name: &str,
    tombstones: &Tombstones,
) -> Result<Box<dyn NewFile>, PrepError> {
    let all = || tombstones.0.iter();
    let counts = all().map(|(&part, _)| tombstones.in_part(part) as i64);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all().map(|(part, _)| part.to_string()))),
        Arc::new(Int64Array::from_iter_values(all().map(|(_, bitmap)| bitmap.rows as i64))),
        Arc::new(Int64Array::from_iter_values(counts)),
        Arc::new(BinaryArray::from_iter_values(all().map(|(_, bitmap)| &bitmap.bits))),
    ];
    let batch = RecordBatch::try_new(schema(), columns)
        .map_err(|e| PrepError::parquet("write", &output.path(name), &e.into()))?;
    write_table(output, name, &batch)
}

/// Reads the table from its bytes; `path` names it in errors.
///
/// # Errors
///
/// [`PrepError::Parquet`], [`PrepError::Schema`]; [`PrepError::Damaged`] for
/// another schema or a bitmap that does not fit its part.
pub fn read_tombstones(path: &Path, bytes: Bytes) -> Result<Tombstones, PrepError> {
    guarded(path, || read_table(path, bytes))
}

fn read_table(path: &Path, bytes: Bytes) -> Result<Tombstones, PrepError> {
    let wrong = |e: &parquet::errors::ParquetError| PrepError::parquet("read", path, e);
    let damaged = |what: String, found: String, expected: String| PrepError::Damaged {
        path: path.into(),
        what,
        found,
        expected,
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| wrong(&e))?;
    // Before any row: a file without rows is of a schema too.
    if builder.schema().fields() != schema().fields() {
        let (found, expected) = (builder.schema().to_string(), schema().to_string());
        return Err(damaged("schema".to_owned(), found, expected));
    }
    let reader = builder.build().map_err(|e| wrong(&e))?;
    let mut tombstones = Tombstones::default();
    for batch in reader {
        let batch = batch.map_err(|e| wrong(&e.into()))?;
        for i in 0..batch.num_rows() {
            let number = |c: usize| batch.column(c).as_primitive::<Int64Type>().value(i);
            let part: PartName = batch
                .column(0)
                .as_string::<i32>()
                .value(i)
                .parse()
                .map_err(|source| PrepError::Schema { path: path.into(), source })?;
            let bits = batch.column(3).as_binary::<i32>().value(i).to_vec();
            let rows = u64::try_from(number(1)).unwrap_or(0);
            if bits.len() as u64 != rows.div_ceil(8) {
                let what = format!("bytes of the bitmap of part {part}");
                return Err(damaged(what, bits.len().to_string(), rows.div_ceil(8).to_string()));
            }
            tombstones.0.insert(part, Bitmap { rows, bits });
            let (found, expected) = (tombstones.in_part(part), number(2));
            if i64::try_from(found) != Ok(expected) {
                let what = format!("bits set for part {part}");
                return Err(damaged(what, found.to_string(), expected.to_string()));
            }
        }
    }
    Ok(tombstones)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prep::columns::write_batch;

    #[test]
    fn rows_that_are_left_out_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let output = Folder::from(dir.path());
        let part = |shard| PartName { shard, cut: 0 };
        let mut tombstones = Tombstones::default();
        assert!(tombstones.drop_row(part(3), 20, 0));
        assert!(tombstones.drop_row(part(3), 20, 19));
        assert!(!tombstones.drop_row(part(3), 20, 19));
        assert!(tombstones.drop_row(part(70), 8, 7));
        write_tombstones(&output, "t.parquet", &tombstones).unwrap().keep().unwrap();
        let bytes = output.read("t.parquet").unwrap().into();
        let back = read_tombstones(&output.path("t.parquet"), bytes).unwrap();
        assert_eq!(back, tombstones);
        assert_eq!((back.count(), back.in_part(part(3)), back.in_part(part(4))), (3, 2, 0));
        let dropped: Vec<u64> = (0..24).filter(|&row| back.is_dropped(part(3), row)).collect();
        assert_eq!(dropped, [0, 19]);
    }

    #[test]
    fn a_table_of_another_schema_is_refused_even_without_rows() {
        let schema = Schema::new(vec![Field::new("x", DataType::Int64, false)]);
        let mut file = Vec::new();
        write_batch(&mut file, &RecordBatch::new_empty(Arc::new(schema))).unwrap();
        let error = read_tombstones(Path::new("t"), Bytes::from(file)).unwrap_err();
        assert!(matches!(error, PrepError::Damaged { .. }), "{error}");
    }
}
