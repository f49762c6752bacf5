//! The mark that some editors put before the first line of a text: U+FEFF in UTF-8.
//!
//! In: what a person wrote, as a list or a table. Out: the same without the mark, which would be
//! taken for a part of the first name or key. Never: looks further than the first three bytes.

/// The mark as bytes.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// `bytes` without the mark at their beginning.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// `text` without the mark at its beginning.
pub fn text_without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mark_at_the_beginning_is_left_out() {
        assert_eq!(without_mark("\u{feff}a\u{feff}".as_bytes()), "a\u{feff}".as_bytes());
        assert_eq!(text_without_mark("\u{feff}a\u{feff}"), "a\u{feff}");
        assert_eq!((without_mark(b"\xef\xbb"), text_without_mark("")), (&b"\xef\xbb"[..], ""));
    }
}
