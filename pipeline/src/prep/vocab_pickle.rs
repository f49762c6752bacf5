//! Vocabularies as the reference keeps them: a pickled dict of counts by synset key.
//!
//! In: the bytes of `{"n5928118": 52418327, …}`, in the order of labels. Out: the rows of a
//! [`Vocab`], and the same back. Never: runs what a pickle asks for; an order of its own.
//!
//! The reference unpickles the file, takes the first so many keys and finds a label by its place
//! among them (catlip.md §1.4): the order of the dict is the numbering of the labels, and a key has
//! no leading zeros. Captions are not counted there, so they are 0 here.

use catlip_schemas::{Frequency, SynsetId, Vocab, VocabRow};

use crate::caption::wordnet::WordNet;
use crate::source::pickle::{Pickle, PickleError};

/// Protocol of what is written: Python 3.0 and later read it.
const PROTOCOL: u8 = 3;

/// A pickle that is no vocabulary.
#[derive(Debug, thiserror::Error)]
pub enum VocabPickleError {
    /// A pickle that is not read.
    #[error("the pickle is refused")]
    Pickle(#[from] PickleError),
    /// Another value than a dict.
    #[error("it is {found}, expected a dict of counts by synset key")]
    Kind {
        /// In Python's words.
        found: &'static str,
    },
    /// A key that is no noun of WordNet 3.0.
    #[error("key {index} is {found}, expected a noun of WordNet 3.0 such as n2084071")]
    Key {
        /// Its place, from 0.
        index: usize,
        /// What is there.
        found: String,
    },
    /// A count that is none.
    #[error("the count of key {index} is {found}, expected an int of 0 to 2^63 - 1")]
    Count {
        /// The place of its key, from 0.
        index: usize,
        /// What is there.
        found: String,
    },
}

/// Reads the rows of a pickled vocabulary, in its order.
///
/// # Errors
///
/// [`VocabPickleError`] for a pickle that is refused, or is no dict of counts of synsets.
pub fn read(bytes: &[u8]) -> Result<Vec<VocabRow>, VocabPickleError> {
    let pairs = match Pickle::read(bytes)? {
        Pickle::Dict(pairs) => pairs,
        other => return Err(VocabPickleError::Kind { found: other.kind() }),
    };
    let wordnet = WordNet::embedded();
    let row = |(index, (key, count)): (usize, &(Pickle<'_>, Pickle<'_>))| {
        let (synset, lemma) = known_synset(wordnet, key)
            .ok_or_else(|| VocabPickleError::Key { index, found: in_words(key) })?;
        let occurrences = match count {
            Pickle::Int(count) => u64::try_from(*count).ok(),
            _ => None,
        };
        let occurrences =
            occurrences.ok_or_else(|| VocabPickleError::Count { index, found: in_words(count) })?;
        let frequency = Frequency { occurrences, captions: 0 };
        Ok(VocabRow { synset, lemma: lemma.to_owned(), frequency })
    };
    pairs.iter().enumerate().map(row).collect()
}

fn known_synset<'w>(wordnet: &'w WordNet, key: &Pickle<'_>) -> Option<(SynsetId, &'w str)> {
    let Pickle::Str(key) = key else { return None };
    let synset = key.parse().ok()?;
    Some((synset, wordnet.head_lemma(synset)?))
}

/// A value as an error shows it: short, whatever it is.
fn in_words(value: &Pickle<'_>) -> String {
    const SHOWN: usize = 40;
    match value {
        Pickle::Str(text) => format!("`{}`", text.chars().take(SHOWN).collect::<String>()),
        Pickle::Int(int) => int.to_string(),
        other => other.kind().to_owned(),
    }
}

/// The pickle of `vocab`: a dict of occurrences by the reference's keys, in label order.
pub fn write(vocab: &Vocab) -> Vec<u8> {
    // An empty dict, a mark, key and count in turn, SETITEMS, STOP.
    let mut out = vec![0x80, PROTOCOL, b'}', b'('];
    for row in vocab.rows() {
        let key = row.synset.corenet_key();
        out.push(b'X');
        out.extend((key.len() as u32).to_le_bytes());
        out.extend(key.as_bytes());
        write_int(&mut out, row.frequency.occurrences);
    }
    out.extend(*b"u.");
    out
}

/// BININT for what fits 31 bits, else LONG1 of 8 bytes. Nothing was counted above 2^63 - 1.
fn write_int(out: &mut Vec<u8>, int: u64) {
    match i32::try_from(int) {
        Ok(int) => {
            out.push(b'J');
            out.extend(int.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 8]);
            out.extend(i64::try_from(int).unwrap_or(i64::MAX).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(counts: &[(i32, u64)]) -> Vec<VocabRow> {
        let row = |&(offset, occurrences): &(i32, u64)| VocabRow {
            synset: SynsetId(offset),
            lemma: WordNet::embedded().head_lemma(SynsetId(offset)).unwrap().to_owned(),
            frequency: Frequency { occurrences, captions: 0 },
        };
        counts.iter().map(row).collect()
    }

    #[test]
    fn a_vocabulary_reads_back_in_its_own_order() {
        // Not by falling count: the order is the numbering of labels.
        let counts = [(2_084_071, 3), (5_928_118, 52_418_327), (1740, 1 << 40), (2_958_343, 0)];
        let vocab = Vocab::new(rows(&counts)).unwrap();
        assert_eq!(read(&write(&vocab)).unwrap(), vocab.rows());
    }

    #[test]
    fn keys_are_not_padded() {
        let bytes = write(&Vocab::new(rows(&[(2_084_071, 3)])).unwrap());
        assert_eq!(bytes, b"\x80\x03}(X\x08\0\0\0n2084071J\x03\0\0\0u.");
    }

    #[test]
    fn what_is_no_vocabulary_is_named() {
        let message = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(message(b"]."), "it is a list, expected a dict of counts by synset key");
        assert_eq!(
            message(b"}(X\x03\0\0\0dogK\x01u."),
            "key 0 is `dog`, expected a noun of WordNet 3.0 such as n2084071"
        );
        // Tench in WordNet 3.1.
        assert_eq!(
            message(b"}(X\x08\0\0\0n1443405K\x01u."),
            "key 0 is `n1443405`, expected a noun of WordNet 3.0 such as n2084071"
        );
        assert_eq!(
            message(b"}(X\x08\0\0\0n2084071J\xff\xff\xff\xffu."),
            "the count of key 0 is -1, expected an int of 0 to 2^63 - 1"
        );
        assert_eq!(
            message(b"}(X\x08\0\0\0n2084071\x88u."),
            "the count of key 0 is a bool, expected an int of 0 to 2^63 - 1"
        );
    }
}
