//! What ftfy 6.3 does to a text.
//!
//! In: a text after corenet's own cleaning. Out: the text as `ftfy.fix_text` leaves it.
//! Never: breaks a line above 1,000,000 characters into parts, as ftfy does; joins surrogates,
//! since a Rust string holds none.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::{characters, entities, mojibake};

/// Rounds until nothing changes. ftfy has no limit; each round of a hostile text may uncover one
/// more entity, so without one a megabyte of `&amp;amp;amp;…` costs 250,000 rounds of 1 MB.
/// 32 rounds × 1 MB are tenths of a second; no caption seen needs more than 3.
const ROUNDS_MAX: usize = 32;

/// Repairs `text` line by line, as ftfy does.
pub fn repair(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut decode_entities = true;
    for line in text.split_inclusive('\n') {
        // A `<` says that this is HTML and its entities are meant; ftfy keeps that in mind for
        // the lines that follow, not for those before.
        decode_entities &= !line.contains('<');
        out.push_str(&repair_line(line, decode_entities));
    }
    out
}

fn repair_line(line: &str, decode_entities: bool) -> String {
    let mut text = line.to_owned();
    // None of what follows knows a character of these; most lines have no other.
    if text.bytes().all(|byte| matches!(byte, b'\t' | b'\n' | b' '..=b'~') && byte != b'&') {
        return text;
    }
    for _ in 0..ROUNDS_MAX {
        let repaired = repair_once(&text, decode_entities);
        if repaired == text {
            break;
        }
        text = repaired;
    }
    text
}

/// One round: the order is ftfy's.
fn repair_once(text: &str, decode_entities: bool) -> String {
    let mut text = if decode_entities { entities::decode(text) } else { text.to_owned() };
    if !text.is_ascii() {
        text = mojibake::fix_encoding(&text);
        text = replace_c1_controls(&text);
        text = split_ligatures(&text);
        text = normalize_widths(&text);
        text = uncurl_quotes(&text);
    }
    text = unify_line_breaks(&text);
    text = remove_terminal_escapes(&text);
    text = remove_controls(&text);
    compose(text)
}

/// C1 controls (U+0080–9F) are Windows-1252 read as Latin-1.
fn replace_c1_controls(text: &str) -> String {
    let meant = |c| match c {
        '\u{80}'..='\u{9F}' => entities::windows_1252(u32::from(c)),
        _ => c,
    };
    text.chars().map(meant).collect()
}

/// Ligatures and digraphs of Latin letters to their letters.
fn split_ligatures(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'Ĳ' => out.push_str("IJ"),
            'ĳ' => out.push_str("ij"),
            'ŉ' => out.push_str("ʼn"),
            'Ǳ' => out.push_str("DZ"),
            'ǲ' => out.push_str("Dz"),
            'ǳ' => out.push_str("dz"),
            'Ǆ' => out.push_str("DŽ"),
            'ǅ' => out.push_str("Dž"),
            'ǆ' => out.push_str("dž"),
            'Ǉ' => out.push_str("LJ"),
            'ǈ' => out.push_str("Lj"),
            'ǉ' => out.push_str("lj"),
            'Ǌ' => out.push_str("NJ"),
            'ǋ' => out.push_str("Nj"),
            'ǌ' => out.push_str("nj"),
            'ﬀ' => out.push_str("ff"),
            'ﬁ' => out.push_str("fi"),
            'ﬂ' => out.push_str("fl"),
            'ﬃ' => out.push_str("ffi"),
            'ﬄ' => out.push_str("ffl"),
            'ﬅ' => out.push_str("ſt"),
            'ﬆ' => out.push_str("st"),
            _ => out.push(c),
        }
    }
    out
}

/// Full-width Latin and half-width katakana and hangul to their usual width.
fn normalize_widths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{3000}' => out.push(' '),
            '\u{FF01}'..='\u{FFEF}' => out.extend(std::iter::once(c).nfkc()),
            _ => out.push(c),
        }
    }
    out
}

/// Curly quotes to straight ones.
fn uncurl_quotes(text: &str) -> String {
    let straight = |c| match c {
        '\u{201C}'..='\u{201F}' => '"',
        '\u{02BC}' | '\u{2018}'..='\u{201B}' => '\'',
        _ => c,
    };
    text.chars().map(straight).collect()
}

fn unify_line_breaks(text: &str) -> String {
    text.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n")
}

/// Removes what colours a terminal: ESC `[`, digits and semicolons, one letter.
fn remove_terminal_escapes(text: &str) -> String {
    const START: &str = "\x1B[";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(START) {
        out.push_str(&rest[..at]);
        let parameters = &rest[at + START.len()..];
        let end = parameters.trim_start_matches(|c| characters::is_digit(c) || c == ';');
        if end.starts_with(|c: char| c.is_ascii_alphabetic()) {
            rest = &end[1..];
        } else {
            out.push_str(START);
            rest = parameters;
        }
    }
    out.push_str(rest);
    out
}

/// Removes controls that are nobody's intention; those that are spaces or joiners stay.
fn remove_controls(text: &str) -> String {
    let is_unwanted = |c: char| {
        matches!(
            c,
            '\x00'..='\x08' | '\x0B' | '\x0E'..='\x1F' | '\x7F'
                | '\u{206A}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFC}'
        )
    };
    text.replace(is_unwanted, "")
}

/// Normalization form NFC.
fn compose(text: String) -> String {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text,
        IsNormalized::No | IsNormalized::Maybe => text.nfc().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_decoded_until_none_is_left() {
        assert_eq!(repair("salt &amp; pepper"), "salt & pepper");
        assert_eq!(repair("salt &amp;amp; pepper"), "salt & pepper");
    }

    #[test]
    fn entities_stay_where_a_less_than_is_left() {
        assert_eq!(repair("a < b &amp; c"), "a < b &amp; c");
    }

    #[test]
    fn a_less_than_keeps_the_entities_of_its_line_and_of_later_lines_only() {
        assert_eq!(repair("x &amp; y\n1 < 2 &amp; 3\nz &amp;"), "x & y\n1 < 2 &amp; 3\nz &amp;");
    }

    #[test]
    fn a_less_than_that_was_an_entity_does_not_stop_decoding() {
        assert_eq!(repair("I &lt;3 cats &amp; dogs"), "I <3 cats & dogs");
    }

    #[test]
    fn quotes_are_uncurled() {
        assert_eq!(repair("“dog’s ‘life’” ʼn ‟x‛"), "\"dog's 'life'\" 'n \"x'");
    }

    #[test]
    fn low_quotes_are_uncurled_too_and_angle_quotes_stay() {
        assert_eq!(repair("„dog“ ‚cat‘ «cow»"), "\"dog\" 'cat' «cow»");
    }

    #[test]
    fn widths_are_normalized() {
        assert_eq!(repair("ＬＯＵＤ　ＮＯＩＳＥＳ ｶﾞ"), "LOUD NOISES ガ");
    }

    #[test]
    fn an_entity_uncovered_by_its_width_is_decoded_in_the_next_round() {
        assert_eq!(repair("＆amp;"), "&");
    }

    #[test]
    fn ligatures_are_split() {
        assert_eq!(repair("ﬂuﬃeﬆ ﬁre ŉ"), "fluffiest fire 'n");
    }

    #[test]
    fn line_breaks_become_newlines() {
        assert_eq!(repair("a\r\nb\rc\u{2028}d\u{2029}e"), "a\nb\nc\nd\ne");
    }

    #[test]
    fn c1_controls_are_windows_1252() {
        assert_eq!(repair("dog\u{92}s \u{85}"), "dog's …");
    }

    #[test]
    fn wrongly_decoded_text_is_decoded_again() {
        assert_eq!(repair("the dogâ€™s bed"), "the dog's bed");
    }

    #[test]
    fn terminal_escapes_are_removed_whole() {
        assert_eq!(repair("\x1B[36;44mblue\x1B[0m dog\x1B[m"), "blue dog");
        assert_eq!(repair("\x1B[36 blue"), "[36 blue");
    }

    #[test]
    fn control_characters_are_removed_and_tabs_stay() {
        assert_eq!(repair("\u{FEFF}do\x00g\x7F\tca\u{206A}t\u{FFFC}\x1F"), "dog\tcat");
    }

    #[test]
    fn letters_and_their_accents_are_composed() {
        assert_eq!(repair("cafe\u{301} \u{212A}"), "caf\u{E9} K");
    }

    #[test]
    fn rounds_end_even_if_entities_do_not() {
        let nested = format!("&{}", "amp;".repeat(1000));
        assert_eq!(repair(&nested).len(), nested.len() - 4 * ROUNDS_MAX);
    }
}
