//! The learned augmentation by kernels, and the way back to its ranges.
//!
//! b images, p pixels.

use tch::{Kind, TchError, Tensor};

use super::Way;
use crate::augment::{Augmentation, SQUARE_MAX};
use crate::batch::sent;
use crate::kernels::NoisyImages;
use crate::model::chain::leaf;
use crate::shim::ops;

/// What the way back needs.
#[derive(Debug)]
pub(super) struct AugmentTape {
    pixels_bhwc: Tensor,
    seeds_and_needs_b2: Tensor,
    /// With a graph to the ranges.
    mixes_b5: Tensor,
    /// By how much of how far an image is from what it was its gradient grows, `[b]`.
    pulls_b: Tensor,
    /// The loss of the distance, without graph.
    pub(super) loss: Tensor,
}

impl AugmentTape {
    fn images(&self) -> NoisyImages<'_> {
        let Self { pixels_bhwc, seeds_and_needs_b2, .. } = self;
        NoisyImages { pixels_bhwc, seeds_and_needs_b2 }
    }
}

impl Way<'_> {
    /// Bytes or floats 0…1, `[b, h, w, 3]` → the augmented images, of `kind`.
    pub(super) fn augment(
        &self,
        augmentation: &Augmentation,
        pixels_bhwc: Tensor,
        kind: Kind,
    ) -> Result<(Tensor, AugmentTape), TchError> {
        let Augmentation { ranges, draws, .. } = augmentation;
        let kernels = &self.form.kernels;
        let seeds = Tensor::f_from_slice(&draws.seeds_and_needs())?;
        let seeds_and_needs_b2 = sent(&seeds, pixels_bhwc.device())?;
        let images =
            NoisyImages { pixels_bhwc: &pixels_bhwc, seeds_and_needs_b2: &seeds_and_needs_b2 };
        let numbers = pixels_bhwc.size()[1..].iter().product::<i64>() as f64;
        let means_b23 = kernels.range_sums(images)?.f_mul_scalar(3.0 / numbers)?;
        let (of_image_b3, of_noise_b3) = (means_b23.f_select(1, 0)?, means_b23.f_select(1, 1)?);
        let mixes_b5 = ranges.mixes(self.w, draws, [&of_image_b3, &of_noise_b3])?;
        let (mixed_bhwc, squares_b) = kernels.range_mix(images, &mixes_b5.f_detach()?, kind)?;
        let per_square = SQUARE_MAX / numbers;
        let mse_b = leaf(&squares_b.f_mul_scalar(per_square)?)?;
        let loss = augmentation.loss(&mse_b)?;
        loss.f_backward()?;
        let pulls_b = mse_b.f_grad()?.f_mul_scalar(2.0 * per_square)?;
        let loss = loss.f_detach()?;
        Ok((mixed_bhwc, AugmentTape { pixels_bhwc, seeds_and_needs_b2, mixes_b5, pulls_b, loss }))
    }

    /// The gradient of the augmented images, `[b, h, w, 3]` → those of the ranges.
    pub(super) fn augment_back(
        &self,
        tape: &AugmentTape,
        of_images_bhwc: &Tensor,
    ) -> Result<(), TchError> {
        let mixes_b5 = tape.mixes_b5.f_detach()?;
        let kernels = &self.form.kernels;
        let of_mixes_b5 =
            kernels.range_back(of_images_bhwc, tape.images(), &mixes_b5, &tape.pulls_b)?;
        ops::backward(&tape.mixes_b5, &of_mixes_b5)
    }
}
