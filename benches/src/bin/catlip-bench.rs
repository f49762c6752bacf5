//! Measures each stage; `--tiny` in the tests, so that it cannot rot. `labels` measures the label
//! rules instead, `labels --options` also with each option of `nouns` off.

use std::path::Path;

use catlip_benches::Failure;
use catlip_benches::labels::verdicts::{PassAgreement, agreement_of_passes};
use catlip_benches::labels::{Shared, Worth, dump_names, measure};
use catlip_pipeline::caption::nouns::NounsOptions;
use catlip_pipeline::caption::rule;

/// Where captions and verdicts lie, from the root of the repository.
const SHARED: &str = "../shared";

fn main() -> Result<(), Failure> {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    match has("labels") {
        true => bench_labels(has("--options")),
        false => bench_stages(has("--tiny")),
    }
}

fn bench_stages(tiny: bool) -> Result<(), Failure> {
    let scenes = if tiny { 64 } else { 6000 };
    let folder = tempfile::tempdir()?;
    println!("{:<38} {:>12} {:>9} {:>16}   hash", "stage", "items", "s", "items/s");
    for m in catlip_benches::run(folder.path(), scenes)? {
        let rate = m.items as f64 / m.secs.max(1e-9);
        println!(
            "{:<38} {:>12} {:>9.3} {rate:>16.0}   {} ({})",
            m.stage, m.items, m.secs, m.hash, m.unit
        );
    }
    println!();
    catlip_benches::labels::speed::report(tiny, std::io::stdout())
}

fn bench_labels(with_options: bool) -> Result<(), Failure> {
    let shared = Shared::open(Path::new(SHARED))?;
    if shared.is_none() {
        println!("skipped: no {SHARED}; only ImageNet's classes are counted");
    }
    let default = NounsOptions::default();
    let mut rules = vec![rule("corenet", &default)?, rule("nouns", &default)?];
    if with_options {
        for (name, _) in default.by_name() {
            rules.push(rule("nouns", &default.without(name))?);
        }
    }
    for rule in rules {
        print_worth(&measure(rule.as_ref(), shared.as_ref()));
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let PassAgreement { letter, side, kappa } = agreement_of_passes(one, other);
        println!(
            "passes {} and {} over the unseen captions: same letter {letter:.3}, both right or \
             both wrong {side:.3}, κ {kappa:.3}",
            one + 1,
            other + 1
        );
    }
    Ok(())
}

fn print_worth(worth: &Worth) {
    println!("{}: ImageNet-1k classes {}", worth.rule, worth.reach);
    let Some(found) = &worth.on_captions else { return };
    let sets = [
        ("judged", found.judged),
        ("unseen, pass 1", found.unseen[0]),
        ("unseen, pass 2", found.unseen[1]),
        ("unseen, pass 3", found.unseen[2]),
    ];
    for (set, share) in sets {
        println!(
            "  {set}: {} labels, {} without a verdict, right {:.3}, as a word {:.3}",
            share.labels,
            share.labels - share.judged,
            share.right(),
            share.right_as_word()
        );
    }
    println!("  agreement {:.4} at {:.3} bits", found.agreement.kappa, found.agreement.bits);
    for (at, name) in dump_names().into_iter().enumerate() {
        println!(
            "  {name}: {:.3} labels a caption, hash of all labels {}",
            found.labels_per_caption[at], found.hash
        );
    }
}
