//! The global stream of positions: its steps, and whose share of a step a rank has.
//!
//! In: rows on offer, layout, sampler, ranks. Out: where each step begins and how large it is; all
//! by arithmetic, the same for every rank. Never: reads a file; knows how far a feed is.

use std::sync::Arc;

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

/// Everything that decides which rows make a step, and nothing else.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The rows on offer.
    pub selection: Arc<Selection>,
    /// Lanes, windows, seed.
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
    /// The order of `epoch`.
    pub fn order(&self, epoch: u64) -> Order {
        Order::new(self.selection.groups(), self.layout, epoch)
    }

    /// L.
    pub fn num_lanes(&self) -> u32 {
        match self.layout {
            Layout::Sequential => 1,
            Layout::Shuffled { lanes, .. } => lanes.max(1),
        }
    }

    /// Whether this rank delivers a position.
    pub fn is_mine(&self, position: u64) -> bool {
        position % u64::from(self.num_lanes()) % u64::from(self.world_size.max(1))
            == u64::from(self.rank)
    }

    /// The step that begins at `position` of `epoch`, unless the epoch ends there.
    pub fn step_at(&self, epoch: u64, position: u64) -> Option<StepSize> {
        let left = self.selection.num_rows().saturating_sub(position);
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
    /// A rank reads ⌈L ÷ W⌉ of L lanes at most, and each lane has ⌈batch ÷ L⌉ positions of a step.
    pub fn rank_share_max(&self) -> (usize, usize) {
        let lanes = self.num_lanes();
        let share = |size: &StepSize| {
            size.batch.min(size.batch.div_ceil(lanes) * lanes.div_ceil(self.world_size.max(1)))
        };
        self.sampler.sizes().iter().fold((0, 0), |(images, bytes), size| {
            let mine = share(size) as usize;
            (images.max(mine), bytes.max(mine * size.image_bytes()))
        })
    }

    /// How much more the class counts of a batch vary than under independent sampling, if the data
    /// set is sorted by class: the worst case of input in crawl order.
    ///
    /// A lane gives n = batch ÷ L rows of a batch from a window of K row groups, each of one class:
    /// the share of a class in a window has 1 ÷ K of its variance left, which n rows repeat, so the
    /// ratio is 1 + n ÷ K. It falls with `window_bytes`.
    pub fn sorted_variance_ratio(&self) -> f64 {
        match self.layout {
            Layout::Sequential => f64::INFINITY,
            Layout::Shuffled { lanes, window_groups, .. } => {
                let lanes = f64::from(lanes.max(1));
                // A lane that is shorter than a window is its only window.
                let groups_of_lane = (self.selection.groups().len() as f64 / lanes).max(1.0);
                let window = f64::from(window_groups.max(1)).min(groups_of_lane);
                1.0 + self.sampler.mean_batch() / lanes / window
            }
        }
    }

    /// Rows read ÷ rows on offer in an epoch: a row group at the border of two lanes is read twice.
    pub fn rows_read_ratio(&self, epoch: u64) -> f64 {
        let groups = self.selection.groups();
        let order = self.order(epoch);
        let read = order.groups_read().map(|g| u64::from(groups[g as usize].rows));
        read.sum::<u64>() as f64 / (self.selection.num_rows() as f64).max(1.0)
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
        Stream {
            selection: Arc::new(Selection::of_groups(all)),
            layout: Layout::Shuffled { seed: 11, lanes, window_groups },
            sampler: BatchSampler::fixed(8, batch),
            last_batch: LastBatch::Drop,
            world_size: 1,
            rank: 0,
        }
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
