//! RangeAugment: brightness, contrast and noise whose ranges are learned with the model.
//!
//! In: images in 0…1, the six raw scalars, draws. Out: images in 0…1 with a graph to the scalars,
//! and how far they are from the ones that came in: a loss that holds the ranges at a wanted
//! peak signal-to-noise ratio. Never: draws from a generator that has a state; position decides.
//!
//! catlip.md §2.4: the operations come in a random order in each step; each is applied to a random
//! half of the step's images; a magnitude is uniform between two ends, `low + u (high − low)`. In
//! any order they make of an image a share of it, a share of noise and a shade of each colour, so
//! that is what is found first, from the means of image and noise, and then mixed in one pass.
//!
//! b images, k of them with noise, c 3, h w pixels.

use std::f64::consts::{PI, SQRT_2};
use std::ops::Range;

use catlip_pipeline::feed::draw::{Draws, Purpose};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use crate::batch::{Place, sent};
use crate::model::Weights;
use crate::model::params::{EntryId, Init, Layout};

/// Weight of the loss of the distance.
const LOSS_WEIGHT: f64 = 100.0;
/// Largest value of a pixel, in which distances are measured, and its square.
const PIXEL_MAX: f64 = 255.0;
pub(crate) const SQUARE_MAX: f64 = PIXEL_MAX * PIXEL_MAX;
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

    /// Of each row the seed of its noise, and which of [`Needs`] kernels have to make.
    pub fn seeds_and_needs(&self) -> Vec<i64> {
        let place = |operation| self.order.iter().position(|&at| at == operation);
        let noise_is_first = place(NOISE) < place(CONTRAST);
        let need = |is_needed: bool, need: Needs| if is_needed { need as i64 } else { 0 };
        let of_row = |row: usize| {
            let [contrast, noise] = [CONTRAST, NOISE].map(|at| self.applied[at][row]);
            let needs = need(contrast, Needs::ImageMean)
                | need(contrast && noise && noise_is_first, Needs::NoiseMean)
                | need(noise, Needs::Noise);
            [self.noise_seeds[row], needs]
        };
        (0..self.noise_seeds.len()).flat_map(of_row).collect()
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

/// What an image needs, in bits, as augment.cu has them.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// The mean of its pixels.
    ImageMean = 1,
    /// The mean of its noise.
    NoiseMean = 2,
    /// Its noise.
    Noise = 4,
}

impl Needs {
    /// All of them.
    pub(crate) const ALL: i64 =
        Self::ImageMean as i64 | Self::NoiseMean as i64 | Self::Noise as i64;
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

    /// What the draws mix images by, `[b, 5]`, with a graph to the scalars: the share of the image,
    /// that of its noise, and a shade of each colour, by the means of both, `[b, 3]`. The mean of
    /// an image or of noise counts only where [`RangeDraws::seeds_and_needs`] has a need of it.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn mixes(
        &self,
        w: &Weights,
        draws: &RangeDraws,
        [of_image_b3, of_noise_b3]: [&Tensor; 2],
    ) -> Result<Tensor, TchError> {
        let device = of_image_b3.device();
        // Apart: above 64 KB a copy of what is not page-locked waits for the device.
        let to_device =
            |drawn: Vec<f32>| sent(&Tensor::f_from_slice(&drawn)?, device)?.f_view([3, -1, 1]);
        let units = to_device(draws.units.concat())?;
        let applied = draws.applied.iter().flatten().map(|&applied| f32::from(u8::from(applied)));
        let applied = to_device(applied.collect())?;
        let mut image_b1 = applied.f_get(0)?.f_ones_like()?;
        let mut noise_b1 = image_b1.f_zeros_like()?;
        let mut shade_b3 = of_image_b3.f_zeros_like()?;
        for operation in draws.order {
            let at = operation as i64;
            let [low, high] = self.range(w, operation)?;
            let magnitude_b1 = units.f_get(at)?.f_mul(&high.f_sub(&low)?)?.f_add(&low)?;
            let applied_b1 = applied.f_get(at)?;
            if operation == NOISE {
                noise_b1 = noise_b1.f_add(&magnitude_b1.f_mul(&applied_b1)?)?;
                continue;
            }
            // 1 where it is not applied.
            let factor_b1 =
                magnitude_b1.f_sub_scalar(1.0)?.f_mul(&applied_b1)?.f_add_scalar(1.0)?;
            shade_b3 = if operation == CONTRAST {
                let of_image = of_image_b3.f_mul(&image_b1)?;
                let mean_b3 = of_noise_b3.f_mul(&noise_b1)?.f_add(&of_image)?.f_add(&shade_b3)?;
                // (1 − m) · mean + m · shade
                mean_b3.f_lerp_tensor(&shade_b3, &factor_b1)?
            } else {
                shade_b3.f_mul(&factor_b1)?
            };
            image_b1 = image_b1.f_mul(&factor_b1)?;
            noise_b1 = noise_b1.f_mul(&factor_b1)?;
        }
        Tensor::f_cat(&[image_b1, noise_b1, shade_b3], 1)
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
        let (_, c, height, width) = images_bchw.size4()?;
        let device = images_bchw.device();
        let mean = |x: &Tensor| x.f_mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
        let of_image_b3 = mean(images_bchw)?;
        let noisy = (0_i64..).zip(&draws.applied[NOISE]).filter(|(_, applied)| **applied);
        let rows_k: Vec<i64> = noisy.map(|(row, _)| row).collect();
        if rows_k.is_empty() {
            let no_noise = of_image_b3.f_zeros_like()?;
            let mixes_b5 = self.mixes(w, draws, [&of_image_b3, &no_noise])?;
            return shaded(images_bchw, &mixes_b5)?.f_clamp(0.0, 1.0);
        }
        let seeds: Vec<i64> = rows_k.iter().map(|&row| draws.noise_seeds[row as usize]).collect();
        let noise_kchw = noise(&seeds, &[rows_k.len() as i64, c, height, width], device)?;
        let rows_k = sent(&Tensor::f_from_slice(&rows_k)?, device)?;
        let of_noise_b3 =
            of_image_b3.f_zeros_like()?.f_index_copy(0, &rows_k, &mean(&noise_kchw)?)?;
        let mixes_b5 = self.mixes(w, draws, [&of_image_b3, &of_noise_b3])?;
        let share_k = mixes_b5.f_select(1, 1)?.f_index_select(0, &rows_k)?.f_view([-1, 1, 1, 1])?;
        let mixed = shaded(images_bchw, &mixes_b5)?;
        mixed.f_index_add(0, &rows_k, &noise_kchw.f_mul(&share_k)?)?.f_clamp(0.0, 1.0)
    }
}

/// The shares of the images, and their shades.
fn shaded(images_bchw: &Tensor, mixes_b5: &Tensor) -> Result<Tensor, TchError> {
    let part =
        |from: i64, count: i64| mixes_b5.f_narrow(1, from, count)?.f_unsqueeze(2)?.f_unsqueeze(3);
    images_bchw.f_mul(&part(0, 1)?)?.f_add(&part(2, 3)?)
}

/// The augmentation of some rows, and what it is to reach.
#[derive(Clone, Copy, Debug)]
pub struct Augmentation<'a> {
    /// The learned ranges.
    pub ranges: &'a Ranges,
    /// What is drawn for the rows.
    pub draws: &'a RangeDraws,
    /// Wanted mean square distance, in squares of 0…255.
    pub target_mse: f64,
    /// Weight of each row.
    pub weights_b: &'a Tensor,
    /// What the sum of losses over rows is divided by.
    pub divisor: &'a Tensor,
}

impl Augmentation<'_> {
    /// The augmented images and the loss of their distance, both with a graph to the scalars.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn apply(&self, w: &Weights, images_bchw: &Tensor) -> Result<[Tensor; 2], TchError> {
        let augmented_bchw = self.ranges.augment(w, images_bchw, self.draws)?;
        let loss = self.loss(&distances_mse(images_bchw, &augmented_bchw)?)?;
        Ok([augmented_bchw, loss])
    }

    /// The loss of mean square distances, `[b]`, in squares of 0…255.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn loss(&self, mse_b: &Tensor) -> Result<Tensor, TchError> {
        let target_b = mse_b.f_full_like(self.target_mse)?;
        let loss_b = mse_b.f_smooth_l1_loss(&target_b, Reduction::None, 1.0)?;
        let sum = loss_b.f_dot(self.weights_b)?.f_mul_scalar(LOSS_WEIGHT / SQUARE_MAX)?;
        sum.f_div(self.divisor)
    }
}

/// Mean square distances of images, `[b]`, in squares of 0…255.
fn distances_mse(images_bchw: &Tensor, augmented_bchw: &Tensor) -> Result<Tensor, TchError> {
    let squares = augmented_bchw.f_sub(images_bchw)?.f_square()?;
    squares.f_mean_dim([1_i64, 2, 3].as_slice(), false, Kind::Float)?.f_mul_scalar(SQUARE_MAX)
}

/// Normal draws of `size`, whose first side is as long as `seeds`: number i of a row is a function
/// of its seed and i, the same on every device.
///
/// Counters go through SplitMix64's finaliser in int64, whose products wrap and whose shifts keep
/// the sign: masks take it off. 24 bits make a uniform number of −1…1 without its ends, and the
/// inverse of the error function a normal one.
pub(crate) fn normals(seeds: &[i64], size: &[i64], device: Device) -> Result<Tensor, TchError> {
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
