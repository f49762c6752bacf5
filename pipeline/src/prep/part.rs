//! One source shard to one part.
//!
//! In: the bytes of a shard and the plan. Out: the part's files, durable under their final names,
//! and its receipt as a value. A pure function: the same shard and config give the same bytes, in
//! any thread, process or machine. Never: knows of other shards.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{ColumnSet, Counts, PartName, Receipt, SampleId, SourceEntry, Synsets};
use rayon::prelude::*;

use super::columns::{ColumnWriter, RejectRow, Row, WrittenFile, batch, rejects_batch};
use super::filter;
use super::folder::Folder;
use super::plan::PrepPlan;
use super::quarantine::Quarantine;
use super::stored::{Stored, Tools, store};
use crate::caption::ids;
use crate::config::{BadSample, Duplicates, ImageMode};
use crate::error::{PrepError, STAGE_FILTER, SampleError};
use crate::metrics::PrepMetrics;
use crate::source::bytes::{Compression, TarBytes};
use crate::source::captions::{Caption, captions, text_of};
use crate::source::sample::{File, Reject};
use crate::source::spool::ShardIdentity;
use crate::source::{OpenShard, Sample, SampleReader, ShardUrl};

/// Extensions that are read as images; the bytes decide the format.
pub const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "avif"];

/// Samples that are prepared at once: enough to keep 64 threads busy to the end of a batch.
pub const BATCH_SAMPLES: usize = 512;

/// Entries of the ledger that are written at once: the same number each time, whatever was prepared
/// at once, so that the file has the same bytes whatever memory a job has.
const LEDGER_ROWS: usize = 1024;

/// Characters of a wrong label that the ledger shows.
const LABEL_CHARS_SHOWN: usize = 40;

/// What the job around a part may say and ask.
pub trait PartWatch: Sync {
    /// A batch was prepared: counts so far of this batch; an error stops the job.
    ///
    /// # Errors
    ///
    /// When a budget is spent or a signal asked to stop.
    fn check(&self, samples: u64, rejects: &[RejectRow]) -> Result<(), PrepError>;
}

/// Where a part is made, from what.
pub struct PartJob<'j> {
    /// What to do.
    pub plan: &'j PrepPlan,
    /// The data set.
    pub output: &'j Folder,
    /// The part's name.
    pub part: PartName,
    /// The source.
    pub shard: &'j ShardUrl,
    /// Its bytes.
    pub bytes: &'j OpenShard,
    /// Counters of the job.
    pub metrics: &'j PrepMetrics,
    /// Budget and signals of the job.
    pub watch: &'j dyn PartWatch,
    /// Only the samples at these offsets in the tar stream, or all.
    pub only: Option<&'j HashSet<u64>>,
}

impl PartJob<'_> {
    /// Whether the part is made of this sample.
    fn wants(&self, sample: &Result<Sample<'_>, Reject>) -> bool {
        let is_named = |only: &HashSet<u64>| match sample {
            Ok(sample) => only.contains(&sample.offset()),
            Err(_) => false,
        };
        self.only.is_none_or(is_named)
    }
}

/// A shard as receipts name it.
pub fn source_entry(shard: &ShardUrl, identity: &ShardIdentity) -> SourceEntry {
    SourceEntry { shard: shard.name.clone(), bytes: identity.bytes, etag: identity.etag.clone() }
}

/// Makes a part: reads, labels, decodes, resizes, encodes and writes every sample of the shard.
///
/// # Errors
///
/// [`PrepError`] when the job must stop; a bad sample is an entry of the ledger.
pub fn make_part(job: &PartJob<'_>) -> Result<MadePart, PrepError> {
    let bytes: &[u8] = job.bytes;
    let tar = TarBytes::open(bytes).map_err(|e| PrepError::io("read", &job.shard.path(), e))?;
    let is_plain = Compression::of(bytes) == Compression::Plain;
    if !is_plain && job.plan.config.image.mode == ImageMode::Reference {
        return Err(PrepError::NoByteRanges { shard: job.shard.name.clone() });
    }
    let mut reader = SampleReader::new(tar, job.plan.config.source.allow_missing_end);
    let mut files = PartFiles::create(job)?;
    let quarantine = Quarantine::default();
    let on_bad_sample = job.plan.config.budget.on_bad_sample;
    loop {
        let read = Instant::now();
        let samples = next_batch(job, &mut reader);
        let (count, position) = (samples.len() as u64, reader.position());
        job.metrics.read.add(read.elapsed(), count);
        if samples.is_empty() {
            break;
        }
        let rows: Vec<Result<Row, RejectRow>> = samples
            .into_par_iter()
            .map_init(Tools::default, |tools, sample| {
                let sample = sample.map_err(|r| reject_row(job, &r))?;
                prepare(job, &sample, is_plain, tools).map_err(|error| {
                    let is_failure = error.stage() != STAGE_FILTER;
                    if is_failure && on_bad_sample == BadSample::Quarantine {
                        quarantine.add(&sample);
                    }
                    let (key, offset) = (sample.key.clone(), sample.offset());
                    reject_row(job, &Reject { key, offset, error })
                })
            })
            .collect();
        files.take(job, rows)?;
        // Of a compressed shard nobody knows how far it was read.
        let done = if is_plain { usize::try_from(position).ok() } else { None };
        job.bytes.release(done.unwrap_or(usize::MAX));
        job.metrics.held.add(read.elapsed(), count);
    }
    let quarantine_dir = Path::new(&job.plan.config.budget.quarantine_dir);
    quarantine.write(quarantine_dir, job.part, job.plan.config_tag())?;
    let (counts, files) = files.close(job)?;
    let receipt = Receipt {
        format_version: FORMAT_VERSION,
        part: job.part.to_string(),
        config_hash: job.plan.config_hash.clone(),
        source: source_entry(job.shard, job.bytes.identity()),
        counts,
        files: files.iter().map(|file| file.entry().clone()).collect(),
    };
    Ok(MadePart { receipt, files })
}

/// A part whose files are written and have no names yet; without them they are removed.
pub struct MadePart {
    receipt: Receipt,
    files: Vec<WrittenFile>,
}

impl MadePart {
    /// Waits until the files are safe and gives them their names. It waits for disk or store, not
    /// for a core: call it on no thread that others need.
    ///
    /// # Errors
    ///
    /// Those of [`WrittenFile::keep`].
    pub fn keep(self, metrics: &PrepMetrics) -> Result<Receipt, PrepError> {
        metrics.finish.measure(|| self.files.into_iter().try_for_each(|f| f.keep().map(drop)))?;
        Ok(self.receipt)
    }
}

fn next_batch<'a>(
    job: &PartJob<'_>,
    reader: &mut SampleReader<'a>,
) -> Vec<Result<Sample<'a>, Reject>> {
    let mut samples = Vec::with_capacity(BATCH_SAMPLES);
    let bytes_max = usize::try_from(job.plan.memory.batch_bytes()).unwrap_or(usize::MAX);
    let mut bytes = 0;
    while samples.len() < BATCH_SAMPLES && bytes < bytes_max {
        let Some(sample) = reader.next() else { break };
        if !job.wants(&sample) {
            continue;
        }
        if let Ok(sample) = &sample {
            bytes += sample.files.iter().map(|f| f.data.len()).sum::<usize>();
        }
        samples.push(sample);
    }
    samples
}

fn reject_row(job: &PartJob<'_>, reject: &Reject) -> RejectRow {
    RejectRow {
        key: String::from_utf8_lossy(&reject.key).into_owned(),
        source_shard: job.shard.name.clone(),
        source_offset: i64::try_from(reject.offset).unwrap_or(i64::MAX),
        stage: reject.error.stage(),
        reason: reject.error.reason(),
        message: reject.error.to_string(),
    }
}

/// One sample to one row.
fn prepare(
    job: &PartJob<'_>,
    sample: &Sample<'_>,
    is_plain: bool,
    tools: &mut Tools,
) -> Result<Row, SampleError> {
    let PartJob { plan, metrics, .. } = job;
    metrics.bytes_in.add(sample.files.iter().map(|f| f.data.len() as u64).sum());
    plan.filter.check_key(&sample.key)?;
    let file = image_file(sample)?;
    let captions = captions(sample, &plan.caption_sources, plan.config.caption.bytes_max)?;
    plan.filter.check_captions(&captions)?;
    let json = text_of(sample, "json")?.map(str::to_owned);
    plan.filter.check_json(json.as_deref())?;
    let stored = store(plan, metrics, &file.data, tools)?;
    metrics.bytes_out.add(stored.bytes.len() as u64);
    let synsets = metrics.label.measure(|| synsets(plan, sample, &captions))?;
    let mut image_hash = [0; 16];
    image_hash.copy_from_slice(&blake3::hash(&file.data).as_bytes()[..16]);
    let Stored { bytes, encoding, size_px, source_size_px } = stored;
    Ok(Row {
        sample_id: SampleId::new(&job.shard.name, &sample.key),
        key: String::from_utf8_lossy(&sample.key).into_owned(),
        source_offset: is_plain.then(|| i64::try_from(file.offset).unwrap_or(i64::MAX)),
        source_bytes: file.data.len() as i64,
        encoding,
        size_px,
        source_size_px,
        image_hash,
        json,
        image: bytes,
        captions,
        synsets,
    })
}

/// The synsets of each caption; those of a file that the rule reads go to the first one.
fn synsets(
    plan: &PrepPlan,
    sample: &Sample<'_>,
    captions: &[Caption],
) -> Result<Vec<Synsets>, SampleError> {
    let Some(extension) = plan.rule.file() else {
        return Ok(captions.iter().map(|c| plan.rule.synsets(&c.text)).collect());
    };
    let text = text_of(sample, extension)?.ok_or_else(|| SampleError::LabelsMissing {
        file: extension.to_owned(),
        members: sample.extensions(),
    })?;
    let found = ids::parse(text).map_err(|word| SampleError::LabelUnknown {
        file: extension.to_owned(),
        found: word.chars().take(LABEL_CHARS_SHOWN).collect(),
    })?;
    let mut all = vec![Synsets::default(); captions.len()];
    if let Some(first) = all.first_mut() {
        *first = found;
    }
    Ok(all)
}

/// The one image of a sample.
fn image_file<'s, 'a>(sample: &'s Sample<'a>) -> Result<&'s File<'a>, SampleError> {
    let is_image = |f: &&File<'_>| IMAGE_EXTENSIONS.contains(&f.extension.as_str());
    let mut images = sample.files.iter().filter(is_image);
    let Some(file) = images.next() else {
        let expected = IMAGE_EXTENSIONS.join(", ");
        return Err(SampleError::ImageMissing { members: sample.extensions(), expected });
    };
    let more = images.count();
    if more > 0 {
        return Err(SampleError::ImageAmbiguous { found: 1 + more, members: sample.extensions() });
    }
    if file.data.is_empty() {
        return Err(SampleError::ImageEmpty { member: file.extension.clone() });
    }
    Ok(file)
}

/// The files of a part while they are written.
struct PartFiles {
    writers: Vec<(ColumnSet, ColumnWriter)>,
    rejects: ColumnWriter,
    pending: Vec<Row>,
    pending_rejects: Vec<RejectRow>,
    rows_per_group: usize,
    counts: Counts,
    /// Hashes of the images so far, if a second one is not wanted.
    seen: Option<HashSet<[u8; 16]>>,
}

impl PartFiles {
    fn create(job: &PartJob<'_>) -> Result<Self, PrepError> {
        let rows_per_group = job.plan.config.image.rows_per_group;
        let create = |set: ColumnSet| {
            ColumnWriter::create(job.output, set, job.part, job.plan.config_tag(), rows_per_group)
        };
        let sets = job.plan.column_sets();
        let writers = sets
            .into_iter()
            .filter(|set| *set != ColumnSet::Rejects)
            .map(|set| Ok((set.clone(), create(set)?)))
            .collect::<Result<_, PrepError>>()?;
        Ok(Self {
            writers,
            rejects: create(ColumnSet::Rejects)?,
            pending: Vec::new(),
            pending_rejects: Vec::new(),
            rows_per_group: rows_per_group as usize,
            counts: Counts::default(),
            seen: (job.plan.config.filter.duplicates == Duplicates::Drop).then(HashSet::new),
        })
    }

    /// Takes the outcome of a batch; writes row groups as they fill.
    fn take(
        &mut self,
        job: &PartJob<'_>,
        outcomes: Vec<Result<Row, RejectRow>>,
    ) -> Result<(), PrepError> {
        let samples = outcomes.len() as u64;
        let mut rejects = Vec::new();
        for outcome in outcomes {
            match self.unless_seen(job, outcome) {
                Ok(row) => {
                    self.counts.captions += row.captions.len() as u64;
                    self.counts.synsets +=
                        row.synsets.iter().map(|s| s.0.len() as u64).sum::<u64>();
                    self.pending.push(row);
                }
                Err(reject) => {
                    *self.counts.rejects.entry(reject.reason.to_owned()).or_default() += 1;
                    rejects.push(reject);
                }
            }
        }
        let rows = samples - rejects.len() as u64;
        self.counts.samples += samples;
        self.counts.rows += rows;
        job.metrics.samples.add(samples);
        job.metrics.rows.add(rows);
        job.metrics.rejects.add(rejects.len() as u64);
        job.metrics.write.measure(|| {
            self.pending_rejects.extend(rejects.iter().cloned());
            while self.pending_rejects.len() >= LEDGER_ROWS {
                self.write_rejects(LEDGER_ROWS)?;
            }
            while self.pending.len() >= self.rows_per_group {
                self.write_group(job, self.rows_per_group)?;
            }
            Ok::<_, PrepError>(())
        })?;
        job.watch.check(samples, &rejects)
    }

    /// Turns a row into an entry of the ledger if its image came before; rows come in the order of
    /// the shard, so the first one stays.
    fn unless_seen(
        &mut self,
        job: &PartJob<'_>,
        outcome: Result<Row, RejectRow>,
    ) -> Result<Row, RejectRow> {
        let row = outcome?;
        if self.seen.as_mut().is_none_or(|seen| seen.insert(row.image_hash)) {
            return Ok(row);
        }
        let error = filter::duplicate(row.image_hash);
        Err(RejectRow {
            key: row.key,
            source_shard: job.shard.name.clone(),
            source_offset: row.source_offset.unwrap_or(0),
            stage: error.stage(),
            reason: error.reason(),
            message: error.to_string(),
        })
    }

    fn write_group(&mut self, job: &PartJob<'_>, count: usize) -> Result<(), PrepError> {
        let rows: Vec<Row> = self.pending.drain(..count).collect();
        for (set, writer) in &mut self.writers {
            writer.write(&batch(set, &rows, &job.shard.name))?;
        }
        Ok(())
    }

    fn write_rejects(&mut self, count: usize) -> Result<(), PrepError> {
        let rejects: Vec<RejectRow> = self.pending_rejects.drain(..count).collect();
        self.rejects.write(&rejects_batch(&rejects))
    }

    fn close(mut self, job: &PartJob<'_>) -> Result<(Counts, Vec<WrittenFile>), PrepError> {
        let metrics = job.metrics;
        metrics.write.measure(|| {
            if !self.pending.is_empty() {
                self.write_group(job, self.pending.len())?;
            }
            match self.pending_rejects.len() {
                0 => Ok(()),
                count => self.write_rejects(count),
            }
        })?;
        metrics.finish.measure(|| {
            let mut files = Vec::new();
            for (set, writer) in self.writers {
                let file = writer.close()?;
                assert_eq!(file.entry().rows, self.counts.rows, "rows of {}", set.name());
                files.push(file);
            }
            let rejects = self.rejects.close()?;
            assert_eq!(rejects.entry().rows, self.counts.num_rejects(), "rows of the ledger");
            files.push(rejects);
            Ok((self.counts, files))
        })
    }
}
