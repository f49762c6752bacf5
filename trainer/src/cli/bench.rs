//! `catlip-train bench`: the step on random images, for a person or as a line of JSON.

use std::path::PathBuf;
use std::time::Duration;

use catlip_pipeline::error::exit;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{feed, kernel_cache, print, say};
use crate::bench::{self, BenchBudget, BenchReport};
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::plan::{self, OpenDevice};

/// Most seconds that steps are repeated: an hour.
const SECS_MAX: f64 = 3600.0;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: Option<BenchWhat>,
    /// TOML file of settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// One setting; `vocab.top_k` is the number of labels
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
    /// Seconds that steps are repeated, 0 to 3600; at least one step of each size is taken
    #[arg(long, default_value = "10", value_name = "S", value_parser = secs)]
    secs: f64,
    /// Measure whole steps alone and print one line of JSON: the seconds of each step, memory,
    /// operations, the commit of this program
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum BenchWhat {
    /// Measures the feed on your data: what limits it, and what to change
    Feed(feed::BenchFeedArgs),
}

/// A report with what it was measured on.
#[derive(Serialize)]
struct Line<'r> {
    commit: Option<&'r str>,
    devices: &'r str,
    threads: usize,
    labels: usize,
    #[serde(flatten)]
    report: &'r BenchReport,
}

fn secs(text: &str) -> Result<f64, String> {
    let secs = text.parse().ok().filter(|secs| (0.0..=SECS_MAX).contains(secs));
    secs.ok_or_else(|| format!("expected seconds from 0 to {SECS_MAX}"))
}

pub(super) fn run(args: &BenchArgs, commit: Option<&str>) -> Result<u8, TrainError> {
    if let Some(BenchWhat::Feed(args)) = &args.what {
        return feed::bench(args);
    }
    let config = TrainConfig::load(args.recipe.as_deref(), &args.settings)?;
    let device = plan::open_device(&config)?;
    say(&device.report);
    let labels = config.vocab.top_k;
    let budget = BenchBudget { step: Duration::from_secs_f64(args.secs), parts: !args.json };
    let cache = plan::kernel_cache(&config, kernel_cache().as_deref());
    let report = bench::bench(&config, &device, cache.as_deref(), labels, budget)?;
    if args.json {
        let (devices, threads) = (device.report.as_str(), device.num_threads);
        let line = Line { commit, devices, threads, labels, report: &report };
        let text = serde_json::to_string(&line);
        print(&text.unwrap_or_else(|error| unreachable!("numbers and texts are JSON: {error}")));
    } else {
        print(&text(&config, &device, &report));
    }
    Ok(exit::OK)
}

fn text(config: &TrainConfig, device: &OpenDevice, report: &BenchReport) -> String {
    let [width, depth, heads] = config.model_shape();
    let sizes: Vec<_> =
        report.sizes.iter().map(|size| format!("{} of {} px", size.batch, size.side_px)).collect();
    let mut how = vec![format!("{} steps", report.num_steps()), format!("blocks {}", report.form)];
    how.extend(report.attention.iter().chain(&report.kernels).cloned());
    let mut text = format!(
        "model    {width} × {depth} blocks, {heads} heads, {:.1} M parameters, {} labels\n\
         images   {}, {} threads\n\
         step     {:.1} images/s ({})",
        report.num_params as f64 / 1e6,
        config.vocab.top_k,
        sizes.join(", "),
        device.num_threads,
        report.images_per_sec(),
        how.join(", "),
    );
    if let Some(parts) = &report.parts {
        text += &format!(
            "\nforward  {:.1} images/s\nupdate   {:.1} ms",
            parts.forward_images_per_sec,
            1e3 * parts.update_secs
        );
    }
    if let (Some(taken), Some(held)) = (report.peak_bytes, report.peak_held_bytes) {
        let [taken, held] = [taken, held].map(|bytes| bytes as f64 / 1e9);
        text += &format!("\nmemory   {taken:.2} GB, {held:.2} GB held");
    }
    text + &format!(
        "\nstart    {:.2} s to the first step\nloss     {:.6}",
        report.first_step_secs, report.loss
    )
}
