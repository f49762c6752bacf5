//! How a run begins: anew, or where a checkpoint is.
//!
//! In: a [`TrainPlan`]. Out: a [`TrainState`] that the first step finds. Never: takes a step.

use std::time::{SystemTime, UNIX_EPOCH};

use catlip_schemas::checkpoint::CheckpointState;
use tch::Tensor;

use super::watch::{Event, Watch};
use crate::checkpoint::{self, CheckpointError, Share};
use crate::dist::Together;
use crate::error::TrainError;
use crate::model::{Vit, Weights};
use crate::optim::AdamW;
use crate::plan::TrainPlan;
use crate::state::TrainState;

/// The model of a run and the weights that it begins with.
///
/// # Errors
///
/// [`TrainError::Torch`], such as out of memory.
pub fn initial_weights(plan: &TrainPlan) -> Result<(Vit, Weights), TrainError> {
    let vit = Vit::new(plan.vit);
    let bias: Option<Vec<f32>> = plan
        .config
        .model
        .bias_from_priors
        .then(|| plan.priors.logits().into_iter().map(|logit| logit as f32).collect());
    let weights = vit.init(plan.config.train.seed, bias.as_deref(), plan.device);
    Ok((vit, weights.map_err(TrainError::torch("allocate the weights"))?))
}

/// The state of a run before its first step.
///
/// # Errors
///
/// [`TrainError::Torch`]; [`TrainError::Dist`].
pub(super) fn new_state(plan: &TrainPlan) -> Result<TrainState, TrainError> {
    let (vit, weights) = initial_weights(plan)?;
    let world_size = plan.world.size();
    let momentum = plan.config.optim.ema_momentum;
    let mut state = TrainState::new(vit, weights, plan.adamw, momentum, plan.feed.start.clone())
        .map_err(TrainError::torch("allocate the state"))?;
    if state.vit.has_batch_norm() {
        plan.world.open_aside()?;
    }
    let dist = &plan.config.dist;
    state.together = Together::attach(&plan.world, &state.weights, &state.gradient, dist)?;
    if state.together.as_ref().is_some_and(Together::shares_moments) {
        let floats = state.weights.layout().trained_floats();
        let stretch = CheckpointState::stretch(plan.world.rank(), world_size, floats);
        state.adamw = AdamW::of_stretch(plan.adamw, &state.weights, stretch)
            .map_err(TrainError::torch("allocate the moments"))?;
    }
    Ok(state)
}

/// What makes this start's checkpoints its own.
pub(super) fn share(plan: &TrainPlan) -> Result<Share, TrainError> {
    let world = &plan.world;
    if world.size() == 1 {
        return Ok(Share::whole());
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = Tensor::from_slice(&[since.as_micros() as i64]);
    world.broadcast(&start, 0, "begin together")?;
    let start = start.f_int64_value(&[0]).map_err(TrainError::torch("read a number"))?;
    Ok(Share {
        rank: world.rank(),
        world_size: world.size(),
        start: format!("-{start:x}"),
        timeout: world.timeout(),
    })
}

/// Reads the newest whole checkpoint into `state`. A run that was killed before its first one
/// begins anew.
pub(super) fn resume(
    plan: &TrainPlan,
    state: &mut TrainState,
    watch: &mut dyn Watch,
) -> Result<(), TrainError> {
    let whole = match checkpoint::newest(plan.run.place()) {
        Ok(whole) => whole,
        Err(CheckpointError::None { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    whole.passed_over.iter().for_each(|damage| watch.see(Event::PassedOver(damage)));
    whole.check(&plan.identity)?;
    Ok(whole.restore(state)?)
}
