//! The `corenet` rule against the reference: our own golden captions, and the shared dumps.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use catlip_pipeline::caption::clean::clean;
use catlip_pipeline::caption::corenet::{fast_synsets, literal_synsets};
use catlip_pipeline::caption::nouns::NounsOptions;
use catlip_pipeline::caption::rule;
use catlip_pipeline::caption::tokens::tokens;
use catlip_schemas::SynsetId;
use serde::Deserialize;

/// What the reference computes for one caption.
#[derive(Deserialize)]
struct Row {
    caption: String,
    norm: String,
    tokens: Vec<String>,
    synsets: Vec<String>,
}

/// How many captions differ from the reference, and the first of them.
#[derive(Debug, Default)]
struct Parity {
    captions: usize,
    other_norm: usize,
    other_tokens: usize,
    /// By the literal port.
    other_synsets: usize,
    /// By the fast path, of the captions that it reads: nothing falls back here.
    other_fast_synsets: usize,
    /// By the rule as it is used.
    other_rule_synsets: usize,
    /// Captions that the fast path does not read.
    slow: usize,
    first: Vec<String>,
}

/// Differing captions that a report shows.
const SHOWN: usize = 5;

fn compare(rows: impl Iterator<Item = Row>) -> Parity {
    let corenet = rule("corenet", &NounsOptions::default()).unwrap();
    let mut parity = Parity::default();
    for row in rows {
        let expected: Vec<SynsetId> = row.synsets.iter().map(|k| k.parse().unwrap()).collect();
        let other_norm = clean(&row.caption) != row.norm;
        let other_tokens = tokens(&row.norm) != row.tokens;
        let other_synsets = literal_synsets(&row.caption).0 != expected;
        let fast = fast_synsets(&row.caption);
        let other_fast_synsets = fast.as_ref().is_ok_and(|synsets| synsets.0 != expected);
        let other_rule_synsets = corenet.synsets(&row.caption).0 != expected;
        parity.captions += 1;
        parity.other_norm += usize::from(other_norm);
        parity.other_tokens += usize::from(other_tokens);
        parity.other_synsets += usize::from(other_synsets);
        parity.other_fast_synsets += usize::from(other_fast_synsets);
        parity.other_rule_synsets += usize::from(other_rule_synsets);
        parity.slow += usize::from(fast.is_err());
        let differs =
            other_norm || other_tokens || other_synsets || other_fast_synsets || other_rule_synsets;
        if differs && parity.first.len() < SHOWN {
            parity.first.push(row.caption);
        }
    }
    parity
}

impl Parity {
    /// Captions with other tokens or with other synsets, by any path.
    fn differing(&self) -> [usize; 4] {
        [self.other_tokens, self.other_synsets, self.other_fast_synsets, self.other_rule_synsets]
    }

    fn slow_percent(&self) -> f64 {
        self.slow as f64 * 100.0 / self.captions as f64
    }
}

fn read_rows(reader: impl BufRead) -> impl Iterator<Item = Row> {
    reader.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

/// The parity with a shared dump, or none where the dumps are absent.
fn compare_shared(name: &str) -> Option<Parity> {
    let path = shared(name);
    let Ok(file) = fs::File::open(&path) else {
        println!("skipped: no ../shared ({name})");
        return None;
    };
    let parity = compare(read_rows(std::io::BufReader::new(zstd::Decoder::new(file).unwrap())));
    println!("{name}: {parity:?}");
    Some(parity)
}

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/labels").join(name)
}

#[test]
fn our_own_captions_have_the_texts_tokens_and_synsets_of_the_reference() {
    let golden = include_str!("data/corenet-golden.jsonl");
    let parity = compare(read_rows(golden.as_bytes()));
    println!("{parity:?}");
    assert!(parity.captions >= 600);
    // They are of every kind: enough for the fast path to be tried, and for the others.
    assert!(parity.slow >= 100 && parity.captions - parity.slow >= 400);
    assert_eq!((parity.other_norm, parity.differing()), (0, [0; 4]));
}

#[test]
fn coco_captions_have_the_synsets_of_the_reference() {
    if let Some(parity) = compare_shared("corenet-coco.jsonl.zst") {
        assert_eq!(parity.captions, 25_014);
        assert_eq!(parity.differing(), [0; 4]);
        assert!(parity.slow_percent() <= 1.0, "{}", parity.slow_percent());
    }
}

#[test]
fn web_captions_have_the_synsets_of_the_reference() {
    if let Some(parity) = compare_shared("corenet-laion.jsonl.zst") {
        assert_eq!(parity.captions, 10_000);
        assert_eq!(parity.differing(), [0; 4]);
        assert!(parity.slow_percent() <= 6.0, "{}", parity.slow_percent());
    }
}

#[test]
fn fuzzed_captions_have_the_synsets_of_the_reference() {
    if let Some(parity) = compare_shared("corenet-fuzz.jsonl.zst") {
        assert_eq!(parity.captions, 50_000);
        assert_eq!(parity.differing(), [0; 4]);
    }
}
