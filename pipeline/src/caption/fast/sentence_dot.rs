//! Decides whether a dot inside a caption splits from its word: what Punkt is for.
//!
//! In: letters and the place of a lone dot that is not the last letter. Out: [`Dot`].
//! Never: guesses; where more than the word and the next letter matters, it is [`Unusual::Dot`].
//!
//! A sentence ends at a dot before white space and another word, or before one of a few marks,
//! unless the word is an abbreviation, or a number or initial and the text goes on in lower case.
//! Only the last dot of a sentence splits from its word, closing marks behind it allowed.

use super::Unusual;
use super::letters::{Letters, WIDE_LETTER, WIDE_SPACE};
use crate::caption::sentences::is_abbreviation;

/// What becomes of a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dot {
    /// It cannot end a sentence: part of its piece.
    Inside,
    /// It could end a sentence and does not: part of its piece.
    Stays,
    /// It ends a sentence and is a token of its own.
    Splits,
}

/// Decides about the dot at `at`.
///
/// # Errors
///
/// [`Unusual::Dot`].
pub fn decide(letters: &Letters<'_>, at: usize) -> Result<Dot, Unusual> {
    match letters.padded[at + 1] {
        b' ' => before_space(letters, at),
        b'?' | b'!' | b'>' | WIDE_SPACE => Err(Unusual::Dot),
        mark if cannot_be_in_word(mark) => before_mark(letters, at, mark),
        _ => Ok(Dot::Inside),
    }
}

fn before_space(letters: &Letters<'_>, at: usize) -> Result<Dot, Unusual> {
    let text = &letters.padded[..letters.len];
    let spaces = text[at + 1..].iter().take_while(|&&l| l == b' ').count();
    let next = &text[at + 1 + spaces..];
    // Closers alone move to the sentence before, and a `"` among them becomes backticks.
    let closers = next.iter().take_while(|&&l| is_closer(l) || l == b'>').count();
    let after = &next[closers..];
    let closes = after.is_empty() || after.starts_with(b" ") || after.starts_with(b"--");
    let first = next.first().copied().unwrap_or(0);
    if closers > 0 && closes || first == WIDE_SPACE {
        return Err(Unusual::Dot);
    }
    let before = Before::of(&text[..at])?;
    let goes_on = match first {
        _ if !before.is_number_or_initial => false,
        b'a'..=b'z' => true,
        b'0'..=b'9' => false,
        _ => return Err(Unusual::Dot),
    };
    if !goes_on && !before.is_abbreviation {
        return Ok(Dot::Splits);
    }
    // A sentence that ends inside the next run ends here.
    let run_end = next.iter().position(|&l| l == b' ' || l == WIDE_SPACE).unwrap_or(next.len());
    let may_end = |(i, &l): (usize, &u8)| match l {
        b'?' | b'!' => i + 1 < run_end,
        b'.' => i + 1 < run_end && !next[i + 1].is_ascii_alphanumeric(),
        _ => false,
    };
    if next[..run_end].iter().enumerate().any(may_end) {
        return Err(Unusual::Dot);
    }
    Ok(Dot::Stays)
}

fn before_mark(letters: &Letters<'_>, at: usize, mark: u8) -> Result<Dot, Unusual> {
    let text = &letters.padded[..letters.len];
    let before = Before::of(&text[..at])?;
    let goes_on = before.is_number_or_initial && matches!(mark, b';' | b':');
    if !goes_on && !before.is_abbreviation {
        return Ok(Dot::Splits);
    }
    let rest = text[at + 1..].iter().find(|&&l| !is_closer(l) && l != b'>');
    match rest {
        // The end of the caption splits a dot even from an abbreviation.
        None => Ok(Dot::Splits),
        Some(b' ') => Err(Unusual::Dot),
        _ if mark == b'\'' => Err(Unusual::Dot),
        Some(_) => Ok(Dot::Stays),
    }
}

/// What stands before a dot.
struct Before {
    is_abbreviation: bool,
    is_number_or_initial: bool,
}

impl Before {
    /// Reads back from the end of `text` to where Punkt's word begins.
    fn of(text: &[u8]) -> Result<Self, Unusual> {
        let run = text.iter().rposition(|&l| l == b' ').map_or(0, |space| space + 1);
        let run = &text[run..];
        // An end in the same run shares its word with this one; a dash ends a word, and so may a
        // comma: `=.,"q. cat`.
        let ends_inside = |pair: &[u8]| {
            matches!(pair[0], b'?' | b'!')
                || pair[0] == b'.' && (cannot_be_in_word(pair[1]) || pair[1] == b',')
                || pair == b"--"
        };
        if run.windows(2).any(ends_inside) || matches!(run.last(), Some(b'?' | b'!')) {
            return Err(Unusual::Dot);
        }
        let word = match run.iter().rposition(|&l| cannot_be_in_word(l)) {
            Some(quote) if run[quote] == b'\'' => &run[quote..],
            Some(mark) => &run[mark + 1..],
            None => run,
        };
        let cannot_begin = |l: &&u8| matches!(**l, b'&' | b'#' | b'-' | b',');
        let word = &word[word.iter().take_while(cannot_begin).count()..];
        let is_initial = matches!(word, [b'a'..=b'z' | b'_' | WIDE_LETTER]);
        Ok(Self {
            is_abbreviation: is_abbreviation(word),
            is_number_or_initial: is_initial || is_number(word),
        })
    }
}

/// The pattern `[.,]?\d[\d,.-]*`; a word does not begin with the `-` that Punkt allows.
fn is_number(word: &[u8]) -> bool {
    let word = match word {
        [b'.' | b',', rest @ ..] => rest,
        _ => word,
    };
    matches!(word, [b'0'..=b'9', rest @ ..]
        if rest.iter().all(|l| matches!(l, b'0'..=b'9' | b',' | b'.' | b'-')))
}

/// The marks that cannot stand within one of Punkt's words.
fn cannot_be_in_word(letter: u8) -> bool {
    matches!(
        letter,
        b')' | b'"'
            | b';'
            | b'}'
            | b']'
            | b'*'
            | b':'
            | b'@'
            | b'\''
            | b'('
            | b'{'
            | b'['
            | b'?'
            | b'!'
    )
}

/// The marks that move to the sentence before them.
fn is_closer(letter: u8) -> bool {
    matches!(letter, b'"' | b'\'' | b')' | b']' | b'}')
}
