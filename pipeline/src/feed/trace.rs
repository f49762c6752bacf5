//! What a feed will deliver, without reading a pixel.
//!
//! In: a [`Stream`]. Out: the rows of each step that fall to its rank, and where in an epoch a row
//! stands. Both are computed from the order alone, so that anybody can see, diff and invert it.

use std::collections::HashMap;

use catlip_schemas::{PartName, SampleId};

use super::order::{Order, RowAt};
use super::sampler::StepSize;
use super::stream::Stream;
use crate::error::PrepError;
use crate::prep::DataSet;

/// Parts whose sample ids are kept: 4,096 × 10,000 rows × 16 B = 655 MB.
const PARTS_KEPT_MAX: usize = 4096;

/// One step of an epoch, as one rank sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedStep {
    /// Number of the step in the epoch, from 0.
    pub step: u64,
    /// Its size, over all ranks.
    pub size: StepSize,
    /// This rank's rows in the order of its slots; fewer than slots where a batch is padded.
    pub rows: Vec<RowAt>,
}

/// Where a row stands in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Position in the epoch's global stream.
    pub position: u64,
    /// The step that takes it; `None` if it falls into what the epoch's end drops.
    pub step: Option<u64>,
}

/// The steps of `epoch` from the one numbered `first` on.
///
/// Each window is laid out once for the lane that reads it, so a trace is linear in its rows.
pub fn steps(stream: &Stream, epoch: u64, first: u64) -> impl Iterator<Item = TracedStep> + '_ {
    let order = stream.order(epoch);
    let mut windows: Vec<Option<(u32, Vec<RowAt>)>> = vec![None; order.num_lanes() as usize];
    let numbered = (0..).zip(stream.steps_from(epoch, 0)).skip(first as usize);
    numbered.map(move |(step, (begin, size))| {
        let end = (begin + u64::from(size.batch)).min(order.num_rows());
        let mine = (begin..end).filter(|&position| stream.is_mine(position));
        let rows = mine.map(|position| row_at(&order, &mut windows, position)).collect();
        TracedStep { step, size, rows }
    })
}

fn row_at(order: &Order, windows: &mut [Option<(u32, Vec<RowAt>)>], position: u64) -> RowAt {
    let (lane, index) = order.lane_of(position);
    let (window, at) = order.window_of(lane, index);
    let open = &mut windows[lane as usize];
    let rows = match open {
        Some((number, rows)) if *number == window => rows,
        _ => &mut open.insert((window, order.window_rows(lane, window))).1,
    };
    rows[at as usize]
}

/// Where `row` stands in `epoch`; `None` if it is not on offer.
pub fn standing(stream: &Stream, epoch: u64, row: RowAt) -> Option<Standing> {
    let position = stream.order(epoch).position_of(row)?;
    let takes =
        |&(_, (begin, size)): &(u64, (u64, StepSize))| position < begin + u64::from(size.batch);
    let step = (0..).zip(stream.steps_from(epoch, 0)).find(takes).map(|(step, _)| step);
    Some(Standing { position, step })
}

/// The sample ids of rows, read from `meta` part by part.
pub struct RowIds<'d> {
    data: &'d DataSet,
    parts: HashMap<u32, Vec<SampleId>>,
}

impl<'d> RowIds<'d> {
    /// Reads nothing yet.
    pub fn new(data: &'d DataSet) -> Self {
        Self { data, parts: HashMap::new() }
    }

    /// The id of a row on offer in `stream`.
    ///
    /// # Errors
    ///
    /// [`PrepError`] when the ids of its part cannot be read.
    pub fn id(&mut self, stream: &Stream, row: RowAt) -> Result<SampleId, PrepError> {
        let group = row.group as usize;
        let part = stream.selection.groups()[group].part;
        let (row, _) = stream.selection.row(group, row.nth);
        if !self.parts.contains_key(&part) {
            if self.parts.len() >= PARTS_KEPT_MAX {
                self.parts.clear();
            }
            let ids = self.data.read_sample_ids(&self.data.parts[part as usize])?;
            self.parts.insert(part, ids);
        }
        Ok(self.parts[&part][row as usize])
    }
}

/// What names a row of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowName {
    /// Its sample.
    Sample(SampleId),
    /// Its part and its number there, from 0.
    Row(PartName, u32),
}

/// The row of that name; `None` if it is not on offer in `stream`.
///
/// # Errors
///
/// [`PrepError`] when the ids of a part cannot be read.
pub fn find(data: &DataSet, stream: &Stream, name: RowName) -> Result<Option<RowAt>, PrepError> {
    for (number, part) in data.parts.iter().enumerate() {
        let row = match name {
            RowName::Row(wanted, row) => (part.name == wanted).then_some(row),
            RowName::Sample(id) => {
                let ids = data.read_sample_ids(part)?;
                ids.iter().position(|other| *other == id).map(|row| row as u32)
            }
        };
        if let Some(row) = row {
            let found = stream.selection.find(number as u32, row);
            return Ok(found.map(|(group, nth)| RowAt { group: group as u32, nth }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::feed::order::{GroupRows, Layout};
    use crate::feed::sampler::{BatchSampler, VariableSizes};
    use crate::feed::selection::Selection;
    use crate::feed::stream::LastBatch;

    /// A stream over parts of row groups of so many rows; nothing of it lies on a disk.
    fn stream(parts: &[Vec<u32>], layout: Layout, sampler: BatchSampler) -> Stream {
        let mut groups = Vec::new();
        for (part, rows) in parts.iter().enumerate() {
            for (group, &rows) in rows.iter().enumerate() {
                groups.push(GroupRows { part: part as u32, group: group as u32, rows });
            }
        }
        let selection = Arc::new(Selection::of_groups(groups));
        let last_batch = LastBatch::Drop;
        Stream { selection, layout, sampler, last_batch, world_size: 1, rank: 0 }
    }

    /// 13 sides of 8 to 104 px around 8 images of 32 px.
    fn variable(seed: u64) -> BatchSampler {
        let base = StepSize { side_px: 32, batch: 8 };
        let (min_px, max_px) = (8, 104);
        let from =
            VariableSizes { base, min_px, max_px, num_scales: 13, multiple_px: 8, shares: 1 };
        BatchSampler::variable(&from, seed)
    }

    /// The global batches from step `first` on, put together from the shares of `world_size` ranks.
    fn together(stream: &Stream, epoch: u64, first: u64, world_size: u32) -> Vec<Vec<RowAt>> {
        let ranks: Vec<Vec<TracedStep>> = (0..world_size)
            .map(|rank| {
                let share = Stream { world_size, rank, ..stream.clone() };
                steps(&share, epoch, first).collect()
            })
            .collect();
        let lanes = u64::from(stream.num_lanes());
        (0..ranks[0].len())
            .map(|n| {
                let (mut begin, _) = stream.steps_from(epoch, 0).nth(first as usize + n).unwrap();
                let mut shares: Vec<_> = ranks.iter().map(|steps| steps[n].rows.iter()).collect();
                let size = ranks[0][n].size;
                let mut batch = Vec::new();
                for _ in 0..size.batch {
                    let rank = begin % lanes % u64::from(world_size);
                    batch.push(*shares[rank as usize].next().unwrap());
                    begin += 1;
                }
                assert!(shares.iter_mut().all(|share| share.next().is_none()));
                batch
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_world_size_goes_on_from_any_step_with_the_same_batches(
            parts in prop::collection::vec(prop::collection::vec(1u32..30, 1..5), 1..6),
            seed in any::<u64>(), epoch in 0u64..4, lanes in 8u32..17,
            killed_after in 0usize..20, worlds in prop::array::uniform2(1u32..9),
            is_variable in any::<bool>(),
        ) {
            let sampler = if is_variable { variable(seed) } else { BatchSampler::fixed(8, 5) };
            let layout = Layout::Shuffled { seed, lanes, window_groups: 2 };
            let stream = stream(&parts, layout, sampler);
            let whole = together(&stream, epoch, 0, 1);
            let before = together(&stream, epoch, 0, worlds[0]);
            let killed_after = killed_after.min(whole.len());
            let after = together(&stream, epoch, killed_after as u64, worlds[1]);
            prop_assert_eq!(&before[..killed_after], &whole[..killed_after]);
            prop_assert_eq!(&after[..], &whole[killed_after..]);
            let rows: Vec<RowAt> = whole.into_iter().flatten().collect();
            prop_assert_eq!(rows.iter().collect::<HashSet<_>>().len(), rows.len());
        }

        #[test]
        fn a_rank_never_has_more_than_its_buffer_holds(
            rows in 1u32..4000, seed in any::<u64>(), lanes in 1u32..65, world in 1u32..65,
        ) {
            let layout = Layout::Shuffled { seed, lanes, window_groups: 2 };
            let base = stream(&[vec![rows]], layout, variable(seed));
            let world_size = world.min(lanes);
            for rank in 0..world_size {
                let stream = Stream { world_size, rank, ..base.clone() };
                let (images, bytes) = stream.rank_share_max();
                for step in steps(&stream, 0, 0) {
                    prop_assert!(step.rows.len() <= images);
                    prop_assert!(step.rows.len() * step.size.image_bytes() <= bytes);
                }
            }
        }

        #[test]
        fn a_standing_is_where_the_trace_shows_the_row(
            parts in prop::collection::vec(prop::collection::vec(1u32..20, 1..5), 1..5),
            seed in any::<u64>(), epoch in 0u64..4, lanes in 1u32..9,
        ) {
            let layout = Layout::Shuffled { seed, lanes, window_groups: 2 };
            let stream = stream(&parts, layout, variable(seed));
            let mut traced = HashSet::new();
            for step in steps(&stream, epoch, 0) {
                for row in step.rows {
                    let found = standing(&stream, epoch, row).unwrap();
                    prop_assert_eq!(found.step, Some(step.step));
                    traced.insert(row);
                }
            }
            for (group, rows) in stream.selection.groups().iter().enumerate() {
                for nth in 0..rows.rows {
                    let row = RowAt { group: group as u32, nth };
                    let found = standing(&stream, epoch, row).unwrap();
                    prop_assert_eq!(found.step.is_some(), traced.contains(&row));
                }
            }
        }
    }

    #[test]
    fn a_row_that_is_not_on_offer_stands_nowhere() {
        let stream = stream(&[vec![3]], Layout::Sequential, BatchSampler::fixed(8, 1));
        assert_eq!(standing(&stream, 0, RowAt { group: 0, nth: 3 }), None);
        assert_eq!(standing(&stream, 0, RowAt { group: 1, nth: 0 }), None);
    }

    #[test]
    fn every_rank_takes_the_same_number_of_steps() {
        let layout = Layout::Shuffled { seed: 3, lanes: 8, window_groups: 1 };
        let base = stream(&[vec![997]], layout, variable(1));
        let counts: HashSet<_> = (0..7)
            .map(|rank| steps(&Stream { world_size: 7, rank, ..base.clone() }, 0, 0).count())
            .collect();
        assert_eq!(counts.len(), 1);
    }
}
