//! A word as the scanner finds it, and who is told of it.

use std::ops::Range;

use super::letters::PADDING;
use crate::caption::word_table::WordTable;

/// One word of a caption, lower-case; a character outside ASCII is one byte of `letters`.
#[derive(Clone, Copy, Debug)]
pub struct Word<'l> {
    /// Letters of the caption, then zero bytes.
    pub(super) padded: &'l [u8],
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) is_plain: bool,
}

/// Takes the words of a caption in order.
pub trait Visitor {
    /// Takes the next word.
    fn word(&mut self, word: Word<'_>);
}

impl<'l> Word<'l> {
    /// The word at `place` in `padded`, behind which [`PADDING`] bytes should stand.
    pub fn at(padded: &'l [u8], place: Range<usize>, is_plain: bool) -> Self {
        Self { padded, start: place.start, end: place.end, is_plain }
    }

    /// Its letters.
    pub fn letters(&self) -> &'l [u8] {
        &self.padded[self.start..self.end]
    }

    /// Where it stands among the letters of the caption.
    pub fn place(&self) -> Range<usize> {
        self.start..self.end
    }

    /// What stands between it and a word before that ends at `end`.
    pub fn gap(&self, end: usize) -> &'l [u8] {
        &self.padded[end..self.start]
    }

    /// Whether it is surely of letters and digits of ASCII alone.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Its first eight letters as a number, the first lowest; fewer letters leave zeros.
    #[inline]
    pub fn first_letters(&self) -> u64 {
        match self.padded[self.start..].first_chunk::<PADDING>() {
            Some(bytes) => low_letters(bytes, (self.end - self.start).min(8)),
            None => 0,
        }
    }

    /// Its value in `table`.
    #[inline]
    pub fn look_up<V: Copy + Default>(&self, table: &WordTable<V>) -> Option<V> {
        let len = self.end - self.start;
        let Some(bytes) = self.padded[self.start..].first_chunk::<PADDING>() else {
            return table.get(self.letters());
        };
        if len <= 8 {
            return table.get_short(low_letters(bytes, len));
        }
        if len <= PADDING {
            let packed = u128::from_le_bytes(*bytes) & u128::MAX >> (128 - 8 * len as u32);
            return table.get_middle(packed);
        }
        table.get_long(self.letters())
    }
}

/// The first `len` of the first eight bytes as a number; `len` is 1 to 8.
#[inline]
fn low_letters(bytes: &[u8; PADDING], len: usize) -> u64 {
    let low = u64::from_le_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ]);
    low & u64::MAX >> (64 - 8 * len as u32)
}
