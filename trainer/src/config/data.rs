//! The sections `data` and `feed`: what is read, and how.

use catlip_pipeline::error::ConfigError;
use serde::{Deserialize, Serialize};

use super::within;

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
    pub(super) fn check(&self) -> Result<(), ConfigError> {
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
    pub(super) fn check(&self) -> Result<(), ConfigError> {
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
