//! The data sets of a run: opened together, offered to a feed.
//!
//! In: paths and a config. Out: [`DataSets`], whose labels were made by one rule, with the streams
//! over them. Never: reads a pixel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use catlip_pipeline::feed::order::Layout;
use catlip_pipeline::feed::plan::window_groups;
use catlip_pipeline::feed::{
    LabelsFrom, LastBatch, ReadPlan, Selection, SetRows, Source, Sources, Stream,
};
use catlip_pipeline::metrics::PrepMetrics;
use catlip_pipeline::prep::{DataSet, Folder, Stores, index};
use catlip_schemas::SampleId;

use super::batch_sampler;
use crate::config::{LabelsKind, LastBatchKind, TrainConfig};
use crate::error::TrainError;

/// Where a data set lies, and the source shards of one without images.
#[derive(Clone, Debug)]
pub struct DataPlace {
    folder: Folder,
    shards: Option<Folder>,
}

/// A data set beside its shards, as an index of them is.
impl From<Folder> for DataPlace {
    fn from(folder: Folder) -> Self {
        let place = folder.place();
        let parent = place.parent().filter(|_| folder.is_local());
        Self { shards: parent.map(Folder::from), folder }
    }
}

impl From<&Path> for DataPlace {
    fn from(path: &Path) -> Self {
        Folder::from(path).into()
    }
}

impl From<&PathBuf> for DataPlace {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

impl DataPlace {
    /// The data sets that `named` names: folders, URLs, or plain shards, whose index is made first
    /// if needed. `data.shards` says where the shards of those without images are.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`]; [`TrainError::Mix`] for as many folders of shards as there are no data
    /// sets.
    pub fn find(
        config: &TrainConfig,
        named: &[PathBuf],
        stores: &Stores,
    ) -> Result<Vec<Self>, TrainError> {
        let said = &config.data.shards;
        // One folder is that of all.
        if said.len() > 1 && said.len() != named.len() {
            return Err(TrainError::Mix {
                key: "data.shards",
                found: format!("{} folders", said.len()),
                sets: named.len(),
            });
        }
        let find = |(number, path): (usize, &PathBuf)| {
            let text = path.to_string_lossy().into_owned();
            if index::names_shards(&text) {
                let stop = AtomicBool::new(false);
                let (index, _) = index::make_index(&[text], &[], &PrepMetrics::default(), &stop)?;
                return Ok(Self::from(&index.folder));
            }
            let said = said.get(number).or(said.first()).filter(|folder| !folder.is_empty());
            let shards = match said {
                Some(said) => Some(stores.folder(Path::new(said))?),
                // Only needed, and only then missed, where there are no images.
                None => path.parent().and_then(|parent| stores.folder(parent).ok()),
            };
            Ok(Self { folder: stores.folder(path)?, shards })
        };
        named.iter().enumerate().map(find).collect()
    }

    /// Where the data set is, for messages.
    pub fn place(&self) -> PathBuf {
        self.folder.place()
    }
}

/// Data sets that are read together.
#[derive(Clone, Debug)]
pub struct DataSets {
    sets: Vec<Arc<DataSet>>,
    sources: Sources,
}

impl DataSets {
    /// Opens the data sets at `places`, one at least.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`]; [`TrainError::OtherRule`] if they are labelled by different rules.
    pub fn open(config: &TrainConfig, places: &[DataPlace]) -> Result<Self, TrainError> {
        let opened = places.iter().map(|place| Ok(Arc::new(DataSet::open(&place.folder)?)));
        let sets: Vec<Arc<DataSet>> = opened.collect::<Result<_, TrainError>>()?;
        let expected = sets[0].synsets_set()?.name();
        for set in &sets {
            check_rule(set, &expected)?;
        }
        let reads = reads(config);
        let source = |(place, set): (&DataPlace, &Arc<DataSet>)| {
            Source::open(set.clone(), place.shards.as_ref(), &reads)
        };
        let sources = places.iter().zip(&sets).map(source).collect::<Result<_, _>>()?;
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

/// Refuses a data set whose labels are not `expected`.
pub(super) fn check_rule(set: &DataSet, expected: &str) -> Result<(), TrainError> {
    let found = set.synsets_set()?.name();
    if found == expected {
        return Ok(());
    }
    let (path, expected) = (set.folder.place(), expected.to_owned());
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
