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
    /// Its letters.
    pub fn letters(&self) -> &'l [u8] {
        &self.padded[self.start..self.end]
    }

    /// Where it stands among the letters of the caption.
    pub fn place(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Whether it is surely of letters and digits of ASCII alone.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Its value in `table`.
    #[inline]
    pub fn look_up<V: Copy + Default>(&self, table: &WordTable<V>) -> Option<V> {
        let len = self.end - self.start;
        let Some(bytes) = self.padded[self.start..].first_chunk::<PADDING>() else {
            return table.get(self.letters());
        };
        if len <= 8 {
            let low = u64::from_le_bytes([
                bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
            ]);
            // `len` is not 0: a shift by 64 would be none.
            return table.get_short(low & u64::MAX >> (64 - 8 * len as u32));
        }
        if len <= PADDING {
            let packed = u128::from_le_bytes(*bytes) & u128::MAX >> (128 - 8 * len as u32);
            return table.get_middle(packed);
        }
        table.get_long(self.letters())
    }
}
