//! The batch job: shards to a data set of parts × column sets.
//!
//! In: a shard list and a config. Out: a data set as `schemas/FORMAT.md` describes it. One source
//! shard becomes one part by one pure function ([`part::make_part`]); the job around it
//! ([`run::run`]) is a merge of receipts. Never: a file that appears before it is whole.

pub mod plan;
pub mod commit;
pub mod columns;
pub mod part;
pub mod snapshot;
pub mod run;
pub mod verify;
pub mod vocab_pickle;
pub mod vocab;
pub mod coverage;

pub use plan::PrepPlan;
pub use run::run;
pub use snapshot::DataSet;
