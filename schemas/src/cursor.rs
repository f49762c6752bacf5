//! Where in the stream of samples we are.

use serde::{Deserialize, Serialize};

/// The state of a feed: everything before `position` of `epoch` was consumed.
///
/// Not a step number: batch sizes vary. O(1) to save and to seek; independent of ranks and threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The snapshot that is read; of several data sets that of the first.
    pub snapshot: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Next position of the epoch's global stream.
    pub position: u64,
    /// [`crate::version::ORDER_VERSION`] of the stream.
    pub order_version: u32,
    /// Where each data set of a mix is; empty where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<SetCursor>,
}

/// Where one data set of a mix is in the epochs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetCursor {
    /// The snapshot that is read.
    pub snapshot: u64,
    /// Its own epoch, from 0.
    pub epoch: u64,
    /// Next position of that epoch.
    pub position: u64,
}

impl Cursor {
    /// The beginning of one data set.
    pub fn start(snapshot: u64) -> Self {
        let order_version = crate::version::ORDER_VERSION;
        Self { snapshot, epoch: 0, position: 0, order_version, sets: Vec::new() }
    }
}
