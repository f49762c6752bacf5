//! One step: augmentation, forward, loss, backward, clip, update, average. Mathematics only.
//!
//! In: the state, a batch on the device, the rate. Out: the next state, and [`StepMetrics`] that
//! still lie on the device. Never: waits for the device; reads a clock or a file.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use catlip_pipeline::feed::BatchSampler;
use tch::{Device, Kind, TchError, Tensor};

use crate::augment::{Augmentation, RangeDraws, RangePlan};
use crate::batch::{DeviceBatch, GroupedRows};
use crate::dist::DistError;
use crate::error::TrainError;
use crate::estimate;
use crate::kernels::{KernelError, Kernels};
use crate::loss::Loss;
use crate::model::chain::{self, BlockForm, Objective, SparseLoss, Walk};
use crate::model::{AttentionChoice, Groups, KernelForm, Pass, Precision, VitPlan};
use crate::shim::ops::AttentionBackend;
use crate::state::TrainState;

/// How steps are taken.
#[derive(Debug)]
pub struct StepPlan {
    /// What is minimised.
    pub loss: Loss,
    /// The learned augmentation, if there is one.
    pub range: Option<RangePlan>,
    /// What matrices are multiplied in.
    pub precision: Precision,
    /// How blocks are passed.
    pub form: BlockForm,
    /// Whether [`BlockForm::Fused`] is a wish only: the plain form where there are no kernels.
    pub may_be_plain: bool,
    /// What computes attention where they are passed by hand.
    pub attention: AttentionBackend,
    /// What computes it for one query of each image, if anything does.
    pub attention_of_one: Option<AttentionBackend>,
    /// Whether only operations are taken that give the same bits in every run.
    pub is_deterministic: bool,
    /// Our own kernels, where there are some for the device.
    pub kernels: Option<KernelForm>,
    /// Parts of a batch whose gradients are added up before the update.
    pub parts: usize,
    /// Rows of the whole step that BatchNorm normalises together; 0: those of a part.
    pub bn_group_samples: usize,
}

impl StepPlan {
    /// The whole batch at once, in float32, without augmentation.
    pub fn plain(loss: Loss) -> Self {
        let (precision, form) = (Precision::Float32, BlockForm::Plain);
        let attention = AttentionBackend::Cpu;
        Self {
            loss,
            range: None,
            precision,
            form,
            may_be_plain: false,
            attention,
            attention_of_one: Some(attention),
            is_deterministic: false,
            kernels: None,
            parts: 1,
            bn_group_samples: 0,
        }
    }
}

impl StepPlan {
    /// Loads the kernels for `device`, kept in the folder `cache` between runs, where blocks are to
    /// be passed by hand; gives the seconds until they were ready, or why there are none and blocks
    /// are passed by autograd. None were needed where nothing is given.
    ///
    /// # Errors
    ///
    /// [`TrainError::Kernels`] where the form is no wish only; what libtorch says.
    pub fn load_kernels(
        &mut self,
        device: Device,
        cache: Option<&Path>,
    ) -> Result<Option<Result<f64, KernelError>>, TrainError> {
        if self.form != BlockForm::Fused {
            return Ok(None);
        }
        if device == Device::Cpu {
            // By hand the CPU is no faster.
            if self.may_be_plain {
                self.form = BlockForm::Plain;
            }
            return Ok(None);
        }
        let start = Instant::now();
        match Kernels::open(device, cache) {
            Ok(kernels) => {
                let form = KernelForm::new(kernels, device);
                self.kernels = Some(form.map_err(TrainError::torch("try the kernels"))?);
                Ok(Some(Ok(start.elapsed().as_secs_f64())))
            }
            Err(error) if self.may_be_plain => {
                self.form = BlockForm::Plain;
                Ok(Some(Err(error)))
            }
            Err(error) => Err(TrainError::Kernels(error)),
        }
    }

    /// Chooses what computes attention on `device`, by a trial on a batch of the sampler's first
    /// size, where blocks are passed by hand; none was needed where nothing is given.
    pub fn fit_to(
        &mut self,
        device: Device,
        vit: &VitPlan,
        sampler: &BatchSampler,
    ) -> Option<AttentionChoice> {
        if self.form != BlockForm::Fused || device == Device::Cpu {
            return None;
        }
        let size = sampler.at(0, 0);
        let side = i64::from(size.side_px) / vit.patch_px;
        let tokens = side * side + vit.num_prefix();
        let rows = (size.batch as usize).div_ceil(self.parts) as i64;
        let shape = [rows, vit.num_heads, tokens, vit.width / vit.num_heads];
        let find = |queries| {
            AttentionChoice::find(device, shape, queries, self.precision, self.is_deterministic)
        };
        let (choice, of_one) = (find(tokens), find(1));
        self.attention_of_one = of_one.backend;
        match choice.backend {
            Some(backend) => self.attention = backend,
            None => (self.form, self.kernels) = (BlockForm::Plain, None),
        }
        Some(choice)
    }

    /// Operations that an image of a side takes on both ways.
    pub fn image_flops(&self, vit: &VitPlan, side_px: u32) -> f64 {
        let cost = estimate::image_cost(vit, side_px.into(), self.precision, self.form);
        cost.step_flops() as f64
    }
}

/// What a step measured, as scalars on the device.
#[derive(Debug)]
pub struct StepMetrics {
    /// Loss of the labels per row of the batch; with several ranks, this one's share of it.
    pub loss: Tensor,
    /// Loss of the augmentation's distance per row, likewise, if there is one.
    pub augment_loss: Option<Tensor>,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: Tensor,
}

/// Takes one step with the rate `lr`.
///
/// A loss is the sum over rows divided by the sum of their weights; a batch whose rows all have
/// weight zero has loss zero and no gradient. A gradient that is no number makes it a step that
/// changes no weight, moment, average or statistic, and is counted on the device.
///
/// # Errors
///
/// What libtorch says, such as out of memory; a rank that is gone.
pub fn step(
    state: &mut TrainState,
    plan: &StepPlan,
    batch: &DeviceBatch,
    lr: f64,
) -> Result<StepMetrics, TrainError> {
    let torch = || TrainError::torch("take a step");
    if plan.kernels.is_some() && plan.precision == Precision::BFloat16 {
        state.weights.keep_narrow().map_err(torch())?;
    }
    let statistics = statistics(state).map_err(torch())?.copy();
    let lost = RefCell::new(None);
    let losses = gradient(state, plan, batch, &lost).map_err(|error| match lost.take() {
        Some(lost) => TrainError::from(lost),
        None => torch()(error),
    })?;
    if let Some(together) = &state.together {
        together.finish()?;
    }
    let gradient_norm = update(state, plan, &statistics, lr)?;
    state.step += 1;
    let rows = state.together.as_ref().map(|together| together.rows() as u64);
    state.images_seen += rows.unwrap_or(batch.num_images);
    let (loss, augment_loss) = losses;
    Ok(StepMetrics { loss, augment_loss, gradient_norm })
}

/// Makes the gradient of this rank's rows, part by part; gives their share of both losses. Where
/// a rank is gone it says so in `lost`.
fn gradient(
    state: &mut TrainState,
    plan: &StepPlan,
    batch: &DeviceBatch,
    lost: &RefCell<Option<DistError>>,
) -> Result<(Tensor, Option<Tensor>), TchError> {
    let weights_sum = match &state.together {
        Some(together) => Tensor::f_scalar_tensor(together.rows(), (Kind::Float, state.device()))?,
        None => batch.targets.weights_b.f_sum(Kind::Float)?,
    };
    let divisor = weights_sum.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
    let draws = plan.range.map(|range| RangeDraws::new(range.seed, &batch.place));

    state.gradient.zero()?;
    let mut loss = divisor.f_zeros_like()?;
    let mut augment_loss = draws.is_some().then(|| divisor.f_zeros_like()).transpose()?;
    let parts = parts(state, plan, batch);
    let last = parts.len().saturating_sub(1);
    for (at, part) in parts.into_iter().enumerate() {
        if let Some(together) = state.together.as_ref().filter(|_| at == last) {
            together.begin();
        }
        let draws = draws.as_ref().map(|draws| draws.of(part.rows.clone()));
        let rows = batch.rows(part.rows.clone())?;
        let of_part = Part { rows: &rows, grouped: &part, draws: draws.as_ref(), lost };
        let [of_labels, of_images] = backward(state, plan, &of_part, &divisor)?;
        loss = loss.f_add(&of_labels)?;
        augment_loss = augment_loss.map(|sum| sum.f_add(&of_images)).transpose()?;
    }
    Ok((loss, augment_loss))
}

/// The parts of a step: with one rank and no groups, stretches of its rows, each normalised by
/// itself; else parts of whole groups, which every rank has, with or without rows of its own.
fn parts(state: &TrainState, plan: &StepPlan, batch: &DeviceBatch) -> Vec<GroupedRows> {
    let in_groups = plan.bn_group_samples > 0 || state.together.is_some();
    if state.vit.has_batch_norm() && in_groups {
        return batch.place.groups(plan.bn_group_samples, plan.parts);
    }
    let stretches = if batch.is_empty() { Vec::new() } else { batch.parts(plan.parts) };
    let ungrouped =
        |rows| GroupedRows { rows, group_of_rows: Vec::new(), rows_of_groups: Vec::new() };
    stretches.into_iter().map(ungrouped).collect()
}

/// A part of a step on this rank.
struct Part<'p> {
    rows: &'p DeviceBatch,
    grouped: &'p GroupedRows,
    draws: Option<&'p RangeDraws>,
    lost: &'p RefCell<Option<DistError>>,
}

/// Makes all that a step changes that of the next step, by the gradient that was made, or leaves it
/// as it was with the `statistics` of before; gives the gradient's norm.
pub(crate) fn update(
    state: &mut TrainState,
    plan: &StepPlan,
    statistics: &Tensor,
    lr: f64,
) -> Result<Tensor, TrainError> {
    let torch = || TrainError::torch("take a step");
    if let Some(form) = plan.kernels.as_ref().filter(|_| !shares_moments(state)) {
        return optimise_by(form, state, statistics, lr).map_err(torch());
    }
    let gradient_norm = optimise(state, lr).map_err(torch())?;
    if let Some(together) = state.together.as_ref().filter(|_| shares_moments(state)) {
        together.spread(&state.weights)?;
    }
    settle(state, statistics, &gradient_norm).map_err(torch())?;
    Ok(gradient_norm)
}

/// Makes weights and moments those of the next step, or leaves them; gives the gradient's norm.
fn optimise(state: &mut TrainState, lr: f64) -> Result<Tensor, TchError> {
    tch::no_grad(|| state.adamw.step(&state.weights, &state.gradient, lr))
}

/// Whether this rank updates a share of the weights only.
fn shares_moments(state: &TrainState) -> bool {
    state.together.as_ref().is_some_and(|ranks| ranks.shares_moments())
}

/// Makes all that a step changes that of the next step, or leaves it, by our own kernels; gives the
/// gradient's norm.
fn optimise_by(
    form: &KernelForm,
    state: &mut TrainState,
    statistics: &Tensor,
    lr: f64,
) -> Result<Tensor, TchError> {
    let _no_grad = tch::no_grad_guard();
    let average = state.ema.as_ref().map(|ema| (ema.weights().flat(), ema.momentum()));
    let (weights, gradient) = (&state.weights, &state.gradient);
    let verdict = state.adamw.step_by(form.kernels(), weights, gradient, lr, average)?;
    let (norm, accepted) = (verdict.f_get(0)?, verdict.f_get(1)?);
    put_back(state, statistics, &accepted.f_gt(0.0)?)?;
    if let Some(ema) = &mut state.ema {
        ema.update_buffers_if(&accepted, &state.weights)?;
    }
    state.weights.narrow_is_fresh()?;
    state.note(&accepted)?;
    Ok(norm)
}

/// Makes the running statistics those of before, unless the step `is_good`.
fn put_back(state: &TrainState, statistics: &Tensor, is_good: &Tensor) -> Result<(), TchError> {
    let mut after = self::statistics(state)?;
    after.f_copy_(&after.f_where_self(is_good, statistics)?)
}

/// Makes average and statistics those of the next step, or leaves them as the optimiser did.
fn settle(state: &mut TrainState, statistics: &Tensor, norm: &Tensor) -> Result<(), TchError> {
    let _no_grad = tch::no_grad_guard();
    let is_good = norm.f_isfinite()?;
    put_back(state, statistics, &is_good)?;
    let accepted = is_good.f_to_kind(Kind::Float)?;
    if let Some(ema) = &mut state.ema {
        ema.update_if(&accepted, &state.weights)?;
    }
    state.note(&accepted)
}

/// The running statistics of the weights.
pub(crate) fn statistics(state: &TrainState) -> Result<Tensor, TchError> {
    let layout = state.weights.layout();
    let (from, end) = (layout.trained_floats(), layout.floats());
    state.weights.flat().f_narrow(0, from, end - from)
}

/// Adds the gradients of a part of a batch; gives its share of the losses of labels and images.
fn backward(
    state: &mut TrainState,
    plan: &StepPlan,
    part: &Part,
    divisor: &Tensor,
) -> Result<[Tensor; 2], TchError> {
    let rows = part.rows;
    let (vit, w) = (&state.vit, &state.weights);
    let augmentation = match (vit.ranges(), part.draws, plan.range) {
        (Some(ranges), Some(draws), Some(range)) => {
            let (target_mse, weights_b) = (range.target_mse(state.step), &rows.targets.weights_b);
            Some(Augmentation { ranges, draws, target_mse, weights_b, divisor })
        }
        _ => None,
    };
    let of_labels = |logits_bv: &Tensor| plan.loss.sum(logits_bv, &rows.targets)?.f_div(divisor);
    let sparse = SparseLoss { loss: &plan.loss, targets: &rows.targets, divisor };
    let objective = Objective { loss: &of_labels, sparse: Some(sparse), augmentation };
    let sum = |tensor: &Tensor| match &state.together {
        None => Ok(()),
        Some(together) => together.sum_statistics(tensor).map_err(|fact| {
            let error = TchError::Torch(fact.to_string());
            part.lost.replace(Some(fact));
            error
        }),
    };
    let GroupedRows { group_of_rows, rows_of_groups, .. } = part.grouped;
    let groups = match rows_of_groups.is_empty() {
        true => None,
        false => Some(Groups::new(group_of_rows, rows_of_groups, state.device(), &sum)?),
    };
    let arrived = |id| state.together.iter().for_each(|together| together.arrived(id));
    let walk = Walk {
        pass: Pass::train(plan.precision),
        form: plan.form,
        groups: groups.as_ref(),
        attention: plan.attention,
        attention_of_one: plan.attention_of_one,
        kernels: plan.kernels.as_ref(),
        arrived: Some(&arrived),
    };
    let losses = chain::backward(vit, w, &rows.images_bchw, &objective, walk)?;
    state.weights.set_batches_tracked(state.weights.batches_tracked() + 1);
    let of_images = losses.of_images.map_or_else(|| divisor.f_zeros_like(), Ok)?;
    Ok([losses.of_labels, of_images])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::HostRows;
    use crate::kernels::tests::emulated;
    use crate::model::params::Role;
    use crate::model::{StemKind, Vit};
    use crate::optim::AdamWPlan;
    use catlip_schemas::Cursor;

    const LINEAR: VitPlan = VitPlan {
        stem: StemKind::Linear,
        patch_px: 8,
        range_augment: true,
        ..VitPlan::corenet([64, 2, 2], 4, 10)
    };

    fn batch() -> DeviceBatch {
        let images: Vec<u8> = (0..6 * 16 * 16 * 3).map(|i| (i * 7 % 251) as u8).collect();
        let rows = HostRows {
            images_bhwc: &images,
            height_px: 16,
            width_px: 16,
            offsets: &[0, 1, 3, 3, 4, 6, 6],
            label_ids: &[5, 0, 9, 2, 1, 3],
            weights: &[1.0, 0.5, 1.0, 0.0, 1.0, 1.0],
        };
        DeviceBatch::from_rows(&rows, Device::Cpu).unwrap()
    }

    /// The state after so many steps, and the last metrics.
    fn stepped(plan: &StepPlan, steps: usize) -> (TrainState, StepMetrics) {
        let vit = Vit::new(LINEAR);
        let weights = vit.init(1, None, Device::Cpu).unwrap();
        let cursor = Cursor::start(0);
        let mut state = TrainState::new(vit, weights, AdamWPlan::REFERENCE, 0.1, cursor).unwrap();
        let metrics = (0..steps).map(|_| step(&mut state, plan, &batch(), 1e-3).unwrap()).last();
        (state, metrics.unwrap())
    }

    fn augmented() -> StepPlan {
        let range = Some(RangePlan { psnr: [40.0, 20.0], steps: 10, seed: 4 });
        StepPlan { range, ..StepPlan::plain(Loss::Bce { smoothing: 0.0 }) }
    }

    fn assert_same_step(plan: &StepPlan) {
        let ((expected, expected_metrics), (found, metrics)) =
            (stepped(&augmented(), 1), stepped(plan, 1));
        let near = |a: &Tensor, b: &Tensor| (a.double_value(&[]) / b.double_value(&[]) - 1.0).abs();
        assert!(near(&metrics.loss, &expected_metrics.loss) < 1e-5);
        let of_images = [&metrics, &expected_metrics].map(|m| m.augment_loss.as_ref().unwrap());
        assert!(near(of_images[0], of_images[1]) < 1e-5);
        let (found, expected) = (found.gradient.flat(), expected.gradient.flat());
        let off = (found - expected).abs().max() / expected.abs().max();
        assert!(off.double_value(&[]) < 1e-5, "gradients are off by {off:?}");
    }

    #[test]
    fn parts_of_a_batch_add_up_to_the_whole() {
        assert_same_step(&StepPlan { parts: 2, ..augmented() });
        assert_same_step(&StepPlan { parts: 5, ..augmented() });
    }

    #[test]
    fn a_step_that_recomputes_is_the_step_that_keeps() {
        assert_same_step(&StepPlan { form: BlockForm::Recompute, ..augmented() });
    }

    #[test]
    fn a_step_by_hand_is_the_step_of_autograd() {
        assert_same_step(&StepPlan { form: BlockForm::Fused, ..augmented() });
    }

    /// A plan whose blocks are passed by our kernels, emulated.
    fn by_kernels(plan: StepPlan) -> StepPlan {
        let kernels = KernelForm::new(emulated::kernels(3), Device::Cpu).unwrap();
        StepPlan { form: BlockForm::Fused, kernels: Some(kernels), ..plan }
    }

    #[test]
    fn a_step_by_kernels_is_the_step_of_autograd() {
        for range in [None, augmented().range] {
            let plain = StepPlan { range, ..augmented() };
            let (expected, expected_metrics) = stepped(&plain, 3);
            let (found, metrics) = stepped(&by_kernels(StepPlan { range, ..augmented() }), 3);
            let near =
                |a: &Tensor, b: &Tensor| (a.double_value(&[]) / b.double_value(&[]) - 1.0).abs();
            assert!(near(&metrics.loss, &expected_metrics.loss) < 1e-5);
            assert!(near(&metrics.gradient_norm, &expected_metrics.gradient_norm) < 1e-4);
            for (found, expected) in numbers(&found).iter().zip(&numbers(&expected)) {
                let off = (found - expected).abs().max() / expected.abs().max();
                // Where a gradient is nothing but rounding, its sign moves a weight by the rate.
                assert!(off.double_value(&[]) < 1e-2, "off by {off:?}");
            }
        }
    }

    #[test]
    fn parts_by_kernels_add_up_to_the_whole() {
        let whole = stepped(&by_kernels(StepPlan { range: None, ..augmented() }), 1);
        let parts = StepPlan { range: None, parts: 2, ..augmented() };
        let parts = stepped(&by_kernels(parts), 1);
        let (found, expected) = (parts.0.gradient.flat(), whole.0.gradient.flat());
        let off = (found - expected).abs().max() / expected.abs().max();
        assert!(off.double_value(&[]) < 1e-5, "gradients are off by {off:?}");
    }

    #[test]
    fn a_bad_batch_by_kernels_changes_nothing_and_is_counted() {
        let plan = by_kernels(StepPlan {
            precision: Precision::BFloat16,
            ..StepPlan::plain(Loss::Bce { smoothing: 0.0 })
        });
        let vit = Vit::new(VitPlan::corenet([64, 2, 2], 4, 10));
        let weights = vit.init(1, None, Device::Cpu).unwrap();
        let cursor = Cursor::start(0);
        let mut state = TrainState::new(vit, weights, AdamWPlan::REFERENCE, 0.1, cursor).unwrap();
        step(&mut state, &plan, &batch(), 1e-3).unwrap();
        let narrow = |state: &TrainState| state.weights.narrow().unwrap().copy();
        let (before, narrow_before) = (numbers(&state), narrow(&state));
        for times in 1..=2 {
            let mut poisoned = batch();
            poisoned.images_bchw = poisoned.unit_images().unwrap() * f64::NAN;
            let metrics = step(&mut state, &plan, &poisoned, 1e-3).unwrap();
            assert!(!metrics.gradient_norm.double_value(&[]).is_finite());
            assert_eq!(state.skipped().unwrap(), [times, times]);
            assert!(numbers(&state).iter().zip(&before).all(|(after, before)| after == before));
            assert!(narrow(&state).equal(&narrow_before));
        }
        step(&mut state, &plan, &batch(), 1e-3).unwrap();
        assert_eq!((state.skipped().unwrap(), state.step), ([0, 2], 4));
        assert!(numbers(&state).iter().zip(&before).all(|(after, before)| after != before));
    }

    #[test]
    fn rounded_weights_follow_the_weights_whoever_writes_them() {
        let plan = by_kernels(StepPlan {
            precision: Precision::BFloat16,
            ..StepPlan::plain(Loss::Bce { smoothing: 0.0 })
        });
        let (mut state, _) = stepped(&plan, 2);
        let rounded = |state: &TrainState| {
            let floats = state.weights.layout().trained_floats();
            state.weights.flat().narrow(0, 0, floats).to_kind(Kind::BFloat16)
        };
        assert!(state.weights.narrow().unwrap().equal(&rounded(&state)));
        // As a checkpoint that is read does it.
        let (_, view) = state.weights.entries().next().unwrap();
        _ = tch::no_grad(|| view.shallow_clone().fill_(0.75));
        step(&mut state, &plan, &batch(), 0.0).unwrap();
        assert!(state.weights.narrow().unwrap().equal(&rounded(&state)));
    }

    #[test]
    fn the_ranges_of_the_augmentation_are_trained() {
        let (state, _) = stepped(&augmented(), 3);
        for (entry, view) in state.weights.entries().filter(|(e, _)| e.role == Role::Scalar) {
            let crate::model::params::Init::Constant(first) = entry.init else { panic!() };
            assert!((view.double_value(&[]) - first).abs() > 1e-4, "{} stays", entry.name);
        }
    }

    #[test]
    fn without_augmentation_there_is_no_loss_of_it() {
        let (_, metrics) = stepped(&StepPlan { range: None, ..augmented() }, 1);
        assert!(metrics.augment_loss.is_none());
    }

    fn numbers(state: &TrainState) -> [Tensor; 4] {
        let average = state.ema.as_ref().unwrap().weights().flat();
        [state.weights.flat(), average, &state.adamw.exp_avg, &state.adamw.exp_avg_sq]
            .map(Tensor::copy)
    }

    #[test]
    fn a_batch_that_gives_no_number_changes_nothing_and_is_counted() {
        let plan = StepPlan::plain(Loss::Bce { smoothing: 0.0 });
        let vit = Vit::new(VitPlan::corenet([64, 2, 2], 4, 10));
        let weights = vit.init(1, None, Device::Cpu).unwrap();
        let cursor =
            Cursor { snapshot: 0, epoch: 0, position: 0, order_version: 1, sets: Vec::new() };
        let mut state = TrainState::new(vit, weights, AdamWPlan::REFERENCE, 0.1, cursor).unwrap();
        step(&mut state, &plan, &batch(), 1e-3).unwrap();
        let before = numbers(&state);
        for times in 1..=2 {
            let mut poisoned = batch();
            poisoned.images_bchw = poisoned.unit_images().unwrap() * f64::NAN;
            let metrics = step(&mut state, &plan, &poisoned, 1e-3).unwrap();
            assert!(!metrics.gradient_norm.double_value(&[]).is_finite());
            assert_eq!(state.skipped().unwrap(), [times, times]);
            assert!(numbers(&state).iter().zip(&before).all(|(after, before)| after == before));
        }
        step(&mut state, &plan, &batch(), 1e-3).unwrap();
        assert_eq!((state.skipped().unwrap(), state.step), ([0, 2], 4));
        assert!(numbers(&state).iter().zip(&before).all(|(after, before)| after != before));
        let all = numbers(&state);
        assert!(all.iter().all(|t| t.sum(Kind::Float).double_value(&[]).is_finite()));
    }
}
