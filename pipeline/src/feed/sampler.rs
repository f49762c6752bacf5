//! How many images a step takes, and how large.
//!
//! In: seed, epoch, and the position at which a step begins. Out: its [`StepSize`]. Never: counts
//! steps, so that a feed can begin anywhere; depends on a rank.

use super::draw::{Draws, Purpose};

/// The images of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepSize {
    /// Side of the square images in px.
    pub side_px: u32,
    /// Positions of the global stream, over all ranks.
    pub batch: u32,
}

impl StepSize {
    /// Bytes of one image, RGB.
    pub fn image_bytes(self) -> usize {
        self.side_px as usize * self.side_px as usize * 3
    }
}

/// What the variable batch sampler is made from (corenet `variable_batch_sampler.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariableSizes {
    /// The side at which a step takes `batch` images; other sides take as many pixels.
    pub base: StepSize,
    /// Smallest side.
    pub min_px: u32,
    /// Largest side.
    pub max_px: u32,
    /// Sides between them, ends included, before they are rounded.
    pub num_scales: u32,
    /// Every side is a multiple of this.
    pub multiple_px: u32,
    /// Equal shares that a step is made of. The reference rounds the batch of each of its 64 GPUs;
    /// a run with fewer or more ranks takes the same steps by saying 64 here.
    pub shares: u32,
}

/// Draws the size of each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSampler {
    sizes: Vec<StepSize>,
    seed: u64,
}

impl BatchSampler {
    /// Every step takes `batch` images of `side_px`.
    pub fn fixed(side_px: u32, batch: u32) -> Self {
        Self { sizes: vec![StepSize { side_px, batch }], seed: 0 }
    }

    /// Each step takes one of several sizes, all equally likely, with nearly equally many pixels.
    pub fn variable(from: &VariableSizes, seed: u64) -> Self {
        let shares = from.shares.max(1);
        let base_pixels =
            f64::from(from.base.side_px).powi(2) * f64::from(from.base.batch / shares);
        let mut sizes: Vec<_> = sides(from)
            .into_iter()
            .map(|side_px| {
                let batch = cut_at_cents(base_pixels / f64::from(side_px).powi(2)).max(1);
                StepSize { side_px, batch: batch * shares }
            })
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        Self { sizes, seed }
    }

    /// The size of the step that begins at `position` of `epoch`.
    pub fn at(&self, epoch: u64, position: u64) -> StepSize {
        let mut draws = Draws::new(Purpose::StepSize, self.seed, epoch, position, 0);
        self.sizes[draws.below(self.sizes.len() as u64) as usize]
    }

    /// Every size that a step may have, by rising side.
    pub fn sizes(&self) -> &[StepSize] {
        &self.sizes
    }

    /// The step with the most images.
    pub fn largest_batch(&self) -> u32 {
        self.sizes.iter().map(|size| size.batch).max().unwrap_or(0)
    }

    /// Images of a step, on average.
    pub fn mean_batch(&self) -> f64 {
        let sum: u64 = self.sizes.iter().map(|size| u64::from(size.batch)).sum();
        sum as f64 / self.sizes.len().max(1) as f64
    }
}

/// The sides: evenly spaced, with the base among them, each rounded to a multiple.
fn sides(from: &VariableSizes) -> Vec<u32> {
    let last = f64::from(from.num_scales.max(2) - 1);
    let (low, high) = (f64::from(from.min_px), f64::from(from.max_px));
    (0..from.num_scales.max(1))
        .map(|i| low + f64::from(i) * (high - low) / last)
        .chain([f64::from(from.base.side_px)])
        .map(|side| rounded(side, from.multiple_px.max(1)))
        .collect()
}

/// The nearest multiple, half up; one more if that is more than a tenth too small.
fn rounded(side: f64, multiple: u32) -> u32 {
    let down = ((side + f64::from(multiple) / 2.0) as u32 / multiple * multiple).max(multiple);
    if f64::from(down) < 0.9 * side { down + multiple } else { down }
}

/// Rounds to two decimals, then cuts them off: so 2.997 is 3 and 2.99 is 2.
fn cut_at_cents(value: f64) -> u32 {
    let whole = value.trunc();
    whole as u32 + u32::from(value - whole > 0.995)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catlip(batch: u32, shares: u32) -> BatchSampler {
        let from = VariableSizes {
            base: StepSize { side_px: 224, batch },
            min_px: 128,
            max_px: 320,
            num_scales: 25,
            multiple_px: 16,
            shares,
        };
        BatchSampler::variable(&from, 7)
    }

    fn batches(sampler: &BatchSampler) -> Vec<u32> {
        sampler.sizes().iter().map(|size| size.batch).collect()
    }

    /// The table of the reference's three pre-training recipes.
    #[test]
    fn sizes_are_those_of_the_reference() {
        let sides: Vec<_> = catlip(1024, 1).sizes().iter().map(|size| size.side_px).collect();
        assert_eq!(sides, (8..=20).map(|n| n * 16).collect::<Vec<_>>());
        assert_eq!(
            batches(&catlip(1024, 1)),
            [3136, 2477, 2007, 1658, 1393, 1187, 1024, 892, 784, 694, 619, 555, 501]
        );
        assert_eq!(
            batches(&catlip(512, 1)),
            [1568, 1238, 1003, 829, 696, 593, 512, 446, 392, 347, 309, 277, 250]
        );
        assert_eq!(
            batches(&catlip(256, 1)),
            [784, 619, 501, 414, 348, 296, 256, 223, 196, 173, 154, 138, 125]
        );
    }

    #[test]
    fn fine_tuning_rounds_sides_to_32() {
        let from = VariableSizes {
            base: StepSize { side_px: 1024, batch: 2 },
            min_px: 512,
            max_px: 1280,
            num_scales: 25,
            multiple_px: 32,
            shares: 1,
        };
        let sampler = BatchSampler::variable(&from, 0);
        assert_eq!(sampler.sizes().len(), 25);
        assert_eq!(sampler.sizes()[0], StepSize { side_px: 512, batch: 8 });
        assert_eq!(sampler.sizes()[24], StepSize { side_px: 1280, batch: 1 });
    }

    #[test]
    fn the_shares_of_64_gpus_make_83333_images_a_step() {
        let sampler = catlip(65_536, 64);
        assert_eq!(sampler.sizes()[1], StepSize { side_px: 144, batch: 2477 * 64 });
        assert!((sampler.mean_batch() - 83_332.9).abs() < 0.1, "{}", sampler.mean_batch());
    }

    #[test]
    fn all_sizes_come_equally_often_and_depend_on_epoch_and_position_alone() {
        let sampler = catlip(1024, 1);
        let mut counts = [0u32; 13];
        for position in 0..13_000 {
            let size = sampler.at(0, position);
            assert_eq!(size, sampler.clone().at(0, position));
            counts[sampler.sizes().iter().position(|s| *s == size).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (880..1120).contains(count)), "{counts:?}");
        assert!((0..100).any(|position| sampler.at(0, position) != sampler.at(1, position)));
    }

    #[test]
    fn a_fixed_size_is_drawn_every_time() {
        let sampler = BatchSampler::fixed(224, 256);
        assert!((0..100).all(|p| sampler.at(3, p) == StepSize { side_px: 224, batch: 256 }));
    }
}
