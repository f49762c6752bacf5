//! The `corenet` rule against the reference: our own golden captions, and the shared dumps.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use catlip_pipeline::caption::clean::clean;
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
    other_synsets: usize,
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
        let other_synsets = corenet.synsets(&row.caption).0 != expected;
        parity.captions += 1;
        parity.other_norm += usize::from(other_norm);
        parity.other_tokens += usize::from(other_tokens);
        parity.other_synsets += usize::from(other_synsets);
        let differs = other_norm || other_tokens || other_synsets;
        if differs && parity.first.len() < SHOWN {
            parity.first.push(row.caption);
        }
    }
    parity
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
    assert!(parity.captions >= 300);
    assert_eq!((parity.other_norm, parity.other_tokens, parity.other_synsets), (0, 0, 0));
}

#[test]
fn coco_captions_have_the_synsets_of_the_reference() {
    if let Some(parity) = compare_shared("corenet-coco.jsonl.zst") {
        assert_eq!(parity.captions, 25_014);
        assert_eq!((parity.other_tokens, parity.other_synsets), (0, 0));
    }
}

#[test]
fn web_captions_have_the_synsets_of_the_reference() {
    if let Some(parity) = compare_shared("corenet-laion.jsonl.zst") {
        assert_eq!(parity.captions, 10_000);
        assert_eq!((parity.other_tokens, parity.other_synsets), (0, 0));
    }
}

#[test]
fn fuzzed_captions_have_the_synsets_of_the_reference() {
    if let Some(parity) = compare_shared("corenet-fuzz.jsonl.zst") {
        assert_eq!(parity.captions, 50_000);
        assert_eq!((parity.other_tokens, parity.other_synsets), (0, 0));
    }
}
