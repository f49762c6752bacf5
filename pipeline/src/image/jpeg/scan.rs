//! The bits of a JPEG's scan, without the stuffed bytes.
//!
//! In: what libjpeg has not read of the file. Out: bits in a register, of which eight bytes are
//! taken at once without a look at any of them. Never: reads over a marker; forgets which byte of
//! the file comes next.
//!
//! A byte of 0xFF is followed by one of 0 that is not read, so eight bytes cannot be taken as they
//! are: a look for 0xFF on the way of every code costs less than the branch that goes wrong when it
//! is time to take more. So a stretch of the scan is copied without the zeroes, while it is in the
//! cache, and read from there.

use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128};
use std::arch::x86_64::{_mm_movemask_epi8, _mm_set1_epi8, _mm_storeu_si128};

/// Bits that are there at least after [`Bits::filled`]. A code and its coefficient have 31, so that
/// what is left begins with a whole code, of 16, before it is filled again.
const FILLED_BITS: u32 = 56;

/// Bytes of the scan that are copied at a time: with what is read of them they stay in the first
/// cache.
const STRETCH_BYTES: usize = 12 << 10;

/// Bytes that are taken at once.
const WORD_BYTES: usize = size_of::<u64>();

/// Bytes that are copied at once.
const COPY_BYTES: usize = size_of::<__m128i>();

/// Bits that were taken, the first highest, and where the next come from. Passed by value: a
/// reference that a call could follow would keep them in memory, on the way of every code.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    /// The next bits; below those that count stand some that will come again.
    pub bits: u64,
    count: u32,
    at: *const u8,
}

impl Bits {
    /// With [`FILLED_BITS`] bits or more, by no branch.
    ///
    /// # Safety
    ///
    /// [`WORD_BYTES`] bytes can be read at `at`.
    #[inline(always)]
    pub unsafe fn filled(self) -> Self {
        // SAFETY: the caller's.
        let word = u64::from_be(unsafe { self.at.cast::<u64>().read_unaligned() });
        let bytes = 63_u32.wrapping_sub(self.count) >> 3;
        // A part of one byte more comes along; when it is counted the same is or-ed again.
        Self {
            bits: self.bits | word.wrapping_shr(self.count),
            count: self.count | FILLED_BITS,
            // SAFETY: at most the bytes that were read.
            at: unsafe { self.at.add(bytes as usize) },
        }
    }

    /// Without as many of the first ones, which are there, as the low six bits of `count` say.
    #[inline(always)]
    pub fn without(self, count: u32) -> Self {
        let bits = self.bits.wrapping_shl(count);
        Self { bits, count: self.count.wrapping_sub(count & 63), ..self }
    }
}

/// Bits and a stretch of the bytes behind them.
pub(super) struct Scan {
    /// The stretch, then zeroes for whoever reads over its end.
    buffer: Vec<u8>,
    /// Bytes of the stretch, and zeroes that were left out of it.
    len: usize,
    stuffed: usize,
    /// Whether a marker or the end of the bytes follows the stretch.
    is_last: bool,
    /// Where in the file the stretch begins, and what follows it.
    first: *const u8,
    next: *const u8,
    bits: Bits,
}

/// Where libjpeg goes on: bits that it holds, the last one lowest, their number, and the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub bits: u64,
    pub count: u32,
    pub next: *const u8,
}

impl Scan {
    /// Nothing; [`Self::begin`] comes before everything else.
    pub fn new() -> Self {
        let none = std::ptr::null();
        let bits = Bits { bits: 0, count: 0, at: none };
        let (first, next) = (none, none);
        Self { buffer: Vec::new(), len: 0, stuffed: 0, is_last: true, first, next, bits }
    }

    /// Goes on where libjpeg is.
    pub fn begin(&mut self, place: Place) {
        let held = if place.count == 0 { 0 } else { place.bits << (64 - place.count) };
        (self.first, self.next) = (place.next, place.next);
        (self.len, self.stuffed, self.is_last) = (0, 0, false);
        self.bits = Bits { bits: held, count: place.count, at: self.buffer.as_ptr() };
    }

    /// The bits, with `needed` bytes behind them, of which those beyond the scan's end are zero.
    /// `end` is the file's.
    ///
    /// # Safety
    ///
    /// What lies between the place that was begun with and `end` can be read.
    #[inline(always)]
    pub unsafe fn bits(&mut self, needed: usize, end: *const u8) -> Bits {
        if !self.is_last && self.left() < needed {
            // SAFETY: the caller's.
            unsafe { self.take(needed, end) };
        }
        self.bits
    }

    /// Bytes of the stretch that were not taken.
    fn left(&self) -> usize {
        self.len.saturating_sub(self.taken())
    }

    fn taken(&self) -> usize {
        self.bits.at as usize - self.buffer.as_ptr() as usize
    }

    /// Moves on to `bits`; false, and stays, if they lie beyond the scan's end.
    #[inline(always)]
    pub fn advance(&mut self, bits: Bits) -> bool {
        let taken = bits.at as usize - self.buffer.as_ptr() as usize;
        if 8 * taken > 8 * self.len + bits.count as usize {
            return false;
        }
        self.bits = bits;
        true
    }

    /// Where libjpeg would be.
    pub fn place(&self) -> Place {
        let (mut count, mut taken) = (self.bits.count, self.taken());
        // Zeroes that are not there.
        while taken > self.len {
            taken -= 1;
            count -= 8;
        }
        let bits = if count == 0 { 0 } else { self.bits.bits >> (64 - count) };
        Place { bits, count, next: self.place_of(taken).0 }
    }

    /// Puts what was not taken first, and more of the scan behind it.
    ///
    /// # Safety
    ///
    /// As of [`Self::bits`].
    #[cold]
    #[inline(never)]
    unsafe fn take(&mut self, needed: usize, end: *const u8) {
        let taken = self.taken();
        (self.first, self.stuffed) = self.place_of(taken);
        // Room for the rest, the new bytes, what is written beyond them, and zeroes.
        let rest = self.len - taken;
        let most = needed + STRETCH_BYTES + 2 * COPY_BYTES;
        if self.buffer.len() < most + needed {
            let mut larger = vec![0; most + needed];
            larger[..rest].copy_from_slice(&self.buffer[taken..self.len]);
            self.buffer = larger;
        } else {
            self.buffer.copy_within(taken..self.len, 0);
        }
        self.len = rest;
        // SAFETY: the caller's.
        unsafe { self.copy(rest + STRETCH_BYTES, end) };
        if self.is_last {
            let zeroes = self.len..(self.len + needed + WORD_BYTES).min(self.buffer.len());
            self.buffer[zeroes].fill(0);
        }
        self.bits.at = self.buffer.as_ptr();
    }

    /// The byte of the file that follows `taken` bytes of the stretch, and the zeroes that were
    /// left out behind it: one behind each 0xFF.
    fn place_of(&self, taken: usize) -> (*const u8, usize) {
        let behind = self.buffer[taken..self.len].iter().filter(|&&byte| byte == 0xff).count();
        // SAFETY: the stretch was made of so many bytes from `first` on.
        (unsafe { self.first.add(taken + self.stuffed - behind) }, behind)
    }

    /// Copies bytes of the scan until the stretch has `wanted` or a marker comes.
    ///
    /// # Safety
    ///
    /// As of [`Self::bits`]; the buffer has room for `wanted` and [`COPY_BYTES`].
    unsafe fn copy(&mut self, wanted: usize, end: *const u8) {
        // SAFETY: both of the same bytes, the caller's.
        let mut left = unsafe { end.offset_from(self.next) } as usize;
        while self.len < wanted {
            // SAFETY: there is room for so many behind what is wanted.
            let to = unsafe { self.buffer.as_mut_ptr().add(self.len) };
            let whole = if left > COPY_BYTES {
                // SAFETY: so many bytes are left, there is room, and SSE2 is part of x86-64.
                let is_ff = unsafe {
                    let bytes = _mm_loadu_si128(self.next.cast());
                    _mm_storeu_si128(to.cast(), bytes);
                    _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(-1)))
                };
                (is_ff | 1 << COPY_BYTES).trailing_zeros() as usize
            } else if left > 0 {
                // SAFETY: a byte is left, and there is room.
                let byte = unsafe { *self.next };
                // SAFETY: as above.
                unsafe { *to = byte };
                usize::from(byte != 0xff)
            } else {
                0
            };
            self.len += whole;
            left -= whole;
            // SAFETY: so many bytes are left.
            self.next = unsafe { self.next.add(whole) };
            if whole == COPY_BYTES || whole == 1 && left < COPY_BYTES {
                continue;
            }
            // SAFETY: where two bytes are left, they can be read.
            if left < 2 || unsafe { self.next.cast::<[u8; 2]>().read_unaligned() } != [0xff, 0] {
                self.is_last = true;
                return;
            }
            self.buffer[self.len] = 0xff;
            self.len += 1;
            self.stuffed += 1;
            left -= 2;
            // SAFETY: so many bytes are left.
            self.next = unsafe { self.next.add(2) };
        }
    }
}
