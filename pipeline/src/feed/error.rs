//! Why a feed cannot start or go on.

use std::sync::Arc;

use super::group::GroupError;
use crate::error::PrepError;

/// Why a feed ended before its last step.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FeedError {
    /// The cursor does not belong to this data.
    #[error("the cursor is of {what} {found}, expected {expected}")]
    Cursor {
        /// Snapshot, order version or position.
        what: &'static str,
        /// In the cursor.
        found: u64,
        /// Of the data set and program.
        expected: u64,
    },
    /// Not a single batch fits the rows on offer.
    #[error("{rows} rows are on offer, too few for one batch of {batch}")]
    TooFewRows {
        /// Rows of the selection.
        rows: u64,
        /// Batch over all ranks.
        batch: usize,
    },
    /// More ranks than lanes.
    #[error("{world_size} ranks for {lanes} lanes: a rank would have none")]
    TooManyRanks {
        /// Ranks.
        world_size: u32,
        /// Lanes.
        lanes: u64,
    },
    /// A row group cannot be read.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A column set cannot be read.
    #[error("{0}")]
    Data(Arc<PrepError>),
    /// A thread panicked.
    #[error("thread `{thread}` panicked: {message}")]
    Panicked {
        /// Its name.
        thread: &'static str,
        /// What it said.
        message: String,
    },
}
