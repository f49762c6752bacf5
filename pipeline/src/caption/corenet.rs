//! The rule of CatLIP's released models: corenet's `wordnet_tagged_classification.py`.
//!
//! In: a caption. Out: its synsets in token order, repeats kept.
//! Never: asks for the part of speech; `are` is a unit of area, as it is in CatLIP's vocabulary.

use std::borrow::Cow;
use std::sync::LazyLock;

use catlip_schemas::{SynsetId, Synsets};

use super::LabelRule;
use super::clean::clean;
use super::explain::{Explanation, Outcome, Step};
use super::fast::{self, Unusual, Visitor, Word};
use super::lemmas::{forms_of, lemmatize, may_have_more_endings};
use super::tokens::tokens;
use super::word_table::WordTable;
use super::wordnet::WordNet;

/// The reference's rule: first sense, kept only if the lemma heads its synset.
#[derive(Debug)]
pub struct Corenet;

impl LabelRule for Corenet {
    fn id(&self) -> &str {
        "corenet-1"
    }

    fn synsets(&self, caption: &str) -> Synsets {
        fast_synsets(caption).unwrap_or_else(|_| literal_synsets(caption))
    }

    fn explain(&self, caption: &str) -> Explanation {
        let wordnet = WordNet::embedded();
        let text = clean(caption);
        let steps = tokens(&text).iter().map(|token| look_up(wordnet, token).step(token)).collect();
        Explanation { text, steps }
    }
}

/// The rule as it is defined, step by step: the source of truth.
pub fn literal_synsets(caption: &str) -> Synsets {
    let wordnet = WordNet::embedded();
    let tokens = tokens(&clean(caption));
    Synsets(tokens.iter().filter_map(|token| synset(wordnet, token)).collect())
}

/// The same for a usual caption, twenty times as fast.
///
/// # Errors
///
/// [`Unusual`]: only [`literal_synsets`] knows the synsets of this caption.
pub fn fast_synsets(caption: &str) -> Result<Synsets, Unusual> {
    let mut found = Collected { synsets: Vec::with_capacity(SYNSETS_USUAL), table: &FORMS };
    fast::words(caption, &mut found)?;
    Ok(Synsets(found.synsets))
}

/// Synsets of most captions: the mean is 4.4.
const SYNSETS_USUAL: usize = 8;

/// Every form of one word that the rules bring to a lemma in one step, with its synset; offset 0
/// where the name check drops it. What a token gives depends on the token alone.
static FORMS: LazyLock<WordTable<i32>> = LazyLock::new(|| {
    let wordnet = WordNet::embedded();
    let offset = |form: &str| synset(wordnet, form).map_or(0, |synset| synset.0);
    let forms = forms_of(wordnet);
    let offsets: Vec<i32> = forms.iter().map(|form| offset(form)).collect();
    WordTable::new(forms.iter().map(String::as_str).zip(offsets.iter().copied()))
});

/// Collects the synsets of words.
struct Collected {
    synsets: Vec<SynsetId>,
    table: &'static WordTable<i32>,
}

impl Visitor for Collected {
    #[inline]
    fn word(&mut self, word: Word<'_>) {
        match word.look_up(self.table) {
            Some(0) => {}
            Some(offset) => self.synsets.push(SynsetId(offset)),
            None => {
                let letters = word.letters();
                let has_underscore = !word.is_plain() && letters.contains(&b'_');
                if has_underscore || may_have_more_endings(letters) {
                    self.synsets.extend(rare_synset(letters));
                }
            }
        }
    }
}

/// The synset of a word that is in no table.
#[cold]
fn rare_synset(letters: &[u8]) -> Option<SynsetId> {
    // No lemma has a character outside ASCII, for which letters have other bytes.
    let token = str::from_utf8(letters).ok()?;
    synset(WordNet::embedded(), token)
}

/// The synset of one token, if its lemma names it.
fn synset(wordnet: &WordNet, token: &str) -> Option<SynsetId> {
    wordnet.sense_named(&lemmatize(wordnet, token))
}

/// What WordNet says about one token.
struct Found<'a> {
    lemma: Cow<'a, str>,
    /// The first sense of the lemma and its name, if it is a noun.
    sense: Option<(SynsetId, &'a str)>,
}

fn look_up<'a>(wordnet: &'a WordNet, token: &'a str) -> Found<'a> {
    let lemma = lemmatize(wordnet, token);
    let synset = wordnet.first_sense(&lemma);
    Found { sense: synset.and_then(|s| Some((s, wordnet.head_lemma(s)?))), lemma }
}

impl Found<'_> {
    /// The synset, if its lemma names it.
    ///
    /// The name check drops most function words (`a` is angstrom, `in` is inch) and also `photo`,
    /// whose synset is named photograph.
    fn kept(&self) -> Option<SynsetId> {
        self.sense.filter(|(_, name)| *name == self.lemma).map(|(synset, _)| synset)
    }

    fn step(self, token: &str) -> Step {
        let outcome = match self.sense {
            None => Outcome::unknown(token),
            Some(_) if self.kept().is_some() => Outcome::Kept,
            Some(_) => Outcome::OtherName,
        };
        let synset = self.sense.map(|(synset, _)| synset);
        Step { token: token.to_owned(), lemma: self.lemma.into_owned(), synset, outcome }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The head lemmas of a caption's synsets, which name them one to one here.
    fn labels(caption: &str) -> String {
        let heads = Corenet.synsets(caption).0.into_iter().map(|synset| {
            let head = WordNet::embedded().head_lemma(synset).unwrap();
            assert_eq!(WordNet::embedded().first_sense(head), Some(synset), "{head}");
            head
        });
        heads.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_references_unit_test_holds() {
        assert_eq!(labels("An image of black dog."), "image black dog");
    }

    #[test]
    fn plurals_give_their_singular_and_numerals_are_labels() {
        let caption = "Two dogs and a bicycle in front of cars";
        assert_eq!(labels(caption), "two dog bicycle front car");
    }

    #[test]
    fn a_word_whose_synset_has_another_name_is_dropped() {
        assert_eq!(labels("Photo of men riding bikes"), "riding");
        assert_eq!(labels("photo automobile phone bike tv kid kids usa t-shirt men"), "");
    }

    #[test]
    fn an_adjective_with_a_noun_sense_is_a_label() {
        let caption = "A photograph of people with mobile phones";
        assert_eq!(labels(caption), "photograph people mobile");
    }

    #[test]
    fn verbs_and_adjectives_are_labels_where_wordnet_has_them_as_nouns() {
        let caption = "The women are best free vintage t-shirt design";
        assert_eq!(labels(caption), "woman are best free vintage design");
        assert_eq!(
            labels("are best free black white red one two can no may top small high idea"),
            "are best free black white red one two can no may top small high idea"
        );
    }

    #[test]
    fn words_that_stand_apart_are_not_joined_and_an_underscore_joins() {
        assert_eq!(labels("hot dog on a cell phone"), "dog cell");
        assert_eq!(labels("a swimming_pool"), "swimming_pool");
    }

    #[test]
    fn the_shortest_lemma_may_be_another_word() {
        assert_eq!(labels("glasses and scissors"), "glass scissors");
        assert_eq!(labels("Boss wore us: was as has"), "bos");
        assert_eq!(labels("jeans pants"), "jean pant");
    }

    #[test]
    fn most_function_words_are_dropped_by_the_name_check() {
        assert_eq!(labels("a an in at be as he it i us was has 2 10"), "");
    }

    #[test]
    fn numbers_and_marks_give_nothing() {
        assert_eq!(labels("iPhone 12 case, $19.99"), "case");
        assert_eq!(labels(""), "");
        assert_eq!(labels("!!!"), "");
    }

    #[test]
    fn a_word_at_the_end_of_a_sentence_inside_the_caption_counts() {
        assert_eq!(labels("a dog. a cat"), "dog cat");
        assert_eq!(labels("a dog.? a cat"), "cat");
    }

    #[test]
    fn repeats_are_kept_in_order() {
        assert_eq!(labels("dog cat dogs"), "dog cat dog");
    }

    #[test]
    fn wrongly_decoded_text_is_read_as_it_was_meant() {
        assert_eq!(labels("a dogâ€™s tail"), "dog tail");
    }

    #[test]
    fn each_token_is_explained_with_the_reason() {
        let told = |step: Step| format!("{}→{}: {}", step.token, step.lemma, step.outcome);
        let steps = Corenet.explain("Photos of a dog/cat, 2 dogs.").steps;
        assert_eq!(
            steps.into_iter().map(told).collect::<Vec<_>>(),
            [
                "photos→photo: its synset bears another name",
                "of→of: no noun of WordNet",
                "a→a: its synset bears another name",
                "dog/cat→dog/cat: \"/\" makes it one word that WordNet lacks",
                ",→,: a mark, not a word",
                "2→2: its synset bears another name",
                "dogs→dog: its synset bears its name",
                ".→.: a mark, not a word",
            ]
        );
    }

    #[test]
    fn what_a_word_gives_is_in_the_table_or_found_without_it() {
        // Every lemma with every ending, and with every second one behind it.
        let wordnet = WordNet::embedded();
        let endings = ["s", "ses", "ves", "xes", "zes", "ches", "shes", "men", "mens", "ies", "es"];
        let mut num_labels = 0;
        for lemma in wordnet.noun_lemmas().step_by(7).chain(wordnet.irregular_forms()) {
            let stems = [lemma, &lemma[..lemma.len() - 1]];
            let forms = stems.iter().flat_map(|stem| endings.map(|e| format!("{stem}{e}")));
            for form in forms.flat_map(|form| [format!("{form}s"), format!("{form}es"), form]) {
                let expected: Vec<_> = synset(wordnet, &form).into_iter().collect();
                // A dot or quote in a lemma has its own rules.
                let is_word = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_');
                let found = fast_synsets(&form).ok().filter(|_| form.bytes().all(is_word));
                if let Some(found) = found {
                    assert_eq!(found.0, expected, "{form}");
                    num_labels += expected.len();
                }
            }
        }
        assert!(num_labels > 10_000, "{num_labels}");
    }

    #[test]
    fn long_hostile_captions_are_labelled() {
        // 256 KB each. A loop that looks back over all it has read would not end in a test's time.
        const BYTES: usize = 1 << 18;
        for unit in [
            "&amp;", "<", "<a", "&", "%41", "+", " ", "\n", ".", ". ", ".) ", "!? ", "-", "'",
            "\"", "`", ",", "a.", "a,", "ses", "men", "s", "\x1B[1", "é", "e\u{301}", "…",
            "can't ", "(",
        ] {
            let caption = unit.repeat(BYTES / unit.len()) + " . a dog";
            assert_eq!(Corenet.synsets(&caption), literal_synsets(&caption), "{unit}");
        }
        let nested = format!("&{}", "amp;".repeat(BYTES / 4));
        assert!(Corenet.synsets(&nested).0.len() <= BYTES);
    }

    /// Characters that some rule looks for, and any other.
    fn hostile_caption() -> impl Strategy<Value = String> {
        let known = "[ -~]|[\u{80}-\u{FF}]|[“”‘’„«»ʼ…–—½²٣ﬁ＆ｄ　\r\n\t\x1B\u{301}\u{2028}]";
        let word = "dog|cats|can|not|'tis|gonna|&amp;|&#39;|<b>|%C3|%A9|e\\.g\\.|\\. |--|``|''";
        let part = prop_oneof![any::<char>().prop_map(String::from), known, word];
        proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_caption_panics_and_every_synset_has_its_name(caption in hostile_caption()) {
            for synset in Corenet.synsets(&caption).0 {
                let head = WordNet::embedded().head_lemma(synset).unwrap();
                prop_assert_eq!(WordNet::embedded().first_sense(head), Some(synset));
            }
        }

        #[test]
        fn what_is_explained_as_kept_is_what_is_kept(caption in hostile_caption()) {
            prop_assert_eq!(Corenet.explain(&caption).synsets(), Corenet.synsets(&caption));
        }

        #[test]
        fn the_fast_path_is_the_rule(caption in hostile_caption(), any in ".{0,80}") {
            prop_assert_eq!(Corenet.synsets(&caption), literal_synsets(&caption));
            prop_assert_eq!(Corenet.synsets(&any), literal_synsets(&any));
        }

        #[test]
        fn spaces_around_a_caption_change_nothing(
            caption in hostile_caption(),
            before in "[ \t]{0,3}",
            after in "[ \t]{0,3}",
        ) {
            let alone = Corenet.synsets(&caption);
            prop_assert_eq!(Corenet.synsets(&format!("{before}{caption}{after}")), alone);
        }

        #[test]
        fn the_same_caption_gives_the_same_synsets(caption in ".{0,60}") {
            prop_assert_eq!(Corenet.synsets(&caption), Corenet.synsets(&caption));
        }
    }
}
