//! Everything that a step changes.
//!
//! In: the plan of a run. Out: a [`TrainState`], which a checkpoint holds whole. Never: a path, a
//! thread, a clock.

use catlip_schemas::Cursor;
use tch::{Device, TchError};

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
            gradient: Gradient::attach(&weights)?,
            vit,
            weights,
            ema,
            step: 0,
            images_seen: 0,
            cursor,
        })
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
