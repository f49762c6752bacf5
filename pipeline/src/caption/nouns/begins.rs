//! How phrases begin: a small set that is asked before the large table.
//!
//! In: every phrase. Out: whether one may begin with these words. Never: denies one that does.

/// An odd number whose product spreads low bits over the high ones.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// How phrases begin, as a set that may hold more: 128 KB that stay in the cache, where the table
/// of phrases does not. Nearly all words in a row begin no phrase.
#[derive(Clone, Debug)]
pub struct Begins(Box<[u64]>);

impl Begins {
    /// 2^20 bits for 170,000 begins.
    const BITS: u32 = 20;

    /// The begins of `phrases`, which have `_` between their words.
    pub fn new<'f>(phrases: impl Iterator<Item = &'f str>) -> Self {
        let mut begins = Self(vec![0; 1 << (Self::BITS - 6)].into());
        for phrase in phrases {
            let ends = phrase.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'_' | b'\''));
            for end in ends.map(|(at, _)| at).chain([phrase.len()]) {
                let bit = Self::bit(&phrase.as_bytes()[..end]);
                begins.0[bit / 64] |= 1 << (bit % 64);
            }
        }
        begins
    }

    fn bit(begin: &[u8]) -> usize {
        let hash = begin.chunks(8).fold(0_u64, |hash, chunk| {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            let mixed = (hash.rotate_left(5) ^ u64::from_le_bytes(bytes)).wrapping_mul(SPREAD);
            mixed ^ mixed >> 32
        });
        (hash.wrapping_mul(SPREAD) >> (u64::BITS - Self::BITS)) as usize
    }

    /// Whether a phrase may begin with the words joined to `begin`.
    pub fn may_have(&self, begin: &[u8]) -> bool {
        let bit = Self::bit(begin);
        self.0[bit / 64] >> (bit % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_begin_of_a_phrase_is_there_and_few_others() {
        let begins = Begins::new(["traffic_light", "man's_clothing"].into_iter());
        for begin in ["traffic", "traffic_light", "man", "man's", "man's_clothing"] {
            assert!(begins.may_have(begin.as_bytes()), "{begin}");
        }
        let others = (0..10_000).filter(|i| begins.may_have(format!("a_{i}").as_bytes()));
        assert!(others.count() < 10);
    }
}
