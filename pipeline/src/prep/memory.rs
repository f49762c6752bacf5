//! What a job may hold in memory at once, in bytes.
//!
//! In: `runtime.memory_bytes`. Out: how much of it each purpose gets, and room for images that are
//! decoded, for which a thread waits. The shares: a half for decoding, an eighth for buffers that
//! threads keep, an eighth for samples that were read; a quarter is left for rows that wait to be
//! written. Never: decides what is made, only when.

use std::sync::{Condvar, Mutex};

use crate::image::Format;

/// Parts that are made at the same time, so that one is written and another waits for the disk
/// while a third is decoded.
pub const PARTS_AT_ONCE: usize = 3;

/// Bytes that a pixel takes while it is decoded: 3 of RGB, 6 of the coefficients that a progressive
/// JPEG keeps, 1 for what is made of it.
pub const DECODE_BYTES_PER_PX: u64 = 10;

/// The same for an AVIF: 2 B for each number of 10 or 12 bits of three full planes, what the
/// decoder keeps of them while it filters, and 3 of RGB.
const AVIF_BYTES_PER_PX: u64 = 16;

/// Most that the samples which one part prepares at once may have, however much memory there is:
/// enough to keep 64 threads busy to the end of a batch.
const BATCH_BYTES_MAX: u64 = 128 << 20;

/// What program, tables and threads take beside `runtime.memory_bytes`.
const PROGRAM_BYTES: u64 = 200_000_000;

/// The shares of a job's memory, and who holds what of that for decoding.
#[derive(Debug)]
pub struct Memory {
    memory_bytes: u64,
    held_bytes: Mutex<u64>,
    freed: Condvar,
}

/// Room that is given back when this is dropped.
#[derive(Debug)]
pub struct Held<'m> {
    memory: &'m Memory,
    bytes: u64,
}

impl Memory {
    /// Nothing is held yet.
    pub fn new(memory_bytes: u64) -> Self {
        Self { memory_bytes, held_bytes: Mutex::new(0), freed: Condvar::new() }
    }

    /// What is needed for images of up to `pixels_max`: one of them must fit into the half.
    pub fn needed_bytes(pixels_max: u64) -> u64 {
        pixels_max.saturating_mul(2 * DECODE_BYTES_PER_PX)
    }

    /// What a process that works by this takes in all.
    pub fn process_bytes(&self) -> u64 {
        self.memory_bytes + PROGRAM_BYTES
    }

    /// For all images that are decoded at the same time.
    pub fn decode_bytes(&self) -> u64 {
        self.memory_bytes / 2
    }

    /// For the samples of one batch; several parts are made at the same time.
    pub fn batch_bytes(&self) -> u64 {
        (self.memory_bytes / 8 / PARTS_AT_ONCE as u64).min(BATCH_BYTES_MAX)
    }

    /// For the buffers that one of `threads` keeps from image to image.
    pub fn kept_bytes(&self, threads: usize) -> u64 {
        self.memory_bytes / 8 / threads.max(1) as u64
    }

    /// Waits until an image of that many pixels may be decoded.
    pub fn hold(&self, format: Format, pixels: u64) -> Held<'_> {
        let per_px = match format {
            Format::Avif => AVIF_BYTES_PER_PX,
            _ => DECODE_BYTES_PER_PX,
        };
        let limit = self.decode_bytes();
        // Config and header were checked, so few images need more; one that does goes alone.
        let bytes = pixels.saturating_mul(per_px).min(limit);
        let held = self.held_bytes.lock().unwrap_or_else(|e| e.into_inner());
        let is_full = |held: &mut u64| *held + bytes > limit;
        let mut held = self.freed.wait_while(held, is_full).unwrap_or_else(|e| e.into_inner());
        *held += bytes;
        Held { memory: self, bytes }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.memory.held_bytes.lock().unwrap_or_else(|e| e.into_inner());
        *held -= self.bytes;
        self.memory.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_is_held_at_once_stays_within_the_half() {
        let memory = Memory::new(2000);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (memory, now, most) = (&memory, &now, &most);
                scope.spawn(move || {
                    for i in 0..500 {
                        let pixels = (thread * 37 + i * 11) % 130;
                        let (format, per_px) = match i % 3 {
                            0 => (Format::Avif, AVIF_BYTES_PER_PX),
                            _ => (Format::Png, DECODE_BYTES_PER_PX),
                        };
                        let held = memory.hold(format, pixels);
                        let bytes = (pixels * per_px).min(1000);
                        let sum = now.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        most.fetch_max(sum, Ordering::SeqCst);
                        now.fetch_sub(bytes, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 1000, "{most:?}");
        assert_eq!(*memory.held_bytes.lock().unwrap(), 0);
    }
}
