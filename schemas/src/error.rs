//! What can be wrong with a word or a file of the formats.

/// A value that does not follow `FORMAT.md`: what it is, what was expected, what was found.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A synset key that is neither `n2084071` nor `n02084071`.
    #[error("`{found}` is no WordNet noun key: expected `n` and 1 to 8 digits, such as n02084071")]
    SynsetKey {
        /// The text that was found.
        found: String,
    },
    /// A sample id that is not 32 hex digits.
    #[error("`{found}` is no sample id: expected 32 hex digits")]
    SampleId {
        /// The text that was found.
        found: String,
    },
    /// A part name that is not `000042` or `000042.1`.
    #[error("`{found}` is no part name: expected six digits, such as 000042 or 000042.1")]
    PartName {
        /// The text that was found.
        found: String,
    },
    /// A synset that stands twice in a vocabulary.
    #[error("synset {synset} stands twice in the vocabulary, at indices {first} and {second}")]
    VocabRepeats {
        /// Its wnid.
        synset: String,
        /// Index of its first row.
        first: usize,
        /// Index of its second row.
        second: usize,
    },
    /// A vocabulary larger than `u32` indices allow.
    #[error("a vocabulary of {found} synsets is above the limit of {limit}")]
    VocabTooLarge {
        /// Its number of rows.
        found: usize,
        /// [`crate::vocab::VOCAB_MAX`].
        limit: usize,
    },
    /// A file of a format version that this program does not know.
    #[error("{what} has format version {found}, this program reads versions 1 to {newest}")]
    Version {
        /// The kind of file.
        what: &'static str,
        /// The version it says.
        found: u32,
        /// The newest version that this program reads.
        newest: u32,
    },
    /// JSON that is not what the format says.
    #[error("{what} is not what the format says")]
    Json {
        /// The kind of file.
        what: &'static str,
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
}
