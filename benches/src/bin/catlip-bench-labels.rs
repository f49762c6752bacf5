//! `catlip-bench-labels FILE RULE THREADS`: the label rule on all cores, one pass when asked.
//!
//! In: a caption a line in FILE; then, on standard input, a line for each pass that is wanted. Out:
//! for each its seconds, and how many synsets it found. `python/benches/labels.py` asks for a pass
//! between two of its own, so that both meet the same noise of the machine.

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
        line?;
        let start = Instant::now();
        // As a program would keep them.
        let all: Vec<Synsets> =
            pool.install(|| captions.par_iter().map(|caption| rule.synsets(caption)).collect());
        let secs = start.elapsed().as_secs_f64();
        println!("{secs} {}", all.iter().map(|found| found.0.len()).sum::<usize>());
    }
    Ok(())
}
