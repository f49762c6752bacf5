//! One source shard to one part.
//!
//! In: the bytes of a shard and the plan. Out: the part's files, durable under their final names,
//! and its receipt as a value. A pure function: the same shard and config give the same bytes, in
//! any thread, process or machine. Never: knows of other shards.

use std::path::Path;

use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{ColumnSet, Counts, PartName, Receipt, SampleId, SourceEntry};
use rayon::prelude::*;

use super::columns::{ColumnWriter, RejectRow, Row, batch, rejects_batch};
use super::plan::PrepPlan;
use crate::error::{PrepError, SampleError};
use crate::image::resize::{Resizer, shrunk_size};
use crate::image::{self, Format, Image, jpeg};
use crate::metrics::PrepMetrics;
use crate::source::bytes::{Compression, TarBytes};
use crate::source::captions::{captions, text_of};
use crate::source::sample::{File, Reject};
use crate::source::spool::ShardIdentity;
use crate::source::{OpenShard, Sample, SampleReader, ShardUrl};

/// Extensions that are read as images; the bytes decide the format.
pub const IMAGE_EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Samples that are prepared at once: enough to keep 64 threads busy to the end of a batch.
const BATCH_SAMPLES: usize = 512;

/// Bytes of the samples that are prepared at once; bounds memory for shards of huge files.
const BATCH_BYTES: usize = 128 << 20;

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
    pub output: &'j Path,
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
pub fn make_part(job: &PartJob<'_>) -> Result<Receipt, PrepError> {
    let bytes: &[u8] = job.bytes;
    let tar = TarBytes::open(bytes).map_err(|e| PrepError::io("read", &job.shard.path(), e))?;
    let is_plain = Compression::of(bytes) == Compression::Plain;
    let mut reader = SampleReader::new(tar, job.plan.config.source.allow_missing_end);
    let mut files = PartFiles::create(job)?;
    loop {
        let samples = next_batch(&mut reader);
        if samples.is_empty() {
            break;
        }
        let rows: Vec<Result<Row, RejectRow>> = samples
            .into_par_iter()
            .map_init(Resizer::default, |resizer, sample| {
                let sample = sample.map_err(|r| reject_row(job, &r))?;
                prepare(job, &sample, is_plain, resizer).map_err(|error| {
                    let (key, offset) = (sample.key.clone(), sample.offset());
                    reject_row(job, &Reject { key, offset, error })
                })
            })
            .collect();
        files.take(job, rows)?;
    }
    let (counts, entries) = files.finish(job)?;
    Ok(Receipt {
        format_version: FORMAT_VERSION,
        part: job.part.to_string(),
        config_hash: job.plan.config_hash.clone(),
        source: source_entry(job.shard, job.bytes.identity()),
        counts,
        files: entries,
    })
}

fn next_batch<'a>(reader: &mut SampleReader<'a>) -> Vec<Result<Sample<'a>, Reject>> {
    let mut samples = Vec::with_capacity(BATCH_SAMPLES);
    let mut bytes = 0;
    while samples.len() < BATCH_SAMPLES && bytes < BATCH_BYTES {
        let Some(sample) = reader.next() else { break };
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
    resizer: &mut Resizer,
) -> Result<Row, SampleError> {
    let PartJob { plan, metrics, .. } = job;
    metrics.bytes_in.add(sample.files.iter().map(|f| f.data.len() as u64).sum());
    let file = image_file(sample)?;
    let captions = captions(sample, &plan.caption_sources, plan.config.caption.bytes_max)?;
    let json = text_of(sample, "json")?.map(str::to_owned);
    let synsets = metrics
        .label
        .measure(|| captions.iter().map(|c| plan.rule.synsets(&c.text)).collect::<Vec<_>>());
    let config = &plan.config.image;
    let format = Format::of(&file.data)?;
    let image = metrics.decode.measure(|| image::decode(&file.data, config.pixels_max))?;
    let source_size_px = (image.width_px, image.height_px);
    let (stored, size_px) =
        metrics.encode.measure(|| shrink(plan, format, &file.data, image, resizer))?;
    if stored.len() as u64 > config.bytes_max {
        let limit = usize::try_from(config.bytes_max).unwrap_or(usize::MAX);
        return Err(SampleError::ImageTooManyBytes { bytes: stored.len(), limit });
    }
    metrics.bytes_out.add(stored.len() as u64);
    let mut image_hash = [0; 16];
    image_hash.copy_from_slice(&blake3::hash(&file.data).as_bytes()[..16]);
    Ok(Row {
        sample_id: SampleId::new(&job.shard.name, &sample.key),
        key: String::from_utf8_lossy(&sample.key).into_owned(),
        source_offset: is_plain.then(|| i64::try_from(file.offset).unwrap_or(i64::MAX)),
        source_bytes: file.data.len() as i64,
        encoding: Format::Jpeg.encoding(),
        size_px,
        source_size_px,
        image_hash,
        json,
        image: stored,
        captions,
        synsets,
    })
}

/// The one image of a sample.
fn image_file<'s, 'a>(sample: &'s Sample<'a>) -> Result<&'s File<'a>, SampleError> {
    let is_image = |f: &&File<'_>| IMAGE_EXTENSIONS.contains(&f.extension.as_str());
    let mut images = sample.files.iter().filter(is_image);
    let members = sample.extensions();
    let Some(file) = images.next() else {
        return Err(SampleError::ImageMissing { members, expected: IMAGE_EXTENSIONS.join(", ") });
    };
    let more = images.count();
    if more > 0 {
        return Err(SampleError::ImageAmbiguous { found: 1 + more, members });
    }
    if file.data.is_empty() {
        return Err(SampleError::ImageEmpty { member: file.extension.clone() });
    }
    Ok(file)
}

/// The JPEG to store and its size: the source itself where nothing is gained by encoding anew.
fn shrink(
    plan: &PrepPlan,
    format: Format,
    source: &[u8],
    image: Image,
    resizer: &mut Resizer,
) -> Result<(Vec<u8>, (u32, u32)), SampleError> {
    let config = &plan.config.image;
    let before = (image.width_px, image.height_px);
    let after = shrunk_size(before.0, before.1, config.short_side_px);
    if after == before && format == Format::Jpeg && config.keep_small_jpeg {
        return Ok((source.to_vec(), before));
    }
    let image = if after == before { image } else { resizer.resize(&image, config.filter, after) };
    Ok((jpeg::encode(&image, config.quality, plan.chroma)?, after))
}

/// The files of a part while they are written.
struct PartFiles {
    writers: Vec<(ColumnSet, ColumnWriter)>,
    rejects: ColumnWriter,
    pending: Vec<Row>,
    rows_per_group: usize,
    counts: Counts,
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
            rows_per_group: rows_per_group as usize,
            counts: Counts::default(),
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
            match outcome {
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
            if !rejects.is_empty() {
                self.rejects.write(&rejects_batch(&rejects))?;
            }
            while self.pending.len() >= self.rows_per_group {
                self.write_group(job, self.rows_per_group)?;
            }
            Ok::<_, PrepError>(())
        })?;
        job.watch.check(samples, &rejects)
    }

    fn write_group(&mut self, job: &PartJob<'_>, count: usize) -> Result<(), PrepError> {
        let rows: Vec<Row> = self.pending.drain(..count).collect();
        for (set, writer) in &mut self.writers {
            writer.write(&batch(set, &rows, &job.shard.name))?;
        }
        Ok(())
    }

    fn finish(
        mut self,
        job: &PartJob<'_>,
    ) -> Result<(Counts, Vec<catlip_schemas::FileEntry>), PrepError> {
        let metrics = job.metrics;
        metrics.write.measure(|| {
            if !self.pending.is_empty() {
                self.write_group(job, self.pending.len())?;
            }
            let mut entries = Vec::new();
            for (set, writer) in self.writers {
                let entry = writer.finish()?;
                assert_eq!(entry.rows, self.counts.rows, "rows of {}", set.name());
                entries.push(entry);
            }
            let rejects = self.rejects.finish()?;
            assert_eq!(rejects.rows, self.counts.num_rejects(), "rows of the ledger");
            entries.push(rejects);
            Ok((self.counts, entries))
        })
    }
}
