//! Shards to samples.
//!
//! In: what the user named (files, globs, braces, lists). Out: [`Sample`]s, the files of a shard
//! that share a key, as slices of the mapped shard wherever it is not compressed. Never: a sample
//! of which a part is missing; an error that ends a shard unseen.

pub mod byte_order_mark;
pub mod store;
mod object_open;
pub mod object;
pub mod object_folder;
pub mod list;
mod remote_list;
pub mod map;
pub mod spool;
pub mod bytes;
pub mod tar;
pub mod pickled;
pub mod sample;
pub mod captions;
pub mod pickle;

pub use list::{ShardList, ShardPlace, ShardUrl, SourceError};
pub use sample::{Sample, SampleReader};
pub use spool::{OpenShard, Spool, SpoolOptions};
pub use store::{Store, StoreError};
