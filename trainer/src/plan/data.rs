//! The data sets of a run: opened together, offered to a feed.
//!
//! In: paths and a config. Out: [`DataSets`], whose labels were made by one rule, with the streams
//! over them. Never: reads a pixel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use catlip_pipeline::error::PrepError;
use catlip_pipeline::feed::order::Layout;
use catlip_pipeline::feed::plan::window_groups;
use catlip_pipeline::feed::{
    LabelsFrom, LastBatch, ReadPlan, Selection, SetRows, Source, Sources, Stream,
};
use catlip_pipeline::metrics::PrepMetrics;
use catlip_pipeline::prep::{DataSet, index};
use catlip_schemas::SampleId;

use super::batch_sampler;
use crate::config::{LabelsKind, LastBatchKind, TrainConfig};
use crate::error::TrainError;

/// Data sets that are read together.
#[derive(Clone, Debug)]
pub struct DataSets {
    sets: Vec<Arc<DataSet>>,
    sources: Sources,
}

impl DataSets {
    /// Opens the data sets at `paths`; `config` says where the shards of those without images are.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`]; [`TrainError::OtherRule`] if they are labelled by different rules;
    /// [`TrainError::Mix`] for as many weights or shard folders as there are no data sets.
    pub fn open(config: &TrainConfig, paths: &[PathBuf]) -> Result<Self, TrainError> {
        let opened = paths.iter().map(|path| Ok(Arc::new(open(path)?)));
        let sets: Vec<Arc<DataSet>> = opened.collect::<Result<_, TrainError>>()?;
        let expected = sets[0].synsets_set()?.name();
        for (path, set) in paths.iter().zip(&sets) {
            check_rule(path, set, &expected)?;
        }
        let folders = &config.data.shards;
        // One folder is that of all.
        if folders.len() > 1 && folders.len() != sets.len() {
            return Err(TrainError::Mix {
                key: "data.shards",
                found: format!("{} folders", folders.len()),
                sets: sets.len(),
            });
        }
        let reads = reads(config);
        let source = |(number, set): (usize, &Arc<DataSet>)| {
            let said = folders.get(number).or(folders.first()).filter(|f| !f.is_empty());
            // An index lies beside its shards.
            let shards = said.map(Path::new).or(set.folder.parent());
            Source::local(set.clone(), shards, &reads)
        };
        let sources = sets.iter().enumerate().map(source).collect::<Result<_, _>>()?;
        Ok(Self { sources: Sources::new(sources), sets })
    }

    /// The snapshots.
    pub fn sets(&self) -> &[Arc<DataSet>] {
        &self.sets
    }

    /// Where a feed reads them.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The column set of their labels.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`].
    pub fn rule(&self) -> Result<String, TrainError> {
        Ok(self.sets[0].synsets_set()?.name())
    }

    /// What decides the rows that a feed sees.
    pub fn identity(&self) -> String {
        let all: Vec<String> = self.sets.iter().map(|set| set.identity()).collect();
        all.join(" + ")
    }

    /// The rows whose id passes `keep`, of all data sets one behind the other.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`].
    pub fn rows(&self, keep: impl Fn(&SampleId) -> bool + Sync) -> Result<Selection, TrainError> {
        let of_set = |set: &Arc<DataSet>| Ok((Selection::by_id(set, &keep)?, set.parts.len()));
        let sets = self.sets.iter().map(of_set).collect::<Result<_, TrainError>>()?;
        Ok(Selection::join(sets))
    }

    /// All rows, of all data sets one behind the other.
    pub fn all_rows(&self) -> Selection {
        let of_set = |set: &Arc<DataSet>| (Selection::all(set), set.parts.len());
        Selection::join(self.sets.iter().map(of_set).collect())
    }

    /// The training rows and the steps that they make: the data sets mixed by `data.weights`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`]; [`TrainError::Mix`] for weights that cannot be.
    pub fn training_stream(&self, config: &TrainConfig) -> Result<Stream, TrainError> {
        let (percent, weights) = (config.data.holdout_percent, &config.data.weights);
        let of_set = |set: &Arc<DataSet>| {
            let selection = match percent == 0.0 {
                true => Selection::all(set),
                false => Selection::by_id(set, |id| !super::is_held_out(id, percent))?,
            };
            let rows = selection.num_rows();
            Ok((SetRows { selection, num_parts: set.parts.len(), window_groups: 0 }, rows))
        };
        let sets: Vec<(SetRows, u64)> =
            self.sets.iter().map(of_set).collect::<Result<_, TrainError>>()?;
        let (seed, lanes) = (config.train.seed, config.feed.lanes);
        let shares = shares(&sets, weights);
        let with_window = |(number, (set, _)): (usize, (SetRows, u64))| {
            let bytes = config.feed.window_bytes as f64 * shares.get(number).unwrap_or(&1.0);
            let window_groups = window_groups(&self.sets[number], lanes, bytes as u64);
            SetRows { window_groups, ..set }
        };
        let sets: Vec<SetRows> = sets.into_iter().enumerate().map(with_window).collect();
        let window_groups = sets[0].window_groups;
        let layout = Layout::Shuffled { seed, lanes, window_groups };
        let sampler = batch_sampler(config);
        let stream = if sets.len() == 1 && weights.is_empty() {
            let only = sets.into_iter().next().map(|set| set.selection);
            let only = only.unwrap_or_else(|| Selection::of_groups(Vec::new()));
            Some(Stream::of_one(only, layout, sampler))
        } else {
            Stream::of_sets(sets, weights, layout, sampler)
        };
        let stream = stream.ok_or_else(|| TrainError::Mix {
            key: "data.weights",
            found: format!("{weights:?}"),
            sets: self.sets.len(),
        })?;
        let last_batch = match config.feed.last_batch {
            LastBatchKind::Drop => LastBatch::Drop,
            LastBatchKind::Pad => LastBatch::Pad,
        };
        Ok(Stream { last_batch, ..stream })
    }
}

/// How `config` wants stores read.
fn reads(config: &TrainConfig) -> ReadPlan {
    let feed = &config.feed;
    let (folder, limit) = (feed.cache_dir.as_str(), feed.cache_bytes);
    ReadPlan {
        hedge_after: (feed.hedge_ms > 0).then(|| Duration::from_millis(feed.hedge_ms)),
        cache: (!folder.is_empty()).then(|| (folder.into(), limit)),
    }
}

/// The data set in a folder, or the index of the shards that `path` names, made first if needed.
fn open(path: &Path) -> Result<DataSet, PrepError> {
    let text = path.to_string_lossy().into_owned();
    if !index::names_shards(&text) {
        return DataSet::open(path);
    }
    let stop = AtomicBool::new(false);
    let (index, _) = index::make_index(&[text], &[], &PrepMetrics::default(), &stop)?;
    DataSet::open(&index.folder)
}

/// Refuses a data set whose labels are not `expected`.
pub(super) fn check_rule(path: &Path, set: &DataSet, expected: &str) -> Result<(), TrainError> {
    let found = set.synsets_set()?.name();
    if found == expected {
        return Ok(());
    }
    let (path, expected) = (path.to_path_buf(), expected.to_owned());
    Err(TrainError::OtherRule { path, found, expected })
}

/// Which part of a mix each data set is.
fn shares(sets: &[(SetRows, u64)], weights: &[f64]) -> Vec<f64> {
    let rows = sets.iter().map(|(_, rows)| *rows as f64).collect();
    let weights: Vec<f64> = if weights.is_empty() { rows } else { weights.to_vec() };
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum.max(f64::MIN_POSITIVE)).collect()
}

/// Which captions give the labels in training.
pub fn labels_from(config: &TrainConfig) -> LabelsFrom {
    match config.data.labels {
        LabelsKind::Union => LabelsFrom::Union,
        LabelsKind::OneCaption => LabelsFrom::OneCaption,
    }
}
