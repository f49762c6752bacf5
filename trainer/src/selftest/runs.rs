//! Several steps on the device: agreement of forms, same bits twice, going on from a checkpoint.

use std::sync::atomic::AtomicBool;

use catlip_pipeline::feed::{BatchSampler, StepSize, VariableSizes};
use tch::{TchError, Tensor};

use super::device::relative;
use super::steps::{Case, first_difference, numbers};
use super::{On, Outcome, Scale, all, torch, within};
use crate::checkpoint::write::{Keep, Occasion, Share, Snapshot};
use crate::checkpoint::{self, Identity};
use crate::error::TrainError;
use crate::model::params::Role;
use crate::model::{BlockForm, Precision, StemKind, VitPlan};
use crate::optim::AdamWPlan;
use crate::shim::ops;
use crate::state::TrainState;
use crate::step::{StepPlan, step};

/// Steps of a run whose forms must agree: small, full.
const AGREE_STEPS: [u64; 2] = [40, 500];
/// How far the mean loss of its last tenth may differ: rounding grows from step to step.
const AGREE_BOUND: f64 = 5e-3;
/// Relative error of a parameter's gradient between two forms in float32.
const FORMS_BOUND: f64 = 1e-3;
/// Steps of a run that must give the same bits.
const SAME_STEPS: u64 = 6;
const LR: f64 = 1e-3;

/// The recipe in small: corenet stem, learned augmentation, average.
fn recipe() -> Case {
    let labels = (0..8).map(|row| (0..row % 4).map(|k| (row * 3 + k) % 11).collect()).collect();
    let vit = VitPlan { range_augment: true, ..VitPlan::corenet([64, 2, 2], 4, 11) };
    Case { name: "recipe", vit, side_px: 32, labels }
}

/// Takes the steps `from..until`; gives their losses, still on the device.
fn take(
    case: &Case,
    state: &mut TrainState,
    plan: &StepPlan,
    [from, until]: [u64; 2],
) -> Result<Vec<Tensor>, TrainError> {
    let device = state.device();
    (from..until)
        .map(|at| {
            let batch = case.batch(at, device).map_err(torch)?;
            Ok(step(state, plan, &batch, LR)?.loss)
        })
        .collect()
}

pub(super) fn forms_agree(on: On) -> Result<Outcome, TrainError> {
    let case = recipe();
    let steps = AGREE_STEPS[usize::from(on.scale == Scale::Full)];
    let mut means = Vec::new();
    for form in [BlockForm::Plain, BlockForm::Fused] {
        let mut state = case.state(on.device, AdamWPlan::REFERENCE).map_err(torch)?;
        let plan = case.plan(on, form, Precision::Float32, false)?;
        if plan.form != form {
            return Ok(Outcome::Skipped("no back end of attention takes it".into()));
        }
        let losses = take(&case, &mut state, &plan, [0, steps])?;
        let last = &losses[losses.len() - losses.len() / 10..];
        let values =
            last.iter().map(|loss| loss.f_double_value(&[])).collect::<Result<Vec<_>, _>>();
        let values = values.map_err(torch)?;
        means.push(values.iter().sum::<f64>() / values.len() as f64);
    }
    let [plain, fused] = means[..] else { unreachable!("two forms") };
    let what = format!("{steps} steps: losses {plain:.4} and {fused:.4} differ by");
    Ok(within(&what, (fused / plain - 1.0).abs(), AGREE_BOUND))
}

/// The model and the variable sampler whose sizes are compared.
fn sized(scale: Scale) -> (VitPlan, BatchSampler) {
    let (vit, base, sizes) = match scale {
        Scale::Small => {
            let vit = VitPlan::corenet([64, 2, 2], 4, 40);
            (vit, StepSize { side_px: 32, batch: 8 }, (16, 48, 3))
        }
        Scale::Full => {
            let vit = VitPlan::corenet([768, 12, 12], 196, 24_320);
            (vit, StepSize { side_px: 224, batch: 64 }, (128, 320, 25))
        }
    };
    let (min_px, max_px, num_scales) = sizes;
    let from = VariableSizes { base, min_px, max_px, num_scales, multiple_px: 16, shares: 1 };
    (vit, BatchSampler::variable(&from, 0))
}

pub(super) fn sizes_agree(on: On) -> Result<Outcome, TrainError> {
    let (corenet, sampler) = sized(on.scale);
    let linear = VitPlan { stem: StemKind::Linear, ..corenet };
    let mut outcomes = Vec::new();
    for vit in [linear, corenet] {
        outcomes.push(sizes_of(on, vit, &sampler)?);
    }
    Ok(all(outcomes))
}

fn sizes_of(on: On, vit: VitPlan, sampler: &BatchSampler) -> Result<Outcome, TrainError> {
    let adamw = AdamWPlan { clip_norm: 0.0, ..AdamWPlan::REFERENCE };
    let of = |size: &StepSize| Case {
        name: "a size",
        vit,
        side_px: size.side_px as usize,
        labels: (0..i64::from(size.batch)).map(|row| vec![row % vit.num_labels]).collect(),
    };
    let mut state = of(&sampler.sizes()[0]).state(on.device, adamw).map_err(torch)?;
    let mut worst = (0.0, String::new());
    for size in sampler.sizes() {
        let case = of(size);
        let batch = case.batch(1, on.device).map_err(torch)?;
        let mut gradients = Vec::new();
        for form in [BlockForm::Plain, BlockForm::Fused] {
            let plan = case.plan(on, form, Precision::Float32, false)?;
            if plan.form != form {
                return Ok(Outcome::Skipped(format!("{} px: no back end takes it", size.side_px)));
            }
            // A rate of 0 leaves the weights as they are.
            step(&mut state, &plan, &batch, 0.0)?;
            gradients.push(state.gradient.flat().copy());
        }
        for entry in state.vit.layout().entries().iter().filter(|e| e.role != Role::Buffer) {
            let cut = |flat: &Tensor| flat.f_narrow(0, entry.offset, entry.numel());
            let off = || relative(&cut(&gradients[1])?, &cut(&gradients[0])?);
            let off = off().map_err(torch)?;
            if !(off <= worst.0) {
                worst = (off, format!("{} at {} px", entry.name, size.side_px));
            }
        }
    }
    let sizes = sampler.sizes().len();
    let whose = if worst.1.is_empty() { "every parameter" } else { &worst.1 };
    let what = format!("{:?} stem, {sizes} sizes: {whose} off by", vit.stem);
    Ok(within(&what, worst.0, FORMS_BOUND))
}

/// Runs `work` while operations give the same bits whenever they run.
fn deterministically<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    ops::set_deterministic(true).map_err(torch)?;
    let outcome = work();
    ops::set_deterministic(false).map_err(torch)?;
    outcome
}

/// Both forms in bfloat16, by operations that give the same bits.
fn ways(case: &Case, on: On) -> Result<[(&'static str, StepPlan); 2], TrainError> {
    let plan = |form| case.plan(on, form, Precision::BFloat16, true);
    Ok([("plain", plan(BlockForm::Plain)?), ("fused", plan(BlockForm::Fused)?)])
}

pub(super) fn deterministic(on: On) -> Result<Outcome, TrainError> {
    let case = recipe();
    let mut outcomes = Vec::new();
    for (name, plan) in ways(&case, on)? {
        let once = || {
            let mut state = case.state(on.device, AdamWPlan::REFERENCE).map_err(torch)?;
            take(&case, &mut state, &plan, [0, SAME_STEPS])?;
            numbers(&state).map_err(torch)
        };
        let (one, two) = deterministically(|| Ok((once()?, once()?)))?;
        outcomes.push(match first_difference(&one, &two).map_err(torch)? {
            None => Outcome::Ok(format!("{name} ({:?}): {SAME_STEPS} steps", plan.attention)),
            Some(what) => Outcome::Failed(format!("{name} ({:?}): other {what}", plan.attention)),
        });
    }
    Ok(all(outcomes))
}

pub(super) fn resumed(on: On) -> Result<Outcome, TrainError> {
    let case = recipe();
    let half = SAME_STEPS / 2;
    let mut outcomes = Vec::new();
    for (name, plan) in ways(&case, on)? {
        let state = || case.state(on.device, AdamWPlan::REFERENCE).map_err(torch);
        let run = || {
            let mut whole = state()?;
            take(&case, &mut whole, &plan, [0, half])?;
            let folder =
                tempfile::tempdir().map_err(TrainError::io("make", "a folder".as_ref()))?;
            save(&whole, folder.path())?;
            take(&case, &mut whole, &plan, [half, SAME_STEPS])?;

            let mut resumed = state()?;
            checkpoint::newest(folder.path())?.restore(&mut resumed)?;
            take(&case, &mut resumed, &plan, [half, SAME_STEPS])?;
            compared(&whole, &resumed).map_err(torch)
        };
        outcomes.push(match deterministically(run)? {
            None => Outcome::Ok(format!("{name}: {half} and {half} steps")),
            Some(what) => Outcome::Failed(format!("{name}: other {what}")),
        });
    }
    Ok(all(outcomes))
}

fn save(state: &TrainState, folder: &std::path::Path) -> Result<(), TrainError> {
    let identity = Identity { config_hash: "selftest".into(), vocab_hash: "selftest".into() };
    let due = Occasion::Due(Keep { last: 1, every_steps: 0 });
    let snapshot = Snapshot::take(folder, state, &identity, &Share::whole(), due)?;
    Ok(snapshot.write(&AtomicBool::new(false))?)
}

fn compared(one: &TrainState, other: &TrainState) -> Result<Option<&'static str>, TchError> {
    if [one.step, one.images_seen] != [other.step, other.images_seen] {
        return Ok(Some("its counts"));
    }
    first_difference(&numbers(one)?, &numbers(other)?)
}

#[cfg(test)]
mod tests {
    use super::super::steps::cases;
    use super::*;

    #[test]
    fn a_difference_of_one_bit_is_found_and_named() {
        let case = &cases()[0];
        let state = case.state(Device::Cpu, AdamWPlan::REFERENCE).unwrap();
        let before = numbers(&state).unwrap();
        assert_eq!(first_difference(&before, &numbers(&state).unwrap()).unwrap(), None);
        _ = state.adamw.exp_avg.narrow(0, 3, 1).fill_(-0.0);
        let after = numbers(&state).unwrap();
        assert_eq!(first_difference(&before, &after).unwrap(), Some("first moments"));
    }
}
