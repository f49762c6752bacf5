//! The multi-hot target of one sample, kept sparse: after the vocabulary.

/// Index of a synset in a [`crate::Vocab`].
pub type LabelId = u32;

/// Sorted, unique label ids of one sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<LabelId>);

impl Labels {
    /// Sorts `ids` and drops repeats.
    pub fn new(mut ids: Vec<LabelId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }

    /// The ids, rising.
    pub fn ids(&self) -> &[LabelId] {
        &self.0
    }
}
