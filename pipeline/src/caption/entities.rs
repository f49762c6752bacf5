//! HTML entities to the characters they stand for, as ftfy decodes them.
//!
//! In: a text. Out: the same with `&amp;`, `&eacute;`, `&EACUTE;`, `&#233;`, `&#xE9;` decoded once.
//! Never: decodes a name without its semicolon (`this&not that`), or decodes twice.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Name and code points in hex, one entity a line; made by `tests/data/make_html_entities.py`.
const NAMED: &str = include_str!("html_entities.txt");

/// Letters and digits that may stand between `&` or `&#` and `;`.
const NAME_CHARS_MAX: usize = 24;

static TEXT_BY_NAME: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
    NAMED
        .lines()
        .map(|line| {
            let mut fields = line.split(' ');
            let name = fields.next().unwrap_or_default();
            let text: Option<String> = fields
                .map(|hex| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32))
                .collect();
            // The file is ours and generated; a wrong line is a broken build, not data.
            (name, text.unwrap_or_else(|| panic!("html_entities.txt: wrong line `{line}`")))
        })
        .collect()
});

/// Decodes every `&…;` that has a meaning; leaves the others as they are.
pub fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match first_entity(rest) {
            Some((bytes, meaning)) => {
                out.push_str(&meaning);
                rest = &rest[bytes..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The entity at the head of `text`: its bytes and its meaning.
fn first_entity(text: &str) -> Option<(usize, String)> {
    let body = text.strip_prefix('&')?;
    let (number, name) = match body.strip_prefix('#') {
        Some(name) => (true, name),
        None => (false, body),
    };
    let bytes = name.bytes().take_while(u8::is_ascii_alphanumeric).take(NAME_CHARS_MAX).count();
    if bytes == 0 || name.as_bytes().get(bytes) != Some(&b';') {
        return None;
    }
    let name = &name[..bytes];
    let meaning = if number { numbered(name)? } else { TEXT_BY_NAME.get(name)?.clone() };
    Some(("&;".len() + usize::from(number) + bytes, meaning))
}

/// What `&#name;` means by HTML's rules, which Python's `html.unescape` follows.
fn numbered(name: &str) -> Option<String> {
    let (digits, radix) = match name.strip_prefix(['x', 'X']) {
        Some(hex) => (hex, 16),
        None => (name, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    // 24 hex digits are 96 bits.
    let number = u128::from_str_radix(digits, radix).ok()?;
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    match number {
        // ftfy takes a semicolon in the result for a sign that only a part was decoded.
        0x3B => None,
        0 => Some('\u{FFFD}'.into()),
        0x80..=0x9F => Some(windows_1252(number).into()),
        1..=8 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF => Some(String::new()),
        // The last two code points of each plane are no characters.
        _ if number <= 0x0010_FFFF && number & 0xFFFE == 0xFFFE => Some(String::new()),
        _ => Some(char::from_u32(number).unwrap_or('\u{FFFD}').into()),
    }
}

/// What Windows-1252 means by byte 0x80 to 0x9F; the five unassigned bytes stay controls.
pub fn windows_1252(code: u32) -> char {
    const MEANT: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž',
        '\u{8F}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}',
        'ž', 'Ÿ',
    ];
    assert!((0x80..=0x9F).contains(&code), "0x{code:x} is no C1 control");
    MEANT[code as usize - 0x80]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_entities_are_decoded() {
        assert_eq!(decode("salt &amp; pepper &checkmark; &Eacute;"), "salt & pepper ✓ É");
    }

    #[test]
    fn every_line_of_the_table_is_read() {
        assert_eq!(TEXT_BY_NAME.len(), 3501);
        assert_eq!(TEXT_BY_NAME["nvlt"], "<\u{20D2}");
    }

    #[test]
    fn shouted_latin_names_are_decoded_and_mixed_ones_not() {
        assert_eq!(decode("P&EACUTE;REZ STRA&SZLIG;E &nTILDE;"), "PÉREZ STRASSE &nTILDE;");
    }

    #[test]
    fn a_name_without_semicolon_stays() {
        assert_eq!(decode("this&not that &ampersand &amp"), "this&not that &ampersand &amp");
    }

    #[test]
    fn unknown_and_overlong_names_stay() {
        assert_eq!(decode("&foo; &; &#; &&amp;"), "&foo; &; &#; &&");
        assert_eq!(decode("&CounterClockwiseContourIntegral;").chars().count(), 33);
    }

    #[test]
    fn numbers_are_decoded_in_both_bases() {
        assert_eq!(decode("&#233;&#xE9;&#XE9;&#00233;"), "éééé");
    }

    #[test]
    fn numbers_of_windows_1252_mean_its_characters() {
        assert_eq!(decode("&#146;&#x80;&#129;"), "’€\u{81}");
    }

    #[test]
    fn impossible_numbers_become_the_replacement_character_or_nothing() {
        assert_eq!(
            decode("&#0;&#xD800;&#x110000;&#99999999999999999999999;"),
            "\u{FFFD}".repeat(4)
        );
        assert_eq!(decode("a&#1;&#x7F;&#xFFFE;&#x1FFFF;b"), "ab");
    }

    #[test]
    fn half_decoded_numbers_and_the_semicolon_stay() {
        assert_eq!(decode("&#12a; &#xg; &#x; &#59;"), "&#12a; &#xg; &#x; &#59;");
    }

    #[test]
    fn a_decoded_ampersand_is_not_decoded_again_here() {
        assert_eq!(decode("&amp;amp;"), "&amp;");
    }
}
