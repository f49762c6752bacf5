//! The kernels and the steps by them, held against ATen and autograd on a device.
//!
//! In: kernels, a device. Out: [`Check`]s, each with how far off a result is and how far it may be.
//! Never: judges; reads a file. `catlip-train selftest` runs them on a GPU, the tests run the same
//! on the CPU, where the kernels are emulated.
//!
//! Each kernel alone: `check/kernels.rs`.

use std::fmt;

use catlip_schemas::Cursor;
use tch::{Device, Kind, TchError, Tensor};

use crate::batch::{DeviceBatch, HostRows, Place};
use crate::error::TrainError;
use crate::model::params::Role;
use crate::model::{Precision, Vit, VitPlan};
use crate::optim::AdamWPlan;
use crate::state::TrainState;
use crate::step::{StepPlan, statistics, step, update};

mod kernels;

pub use kernels::of_kernels;

/// What float32 may be off by against float64, over the largest number: sums of thousands.
const BOUND_F32: f64 = 1e-5;
/// What the gradients of a whole model in float32 may be off by against autograd's: two orders of
/// adding up in each of dozens of layers.
const BOUND_STEP_F32: f64 = 1e-3;
/// How much farther from float32 than autograd's a gradient in bfloat16 may be, in norm; where that
/// happens to be near, so much of the gradient itself is allowed.
const BOUND_STEP_BF16: f64 = 2.0;
const NEAR_BF16: f64 = 5e-3;
/// What the change of three updates may be off by: of weights of up to 1 by 1e-3 each; of their
/// average, of which each takes a share of 5e-4, so that rounding is some percent of it.
const BOUND_UPDATE: f64 = 1e-3;
const BOUND_AVERAGE: f64 = 5e-2;
/// What is nothing but rounding: the norm of a gradient over that of all of them.
const NOISE: f64 = 1e-6;

/// One result against what is expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What was compared.
    pub what: String,
    /// How far off it is.
    pub off: f64,
    /// How far off it may be.
    pub bound: f64,
}

impl Check {
    /// Whether it is as near as it has to be.
    pub fn is_good(&self) -> bool {
        self.off <= self.bound
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_good() { "ok" } else { "NOT" };
        let Self { what, off, bound } = self;
        write!(f, "{verdict:<3} {what}: off by {off:.2e}, may be {bound:.2e}")
    }
}

/// Numbers around 0 without a pattern that rows share.
fn waves(shape: &[i64], phase: f64, kind: Kind, device: Device) -> Result<Tensor, TchError> {
    let numbers: i64 = shape.iter().product();
    let at = Tensor::f_arange(numbers, (Kind::Double, device))?;
    let fast = at.f_mul_scalar(0.7313)?.f_add_scalar(phase)?.f_sin()?;
    let slow = at.f_mul_scalar(0.01171)?.f_add_scalar(2.0 * phase)?.f_cos()?;
    fast.f_add(&slow.f_mul_scalar(0.5)?)?.f_to_kind(kind)?.f_view(shape)
}

fn copied(tensor: &Tensor) -> Result<Tensor, TchError> {
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}

/// The largest difference over the largest number; infinite where one is no number.
fn off(found: &Tensor, expected: &Tensor) -> Result<f64, TchError> {
    let expected = expected.f_to_kind(Kind::Double)?;
    if expected.numel() == 0 {
        return Ok(0.0);
    }
    let largest = expected.f_abs()?.f_max()?.f_double_value(&[])?.max(1e-30);
    let far = found.f_to_kind(Kind::Double)?.f_sub(&expected)?.f_abs()?.f_max()?;
    let off = far.f_double_value(&[])? / largest;
    Ok(if off.is_nan() { f64::INFINITY } else { off })
}

/// Rows for a step, drawn from their number: bytes, labels (some rows have none), weights.
#[derive(Debug)]
pub struct Rows {
    images: Vec<u8>,
    side_px: usize,
    offsets: Vec<i64>,
    labels: Vec<i64>,
    weights: Vec<f32>,
}

impl Rows {
    /// `b` rows of images of `side_px`, with labels below `num_labels`.
    pub fn new(b: usize, side_px: usize, num_labels: i64) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            state >> 33
        };
        let images = (0..b * side_px * side_px * 3).map(|_| (draw() & 0xff) as u8).collect();
        let (mut offsets, mut labels) = (vec![0], Vec::new());
        for row in 0..b {
            let count = if row % 5 == 1 { 0 } else { draw() % 8 };
            let mut own: Vec<i64> = (0..count).map(|_| draw() as i64 % num_labels).collect();
            own.sort_unstable();
            own.dedup();
            labels.extend(own);
            offsets.push(labels.len() as i64);
        }
        let weights = (0..b).map(|row| if row % 11 == 7 { 0.0 } else { 1.0 }).collect();
        Self { images, side_px, offsets, labels, weights }
    }

    /// The same as a batch of the host.
    pub fn host(&self) -> HostRows<'_> {
        HostRows {
            images_bhwc: &self.images,
            height_px: self.side_px,
            width_px: self.side_px,
            offsets: &self.offsets,
            label_ids: &self.labels,
            weights: &self.weights,
        }
    }
}

/// A state of `plan` before its first step.
///
/// # Errors
///
/// What libtorch says, such as out of memory.
pub fn state(plan: VitPlan, adamw: AdamWPlan, device: Device) -> Result<TrainState, TchError> {
    let vit = Vit::new(plan);
    let weights = vit.init(1, None, device)?;
    TrainState::new(vit, weights, adamw, 5e-4, Cursor::start(0))
}

/// The gradients of a step by `found` against those of one by `expected`, a plain one in float32,
/// for every parameter. Where `found` is in bfloat16, `autograd` is a plain step in bfloat16, and
/// what counts is how much farther than that it is.
///
/// # Errors
///
/// What libtorch or the driver says.
pub fn of_step(
    vit: VitPlan,
    rows: &Rows,
    [found, autograd, expected]: [&StepPlan; 3],
    device: Device,
) -> Result<Vec<Check>, TrainError> {
    let torch = || TrainError::torch("compare steps");
    let gradients = |plan: &StepPlan| {
        let batch = DeviceBatch::from_rows(&rows.host(), device).map_err(torch())?;
        let place = Place::alone(0, 0, rows.offsets.len() - 1);
        let batch = DeviceBatch { place, ..batch };
        let mut state = state(vit, AdamWPlan::REFERENCE, device).map_err(torch())?;
        let metrics = step(&mut state, plan, &batch, 0.0)?;
        // The plain optimiser clips the gradient in place, the kernels leave it.
        let norm = metrics.gradient_norm.f_double_value(&[]).map_err(torch())?;
        let is_clipped = plan.kernels.is_none();
        let factor = if is_clipped { norm.max(1.0) } else { 1.0 };
        let flat = state.gradient.flat().f_mul_scalar(factor).map_err(torch())?;
        Ok::<_, TrainError>((state, flat, metrics.loss))
    };
    let (state, expected_flat, expected_loss) = gradients(expected)?;
    let (_, found_flat, found_loss) = gradients(found)?;
    let is_narrow = found.precision == Precision::BFloat16;
    let autograd_flat = if is_narrow { Some(gradients(autograd)?.1) } else { None };
    let compare = || {
        let mut checks = Vec::new();
        let bound = if is_narrow { 2e-2 } else { BOUND_F32 * 10.0 };
        let off_loss = off(&found_loss, &expected_loss)?;
        checks.push(Check { what: "loss".to_owned(), off: off_loss, bound });
        let all = expected_flat.f_norm()?.f_double_value(&[])?;
        for entry in state.weights.layout().entries().iter().filter(|e| e.role != Role::Buffer) {
            let cut = |flat: &Tensor| flat.f_narrow(0, entry.offset, entry.numel());
            let (found, expected) = (cut(&found_flat)?, cut(&expected_flat)?);
            let norm = |t: &Tensor| t.f_norm()?.f_double_value(&[]);
            let size = norm(&expected)?;
            let far = norm(&found.f_sub(&expected)?)?;
            let what = entry.name.clone();
            let check = match &autograd_flat {
                None => Check { what, off: far / size.max(all * NOISE), bound: BOUND_STEP_F32 },
                Some(flat) => {
                    let of_autograd = norm(&cut(flat)?.f_sub(&expected)?)?;
                    let least = size.max(all * NOISE) * NEAR_BF16;
                    Check { what, off: far / of_autograd.max(least), bound: BOUND_STEP_BF16 }
                }
            };
            checks.push(check);
        }
        Ok::<_, TchError>(checks)
    };
    compare().map_err(torch())
}

/// Three updates of a model by the kernels of `found` against those of the plain optimiser, by the
/// same gradients: what changed of weights, moments and average.
///
/// # Errors
///
/// What libtorch or the driver says.
pub fn of_update(
    vit: VitPlan,
    [found, plain]: [&StepPlan; 2],
    device: Device,
) -> Result<Vec<Check>, TrainError> {
    let torch = || TrainError::torch("compare updates");
    let changes = |plan: &StepPlan| {
        let mut state = state(vit, AdamWPlan::REFERENCE, device).map_err(torch())?;
        let trained = state.weights.layout().trained_floats();
        let numbers = |state: &TrainState| {
            let average = state.ema.as_ref().map(|ema| ema.weights().flat());
            let all = [state.weights.flat(), &state.adamw.exp_avg, &state.adamw.exp_avg_sq];
            let all = all.into_iter().chain(average);
            all.map(|t| copied(&t.f_narrow(0, 0, trained)?)).collect::<Result<Vec<_>, TchError>>()
        };
        let before = numbers(&state).map_err(torch())?;
        let statistics = statistics(&state).and_then(|now| copied(&now)).map_err(torch())?;
        for at in 0..3 {
            let pull = waves(&[trained], f64::from(at), Kind::Float, device);
            let mut gradient = state.gradient.flat().shallow_clone();
            pull.and_then(|pull| gradient.f_copy_(&pull)).map_err(torch())?;
            _ = update(&mut state, plan, &statistics, 1e-3)?;
        }
        let after = numbers(&state).map_err(torch())?;
        let pairs = after.iter().zip(&before);
        pairs
            .map(|(after, before)| after.f_sub(before))
            .collect::<Result<Vec<_>, _>>()
            .map_err(torch())
    };
    let (found, expected) = (changes(found)?, changes(plain)?);
    let names = ["weights", "first moments", "second moments", "average"];
    let pairs = names.into_iter().zip(found.iter().zip(&expected));
    let checks = pairs.map(|(name, (found, expected))| {
        let bound = if name == "average" { BOUND_AVERAGE } else { BOUND_UPDATE };
        let what = format!("update of {name}");
        Ok(Check { what, off: off(found, expected)?, bound })
    });
    checks.collect::<Result<Vec<_>, _>>().map_err(torch())
}

/// How far the losses of two runs of `steps` steps over the same batches come apart: the mean over
/// the last tenth, over their mean. `bit_equal` wants the same weights to the bit in the end.
///
/// # Errors
///
/// What libtorch or the driver says.
pub fn of_runs(
    vit: VitPlan,
    batches: &[Rows],
    plans: [&StepPlan; 2],
    steps: usize,
    device: Device,
    bit_equal: bool,
) -> Result<Check, TrainError> {
    let torch = || TrainError::torch("compare runs");
    let batches = batches.iter().map(|rows| DeviceBatch::from_rows(&rows.host(), device));
    let batches = batches.collect::<Result<Vec<_>, _>>().map_err(torch())?;
    let run = |plan: &StepPlan| {
        let mut state = state(vit, AdamWPlan::REFERENCE, device).map_err(torch())?;
        let mut sum = 0.0;
        let last = steps - steps / 10 - 1;
        for at in 0..steps {
            let metrics = step(&mut state, plan, &batches[at % batches.len()], 1e-3)?;
            if at > last {
                sum += metrics.loss.f_double_value(&[]).map_err(torch())?;
            }
        }
        Ok::<_, TrainError>((state, sum))
    };
    let ((first, first_sum), (second, second_sum)) = (run(plans[0])?, run(plans[1])?);
    if bit_equal {
        let same = first.weights.flat().f_equal(second.weights.flat()).map_err(torch())?;
        let off = f64::from(u8::from(!same));
        return Ok(Check { what: format!("{steps} steps twice, bits"), off, bound: 0.0 });
    }
    let what = format!("{steps} steps, loss of the last tenth");
    Ok(Check { what, off: (first_sum / second_sum - 1.0).abs(), bound: 2e-2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::emulated;
    use crate::loss::Loss;
    use crate::model::{BlockForm, KernelForm, StemKind};

    const SMALL: VitPlan = VitPlan::corenet([32, 2, 2], 4, 50);

    fn plan(precision: Precision, by_kernels: bool) -> StepPlan {
        let plain = StepPlan { precision, ..StepPlan::plain(Loss::Bce { smoothing: 0.0 }) };
        if !by_kernels {
            return plain;
        }
        let kernels = KernelForm::new(emulated::kernels(3), Device::Cpu).unwrap();
        StepPlan { form: BlockForm::Fused, kernels: Some(kernels), ..plain }
    }

    #[track_caller]
    fn assert_good(checks: &[Check]) {
        let bad: Vec<_> = checks.iter().filter(|check| !check.is_good()).collect();
        assert!(!checks.is_empty() && bad.is_empty(), "{bad:#?}");
    }

    #[test]
    fn the_emulated_kernels_pass_every_check() {
        let checks = of_kernels(&emulated::kernels(40), Device::Cpu).unwrap();
        assert!(checks.len() > 100);
        assert_good(&checks);
    }

    #[test]
    fn steps_by_emulated_kernels_pass_every_check() {
        let linear = VitPlan { stem: StemKind::Linear, ..SMALL };
        let float32 = plan(Precision::Float32, false);
        for vit in [SMALL, linear] {
            for (b, side_px) in [(6, 32), (1, 16), (3, 48)] {
                let rows = Rows::new(b, side_px, 50);
                for precision in [Precision::Float32, Precision::BFloat16] {
                    let (found, autograd) = (plan(precision, true), plan(precision, false));
                    let plans = [&found, &autograd, &float32];
                    assert_good(&of_step(vit, &rows, plans, Device::Cpu).unwrap());
                }
            }
        }
    }

    #[test]
    fn a_step_that_is_wrong_fails_its_check() {
        let rows = Rows::new(6, 32, 50);
        let found = plan(Precision::Float32, true);
        let other =
            StepPlan { loss: Loss::Bce { smoothing: 0.2 }, ..plan(Precision::Float32, false) };
        let checks = of_step(SMALL, &rows, [&found, &other, &other], Device::Cpu).unwrap();
        let bad = checks.iter().filter(|check| !check.is_good()).count();
        assert!(bad > checks.len() / 2, "{bad} of {}", checks.len());
        assert!(checks[0].to_string().starts_with("NOT loss: off by "), "{}", checks[0]);
    }

    #[test]
    fn two_runs_agree_and_one_repeated_is_the_same_to_the_bit() {
        let linear = VitPlan { stem: StemKind::Linear, ..SMALL };
        let batches = [Rows::new(4, 32, 50), Rows::new(3, 48, 50)];
        let (found, plain) = (plan(Precision::BFloat16, true), plan(Precision::BFloat16, false));
        let runs = |plans, bits| of_runs(linear, &batches, plans, 20, Device::Cpu, bits).unwrap();
        assert_good(&[runs([&found, &plain], false), runs([&found, &found], true)]);
        assert!(!runs([&found, &plain], true).is_good());
    }
}
