//! What people read: errors, tables, summaries. Text out, nothing printed here.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use catlip_schemas::Vocab;

use crate::caption::wordnet::WordNet;
use crate::metrics::PrepMetrics;
use crate::prep::coverage::Covered;
use crate::prep::run::PrepSummary;

/// An error with its causes and the hint: `error: …`, `  caused by: …`, `hint: …`.
pub fn error_text(error: &dyn Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = writeln!(text, "  caused by: {inner}");
        cause = inner.source();
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}

/// The summary of a job, for standard output.
pub fn summary_text(summary: &PrepSummary, output: &Path) -> String {
    let totals = &summary.totals;
    let mut text = String::new();
    if summary.parts_made == 0 {
        let _ = writeln!(text, "nothing to do: all {} parts were there", summary.parts);
    }
    let _ = writeln!(
        text,
        "{}: snapshot {}, {} rows from {} samples in {} parts, {} captions, {} synsets",
        output.display(),
        summary.snapshot,
        totals.rows,
        totals.samples,
        summary.parts,
        totals.captions,
        totals.synsets
    );
    for (reason, count) in &totals.rejects {
        let _ = writeln!(text, "    rejected: {count} × {reason} (see rejects/)");
    }
    text
}

/// The stages with their busy time, and which one was the bottleneck.
pub fn stage_table(metrics: &PrepMetrics, wall_secs: f64) -> String {
    let mut text =
        format!("{:<20} {:>10} {:>12} {:>14}\n", "stage", "items", "busy s", "items/s busy");
    let mut slowest = ("", 0.0);
    for (name, meter) in metrics.stages() {
        let busy = meter.busy().as_secs_f64();
        if busy > slowest.1 {
            slowest = (name, busy);
        }
        let rate = meter.items() as f64 / busy.max(1e-9);
        let _ = writeln!(text, "{name:<20} {:>10} {busy:>12.2} {rate:>14.0}", meter.items());
    }
    let rate = metrics.samples.get() as f64 / wall_secs.max(1e-9);
    let _ = writeln!(
        text,
        "{} samples in {wall_secs:.1} s, {rate:.0} a second; most time went into: {}",
        metrics.samples.get(),
        if slowest.0.is_empty() { "nothing" } else { slowest.0 }
    );
    text
}

/// The job's own log as JSON: counts and times, which no file of a data set holds.
pub fn prep_log(metrics: &PrepMetrics, threads: usize, wall_secs: f64) -> String {
    let stages: Vec<_> = metrics
        .stages()
        .iter()
        .map(|(name, meter)| {
            serde_json::json!({
                "stage": name,
                "items": meter.items(),
                "busy_secs": meter.busy().as_secs_f64(),
            })
        })
        .collect();
    let log = serde_json::json!({
        "program": "catlip-prep run",
        "wall_secs": wall_secs,
        "threads": threads,
        "samples": metrics.samples.get(),
        "rows": metrics.rows.get(),
        "rejects": metrics.rejects.get(),
        "bytes_in": metrics.bytes_in.get(),
        "bytes_out": metrics.bytes_out.get(),
        "stages": stages,
    });
    format!("{log:#}\n")
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
    use crate::error::PrepError;
    use crate::source::SourceError;

    #[test]
    fn an_error_reads_from_what_to_why_to_what_to_do() {
        let error = PrepError::from(SourceError::NoMatch {
            input: "train-{0..9}.tar".into(),
            tried: "train-3.tar".into(),
        });
        assert_eq!(
            error_text(&error, error.hint()),
            "error: the input cannot be read\n  \
             caused by: `train-{0..9}.tar` matches no file (tried train-3.tar)\n\
             hint: check the path; quote globs and braces so that the shell leaves them alone\n"
        );
    }
}
