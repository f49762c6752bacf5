//! Losses from sparse targets; the dense target is never built.
//!
//! In: logits `[b, v]` and the labels Y_i of each row. Out: a sum over rows, in fp32. Never:
//! divides by rows: a step divides by those of the whole global batch, because the shares of a
//! batch may be unequal.
//!
//! - `bce`, CatLIP's: `w_i · (Σ_c softplus(z_ic) − (1 − s) · Σ_{c ∈ Y_i} z_ic)`, the binary
//!   cross-entropy with targets 1 − s for the positives and 0 elsewhere.
//! - `softmax`, SuperClass's (arXiv 2411.03313): cross-entropy against the labels normalised to a
//!   sum of 1, weighted by inverse document frequency if asked for, of which the share s is spread
//!   over all labels. A row without labels has no distribution to learn: its loss is 0.
//!
//! b rows, v labels of the vocabulary, k positives of all rows together, s label smoothing.

use tch::{Device, Kind, TchError, Tensor};

use crate::config::{LossConfig, LossKind};

/// The labels of a batch on the device of the logits.
#[derive(Debug)]
pub struct SparseTargets {
    /// Row of each positive, `[k]`, int64.
    pub rows_k: Tensor,
    /// Label of each positive, `[k]`, int64.
    pub labels_k: Tensor,
    /// Where the positives of each row begin among all, and where the last ends, `[b + 1]`, int64;
    /// counted from the first number.
    pub offsets_b1: Tensor,
    /// Weight of each row, `[b]`, float; 0 leaves a row out.
    pub weights_b: Tensor,
}

/// What a step minimises.
#[derive(Debug)]
pub enum Loss {
    /// Binary cross-entropy of every label.
    Bce {
        /// By how much the target of a positive is below 1.
        smoothing: f64,
    },
    /// Cross-entropy of a softmax over all labels.
    Softmax {
        /// Share of the target that is spread over all labels.
        smoothing: f64,
        /// Weight of each label, `[v]`, float; none: all are equal.
        idf_v: Option<Tensor>,
    },
}

impl Loss {
    /// The loss that a config names, over labels of which `positives` of `rows` rows have each.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn new(
        config: &LossConfig,
        rows: u64,
        positives: &[u64],
        device: Device,
    ) -> Result<Self, TchError> {
        let smoothing = config.smoothing;
        let idf = || Tensor::f_from_slice(&inverse_document_frequency(rows, positives));
        Ok(match config.kind {
            LossKind::Bce => Self::Bce { smoothing },
            LossKind::Softmax => {
                let idf_v = config.idf.then(|| idf()?.f_to_device(device)).transpose()?;
                Self::Softmax { smoothing, idf_v }
            }
        })
    }

    /// Sum over rows of the weighted loss, a scalar.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn sum(&self, logits_bv: &Tensor, targets: &SparseTargets) -> Result<Tensor, TchError> {
        match self {
            Self::Bce { smoothing } => smoothed_bce_sum(logits_bv, targets, *smoothing),
            Self::Softmax { smoothing, idf_v } => {
                softmax_sum(logits_bv, targets, *smoothing, idf_v.as_ref())
            }
        }
    }
}

/// Weight of each label by how rare it is: `ln(rows ÷ (1 + rows with the label))`, at least 0.
pub fn inverse_document_frequency(rows: u64, positives: &[u64]) -> Vec<f32> {
    let weight = |&df: &u64| (rows as f64 / (1.0 + df as f64)).ln().max(0.0) as f32;
    positives.iter().map(weight).collect()
}

/// Sum over rows of the weighted binary cross-entropy, a scalar.
///
/// # Errors
///
/// What libtorch says, such as out of memory.
pub fn bce_sum(logits_bv: &Tensor, targets: &SparseTargets) -> Result<Tensor, TchError> {
    smoothed_bce_sum(logits_bv, targets, 0.0)
}

fn smoothed_bce_sum(
    logits_bv: &Tensor,
    targets: &SparseTargets,
    smoothing: f64,
) -> Result<Tensor, TchError> {
    let logits_bv = logits_bv.f_to_kind(Kind::Float)?;
    let weights_k = targets.weights_b.f_index_select(0, &targets.rows_k)?;
    let positive_sum = positives(&logits_bv, targets)?.f_dot(&weights_k)?;
    let all_b = logits_bv.f_softplus()?.f_sum_dim_intlist(1, false, Kind::Float)?;
    all_b.f_dot(&targets.weights_b)?.f_sub(&positive_sum.f_mul_scalar(1.0 - smoothing)?)
}

fn softmax_sum(
    logits_bv: &Tensor,
    targets: &SparseTargets,
    smoothing: f64,
    idf_v: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    let logits_bv = logits_bv.f_to_kind(Kind::Float)?;
    let idf_k = match idf_v {
        Some(idf_v) => idf_v.f_index_select(0, &targets.labels_k)?,
        None => targets.labels_k.f_ones_like()?.f_to_kind(Kind::Float)?,
    };
    let total_b = targets.weights_b.f_zeros_like()?.f_index_add(0, &targets.rows_k, &idf_k)?;
    let has_target_b = total_b.f_gt(0.0)?.f_to_kind(Kind::Float)?;
    let weights_b = targets.weights_b.f_mul(&has_target_b)?;
    // A total of 0 divides nothing: the weight of its row is 0 too.
    let scale_b = weights_b.f_div(&total_b.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?;
    let scale_k = scale_b.f_index_select(0, &targets.rows_k)?.f_mul(&idf_k)?;
    let positive_sum = positives(&logits_bv, targets)?.f_dot(&scale_k)?;
    let normaliser_sum = logits_bv.f_logsumexp([1_i64], false)?.f_dot(&weights_b)?;
    let sum = normaliser_sum.f_sub(&positive_sum.f_mul_scalar(1.0 - smoothing)?)?;
    if smoothing == 0.0 {
        return Ok(sum);
    }
    let spread_b = logits_bv.f_mean_dim([1_i64].as_slice(), false, Kind::Float)?;
    sum.f_sub(&spread_b.f_dot(&weights_b)?.f_mul_scalar(smoothing)?)
}

/// The logit of each positive, `[k]`.
fn positives(logits_bv: &Tensor, targets: &SparseTargets) -> Result<Tensor, TchError> {
    let num_labels = logits_bv.size()[1];
    let places_k = targets.rows_k.f_mul_scalar(num_labels)?.f_add(&targets.labels_k)?;
    logits_bv.f_reshape([-1])?.f_index_select(0, &places_k)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn sines() -> Tensor {
        (Tensor::arange(15, CPU) * 0.7).sin().view([3, 5])
    }

    fn targets(weights: &[f32]) -> SparseTargets {
        SparseTargets {
            rows_k: Tensor::from_slice(&[0_i64, 0, 2, 2, 2]),
            labels_k: Tensor::from_slice(&[1_i64, 4, 0, 1, 3]),
            offsets_b1: Tensor::from_slice(&[0_i64, 2, 2, 5]),
            weights_b: Tensor::from_slice(weights),
        }
    }

    fn in_double(logits_bv: &Tensor) -> Tensor {
        logits_bv.detach().to_kind(Kind::Double).set_requires_grad(true)
    }

    /// The dense target `[b, v]` with `values_k` at the positives, in float64.
    fn dense(like: &Tensor, targets: &SparseTargets, values_k: &Tensor) -> Tensor {
        let places = [Some(&targets.rows_k), Some(&targets.labels_k)];
        like.zeros_like().index_put(&places, values_k, false).detach()
    }

    /// Value and gradient by the definition of the binary cross-entropy.
    fn dense_bce(logits_bv: &Tensor, targets: &SparseTargets, smoothing: f64) -> (f64, Tensor) {
        let z = in_double(logits_bv);
        let ones = Tensor::ones(targets.rows_k.size(), (Kind::Double, Device::Cpu));
        let y = dense(&z, targets, &(ones * (1.0 - smoothing)));
        let absent_bv: Tensor = 1.0 - &y;
        let each_bv: Tensor = &y * z.log_sigmoid() + absent_bv * (-&z).log_sigmoid();
        by_rows(each_bv, z, targets)
    }

    /// Value and gradient by the definition of the cross-entropy of a softmax.
    fn dense_softmax(
        logits_bv: &Tensor,
        targets: &SparseTargets,
        smoothing: f64,
        idf_v: &[f64],
    ) -> (f64, Tensor) {
        let z = in_double(logits_bv);
        let idf_k = Tensor::from_slice(idf_v).index_select(0, &targets.labels_k);
        let y = dense(&z, targets, &idf_k);
        let total_b1 = y.sum_dim_intlist(1, true, Kind::Double);
        let has_b1 = total_b1.gt(0.0).to_kind(Kind::Double);
        let y = y / total_b1.clamp_min(1e-300);
        let y = y * (1.0 - smoothing) + smoothing / idf_v.len() as f64;
        by_rows(y * z.log_softmax(1, Kind::Double) * has_b1, z, targets)
    }

    fn by_rows(each_bv: Tensor, z: Tensor, targets: &SparseTargets) -> (f64, Tensor) {
        let weights_b1 = targets.weights_b.to_kind(Kind::Double).unsqueeze(1);
        let sum = (each_bv * weights_b1).sum(Kind::Double).neg();
        sum.backward();
        (sum.double_value(&[]), z.grad())
    }

    fn assert_same(loss: &Loss, logits_bv: Tensor, weights: &[f32]) {
        let targets = targets(weights);
        let logits_bv = logits_bv.set_requires_grad(true);
        let sum = loss.sum(&logits_bv, &targets).unwrap();
        sum.backward();
        let (expected, gradient) = match loss {
            Loss::Bce { smoothing } => dense_bce(&logits_bv, &targets, *smoothing),
            Loss::Softmax { smoothing, idf_v } => {
                let idf = idf_v.as_ref().map_or(vec![1.0; 5], |t| Vec::try_from(t).unwrap());
                dense_softmax(&logits_bv, &targets, *smoothing, &idf)
            }
        };
        let off = (logits_bv.grad() - &gradient).abs().max().double_value(&[]);
        assert!((sum.double_value(&[]) / expected - 1.0).abs() < 1e-6, "{sum:?} {expected}");
        assert!(off < 1e-6, "gradient is off by {off}");
    }

    fn assert_like_dense(logits_bv: Tensor, weights: &[f32]) {
        for smoothing in [0.0, 0.1] {
            assert_same(&Loss::Bce { smoothing }, logits_bv.copy(), weights);
            let softmax = Loss::Softmax { smoothing, idf_v: None };
            assert_same(&softmax, logits_bv.copy(), weights);
            let idf_v = Some(Tensor::from_slice(&[0.5_f32, 2.0, 1.0, 0.0, 3.0]));
            assert_same(&Loss::Softmax { smoothing, idf_v }, logits_bv.copy(), weights);
        }
    }

    #[test]
    fn value_and_gradient_are_those_of_a_dense_target_in_float64() {
        assert_like_dense(sines() * 9.0, &[1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_row_of_weight_zero_is_left_out() {
        assert_like_dense(sines(), &[1.0, 0.5, 0.0]);
    }

    #[test]
    fn large_logits_neither_overflow_nor_vanish() {
        let signs = Tensor::from_slice(&[1.0_f32, -1.0, 1.0, -1.0, 1.0]);
        assert_like_dense(Tensor::ones([3, 5], CPU) * signs * 80.0, &[1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_batch_without_any_label_has_a_loss() {
        let none = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
        let targets = SparseTargets {
            rows_k: none.shallow_clone(),
            labels_k: none,
            offsets_b1: Tensor::zeros([3], (Kind::Int64, Device::Cpu)),
            weights_b: Tensor::ones([2], CPU),
        };
        let sum = bce_sum(&Tensor::zeros([2, 5], CPU), &targets).unwrap();
        assert!((sum.double_value(&[]) - 10.0 * 2.0_f64.ln()).abs() < 1e-5);
    }

    #[test]
    fn a_row_without_labels_has_no_softmax_loss() {
        let targets = targets(&[1.0, 1.0, 1.0]);
        let loss = Loss::Softmax { smoothing: 0.1, idf_v: None };
        let logits_bv = sines().set_requires_grad(true);
        loss.sum(&logits_bv, &targets).unwrap().backward();
        assert_eq!(logits_bv.grad().get(1).abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn rare_labels_weigh_more_and_none_less_than_nothing() {
        let weights = inverse_document_frequency(100, &[0, 9, 100]);
        assert_eq!(weights, [100_f32.ln(), 10_f32.ln(), 0.0]);
    }
}
