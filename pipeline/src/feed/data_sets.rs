//! The data sets of a feed: opened together, offered as one stream.
//!
//! In: paths and a [`FeedRecipe`]. Out: [`DataSets`], whose labels were made by one rule, with the
//! streams over them. Never: reads a pixel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use catlip_schemas::columns::SYNSETS_PREFIX;
use catlip_schemas::{Frequencies, SampleId, Vocab, VocabCut};

use super::data_error::DataError;
use super::order::Layout;
use super::plan::window_groups;
use super::recipe::{DataConfig, FeedRecipe};
use super::selection::{Selection, is_held_out};
use super::source::{Source, Sources};
use super::stream::{SetRows, Stream};
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::prep::{DataSet, Folder, Stores, index, vocab};

/// Where a data set lies, and the source shards of one without images.
#[derive(Clone, Debug)]
pub struct DataPlace {
    folder: Folder,
    shards: Option<Folder>,
    /// Whether it is an index of plain shards, which follows them by new snapshots.
    is_index: bool,
}

/// A data set beside its shards, as an index of them is.
impl From<Folder> for DataPlace {
    fn from(folder: Folder) -> Self {
        let place = folder.place();
        let parent = place.parent().filter(|_| folder.is_local());
        Self { shards: parent.map(Folder::from), folder, is_index: false }
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
    /// [`DataError::Prep`]; [`DataError::Mix`] for as many folders of shards as there are no data
    /// sets.
    pub fn find(
        recipe: &FeedRecipe,
        named: &[PathBuf],
        stores: &Stores,
    ) -> Result<Vec<Self>, DataError> {
        let said = &recipe.data.shards;
        // One folder is that of all.
        if said.len() > 1 && said.len() != named.len() {
            return Err(DataError::Mix {
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
                return Ok(Self { is_index: true, ..Self::from(&index.folder) });
            }
            let said = said.get(number).or(said.first()).filter(|folder| !folder.is_empty());
            let shards = match said {
                Some(said) => Some(stores.folder(Path::new(said))?),
                // Only needed, and only then missed, where there are no images.
                None => path.parent().and_then(|parent| stores.folder(parent).ok()),
            };
            Ok(Self { folder: stores.folder(path)?, shards, is_index: false })
        };
        named.iter().enumerate().map(find).collect()
    }

    /// Where the data set is, for messages.
    pub fn place(&self) -> PathBuf {
        self.folder.place()
    }
}

/// Which snapshots of data sets are read, and which of their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// A number for each data set, or one for all; 0, or no number: the newest.
    pub snapshots: Vec<u64>,
    /// A column set of synsets such as `corenet-1`; empty: the only one.
    pub labels: String,
    /// Whether a data set is read that has other labels, and no choice of them.
    pub takes_others: bool,
}

impl Choice {
    /// What a recipe says.
    pub fn of(recipe: &FeedRecipe) -> Self {
        let (snapshots, labels) = (recipe.data.snapshots.clone(), recipe.data.label_set.clone());
        Self { snapshots, labels, takes_others: false }
    }

    fn snapshot(&self, number: usize) -> Option<u64> {
        let said = self.snapshots.get(number).or(self.snapshots.first());
        said.copied().filter(|&snapshot| snapshot > 0)
    }

    fn open(&self, place: &DataPlace, number: usize) -> Result<DataSet, DataError> {
        let set = DataSet::open_at(&place.folder, self.snapshot(number))?;
        // The name of the labels is part of what identifies a data set where there are several, and
        // there only: a run over the only ones goes on when others have come.
        let only = set.synsets_set().map(|only| only.name()).unwrap_or_default();
        let short = only.strip_prefix(SYNSETS_PREFIX).unwrap_or_default();
        let is_meant = self.takes_others || [&only, short].contains(&self.labels.as_str());
        match is_meant && !only.is_empty() {
            true => Ok(set),
            false => Ok(set.with_labels(&self.labels)?),
        }
    }
}

/// Data sets that are read together.
#[derive(Clone, Debug)]
pub struct DataSets {
    sets: Vec<Arc<DataSet>>,
    sources: Sources,
    /// The number of each snapshot; 0 for an index, of which the newest is always read.
    snapshots: Vec<u64>,
}

impl DataSets {
    /// Opens the data sets at `places`, one at least, as the recipe chooses snapshots and labels.
    ///
    /// # Errors
    ///
    /// [`DataError::Prep`]; [`DataError::OtherRule`] if they are labelled by different rules;
    /// [`DataError::Mix`] for as many snapshots as there are no data sets.
    pub fn open(recipe: &FeedRecipe, places: &[DataPlace]) -> Result<Self, DataError> {
        Self::open_as(recipe, places, &Choice::of(recipe))
    }

    /// Opens the data sets at `places`, one at least, as `choice` says.
    ///
    /// # Errors
    ///
    /// Those of [`DataSets::open`].
    pub fn open_as(
        recipe: &FeedRecipe,
        places: &[DataPlace],
        choice: &Choice,
    ) -> Result<Self, DataError> {
        let said = &choice.snapshots;
        if said.len() > 1 && said.len() != places.len() {
            let (key, found) = ("data.snapshots", format!("{said:?}"));
            return Err(DataError::Mix { key, found, sets: places.len() });
        }
        let open = |(number, place)| Ok(Arc::new(choice.open(place, number)?));
        let opened = places.iter().enumerate().map(open);
        let sets: Vec<Arc<DataSet>> = opened.collect::<Result<_, DataError>>()?;
        let expected = sets[0].synsets_set()?.name();
        for set in &sets {
            check_rule(set, &expected)?;
        }
        let reads = recipe.reads();
        let source = |(place, set): (&DataPlace, &Arc<DataSet>)| {
            Source::open(set.clone(), place.shards.as_ref(), &reads)
        };
        let sources = places.iter().zip(&sets).map(source).collect::<Result<_, _>>()?;
        let number = |(place, set): (&DataPlace, &Arc<DataSet>)| match place.is_index {
            true => 0,
            false => set.manifest.snapshot,
        };
        let snapshots = places.iter().zip(&sets).map(number).collect();
        Ok(Self { sources: Sources::new(sources), sets, snapshots })
    }

    /// Notes in `config` what was opened.
    ///
    /// # Errors
    ///
    /// [`DataError::Prep`].
    pub fn note(&self, config: &mut DataConfig) -> Result<(), DataError> {
        config.snapshots.clone_from(&self.snapshots);
        config.label_set = self.rule()?;
        Ok(())
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
    /// [`DataError::Prep`].
    pub fn rule(&self) -> Result<String, DataError> {
        Ok(self.sets[0].synsets_set()?.name())
    }

    /// Refuses data sets whose labels are not the column set `expected`.
    ///
    /// # Errors
    ///
    /// [`DataError::OtherRule`], [`DataError::Prep`].
    pub fn check_rule(&self, expected: &str) -> Result<(), DataError> {
        self.sets.iter().try_for_each(|set| check_rule(set, expected))
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
    /// [`DataError::Prep`].
    pub fn rows(&self, keep: impl Fn(&SampleId) -> bool + Sync) -> Result<Selection, DataError> {
        let of_set = |set: &Arc<DataSet>| Ok((Selection::by_id(set, &keep)?, set.parts.len()));
        let sets = self.sets.iter().map(of_set).collect::<Result<_, DataError>>()?;
        Ok(Selection::join(sets))
    }

    /// All rows, of all data sets one behind the other.
    pub fn all_rows(&self) -> Selection {
        let of_set = |set: &Arc<DataSet>| (Selection::all(set), set.parts.len());
        Selection::join(self.sets.iter().map(of_set).collect())
    }

    /// The vocabulary of the training rows, cut as the recipe says.
    ///
    /// # Errors
    ///
    /// [`DataError::EmptyVocab`], [`DataError::Prep`].
    pub fn make_vocab(&self, recipe: &FeedRecipe) -> Result<Vocab, DataError> {
        let percent = recipe.data.holdout_percent;
        let cut = VocabCut {
            min_count: recipe.vocab.min_count,
            top_k: Some(recipe.vocab.top_k),
            multiple_of: recipe.vocab.multiple_of,
        };
        let (mut frequencies, mut rows) = (Frequencies::default(), 0);
        for set in &self.sets {
            let (of_set, rows_of_set) = vocab::count(set, |id| !is_held_out(id, percent))?;
            frequencies.merge(&of_set);
            rows += rows_of_set;
        }
        let vocab = vocab::from_frequencies(&frequencies, &cut)
            .map_err(|source| PrepError::Schema { path: self.sets[0].folder.place(), source })?;
        if vocab.is_empty() {
            return Err(DataError::EmptyVocab { rows, synsets: frequencies.len() });
        }
        Ok(vocab)
    }

    /// The training rows and the steps that they make: the data sets mixed by `data.weights`.
    ///
    /// # Errors
    ///
    /// [`DataError::Prep`]; [`DataError::Mix`] for weights that cannot be.
    pub fn training_stream(&self, recipe: &FeedRecipe) -> Result<Stream, DataError> {
        let (percent, weights) = (recipe.data.holdout_percent, &recipe.data.weights);
        let of_set = |set: &Arc<DataSet>| {
            let selection = match percent == 0.0 {
                true => Selection::all(set),
                false => Selection::by_id(set, |id| !is_held_out(id, percent))?,
            };
            let rows = selection.num_rows();
            Ok((SetRows { selection, num_parts: set.parts.len(), window_groups: 0 }, rows))
        };
        let sets: Vec<(SetRows, u64)> =
            self.sets.iter().map(of_set).collect::<Result<_, DataError>>()?;
        let (seed, lanes) = (recipe.train.seed, recipe.feed.lanes);
        let shares = shares(&sets, weights);
        let with_window = |(number, (set, _)): (usize, (SetRows, u64))| {
            let bytes = recipe.feed.window_bytes as f64 * shares.get(number).unwrap_or(&1.0);
            let window_groups = window_groups(&self.sets[number], lanes, bytes as u64);
            SetRows { window_groups, ..set }
        };
        let sets: Vec<SetRows> = sets.into_iter().enumerate().map(with_window).collect();
        let window_groups = sets[0].window_groups;
        let layout = Layout::Shuffled { seed, lanes, window_groups };
        let sampler = recipe.batch_sampler();
        let stream = if sets.len() == 1 && weights.is_empty() {
            let only = sets.into_iter().next().map(|set| set.selection);
            let only = only.unwrap_or_else(|| Selection::of_groups(Vec::new()));
            Some(Stream::of_one(only, layout, sampler))
        } else {
            Stream::of_sets(sets, weights, layout, sampler)
        };
        let stream = stream.ok_or_else(|| DataError::Mix {
            key: "data.weights",
            found: format!("{weights:?}"),
            sets: self.sets.len(),
        })?;
        Ok(Stream { last_batch: recipe.last_batch(), ..stream })
    }
}

fn check_rule(set: &DataSet, expected: &str) -> Result<(), DataError> {
    let found = set.synsets_set()?.name();
    if found == expected {
        return Ok(());
    }
    let (path, expected) = (set.folder.place(), expected.to_owned());
    Err(DataError::OtherRule { path, found, expected })
}

/// Which part of a mix each data set is.
fn shares(sets: &[(SetRows, u64)], weights: &[f64]) -> Vec<f64> {
    let rows = sets.iter().map(|(_, rows)| *rows as f64).collect();
    let weights: Vec<f64> = if weights.is_empty() { rows } else { weights.to_vec() };
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum.max(f64::MIN_POSITIVE)).collect()
}
