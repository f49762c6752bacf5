//! Cuts a cleaned caption into tokens: NLTK 3.8.1's `word_tokenize`.
//!
//! In: lower-case text. Out: words, numbers and punctuation marks in order.
//! Never: joins words, drops a mark, or looks at WordNet.
//!
//! NLTK pads marks with spaces by one regular expression after another and splits at spaces last.
//! Each is a line here, in NLTK's order: a later one sees the spaces of the earlier ones. A
//! `Text` knows which marks it has, so that most of them cost nothing.

use super::characters::{is_digit, is_space, is_word};
use super::sentences::sentences;

/// Cuts `text` into tokens.
pub fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    sentences(&text).into_iter().flat_map(sentence_tokens).collect()
}

fn sentence_tokens(sentence: &[char]) -> Vec<String> {
    let text = starting_quotes(Text::new(sentence.to_vec()));
    let text = punctuation(text);
    let text = pad(text, &[']', '[', '(', ')', '{', '}', '<', '>']);
    let text = pad_pair(text, ['-', '-']);
    let text = Text::new([&[' '], text.chars.as_slice(), &[' ']].concat());
    let text = ending_quotes(text);
    let text = contractions(text);
    let tokens = text.chars.split(|&c| is_space(c)).filter(|token| !token.is_empty());
    tokens.map(|token| token.iter().collect()).collect()
}

/// Characters, and which of them it has.
struct Text {
    chars: Vec<char>,
    /// Bit `c` for each ASCII character `c`, bit 0 for all others.
    marks: u128,
}

impl Text {
    fn new(chars: Vec<char>) -> Self {
        let marks = chars.iter().fold(0, |marks, &c| marks | bit(c));
        Self { chars, marks }
    }

    /// Whether one of `marks` may stand in the text.
    fn may_have(&self, marks: &[char]) -> bool {
        marks.iter().any(|&mark| self.marks & bit(mark) != 0)
    }
}

fn bit(c: char) -> u128 {
    if c.is_ascii() { 1 << u32::from(c) } else { 1 }
}

fn starting_quotes(text: Text) -> Text {
    // `([«“‘„]|[`]+)` → ` \1 `
    let text = replace(text, &['«', '“', '‘', '„', '`'], |rest, _, out| {
        let backticks = rest.iter().take_while(|&&c| c == '`').count();
        let length = if matches!(rest[0], '«' | '“' | '‘' | '„') { 1 } else { backticks };
        write_padded(out, &rest[..length]);
        length
    });
    // `^"` → two backticks
    let text = match text.chars.as_slice() {
        ['"', rest @ ..] => Text::new([&['`', '`'], rest].concat()),
        _ => text,
    };
    let text = pad_pair(text, ['`', '`']);
    // `([ \(\[{<])("|'{2})` → `\1 `` `
    let text = replace(text, &['"', '\''], |rest, _, out| {
        let length = match rest {
            [' ' | '(' | '[' | '{' | '<', '"', ..] => 2,
            [' ' | '(' | '[' | '{' | '<', '\'', '\'', ..] => 3,
            _ => return 0,
        };
        out.extend([rest[0], ' ', '`', '`', ' ']);
        length
    });
    // `(?i)(')(?!re|ve|ll|m|t|s|d|n)(\w)\b` → `\1 \2`: a quote before a word of one letter. For
    // Python `ſ` is an `s` of another case.
    replace(text, &['\''], |rest, _, out| {
        let is_single = |c| is_word(c) && !matches!(c, 'm' | 't' | 's' | 'ſ' | 'd' | 'n');
        match rest {
            ['\'', c, ..] if is_single(*c) && !rest.get(2).is_some_and(|&c| is_word(c)) => {
                out.extend(['\'', ' ', *c]);
                2
            }
            _ => 0,
        }
    })
}

fn punctuation(text: Text) -> Text {
    // `([^\.])(\.)([\]\)}>"\'»”’ ]*)\s*$` → `\1 \2 \3 `
    let closes = |c| matches!(c, ']' | ')' | '}' | '>' | '"' | '\'' | '»' | '”' | '’' | ' ');
    let text = split_final_period(text, closes, &[' ', '.', ' ']);
    // `([:,])([^\d])` → ` \1 \2`: the second character is consumed, so that of `,,x` the second
    // comma stays with the x.
    let text = replace(text, &[':', ','], |rest, _, out| match rest {
        [mark @ (':' | ','), after, ..] if !is_digit(*after) => {
            out.extend([' ', *mark, ' ', *after]);
            2
        }
        _ => 0,
    });
    // `([:,])$` → ` \1 `; Python's `$` also stands before a last newline.
    let text = match text.chars.as_slice() {
        [before @ .., mark @ (':' | ',')] => Text::new([before, &[' ', *mark, ' ']].concat()),
        [before @ .., mark @ (':' | ','), '\n'] => {
            Text::new([before, &[' ', *mark, ' ', '\n']].concat())
        }
        _ => text,
    };
    // `\.{2,}` → ` \g<0> `
    let text = replace(text, &['.'], |rest, _, out| {
        let length = rest.iter().take_while(|&&c| c == '.').count();
        if length < 2 {
            return 0;
        }
        write_padded(out, &rest[..length]);
        length
    });
    let text = pad(text, &[';', '@', '#', '$', '%', '&']);
    // `([^\.])(\.)([\]\)}>"\']*)\s*$` → `\1 \2\3 `
    let closes = |c| matches!(c, ']' | ')' | '}' | '>' | '"' | '\'');
    let text = split_final_period(text, closes, &[' ', '.']);
    let text = pad(text, &['?', '!']);
    // `([^'])' ` → `\1 ' `
    let text = replace(text, &['\''], |rest, _, out| match rest {
        [c, '\'', ' ', ..] if *c != '\'' => {
            out.extend([*c, ' ', '\'', ' ']);
            3
        }
        _ => 0,
    });
    pad(text, &['*'])
}

/// Splits off a dot that only closers and spaces follow; not one of an ellipsis.
fn split_final_period(text: Text, closes: impl Fn(char) -> bool, dot: &[char]) -> Text {
    if !text.may_have(&['.']) {
        return text;
    }
    let chars = &text.chars;
    // Neither closers nor spaces are dots, so only the last dot can match.
    let Some(at) = chars.iter().rposition(|&c| c == '.') else { return text };
    let after = &chars[at + 1..];
    let closers = after.iter().take_while(|&&c| closes(c)).count();
    let ends = after[closers..].iter().all(|&c| is_space(c));
    if !ends || at == 0 || chars[at - 1] == '.' {
        return text;
    }
    Text::new([&chars[..at], dot, &after[..closers], &[' ']].concat())
}

fn ending_quotes(text: Text) -> Text {
    let text = pad(text, &['»', '”', '’']);
    let text = pad_pair(text, ['\'', '\'']);
    // `"` → ` '' `
    let text = replace(text, &['"'], |rest, _, out| {
        if rest[0] != '"' {
            return 0;
        }
        write_padded(out, &['\'', '\'']);
        1
    });
    // `([^' ])('[sS]|'[mM]|'[dD]|') ` → `\1 \2 `
    let text = split_clitics(text, &["'s", "'m", "'d", "'"]);
    // `([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ` → `\1 \2 `
    split_clitics(text, &["'ll", "'re", "'ve", "n't"])
}

/// Splits a clitic off what stands before it, if a space follows.
fn split_clitics(text: Text, clitics: &[&str]) -> Text {
    replace(text, &['\''], |rest, _, out| {
        let [before, after @ ..] = rest else { return 0 };
        if matches!(before, '\'' | ' ') {
            return 0;
        }
        let is_here = |clitic: &&&str| {
            let mut after = after.iter();
            clitic.chars().all(|c| after.next() == Some(&c)) && after.next() == Some(&' ')
        };
        let Some(clitic) = clitics.iter().find(is_here) else { return 0 };
        out.extend([*before, ' ']);
        out.extend(clitic.chars());
        out.push(' ');
        1 + clitic.len() + 1
    })
}

fn contractions(mut text: Text) -> Text {
    const AT_WORD_BOUNDARIES: [(&str, &str); 7] = [
        ("can", "not"),
        ("d", "'ye"),
        ("gim", "me"),
        ("gon", "na"),
        ("got", "ta"),
        ("lem", "me"),
        ("more", "'n"),
    ];
    // All have a quote or a doubled letter.
    if !text.may_have(&['\'']) && !text.chars.windows(2).any(|pair| pair[0] == pair[1]) {
        return text;
    }
    for (left, right) in AT_WORD_BOUNDARIES {
        text = split_contraction(text, left, right, |after| !after.is_some_and(is_word));
    }
    // `\b(wan)(na)(?=\s)`
    text = split_contraction(text, "wan", "na", |after| after.is_some_and(is_space));
    // ` ('t)(is)\b`, ` ('t)(was)\b`
    for right in ["is", "was"] {
        text = split_contraction(text, " 't", right, |after| !after.is_some_and(is_word));
    }
    text
}

/// `\b(left)(right)` → ` \1 \2 ` where `may_follow` accepts the next character. A left part that
/// begins with a space has its boundary there.
fn split_contraction(
    text: Text,
    left: &str,
    right: &str,
    may_follow: impl Fn(Option<char>) -> bool,
) -> Text {
    let whole: Vec<char> = left.chars().chain(right.chars()).collect();
    if !text.chars.windows(whole.len()).any(|window| window[0] == whole[0] && window == whole) {
        return text;
    }
    let parts = format!(" {} {right} ", left.trim_start());
    replace(text, &whole, |rest, before, out| {
        let is_inside_word = !left.starts_with(' ') && before.is_some_and(is_word);
        let after = rest.get(whole.len()).copied();
        if !rest.starts_with(&whole) || is_inside_word || !may_follow(after) {
            return 0;
        }
        out.extend(parts.chars());
        whole.len()
    })
}

/// Python's `re.sub`: at each place `rule` sees the rest of the text and the character before it,
/// writes the replacement and returns how many characters it stands for; 0 is no match.
///
/// A rule matches only where one of `marks` is near; most captions have few of them.
fn replace(
    text: Text,
    marks: &[char],
    rule: impl Fn(&[char], Option<char>, &mut Vec<char>) -> usize,
) -> Text {
    if !text.may_have(marks) {
        return text;
    }
    let text = text.chars;
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut at = 0;
    while at < text.len() {
        let before = at.checked_sub(1).map(|before| text[before]);
        match rule(&text[at..], before, &mut out) {
            0 => {
                out.push(text[at]);
                at += 1;
            }
            length => at += length,
        }
    }
    Text::new(out)
}

/// Puts a space on both sides of each of `marks`.
fn pad(text: Text, marks: &[char]) -> Text {
    replace(text, marks, |rest, _, out| {
        if !marks.contains(&rest[0]) {
            return 0;
        }
        write_padded(out, &rest[..1]);
        1
    })
}

/// Puts a space on both sides of each `pair`.
fn pad_pair(text: Text, pair: [char; 2]) -> Text {
    replace(text, &pair, |rest, _, out| {
        if !rest.starts_with(&pair) {
            return 0;
        }
        write_padded(out, &pair);
        pair.len()
    })
}

/// Writes ` mark `; nothing for no mark.
fn write_padded(out: &mut Vec<char>, mark: &[char]) {
    if !mark.is_empty() {
        out.push(' ');
        out.extend(mark);
        out.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> String {
        tokens(text).join(" ")
    }

    #[test]
    fn words_and_marks_are_separate() {
        assert_eq!(cut("a dog (black), a cat; 50% off!"), "a dog ( black ) , a cat ; 50 % off !");
    }

    #[test]
    fn the_final_period_splits_even_from_an_abbreviation() {
        assert_eq!(cut("a dog. on main st."), "a dog . on main st .");
    }

    #[test]
    fn a_dot_inside_splits_off_unless_its_word_is_an_abbreviation() {
        assert_eq!(cut("a dog. a cat"), "a dog . a cat");
        assert_eq!(cut("st. james"), "st. james");
    }

    #[test]
    fn a_question_mark_right_after_a_dot_glues_the_dot() {
        assert_eq!(cut("foo.? bar"), "foo. ? bar");
    }

    #[test]
    fn closers_may_follow_the_final_period() {
        assert_eq!(cut("a (dog.)"), "a ( dog . )");
        assert_eq!(cut("a dog.'  "), "a dog . '");
    }

    #[test]
    fn a_quote_that_became_backticks_keeps_the_final_period_glued() {
        assert_eq!(cut("the cat. \""), "the cat. ``");
    }

    #[test]
    fn commas_and_colons_split_unless_a_digit_follows() {
        assert_eq!(cut("a,b 3,000 9:30 a:b x, y:"), "a , b 3,000 9:30 a : b x , y :");
    }

    #[test]
    fn the_second_of_two_commas_stays_with_the_word() {
        assert_eq!(cut("dog,,cat"), "dog , ,cat");
        assert_eq!(cut("dog,,"), "dog , ,");
    }

    #[test]
    fn only_decimal_digits_hold_a_comma() {
        assert_eq!(cut("a,٣ b,½"), "a,٣ b , ½");
    }

    #[test]
    fn ellipses_and_double_dashes_are_padded() {
        assert_eq!(cut("wait...what--no---yes"), "wait ... what -- no -- -yes");
    }

    #[test]
    fn slashes_bars_underscores_and_single_dashes_are_not() {
        assert_eq!(
            cut("black/white dog|cat a_b c-d e–f g—h i~j k=l"),
            "black/white dog|cat a_b c-d e–f g—h i~j k=l"
        );
    }

    #[test]
    fn double_quotes_open_as_backticks_and_close_as_apostrophes() {
        assert_eq!(cut("\"dog\" and (\"cat\")"), "`` dog '' and ( `` cat '' )");
        assert_eq!(cut("un``it 5\" tv"), "un `` it 5 '' tv");
        assert_eq!(cut("«dog» „cat‟"), "« dog » „ cat‟");
    }

    #[test]
    fn a_single_quote_splits_from_one_letter_but_not_m_t_s_d_n() {
        assert_eq!(cut("'a' 'b 'n 's 'é"), "' a ' ' b 'n 's ' é");
    }

    #[test]
    fn a_single_quote_stays_with_the_word_it_opens() {
        assert_eq!(cut("the 'dog house' rocks"), "the 'dog house ' rocks");
    }

    #[test]
    fn clitics_split_before_a_space() {
        assert_eq!(
            cut("a dog's bone i'm he'd we'll they're you've don't"),
            "a dog 's bone i 'm he 'd we 'll they 're you 've do n't"
        );
        assert_eq!(cut("dogs' bones"), "dogs ' bones");
    }

    #[test]
    fn a_clitic_needs_something_before_it() {
        assert_eq!(cut("the 's end"), "the 's end");
    }

    #[test]
    fn a_dot_that_was_not_split_off_hides_a_clitic() {
        assert_eq!(cut("the dog's, x"), "the dog 's , x");
        assert_eq!(cut("the dog's.? x y"), "the dog's. ? x y");
    }

    #[test]
    fn contractions_split_at_word_boundaries() {
        assert_eq!(
            cut("i cannot gimme gonna gotta lemme d'ye more'n"),
            "i can not gim me gon na got ta lem me d 'ye more 'n"
        );
        assert_eq!(cut("gonna-be xgonna gonnax"), "gon na -be xgonna gonnax");
        assert_eq!(cut("wanna go wanna-go"), "wan na go wanna-go");
        assert_eq!(cut("so 'tis 'twas"), "so 't is 't was");
    }

    #[test]
    fn combining_marks_end_a_word() {
        assert_eq!(cut("cannot\u{338}x"), "can not \u{338}x");
        assert_eq!(cut("cannot²"), "cannot²");
    }

    #[test]
    fn every_python_space_separates() {
        assert_eq!(cut("a\u{A0}b\u{85}c\u{2003}d\ne"), "a b c d e");
    }

    #[test]
    fn nothing_has_no_tokens() {
        assert!(tokens("").is_empty());
    }
}
