//! `catlip-bench-labels FILE RULE THREADS`: the label rule on all cores, one pass when asked.
//!
//! In: a caption a line in FILE; then, on standard input, a line for each pass that is wanted:
//! `synsets`, or `keys` for their texts. Out: for each its seconds, and how many it found.
//! `python/benches/labels.py` asks for a pass between two of its own, so that both meet the same
//! noise of the machine.

use std::io::BufRead;
use std::time::Instant;

use catlip_benches::Failure;
use catlip_pipeline::caption::nouns::NounsOptions;
use catlip_pipeline::caption::rule;
use catlip_schemas::Synsets;
use rayon::prelude::*;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, name, threads] = &words[..] else {
        return Err("expected FILE RULE THREADS".into());
    };
    let text = std::fs::read_to_string(file)?;
    let captions: Vec<&str> = text.lines().collect();
    let rule = rule(name, &NounsOptions::default())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build()?;
    for line in std::io::stdin().lock().lines() {
        // What is made is kept, as a program would keep it.
        let (secs, num_found) = match line?.as_str() {
            "synsets" => timed(|| -> Vec<_> {
                let synsets = captions.par_iter().map(|caption| rule.synsets(caption).0);
                pool.install(|| synsets.collect())
            }),
            "keys" => timed(|| -> Vec<_> {
                let keys = captions.par_iter().map(|caption| keys(rule.synsets(caption)));
                pool.install(|| keys.collect())
            }),
            other => return Err(format!("expected `synsets` or `keys`, found `{other}`").into()),
        };
        println!("{secs} {num_found}");
    }
    Ok(())
}

fn keys(synsets: Synsets) -> Vec<String> {
    synsets.0.into_iter().map(|synset| synset.corenet_key()).collect()
}

/// Seconds until `work` was done, and how many things all its rows have.
fn timed<T>(work: impl FnOnce() -> Vec<Vec<T>>) -> (f64, usize) {
    let start = Instant::now();
    let rows = work();
    (start.elapsed().as_secs_f64(), rows.iter().map(Vec::len).sum())
}
