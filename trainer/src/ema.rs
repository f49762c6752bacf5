//! The exponential moving average of all weights and BatchNorm statistics.
//!
//! In: the weights after a step. Out: their average, whose weights CatLIP releases.
//! Never: warms up; moves in a step that the optimiser did not take.

use tch::{TchError, Tensor};

use crate::model::Weights;

/// The average.
#[derive(Debug)]
pub struct Ema {
    weights: Weights,
    momentum: f64,
}

impl Ema {
    /// Starts at `weights`. `momentum` is the share of each step: the reference takes 5e-4.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn new(weights: &Weights, momentum: f64) -> Result<Self, TchError> {
        Ok(Self { weights: weights.f_copy()?, momentum })
    }

    /// `average = (1 − momentum) · average + momentum · weights`, buffers included.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn update(&mut self, weights: &Weights) -> Result<(), TchError> {
        _ = self.weights.flat().shallow_clone().f_lerp_(weights.flat(), self.momentum)?;
        self.weights.set_batches_tracked(weights.batches_tracked());
        Ok(())
    }

    /// As [`Self::update`], if `accepted`, a scalar on the device, is 1; nothing if it is 0.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn update_if(&mut self, accepted: &Tensor, weights: &Weights) -> Result<(), TchError> {
        let share = accepted.f_mul_scalar(self.momentum)?;
        _ = self.weights.flat().shallow_clone().f_lerp_tensor_(weights.flat(), &share)?;
        self.weights.set_batches_tracked(weights.batches_tracked());
        Ok(())
    }

    /// As [`Self::update_if`] for the buffers alone: the optimiser's kernels moved the rest.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn update_buffers_if(
        &mut self,
        accepted: &Tensor,
        weights: &Weights,
    ) -> Result<(), TchError> {
        let layout = weights.layout();
        let (from, end) = (layout.trained_floats(), layout.floats());
        let share = accepted.f_mul_scalar(self.momentum)?;
        let mut average = self.weights.flat().f_narrow(0, from, end - from)?;
        _ = average.f_lerp_tensor_(&weights.flat().f_narrow(0, from, end - from)?, &share)?;
        self.weights.set_batches_tracked(weights.batches_tracked());
        Ok(())
    }

    /// The share of each step.
    pub fn momentum(&self) -> f64 {
        self.momentum
    }

    /// The averaged weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The averaged weights, to be read from a checkpoint.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }
}
