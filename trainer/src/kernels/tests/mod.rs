//! The kernels against ATen, on the CPU, and what NVRTC says of their text.
//!
//! Each launch runs twice, threads and blocks from the first on and from the last, and must give
//! the same bits: what differs lacks a barrier. Memory around what a kernel may touch holds NaN, or
//! is compared afterwards.

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::loss::{Loss, SparseTargets};
use crate::model::block::LAYER_NORM_EPS;

mod compiled;
pub mod emulated;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
/// Numbers before and behind a guarded tensor; odd, so that alignment differs too.
const GUARD: i64 = 24;

/// A matrix of waves with memory around it that shows whether it was touched.
struct Guarded {
    all: Tensor,
    inside: Tensor,
}

impl Guarded {
    /// Copies `tensor` into guarded memory, `shift` numbers from where all is aligned.
    fn new(tensor: &Tensor, shift: i64) -> Self {
        let numbers = tensor.numel() as i64;
        let all = Tensor::full(numbers + 2 * GUARD, f64::NAN, (tensor.kind(), Device::Cpu));
        let inside = all.narrow(0, GUARD - shift, numbers).view(&tensor.size()[..]);
        inside.shallow_clone().copy_(tensor);
        Self { all, inside }
    }

    /// Asserts that only the tensor itself was written.
    fn assert_untouched(&self) {
        let nans = self.all.isnan().sum(Kind::Int64).int64_value(&[]);
        let inside = self.inside.isnan().sum(Kind::Int64).int64_value(&[]);
        assert_eq!((nans, inside), (2 * GUARD, 0), "memory around a tensor was written");
    }
}

/// Numbers around 0 without a pattern that rows share.
fn waves(shape: &[i64], phase: f64) -> Tensor {
    let numbers: i64 = shape.iter().product();
    let at = Tensor::arange(numbers, (Kind::Double, Device::Cpu));
    let waves = (&at * 0.7313 + phase).sin() + (at * 0.01171 + 2.0 * phase).cos() * 0.5;
    waves.to_kind(Kind::Float).view(shape)
}

/// The largest difference over the largest number.
fn off(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    if found.numel() == 0 {
        return 0.0;
    }
    let [found, expected] = [found, expected].map(|t| t.to_kind(Kind::Double));
    let largest = expected.abs().max().double_value(&[]).max(1e-30);
    let off = (found - expected).abs().max().double_value(&[]);
    if off.is_nan() { f64::INFINITY } else { off / largest }
}

#[track_caller]
fn assert_near(what: &str, found: &Tensor, expected: &Tensor, bound: f64) {
    let off = off(found, expected);
    assert!(off <= bound, "{what} of {:?} is off by {off:e}, bound {bound:e}", found.size());
}

/// By how much numbers of `kind` may differ, where float32 is computed and rounded once.
fn bound(kind: Kind) -> f64 {
    if kind == Kind::Float { 2e-6 } else { 4.5e-3 }
}

/// Runs `work` with few blocks and with many, in both orders; all must give the same bits where
/// blocks are as many. Gives what the first gave.
fn both_orders(work: impl Fn(&Kernels) -> Vec<Tensor>) -> Vec<Tensor> {
    let first = work(&emulated::kernels(3));
    for other in [work(&emulated::reversed(3))] {
        for (at, (a, b)) in first.iter().zip(&other).enumerate() {
            assert!(a.equal(b), "result {at} depends on the order of threads");
        }
    }
    for (at, (a, b)) in first.iter().zip(work(&emulated::kernels(40))).enumerate() {
        assert_near(&format!("result {at} with more blocks"), &b, a, 1e-2);
    }
    first
}

fn kinds() -> [Kind; 2] {
    [Kind::Float, Kind::BFloat16]
}

#[test]
fn every_kernel_that_is_named_is_there() {
    for kernel in FILES.iter().flat_map(|file| file.kernels) {
        assert!(emulated::has(kernel), "{kernel}");
    }
    assert!(!emulated::has("absent"));
}

#[test]
fn a_launch_with_other_arguments_than_the_kernels_is_refused() {
    let kernels = emulated::kernels(1);
    let tensor = Tensor::zeros([3], CPU);
    let arguments = [Argument::Tensor(&tensor), Argument::Index(3)];
    // SAFETY: the emulation looks at the arguments' kinds before it runs anything.
    let refused = unsafe { kernels.launch("verdict", [1, 1], 32, &arguments) };
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("verdict is called with pi, it takes piffp"), "{message}");
    // SAFETY: as before.
    let refused = unsafe { kernels.launch("absent", [1, 1], 32, &[]) };
    assert!(refused.unwrap_err().to_string().contains("no kernel is called absent"));
}

// --- norms --------------------------------------------------------------------------------------

/// Norm and way back of `n` rows, all in float64, by autograd. `narrow_nd` is what is added.
fn norm_reference(
    x_nd: &Tensor,
    added_nd: Option<&Tensor>,
    [w, b]: [&Tensor; 2],
    pull: &Tensor,
) -> [Tensor; 4] {
    let wide = |t: &Tensor| t.to_kind(Kind::Double);
    let x = wide(x_nd).set_requires_grad(true);
    let total = match added_nd {
        Some(added) => &x + wide(added),
        None => &x * 1.0,
    };
    let [w, b] = [w, b].map(|t| wide(t).set_requires_grad(true));
    let width = [x_nd.size()[1]];
    let normed = total.layer_norm(&width[..], Some(&w), Some(&b), LAYER_NORM_EPS, false);
    (&normed * wide(pull)).sum(Kind::Double).backward();
    [normed.detach(), x.grad(), w.grad(), b.grad()]
}

fn check_norm(n: i64, d: i64, kind: Kind, shift: i64, is_added: bool) {
    let x = Guarded::new(&(waves(&[n, d], 0.3) * 2.0 + 0.7), shift);
    let added = is_added.then(|| Guarded::new(&waves(&[n, d], 1.1).to_kind(kind), shift));
    let weight = Guarded::new(&(waves(&[d], 0.9) + 1.0), 0);
    let bias = Guarded::new(&waves(&[d], 1.9), 0);
    let pull = waves(&[n, d], 2.7).to_kind(kind);
    let stream = waves(&[n, d], 3.1);
    let added_nd = added.as_ref().map(|added| &added.inside);
    let ids = NormIds { weight: &weight.inside, bias: &bias.inside };
    let results = both_orders(|kernels| {
        let made = kernels.add_norm(&x.inside, added_nd, ids, LAYER_NORM_EPS, kind).unwrap();
        let Normed { total_nd, normed_nd, mean_n, rstd_n } = made;
        let total_nd = total_nd.unwrap_or_else(|| x.inside.shallow_clone());
        let gradient = Guarded::new(&pull, shift);
        let stream = Guarded::new(&stream, shift);
        let sums = [0.5, 0.25, 0.125].map(|start| Tensor::full([d], start, CPU));
        let back = NormBack {
            x_nd: &total_nd,
            statistics_n: [&mean_n, &rstd_n],
            norm: ids,
            of_norm: NormIds { weight: &sums[0], bias: &sums[1] },
            of_bias: Some(&sums[2]),
        };
        let narrow = kernels.norm_back(&gradient.inside, &stream.inside, back).unwrap();
        [&gradient, &stream].iter().for_each(|guarded| guarded.assert_untouched());
        let [of_weight, of_bias, of_stream] = sums;
        vec![normed_nd, gradient.inside, stream.inside, narrow, of_weight, of_bias, of_stream]
    });
    [&x, &weight, &bias].iter().for_each(|guarded| guarded.assert_untouched());
    let [normed, again, of_stream, narrow, of_weight, of_bias, of_next] =
        <[Tensor; 7]>::try_from(results).unwrap();
    let vectors = [&weight.inside, &bias.inside];
    let expected = norm_reference(&x.inside, added_nd, vectors, &pull);
    // A row of a number or two has nearly no deviation to divide by.
    let near = if d < 8 { 2e-4 } else { 4e-6 };
    assert_near("norm", &normed, &expected[0], bound(kind).max(near));
    assert!(again.equal(&normed), "the norm is not computed again to the bit");
    let wide = |t: &Tensor| t.to_kind(Kind::Double);
    assert_near("stream", &of_stream, &(wide(&stream) + &expected[1]), near);
    assert!(narrow.equal(&of_stream.to_kind(kind)), "the stream is not rounded to the bit");
    assert_near("weight", &of_weight, &(&expected[2] + 0.5), near.max(1e-5));
    assert_near("bias", &of_bias, &(&expected[3] + 0.25), near.max(1e-5));
    let sum = wide(&narrow).sum_dim_intlist([0].as_slice(), false, Kind::Double) + 0.125;
    assert_near("bias behind", &of_next, &sum, 1e-5);
}

#[test]
fn norms_of_the_models_widths_are_atens() {
    for kind in kinds() {
        for d in [192, 768, 1280] {
            check_norm(4, d, kind, 0, true);
        }
        check_norm(1, 5120, kind, 0, false);
    }
}

#[test]
fn norms_of_rows_that_lie_apart_are_those_of_their_copies() {
    let tokens = waves(&[4, 7, 24], 0.2);
    let (weight, bias) = (waves(&[24], 0.1) + 1.0, waves(&[24], 0.4));
    let ids = NormIds { weight: &weight, bias: &bias };
    let kernels = emulated::kernels(2);
    let apart = tokens.select(1, 0);
    let found = kernels.add_norm(&apart, None, ids, LAYER_NORM_EPS, Kind::BFloat16).unwrap();
    let dense = apart.contiguous();
    let expected = kernels.add_norm(&dense, None, ids, LAYER_NORM_EPS, Kind::BFloat16).unwrap();
    assert!(found.normed_nd.equal(&expected.normed_nd) && found.mean_n.equal(&expected.mean_n));
}

// --- GELU ---------------------------------------------------------------------------------------

fn check_gelu(n: i64, f: i64, kind: Kind, shift: i64) {
    let hidden = (waves(&[n, f], 0.6) * 3.0).to_kind(kind);
    let pull = waves(&[n, f], 1.7).to_kind(kind);
    let results = both_orders(|kernels| {
        let [hidden, pull] = [&hidden, &pull].map(|t| Guarded::new(t, shift));
        let active = kernels.gelu(&hidden.inside).unwrap();
        let of_bias = Tensor::full([f], 0.5, CPU);
        kernels.gelu_back(&hidden.inside, &pull.inside, &of_bias).unwrap();
        [&hidden, &pull].iter().for_each(|guarded| guarded.assert_untouched());
        vec![active, hidden.inside, pull.inside, of_bias]
    });
    let wide = hidden.to_kind(Kind::Double).set_requires_grad(true);
    let active = wide.gelu("none");
    (&active * pull.to_kind(Kind::Double)).sum(Kind::Double).backward();
    assert_near("GELU", &results[0], &active.detach(), bound(kind));
    assert!(results[1].equal(&results[0]), "GELU is not computed again to the bit");
    assert_near("gradient", &results[2], &wide.grad(), bound(kind));
    let sum = results[2].sum_dim_intlist([0].as_slice(), false, Kind::Double) + 0.5;
    assert_near("bias", &results[3], &sum, 1e-5);
}

#[test]
fn gelu_of_the_models_widths_is_atens() {
    for kind in kinds() {
        check_gelu(20, 768, kind, 0);
        check_gelu(1, 5120, kind, 0);
    }
}

#[test]
fn gelu_far_from_zero_is_the_number_or_nothing() {
    for kind in kinds() {
        let x = Tensor::from_slice(&[-80.0_f32, -8.0, -0.0, 0.0, 8.0, 80.0]).to_kind(kind);
        let found = emulated::kernels(1).gelu(&x).unwrap();
        let expected = [0.0, -0.0, 0.0, 0.0, 8.0, 80.0].map(|x: f32| f64::from(x));
        for (at, expected) in expected.into_iter().enumerate() {
            let found = found.double_value(&[at as i64]);
            assert!((found - expected).abs() < 1e-6, "{kind:?} {at}: {found}");
        }
    }
}

// --- sums ---------------------------------------------------------------------------------------

fn check_columns(n: i64, f: i64, kind: Kind, shift: i64) {
    let matrix = Guarded::new(&waves(&[n, f], 0.8).to_kind(kind), shift);
    let results = both_orders(|kernels| {
        let out = Guarded::new(&Tensor::full([f], 0.5, CPU), shift);
        kernels.column_sum(&matrix.inside, &out.inside).unwrap();
        out.assert_untouched();
        vec![out.inside]
    });
    let sum = matrix.inside.sum_dim_intlist([0].as_slice(), false, Kind::Double) + 0.5;
    assert_near("column sums", &results[0], &sum, 1e-5);
}

/// Attention's gradients in the layout of a back end: tokens outside of heads, or not.
fn heads([b, a, t, k]: [i64; 4], phase: f64, kind: Kind, is_inside: bool) -> Tensor {
    let numbers = waves(&[b * a * t * k], phase).to_kind(kind);
    match is_inside {
        true => numbers.view([b, a, t, k]),
        false => numbers.view([b, t, a, k]).transpose(1, 2),
    }
}

fn check_heads(shape: [i64; 4], parts: usize, kind: Kind, is_inside: bool) {
    let [b, a, t, k] = shape;
    let tensors: Vec<Tensor> =
        (0..parts).map(|at| heads(shape, at as f64, kind, is_inside)).collect();
    let columns = parts as i64 * a * k;
    let results = both_orders(|kernels| {
        let out = Guarded::new(&Tensor::zeros([columns], CPU), 0);
        let borrowed: Vec<&Tensor> = tensors.iter().collect();
        let packed = kernels.pack_heads(&borrowed, &out.inside).unwrap();
        out.assert_untouched();
        vec![packed, out.inside]
    });
    let rows: Vec<Tensor> =
        tensors.iter().map(|part| part.transpose(1, 2).reshape([b * t, a * k])).collect();
    let expected = Tensor::cat(&rows, 1);
    assert!(results[0].equal(&expected), "{shape:?}, {parts} parts");
    let sum = expected.sum_dim_intlist([0].as_slice(), false, Kind::Double);
    assert_near("sums of heads", &results[1], &sum, 1e-5);
}

#[test]
fn heads_are_packed_as_attention_takes_them() {
    for kind in kinds() {
        for is_inside in [false, true] {
            check_heads([2, 3, 5, 64], 3, kind, is_inside);
            check_heads([3, 12, 1, 64], 1, kind, is_inside);
            check_heads([1, 2, 7, 20], 2, kind, is_inside);
            check_heads([2, 3, 3, 5], 3, kind, is_inside);
        }
    }
}

// --- pixels and tokens ---------------------------------------------------------------------------

fn check_patchify(b: i64, grid: [i64; 2], p: i64, kind: Kind) {
    let (height, width) = (grid[0] * p, grid[1] * p);
    let bytes = Tensor::arange(b * height * width * 3, (Kind::Int64, Device::Cpu));
    let bytes = bytes.square().remainder(253).to_kind(Kind::Uint8).view([b, height, width, 3]);
    let results = both_orders(|kernels| vec![kernels.patchify(&bytes, p, kind).unwrap()]);
    let images = bytes.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
    // An identity of a convolution gives the patches as its weight sees them.
    let eye = Tensor::eye(3 * p * p, CPU).view([3 * p * p, 3, p, p]);
    let expected = images.conv2d(&eye, None::<&Tensor>, [p, p], [0, 0], [1, 1], 1);
    let expected = expected.flatten(2, 3).transpose(1, 2).reshape([-1, 3 * p * p]);
    assert_near("patches", &results[0], &expected.to_kind(kind), bound(kind));
}

#[test]
fn patches_are_those_of_a_convolution() {
    for kind in kinds() {
        check_patchify(2, [2, 3], 16, kind);
        check_patchify(1, [1, 2], 14, kind);
        check_patchify(3, [2, 1], 4, kind);
    }
}

fn check_tokens(b: i64, shape: Grid, kind: Kind, shift: i64) {
    let Grid { num_prefix, num_grid, width: d } = shape;
    let t = num_prefix + num_grid;
    let grid = Guarded::new(&waves(&[b * num_grid, d], 0.4).to_kind(kind), shift);
    let positions = Guarded::new(&waves(&[num_grid, d], 1.4), shift);
    let prefix = Guarded::new(&waves(&[num_prefix, d], 2.4), shift);
    let pull = Guarded::new(&waves(&[b, t, d], 3.4), shift);
    let results = both_orders(|kernels| {
        let tokens =
            kernels.tokens(&grid.inside, &positions.inside, &prefix.inside, shape).unwrap();
        let (of_grid, sums) = kernels.tokens_back(&pull.inside, num_prefix, kind).unwrap();
        vec![tokens, of_grid, sums]
    });
    let placed = grid.inside.view([b, num_grid, d]).to_kind(Kind::Float) + &positions.inside;
    let before = prefix.inside.unsqueeze(0).expand([b, -1, -1], false);
    assert!(results[0].equal(&Tensor::cat(&[before, placed], 1)), "tokens");
    let of_grid = pull.inside.narrow(1, num_prefix, num_grid).reshape([-1, d]).to_kind(kind);
    assert!(results[1].equal(&of_grid), "gradient of the grid");
    let sums = pull.inside.sum_dim_intlist([0].as_slice(), false, Kind::Double);
    assert_near("sums over images", &results[2], &sums, 1e-5);
}

#[test]
fn tokens_are_put_together_and_taken_apart() {
    for kind in kinds() {
        check_tokens(3, Grid { num_prefix: 1, num_grid: 9, width: 64 }, kind, 0);
        check_tokens(20, Grid { num_prefix: 5, num_grid: 4, width: 24 }, kind, 0);
        check_tokens(1, Grid { num_prefix: 0, num_grid: 3, width: 20 }, kind, 0);
        check_tokens(2, Grid { num_prefix: 3, num_grid: 2, width: 13 }, kind, 1);
    }
}

// --- losses --------------------------------------------------------------------------------------

/// Targets of rows with so many labels each.
fn targets(counts: &[i64], v: i64) -> SparseTargets {
    let mut offsets = vec![0_i64];
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for (row, &count) in (0..).zip(counts) {
        let mut own: Vec<i64> = (0..count).map(|at| (at * 7 + row * 3 + at * at) % v).collect();
        own.sort_unstable();
        own.dedup();
        rows.extend(own.iter().map(|_| row));
        labels.extend(own);
        offsets.push(labels.len() as i64);
    }
    let weights: Vec<f32> = (0..counts.len()).map(|row| [1.0, 0.5, 0.0][row % 3]).collect();
    SparseTargets {
        rows_k: Tensor::from_slice(&rows),
        labels_k: Tensor::from_slice(&labels),
        offsets_b1: Tensor::from_slice(&offsets),
        weights_b: Tensor::from_slice(&weights),
    }
}

fn check_loss(loss: &Loss, targets: &SparseTargets, logits: &Tensor, shift: i64) {
    let kind = logits.kind();
    let divisor = Tensor::from_slice(&[2.5_f32]);
    let results = both_orders(|kernels| {
        let logits = Guarded::new(logits, shift);
        let losses = kernels.loss(&logits.inside, targets, loss, &divisor).unwrap();
        logits.assert_untouched();
        vec![logits.inside, losses]
    });
    let leaf = logits.to_kind(Kind::Float).detach().copy().set_requires_grad(true);
    let sum = loss.sum(&leaf, targets).unwrap() / 2.5;
    sum.backward();
    let total = results[1].sum(Kind::Double);
    let expected = sum.detach().to_kind(Kind::Double);
    let near = 2e-5 * expected.abs().double_value(&[]).max(1e-3);
    let off_loss = (total - &expected).abs().double_value(&[]);
    assert!(off_loss < near, "the loss is off by {off_loss:e} of {expected:?}");
    assert_near("gradient of the logits", &results[0], &leaf.grad(), bound(kind));
}

fn losses(v: i64) -> [Loss; 4] {
    let idf_v = (waves(&[v], 0.3) + 1.0).clamp_min(0.0);
    [
        Loss::Bce { smoothing: 0.0 },
        Loss::Bce { smoothing: 0.1 },
        Loss::Softmax { smoothing: 0.0, idf_v: Some(idf_v) },
        Loss::Softmax { smoothing: 0.2, idf_v: None },
    ]
}

#[test]
fn losses_of_many_labels_and_of_none_are_those_of_loss_rs() {
    for kind in kinds() {
        for v in [24_320, 1003] {
            let targets = targets(&[4, 0, 9, 700, 1], v);
            let logits = (waves(&[5, v], 0.2) * 4.0 - 2.0).to_kind(kind);
            for loss in losses(v) {
                check_loss(&loss, &targets, &logits, 0);
            }
        }
        let none = targets(&[0], 10);
        for loss in losses(10) {
            check_loss(&loss, &none, &waves(&[1, 10], 0.5).to_kind(kind), 0);
        }
    }
}

#[test]
fn a_label_that_a_row_has_twice_counts_twice() {
    let targets = SparseTargets {
        rows_k: Tensor::from_slice(&[0_i64, 0, 0]),
        labels_k: Tensor::from_slice(&[2_i64, 5, 2]),
        offsets_b1: Tensor::from_slice(&[0_i64, 3]),
        weights_b: Tensor::from_slice(&[1.0_f32]),
    };
    for loss in losses(9) {
        check_loss(&loss, &targets, &waves(&[1, 9], 0.5), 0);
    }
}

#[test]
fn rows_of_a_part_find_their_labels() {
    let all = targets(&[2, 3, 0, 4], 11);
    let logits = waves(&[4, 11], 0.5);
    let kernels = emulated::kernels(2);
    let loss = Loss::Bce { smoothing: 0.0 };
    let divisor = Tensor::from_slice(&[1.0_f32]);
    let whole = logits.copy();
    _ = kernels.loss(&whole, &all, &loss, &divisor).unwrap();
    let part = logits.narrow(0, 1, 3).copy();
    let first = all.offsets_b1.int64_value(&[1]);
    let of_part = SparseTargets {
        rows_k: all.rows_k.narrow(0, first, all.rows_k.size()[0] - first) - 1,
        labels_k: all.labels_k.narrow(0, first, all.rows_k.size()[0] - first),
        offsets_b1: all.offsets_b1.narrow(0, 1, 4),
        weights_b: all.weights_b.narrow(0, 1, 3),
    };
    _ = kernels.loss(&part, &of_part, &loss, &divisor).unwrap();
    assert!(part.equal(&whole.narrow(0, 1, 3)));
}

#[test]
fn logits_that_are_no_numbers_give_a_loss_that_is_none() {
    for loss in losses(40) {
        let logits = waves(&[2, 40], 0.5);
        _ = logits.get(1).get(3).fill_(f64::NAN);
        let kernels = emulated::kernels(2);
        let divisor = Tensor::from_slice(&[1.0_f32]);
        let losses = kernels.loss(&logits, &targets(&[1, 2], 40), &loss, &divisor).unwrap();
        assert!(losses.double_value(&[0]).is_finite() && losses.double_value(&[1]).is_nan());
    }
}

// --- the update ----------------------------------------------------------------------------------

#[test]
fn the_norm_is_atens_and_tells_what_is_no_number() {
    for numbers in [1, 7, 4096, 100_003] {
        let gradient = waves(&[numbers], 0.2) * 3.0;
        let results = both_orders(|kernels| vec![kernels.verdict(&gradient, 1.0, 1e-6).unwrap()]);
        let norm = gradient.to_kind(Kind::Double).norm().double_value(&[]);
        let found = Vec::<f32>::try_from(&results[0]).unwrap();
        assert!((f64::from(found[0]) / norm - 1.0).abs() < 1e-6, "{found:?}, {norm}");
        assert_eq!(found[1], 1.0);
        assert!((f64::from(found[2]) - (1.0 / (norm + 1e-6)).min(1.0)).abs() < 1e-6);
    }
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let gradient = Tensor::from_slice(&[1.0, poison, 2.0]);
        let verdict = emulated::kernels(1).verdict(&gradient, 1.0, 1e-6).unwrap();
        let found = Vec::<f32>::try_from(&verdict).unwrap();
        assert!(!found[0].is_finite(), "{poison}");
        assert_eq!(found[1..], [0.0, 0.0], "{poison}");
    }
}

#[test]
fn without_a_limit_nothing_is_clipped() {
    let verdict = emulated::kernels(1).verdict(&Tensor::from_slice(&[30.0_f32, 40.0]), 0.0, 1e-6);
    assert_eq!(Vec::<f32>::try_from(&verdict.unwrap()).unwrap(), [50.0, 1.0, 1.0]);
}

fn norm_case() -> impl Strategy<Value = (i64, i64, bool, i64, bool)> {
    (1_i64..40, 1_i64..300, any::<bool>(), 0_i64..3, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn norms_of_any_shape_are_atens((n, d, is_f32, shift, is_added) in norm_case()) {
        check_norm(n, d, kinds()[usize::from(!is_f32)], shift, is_added);
    }

    #[test]
    fn gelu_of_any_shape_is_atens(n in 1_i64..60, f in 1_i64..600, at in 0..2, shift in 0_i64..3) {
        check_gelu(n, f, kinds()[at as usize], shift);
    }

    #[test]
    fn column_sums_of_any_shape_are_atens(
        n in 1_i64..200, f in 1_i64..600, at in 0..2, shift in 0_i64..3,
    ) {
        check_columns(n, f, kinds()[at as usize], shift);
    }

    #[test]
    fn heads_of_any_shape_are_packed(
        (b, a, t, k) in (1_i64..4, 1_i64..4, 1_i64..9, 1_i64..20),
        parts in 1_usize..4, at in 0..2, is_inside in any::<bool>(),
    ) {
        check_heads([b, a, t, k], parts, kinds()[at as usize], is_inside);
    }

    #[test]
    fn tokens_of_any_shape_are_placed(
        (b, p, g, d) in (1_i64..20, 0_i64..4, 1_i64..9, 1_i64..40), at in 0..2, shift in 0_i64..3,
    ) {
        let shape = Grid { num_prefix: p, num_grid: g, width: d };
        check_tokens(b, shape, kinds()[at as usize], shift);
    }

    #[test]
    fn losses_of_any_rows_are_those_of_loss_rs(
        counts in prop::collection::vec(0_i64..6, 1..7), v in 6_i64..400, at in 0..2,
        shift in 0_i64..3, loss in 0_usize..4,
    ) {
        let logits = waves(&[counts.len() as i64, v], 0.2) * 3.0;
        let logits = logits.to_kind(kinds()[at as usize]);
        check_loss(&losses(v)[loss], &targets(&counts, v), &logits, shift);
    }
}
