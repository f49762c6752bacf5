//! Brings a token to its noun lemma: NLTK 3.8.1's `WordNetLemmatizer`.
//!
//! In: a lower-case token. Out: the shortest noun lemma that it may be a form of, or itself.
//! Never: looks at the meaning; `glasses` are `glass` and `us` is `u`.

use std::borrow::Cow;

use super::wordnet::WordNet;

/// Endings of noun forms and what stands there in the lemma, in the order of trial.
const ENDINGS: [(&str, &str); 9] = [
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
];

/// The shortest lemma of `token`, of several the first; without any the token itself.
pub fn lemmatize<'a>(wordnet: &'a WordNet, token: &'a str) -> Cow<'a, str> {
    lemmas(wordnet, token).into_iter().min_by_key(|l| l.len()).unwrap_or(Cow::Borrowed(token))
}

/// The noun lemmas that `form` may be a form of: NLTK's `_morphy`.
fn lemmas<'a>(wordnet: &'a WordNet, form: &'a str) -> Vec<Cow<'a, str>> {
    let is_lemma = |form: &Cow<'a, str>| wordnet.is_noun_lemma(form);
    let itself = [Cow::Borrowed(form)];
    // An exception forbids the endings, even if nothing that it lists is a lemma.
    if let Some(exceptions) = wordnet.exceptions(form) {
        let listed = exceptions.iter().map(|lemma| Cow::Borrowed(lemma.as_str()));
        return itself.into_iter().chain(listed).filter(is_lemma).collect();
    }
    let mut forms = without_endings(&itself);
    let mut found: Vec<_> = itself.iter().chain(&forms).filter(|f| is_lemma(f)).cloned().collect();
    // Only NLTK up to 3.8 goes on: `womens`, and `possess` by way of `posses`.
    while found.is_empty() && !forms.is_empty() {
        forms = without_endings(&forms);
        found = forms.iter().filter(|f| is_lemma(f)).cloned().collect();
    }
    found
}

/// Whether a form that one step brings to no lemma may be brought to one by more steps: whether
/// what an ending leaves has an ending again.
pub fn may_have_more_endings(form: &[u8]) -> bool {
    matches!(form, [.., b's', b's'] | [.., b's', b'e', b's'] | [.., b'm', b'e', b'n', b's'])
}

/// The forms between `form` and a lemma that one step does not bring it to: what is left of it is
/// one of them, and one step brings that to the lemma. Each is a beginning of `form`.
pub fn shorter_forms(form: &[u8]) -> impl Iterator<Item = &[u8]> {
    // What ends in `se`, or in what a lemma has instead of an ending, has no ending again.
    fn next<'f>(form: &&'f [u8]) -> Option<&'f [u8]> {
        let num_dropped = if form.ends_with(b"ses") { 2 } else { 1 };
        may_have_more_endings(form).then(|| &form[..form.len() - num_dropped])
    }
    std::iter::successors(Some(form), next).skip(1)
}

/// Every form that one step may bring to a noun lemma without an underscore, repeats included:
/// the lemmas, the irregular forms, and the lemmas with each ending that replaces theirs.
pub fn forms_of(wordnet: &WordNet) -> Vec<String> {
    let lemmas = wordnet.noun_lemmas().filter(|lemma| !lemma.contains('_'));
    let irregular = wordnet.irregular_forms().map(str::to_owned);
    lemmas.clone().map(str::to_owned).chain(irregular).chain(lemmas.flat_map(plurals_of)).collect()
}

/// `lemma` with each ending that replaces its own.
pub fn plurals_of(lemma: &str) -> impl Iterator<Item = String> {
    ENDINGS.iter().filter_map(move |(ending, lemma_ending)| {
        Some([lemma.strip_suffix(lemma_ending)?, ending].concat())
    })
}

/// Every form with every ending replaced that it has.
fn without_endings<'a>(forms: &[Cow<'a, str>]) -> Vec<Cow<'a, str>> {
    let mut out = Vec::new();
    // Most words have the last letter of no ending.
    for form in forms.iter().filter(|form| form.ends_with(['s', 'n'])) {
        for (ending, lemma_ending) in ENDINGS {
            if let Some(stem) = form.strip_suffix(ending) {
                out.push(replace_ending(form, stem.len(), ending, lemma_ending));
            }
        }
    }
    out
}

/// The stem of a form with the lemma's ending; borrowed where that is a part of the form, so that
/// a megabyte of `s` is not copied once for each letter.
fn replace_ending<'a>(
    form: &Cow<'a, str>,
    stem_bytes: usize,
    ending: &str,
    lemma_ending: &str,
) -> Cow<'a, str> {
    match form {
        Cow::Borrowed(form) if ending.starts_with(lemma_ending) => {
            Cow::Borrowed(&form[..stem_bytes + lemma_ending.len()])
        }
        _ => Cow::Owned(format!("{}{lemma_ending}", &form[..stem_bytes])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lemma(token: &str) -> String {
        lemmatize(WordNet::embedded(), token).into_owned()
    }

    #[test]
    fn a_regular_plural_loses_its_ending() {
        assert_eq!(lemma("dogs"), "dog");
        assert_eq!(lemma("churches"), "church");
        assert_eq!(lemma("boxes"), "box");
        assert_eq!(lemma("aardwolves"), "aardwolf");
        assert_eq!(lemma("ladies"), "lady");
        assert_eq!(lemma("firemen"), "fireman");
    }

    #[test]
    fn an_irregular_plural_is_an_exception() {
        assert_eq!(lemma("mice"), "mouse");
        assert_eq!(lemma("women"), "woman");
        assert_eq!(lemma("children"), "child");
    }

    #[test]
    fn an_exception_forbids_the_endings() {
        // `lens` stands in noun.exc for itself: `len` is not tried.
        assert_eq!(lemma("lens"), "lens");
    }

    #[test]
    fn the_shortest_lemma_wins_and_the_first_of_equals() {
        assert_eq!(lemma("glasses"), "glass");
        assert_eq!(lemma("boss"), "bos");
        assert_eq!(lemma("us"), "u");
        assert_eq!(lemma("was"), "wa");
        assert_eq!(lemma("men"), "men");
    }

    #[test]
    fn endings_are_taken_off_again_and_again() {
        assert_eq!(lemma("womens"), "woman");
        assert_eq!(lemma("possess"), "posse");
    }

    #[test]
    fn an_unknown_word_stays_itself() {
        assert_eq!(lemma("hardrock"), "hardrock");
        assert_eq!(lemma("zzzs"), "zzzs");
        assert_eq!(lemma("été"), "été");
        assert_eq!(lemma("s"), "s");
    }

    #[test]
    fn a_long_tail_of_endings_takes_linear_time() {
        assert_eq!(lemma(&format!("dog{}", "s".repeat(1 << 20))), "dog");
        let unknown = format!("qq{}", "es".repeat(1 << 19));
        assert!(lemma(&unknown) == unknown);
    }
}
