//! Record batches to a trained checkpoint.

pub mod config;
pub mod device;
pub mod plan;
pub mod batch;
pub mod model;
pub mod loss;
pub mod optim;
pub mod schedule;
pub mod ema;
pub mod dist;
pub mod state;
pub mod step;
pub mod checkpoint;
pub mod tensor_file;
pub mod run_folder;
pub mod metrics;
pub mod eval;
pub mod train;
pub mod report;
pub mod trained;
pub mod predict;
pub mod bench;
pub mod error;
pub mod cli;
