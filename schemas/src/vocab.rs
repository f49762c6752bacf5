//! Synsets by falling frequency; the index is the label.
//!
//! In: how often each synset occurs. Out: the rows of a vocabulary, in an order that depends on
//! the counts alone, and the map from synset to label.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::SchemaError;
use crate::labels::{LabelId, Labels};
use crate::synset::{SynsetId, Synsets};

/// Limit of a vocabulary: all 82,115 nouns of WordNet 3.0 fit 12 times.
pub const VOCAB_MAX: usize = 1_000_000;

/// How often one synset occurs in a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frequency {
    /// Number of tokens that gave it: what CatLIP's released file seems to count.
    pub occurrences: u64,
    /// Number of captions in which it occurs at least once.
    pub captions: u64,
}

/// Frequencies of a corpus by synset.
#[derive(Clone, Debug, Default)]
pub struct Frequencies(HashMap<SynsetId, Frequency>);

impl Frequencies {
    /// Counts the synsets of one caption.
    pub fn add(&mut self, caption: &Synsets) {
        let mut seen = HashSet::with_capacity(caption.0.len());
        for &synset in &caption.0 {
            let frequency = self.0.entry(synset).or_default();
            frequency.occurrences += 1;
            frequency.captions += u64::from(seen.insert(synset));
        }
    }

    /// Adds the counts of another corpus. A sum above `u64` stays at its largest number.
    pub fn merge(&mut self, other: &Self) {
        for (&synset, frequency) in &other.0 {
            let sum = self.0.entry(synset).or_default();
            sum.occurrences = sum.occurrences.saturating_add(frequency.occurrences);
            sum.captions = sum.captions.saturating_add(frequency.captions);
        }
    }

    /// The counts `weight` times (finite, not negative), each rounded to the nearest number.
    pub fn scaled(&self, weight: f64) -> Self {
        // Not by way of `f64`, which has no room for counts above 2^53.
        if weight == 1.0 {
            return self.clone();
        }
        let times = |count: u64| (count as f64 * weight).round() as u64;
        let scaled = |f: &Frequency| Frequency {
            occurrences: times(f.occurrences),
            captions: times(f.captions),
        };
        Self(self.0.iter().map(|(&synset, f)| (synset, scaled(f))).collect())
    }

    /// Occurrences of all synsets.
    pub fn occurrences(&self) -> u64 {
        self.0.values().fold(0, |sum, f| sum.saturating_add(f.occurrences))
    }

    /// Number of distinct synsets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The synsets that `cut` keeps, by falling occurrences, ties by rising offset.
    pub fn ranked(&self, cut: &VocabCut) -> Vec<(SynsetId, Frequency)> {
        let mut rows: Vec<_> = self.0.iter().map(|(&s, &f)| (s, f)).collect();
        rows.sort_unstable_by_key(|&(s, f)| (std::cmp::Reverse(f.occurrences), s));
        cut.apply(&mut rows, |&(_, f)| f);
        rows
    }
}

impl From<&Vocab> for Frequencies {
    fn from(vocab: &Vocab) -> Self {
        Self(vocab.rows.iter().map(|row| (row.synset, row.frequency)).collect())
    }
}

/// Which synsets of a corpus a vocabulary keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VocabCut {
    /// Least number of occurrences (catlip.md: the paper's V_τ is 500).
    pub min_count: u64,
    /// The most frequent so many, or all.
    pub top_k: Option<usize>,
    /// Cuts the size down to a multiple of this (the released models: 24,320 = 95 × 256).
    pub multiple_of: usize,
}

impl VocabCut {
    /// Drops what it does not keep of `rows`, which stay in their order.
    pub fn apply<T>(&self, rows: &mut Vec<T>, frequency: impl Fn(&T) -> Frequency) {
        rows.retain(|row| frequency(row).occurrences >= self.min_count);
        if let Some(top_k) = self.top_k {
            rows.truncate(top_k);
        }
        let rest = rows.len() % self.multiple_of.max(1);
        rows.truncate(rows.len() - rest);
    }
}

/// One row of a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabRow {
    /// The synset.
    pub synset: SynsetId,
    /// Its head lemma, such as `dog`: for people.
    pub lemma: String,
    /// How often it occurs in the corpus that the vocabulary was made from.
    pub frequency: Frequency,
}

/// Synsets in order; the position of a row is its [`LabelId`].
#[derive(Clone, Debug)]
pub struct Vocab {
    rows: Vec<VocabRow>,
    label_of: HashMap<SynsetId, LabelId>,
}

impl Vocab {
    /// Takes rows in label order.
    ///
    /// # Errors
    ///
    /// [`SchemaError::VocabRepeats`], [`SchemaError::VocabTooLarge`].
    pub fn new(rows: Vec<VocabRow>) -> Result<Self, SchemaError> {
        if rows.len() > VOCAB_MAX {
            return Err(SchemaError::VocabTooLarge { found: rows.len(), limit: VOCAB_MAX });
        }
        let mut label_of = HashMap::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            if let Some(first) = label_of.insert(row.synset, index as LabelId) {
                return Err(SchemaError::VocabRepeats {
                    synset: row.synset.wnid(),
                    first: first as usize,
                    second: index,
                });
            }
        }
        Ok(Self { rows, label_of })
    }

    /// The rows in label order.
    pub fn rows(&self) -> &[VocabRow] {
        &self.rows
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The label of a synset, if the vocabulary has it.
    pub fn label_of(&self, synset: SynsetId) -> Option<LabelId> {
        self.label_of.get(&synset).copied()
    }

    /// The labels of one sample: the union over its captions.
    pub fn labels_of(&self, synsets: impl IntoIterator<Item = SynsetId>) -> Labels {
        Labels::new(synsets.into_iter().filter_map(|s| self.label_of(s)).collect())
    }

    /// BLAKE3 (first 8 bytes, hex) of the synsets in order: whether two runs mean the same labels.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for row in &self.rows {
            hasher.update(&row.synset.0.to_le_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(captions: &[&[i32]]) -> Frequencies {
        let mut all = Frequencies::default();
        for caption in captions {
            all.add(&Synsets(caption.iter().copied().map(SynsetId).collect()));
        }
        all
    }

    fn offsets(rows: &[(SynsetId, Frequency)]) -> Vec<i32> {
        rows.iter().map(|(s, _)| s.0).collect()
    }

    #[test]
    fn occurrences_and_captions_are_counted_apart() {
        let rows = frequencies(&[&[7, 7, 3], &[7]]).ranked(&VocabCut {
            min_count: 0,
            top_k: None,
            multiple_of: 1,
        });
        assert_eq!(rows[0], (SynsetId(7), Frequency { occurrences: 3, captions: 2 }));
        assert_eq!(rows[1], (SynsetId(3), Frequency { occurrences: 1, captions: 1 }));
    }

    #[test]
    fn ties_are_ordered_by_offset() {
        let all = frequencies(&[&[9, 1, 5]]);
        let cut = VocabCut { min_count: 1, top_k: None, multiple_of: 1 };
        assert_eq!(offsets(&all.ranked(&cut)), [1, 5, 9]);
    }

    #[test]
    fn a_cut_applies_count_then_top_then_multiple() {
        let all = frequencies(&[&[1, 1, 1, 2, 2, 3, 3, 4]]);
        let cut = VocabCut { min_count: 2, top_k: Some(3), multiple_of: 2 };
        assert_eq!(offsets(&all.ranked(&cut)), [1, 2]);
    }

    #[test]
    fn corpora_are_merged_by_their_weights() {
        let mut all = frequencies(&[&[1, 1, 1], &[1, 2]]);
        let row = |n, occurrences, captions| VocabRow {
            synset: SynsetId(n),
            lemma: String::new(),
            frequency: Frequency { occurrences, captions },
        };
        let other = Vocab::new(vec![row(2, 7, 5), row(3, 1, 0)]).unwrap();
        all.merge(&Frequencies::from(&other).scaled(0.5));
        let rows = all.ranked(&VocabCut { min_count: 0, top_k: None, multiple_of: 1 });
        let (one, two, three) = (SynsetId(1), SynsetId(2), SynsetId(3));
        assert_eq!(
            rows,
            [
                (two, Frequency { occurrences: 5, captions: 4 }),
                (one, Frequency { occurrences: 4, captions: 2 }),
                (three, Frequency { occurrences: 1, captions: 0 }),
            ]
        );
        assert_eq!(all.occurrences(), 10);
    }

    #[test]
    fn a_weight_of_one_keeps_counts_that_a_float_would_round() {
        let row = |n, occurrences| VocabRow {
            synset: SynsetId(n),
            lemma: String::new(),
            frequency: Frequency { occurrences, captions: 0 },
        };
        let vocab = Vocab::new(vec![row(1, (1 << 53) + 1), row(2, u64::MAX)]).unwrap();
        let mut all = Frequencies::from(&vocab).scaled(1.0);
        assert_eq!(all.0[&SynsetId(1)].occurrences, (1 << 53) + 1);
        all.merge(&Frequencies::from(&vocab));
        assert_eq!(all.0[&SynsetId(2)].occurrences, u64::MAX);
    }

    #[test]
    fn a_repeated_synset_is_refused() {
        let row = |n| VocabRow {
            synset: SynsetId(n),
            lemma: String::new(),
            frequency: Frequency::default(),
        };
        let error = Vocab::new(vec![row(5), row(6), row(5)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "synset n00000005 stands twice in the vocabulary, at indices 0 and 2"
        );
    }
}
