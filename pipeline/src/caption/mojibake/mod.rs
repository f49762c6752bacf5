//! Text that was decoded by the wrong table: `itâ€™s` for `it’s` (ftfy's `fix_encoding`).
//!
//! In: a text. Out: the text as it was meant, where signs say that it was wrongly decoded and one
//! table undoes it, or where parts of it are sure to be UTF-8.
//! Never: touches a text without such signs; more than linear work.

use std::collections::HashMap;
use std::sync::LazyLock;

mod signs;

pub use signs::Pairs;

use super::entities::windows_1252;
use signs::{expand, is_bad};

/// Times that a text may have been decoded wrongly. Each undoing shortens it, mostly by half.
const ROUNDS_MAX: usize = 16;

/// Parts within parts that are undone by themselves.
const DEPTH_MAX: usize = 4;

/// Stands in bytes for a character that was lost.
const LOST: u8 = 0x1A;

/// UTF-8 of U+FFFD.
const REPLACEMENT: [u8; 3] = [0xEF, 0xBF, 0xBD];

/// A table of one byte a character.
struct Charmap {
    /// Bytes of the characters outside ASCII.
    bytes: HashMap<char, u8>,
    /// Whether byte 1A is U+FFFD: a table with holes is read as browsers do.
    has_holes: bool,
    /// Whether a space may be a no-break space that was lost.
    restores_blanks: bool,
}

/// In the order in which they are tried.
static CHARMAPS: LazyLock<Vec<Charmap>> = LazyLock::new(|| {
    let latin_1 = (0x80..=0xFF).map(|byte| (char::from(byte), byte)).collect();
    let latin_1 = Charmap { bytes: latin_1, has_holes: false, restores_blanks: true };
    let lines = include_str!("charmaps.txt").lines().filter(|line| !line.starts_with('#'));
    let others = lines.map(|line| {
        let (name, codes) = line.split_once(' ').unwrap_or_default();
        let chars = codes.split(' ').filter_map(|code| u32::from_str_radix(code, 16).ok());
        let bytes = chars.filter_map(char::from_u32).zip(0x80..=0xFF).collect();
        let has_holes = name.starts_with("windows");
        Charmap { bytes, has_holes, restores_blanks: name != "macroman" }
    });
    [latin_1].into_iter().chain(others).collect()
});

impl Charmap {
    /// The bytes of `text`, if it has no character that the table lacks.
    fn encode(&self, text: &[char]) -> Option<Vec<u8>> {
        let byte = |&c: &char| match u8::try_from(c) {
            Ok(LOST) if self.has_holes => None,
            Ok(byte) if byte.is_ascii() => Some(byte),
            _ if c == char::REPLACEMENT_CHARACTER && self.has_holes => Some(LOST),
            _ => self.bytes.get(&c).copied(),
        };
        text.iter().map(byte).collect()
    }
}

/// Undoes wrong decoding.
pub fn fix_encoding(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    fix(text.chars().collect(), DEPTH_MAX).into_iter().collect()
}

fn fix(mut text: Vec<char>, depth: usize) -> Vec<char> {
    for _ in 0..ROUNDS_MAX {
        match fix_once(&text, depth) {
            Some(fixed) if fixed != text => text = fixed,
            _ => break,
        }
    }
    text
}

/// One undoing; none if nothing is to be undone.
fn fix_once(text: &[char], depth: usize) -> Option<Vec<char>> {
    if !is_bad(text) {
        return None;
    }
    for charmap in CHARMAPS.iter() {
        let Some(mut bytes) = charmap.encode(text) else { continue };
        if charmap.restores_blanks {
            bytes = restore_blanks(&bytes);
        }
        if charmap.has_holes {
            bytes = replace_lost(&bytes);
        }
        if let Some(fixed) = decode(&bytes) {
            return Some(fixed);
        }
    }
    if depth > 0 {
        let fixed = fix_parts(text, depth);
        if fixed != text {
            return Some(fixed);
        }
    }
    fix_windows_1252(text)
}

/// Latin-1 that was Windows-1252: the whole text, or else its C1 controls.
fn fix_windows_1252(text: &[char]) -> Option<Vec<char>> {
    let is_c1 = |c: char| matches!(c, '\u{80}'..='\u{9F}');
    let fixed = |&c: &char| if is_c1(c) { windows_1252(u32::from(c)) } else { c };
    text.iter().any(|&c| is_c1(c)).then(|| text.iter().map(fixed).collect())
}

/// `à` and other characters whose byte A0 became a space: `voilÃ le` for `voilÃ\u{A0} le`.
fn restore_blanks(bytes: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut with_a = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if let [0xC3, b' ', after @ ..] = rest
            && !WORDS.iter().any(|word| after.starts_with(word))
        {
            with_a.extend([0xC3, 0xA0, b' ']);
            at += 2;
        } else {
            with_a.push(bytes[at]);
            at += 1;
        }
    }
    let blank = |byte: u8| if byte == b' ' { 0xA0 } else { byte };
    replace(&with_a, lost_blank, |found, out| out.extend(found.iter().map(|&byte| blank(byte))))
}

/// Bytes at the begin of `bytes` that are a character if their space is A0; 0 if none are.
fn lost_blank(bytes: &[u8]) -> usize {
    let is_next = |byte: u8| matches!(byte, 0x80..=0x84 | 0x86..=0x9F | 0xA1..=0xBF);
    let is_any = |byte: u8| matches!(byte, 0x80..=0xBF);
    match *bytes {
        [0xC2 | 0xC3 | 0xC5 | 0xCE | 0xD0 | 0xD9, b' ', ..] => 2,
        [0xE2 | 0xE3, b' ', c, ..] if is_next(c) => 3,
        [0xE0..=0xE3, b, b' ', ..] if is_next(b) => 3,
        [0xF0, b' ', c, d, ..] if is_any(c) && is_any(d) => 4,
        [0xF0, b, b' ', d, ..] if is_any(b) && is_any(d) => 4,
        [0xF0, b, c, b' ', ..] if is_any(b) && is_any(c) => 4,
        _ => 0,
    }
}

/// UTF-8 of which some bytes were lost, to U+FFFD.
fn replace_lost(bytes: &[u8]) -> Vec<u8> {
    replace(bytes, lost_bytes, |_, out| out.extend(REPLACEMENT))
}

/// Bytes at the begin of `bytes` that are a character of which some were lost; 0 if none are.
fn lost_bytes(bytes: &[u8]) -> usize {
    let is_lost = |byte: u8| matches!(byte, LOST | b'?');
    let is_kept = |byte: u8| matches!(byte, LOST | 0x80..=0xBF);
    let is_high = |byte: u8| matches!(byte, 0xA0..=0xAF);
    let is_low = |byte: u8| matches!(byte, 0xB0..=0xBF);
    let is_some = |byte: u8| is_lost(byte) || is_kept(byte);
    match *bytes {
        [0xC2..=0xDF, LOST, ..] | [0xC2 | 0xC3, b'?', ..] => 2,
        [0xED, b, c, 0xED, e, f, ..]
            if is_high(b)
                && is_low(e)
                && (is_lost(c) && is_some(f) || is_some(c) && is_lost(f)) =>
        {
            6
        }
        [0xE0..=0xEF, b, c, ..] if is_lost(b) && is_kept(c) || is_kept(b) && is_lost(c) => 3,
        [0xF0..=0xF4, b, c, d, ..]
            if is_lost(b) && is_kept(c) && is_kept(d)
                || is_kept(b) && is_lost(c) && is_kept(d)
                || is_kept(b) && is_kept(c) && is_lost(d) =>
        {
            4
        }
        [LOST, ..] => 1,
        _ => 0,
    }
}

/// Replaces what `len` finds at each place, from the left.
fn replace(
    bytes: &[u8],
    len: impl Fn(&[u8]) -> usize,
    write: impl Fn(&[u8], &mut Vec<u8>),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match len(&bytes[at..]) {
            0 => {
                out.push(bytes[at]);
                at += 1;
            }
            found => {
                write(&bytes[at..at + found], &mut out);
                at += found;
            }
        }
    }
    out
}

/// UTF-8, with Java's NUL (`C0 80`) and surrogates of three bytes each (CESU-8).
fn decode(bytes: &[u8]) -> Option<Vec<char>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        let (c, len) = match bytes[at..] {
            // The reference takes a newline at the end for the end.
            [0xC0, 0x80, ..] | [0xC0, b'\n'] => ('\0', 2),
            [
                0xED,
                b @ 0xA0..=0xAF,
                c @ 0x80..=0xBF,
                0xED,
                e @ 0xB0..=0xBF,
                f @ 0x80..=0xBF,
                ..,
            ] => {
                let bits = |byte: u8, mask: u8| u32::from(byte & mask);
                let high = bits(b, 0x0F) << 16 | bits(c, 0x3F) << 10;
                let low = bits(e, 0x0F) << 6 | bits(f, 0x3F);
                (char::from_u32(0x1_0000 + high + low)?, 6)
            }
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend(str::from_utf8(&bytes[plain..at]).ok()?.chars());
        out.push(c);
        at += len;
        plain = at;
    }
    out.extend(str::from_utf8(&bytes[plain..]).ok()?.chars());
    Some(out)
}

/// First characters of two, three and four that may be one character of UTF-8, and the others.
struct Clues(HashMap<char, u8>);

const FIRST_OF_2: u8 = 1;
const FIRST_OF_3: u8 = 2;
const FIRST_OF_4: u8 = 4;
const NEXT: u8 = 8;
/// One of the next that is no space, dash or quote: nothing begins behind it.
const SURELY_NEXT: u8 = 16;

static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    const SURE: &str = "\u{80}-¿ÆØæøĄąĽľŁłŒœŖŗŚśŞ-šŤťŸ-žƒˆˇ˘˛˜˝΄΅ΆΈΉΊΌΎΏЁ-ЌЎЏё-ќўџҐґ†‡‰‹›€№™";
    let lists = [
        (FIRST_OF_2, "Â-ßĀĂĆČĎĐĒĖĘĚĞĢĪİĶĹĻŁŃŅŇŌŐŘŚŞŠŢŪŮŰŲŹŻŽΒ-ΡΣ-ίВ-Я"),
        (FIRST_OF_3, "à-ïāăąćčďēėęěģīįķĺļŕźΰ-οа-п"),
        (FIRST_OF_4, "ðóđğšπσру"),
        (NEXT | SURELY_NEXT, SURE),
        (NEXT, " –—―‘’‚“”„•…"),
    ];
    let mut clues = HashMap::new();
    for (clue, text) in lists {
        for c in expand(text) {
            *clues.entry(c).or_default() |= clue;
        }
    }
    Clues(clues)
});

impl Clues {
    fn of(&self, c: char) -> u8 {
        self.0.get(&c).copied().unwrap_or(0)
    }

    /// Characters from the first of `text` on that may be UTF-8 read as something else.
    fn run(&self, text: &[char]) -> usize {
        let mut len = 0;
        'run: loop {
            let rest = &text[len..];
            for (first, others) in [(FIRST_OF_2, 1), (FIRST_OF_3, 2), (FIRST_OF_4, 3)] {
                let is_next = |&c: &char| self.of(c) & NEXT != 0;
                if rest.len() > others
                    && self.of(rest[0]) & first != 0
                    && rest[1..=others].iter().all(is_next)
                {
                    len += 1 + others;
                    continue 'run;
                }
            }
            return len;
        }
    }
}

/// Undoes wrong decoding in parts of a text that has others.
fn fix_parts(text: &[char], depth: usize) -> Vec<char> {
    let clues = &*CLUES;
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let may_begin = at == 0 || clues.of(text[at - 1]) & SURELY_NEXT == 0;
        let len = if may_begin { clues.run(&text[at..]) } else { 0 };
        let part = &text[at..at + len];
        if len == 0 {
            out.push(text[at]);
            at += 1;
            continue;
        }
        match len < text.len() && is_bad(part) {
            true => out.extend(fix(part.to_vec(), depth - 1)),
            false => out.extend(part),
        }
        at += len;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_read_by_one_wrong_table_is_undone() {
        assert_eq!(fix_encoding("the dogâ€™s bed"), "the dog’s bed");
        assert_eq!(fix_encoding("cafÃ©"), "café");
        assert_eq!(fix_encoding("вЂњdogвЂќ"), "“dog”");
        assert_eq!(fix_encoding("caf√©"), "café");
    }

    #[test]
    fn text_that_was_read_wrongly_twice_is_undone_twice() {
        assert_eq!(fix_encoding("cafÃƒÂ©"), "café");
    }

    #[test]
    fn parts_are_undone_where_the_whole_cannot_be() {
        assert_eq!(fix_encoding("猫 cafÃ©, dogâ€™s"), "猫 café, dog’s");
    }

    #[test]
    fn lost_blanks_and_lost_bytes_are_put_back() {
        assert_eq!(fix_encoding("voilÃ le travail"), "voilà le travail");
        assert_eq!(fix_encoding("â€œ like this â€\u{FFFD}"), "“ like this \u{FFFD}");
    }

    #[test]
    fn surrogates_and_java_nuls_are_decoded() {
        assert_eq!(fix_encoding("\u{ED}\u{A0}\u{BD}\u{ED}\u{B8}\u{80}"), "😀");
        assert_eq!(fix_encoding("Ã©\u{C0}\u{80}"), "é\0");
    }

    #[test]
    fn c1_controls_are_windows_1252() {
        assert_eq!(fix_encoding("dog\u{92}s 猫"), "dog’s 猫");
    }

    #[test]
    fn text_that_is_right_stays() {
        for text in ["dog", "café “crème” – brûlée™", "Москва", "日本", "Ångström", "½ °C", "cœur"]
        {
            assert_eq!(fix_encoding(text), text);
        }
    }

    #[test]
    fn a_text_without_suspicious_pairs_is_never_bad() {
        let all: Vec<char> = (0x80..0x2600).filter_map(char::from_u32).collect();
        for &c in all.iter().filter(|&&c| !Pairs::ASCII.may_be_bad(Pairs::of(c))) {
            for text in [['a', c, ' '], ['.', c, 'a'], [' ', c, '"']] {
                assert!(!is_bad(&text), "{text:?}");
            }
            let others = all.iter().step_by(7).copied();
            for other in others.filter(|&o| !Pairs::of(c).may_be_bad(Pairs::of(o))) {
                assert!(!is_bad(&[c, other]), "{c:?} {other:?}");
            }
        }
    }
}
