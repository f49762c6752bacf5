//! Everything that a step changes.
//!
//! In: the plan of a run. Out: a [`TrainState`], which a checkpoint holds whole. Never: a path, a
//! thread, a clock.

use catlip_schemas::Cursor;
use tch::{Device, Kind, TchError, Tensor};

use crate::dist::Together;
use crate::ema::Ema;
use crate::model::params::Gradient;
use crate::model::{Vit, Weights};
use crate::optim::{AdamW, AdamWPlan};

/// The state of training after `step` steps.
#[derive(Debug)]
pub struct TrainState {
    /// The model; not changed by a step.
    pub vit: Vit,
    /// Parameters and BatchNorm statistics.
    pub weights: Weights,
    /// Gradients of the parameters; zero at the start of each step.
    pub gradient: Gradient,
    /// Moments of the parameters.
    pub adamw: AdamW,
    /// Average of the weights, unless switched off.
    pub ema: Option<Ema>,
    /// Steps that were skipped because their gradient was no number: those of the last steps, in a
    /// row, and all; two floats on the device.
    pub skips: Tensor,
    /// Running mean of the loss at log steps; none before the first.
    pub loss_mean: Option<f32>,
    /// The other ranks, if there are any; not changed by a step.
    pub together: Option<Together>,
    /// Steps that were taken.
    pub step: u64,
    /// Images that were seen, counted truly.
    pub images_seen: u64,
    /// Where the feed goes on.
    pub cursor: Cursor,
}

impl TrainState {
    /// A state before its first step, over `weights`. `ema_momentum` 0 switches the average off.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn new(
        vit: Vit,
        weights: Weights,
        adamw: AdamWPlan,
        ema_momentum: f64,
        cursor: Cursor,
    ) -> Result<Self, TchError> {
        let ema = (ema_momentum > 0.0).then(|| Ema::new(&weights, ema_momentum)).transpose()?;
        Ok(Self {
            adamw: AdamW::new(adamw, &weights)?,
            skips: Tensor::f_zeros([2], (Kind::Float, weights.device()))?,
            loss_mean: None,
            together: None,
            gradient: Gradient::attach(&weights)?,
            vit,
            weights,
            ema,
            step: 0,
            images_seen: 0,
            cursor,
        })
    }

    /// Notes on the device whether a step was `accepted`, 1 or 0.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn note(&mut self, accepted: &Tensor) -> Result<(), TchError> {
        let skipped = accepted.f_neg()?.f_add_scalar(1.0)?;
        let (mut in_row, mut all) = (self.skips.f_narrow(0, 0, 1)?, self.skips.f_narrow(0, 1, 1)?);
        _ = in_row.f_add_(&skipped)?.f_mul_(&skipped)?;
        all.f_add_(&skipped).map(|_| ())
    }

    /// Steps that were skipped: the last ones in a row, and all. Waits for the device.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn skipped(&self) -> Result<[u64; 2], TchError> {
        let both = self.skips.f_to_device(Device::Cpu)?;
        Ok([both.f_double_value(&[0])? as u64, both.f_double_value(&[1])? as u64])
    }

    /// Sets what [`Self::skipped`] gives.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn set_skipped(&mut self, skipped: [u64; 2]) -> Result<(), TchError> {
        let both = Tensor::f_from_slice(&skipped.map(|count| count as f32))?;
        tch::no_grad(|| self.skips.f_copy_(&both))
    }

    /// The weights that a person takes: the average, or the weights themselves without one.
    pub fn best_weights(&self) -> &Weights {
        self.ema.as_ref().map_or(&self.weights, Ema::weights)
    }

    /// Where the weights lie.
    pub fn device(&self) -> Device {
        self.weights.device()
    }
}
