//! What a feed is to deliver.

use std::sync::Arc;

use catlip_schemas::{Cursor, Vocab};

use super::order::Layout;
use super::selection::Selection;
pub use super::view::Viewing;
use crate::prep::DataSet;

/// What becomes of the last positions of an epoch that do not fill a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastBatch {
    /// They are left out; the next epoch's order is another.
    Drop,
    /// The batch is filled up with slots of weight zero.
    Pad,
}

/// Everything that decides a feed's batches, and how fast they come.
#[derive(Clone, Debug)]
pub struct FeedPlan {
    /// The snapshot that is read.
    pub data: Arc<DataSet>,
    /// The rows on offer.
    pub selection: Arc<Selection>,
    /// What synsets become labels.
    pub vocab: Arc<Vocab>,
    /// Lanes, windows, seed.
    pub layout: Layout,
    /// How images are seen.
    pub viewing: Viewing,
    /// Side of the square images in px.
    pub output_px: u32,
    /// Positions of the global stream in a step, over all ranks.
    pub batch: usize,
    /// The last batch of an epoch.
    pub last_batch: LastBatch,
    /// Where to begin.
    pub start: Cursor,
    /// Steps to deliver.
    pub num_steps: u64,
    /// Ranks, and which one this is: it delivers the positions whose lane mod ranks is its own.
    pub world_size: u32,
    /// This rank.
    pub rank: u32,
    /// Whether batches carry captions.
    pub with_captions: bool,
    /// Threads that decode.
    pub decode_threads: usize,
    /// Threads that read row groups ahead.
    pub reader_threads: usize,
    /// Batches that are ready or in work. Memory: this × batch × side² × 3 bytes.
    pub depth_batches: usize,
}

impl FeedPlan {
    /// Steps of one epoch over the selection.
    pub fn steps_per_epoch(&self) -> u64 {
        let (rows, batch) = (self.selection.num_rows(), self.batch.max(1) as u64);
        match self.last_batch {
            LastBatch::Drop => rows / batch,
            LastBatch::Pad => rows.div_ceil(batch),
        }
    }
}

/// K: row groups of a lane's window, from the bytes that all windows together may hold.
///
/// Computed from the manifest alone, so it is the same on every machine and rank.
pub fn window_groups(data: &DataSet, lanes: u32, window_bytes: u64) -> u32 {
    let images = data.parts.iter().filter_map(|p| p.files.get("images"));
    let (groups, bytes) = images
        .flat_map(|file| &file.groups)
        .fold((0u64, 0u64), |(n, sum), group| (n + 1, sum + group.bytes));
    let mean = (bytes / groups.max(1)).max(1);
    u32::try_from(window_bytes / u64::from(lanes.max(1)) / mean).unwrap_or(u32::MAX).max(1)
}
