//! RangeAugment: brightness, contrast and noise whose ranges are learned with the model.
//!
//! In: images in 0…1, the six raw scalars, draws. Out: images in 0…1 with a graph to the scalars,
//! and how far they are from the ones that came in: a loss that holds the ranges at a wanted
//! peak signal-to-noise ratio. Never: draws from a generator that has a state; position decides.
//!
//! catlip.md §2.4: the operations come in a random order in each step; each is applied to a random
//! half of the step's images; a magnitude is uniform between two ends, `low + u (high − low)`.
//!
//! b images, k of them that an operation changes, c 3, h w pixels.

use std::f64::consts::{PI, SQRT_2};
use std::ops::Range;

use catlip_pipeline::feed::draw::{Draws, Purpose};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use crate::batch::{Place, sent};
use crate::model::Weights;
use crate::model::params::{EntryId, Init, Layout};

/// Weight of the loss of the distance.
const LOSS_WEIGHT: f64 = 100.0;
/// Largest value of a pixel, in which distances are measured.
const PIXEL_MAX: f64 = 255.0;
/// An operation: its name, the raw ends at the start, the limits of the low end, those of the high
/// end.
type Operation = (&'static str, [f64; 2], [f64; 2], [f64; 2]);
/// Makes noise of a size from the seed of each row.
type Noise = dyn Fn(&[i64], &[i64], Device) -> Result<Tensor, TchError>;
const OPERATIONS: [Operation; 3] = [
    ("brightness", [0.5, 1.5], [0.1, 0.9], [1.1, 10.0]),
    ("contrast", [0.5, 1.5], [0.1, 0.9], [1.1, 10.0]),
    ("noise", [0.0, 0.1], [0.0, 5e-5], [1e-4, 1.0]),
];
const BRIGHTNESS: usize = 0;
const CONTRAST: usize = 1;
const NOISE: usize = 2;

/// The learned ends of the ranges among the weights.
#[derive(Clone, Debug)]
pub struct Ranges {
    ends: [[EntryId; 2]; 3],
}

/// How strong the augmentation is to be, and the seed of its draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangePlan {
    /// Wanted peak signal-to-noise ratio at the first step, in dB; and at the last one.
    pub psnr: [f64; 2],
    /// Steps from the one to the other.
    pub steps: u64,
    /// Seed of the run.
    pub seed: u64,
}

impl RangePlan {
    /// The wanted mean square distance at `step`, in squares of 0…255: half a cosine from the start
    /// to the end over the run.
    pub fn target_mse(&self, step: u64) -> f64 {
        let [start, end] = self.psnr.map(mse_of_psnr);
        let at = step.min(self.steps.saturating_sub(1)) as f64;
        let part = at / self.steps.max(1) as f64;
        end + 0.5 * (start - end) * (1.0 + (PI * part).cos())
    }
}

/// 40 dB are 6.5025, 20 dB are 650.25.
fn mse_of_psnr(psnr: f64) -> f64 {
    10_f64.powf((20.0 * PIXEL_MAX.log10() - psnr) / 10.0)
}

/// What is drawn for the rows of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeDraws {
    /// The operations in the order in which they are applied.
    pub order: [usize; 3],
    /// For each operation and row, whether it is applied.
    pub applied: [Vec<bool>; 3],
    /// For each operation and row, where in its range the magnitude lies, 0…1.
    pub units: [Vec<f32>; 3],
    /// For each row the seed of its noise.
    pub noise_seeds: Vec<i64>,
}

impl RangeDraws {
    /// The draws of a batch. Order and halves belong to the whole step, wherever its rows are;
    /// magnitudes and noise to the position of a sample.
    pub fn new(seed: u64, place: &Place) -> Self {
        let of_step = |b| Draws::new(Purpose::Augment, seed, place.epoch, place.step_start, b);
        let mut order = [BRIGHTNESS, CONTRAST, NOISE];
        of_step(0).shuffle(&mut order);
        let of_row = |position: u64, operation: usize| {
            Draws::new(Purpose::Magnitude, seed, place.epoch, position, operation as u64)
        };
        let in_step = |position: &u64| (position - place.step_start) as usize;
        Self {
            order,
            applied: [0, 1, 2].map(|operation: usize| {
                let half = random_half(of_step(1 + operation as u64), place.step_rows);
                place.positions.iter().map(|position| half[in_step(position)]).collect()
            }),
            units: [0, 1, 2].map(|operation| {
                let positions = place.positions.iter();
                positions.map(|&position| of_row(position, operation).unit() as f32).collect()
            }),
            noise_seeds: {
                let positions = place.positions.iter();
                positions.map(|&position| of_row(position, 1 + NOISE).bits() as i64).collect()
            },
        }
    }

    /// The draws of some of the rows.
    pub fn of(&self, rows: Range<usize>) -> Self {
        Self {
            order: self.order,
            applied: self.applied.each_ref().map(|applied| applied[rows.clone()].to_vec()),
            units: self.units.each_ref().map(|units| units[rows.clone()].to_vec()),
            noise_seeds: self.noise_seeds[rows].to_vec(),
        }
    }
}

/// Which of `count` are among the half of them that is drawn; at least one is.
fn random_half(mut draws: Draws, count: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..count).collect();
    draws.shuffle(&mut order);
    let mut is_drawn = vec![false; count];
    order.iter().take((count / 2).max(1)).for_each(|&at| is_drawn[at] = true);
    is_drawn
}

impl Ranges {
    /// Declares the six raw scalars.
    pub fn declare(layout: &mut Layout) -> Self {
        let ends = OPERATIONS.map(|(operation, raw, ..)| {
            [("_low", raw[0]), ("_high", raw[1])].map(|(end, raw)| {
                let name = format!("neural_augmentor.{operation}.{end}");
                layout.param(name, &[], Init::Constant(raw))
            })
        });
        Self { ends }
    }

    /// The two ends of an operation's range: each raw scalar squashed between its limits.
    fn range(&self, w: &Weights, operation: usize) -> Result<[Tensor; 2], TchError> {
        let (_, _, low, high) = OPERATIONS[operation];
        let end = |at: usize, [from, to]: [f64; 2]| {
            let raw = w.get(self.ends[operation][at]);
            raw.f_sigmoid()?.f_mul_scalar(to - from)?.f_add_scalar(from)
        };
        Ok([end(0, low)?, end(1, high)?])
    }

    /// The augmented images; noise comes from the seeds of the draws.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn augment(
        &self,
        w: &Weights,
        images_bchw: &Tensor,
        draws: &RangeDraws,
    ) -> Result<Tensor, TchError> {
        self.augment_with(w, images_bchw, draws, &normals)
    }

    /// The same with noise `[k, c, h, w]` made of seeds and its size by `noise`.
    fn augment_with(
        &self,
        w: &Weights,
        images_bchw: &Tensor,
        draws: &RangeDraws,
        noise: &Noise,
    ) -> Result<Tensor, TchError> {
        let device = images_bchw.device();
        let mut x = images_bchw.shallow_clone();
        for operation in draws.order {
            let applied = draws.applied[operation].iter().enumerate();
            let rows: Vec<usize> = applied.filter(|(_, a)| **a).map(|(row, _)| row).collect();
            if rows.is_empty() {
                continue;
            }
            let unit_k: Vec<f32> = rows.iter().map(|&row| draws.units[operation][row]).collect();
            let unit_k = sent(&Tensor::f_from_slice(&unit_k)?, device)?;
            let [low, high] = self.range(w, operation)?;
            let magnitude_k = unit_k.f_mul(&high.f_sub(&low)?)?.f_add(&low)?;
            let magnitude = magnitude_k.f_view([-1, 1, 1, 1])?;

            let rows_k: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let rows_k = sent(&Tensor::f_from_slice(&rows_k)?, device)?;
            let before = x.f_index_select(0, &rows_k)?;
            let after = match operation {
                BRIGHTNESS => before.f_mul(&magnitude)?,
                CONTRAST => {
                    let mean = before.f_mean_dim([2_i64, 3].as_slice(), true, Kind::Float)?;
                    // (1 − m) · mean + m · x
                    mean.f_lerp_tensor(&before, &magnitude)?
                }
                _ => {
                    let seeds: Vec<i64> = rows.iter().map(|&row| draws.noise_seeds[row]).collect();
                    let noise = noise(&seeds, &before.size(), device)?;
                    before.f_add(&noise.f_mul(&magnitude)?)?
                }
            };
            x = x.f_index_copy(0, &rows_k, &after)?;
        }
        x.f_clamp(0.0, 1.0)
    }
}

/// Sum over rows of the weighted loss of the distance between images and augmented images, whose
/// mean square is to be `target_mse`.
///
/// # Errors
///
/// What libtorch says, such as out of memory.
pub fn distance_loss_sum(
    images_bchw: &Tensor,
    augmented_bchw: &Tensor,
    weights_b: &Tensor,
    target_mse: f64,
) -> Result<Tensor, TchError> {
    let off = augmented_bchw.f_sub(images_bchw)?.f_mul_scalar(PIXEL_MAX)?;
    let mse_b = off.f_square()?.f_mean_dim([1_i64, 2, 3].as_slice(), false, Kind::Float)?;
    let target_b = mse_b.f_full_like(target_mse)?;
    let loss_b = mse_b.f_smooth_l1_loss(&target_b, Reduction::None, 1.0)?;
    loss_b.f_dot(weights_b)?.f_mul_scalar(LOSS_WEIGHT / (PIXEL_MAX * PIXEL_MAX))
}

/// Normal draws of `size`, whose first side is as long as `seeds`: number i of a row is a function
/// of its seed and i, the same on every device.
///
/// Counters go through SplitMix64's finaliser in int64, whose products wrap and whose shifts keep
/// the sign: masks take it off. 24 bits make a uniform number of −1…1 without its ends, and the
/// inverse of the error function a normal one.
fn normals(seeds: &[i64], size: &[i64], device: Device) -> Result<Tensor, TchError> {
    let numbers: i64 = size[1..].iter().product();
    let ints = (Kind::Int64, device);
    let seeds_b1 = sent(&Tensor::f_from_slice(seeds)?, device)?.f_unsqueeze(1)?;
    let step = 0x9e37_79b9_7f4a_7c15_u64 as i64;
    let counter = Tensor::f_arange_start(1, numbers + 1, ints)?.f_mul_scalar(step)?;
    let mut z = seeds_b1.f_add(&counter)?;
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9_u64), (27, 0x94d0_49bb_1331_11eb), (31, 1)] {
        let shifted = shifted_right(&z, shift)?;
        z = z.f_bitwise_xor_tensor_(&shifted)?.f_mul_scalar_(factor as i64)?;
    }
    let mut uniform = shifted_right(&z, 40)?.f_to_kind(Kind::Float)?;
    // 2⁻²³ (k + ½) − 1, exact in float32.
    let step = 1.0 / f64::from(1 << 23);
    _ = uniform.f_mul_scalar_(step)?.f_add_scalar_(0.5 * step - 1.0)?;
    uniform.f_erfinv_()?.f_mul_scalar_(SQRT_2)?.f_view(size)
}

/// Logical shift: zeros come in from the left.
fn shifted_right(z: &Tensor, bits: i64) -> Result<Tensor, TchError> {
    let mask = i64::MAX >> (bits - 1);
    z.f_bitwise_right_shift_tensor_scalar(bits)?.f_bitwise_and_(mask)
}

#[cfg(test)]
mod tests;
