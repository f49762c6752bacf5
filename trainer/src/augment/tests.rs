//! Numbers of PyTorch, statistics of the draws, and who decides them.

use super::*;
use crate::model::params::Gradient;
use serde_json::Value;

/// What PyTorch gives; made by `golden/make_models.py`.
fn golden() -> Value {
    let all: Value = serde_json::from_str(include_str!("../../golden/models.json")).unwrap();
    all["range_augment"].clone()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn weights() -> (Ranges, Weights) {
    let mut layout = Layout::default();
    let ranges = Ranges::declare(&mut layout);
    (ranges, Weights::init(&layout.place(), 0, Device::Cpu).unwrap())
}

fn sines(size: [i64; 4], step: f64) -> Tensor {
    let numel: i64 = size.iter().product();
    let values: Vec<f32> =
        (0..numel).map(|i| (0.5 + 0.5 * (step * i as f64).sin()) as f32).collect();
    Tensor::from_slice(&values).view(size)
}

#[test]
fn images_loss_and_gradients_are_those_of_torch() {
    for case in golden()["cases"].as_array().unwrap() {
        let (ranges, weights) = weights();
        let _gradient = Gradient::attach(&weights).unwrap();
        let images = sines([4, 3, 6, 5], 0.37);
        let draws = RangeDraws {
            order: numbers(&case["order"]),
            applied: numbers(&case["applied"]),
            units: numbers(&case["units"]),
            noise_seeds: vec![0, 1, 2, 3],
        };
        // The noise of the golden numbers: sines whose phase is the row.
        let noise = |seeds: &[i64], size: &[i64], _| {
            let numel: i64 = size[1..].iter().product();
            let values: Vec<f32> = seeds
                .iter()
                .flat_map(|seed| (0..numel).map(move |i| (0.9 * i as f64 + *seed as f64).sin()))
                .map(|value| value as f32)
                .collect();
            Ok(Tensor::from_slice(&values).view(size))
        };
        let augmented = ranges.augment_with(&weights, &images, &draws, &noise).unwrap();
        let expected: Vec<f64> = numbers(&case["augmented"]);
        let off = (augmented.detach().view([-1]) - Tensor::from_slice(&expected)).abs().max();
        assert!(off.double_value(&[]) < 1e-6, "images are off by {off:?}");

        let weights_b = Tensor::ones([4], (Kind::Float, Device::Cpu));
        let augmentation = Augmentation {
            ranges: &ranges,
            draws: &draws,
            target_mse: case["target_mse"].as_f64().unwrap(),
            weights_b: &weights_b,
            divisor: &Tensor::from(4.0_f32),
        };
        let loss = augmentation.loss(&distances_mse(&images, &augmented).unwrap()).unwrap();
        let expected = case["loss"].as_f64().unwrap();
        assert!((loss.double_value(&[]) / expected - 1.0).abs() < 1e-5, "loss {loss:?}");
        loss.backward();
        let gradients: Vec<f64> = numbers(&case["gradients"]);
        for ((entry, leaf), expected) in weights.entries().zip(gradients) {
            let found = leaf.grad().double_value(&[]);
            let off = (found - expected).abs();
            assert!(off < 1e-4 * expected.abs() + 1e-7, "{}: {found} {expected}", entry.name);
        }
    }
}

#[test]
fn the_curriculum_is_that_of_the_reference() {
    let plan = RangePlan { psnr: [40.0, 20.0], steps: 11, seed: 0 };
    let expected: Vec<f64> = numbers(&golden()["curriculum"]);
    for (step, expected) in (0..).zip(expected) {
        let found = plan.target_mse(step);
        assert!((found / expected - 1.0).abs() < 1e-12, "step {step}: {found} {expected}");
    }
    assert_eq!(plan.target_mse(10), plan.target_mse(500));
}

#[test]
fn the_ranges_at_the_start_are_those_of_the_reference() {
    let (ranges, weights) = weights();
    let range = |at| ranges.range(&weights, at).unwrap().map(|end| end.double_value(&[]));
    let near = |[a, b]: [f64; 2], [c, d]: [f64; 2]| {
        (a / c - 1.0).abs() < 1e-3 && (b / d - 1.0).abs() < 1e-3
    };
    assert!(near(range(BRIGHTNESS), [0.598, 8.376]));
    assert!(near(range(CONTRAST), [0.598, 8.376]));
    assert!(near(range(NOISE), [2.5e-5, 0.525]));
}

fn place(positions: Range<u64>) -> Place {
    Place { epoch: 2, step_start: 100, step_rows: 64, positions: positions.collect() }
}

#[test]
fn a_sample_is_augmented_alike_on_any_rank() {
    let whole = RangeDraws::new(7, &place(100..164));
    let share = RangeDraws::new(7, &place(116..132));
    assert_eq!(whole.of(16..32), share);
    assert_ne!(RangeDraws::new(8, &place(100..164)), whole);
}

#[test]
fn each_operation_changes_half_of_a_step_and_of_one_image_all() {
    let draws = RangeDraws::new(7, &place(100..164));
    let counts = draws.applied.map(|applied| applied.iter().filter(|a| **a).count());
    assert_eq!(counts, [32, 32, 32]);
    let one = Place { epoch: 0, step_start: 5, step_rows: 1, positions: vec![5] };
    assert_eq!(RangeDraws::new(7, &one).applied, [[true], [true], [true]]);
}

#[test]
fn every_order_comes() {
    let order = |start| {
        let place = Place { step_start: start, positions: vec![start], ..place(0..0) };
        RangeDraws::new(1, &place).order
    };
    let orders: std::collections::BTreeSet<_> = (0..64).map(order).collect();
    assert_eq!(orders.len(), 6);
}

#[test]
fn noise_is_normal_and_a_function_of_its_seed() {
    let size = [2, 3, 100, 100];
    let noise = normals(&[3, -4], &size, Device::Cpu).unwrap();
    let again = normals(&[-4], &[1, 3, 100, 100], Device::Cpu).unwrap();
    assert_eq!(noise.narrow(0, 1, 1), again);
    assert!(noise.isfinite().all().int64_value(&[]) == 1);
    let moments = [1, 2, 3, 4]
        .map(|power| noise.pow_tensor_scalar(power).mean(Kind::Double).double_value(&[]));
    for (moment, (expected, near)) in
        moments.into_iter().zip([(0.0, 0.02), (1.0, 0.02), (0.0, 0.05), (3.0, 0.15)])
    {
        assert!((moment - expected).abs() < near, "{moments:?}");
    }
    let next = noise.narrow(3, 1, 99) * noise.narrow(3, 0, 99);
    assert!(next.mean(Kind::Double).double_value(&[]).abs() < 0.02, "neighbours are correlated");
}
