//! The batch job: shards to a data set of parts × column sets.
//!
//! In: a shard list and a config. Out: a data set as `schemas/FORMAT.md` describes it. One source
//! shard becomes one part by one pure function ([`part::make_part`]); the job around it
//! ([`run::run`]) is a merge of receipts. Every later change is the same again: old snapshot + new
//! files → new snapshot ([`change::commit`]). Never: a file that appears before it is whole, or
//! that changes after it appeared.

pub mod filter;
pub mod memory;
pub mod plan;
pub mod commit;
pub mod store;
pub mod lock;
pub mod folder;
pub mod file_check;
pub mod columns;
pub mod stored;
pub mod quarantine;
pub mod part;
pub mod parts_table;
pub mod tombstones;
pub mod snapshot;
pub mod change;
pub mod numbers;
pub mod work;
pub mod watch;
pub mod join;
pub mod run;
pub mod open;
pub mod cluster;
pub mod index;
pub mod dry_run;
pub mod add_set;
pub mod relabel;
pub mod table;
pub mod add_column;
pub mod drop_rows;
pub mod rejects;
pub mod retry;
pub mod reshuffle;
pub mod verify;
pub mod duplicates;
pub mod vocab_pickle;
pub mod vocab;
pub mod coverage;
pub mod inspect;
pub mod error;
#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash;

pub use folder::{Folder, Stores};
pub use plan::PrepPlan;
pub use run::run;
pub use snapshot::DataSet;
