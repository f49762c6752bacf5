//! The commands that change a data set: each makes a snapshot and rewrites nothing.

use std::path::PathBuf;

use super::run::stop_flag;
use super::show;
use crate::config::PrepConfig;
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::prep::drop_rows::{drop_rows, read_list};
use crate::prep::relabel::relabel;
use crate::prep::{DataSet, PrepPlan};

/// Arguments of `relabel`.
#[derive(clap::Args)]
pub struct RelabelArgs {
    /// Folder of the data set.
    folder: PathBuf,
    /// Rule that turns captions into synsets.
    #[arg(long)]
    rule: String,
    /// TOML that says what differs from the defaults; only `caption` and `runtime` matter.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
}

/// Arguments of `drop`.
#[derive(clap::Args)]
pub struct DropArgs {
    /// Folder of the data set.
    folder: PathBuf,
    #[command(flatten)]
    list: ListArgs,
    /// Pass over entries that no row has.
    #[arg(long)]
    allow_unknown: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct ListArgs {
    /// Sample ids of 32 hex digits, one a line.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// WebDataset keys, one a line; every row of a key is left out, in whichever shard.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
}

/// New labels from the captions alone.
pub fn run_relabel(args: &RelabelArgs) -> Result<(), PrepError> {
    let mut settings = args.settings.clone();
    settings.push(format!("caption.rule={}", args.rule));
    let plan = PrepPlan::new(PrepConfig::load(args.config.as_deref(), &settings)?)?;
    let data = DataSet::open(&args.folder)?;
    let stop = stop_flag(&args.folder)?;
    let metrics = PrepMetrics::default();
    let start = std::time::Instant::now();
    let summary = relabel(&data, &plan, &metrics, &stop)?;
    print!("{}", show::set_text(&summary, &args.folder));
    if summary.parts_made > 0 {
        let counts = &summary.counts;
        eprintln!(
            "{} rows, {} captions, {} synsets, {:.0} rows a second",
            counts.rows,
            counts.captions,
            counts.synsets,
            metrics.rows.get() as f64 / start.elapsed().as_secs_f64().max(1e-9)
        );
    }
    Ok(())
}

/// Rows that are left out from now on.
pub fn run_drop(args: &DropArgs) -> Result<(), PrepError> {
    let (path, are_ids) = match (&args.list.ids, &args.list.keys) {
        (Some(path), _) => (path, true),
        (None, Some(path)) => (path, false),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let list = read_list(path, are_ids)?;
    let summary = drop_rows(&args.folder, &list, path, args.allow_unknown)?;
    println!(
        "{}: snapshot {}, {} rows dropped ({} were dropped before, {} entries name no row), {} \
         rows left",
        args.folder.display(),
        summary.snapshot,
        summary.dropped,
        summary.dropped_before,
        summary.unknown,
        summary.rows
    );
    Ok(())
}
