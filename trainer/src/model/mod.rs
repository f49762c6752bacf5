//! The vision transformer of CatLIP: `trunk` and `head`, over named flat weights.

pub mod params;
pub mod batch_norm;
pub mod stem;
pub mod positions;
pub mod block;
pub mod pool;
pub mod vit;
pub mod attention;
mod fused;
pub mod chain;
pub mod by_kernels;

use serde::{Deserialize, Serialize};
use tch::Kind;

pub use attention::AttentionChoice;
pub use batch_norm::Groups;
pub use by_kernels::KernelForm;
pub use chain::BlockForm;
pub use params::{Gradient, Layout, Weights};
pub use pool::Pool;
pub use stem::StemKind;
pub use vit::{Vit, VitPlan};

/// Whether BatchNorm normalises by the batch and updates its running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch; running statistics are updated.
    Train,
    /// Running statistics.
    Eval,
}

/// Numbers that linear layers, convolutions and attention compute in. Weights, tokens between
/// blocks, norms, losses and gradients of weights are float32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits of significand.
    #[default]
    Float32,
    /// 8 bits of significand, the range of float32: no loss needs to be scaled.
    BFloat16,
}

/// How a model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// By which statistics BatchNorm normalises.
    pub mode: Mode,
    /// What matrices are multiplied in.
    pub precision: Precision,
}

impl Pass {
    /// Evaluation in float32.
    pub const EVAL: Self = Self { mode: Mode::Eval, precision: Precision::Float32 };

    /// Training.
    pub fn train(precision: Precision) -> Self {
        Self { mode: Mode::Train, precision }
    }

    /// The kind of the tensors that are multiplied.
    pub fn kind(self) -> Kind {
        match self.precision {
            Precision::Float32 => Kind::Float,
            Precision::BFloat16 => Kind::BFloat16,
        }
    }
}
