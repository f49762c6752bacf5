//! Snapshots: the unit of truth of a data set, written once and read by everybody.
//!
//! In: the folder of a data set and, if wanted, the number of a snapshot. Out: the [`DataSet`] that
//! it describes. Never: lists a folder to learn what is in a data set. How snapshots come to be:
//! [`super::change`].

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef};
use bytes::Bytes;
use catlip_schemas::columns::SYNSETS_PREFIX;
use catlip_schemas::{ColumnSet, FileEntry, Manifest, SampleId, SynsetId, Synsets};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;

use super::error::ChangeError;
use super::file_check::{checked, open_listed, read_listed, same};
use super::folder::Folder;
pub use super::parts_table::Part;
use super::parts_table::read_parts;
use super::tombstones::{Tombstones, read_tombstones};
use crate::error::PrepError;

/// Rows of a column that are read at once.
const ROWS_AT_ONCE: usize = 8192;

/// A snapshot of a data set, open for reading.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Its folder.
    pub folder: Folder,
    /// The snapshot.
    pub manifest: Manifest,
    /// Its parts in order.
    pub parts: Vec<Part>,
    /// The rows that are left out. Readers of columns give them all the same, since columns are
    /// joined by position; whoever counts or trains passes over them.
    pub dropped: Tombstones,
    labels: Option<String>,
}

impl DataSet {
    /// Opens the newest snapshot in `folder`, which a path or [`super::Stores::folder`] gives.
    ///
    /// # Errors
    ///
    /// [`PrepError::NotThere`] for nothing, [`PrepError::NoDataSet`] without a committed snapshot;
    /// [`PrepError::Damaged`] if the table of parts is not the one that the manifest names.
    pub fn open(folder: impl Into<Folder>) -> Result<Self, PrepError> {
        Self::open_at(folder, None)
    }

    /// Opens a snapshot by its number, or the newest.
    ///
    /// # Errors
    ///
    /// As [`DataSet::open`]; [`ChangeError::NoSnapshot`].
    pub fn open_at(folder: impl Into<Folder>, snapshot: Option<u64>) -> Result<Self, PrepError> {
        let folder = folder.into();
        let newest = newest_number(&folder)?;
        if newest == 0 {
            let (path, message) = (folder.place(), "it has no committed snapshot".to_owned());
            return Err(match folder.top_names()?.is_empty() {
                true => PrepError::NotThere { path },
                false => PrepError::NoDataSet { path, message },
            });
        }
        let found = snapshot.unwrap_or(newest);
        if !(1..=newest).contains(&found) {
            return Err(ChangeError::NoSnapshot { path: folder.place(), found, newest }.into());
        }
        let manifest = read_manifest(&folder, found)?;
        let entry = &manifest.parts;
        let path = folder.path(&entry.file);
        let parts =
            read_parts(&path, read_checked(&folder, &entry.file, entry.bytes, &entry.sha256)?)?;
        same(&path, "number of parts", parts.len() as u64, entry.parts)?;
        let mut dropped = Tombstones::default();
        if let Some(entry) = &manifest.tombstones {
            let path = folder.path(&entry.file);
            let bytes = read_checked(&folder, &entry.file, entry.bytes, &entry.sha256)?;
            dropped = read_tombstones(&path, bytes)?;
            same(&path, "number of rows left out", dropped.count(), entry.rows)?;
        }
        Ok(Self { folder, manifest, parts, dropped, labels: None })
    }

    /// The newest snapshot, if there is any.
    ///
    /// # Errors
    ///
    /// As [`DataSet::open`].
    pub fn open_newest(folder: impl Into<Folder>) -> Result<Option<Self>, PrepError> {
        let folder = folder.into();
        match newest_number(&folder)? {
            0 => Ok(None),
            number => Self::open_at(&folder, Some(number)).map(Some),
        }
    }

    /// Chooses the labels that [`DataSet::read_synsets`] gives: a rule with its version, such as
    /// `corenet-1`, or the whole name of the column set. An empty name chooses nothing.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NoColumnSet`] if it is not there for every part.
    pub fn with_labels(mut self, name: &str) -> Result<Self, PrepError> {
        if name.is_empty() {
            return Ok(self);
        }
        let name = match name.starts_with(SYNSETS_PREFIX) {
            true => name.to_owned(),
            false => format!("{SYNSETS_PREFIX}{name}"),
        };
        self.check_set(&name)?;
        self.labels = Some(name);
        Ok(self)
    }

    /// Refuses a column set that some part lacks.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NoColumnSet`].
    pub fn check_set(&self, name: &str) -> Result<(), PrepError> {
        let entry = self.manifest.column_sets.iter().find(|entry| entry.name == name);
        let message = match entry {
            None => "is not there".to_owned(),
            Some(entry) => match entry.parts {
                None => return Ok(()),
                Some(parts) => format!("covers {parts} of {} parts", self.parts.len()),
            },
        };
        Err(ChangeError::NoColumnSet {
            path: self.folder.place(),
            snapshot: self.manifest.snapshot,
            set: name.to_owned(),
            message,
        }
        .into())
    }

    /// The column set of synsets that was chosen, or the only one.
    ///
    /// # Errors
    ///
    /// [`PrepError::NoDataSet`] if the snapshot has none; [`ChangeError::SeveralLabels`] if it has
    /// several and none was chosen; [`ChangeError::NoColumnSet`] if it is not whole.
    pub fn synsets_set(&self) -> Result<ColumnSet, PrepError> {
        let sets = self.manifest.column_sets.iter();
        let all: Vec<ColumnSet> = sets
            .filter_map(|entry| ColumnSet::from_name(&entry.name))
            .filter(|set| matches!(set, ColumnSet::Synsets(_)))
            .collect();
        let chosen = all.iter().find(|set| Some(set.name()) == self.labels);
        let set = match (chosen, &all[..]) {
            (Some(set), _) | (None, [set]) => set.clone(),
            (None, []) => {
                return Err(PrepError::NoDataSet {
                    path: self.folder.place(),
                    message: "its snapshot has no column set of synsets".to_owned(),
                });
            }
            (None, _) => {
                let sets = all.iter().map(ColumnSet::name).collect();
                return Err(ChangeError::SeveralLabels { path: self.folder.place(), sets }.into());
            }
        };
        self.check_set(&set.name())?;
        Ok(set)
    }

    /// What decides the rows that a reader sees: the table of parts and the rows left out.
    pub fn identity(&self) -> String {
        let tombstones = self.manifest.tombstones.as_ref().map(|entry| entry.sha256.as_str());
        [Some(self.manifest.parts.sha256.as_str()), tombstones, self.labels.as_deref()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Rows of the snapshot that are not left out.
    pub fn live_rows(&self) -> u64 {
        self.parts.iter().map(Part::rows).sum::<u64>() - self.dropped.count()
    }

    /// The file of `set` for a part.
    ///
    /// # Errors
    ///
    /// [`PrepError::NoDataSet`] if the part has none.
    pub fn file<'p>(&self, part: &'p Part, set: &ColumnSet) -> Result<&'p FileEntry, PrepError> {
        self.named_file(part, &set.name())
    }

    /// The file of a column set of a part by its name, which may be one that was added.
    ///
    /// # Errors
    ///
    /// [`PrepError::NoDataSet`] if the part has none.
    pub fn named_file<'p>(&self, part: &'p Part, set: &str) -> Result<&'p FileEntry, PrepError> {
        part.files.get(set).ok_or_else(|| PrepError::NoDataSet {
            path: self.folder.place(),
            message: format!("part {} has no column set {set}", part.name),
        })
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

    /// The keys of a part, in the order of its rows.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Parquet`].
    pub fn read_keys(&self, part: &Part) -> Result<Vec<String>, PrepError> {
        let mut keys = Vec::new();
        self.read_column(part, &ColumnSet::Meta, "key", |column| {
            keys.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
        })?;
        Ok(keys)
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

    /// Gives one column of a part to `take`, batch by batch.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::NoDataSet`]; [`PrepError::Damaged`]
    /// for a file of another number of rows.
    pub fn read_column(
        &self,
        part: &Part,
        set: &ColumnSet,
        column: &str,
        take: impl FnMut(&ArrayRef),
    ) -> Result<(), PrepError> {
        self.read_named(part, &set.name(), column, take)
    }

    /// The same for a column set by its name, which may be one that was added. Its file is read
    /// whole and compared with its checksum, since one bit of it would be another label: images are
    /// read by row groups elsewhere.
    ///
    /// # Errors
    ///
    /// As [`DataSet::read_column`].
    pub fn read_named(
        &self,
        part: &Part,
        set: &str,
        column: &str,
        mut take: impl FnMut(&ArrayRef),
    ) -> Result<(), PrepError> {
        let entry = self.named_file(part, set)?;
        let path = self.folder.path(&entry.file);
        let mut rows = 0;
        let file = read_listed(&self.folder, entry)?;
        read_columns(&path, file, column, usize::MAX, &mut |column| {
            rows += column.len() as u64;
            take(column);
        })?;
        same(&path, "number of rows", rows, entry.rows)
    }

    /// The same for the first rows of a part only.
    ///
    /// # Errors
    ///
    /// As [`DataSet::read_column`], but for the number of rows.
    pub fn read_head(
        &self,
        part: &Part,
        set: &str,
        column: &str,
        num_rows: usize,
        mut take: impl FnMut(&ArrayRef),
    ) -> Result<(), PrepError> {
        let entry = self.named_file(part, set)?;
        let path = self.folder.path(&entry.file);
        read_columns(&path, open_listed(&self.folder, entry)?, column, num_rows, &mut take)
    }
}

/// Gives the first rows of one column of a Parquet file to `take`, batch by batch.
fn read_columns(
    path: &Path,
    file: impl ChunkReader + 'static,
    column: &str,
    num_rows: usize,
    take: &mut dyn FnMut(&ArrayRef),
) -> Result<(), PrepError> {
    let wrong = |e: &parquet::errors::ParquetError| PrepError::parquet("read", path, e);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| wrong(&e))?;
    let mask = parquet::arrow::ProjectionMask::columns(builder.parquet_schema(), [column]);
    let builder = builder.with_projection(mask).with_batch_size(num_rows.clamp(1, ROWS_AT_ONCE));
    let reader = builder.with_limit(num_rows).build().map_err(|e| wrong(&e))?;
    for batch in reader {
        take(batch.map_err(|e| wrong(&e.into()))?.column(0));
    }
    Ok(())
}

/// The bytes of a table, which must be those that the manifest tells of.
fn read_checked(folder: &Folder, name: &str, bytes: u64, sha256: &str) -> Result<Bytes, PrepError> {
    checked(&folder.path(name), folder.read(name)?, bytes, sha256)
}

/// Number of the newest snapshot in `folder`, 0 if there is none.
///
/// Snapshots are numbered without gaps, so a few questions find the last one: of 1,000 the tenth
/// doubling overshoots and nine halvings come back.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Store`].
pub fn newest_number(folder: &Folder) -> Result<u64, PrepError> {
    let is_there = |number| Ok::<_, PrepError>(folder.head(&Manifest::file(number))?.is_some());
    // What is there, and the first number that may not be.
    let (mut known, mut end) = (0, 1);
    while is_there(end)? {
        (known, end) = (end, 2 * end);
    }
    while known + 1 < end {
        let middle = known + (end - known) / 2;
        match is_there(middle)? {
            true => known = middle,
            false => end = middle,
        }
    }
    Ok(known)
}

/// The manifest of that number.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Schema`].
pub fn read_manifest(folder: &Folder, number: u64) -> Result<Manifest, PrepError> {
    let name = Manifest::file(number);
    Manifest::from_json(&folder.read(&name)?)
        .map_err(|source| PrepError::Schema { path: folder.path(&name), source })
}
