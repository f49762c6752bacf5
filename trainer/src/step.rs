//! One step: forward, loss, backward, clip, update, average. Mathematics only.
//!
//! In: the state, a batch on the device, the rate. Out: the next state, and [`StepMetrics`] that
//! still lie on the device. Never: waits for the device; reads a clock or a file.

use tch::{Kind, TchError, Tensor};

use crate::batch::DeviceBatch;
use crate::error::TrainError;
use crate::loss::Loss;
use crate::model::Mode;
use crate::state::TrainState;

/// What a step measured, as scalars on the device.
#[derive(Debug)]
pub struct StepMetrics {
    /// Loss per row of the batch; with several ranks, this one's share of it.
    pub loss: Tensor,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: Tensor,
}

/// Takes one step with the rate `lr`.
///
/// The loss is the sum over rows divided by the sum of their weights; a batch whose rows all have
/// weight zero has loss zero and no gradient. A gradient that is no number makes it a step that
/// changes no weight, moment or average, and is counted on the device.
///
/// # Errors
///
/// What libtorch says, such as out of memory; a rank that is gone.
pub fn step(
    state: &mut TrainState,
    loss: &Loss,
    batch: &DeviceBatch,
    lr: f64,
) -> Result<StepMetrics, TrainError> {
    let before = buffers(state)?;
    let loss = backward(state, loss, batch).map_err(TrainError::torch("take a step"))?;
    if let Some(together) = &state.together {
        together.finish()?;
    }
    let metrics = update(state, loss, &before, lr).map_err(TrainError::torch("take a step"))?;
    state.step += 1;
    let rows = state.together.as_ref().map(|together| together.rows() as u64);
    state.images_seen += rows.unwrap_or(batch.num_images);
    Ok(metrics)
}

/// Adds the gradient of this rank's share into the flat one; gives its share of the loss.
fn backward(state: &mut TrainState, loss: &Loss, batch: &DeviceBatch) -> Result<Tensor, TchError> {
    let divisor = match &state.together {
        Some(together) => Tensor::f_scalar_tensor(together.rows(), (Kind::Float, state.device()))?,
        None => batch.targets.weights_b.f_sum(Kind::Float)?,
    };
    let divisor = divisor.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
    state.gradient.zero()?;
    if let Some(together) = &state.together {
        together.begin();
    }
    if batch.targets.weights_b.size1()? == 0 {
        return divisor.f_zeros_like();
    }
    let logits_bv = state.vit.forward(&state.weights, &batch.images_bchw, Mode::Train)?;
    let loss = loss.sum(&logits_bv, &batch.targets)?.f_div(&divisor)?;
    loss.f_backward()?;
    loss.f_detach()
}

/// Weights, moments, average and statistics of the next step.
fn update(
    state: &mut TrainState,
    loss: Tensor,
    before: &Tensor,
    lr: f64,
) -> Result<StepMetrics, TchError> {
    let _no_grad = tch::no_grad_guard();
    let gradient_norm = state.adamw.step(&state.weights, &state.gradient, lr)?;
    let is_good = gradient_norm.f_isfinite()?;
    let mut after = buffers_of(state)?;
    after.f_copy_(&after.f_where_self(&is_good, before)?)?;
    let accepted = is_good.f_to_kind(Kind::Float)?;
    state.weights.set_batches_tracked(state.weights.batches_tracked() + 1);
    if let Some(ema) = &mut state.ema {
        ema.update_if(&accepted, &state.weights)?;
    }
    state.note(&accepted)?;
    Ok(StepMetrics { loss, gradient_norm })
}

/// A copy of the running statistics, in case that the step is skipped.
fn buffers(state: &TrainState) -> Result<Tensor, TrainError> {
    let copy = buffers_of(state).map(|buffers| buffers.copy());
    copy.map_err(TrainError::torch("copy the statistics"))
}

fn buffers_of(state: &TrainState) -> Result<Tensor, TchError> {
    let layout = state.weights.layout();
    let (from, end) = (layout.trained_floats(), layout.floats());
    state.weights.flat().f_narrow(0, from, end - from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::HostRows;
    use crate::model::{Vit, VitPlan};
    use crate::optim::AdamWPlan;
    use catlip_schemas::Cursor;
    use tch::Device;

    fn state() -> TrainState {
        let plan = VitPlan {
            width: 16,
            depth: 1,
            num_heads: 2,
            patch_px: 16,
            num_positions: 1,
            num_labels: 5,
        };
        let adamw =
            AdamWPlan { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.2, clip_norm: 1.0 };
        let vit = Vit::new(plan);
        let weights = vit.init(3, None, Device::Cpu).unwrap();
        let cursor = Cursor { snapshot: 1, epoch: 0, position: 0, order_version: 1 };
        TrainState::new(vit, weights, adamw, 0.1, cursor).unwrap()
    }

    fn batch(shade: f32) -> DeviceBatch {
        let rows = HostRows {
            images_bhwc: &[90; 2 * 16 * 16 * 3],
            height_px: 16,
            width_px: 16,
            offsets: &[0, 1, 2],
            label_ids: &[1, 4],
            weights: &[1.0, 1.0],
        };
        let mut batch = DeviceBatch::from_rows(&rows, Device::Cpu).unwrap();
        batch.images_bchw = batch.images_bchw * f64::from(shade);
        batch
    }

    fn numbers(state: &TrainState) -> [Tensor; 4] {
        let average = state.ema.as_ref().unwrap().weights().flat();
        [state.weights.flat(), average, &state.adamw.exp_avg, &state.adamw.exp_avg_sq]
            .map(Tensor::copy)
    }

    #[test]
    fn a_batch_that_gives_no_number_changes_nothing_and_is_counted() {
        let bce = Loss::Bce { smoothing: 0.0 };
        let mut state = state();
        step(&mut state, &bce, &batch(1.0), 1e-3).unwrap();
        let before = numbers(&state);
        for times in 1..=2 {
            let metrics = step(&mut state, &bce, &batch(f32::NAN), 1e-3).unwrap();
            assert!(!metrics.gradient_norm.double_value(&[]).is_finite());
            assert_eq!(state.skipped().unwrap(), [times, times]);
            assert!(numbers(&state).iter().zip(&before).all(|(after, before)| after == before));
        }
        step(&mut state, &bce, &batch(0.5), 1e-3).unwrap();
        assert_eq!((state.skipped().unwrap(), state.step), ([0, 2], 4));
        assert!(numbers(&state).iter().zip(&before).all(|(after, before)| after != before));
        let all = numbers(&state);
        assert!(all.iter().all(|t| t.sum(Kind::Float).double_value(&[]).is_finite()));
    }
}
