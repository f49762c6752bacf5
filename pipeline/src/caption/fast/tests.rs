//! The fast path beside the rules as they are defined.

use proptest::prelude::*;

use super::*;
use crate::caption::clean::clean;
use crate::caption::tokens::tokens;

/// Collects words, each character outside ASCII as `?`, which is in no word; a word that does not
/// follow its neighbour across white space alone has a `·` before it.
#[derive(Default)]
struct Collected(Vec<String>, usize);

impl Visitor for Collected {
    fn word(&mut self, word: Word<'_>) {
        let gap = &word.padded[self.1..word.start];
        let is_joined = !gap.is_empty() && gap.iter().all(|&letter| is_space(letter));
        let joint = if is_joined || self.0.is_empty() { "" } else { "·" };
        self.1 = word.end;
        let letter = |&letter: &u8| if letter.is_ascii() { char::from(letter) } else { '?' };
        self.0.push(joint.chars().chain(word.letters().iter().map(letter)).collect());
    }
}

fn cut(caption: &str) -> Result<String, Unusual> {
    let mut collected = Collected::default();
    words(caption, &mut collected)?;
    Ok(collected.0.join(" "))
}

/// The words of the fast path and of the rules, if it reads the caption.
fn both(caption: &str) -> Option<(Vec<String>, Vec<String>)> {
    let mut collected = Collected::default();
    words(caption, &mut collected).ok()?;
    let is_mark = |c: char| ".,:;@#$%&?!*()[]{}>\"'`".contains(c);
    let has_word = |token: &String| token != "--" && !token.chars().all(is_mark);
    let plain = |token: String| -> String {
        token.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
    };
    let found = collected.0.iter().map(|word| word.trim_start_matches('·').to_owned());
    let expected = tokens(&clean(caption)).into_iter().map(plain);
    Some((found.filter(has_word).collect(), expected.filter(has_word).collect()))
}

#[test]
fn words_are_lower_case_and_marks_are_left_out() {
    assert_eq!(cut("A black DOG (wet), 50% off!").unwrap(), "a black dog ·wet ·50 ·off");
    assert_eq!(cut("+Two+ dogs\n").unwrap(), "two dogs");
    assert_eq!(cut("").unwrap(), "");
    assert_eq!(cut(" ... !!! ").unwrap(), "");
}

#[test]
fn joiners_numbers_and_inner_dots_stay_in_their_word() {
    assert_eq!(
        cut("black/white t-shirt 3,000 at 9:30").unwrap(),
        "black/white t-shirt 3,000 at 9:30"
    );
    assert_eq!(cut("www.a.com v1.5 a_b -").unwrap(), "www.a.com v1.5 a_b -");
    assert_eq!(cut("a--b ---c").unwrap(), "a ·b ·-c");
}

#[test]
fn a_dot_splits_off_where_a_sentence_ends() {
    assert_eq!(cut("A dog. A cat... and st. james.").unwrap(), "a dog ·a cat ·and st. james");
    assert_eq!(cut("main st.").unwrap(), "main st");
    assert_eq!(
        cut("(the dog.) no 1. dog, no 1. 2 dogs").unwrap(),
        "the dog ·no 1. dog ·no 1 ·2 dogs"
    );
}

#[test]
fn quotes_split_as_nltk_splits_them() {
    assert_eq!(
        cut("The dog's bone isn't dogs' food").unwrap(),
        "the dog ·'s bone is ·n't dogs ·food"
    );
    assert_eq!(cut("“rock ’n’ roll” o'b 'dog house'").unwrap(), "rock 'n ·roll ·o ·b 'dog house");
    assert_eq!(cut("\"\"dog\"\" 5\"\" cat\"").unwrap(), "dog ·5 ·cat");
}

#[test]
fn contractions_are_two_words() {
    assert_eq!(cut("I cannot, you wanna").unwrap(), "i can ·not ·you wan ·na");
}

#[test]
fn characters_outside_ascii_are_one_letter_each() {
    assert_eq!(cut("Café – Москва 猫 👍").unwrap(), "caf? ? ?????? ? ?");
    assert_eq!(cut("hot\u{A0}dog").unwrap(), "hot dog");
}

#[test]
fn what_is_unusual_is_refused_with_the_reason() {
    use Unusual::*;
    for (caption, reason) in [
        ("a <b>dog</b>", Character),
        ("a `dog`", Character),
        ("a\tdog", Character),
        ("cafe\u{301}", Character),
        ("ﬁre", Character),
        ("«dog»", Character),
        ("a,٣", Character),
        ("dog's\u{A0}tail", WideSpace),
        ("100%acrylic", Escape),
        ("salt &amp; pepper", Escape),
        ("dog,,cat", DoubledMark),
        ("''dog''", DoubledMark),
        ("rock'n'roll", Quotes),
        ("'tis a dog", Contraction),
        ("gonna-be", Contraction),
        ("a dog.? a cat", Dot),
        ("a dog. \" a cat", Dot),
    ] {
        assert_eq!(cut(caption), Err(reason), "{caption}");
    }
}

#[test]
fn long_captions_are_read_like_short_ones() {
    for bytes in [1000, 1023, 1024, 1025, 5000] {
        let caption = "a dog’s tail. ".repeat(bytes / 14) + &"x".repeat(bytes % 14);
        let (found, expected) = both(&caption).unwrap();
        assert_eq!(found, expected, "{bytes}");
    }
}

#[test]
fn every_character_is_read_as_the_rules_read_it() {
    let all = (0..=0x3100).chain(0xA700..0xAC80).chain(0xD780..0x1_0100).chain(0x1_D100..0x1_D300);
    let mut num_read = 0;
    for c in all.chain(0x1_F300..0x1_F400).filter_map(char::from_u32) {
        for caption in [
            format!("a{c}b {c} c'{c} d{c}'s {c}e 'f{c}"),
            format!("g. {c} h.{c} st. {c} 5. {c} {c}. i {c}j. k,{c} cannot{c}"),
            format!("l{c}"),
            format!("{c}m"),
        ] {
            if let Some((found, expected)) = both(&caption) {
                assert_eq!(found, expected, "{c:?} in {caption:?}");
                num_read += 1;
            }
        }
    }
    assert!(num_read > 60_000, "{num_read}");
}

/// Captions of pieces on which some rule turns, of usual words, and of any character.
fn caption() -> impl Strategy<Value = String> {
    let word = "dogs?|st|dr|e\\.g|u\\.s|ph\\.d|q|j|no|[0-9]{1,2}|a|gonna|cannot|'tis|glasses|\
        womens|[a-z]{1,12}|[A-Z][a-z]{0,20}|é|ÀÖ|猫|swimming_pool";
    let mark = "[ -/:-@\\[-`{-~]|  |\\. |\\.\\.|--|\"\"|''|, |\\.\"|\\.\\)|'s|'t |n't|'ll |’s |“|\
        ” |[«»„‚ʼ…–—®½²٣ſİKﬁ．\u{A0}\u{3000}\u{85}\u{92}\u{301}\u{200B}\u{2028}\t\n\r\u{0}\u{1B}]|\
        &amp;|&#39;|%41|%C3|<b>|<";
    let space = Just(" ".to_owned());
    let part = prop_oneof![
        6 => word,
        4 => space,
        4 => mark,
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_words_are_those_of_the_rules(caption in caption()) {
        if let Some((found, expected)) = both(&caption) {
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_words_of_any_text_are_those_of_the_rules(caption in ".{0,60}") {
        if let Some((found, expected)) = both(&caption) {
            prop_assert_eq!(found, expected);
        }
    }
}
