//! Cleans a caption as corenet does before it looks for words.
//!
//! In: a caption as it stands in the shard. Out: lower-case text without URL escapes, markup and
//! typographic variants (catlip.md §1.1: corenet's `caption_preprocessing`).
//! Never: drops words, digits or punctuation; limits the length.

use std::borrow::Cow;

use super::characters::is_space;
use super::repair::repair;

/// Cleans `caption`. The order of the steps is part of the rule.
pub fn clean(caption: &str) -> String {
    let text = unquote(caption);
    let text = text.replace('+', " ");
    let text = strip_markup(&text);
    let text = collapse_spaces(text.trim_matches('\n'));
    let text = repair(&text);
    text.trim_matches(is_space).to_lowercase()
}

/// Python's `urllib.parse.unquote`: `%C3%A9` to `é`, wrong UTF-8 to U+FFFD.
///
/// Each run of ASCII is decoded by itself: `%C3é` does not join.
fn unquote(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let ascii = rest.find(|c: char| !c.is_ascii()).unwrap_or(rest.len());
        out.push_str(&String::from_utf8_lossy(&percent_decode(&rest.as_bytes()[..ascii])));
        rest = &rest[ascii..];
        let other = rest.find(|c: char| c.is_ascii()).unwrap_or(rest.len());
        out.push_str(&rest[..other]);
        rest = &rest[other..];
    }
    Cow::Owned(out)
}

/// Replaces each `%` with two hex digits by its byte; other `%` stay.
fn percent_decode(ascii: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(ascii.len());
    let mut rest = ascii;
    while let [byte, tail @ ..] = rest {
        let decoded = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match decoded {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &rest[3..];
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

/// Deletes the shortest `<…>` that ends on its own line: the pattern `<.*?>`.
fn strip_markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        // Without a `>` ahead no later `<` of the line is markup either: nothing is searched twice.
        while let Some((before, (_, after))) =
            rest.split_once('<').and_then(|(b, tail)| Some((b, tail.split_once('>')?)))
        {
            out.push_str(before);
            rest = after;
        }
        out.push_str(rest);
    }
    out
}

/// Runs of U+0020 to one; tabs and newlines stay.
fn collapse_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != ' ' || !out.ends_with(' ') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_escapes_are_decoded_and_bare_percent_signs_stay() {
        assert_eq!(clean("caf%C3%A9%20noir 100%25"), "café noir 100%");
        assert_eq!(clean("50% off %%41 %4 %zz"), "50% off %a %4 %zz");
    }

    #[test]
    fn a_percent_before_two_hex_letters_is_an_escape_even_in_acrylic() {
        assert_eq!(clean("100%acrylic"), "100\u{FFFD}rylic");
    }

    #[test]
    fn escapes_do_not_join_across_other_characters() {
        assert_eq!(clean("%C3é%A9"), "\u{FFFD}é\u{FFFD}");
    }

    #[test]
    fn a_plus_is_a_space() {
        assert_eq!(clean("red+car c++ 1+1 %2B"), "red car c 1 1");
    }

    #[test]
    fn markup_is_deleted_from_less_than_to_the_next_greater_than() {
        assert_eq!(clean("<b>dog</b> and <<i>cat"), "dog and cat");
        assert_eq!(clean("price < 5 and > 3"), "price 3");
    }

    #[test]
    fn markup_does_not_cross_a_newline() {
        assert_eq!(clean("a<b\nc>d"), "a<b\nc>d");
    }

    #[test]
    fn markup_that_is_escaped_survives() {
        assert_eq!(clean("&lt;b&gt;dog"), "<b>dog");
    }

    #[test]
    fn only_newlines_at_the_ends_and_runs_of_blanks_go_before_the_repair() {
        assert_eq!(clean("\n a  b \t  c\n\nd \n"), "a b \t c\n\nd");
    }

    #[test]
    fn the_result_is_lower_case_with_pythons_final_sigma() {
        assert_eq!(clean("ΟΔΟΣ İ ß"), "οδος i\u{307} ß");
    }

    #[test]
    fn what_python_takes_for_spaces_is_stripped() {
        assert_eq!(clean("\u{A0}\u{2003} dog \u{3000}\t"), "dog");
    }

    #[test]
    fn nothing_stays_nothing() {
        assert_eq!(clean(""), "");
        assert_eq!(clean(" \n "), "");
    }
}
