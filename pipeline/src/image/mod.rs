//! To come.

pub mod simd;
