//! The command line of `catlip-prep`.
//!
//! Flags are for paths, `--set` and verbosity; every setting is a config key. Results go to
//! standard output, progress and errors to standard error.

mod caption_line;
mod explain;
mod labels;
mod lines;
mod print;
mod progress;
mod vocab;
pub mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::{Parser, Subcommand};

use crate::config::PrepConfig;
use crate::demo::{DemoConfig, write_demo};
use crate::error::{PrepError, exit};
use crate::image::simd::jpeg_simd;
use crate::metrics::PrepMetrics;
use crate::prep::{self, PrepPlan, verify};
use crate::source::ShardList;

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
    Run(RunArgs),
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
    /// Print prep.default.toml: every setting, its default, unit, range and meaning.
    Config,
}

#[derive(clap::Args)]
struct RunArgs {
    /// Shards: files, globs, braces such as `train-{00000..00099}.tar`, or @list.txt.
    #[arg(long, required = true, num_args = 1.., value_name = "SHARDS")]
    input: Vec<String>,
    /// Folder of the data set.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// TOML that says what differs from the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
    /// Write what the job did, with times, as one JSON object.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// No progress, only errors.
    #[arg(long, short)]
    quiet: bool,
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
        Some(Command::Run(args)) => run(&args),
        Some(Command::Labels(args)) => labels::run(args),
        Some(Command::Vocab(args)) => vocab::run(&args),
        Some(Command::DemoData(args)) => demo_data(&args),
        Some(Command::Verify(args)) => verify_folder(&args),
        Some(Command::Config) => print::result(crate::config::DEFAULT_TOML),
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

fn run(args: &RunArgs) -> Result<(), PrepError> {
    let config = PrepConfig::load(args.config.as_deref(), &args.settings)?;
    let root = Some(config.source.root.clone()).filter(|root| !root.is_empty()).map(PathBuf::from);
    let shards = ShardList::expand(&args.input, root.as_deref())?;
    let plan = PrepPlan::new(config)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|e| PrepError::io("watch signals for", &args.output, e))?;
    }
    let metrics = PrepMetrics::default();
    let start = Instant::now();
    let watch = progress::Watched { metrics: &metrics, parts: shards.0.len() as u64, start };
    let outcome = progress::show_while(&watch, args.quiet, || {
        prep::run(&shards, &args.output, &plan, &metrics, &stop)
    });
    let secs = start.elapsed().as_secs_f64();
    if let Some(path) = &args.log {
        let text = show::prep_log(&metrics, plan.threads(), secs);
        prep::commit::write_whole(path, text.as_bytes())
            .map_err(|e| PrepError::io("write", path, e))?;
    }
    let summary = outcome?;
    if !args.quiet {
        eprint!("{}", show::stage_table(&metrics, secs));
    }
    print!("{}", show::summary_text(&summary, &args.output));
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
    let summary = verify::verify(&args.folder, args.clean)?;
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
