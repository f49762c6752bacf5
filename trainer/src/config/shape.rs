//! The shape of the model and of its batches: defaults, and what fits what.

use catlip_pipeline::error::ConfigError;

use super::{ModelConfig, ModelSize, OptimConfig, SamplerKind, ScheduleKind, TrainConfig};
use super::{refused, within};
use crate::model::{Pool, StemKind};
use crate::optim::Decay;

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            size: ModelSize::Tiny,
            width: 0,
            depth: 0,
            heads: 0,
            stem: StemKind::Corenet,
            patch_px: 16,
            positions: 196,
            summary_token: true,
            registers: 0,
            pool: Pool::Summary,
            hidden: 0,
            swiglu: false,
            qk_norm: false,
            bias_from_priors: false,
        }
    }
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            lr_max: 1e-3,
            lr_min: 1e-5,
            schedule: ScheduleKind::Cosine,
            fall_steps: 0,
            warmup_start: 1e-6,
            warmup_steps: 500,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.2,
            decay: Decay::Reference,
            layer_decay: 1.0,
            clip_norm: 1.0,
            ema_momentum: 5e-4,
        }
    }
}

impl TrainConfig {
    pub(super) fn check_sampler(&self) -> Result<(), ConfigError> {
        let Self { sampler, train, model, .. } = self;
        within("sampler.min_px", sampler.min_px.into(), 16.0, sampler.max_px.into())?;
        within("sampler.max_px", sampler.max_px.into(), sampler.min_px.into(), 1024.0)?;
        within("sampler.scales", sampler.scales.into(), 1.0, 1000.0)?;
        within("sampler.multiple_px", sampler.multiple_px.into(), 1.0, 256.0)?;
        within("sampler.shares", sampler.shares.into(), 1.0, train.batch as f64)?;
        if train.batch % sampler.shares as usize != 0 {
            let expected = format!("a divisor of train.batch = {}", train.batch);
            return Err(refused("sampler.shares", sampler.shares, expected));
        }
        let fits = i64::from(sampler.multiple_px) % model.patch_px == 0;
        if sampler.kind == SamplerKind::Variable && !fits {
            let expected = format!("a multiple of model.patch_px = {}", model.patch_px);
            return Err(refused("sampler.multiple_px", sampler.multiple_px, expected));
        }
        Ok(())
    }

    pub(super) fn check_shape(&self) -> Result<(), ConfigError> {
        let [width, _, heads] = self.model_shape();
        let Self { model, .. } = self;
        let known: &[i64] = match model.stem {
            StemKind::Corenet => &[8, 16],
            StemKind::Linear => &[4, 8, 14, 16, 32],
        };
        if !known.contains(&model.patch_px) {
            let expected = format!("one of {known:?} with this model.stem");
            return Err(refused("model.patch_px", model.patch_px, expected));
        }
        if model.stem == StemKind::Linear && model.positions.isqrt().pow(2) != model.positions {
            let expected = "a square number with model.stem = linear".to_owned();
            return Err(refused("model.positions", model.positions, expected));
        }
        if model.pool == Pool::Summary && !model.summary_token {
            let expected = "true with model.pool = summary".to_owned();
            return Err(refused("model.summary_token", false, expected));
        }
        if width % heads != 0 || width % 4 != 0 {
            let expected = format!("a multiple of 4 and of the {heads} heads");
            return Err(refused("model.width", width, expected));
        }
        if self.train.image_px as i64 % self.model.patch_px != 0 {
            let expected = format!("a multiple of model.patch_px = {}", self.model.patch_px);
            return Err(refused("train.image_px", self.train.image_px, expected));
        }
        if self.train.steps == 0 && self.train.epochs == 0.0 {
            return Err(refused("train.steps", 0, "more, or train.epochs above 0".to_owned()));
        }
        Ok(())
    }
}
