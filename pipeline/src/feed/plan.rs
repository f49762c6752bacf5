//! What a feed is to deliver.

use std::sync::Arc;

use catlip_schemas::{Cursor, Vocab};

use super::stream::Stream;
pub use super::view::Viewing;
use crate::prep::DataSet;

/// Everything that decides a feed's batches, and how fast they come.
#[derive(Clone, Debug)]
pub struct FeedPlan {
    /// The snapshot that is read.
    pub data: Arc<DataSet>,
    /// Which rows make which step.
    pub stream: Stream,
    /// What synsets become labels.
    pub vocab: Arc<Vocab>,
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
    /// Batches that are ready or in work. Memory: this × the bytes of the largest step.
    pub depth_batches: usize,
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
