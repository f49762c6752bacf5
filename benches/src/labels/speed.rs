//! How fast captions become synsets: the label rules on real captions, or on our own.
//!
//! In: the dumps of `../shared/data/labels` where they are, and the golden captions. Out: for each
//! set and way one [`Labelled`]. Only captions in memory are labelled; nothing is read or written.
//!
//! Other programs use the cores too. So each set is labelled many times, in slices of a fraction
//! of a millisecond, and the fastest time of each slice counts; the median pass stands beside it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use catlip_pipeline::caption::corenet::{fast_synsets, literal_synsets};
use catlip_pipeline::caption::nouns::NounsOptions;
use catlip_pipeline::caption::{LabelRule, rule};
use catlip_schemas::Synsets;

use crate::Failure;

/// Captions of a slice: a quarter of a millisecond of the fast path.
const SLICE: usize = 512;

/// Passes over a set: 40 × 25,000 captions are half a second of the fast path.
const PASSES: usize = 40;

/// Captions of the literal port and of a tiny run, which need not be all.
const FEW: usize = 2000;

/// One set, labelled in one way.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// Name of the captions.
    pub set: &'static str,
    /// Name of the way.
    pub way: &'static str,
    /// Captions of a pass.
    pub captions: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Seconds of a pass whose slices are all at their fastest.
    pub best_secs: f64,
    /// Seconds of the median pass.
    pub median_secs: f64,
    /// Synsets of a pass.
    pub synsets: usize,
    /// First 8 hex digits of BLAKE3 over all synsets, captions kept apart.
    pub hash: String,
}

/// Captions of one kind.
pub struct Set {
    /// Their name.
    pub name: &'static str,
    /// The captions.
    pub captions: Vec<String>,
}

/// The sets that are here, the shared ones first.
///
/// # Errors
///
/// A dump that is no JSON or has no captions.
pub fn sets() -> Result<Vec<Set>, Failure> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/labels");
    let mut sets = Vec::new();
    for (name, file) in [("COCO", "corenet-coco.jsonl.zst"), ("web", "corenet-laion.jsonl.zst")] {
        let Ok(file) = std::fs::File::open(shared.join(file)) else { continue };
        let mut text = String::new();
        zstd::Decoder::new(file)?.read_to_string(&mut text)?;
        sets.push(Set { name, captions: captions_of(&text)? });
    }
    let golden = include_str!("../../../pipeline/tests/data/corenet-golden.jsonl");
    sets.push(Set { name: "golden", captions: captions_of(golden)? });
    Ok(sets)
}

fn captions_of(lines: &str) -> Result<Vec<String>, Failure> {
    let caption = |line: &str| -> Result<String, Failure> {
        let row: serde_json::Value = serde_json::from_str(line)?;
        Ok(row["caption"].as_str().ok_or("a line without a caption")?.to_owned())
    };
    lines.lines().map(caption).collect()
}

/// Labels every set in every way; the tiny run only a few captions once.
///
/// # Errors
///
/// See [`sets`]; a rule that is not there.
pub fn run(tiny: bool) -> Result<Vec<Labelled>, Failure> {
    let default = NounsOptions::default();
    let (corenet, nouns) = (rule("corenet", &default)?, rule("nouns", &default)?);
    let passes = if tiny { 1 } else { PASSES };
    let mut all = Vec::new();
    for Set { name, mut captions } in sets()? {
        captions.truncate(if tiny { FEW } else { usize::MAX });
        let few = &captions[..captions.len().min(FEW)];
        all.push(label(name, "corenet", &captions, passes, |c| corenet.synsets(c)));
        all.push(label(name, "nouns", &captions, passes, |c| nouns.synsets(c)));
        all.push(label(name, "corenet, literal", few, passes.div_ceil(4), literal_synsets));
    }
    Ok(all)
}

/// Labels `captions` in `passes` passes.
fn label(
    set: &'static str,
    way: &'static str,
    captions: &[String],
    passes: usize,
    synsets: impl Fn(&str) -> Synsets,
) -> Labelled {
    let mut hasher = blake3::Hasher::new();
    let mut num_synsets = 0;
    // The pass that is hashed also builds what is built at first use.
    for caption in captions {
        let Synsets(found) = synsets(caption);
        num_synsets += found.len();
        for synset in found {
            hasher.update(&synset.0.to_le_bytes());
        }
        hasher.update(&(-1_i32).to_le_bytes());
    }
    let mut best = vec![f64::INFINITY; captions.len().div_ceil(SLICE)];
    let mut totals = Vec::with_capacity(passes);
    for _ in 0..passes {
        let mut total = 0.0;
        for (slice, best) in captions.chunks(SLICE).zip(&mut best) {
            let start = Instant::now();
            slice.iter().for_each(|caption| drop(black_box(synsets(black_box(caption)))));
            let secs = start.elapsed().as_secs_f64();
            *best = best.min(secs);
            total += secs;
        }
        totals.push(total);
    }
    totals.sort_by(f64::total_cmp);
    Labelled {
        set,
        way,
        captions: captions.len(),
        bytes: captions.iter().map(String::len).sum(),
        best_secs: best.iter().sum(),
        median_secs: totals[totals.len() / 2],
        synsets: num_synsets,
        hash: hasher.finalize().to_hex()[..8].to_owned(),
    }
}

/// Captions a second of `threads` threads, each with the whole set, in their fastest pass.
#[must_use]
pub fn rate_of_threads(rule: &dyn LabelRule, set: &Set, threads: usize, passes: usize) -> f64 {
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for caption in &set.captions {
                        drop(black_box(rule.synsets(black_box(caption))));
                    }
                });
            }
        });
        start.elapsed().as_secs_f64()
    };
    let best = (0..passes).map(|_| pass()).fold(f64::INFINITY, f64::min);
    (threads * set.captions.len()) as f64 / best
}

/// How many captions the fast path leaves to the literal port, by reason.
#[must_use]
pub fn slow_captions(set: &Set) -> BTreeMap<String, usize> {
    let mut slow = BTreeMap::new();
    for reason in set.captions.iter().filter_map(|caption| fast_synsets(caption).err()) {
        *slow.entry(reason.to_string()).or_default() += 1;
    }
    slow
}

/// Writes all figures for a person.
///
/// # Errors
///
/// See [`run`]; a closed output.
pub fn report(tiny: bool, mut out: impl std::io::Write) -> Result<(), Failure> {
    writeln!(
        out,
        "{:<7} {:<17} {:>8} {:>6} {:>12} {:>8} {:>12} {:>8}   hash",
        "set", "rule, one core", "captions", "MB", "captions/s", "MB/s", "median pass", "synsets"
    )?;
    for l in run(tiny)? {
        let rate = |amount: usize, secs: f64| amount as f64 / secs.max(1e-9);
        writeln!(
            out,
            "{:<7} {:<17} {:>8} {:>6.2} {:>12.0} {:>8.1} {:>12.0} {:>8}   {}",
            l.set,
            l.way,
            l.captions,
            l.bytes as f64 / 1e6,
            rate(l.captions, l.best_secs),
            rate(l.bytes, l.best_secs) / 1e6,
            rate(l.captions, l.median_secs),
            l.synsets,
            l.hash
        )?;
    }
    let sets = sets()?;
    if sets.len() == 1 {
        writeln!(out, "COCO and web captions skipped: no ../shared")?;
    }
    for set in &sets {
        let slow = slow_captions(set);
        let share = slow.values().sum::<usize>() as f64 * 100.0 / set.captions.len() as f64;
        writeln!(out, "{}: {share:.2} % of the captions took the slow path: {slow:?}", set.name)?;
    }
    if !tiny && let Some(set) = sets.first() {
        let corenet = rule("corenet", &NounsOptions::default())?;
        let rate = |threads| rate_of_threads(corenet.as_ref(), set, threads, PASSES);
        let (one, two) = (rate(1), rate(2));
        let times = two / one;
        writeln!(out, "{}: {two:.0} captions/s on 2 threads, {times:.2} × one", set.name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_give_the_same_synsets_and_a_second_run_too() -> Result<(), Failure> {
        let all = run(true)?;
        for ways in all.chunks(3) {
            let [fast, nouns, literal] = ways else { return Err("a way is missing".into()) };
            assert_eq!((fast.synsets, &fast.hash), (literal.synsets, &literal.hash));
            assert!(fast.synsets > 500 && nouns.synsets > 500, "{}", fast.set);
        }
        let hashes = |all: &[Labelled]| all.iter().map(|l| l.hash.clone()).collect::<Vec<_>>();
        assert_eq!(hashes(&all), hashes(&run(true)?));
        Ok(())
    }
}
