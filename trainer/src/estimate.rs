//! What a run will cost, from its shapes alone.
//!
//! In: a model, a way to take steps, sizes of images. Out: parameters, floating point operations
//! and bytes. Never: a tensor.
//!
//! One multiplication with its addition are two operations; the way back takes twice those of the
//! way forth, but once for what the pixels go into. Elementwise work is not counted, nor what is
//! computed again.

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
/// The same by hand on a GPU: input, the sum behind attention, queries, keys, values, what
/// attention gives, hidden layer once.
const FUSED_PER_WIDTH_FLOAT32: i64 = 40;
/// The same in bfloat16, between float32 tokens.
const FUSED_PER_WIDTH_BFLOAT16: i64 = 24;

/// What one image of a side costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCost {
    /// Operations of the way forth.
    pub forward_flops: u64,
    /// Those of them whose input needs no gradient: the first that sees the pixels.
    pub first_flops: u64,
    /// Bytes that the blocks keep for the way back.
    pub kept_bytes: u64,
}

impl ImageCost {
    /// Operations of both ways.
    pub fn step_flops(&self) -> u64 {
        3 * self.forward_flops - self.first_flops
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
    let (first, stem) = match plan.stem {
        StemKind::Linear => (n * d * 3 * plan.patch_px * plan.patch_px, 0),
        StemKind::Corenet => {
            let channels = (d / 4).max(STEM_CHANNELS_MIN);
            // Three convolutions, over 16, 4 and 1 places for each token.
            let rest = 4 * channels * channels * 4 + d * channels * 4;
            (n * 16 * channels * 3 * 16, n * rest)
        }
    };
    let widened = if plan.gated { 2 * hidden } else { hidden };
    let block = t * (4 * d * d + d * (widened + hidden)) + 2 * t * t * d;
    let pool = match plan.pool {
        Pool::Attention => n * 2 * d * d + 2 * n * d + 10 * d * d,
        Pool::Summary | Pool::Mean => 0,
    };
    let multiplications = first + stem + plan.depth * block + pool + d * plan.num_labels;
    let per_width = match precision {
        Precision::Float32 => KEPT_PER_WIDTH_FLOAT32,
        Precision::BFloat16 => KEPT_PER_WIDTH_BFLOAT16,
    };
    let kept_fused = match precision {
        Precision::Float32 => FUSED_PER_WIDTH_FLOAT32,
        Precision::BFloat16 => FUSED_PER_WIDTH_BFLOAT16,
    };
    let kept = match form {
        BlockForm::Plain => plan.depth * t * per_width * d,
        BlockForm::Fused => plan.depth * t * kept_fused * d,
        // The input of each block, and one block in full.
        BlockForm::Recompute => plan.depth * t * 4 * d + t * per_width * d,
    };
    ImageCost {
        forward_flops: 2 * multiplications as u64,
        first_flops: 2 * first as u64,
        kept_bytes: kept as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Vit;

    #[test]
    fn operations_are_those_of_the_literature() {
        let giga_flops = |stem, shape| {
            let plan = VitPlan { stem, ..VitPlan::corenet(shape, 196, 24_320) };
            let cost = image_cost(&plan, 224, Precision::BFloat16, BlockForm::Plain);
            cost.step_flops() as f64 / 1e9
        };
        let [base, large, huge] = [[768, 12, 12], [1024, 24, 16], [1280, 32, 20]];
        for (stem, shape, expected) in [
            (StemKind::Linear, base, 105.3),
            (StemKind::Linear, large, 369.2),
            (StemKind::Linear, huge, 763.7),
            (StemKind::Corenet, base, 106.3),
            (StemKind::Corenet, large, 371.2),
            (StemKind::Corenet, huge, 766.9),
        ] {
            let found = giga_flops(stem, shape);
            assert!((found - expected).abs() < 0.1, "{stem:?} {shape:?}: {found}, not {expected}");
        }
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
