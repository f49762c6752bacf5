//! One step: forward, loss, backward, clip, update, average. Mathematics only.
//!
//! In: the state, a batch on the device, the rate. Out: the next state, and [`StepMetrics`] that
//! still lie on the device. Never: waits for the device; reads a clock or a file.

use tch::{TchError, Tensor};

use crate::batch::DeviceBatch;
use crate::loss::Loss;
use crate::model::Mode;
use crate::state::TrainState;

/// What a step measured, as scalars on the device.
#[derive(Debug)]
pub struct StepMetrics {
    /// Loss per row of the batch.
    pub loss: Tensor,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: Tensor,
}

/// Takes one step with the rate `lr`.
///
/// The loss is the sum over rows divided by the sum of their weights; a batch whose rows all have
/// weight zero has loss zero and no gradient.
///
/// # Errors
///
/// What libtorch says, such as out of memory.
pub fn step(
    state: &mut TrainState,
    loss: &Loss,
    batch: &DeviceBatch,
    lr: f64,
) -> Result<StepMetrics, TchError> {
    let weights_sum = batch.targets.weights_b.f_sum(tch::Kind::Float)?;
    let divisor = weights_sum.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;

    // --- forward and backward -------------------------------------------------------------------
    state.gradient.zero()?;
    let logits_bv = state.vit.forward(&state.weights, &batch.images_bchw, Mode::Train)?;
    let loss = loss.sum(&logits_bv, &batch.targets)?.f_div(&divisor)?;
    loss.f_backward()?;

    // --- update ---------------------------------------------------------------------------------
    let gradient_norm = tch::no_grad(|| state.adamw.step(&state.weights, &state.gradient, lr))?;
    state.weights.set_batches_tracked(state.weights.batches_tracked() + 1);
    if let Some(ema) = &mut state.ema {
        tch::no_grad(|| ema.update(&state.weights))?;
    }

    state.step += 1;
    state.images_seen += batch.num_images;
    Ok(StepMetrics { loss: loss.f_detach()?, gradient_norm })
}
