//! The global stream of positions: its steps, and whose share of a step a rank has.
//!
//! In: rows on offer, layout, sampler, ranks. Out: where each step begins and how large it is; all
//! by arithmetic, the same for every rank. Never: reads a file; knows how far a feed is.

use std::sync::Arc;

use super::draw::{Draws, Purpose};
use super::mix::{Mix, Place, Share, takes};
use super::order::{Layout, Order};
use super::sampler::{BatchSampler, StepSize};
use super::selection::Selection;

/// What becomes of the last positions of an epoch that do not fill a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastBatch {
    /// They are left out; the next epoch's order is another.
    Drop,
    /// The batch is filled up with slots of weight zero.
    Pad,
}

/// The rows that one data set of several offers.
#[derive(Clone, Debug)]
pub struct SetRows {
    /// The rows.
    pub selection: Selection,
    /// Parts of the data set, with those that offer nothing.
    pub num_parts: usize,
    /// K of its windows.
    pub window_groups: u32,
}

/// Everything that decides which rows make a step, and nothing else.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The rows on offer, of all sets.
    pub selection: Arc<Selection>,
    /// How several data sets take turns.
    pub mix: Arc<Mix>,
    /// Lanes and seed; each set of the mix has windows of its own.
    pub layout: Layout,
    /// How many images each step takes, over all ranks, and how large.
    pub sampler: BatchSampler,
    /// The last batch of an epoch.
    pub last_batch: LastBatch,
    /// Ranks, and which one this is: it delivers the positions whose lane mod ranks is its own.
    pub world_size: u32,
    /// This rank.
    pub rank: u32,
}

impl Stream {
    /// The stream of one data set, as one rank of one reads it.
    pub fn of_one(selection: Selection, layout: Layout, sampler: BatchSampler) -> Self {
        let rows = selection.num_rows();
        let window_groups = match layout {
            Layout::Sequential => 1,
            Layout::Shuffled { window_groups, .. } => window_groups,
        };
        let groups = 0..selection.groups().len() as u32;
        let mix = Mix::new(vec![Share { groups, rows, takes: rows, window_groups }]);
        Self {
            selection: Arc::new(selection),
            mix: Arc::new(mix),
            layout,
            sampler,
            last_batch: LastBatch::Drop,
            world_size: 1,
            rank: 0,
        }
    }

    /// The stream of several data sets by weight; without weights each row comes once an epoch.
    ///
    /// `None` if a weight is not a number above 0, or gives a set no row; or a set offers none.
    pub fn of_sets(
        sets: Vec<SetRows>,
        weights: &[f64],
        layout: Layout,
        sampler: BatchSampler,
    ) -> Option<Self> {
        let rows: Vec<u64> = sets.iter().map(|set| set.selection.num_rows()).collect();
        let takes = takes(&rows, weights)?;
        let (mut shares, mut first) = (Vec::new(), 0);
        for ((set, rows), takes) in sets.iter().zip(rows).zip(takes) {
            let end = first + set.selection.groups().len() as u32;
            let window_groups = set.window_groups;
            shares.push(Share { groups: first..end, rows, takes, window_groups });
            first = end;
        }
        let sets = sets.into_iter().map(|set| (set.selection, set.num_parts)).collect();
        let all = Self::of_one(Selection::join(sets), layout, sampler);
        Some(Self { mix: Arc::new(Mix::new(shares)), ..all })
    }

    /// The order of a set of the mix in an epoch of its own.
    pub fn order(&self, set: usize, epoch: u64) -> Order {
        let share = &self.mix.shares()[set];
        let layout = match self.layout {
            Layout::Sequential => Layout::Sequential,
            Layout::Shuffled { seed, lanes, .. } => {
                let window_groups = share.window_groups;
                Layout::Shuffled { seed: set_seed(seed, set), lanes, window_groups }
            }
        };
        let groups = share.groups.start as usize..share.groups.end as usize;
        let order = Order::new(&self.selection.groups()[groups], layout, epoch);
        order.numbered_from(share.groups.start)
    }

    /// L.
    pub fn num_lanes(&self) -> u32 {
        match self.layout {
            Layout::Sequential => 1,
            Layout::Shuffled { lanes, .. } => lanes.max(1),
        }
    }

    /// Positions of an epoch.
    pub fn num_rows(&self) -> u64 {
        self.mix.num_rows()
    }

    /// Where a position takes its row, if this rank delivers it.
    pub fn mine(&self, epoch: u64, position: u64) -> Option<Place> {
        let place = self.mix.place(epoch, position);
        let lane = place.position % u64::from(self.num_lanes());
        (lane % u64::from(self.world_size.max(1)) == u64::from(self.rank)).then_some(place)
    }

    /// Whether this rank has the slot at a position behind the end of an epoch.
    pub fn pads(&self, position: u64) -> bool {
        let lane = position % u64::from(self.num_lanes());
        lane % u64::from(self.world_size.max(1)) == u64::from(self.rank)
    }

    /// The step that begins at `position` of `epoch`, unless the epoch ends there.
    pub fn step_at(&self, epoch: u64, position: u64) -> Option<StepSize> {
        let left = self.num_rows().saturating_sub(position);
        let size = self.sampler.at(epoch, position);
        let fills = match self.last_batch {
            LastBatch::Drop => left >= u64::from(size.batch),
            LastBatch::Pad => left > 0,
        };
        fills.then_some(size)
    }

    /// The steps of `epoch` from `position` on, each with the position at which it begins.
    pub fn steps_from(
        &self,
        epoch: u64,
        mut position: u64,
    ) -> impl Iterator<Item = (u64, StepSize)> + '_ {
        std::iter::from_fn(move || {
            let size = self.step_at(epoch, position)?;
            let begin = position;
            position += u64::from(size.batch);
            Some((begin, size))
        })
    }

    /// Steps of an epoch.
    pub fn steps_in(&self, epoch: u64) -> u64 {
        self.steps_from(epoch, 0).count() as u64
    }

    /// Steps of so many epochs, which need not be whole.
    pub fn steps_of_epochs(&self, epochs: f64) -> u64 {
        let whole = epochs.trunc() as u64;
        let steps: u64 = (0..whole).map(|epoch| self.steps_in(epoch)).sum();
        let part = epochs.fract();
        // Nothing to walk where nothing is asked for.
        let rest = if part > 0.0 { self.steps_in(whole) as f64 * part } else { 0.0 };
        steps + rest.round() as u64
    }

    /// The most images and bytes of a step that fall to one rank.
    ///
    /// A rank reads ⌈L ÷ W⌉ of L lanes at most, and each lane has ⌈n ÷ L⌉ of the n positions that a
    /// step takes of a set in a row. A set that begins a new epoch within a step begins a new row.
    pub fn rank_share_max(&self) -> (usize, usize) {
        let lanes = u64::from(self.num_lanes());
        let lanes_of_rank = lanes.div_ceil(u64::from(self.world_size.max(1)));
        let shares = self.mix.shares();
        let share = |size: &StepSize| {
            let of_set = |(set, share): (usize, &Share)| {
                let taken = self.mix.share_of(set, size.batch);
                let begins = taken / share.rows + 1;
                (taken.div_ceil(lanes) + begins) * lanes_of_rank
            };
            let rows = match shares {
                [one] if one.takes == one.rows => {
                    u64::from(size.batch).div_ceil(lanes) * lanes_of_rank
                }
                _ => shares.iter().enumerate().map(of_set).sum::<u64>() + lanes_of_rank,
            };
            rows.min(size.batch.into()) as usize
        };
        self.sampler.sizes().iter().fold((0, 0), |(images, bytes), size| {
            let mine = share(size);
            (images.max(mine), bytes.max(mine * size.image_bytes()))
        })
    }

    /// How much more the class counts of a batch vary than under independent sampling, if each data
    /// set is sorted by class: the worst case of input in crawl order.
    ///
    /// A lane gives n = batch ÷ L rows of a batch from a window of K row groups, each of one class:
    /// the share of a class in a window has 1 ÷ K of its variance left, which n rows repeat, so the
    /// ratio is 1 + n ÷ K. It falls with `window_bytes`.
    pub fn sorted_variance_ratio(&self) -> f64 {
        if self.layout == Layout::Sequential {
            return f64::INFINITY;
        }
        let lanes = f64::from(self.num_lanes());
        let of_set = |share: &Share| {
            let weight = share.takes as f64 / self.num_rows().max(1) as f64;
            // A lane that is shorter than a window is its only window.
            let groups_of_lane = (share.groups.len() as f64 / lanes).max(1.0);
            let window = f64::from(share.window_groups.max(1)).min(groups_of_lane);
            weight * (1.0 + weight * self.sampler.mean_batch() / lanes / window)
        };
        self.mix.shares().iter().map(of_set).sum()
    }

    /// Rows read ÷ rows delivered in an epoch: a row group at the border of two lanes is read
    /// twice.
    pub fn rows_read_ratio(&self, epoch: u64) -> f64 {
        let groups = self.selection.groups();
        let of_set = |set: usize| {
            let share = &self.mix.shares()[set];
            let order = self.order(set, epoch);
            let read = order.groups_read().map(|g| u64::from(groups[g as usize].rows));
            let ratio = read.sum::<u64>() as f64 / (share.rows as f64).max(1.0);
            ratio * share.takes as f64 / self.num_rows().max(1) as f64
        };
        (0..self.mix.shares().len()).map(of_set).sum()
    }
}

/// Sets of the same shape must not be permuted alike.
fn set_seed(seed: u64, set: usize) -> u64 {
    match set {
        0 => seed,
        _ => Draws::new(Purpose::Set, seed, 0, set as u64, 0).bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::order::GroupRows;
    use crate::feed::trace;

    /// `parts` parts of `groups` row groups of 16 rows.
    fn stream(parts: u32, groups: u32, lanes: u32, window_groups: u32, batch: u32) -> Stream {
        let group = |part, group| GroupRows { part, group, rows: 16 };
        let all = (0..parts).flat_map(|part| (0..groups).map(move |g| group(part, g))).collect();
        let layout = Layout::Shuffled { seed: 11, lanes, window_groups };
        Stream::of_one(Selection::of_groups(all), layout, BatchSampler::fixed(8, batch))
    }

    /// Variance of the counts of 32 classes over the batches of an epoch, ÷ that of i.i.d. batches,
    /// where row group g is all of class g mod 32.
    fn measured_ratio(stream: &Stream) -> f64 {
        let (classes, mut squares, mut batches) = (32.0, 0.0, 0.0);
        let batch = f64::from(stream.sampler.largest_batch());
        for step in trace::steps(stream, 0, 0) {
            let mut counts = [0.0; 32];
            step.rows.iter().for_each(|row| counts[row.group as usize % 32] += 1.0);
            squares += counts.iter().map(|n| (n - batch / classes).powi(2)).sum::<f64>();
            batches += 1.0;
        }
        let independent = batch * (1.0 / classes) * (1.0 - 1.0 / classes);
        squares / (batches * classes) / independent
    }

    #[test]
    fn larger_windows_shuffle_sorted_data_as_the_formula_says() {
        for window_groups in [4, 16, 64] {
            let stream = stream(4096, 1, 4, window_groups, 64);
            let (measured, formula) = (measured_ratio(&stream), stream.sorted_variance_ratio());
            let off = measured / formula;
            assert!((0.7..1.2).contains(&off), "K {window_groups}: {measured} for {formula}");
        }
    }

    #[test]
    fn each_border_between_lanes_costs_one_row_group_at_most() {
        let stream = stream(40, 3, 7, 2, 5);
        for epoch in 0..20 {
            let ratio = stream.rows_read_ratio(epoch);
            assert!((1.0..=1.0 + 6.0 / 120.0).contains(&ratio), "{ratio}");
        }
    }
}
