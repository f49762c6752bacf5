//! Why a feed cannot start or go on.

use std::sync::Arc;

use super::group::GroupError;
use crate::error::{PrepError, exit};

/// Why a feed ended before its last step.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FeedError {
    /// The cursor does not belong to this data.
    #[error("the cursor is of {what} {found}, expected {expected}")]
    Cursor {
        /// Snapshot, order version, position, or one of them of a data set of a mix.
        what: String,
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
    /// The budget of memory does not hold what must be in memory.
    #[error(
        "the feed may take {bytes} bytes, but its {batches} batches take {batch_bytes} and labels \
         {label_bytes}"
    )]
    Memory {
        /// `feed.memory_bytes`.
        bytes: u64,
        /// Batches of the queue, and one more.
        batches: u64,
        /// Bytes of them all.
        batch_bytes: u64,
        /// Bytes of labels that are kept.
        label_bytes: u64,
    },
    /// The system has no memory for a batch.
    #[error("no {bytes} bytes for the pixels of a batch: {message}")]
    Buffer {
        /// Of one batch.
        bytes: usize,
        /// What the system says.
        message: String,
    },
    /// A batch cannot be locked in memory for the device.
    #[error("batches cannot be locked in memory for the GPU: {0}")]
    PageLock(String),
    /// The system starts no further thread.
    #[error("thread `{thread}` cannot be started: {message}")]
    Thread {
        /// Its name.
        thread: &'static str,
        /// What the system says.
        message: String,
    },
    /// More rows than allowed did not decode.
    #[error("{found} rows did not decode, {limit} may; the last: {last}")]
    TooManyBadRows {
        /// So far.
        found: u64,
        /// `feed.bad_rows_max`.
        limit: u64,
        /// Sample id and error of the last.
        last: String,
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

impl FeedError {
    /// The exit code of a program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::TooFewRows { .. }
            | Self::TooManyRanks { .. }
            | Self::Memory { .. }
            | Self::Buffer { .. }
            | Self::Thread { .. }
            | Self::PageLock(_) => exit::CONFIG,
            Self::TooManyBadRows { .. } => exit::BUDGET,
            Self::Data(error) => error.exit_code(),
            Self::Cursor { .. } => exit::CONFLICT,
            Self::Group(_) => exit::DAMAGED,
            Self::Panicked { .. } => exit::FAILED,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Data(error) => error.hint(),
            Self::TooFewRows { .. } => {
                Some("lower `train.batch`, or hold out fewer rows with `data.holdout_percent`")
            }
            Self::Cursor { .. } => {
                Some("the run goes on only over the snapshot of the data set that it began with")
            }
            Self::Memory { .. } => {
                Some("raise `feed.memory_bytes`, or lower `feed.queue_batches` or `train.batch`")
            }
            Self::Buffer { .. } => Some("lower `feed.queue_batches` or `train.batch`"),
            Self::PageLock(_) => {
                Some("go on without by `feed.page_lock=false`: copies to the GPU are slower then")
            }
            Self::Thread { .. } => {
                Some("lower `feed.threads`, or raise the limit on threads (`ulimit -u`, pids.max)")
            }
            Self::TooManyBadRows { .. } => {
                Some("see `catlip-prep verify`; `feed.bad_rows_max` says how many may be lost")
            }
            Self::TooManyRanks { .. } | Self::Group(_) | Self::Panicked { .. } => None,
        }
    }
}
