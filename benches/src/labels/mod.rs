//! What a label rule is worth: `catlip-bench labels`.
//!
//! In: a rule, the captions and verdicts of `../shared`, the verdicts of `benches/labels`. Out: a
//! [`Worth`], whose figures stand in `docs/labels.md`. Where `../shared` is absent only ImageNet's
//! classes are counted.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use catlip_pipeline::caption::LabelRule;
use catlip_pipeline::caption::nouns::tables::Tables;
use catlip_pipeline::caption::wordnet::WordNet;
use catlip_pipeline::source::SampleReader;
use catlip_pipeline::source::bytes::TarBytes;
use catlip_pipeline::source::map::MappedFile;
use catlip_schemas::SynsetId;
use serde::Deserialize;

use crate::Failure;

pub mod agreement;
pub mod speed;
pub mod verdicts;

use agreement::{Agreement, agreement};
use verdicts::{Share, Verdicts};

/// The dumps of captions, and the name of each in the table.
const DUMPS: [(&str, &str); 2] =
    [("COCO", "corenet-coco.jsonl.zst"), ("LAION", "corenet-laion.jsonl.zst")];

/// Shards of images with five captions each.
const SHARDS: [&str; 3] =
    ["flickr8k224-00000.tar", "flickr8k224-00001.tar", "flickr8k224-00002.tar"];

/// What was read of `../shared`.
pub struct Shared {
    dumps: Vec<Vec<String>>,
    /// The captions of each image.
    images: Vec<Vec<String>>,
    judged: Verdicts,
    unseen: [Verdicts; 3],
}

/// What a rule is worth.
#[derive(Clone, Debug)]
pub struct Worth {
    /// The rule's id.
    pub rule: String,
    /// Classes of ImageNet-1k of which some caption gives exactly the synset, of 1,000.
    pub reach: usize,
    /// The rest, which needs `../shared`.
    pub on_captions: Option<OnCaptions>,
}

/// What a rule is worth on captions.
#[derive(Clone, Debug)]
pub struct OnCaptions {
    /// Labels a caption, by dump.
    pub labels_per_caption: Vec<f64>,
    /// First 8 hex digits of BLAKE3 over all labels of the dumps.
    pub hash: String,
    /// The captions that were read while the rule was made.
    pub judged: Share,
    /// The captions that were not, by each pass.
    pub unseen: [Share; 3],
    /// Whether captions of one image agree.
    pub agreement: Agreement,
}

#[derive(Deserialize)]
struct DumpRow {
    caption: String,
}

#[derive(Deserialize)]
struct FiveCaptions {
    captions: Vec<String>,
}

impl Shared {
    /// Reads `../shared`; none if it is not there.
    ///
    /// # Errors
    ///
    /// A file below it that is missing or damaged.
    pub fn open(folder: &Path) -> Result<Option<Self>, Failure> {
        if !folder.join("data/labels/judged.jsonl").exists() {
            return Ok(None);
        }
        let dumps = DUMPS.map(|(_, file)| read_dump(&folder.join("data/labels").join(file)));
        let dumps = dumps.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut images = Vec::new();
        for shard in SHARDS {
            images.extend(read_images(&folder.join("data/shards").join(shard))?);
        }
        let unseen = |pass| Verdicts::unseen(folder, &dumps, pass);
        let unseen = [unseen(0)?, unseen(1)?, unseen(2)?];
        Ok(Some(Self { judged: Verdicts::judged(folder)?, unseen, dumps, images }))
    }
}

fn read_dump(path: &Path) -> Result<Vec<String>, Failure> {
    let lines = BufReader::new(zstd::Decoder::new(File::open(path)?)?).lines();
    lines.map(|line| Ok(serde_json::from_str::<DumpRow>(&line?)?.caption)).collect()
}

fn read_images(path: &Path) -> Result<Vec<Vec<String>>, Failure> {
    let mut images = Vec::new();
    let map = MappedFile::open(path)?;
    for sample in SampleReader::new(TarBytes::open(&map)?, false) {
        let sample = sample.map_err(|reject| reject.error)?;
        for file in sample.files.iter().filter(|file| file.extension == "json") {
            images.push(serde_json::from_slice::<FiveCaptions>(&file.data)?.captions);
        }
    }
    Ok(images)
}

/// Measures `rule`.
pub fn measure(rule: &dyn LabelRule, shared: Option<&Shared>) -> Worth {
    Worth {
        rule: rule.id().to_owned(),
        reach: imagenet_reach(rule),
        on_captions: shared.map(|shared| measure_on_captions(rule, shared)),
    }
}

fn measure_on_captions(rule: &dyn LabelRule, shared: &Shared) -> OnCaptions {
    let mut hasher = blake3::Hasher::new();
    let mut labels_per_caption = Vec::new();
    for captions in &shared.dumps {
        let labels: Vec<_> = captions.iter().map(|caption| rule.synsets(caption)).collect();
        let synsets = labels.iter().flat_map(|labels| &labels.0);
        let num_labels = synsets.clone().count();
        synsets.for_each(|synset| {
            hasher.update(&synset.0.to_le_bytes());
        });
        labels_per_caption.push(num_labels as f64 / captions.len() as f64);
    }
    let labels_of = |caption: &String| rule.synsets(caption).0.into_iter().collect::<HashSet<_>>();
    let images: Vec<Vec<_>> =
        shared.images.iter().map(|captions| captions.iter().map(labels_of).collect()).collect();
    OnCaptions {
        labels_per_caption,
        hash: hasher.finalize().to_hex()[..8].to_owned(),
        judged: shared.judged.share(rule),
        unseen: shared.unseen.each_ref().map(|unseen| unseen.share(rule)),
        agreement: agreement(&images),
    }
}

/// Classes of ImageNet-1k that a caption reaches: a lemma of a class, alone or with an `s`, or a
/// word or phrase of the tables of `nouns`.
fn imagenet_reach(rule: &dyn LabelRule) -> usize {
    let classes: HashSet<SynsetId> = imagenet_classes().collect();
    let wordnet = WordNet::embedded();
    let mut captions: HashSet<String> = HashSet::new();
    for lemma in classes.iter().flat_map(|class| wordnet.lemmas(*class)) {
        let words = lemma.replace('_', " ");
        captions.insert(format!("{words}s"));
        captions.insert(words);
    }
    let tables = Tables::embedded();
    let words = tables.senses.keys().chain(tables.plurals.keys()).chain(tables.phrases.keys());
    captions.extend(words.map(|word| (*word).to_owned()));
    let reached: HashSet<SynsetId> =
        captions.iter().flat_map(|caption| rule.synsets(caption).0).collect();
    classes.intersection(&reached).count()
}

fn imagenet_classes() -> impl Iterator<Item = SynsetId> {
    include_str!("../../labels/imagenet-1k.txt").lines().filter_map(|wnid| wnid.parse().ok())
}

/// The names of the dumps, in the order of [`OnCaptions::labels_per_caption`].
pub fn dump_names() -> [&'static str; 2] {
    DUMPS.map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use catlip_pipeline::caption::nouns::NounsOptions;
    use catlip_pipeline::caption::rule;

    use super::*;

    fn worth(name: &str, shared: Option<&Shared>) -> Result<Worth, Failure> {
        Ok(measure(rule(name, &NounsOptions::default())?.as_ref(), shared))
    }

    #[test]
    fn imagenet_has_its_classes_and_the_reference_reaches_395_of_them() -> Result<(), Failure> {
        assert_eq!(imagenet_classes().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(worth("corenet", None)?.reach, 395);
        assert!(worth("nouns", None)?.reach >= 950);
        Ok(())
    }

    /// The figures of `docs/labels.md`, as far as no machine changes them.
    #[test]
    fn both_rules_are_worth_what_the_documents_say() -> Result<(), Failure> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
        let Some(shared) = Shared::open(&folder)? else {
            println!("skipped: no ../shared");
            return Ok(());
        };
        let near = |found: f64, expected: f64| (found - expected).abs() < 0.0005;
        let corenet = worth("corenet", Some(&shared))?.on_captions.ok_or("no captions")?;
        assert_eq!(corenet.judged.labels, corenet.judged.judged);
        assert!(near(corenet.judged.right(), 0.629) || near(corenet.judged.right(), 0.630));
        assert!(near(corenet.agreement.kappa, 0.3801), "{}", corenet.agreement.kappa);
        assert!((corenet.agreement.bits - 6.959).abs() < 0.001, "{}", corenet.agreement.bits);
        let kappa = |lemma| {
            let synset = WordNet::embedded().first_sense(lemma);
            synset.and_then(|s| corenet.agreement.by_label.get(&s)).map(|k| (k * 100.0).round())
        };
        assert_eq!(["dog", "ball", "are", "large"].map(kappa), [93.0, 71.0, 15.0, 8.0].map(Some));

        let nouns = worth("nouns", Some(&shared))?.on_captions.ok_or("no captions")?;
        for share in nouns.unseen.into_iter().chain([nouns.judged]) {
            assert_eq!(share.labels, share.judged, "a label without a verdict");
        }
        assert!(nouns.judged.right() >= 0.82 && nouns.judged.right_as_word() >= 0.92);
        assert!(nouns.unseen.iter().all(|share| share.right() >= 0.76));
        assert!(
            nouns.agreement.kappa > 0.42 && nouns.agreement.bits > corenet.agreement.bits - 0.05
        );
        Ok(())
    }
}
