//! The pixels of a batch, written by several threads at once.
//!
//! In: a buffer for n slots. Out: each slot once, as a mutable slice, to whoever takes it.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// A buffer of equal slots that is allocated once and used for many batches of any slot size.
pub struct SlotBuffer {
    bytes: Box<[UnsafeCell<u8>]>,
    slot_bytes: usize,
    taken: Box<[AtomicBool]>,
}

// SAFETY: a byte is only written through the `&mut` slice of its slot, which `take` gives out once
// until `cut`, and only read through `bytes`; both `cut` and `bytes` need `&mut self`, which
// nobody has while a slice is out.
unsafe impl Sync for SlotBuffer {}

impl SlotBuffer {
    /// A zeroed buffer of `bytes` bytes that will be cut into at most `slots_max` slots.
    pub fn new(slots_max: usize, bytes: usize) -> Self {
        Self {
            bytes: (0..bytes).map(|_| UnsafeCell::new(0)).collect(),
            slot_bytes: bytes / slots_max.max(1),
            taken: (0..slots_max).map(|_| AtomicBool::new(false)).collect(),
        }
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
        let cells = &self.bytes[slot * self.slot_bytes..(slot + 1) * self.slot_bytes];
        // SAFETY: the assertion above makes this the only reference into the slot; it borrows
        // `self`, so `cut` and `bytes` wait for its end.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), cells.len()) }
    }

    /// All bytes, slot after slot.
    pub fn bytes(&mut self) -> &[u8] {
        // SAFETY: `&mut self` shows that no slice of `take` is alive.
        unsafe {
            std::slice::from_raw_parts(UnsafeCell::raw_get(self.bytes.as_ptr()), self.bytes.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_write_their_slots_at_once() {
        let mut buffer = SlotBuffer::new(8, 8000);
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
        let buffer = SlotBuffer::new(2, 8);
        buffer.take(1);
        buffer.take(1);
    }
}
