//! The table of parts: which files a snapshot consists of, and where their row groups lie.
//!
//! In: parts. Out: one Parquet file, a row for each part and column set, sorted by column set, then
//! part; and back. A reader takes the columns and ranges that it needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Fields, Schema};
use catlip_schemas::{FileEntry, PartName, Receipt, RowGroup, SchemaError, SourceEntry};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use bytes::Bytes;

use super::columns::{guarded, write_table};
use super::folder::Folder;
use crate::error::PrepError;
use crate::source::store::NewFile;

/// One part of a snapshot: its files by column set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: PartName,
    /// The shard it was made from.
    pub source: SourceEntry,
    /// Its files by name of the column set.
    pub files: BTreeMap<String, FileEntry>,
}

impl Part {
    /// The part that a receipt stands for.
    ///
    /// # Errors
    ///
    /// [`SchemaError::PartName`].
    pub fn from_receipt(receipt: &Receipt) -> Result<Self, SchemaError> {
        let files = receipt.files.iter().map(|file| (file.column_set.clone(), file.clone()));
        Ok(Self {
            name: receipt.part.parse()?,
            source: receipt.source.clone(),
            files: files.collect(),
        })
    }

    /// Rows of the part; those that are left out are counted.
    pub fn rows(&self) -> u64 {
        self.files.get("meta").map_or(0, |file| file.rows)
    }
}

fn group_fields() -> Fields {
    Fields::from(vec![
        Field::new("offset", DataType::Int64, false),
        Field::new("bytes", DataType::Int64, false),
        Field::new("rows", DataType::Int32, false),
        Field::new("crc32c", DataType::Int64, false),
    ])
}

/// The table of parts: a row for each part and column set, sorted by column set, then part.
fn parts_schema() -> Arc<Schema> {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let number = |name| Field::new(name, DataType::Int64, false);
    let group = Arc::new(Field::new("element", DataType::Struct(group_fields()), false));
    Arc::new(Schema::new(vec![
        text("column_set"),
        text("part"),
        text("file"),
        number("rows"),
        number("bytes"),
        text("sha256"),
        text("source_shard"),
        number("source_bytes"),
        text("source_etag"),
        Field::new("groups", DataType::List(group), false),
    ]))
}

/// Writes the table that will have the name `name`.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::DiskFull`].
pub fn write_parts(
    output: &Folder,
    name: &str,
    parts: &[Part],
) -> Result<Box<dyn NewFile>, PrepError> {
    let mut rows: Vec<(&FileEntry, &Part)> =
        parts.iter().flat_map(|p| p.files.values().map(move |f| (f, p))).collect();
    rows.sort_by_key(|(file, part)| (&file.column_set, part.name));
    let text = |f: fn(&(&FileEntry, &Part)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(f)))
    };
    let number = |f: fn(&(&FileEntry, &Part)) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| f(row) as i64)))
    };
    let groups = || rows.iter().flat_map(|(file, _)| &file.groups);
    let values = StructArray::new(
        group_fields(),
        vec![
            Arc::new(Int64Array::from_iter_values(groups().map(|g| g.offset as i64))),
            Arc::new(Int64Array::from_iter_values(groups().map(|g| g.bytes as i64))),
            Arc::new(Int32Array::from_iter_values(groups().map(|g| g.rows as i32))),
            Arc::new(Int64Array::from_iter_values(groups().map(|g| i64::from(g.crc32c)))),
        ],
        None,
    );
    let element = Arc::new(Field::new("element", DataType::Struct(group_fields()), false));
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|(file, _)| file.groups.len()));
    let columns: Vec<ArrayRef> = vec![
        text(|(f, _)| f.column_set.clone()),
        text(|(_, p)| p.name.to_string()),
        text(|(f, _)| f.file.clone()),
        number(|(f, _)| f.rows),
        number(|(f, _)| f.bytes),
        text(|(f, _)| f.sha256.clone()),
        text(|(_, p)| p.source.shard.clone()),
        number(|(_, p)| p.source.bytes),
        text(|(_, p)| p.source.etag.clone()),
        Arc::new(ListArray::new(element, offsets, Arc::new(values), None)),
    ];
    let batch = RecordBatch::try_new(parts_schema(), columns)
        .map_err(|e| PrepError::parquet("write", &output.path(name), &e.into()))?;
    write_table(output, name, &batch)
}

/// Reads the table from its bytes; `path` names it in errors.
///
/// # Errors
///
/// [`PrepError::Parquet`]; [`PrepError::Damaged`] for another schema.
pub fn read_parts(path: &Path, bytes: Bytes) -> Result<Vec<Part>, PrepError> {
    guarded(path, || read_table(path, bytes))
}

fn read_table(path: &Path, bytes: Bytes) -> Result<Vec<Part>, PrepError> {
    let wrong = |e: &parquet::errors::ParquetError| PrepError::parquet("read", path, e);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| wrong(&e))?;
    // Before any row: a file without rows is of a schema too.
    if builder.schema().fields() != parts_schema().fields() {
        return Err(PrepError::Damaged {
            path: path.into(),
            what: "schema".to_owned(),
            found: builder.schema().to_string(),
            expected: parts_schema().to_string(),
        });
    }
    let reader = builder.build().map_err(|e| wrong(&e))?;
    let mut parts: BTreeMap<PartName, Part> = BTreeMap::new();
    for batch in reader {
        let batch = batch.map_err(|e| wrong(&e.into()))?;
        for row in 0..batch.num_rows() {
            let text =
                |column: usize| batch.column(column).as_string::<i32>().value(row).to_owned();
            let number =
                |column: usize| batch.column(column).as_primitive::<Int64Type>().value(row) as u64;
            let name: PartName = text(1)
                .parse()
                .map_err(|source| PrepError::Schema { path: path.into(), source })?;
            let entry = FileEntry {
                column_set: text(0),
                file: text(2),
                rows: number(3),
                bytes: number(4),
                sha256: text(5),
                groups: read_groups(&batch.column(9).as_list::<i32>().value(row)),
            };
            let source = SourceEntry { shard: text(6), bytes: number(7), etag: text(8) };
            let files = BTreeMap::new();
            let part = parts.entry(name).or_insert(Part { name, source, files });
            part.files.insert(entry.column_set.clone(), entry);
        }
    }
    Ok(parts.into_values().collect())
}

fn read_groups(list: &ArrayRef) -> Vec<RowGroup> {
    let columns = list.as_struct();
    let number = |c: usize, i: usize| columns.column(c).as_primitive::<Int64Type>().value(i) as u64;
    (0..columns.len())
        .map(|i| RowGroup {
            offset: number(0, i),
            bytes: number(1, i),
            rows: columns.column(2).as_primitive::<Int32Type>().value(i) as u32,
            crc32c: number(3, i) as u32,
        })
        .collect()
}
