//! Random draws as a function of what they are for.
//!
//! In: seed, epoch, and a number such as a sample's position. Out: a stream of draws that depends
//! on nothing else. Part of the order's version: a change raises `ORDER_VERSION`.

/// What a stream of draws decides; streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The order of parts in an epoch.
    Parts = 1,
    /// The order of row groups in a lane.
    Groups = 2,
    /// The order of samples in a window.
    Samples = 3,
    /// Crop and flip of the sample at a position.
    View = 4,
    /// The size of the step that begins at a position.
    StepSize = 5,
    /// Order and halves of the learned augmentation of the step that begins at a position.
    Augment = 6,
    /// Magnitudes and noise of the learned augmentation of the sample at a position.
    Magnitude = 7,
}

/// A stream of draws: SplitMix64 (Steele, Lea, Flood 2014) from a mixed key.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// The stream for `purpose` at (seed, epoch, a, b).
    pub fn new(purpose: Purpose, seed: u64, epoch: u64, a: u64, b: u64) -> Self {
        let key = [purpose as u64, seed, epoch, a, b];
        // Each word is added before mixing, so no two keys of equal length run together.
        Self(key.iter().fold(0x6361_746c_6970, |state, word| mix(state.wrapping_add(*word))))
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in 0 … `bound` − 1; the bias is below `bound` / 2^64. 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in [0, 1), of 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }

    /// Puts `items` in a random order (Fisher–Yates, from the end).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// The finaliser of SplitMix64: a bijection in which every bit depends on every bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_pinned_by_the_order_version() {
        let mut draws = Draws::new(Purpose::View, 1, 2, 3, 4);
        assert_eq!(draws.bits(), Draws::new(Purpose::View, 1, 2, 3, 4).bits());
        assert_ne!(draws.bits(), Draws::new(Purpose::Samples, 1, 2, 3, 4).bits());
        let mut items: Vec<u32> = (0..8).collect();
        Draws::new(Purpose::Samples, 0, 0, 0, 0).shuffle(&mut items);
        assert_eq!(items, [0, 5, 1, 4, 3, 6, 7, 2]);
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let mut draws = Draws::new(Purpose::Groups, 7, 0, 0, 0);
        let mut seen = [0u32; 5];
        (0..5000).for_each(|_| seen[draws.below(5) as usize] += 1);
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        assert!((0..1000).all(|_| (0.25..0.5).contains(&draws.between(0.25, 0.5))));
        assert_eq!(draws.below(0), 0);
    }
}
