//! Python's idea of spaces, word characters and digits.
//!
//! In: one `char`. Out: what `str.isspace`, `\s`, `\w` and `\d` of Python's `re` say about it.
//! Never: Rust's own classes where they differ; `\w` has no combining marks, `\s` has U+001C–1F.
//!
//! Compared over all code points with Python 3.11: they agree on every character of Unicode 14;
//! word characters that came later are known here and not there.

use unicode_normalization::char::is_combining_mark;

/// Where each run of ten decimal digits (category Nd) begins, Unicode 14.
#[rustfmt::skip]
const DIGIT_ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66,
    0xDE6, 0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90,
    0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0,
    0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0,
    0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0,
    0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// `\s`, and what `str.strip` and `str.split` take for a space.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1C'..='\x1F').contains(&c)
}

/// `\d`: decimal digits of any script, not `½` nor `²`.
pub fn is_digit(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_digit();
    }
    let next_run = DIGIT_ZEROS.partition_point(|&zero| zero <= u32::from(c));
    u32::from(c) - DIGIT_ZEROS[next_run - 1] < 10
}

/// `\w`: letters, numbers of every kind (`½` and `²` too), and the underscore.
pub fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    // Unicode's Alphabetic is wider than Python's letters by marks and by encircled letters.
    c.is_numeric() || (c.is_alphabetic() && !is_combining_mark(c) && !is_encircled(c))
}

/// Letters in circles and boxes: Alphabetic, but symbols (category So).
fn is_encircled(c: char) -> bool {
    matches!(
        u32::from(c),
        0x24B6..=0x24E9 | 0x1F130..=0x1F149 | 0x1F150..=0x1F169 | 0x1F170..=0x1F189
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_pythons() {
        for c in [' ', '\t', '\n', '\x0B', '\x0C', '\r', '\x1C', '\x1F', '\u{85}', '\u{A0}'] {
            assert!(is_space(c), "{c:?}");
        }
        for c in ['\u{200B}', '\u{FEFF}', '_', '\x1B'] {
            assert!(!is_space(c), "{c:?}");
        }
    }

    #[test]
    fn a_digit_is_decimal_and_a_word_character_any_number() {
        assert!(is_digit('7') && is_digit('٣') && is_digit('𝟿'));
        assert!(!is_digit('½') && !is_digit('²') && !is_digit('/') && !is_digit('é'));
        assert!(is_word('½') && is_word('²') && is_word('_') && is_word('é') && is_word('Ⅷ'));
    }

    #[test]
    fn a_combining_mark_is_no_word_character() {
        assert!(!is_word('\u{0301}') && !is_word('\u{093E}') && !is_word('Ⓐ'));
        assert!(is_word('क'));
    }

    #[test]
    fn the_number_of_characters_of_each_kind_is_pythons() {
        let all = || (0..=0x0010_FFFF).filter_map(char::from_u32);
        assert_eq!(all().filter(|&c| is_space(c)).count(), 29);
        assert_eq!(all().filter(|&c| is_digit(c)).count(), 660);
    }
}
