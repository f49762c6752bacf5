//! A bounded lock-free ring for any number of threads on both sides, which can be closed.
//!
//! In: items. Out: the same, first in first out. Never: waits, drops an item that went in, or takes
//! one after it was closed.
//!
//! After Vyukov's bounded queue: each slot has a stamp that says whose turn it is. The n-th push
//! takes slot n mod C when its stamp is 2n and leaves 2n + 1; the n-th pop takes it at 2n + 1 and
//! leaves 2(n + C), the turn of the push one lap on. Doubling tells "filled by push n" from "free
//! for push n + 1" when C is 1. The tail's lowest bit is "closed": a push and a close race for the
//! same word, so one of them is first, for everybody.

use std::mem::MaybeUninit;

use super::primitive::{AtomicU64, Ordering, UnsafeCell};

const CLOSED: u64 = 1;

/// The ring.
pub struct Ring<T> {
    slots: Box<[Slot<T>]>,
    /// Pushes so far, times two, plus [`CLOSED`].
    tail: AtomicU64,
    /// Pops so far.
    head: AtomicU64,
}

struct Slot<T> {
    stamp: AtomicU64,
    item: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: an item is moved in by the one push and out by the one pop whose turn the stamp shows, so
// it is handed from thread to thread and never shared.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

/// Why an item did not go in; it is given back.
#[derive(Debug, PartialEq, Eq)]
pub enum PushError<T> {
    /// No slot is free now.
    Full(T),
    /// The ring is closed.
    Closed(T),
}

/// Why no item came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopError {
    /// No item is whole now.
    Empty,
    /// The ring is closed, and every item that went in has come out.
    Ended,
}

impl<T> Ring<T> {
    /// An empty ring of `capacity` slots, at least one.
    pub fn new(capacity: usize) -> Self {
        let slot = |index| Slot {
            stamp: AtomicU64::new(2 * index),
            item: UnsafeCell::new(MaybeUninit::uninit()),
        };
        Self {
            slots: (0..capacity.max(1) as u64).map(slot).collect(),
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
        }
    }

    /// Puts an item in.
    ///
    /// # Errors
    ///
    /// [`PushError`] with the item.
    pub fn push(&self, item: T) -> Result<(), PushError<T>> {
        let mut tail = self.tail.load(Ordering::Acquire);
        loop {
            if tail & CLOSED != 0 {
                return Err(PushError::Closed(item));
            }
            // `tail` without its bit is the stamp of a slot that is free for this push.
            let slot = self.slot(tail / 2);
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp == tail {
                let next = tail + 2;
                let taken = self.tail.compare_exchange_weak(
                    tail,
                    next,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                match taken {
                    Ok(_) => {
                        // SAFETY: the stamp was `tail`, so the slot is empty, and the exchange made
                        // this the only push of that number; pops wait for the stamp below.
                        slot.item.with_mut(|cell| unsafe { (*cell).write(item) });
                        slot.stamp.store(tail + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => tail = now,
                }
            } else if stamp < tail {
                // The item of the lap before is still in it, unless the tail moved on meanwhile.
                let now = self.tail.load(Ordering::Acquire);
                if now == tail {
                    return Err(PushError::Full(item));
                }
                tail = now;
            } else {
                tail = self.tail.load(Ordering::Acquire);
            }
        }
    }

    /// Takes an item out.
    ///
    /// # Errors
    ///
    /// [`PopError`].
    pub fn pop(&self) -> Result<T, PopError> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let slot = self.slot(head);
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp == 2 * head + 1 {
                let taken = self.head.compare_exchange_weak(
                    head,
                    head + 1,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                match taken {
                    Ok(_) => {
                        // SAFETY: the stamp says that push `head` filled the slot, and the exchange
                        // made this the only pop of that number; pushes wait for the stamp below.
                        let item = slot.item.with_mut(|cell| unsafe { (*cell).assume_init_read() });
                        let lap = self.slots.len() as u64;
                        slot.stamp.store(2 * (head + lap), Ordering::Release);
                        return Ok(item);
                    }
                    Err(now) => head = now,
                }
            } else if stamp < 2 * head + 1 {
                let tail = self.tail.load(Ordering::Acquire);
                let now = self.head.load(Ordering::Acquire);
                if now != head {
                    head = now;
                } else if tail == 2 * head + CLOSED {
                    return Err(PopError::Ended);
                } else {
                    // Nothing, or a push has its number and is not done.
                    return Err(PopError::Empty);
                }
            } else {
                head = self.head.load(Ordering::Acquire);
            }
        }
    }

    /// Refuses every push from now on; what is inside still comes out.
    pub fn close(&self) {
        self.tail.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Items that went in and did not come out yet.
    pub fn len(&self) -> usize {
        let head = self.head.load(Ordering::Acquire);
        let tail = self.tail.load(Ordering::Acquire) / 2;
        // The two are read one after the other, so the tail may have run ahead.
        (tail.saturating_sub(head) as usize).min(self.slots.len())
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    fn slot(&self, number: u64) -> &Slot<T> {
        &self.slots[(number % self.slots.len() as u64) as usize]
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        while self.pop().is_ok() {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Push(u8),
        Pop,
        Close,
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_deque(
            capacity in 1usize..6,
            actions in prop::collection::vec(
                prop_oneof![
                    8 => any::<u8>().prop_map(Action::Push),
                    8 => Just(Action::Pop),
                    1 => Just(Action::Close),
                ],
                0..120,
            ),
        ) {
            let ring = Ring::new(capacity);
            let (mut model, mut is_closed) = (VecDeque::new(), false);
            for action in actions {
                match action {
                    Action::Push(item) => {
                        let expected = if is_closed {
                            Err(PushError::Closed(item))
                        } else if model.len() == capacity {
                            Err(PushError::Full(item))
                        } else {
                            model.push_back(item);
                            Ok(())
                        };
                        prop_assert_eq!(ring.push(item), expected);
                    }
                    Action::Pop => {
                        let none = if is_closed { PopError::Ended } else { PopError::Empty };
                        prop_assert_eq!(ring.pop(), model.pop_front().ok_or(none));
                    }
                    Action::Close => {
                        is_closed = true;
                        ring.close();
                    }
                }
                prop_assert_eq!(ring.len(), model.len());
            }
        }
    }

    #[test]
    fn items_left_inside_are_dropped_once() {
        let item = Arc::new(());
        let ring = Ring::new(3);
        (0..2).for_each(|_| ring.push(item.clone()).unwrap());
        drop(ring.pop().unwrap());
        drop(ring);
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn items_of_one_thread_keep_their_order() {
        let ring = Ring::new(2);
        std::thread::scope(|scope| {
            for thread in 0..2u64 {
                let ring = &ring;
                scope.spawn(move || {
                    for n in 0..20_000u64 {
                        let mut item = thread << 32 | n;
                        while let Err(PushError::Full(back)) = ring.push(item) {
                            item = back;
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut next = [0u64; 2];
            while next != [20_000; 2] {
                match ring.pop() {
                    Ok(item) => {
                        let seen = &mut next[(item >> 32) as usize];
                        assert_eq!(item & 0xffff_ffff, *seen);
                        *seen += 1;
                    }
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        assert!(ring.is_empty());
    }
}
