//! The walk by kernels, emulated on the CPU, against autograd.

use super::*;
use crate::augment::{Augmentation, RangeDraws};
use crate::batch::{Place, unit_floats};
use crate::kernels::tests::emulated;
use crate::loss::{Loss, SparseTargets};
use crate::model::chain::{self, BlockForm, SparseLoss};
use crate::model::params;
use crate::model::{Groups, Pool, Precision, StemKind, VitPlan};

const LINEAR: VitPlan =
    VitPlan { stem: StemKind::Linear, patch_px: 8, ..VitPlan::corenet([64, 3, 2], 4, 10) };

fn form() -> KernelForm {
    KernelForm::new(emulated::kernels(3), Device::Cpu).unwrap()
}

/// Bytes `[b, c, h, w]`, of which the channels lie innermost.
fn bytes(b: i64, height: i64, width: i64) -> Tensor {
    let numbers = Tensor::arange(b * height * width * 3, (Kind::Int64, Device::Cpu));
    let bytes = (numbers.square() + numbers * 3).remainder(253).to_kind(Kind::Uint8);
    bytes.view([b, height, width, 3]).permute([0, 3, 1, 2])
}

fn targets(b: i64) -> SparseTargets {
    // Row i has i % 3 labels.
    let counts: Vec<i64> = (0..b).map(|row| row % 3).collect();
    let mut offsets = vec![0];
    counts.iter().for_each(|count| offsets.push(offsets[offsets.len() - 1] + count));
    let rows: Vec<i64> = (0..b).flat_map(|row| vec![row; counts[row as usize] as usize]).collect();
    let labels: Vec<i64> = (0..b)
        .flat_map(|row| (0..counts[row as usize]).map(move |at| (row + 4 * at) % 10))
        .collect();
    SparseTargets {
        rows_k: Tensor::from_slice(&rows),
        labels_k: Tensor::from_slice(&labels),
        offsets_b1: Tensor::from_slice(&offsets),
        weights_b: Tensor::arange(b, (Kind::Float, Device::Cpu)) * 0.25 + 0.5,
    }
}

/// Both losses, the gradient of each entry by name, or the value of a running one, and the entries
/// that were told of.
fn gradients(
    plan: VitPlan,
    images: &Tensor,
    precision: Precision,
    form: Option<&KernelForm>,
    loss: &Loss,
) -> (f64, Vec<(String, Tensor)>, Vec<usize>) {
    gradients_in(plan, images, precision, form, loss, None)
}

/// The same where BatchNorm normalises by groups.
fn gradients_in(
    plan: VitPlan,
    images: &Tensor,
    precision: Precision,
    form: Option<&KernelForm>,
    loss: &Loss,
    groups: Option<&Groups>,
) -> (f64, Vec<(String, Tensor)>, Vec<usize>) {
    let vit = Vit::new(plan);
    let mut weights = vit.init(3, Some(&[0.3; 10]), Device::Cpu).unwrap();
    if form.is_some() && precision == Precision::BFloat16 {
        weights.keep_narrow().unwrap();
    }
    let gradient = params::Gradient::attach(&weights).unwrap();
    gradient.zero().unwrap();
    let targets = targets(images.size()[0]);
    let divisor = Tensor::from_slice(&[1.5_f32]).squeeze();
    let of_labels = |logits: &Tensor| loss.sum(logits, &targets)?.f_div(&divisor);
    let sparse = SparseLoss { loss, targets: &targets, divisor: &divisor };
    let draws = RangeDraws::new(7, &Place::alone(0, 0, images.size()[0] as usize));
    let augmentation = vit.ranges().map(|ranges| Augmentation {
        ranges,
        draws: &draws,
        target_mse: 100.0,
        weights_b: &targets.weights_b,
        divisor: &divisor,
    });
    let objective = Objective { loss: &of_labels, sparse: Some(sparse), augmentation };
    let told = RefCell::new(Vec::new());
    let arrived = |id: EntryId| told.borrow_mut().push(id.index());
    let block_form = if form.is_some() { BlockForm::Fused } else { BlockForm::Plain };
    let walk = Walk {
        kernels: form,
        arrived: Some(&arrived),
        groups,
        ..Walk::plain(Pass::train(precision), block_form)
    };
    let losses = chain::backward(&vit, &weights, images, &objective, walk).unwrap();
    let found = weights.entries().map(|(entry, leaf)| {
        let is_running = entry.role == params::Role::Buffer;
        let numbers = if is_running { leaf.copy() } else { leaf.grad().copy() };
        (entry.name.clone(), numbers)
    });
    let of_images = losses.of_images.map_or(0.0, |loss| loss.double_value(&[]));
    (losses.of_labels.double_value(&[]) + of_images, found.collect(), told.into_inner())
}

fn off(found: &Tensor, expected: &Tensor) -> f64 {
    let largest = expected.abs().max().double_value(&[]).max(1e-20);
    (found - expected).abs().max().double_value(&[]) / largest
}

fn assert_like_autograd(plan: VitPlan, images: &Tensor, loss: &Loss) {
    assert_like_autograd_in(plan, images, loss, None);
}

fn assert_like_autograd_in(plan: VitPlan, images: &Tensor, loss: &Loss, groups: Option<&Groups>) {
    let of = |form| gradients_in(plan, images, Precision::Float32, form, loss, groups);
    let (expected_loss, expected, _) = of(None);
    let form = form();
    assert!(form.takes(&Vit::new(plan), Pass::train(Precision::Float32)));
    let (found_loss, found, told) = of(Some(&form));
    assert!((found_loss / expected_loss - 1.0).abs() < 1e-5, "{found_loss} {expected_loss}");
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        // Where a gradient is nothing but rounding, as of the keys' bias, nothing is compared.
        let off = off(found, expected);
        let is_noise = expected.abs().max().double_value(&[]) < 1e-7;
        assert!(is_noise || off < 5e-5, "{plan:?} {name}: off by {off:e}");
    }
    let mut once = told.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), told.len(), "a weight was told of twice");
}

fn bce() -> Loss {
    Loss::Bce { smoothing: 0.1 }
}

#[test]
fn gradients_of_bytes_through_the_linear_stem_are_autograds() {
    assert_like_autograd(LINEAR, &bytes(3, 16, 16), &bce());
}

#[test]
fn gradients_at_other_sizes_pass_through_resampled_positions() {
    assert_like_autograd(LINEAR, &bytes(2, 32, 48), &bce());
    let corenet = VitPlan::corenet([64, 2, 2], 4, 10);
    assert_like_autograd(corenet, &bytes(2, 48, 32), &bce());
}

#[test]
fn one_image_of_one_patch_without_a_label_has_its_gradients() {
    assert_like_autograd(LINEAR, &bytes(1, 8, 8), &bce());
}

#[test]
fn gradients_of_the_softmax_loss_are_autograds() {
    let loss = Loss::Softmax { smoothing: 0.1, idf_v: None };
    assert_like_autograd(LINEAR, &bytes(4, 16, 16), &loss);
}

#[test]
fn registers_pools_and_odd_widths_are_passed_too() {
    let mean = VitPlan { pool: Pool::Mean, summary: false, ..LINEAR };
    assert_like_autograd(mean, &bytes(2, 16, 16), &bce());
    let attention = VitPlan { pool: Pool::Attention, num_registers: 2, ..LINEAR };
    assert_like_autograd(attention, &bytes(2, 16, 16), &bce());
    let registers = VitPlan { num_registers: 3, ..LINEAR };
    assert_like_autograd(registers, &bytes(2, 16, 24), &bce());
    let odd = VitPlan { width: 36, num_heads: 3, hidden: 50, patch_px: 4, ..LINEAR };
    assert_like_autograd(VitPlan { depth: 1, ..odd }, &bytes(3, 8, 8), &bce());
}

#[test]
fn gradients_pass_through_the_stem_to_the_augmentation() {
    let corenet = VitPlan { range_augment: true, ..VitPlan::corenet([64, 2, 2], 4, 10) };
    for (b, height, width) in [(6, 32, 48), (1, 16, 16), (3, 32, 32)] {
        assert_like_autograd(corenet, &bytes(b, height, width), &bce());
    }
    let floats = unit_floats(&bytes(4, 32, 32)).unwrap();
    assert_like_autograd(corenet, &floats, &bce());
    // Stems that keep their graph.
    assert_like_autograd(VitPlan { range_augment: true, ..LINEAR }, &bytes(5, 16, 16), &bce());
    assert_like_autograd(VitPlan { patch_px: 8, ..corenet }, &bytes(3, 16, 32), &bce());
}

#[test]
fn batch_norm_of_groups_is_autograds() {
    let corenet = VitPlan { range_augment: true, ..VitPlan::corenet([64, 2, 2], 4, 10) };
    let alone = |_: &Tensor| Ok(());
    // As if another rank had the same rows.
    let twice = |tensor: &Tensor| tensor.shallow_clone().f_mul_scalar_(2.0).map(|_| ());
    let of = |groups: [&[i64]; 2], sum| Groups::new(groups[0], groups[1], Device::Cpu, sum);
    for groups in [
        of([&[0, 0, 0, 0, 0], &[5]], &alone),
        of([&[0, 0, 1, 1, 2], &[2, 2, 1]], &alone),
        // No row of the second group is here.
        of([&[0, 0, 0, 2, 2], &[6, 4, 4]], &twice),
    ] {
        let groups = groups.unwrap();
        for plan in [corenet, VitPlan { patch_px: 8, ..corenet }] {
            assert_like_autograd_in(plan, &bytes(5, 32, 16), &bce(), Some(&groups));
        }
    }
}

#[test]
fn float_images_pass_through_autograds_stem() {
    let floats = unit_floats(&bytes(2, 16, 16)).unwrap();
    assert_like_autograd(LINEAR, &floats, &bce());
}

#[test]
fn blocks_that_cannot_be_passed_by_hand_are_not_taken() {
    let gated = VitPlan { gated: true, ..LINEAR };
    assert!(!form().takes(&Vit::new(gated), Pass::train(Precision::Float32)));
    let normed = VitPlan { qk_norm: true, ..LINEAR };
    assert!(!form().takes(&Vit::new(normed), Pass::train(Precision::Float32)));
    assert_like_autograd_in_loss(gated);
}

/// The walk then takes another form.
fn assert_like_autograd_in_loss(plan: VitPlan) {
    let images = bytes(2, 16, 16);
    let of = |form| gradients(plan, &images, Precision::Float32, form, &bce()).0;
    assert!((of(Some(&form())) / of(None) - 1.0).abs() < 1e-6);
}

#[test]
fn bfloat16_is_as_near_float32_as_autograds_bfloat16() {
    let images = bytes(3, 16, 16);
    let corenet = VitPlan { stem: StemKind::Corenet, patch_px: 16, ..LINEAR };
    for plan in [LINEAR, corenet, VitPlan { range_augment: true, ..corenet }] {
        let of = |precision, form: Option<&KernelForm>| {
            let (loss, found, _) = gradients(plan, &images, precision, form, &bce());
            let flat: Vec<Tensor> = found.iter().map(|(_, t)| t.flatten(0, -1)).collect();
            (loss, Tensor::cat(&flat, 0))
        };
        let (loss, expected) = of(Precision::Float32, None);
        let far = |(found_loss, found): (f64, Tensor)| {
            assert!((found_loss / loss - 1.0).abs() < 0.02, "{found_loss} {loss}");
            ((found - &expected).norm() / expected.norm()).double_value(&[])
        };
        let of_autograd = far(of(Precision::BFloat16, None));
        let of_kernels = far(of(Precision::BFloat16, Some(&form())));
        assert!(of_kernels < 1.3 * of_autograd + 1e-3, "{of_kernels} {of_autograd}");
    }
}

#[test]
fn the_order_of_threads_changes_no_bit() {
    let images = bytes(2, 16, 16);
    let of = |kernels| {
        let form = KernelForm::new(kernels, Device::Cpu).unwrap();
        gradients(LINEAR, &images, Precision::BFloat16, Some(&form), &bce())
    };
    let (loss, found, _) = of(emulated::kernels(3));
    let (other_loss, other, _) = of(emulated::reversed(3));
    assert_eq!(loss, other_loss);
    for ((name, a), (_, b)) in found.iter().zip(&other) {
        assert!(a.equal(b), "{name}");
    }
}
