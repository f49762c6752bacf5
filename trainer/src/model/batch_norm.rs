//! BatchNorm over groups of the rows of a whole step, on whichever ranks they are.
//!
//! In: what a convolution gave for the rows of this rank, and the group of each. Out: the same
//! normalised by the mean and variance of its group over all ranks, and the gradient back through
//! both. Never: depends on the number of ranks, but for the order in which numbers are added.
//!
//! The walk is cut at the convolution's output: statistics are leaves of the graph behind it, whose
//! gradients are summed over the ranks before the graph in front of it goes back. With one group
//! that is the whole step this is SyncBatchNorm.
//!
//! b rows here, g groups, c channels, h w.

use std::fmt;
use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use crate::batch::sent;

/// Share of the old running statistics that a step replaces.
pub(super) const MOMENTUM: f64 = 0.1;
/// Added to the variance.
pub(super) const EPS: f64 = 1e-5;

/// Which rows are normalised together.
pub struct Groups<'s> {
    /// 1 where the row is one of the group, else 0.
    member_bg: Tensor,
    /// Rows of each group over all ranks, on the device and here.
    rows_g1: Tensor,
    rows_of_groups: Vec<i64>,
    /// Where the rows of each group lie here; none may.
    spans: Vec<Range<i64>>,
    /// Sums a tensor over the ranks, in place.
    sum: &'s dyn Fn(&Tensor) -> Result<(), TchError>,
}

impl fmt::Debug for Groups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("rows_g1", &self.rows_g1).finish_non_exhaustive()
    }
}

impl<'s> Groups<'s> {
    /// The group of each row here, which never falls, the rows of each group over all ranks, and
    /// how ranks sum.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn new(
        group_of_rows: &[i64],
        rows_of_groups: &[i64],
        device: Device,
        sum: &'s dyn Fn(&Tensor) -> Result<(), TchError>,
    ) -> Result<Self, TchError> {
        let groups = rows_of_groups.len() as i64;
        let numbers_g = Tensor::f_arange(groups, (Kind::Int64, Device::Cpu))?;
        let member_bg =
            Tensor::f_from_slice(group_of_rows)?.f_unsqueeze(1)?.f_eq_tensor(&numbers_g)?;
        let rows_g1 = Tensor::f_from_slice(rows_of_groups)?.f_unsqueeze(1)?;
        let to_device = |host: &Tensor| sent(&host.f_to_kind(Kind::Float)?, device);
        let until = |group: i64| group_of_rows.partition_point(|&other| other < group) as i64;
        let spans = (0..groups).map(|group| until(group)..until(group + 1)).collect();
        let (member_bg, rows_g1) = (to_device(&member_bg)?, to_device(&rows_g1)?);
        Ok(Self { member_bg, rows_g1, rows_of_groups: rows_of_groups.to_vec(), spans, sum })
    }

    /// One group of all `rows`, which are all here.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub(super) fn of_all(rows: i64, device: Device) -> Result<Self, TchError> {
        Self::new(&vec![0; rows as usize], &[rows], device, &|_| Ok(()))
    }

    /// Where the rows of each group lie here, and how many it has over all ranks.
    pub(super) fn spans(&self) -> impl ExactSizeIterator<Item = (Range<i64>, i64)> + '_ {
        self.spans.iter().cloned().zip(self.rows_of_groups.iter().copied())
    }

    /// Sums of groups here `[g, …]` → over all ranks, in place.
    pub(super) fn sum(&self, sums: &Tensor) -> Result<(), TchError> {
        (self.sum)(sums)
    }

    /// Numbers behind each mean where a row has so many: `[g, 1]`.
    pub(super) fn count(&self, numbers_of_row: i64) -> Result<Tensor, TchError> {
        self.rows_g1.f_mul_scalar(numbers_of_row as f64)
    }

    /// Numbers of rows `[b, c]` → their sums by group over all ranks `[g, c]`.
    fn total(&self, x_bc: &Tensor) -> Result<Tensor, TchError> {
        let sums_gc = self.member_bg.f_tr()?.f_matmul(x_bc)?;
        self.sum(&sums_gc)?;
        Ok(sums_gc)
    }

    /// Numbers of groups `[g, c]` → those of the rows' groups `[b, c, 1, 1]`.
    fn spread(&self, x_gc: &Tensor) -> Result<Tensor, TchError> {
        self.member_bg.f_matmul(x_gc)?.f_unsqueeze(2)?.f_unsqueeze(3)
    }
}

/// A convolution's output, and the leaves of the graph behind it.
#[derive(Debug)]
pub struct Normed {
    /// The output, with the graph in front of it.
    input_bchw: Tensor,
    /// The same as a leaf.
    leaf_bchw: Tensor,
    mean_gc: Tensor,
    var_gc: Tensor,
    /// Numbers behind each mean.
    count_g1: Tensor,
}

impl Normed {
    /// Finds mean and variance of `input_bchw`, in two passes over it, and tells the other ranks.
    pub(super) fn new(input_bchw: Tensor, groups: &Groups) -> Result<Self, TchError> {
        let (_, _, height, width) = input_bchw.size4()?;
        let leaf = |tensor: &Tensor| tensor.f_detach()?.f_set_requires_grad(true);
        let count_g1 = groups.count(height * width)?;
        let sum_bc = |x: &Tensor| x.f_sum_dim_intlist([2, 3].as_slice(), false, Kind::Float);
        let (mean_gc, var_gc) = tch::no_grad(|| {
            let mean_gc = groups.total(&sum_bc(&input_bchw)?)?.f_div(&count_g1)?;
            let off_bchw = input_bchw.f_sub(&groups.spread(&mean_gc)?)?;
            let var_gc = groups.total(&sum_bc(&off_bchw.f_square()?)?)?.f_div(&count_g1)?;
            Ok::<_, TchError>((mean_gc, var_gc))
        })?;
        let (mean_gc, var_gc) = (leaf(&mean_gc)?, leaf(&var_gc)?);
        Ok(Self { leaf_bchw: leaf(&input_bchw)?, input_bchw, mean_gc, var_gc, count_g1 })
    }

    /// Moves the running statistics towards those of the groups.
    pub(super) fn follow(&self, running: [&Tensor; 2]) -> Result<(), TchError> {
        follow(running, [&self.mean_gc, &self.var_gc], &self.count_g1)
    }

    /// The normalised output, scaled and shifted.
    pub(super) fn output(
        &self,
        weight_c: &Tensor,
        bias_c: &Tensor,
        groups: &Groups,
    ) -> Result<Tensor, TchError> {
        let scale_gc = self.var_gc.f_add_scalar(EPS)?.f_rsqrt()?.f_mul(weight_c)?;
        let shift_gc = bias_c.f_sub(&self.mean_gc.f_mul(&scale_gc)?)?;
        let scaled_bchw = self.leaf_bchw.f_mul(&groups.spread(&scale_gc)?)?;
        scaled_bchw.f_add(&groups.spread(&shift_gc)?)
    }

    /// After the graph behind it went back: the gradient of what the convolution gave, and that
    /// itself with the graph in front.
    pub(super) fn back(self, groups: &Groups) -> Result<(Tensor, Tensor), TchError> {
        let _no_grad = tch::no_grad_guard();
        // Every rank's rows pull at the statistics; those of all ranks gave them.
        let pulls_2gc = Tensor::f_stack(&[self.mean_gc.f_grad()?, self.var_gc.f_grad()?], 0)?;
        groups.sum(&pulls_2gc)?;
        let pulls_2gc = pulls_2gc.f_div(&self.count_g1)?;
        let of_mean = groups.spread(&pulls_2gc.f_get(0)?)?;
        let of_var = groups.spread(&pulls_2gc.f_get(1)?.f_mul_scalar(2.0)?)?;
        let off_bchw = self.leaf_bchw.f_detach()?.f_sub(&groups.spread(&self.mean_gc)?)?;
        let of_input =
            self.leaf_bchw.f_grad()?.f_add(&of_mean)?.f_add(&off_bchw.f_mul(&of_var)?)?;
        Ok((self.input_bchw, of_input))
    }
}

/// Moves running mean and variance, `[c]`, towards those of groups, `[g, c]`, by their counts.
pub(super) fn follow(
    running: [&Tensor; 2],
    [mean_gc, var_gc]: [&Tensor; 2],
    count_g1: &Tensor,
) -> Result<(), TchError> {
    let _no_grad = tch::no_grad_guard();
    let share_g1 = count_g1.f_div(&count_g1.f_sum(Kind::Float)?)?;
    let unbiased = count_g1.f_sub_scalar(1.0)?.f_clamp_min(1.0)?;
    let unbiased_gc = var_gc.f_mul(&count_g1.f_div(&unbiased)?)?;
    for (running_c, now_gc) in running.into_iter().zip([mean_gc, &unbiased_gc]) {
        let dims = [0_i64];
        let now_c =
            now_gc.f_mul(&share_g1)?.f_sum_dim_intlist(dims.as_slice(), false, Kind::Float)?;
        // As data: the graphs keep views of the same flat tensor, and would take the change for
        // one of the weights.
        _ = running_c.f_data()?.f_lerp_(&now_c, MOMENTUM)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(rows: i64, phase: f64) -> Tensor {
        let numbers = Tensor::arange(rows * 3 * 2 * 2, (Kind::Float, Device::Cpu));
        ((numbers * 0.7 + phase).sin() + 0.3).view([rows, 3, 2, 2])
    }

    /// Output, gradient of the input and running statistics: of PyTorch's own over all rows.
    fn expected(input: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 4] {
        let input = input.detach().set_requires_grad(true);
        let (mean, var) = (Tensor::zeros([3], (Kind::Float, Device::Cpu)), weight.ones_like());
        let output = input.batch_norm(
            Some(weight),
            Some(bias),
            Some(&mean),
            Some(&var),
            true,
            MOMENTUM,
            EPS,
            false,
        );
        (&output * wave(input.size()[0], 2.0)).sum(Kind::Float).backward();
        [output.detach(), input.grad(), mean, var]
    }

    fn found(input: &Tensor, weight: &Tensor, bias: &Tensor, groups: [&[i64]; 2]) -> [Tensor; 4] {
        let alone = |_: &Tensor| Ok(());
        let groups = Groups::new(groups[0], groups[1], Device::Cpu, &alone).unwrap();
        let input = input.detach().set_requires_grad(true);
        let normed = Normed::new(&input * 1.0, &groups).unwrap();
        let (mean, var) = (Tensor::zeros([3], (Kind::Float, Device::Cpu)), weight.ones_like());
        normed.follow([&mean, &var]).unwrap();
        let output = normed.output(weight, bias, &groups).unwrap();
        (&output * wave(input.size()[0], 2.0)).sum(Kind::Float).backward();
        let (before, gradient) = normed.back(&groups).unwrap();
        (before * gradient).sum(Kind::Float).backward();
        [output.detach(), input.grad(), mean, var]
    }

    fn assert_near(found: &Tensor, expected: &Tensor) {
        let off = (found - expected).abs().max().double_value(&[]);
        assert!(off < 2e-6, "off by {off}: {found:?} {expected:?}");
    }

    fn affine() -> [Tensor; 2] {
        [Tensor::from_slice(&[1.0_f32, 0.5, -2.0]), Tensor::from_slice(&[0.1_f32, 0.0, 0.3])]
    }

    #[test]
    fn one_group_is_batch_norm() {
        let [weight, bias] = affine();
        let input = wave(5, 0.0);
        let expected = expected(&input, &weight, &bias);
        let found = found(&input, &weight, &bias, [&[0; 5], &[5]]);
        found.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, expected));
    }

    #[test]
    fn each_group_is_batch_norm_of_its_own_rows() {
        let [weight, bias] = affine();
        let input = wave(6, 0.0);
        let found = found(&input, &weight, &bias, [&[0, 0, 0, 1, 1, 1], &[3, 3]]);
        let two = [0, 3].map(|from| {
            let rows = input.narrow(0, from, 3).detach().set_requires_grad(true);
            let output = rows.batch_norm(
                Some(&weight),
                Some(&bias),
                None::<&Tensor>,
                None::<&Tensor>,
                true,
                MOMENTUM,
                EPS,
                false,
            );
            (&output * wave(6, 2.0).narrow(0, from, 3)).sum(Kind::Float).backward();
            [output.detach(), rows.grad()]
        });
        for at in 0..2 {
            assert_near(&found[at], &Tensor::cat(&[&two[0][at], &two[1][at]], 0));
        }
    }
}
