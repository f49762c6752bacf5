//! The threads of a feed.
//!
//! One planner walks the order and hands out tasks; readers fetch the row groups of a window when
//! it is opened; decoders fill slots; batches come out in the order of steps. A failure of any of
//! them ends the feed with one error, never with a hang.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use catlip_schemas::SampleId;
use catlip_schemas::version::ORDER_VERSION;

use super::batch::{HostBatch, OpenBatch, SlotOutcome};
use super::buffers::Buffers;
use super::draw::{Draws, Purpose};
use super::error::FeedError;
use super::group::{GroupError, GroupHandle};
use super::labels::LabelStore;
use super::memory::{Memory, MemoryStats};
use super::order::{Layout, RowAt};
use super::plan::FeedPlan;
use super::planner::{cursor_at, plan_steps};
use super::queue::{PrefetchQueue, QueueStats, TimedOut};
use super::slot::{SlotBuffer, SlotError};
use super::stream::LastBatch;
use super::view::fill_slot;
use crate::image::CropDecoder;
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
    /// The queue of row groups for readers.
    pub reads: QueueStats,
    /// Seconds of reading row groups, summed over threads.
    pub read_busy_secs: f64,
    /// Compressed row groups in memory and on the disk.
    pub memory: MemoryStats,
    /// Seconds that the consumer waited for batches.
    pub wait_secs: f64,
}

/// One slot to fill.
pub(super) struct Task {
    pub batch: Arc<OpenBatch>,
    pub slot: usize,
    /// Position and row; `None` for padding.
    pub row: Option<(u64, Arc<GroupHandle>, RowAt)>,
    pub epoch: u64,
}

/// What the threads of a feed share.
pub(super) struct Shared {
    pub plan: FeedPlan,
    labels: LabelStore,
    pub tasks: PrefetchQueue<Task>,
    pub reads: PrefetchQueue<Arc<GroupHandle>>,
    pub batches: PrefetchQueue<Arc<OpenBatch>>,
    pub buffers: Arc<Buffers>,
    pub memory: Arc<Memory>,
    stop: AtomicBool,
    failure: Mutex<Option<FeedError>>,
    full: (Mutex<()>, Condvar),
    read: StageMeter,
    decode: StageMeter,
    bad_rows: Counter,
    last_bad_row: Mutex<Option<String>>,
    wait_nanos: AtomicU64,
}

/// A running feed.
pub struct Feed {
    shared: Arc<Shared>,
    /// The batch that is next, while it is not yet whole.
    opened: Option<Arc<OpenBatch>>,
    threads: Vec<JoinHandle<()>>,
}

/// What came of a wait.
pub enum Next {
    /// The next batch.
    Batch(Box<HostBatch>),
    /// There is none any more.
    End,
    /// It is not yet whole.
    NotYet,
}

impl Feed {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`FeedError`] when the cursor, the ranks or the rows on offer make the plan impossible, or
    /// there is no memory for its batches, or no thread.
    pub fn start(plan: FeedPlan) -> Result<Self, FeedError> {
        check(&plan)?;
        let group_bytes = check_memory(&plan)?;
        let depth = plan.depth_batches.max(1);
        // One batch more than the queue holds: the one that the consumer works on.
        let buffers = Arc::new(Buffers::new(depth + 1));
        for _ in 0..depth + 1 {
            buffers.put(buffer(&plan)?);
        }
        let decoders = plan.decode_threads.max(1);
        let shared = Arc::new(Shared {
            labels: LabelStore::new(
                plan.sources.clone(),
                plan.vocab.clone(),
                plan.labels_from,
                plan.with_captions,
                plan.label_bytes(),
            ),
            memory: Memory::new(group_bytes, plan.memory.spill_dir.clone()),
            tasks: PrefetchQueue::new(TASKS_MAX),
            reads: PrefetchQueue::new(READ_AHEAD_MAX),
            batches: PrefetchQueue::new(depth + 1),
            buffers,
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
            full: (Mutex::new(()), Condvar::new()),
            read: StageMeter::default(),
            decode: StageMeter::default(),
            bad_rows: Counter::default(),
            last_bad_row: Mutex::new(None),
            wait_nanos: AtomicU64::new(0),
            plan,
        });
        let readers = shared.plan.reader_threads.max(1);
        // Whole from the first thread on: if one cannot start, dropping it ends the others.
        let mut feed = Self { shared, opened: None, threads: Vec::new() };
        let stages: [(usize, &'static str, Work); 3] = [
            (1, "feed-plan", plan_steps),
            (readers, "feed-read", read_ahead),
            (decoders, "feed-decode", decode_tasks),
        ];
        for (count, name, work) in stages {
            for _ in 0..count {
                feed.threads.push(spawn(&feed.shared, name, work)?);
            }
        }
        Ok(feed)
    }

    /// The next batch; sleeps until it is whole. `None` after the last step.
    ///
    /// # Errors
    ///
    /// The first failure of any thread of the feed.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot fail and end apart")]
    pub fn next(&mut self) -> Result<Option<HostBatch>, FeedError> {
        loop {
            match self.next_until(None)? {
                Next::Batch(batch) => return Ok(Some(*batch)),
                Next::End => return Ok(None),
                // Without an end of the wait it is whole.
                Next::NotYet => {}
            }
        }
    }

    /// The next batch, if it is whole within `limit`.
    ///
    /// # Errors
    ///
    /// Those of [`Feed::next`].
    pub fn next_within(&mut self, limit: Duration) -> Result<Next, FeedError> {
        self.next_until(Instant::now().checked_add(limit))
    }

    fn next_until(&mut self, end: Option<Instant>) -> Result<Next, FeedError> {
        let start = Instant::now();
        let shared = &self.shared;
        // Whoever keeps batches would wait for the buffers of those that it keeps.
        shared.buffers.top_up(|| buffer(&shared.plan))?;
        let opened = match self.opened.take() {
            Some(opened) => Ok(Some(opened)),
            None => shared.batches.pop_until(end),
        };
        let is_whole = match &opened {
            Ok(Some(open)) => shared.wait_full(open, end),
            Ok(None) => true,
            Err(TimedOut) => false,
        };
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        shared.wait_nanos.fetch_add(waited, Ordering::Relaxed);
        if let Some(failure) = shared.failure() {
            return Err(failure);
        }
        if !is_whole {
            self.opened = opened.ok().flatten();
            return Ok(Next::NotYet);
        }
        let Some(mut open) = opened.ok().flatten() else { return Ok(Next::End) };
        // The last decoder lets go of the batch right after it has filled it.
        let open = loop {
            match Arc::try_unwrap(open) {
                Ok(open) => break open,
                Err(shared) => open = shared,
            }
            std::thread::yield_now();
        };
        Ok(Next::Batch(Box::new(HostBatch::assemble(open, shared.buffers.clone()))))
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
            reads: shared.reads.stats(),
            read_busy_secs: shared.read.busy().as_secs_f64(),
            memory: shared.memory.stats(),
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

/// Refuses a plan that cannot be.
pub(super) fn check(plan: &FeedPlan) -> Result<(), FeedError> {
    let start = &plan.start;
    let cursor = |what: &str, found, expected| {
        Err(FeedError::Cursor { what: what.to_owned(), found, expected })
    };
    if start.order_version != ORDER_VERSION {
        return cursor("order version", start.order_version.into(), ORDER_VERSION.into());
    }
    let rows = plan.stream.num_rows();
    if start.position > rows {
        return cursor("position", start.position, rows);
    }
    let expected = cursor_at(plan, start.epoch, start.position);
    if start.snapshot != expected.snapshot {
        return cursor("snapshot", start.snapshot, expected.snapshot);
    }
    // The beginning of a mix need not say where each set begins.
    let is_start = start.sets.is_empty() && (start.epoch, start.position) == (0, 0);
    if start.sets.len() != expected.sets.len() && !is_start {
        return cursor("data sets", start.sets.len() as u64, expected.sets.len() as u64);
    }
    for (number, (found, expected)) in start.sets.iter().zip(&expected.sets).enumerate() {
        for (what, found, expected) in [
            ("snapshot", found.snapshot, expected.snapshot),
            ("epoch", found.epoch, expected.epoch),
            ("position", found.position, expected.position),
        ] {
            if found != expected {
                return cursor(&format!("{what} of data set {number}"), found, expected);
            }
        }
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

/// The bytes that are left for row groups.
fn check_memory(plan: &FeedPlan) -> Result<u64, FeedError> {
    plan.group_bytes().ok_or_else(|| FeedError::Memory {
        bytes: plan.memory.bytes,
        batches: plan.depth_batches.max(1) as u64 + 1,
        batch_bytes: plan.batch_bytes(),
        label_bytes: plan.label_bytes(),
    })
}

/// Pixels of a batch, locked where a device is to copy them.
fn buffer(plan: &FeedPlan) -> Result<SlotBuffer, FeedError> {
    let (slots_max, bytes) = plan.stream.rank_share_max();
    SlotBuffer::new(slots_max, bytes, plan.page_lock.as_deref()).map_err(|error| match error {
        SlotError::Memory(message) => FeedError::Buffer { bytes, message },
        SlotError::Lock(message) => FeedError::PageLock(format!("{bytes} bytes: {message}")),
    })
}

type Work = fn(&Shared) -> Result<(), FeedError>;

fn spawn(
    shared: &Arc<Shared>,
    thread: &'static str,
    work: Work,
) -> Result<JoinHandle<()>, FeedError> {
    let shared = shared.clone();
    let body = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&shared)));
        let failure = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(payload) => FeedError::Panicked { thread, message: panic_text(&*payload) },
        };
        shared.fail(failure);
    };
    let spawned = std::thread::Builder::new().name(thread.to_owned()).spawn(body);
    spawned.map_err(|error| FeedError::Thread { thread, message: error.to_string() })
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

    fn is_ended(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn notify_full(&self) {
        drop(self.full.0.lock().unwrap_or_else(|e| e.into_inner()));
        self.full.1.notify_all();
    }

    /// Sleeps until a batch is full, or `end` has come; false if it is then not full.
    fn wait_full(&self, batch: &OpenBatch, end: Option<Instant>) -> bool {
        let mut guard = self.full.0.lock().unwrap_or_else(|e| e.into_inner());
        while !batch.is_full() && !self.is_ended() {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            guard = match left {
                None => self.full.1.wait(guard).unwrap_or_else(|e| e.into_inner()),
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    let woken = self.full.1.wait_timeout(guard, left);
                    woken.unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        true
    }
}

/// Fetches row groups before a decoder needs them; a failure waits for the decoder that does.
fn read_ahead(shared: &Shared) -> Result<(), FeedError> {
    while let Some(group) = shared.reads.pop().filter(|_| !shared.is_ended()) {
        let _ = shared.read.measure(|| (group.images().err(), shared.labels.part(group.part())));
    }
    Ok(())
}

fn decode_tasks(shared: &Shared) -> Result<(), FeedError> {
    let mut scratch = Scratch::default();
    // What is still in the queue of a feed that was dropped is nobody's.
    while let Some(task) = shared.tasks.pop().filter(|_| !shared.is_ended()) {
        let outcome = fill(shared, &task, &mut scratch)?;
        if task.batch.fill(task.slot, outcome) {
            drop(task);
            shared.notify_full();
        }
    }
    Ok(())
}

/// What a decoding thread uses again and again.
#[derive(Default)]
struct Scratch {
    decoder: CropDecoder,
    encoded: Vec<u8>,
}

fn fill(shared: &Shared, task: &Task, scratch: &mut Scratch) -> Result<SlotOutcome, FeedError> {
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
    let labels = shared.labels.part(handle.part()).map_err(|e| FeedError::Data(Arc::new(e)))?;
    let (source, _) = plan.sources.part(handle.part());
    let sample_id = images.sample_id(row_in_group);
    let seed = match plan.stream.layout {
        Layout::Sequential => 0,
        Layout::Shuffled { seed, .. } => seed,
    };
    let draws = |purpose| Draws::new(purpose, seed, task.epoch, *position, 0);
    let encoded = images.image(row_in_group, &mut scratch.encoded).map_err(GroupError::from)?;
    let seen = (&plan.viewing, task.batch.size.side_px);
    let decoder = &mut scratch.decoder;
    let view = shared.decode.measure(|| match images.image_hash(row_in_group) {
        Some(hash) if hash != blake3::hash(encoded).as_bytes()[..16] => {
            Err("its bytes in the shard are not those that were prepared".to_owned())
        }
        _ => {
            let mut draws = draws(Purpose::View);
            fill_slot(encoded, &source.options, seen, &mut draws, decoder, pixels)
                .map_err(|error| error.to_string())
        }
    });
    let view = match view {
        Ok(view) => Some(view),
        Err(error) => {
            pixels.fill(0);
            shared.bad_row(format!("sample {sample_id}: {error}"))?;
            None
        }
    };
    Ok(SlotOutcome {
        sample_id,
        view,
        labels: labels.row(row, &mut draws(Purpose::Caption)).to_vec(),
        captions: labels.captions(row).map(<[String]>::to_vec),
    })
}

impl Shared {
    /// Counts a row that did not decode; too many end the feed.
    fn bad_row(&self, what: String) -> Result<(), FeedError> {
        self.bad_rows.add(1);
        let found = self.bad_rows.get();
        let mut last = self.last_bad_row.lock().unwrap_or_else(|e| e.into_inner());
        match self.plan.bad_rows_max {
            Some(limit) if found > limit => {
                Err(FeedError::TooManyBadRows { found, limit, last: what })
            }
            _ => {
                *last = Some(what);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
