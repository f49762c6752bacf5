//! The bounded queue between stages.
//!
//! In: items from any number of threads. Out: the same, first in first out. The hand-over is
//! lock-free ([`Ring`]); a lock is taken only by who must sleep, and to wake them. Who found it
//! full is woken once half of it is free: room for one item would wake them for each item. Never:
//! drops an item unseen; sleeps on a closed queue.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::primitive::{AtomicUsize, Condvar, Mutex, Ordering, fence};
use super::ring::{PopError, PushError, Ring};

/// A bounded multi-producer, multi-consumer queue that can be closed.
pub struct PrefetchQueue<T> {
    ring: Ring<T>,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    counts: Counts,
}

/// std's atomics even under loom: they decide nothing.
#[derive(Default)]
struct Counts {
    pushed: AtomicU64,
    popped: AtomicU64,
    push_wait_nanos: AtomicU64,
    pop_wait_nanos: AtomicU64,
}

/// No item came until the end of the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

/// What a queue has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueStats {
    /// Items that went in.
    pub pushed: u64,
    /// Items that came out.
    pub popped: u64,
    /// Seconds that producers slept because it was full: the side behind it is slow.
    pub push_wait_secs: f64,
    /// Seconds that consumers slept because it was empty: the side before it is slow.
    pub pop_wait_secs: f64,
    /// Items in it now.
    pub occupancy: usize,
    /// Its capacity.
    pub capacity: usize,
}

impl<T> PrefetchQueue<T> {
    /// An empty queue for `capacity` items, at least one.
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: Ring::new(capacity),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            counts: Counts::default(),
        }
    }

    /// Puts an item in; if the queue is full, sleeps until half of it is free.
    ///
    /// # Errors
    ///
    /// Gives the item back if the queue is closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut item = Some(item);
        let attempt = || match self.ring.push(item.take()?) {
            Ok(()) => Some(Ok(())),
            Err(PushError::Closed(back)) => Some(Err(back)),
            Err(PushError::Full(back)) => {
                item = Some(back);
                None
            }
        };
        // Without an end of the wait there is a result.
        self.wait(&self.counts.push_wait_nanos, None, attempt).unwrap_or(Ok(()))?;
        self.counts.pushed.fetch_add(1, Ordering::Relaxed);
        self.wake_sleepers();
        Ok(())
    }

    /// Takes an item out; sleeps while the queue is empty. `None` once it is closed and empty.
    pub fn pop(&self) -> Option<T> {
        self.pop_until(None).ok().flatten()
    }

    /// Takes an item out; sleeps while the queue is empty, until `end` at most. `None` once it is
    /// closed and empty.
    ///
    /// # Errors
    ///
    /// [`TimedOut`].
    pub fn pop_until(&self, end: Option<Instant>) -> Result<Option<T>, TimedOut> {
        let attempt = || match self.ring.pop() {
            Ok(item) => Some(Some(item)),
            Err(PopError::Ended) => Some(None),
            Err(PopError::Empty) => None,
        };
        let item = self.wait(&self.counts.pop_wait_nanos, end, attempt).ok_or(TimedOut)?;
        if item.is_some() {
            self.counts.popped.fetch_add(1, Ordering::Relaxed);
            // Of pops at the same time the last one to come through the fence sees all of them.
            fence(Ordering::SeqCst);
            if self.ring.len() <= self.ring.capacity() / 2 {
                self.wake_sleepers();
            }
        }
        Ok(item)
    }

    /// Ends the queue: no item goes in any more; those inside still come out.
    pub fn close(&self) {
        self.ring.close();
        self.wake_sleepers();
    }

    /// What it has seen.
    pub fn stats(&self) -> QueueStats {
        let secs = |nanos: &AtomicU64| nanos.load(Ordering::Relaxed) as f64 / 1e9;
        QueueStats {
            pushed: self.counts.pushed.load(Ordering::Relaxed),
            popped: self.counts.popped.load(Ordering::Relaxed),
            push_wait_secs: secs(&self.counts.push_wait_nanos),
            pop_wait_secs: secs(&self.counts.pop_wait_nanos),
            occupancy: self.ring.len(),
            capacity: self.ring.capacity(),
        }
    }

    /// Tries until `attempt` has a result, or `end` has come; between tries it sleeps.
    ///
    /// No wake-up is lost: a sleeper announces itself before its last try, and whoever changes the
    /// ring looks for sleepers after the change, with a fence between on both sides.
    fn wait<R>(
        &self,
        nanos: &AtomicU64,
        end: Option<Instant>,
        mut attempt: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        if let Some(result) = attempt() {
            return Some(result);
        }
        let start = Instant::now();
        let mut guard = self.lock.lock().unwrap_or_else(|e| e.into_inner());
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let result = loop {
            if let Some(result) = attempt() {
                break Some(result);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            guard = match left {
                None => self.wake.wait(guard).unwrap_or_else(|e| e.into_inner()),
                Some(Duration::ZERO) => break None,
                Some(left) => {
                    let woken = self.wake.wait_timeout(guard, left);
                    woken.unwrap_or_else(|e| e.into_inner()).0
                }
            };
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        nanos.fetch_add(waited, Ordering::Relaxed);
        result
    }

    fn wake_sleepers(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(|e| e.into_inner()));
            self.wake.notify_all();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_threads_hand_over_every_item_once() {
        let queue = Arc::new(PrefetchQueue::new(3));
        let producers: Vec<_> = (0..4u64)
            .map(|p| {
                let queue = queue.clone();
                std::thread::spawn(move || {
                    (0..1000).for_each(|i| queue.push(p * 1000 + i).unwrap())
                })
            })
            .collect();
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                std::thread::spawn(move || std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>())
            })
            .collect();
        producers.into_iter().for_each(|t| t.join().unwrap());
        queue.close();
        let mut all: Vec<u64> = consumers.into_iter().flat_map(|t| t.join().unwrap()).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..4000));
        assert_eq!((queue.stats().pushed, queue.stats().popped), (4000, 4000));
    }

    #[test]
    fn closing_wakes_both_sides() {
        let queue = Arc::new(PrefetchQueue::new(1));
        queue.push(1).unwrap();
        let (a, b) = (queue.clone(), Arc::new(PrefetchQueue::<u32>::new(1)));
        let c = b.clone();
        let full = std::thread::spawn(move || a.push(2));
        let empty = std::thread::spawn(move || c.pop());
        queue.close();
        b.close();
        assert_eq!(full.join().unwrap(), Err(2));
        assert_eq!(empty.join().unwrap(), None);
        assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
    }

    #[test]
    fn a_wait_with_an_end_ends() {
        let queue = PrefetchQueue::<u32>::new(1);
        let start = Instant::now();
        let end = Some(start + Duration::from_millis(20));
        assert_eq!(queue.pop_until(end), Err(TimedOut));
        assert!(start.elapsed() >= Duration::from_millis(20), "{:?}", start.elapsed());
        queue.push(7).unwrap();
        assert_eq!(queue.pop_until(end), Ok(Some(7)));
        queue.close();
        assert_eq!(queue.pop_until(end), Ok(None));
        assert_eq!(queue.stats().popped, 1);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Push(u8),
        Pop,
        Close,
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_deque(
            capacity in 1usize..5,
            actions in prop::collection::vec(
                prop_oneof![
                    6 => any::<u8>().prop_map(Action::Push),
                    6 => Just(Action::Pop),
                    1 => Just(Action::Close),
                ],
                0..60,
            ),
        ) {
            let queue = PrefetchQueue::new(capacity);
            let (mut model, mut closed) = (VecDeque::new(), false);
            for action in actions {
                match action {
                    Action::Push(_) if !closed && model.len() == capacity => {}
                    Action::Push(item) if closed => prop_assert_eq!(queue.push(item), Err(item)),
                    Action::Push(item) => {
                        model.push_back(item);
                        prop_assert_eq!(queue.push(item), Ok(()));
                    }
                    Action::Pop if model.is_empty() && !closed => {}
                    Action::Pop => prop_assert_eq!(queue.pop(), model.pop_front()),
                    Action::Close => {
                        closed = true;
                        queue.close();
                    }
                }
                prop_assert_eq!(queue.stats().occupancy, model.len());
            }
        }
    }
}
