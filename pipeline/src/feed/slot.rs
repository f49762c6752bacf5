//! The pixels of a batch, written by several threads at once.
//!
//! In: a buffer for n slots. Out: each slot once, as a mutable slice, to whoever takes it.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::MmapMut;

/// Locks pages in memory, so that a device copies from them by itself and while others work; who
/// knows the device knows how.
pub trait PageLock: fmt::Debug + Send + Sync {
    /// Locks whole pages until the answer is dropped, which is before they are freed.
    ///
    /// # Errors
    ///
    /// Why the driver refuses, as text.
    fn lock(&self, pages: &mut [u8]) -> Result<Box<dyn Send>, String>;
}

/// Why there is no buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotError {
    /// The system has not so much memory.
    Memory(String),
    /// It cannot be locked.
    Lock(String),
}

/// A buffer of equal slots that is allocated once and used for many batches of any slot size.
pub struct SlotBuffer {
    // Before `pages`, since fields are dropped in this order.
    _lock: Option<Box<dyn Send>>,
    _pages: MmapMut,
    start: NonNull<u8>,
    bytes: usize,
    slot_bytes: usize,
    taken: Box<[AtomicBool]>,
}

// SAFETY: `start` points to `_pages`, which moves along and does not move itself.
unsafe impl Send for SlotBuffer {}
// SAFETY: a byte is only written through the `&mut` slice of its slot, which `take` gives out once
// until `cut`, and only read through `bytes`; both `cut` and `bytes` need `&mut self`, which
// nobody has while a slice is out. `_lock` and `_pages` are not touched until they are dropped.
unsafe impl Sync for SlotBuffer {}

impl SlotBuffer {
    /// A zeroed buffer of `bytes` bytes that will be cut into at most `slots_max` slots. It has
    /// pages of its own, so that a lock meets nothing else.
    ///
    /// # Errors
    ///
    /// [`SlotError`] when there is no memory, or `lock` is refused.
    pub fn new(
        slots_max: usize,
        bytes: usize,
        lock: Option<&dyn PageLock>,
    ) -> Result<Self, SlotError> {
        // A map of no bytes is refused.
        let mut pages =
            MmapMut::map_anon(bytes.max(1)).map_err(|e| SlotError::Memory(e.to_string()))?;
        let lock = lock.map(|lock| lock.lock(&mut pages)).transpose().map_err(SlotError::Lock)?;
        Ok(Self {
            start: NonNull::from(&mut pages[..]).cast(),
            _lock: lock,
            _pages: pages,
            bytes,
            slot_bytes: bytes / slots_max.max(1),
            taken: (0..slots_max).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// Cuts it into slots of `slot_bytes` bytes, all free; the bytes stay.
    pub fn cut(&mut self, slot_bytes: usize) {
        self.slot_bytes = slot_bytes;
        self.taken.iter_mut().for_each(|taken| *taken.get_mut() = false);
    }

    /// The slot of that index.
    ///
    /// # Panics
    ///
    /// If it was taken before since the last [`SlotBuffer::cut`], or there is none.
    #[expect(clippy::mut_from_ref, reason = "each slot is given out once, which `taken` holds")]
    pub fn take(&self, slot: usize) -> &mut [u8] {
        let was_taken = self.taken[slot].swap(true, Ordering::AcqRel);
        assert!(!was_taken, "slot {slot} is taken twice");
        let from = slot * self.slot_bytes;
        assert!(from + self.slot_bytes <= self.bytes, "slot {slot} behind {} bytes", self.bytes);
        // SAFETY: it lies inside `_pages`. The first assertion makes this the only reference into
        // the slot; it borrows `self`, so `cut` and `bytes` wait for its end.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from).as_ptr(), self.slot_bytes) }
    }

    /// Where its bytes begin; they stay there until it is dropped.
    pub fn start(&mut self) -> NonNull<u8> {
        self.start
    }

    /// All bytes, slot after slot.
    pub fn bytes(&mut self) -> &[u8] {
        // SAFETY: they are `_pages`; `&mut self` shows that no slice of `take` is alive.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn threads_write_their_slots_at_once() {
        let mut buffer = SlotBuffer::new(8, 8000, None).unwrap();
        std::thread::scope(|scope| {
            for slot in 0..8 {
                let buffer = &buffer;
                scope.spawn(move || buffer.take(slot).fill(slot as u8 + 1));
            }
        });
        for (slot, bytes) in buffer.bytes().chunks(1000).enumerate() {
            assert!(bytes.iter().all(|&b| b == slot as u8 + 1));
        }
        buffer.cut(2000);
        assert_eq!(buffer.take(3).len(), 2000);
        assert_eq!(buffer.bytes()[6000], 7);
    }

    #[test]
    #[should_panic(expected = "slot 1 is taken twice")]
    fn a_slot_is_given_out_once() {
        let buffer = SlotBuffer::new(2, 8, None).unwrap();
        buffer.take(1);
        buffer.take(1);
    }

    #[test]
    #[should_panic(expected = "slot 1 behind 8 bytes")]
    fn a_slot_lies_inside() {
        let mut buffer = SlotBuffer::new(2, 8, None).unwrap();
        buffer.cut(5);
        buffer.take(1);
    }

    /// Counts the bytes that are locked.
    #[derive(Clone, Debug, Default)]
    struct Counting(Arc<AtomicUsize>);

    struct Counted(Counting, usize);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.0.fetch_sub(self.1, Ordering::SeqCst);
        }
    }

    impl PageLock for Counting {
        fn lock(&self, pages: &mut [u8]) -> Result<Box<dyn Send>, String> {
            assert!(pages.as_ptr().addr().is_multiple_of(4096), "not a page's beginning");
            if pages.len() > 1 << 20 {
                return Err("too many".to_owned());
            }
            self.0.fetch_add(pages.len(), Ordering::SeqCst);
            Ok(Box::new(Counted(self.clone(), pages.len())))
        }
    }

    #[test]
    fn pages_are_locked_as_long_as_the_buffer_lives() {
        let lock = Counting::default();
        let buffers = [3000, 5000].map(|bytes| SlotBuffer::new(2, bytes, Some(&lock)).unwrap());
        assert_eq!(lock.0.load(Ordering::SeqCst), 8000);
        drop(buffers);
        assert_eq!(lock.0.load(Ordering::SeqCst), 0);
        let refused = SlotBuffer::new(2, 2 << 20, Some(&lock)).err();
        assert_eq!(refused, Some(SlotError::Lock("too many".to_owned())));
    }
}
