//! What a run will cost, from its shapes alone.
//!
//! In: a model, a way to take steps, sizes of images. Out: parameters, floating point operations
//! and bytes. Never: a tensor.
//!
//! One multiplication with its addition are two operations; the way back takes twice those of the
//! way forth. Elementwise work is not counted, nor what is computed again.

use crate::model::{BlockForm, Layout, Pool, Precision, StemKind, VitPlan};

/// Least number of channels inside the corenet stem.
const STEM_CHANNELS_MIN: i64 = 32;
/// Floats for each parameter: weight, gradient, two moments, average.
const FLOATS_PER_PARAMETER: u64 = 5;
/// Bytes that autograd keeps of a token in a block, over the width, while matrices are in float32:
/// input, both norms, queries, keys, values, what attention gives, hidden layer twice.
const KEPT_PER_WIDTH_FLOAT32: i64 = 60;
/// The same in bfloat16, between float32 tokens.
const KEPT_PER_WIDTH_BFLOAT16: i64 = 38;

/// What one image of a side costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCost {
    /// Operations of the way forth.
    pub forward_flops: u64,
    /// Bytes that the blocks keep for the way back.
    pub kept_bytes: u64,
}

impl ImageCost {
    /// Operations of both ways.
    pub fn step_flops(&self) -> u64 {
        3 * self.forward_flops
    }
}

/// Bytes of weights, gradients, moments and average.
pub fn state_bytes(layout: &Layout) -> u64 {
    FLOATS_PER_PARAMETER * 4 * layout.floats() as u64
}

/// What one square image costs.
pub fn image_cost(
    plan: &VitPlan,
    side_px: i64,
    precision: Precision,
    form: BlockForm,
) -> ImageCost {
    let (d, hidden) = (plan.width, plan.hidden);
    let grid = side_px / plan.patch_px;
    let n = grid * grid;
    let t = n + plan.num_prefix();
    let stem = match plan.stem {
        StemKind::Linear => n * d * 3 * plan.patch_px * plan.patch_px,
        StemKind::Corenet => {
            let channels = (d / 4).max(STEM_CHANNELS_MIN);
            // Three convolutions, over 16, 4 and 1 places for each token.
            n * (16 * channels * 3 * 16 + 4 * channels * channels * 4 + d * channels * 4)
        }
    };
    let widened = if plan.gated { 2 * hidden } else { hidden };
    let block = t * (4 * d * d + d * (widened + hidden)) + 2 * t * t * d;
    let pool = match plan.pool {
        Pool::Attention => n * 2 * d * d + 2 * n * d + 10 * d * d,
        Pool::Summary | Pool::Mean => 0,
    };
    let multiplications = stem + plan.depth * block + pool + d * plan.num_labels;
    let per_width = match precision {
        Precision::Float32 => KEPT_PER_WIDTH_FLOAT32,
        Precision::BFloat16 => KEPT_PER_WIDTH_BFLOAT16,
    };
    let kept = match form {
        BlockForm::Plain => plan.depth * t * per_width * d,
        // The input of each block, and one block in full.
        BlockForm::Recompute => plan.depth * t * 4 * d + t * per_width * d,
    };
    ImageCost { forward_flops: 2 * multiplications as u64, kept_bytes: kept as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Vit;

    fn giga_flops(plan: VitPlan) -> f64 {
        let cost = image_cost(&plan, 224, Precision::BFloat16, BlockForm::Plain);
        (cost.step_flops() as f64 / 1e8).round() / 10.0
    }

    #[test]
    fn operations_are_those_of_the_literature() {
        let corenet = |shape| VitPlan::corenet(shape, 196, 24_320);
        let linear = |shape| VitPlan { stem: StemKind::Linear, ..corenet(shape) };
        assert_eq!(giga_flops(linear([768, 12, 12])), 105.3);
        assert_eq!(giga_flops(linear([1024, 24, 16])), 369.2);
        assert_eq!(giga_flops(linear([1280, 32, 20])), 763.7);
        assert_eq!(giga_flops(corenet([768, 12, 12])), 106.3);
        assert_eq!(giga_flops(corenet([1024, 24, 16])), 371.2);
        assert_eq!(giga_flops(corenet([1280, 32, 20])), 766.9);
    }

    #[test]
    fn recomputing_keeps_a_fraction() {
        let plan = VitPlan::corenet([768, 12, 12], 196, 24_320);
        let kept = |form| image_cost(&plan, 224, Precision::BFloat16, form).kept_bytes;
        assert_eq!(kept(BlockForm::Plain), 12 * 197 * 38 * 768);
        assert!(kept(BlockForm::Recompute) * 5 < kept(BlockForm::Plain));
        assert_eq!(state_bytes(Vit::new(plan).layout()) / 1_000_000, 2_093);
    }
}
