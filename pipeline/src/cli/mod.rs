//! The command line of `catlip-prep`.
//!
//! Flags are for paths, `--set` and verbosity; every setting is a config key. Results go to
//! standard output, progress and errors to standard error.

mod change;
mod inspect;
mod labels;
mod progress;
mod run;
pub mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use catlip_schemas::{Frequencies, VocabCut};
use clap::{Parser, Subcommand, ValueEnum};

use crate::demo::{DemoConfig, write_demo};
use crate::error::{PrepError, exit};
use crate::image::simd::jpeg_simd;
use crate::prep::{DataSet, duplicates, verify, vocab};

/// Prepares image-text shards for pre-training as classification.
#[derive(Parser)]
#[command(name = "catlip-prep", disable_version_flag = true, arg_required_else_help = true)]
struct Args {
    /// Print the version and whether JPEG uses SIMD.
    #[arg(long, short = 'V')]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Shards in, a data set out; started again it goes on where it stopped.
    Run(run::RunArgs),
    /// Join what `run --jobs` made into a snapshot.
    Commit(run::CommitArgs),
    /// Try rejected samples again and append those that are rows now.
    Retry(run::RetryArgs),
    /// Label the captions of a data set by another rule, beside the labels that it has.
    Relabel(change::RelabelArgs),
    /// Join a table of scores, recaptions or the like as a column set.
    AddColumn(change::AddColumnArgs),
    /// Leave rows out from now on; older snapshots keep them.
    Drop(change::DropArgs),
    /// Write a new data set with the same rows in a random order.
    Reshuffle(change::ReshuffleArgs),
    /// Captions in (lines, or JSON lines with a `caption`), their synsets out as JSON lines.
    Labels(LabelsArgs),
    /// Count the synsets of data sets and write a vocabulary.
    Vocab(VocabArgs),
    /// Draw the scenes of the demo as WebDataset shards.
    DemoData(DemoDataArgs),
    /// Read a data set again and compare it with its manifest.
    Verify(VerifyArgs),
    /// Count what a data set holds: snapshots, labels, sizes; --html draws a page of samples.
    Inspect(inspect::InspectArgs),
    /// Print the ids of all rows whose image an earlier row has, byte by byte, across parts.
    Duplicates {
        /// Folder of the data set.
        folder: PathBuf,
    },
    /// Print prep.default.toml: every setting, its default, unit, range and meaning.
    Config,
}

#[derive(clap::Args)]
struct LabelsArgs {
    /// Rule that turns captions into synsets.
    #[arg(long, default_value = "corenet")]
    rule: String,
    /// One setting of the rule, such as nouns.phrases=false.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
    /// File of captions, or - for standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// How synsets are printed: n2084071 or n02084071.
    #[arg(long, value_enum, default_value = "corenet")]
    keys: Keys,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Keys {
    /// As CatLIP's vocabulary has them, not padded.
    Corenet,
    /// As ImageNet has them, eight digits.
    Wnid,
}

#[derive(clap::Args)]
struct VocabArgs {
    /// Data sets.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    input: Vec<PathBuf>,
    /// Which labels, such as corenet-1; needed where a data set has several.
    #[arg(long, default_value = "", value_name = "RULE")]
    labels: String,
    /// Which snapshot; the newest if it is left out.
    #[arg(long, value_name = "N")]
    snapshot: Option<u64>,
    /// The vocabulary, a Parquet file.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Least number of occurrences of a synset.
    #[arg(long, default_value_t = 1)]
    min_count: u64,
    /// Keep only so many, the most frequent.
    #[arg(long)]
    top_k: Option<usize>,
    /// Cut the size down to a multiple of this.
    #[arg(long, default_value_t = 1)]
    multiple_of: usize,
}

#[derive(clap::Args)]
struct DemoDataArgs {
    /// Folder for the shards.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Scenes for training.
    #[arg(long)]
    scenes: Option<usize>,
    /// Held-out scenes, drawn from another seed.
    #[arg(long)]
    heldout: Option<usize>,
    /// Seed of the training scenes.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(clap::Args)]
struct VerifyArgs {
    /// Folder of the data set.
    folder: PathBuf,
    /// Which snapshot; the newest if it is left out.
    #[arg(long, value_name = "N")]
    snapshot: Option<u64>,
    /// Remove files that no snapshot names and that are older than a day.
    #[arg(long)]
    clean: bool,
}

/// Runs the program; the only place that prints an error.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.version {
        println!("{}", version_line());
        return ExitCode::from(exit::OK);
    }
    let result = match args.command {
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Commit(args)) => run::commit(&args),
        Some(Command::Retry(args)) => run::run_retry(&args),
        Some(Command::Relabel(args)) => change::run_relabel(&args),
        Some(Command::AddColumn(args)) => change::run_add_column(&args),
        Some(Command::Drop(args)) => change::run_drop(&args),
        Some(Command::Reshuffle(args)) => change::run_reshuffle(&args),
        Some(Command::Labels(args)) => {
            labels::run(&args.rule, &args.settings, &args.input, args.keys == Keys::Wnid)
        }
        Some(Command::Vocab(args)) => make_vocab(&args),
        Some(Command::DemoData(args)) => demo_data(&args),
        Some(Command::Verify(args)) => verify_folder(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Duplicates { folder }) => list_duplicates(&folder),
        Some(Command::Config) => {
            print!("{}", crate::config::DEFAULT_TOML);
            Ok(())
        }
        None => return ExitCode::from(exit::USAGE),
    };
    match result {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            eprint!("{}", show::error_text(&error, error.hint()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn version_line() -> String {
    let simd = if jpeg_simd() { "with SIMD" } else { "WITHOUT SIMD (slow)" };
    format!("catlip-prep {}, JPEG {simd}", env!("CARGO_PKG_VERSION"))
}

fn make_vocab(args: &VocabArgs) -> Result<(), PrepError> {
    let mut all = Frequencies::default();
    let mut rows = 0;
    let mut rule = None;
    for folder in &args.input {
        let data = DataSet::open_at(folder, args.snapshot)?.with_labels(&args.labels)?;
        let set = data.synsets_set()?;
        if *rule.get_or_insert_with(|| set.clone()) != set {
            return Err(PrepError::NoDataSet {
                path: folder.clone(),
                message: format!("its labels are {}, those of the others are not", set.name()),
            });
        }
        let (frequencies, counted) = vocab::count(&data, |_| true)?;
        all.merge(&frequencies);
        rows += counted;
    }
    let cut =
        VocabCut { min_count: args.min_count, top_k: args.top_k, multiple_of: args.multiple_of };
    let made = vocab::from_frequencies(&all, &cut)
        .map_err(|source| PrepError::Schema { path: args.output.clone(), source })?;
    vocab::write(&args.output, &made)?;
    println!(
        "{} of {} synsets from {rows} rows, the rarest kept occurs {} times: {}",
        made.len(),
        all.len(),
        made.rows().last().map_or(0, |row| row.frequency.occurrences),
        args.output.display()
    );
    Ok(())
}

fn demo_data(args: &DemoDataArgs) -> Result<(), PrepError> {
    let mut config = DemoConfig::default();
    config.scenes_train = args.scenes.unwrap_or(config.scenes_train);
    config.scenes_heldout = args.heldout.unwrap_or(config.scenes_heldout);
    config.seed = args.seed.unwrap_or(config.seed);
    let summary = write_demo(&args.output, &config)?;
    println!(
        "{} scenes in {} training and {} held-out shards of {} bytes: {}",
        summary.scenes,
        summary.train.len(),
        summary.heldout.len(),
        summary.bytes,
        args.output.display()
    );
    Ok(())
}

fn verify_folder(args: &VerifyArgs) -> Result<(), PrepError> {
    let summary = verify::verify(&args.folder, args.snapshot, args.clean)?;
    println!(
        "snapshot {}: {} rows in {} files of {} bytes are as the manifest says",
        summary.snapshot, summary.rows, summary.files, summary.bytes
    );
    if !summary.rubbish.is_empty() {
        println!("{} files belong to no snapshot:", summary.rubbish.len());
        for path in summary.rubbish.iter().take(20) {
            println!("    {}", path.display());
        }
        match args.clean {
            true => println!("{} of them were older than a day and are removed", summary.removed),
            false => println!("--clean removes those that are older than a day"),
        }
    }
    Ok(())
}

fn list_duplicates(folder: &std::path::Path) -> Result<(), PrepError> {
    for id in duplicates::duplicates(&DataSet::open(folder)?)? {
        println!("{id}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
