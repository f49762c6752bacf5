//! Which of a list of synsets or words a vocabulary has labels for.
//!
//! In: a vocabulary, and lines such as `n01440764`, `n01440764 tench` or `hot dog`. Out: for each
//! line the label itself, or the nearest one, or that WordNet has no such noun.
//! Never: guesses what a word means: it is its first sense, as for the labels of captions.
//!
//! Near is what NLTK's `path_similarity` calls near: 1 ÷ (1 + steps), where the steps lead along
//! hypernyms up from both synsets to one that is above both (or is one of them), by the shortest
//! way.

use std::collections::HashMap;

use catlip_schemas::{LabelId, SynsetId, Vocab};

use crate::caption::lemmas::lemmatize;
use crate::caption::wordnet::WordNet;

/// What a vocabulary has for one line of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Covered {
    /// The line without spaces around it.
    pub entry: String,
    /// The synset that it means, if WordNet has one.
    pub synset: Option<SynsetId>,
    /// The nearest label with its steps: 0 for the synset itself.
    pub nearest: Option<Near>,
}

/// A label and how far it is. Smaller is nearer; of equally near ones the more frequent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Near {
    /// Steps along hypernyms.
    pub steps: u32,
    /// The label.
    pub label: LabelId,
}

impl Near {
    /// NLTK's `path_similarity`: 1 for the synset itself.
    pub fn similarity(self) -> f64 {
        1.0 / (1.0 + f64::from(self.steps))
    }
}

/// Looks up every line of `list` that is not empty.
pub fn cover(vocab: &Vocab, list: &str) -> Vec<Covered> {
    let wordnet = WordNet::embedded();
    let below = nearest_below(wordnet, vocab);
    let entries = list.lines().map(str::trim).filter(|line| !line.is_empty());
    entries
        .map(|entry| {
            let synset = meaning(wordnet, entry);
            let nearest = synset.and_then(|synset| nearest(wordnet, &below, synset));
            Covered { entry: entry.to_owned(), synset, nearest }
        })
        .collect()
}

/// The synset of a key that begins the line, or the first sense of the words that it is.
fn meaning(wordnet: &WordNet, entry: &str) -> Option<SynsetId> {
    let first = entry.split(|c: char| c.is_whitespace() || c == ',').next()?;
    if let Ok(synset) = first.parse() {
        return wordnet.head_lemma(synset).map(|_| synset);
    }
    let words = entry.split_whitespace().collect::<Vec<_>>().join("_").to_lowercase();
    wordnet.first_sense(&lemmatize(wordnet, &words))
}

/// For every synset that is a label, or has labels below it, the nearest of them.
fn nearest_below(wordnet: &WordNet, vocab: &Vocab) -> HashMap<SynsetId, Near> {
    let labels = vocab.rows().iter().zip(0..);
    let mut found: HashMap<SynsetId, Near> =
        labels.map(|(row, label)| (row.synset, Near { steps: 0, label })).collect();
    // Everything at one number of steps is final before what is one step above is looked at.
    let mut frontier: Vec<SynsetId> = found.keys().copied().collect();
    while !frontier.is_empty() {
        let mut above_frontier = Vec::new();
        for synset in frontier {
            let Near { steps, label } = found[&synset];
            let near = Near { steps: steps + 1, label };
            for above in wordnet.hypernyms(synset) {
                match found.get(&above) {
                    Some(known) if *known <= near => {}
                    known => {
                        if known.is_none() {
                            above_frontier.push(above);
                        }
                        found.insert(above, near);
                    }
                }
            }
        }
        frontier = above_frontier;
    }
    found
}

/// The nearest label by way of any synset above `synset`.
fn nearest(wordnet: &WordNet, below: &HashMap<SynsetId, Near>, synset: SynsetId) -> Option<Near> {
    let by_way_of = |(above, up): (SynsetId, u32)| {
        below.get(&above).map(|near| Near { steps: near.steps + up, label: near.label })
    };
    ancestors(wordnet, synset).into_iter().filter_map(by_way_of).min()
}

/// `synset` and everything above it, with the least number of steps up to it.
fn ancestors(wordnet: &WordNet, synset: SynsetId) -> Vec<(SynsetId, u32)> {
    let mut found = vec![(synset, 0)];
    let mut next = 0;
    while let Some(&(below, steps)) = found.get(next) {
        for above in wordnet.hypernyms(below) {
            if !found.iter().any(|(known, _)| *known == above) {
                found.push((above, steps + 1));
            }
        }
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use catlip_schemas::{Frequency, VocabRow};
    use proptest::prelude::*;

    use super::*;

    fn wordnet() -> &'static WordNet {
        WordNet::embedded()
    }

    fn vocab(synsets: impl IntoIterator<Item = SynsetId>) -> Vocab {
        let row = |synset| VocabRow {
            synset,
            lemma: wordnet().head_lemma(synset).unwrap().to_owned(),
            frequency: Frequency::default(),
        };
        Vocab::new(synsets.into_iter().map(row).collect()).unwrap()
    }

    fn vocab_of(lemmas: &[&str]) -> Vocab {
        vocab(lemmas.iter().map(|lemma| wordnet().first_sense(lemma).unwrap()))
    }

    fn similarity(a: &str, b: &str) -> f64 {
        cover(&vocab_of(&[b]), a)[0].nearest.unwrap().similarity()
    }

    /// Of two synsets, read off the definition: the least sum of steps up to a shared ancestor.
    fn steps_between(a: SynsetId, b: SynsetId) -> Option<u32> {
        let to_b = ancestors(wordnet(), b);
        let sums = ancestors(wordnet(), a).into_iter().filter_map(|(above, up)| {
            to_b.iter().find(|(other, _)| *other == above).map(|(_, down)| up + down)
        });
        sums.min()
    }

    #[test]
    fn similarities_are_those_that_nltk_prints() {
        // The five of the NLTK book (chapter 2, §5.3), and the one of NLTK's own how-to.
        let rounded = |a, b| (similarity(a, b) * 10_000.0).round() / 10_000.0;
        assert_eq!(rounded("right_whale", "minke_whale"), 0.25);
        assert_eq!(rounded("right_whale", "orca"), 0.1667);
        assert_eq!(rounded("right_whale", "tortoise"), 0.0769);
        assert_eq!(rounded("right_whale", "novel"), 0.0435);
        assert_eq!(rounded("right_whale", "right_whale"), 1.0);
        assert_eq!(rounded("dog", "cat"), 0.2);
    }

    #[test]
    fn a_way_that_goes_up_again_after_it_went_down_does_not_count() {
        // A dog is a canine and a domestic animal: a wolf is nearer to the latter by way of the
        // dog (wolf, canine, dog, domestic animal) than by way of what is above both.
        let (wolf, pet) = ("wolf", "domestic_animal");
        assert!(similarity(wolf, "dog") == 1.0 / 3.0);
        assert!(similarity(wolf, pet) < 1.0 / 4.0);
    }

    #[test]
    fn lines_are_keys_keys_with_names_and_words_in_any_number() {
        let vocab = vocab_of(&["tench", "dog", "hotdog", "car"]);
        let list = "n01440764\nn1440764\n  n01440764 tench, Tinca tinca\r\n\nDogs\nhot  dog\nzzz\n\
                    n00000001\nCar";
        let covered = cover(&vocab, list);
        let steps: Vec<_> = covered.iter().map(|c| c.nearest.map(|near| near.steps)).collect();
        let found: Vec<_> = covered.iter().map(|c| c.synset.is_some()).collect();
        assert_eq!(covered[2].entry, "n01440764 tench, Tinca tinca");
        assert_eq!(found, [true, true, true, true, true, false, false, true]);
        assert_eq!(steps[..4], [Some(0); 4]);
        assert_eq!(steps[5..], [None, None, Some(0)]);
    }

    #[test]
    fn of_equally_near_labels_the_more_frequent_is_said() {
        let near = |labels: &[&str]| cover(&vocab_of(labels), "dog")[0].nearest.unwrap();
        assert_eq!(near(&["wolf", "fox"]), Near { steps: 2, label: 0 });
        assert_eq!(near(&["fox", "wolf"]), Near { steps: 2, label: 0 });
        assert_eq!(near(&["car", "fox", "wolf"]), Near { steps: 2, label: 1 });
    }

    #[test]
    fn an_empty_vocabulary_is_near_nothing() {
        let covered = cover(&vocab([]), "dog");
        assert!(covered[0].synset.is_some() && covered[0].nearest.is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_nearest_is_the_nearest_of_all(
            picks in proptest::collection::btree_set(0..82_115_usize, 1..12),
            asked in 0..82_115_usize,
        ) {
            let all: Vec<SynsetId> = wordnet().synsets().collect();
            let asked = all[asked];
            let labels: Vec<SynsetId> = picks.iter().map(|&row| all[row]).collect();
            let slow = labels.iter().zip(0..).filter_map(|(&synset, label)| {
                steps_between(asked, synset).map(|steps| Near { steps, label })
            });
            let fast = cover(&vocab(labels.iter().copied()), &asked.wnid())[0].nearest;
            prop_assert_eq!(fast, slow.min());
        }
    }
}
