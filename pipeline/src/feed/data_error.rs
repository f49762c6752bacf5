//! Why data sets cannot be fed.

use std::path::{Path, PathBuf};

use catlip_schemas::Vocab;

use crate::error::{PrepError, exit};
use crate::prep::error::ChangeError;
use crate::prep::vocab;

/// What is wrong with the data sets, ranks or vocabulary of a feed.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A data set cannot be read.
    #[error("the data set cannot be read")]
    Prep(#[from] PrepError),
    /// Ranks that the lanes of the order do not allow.
    #[error("rank {rank} of {world_size}: expected 1 to {lanes} ranks, numbered from 0")]
    Ranks {
        /// Which rank.
        rank: u32,
        /// Of how many.
        world_size: u32,
        /// Lanes of the order, the most ranks that it allows.
        lanes: u32,
    },
    /// Lists that must have an entry for each data set do not.
    #[error(
        "`{key}` is {found}, expected a number above 0 or a folder for each of {sets} data sets"
    )]
    Mix {
        /// `data.weights`, `data.shards` or `data.snapshots`.
        key: &'static str,
        /// What it is.
        found: String,
        /// Data sets.
        sets: usize,
    },
    /// Two data sets whose captions were labelled by different rules.
    #[error("{path} was labelled by {found}, expected {expected}")]
    OtherRule {
        /// The second data set.
        path: PathBuf,
        /// Its column set.
        found: String,
        /// That of the training rows.
        expected: String,
    },
    /// No synset is left for the vocabulary.
    #[error("the vocabulary is empty: {rows} training rows have {synsets} synsets, the cut left 0")]
    EmptyVocab {
        /// Training rows.
        rows: u64,
        /// Distinct synsets before the cut.
        synsets: usize,
    },
    /// The state of a feed of another order.
    #[error("the state is of a feed with {key} {found}, this one has {expected}")]
    OtherState {
        /// What differs.
        key: String,
        /// In the state.
        found: String,
        /// Of this feed.
        expected: String,
    },
    /// A state that no feed gave out.
    #[error("this is no state of a feed: {message}")]
    NoState {
        /// What is wrong with it.
        message: String,
    },
    /// A file that is no vocabulary.
    #[error("{path} is no vocabulary")]
    NoVocab {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<PrepError>,
    },
}

/// The vocabulary in a file: Parquet, or the pickle of the reference.
///
/// # Errors
///
/// [`DataError::NoVocab`].
pub fn read_vocab(path: &Path) -> Result<Vocab, DataError> {
    vocab::read_any(path)
        .map_err(|error| DataError::NoVocab { path: path.to_path_buf(), source: Box::new(error) })
}

impl DataError {
    /// The exit code of a program.
    pub fn exit_code(&self) -> u8 {
        match self {
            // What is named is no data set, or has no such labels; a program that changes data sets
            // calls them incomplete.
            Self::Prep(PrepError::NoDataSet { .. }) => exit::INPUT,
            Self::Prep(PrepError::Change(ChangeError::NoColumnSet { .. })) => exit::CONFIG,
            Self::Prep(error) => error.exit_code(),
            Self::Ranks { .. } | Self::Mix { .. } | Self::EmptyVocab { .. } => exit::CONFIG,
            Self::OtherRule { .. } | Self::OtherState { .. } => exit::CONFLICT,
            Self::NoVocab { .. } | Self::NoState { .. } => exit::INPUT,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Prep(PrepError::NoDataSet { .. }) => Some(
                "name a folder or URL that `catlip-prep run --output` wrote to its end, or shards \
                 such as 'train-{000..099}.tar'",
            ),
            Self::Prep(error) => error.hint(),
            Self::Ranks { .. } => Some("a run needs as many lanes as ranks: see `feed.lanes`"),
            Self::Mix { .. } => Some("give one entry for each data set, in their order"),
            Self::OtherRule { .. } => Some("prepare both with the same `caption.rule`"),
            Self::EmptyVocab { .. } => Some("lower `vocab.min_count` or `vocab.multiple_of`"),
            Self::OtherState { .. } => {
                Some("go on with the data, vocabulary and settings that the state is of")
            }
            Self::NoState { .. } => Some("hand in what the feed's `state_dict` gave"),
            Self::NoVocab { .. } => Some(
                "make one with `catlip-prep vocab --input DATA --output vocab.parquet`, which also \
                 reads CatLIP's pickle; without one it is made from the training rows",
            ),
        }
    }
}
