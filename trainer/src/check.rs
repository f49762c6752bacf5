//! The kernels and the steps by them, held against ATen and autograd on a device.
//!
//! In: kernels, a device. Out: [`Check`]s, each with how far off a result is and how far it may be.
//! Never: judges; reads a file. `catlip-train selftest` runs them on a GPU, the tests run the same
//! on the CPU, where the kernels are emulated.
//!
//! b images, n rows, d width.

use std::fmt;

use catlip_schemas::Cursor;
use tch::{Device, Kind, TchError, Tensor};

use crate::augment::{self, Needs};
use crate::batch::{DeviceBatch, HostRows};
use crate::error::TrainError;
use crate::kernels::{Grid, Kernels, NoisyImages, NormBack, NormIds};
use crate::loss::Loss;
use crate::model::block::LAYER_NORM_EPS;
use crate::model::params::Role;
use crate::model::{Precision, Vit, VitPlan};
use crate::optim::AdamWPlan;
use crate::state::TrainState;
use crate::step::{StepPlan, step};

/// What float32 may be off by against float64, over the largest number: sums of thousands.
const BOUND_F32: f64 = 1e-5;
/// What bfloat16 may be off by: one rounding of eight bits, of the largest number.
const BOUND_BF16: f64 = 4.5e-3;
/// What the gradients of a whole model in float32 may be off by against autograd's: two orders of
/// adding up in each of dozens of layers.
const BOUND_STEP_F32: f64 = 1e-3;
/// How much farther from float32 than autograd's a gradient in bfloat16 may be, in norm; where that
/// happens to be near, so much of the gradient itself is allowed.
const BOUND_STEP_BF16: f64 = 2.0;
const NEAR_BF16: f64 = 5e-3;
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

fn bound_of(kind: Kind) -> f64 {
    if kind == Kind::Float { BOUND_F32 } else { BOUND_BF16 }
}

/// Collects checks of one kernel.
struct Checks<'c> {
    all: &'c mut Vec<Check>,
    of: String,
}

impl Checks<'_> {
    fn add(&mut self, what: &str, pair: [&Tensor; 2], bound: f64) -> Result<(), TchError> {
        let what = format!("{} {what}", self.of);
        self.all.push(Check { what, off: off(pair[0], pair[1])?, bound });
        Ok(())
    }
}

/// Each kernel against ATen in float64, at odd shapes and at those of B/16, L/16 and H/16.
///
/// # Errors
///
/// What libtorch or the driver says.
pub fn of_kernels(kernels: &Kernels, device: Device) -> Result<Vec<Check>, TchError> {
    let mut all = Vec::new();
    for kind in [Kind::Float, Kind::BFloat16] {
        for [n, d] in [[1, 1], [5, 13], [197, 768], [33, 1024], [19, 1280], [3, 5120]] {
            norms(kernels, [n, d], kind, device, &mut all)?;
        }
        for [n, f] in [[1, 1], [7, 13], [197, 3072], [9, 5120]] {
            gelus(kernels, [n, f], kind, device, &mut all)?;
        }
        for shape in [[2, 12, 197, 64], [3, 2, 1, 64], [1, 3, 5, 7]] {
            heads(kernels, shape, kind, device, &mut all)?;
        }
        for (b, shape) in [
            (1, Grid { num_prefix: 1, num_grid: 1, width: 5 }),
            (4, Grid { num_prefix: 1, num_grid: 196, width: 768 }),
            (3, Grid { num_prefix: 5, num_grid: 9, width: 36 }),
        ] {
            tokens(kernels, b, shape, kind, device, &mut all)?;
        }
        for v in [3, 77, 24_320] {
            losses(kernels, v, kind, device, &mut all)?;
        }
        for [b, side_px] in [[1, 16], [3, 48], [2, 224]] {
            ranges(kernels, [b, side_px], kind, device, &mut all)?;
        }
    }
    Ok(all)
}

fn norms(
    kernels: &Kernels,
    [n, d]: [i64; 2],
    kind: Kind,
    device: Device,
    all: &mut Vec<Check>,
) -> Result<(), TchError> {
    let mut checks = Checks { all, of: format!("norm [{n}, {d}] {kind:?}") };
    let of = |shape: &[i64], phase, kind| waves(shape, phase, kind, device);
    let (x, added) = (of(&[n, d], 0.3, Kind::Float)?, of(&[n, d], 1.1, kind)?);
    let (weight, bias) = (of(&[d], 0.9, Kind::Float)?, of(&[d], 1.9, Kind::Float)?);
    let (pull, stream) = (of(&[n, d], 2.7, kind)?, of(&[n, d], 3.1, Kind::Float)?);
    let norm = NormIds { weight: &weight, bias: &bias };
    let made = kernels.add_norm(&x, Some(&added), norm, LAYER_NORM_EPS, kind)?;
    let total_nd = made.total_nd.as_ref().unwrap_or(&x);
    let (again, out) = (copied(&pull)?, copied(&stream)?);
    let sums = [0, 1, 2].map(|_| weight.f_zeros_like());
    let [of_weight, of_bias, of_next] = sums;
    let (of_weight, of_bias, of_next) = (of_weight?, of_bias?, of_next?);
    let back = NormBack {
        x_nd: total_nd,
        statistics_n: [&made.mean_n, &made.rstd_n],
        norm,
        of_norm: NormIds { weight: &of_weight, bias: &of_bias },
        of_bias: Some(&of_next),
    };
    let narrow = kernels.norm_back(&again, &out, back)?;

    let wide = |t: &Tensor| t.f_to_kind(Kind::Double);
    let leaf = |t: &Tensor| wide(t)?.f_detach()?.f_set_requires_grad(true);
    let (x64, w64, b64) = (leaf(&x)?, leaf(&weight)?, leaf(&bias)?);
    let total = x64.f_add(&wide(&added)?)?;
    let normed = total.f_layer_norm(d, Some(&w64), Some(&b64), LAYER_NORM_EPS, false)?;
    normed.f_mul(&wide(&pull)?)?.f_sum(Kind::Double)?.f_backward()?;
    checks.add("forwards", [&made.normed_nd, &normed.f_detach()?], bound_of(kind))?;
    checks.add("once more", [&again, &made.normed_nd], 0.0)?;
    let expected = wide(&stream)?.f_add(&x64.f_grad()?)?;
    // A row of a number or two has nearly no deviation to divide by.
    let near = if d < 8 { 1e-3 } else { 2.0 * BOUND_F32 };
    checks.add("stream", [&out, &expected], near)?;
    checks.add("rounded stream", [&narrow, &out.f_to_kind(kind)?], 0.0)?;
    checks.add("weight", [&of_weight, &w64.f_grad()?], near)?;
    checks.add("bias", [&of_bias, &b64.f_grad()?], near)?;
    let sum = narrow.f_sum_dim_intlist([0].as_slice(), false, Kind::Double)?;
    checks.add("bias behind", [&of_next, &sum], 2.0 * BOUND_F32)
}

fn gelus(
    kernels: &Kernels,
    [n, f]: [i64; 2],
    kind: Kind,
    device: Device,
    all: &mut Vec<Check>,
) -> Result<(), TchError> {
    let mut checks = Checks { all, of: format!("GELU [{n}, {f}] {kind:?}") };
    let hidden = waves(&[n, f], 0.6, Kind::Float, device)?.f_mul_scalar(3.0)?.f_to_kind(kind)?;
    let pull = waves(&[n, f], 1.7, kind, device)?;
    let active = kernels.gelu(&hidden)?;
    let x = hidden.f_to_kind(Kind::Double)?.f_detach()?.f_set_requires_grad(true)?;
    let expected = x.f_gelu("none")?;
    expected.f_mul(&pull.f_to_kind(Kind::Double)?)?.f_sum(Kind::Double)?.f_backward()?;
    checks.add("forwards", [&active, &expected.f_detach()?], bound_of(kind))?;
    let of_bias = Tensor::f_zeros([f], (Kind::Float, device))?;
    kernels.gelu_back(&hidden, &pull, &of_bias)?;
    checks.add("once more", [&hidden, &active], 0.0)?;
    checks.add("back", [&pull, &x.f_grad()?], bound_of(kind))?;
    let sum = pull.f_sum_dim_intlist([0].as_slice(), false, Kind::Double)?;
    checks.add("bias", [&of_bias, &sum], BOUND_F32)
}

fn heads(
    kernels: &Kernels,
    [b, a, t, k]: [i64; 4],
    kind: Kind,
    device: Device,
    all: &mut Vec<Check>,
) -> Result<(), TchError> {
    let mut checks = Checks { all, of: format!("heads [{b}, {a}, {t}, {k}] {kind:?}") };
    // As the back ends give them: tokens outside of heads, or inside.
    let parts = [
        waves(&[b, t, a, k], 0.1, kind, device)?.f_transpose(1, 2)?,
        waves(&[b, a, t, k], 0.2, kind, device)?,
        waves(&[b, t, a, k], 0.3, kind, device)?.f_transpose(1, 2)?,
    ];
    let sums = Tensor::f_zeros([3 * a * k], (Kind::Float, device))?;
    let packed = kernels.pack_heads(&parts.each_ref(), &sums)?;
    let rows = |part: &Tensor| part.f_transpose(1, 2)?.f_reshape([b * t, a * k]);
    let rows = parts.iter().map(rows).collect::<Result<Vec<_>, _>>()?;
    let expected = Tensor::f_cat(&rows, 1)?;
    checks.add("packed", [&packed, &expected], 0.0)?;
    let sum = expected.f_sum_dim_intlist([0].as_slice(), false, Kind::Double)?;
    checks.add("bias", [&sums, &sum], BOUND_F32)
}

fn tokens(
    kernels: &Kernels,
    b: i64,
    shape: Grid,
    kind: Kind,
    device: Device,
    all: &mut Vec<Check>,
) -> Result<(), TchError> {
    let Grid { num_prefix, num_grid, width: d } = shape;
    let mut checks = Checks { all, of: format!("tokens {b} × {shape:?} {kind:?}") };
    let grid = waves(&[b * num_grid, d], 0.4, kind, device)?;
    let positions = waves(&[num_grid, d], 1.4, Kind::Float, device)?;
    let prefix = waves(&[num_prefix, d], 2.4, Kind::Float, device)?;
    let pull = waves(&[b, num_prefix + num_grid, d], 3.4, Kind::Float, device)?;
    let made = kernels.tokens(&grid, &positions, &prefix, shape)?;
    let placed = grid.f_view([b, num_grid, d])?.f_to_kind(Kind::Float)?.f_add(&positions)?;
    let before = prefix.f_unsqueeze(0)?.f_expand([b, -1, -1], false)?;
    checks.add("forwards", [&made, &Tensor::f_cat(&[before, placed], 1)?], 0.0)?;
    let (of_grid, sums) = kernels.tokens_back(&pull, num_prefix, kind)?;
    let expected = pull.f_narrow(1, num_prefix, num_grid)?.f_reshape([-1, d])?.f_to_kind(kind)?;
    checks.add("back", [&of_grid, &expected], 0.0)?;
    let sum = pull.f_sum_dim_intlist([0].as_slice(), false, Kind::Double)?;
    checks.add("over images", [&sums, &sum], BOUND_F32)
}

fn losses(
    kernels: &Kernels,
    v: i64,
    kind: Kind,
    device: Device,
    all: &mut Vec<Check>,
) -> Result<(), TchError> {
    let rows = Rows::new(5, 1, v);
    let targets = DeviceBatch::from_rows(&rows.host(), device)?.targets;
    let idf_v = waves(&[v], 0.3, Kind::Float, device)?.f_abs()?;
    let divisor = Tensor::f_full([1], 2.5, (Kind::Float, device))?;
    for loss in [
        Loss::Bce { smoothing: 0.0 },
        Loss::Bce { smoothing: 0.1 },
        Loss::Softmax { smoothing: 0.1, idf_v: Some(idf_v) },
    ] {
        let name = if matches!(loss, Loss::Bce { .. }) { "BCE" } else { "softmax" };
        let mut checks = Checks { all, of: format!("{name} [5, {v}] {kind:?}") };
        let logits =
            waves(&[5, v], 0.2, Kind::Float, device)?.f_mul_scalar(4.0)?.f_to_kind(kind)?;
        let leaf = copied(&logits.f_to_kind(Kind::Float)?)?.f_set_requires_grad(true)?;
        let expected = loss.sum(&leaf, &targets)?.f_div_scalar(2.5)?;
        expected.f_backward()?;
        let losses_b = kernels.loss(&logits, &targets, &loss, &divisor)?;
        let sum = losses_b.f_sum(Kind::Float)?;
        checks.add("loss", [&sum, &expected.f_detach()?], 5.0 * BOUND_F32)?;
        checks.add("back", [&logits, &leaf.f_grad()?], bound_of(kind))?;
    }
    Ok(())
}

fn ranges(
    kernels: &Kernels,
    [b, side_px]: [i64; 2],
    kind: Kind,
    device: Device,
    all: &mut Vec<Check>,
) -> Result<(), TchError> {
    let mut checks = Checks { all, of: format!("RangeAugment {b} × {side_px} px {kind:?}") };
    let rows = Rows::new(b as usize, side_px as usize, 3);
    let images_bchw = DeviceBatch::from_rows(&rows.host(), device)?.images_bchw;
    let pixels_bhwc = images_bchw.f_permute([0, 2, 3, 1])?.f_contiguous()?;
    let seeds: Vec<i64> = (0..b).map(|row| 77 - 1_000_003 * row).collect();
    let all_needs: Vec<i64> = seeds.iter().flat_map(|&seed| [seed, Needs::ALL]).collect();
    let images = NoisyImages {
        pixels_bhwc: &pixels_bhwc,
        seeds_and_needs_b2: &Tensor::f_from_slice(&all_needs)?.f_to_device(device)?,
    };
    let wide = |t: &Tensor| t.f_to_kind(Kind::Double);
    let of = |shape: &[i64], phase, kind| waves(shape, phase, kind, device);
    // A share of about 1 of the image, a little noise and shade.
    let about = Tensor::f_from_slice(&[1.0_f32, 0.0, 0.0, 0.0, 0.0])?.f_to_device(device)?;
    let mixes_b5 = of(&[b, 5], 0.4, Kind::Float)?.f_mul_scalar(0.2)?.f_add(&about)?;
    let pulls_b = of(&[b], 1.2, Kind::Float)?;
    let gradient_bhwc = of(&pixels_bhwc.size(), 2.2, kind)?;
    let sums_b23 = kernels.range_sums(images)?;
    let (mixed_bhwc, squares_b) = kernels.range_mix(images, &mixes_b5, kind)?;
    let of_mixes_b5 = kernels.range_back(&gradient_bhwc, images, &mixes_b5, &pulls_b)?;

    let x = wide(&pixels_bhwc)?.f_div_scalar(255.0)?;
    let noise_bchw = augment::normals(&seeds, &images_bchw.size(), device)?;
    let noise = wide(&noise_bchw)?.f_permute([0, 2, 3, 1])?;
    let over_pixels = |t: &Tensor| t.f_sum_dim_intlist([1, 2].as_slice(), false, Kind::Double);
    let sums = Tensor::f_stack(&[over_pixels(&x)?, over_pixels(&noise)?], 1)?;
    checks.add("sums", [&sums_b23, &sums], BOUND_F32)?;
    let leaf = wide(&mixes_b5)?.f_detach()?.f_set_requires_grad(true)?;
    let part = |from: i64, count: i64| leaf.f_narrow(1, from, count)?.f_view([b, 1, 1, count]);
    let mixed = x.f_mul(&part(0, 1)?)?.f_add(&noise.f_mul(&part(1, 1)?)?)?.f_add(&part(2, 3)?)?;
    let mixed = mixed.f_clamp(0.0, 1.0)?;
    let squares = mixed.f_sub(&x)?.f_square()?;
    let squares = squares.f_sum_dim_intlist([1, 2, 3].as_slice(), false, Kind::Double)?;
    let of_images = mixed.f_mul(&wide(&gradient_bhwc)?)?.f_sum(Kind::Double)?;
    let of_squares = squares.f_dot(&wide(&pulls_b)?)?.f_mul_scalar(0.5)?;
    of_images.f_add(&of_squares)?.f_backward()?;
    checks.add("images", [&mixed_bhwc, &mixed.f_detach()?], bound_of(kind))?;
    checks.add("squares", [&squares_b, &squares.f_detach()?], BOUND_F32)?;
    checks.add("back", [&of_mixes_b5, &leaf.f_grad()?], 2.0 * BOUND_F32)
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
