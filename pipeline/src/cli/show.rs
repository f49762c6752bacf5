//! What people read: errors, tables, summaries. Text out, nothing printed here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use catlip_schemas::Vocab;

use crate::caption::wordnet::WordNet;
use crate::metrics::PrepMetrics;
use crate::prep::add_set::SetSummary;
use crate::prep::coverage::Covered;
use crate::prep::dry_run::DryRun;
use crate::prep::memory::PARTS_AT_ONCE;
use crate::prep::part::BATCH_SAMPLES;
use crate::prep::retry::RetrySummary;
use crate::prep::run::Share;

/// What became of a column set, for standard output.
pub fn set_text(summary: &SetSummary, folder: &Path) -> String {
    let mut text = String::new();
    if summary.parts_made == 0 {
        let _ = writeln!(text, "nothing to do: all {} parts were there", summary.parts_with);
    }
    let _ = writeln!(
        text,
        "{}: snapshot {}, {} for {} of {} parts",
        folder.display(),
        summary.snapshot,
        summary.name,
        summary.parts_with,
        summary.parts
    );
    text
}

/// What became of samples that were tried again, for standard output.
pub fn retry_text(summary: &RetrySummary, output: &Path) -> String {
    let mut text = format!(
        "{}: snapshot {}, {} of {} rejected samples are rows now\n",
        output.display(),
        summary.snapshot,
        summary.recovered,
        summary.tried
    );
    for (reason, count) in &summary.rejects {
        let _ = writeln!(text, "    still rejected: {count} × {reason}");
    }
    if summary.final_rejects > 0 {
        let _ = writeln!(
            text,
            "    {} were lost to damaged shards or repeated keys: replace the shard, then run with \
             --set runtime.redo_changed=true",
            summary.final_rejects
        );
    }
    text
}

/// What a share made, for standard output.
pub fn share_text(share: Share, made: u64, of: u64, output: &Path) -> String {
    format!(
        "share {} of {}: {made} parts made, {} were there\nwhen all shares are done: catlip-prep \
         commit --output {}\n",
        share.index,
        share.of,
        of - made,
        output.display()
    )
}

/// What a job would do, for standard output.
pub fn dry_run_text(found: &DryRun, output: &Path) -> String {
    let mut text = format!(
        "{}: {} parts to make from {:.1} MB of shards, {} are there; nothing was written\n",
        output.display(),
        found.parts_missing,
        found.bytes_missing as f64 / 1e6,
        found.parts_made
    );
    const SHOWN: usize = 5;
    for line in found.first.iter().take(SHOWN) {
        let _ = writeln!(text, "    {line}");
    }
    if found.first.len() > SHOWN {
        let _ = writeln!(text, "    and {} more", found.first.len() - SHOWN);
    }
    if let (Some(trial), Some(secs)) = (&found.trial, found.expected_secs()) {
        let out = found.bytes_missing as f64 * trial.bytes_out as f64 / trial.bytes_in as f64;
        let _ = writeln!(
            text,
            "about {} with {} threads and {:.1} MB of images (tried: {} samples of {}, {:.0} a \
             second)",
            duration_text(secs),
            found.threads,
            out / 1e6,
            trial.samples,
            trial.shard,
            trial.samples as f64 / trial.secs.max(1e-9)
        );
    }
    text
}

/// `3 d 4 h`, `2 h 5 min`, `4 min 3 s`, `2.5 s`.
fn duration_text(secs: f64) -> String {
    let whole = secs.round() as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60) {
        (0, 0, 0) => format!("{secs:.1} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", whole % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// The stages with their busy time, how many threads each held on average, and which of them, or of
/// the shards and the disk, was the bottleneck.
pub fn stage_table(metrics: &PrepMetrics, threads: usize, wall_secs: f64) -> String {
    let wall = wall_secs.max(1e-9);
    let available = threads as f64 * wall;
    let mut text = format!(
        "{:<20} {:>10} {:>10} {:>8} {:>14}\n",
        "stage", "items", "busy s", "busy %", "items/s busy"
    );
    let mut slowest = ("nothing", 0.0);
    let mut sum = 0.0;
    for (name, meter) in metrics.stages() {
        let busy = meter.busy().as_secs_f64();
        sum += busy;
        if busy > slowest.1 {
            slowest = (name, busy);
        }
        let rate = meter.items() as f64 / busy.max(1e-9);
        let _ = writeln!(
            text,
            "{name:<20} {:>10} {busy:>10.2} {:>8.1} {rate:>14.0}",
            meter.items(),
            100.0 * busy / available
        );
    }
    let waiting = (available - sum).max(0.0);
    let _ = writeln!(
        text,
        "{:<20} {:>10} {waiting:>10.2} {:>8.1}",
        "waiting and other",
        "",
        100.0 * waiting / available
    );
    let _ = writeln!(
        text,
        "samples in hand: {:.0} on average, at most {}",
        metrics.held.mean(wall),
        PARTS_AT_ONCE * BATCH_SAMPLES
    );
    let _ = writeln!(
        text,
        "{} samples in {wall_secs:.1} s, {:.0} a second, {:.1} MB/s in; {}",
        metrics.samples.get(),
        metrics.samples.get() as f64 / wall,
        metrics.bytes_in.get() as f64 / 1e6 / wall,
        bottleneck(slowest, sum, available)
    );
    text
}

/// One sentence: what limits the job, and what would help.
fn bottleneck((stage, busy): (&str, f64), sum: f64, available: f64) -> String {
    let percent = |part: f64, of: f64| 100.0 * part / of.max(1e-9);
    if sum < 0.5 * available {
        return format!(
            "the threads worked {:.0} % of the time, so reading the shards is the bottleneck: \
             faster storage would help",
            percent(sum, available)
        );
    }
    let remedy = match stage {
        "hash and fsync" => "a faster disk would help",
        "tar to samples" => "faster storage for the shards would help",
        _ => "more cores would help",
    };
    format!("`{stage}` is the bottleneck, {:.0} % of the busy time: {remedy}", percent(busy, sum))
}

/// What a vocabulary covers of a list: counts behind `#`, then a row for each line of the list.
pub fn coverage_text(vocab: &Vocab, covered: &[Covered]) -> String {
    let steps = covered.iter().filter_map(|entry| entry.nearest).map(|near| near.steps);
    let mut by_steps: BTreeMap<u32, usize> = BTreeMap::new();
    steps.for_each(|steps| *by_steps.entry(steps).or_default() += 1);
    let exact = by_steps.get(&0).copied().unwrap_or(0);
    let near = by_steps.values().sum::<usize>() - exact;
    let unknown = covered.iter().filter(|entry| entry.synset.is_none()).count();
    let none = covered.len() - exact - near;
    let mut text = format!(
        "# {} entries against {} labels: {exact} exact, {near} nearest, {none} none ({unknown} of \
         them unknown to WordNet 3.0)\n",
        covered.len(),
        vocab.len()
    );
    for (steps, count) in by_steps {
        let share = 100.0 * count as f64 / covered.len() as f64;
        let _ = writeln!(text, "# similarity 1/{}: {count} entries ({share:.1} %)", steps + 1);
    }
    text.push_str(
        "entry\tsynset\tlemma\tmatch\tsimilarity\tlabel_synset\tlabel_lemma\tlabel\toccurrences\n",
    );
    for entry in covered {
        coverage_row(&mut text, vocab, entry);
    }
    text
}

/// Empty cells stand for what is not there; a tab within an entry is a space.
fn coverage_row(text: &mut String, vocab: &Vocab, covered: &Covered) {
    let wordnet = WordNet::embedded();
    let lemma = covered.synset.and_then(|synset| wordnet.head_lemma(synset)).unwrap_or_default();
    let synset = covered.synset.map(|synset| synset.wnid()).unwrap_or_default();
    let _ = write!(text, "{}\t{synset}\t{lemma}\t", covered.entry.replace('\t', " "));
    let _ = match covered.nearest {
        Some(near) => {
            let row = &vocab.rows()[near.label as usize];
            let how = if near.steps == 0 { "exact" } else { "nearest" };
            writeln!(
                text,
                "{how}\t{:.4}\t{}\t{}\t{}\t{}",
                near.similarity(),
                row.synset,
                row.lemma,
                near.label,
                row.frequency.occurrences
            )
        }
        None => writeln!(text, "none\t\t\t\t\t"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_the_bottleneck() {
        assert_eq!(
            bottleneck(("decode", 6.0), 9.0, 10.0),
            "`decode` is the bottleneck, 67 % of the busy time: more cores would help"
        );
        assert!(
            bottleneck(("hash and fsync", 8.0), 9.0, 10.0).ends_with("a faster disk would help")
        );
        assert!(bottleneck(("decode", 1.0), 2.0, 10.0).contains("worked 20 % of the time"));
    }
}
