//! Cuts a cleaned caption into sentences: NLTK 3.8.1's Punkt.
//!
//! In: lower-case characters. Out: the sentences as slices, in order.
//! Never: the trained collocations, sentence starters and orthographic contexts. Lower-case text
//! switches off all but what they say about initials and numbers, which give no label.
//!
//! A sentence matters to labels only by its last dot: `a dog. a cat` must not keep `dog.` whole.

use std::ops::Range;
use std::sync::LazyLock;

use super::characters::{is_digit, is_space, is_word};
use super::word_table::WordTable;

/// Words after which a dot does not end a sentence, one a line.
static ABBREVIATIONS: LazyLock<WordTable<()>> = LazyLock::new(|| {
    WordTable::new(include_str!("punkt_abbreviations.txt").lines().map(|line| (line, ())))
});

/// Cuts `text` into sentences, without the spaces between them.
pub fn sentences(text: &[char]) -> Vec<&[char]> {
    let mut cuts = Vec::new();
    let mut start = 0;
    for (end, word) in with_words_before(text, possible_ends(text)) {
        if contains_break(&text[word.start..end.context_end]) {
            cuts.push(start..end.at + 1);
            start = end.next_word.unwrap_or(end.at + 1);
        }
    }
    let trailing_spaces = text.iter().rev().take_while(|&&c| is_space(c)).count();
    cuts.push(start..(text.len() - trailing_spaces).max(start));
    move_closers(text, &cuts).into_iter().map(|cut| &text[cut]).collect()
}

/// A `.`, `?` or `!` that may end a sentence.
struct PossibleEnd {
    /// Its position.
    at: usize,
    /// Where the next word begins, if only spaces stand between.
    next_word: Option<usize>,
    /// End of what is looked at: the next word, or one punctuation mark.
    context_end: usize,
}

/// Every `.?!` before punctuation or before spaces and another word.
fn possible_ends(text: &[char]) -> impl Iterator<Item = PossibleEnd> {
    let skip = |from: usize, is: fn(char) -> bool| {
        from + text[from..].iter().take_while(|&&c| is(c)).count()
    };
    (0..text.len()).filter(|&at| matches!(text[at], '.' | '?' | '!')).filter_map(move |at| {
        let after = at + 1;
        if is_non_word(*text.get(after)?) {
            return Some(PossibleEnd { at, next_word: None, context_end: after + 1 });
        }
        let next_word = skip(after, is_space);
        if next_word == after || next_word == text.len() {
            return None;
        }
        let context_end = skip(next_word, |c| !is_space(c));
        Some(PossibleEnd { at, next_word: Some(next_word), context_end })
    })
}

/// Joins to each possible end the word before it, and drops those whose word the next end
/// shares: of several `.?!` in one word only the last is asked, so `foo.? bar` keeps its dot.
fn with_words_before(
    text: &[char],
    ends: impl Iterator<Item = PossibleEnd>,
) -> Vec<(PossibleEnd, Range<usize>)> {
    let mut separate: Vec<(PossibleEnd, Range<usize>)> = Vec::new();
    let mut previous = 0..0;
    for end in ends {
        let space = text[previous.end..end.at].iter().rposition(|&c| is_ascii_space(c));
        let start = match space {
            // NLTK takes 0 for none: right for all but a text that begins with its only space.
            None | Some(0) => previous.start,
            Some(space) => previous.end + space + 1,
        };
        if previous.end > start {
            separate.pop();
        }
        previous = start..end.at;
        separate.push((end, previous.clone()));
    }
    separate
}

/// Python's `string.whitespace`.
fn is_ascii_space(c: char) -> bool {
    c.is_ascii() && is_space(c) && !('\x1C'..='\x1F').contains(&c)
}

/// Whether a sentence ends inside `context`, that is at any token but the last.
fn contains_break(context: &[char]) -> bool {
    let tokens: Vec<&[char]> = context.split(|&c| c == '\n').flat_map(words).collect();
    tokens.windows(2).any(|pair| ends_sentence(pair[0], pair[1]))
}

fn ends_sentence(token: &[char], next: &[char]) -> bool {
    if let ['?' | '!' | '.'] = token {
        return true;
    }
    let Some((&'.', word)) = token.split_last() else { return false };
    if word.last() == Some(&'.') {
        return false;
    }
    let next_goes_on =
        matches!(next, [';' | ':' | ',' | '.' | '!' | '?']) || next[0].is_lowercase();
    let is_initial = matches!(word, [c] if is_word(*c) && !is_digit(*c));
    if next_goes_on && (is_initial || is_number(token)) {
        return false;
    }
    !is_abbreviation(word.iter().collect::<String>().as_bytes())
}

/// Whether `word` or what follows its last hyphen is an abbreviation.
pub fn is_abbreviation(word: &[u8]) -> bool {
    let after_hyphen = word.rsplit(|&byte| byte == b'-').next().unwrap_or_default();
    ABBREVIATIONS.get(word).is_some() || ABBREVIATIONS.get(after_hyphen).is_some()
}

/// The pattern `^-?[.,]?\d[\d,.-]*\.?$`.
fn is_number(token: &[char]) -> bool {
    let token = token.strip_prefix(&['-']).unwrap_or(token);
    let token = match token {
        ['.' | ',', rest @ ..] => rest,
        _ => token,
    };
    matches!(token, [first, rest @ ..] if is_digit(*first)
        && rest.iter().all(|&c| is_digit(c) || matches!(c, ',' | '.' | '-')))
}

/// Characters that cannot stand within a word.
fn is_non_word(c: char) -> bool {
    matches!(c, ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '?' | '!')
}

/// Cuts one line into Punkt's own tokens, which keep a final dot.
fn words(line: &[char]) -> Vec<&[char]> {
    let mut tokens = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        if is_space(first) {
            rest = &rest[1..];
            continue;
        }
        let length = match long_punctuation(rest) {
            Some(length) => length,
            None if may_start_word(first) => {
                (1..rest.len()).find(|&at| ends_word(&rest[at..])).unwrap_or(rest.len())
            }
            None => 1,
        };
        tokens.push(&rest[..length]);
        rest = &rest[length..];
    }
    tokens
}

fn may_start_word(c: char) -> bool {
    !matches!(
        c,
        '(' | '"'
            | '`'
            | '{'
            | '['
            | ':'
            | ';'
            | '&'
            | '#'
            | '*'
            | '@'
            | ')'
            | '}'
            | ']'
            | '-'
            | ','
    )
}

/// Whether a word ends before `rest`.
fn ends_word(rest: &[char]) -> bool {
    let ends = |rest: &[char]| match rest.first() {
        None => true,
        Some(&c) => is_space(c) || is_non_word(c) || long_punctuation(rest).is_some(),
    };
    ends(rest) || (rest[0] == ',' && ends(&rest[1..]))
}

/// Length of a dash or an ellipsis of two or more marks, or of `. . .` with at least three.
fn long_punctuation(rest: &[char]) -> Option<usize> {
    let run = |mark| rest.iter().take_while(|&&c| c == mark).count();
    match run('-').max(run('.')) {
        0 => None,
        1 => {
            let spaced = rest.chunks_exact(2).take_while(|p| p[0] == '.' && is_space(p[1])).count();
            let dots = spaced + usize::from(rest.get(2 * spaced) == Some(&'.'));
            (dots >= 3).then(|| 2 * dots - 1)
        }
        length => Some(length),
    }
}

/// Moves brackets and quotes that follow a sentence's end from the next sentence into it.
fn move_closers(text: &[char], cuts: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut out = Vec::with_capacity(cuts.len());
    let mut taken = 0;
    for (cut, next) in cuts.iter().zip(cuts.iter().skip(1).map(Some).chain([None])) {
        let start = cut.start + taken;
        let closers = next.and_then(|next| leading_closers(&text[next.clone()]));
        let end = match (next, closers) {
            (Some(next), Some((closers, _))) => next.start + closers,
            _ => cut.end,
        };
        taken = closers.map_or(0, |(_, with_spaces)| with_spaces);
        if start < end {
            out.push(start..end);
        }
    }
    out
}

/// How many closers open the sentence, alone and with the spaces after them; only where spaces,
/// a dash or the end follow.
fn leading_closers(sentence: &[char]) -> Option<(usize, usize)> {
    let closers = sentence.iter().take_while(|c| matches!(c, '"' | '\'' | ')' | ']' | '}')).count();
    let rest = &sentence[closers..];
    let spaces = rest.iter().take_while(|&&c| is_space(c)).count();
    let ends = spaces > 0 || rest.is_empty() || rest.starts_with(&['-', '-']);
    (closers > 0 && ends).then_some((closers, closers + spaces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<String> {
        let text: Vec<char> = text.chars().collect();
        sentences(&text).into_iter().map(|sentence| sentence.iter().collect()).collect()
    }

    #[test]
    fn a_dot_before_a_space_ends_a_sentence() {
        assert_eq!(cut("a dog. a cat."), ["a dog.", "a cat."]);
    }

    #[test]
    fn an_abbreviation_keeps_its_dot() {
        assert_eq!(include_str!("punkt_abbreviations.txt").lines().count(), 156);
        assert_eq!(cut("the st. james hotel"), ["the st. james hotel"]);
    }

    #[test]
    fn an_abbreviation_after_the_last_hyphen_keeps_its_dot_too() {
        assert_eq!(cut("an ex-dr. house"), ["an ex-dr. house"]);
        assert_eq!(cut("a dr-dog. house"), ["a dr-dog.", "house"]);
    }

    #[test]
    fn an_initial_or_a_number_goes_on_before_a_small_letter() {
        assert_eq!(cut("j. smith"), ["j. smith"]);
        assert_eq!(cut("no 1. dog"), ["no 1. dog"]);
        assert_eq!(cut("no -1,000. dog"), ["no -1,000. dog"]);
        assert_eq!(cut("no 1. 2 dogs"), ["no 1.", "2 dogs"]);
    }

    #[test]
    fn questions_and_calls_end_a_sentence() {
        assert_eq!(cut("a dog? a cat! yes"), ["a dog?", "a cat!", "yes"]);
    }

    #[test]
    fn an_ellipsis_does_not_end_a_sentence() {
        assert_eq!(cut("a dog... a cat"), ["a dog... a cat"]);
        assert_eq!(cut("a dog . . . a cat"), ["a dog .", ".", ".", "a cat"]);
    }

    #[test]
    fn of_several_ends_in_one_word_only_the_last_is_asked() {
        assert_eq!(cut("foo.? bar"), ["foo.?", "bar"]);
        assert_eq!(cut("foo.!?. bar baz"), ["foo.!?.", "bar baz"]);
    }

    #[test]
    fn closers_move_to_the_sentence_before_them() {
        assert_eq!(cut("(a dog.) a cat"), ["(a dog.)", "a cat"]);
        assert_eq!(cut("\"a dog.\" a cat"), ["\"a dog.\"", "a cat"]);
        assert_eq!(cut("a dog.)-- a cat"), ["a dog.)", "-- a cat"]);
        assert_eq!(cut("a dog.)cat x"), ["a dog.", ")cat x"]);
    }

    #[test]
    fn a_text_of_spaces_or_nothing_has_no_sentence() {
        assert!(cut("").is_empty());
        assert!(cut(" \n ").is_empty());
    }

    #[test]
    fn tokens_are_punkts() {
        let line: Vec<char> = "a,b c, (d.) e--f ... . . . 'g'".chars().collect();
        let tokens: Vec<String> = words(&line).iter().map(|t| t.iter().collect()).collect();
        assert_eq!(
            tokens,
            ["a,b", "c", ",", "(", "d.", ")", "e", "--", "f", "...", ". . .", "'g", "'"]
        );
    }
}
