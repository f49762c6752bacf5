//! The command line of `catlip-prep`.
//!
//! Flags are for paths, `--set` and verbosity; every setting is a config key. Results go to
//! standard output, progress and errors to standard error.

mod caption_line;
mod change;
mod explain;
mod index;
mod inspect;
mod labels;
mod lines;
mod print;
mod progress;
mod run;
mod vocab;
pub mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand};

use crate::demo::{DemoConfig, SCENES_MAX, write_demo};
use crate::error::{PrepError, error_text, exit};
use crate::image::READS_AVIF;
use crate::image::simd::jpeg_simd;
use crate::prep::{DataSet, duplicates, verify};

/// Prepares image-text shards for pre-training as classification.
#[derive(Parser)]
#[command(name = "catlip-prep", disable_version_flag = true, arg_required_else_help = true)]
struct Args {
    /// Print the version, whether JPEG uses SIMD and whether AVIF is read.
    #[arg(long, short = 'V')]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Shards in, a data set out; started again it goes on where it stopped.
    Run(run::RunArgs),
    /// Index plain shards, so that `catlip-train --data SHARDS` reads them as they are.
    Index(index::IndexArgs),
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
    /// Captions in (lines or JSON lines), their synsets out as JSON lines; --explain says why.
    #[command(long_about = labels::ABOUT, after_long_help = labels::NOTES)]
    Labels(labels::LabelsArgs),
    /// Count, merge and cut vocabularies; report what they cover.
    #[command(long_about = vocab::ABOUT, after_long_help = vocab::NOTES)]
    Vocab(vocab::VocabArgs),
    /// Draw the scenes of the demo as WebDataset shards.
    DemoData(DemoDataArgs),
    /// Read a data set again and compare it with its manifest.
    Verify(VerifyArgs),
    /// Count what a data set holds: snapshots, labels, sizes; --html draws a page of samples.
    Inspect(inspect::InspectArgs),
    /// Print the ids of all rows whose image an earlier row has, byte by byte, across parts.
    Duplicates {
        /// The data set: a folder or a URL.
        folder: PathBuf,
    },
    /// Print prep.default.toml: every setting, its default, unit, range and meaning.
    Config,
}

#[derive(clap::Args)]
struct DemoDataArgs {
    /// Folder for the shards.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Scenes for training, 1 to 1000000.
    #[arg(long, value_name = "N",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=SCENES_MAX as u64))]
    scenes: Option<usize>,
    /// Held-out scenes, drawn from another seed; 1 to 1000000.
    #[arg(long, value_name = "N",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=SCENES_MAX as u64))]
    heldout: Option<usize>,
    /// Width and height of a scene in px, 32 to 512; 96 if it is left out.
    #[arg(long, value_name = "PX")]
    side_px: Option<u32>,
    /// Seed of the training scenes.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(clap::Args)]
struct VerifyArgs {
    /// The data set: a folder or a URL.
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
        Some(Command::Index(args)) => index::run(&args),
        Some(Command::Commit(args)) => run::commit(&args),
        Some(Command::Retry(args)) => run::run_retry(&args),
        Some(Command::Relabel(args)) => change::run_relabel(&args),
        Some(Command::AddColumn(args)) => change::run_add_column(&args),
        Some(Command::Drop(args)) => change::run_drop(&args),
        Some(Command::Reshuffle(args)) => change::run_reshuffle(&args),
        Some(Command::Labels(args)) => labels::run(args),
        Some(Command::Vocab(args)) => vocab::run(&args),
        Some(Command::DemoData(args)) => demo_data(&args),
        Some(Command::Verify(args)) => verify_folder(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Duplicates { folder }) => list_duplicates(&folder),
        Some(Command::Config) => print::result(crate::config::DEFAULT_TOML),
        None => return ExitCode::from(exit::USAGE),
    };
    match result {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            eprint!("{}", error_text(&error, error.hint()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn version_line() -> String {
    let simd = if jpeg_simd() { "with SIMD" } else { "WITHOUT SIMD (slow)" };
    let avif = if READS_AVIF { "with AVIF" } else { "without AVIF" };
    format!("catlip-prep {}, JPEG {simd}, {avif}", env!("CARGO_PKG_VERSION"))
}

fn demo_data(args: &DemoDataArgs) -> Result<(), PrepError> {
    let mut config = DemoConfig::default();
    config.scenes_train = args.scenes.unwrap_or(config.scenes_train);
    config.scenes_heldout = args.heldout.unwrap_or(config.scenes_heldout);
    config.side_px = args.side_px.unwrap_or(config.side_px);
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
    let summary = verify::verify(&run::stores().folder(&args.folder)?, args.snapshot, args.clean)?;
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
    for id in duplicates::duplicates(&DataSet::open(&run::stores().folder(folder)?)?)? {
        print::result(&format!("{id}\n"))?;
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
