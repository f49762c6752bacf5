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
}
