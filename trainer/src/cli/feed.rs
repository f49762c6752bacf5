//! `catlip-train feed`: the order of a run, for people to see, diff and trust.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::str::FromStr;

use catlip_pipeline::error::exit;
use catlip_pipeline::feed::trace::{self, RowIds, RowName};
use catlip_pipeline::feed::{DataError, DataPlace, DataSets, Stream, measure};
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::ReadArgs;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::plan;
use crate::report::step_sizes;

/// Last epoch that can be asked for, and most epochs: what a position counts stays below 2^64.
const EPOCHS_MAX: u64 = 1_000_000_000;
/// Last step of an epoch that can be asked for: 2^40 steps of 2^16 images are below 2^64.
const STEPS_MAX: u64 = 1 << 40;
/// Images on which `bench feed` measures the decoder alone.
const IMAGES_ALONE: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct FeedArgs {
    /// Data set made by `catlip-prep run`, or plain shards; several are mixed by `data.weights`
    #[arg(long, value_name = "DIR|URL|SHARDS", required = true)]
    data: Vec<PathBuf>,
    /// Print a line a step with this rank's share: step, px, n, then n sample ids
    #[arg(long, conflicts_with = "whereabouts", required_unless_present = "whereabouts")]
    ids: bool,
    /// Print a line for each time it is read: epoch, step (- if the epoch's end drops it), position
    #[arg(long = "where", id = "whereabouts", value_name = "SAMPLE_ID|PART:ROW")]
    whereabouts: Option<Row>,
    #[command(flatten)]
    read: ReadArgs,
    /// TOML file of settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// One setting; wins over the recipe
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
    /// Seed of the order; as --set train.seed=S
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Images of a step over all ranks; as --set train.batch=N
    #[arg(long, value_name = "GLOBAL")]
    batch: Option<usize>,
    /// Epoch to begin with
    #[arg(long, default_value_t = 0, value_name = "E", value_parser = up_to(EPOCHS_MAX))]
    epoch: u64,
    /// Epochs to print
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = up_to(EPOCHS_MAX))]
    epochs: u64,
    /// Ranks
    #[arg(long, default_value_t = 1, value_name = "W")]
    world_size: u32,
    /// Which rank's share
    #[arg(long, default_value_t = 0, value_name = "R")]
    rank: u32,
    /// Step of the first epoch to begin with
    #[arg(long, default_value_t = 0, value_name = "K", value_parser = up_to(STEPS_MAX))]
    start_step: u64,
}

#[derive(Debug, Args)]
pub(super) struct BenchFeedArgs {
    /// Data set made by `catlip-prep run`, or plain shards; several are mixed by `data.weights`
    #[arg(long, value_name = "DIR|URL|SHARDS", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    /// TOML file of settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// One setting; wins over the recipe
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
    /// Images to feed, at least
    #[arg(long, default_value_t = 8192, value_name = "N")]
    images: u64,
}

/// A number from 0 to `limit`.
fn up_to(limit: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(0..=limit)
}

#[derive(Clone, Copy, Debug)]
struct Row(RowName);

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected 32 hex digits, or PART:ROW such as 000042:17".to_owned();
        let name = match text.split_once(':') {
            Some((part, row)) => {
                let part = part.strip_prefix("part-").unwrap_or(part);
                let part = part.parse().map_err(|_| wrong())?;
                RowName::Row(part, row.parse().map_err(|_| wrong())?)
            }
            None => RowName::Sample(text.parse().map_err(|_| wrong())?),
        };
        Ok(Self(name))
    }
}

/// Opens the data sets that a command names.
fn open(config: &TrainConfig, named: &[PathBuf]) -> Result<DataSets, TrainError> {
    let recipe = config.feed_recipe();
    Ok(DataSets::open(&recipe, &DataPlace::find(&recipe, named, &super::stores())?)?)
}

pub(super) fn run(args: &FeedArgs) -> Result<u8, TrainError> {
    let mut settings = args.read.with(&args.settings);
    settings.extend(args.seed.map(|seed| format!("train.seed={seed}")));
    settings.extend(args.batch.map(|batch| format!("train.batch={batch}")));
    let config = TrainConfig::load(args.recipe.as_deref(), &settings)?;
    let data = open(&config, &args.data)?;
    let stream = data.training_stream(&config.feed_recipe())?;
    let (world_size, rank) = (args.world_size, args.rank);
    if world_size == 0 || world_size > stream.num_lanes() || rank >= world_size {
        return Err(DataError::Ranks { rank, world_size, lanes: stream.num_lanes() }.into());
    }
    let stream = Stream { world_size, rank, ..stream };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = match args.whereabouts {
        Some(Row(name)) => whereabouts(&mut out, args, &data, &stream, name)?,
        None => ids(&mut out, args, &data, &stream)?,
    };
    match written.and_then(|()| out.flush()) {
        // Whoever reads the lines has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit::OK),
        Err(error) => Err(TrainError::io("write to", "standard output".as_ref())(error)),
        Ok(()) => Ok(exit::OK),
    }
}

/// Measures the feed that `fit` would have.
pub(super) fn bench(args: &BenchFeedArgs) -> Result<u8, TrainError> {
    let config = TrainConfig::load(args.recipe.as_deref(), &args.read.with(&args.settings))?;
    let data = open(&config, &args.data)?;
    let feed = plan::feed_alone(&config, &data, args.images)?;
    let report = measure::measure(&feed, IMAGES_ALONE)?;
    super::print(&format!(
        "decoder  {:.0} images/s a thread, without the rest of the feed\n\
         reading  {:.0} MB/s, one thread alone ({:.0} images/s)\n\
         feed     {:.0} images/s, {} decoding threads, {} images of {}\n\
         first    {:.3} s to the first whole batch\n\
         memory   {:.1} MB of row groups, {:.1} MB spilled, {:.1} MB of batches\n\
         bad rows {}\n\
         {}",
        report.decode_images_per_sec,
        report.read_bytes_per_sec / 1e6,
        report.read_images_per_sec,
        report.feed_images_per_sec,
        report.decode_threads,
        report.images,
        step_sizes(&feed.stream.sampler),
        report.first_batch_secs,
        report.group_bytes_max as f64 / 1e6,
        report.spilled_bytes as f64 / 1e6,
        feed.batch_bytes() as f64 / 1e6,
        report.bad_rows,
        report.limit(),
    ));
    Ok(exit::OK)
}

fn ids(
    out: &mut impl Write,
    args: &FeedArgs,
    data: &DataSets,
    stream: &Stream,
) -> Result<std::io::Result<()>, TrainError> {
    let mut ids = RowIds::new(data.sources());
    for epoch in args.epoch..args.epoch + args.epochs {
        let first = if epoch == args.epoch { args.start_step } else { 0 };
        for step in trace::steps(stream, epoch, first) {
            let mut line = format!("{} {} {}", step.step, step.size.side_px, step.rows.len());
            for row in step.rows {
                line.push(' ');
                line.push_str(&ids.id(stream, row)?.to_string());
            }
            if let Err(error) = writeln!(out, "{line}") {
                return Ok(Err(error));
            }
        }
    }
    Ok(Ok(()))
}

fn whereabouts(
    out: &mut impl Write,
    args: &FeedArgs,
    data: &DataSets,
    stream: &Stream,
    name: RowName,
) -> Result<std::io::Result<()>, TrainError> {
    let rows = trace::find(data.sources(), stream, name)?;
    if rows.is_empty() {
        return Err(TrainError::NoRow { path: args.data[0].clone() });
    }
    for epoch in args.epoch..args.epoch + args.epochs {
        for standing in rows.iter().flat_map(|row| trace::standings(stream, epoch, *row)) {
            let step = standing.step.map_or_else(|| "-".to_owned(), |step| step.to_string());
            if let Err(error) = writeln!(out, "{epoch} {step} {}", standing.position) {
                return Ok(Err(error));
            }
        }
    }
    Ok(Ok(()))
}
