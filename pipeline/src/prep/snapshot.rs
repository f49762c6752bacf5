//! Snapshots: the unit of truth of a data set, written once and read by everybody.
//!
//! In: receipts, or the folder of a data set. Out: a manifest with its table of parts, or the
//! [`DataSet`] that they describe. Never: lists a folder to learn what is in a data set.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Fields, Schema};
use catlip_schemas::manifest::{ColumnSetEntry, PartsEntry};
use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{
    ColumnSet, Counts, FileEntry, Manifest, PartName, Receipt, RowGroup, SampleId, SourceEntry,
    SynsetId, Synsets,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::columns::{fingerprint, write_table};
use super::commit::{TempFile, write_new, write_whole};
use super::plan::PrepPlan;
use crate::error::PrepError;

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

/// A snapshot of a data set, open for reading.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Its folder.
    pub folder: PathBuf,
    /// The snapshot.
    pub manifest: Manifest,
    /// Its parts in order.
    pub parts: Vec<Part>,
}

impl DataSet {
    /// Opens the newest snapshot in `folder`.
    ///
    /// # Errors
    ///
    /// [`PrepError::NoDataSet`] without a committed snapshot; [`PrepError::Damaged`] if the table
    /// of parts is not the one that the manifest names.
    pub fn open(folder: &Path) -> Result<Self, PrepError> {
        let none =
            |message: &str| PrepError::NoDataSet { path: folder.into(), message: message.into() };
        let manifest = newest(folder)?.ok_or_else(|| none("it has no committed snapshot"))?;
        let path = folder.join(&manifest.parts.file);
        let (bytes, sha256, _) =
            fingerprint(&path, Vec::new()).map_err(|e| PrepError::io("read", &path, e))?;
        check(&path, "size", bytes, manifest.parts.bytes)?;
        check(&path, "SHA-256", &sha256, &manifest.parts.sha256)?;
        let parts = read_parts(&path)?;
        check(&path, "number of parts", parts.len() as u64, manifest.parts.parts)?;
        Ok(Self { folder: folder.into(), manifest, parts })
    }

    /// Name of the one column set of synsets.
    ///
    /// # Errors
    ///
    /// [`PrepError::NoDataSet`] if the snapshot has none.
    pub fn synsets_set(&self) -> Result<ColumnSet, PrepError> {
        let sets = self.manifest.column_sets.iter();
        sets.filter_map(|entry| ColumnSet::from_name(&entry.name))
            .find(|set| matches!(set, ColumnSet::Synsets(_)))
            .ok_or_else(|| PrepError::NoDataSet {
                path: self.folder.clone(),
                message: "its snapshot has no column set of synsets".to_owned(),
            })
    }

    /// The file of `set` for a part.
    ///
    /// # Errors
    ///
    /// [`PrepError::NoDataSet`] if the part has none.
    pub fn file<'p>(&self, part: &'p Part, set: &ColumnSet) -> Result<&'p FileEntry, PrepError> {
        part.files.get(&set.name()).ok_or_else(|| PrepError::NoDataSet {
            path: self.folder.clone(),
            message: format!("part {} has no column set {}", part.name, set.name()),
        })
    }

    /// Rows of the part of that index.
    pub fn rows(&self, part: &Part) -> u64 {
        part.files.get("meta").map_or(0, |f| f.rows)
    }

    /// The sample ids of a part, in the order of its rows.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Parquet`].
    pub fn read_sample_ids(&self, part: &Part) -> Result<Vec<SampleId>, PrepError> {
        let mut ids = Vec::new();
        self.read_column(part, &ColumnSet::Meta, "sample_id", |column| {
            let values = column.as_fixed_size_binary();
            for i in 0..values.len() {
                let mut id = [0; 16];
                id.copy_from_slice(values.value(i));
                ids.push(SampleId(id));
            }
        })?;
        Ok(ids)
    }

    /// Hashes of the source images of a part, in the order of its rows.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Parquet`].
    pub fn read_image_hashes(&self, part: &Part) -> Result<Vec<[u8; 16]>, PrepError> {
        let mut hashes = Vec::new();
        self.read_column(part, &ColumnSet::Meta, "image_hash", |column| {
            let values = column.as_fixed_size_binary();
            for i in 0..values.len() {
                let mut hash = [0; 16];
                hash.copy_from_slice(values.value(i));
                hashes.push(hash);
            }
        })?;
        Ok(hashes)
    }

    /// The synsets of each caption of each row of a part.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::NoDataSet`].
    pub fn read_synsets(&self, part: &Part) -> Result<Vec<Vec<Synsets>>, PrepError> {
        let mut rows = Vec::new();
        self.read_column(part, &self.synsets_set()?, "synsets", |column| {
            for captions in column.as_list::<i32>().iter().flatten() {
                let captions = captions.as_list::<i32>().iter().flatten().map(|synsets| {
                    let offsets = synsets.as_primitive::<Int32Type>().values();
                    Synsets(offsets.iter().copied().map(SynsetId).collect())
                });
                rows.push(captions.collect());
            }
        })?;
        Ok(rows)
    }

    /// The captions of each row of a part.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::NoDataSet`].
    pub fn read_captions(&self, part: &Part) -> Result<Vec<Vec<String>>, PrepError> {
        let mut rows = Vec::new();
        self.read_column(part, &ColumnSet::Captions, "captions", |column| {
            for captions in column.as_list::<i32>().iter().flatten() {
                let texts = captions.as_struct().column(0).as_string::<i32>();
                rows.push(texts.iter().flatten().map(str::to_owned).collect());
            }
        })?;
        Ok(rows)
    }

    fn read_column(
        &self,
        part: &Part,
        set: &ColumnSet,
        column: &str,
        mut take: impl FnMut(&ArrayRef),
    ) -> Result<(), PrepError> {
        let entry = self.file(part, set)?;
        let path = self.folder.join(&entry.file);
        let wrong = |e: &parquet::errors::ParquetError| PrepError::parquet("read", &path, e);
        let file = File::open(&path).map_err(|e| PrepError::io("read", &path, e))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| wrong(&e))?;
        let mask = parquet::arrow::ProjectionMask::columns(builder.parquet_schema(), [column]);
        let reader = builder.with_projection(mask).build().map_err(|e| wrong(&e))?;
        let mut rows = 0;
        for batch in reader {
            let batch = batch.map_err(|e| wrong(&e.into()))?;
            rows += batch.num_rows() as u64;
            take(batch.column(0));
        }
        check(&path, "number of rows", rows, entry.rows)
    }
}

fn check<T: PartialEq + ToString>(
    path: &Path,
    what: &str,
    found: T,
    expected: T,
) -> Result<(), PrepError> {
    if found == expected {
        return Ok(());
    }
    Err(PrepError::Damaged {
        path: path.into(),
        what: what.to_owned(),
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

/// The newest manifest in `folder`, if there is any.
///
/// Snapshots are numbered without gaps, so the first number that is absent ends the search.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Schema`].
pub fn newest(folder: &Path) -> Result<Option<Manifest>, PrepError> {
    let mut number = 0;
    while folder.join(Manifest::file(number + 1)).is_file() {
        number += 1;
    }
    if number == 0 {
        return Ok(None);
    }
    let path = folder.join(Manifest::file(number));
    let bytes = std::fs::read(&path).map_err(|e| PrepError::io("read", &path, e))?;
    let manifest =
        Manifest::from_json(&bytes).map_err(|source| PrepError::Schema { path, source })?;
    Ok(Some(manifest))
}

/// Commits snapshot 1 of a job; if it is there, it must say the same.
///
/// # Errors
///
/// [`PrepError::OutputTaken`] if another job committed something else.
pub fn commit_first(
    output: &Path,
    plan: &PrepPlan,
    receipts: &[Receipt],
    totals: &Counts,
) -> Result<u64, PrepError> {
    const FIRST: u64 = 1;
    let parts_file = Manifest::parts_file(FIRST);
    let parts_path = output.join(&parts_file);
    let manifest_path = output.join(Manifest::file(FIRST));
    let temp = write_parts(&parts_path, receipts)?;
    let (bytes, sha256, _) = fingerprint(temp.temp_path(), Vec::new())
        .map_err(|e| PrepError::io("read back", &parts_path, e))?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        snapshot: FIRST,
        parent: None,
        config_hash: plan.config_hash.clone(),
        config: plan.config_json.clone(),
        totals: totals.clone(),
        column_sets: column_set_entries(plan, receipts),
        parts: PartsEntry { file: parts_file, bytes, sha256, parts: receipts.len() as u64 },
    };
    if let Some(theirs) = newest(output)? {
        if theirs == manifest {
            return Ok(FIRST);
        }
        return Err(PrepError::OutputTaken {
            path: output.into(),
            message: "was committed by another job, which came to something else".to_owned(),
        });
    }
    temp.persist().map_err(|e| PrepError::io("write", &parts_path, e))?;
    let readme = output.join("README.md");
    write_whole(&readme, readme_text(&manifest).as_bytes())
        .map_err(|e| PrepError::io("write", &readme, e))?;
    write_new(&manifest_path, &json_text(&manifest))
        .map_err(|e| PrepError::io("write", &manifest_path, e))?;
    Ok(FIRST)
}

/// JSON with sorted keys where they are ours, indented, with a final newline.
pub fn json_text<T: serde::Serialize>(value: &T) -> Vec<u8> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            text
        }
        Err(error) => panic!("our own types serialise: {error}"),
    }
}

fn column_set_entries(plan: &PrepPlan, receipts: &[Receipt]) -> Vec<ColumnSetEntry> {
    let bytes_of = |name: &str| {
        let files = receipts.iter().flat_map(|r| &r.files);
        files.filter(|f| f.column_set == name).map(|f| f.bytes).sum()
    };
    let entry = |set: &ColumnSet| ColumnSetEntry {
        name: set.name(),
        schema_id: set.schema_id().to_owned(),
        rows_per_group: (*set == ColumnSet::Images).then_some(plan.config.image.rows_per_group),
        bytes: bytes_of(&set.name()),
    };
    plan.column_sets().iter().map(entry).collect()
}

fn readme_text(manifest: &Manifest) -> String {
    let totals = &manifest.totals;
    let mut text = format!(
        "# A catlip data set\n\n{} rows from {} samples in {} parts; {} captions, {} synsets.\n\n\
         Each folder below is a column set: one Parquet file a part, all with the same rows\n\
         in the same order. `manifest/` holds the snapshots, which are the truth; `rejects/`\n\
         lists the samples that are no rows, and why.\n\n\
         | column set | schema | bytes |\n|---|---|---|\n",
        totals.rows, totals.samples, manifest.parts.parts, totals.captions, totals.synsets
    );
    for set in &manifest.column_sets {
        text.push_str(&format!("| {} | {} | {} |\n", set.name, set.schema_id, set.bytes));
    }
    if !totals.rejects.is_empty() {
        text.push_str("\n| rejected because | entries |\n|---|---|\n");
        for (reason, count) in &totals.rejects {
            text.push_str(&format!("| {reason} | {count} |\n"));
        }
    }
    text
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

fn write_parts(path: &Path, receipts: &[Receipt]) -> Result<TempFile, PrepError> {
    let mut rows: Vec<(&FileEntry, &Receipt)> =
        receipts.iter().flat_map(|r| r.files.iter().map(move |f| (f, r))).collect();
    rows.sort_by_key(|(file, _)| file.column_set.clone());
    let text = |f: fn(&(&FileEntry, &Receipt)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(f)))
    };
    let number = |f: fn(&(&FileEntry, &Receipt)) -> u64| -> ArrayRef {
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
        text(|(_, r)| r.part.clone()),
        text(|(f, _)| f.file.clone()),
        number(|(f, _)| f.rows),
        number(|(f, _)| f.bytes),
        text(|(f, _)| f.sha256.clone()),
        text(|(_, r)| r.source.shard.clone()),
        number(|(_, r)| r.source.bytes),
        text(|(_, r)| r.source.etag.clone()),
        Arc::new(ListArray::new(element, offsets, Arc::new(values), None)),
    ];
    let wrong = |e: parquet::errors::ParquetError| PrepError::parquet("write", path, &e);
    let batch = RecordBatch::try_new(parts_schema(), columns).map_err(|e| wrong(e.into()))?;
    write_table(path, &batch)
}

fn read_parts(path: &Path) -> Result<Vec<Part>, PrepError> {
    let wrong = |e: &parquet::errors::ParquetError| PrepError::parquet("read", path, e);
    let file = File::open(path).map_err(|e| PrepError::io("read", path, e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.build())
        .map_err(|e| wrong(&e))?;
    let mut parts: BTreeMap<PartName, Part> = BTreeMap::new();
    for batch in reader {
        let batch = batch.map_err(|e| wrong(&e.into()))?;
        if batch.schema().fields() != parts_schema().fields() {
            return Err(PrepError::Damaged {
                path: path.into(),
                what: "schema".to_owned(),
                found: batch.schema().to_string(),
                expected: parts_schema().to_string(),
            });
        }
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
