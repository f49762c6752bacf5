//! What a feed is to deliver.

use std::path::PathBuf;
use std::sync::Arc;

use catlip_schemas::{Cursor, Vocab};

use super::labels::LabelsFrom;
use super::slot::PageLock;
use super::source::{Sources, rows_of_groups};
use super::stream::Stream;
pub use super::view::Viewing;
use crate::prep::DataSet;
use crate::prep::snapshot::Part;

/// Everything that decides a feed's batches, and how fast they come.
#[derive(Clone, Debug)]
pub struct FeedPlan {
    /// The snapshots that are read.
    pub sources: Sources,
    /// Which rows make which step.
    pub stream: Stream,
    /// What synsets become labels.
    pub vocab: Arc<Vocab>,
    /// Which captions give the labels.
    pub labels_from: LabelsFrom,
    /// How images are seen.
    pub viewing: Viewing,
    /// Where to begin.
    pub start: Cursor,
    /// Steps to deliver.
    pub num_steps: u64,
    /// Whether batches carry captions.
    pub with_captions: bool,
    /// Threads that decode.
    pub decode_threads: usize,
    /// Threads that read row groups ahead.
    pub reader_threads: usize,
    /// Batches that are ready or in work, besides the one that the consumer has.
    pub depth_batches: usize,
    /// Limits of memory.
    pub memory: MemoryPlan,
    /// Rows that may fail to decode; with one more the feed ends. None: any number.
    pub bad_rows_max: Option<u64>,
    /// Locks the pixels of batches for the device that they go to.
    pub page_lock: Option<Arc<dyn PageLock>>,
}

/// How much memory a feed may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Batches, labels and compressed row groups together, in bytes. Row groups that do not fit
    /// are spilled; the rest must fit.
    pub bytes: u64,
    /// Where they are spilled; empty: the system's folder for temporary files.
    pub spill_dir: PathBuf,
}

/// Bytes of labels that are kept: 10^7 rows of 5 labels are 280 MB; fewer are read again.
pub const LABEL_BYTES_MAX: u64 = 256 << 20;

impl FeedPlan {
    /// From the beginning, with one thread of each kind, two batches and 4 GiB.
    pub fn new(
        sources: Sources,
        stream: Stream,
        vocab: Arc<Vocab>,
        viewing: Viewing,
        num_steps: u64,
    ) -> Self {
        let snapshot = sources.all().first().map_or(0, |set| set.data.manifest.snapshot);
        Self {
            sources,
            stream,
            vocab,
            labels_from: LabelsFrom::Union,
            viewing,
            start: Cursor::start(snapshot),
            num_steps,
            with_captions: false,
            decode_threads: 1,
            reader_threads: 1,
            depth_batches: 2,
            memory: MemoryPlan { bytes: 4 << 30, spill_dir: PathBuf::new() },
            bad_rows_max: None,
            page_lock: None,
        }
    }

    /// Bytes of all batches: those in the queue, and the one that the consumer has.
    pub fn batch_bytes(&self) -> u64 {
        let (_, bytes) = self.stream.rank_share_max();
        (self.depth_batches.max(1) as u64 + 1) * bytes as u64
    }

    /// Bytes that are left for row groups; `None` if there are none.
    pub fn group_bytes(&self) -> Option<u64> {
        self.memory.bytes.checked_sub(self.batch_bytes() + self.label_bytes())
    }

    /// Bytes that labels may take: an eighth of all at most.
    pub fn label_bytes(&self) -> u64 {
        LABEL_BYTES_MAX.min(self.memory.bytes / 8)
    }
}

/// K: row groups of a lane's window, from the bytes that all windows together may hold.
///
/// Computed from the manifest alone, so it is the same on every machine and rank.
pub fn window_groups(data: &DataSet, lanes: u32, window_bytes: u64) -> u32 {
    let of_part = |part: &Part| match part.files.get("images") {
        Some(file) => file.groups.iter().map(|group| group.bytes).sum(),
        // The shard has little else than images.
        None => part.source.bytes,
    };
    let groups: u64 = data.parts.iter().map(|p| rows_of_groups(data, p).len() as u64).sum();
    let bytes: u64 = data.parts.iter().map(of_part).sum();
    let mean = (bytes / groups.max(1)).max(1);
    u32::try_from(window_bytes / u64::from(lanes.max(1)) / mean).unwrap_or(u32::MAX).max(1)
}
