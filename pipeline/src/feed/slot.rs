//! The pixels of a batch, written by several threads at once.
//!
//! In: a buffer for n slots. Out: each slot once, as a mutable slice, to whoever takes it.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// A buffer of equal slots that is allocated once and used for many batches.
pub struct SlotBuffer {
    bytes: Box<[UnsafeCell<u8>]>,
    slot_bytes: usize,
    taken: Box<[AtomicBool]>,
}

// SAFETY: a byte is only written through the `&mut` slice of its slot, which `take` gives out once
// until `reset`, and only read through `bytes`; both `reset` and `bytes` need `&mut self`, which
// nobody has while a slice is out.
unsafe impl Sync for SlotBuffer {}

impl SlotBuffer {
    /// A zeroed buffer of `slots` slots of `slot_bytes` bytes.
    pub fn new(slots: usize, slot_bytes: usize) -> Self {
        Self {
            bytes: (0..slots * slot_bytes).map(|_| UnsafeCell::new(0)).collect(),
            slot_bytes,
            taken: (0..slots).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// The slot of that index.
    ///
    /// # Panics
    ///
    /// If it was taken before since the last [`SlotBuffer::reset`], or there is none.
    #[expect(clippy::mut_from_ref, reason = "each slot is given out once, which `taken` holds")]
    pub fn take(&self, slot: usize) -> &mut [u8] {
        let was_taken = self.taken[slot].swap(true, Ordering::AcqRel);
        assert!(!was_taken, "slot {slot} is taken twice");
        let cells = &self.bytes[slot * self.slot_bytes..(slot + 1) * self.slot_bytes];
        // SAFETY: the assertion above makes this the only reference into the slot; it borrows
        // `self`, so `reset` and `bytes` wait for its end.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), cells.len()) }
    }

    /// All bytes, slot after slot.
    pub fn bytes(&mut self) -> &[u8] {
        // SAFETY: `&mut self` shows that no slice of `take` is alive.
        unsafe {
            std::slice::from_raw_parts(UnsafeCell::raw_get(self.bytes.as_ptr()), self.bytes.len())
        }
    }

    /// Makes all slots free again; their bytes stay.
    pub fn reset(&mut self) {
        self.taken.iter_mut().for_each(|taken| *taken.get_mut() = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_write_their_slots_at_once() {
        let mut buffer = SlotBuffer::new(8, 1000);
        std::thread::scope(|scope| {
            for slot in 0..8 {
                let buffer = &buffer;
                scope.spawn(move || buffer.take(slot).fill(slot as u8 + 1));
            }
        });
        for (slot, bytes) in buffer.bytes().chunks(1000).enumerate() {
            assert!(bytes.iter().all(|&b| b == slot as u8 + 1));
        }
        buffer.reset();
        assert_eq!(buffer.take(3)[0], 4);
    }

    #[test]
    #[should_panic(expected = "slot 1 is taken twice")]
    fn a_slot_is_given_out_once() {
        let buffer = SlotBuffer::new(2, 4);
        buffer.take(1);
        buffer.take(1);
    }
}
