//! Several data sets in one stream: which of them a position takes from, and where there.
//!
//! In: the rows that each set offers and how many of them an epoch of the mix takes. Out: for a
//! position of the mixed epoch the set and the position in that set's own endless stream. Nothing
//! but arithmetic, so a cursor stays O(1). Never: a draw; a rank; a set that runs dry.
//!
//! Letters: N positions of a mixed epoch, n rows of it that one set gives.

use std::ops::Range;

/// What one data set gives to a mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its row groups in the selection.
    pub groups: Range<u32>,
    /// Rows that it offers: the length of an epoch of its own.
    pub rows: u64,
    /// Rows that each mixed epoch takes of it.
    pub takes: u64,
    /// K of its windows.
    pub window_groups: u32,
}

/// The data sets of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    shares: Vec<Share>,
    num_rows: u64,
}

/// A place in a set's own stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the sets.
    pub set: usize,
    /// Its own epoch.
    pub epoch: u64,
    /// The position in that epoch.
    pub position: u64,
}

impl Mix {
    /// A mix of `shares`, each of which offers and gives a row at least.
    pub fn new(shares: Vec<Share>) -> Self {
        let num_rows = shares.iter().map(|share| share.takes).sum();
        Self { shares, num_rows }
    }

    /// The sets.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// N.
    pub fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Rows that set `set` has given before `position` of a mixed epoch: within the number of sets
    /// of what its weight asks for at every position, and exactly n at the end.
    pub fn taken(&self, set: usize, position: u64) -> u64 {
        let (mut index, mut total) = (position, self.num_rows);
        for share in &self.shares[..set] {
            index -= part_of(index, share.takes, total);
            total -= share.takes;
        }
        part_of(index, self.shares[set].takes, total)
    }

    /// Where `position` of `epoch` takes its row.
    ///
    /// The first set takes ⌊i × n ÷ N⌋ of the first i positions; what it leaves is divided among
    /// the others in the same way.
    pub fn place(&self, epoch: u64, position: u64) -> Place {
        if let [only] = &self.shares[..]
            && only.takes == only.rows
        {
            return Place { set: 0, epoch, position };
        }
        let (mut index, mut total, mut set) = (position, self.num_rows, 0);
        loop {
            let takes = self.shares[set].takes;
            let before = part_of(index, takes, total);
            if part_of(index + 1, takes, total) > before || set + 1 == self.shares.len() {
                return self.own_place(set, epoch, before);
            }
            index -= before;
            total -= takes;
            set += 1;
        }
    }

    /// Where set `set` goes on at `position` of `epoch`, whoever is next.
    pub fn resume(&self, set: usize, epoch: u64, position: u64) -> Place {
        self.own_place(set, epoch, self.taken(set, position))
    }

    /// The mixed epoch and position at which `place` is read.
    pub fn position_of(&self, place: Place) -> (u64, u64) {
        let share = &self.shares[place.set];
        let count = place.epoch * share.rows + place.position;
        let (epoch, nth) = (count / share.takes, count % share.takes);
        // The first position before which more than `nth` were taken, less one.
        let (mut low, mut high) = (0, self.num_rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.taken(place.set, middle + 1) > nth {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        (epoch, low)
    }

    /// The epochs of set `set` that `epoch` reads of, or a part of.
    pub fn own_epochs(&self, set: usize, epoch: u64) -> Range<u64> {
        let Share { rows, takes, .. } = self.shares[set];
        epoch * takes / rows..((epoch + 1) * takes).div_ceil(rows)
    }

    /// Rows of set `set` in any run of `batch` positions, at most.
    pub fn share_of(&self, set: usize, batch: u32) -> u64 {
        let fair = part_of(u64::from(batch), self.shares[set].takes, self.num_rows.max(1));
        (fair + 1 + self.shares.len() as u64).min(batch.into())
    }

    fn own_place(&self, set: usize, epoch: u64, taken: u64) -> Place {
        let share = &self.shares[set];
        let count = epoch * share.takes + taken;
        Place { set, epoch: count / share.rows, position: count % share.rows }
    }
}

/// ⌊index × takes ÷ total⌋, 0 of nothing.
fn part_of(index: u64, takes: u64, total: u64) -> u64 {
    (u128::from(index) * u128::from(takes) / u128::from(total.max(1))) as u64
}

/// How many rows of each set an epoch takes: as many as there are in all, divided by weight to the
/// row (largest remainders); without weights each row once.
///
/// `None` if a weight is not a number above 0, or gives a set no row.
pub fn takes(rows: &[u64], weights: &[f64]) -> Option<Vec<u64>> {
    if weights.is_empty() {
        return rows.iter().all(|&n| n > 0).then(|| rows.to_vec());
    }
    let (total, sum) = (rows.iter().sum::<u64>(), weights.iter().sum::<f64>());
    if weights.len() != rows.len() || !weights.iter().all(|w| w.is_finite() && *w > 0.0) {
        return None;
    }
    let exact: Vec<f64> = weights.iter().map(|w| w / sum * total as f64).collect();
    let mut takes: Vec<u64> = exact.iter().map(|x| x.floor() as u64).collect();
    let mut by_remainder: Vec<usize> = (0..rows.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let left = total.saturating_sub(takes.iter().sum());
    for &set in by_remainder.iter().cycle().take(left as usize) {
        takes[set] += 1;
    }
    takes.iter().zip(rows).all(|(&n, &rows)| n > 0 && rows > 0).then_some(takes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mix(sets: &[(u64, u64)]) -> Mix {
        let share =
            |&(rows, takes): &(u64, u64)| Share { groups: 0..1, rows, takes, window_groups: 1 };
        Mix::new(sets.iter().map(share).collect())
    }

    #[test]
    fn the_schedule_is_pinned_by_the_order_version() {
        let mix = mix(&[(4, 5), (10, 3), (2, 2)]);
        let sets: Vec<_> = (0..10).map(|p| mix.place(0, p).set).collect();
        assert_eq!(sets, [2, 0, 1, 0, 2, 0, 1, 0, 1, 0]);
        assert_eq!(mix.place(1, 1), Place { set: 0, epoch: 1, position: 1 });
    }

    #[test]
    fn weights_are_kept_to_the_row() {
        assert_eq!(takes(&[100, 50], &[]), Some(vec![100, 50]));
        assert_eq!(takes(&[100, 50], &[1.0, 1.0]), Some(vec![75, 75]));
        assert_eq!(takes(&[10, 10, 12], &[1.0, 1.0, 1.0]), Some(vec![11, 11, 10]));
        assert_eq!(takes(&[10, 10], &[1.0, 0.0]), None);
        assert_eq!(takes(&[10, 10], &[1.0, f64::NAN]), None);
        assert_eq!(takes(&[10, 10], &[1.0]), None);
        assert_eq!(takes(&[10, 10], &[1.0, 1e-9]), None);
        assert_eq!(takes(&[10, 0], &[]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn each_set_is_walked_without_a_gap_and_close_to_its_weight(
            sets in prop::collection::vec((1u64..40, 1u64..40), 1..6), epochs in 1u64..4,
        ) {
            let mix = mix(&sets);
            let mut counts = vec![0u64; sets.len()];
            for epoch in 0..epochs {
                for position in 0..mix.num_rows() {
                    for (set, &count) in counts.iter().enumerate() {
                        prop_assert_eq!(epoch * sets[set].1 + mix.taken(set, position), count);
                        let fair = position as f64 * sets[set].1 as f64 / mix.num_rows() as f64;
                        let off = (mix.taken(set, position) as f64 - fair).abs();
                        prop_assert!(off < sets.len() as f64, "{off}");
                    }
                    let place = mix.place(epoch, position);
                    let count = &mut counts[place.set];
                    let rows = sets[place.set].0;
                    prop_assert_eq!((place.epoch, place.position), (*count / rows, *count % rows));
                    prop_assert_eq!(mix.position_of(place), (epoch, position));
                    prop_assert!(mix.own_epochs(place.set, epoch).contains(&place.epoch));
                    *count += 1;
                }
            }
            for (count, (_, takes)) in counts.iter().zip(&sets) {
                prop_assert_eq!(*count, takes * epochs);
            }
        }

        #[test]
        fn no_run_of_positions_takes_more_than_the_bound(
            sets in prop::collection::vec((1u64..40, 1u64..40), 1..6),
            at in 0u64..200, batch in 1u32..60,
        ) {
            let mix = mix(&sets);
            let begin = at % mix.num_rows();
            let end = (begin + u64::from(batch)).min(mix.num_rows());
            for set in 0..sets.len() {
                let taken = mix.taken(set, end) - mix.taken(set, begin);
                prop_assert!(taken <= mix.share_of(set, batch));
            }
        }
    }
}
