//! The words of a usual caption in one pass, for the rules to look up.
//!
//! In: a caption. Out: its words in order, given to a [`Visitor`], or [`Unusual`]: then the caller
//! takes the modules that read like the rules (`clean`, `sentences`, `tokens`). What is given is
//! exactly what they would give, apart from tokens of marks alone, which no lemma has.
//! Never: an approximation, an allocation for a caption of less than 1 KB, a look at a byte more
//! than a fixed number of times.
//!
//! ```text
//! caption ─► letters: one byte a character, kinds as bits ─► scan: pieces, dots, quotes ─► words
//! ```
//!
//! # For another rule
//!
//! A rule has a [`WordTable`](super::word_table::WordTable) from every surface form that it knows
//! to a value of up to 8 bytes (for `corenet` a synset; there is room for a noun share and flags
//! in the same slot) and a visitor that asks [`Word::look_up`] for each word. To find `hot dog`
//! the visitor keeps where words stand; [`words_then`] gives it all letters at the end, and
//! [`is_space`] says which of them may stand between two words that belong together.

mod letters;
mod scan;
mod sentence_dot;
mod word;

pub use letters::PADDING;
pub use word::{Visitor, Word};

use letters::{Buffers, Letters};

/// Why a caption is not read here but by the modules that read like the rules: all reasons.
///
/// Shares are of 10,000 web alt-texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unusual {
    /// A character that cleaning replaces, removes, composes or reads as markup: `<`, a backtick,
    /// controls and line breaks inside, full-width and ligated letters, combining marks, `«`, `»`,
    /// digits and spaces outside ASCII.
    #[error("a character that cleaning changes")]
    Character,
    /// Neighbours outside ASCII that may be text decoded by the wrong table: `Ã©`, `â€™`.
    #[error("what may be wrongly decoded text")]
    Encoding,
    /// U+00A0 in a caption where a quote or dot matters: it separates words but is no space to the
    /// rules about quotes.
    #[error("a no-break space where a rule looks for a space")]
    WideSpace,
    /// `%` and two hex digits, or what looks like an entity: cleaning decodes them first.
    #[error("an escape that cleaning decodes")]
    Escape,
    /// `''`, or two of `,` and `:`: NLTK's patterns take what they match in turns.
    #[error("a doubled mark")]
    DoubledMark,
    /// More quotes in one piece than one before and one behind its word.
    #[error("a word with many quotes")]
    Quotes,
    /// A word that NLTK splits, such as `gonna`, inside a longer one.
    #[error("a contraction inside a longer word")]
    Contraction,
    /// A dot about which more decides than its word and the next letter.
    #[error("a dot among other marks")]
    Dot,
}

/// Gives the words of `caption` to `visitor`.
///
/// # Errors
///
/// [`Unusual`]; then what the visitor was given means nothing.
#[inline]
pub fn words(caption: &str, visitor: &mut impl Visitor) -> Result<(), Unusual> {
    words_then(caption, visitor, |_, _| ())
}

/// Gives the words of `caption` to `visitor`, then the visitor and all letters to `then`. Zero
/// bytes stand behind the letters.
///
/// # Errors
///
/// See [`words`].
#[inline]
pub fn words_then<V: Visitor, T>(
    caption: &str,
    visitor: &mut V,
    then: impl FnOnce(&mut V, &[u8]) -> T,
) -> Result<T, Unusual> {
    let mut buffers = Buffers::new();
    let letters = Letters::read(caption, &mut buffers)?;
    scan::scan(letters, visitor)?;
    Ok(then(visitor, letters.padded))
}

/// Whether a letter is white space.
#[inline]
pub fn is_space(letter: u8) -> bool {
    matches!(letter, b' ' | letters::WIDE_SPACE)
}

#[cfg(test)]
mod tests;
