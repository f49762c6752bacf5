//! Shards to record batches to the prefetch queue.

pub mod source;
pub mod image;
pub mod caption;
pub mod prep;
pub mod feed;
pub mod metrics;
pub mod config;
pub mod error;
