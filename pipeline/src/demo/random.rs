//! Random draws that depend on a key and a count, never on a thread or a platform.
//!
//! In: a seed and a path of numbers (part, scene, attempt). Out: [`Draws`], a stream of its own
//! for that path. Never: state that is shared between scenes.

/// Weyl constant of SplitMix64: 2⁶⁴ divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One stream: draw `n` is a function of the key and `n`.
#[derive(Clone, Debug)]
pub struct Draws {
    key: u64,
    count: u64,
}

impl Draws {
    /// The stream of `path` under `seed`; streams of different paths are unrelated.
    pub fn new(seed: u64, path: &[u64]) -> Self {
        let key = path.iter().fold(scramble(seed.wrapping_add(GOLDEN)), |key, &step| {
            scramble(key ^ scramble(step.wrapping_add(GOLDEN)).wrapping_mul(GOLDEN))
        });
        Self { key, count: 0 }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        scramble(self.key.wrapping_add(self.count.wrapping_mul(GOLDEN)))
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform in [`low`, `high`).
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0 … `n` − 1, biased by at most `n` ÷ 2⁶⁴.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "no number is below 0");
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// One of `choices`.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// The index of one of `weights`, with a probability proportional to it.
    pub fn weighted(&mut self, weights: &[f32]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f32>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights.len() - 1
    }

    /// Fisher–Yates.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            let other = self.below(last + 1);
            all.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_repeats_and_its_neighbours_differ() {
        let take = |seed, path: &[u64]| {
            let mut draws = Draws::new(seed, path);
            [draws.bits(), draws.bits()]
        };
        assert_eq!(take(1, &[2, 3]), take(1, &[2, 3]));
        assert_ne!(take(1, &[2, 3]), take(2, &[2, 3]));
        assert_ne!(take(1, &[2, 3]), take(1, &[3, 2]));
        assert_ne!(take(1, &[2]), take(1, &[2, 0]));
    }

    #[test]
    fn draws_are_spread_evenly() {
        let mut draws = Draws::new(7, &[]);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[draws.below(10)] += 1;
        }
        // Standard deviation of a count: √(100 000 × 0.1 × 0.9) = 95; five of them are 475.
        assert!(counts.iter().all(|&n| n.abs_diff(10_000) < 475), "{counts:?}");
        let mean = (0..100_000).map(|_| f64::from(draws.unit())).sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
    }

    #[test]
    fn a_weight_of_zero_is_never_drawn() {
        let mut draws = Draws::new(7, &[]);
        assert!((0..1000).all(|_| draws.weighted(&[0.0, 1.0, 0.0]) == 1));
    }
}
