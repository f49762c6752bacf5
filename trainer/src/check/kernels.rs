//! Each kernel against ATen, most of it in float64.
//!
//! b images, n rows, d width.

use tch::{Device, Kind, TchError, Tensor};

use super::{BOUND_F32, Check, Rows, copied, off, waves};
use crate::augment::{self, Needs};
use crate::batch::DeviceBatch;
use crate::kernels::{Grid, Kernels, NoisyImages, NormBack, NormIds};
use crate::loss::Loss;
use crate::model::block::LAYER_NORM_EPS;

/// What bfloat16 may be off by: one rounding of eight bits, of the largest number.
const BOUND_BF16: f64 = 4.5e-3;
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
