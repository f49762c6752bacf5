//! `catlip-prep run` and `catlip-prep commit`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::{progress, show};
use crate::config::PrepConfig;
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::prep::dry_run::dry_run;
use crate::prep::open::Surroundings;
use crate::prep::retry::retry;
use crate::prep::run::{Share, commit_shares, run_share};
use crate::prep::{self, Stores};

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct RunArgs {
    /// Shards: files, globs, braces such as `train-{00000..00099}.tar`, or @list.txt. Shards that
    /// the data set does not have yet are appended.
    #[arg(long, required = true, num_args = 1.., value_name = "SHARDS")]
    input: Vec<String>,
    /// The data set: a folder, or s3://bucket/folder, gs://…, az://….
    #[arg(long, value_name = "DIR|URL")]
    output: PathBuf,
    /// TOML that says what differs from the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
    /// Print how many parts and bytes are to do and how long that will take; write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Make one of n shares of the parts, i from 1 to n (or 0 to n - 1), and commit nothing;
    /// `catlip-prep commit` joins them.
    #[arg(long, value_name = "i/n", value_parser = parse_share)]
    jobs: Option<Share>,
    /// Write what the job did, with times, as one JSON object.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Keep the counters in this file, in Prometheus' text form, while the job runs.
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    /// No progress, only errors.
    #[arg(long, short)]
    quiet: bool,
}

/// Arguments of `retry`.
#[derive(clap::Args)]
pub struct RetryArgs {
    /// The shards of the data set, as `run` was told.
    #[arg(long, required = true, num_args = 1.., value_name = "SHARDS")]
    input: Vec<String>,
    /// The data set: a folder or a URL.
    #[arg(long, value_name = "DIR|URL")]
    output: PathBuf,
    /// Only the samples of these ledgers, files below rejects/; all of them if it is left out.
    #[arg(long, num_args = 0.., value_name = "FILE")]
    ledger: Vec<PathBuf>,
    /// TOML that says what differs from the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as a limit that is higher now.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
}

/// Arguments of `commit`.
#[derive(clap::Args)]
pub struct CommitArgs {
    /// The data set: a folder or a URL.
    #[arg(long, value_name = "DIR|URL")]
    output: PathBuf,
    /// Which config, by the digits in the names of its files; needed where several were begun.
    #[arg(long, value_name = "HEX")]
    config_tag: Option<String>,
    /// Be content with the parts that are whole; the others can be made and committed later.
    #[arg(long)]
    partial: bool,
    /// The setting budget.damaged_shards=N; all others were settled by `run --jobs`.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
}

fn parse_share(text: &str) -> Result<Share, String> {
    let wrong = || "expected i/n, such as 3/8, with i at most n and n at least 1".to_owned();
    let (index, of) = text.split_once('/').ok_or_else(wrong)?;
    let share =
        Share { index: index.parse().map_err(|_| wrong())?, of: of.parse().map_err(|_| wrong())? };
    if share.of == 0 || share.index > share.of {
        return Err(wrong());
    }
    Ok(share)
}

/// A flag that SIGTERM and SIGINT set.
pub fn stop_flag(output: &Path) -> Result<Arc<AtomicBool>, PrepError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|e| PrepError::io("watch signals for", output, e))?;
    }
    Ok(stop)
}

/// What this process knows of where it runs.
fn surroundings() -> Surroundings {
    Surroundings { variables: std::env::vars_os().collect(), temp_dir: std::env::temp_dir() }
}

/// The way to stores for programs that read and change data sets, with the defaults of `source`.
pub fn stores() -> Stores {
    surroundings().stores(&PrepConfig::default().source)
}

/// Shards in, a data set out.
pub fn run(args: &RunArgs) -> Result<(), PrepError> {
    let config = PrepConfig::load(args.config.as_deref(), &args.settings)?;
    let (shards, plan, folder) = surroundings().job(config, &args.input, &args.output)?;
    let output = &args.output;
    if args.dry_run {
        let found = dry_run(&shards, &folder, &plan, args.jobs, &std::env::temp_dir())?;
        print!("{}", show::dry_run_text(&found, output));
        return Ok(());
    }
    let stop = stop_flag(output)?;
    let metrics = PrepMetrics::default();
    let parts = shards.0.iter().len() as u64;
    let start = Instant::now();
    let watch = progress::Watched {
        metrics: &metrics,
        parts: args.jobs.map_or(parts, |share| parts.div_ceil(u64::from(share.of))),
        start,
        threads: plan.threads(),
        metrics_file: args.metrics_file.as_deref(),
    };
    let outcome = progress::show_while(&watch, args.quiet, || match args.jobs {
        None => {
            prep::run(&shards, &folder, &plan, &metrics, &stop).map(|summary| summary.text(output))
        }
        Some(share) => run_share(&shards, &folder, &plan, share, &metrics, &stop)
            .map(|(made, of)| show::share_text(share, made, of, output)),
    });
    let secs = start.elapsed().as_secs_f64();
    if let Some(path) = &args.log {
        let log = metrics.log(plan.threads(), secs);
        let text = serde_json::to_string_pretty(&log)
            .unwrap_or_else(|error| unreachable!("a log has text keys: {error}"));
        prep::commit::write_whole(path, format!("{text}\n").as_bytes())
            .map_err(|e| PrepError::io("write", path, e))?;
    }
    let text = outcome?;
    if !args.quiet && metrics.samples.get() > 0 {
        eprint!("{}", show::stage_table(&metrics, plan.threads(), secs));
    }
    print!("{text}");
    Ok(())
}

/// Tries rejected samples again.
pub fn run_retry(args: &RetryArgs) -> Result<(), PrepError> {
    let config = PrepConfig::load(args.config.as_deref(), &args.settings)?;
    let (shards, plan, folder) = surroundings().job(config, &args.input, &args.output)?;
    let stop = stop_flag(&args.output)?;
    let metrics = PrepMetrics::default();
    let summary = retry(&shards, &folder, &args.ledger, &plan, &metrics, &stop)?;
    print!("{}", show::retry_text(&summary, &args.output));
    Ok(())
}

/// Joins what jobs of `run --jobs` made.
pub fn commit(args: &CommitArgs) -> Result<(), PrepError> {
    let read = &["budget.damaged_shards"];
    let budget = PrepConfig::load_for("commit", read, None, &args.settings)?.budget;
    let summary = commit_shares(
        &stores().folder(&args.output)?,
        args.config_tag.as_deref(),
        args.partial,
        budget.damaged_shards,
    )?;
    print!("{}", summary.text(&args.output));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_counted_from_0_or_from_1() {
        let parts = |text: &str| -> Vec<u32> {
            let share = parse_share(text).unwrap();
            let part = |shard| catlip_schemas::PartName { shard, cut: 0 };
            (0..6).filter(|&shard| share.has(part(shard))).collect()
        };
        assert_eq!(
            (parts("1/3"), parts("2/3"), parts("3/3")),
            (vec![1, 4], vec![2, 5], vec![0, 3])
        );
        assert_eq!(parts("0/3"), parts("3/3"));
        for wrong in ["", "3", "4/3", "1/0", "-1/2", "a/2"] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
    }
}
