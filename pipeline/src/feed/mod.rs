//! The feed: a prepared data set to device-ready batches, in an order that can be resumed anywhere.
//!
//! In: data sets, a vocabulary, a [`plan::FeedPlan`]. Out: [`HostBatch`]es in the
//! order of `schemas/FORMAT.md` §2, whatever the number of threads or ranks. Never: fills the slot
//! of a bad row with another row; draws from a generator that a thread or rank owns.
//!
//! ```text
//! order ─► planner ─► tasks (queue) ─► decode threads ─► slots of a batch ─► batches (queue) ─►
//!              └─► groups (queue) ─► reader threads (one ranged read a row group)
//! ```

pub mod draw;
pub mod order;
pub mod mix;
pub mod sampler;
pub mod selection;
pub mod stream;
pub mod trace;
pub mod source;
pub mod memory;
pub mod group;
mod shard_rows;
pub mod hedge;
pub mod cache;
pub mod labels;
pub mod view;
pub mod slot;
mod buffers;
pub mod batch;
pub mod primitive;
pub mod ring;
pub mod queue;
pub mod plan;
pub mod error;
pub mod data_error;
pub mod data_sets;
pub mod files;
pub mod recipe;
mod planner;
pub mod run;
pub mod passes;
pub mod state;
pub mod measure;

pub use batch::{HostBatch, Pixels, Targets};
pub use data_error::DataError;
pub use data_sets::{Choice, DataPlace, DataSets};
pub use error::FeedError;
pub use labels::LabelsFrom;
pub use passes::Passes;
pub use plan::{FeedPlan, MemoryPlan, Viewing};
pub use recipe::FeedRecipe;
pub use run::{Feed, FeedStats, Next};
pub use sampler::{BatchSampler, StepSize, VariableSizes};
pub use selection::Selection;
pub use source::{ReadPlan, Source, Sources};
pub use state::FeedState;
pub use stream::{LastBatch, SetRows, Stream};
pub use view::View;
