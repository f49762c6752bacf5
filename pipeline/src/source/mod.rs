//! Shards to samples.
//!
//! In: what the user named (files, globs, braces, lists). Out: [`Sample`]s, the files of a shard
//! that share a key, as slices of the mapped shard wherever it is not compressed. Never: a sample
//! of which a part is missing; an error that ends a shard unseen.

pub mod list;
pub mod map;
pub mod bytes;
pub mod tar;
pub mod sample;
pub mod captions;
pub mod pickle;

pub use list::{ShardList, ShardUrl, SourceError};
pub use sample::{Sample, SampleReader};
