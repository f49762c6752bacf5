//! What people said about labels, and which captions they read.
//!
//! In: the verdicts of `../shared` and of `benches/labels` (its README has their letters). Out: the
//! share of a rule's labels that is right. A label without a verdict is counted as such, never left
//! out in silence.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use catlip_pipeline::caption::LabelRule;
use catlip_pipeline::caption::wordnet::WordNet;
use catlip_schemas::SynsetId;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::Failure;

/// Seed of the draw of unseen captions.
const UNSEEN_SEED: &str = "catlip nouns unseen 1";

/// Unseen captions of each dump.
const UNSEEN_PER_DUMP: usize = 100;

/// Verdicts on the labels of one set of captions.
pub struct Verdicts {
    captions: Vec<String>,
    /// By caption and synset: the letters `OK`, `A`, `V`, `N`, `S`, `M`, `P` or `J`.
    letters: HashMap<(String, SynsetId), String>,
}

/// How many labels of a rule are right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Labels, repeats counted.
    pub labels: u32,
    /// Labels with a verdict.
    pub judged: u32,
    /// Right noun and sense, or a colour, gerund or numeral with the right concept.
    pub right: u32,
    /// Right, or the right noun in a wrong sense.
    pub right_as_word: u32,
}

impl Share {
    /// Share of the judged labels that is right, 0 to 1.
    pub fn right(&self) -> f64 {
        f64::from(self.right) / f64::from(self.judged.max(1))
    }

    /// The same if a label is read as the word in any sense.
    pub fn right_as_word(&self) -> f64 {
        f64::from(self.right_as_word) / f64::from(self.judged.max(1))
    }
}

#[derive(Deserialize)]
struct JudgedCaption {
    caption: String,
    labels: Vec<JudgedLabel>,
}

#[derive(Deserialize)]
struct JudgedLabel {
    synset: String,
    verdict: String,
}

impl Verdicts {
    /// The 200 captions of `judged.jsonl` below `shared`, with our own verdicts on what it lacks.
    ///
    /// # Errors
    ///
    /// A file that is missing or damaged, or a synset that WordNet lacks.
    pub fn judged(shared: &Path) -> Result<Self, Failure> {
        let mut captions = Vec::new();
        let mut letters = HashMap::new();
        let more = include_str!("../../labels/judged-more.tsv");
        let mut by_hash = HashMap::new();
        for line in fs::read_to_string(shared.join("data/labels/judged.jsonl"))?.lines() {
            let judged: JudgedCaption = serde_json::from_str(line)?;
            for label in judged.labels {
                let synset = by_name(&label.synset)
                    .ok_or_else(|| format!("WordNet has no {}", label.synset))?;
                letters.entry((judged.caption.clone(), synset)).or_insert(label.verdict);
            }
            by_hash.insert(hash(&judged.caption), judged.caption.clone());
            captions.push(judged.caption);
        }
        for [caption, synset, letter] in rows(more) {
            let caption = by_hash.get(caption).ok_or("a verdict on another caption")?;
            letters.entry((caption.clone(), synset.parse()?)).or_insert(letter.to_owned());
        }
        Ok(Self { captions, letters })
    }

    /// The captions of the dumps that nobody looked at before; verdicts of pass 0, 1 or 2.
    ///
    /// # Errors
    ///
    /// A file that is missing or damaged.
    pub fn unseen(shared: &Path, dumps: &[Vec<String>], pass: usize) -> Result<Self, Failure> {
        let seen = Self::judged(shared)?.captions;
        let captions: Vec<String> =
            dumps.iter().flat_map(|dump| draw(dump, &seen)).cloned().collect();
        let by_hash: HashMap<_, _> = captions.iter().map(|c| (hash(c), c)).collect();
        let mut letters = HashMap::new();
        for [caption, synset, passes @ ..] in unseen_rows() {
            let caption = by_hash.get(caption).ok_or("a verdict on a caption not drawn")?;
            letters.insert(((*caption).clone(), synset.parse()?), passes[pass].to_owned());
        }
        Ok(Self { captions, letters })
    }

    /// How much of what `rule` says of the captions is right.
    pub fn share(&self, rule: &dyn LabelRule) -> Share {
        let mut share = Share::default();
        for caption in &self.captions {
            for synset in rule.synsets(caption).0 {
                share.labels += 1;
                let Some(letter) = self.letters.get(&(caption.clone(), synset)) else { continue };
                share.judged += 1;
                share.right += u32::from(is_right(letter));
                share.right_as_word += u32::from(is_right(letter) || letter == "S");
            }
        }
        share
    }
}

/// How far two passes over the unseen captions agree.
#[derive(Clone, Copy, Debug)]
pub struct PassAgreement {
    /// Share of the labels that have the same letter.
    pub letter: f64,
    /// Share of the labels that both call right, or both wrong.
    pub side: f64,
    /// Cohen's κ of right and wrong: the same beyond chance, at most 1.
    pub kappa: f64,
}

/// The agreement of two passes, 0 to 2.
pub fn agreement_of_passes(one: usize, other: usize) -> PassAgreement {
    let all: Vec<[&str; 2]> = unseen_rows().map(|[_, _, p @ ..]| [p[one], p[other]]).collect();
    let share = |is_so: &dyn Fn(&[&str; 2]) -> bool| {
        all.iter().filter(|pair| is_so(pair)).count() as f64 / all.len() as f64
    };
    let letter = share(&|[a, b]| a == b);
    let side = share(&|[a, b]| is_right(a) == is_right(b));
    let (a, b) = (share(&|[a, _]| is_right(a)), share(&|[_, b]| is_right(b)));
    let chance = a * b + (1.0 - a) * (1.0 - b);
    PassAgreement { letter, side, kappa: (side - chance) / (1.0 - chance) }
}

/// Whether a letter says that the concept is right.
fn is_right(letter: &str) -> bool {
    matches!(letter, "OK" | "A" | "V" | "N")
}

/// Caption, synset, and the letters of the three passes.
fn unseen_rows() -> impl Iterator<Item = [&'static str; 5]> {
    rows(include_str!("../../labels/unseen.tsv"))
}

/// The captions of a dump with the lowest hashes, without those that were seen.
fn draw<'d>(dump: &'d [String], seen: &[String]) -> Vec<&'d String> {
    let key = |caption: &str| Sha256::digest(format!("{UNSEEN_SEED}\0{caption}"));
    let mut all: Vec<_> = dump.iter().filter(|caption| !seen.contains(caption)).collect();
    all.sort_by_cached_key(|caption| key(caption));
    all.dedup();
    all.truncate(UNSEEN_PER_DUMP);
    all
}

/// The first 16 hex digits of SHA-256.
fn hash(caption: &str) -> String {
    Sha256::digest(caption)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A synset by its name in NLTK: `motorcycle.n.01`.
fn by_name(name: &str) -> Option<SynsetId> {
    let mut parts = name.rsplitn(3, '.');
    let sense: usize = parts.next()?.parse().ok()?;
    parts.next()?;
    WordNet::embedded().senses(parts.next()?).nth(sense.checked_sub(1)?)
}

/// Rows of a table of `N` columns; what has another number of them is a comment.
fn rows<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    let lines = table.lines().filter(|line| !line.starts_with("# "));
    lines.filter_map(|line| line.split('\t').collect::<Vec<_>>().try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_a_letter_of_the_readme_and_a_synset() {
        let letters = ["OK", "A", "V", "N", "S", "M", "P", "J"];
        let judged = rows(include_str!("../../labels/judged-more.tsv"));
        for [caption, synset, letter] in judged {
            assert!(caption.len() == 16 && letters.contains(&letter), "{caption} {letter}");
            assert!(synset.parse::<SynsetId>().is_ok(), "{synset}");
        }
        assert_eq!(unseen_rows().count(), 1099);
        for [_, synset, passes @ ..] in unseen_rows() {
            assert!(passes.iter().all(|letter| letters.contains(letter)), "{passes:?}");
            assert!(synset.parse::<SynsetId>().is_ok(), "{synset}");
        }
    }

    #[test]
    fn a_synset_is_found_by_its_name() {
        let wnid = |name| by_name(name).map(SynsetId::wnid);
        assert_eq!(wnid("motorcycle.n.01").as_deref(), Some("n03790512"));
        assert_eq!(
            wnid("st._louis.n.01"),
            WordNet::embedded().first_sense("st._louis").map(SynsetId::wnid)
        );
        assert_eq!(wnid("motorcycle.n.09"), None);
    }
}
