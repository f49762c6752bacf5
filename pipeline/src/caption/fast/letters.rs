//! Reads a caption into letters: one byte for each character, lower-case, with its kind.
//!
//! In: a caption as it stands in the shard. Out: [`Letters`]: the caption without spaces at its
//! ends, `+` as space, curly quotes straight, ASCII in lower case, every other character as one
//! of the bytes [`WIDE_LETTER`], [`WIDE_MARK`] and [`WIDE_SPACE`]; and a bit for each byte that
//! is no ASCII letter or digit.
//! Never: a character that cleaning would replace, remove or join with its neighbour: such a
//! caption is [`Unusual`].
//!
//! No lemma of WordNet has a character outside ASCII, so of such a character only its kind
//! matters: whether it separates words, and whether it is a word character beside a quote.

use std::sync::LazyLock;

use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, is_nfc_quick};

use super::Unusual;
use crate::caption::characters::{is_digit, is_space, is_word};
use crate::caption::mojibake::Pairs;
use crate::caption::repair::repair;

/// A letter or number outside ASCII: `é`, `д`, `猫`, `½`.
pub const WIDE_LETTER: u8 = 0x80;

/// Any other character outside ASCII that is no space: `–`, `®`, `…`.
pub const WIDE_MARK: u8 = 0x81;

/// U+00A0, which separates words and is no U+0020.
pub const WIDE_SPACE: u8 = 0x82;

/// Zero bytes behind the letters, so that 16 bytes can be read at each of them, and the last
/// eight written whole.
pub const PADDING: usize = 16;

/// Letters that are read on the stack; longer captions take memory.
const STACK_BYTES: usize = 1024;

/// What a byte is to the scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ASCII letter or digit.
    Word,
    /// U+0020, also one that was a `+`.
    Space,
    /// A mark with a token of its own wherever it stands.
    Mark,
    /// `,` and `:`.
    Comma,
    /// `.`
    Dot,
    /// `'`, also one that was curly.
    Quote,
    /// Stays in its token like a letter, but is none: `-`, `/`, `_`, and [`WIDE_LETTER`] and
    /// [`WIDE_MARK`].
    Joiner,
    /// U+00A0.
    WideSpace,
    /// Nothing that this path reads.
    Refused,
}

/// Kinds of letters.
static KINDS: [Kind; 256] = kinds();

const fn kinds() -> [Kind; 256] {
    let mut kinds = [Kind::Refused; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => Kind::Word,
            b' ' | b'+' => Kind::Space,
            b';' | b'@' | b'#' | b'$' | b'%' | b'&' | b'?' | b'!' | b'*' => Kind::Mark,
            b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'>' | b'"' => Kind::Mark,
            b',' | b':' => Kind::Comma,
            b'.' => Kind::Dot,
            b'\'' => Kind::Quote,
            b'-' | b'/' | b'_' | b'=' | b'~' | b'|' | b'^' | b'\\' => Kind::Joiner,
            WIDE_LETTER | WIDE_MARK => Kind::Joiner,
            WIDE_SPACE => Kind::WideSpace,
            // `<`, the backtick, controls, and what stands for nothing.
            _ => Kind::Refused,
        };
        byte += 1;
    }
    kinds
}

/// The kind of a byte of [`Letters`].
#[inline]
pub fn kind(letter: u8) -> Kind {
    KINDS[usize::from(letter)]
}

/// Memory for the letters of one caption: on the stack for a short one.
pub struct Buffers {
    letters: [u8; STACK_BYTES + PADDING],
    stops: [u64; STACK_BYTES / 64],
    long_letters: Vec<u8>,
    long_stops: Vec<u64>,
}

impl Buffers {
    /// Memory without letters.
    pub fn new() -> Self {
        Self {
            letters: [0; STACK_BYTES + PADDING],
            stops: [0; STACK_BYTES / 64],
            long_letters: Vec::new(),
            long_stops: Vec::new(),
        }
    }
}

/// A caption as letters.
#[derive(Clone, Copy, Debug)]
pub struct Letters<'b> {
    /// The letters, then at least [`PADDING`] zero bytes.
    pub padded: &'b [u8],
    /// Number of letters.
    pub len: usize,
    /// Bit `i % 64` of word `i / 64` is set where letter `i` is no letter or digit of ASCII.
    pub stops: &'b [u64],
}

impl<'b> Letters<'b> {
    /// Reads `caption` into `buffers`.
    ///
    /// # Errors
    ///
    /// [`Unusual::Character`].
    pub fn read(caption: &str, buffers: &'b mut Buffers) -> Result<Self, Unusual> {
        // Cleaning strips these, one after the other, in more than one step.
        let caption = caption.trim_matches([' ', '\n', '+', '\t', '\r', '\x0C']);
        let (padded, stops) = if caption.len() <= STACK_BYTES {
            (buffers.letters.as_mut_slice(), buffers.stops.as_mut_slice())
        } else {
            buffers.long_letters = vec![0; caption.len().next_multiple_of(8) + PADDING];
            buffers.long_stops = vec![0; caption.len().div_ceil(64)];
            (buffers.long_letters.as_mut_slice(), buffers.long_stops.as_mut_slice())
        };
        let is_ascii = read_ascii(caption.as_bytes(), padded, stops);
        let len = if is_ascii { caption.len() } else { read_wide(caption, padded, stops)? };
        Ok(Self { padded, len, stops: &stops[..len.div_ceil(64)] })
    }
}

/// Reads bytes, eight at a time; false if they are not all ASCII.
fn read_ascii(caption: &[u8], letters: &mut [u8], stops: &mut [u64]) -> bool {
    let (octets, rest) = caption.as_chunks::<8>();
    let mut seen = 0;
    let mut read = |at: usize, octet: [u8; 8], letters: &mut [u8; 8]| {
        let bytes = u64::from_le_bytes(octet);
        seen |= bytes;
        let (read, stop) = read_octet(bytes);
        *letters = read.to_le_bytes();
        stops[at / 8] |= u64::from(stop) << (at % 8 * 8);
    };
    let (letters, _) = letters.as_chunks_mut::<8>();
    for (at, (octet, letters)) in octets.iter().zip(&mut *letters).enumerate() {
        read(at, *octet, letters);
    }
    if !rest.is_empty() {
        // What is no letter stands for one, so that it stops nothing.
        let mut last = [b'a'; 8];
        last[..rest.len()].copy_from_slice(rest);
        read(octets.len(), last, &mut letters[octets.len()]);
        letters[octets.len()][rest.len()..].fill(0);
    }
    seen & HIGH_BITS == 0
}

/// The highest bit of each byte.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Eight bytes of ASCII, the first lowest, to their letters and a bit for each that is no letter or
/// digit. Sums of two bytes below 0x80 do not carry into the next, so each byte is by itself.
fn read_octet(bytes: u64) -> (u64, u8) {
    let each = |byte: u8| u64::from_ne_bytes([byte; 8]);
    // The highest bit of each byte that is at least, or at most, that.
    let from = |bytes: u64, low: u8| bytes.wrapping_add(each(0x80 - low));
    let above = |bytes: u64, high: u8| bytes.wrapping_add(each(0x7F - high));
    let within = |bytes, low, high| from(bytes, low) & !above(bytes, high) & HIGH_BITS;
    // From the highest bit to the bit in which `A` and `a` differ.
    let lower = bytes | within(bytes, b'A', b'Z') >> 2;
    let is_plus = within(lower, b'+', b'+') >> 7;
    let letters = lower ^ is_plus.wrapping_mul(u64::from(b'+' ^ b' '));
    let is_word = within(letters, b'a', b'z') | within(letters, b'0', b'9');
    // The product moves bit 8 i to bit 56 + i.
    let stops = (!is_word & HIGH_BITS) >> 7;
    (letters, (stops.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8)
}

/// Reads characters; returns how many letters they are, at most as many as bytes.
fn read_wide(caption: &str, letters: &mut [u8], stops: &mut [u64]) -> Result<usize, Unusual> {
    stops.fill(0);
    let mut len = 0;
    let mut before = Pairs::ASCII;
    for c in caption.chars() {
        let letter = match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => {
                before = Pairs::ASCII;
                if byte == b'+' { b' ' } else { byte.to_ascii_lowercase() }
            }
            _ => {
                let pairs = Pairs::of(c);
                if before.may_be_bad(pairs) {
                    return Err(Unusual::Encoding);
                }
                before = pairs;
                wide_letter(c).ok_or(Unusual::Character)?
            }
        };
        letters[len] = letter;
        stops[len / 64] |= u64::from(kind(letter) != Kind::Word) << (len % 64);
        len += 1;
    }
    letters[len..caption.len()].fill(0);
    Ok(len)
}

/// Letters of the characters of the basic plane, 0 for what is refused.
static WIDE_LETTERS: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let letter = |code| char::from_u32(code).and_then(find_wide_letter).unwrap_or(0);
    (0..=0xFFFF).map(letter).collect()
});

/// The letter that stands for `c`, a character outside ASCII; none if it is refused.
fn wide_letter(c: char) -> Option<u8> {
    match WIDE_LETTERS.get(c as usize) {
        Some(&letter) => (letter != 0).then_some(letter),
        None => find_wide_letter(c),
    }
}

/// [`wide_letter`] without its table.
fn find_wide_letter(c: char) -> Option<u8> {
    match c {
        '\u{00A0}' => return Some(WIDE_SPACE),
        '\u{02BC}' | '\u{2018}'..='\u{201B}' => return Some(b'\''),
        '\u{201C}'..='\u{201F}' => return Some(b'"'),
        // Quotes with tokens of their own, and what is an `s` to the rule of the single letter.
        '«' | '»' | 'ſ' => return None,
        _ => {}
    }
    let is_kept = !c.is_ascii()
        && (u32::from(c) > 0xFFFF || repair(c.encode_utf8(&mut [0; 4])).chars().eq([c]))
        && is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes
        && canonical_combining_class(c) == 0
        && c.to_lowercase().len() == 1
        && !c.to_lowercase().any(|lower| lower.is_ascii())
        && !is_space(c)
        && !is_digit(c);
    is_kept.then_some(if is_word(c) { WIDE_LETTER } else { WIDE_MARK })
}
