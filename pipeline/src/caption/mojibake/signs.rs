//! What gives wrongly decoded text away: pairs of characters that hardly any language writes.
//!
//! In: a text. Out: whether it looks wrongly decoded, by the heuristic of ftfy 6.3 (`badness`).
//! Never: knows an encoding; the kinds and sequences are facts about what the reference takes for
//! a sign, and a differential test over millions of captions keeps them so.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::caption::characters::{is_space, is_word};

const COMMON: u32 = 1;
const C1: u32 = 1 << 1;
const BAD: u32 = 1 << 2;
const LAW: u32 = 1 << 3;
const CURRENCY: u32 = 1 << 4;
const OPENING: u32 = 1 << 5;
const CLOSING: u32 = 1 << 6;
const NUMERIC: u32 = 1 << 7;
const KAOMOJI: u32 = 1 << 8;
const UPPER: u32 = 1 << 9;
const LOWER: u32 = 1 << 10;
const UPPER_COMMON: u32 = 1 << 11;
const LOWER_COMMON: u32 = 1 << 12;
const BOX: u32 = 1 << 13;
const ASCII_LOWER: u32 = 1 << 14;
const ASCII_UPPER: u32 = 1 << 15;
const SPACE: u32 = 1 << 16;
const WORD: u32 = 1 << 17;
const NO_ASCII_LETTER: u32 = 1 << 18;
const IN_LINE: u32 = 1 << 19;

/// Kinds by their characters and ranges of characters.
const KINDS: [(u32, &str); 14] = [
    (COMMON, "\u{A0}\u{AD}´·–—―’…"),
    (C1, "\u{80}-\u{9F}"),
    (BAD, "¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\u{FFFD}"),
    (LAW, "§¶"),
    (CURRENCY, "¢£¥₧€"),
    (OPENING, "¡©«¿΄΅‘‚“„•‹\u{F8FF}"),
    (CLOSING, "®»˝”›™"),
    (NUMERIC, "±²³µ¹¼½¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥"),
    (KAOMOJI, "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ"),
    (UPPER, "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ"),
    (LOWER, "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ"),
    (UPPER_COMMON, "ÞΆΈΉΊΌΎΏΑ-ΫЁ-Я"),
    (LOWER_COMMON, "ά-ωа-џ"),
    (BOX, "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓"),
];

/// One place of a sequence: kinds, and characters beside them.
type Place = (u32, &'static str);

const ANY_SIGN: u32 = LOWER | UPPER | BOX | OPENING | CLOSING | CURRENCY | NUMERIC | LAW;
const ARABIC: Place = (COMMON | CURRENCY | BAD | NUMERIC | OPENING, "ŸŠ®°µ»");

/// The sequences, each a sign by itself.
const SEQUENCES: [&[Place]; 37] = [
    &[(C1, "")],
    &[(ANY_SIGN | BAD, ""), (BAD, "")],
    &[(ASCII_LOWER | ASCII_UPPER, ""), (LOWER_COMMON | UPPER_COMMON, ""), (BAD, "")],
    &[(BAD, ""), (ANY_SIGN, "")],
    &[(LOWER | LOWER_COMMON | BOX | CLOSING | CURRENCY | NUMERIC, ""), (UPPER, "")],
    &[(BOX | CLOSING | CURRENCY | NUMERIC, ""), (LOWER, "")],
    &[(LOWER | BOX | CLOSING, ""), (CURRENCY, "")],
    &[(SPACE, ""), (UPPER, ""), (CURRENCY, "")],
    &[(UPPER | BOX, ""), (NUMERIC | LAW, "")],
    &[(LOWER | UPPER | BOX | CURRENCY | CLOSING, ""), (OPENING, ""), (NUMERIC, "")],
    &[(LOWER | UPPER | CURRENCY | NUMERIC | BOX | LAW, ""), (CLOSING, ""), (OPENING, "")],
    &[(CURRENCY | NUMERIC | BOX, ""), (OPENING, "")],
    &[(ASCII_LOWER, ""), (UPPER, ""), (OPENING | CURRENCY, "")],
    &[(BOX, ""), (KAOMOJI, "")],
    &[(LOWER | UPPER | CURRENCY | NUMERIC | OPENING | CLOSING | LAW, ""), (BOX, "")],
    &[(BOX, ""), (CLOSING, "")],
    &[(LOWER | UPPER, ""), (OPENING | CLOSING, ""), (WORD, "")],
    &[(0, "Œœ"), (NO_ASCII_LETTER, "")],
    &[(UPPER, ""), (0, "°")],
    // Letters of Latin-1 and Windows-1252 that begin a character of two bytes.
    &[(0, "ÂÃÎÐ"), (OPENING | CLOSING, "€œŠš¢£Ÿž\u{A0}\u{AD}®©°·»–—´")],
    &[(0, "×"), (0, "²³")],
    // The same of Arabic, whose second characters are common: two of them.
    &[(0, "ØÙ"), ARABIC, (0, "ØÙ"), ARABIC],
    &[(0, "à"), (0, "²µ¹¼½¾")],
    // Mac OS Roman.
    &[(0, "√"), (0, "±∂†≠®™´≤≥¥µø")],
    &[(0, "≈"), (0, "°¢")],
    &[(0, "‚"), (0, "Ä"), (0, "ìîïòôúùû†°¢π")],
    &[(0, "‚"), (0, "âó"), (0, "àä°ê")],
    // Windows-1251.
    &[(0, "в"), (0, "Ђ")],
    &[(0, "ВГРС"), (C1 | BAD | OPENING | CLOSING | CURRENCY, "°µ"), (0, "ВГРС")],
    &[(0, "Г"), (0, "ў"), (0, "В"), (0, "Ђ"), (0, "В"), (IN_LINE, ""), LATIN_OR_BLANK],
    // What `à`, `á` and the no-break space become.
    &[(0, "Ã"), (0, "\u{A0}¡")],
    &[(ASCII_LOWER, ""), (0, "ÃÂ"), (0, " ")],
    &[(ASCII_LOWER, ""), (SPACE, ""), (0, "ÃÂ"), (0, " ")],
    &[(ASCII_LOWER | CLOSING, ".,?!"), (0, "Â"), (OPENING | CLOSING, " ")],
    // Windows-1253 and Windows-1257.
    &[(0, "β"), (0, "€"), (0, "™\u{A0}Ά\u{AD}®°")],
    &[(0, "ΒΓΞΟ"), (C1 | BAD | OPENING | CLOSING | CURRENCY, "°"), (0, "ΒΓΞΟ")],
    &[(0, "ā"), (0, "€")],
];

const LATIN_OR_BLANK: Place = (ASCII_LOWER | ASCII_UPPER, " ");

/// The kind of every character that has one, apart from what is worked out from ASCII and Unicode.
static KIND_OF: LazyLock<HashMap<char, u32>> = LazyLock::new(|| {
    let mut kinds = HashMap::new();
    for (kind, text) in KINDS {
        for c in expand(text) {
            *kinds.entry(c).or_default() |= kind;
        }
    }
    kinds
});

/// Every character of `text`, in which `a-z` stands for a range.
pub fn expand(text: &str) -> Vec<char> {
    let chars: Vec<char> = text.chars().collect();
    let mut all = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        match chars[at..] {
            [first, '-', last, ..] => {
                all.extend(first..=last);
                at += 3;
            }
            _ => {
                all.push(chars[at]);
                at += 1;
            }
        }
    }
    all
}

fn kind_of(c: char) -> u32 {
    let flag = |is_set: bool, kind: u32| if is_set { kind } else { 0 };
    let listed = if c.is_ascii() { 0 } else { KIND_OF.get(&c).copied().unwrap_or(0) };
    listed
        | flag(c.is_ascii_lowercase(), ASCII_LOWER)
        | flag(c.is_ascii_uppercase(), ASCII_UPPER)
        | flag(is_space(c), SPACE)
        | flag(is_word(c), WORD)
        | flag(!c.is_ascii_alphabetic(), NO_ASCII_LETTER)
        | flag(c != '\n', IN_LINE)
}

fn is_at((kinds, chars): Place, c: char, kind: u32) -> bool {
    kind & kinds != 0 || chars.contains(c)
}

/// Whether `text` looks wrongly decoded.
pub fn is_bad(text: &[char]) -> bool {
    if let ['Ã' | 'Â', ' ', ..] = text {
        return true;
    }
    let mut before = Pairs::ASCII;
    text.iter().enumerate().any(|(at, &c)| {
        let pairs = if c.is_ascii() { Pairs::ASCII } else { Pairs::of(c) };
        let may_be_bad = before.may_be_bad(pairs);
        before = pairs;
        // At most two characters stand in a sequence before its sure ones.
        may_be_bad && (at.saturating_sub(2)..=at).any(|begin| begins_sequence(&text[begin..]))
    })
}

fn begins_sequence(text: &[char]) -> bool {
    SEQUENCES.iter().any(|sequence| {
        text.len() >= sequence.len()
            && sequence.iter().zip(text).all(|(&place, &c)| is_at(place, c, kind_of(c)))
    })
}

/// What decides cheaply that a text cannot look wrongly decoded; see [`Pairs::may_be_bad`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Pairs {
    /// Sequences whose two sure characters may begin with it.
    before: u64,
    /// Sequences whose two sure characters may end with it.
    after: u64,
}

/// Pairs of the characters from [`WIDE_FIRST`] to [`SIGNS_END`].
static PAIRS: LazyLock<Box<[Pairs]>> = LazyLock::new(|| {
    let pairs = |code| char::from_u32(code).map_or(Pairs::ASCII, Pairs::find);
    (WIDE_FIRST..SIGNS_END).map(pairs).collect()
});

/// The first character outside ASCII.
const WIDE_FIRST: u32 = 0x80;

/// Behind the last sign but for four: one of private use, U+FFFD, two ligatures.
const SIGNS_END: u32 = 0x2600;

/// The bit of what is a sign without a neighbour outside ASCII.
const ALONE: u64 = 1 << 63;

impl Pairs {
    /// What stands for every character of ASCII, and for the begin.
    pub const ASCII: Self = Self { before: ALONE, after: 0 };

    /// The pairs of a character outside ASCII.
    pub fn of(c: char) -> Self {
        let place = u32::from(c).wrapping_sub(WIDE_FIRST);
        match PAIRS.get(place as usize) {
            Some(&pairs) => pairs,
            None if matches!(c, '\u{F8FF}' | '\u{FB01}' | '\u{FB02}' | '\u{FFFD}') => Self::find(c),
            None => Self::ASCII,
        }
    }

    fn find(c: char) -> Self {
        let kind = kind_of(c);
        let is_alone = matches!(c, 'Œ' | 'œ' | 'Ã' | 'Â' | '\u{80}'..='\u{9F}');
        let mut pairs = Self { before: ALONE, after: if is_alone { ALONE } else { 0 } };
        for (bit, [first, second]) in SEQUENCES.iter().filter_map(|s| sure_pair(s)).enumerate() {
            pairs.before |= u64::from(is_at(first, c, kind)) << bit;
            pairs.after |= u64::from(is_at(second, c, kind)) << bit;
        }
        pairs
    }

    /// Whether a text in which `next` follows this may look wrongly decoded. A text without such
    /// neighbours never does, whatever is done to its characters of ASCII.
    pub fn may_be_bad(self, next: Self) -> bool {
        self.before & next.after != 0
    }
}

/// The first two neighbours of a sequence that are both outside ASCII.
fn sure_pair(sequence: &[Place]) -> Option<[Place; 2]> {
    const WITH_ASCII: u32 = ASCII_LOWER | ASCII_UPPER | SPACE | WORD | NO_ASCII_LETTER | IN_LINE;
    let is_wide =
        |(kinds, chars): Place| kinds & WITH_ASCII == 0 && !chars.chars().any(|c| c.is_ascii());
    let mut pairs = sequence.windows(2).map(|pair| [pair[0], pair[1]]);
    pairs.find(|pair| pair.iter().all(|&place| is_wide(place)))
}
