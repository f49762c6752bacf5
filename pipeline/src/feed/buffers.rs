//! The buffers of a feed's batches, on their way round.
//!
//! In: buffers that are free. Out: the same to the planner, who waits for one. Batches that are out
//! hold theirs until they are dropped, on whichever thread. Never: lets a consumer who keeps its
//! batches wait for ever for the next one.

use std::sync::{Mutex, MutexGuard};

use super::queue::PrefetchQueue;
use super::slot::SlotBuffer;

/// Free buffers, and how many are out.
///
/// There are `capacity + surplus` buffers in all. With no surplus all of them fit into the queue,
/// and with one those that come back are freed, so that nobody waits to give one back.
pub(super) struct Buffers {
    free: PrefetchQueue<SlotBuffer>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Buffers of batches that the consumer has.
    held: usize,
    /// Buffers above the capacity, made since the consumer kept its batches.
    surplus: usize,
}

impl Buffers {
    /// Room for so many free buffers; they come by [`Buffers::put`].
    pub fn new(capacity: usize) -> Self {
        Self { free: PrefetchQueue::new(capacity), counts: Mutex::default() }
    }

    /// Puts in one of the first `capacity` buffers.
    pub fn put(&self, buffer: SlotBuffer) {
        drop(self.free.push(buffer));
    }

    /// A free buffer; sleeps until there is one. `None` once the feed ends.
    pub fn take(&self) -> Option<SlotBuffer> {
        self.free.pop()
    }

    /// Counts a buffer that goes out with its batch.
    pub fn hand_out(&self) {
        self.counts().held += 1;
    }

    /// A buffer comes back from its batch.
    pub fn give_back(&self, buffer: SlotBuffer) {
        let mut counts = self.counts();
        counts.held = counts.held.saturating_sub(1);
        let freed = match counts.surplus.checked_sub(1) {
            Some(left) => {
                counts.surplus = left;
                Some(buffer)
            }
            // A closed feed takes no buffers back.
            None => self.free.push(buffer).err(),
        };
        drop(counts);
        // Without the lock: pages may have to be unlocked first.
        drop(freed);
    }

    /// Makes up for the batches that the consumer has, besides the one that it works on.
    ///
    /// # Errors
    ///
    /// Those of `make`.
    pub fn top_up<E>(&self, make: impl Fn() -> Result<SlotBuffer, E>) -> Result<(), E> {
        while self.counts().is_short() {
            let buffer = make()?;
            let mut counts = self.counts();
            if !counts.is_short() {
                break;
            }
            counts.surplus += 1;
            drop(self.free.push(buffer));
        }
        Ok(())
    }

    /// Ends it: nobody waits any more, what is free is freed, and what comes back.
    pub fn close(&self) {
        self.free.close();
        while let Some(buffer) = self.free.pop() {
            drop(buffer);
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Counts {
    fn is_short(&self) -> bool {
        self.held > self.surplus + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer() -> SlotBuffer {
        SlotBuffer::new(1, 1, None).unwrap()
    }

    #[test]
    fn buffers_that_are_kept_are_made_up_for_and_freed_when_they_come_back() {
        let buffers = Buffers::new(2);
        (0..2).for_each(|_| buffers.put(buffer()));
        let make = || Ok::<_, ()>(buffer());
        let mut kept = Vec::new();
        for _ in 0..10 {
            // With the two of the beginning in the consumer's hands this would wait for ever.
            kept.push(buffers.take().unwrap());
            buffers.hand_out();
            buffers.top_up(make).unwrap();
        }
        assert_eq!((buffers.counts().held, buffers.counts().surplus), (10, 9));
        kept.into_iter().for_each(|buffer| buffers.give_back(buffer));
        assert_eq!((buffers.counts().held, buffers.counts().surplus), (0, 0));
        assert_eq!(buffers.free.stats().occupancy, 2);
    }

    #[test]
    fn a_closed_feed_keeps_no_buffer() {
        let buffers = Buffers::new(2);
        (0..2).for_each(|_| buffers.put(buffer()));
        let held = buffers.take().unwrap();
        buffers.hand_out();
        buffers.close();
        assert_eq!(buffers.free.stats().occupancy, 0);
        buffers.give_back(held);
        assert_eq!(buffers.free.stats().occupancy, 0);
        assert!(buffers.take().is_none());
    }

    #[test]
    fn one_batch_at_a_time_needs_no_more_buffers() {
        let buffers = Buffers::new(2);
        (0..2).for_each(|_| buffers.put(buffer()));
        for _ in 0..10 {
            let one = buffers.take().unwrap();
            buffers.hand_out();
            buffers.top_up(|| Err("another buffer")).unwrap();
            buffers.give_back(one);
        }
    }
}
