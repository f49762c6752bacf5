//! What a recipe says about the feed, and what that means.
//!
//! In: the TOML of `catlip-train`, of which sections and keys that decide what is read, in which
//! order and how it is seen are taken here; the others are the trainer's. Out: a [`FeedRecipe`];
//! with data sets and a vocabulary a [`FeedPlan`]. Never: a key that no file of defaults has.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use catlip_schemas::Vocab;
use serde::{Deserialize, Serialize};

use super::data_error::DataError;
use super::data_sets::DataSets;
use super::labels::LabelsFrom;
use super::order::Layout;
use super::plan::{FeedPlan, MemoryPlan, Viewing};
use super::sampler::{BatchSampler, StepSize, VariableSizes};
use super::selection::is_held_out;
use super::source::ReadPlan;
use super::stream::{LastBatch, Stream};
use crate::config::{overlay, refused, within};
use crate::error::ConfigError;
use crate::image::Filter;

/// Threads that read row groups: one waits for the disk while the other checks a checksum.
const READER_THREADS: usize = 2;

/// Section `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct DataConfig {
    pub weights: Vec<f64>,
    pub labels: LabelsKind,
    pub label_set: String,
    pub snapshots: Vec<u64>,
    pub shards: Vec<String>,
    pub holdout_percent: f64,
    pub holdout_rows_max: u64,
}

/// Which captions of a sample give its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub enum LabelsKind {
    Union,
    OneCaption,
}

/// `feed.last_batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub enum LastBatchKind {
    Drop,
    Pad,
}

/// Section `feed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct FeedConfig {
    pub threads: usize,
    pub queue_batches: usize,
    pub lanes: u32,
    pub window_bytes: u64,
    pub last_batch: LastBatchKind,
    pub memory_bytes: u64,
    pub spill_dir: String,
    pub hedge_ms: u64,
    pub cache_dir: String,
    pub cache_bytes: u64,
    pub bad_rows_max: i64,
    pub page_lock: bool,
}

/// Section `vocab`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct VocabConfig {
    pub min_count: u64,
    pub top_k: usize,
    pub multiple_of: usize,
}

/// How many images a step takes, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub enum SamplerKind {
    Fixed,
    Variable,
}

/// Section `sampler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct SamplerConfig {
    pub kind: SamplerKind,
    pub min_px: u32,
    pub max_px: u32,
    pub scales: u32,
    pub multiple_px: u32,
    pub shares: u32,
}

/// Of section `train` what decides the order and number of steps.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct StepsConfig {
    pub steps: u64,
    pub epochs: f64,
    pub batch: usize,
    pub image_px: usize,
    pub seed: u64,
}

/// Of section `augment` what happens to an image before it is pixels of a batch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct CropConfig {
    pub crop_area_min: f64,
    pub crop_area_max: f64,
    pub crop_aspect_min: f64,
    pub crop_aspect_max: f64,
    pub flip: f64,
}

/// Of section `eval` how an image is seen without a draw.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct CentreConfig {
    pub crop_share: f64,
}

/// What a recipe says about the feed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct FeedRecipe {
    pub data: DataConfig,
    pub vocab: VocabConfig,
    pub train: StepsConfig,
    pub sampler: SamplerConfig,
    pub augment: CropConfig,
    pub feed: FeedConfig,
    pub eval: CentreConfig,
}

impl FeedRecipe {
    /// The settings of `default`, the text of `train.default.toml`, overlaid by a recipe and by
    /// `section.key=value` settings. A recipe for the trainer is one for the feed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the key, its range, or the nearest key that is known.
    pub fn load(
        default: &str,
        recipe: Option<&Path>,
        settings: &[String],
    ) -> Result<Self, ConfigError> {
        let loaded: Self = overlay(default, recipe, settings)?;
        loaded.check()?;
        Ok(loaded)
    }

    /// Refuses values outside their ranges.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Range`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { data, vocab, train, augment, feed, eval, .. } = self;
        data.check()?;
        feed.check()?;
        within("vocab.top_k", vocab.top_k as f64, 1.0, 1e6)?;
        within("vocab.multiple_of", vocab.multiple_of as f64, 1.0, 4096.0)?;
        within("train.epochs", train.epochs, 0.0, 1e6)?;
        within("train.batch", train.batch as f64, 1.0, 65_536.0)?;
        within("train.image_px", train.image_px as f64, 16.0, 1024.0)?;
        within("augment.crop_area_min", augment.crop_area_min, 0.001, augment.crop_area_max)?;
        within("augment.crop_area_max", augment.crop_area_max, 0.001, 1.0)?;
        within("augment.crop_aspect_min", augment.crop_aspect_min, 0.01, 100.0)?;
        within("augment.crop_aspect_max", augment.crop_aspect_max, augment.crop_aspect_min, 100.0)?;
        within("augment.flip", augment.flip, 0.0, 1.0)?;
        within("eval.crop_share", eval.crop_share, 0.1, 1.0)?;
        if train.steps == 0 && train.epochs == 0.0 {
            return Err(refused("train.steps", 0, "more, or train.epochs above 0".to_owned()));
        }
        self.check_sampler()
    }

    fn check_sampler(&self) -> Result<(), ConfigError> {
        let Self { sampler, train, .. } = self;
        within("sampler.min_px", sampler.min_px.into(), 16.0, sampler.max_px.into())?;
        within("sampler.max_px", sampler.max_px.into(), sampler.min_px.into(), 1024.0)?;
        within("sampler.scales", sampler.scales.into(), 1.0, 1000.0)?;
        within("sampler.multiple_px", sampler.multiple_px.into(), 1.0, 256.0)?;
        within("sampler.shares", sampler.shares.into(), 1.0, train.batch as f64)?;
        if train.batch % sampler.shares as usize != 0 {
            let expected = format!("a divisor of train.batch = {}", train.batch);
            return Err(refused("sampler.shares", sampler.shares, expected));
        }
        Ok(())
    }

    /// The sizes of the steps.
    pub fn batch_sampler(&self) -> BatchSampler {
        let (side_px, batch) = (self.train.image_px as u32, self.train.batch as u32);
        let sampler = &self.sampler;
        match sampler.kind {
            SamplerKind::Fixed => BatchSampler::fixed(side_px, batch),
            SamplerKind::Variable => BatchSampler::variable(
                &VariableSizes {
                    base: StepSize { side_px, batch },
                    min_px: sampler.min_px,
                    max_px: sampler.max_px,
                    num_scales: sampler.scales,
                    multiple_px: sampler.multiple_px,
                    shares: sampler.shares,
                },
                self.train.seed,
            ),
        }
    }

    /// A random crop of an image, as training sees it.
    pub fn random_view(&self) -> Viewing {
        let augment = &self.augment;
        Viewing::RandomCrop {
            area: (augment.crop_area_min, augment.crop_area_max),
            aspect: (augment.crop_aspect_min, augment.crop_aspect_max),
            flip: augment.flip,
            filter: Filter::Bilinear,
        }
    }

    /// The centre of an image, as evaluation and prediction see it.
    pub fn centre_view(&self) -> Viewing {
        let resize_px = (self.train.image_px as f64 / self.eval.crop_share).round() as u32;
        Viewing::Centre { resize_px, filter: Filter::Bilinear }
    }

    /// How stores are read.
    pub fn reads(&self) -> ReadPlan {
        let feed = &self.feed;
        let (folder, limit) = (feed.cache_dir.as_str(), feed.cache_bytes);
        ReadPlan {
            hedge_after: (feed.hedge_ms > 0).then(|| Duration::from_millis(feed.hedge_ms)),
            cache: (!folder.is_empty()).then(|| (folder.into(), limit)),
        }
    }

    /// What becomes of rows that fill no batch.
    pub fn last_batch(&self) -> LastBatch {
        match self.feed.last_batch {
            LastBatchKind::Drop => LastBatch::Drop,
            LastBatchKind::Pad => LastBatch::Pad,
        }
    }

    /// Steps of a run: `train.steps`, or those of `train.epochs`, one at least.
    pub fn num_steps(&self, stream: &Stream) -> u64 {
        match self.train.steps {
            0 => stream.steps_of_epochs(self.train.epochs).max(1),
            steps => steps,
        }
    }

    /// A feed of `stream` over `data` without steps: threads, memory and queue as the recipe says,
    /// the centre of each image, the labels of all captions.
    pub fn feed(&self, data: &DataSets, stream: Stream, vocab: &Arc<Vocab>) -> FeedPlan {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
        let (sources, feed) = (data.sources().clone(), &self.feed);
        FeedPlan {
            decode_threads: if feed.threads == 0 { cores } else { feed.threads },
            reader_threads: READER_THREADS,
            depth_batches: feed.queue_batches,
            memory: MemoryPlan { bytes: feed.memory_bytes, spill_dir: (&feed.spill_dir).into() },
            bad_rows_max: u64::try_from(feed.bad_rows_max).ok(),
            ..FeedPlan::new(sources, stream, vocab.clone(), self.centre_view(), 0)
        }
    }

    /// The feed that training over `data` begins with.
    ///
    /// # Errors
    ///
    /// [`DataError::Prep`], [`DataError::Mix`].
    pub fn training_feed(
        &self,
        data: &DataSets,
        vocab: &Arc<Vocab>,
    ) -> Result<FeedPlan, DataError> {
        let stream = data.training_stream(self)?;
        let num_steps = self.num_steps(&stream);
        let labels_from = match self.data.labels {
            LabelsKind::Union => LabelsFrom::Union,
            LabelsKind::OneCaption => LabelsFrom::OneCaption,
        };
        let viewing = self.random_view();
        Ok(FeedPlan { viewing, labels_from, num_steps, ..self.feed(data, stream, vocab) })
    }
}

impl FeedRecipe {
    /// The feed of the rows that are held out: in the order in which they lie, the last batch
    /// padded, the centre of each image, the labels of all captions.
    ///
    /// # Errors
    ///
    /// [`DataError::Prep`].
    pub fn held_out_feed(
        &self,
        data: &DataSets,
        vocab: &Arc<Vocab>,
    ) -> Result<FeedPlan, DataError> {
        let percent = self.data.holdout_percent;
        let selection = data.rows(|id| is_held_out(id, percent))?;
        let sampler = BatchSampler::fixed(self.train.image_px as u32, self.train.batch as u32);
        let stream = Stream::of_one(selection, Layout::Sequential, sampler);
        let stream = Stream { last_batch: LastBatch::Pad, ..stream };
        let num_steps = stream.steps_in(0);
        Ok(FeedPlan { num_steps, ..self.feed(data, stream, vocab) })
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            weights: Vec::new(),
            labels: LabelsKind::Union,
            label_set: String::new(),
            snapshots: Vec::new(),
            shards: Vec::new(),
            holdout_percent: 0.0,
            holdout_rows_max: 10_000,
        }
    }
}

impl Default for FeedConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            queue_batches: 3,
            lanes: 64,
            window_bytes: 1 << 30,
            last_batch: LastBatchKind::Drop,
            memory_bytes: 4 << 30,
            spill_dir: String::new(),
            hedge_ms: 500,
            cache_dir: String::new(),
            cache_bytes: 100 << 30,
            bad_rows_max: -1,
            page_lock: true,
        }
    }
}

impl DataConfig {
    fn check(&self) -> Result<(), ConfigError> {
        within("data.holdout_percent", self.holdout_percent, 0.0, 50.0)?;
        within("data.holdout_rows_max", self.holdout_rows_max as f64, 1.0, 1e6)?;
        Ok(())
    }

    /// Reads the snapshots and labels that a run over so many data sets was begun with, where
    /// nothing else was said.
    pub fn go_on_with(&mut self, begun: &Self, num_sets: usize) {
        if self.snapshots.is_empty() && begun.snapshots.len() == num_sets {
            self.snapshots.clone_from(&begun.snapshots);
        }
        if self.label_set.is_empty() {
            self.label_set.clone_from(&begun.label_set);
        }
    }

    /// The key by which `other` reads another snapshot or other labels, with both values. A run of
    /// a version that did not note what it read differs in nothing.
    pub fn other_choice(&self, other: &Self) -> Option<[String; 3]> {
        if !self.snapshots.is_empty() && self.snapshots != other.snapshots {
            let text = |data: &Self| format!("{:?}", data.snapshots);
            return Some(["data.snapshots".to_owned(), text(self), text(other)]);
        }
        let differs = !self.label_set.is_empty() && self.label_set != other.label_set;
        let both = || [self.label_set.clone(), other.label_set.clone()];
        differs.then(both).map(|[mine, theirs]| ["data.label_set".to_owned(), mine, theirs])
    }
}

impl FeedConfig {
    fn check(&self) -> Result<(), ConfigError> {
        within("feed.threads", self.threads as f64, 0.0, 4096.0)?;
        within("feed.queue_batches", self.queue_batches as f64, 1.0, 64.0)?;
        within("feed.lanes", self.lanes as f64, 1.0, 4096.0)?;
        within("feed.window_bytes", self.window_bytes as f64, 1.0, (1_u64 << 50) as f64)?;
        within("feed.memory_bytes", self.memory_bytes as f64, 1.0, (1_u64 << 50) as f64)?;
        within("feed.hedge_ms", self.hedge_ms as f64, 0.0, 3.6e6)?;
        within("feed.cache_bytes", self.cache_bytes as f64, 0.0, (1_u64 << 50) as f64)?;
        within("feed.bad_rows_max", self.bad_rows_max as f64, -1.0, 1e15)?;
        Ok(())
    }
}
