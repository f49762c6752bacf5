//! The losses and their gradients, in place on the logits.
//!
//! b rows, v labels of the vocabulary, k positives of all rows together.

use tch::{Kind, TchError, Tensor};

use super::{Argument, Kernels, assert_dense, is_wide};
use crate::loss::{Loss, SparseTargets};

/// Threads that share a row of logits.
const ROW_THREADS: u32 = 512;

impl Kernels {
    /// Makes of `logits_bv` the gradient of the loss divided by `divisor`, a float32 scalar on the
    /// device; gives the loss of each row, `[b]`, float32, so divided.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn loss(
        &self,
        logits_bv: &Tensor,
        targets: &SparseTargets,
        loss: &Loss,
        divisor: &Tensor,
    ) -> Result<Tensor, TchError> {
        let (b, v) = logits_bv.size2()?;
        let (kind, device) = (logits_bv.kind(), logits_bv.device());
        let k = targets.labels_k.numel() as i64;
        assert_dense(logits_bv, kind, b * v);
        assert_dense(&targets.offsets_b1, Kind::Int64, b + 1);
        assert_dense(&targets.labels_k, Kind::Int64, k);
        assert_dense(&targets.weights_b, Kind::Float, b);
        assert_dense(divisor, Kind::Float, 1);
        let kept_k = Tensor::f_empty([k], (Kind::Float, device))?;
        let losses_b = Tensor::f_empty([b], (Kind::Float, device))?;
        let head = [
            Argument::Tensor(logits_bv),
            Argument::Tensor(&targets.offsets_b1),
            Argument::Tensor(&targets.labels_k),
            Argument::Tensor(&targets.weights_b),
            Argument::Tensor(divisor),
        ];
        let room = [Argument::Tensor(&kept_k), Argument::Tensor(&losses_b), Argument::Index(v)];
        let (name, smoothing, idf) = match loss {
            Loss::Bce { smoothing } => ("bce", *smoothing, Vec::new()),
            Loss::Softmax { smoothing, idf_v } => {
                if let Some(idf_v) = idf_v {
                    assert_dense(idf_v, Kind::Float, v);
                }
                ("softmax", *smoothing, vec![Argument::maybe(idf_v.as_ref())])
            }
        };
        let tail = [Argument::Float(smoothing as f32), is_wide(v, &[logits_bv])];
        let arguments = [&head[..], &idf, &room, &tail].concat();
        // SAFETY: as `bce` and `softmax` of loss.cu take them; sizes were asserted. Labels lie
        // below v and offsets rise from the first to k more, as the feed makes them.
        unsafe { self.launch_of(name, kind, [b as u32, 1], ROW_THREADS, &arguments)? };
        Ok(losses_b)
    }
}
