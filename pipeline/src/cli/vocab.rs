//! `catlip-prep vocab`: counts, merges, reads and writes vocabularies, and says what they cover.
//!
//! In: data sets and files of vocabularies. Out: a vocabulary as Parquet or as the reference's
//! pickle; on standard output one line about it, and the report of what it covers.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use catlip_schemas::vocab::VOCAB_MAX;
use catlip_schemas::{Frequencies, Manifest, Vocab, VocabCut};
use clap::builder::RangedU64ValueParser;

use super::print;
use super::run::stores;
use super::show::coverage_text;
use crate::error::PrepError;
use crate::prep::folder::whole_path;
use crate::prep::{DataSet, coverage, vocab};
use crate::source::byte_order_mark::without_mark;

/// Limit of a list for --cover: 1,000,000 entries of 64 bytes.
const LIST_BYTES_MAX: u64 = 64_000_000;

/// Limit of a weight: with it counts up to 9 · 10^12, 170,000 times those of CatLIP's commonest
/// synset, stay below the 2^63 that the format has room for.
const WEIGHT_MAX: f64 = 1e6;

/// The folder of a data set that holds vocabularies.
const VOCAB_FOLDER: &str = "vocab";

/// What `--help` says before the flags.
pub const ABOUT: &str = "\
Counts the synsets of data sets, merges vocabularies, cuts them to size, and says what they cover.

An input is a data set (a folder or a URL such as s3://bucket/folder), a vocabulary that this
command wrote (Parquet), or the pickled dict that CatLIP released, {\"n5928118\": 52418327, …}.
A pickle is read as data: one that would import or call anything is refused, and nothing in it is
ever run.

One vocabulary file alone keeps its order, because labels are numbered by it. Several inputs are
added up, each times its --weight, and ranked: most occurrences first, then by number of synset.
A vocabulary that was cut lacks the counts of what it dropped: merge before cutting.

The output is Parquet with the columns index, synset, wnid, lemma, occurrences (tokens) and
captions (captions with at least one such token; 0 where the input does not know), or with the
ending .pkl the pickle that the reference loads, which holds occurrences only.";

/// What `--help` says after the flags.
pub const NOTES: &str = "\
--cover reads a list, one entry a line: a synset (n01440764 or n1440764, whatever follows it) or
words (hot dog), which mean their first noun sense. The report says for each whether the vocabulary
has it (exact), which label is nearest, or that WordNet has no such noun (none). Lines that begin
with # are counts; the others are tab-separated. Similarity is NLTK's path_similarity: 1 / (1 +
steps along hypernyms up to a synset that is above both and down again).

Examples:
  catlip-prep vocab --input data/train --output vocab.parquet --top-k 24320 --multiple-of 256
  catlip-prep vocab --input datacomp_1_2B_vocab.pkl --min-count 500 --output vocab.parquet
  catlip-prep vocab --input a.parquet data/b --weight 1 0.5 --output both.pkl
  catlip-prep vocab --input vocab.parquet --cover imagenet_wnids.txt | grep -v '^#' | cut -f 1,4

Exit codes: 0 done, 1 a file cannot be read or written, 2 the command line is wrong, 5 an input is
no vocabulary, 7 a data set or file is damaged, 8 the disk is full.";

/// The command line of `vocab`.
#[derive(clap::Args)]
pub struct VocabArgs {
    /// Data sets and vocabulary files.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR|FILE")]
    input: Vec<PathBuf>,
    /// By how much the counts of each input are multiplied, in the order of the inputs.
    /// From 0 to 1000000.
    #[arg(long, num_args = 1.., value_name = "W", allow_negative_numbers = true,
          value_parser = parse_weight)]
    weight: Vec<f64>,
    /// Which labels of the data sets, such as corenet-1; needed where one has several.
    #[arg(long, default_value = "", value_name = "RULE")]
    labels: String,
    /// Which snapshot of the data sets; the newest if it is left out.
    #[arg(long, value_name = "N")]
    snapshot: Option<u64>,
    /// The vocabulary: .parquet, or .pkl as the reference reads it.
    #[arg(long, value_name = "FILE", required_unless_present = "cover")]
    output: Option<PathBuf>,
    /// Least number of occurrences of a synset.
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_count: u64,
    /// Keep only so many, the most frequent: 1 to 1000000.
    #[arg(long, value_name = "N",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=VOCAB_MAX as u64))]
    top_k: Option<usize>,
    /// Cut the size down to a multiple of this: 1 to 1000000.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=VOCAB_MAX as u64))]
    multiple_of: usize,
    /// Report which lines of this list, synsets or words, the vocabulary has.
    #[arg(long, value_name = "LIST")]
    cover: Option<PathBuf>,
}

/// How a vocabulary is written.
#[derive(Clone, Copy)]
enum Kind {
    Parquet,
    Pickle,
}

/// Makes the vocabulary, writes it, reports.
///
/// # Errors
///
/// [`PrepError`] of the input, the output, or the command line.
pub fn run(args: &VocabArgs) -> Result<(), PrepError> {
    // What can be wrong with the command line is said before anything is counted.
    let weights = weights(args)?;
    let output = args.output.as_deref();
    let kind = output.map(kind).transpose()?;
    output.map_or(Ok(()), check_place)?;
    let list = args.cover.as_deref().map(read_list).transpose()?;
    let cut =
        VocabCut { min_count: args.min_count, top_k: args.top_k, multiple_of: args.multiple_of };
    let (made, summary) = match args.input.as_slice() {
        [file] if !is_data_set(file) && weights == [1.0] => cut_file(file, &cut)?,
        _ => merge(args, &weights, &cut)?,
    };
    if let Some((path, kind)) = output.zip(kind) {
        match kind {
            Kind::Parquet => vocab::write(path, &made)?,
            Kind::Pickle => vocab::write_pickle(path, &made)?,
        }
        let least = made.rows().iter().map(|row| row.frequency.occurrences).min().unwrap_or(0);
        print::result(&format!(
            "{} of {summary}, the rarest kept occurs {least} times: {}\n",
            made.len(),
            path.display()
        ))?;
    }
    match list {
        Some(list) => print::result(&coverage_text(&made, &coverage::cover(&made, &list))),
        None => Ok(()),
    }
}

/// Whether an input is a data set and no file: vocabularies are read from local files only.
fn is_data_set(input: &Path) -> bool {
    input.is_dir() || input.to_str().is_some_and(|text| text.contains("://"))
}

fn weights(args: &VocabArgs) -> Result<Vec<f64>, PrepError> {
    let (inputs, weights) = (args.input.len(), args.weight.len());
    if weights == 0 {
        return Ok(vec![1.0; inputs]);
    }
    if weights != inputs {
        let message = format!("{weights} weights for {inputs} inputs, expected one for each");
        return Err(PrepError::Usage(message));
    }
    Ok(args.weight.clone())
}

fn parse_weight(text: &str) -> Result<f64, String> {
    let weight = text.parse().ok().filter(|weight| (0.0..=WEIGHT_MAX).contains(weight));
    weight.ok_or_else(|| format!("expected a number from 0 to {WEIGHT_MAX}"))
}

/// A vocabulary of nothing trains nothing: flags that leave none of `all` are a mistake.
fn check_not_empty(made: &Vocab, all: &Frequencies, cut: &VocabCut) -> Result<(), PrepError> {
    if !made.is_empty() || all.is_empty() {
        return Ok(());
    }
    let whole = VocabCut { min_count: 0, top_k: None, multiple_of: 1 };
    let ranked = all.ranked(&whole);
    let most = ranked.first().map_or(0, |(_, frequency)| frequency.occurrences);
    let left = ranked.iter().filter(|(_, f)| f.occurrences >= cut.min_count).count();
    let top_k = cut.top_k.map_or_else(String::new, |top_k| format!(", --top-k {top_k}"));
    Err(PrepError::Usage(format!(
        "no label would be left of {} synsets: the commonest occurs {most} times, {left} occur \
         often enough for --min-count {}{top_k}, and the size is cut to a multiple of \
         --multiple-of {}",
        ranked.len(),
        cut.min_count,
        cut.multiple_of
    )))
}

fn kind(output: &Path) -> Result<Kind, PrepError> {
    match output.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => Ok(Kind::Parquet),
        Some("pkl" | "pickle") => Ok(Kind::Pickle),
        _ => Err(PrepError::Usage(format!(
            "{} has no known ending, expected .parquet or .pkl",
            output.display()
        ))),
    }
}

/// A file in the folder of a data set would keep `run` from it, as somebody else's, or be taken for
/// one of its columns; only its folder `vocab` is for this.
fn check_place(output: &Path) -> Result<(), PrepError> {
    let whole = whole_path(output);
    let folders = whole.ancestors().skip(1);
    let set = folders.into_iter().find(|folder| folder.join(Manifest::file(1)).is_file());
    let Some(set) = set.filter(|set| !whole.starts_with(set.join(VOCAB_FOLDER))) else {
        return Ok(());
    };
    Err(PrepError::OutputTaken {
        path: output.into(),
        message: format!(
            "lies in the data set {}, which holds vocabularies in its folder {VOCAB_FOLDER}/ only",
            set.display()
        ),
    })
}

/// The rows of a vocabulary file that `cut` keeps, in their order; and what they were taken from.
fn cut_file(path: &Path, cut: &VocabCut) -> Result<(Vocab, String), PrepError> {
    let whole = vocab::read_any(path)?;
    let mut rows = whole.rows().to_vec();
    cut.apply(&mut rows, |row| row.frequency);
    let made = Vocab::new(rows).map_err(|source| schema(path, source))?;
    let all = Frequencies::from(&whole);
    check_not_empty(&made, &all, cut)?;
    Ok((made, format!("{} synsets of {} occurrences", whole.len(), all.occurrences())))
}

/// The sum of all inputs, ranked and cut; and what it was taken from.
fn merge(args: &VocabArgs, weights: &[f64], cut: &VocabCut) -> Result<(Vocab, String), PrepError> {
    let (inputs, stores) = (&args.input, stores());
    let mut all = Frequencies::default();
    let mut rows = 0;
    let mut rule = None;
    for (path, weight) in inputs.iter().zip(weights) {
        if !is_data_set(path) {
            all.merge(&Frequencies::from(&vocab::read_any(path)?).scaled(*weight));
            continue;
        }
        let data =
            DataSet::open_at(&stores.folder(path)?, args.snapshot)?.with_labels(&args.labels)?;
        let set = data.synsets_set()?;
        if *rule.get_or_insert_with(|| set.clone()) != set {
            return Err(PrepError::NoDataSet {
                path: path.clone(),
                message: format!("its labels are {}, those of the others are not", set.name()),
            });
        }
        let (frequencies, counted) = vocab::count(&data, |_| true)?;
        all.merge(&frequencies.scaled(*weight));
        rows += counted;
    }
    let made = vocab::from_frequencies(&all, cut).map_err(|source| schema(&inputs[0], source))?;
    check_not_empty(&made, &all, cut)?;
    let from = if rows > 0 { format!(" from {rows} rows") } else { String::new() };
    Ok((made, format!("{} synsets{from}", all.len())))
}

fn schema(path: &Path, source: catlip_schemas::SchemaError) -> PrepError {
    PrepError::Schema { path: path.into(), source }
}

/// A list of what should be covered. Bytes that are no UTF-8 make an entry that nobody knows.
fn read_list(path: &Path) -> Result<String, PrepError> {
    let failed = |e| PrepError::io("read", path, e);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LIST_BYTES_MAX {
        return Err(PrepError::TooLong { path: path.into(), limit: LIST_BYTES_MAX });
    }
    Ok(String::from_utf8_lossy(without_mark(&bytes)).into_owned())
}
