//! Cuts letters into words: what cleaning, sentences and tokens do, in one pass.
//!
//! In: the [`Letters`] of a caption. Out: each [`Word`] in order, given to a visitor.
//! Never: tokens of marks alone, which have no lemma; a word that `tokens` would cut elsewhere:
//! where this file does not know, the caption is [`Unusual`].
//!
//! A *piece* is what stands between two separators. Most pieces are letters and digits and are
//! words as they stand; the others go through [`Scan::odd_piece`]. A *run* is what stands between
//! two spaces: Punkt decides about a dot by its run and the next.

use super::Unusual;
use super::letters::{Kind, Letters, WIDE_LETTER, kind};
use super::sentence_dot::{self, Dot};
use super::word::{Visitor, Word};

/// The words that NLTK splits in two, with the bytes of the first half.
const CONTRACTIONS: [(&[u8], usize); 6] =
    [(b"cannot", 3), (b"gimme", 3), (b"gonna", 3), (b"gotta", 3), (b"lemme", 3), (b"wanna", 3)];

/// The piece has a joiner.
const JOINER: u8 = 1;
/// The piece has a quote.
const QUOTE: u8 = 2;
/// The piece has a dot, comma or colon that belongs to it.
const GLUED: u8 = 4;

/// What was seen of the run so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Nothing that could end a sentence.
    Open,
    /// A `?`, `!` or ellipsis, which no word feels.
    Ended,
    /// A dot about which was decided.
    Decided,
}

/// Gives the words of `letters` to `visitor`.
///
/// # Errors
///
/// [`Unusual`]; then what the visitor was given means nothing.
#[inline]
pub fn scan(letters: Letters<'_>, visitor: &mut impl Visitor) -> Result<(), Unusual> {
    let mut scan = Scan {
        letters,
        visitor,
        start: 0,
        odd: 0,
        run: Run::Open,
        has_wide_space: false,
        has_context: false,
    };
    for (block, &stops) in letters.stops.iter().enumerate() {
        let mut stops = stops;
        while stops != 0 {
            let at = block * 64 + stops.trailing_zeros() as usize;
            stops &= stops - 1;
            if letters.padded[at] == b' ' {
                scan.end_piece(at)?;
                scan.start = at + 1;
                scan.run = Run::Open;
            } else {
                scan.stop(at)?;
            }
        }
    }
    scan.end_piece(letters.len)?;
    if scan.has_wide_space && scan.has_context {
        return Err(Unusual::WideSpace);
    }
    Ok(())
}

struct Scan<'l, 'v, V> {
    letters: Letters<'l>,
    visitor: &'v mut V,
    /// Where the piece begins.
    start: usize,
    /// What it has apart from letters and digits.
    odd: u8,
    run: Run,
    /// Whether the caption has a space to `str.split` that is none to rules that look for U+0020.
    has_wide_space: bool,
    /// Whether such a rule was used.
    has_context: bool,
}

impl<V: Visitor> Scan<'_, '_, V> {
    /// Takes one letter that is neither alphanumeric nor a space.
    fn stop(&mut self, at: usize) -> Result<(), Unusual> {
        let letter = self.letters.padded[at];
        match kind(letter) {
            Kind::Mark => self.mark(letter, at),
            Kind::Comma => self.comma(at),
            Kind::Dot => self.dot(at),
            Kind::Quote => {
                if self.at(at + 1) == b'\'' {
                    return Err(Unusual::DoubledMark);
                }
                self.odd |= QUOTE;
                self.has_context = true;
                Ok(())
            }
            Kind::Joiner if letter == b'-' && self.at(at + 1) == b'-' => self.dashes(at),
            Kind::Joiner => {
                self.odd |= JOINER;
                Ok(())
            }
            Kind::WideSpace => {
                self.has_wide_space = true;
                self.end_piece(at)?;
                self.start = at + 1;
                Ok(())
            }
            Kind::Word | Kind::Space | Kind::Refused => Err(Unusual::Character),
        }
    }

    /// The letter there; 0 behind the last.
    fn at(&self, at: usize) -> u8 {
        self.letters.padded.get(at).copied().unwrap_or(0)
    }

    fn before(&self, at: usize) -> u8 {
        at.checked_sub(1).map_or(0, |before| self.at(before))
    }

    /// Ends the piece at `at` and begins the next behind the mark.
    fn mark(&mut self, mark: u8, at: usize) -> Result<(), Unusual> {
        match mark {
            b'%' if self.at(at + 1).is_ascii_hexdigit() && self.at(at + 2).is_ascii_hexdigit() => {
                return Err(Unusual::Escape);
            }
            b'&' if self.is_entity(at) => return Err(Unusual::Escape),
            b'?' | b'!' => self.sentence_may_end()?,
            _ => {}
        }
        self.separate(at, at + 1)
    }

    /// Whether `&name;` or `&#number;` stands at `at`, whatever it means.
    fn is_entity(&self, at: usize) -> bool {
        /// More letters than this are no entity.
        const NAME_BYTES_MAX: usize = 24;
        let name = at + 1 + usize::from(self.at(at + 1) == b'#');
        let is_name = |&i: &usize| self.at(i).is_ascii_alphanumeric();
        let bytes = (name..name + NAME_BYTES_MAX).take_while(is_name).count();
        bytes > 0 && self.at(name + bytes) == b';'
    }

    /// `?`, `!` and ellipses may end a sentence; no word feels it, but Punkt asks only the last of
    /// several ends in one run, so a decided dot before it was not asked.
    fn sentence_may_end(&mut self) -> Result<(), Unusual> {
        if self.run == Run::Decided {
            return Err(Unusual::Dot);
        }
        self.run = Run::Ended;
        Ok(())
    }

    /// `,` and `:` separate, unless a digit follows.
    fn comma(&mut self, at: usize) -> Result<(), Unusual> {
        match self.at(at + 1) {
            b'0'..=b'9' => {
                self.odd |= GLUED;
                Ok(())
            }
            b',' | b':' => Err(Unusual::DoubledMark),
            _ => self.separate(at, at + 1),
        }
    }

    fn dot(&mut self, at: usize) -> Result<(), Unusual> {
        if self.before(at) == b'.' {
            // Taken with the first dot of the ellipsis.
            return Ok(());
        }
        if self.at(at + 1) == b'.' {
            let dots = self.letters.padded[at..].iter().take_while(|&&l| l == b'.').count();
            self.sentence_may_end()?;
            return self.separate(at, at + dots);
        }
        if at + 1 == self.letters.len {
            return self.separate(at, at + 1);
        }
        match sentence_dot::decide(&self.letters, at)? {
            Dot::Inside => {
                self.odd |= GLUED;
                return Ok(());
            }
            _ if self.run != Run::Open => return Err(Unusual::Dot),
            Dot::Splits => self.separate(at, at + 1)?,
            Dot::Stays => self.odd |= GLUED,
        }
        self.has_context = true;
        self.run = Run::Decided;
        Ok(())
    }

    /// Pairs of `-` separate; the last of an odd number belongs to what follows.
    fn dashes(&mut self, at: usize) -> Result<(), Unusual> {
        if self.before(at) == b'-' {
            // Taken with the first of them.
            return Ok(());
        }
        let dashes = self.letters.padded[at..].iter().take_while(|&&l| l == b'-').count();
        self.separate(at, at + dashes / 2 * 2)
    }

    /// Ends the piece at `end`; a mark stands from there to `next`.
    fn separate(&mut self, end: usize, next: usize) -> Result<(), Unusual> {
        self.end_piece(end)?;
        self.start = next;
        Ok(())
    }

    #[inline]
    fn end_piece(&mut self, end: usize) -> Result<(), Unusual> {
        if self.start >= end {
            return Ok(());
        }
        if self.odd != 0 {
            return self.odd_piece(end);
        }
        let piece = &self.letters.padded[self.start..end];
        // All of them have a doubled third letter.
        if matches!(piece, [_, _, third, fourth, _, ..] if third == fourth && piece.len() <= 6)
            && let Some((_, half)) = CONTRACTIONS.iter().find(|(whole, _)| *whole == piece)
        {
            self.word(self.start, self.start + half);
            self.word(self.start + half, end);
            return Ok(());
        }
        self.word(self.start, end);
        Ok(())
    }

    /// Ends a piece that has more than letters and digits.
    fn odd_piece(&mut self, end: usize) -> Result<(), Unusual> {
        let piece = &self.letters.padded[self.start..end];
        let holds = |whole: &[u8]| piece.windows(whole.len()).any(|window| window == whole);
        if CONTRACTIONS.iter().any(|(whole, _)| holds(whole)) {
            return Err(Unusual::Contraction);
        }
        if self.odd & QUOTE != 0 {
            self.quoted_piece(end)?;
        } else {
            self.word(self.start, end);
        }
        self.odd = 0;
        Ok(())
    }

    /// Ends a piece with a quote at its beginning, or one inside or at its end, or both.
    fn quoted_piece(&mut self, end: usize) -> Result<(), Unusual> {
        let mut start = self.start;
        if self.at(start) == b'\'' {
            let piece = &self.letters.padded[start..end];
            if piece.starts_with(b"'tis") || piece.starts_with(b"'twas") {
                return Err(Unusual::Contraction);
            }
            if piece.len() == 1 {
                return Ok(());
            }
            if self.is_single(start + 1, end) {
                start += 1;
            }
        }
        let quotes = |from: usize| (from..end).filter(|&at| self.at(at) == b'\'');
        // The first letter was looked at.
        let (quote, more) = (quotes(start + 1).next(), quotes(start + 1).nth(1));
        match quote {
            None => self.word(start, end),
            Some(_) if more.is_some() => return Err(Unusual::Quotes),
            Some(quote) => self.split_at_quote(start, quote, end)?,
        }
        Ok(())
    }

    /// Ends the piece `start..end` that has its only quote, apart from a first one, at `quote`.
    fn split_at_quote(&mut self, start: usize, quote: usize, end: usize) -> Result<(), Unusual> {
        let piece = &self.letters.padded[start..end];
        let (before, after) = (&piece[..quote - start], &piece[quote + 1 - start..]);
        if after.starts_with(b"ye") || before.ends_with(b"more") && after.starts_with(b"n") {
            return Err(Unusual::Contraction);
        }
        let clitic = match after {
            b"" => Some(quote),
            b"s" | b"m" | b"d" | b"ll" | b"re" | b"ve" => Some(quote),
            // The n goes with it, if something but a quote stands before.
            b"t" if before.len() > 1 && before.ends_with(b"n") => {
                (before[before.len() - 2] != b'\'').then_some(quote - 1)
            }
            _ => None,
        };
        if self.is_single(quote + 1, end) {
            self.word(start, quote);
            self.word(quote + 1, end);
        } else if let Some(clitic) = clitic {
            self.word(start, clitic);
            if !after.is_empty() {
                self.word(clitic, end);
            }
        } else {
            self.word(start, end);
        }
        Ok(())
    }

    /// Whether a quote before `at` stands before a word of one letter that it splits from.
    fn is_single(&self, at: usize, end: usize) -> bool {
        let is_word = |at| {
            let letter = self.at(at);
            at < end && (letter.is_ascii_alphanumeric() || matches!(letter, b'_' | WIDE_LETTER))
        };
        is_word(at) && !is_word(at + 1) && !matches!(self.at(at), b'm' | b't' | b's' | b'd' | b'n')
    }

    #[inline]
    fn word(&mut self, start: usize, end: usize) {
        self.visitor.word(Word {
            padded: self.letters.padded,
            start,
            end,
            is_plain: self.odd == 0,
        });
    }
}
