//! The global norm and the update of weights, moments and average.

use tch::{Kind, TchError, Tensor};

use super::{Argument, EIGHT, Kernels, THREADS, assert_dense, is_wide};

/// Threads of the one block that judges.
const JUDGE_THREADS: u32 = 1024;

/// One stretch of the flat tensors, whose parameters are all of one group, and its rates.
#[derive(Clone, Copy, Debug)]
pub struct Update<'t> {
    /// Weights, gradient, first and second moments: as long as each other, float32.
    pub tensors: [&'t Tensor; 4],
    /// The average of the weights, if it is moved here.
    pub average: Option<&'t Tensor>,
    /// The weights rounded to bfloat16, if they are kept.
    pub narrow: Option<&'t Tensor>,
    /// The rate.
    pub lr: f64,
    /// Weight decay, times the rate.
    pub decay: f64,
    /// Shares of the gradient and of its square in the moments.
    pub shares: [f64; 2],
    /// By which the root of the second moment is multiplied.
    pub root_scale: f64,
    /// What is then added.
    pub eps: f64,
    /// Share of the weights in the average.
    pub ema_share: f64,
}

impl Kernels {
    /// The global norm of `gradient`, float32, whether it is a finite number (1 or 0) and what the
    /// gradient is clipped by to the limit (0: not); three floats on the device.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn verdict(&self, gradient: &Tensor, limit: f64, eps: f64) -> Result<Tensor, TchError> {
        let numbers = gradient.numel() as i64;
        assert_dense(gradient, Kind::Float, numbers);
        let like = (Kind::Float, gradient.device());
        let blocks = self.blocks_for_numbers(numbers);
        let partials = Tensor::f_empty([i64::from(blocks)], like)?;
        let arguments = [
            Argument::Tensor(gradient),
            Argument::Tensor(&partials),
            Argument::Index(numbers),
            is_wide(EIGHT, &[gradient]),
        ];
        // SAFETY: as `square_sum` of update.cu takes them, with one partial sum a block.
        unsafe { self.launch("square_sum", [blocks, 1], THREADS, &arguments)? };
        let verdict = Tensor::f_empty([3], like)?;
        let arguments = [
            Argument::Tensor(&partials),
            Argument::Index(i64::from(blocks)),
            Argument::Float(limit as f32),
            Argument::Float(eps as f32),
            Argument::Tensor(&verdict),
        ];
        // SAFETY: as `verdict` of update.cu takes them: room for three floats.
        unsafe { self.launch("verdict", [1, 1], JUDGE_THREADS, &arguments)? };
        Ok(verdict)
    }

    /// Takes a step of AdamW over a stretch, if `verdict` accepts it; else changes nothing.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn adamw(&self, update: &Update, verdict: &Tensor) -> Result<(), TchError> {
        let numbers = update.tensors[0].numel() as i64;
        for tensor in update.tensors.into_iter().chain(update.average) {
            assert_dense(tensor, Kind::Float, numbers);
        }
        if let Some(narrow) = update.narrow {
            assert_dense(narrow, Kind::BFloat16, numbers);
        }
        assert_dense(verdict, Kind::Float, 3);
        let all: Vec<&Tensor> =
            update.tensors.into_iter().chain(update.average).chain(update.narrow).collect();
        let float = |value: f64| Argument::Float(value as f32);
        let arguments = [
            Argument::Tensor(update.tensors[0]),
            Argument::Tensor(update.tensors[1]),
            Argument::Tensor(update.tensors[2]),
            Argument::Tensor(update.tensors[3]),
            Argument::maybe(update.average),
            Argument::maybe(update.narrow),
            Argument::Tensor(verdict),
            Argument::Index(numbers),
            float(update.lr),
            float(update.decay),
            float(update.shares[0]),
            float(update.shares[1]),
            float(update.root_scale),
            float(update.eps),
            float(update.ema_share),
            is_wide(EIGHT, &all),
        ];
        let grid = [self.blocks_for_numbers(numbers), 1];
        // SAFETY: as `adamw` of update.cu takes them; sizes were asserted.
        unsafe { self.launch("adamw", grid, THREADS, &arguments) }
    }
}
