//! Where in the stream of samples we are.

use serde::{Deserialize, Serialize};

/// The state of a feed: everything before `position` of `epoch` was consumed.
///
/// Not a step number: batch sizes vary. O(1) to save and to seek; independent of ranks and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The snapshot that is read.
    pub snapshot: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Next position of the epoch's global stream.
    pub position: u64,
    /// [`crate::version::ORDER_VERSION`] of the stream.
    pub order_version: u32,
}
