//! The threads of a feed.
//!
//! One planner walks the order and hands out tasks; readers fetch the row groups of a window when
//! it is opened; decoders fill slots; batches come out in the order of steps. A failure of any of
//! them ends the feed with one error, never with a hang.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;

use catlip_schemas::version::ORDER_VERSION;
use catlip_schemas::{ColumnSet, Cursor, SampleId};

use super::batch::{HostBatch, OpenBatch, SlotOutcome};
use super::draw::{Draws, Purpose};
use super::error::FeedError;
use super::group::GroupHandle;
use super::labels::LabelStore;
use super::order::{Layout, Order, RowAt};
use super::plan::FeedPlan;
use super::queue::{PrefetchQueue, QueueStats};
use super::sampler::StepSize;
use super::slot::SlotBuffer;
use super::stream::LastBatch;
use super::view::{decode_options, fill_slot};
use crate::image::{CropDecoder, DecodeOptions};
use crate::metrics::{Counter, StageMeter};

/// Tasks in flight: enough that decoders never wait for the planner.
const TASKS_MAX: usize = 1024;

/// Row groups that wait to be read ahead.
const READ_AHEAD_MAX: usize = 4096;

/// What a feed has done so far.
#[derive(Clone, Debug)]
pub struct FeedStats {
    /// Samples that were decoded.
    pub decoded: u64,
    /// Rows that did not decode; their slots have weight 0.
    pub bad_rows: u64,
    /// The last such row: sample id and error.
    pub last_bad_row: Option<String>,
    /// Seconds of decoding, summed over threads.
    pub decode_busy_secs: f64,
    /// The queue of whole batches.
    pub batches: QueueStats,
    /// The queue of tasks for decoders.
    pub tasks: QueueStats,
    /// Seconds that the consumer waited for batches.
    pub wait_secs: f64,
}

/// One slot to fill.
struct Task {
    batch: Arc<OpenBatch>,
    slot: usize,
    /// Position and row; `None` for padding.
    row: Option<(u64, Arc<GroupHandle>, RowAt)>,
    epoch: u64,
}

/// What the threads of a feed share.
struct Shared {
    plan: FeedPlan,
    options: DecodeOptions,
    labels: LabelStore,
    tasks: PrefetchQueue<Task>,
    reads: PrefetchQueue<Arc<GroupHandle>>,
    batches: PrefetchQueue<Arc<OpenBatch>>,
    buffers: Arc<PrefetchQueue<SlotBuffer>>,
    stop: AtomicBool,
    failure: Mutex<Option<FeedError>>,
    full: (Mutex<()>, Condvar),
    decode: StageMeter,
    bad_rows: Counter,
    last_bad_row: Mutex<Option<String>>,
    wait_nanos: AtomicU64,
}

/// A running feed.
pub struct Feed {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Feed {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`FeedError`] when the cursor, the ranks or the rows on offer make the plan impossible.
    pub fn start(plan: FeedPlan) -> Result<Self, FeedError> {
        check(&plan)?;
        let depth = plan.depth_batches.max(1);
        // One batch more than the queue holds: the one that the consumer works on.
        let (slots_max, bytes_max) = plan.stream.rank_share_max();
        let buffers = Arc::new(PrefetchQueue::new(depth + 1));
        for _ in 0..depth + 1 {
            drop(buffers.push(SlotBuffer::new(slots_max, bytes_max)));
        }
        let decoders = plan.decode_threads.max(1);
        let shared = Arc::new(Shared {
            labels: LabelStore::new(plan.data.clone(), plan.vocab.clone(), plan.with_captions),
            tasks: PrefetchQueue::new(TASKS_MAX),
            reads: PrefetchQueue::new(READ_AHEAD_MAX),
            batches: PrefetchQueue::new(depth + 1),
            buffers,
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
            full: (Mutex::new(()), Condvar::new()),
            decode: StageMeter::default(),
            bad_rows: Counter::default(),
            last_bad_row: Mutex::new(None),
            wait_nanos: AtomicU64::new(0),
            options: decode_options(&plan.data.manifest.config),
            plan,
        });
        let mut threads = vec![spawn(&shared, "feed-plan", plan_steps)];
        for _ in 0..shared.plan.reader_threads.max(1) {
            threads.push(spawn(&shared, "feed-read", read_ahead));
        }
        for _ in 0..decoders {
            threads.push(spawn(&shared, "feed-decode", decode_tasks));
        }
        Ok(Self { shared, threads })
    }

    /// The next batch; sleeps until it is whole. `None` after the last step.
    ///
    /// # Errors
    ///
    /// The first failure of any thread of the feed.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot fail and end apart")]
    pub fn next(&mut self) -> Result<Option<HostBatch>, FeedError> {
        let start = std::time::Instant::now();
        let batch = self.shared.batches.pop();
        if let Some(open) = &batch {
            self.shared.wait_full(open);
        }
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.shared.wait_nanos.fetch_add(waited, Ordering::Relaxed);
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        let Some(mut open) = batch else { return Ok(None) };
        // The last decoder lets go of the batch right after it has filled it.
        let open = loop {
            match Arc::try_unwrap(open) {
                Ok(open) => break open,
                Err(shared) => open = shared,
            }
            std::thread::yield_now();
        };
        Ok(Some(HostBatch::assemble(open, self.shared.buffers.clone())))
    }

    /// What it has done so far.
    pub fn stats(&self) -> FeedStats {
        let shared = &self.shared;
        FeedStats {
            decoded: shared.decode.items(),
            bad_rows: shared.bad_rows.get(),
            last_bad_row: shared.last_bad_row.lock().unwrap_or_else(|e| e.into_inner()).clone(),
            decode_busy_secs: shared.decode.busy().as_secs_f64(),
            batches: shared.batches.stats(),
            tasks: shared.tasks.stats(),
            wait_secs: shared.wait_nanos.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.end();
        for thread in self.threads.drain(..) {
            // A panic was already turned into a failure.
            let _ = thread.join();
        }
    }
}

fn check(plan: &FeedPlan) -> Result<(), FeedError> {
    let cursor = |what, found, expected| Err(FeedError::Cursor { what, found, expected });
    let start = plan.start;
    if start.snapshot != plan.data.manifest.snapshot {
        return cursor("snapshot", start.snapshot, plan.data.manifest.snapshot);
    }
    if start.order_version != ORDER_VERSION {
        return cursor("order version", start.order_version.into(), ORDER_VERSION.into());
    }
    let rows = plan.stream.selection.num_rows();
    if start.position > rows {
        return cursor("position", start.position, rows);
    }
    // An epoch without a step would be followed by the next for ever.
    let batch = plan.stream.sampler.largest_batch();
    let needed = if plan.stream.last_batch == LastBatch::Pad { 1 } else { u64::from(batch) };
    if batch == 0 || rows < needed {
        return Err(FeedError::TooFewRows { rows, batch: batch as usize });
    }
    let lanes = u64::from(plan.stream.num_lanes());
    if u64::from(plan.stream.world_size) > lanes {
        return Err(FeedError::TooManyRanks { world_size: plan.stream.world_size, lanes });
    }
    Ok(())
}

type Work = fn(&Shared) -> Result<(), FeedError>;

fn spawn(shared: &Arc<Shared>, name: &'static str, work: Work) -> JoinHandle<()> {
    let shared = shared.clone();
    std::thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&shared)));
        let failure = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(payload) => FeedError::Panicked { thread: name, message: panic_text(&*payload) },
        };
        shared.fail(failure);
    })
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

impl Shared {
    fn failure(&self) -> Option<FeedError> {
        self.failure.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Keeps the first failure and ends everything.
    fn fail(&self, failure: FeedError) {
        self.failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(failure);
        self.end();
    }

    fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.close();
        self.reads.close();
        self.batches.close();
        self.buffers.close();
        self.notify_full();
    }

    fn notify_full(&self) {
        drop(self.full.0.lock().unwrap_or_else(|e| e.into_inner()));
        self.full.1.notify_all();
    }

    fn wait_full(&self, batch: &OpenBatch) {
        let mut guard = self.full.0.lock().unwrap_or_else(|e| e.into_inner());
        while !batch.is_full() && !self.stop.load(Ordering::SeqCst) {
            guard = self.full.1.wait(guard).unwrap_or_else(|e| e.into_inner());
        }
    }
}

/// Fetches row groups before a decoder needs them; a failure waits for the decoder that does.
fn read_ahead(shared: &Shared) -> Result<(), FeedError> {
    while let Some(group) = shared.reads.pop() {
        let _ = group.images();
    }
    Ok(())
}

/// Where the planner is in one lane.
#[derive(Default)]
struct OpenWindow {
    number: Option<u32>,
    rows: Vec<RowAt>,
    groups: HashMap<u32, Arc<GroupHandle>>,
    ahead: Vec<Arc<GroupHandle>>,
}

/// Walks the order from the cursor and hands out every slot of every step.
fn plan_steps(shared: &Shared) -> Result<(), FeedError> {
    let plan = &shared.plan;
    let mut planner = Planner::new(shared, plan.start.epoch);
    let mut position = plan.start.position;
    for step in 0..plan.num_steps {
        let size = match plan.stream.step_at(planner.epoch, position) {
            Some(size) => size,
            None => {
                planner = Planner::new(shared, planner.epoch + 1);
                position = 0;
                plan.stream.sampler.at(planner.epoch, 0)
            }
        };
        let whole_end = position + u64::from(size.batch);
        let end = whole_end.min(planner.order.num_rows());
        let cursor = Cursor {
            snapshot: plan.start.snapshot,
            epoch: planner.epoch,
            position: end,
            order_version: ORDER_VERSION,
        };
        if !planner.hand_out(step, size, position..whole_end, cursor)? {
            return Ok(());
        }
        position = end;
    }
    shared.tasks.close();
    shared.reads.close();
    shared.batches.close();
    Ok(())
}

struct Planner<'s> {
    shared: &'s Shared,
    epoch: u64,
    order: Order,
    windows: Vec<OpenWindow>,
    /// Groups in memory, so that lanes that share one read it once.
    known: HashMap<u32, Weak<GroupHandle>>,
}

impl<'s> Planner<'s> {
    fn new(shared: &'s Shared, epoch: u64) -> Self {
        let order = shared.plan.stream.order(epoch);
        let windows = (0..order.num_lanes()).map(|_| OpenWindow::default()).collect();
        Self { shared, epoch, order, windows, known: HashMap::new() }
    }

    /// Opens a batch and hands out its tasks; false when the feed ends.
    fn hand_out(
        &mut self,
        step: u64,
        size: StepSize,
        positions: std::ops::Range<u64>,
        cursor: Cursor,
    ) -> Result<bool, FeedError> {
        let plan = &self.shared.plan;
        let mine: Vec<u64> = positions.filter(|&p| plan.stream.is_mine(p)).collect();
        let Some(mut pixels) = self.shared.buffers.pop() else { return Ok(false) };
        pixels.cut(size.image_bytes());
        let batch = Arc::new(OpenBatch {
            step,
            size,
            cursor,
            pixels,
            outcomes: mine.iter().map(|_| Mutex::new(None)).collect(),
            unfilled: AtomicUsize::new(mine.len()),
            positions: mine,
        });
        if self.shared.batches.push(batch.clone()).is_err() {
            return Ok(false);
        }
        for (slot, &position) in batch.positions.iter().enumerate() {
            let row =
                if position < self.order.num_rows() { Some(self.locate(position)?) } else { None };
            let row = row.map(|(handle, at)| (position, handle, at));
            let task = Task { batch: batch.clone(), slot, row, epoch: self.epoch };
            if self.shared.tasks.push(task).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The row at a position, with its group on the way into memory.
    fn locate(&mut self, position: u64) -> Result<(Arc<GroupHandle>, RowAt), FeedError> {
        let (lane, index) = self.order.lane_of(position);
        let (window, at) = self.order.window_of(lane, index);
        if self.windows[lane as usize].number != Some(window) {
            self.open(lane, window)?;
        }
        let open = &mut self.windows[lane as usize];
        let row = open.rows[at as usize];
        let handle = open.groups[&row.group].clone();
        // The next window is read while the last half of this one is handed out.
        if at as usize == open.rows.len() / 2 && window + 1 < self.order.num_windows(lane) {
            let next: Vec<u32> = self.order.window_groups(lane, window + 1).collect();
            let ahead = next.into_iter().map(|g| self.fetch(g)).collect::<Result<_, _>>()?;
            self.windows[lane as usize].ahead = ahead;
        }
        Ok((handle, row))
    }

    fn open(&mut self, lane: u32, window: u32) -> Result<(), FeedError> {
        let numbers: Vec<u32> = self.order.window_groups(lane, window).collect();
        let mut groups = HashMap::with_capacity(numbers.len());
        for number in numbers {
            groups.insert(number, self.fetch(number)?);
        }
        let rows = self.order.window_rows(lane, window);
        let number = Some(window);
        self.windows[lane as usize] = OpenWindow { number, rows, groups, ahead: Vec::new() };
        Ok(())
    }

    /// The handle of a group, and a request to read it if it is new.
    fn fetch(&mut self, number: u32) -> Result<Arc<GroupHandle>, FeedError> {
        if let Some(known) = self.known.get(&number).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let plan = &self.shared.plan;
        let rows = plan.stream.selection.groups()[number as usize];
        let part = &plan.data.parts[rows.part as usize];
        let file =
            plan.data.file(part, &ColumnSet::Images).map_err(|e| FeedError::Data(Arc::new(e)))?;
        let entry = file.groups[rows.group as usize].clone();
        let handle = Arc::new(GroupHandle::new(plan.data.folder.clone(), file.file.clone(), entry));
        self.known.insert(number, Arc::downgrade(&handle));
        // A closed queue ends the feed at the next task.
        drop(self.shared.reads.push(handle.clone()));
        Ok(handle)
    }
}

fn decode_tasks(shared: &Shared) -> Result<(), FeedError> {
    let mut decoder = CropDecoder::default();
    while let Some(task) = shared.tasks.pop() {
        let outcome = fill(shared, &task, &mut decoder)?;
        if task.batch.fill(task.slot, outcome) {
            drop(task);
            shared.notify_full();
        }
    }
    Ok(())
}

fn fill(shared: &Shared, task: &Task, decoder: &mut CropDecoder) -> Result<SlotOutcome, FeedError> {
    let plan = &shared.plan;
    let pixels = task.batch.pixels.take(task.slot);
    let Some((position, handle, at)) = &task.row else {
        pixels.fill(0);
        let captions = plan.with_captions.then(Vec::new);
        let sample_id = SampleId([0; 16]);
        return Ok(SlotOutcome { sample_id, view: None, labels: Vec::new(), captions });
    };
    let images = handle.images()?;
    let (row, row_in_group) = plan.stream.selection.row(at.group as usize, at.nth);
    let part = plan.stream.selection.groups()[at.group as usize].part;
    let labels = shared.labels.part(part).map_err(|e| FeedError::Data(Arc::new(e)))?;
    let sample_id = images.sample_id(row_in_group);
    let seed = match plan.stream.layout {
        Layout::Sequential => 0,
        Layout::Shuffled { seed, .. } => seed,
    };
    let mut draws = Draws::new(Purpose::View, seed, task.epoch, *position, 0);
    let encoded = images.image(row_in_group);
    let seen = (&plan.viewing, task.batch.size.side_px);
    let view = shared
        .decode
        .measure(|| fill_slot(encoded, &shared.options, seen, &mut draws, decoder, pixels));
    let view = view.map_err(|error| {
        pixels.fill(0);
        shared.bad_rows.add(1);
        let mut last = shared.last_bad_row.lock().unwrap_or_else(|e| e.into_inner());
        *last = Some(format!("sample {sample_id}: {error}"));
    });
    Ok(SlotOutcome {
        sample_id,
        view: view.ok(),
        labels: labels.row(row).to_vec(),
        captions: labels.captions(row).map(<[String]>::to_vec),
    })
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
