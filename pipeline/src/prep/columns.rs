//! Rows to Parquet columns and back.
//!
//! In: rows of one part. Out: one Parquet file a column set, as `schemas/FORMAT.md` lays them out.
//! The layout of `images` (fixed row groups, plain pages, one page a column) lets a reader fetch a
//! row group by one ranged read and find its images without a footer.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Schema};
use catlip_schemas::{ColumnSet, FileEntry, PartName, RowGroup, SampleId, Synsets};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use sha2::{Digest, Sha256};

use super::folder::Folder;
use crate::error::PrepError;
use crate::source::captions::Caption;
use crate::source::store::NewFile;

/// Rows of a row group of the small column sets: a part of 10,000 rows is one.
const ROWS_PER_GROUP: usize = 1 << 20;

/// A page holds a whole column of a row group, which stays below 2 GiB.
const PAGE_BYTES_MAX: usize = i32::MAX as usize;

/// One row of a part, before it is written.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its id.
    pub sample_id: SampleId,
    /// Its key, lossily if it is not UTF-8.
    pub key: String,
    /// Offset of the image in the shard; `None` where the shard is compressed.
    pub source_offset: Option<i64>,
    /// Bytes of the image in the shard.
    pub source_bytes: i64,
    /// Encoding of the stored image.
    pub encoding: &'static str,
    /// Width and height of the stored image.
    pub size_px: (u32, u32),
    /// Width and height of the source image.
    pub source_size_px: (u32, u32),
    /// BLAKE3 of the source image, first 16 bytes.
    pub image_hash: [u8; 16],
    /// The sample's own json, whole.
    pub json: Option<String>,
    /// The stored image.
    pub image: Vec<u8>,
    /// Its captions.
    pub captions: Vec<Caption>,
    /// The synsets of each caption.
    pub synsets: Vec<Synsets>,
}

/// One entry of the ledger, before it is written.
#[derive(Clone, Debug)]
pub struct RejectRow {
    /// The key, lossily if it is not UTF-8.
    pub key: String,
    /// The shard.
    pub source_shard: String,
    /// Offset in the tar stream.
    pub source_offset: i64,
    /// Stage of the line.
    pub stage: &'static str,
    /// Reason, as counted.
    pub reason: &'static str,
    /// What the error says.
    pub message: String,
}

/// One Parquet file that is being written.
pub struct ColumnWriter {
    set: String,
    writer: ArrowWriter<Box<dyn Write + Send>>,
    new: Box<dyn NewFile>,
    path: PathBuf,
    file: String,
}

impl ColumnWriter {
    /// Opens the file of `set` for a part below `output`.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::DiskFull`].
    pub fn create(
        output: &Folder,
        set: ColumnSet,
        part: PartName,
        config_tag: &str,
        rows_per_group: u32,
    ) -> Result<Self, PrepError> {
        let file = set.file(part, config_tag);
        let properties = properties(&set, rows_per_group);
        Self::open(output, set.name(), file, set.schema(), properties)
    }

    /// Opens `file` below `output` for a small column set of any columns.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::DiskFull`].
    pub fn create_small(
        output: &Folder,
        set: &str,
        file: String,
        schema: Arc<Schema>,
    ) -> Result<Self, PrepError> {
        Self::open(output, set.to_owned(), file, schema, compressed_properties().build())
    }

    fn open(
        output: &Folder,
        set: String,
        file: String,
        schema: Arc<Schema>,
        properties: WriterProperties,
    ) -> Result<Self, PrepError> {
        let path = output.path(&file);
        let new = output.create(&file)?;
        let handle = new.handle().map_err(|e| PrepError::io("create", &path, e))?;
        let writer = ArrowWriter::try_new(handle, schema, Some(properties))
            .map_err(|e| PrepError::parquet("create", &path, &e))?;
        Ok(Self { set, writer, new, path, file })
    }

    /// Appends a batch.
    ///
    /// # Errors
    ///
    /// [`PrepError::Parquet`], [`PrepError::DiskFull`].
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), PrepError> {
        self.writer.write(batch).map_err(|e| PrepError::parquet("write", &self.path, &e))
    }

    /// Ends the file and reads it back for its checksums; it has no name yet.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::DiskFull`], [`PrepError::Store`].
    pub fn close(self) -> Result<WrittenFile, PrepError> {
        let Self { set, writer, new, path, file } = self;
        let metadata = writer.close().map_err(|e| PrepError::parquet("write", &path, &e))?;
        let groups = groups_of(&metadata);
        let rows = groups.iter().map(|g| u64::from(g.rows)).sum();
        let entry = new
            .read_back()
            .and_then(|file| fingerprint(file, groups))
            .map(|(bytes, sha256, groups)| FileEntry {
                column_set: set,
                file,
                rows,
                bytes,
                sha256,
                groups,
            })
            .map_err(|e| PrepError::io("read back", &path, e))?;
        Ok(WrittenFile { entry, new })
    }

    /// Ends the file, reads it back, and gives it its final name.
    ///
    /// # Errors
    ///
    /// Those of [`ColumnWriter::close`] and [`WrittenFile::keep`].
    pub fn finish(self) -> Result<FileEntry, PrepError> {
        self.close()?.keep()
    }
}

/// A file that is written and has no name yet; without one it is removed.
pub struct WrittenFile {
    entry: FileEntry,
    new: Box<dyn NewFile>,
}

impl WrittenFile {
    /// What a manifest says of it.
    pub fn entry(&self) -> &FileEntry {
        &self.entry
    }

    /// Waits until its bytes are safe, and gives it its final name.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::DiskFull`], [`PrepError::Store`].
    pub fn keep(self) -> Result<FileEntry, PrepError> {
        self.new.keep()?;
        Ok(self.entry)
    }
}

fn base_properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_created_by("catlip format 1".to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
}

fn compressed_properties() -> WriterPropertiesBuilder {
    base_properties()
        .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
}

/// Columns whose values hardly repeat: a dictionary of them would be given up after a megabyte.
const UNIQUE_COLUMNS: [&[&str]; 6] = [
    &["sample_id"],
    &["key"],
    &["source_offset"],
    &["source_bytes"],
    &["image_hash"],
    &["captions", "list", "element", "text"],
];

fn properties(set: &ColumnSet, rows_per_group: u32) -> WriterProperties {
    if *set != ColumnSet::Images {
        let column = |path: &[&str]| path.iter().map(|&part| part.to_owned()).collect::<Vec<_>>();
        return UNIQUE_COLUMNS
            .iter()
            .fold(compressed_properties(), |properties, path| {
                properties.set_column_dictionary_enabled(column(path).into(), false)
            })
            .build();
    }
    // Found by arithmetic, not by search: no dictionary, statistics or compression, and each
    // column of a row group is one page.
    base_properties()
        .set_max_row_group_row_count(Some(rows_per_group as usize))
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::PLAIN)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_data_page_size_limit(PAGE_BYTES_MAX)
        .set_data_page_row_count_limit(usize::MAX)
        .set_write_batch_size(rows_per_group as usize)
        .build()
}

/// Where the row groups lie; the checksums come with the second reading.
fn groups_of(metadata: &ParquetMetaData) -> Vec<RowGroup> {
    metadata
        .row_groups()
        .iter()
        .map(|group| {
            let ranges = group.columns().iter().map(|column| column.byte_range());
            let (start, end) = ranges.fold((u64::MAX, 0), |(start, end), (offset, bytes)| {
                (start.min(offset), end.max(offset + bytes))
            });
            RowGroup {
                offset: start,
                bytes: end - start,
                rows: u32::try_from(group.num_rows()).unwrap_or(0),
                crc32c: 0,
            }
        })
        .collect()
}

/// Bytes and SHA-256 of a file that is read from its first byte, and the CRC-32C of each of its row
/// groups.
///
/// # Errors
///
/// What the system says; [`std::io::ErrorKind::UnexpectedEof`] for groups behind the end.
pub fn fingerprint(
    mut file: impl Read,
    mut groups: Vec<RowGroup>,
) -> io::Result<(u64, String, Vec<RowGroup>)> {
    const READ_BYTES: usize = 1 << 20;
    let mut sha256 = Sha256::new();
    let mut position = 0;
    let mut buffer = vec![0; READ_BYTES];
    // Row groups lie in rising order; what stands between and behind them counts for SHA-256 only.
    let mut read = |count: u64, mut crc: Option<&mut u32>| -> io::Result<u64> {
        let mut left = count;
        while left > 0 {
            let piece = &mut buffer[..left.min(READ_BYTES as u64) as usize];
            let found = match file.read(piece) {
                Ok(0) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                found => found?,
            };
            sha256.update(&piece[..found]);
            if let Some(crc) = crc.as_deref_mut() {
                *crc = crc32c::crc32c_append(*crc, &piece[..found]);
            }
            left -= found as u64;
        }
        Ok(count - left)
    };
    for group in &mut groups {
        group.crc32c = 0;
        let between = group.offset.saturating_sub(position);
        let found = read(between, None)? + read(group.bytes, Some(&mut group.crc32c))?;
        if found < between + group.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        position = group.offset + group.bytes;
    }
    position += read(u64::MAX - position, None)?;
    let digest = sha256.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok((position, digest, groups))
}

/// Reads a Parquet file by `read`; should a damaged one make the library panic, that is an error of
/// the file and not the end of the job.
///
/// # Errors
///
/// What `read` says; [`PrepError::Parquet`] for a panic.
pub fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, PrepError>,
) -> Result<T, PrepError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no words");
        let error = ParquetError::General(format!("the reader panicked: {text}"));
        Err(PrepError::parquet("read", path, &error))
    })
}

/// Writes one batch as a small Parquet file that does not have its name yet.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::DiskFull`].
pub fn write_table(
    output: &Folder,
    name: &str,
    batch: &RecordBatch,
) -> Result<Box<dyn NewFile>, PrepError> {
    let path = output.path(name);
    let wrong = |e: ParquetError| PrepError::parquet("write", &path, &e);
    let new = output.create(name)?;
    let handle = new.handle().map_err(|e| PrepError::io("create", &path, e))?;
    write_batch(handle, batch).map_err(wrong)?;
    Ok(new)
}

/// Writes one batch as a small Parquet file.
///
/// # Errors
///
/// What the library or `file` says.
pub fn write_batch(file: impl Write + Send, batch: &RecordBatch) -> Result<(), ParquetError> {
    let properties = compressed_properties().build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close().map(|_| ())
}

/// A batch of `set` from rows, or the library's own words why not.
///
/// # Panics
///
/// If the columns do not fit the schema, which both stand in this crate and `catlip-schemas`.
pub fn batch(set: &ColumnSet, rows: &[Row], shard: &str) -> RecordBatch {
    let columns = match set {
        ColumnSet::Images => vec![
            sample_ids(rows),
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|r| &r.image))) as ArrayRef,
        ],
        ColumnSet::Meta => meta_columns(rows, shard),
        ColumnSet::Captions => vec![captions_column(set, rows)],
        ColumnSet::Synsets(_) => vec![synsets_column(set, rows)],
        ColumnSet::Rejects => Vec::new(),
    };
    build(set, columns)
}

/// A batch of the ledger.
pub fn rejects_batch(rejects: &[RejectRow]) -> RecordBatch {
    let text = |f: fn(&RejectRow) -> &str| strings(rejects.iter().map(f));
    let columns = vec![
        text(|r| &r.key),
        text(|r| &r.source_shard),
        Arc::new(Int64Array::from_iter_values(rejects.iter().map(|r| r.source_offset))) as ArrayRef,
        text(|r| r.stage),
        text(|r| r.reason),
        text(|r| &r.message),
    ];
    build(&ColumnSet::Rejects, columns)
}

/// A batch of `set` from its columns.
///
/// # Panics
///
/// If they do not fit its schema, which both are ours.
pub fn build(set: &ColumnSet, columns: Vec<ArrayRef>) -> RecordBatch {
    match RecordBatch::try_new(set.schema(), columns) {
        Ok(batch) => batch,
        Err(error) => panic!("columns of {}: {error}", set.name()),
    }
}

fn strings<'r>(values: impl Iterator<Item = &'r str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn sample_ids(rows: &[Row]) -> ArrayRef {
    fixed_binary(rows.iter().map(|r| r.sample_id.0))
}

fn fixed_binary(values: impl Iterator<Item = [u8; 16]>) -> ArrayRef {
    let bytes: Vec<u8> = values.flatten().collect();
    Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), None))
}

fn meta_columns(rows: &[Row], shard: &str) -> Vec<ArrayRef> {
    let number = |f: fn(&Row) -> i32| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(rows.iter().map(f)))
    };
    vec![
        sample_ids(rows),
        strings(rows.iter().map(|r| r.key.as_str())),
        strings(rows.iter().map(|_| shard)),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.source_offset))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.source_bytes))),
        strings(rows.iter().map(|r| r.encoding)),
        number(|r| r.size_px.0 as i32),
        number(|r| r.size_px.1 as i32),
        number(|r| r.source_size_px.0 as i32),
        number(|r| r.source_size_px.1 as i32),
        fixed_binary(rows.iter().map(|r| r.image_hash)),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.json.as_deref()))),
    ]
}

/// The element field of the list that is the first column of `set`.
///
/// # Panics
///
/// If it is no list.
pub fn element(set: &ColumnSet) -> Arc<Field> {
    match set.schema().field(0).data_type() {
        DataType::List(element) => element.clone(),
        other => panic!("column of {} is {other}, expected a list", set.name()),
    }
}

fn captions_column(set: &ColumnSet, rows: &[Row]) -> ArrayRef {
    let element = element(set);
    let DataType::Struct(fields) = element.data_type() else {
        panic!("captions are structs");
    };
    let all = || rows.iter().flat_map(|r| &r.captions);
    let text = strings(all().map(|c| c.text.as_str()));
    let origin = strings(all().map(|c| c.origin.as_str()));
    let values = StructArray::new(fields.clone(), vec![text, origin], None);
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|r| r.captions.len()));
    Arc::new(ListArray::new(element, offsets, Arc::new(values), None))
}

fn synsets_column(set: &ColumnSet, rows: &[Row]) -> ArrayRef {
    let outer = element(set);
    let DataType::List(inner) = outer.data_type() else {
        panic!("synsets are lists of lists");
    };
    let captions = || rows.iter().flat_map(|r| &r.synsets);
    let values = Int32Array::from_iter_values(captions().flat_map(|s| &s.0).map(|id| id.0));
    let lengths = OffsetBuffer::from_lengths(captions().map(|s| s.0.len()));
    let lists = ListArray::new(inner.clone(), lengths, Arc::new(values), None);
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|r| r.synsets.len()));
    Arc::new(ListArray::new(outer, offsets, Arc::new(lists), None))
}
