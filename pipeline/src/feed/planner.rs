//! Walks the order and hands out every slot of every step.
//!
//! In: the plan of a feed. Out: open batches, tasks for decoders, row groups for readers, all in
//! the order of positions. One thread; it waits only for queues.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, Weak};

use catlip_schemas::version::ORDER_VERSION;
use catlip_schemas::{Cursor, SetCursor};

use super::batch::OpenBatch;
use super::error::FeedError;
use super::group::GroupHandle;
use super::mix::Place;
use super::order::{Order, RowAt};
use super::plan::FeedPlan;
use super::run::{Shared, Task};
use super::sampler::StepSize;

/// Row groups that are remembered before those that are gone are forgotten: 1,024 × 200 B.
const KNOWN_MIN: usize = 1024;

/// Walks the order from the cursor of the plan to its last step.
pub(super) fn plan_steps(shared: &Shared) -> Result<(), FeedError> {
    let plan = &shared.plan;
    let mut planner = Planner::new(shared);
    let (mut epoch, mut position) = (plan.start.epoch, plan.start.position);
    for step in 0..plan.num_steps {
        let size = match plan.stream.step_at(epoch, position) {
            Some(size) => size,
            None => {
                (epoch, position) = (epoch + 1, 0);
                plan.stream.sampler.at(epoch, 0)
            }
        };
        let end = position + u64::from(size.batch);
        if !planner.hand_out(step, size, epoch, position..end) {
            return Ok(());
        }
        position = end.min(plan.stream.num_rows());
    }
    shared.tasks.close();
    shared.reads.close();
    shared.batches.close();
    Ok(())
}

/// The cursor of `plan` at a position.
pub(super) fn cursor_at(plan: &FeedPlan, epoch: u64, position: u64) -> Cursor {
    let sets = plan.sources.all();
    let snapshot = sets.first().map_or(0, |set| set.data.manifest.snapshot);
    let mut cursor =
        Cursor { epoch, position, snapshot, order_version: ORDER_VERSION, sets: Vec::new() };
    // Several sets that are read one behind the other are one set of the mix.
    if plan.stream.mix.shares().len() > 1 {
        let set_cursor = |(set, source): (usize, &super::source::Source)| {
            let place = plan.stream.mix.resume(set, epoch, position);
            let snapshot = source.data.manifest.snapshot;
            SetCursor { snapshot, epoch: place.epoch, position: place.position }
        };
        cursor.sets = sets.iter().enumerate().map(set_cursor).collect();
    }
    cursor
}

/// Where the planner is in one lane of a set.
#[derive(Default)]
struct OpenWindow {
    number: Option<u32>,
    rows: Vec<RowAt>,
    groups: HashMap<u32, Arc<GroupHandle>>,
    ahead: Vec<Arc<GroupHandle>>,
}

/// Where it is in a set.
struct OpenSet {
    epoch: u64,
    order: Order,
    windows: Vec<OpenWindow>,
}

struct Planner<'s> {
    shared: &'s Shared,
    sets: Vec<Option<OpenSet>>,
    /// Groups in memory, so that lanes that share one read it once.
    known: HashMap<u32, Weak<GroupHandle>>,
    /// Entries of `known` at which those that are gone are looked for.
    prune_at: usize,
}

impl<'s> Planner<'s> {
    fn new(shared: &'s Shared) -> Self {
        let sets = shared.plan.stream.mix.shares().iter().map(|_| None).collect();
        Self { shared, sets, known: HashMap::new(), prune_at: KNOWN_MIN }
    }

    /// Opens a batch and hands out its tasks; false when the feed ends.
    fn hand_out(&mut self, step: u64, size: StepSize, epoch: u64, positions: Range<u64>) -> bool {
        let stream = &self.shared.plan.stream;
        let end = stream.num_rows();
        // Slots behind the end of the epoch are padding.
        let slot = |position: u64| match stream.mine(epoch, position) {
            _ if position >= end => stream.pads(position).then_some((position, None)),
            place => place.map(|place| (position, Some(place))),
        };
        let cursor = cursor_at(&self.shared.plan, epoch, positions.end.min(end));
        let (positions, places): (Vec<_>, Vec<_>) = positions.filter_map(slot).unzip();
        let Some(mut pixels) = self.shared.buffers.take() else { return false };
        pixels.cut(size.image_bytes());
        let batch = Arc::new(OpenBatch {
            step,
            size,
            cursor,
            pixels,
            outcomes: positions.iter().map(|_| Mutex::new(None)).collect(),
            unfilled: AtomicUsize::new(positions.len()),
            positions,
        });
        if self.shared.batches.push(batch.clone()).is_err() {
            return false;
        }
        for (slot, place) in places.into_iter().enumerate() {
            let position = batch.positions[slot];
            let row = place.map(|place| {
                let (handle, at) = self.locate(place);
                (position, handle, at)
            });
            let task = Task { batch: batch.clone(), slot, row, epoch };
            if self.shared.tasks.push(task).is_err() {
                return false;
            }
        }
        true
    }

    /// The row at a place, with its group on the way into memory.
    fn locate(&mut self, place: Place) -> (Arc<GroupHandle>, RowAt) {
        let mut set = match self.sets[place.set].take() {
            Some(open) if open.epoch == place.epoch => open,
            _ => self.open_set(place),
        };
        let (lane, index) = set.order.lane_of(place.position);
        let (window, at) = set.order.window_of(lane, index);
        if set.windows[lane as usize].number != Some(window) {
            set.windows[lane as usize] = self.open_window(&set.order, lane, window);
        }
        let open = &mut set.windows[lane as usize];
        let row = open.rows[at as usize];
        let handle = open.groups[&row.group].clone();
        // The next window is read while the last half of this one is handed out.
        if at as usize == open.rows.len() / 2 && window + 1 < set.order.num_windows(lane) {
            let next: Vec<u32> = set.order.window_groups(lane, window + 1).collect();
            open.ahead = next.into_iter().map(|group| self.fetch(group)).collect();
        }
        self.sets[place.set] = Some(set);
        (handle, row)
    }

    fn open_set(&self, place: Place) -> OpenSet {
        let order = self.shared.plan.stream.order(place.set, place.epoch);
        let windows = (0..order.num_lanes()).map(|_| OpenWindow::default()).collect();
        OpenSet { epoch: place.epoch, order, windows }
    }

    fn open_window(&mut self, order: &Order, lane: u32, window: u32) -> OpenWindow {
        let groups = order.window_groups(lane, window).map(|group| (group, self.fetch(group)));
        let groups = groups.collect();
        let rows = order.window_rows(lane, window);
        OpenWindow { number: Some(window), rows, groups, ahead: Vec::new() }
    }

    /// The handle of a group, and a request to read it if it is new.
    fn fetch(&mut self, number: u32) -> Arc<GroupHandle> {
        if let Some(known) = self.known.get(&number).and_then(Weak::upgrade) {
            return known;
        }
        let plan = &self.shared.plan;
        let rows = plan.stream.selection.groups()[number as usize];
        let (sources, memory) = (plan.sources.clone(), self.shared.memory.clone());
        let handle = Arc::new(GroupHandle::new(sources, rows.part, rows.group, memory));
        if self.known.len() >= self.prune_at {
            self.known.retain(|_, handle| handle.strong_count() > 0);
            self.prune_at = KNOWN_MIN.max(2 * self.known.len());
        }
        self.known.insert(number, Arc::downgrade(&handle));
        // A closed queue ends the feed at the next task.
        drop(self.shared.reads.push(handle.clone()));
        handle
    }
}
