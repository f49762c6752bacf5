//! One step on the device: its gradients, its augmentation, its update.

use std::collections::BTreeMap;

use catlip_pipeline::feed::BatchSampler;
use catlip_schemas::Cursor;
use tch::{Device, Kind, TchError, Tensor};

use super::device::{normal, relative};
use super::reference::Reference;
use super::{On, Outcome, all, torch, within};
use crate::augment::{RangeDraws, RangePlan};
use crate::batch::{DeviceBatch, HostRows, Place};
use crate::error::TrainError;
use crate::loss::Loss;
use crate::model::params::{Entry, Role};
use crate::model::{BlockForm, Precision, StemKind, Vit, VitPlan};
use crate::optim::AdamWPlan;
use crate::state::TrainState;
use crate::step::{StepPlan, step};

/// Relative error of a parameter's gradient in float32.
const FLOAT32_BOUND: f64 = 1e-4;
/// The same in bfloat16 at the most, and over that of the plain form.
const BFLOAT16_BOUND: f64 = 0.2;
const BFLOAT16_FACTOR: f64 = 1.5;
/// A gradient that is nothing but rounding is measured against so much of the mean one.
const FLOOR: f64 = 1e-3;
/// Relative error of what three updates change.
const UPDATE_BOUND: f64 = 1e-4;

/// A small model and a batch for it.
pub(super) struct Case {
    pub name: &'static str,
    pub vit: VitPlan,
    pub side_px: usize,
    /// Labels of each row.
    pub labels: Vec<Vec<i64>>,
}

/// Odd shapes, one row, rows without labels, both stems.
pub(super) fn cases() -> Vec<Case> {
    let corenet = VitPlan::corenet([64, 2, 2], 4, 11);
    let linear = VitPlan { stem: StemKind::Linear, patch_px: 8, num_positions: 9, ..corenet };
    let odd = VitPlan { width: 48, depth: 3, num_heads: 3, hidden: 192, ..linear };
    let case = |name, vit, side_px, labels: &[&[i64]]| Case {
        name,
        vit,
        side_px,
        labels: labels.iter().map(|row| row.to_vec()).collect(),
    };
    vec![
        case("odd shapes", odd, 24, &[&[0, 5, 7], &[], &[10]]),
        case("one row", linear, 24, &[&[3, 4]]),
        case("no labels", linear, 24, &[&[], &[]]),
        case("corenet stem", corenet, 32, &[&[1], &[2, 3], &[], &[9, 0], &[4]]),
    ]
}

impl Case {
    /// Its rows on `device`, drawn from `seed`.
    pub fn batch(&self, seed: u64, device: Device) -> Result<DeviceBatch, TchError> {
        let (rows, side) = (self.labels.len(), self.side_px);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let pixels: Vec<u8> = (0..rows * side * side * 3)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let mut offsets = vec![0];
        for row in &self.labels {
            offsets.push(offsets.last().copied().unwrap_or(0) + row.len() as i64);
        }
        let host = HostRows {
            images_bhwc: &pixels,
            height_px: side,
            width_px: side,
            offsets: &offsets,
            label_ids: &self.labels.concat(),
            weights: &vec![1.0; rows],
        };
        let batch = DeviceBatch::from_rows(&host, device)?;
        let place = Place::alone(0, seed * rows as u64, rows);
        Ok(DeviceBatch { place, ..batch })
    }

    /// A state whose every weight, norms and biases too, is off what it begins as.
    pub fn state(&self, device: Device, adamw: AdamWPlan) -> Result<TrainState, TchError> {
        let vit = Vit::new(self.vit);
        let weights = vit.init(7, None, device)?;
        for (at, (entry, view)) in (8..).zip(weights.entries()) {
            if entry.role != Role::Buffer {
                let off = normal(at, &entry.shape)?.f_mul_scalar(0.05)?.f_to_device(device)?;
                _ = view.shallow_clone().f_add_(&off)?;
            }
        }
        TrainState::new(vit, weights, adamw, 0.1, Cursor::start(0))
    }

    /// How its steps are taken in a form; the plain one where no back end of attention takes it.
    pub fn plan(
        &self,
        on: On,
        form: BlockForm,
        precision: Precision,
        is_deterministic: bool,
    ) -> Result<StepPlan, TrainError> {
        let loss = Loss::Bce { smoothing: 0.0 };
        let mut plan = StepPlan { form, precision, is_deterministic, ..StepPlan::plain(loss) };
        if self.vit.range_augment {
            plan.range = Some(RangePlan { psnr: [40.0, 20.0], steps: 100, seed: 3 });
        }
        _ = plan.load_kernels(on.device, on.kernel_cache)?;
        let sampler = BatchSampler::fixed(self.side_px as u32, self.labels.len() as u32);
        _ = plan.fit_to(on.device, &self.vit, &sampler);
        Ok(plan)
    }

    /// The largest relative error of a gradient of a step, and whose it is; of the loss likewise.
    fn off(
        &self,
        on: On,
        form: BlockForm,
        precision: Precision,
    ) -> Result<Option<(f64, String)>, TrainError> {
        // Without a limit the optimiser leaves the gradient as it is.
        let adamw = AdamWPlan { clip_norm: 0.0, ..AdamWPlan::REFERENCE };
        let mut state = self.state(on.device, adamw).map_err(torch)?;
        let reference = Reference::of(&self.vit, &state.weights).map_err(torch)?;
        let here = self.batch(1, Device::Cpu).map_err(torch)?;
        let pixels = here.unit_images().map_err(torch)?;
        let expected = reference.gradients(&pixels, &self.labels).map_err(torch)?;

        let plan = self.plan(on, form, precision, false)?;
        if plan.form != form {
            return Ok(None);
        }
        let batch = self.batch(1, on.device).map_err(torch)?;
        let metrics = step(&mut state, &plan, &batch, 0.0)?;
        let loss = metrics.loss.f_double_value(&[]).map_err(torch)?;
        let worst = worst(&state, &expected.1).map_err(torch)?;
        let of_loss = (loss / expected.0 - 1.0).abs();
        Ok(Some(if of_loss > worst.0 { (of_loss, "the loss".to_owned()) } else { worst }))
    }
}

/// The parameter whose gradient is furthest from what is expected, relative to its norm.
fn worst(
    state: &TrainState,
    expected: &BTreeMap<String, Tensor>,
) -> Result<(f64, String), TchError> {
    let flat = state.gradient.flat().f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
    let of =
        |entry: &Entry| flat.f_narrow(0, entry.offset, entry.numel())?.f_view(&entry.shape[..]);
    let layout = state.vit.layout();
    let mean = flat.f_norm()?.f_double_value(&[])? / (layout.num_params() as f64).sqrt();
    let mut worst = (0.0, String::new());
    for entry in layout.entries().iter().filter(|entry| entry.role != Role::Buffer) {
        let expected = &expected[&entry.name];
        let floor = FLOOR * mean * (entry.numel() as f64).sqrt();
        let norm = expected.f_norm()?.f_double_value(&[])?.max(floor);
        let off = of(entry)?.f_sub(expected)?.f_norm()?.f_double_value(&[])? / norm;
        if off > worst.0 || off.is_nan() {
            worst = (off, entry.name.clone());
        }
    }
    Ok(worst)
}

fn is_reference(on: On, form: BlockForm) -> Result<Outcome, TrainError> {
    let mut outcomes = Vec::new();
    for case in cases() {
        outcomes.push(match case.off(on, form, Precision::Float32)? {
            Some((off, whose)) => {
                within(&format!("{}: {whose} off by", case.name), off, FLOAT32_BOUND)
            }
            None => Outcome::Skipped(format!("{}: no back end of attention takes it", case.name)),
        });
    }
    Ok(all(outcomes))
}

pub(super) fn plain_is_reference(on: On) -> Result<Outcome, TrainError> {
    is_reference(on, BlockForm::Plain)
}

pub(super) fn fused_is_reference(on: On) -> Result<Outcome, TrainError> {
    is_reference(on, BlockForm::Fused)
}

pub(super) fn fused_in_bfloat16(on: On) -> Result<Outcome, TrainError> {
    let mut outcomes = Vec::new();
    for case in cases() {
        let [plain, fused] = [BlockForm::Plain, BlockForm::Fused]
            .map(|form| case.off(on, form, Precision::BFloat16));
        let (Some((plain, _)), Some((fused, whose))) = (plain?, fused?) else {
            outcomes.push(Outcome::Skipped(format!("{}: no back end takes it", case.name)));
            continue;
        };
        let what = format!("{}: {whose} off by (plain {plain:.1e})", case.name);
        // Where the plain form happens to be nearly exact, rounding alone is allowed.
        let bound = (BFLOAT16_FACTOR * plain + 4e-3).min(BFLOAT16_BOUND);
        outcomes.push(within(&what, fused, bound));
    }
    Ok(all(outcomes))
}

pub(super) fn augmented(On { device, .. }: On) -> Result<Outcome, TrainError> {
    if device == Device::Cpu {
        return Ok(Outcome::Skipped("this is the CPU".into()));
    }
    let off = || {
        let vit = Vit::new(VitPlan { range_augment: true, ..VitPlan::corenet([64, 1, 2], 4, 5) });
        let images = normal(9, &[6, 3, 16, 16])?.f_mul_scalar(0.25)?.f_add_scalar(0.5)?;
        let images = images.f_clamp(0.0, 1.0)?;
        let draws = RangeDraws::new(5, &Place::alone(1, 60, 6));
        let [found, expected] = [device, Device::Cpu].map(|on| {
            let weights = vit.init(7, None, on)?;
            let Some(ranges) = vit.ranges() else {
                return Err(TchError::Torch("the model has no ranges".to_owned()));
            };
            ranges.augment(&weights, &images.f_to_device(on)?, &draws)
        });
        relative(&found?, &expected?)
    };
    Ok(within("relative error", off().map_err(torch)?, 1e-5))
}

pub(super) fn update(On { device, .. }: On) -> Result<Outcome, TrainError> {
    const LR: f64 = 1e-3;
    let off = || {
        let cases = cases();
        let plan = AdamWPlan::REFERENCE;
        let mut state = cases[0].state(device, plan)?;
        let layout = state.vit.layout().clone();
        let trained = layout.trained_floats();
        let double = |tensor: &Tensor| tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double);
        let before = double(&state.weights.flat().f_narrow(0, 0, trained)?)?;
        // 1 where weights decay: everything but vectors.
        let (decays, is_entry) = (before.f_zeros_like()?, normal(0, &[trained])?.f_zeros_like()?);
        for entry in layout.entries().iter().filter(|entry| entry.role != Role::Buffer) {
            let ones = |of: &Tensor| of.f_narrow(0, entry.offset, entry.numel())?.f_fill_(1.0);
            _ = ones(&is_entry)?;
            if entry.role != Role::Vector {
                _ = ones(&decays)?;
            }
        }
        let (mut w, mut m, mut v) = (before.copy(), before.f_zeros_like()?, before.f_zeros_like()?);
        for at in 1..=3 {
            // Zeros behind entries, as a backward pass leaves them there.
            let gradient = normal(20 + at, &[trained])?.f_mul(&is_entry)?;
            state.gradient.flat().shallow_clone().f_copy_(&gradient.f_to_device(device)?)?;
            _ = tch::no_grad(|| state.adamw.step(&state.weights, &state.gradient, LR))?;

            let g = gradient.f_to_kind(Kind::Double)?;
            let norm = g.f_norm()?.f_double_value(&[])?;
            let g = g.f_mul_scalar((plan.clip_norm / (norm + 1e-6)).min(1.0))?;
            m = m.f_mul_scalar(plan.beta1)?.f_add(&g.f_mul_scalar(1.0 - plan.beta1)?)?;
            v = v
                .f_mul_scalar(plan.beta2)?
                .f_add(&g.f_square()?.f_mul_scalar(1.0 - plan.beta2)?)?;
            let rate = |beta: f64| 1.0 - beta.powi(at as i32);
            let below = v.f_div_scalar(rate(plan.beta2))?.f_sqrt()?.f_add_scalar(plan.eps)?;
            let moved = m.f_div_scalar(rate(plan.beta1))?.f_div(&below)?;
            let decayed = w.f_mul(&decays)?.f_mul_scalar(plan.weight_decay)?;
            w = w.f_sub(&moved.f_add(&decayed)?.f_mul_scalar(LR)?)?;
        }
        let found = double(&state.weights.flat().f_narrow(0, 0, trained)?)?;
        relative(&found.f_sub(&before)?, &w.f_sub(&before)?)
    };
    Ok(within("relative error of what changed", off().map_err(torch)?, UPDATE_BOUND))
}

pub(super) fn updates_agree(on: On) -> Result<Outcome, TrainError> {
    let cases = cases();
    let case = &cases[0];
    let mut made = Vec::new();
    for form in [BlockForm::Plain, BlockForm::Fused] {
        let mut state = case.state(on.device, AdamWPlan::REFERENCE).map_err(torch)?;
        let before = numbers(&state).map_err(torch)?;
        let plan = case.plan(on, form, Precision::Float32, false)?;
        if plan.form != form {
            return Ok(Outcome::Skipped("no back end of attention takes it".into()));
        }
        step(&mut state, &plan, &case.batch(1, on.device).map_err(torch)?, 1e-3)?;
        let after = numbers(&state).map_err(torch)?;
        let pairs = after.iter().zip(&before);
        let changes = pairs.map(|((name, after), (_, before))| Ok((*name, after.f_sub(before)?)));
        made.push(changes.collect::<Result<Vec<_>, _>>().map_err(torch)?);
    }
    let mut outcomes = Vec::new();
    for ((name, plain), (_, fused)) in made[0].iter().zip(&made[1]) {
        // The first update has the sign of a gradient, also where that is nothing but rounding.
        let bound = if name.ends_with("moments") { 1e-3 } else { 2e-2 };
        let off = relative(fused, plain).map_err(torch)?;
        outcomes.push(within(&format!("change of {name} off by"), off, bound));
    }
    Ok(all(outcomes))
}

pub(super) fn poisoned(on: On) -> Result<Outcome, TrainError> {
    let cases = cases();
    let case = &cases[cases.len() - 1];
    let mut outcomes = Vec::new();
    for form in [BlockForm::Plain, BlockForm::Fused] {
        let mut state = case.state(on.device, AdamWPlan::REFERENCE).map_err(torch)?;
        let plan = case.plan(on, form, Precision::Float32, false)?;
        step(&mut state, &plan, &case.batch(1, on.device).map_err(torch)?, 1e-3)?;
        let before = numbers(&state).map_err(torch)?;
        let mut batch = case.batch(2, on.device).map_err(torch)?;
        _ = batch.targets.weights_b.f_fill_(f64::NAN).map_err(torch)?;
        step(&mut state, &plan, &batch, 1e-3)?;
        let after = numbers(&state).map_err(torch)?;
        let skipped = state.skipped().map_err(torch)?;
        outcomes.push(match first_difference(&before, &after).map_err(torch)? {
            None if skipped == [1, 1] => Outcome::Ok(format!("{form:?}: every number as before")),
            None => Outcome::Failed(format!("{form:?}: {skipped:?} were counted, not [1, 1]")),
            Some(what) => Outcome::Failed(format!("{form:?}: {what} changed")),
        });
    }
    Ok(all(outcomes))
}

/// Everything that a step changes, copied.
pub(super) fn numbers(state: &TrainState) -> Result<Vec<(&'static str, Tensor)>, TchError> {
    let mut numbers = vec![
        ("weights", state.weights.flat().copy()),
        ("first moments", state.adamw.exp_avg.copy()),
        ("second moments", state.adamw.exp_avg_sq.copy()),
    ];
    if let Some(ema) = &state.ema {
        numbers.push(("average", ema.weights().flat().copy()));
    }
    Ok(numbers)
}

/// The name of the first numbers that differ in a bit.
pub(super) fn first_difference(
    one: &[(&'static str, Tensor)],
    other: &[(&'static str, Tensor)],
) -> Result<Option<&'static str>, TchError> {
    for ((name, one), (_, other)) in one.iter().zip(other) {
        // As whole numbers: −0 is not 0, and a NaN is itself.
        let bits = |tensor: &Tensor| tensor.f_view_dtype(Kind::Int);
        if !bits(one)?.f_equal(&bits(other)?)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
