//! Shards to record batches to the prefetch queue.

pub mod source;
pub mod image;
pub mod error;
