//! The commands that change a data set: each makes a snapshot and rewrites nothing.

use std::path::PathBuf;

use super::run::{stop_flag, stores};
use super::show;
use crate::config::PrepConfig;
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::prep::add_column::{JoinRequest, add_column};
use crate::prep::drop_rows::{drop_rows, read_list};
use crate::prep::relabel::relabel;
use crate::prep::reshuffle::{ReshuffleRequest, reshuffle};
use crate::prep::table::Table;
use crate::prep::{DataSet, PrepPlan};

/// Arguments of `relabel`.
#[derive(clap::Args)]
pub struct RelabelArgs {
    /// The data set: a folder or a URL.
    folder: PathBuf,
    /// Rule that turns captions into synsets.
    #[arg(long)]
    rule: String,
    /// TOML that says what differs from the defaults; only `nouns` and `runtime.threads`
    /// matter.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting of `nouns`, or runtime.threads.
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
}

/// Arguments of `add-column`.
#[derive(clap::Args)]
pub struct AddColumnArgs {
    /// The data set: a folder or a URL.
    folder: PathBuf,
    /// Table with a column sample_id, or key (with source_shard where keys repeat), and the values:
    /// .parquet, .csv or .jsonl.
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
    /// Name of the new column set, a-z, 0-9, - and _; by default that of the file.
    #[arg(long)]
    name: Option<String>,
    /// Pass over keys that no row has.
    #[arg(long)]
    allow_unknown: bool,
}

/// Arguments of `reshuffle`.
#[derive(clap::Args)]
pub struct ReshuffleArgs {
    /// The data set: a folder or a URL.
    folder: PathBuf,
    /// The new data set: a folder or a URL.
    #[arg(long, value_name = "DIR|URL")]
    output: PathBuf,
    /// Which snapshot; the newest if it is left out.
    #[arg(long, value_name = "N")]
    snapshot: Option<u64>,
    /// Seed of the order: the same seed gives the same bytes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Bytes of a part, which is held in memory while it is shuffled.
    #[arg(long, default_value_t = 256 << 20)]
    part_bytes: u64,
    /// Bytes of rows that are held while they are thrown into buckets; changes no byte.
    #[arg(long, default_value_t = 1 << 30)]
    memory_bytes: u64,
    /// Folder for buckets as large as the data set; by default below the output, or that of
    /// temporary files where the output is remote. It is removed.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Arguments of `drop`.
#[derive(clap::Args)]
pub struct DropArgs {
    /// The data set: a folder or a URL.
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
    let read = &["nouns.", "runtime.threads"];
    let mut config = PrepConfig::load_for("relabel", read, args.config.as_deref(), &args.settings)?;
    config.caption.rule.clone_from(&args.rule);
    let plan = PrepPlan::new(config)?;
    let data = DataSet::open(&stores().folder(&args.folder)?)?;
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

/// Values from a table, beside the columns that are there.
pub fn run_add_column(args: &AddColumnArgs) -> Result<(), PrepError> {
    let data = DataSet::open(&stores().folder(&args.folder)?)?;
    let table = Table::read(&args.table)?;
    let stem = || args.table.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = args.name.clone().or_else(stem).unwrap_or_default();
    let request = JoinRequest {
        name: &name,
        path: &args.table,
        table: &table,
        allow_unknown: args.allow_unknown,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let stop = stop_flag(&args.folder)?;
    let summary = add_column(&data, &request, &PrepMetrics::default(), &stop)?;
    print!("{}", show::set_text(&summary.set, &args.folder));
    println!(
        "{} rows have a value, {} have none, {} keys of the table name no row",
        summary.matched, summary.unmatched, summary.unknown
    );
    Ok(())
}

/// The same rows in a random order, as a new data set.
pub fn run_reshuffle(args: &ReshuffleArgs) -> Result<(), PrepError> {
    let stores = stores();
    let data = DataSet::open_at(&stores.folder(&args.folder)?, args.snapshot)?;
    let output = stores.folder(&args.output)?;
    let beside = || if output.is_local() { args.output.clone() } else { std::env::temp_dir() };
    let scratch = args.scratch.clone().unwrap_or_else(beside);
    // A folder of its own, since it is removed; jobs for several outputs may share its parent.
    let tag = blake3::hash(output.place().as_os_str().as_encoded_bytes()).to_hex();
    let name = match output.is_local() {
        true => ".catlip-buckets".to_owned(),
        false => format!(".catlip-buckets-{}", &tag[..16]),
    };
    let request = ReshuffleRequest {
        output,
        seed: args.seed,
        part_bytes: args.part_bytes,
        memory_bytes: args.memory_bytes,
        scratch: scratch.join(name),
    };
    let stop = stop_flag(&args.output)?;
    let summary = reshuffle(&data, &request, &stop)?;
    if summary.parts_made == 0 {
        println!("nothing to do: all {} parts were there", summary.parts);
    }
    println!(
        "{}: snapshot {}, {} rows in {} parts",
        args.output.display(),
        summary.snapshot,
        summary.rows,
        summary.parts
    );
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
    let summary = drop_rows(&stores().folder(&args.folder)?, &list, path, args.allow_unknown)?;
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
