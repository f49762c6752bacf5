//! The vision transformer of CatLIP: `trunk` and `head`, over named flat weights.

pub mod params;
pub mod stem;
pub mod positions;
pub mod block;
pub mod vit;

pub use params::{Gradient, Layout, Weights};
pub use vit::{Vit, VitPlan};

/// Whether BatchNorm normalises by the batch and updates its running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch; running statistics are updated.
    Train,
    /// Running statistics.
    Eval,
}
