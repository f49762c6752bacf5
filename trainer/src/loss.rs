//! Binary cross-entropy from sparse targets; the dense target is never built.
//!
//! In: logits `[b, v]` and the labels of each row. Out: the sum over rows of
//! `w_i · (Σ_c softplus(z_ic) − Σ_{c ∈ Y_i} z_ic)`, in fp32. Never: divides: a step divides by the
//! rows of the whole global batch, because the shares of a batch may be unequal.
//!
//! b rows, v labels of the vocabulary, k positives of all rows together.

use tch::{Kind, TchError, Tensor};

/// The labels of a batch on the device of the logits.
#[derive(Debug)]
pub struct SparseTargets {
    /// Row of each positive, `[k]`, int64.
    pub rows_k: Tensor,
    /// Label of each positive, `[k]`, int64.
    pub labels_k: Tensor,
    /// Weight of each row, `[b]`, float; 0 leaves a row out.
    pub weights_b: Tensor,
}

/// Sum over rows of the weighted binary cross-entropy, a scalar.
///
/// # Errors
///
/// What libtorch says, such as out of memory.
pub fn bce_sum(logits_bv: &Tensor, targets: &SparseTargets) -> Result<Tensor, TchError> {
    let logits_bv = logits_bv.f_to_kind(Kind::Float)?;
    let num_labels = logits_bv.size()[1];
    let places_k = (targets.rows_k.f_mul_scalar(num_labels)?).f_add(&targets.labels_k)?;
    let positives_k = logits_bv.f_reshape([-1])?.f_index_select(0, &places_k)?;
    let weights_k = targets.weights_b.f_index_select(0, &targets.rows_k)?;
    let positive_sum = positives_k.f_dot(&weights_k)?;
    let all_b = logits_bv.f_softplus()?.f_sum_dim_intlist(1, false, Kind::Float)?;
    all_b.f_dot(&targets.weights_b)?.f_sub(&positive_sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn sines() -> Tensor {
        (Tensor::arange(15, CPU) * 0.7).sin().view([3, 5])
    }

    fn targets(weights: &[f32]) -> SparseTargets {
        SparseTargets {
            rows_k: Tensor::from_slice(&[0_i64, 0, 2, 2, 2]),
            labels_k: Tensor::from_slice(&[1_i64, 4, 0, 1, 3]),
            weights_b: Tensor::from_slice(weights),
        }
    }

    /// Value and gradient by the definition, over a dense target in float64.
    fn dense(logits_bv: &Tensor, targets: &SparseTargets) -> (f64, Tensor) {
        let z = logits_bv.detach().to_kind(Kind::Double).set_requires_grad(true);
        let ones = Tensor::ones(targets.rows_k.size(), (Kind::Double, Device::Cpu));
        let places = [Some(&targets.rows_k), Some(&targets.labels_k)];
        let y = z.zeros_like().index_put(&places, &ones, false).detach();
        let absent_bv: Tensor = 1.0 - &y;
        let each_bv: Tensor = &y * z.log_sigmoid() + absent_bv * (-&z).log_sigmoid();
        let weights_b1 = targets.weights_b.to_kind(Kind::Double).unsqueeze(1);
        let sum = (each_bv * weights_b1).sum(Kind::Double).neg();
        sum.backward();
        (sum.double_value(&[]), z.grad())
    }

    fn assert_like_dense(logits_bv: Tensor, weights: &[f32]) {
        let targets = targets(weights);
        let logits_bv = logits_bv.set_requires_grad(true);
        let sum = bce_sum(&logits_bv, &targets).unwrap();
        sum.backward();
        let (expected, gradient) = dense(&logits_bv, &targets);
        let off = (logits_bv.grad() - &gradient).abs().max().double_value(&[]);
        assert!((sum.double_value(&[]) / expected - 1.0).abs() < 1e-6, "{sum:?} {expected}");
        assert!(off < 1e-6, "gradient is off by {off}");
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
            weights_b: Tensor::ones([2], CPU),
        };
        let sum = bce_sum(&Tensor::zeros([2, 5], CPU), &targets).unwrap();
        assert!((sum.double_value(&[]) - 10.0 * 2.0_f64.ln()).abs() < 1e-5);
    }
}
