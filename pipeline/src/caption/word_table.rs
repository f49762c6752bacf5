//! A table from words to small values, built once and asked a billion times.
//!
//! In: words of ASCII without NUL, each with a value of a few bytes. Out: the value of a word.
//! Never: compares texts where a comparison of numbers does, forgets that two words may share a
//! hash, or grows by what is asked.
//!
//! A word of up to 8 bytes is a `u64`, one of up to 16 a `u128`; these numbers are the keys, so
//! equal keys are equal words. Longer words, 1 in 100 of English text, are kept as text beside
//! their hash. Each kind has an open-addressed array at most half full: one or two cache lines a
//! look-up, also for words that are not there, which is what most look-ups find.

use std::ops::Range;

/// Bytes that a key of the largest kind holds.
pub const PACKED_BYTES_MAX: usize = 16;

/// An odd number whose product spreads low bits over the high ones: 2^64 divided by the golden
/// ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Values by word.
#[derive(Clone, Debug)]
pub struct WordTable<V> {
    short: Slots<u64, V>,
    middle: Slots<u128, V>,
    /// By hash; the range is the word's place in `texts`.
    long: Slots<u64, (Range<u32>, V)>,
    texts: Vec<u8>,
    long_bytes_max: usize,
}

impl<V: Copy + Default> WordTable<V> {
    /// Builds the table of `words`; of a word that comes twice the first value stays.
    ///
    /// # Panics
    ///
    /// On a word that is empty or ends in NUL, and on more than 4 GiB of long words.
    pub fn new<'a>(words: impl Iterator<Item = (&'a str, V)> + Clone) -> Self {
        let count = |range: Range<usize>| {
            words.clone().filter(|(word, _)| range.contains(&word.len())).count()
        };
        let mut table = Self {
            short: Slots::new(count(0..9)),
            middle: Slots::new(count(9..PACKED_BYTES_MAX + 1)),
            long: Slots::new(count(PACKED_BYTES_MAX + 1..usize::MAX)),
            texts: Vec::new(),
            long_bytes_max: 0,
        };
        words.for_each(|(word, value)| table.insert(word, value));
        table
    }

    fn insert(&mut self, word: &str, value: V) {
        let bytes = word.as_bytes();
        assert!(!matches!(bytes.last(), None | Some(0)), "`{word}` cannot be a word of a table");
        if let Some(packed) = pack(bytes) {
            match u64::try_from(packed) {
                Ok(short) => self.short.insert(short, hash_short(short), value, |_| true),
                Err(_) => self.middle.insert(packed, hash_middle(packed), value, |_| true),
            }
            return;
        }
        let start = self.texts.len();
        assert!(start + bytes.len() <= u32::MAX as usize, "a table of more than 4 GiB");
        let range = start as u32..(start + bytes.len()) as u32;
        let hash = hash_long(bytes);
        let texts = &self.texts;
        let is_same = |(range, _): &(Range<u32>, V)| text(texts, range) == bytes;
        self.long.insert(hash, hash, (range, value), is_same);
        self.texts.extend_from_slice(bytes);
        self.long_bytes_max = self.long_bytes_max.max(bytes.len());
    }

    /// The value of `word`.
    pub fn get(&self, word: &[u8]) -> Option<V> {
        match pack(word) {
            // Packed, `dog` and `dog` with a NUL behind it are the same number.
            Some(_) if word.last() == Some(&0) => None,
            Some(packed) => match u64::try_from(packed) {
                Ok(short) => self.get_short(short),
                Err(_) => self.get_middle(packed),
            },
            None => self.get_long(word),
        }
    }

    /// The value of a word of up to 8 bytes as a number, its first byte lowest.
    #[inline]
    pub fn get_short(&self, word: u64) -> Option<V> {
        self.short.find(word, hash_short(word), |_| true)
    }

    /// The value of a word of 9 to 16 bytes as a number, its first byte lowest.
    #[inline]
    pub fn get_middle(&self, word: u128) -> Option<V> {
        self.middle.find(word, hash_middle(word), |_| true)
    }

    /// The value of a word of more than 16 bytes.
    pub fn get_long(&self, word: &[u8]) -> Option<V> {
        // What is longer than every word is none of them, and is not even hashed.
        if word.len() > self.long_bytes_max {
            return None;
        }
        let hash = hash_long(word);
        let is_same = |(range, _): &(Range<u32>, V)| text(&self.texts, range) == word;
        self.long.find(hash, hash, is_same).map(|(_, value)| value)
    }
}

fn text<'t>(texts: &'t [u8], range: &Range<u32>) -> &'t [u8] {
    &texts[range.start as usize..range.end as usize]
}

/// A word of up to 16 bytes as a number, its first byte lowest.
fn pack(word: &[u8]) -> Option<u128> {
    let mut bytes = [0; PACKED_BYTES_MAX];
    bytes.get_mut(..word.len())?.copy_from_slice(word);
    Some(u128::from_le_bytes(bytes))
}

fn hash_short(word: u64) -> u64 {
    // The middle bits know the low half of the word only: fold before the product is cut.
    (word ^ word >> 32).wrapping_mul(SPREAD)
}

fn hash_middle(word: u128) -> u64 {
    let (low, high) = (word as u64, (word >> 64) as u64);
    (low.wrapping_mul(SPREAD).rotate_left(32) ^ high).wrapping_mul(SPREAD)
}

fn hash_long(word: &[u8]) -> u64 {
    let (octets, rest) = word.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&last);
    let hash = octets.iter().chain(last).fold(0_u64, |hash, octet| {
        (hash.rotate_left(5) ^ u64::from_le_bytes(*octet)).wrapping_mul(SPREAD)
    });
    // A key of zero is an empty slot.
    hash.max(1)
}

/// An open-addressed array. A zero key is an empty slot: no word is packed to it but the empty
/// one, which has no value.
#[derive(Clone, Debug)]
struct Slots<K, V> {
    slots: Box<[(K, V)]>,
    /// What is left of a hash is the index.
    shift: u32,
}

impl<K: Copy + Default + Eq, V: Clone + Default> Slots<K, V> {
    /// Room for `len` keys in twice as many slots or more; there is always an empty one.
    fn new(len: usize) -> Self {
        let num_slots = (2 * len).next_power_of_two().max(2);
        let slots = vec![(K::default(), V::default()); num_slots].into_boxed_slice();
        Self { slots, shift: u64::BITS - num_slots.trailing_zeros() }
    }

    fn insert(&mut self, key: K, hash: u64, value: V, is_same: impl Fn(&V) -> bool) {
        let mut index = (hash >> self.shift) as usize;
        loop {
            let (found, held) = &self.slots[index];
            if *found == K::default() {
                break;
            }
            if *found == key && is_same(held) {
                return;
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
        self.slots[index] = (key, value);
    }

    #[inline]
    fn find(&self, key: K, hash: u64, is_same: impl Fn(&V) -> bool) -> Option<V> {
        let mut index = (hash >> self.shift) as usize;
        loop {
            let (found, value) = &self.slots[index & (self.slots.len() - 1)];
            if *found == key && key != K::default() && is_same(value) {
                return Some(value.clone());
            }
            if *found == K::default() {
                return None;
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: [(&str, u32); 7] = [
        ("dog", 1),
        ("dogs", 2),
        ("12345678", 3),
        ("123456789", 4),
        ("1234567890123456", 5),
        ("12345678901234567", 6),
        ("a_word_that_is_longer_than_two_keys", 7),
    ];

    #[test]
    fn a_word_of_any_length_is_found_with_its_value() {
        let table = WordTable::new(WORDS.into_iter());
        for (word, value) in WORDS {
            assert_eq!(table.get(word.as_bytes()), Some(value), "{word}");
        }
    }

    #[test]
    fn a_beginning_an_end_or_nothing_of_a_word_is_not_the_word() {
        let table = WordTable::new(WORDS.into_iter());
        for (word, _) in WORDS {
            let known = |part: &str| WORDS.iter().any(|(word, _)| *word == part);
            let (longer, nul) = (format!("{word}x"), format!("{word}\0"));
            for part in [&word[1..], &word[..word.len() - 1], &longer, &nul, ""] {
                assert_eq!(table.get(part.as_bytes()).is_some(), known(part), "{part}");
            }
        }
    }

    #[test]
    fn of_a_word_that_comes_twice_the_first_value_stays() {
        for word in ["dog", "a_long_word", "a_word_of_the_longest_kind"] {
            let table = WordTable::new([(word, 1), (word, 2)].into_iter());
            assert_eq!(table.get(word.as_bytes()), Some(1));
        }
    }

    #[test]
    fn an_empty_table_has_nothing() {
        let table = WordTable::<u32>::new(std::iter::empty());
        assert_eq!(table.get(b"dog"), None);
        assert_eq!(table.get(b""), None);
        assert_eq!(table.get(&[b'x'; 99]), None);
    }

    proptest! {
        #[test]
        fn it_is_a_map(
            words in proptest::collection::vec("[ab]{1,20}", 0..200),
            asked in proptest::collection::vec("[ab]{0,20}", 0..50),
        ) {
            let numbered = words.iter().map(String::as_str).zip(0_u32..);
            let table = WordTable::new(numbered.clone());
            let first = |word: &str| words.iter().position(|w| w == word).map(|at| at as u32);
            for word in asked.iter().chain(&words) {
                prop_assert_eq!(table.get(word.as_bytes()), first(word));
            }
        }
    }
}
