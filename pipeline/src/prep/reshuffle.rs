//! A new data set with the same rows in a random order, within bounded memory.
//!
//! In: a snapshot, a seed. Out: another data set: every row that is not left out, with all its
//! column sets; the ledgers stand in the first part. Two passes: each row is thrown into a bucket
//! on disk, one bucket a part; then each bucket is shuffled in memory. Both draws depend on the
//! seed and the row's place alone, so every order is equally likely and the same seed gives the
//! same bytes, whatever the memory.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Schema, SchemaRef};
use arrow_select::interleave::interleave;
use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{ColumnSet, ColumnSetEntry, Counts, PartName, Receipt, SourceEntry};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::change::{Draft, commit};
use super::columns::ColumnWriter;
use super::error::ChangeError;
use super::file_check::{check_bytes, open_listed};
use super::folder::{Folder, whole_path};
use super::lock::Lock;
use super::run::write_receipt;
use super::snapshot::{DataSet, Part};
use super::tombstones::Tombstones;
use super::work::{Receipts, check_names, receipts_of};
use crate::error::{ConfigError, PrepError};

/// Rows that are read and written at once.
const ROWS_AT_ONCE: usize = 256;

/// What is to be shuffled, and where.
#[derive(Clone, Debug)]
pub struct ReshuffleRequest {
    /// Folder of the new data set.
    pub output: Folder,
    /// Seed of the order.
    pub seed: u64,
    /// Bytes of a part, on average; it is held in memory while it is shuffled.
    pub part_bytes: u64,
    /// Bytes of rows that are held while they are thrown into buckets.
    pub memory_bytes: u64,
    /// Local folder for the buckets, as large as the data set; removed at the end.
    pub scratch: PathBuf,
}

/// What a shuffle came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReshuffleSummary {
    /// Number of the snapshot.
    pub snapshot: u64,
    /// Parts made by this run.
    pub parts_made: u64,
    /// All parts.
    pub parts: u64,
    /// Rows.
    pub rows: u64,
}

/// Writes the rows of `data` in a random order.
///
/// # Errors
///
/// [`ChangeError::Exists`] if the output is another data set; [`ChangeError::NoColumnSet`] for a
/// set with holes; [`PrepError`]. Parts that were finished stay.
pub fn reshuffle(
    data: &DataSet,
    request: &ReshuffleRequest,
    stop: &AtomicBool,
) -> Result<ReshuffleSummary, PrepError> {
    let shuffle = Shuffle::new(data, request)?;
    shuffle.check_output()?;
    let present = Receipts::list(&request.output)?;
    let is_missing = |&part: &u32| !present.has(PartName { shard: part, cut: 0 }, shuffle.tag());
    let missing: Vec<u32> = (0..shuffle.num_parts).filter(is_missing).collect();
    let parts = u64::from(shuffle.num_parts);
    let check_stop = |made: usize| match stop.load(Ordering::Relaxed) {
        true => {
            let done = parts - (missing.len() - made) as u64;
            Err(PrepError::Interrupted { done, parts })
        }
        false => Ok(()),
    };
    if !missing.is_empty() {
        // Two processes would throw their rows into one another's buckets.
        let lock = Lock::take_empty(&request.scratch)?;
        shuffle.scatter(|| check_stop(0))?;
        for (made, &part) in missing.iter().enumerate() {
            check_stop(made)?;
            shuffle.make_part(part)?;
        }
        std::fs::remove_dir_all(&request.scratch)
            .map_err(|e| PrepError::io("remove", &request.scratch, e))?;
        drop(lock);
    }
    let manifest = shuffle.commit()?;
    Ok(ReshuffleSummary {
        snapshot: manifest.snapshot,
        parts_made: missing.len() as u64,
        parts: manifest.parts.parts,
        rows: manifest.totals.rows,
    })
}

/// One column set of the source, in the combined rows.
struct SetColumns {
    entry: ColumnSetEntry,
    schema: SchemaRef,
    /// Its columns among all.
    columns: Range<usize>,
}

struct Shuffle<'s> {
    data: &'s DataSet,
    request: &'s ReshuffleRequest,
    sets: Vec<SetColumns>,
    /// All columns of all sets side by side.
    schema: SchemaRef,
    num_parts: u32,
    config: serde_json::Value,
    config_hash: String,
}

impl<'s> Shuffle<'s> {
    fn new(data: &'s DataSet, request: &'s ReshuffleRequest) -> Result<Self, PrepError> {
        let mut sets = Vec::new();
        let mut fields = Vec::new();
        for entry in data.manifest.column_sets.iter().filter(|entry| entry.name != "rejects") {
            data.check_set(&entry.name)?;
            let Some(part) = data.parts.first() else { continue };
            let schema = open_set(data, part, &entry.name)?.1;
            let start = fields.len();
            let renamed = schema.fields().iter().map(|field| {
                Arc::new(field.as_ref().clone().with_name(format!(
                    "{}/{}",
                    entry.name,
                    field.name()
                )))
            });
            fields.extend(renamed);
            let entry = ColumnSetEntry { bytes: 0, parts: None, ..entry.clone() };
            sets.push(SetColumns { entry, schema, columns: start..fields.len() });
        }
        let bytes: u64 = sets
            .iter()
            .flat_map(|set| data.parts.iter().filter_map(|part| part.files.get(&set.entry.name)))
            .map(|file| file.bytes)
            .sum();
        let config = serde_json::json!({
            "reshuffle": {
                "of": data.identity(),
                "seed": request.seed,
                "part_bytes": request.part_bytes,
            },
            "config": data.manifest.config,
        });
        let (num_parts, rows) =
            (bytes.div_ceil(request.part_bytes.max(1)).max(1), data.live_rows().max(1));
        let too_many = || ConfigError::Range {
            key: "--part-bytes",
            found: format!("{}, which makes {num_parts} parts", request.part_bytes),
            expected: format!("more: the data set has {rows} rows, {bytes} bytes"),
        };
        // A part has a row or more.
        let num_parts = u32::try_from(num_parts).ok().filter(|&parts| u64::from(parts) <= rows);
        Ok(Self {
            data,
            request,
            sets,
            schema: Arc::new(Schema::new(fields)),
            num_parts: num_parts.ok_or_else(too_many)?,
            config_hash: blake3::hash(config.to_string().as_bytes()).to_hex().to_string(),
            config,
        })
    }

    fn tag(&self) -> &str {
        &self.config_hash[..8]
    }

    fn check_output(&self) -> Result<(), PrepError> {
        let output = &self.request.output;
        let (new, old) = (output.place(), self.data.folder.place());
        if output.is_local() && whole_path(&new).starts_with(whole_path(&old)) {
            let message = format!("lies in the data set {} that is read", old.display());
            return Err(PrepError::OutputTaken { path: new, message });
        }
        check_names(output)?;
        let found = DataSet::open_newest(output)?.map(|data| data.manifest.config_hash);
        if found.is_none_or(|hash| hash == self.config_hash) {
            return Ok(());
        }
        let message = "is another data set already".to_owned();
        Err(ChangeError::Exists { path: output.place(), message }.into())
    }

    fn bucket_path(&self, part: u32) -> PathBuf {
        self.request.scratch.join(format!("bucket-{part:06}.arrows"))
    }

    /// Random numbers for one purpose and number.
    fn draws(&self, purpose: &str, number: u64) -> impl FnMut(u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.request.seed.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        hasher.update(purpose.as_bytes());
        let mut stream = hasher.finalize_xof();
        move |below| {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            // The high half of bits × below: uniform but for 2^-64.
            ((u128::from(u64::from_le_bytes(bytes)) * u128::from(below)) >> 64) as u64
        }
    }

    /// First pass: every row into the bucket of its part.
    fn scatter(&self, check_stop: impl Fn() -> Result<(), PrepError>) -> Result<(), PrepError> {
        let mut held = Held::default();
        for (number, part) in self.data.parts.iter().enumerate() {
            let mut draw = self.draws("bucket", number as u64);
            let mut readers = Vec::new();
            for set in &self.sets {
                readers.push(checked(self.data, part, &set.entry.name)?);
            }
            let mut row = 0;
            while let Some(batch) = self.next_rows(part, &mut readers)? {
                check_stop()?;
                for at in 0..batch.num_rows() {
                    let bucket = draw(u64::from(self.num_parts)) as u32;
                    if !self.data.dropped.is_dropped(part.name, row) {
                        held.rows.push((bucket, (held.batches.len(), at)));
                    }
                    row += 1;
                }
                held.bytes += batch.get_array_memory_size() as u64;
                held.batches.push(batch);
                if held.bytes >= self.request.memory_bytes {
                    self.flush(&mut held)?;
                }
            }
        }
        self.flush(&mut held)
    }

    /// The next rows of all column sets of a part, side by side.
    fn next_rows(
        &self,
        part: &Part,
        readers: &mut [ParquetRecordBatchReader],
    ) -> Result<Option<RecordBatch>, PrepError> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (reader, set) in readers.iter_mut().zip(&self.sets) {
            let path = self.path_of(part, &set.entry.name);
            match reader.next() {
                None => return Ok(None),
                Some(Err(e)) => return Err(PrepError::parquet("read", &path, &e.into())),
                Some(Ok(batch)) => columns.extend(batch.columns().iter().cloned()),
            }
        }
        RecordBatch::try_new(self.schema.clone(), columns)
            .map(Some)
            .map_err(|e| PrepError::parquet("join", &self.path_of(part, "meta"), &e.into()))
    }

    fn path_of(&self, part: &Part, set: &str) -> PathBuf {
        let file = part.files.get(set).map_or("", |file| file.file.as_str());
        self.data.folder.path(file)
    }

    /// Appends what is held to the buckets, one Arrow stream a bucket.
    fn flush(&self, held: &mut Held) -> Result<(), PrepError> {
        // Stable: the rows of a bucket stay in the order of the source.
        held.rows.sort_by_key(|&(bucket, _)| bucket);
        for rows in held.rows.chunk_by(|a, b| a.0 == b.0) {
            let path = self.bucket_path(rows[0].0);
            let wrong = |e: arrow_schema::ArrowError| PrepError::parquet("write", &path, &e.into());
            let at: Vec<(usize, usize)> = rows.iter().map(|&(_, at)| at).collect();
            let columns = 0..self.schema.fields().len();
            let columns = columns
                .map(|column| gather(&held.batches, column, &at))
                .collect::<Result<_, _>>()
                .map_err(wrong)?;
            let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(wrong)?;
            let file = File::options()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(|e| PrepError::io("write", &path, e))?;
            let mut writer =
                StreamWriter::try_new(BufWriter::new(file), &self.schema).map_err(wrong)?;
            writer.write(&batch).and_then(|()| writer.finish()).map_err(wrong)?;
        }
        *held = Held::default();
        Ok(())
    }

    /// Second pass: one bucket, shuffled, to one part.
    fn make_part(&self, number: u32) -> Result<(), PrepError> {
        let batches = self.read_bucket(number)?;
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            order.extend((0..batch.num_rows()).map(|row| (index, row)));
        }
        let mut draw = self.draws("order", u64::from(number));
        for last in (1..order.len()).rev() {
            order.swap(last, draw(last as u64 + 1) as usize);
        }
        let part = PartName { shard: number, cut: 0 };
        let mut counts =
            Counts { samples: order.len() as u64, rows: order.len() as u64, ..Counts::default() };
        let mut files = Vec::new();
        let mut has_synsets = false;
        for set in &self.sets {
            let kind = ColumnSet::from_name(&set.entry.name);
            let is_first_synsets = !has_synsets && matches!(kind, Some(ColumnSet::Synsets(_)));
            has_synsets |= is_first_synsets;
            let mut writer = self.writer(set, part)?;
            let rows_at_once = set.entry.rows_per_group.map_or(ROWS_AT_ONCE, |rows| rows as usize);
            for rows in order.chunks(rows_at_once) {
                let batch = self.gathered(set, &batches, rows)?;
                match kind {
                    Some(ColumnSet::Captions) => {
                        counts.captions += batch.column(0).as_list::<i32>().values().len() as u64;
                    }
                    Some(ColumnSet::Synsets(_)) if is_first_synsets => {
                        let lists = batch.column(0).as_list::<i32>().values().clone();
                        counts.synsets += lists.as_list::<i32>().values().len() as u64;
                    }
                    _ => {}
                }
                writer.write(&batch)?;
            }
            files.push(writer.finish()?);
        }
        files.push(self.write_ledgers(part, &mut counts)?);
        let receipt = Receipt {
            format_version: FORMAT_VERSION,
            part: part.to_string(),
            config_hash: self.config_hash.clone(),
            source: SourceEntry {
                shard: format!("reshuffle/{part}"),
                bytes: 0,
                etag: format!("blake3-{}", &self.config_hash[..32]),
            },
            counts,
            files,
        };
        write_receipt(&self.request.output, self.tag(), part, &receipt)
    }

    fn writer(&self, set: &SetColumns, part: PartName) -> Result<ColumnWriter, PrepError> {
        let output = &self.request.output;
        match (ColumnSet::from_name(&set.entry.name), set.entry.rows_per_group) {
            (Some(kind), Some(rows)) => ColumnWriter::create(output, kind, part, self.tag(), rows),
            _ => {
                let name = &set.entry.name;
                let file = format!("{name}/part-{part}-{}.parquet", self.tag());
                ColumnWriter::create_small(output, name, file, set.schema.clone())
            }
        }
    }

    fn gathered(
        &self,
        set: &SetColumns,
        batches: &[RecordBatch],
        rows: &[(usize, usize)],
    ) -> Result<RecordBatch, PrepError> {
        set.columns
            .clone()
            .map(|column| gather(batches, column, rows))
            .collect::<Result<_, _>>()
            .and_then(|columns| RecordBatch::try_new(set.schema.clone(), columns))
            .map_err(|e| PrepError::parquet("shuffle", &self.request.scratch, &e.into()))
    }

    fn read_bucket(&self, number: u32) -> Result<Vec<RecordBatch>, PrepError> {
        let path = self.bucket_path(number);
        let wrong = |e: arrow_schema::ArrowError| PrepError::parquet("read", &path, &e.into());
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| PrepError::io("read", &path, e))?,
        };
        let end = file.metadata().map_err(|e| PrepError::io("read", &path, e))?.len();
        let mut file = BufReader::new(file);
        let mut batches = Vec::new();
        while file.stream_position().map_err(|e| PrepError::io("read", &path, e))? < end {
            for batch in StreamReader::try_new(&mut file, None).map_err(wrong)? {
                batches.push(batch.map_err(wrong)?);
            }
        }
        Ok(batches)
    }

    /// The ledgers of the source stand in the first part; the others have none.
    fn write_ledgers(
        &self,
        part: PartName,
        counts: &mut Counts,
    ) -> Result<catlip_schemas::FileEntry, PrepError> {
        let output = &self.request.output;
        let mut writer = ColumnWriter::create(output, ColumnSet::Rejects, part, self.tag(), 1)?;
        if part.shard == 0 {
            for part in self.data.parts.iter().filter(|p| p.files.contains_key("rejects")) {
                let path = self.path_of(part, "rejects");
                for batch in checked(self.data, part, "rejects")? {
                    let wrong =
                        |e: arrow_schema::ArrowError| PrepError::parquet("read", &path, &e.into());
                    writer.write(&batch.map_err(wrong)?)?;
                }
            }
            counts.rejects = self.data.manifest.totals.rejects.clone();
            counts.samples += counts.num_rejects();
        }
        writer.finish()
    }

    fn commit(&self) -> Result<catlip_schemas::Manifest, PrepError> {
        let output = &self.request.output;
        let mut sets: Vec<ColumnSetEntry> = self.sets.iter().map(|set| set.entry.clone()).collect();
        let rejects = self.data.manifest.column_sets.iter().filter(|entry| entry.name == "rejects");
        sets.extend(rejects.cloned());
        commit(output, |old| {
            if let Some(old) = old {
                self.check_output()?;
                return Ok(Draft::of(old));
            }
            let mut draft = Draft {
                config_hash: self.config_hash.clone(),
                config: self.config.clone(),
                totals: Counts::default(),
                column_sets: sets.clone(),
                parts: Vec::new(),
                dropped: Tombstones::default(),
                change: String::new(),
            };
            let parts = (0..self.num_parts).map(|part| PartName { shard: part, cut: 0 });
            for receipt in receipts_of(output, self.tag(), parts)?.values() {
                draft.totals.merge(&receipt.counts);
                draft.parts.push(
                    Part::from_receipt(receipt)
                        .map_err(|source| PrepError::Schema { path: output.place(), source })?,
                );
            }
            Ok(draft)
        })
    }
}

/// Rows that are on their way to their buckets.
#[derive(Default)]
struct Held {
    batches: Vec<RecordBatch>,
    bytes: u64,
    /// Bucket, batch and row in it.
    rows: Vec<(u32, (usize, usize))>,
}

/// Column `column` of the rows, in their order.
fn gather(
    batches: &[RecordBatch],
    column: usize,
    rows: &[(usize, usize)],
) -> Result<ArrayRef, arrow_schema::ArrowError> {
    let arrays: Vec<&dyn Array> = batches.iter().map(|b| b.column(column).as_ref()).collect();
    interleave(&arrays, rows)
}

/// Opens a column set of a part, whose damage must not get the checksums of what is written.
fn checked(data: &DataSet, part: &Part, set: &str) -> Result<ParquetRecordBatchReader, PrepError> {
    check_bytes(&data.folder, data.named_file(part, set)?)?;
    Ok(open_set(data, part, set)?.0)
}

/// A reader of a column set of a part, and the set's columns.
fn open_set(
    data: &DataSet,
    part: &Part,
    set: &str,
) -> Result<(ParquetRecordBatchReader, SchemaRef), PrepError> {
    let entry = data.named_file(part, set)?;
    let path = &data.folder.path(&entry.file);
    let wrong = |e: parquet::errors::ParquetError| PrepError::parquet("read", path, &e);
    let file = open_listed(&data.folder, entry)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(wrong)?;
    let schema = builder.schema().clone();
    let reader = builder.with_batch_size(ROWS_AT_ONCE).build().map_err(wrong)?;
    Ok((reader, schema))
}
