//! Record batches to a trained checkpoint.

pub mod device;
