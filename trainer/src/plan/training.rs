//! What a config means for the model and its steps, whatever the data.
//!
//! In: a [`TrainConfig`]. Out: the plans of model, optimiser, rates and steps. Never: a path
//! but that of the kernels.

use std::path::{Path, PathBuf};

use crate::augment::RangePlan;
use crate::config::{ByHand, ScheduleKind, TrainConfig};
use crate::loss::Loss;
use crate::model::{BlockForm, VitPlan};
use crate::optim::AdamWPlan;
use crate::schedule::{Fall, Schedule};
use crate::shim::ops::AttentionBackend;
use crate::step::StepPlan;

/// The hidden layer of a gated block is a multiple of this.
const GATED_MULTIPLE: i64 = 16;

/// The model of a config with so many labels.
pub fn vit_plan(config: &TrainConfig, num_labels: usize) -> VitPlan {
    let (shape, model) = (config.model_shape(), &config.model);
    let width = shape[0];
    let hidden = match (model.hidden, model.swiglu) {
        (0, false) => 4 * width,
        // Three matrices instead of two, of the same number of weights.
        (0, true) => (8 * width / 3 + GATED_MULTIPLE - 1) / GATED_MULTIPLE * GATED_MULTIPLE,
        (hidden, _) => hidden,
    };
    VitPlan {
        stem: model.stem,
        hidden,
        gated: model.swiglu,
        qk_norm: model.qk_norm,
        patch_px: model.patch_px,
        summary: model.summary_token,
        num_registers: model.registers,
        pool: model.pool,
        range_augment: config.augment.range,
        ..VitPlan::corenet(shape, model.positions, num_labels as i64)
    }
}

/// The optimiser of a config.
pub fn adamw_plan(config: &TrainConfig) -> AdamWPlan {
    let optim = &config.optim;
    AdamWPlan {
        beta1: optim.beta1,
        beta2: optim.beta2,
        eps: optim.eps,
        weight_decay: optim.weight_decay,
        clip_norm: optim.clip_norm,
        decay: optim.decay,
        decay_ranges: config.augment.range_decay,
        layer_decay: optim.layer_decay,
    }
}

/// The learned augmentation of a config over a run of `steps`, if it is on.
pub fn range_plan(config: &TrainConfig, steps: u64) -> Option<RangePlan> {
    let augment = &config.augment;
    let psnr = [augment.range_psnr_start, augment.range_psnr_end];
    augment.range.then_some(RangePlan { psnr, steps, seed: config.train.seed })
}

/// How the blocks of a config are passed, where its wishes can be fulfilled.
pub fn block_form(config: &TrainConfig) -> BlockForm {
    match (config.train.recompute, config.train.by_hand) {
        (true, _) => BlockForm::Recompute,
        (false, ByHand::Auto | ByHand::Always) => BlockForm::Fused,
        (false, ByHand::Never) => BlockForm::Plain,
    }
}

/// The steps of a config over a run of `steps`, not yet fitted to a device.
pub fn step_plan(config: &TrainConfig, loss: Loss, steps: u64) -> StepPlan {
    let train = &config.train;
    StepPlan {
        loss,
        range: range_plan(config, steps),
        precision: train.precision,
        form: block_form(config),
        may_be_plain: train.by_hand == ByHand::Auto,
        attention: AttentionBackend::Cpu,
        attention_of_one: Some(AttentionBackend::Cpu),
        is_deterministic: config.runtime.deterministic,
        kernels: None,
        parts: train.parts,
        bn_group_samples: train.bn_group_samples,
    }
}

/// Where kernels are kept by a config, whose `auto` is a folder of the caller's.
pub fn kernel_cache(config: &TrainConfig, auto: Option<&Path>) -> Option<PathBuf> {
    match config.runtime.kernel_cache.as_str() {
        "" => None,
        "auto" => auto.map(Path::to_path_buf),
        folder => Some(PathBuf::from(folder)),
    }
}

/// The rates of a config over a run of `steps`.
pub fn schedule(config: &TrainConfig, steps: u64) -> Schedule {
    let optim = &config.optim;
    Schedule {
        warmup_start: optim.warmup_start,
        lr_max: optim.lr_max,
        lr_min: optim.lr_min,
        fall: match optim.schedule {
            ScheduleKind::Cosine => Fall::Cosine,
            ScheduleKind::Wsd => Fall::LastSteps(optim.fall_steps),
        },
        warmup_steps: optim.warmup_steps,
        steps,
    }
}
