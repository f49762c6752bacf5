//! Record batches to a trained checkpoint.

pub mod config;
pub mod device;
pub mod batch;
pub mod model;
pub mod loss;
pub mod optim;
pub mod schedule;
pub mod ema;
pub mod state;
pub mod step;
pub mod checkpoint;
pub mod tensor_file;
pub mod metrics;
