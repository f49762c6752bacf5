//! What a feed will deliver, without reading a pixel.
//!
//! In: a [`Stream`]. Out: the rows of each step that fall to its rank, and where in an epoch a row
//! stands. Both are computed from the order alone, so that anybody can see, diff and invert it.

use std::collections::HashMap;

use catlip_schemas::{PartName, SampleId};

use super::mix::Place;
use super::order::{Order, RowAt};
use super::sampler::StepSize;
use super::source::Sources;
use super::stream::Stream;
use crate::error::PrepError;

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
    let mut walk = Walk { stream, sets: stream.mix.shares().iter().map(|_| None).collect() };
    let numbered = (0..).zip(stream.steps_from(epoch, 0)).skip(first as usize);
    numbered.map(move |(step, (begin, size))| {
        let end = (begin + u64::from(size.batch)).min(stream.num_rows());
        let mine = (begin..end).filter_map(|position| stream.mine(epoch, position));
        let rows = mine.map(|place| walk.row_at(place)).collect();
        TracedStep { step, size, rows }
    })
}

/// The rows at places that rise in each set.
struct Walk<'s> {
    stream: &'s Stream,
    sets: Vec<Option<SetWalk>>,
}

/// One set in an epoch of its own, with the windows that its lanes are in.
struct SetWalk {
    epoch: u64,
    order: Order,
    windows: Vec<Option<(u32, Vec<RowAt>)>>,
}

impl Walk<'_> {
    fn row_at(&mut self, place: Place) -> RowAt {
        let set = &mut self.sets[place.set];
        let set = match set {
            Some(open) if open.epoch == place.epoch => open,
            _ => {
                let order = self.stream.order(place.set, place.epoch);
                let windows = vec![None; order.num_lanes() as usize];
                set.insert(SetWalk { epoch: place.epoch, order, windows })
            }
        };
        let (lane, index) = set.order.lane_of(place.position);
        let (window, at) = set.order.window_of(lane, index);
        let open = &mut set.windows[lane as usize];
        let rows = match open {
            Some((number, rows)) if *number == window => rows,
            _ => &mut open.insert((window, set.order.window_rows(lane, window))).1,
        };
        rows[at as usize]
    }
}

/// Where `row` stands in `epoch`: once, or as often as the weight of its data set says.
pub fn standings(stream: &Stream, epoch: u64, row: RowAt) -> Vec<Standing> {
    let shares = stream.mix.shares();
    let Some(set) = shares.iter().position(|share| share.groups.contains(&row.group)) else {
        return Vec::new();
    };
    let own_epochs = stream.mix.own_epochs(set, epoch);
    let positions = own_epochs.filter_map(|own_epoch| {
        let position = stream.order(set, own_epoch).position_of(row)?;
        let (found, at) = stream.mix.position_of(Place { set, epoch: own_epoch, position });
        (found == epoch).then_some(at)
    });
    let mut steps = (0..).zip(stream.steps_from(epoch, 0)).peekable();
    let mut standing = |position| {
        let ends = |(begin, size): (u64, StepSize)| begin + u64::from(size.batch);
        while steps.next_if(|&(_, step)| ends(step) <= position).is_some() {}
        Standing { position, step: steps.peek().map(|&(step, _)| step) }
    };
    positions.map(&mut standing).collect()
}

/// The sample ids of rows, read from `meta` part by part.
pub struct RowIds<'d> {
    sources: &'d Sources,
    parts: HashMap<u32, Vec<SampleId>>,
}

impl<'d> RowIds<'d> {
    /// Reads nothing yet.
    pub fn new(sources: &'d Sources) -> Self {
        Self { sources, parts: HashMap::new() }
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
            let (source, entry) = self.sources.part(part);
            let ids = source.data.read_sample_ids(entry)?;
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

/// The rows of that name that are on offer in `stream`: one, or one in each data set that has it.
///
/// # Errors
///
/// [`PrepError`] when the ids of a part cannot be read.
pub fn find(sources: &Sources, stream: &Stream, name: RowName) -> Result<Vec<RowAt>, PrepError> {
    let mut found = Vec::new();
    for number in 0..sources.num_parts() {
        let (source, part) = sources.part(number);
        let row = match name {
            RowName::Row(wanted, row) => (part.name == wanted).then_some(row),
            RowName::Sample(id) => {
                let ids = source.data.read_sample_ids(part)?;
                ids.iter().position(|other| *other == id).map(|row| row as u32)
            }
        };
        let on_offer = row.and_then(|row| stream.selection.find(number, row));
        found.extend(on_offer.map(|(group, nth)| RowAt { group: group as u32, nth }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::feed::order::{GroupRows, Layout};
    use crate::feed::sampler::{BatchSampler, VariableSizes};
    use crate::feed::selection::Selection;
    use crate::feed::stream::{LastBatch, SetRows};

    /// Rows of the row groups of the parts of a data set; nothing of it lies on a disk.
    type Shape = Vec<Vec<u32>>;

    fn set_of(parts: &Shape) -> SetRows {
        let mut groups = Vec::new();
        for (part, rows) in parts.iter().enumerate() {
            for (group, &rows) in rows.iter().enumerate() {
                groups.push(GroupRows { part: part as u32, group: group as u32, rows });
            }
        }
        let selection = Selection::of_groups(groups);
        SetRows { selection, num_parts: parts.len(), window_groups: 2 }
    }

    fn stream(parts: &Shape, layout: Layout, sampler: BatchSampler) -> Stream {
        Stream::of_one(set_of(parts).selection, layout, sampler)
    }

    /// Up to four data sets, each with a weight.
    fn sets() -> impl Strategy<Value = Vec<(Shape, f64)>> {
        let shape = prop::collection::vec(prop::collection::vec(1u32..30, 1..5), 1..6);
        prop::collection::vec((shape, 0.5f64..4.0), 1..5)
    }

    fn mixed(sets: &[(Shape, f64)], layout: Layout, sampler: BatchSampler) -> Stream {
        let weights: Vec<f64> = sets.iter().map(|(_, weight)| *weight).collect();
        let sets = sets.iter().map(|(shape, _)| set_of(shape)).collect();
        Stream::of_sets(sets, &weights, layout, sampler).unwrap()
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
        let rank_of = |position| {
            let place = stream.mix.place(epoch, position);
            place.position % u64::from(stream.num_lanes()) % u64::from(world_size)
        };
        (0..ranks[0].len())
            .map(|n| {
                let (begin, _) = stream.steps_from(epoch, 0).nth(first as usize + n).unwrap();
                let mut shares: Vec<_> = ranks.iter().map(|steps| steps[n].rows.iter()).collect();
                let size = ranks[0][n].size;
                let positions = begin..begin + u64::from(size.batch);
                let batch = positions.map(|p| *shares[rank_of(p) as usize].next().unwrap());
                let batch = batch.collect();
                assert!(shares.iter_mut().all(|share| share.next().is_none()));
                batch
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_world_size_goes_on_from_any_step_with_the_same_batches(
            sets in sets(), seed in any::<u64>(), epoch in 0u64..4, lanes in 8u32..17,
            killed_after in 0usize..20, worlds in prop::array::uniform2(1u32..9),
            is_variable in any::<bool>(),
        ) {
            let sampler = if is_variable { variable(seed) } else { BatchSampler::fixed(8, 5) };
            let layout = Layout::Shuffled { seed, lanes, window_groups: 2 };
            let stream = mixed(&sets, layout, sampler);
            let whole = together(&stream, epoch, 0, 1);
            let before = together(&stream, epoch, 0, worlds[0]);
            let killed_after = killed_after.min(whole.len());
            let after = together(&stream, epoch, killed_after as u64, worlds[1]);
            prop_assert_eq!(&before[..killed_after], &whole[..killed_after]);
            prop_assert_eq!(&after[..], &whole[killed_after..]);
            let rows: Vec<RowAt> = whole.into_iter().flatten().collect();
            if sets.len() == 1 {
                prop_assert_eq!(rows.iter().collect::<HashSet<_>>().len(), rows.len());
            }
        }

        #[test]
        fn a_rank_never_has_more_than_its_buffer_holds(
            rows in prop::collection::vec((1u32..1500, 0.2f64..5.0), 1..4),
            seed in any::<u64>(), lanes in 1u32..65, world in 1u32..65,
        ) {
            let layout = Layout::Shuffled { seed, lanes, window_groups: 2 };
            let sets: Vec<_> = rows.iter().map(|&(n, weight)| (vec![vec![n]], weight)).collect();
            let base = mixed(&sets, layout, variable(seed));
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
            sets in sets(), seed in any::<u64>(), epoch in 0u64..4, lanes in 1u32..9,
        ) {
            let layout = Layout::Shuffled { seed, lanes, window_groups: 2 };
            let stream = mixed(&sets, layout, variable(seed));
            let mut traced: HashMap<RowAt, Vec<u64>> = HashMap::new();
            for step in steps(&stream, epoch, 0) {
                for row in step.rows {
                    traced.entry(row).or_default().push(step.step);
                }
            }
            let mut standings_all = 0;
            for (group, rows) in stream.selection.groups().iter().enumerate() {
                for nth in 0..rows.rows {
                    let row = RowAt { group: group as u32, nth };
                    let found = standings(&stream, epoch, row);
                    standings_all += found.len() as u64;
                    let steps: Vec<u64> = found.into_iter().filter_map(|at| at.step).collect();
                    prop_assert_eq!(traced.remove(&row).unwrap_or_default(), steps);
                }
            }
            prop_assert_eq!(standings_all, stream.num_rows());
        }

        #[test]
        fn each_set_of_a_mix_shows_every_row_once_in_each_epoch_of_its_own(
            sets in sets(), seed in any::<u64>(), lanes in 1u32..9,
        ) {
            let layout = Layout::Shuffled { seed, lanes, window_groups: 2 };
            let mut stream = mixed(&sets, layout, BatchSampler::fixed(8, 7));
            stream.last_batch = LastBatch::Pad;
            let mut seen: Vec<Vec<RowAt>> = vec![Vec::new(); sets.len()];
            let all = (0..3).flat_map(|epoch| steps(&stream, epoch, 0));
            for row in all.flat_map(|step| step.rows) {
                let shares = stream.mix.shares();
                seen[shares.iter().position(|s| s.groups.contains(&row.group)).unwrap()].push(row);
            }
            for (rows, share) in seen.iter().zip(stream.mix.shares()) {
                prop_assert_eq!(rows.len() as u64, 3 * share.takes);
                for own_epoch in rows.chunks(share.rows as usize) {
                    let unique = own_epoch.iter().collect::<HashSet<_>>().len();
                    prop_assert_eq!(unique, own_epoch.len());
                }
            }
        }
    }

    #[test]
    fn a_row_that_is_not_on_offer_stands_nowhere() {
        let stream = stream(&vec![vec![3]], Layout::Sequential, BatchSampler::fixed(8, 1));
        assert_eq!(standings(&stream, 0, RowAt { group: 0, nth: 3 }), []);
        assert_eq!(standings(&stream, 0, RowAt { group: 1, nth: 0 }), []);
    }

    #[test]
    fn every_rank_takes_the_same_number_of_steps() {
        let layout = Layout::Shuffled { seed: 3, lanes: 8, window_groups: 1 };
        let base = stream(&vec![vec![997]], layout, variable(1));
        let counts: HashSet<_> = (0..7)
            .map(|rank| steps(&Stream { world_size: 7, rank, ..base.clone() }, 0, 0).count())
            .collect();
        assert_eq!(counts.len(), 1);
    }
}
