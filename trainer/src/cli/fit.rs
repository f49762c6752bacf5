//! `catlip-train fit` and `batches`: a run is begun, or gone on with.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use catlip_pipeline::error::exit;
use catlip_pipeline::feed::{DataPlace, Stream};
use catlip_pipeline::prep::Stores;
use clap::Args;

use super::progress::Progress;
use super::{ReadArgs, dry_run, kernel_cache, print, say, stop, stores};
use crate::batches;
use crate::config::TrainConfig;
use crate::dist::{World, rendezvous};
use crate::error::TrainError;
use crate::machine::Machine;
use crate::output;
use crate::plan::{self, FitRequest, TrainPlan};
use crate::report;
use crate::run_folder::RunFolder;
use crate::train;

/// What `fit` and `batches` begin a run with.
#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// Data set to evaluate on; without it, `data.holdout_percent` of the rows are held out
    #[arg(long, value_name = "DIR|URL")]
    val: Option<PathBuf>,
    /// Vocabulary; without it, one is made from the training rows
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// TOML file of settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// One setting; wins over the recipe
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
}

impl RunArgs {
    fn config(&self) -> Result<TrainConfig, TrainError> {
        let settings = self.read.with(&self.settings);
        Ok(TrainConfig::load(self.recipe.as_deref(), &settings)?)
    }

    /// A new run over `data` in `out`, by this process alone.
    fn request(
        &self,
        config: &TrainConfig,
        data: &[PathBuf],
        out: RunFolder,
        stores: &Stores,
    ) -> Result<FitRequest, TrainError> {
        let val = self.val.as_deref().map(|val| stores.folder(val)).transpose()?;
        Ok(FitRequest {
            kernel_cache: kernel_cache(),
            data: DataPlace::find(&config.feed_recipe(), data, stores)?,
            val,
            vocab: self.vocab.clone(),
            out,
            prep_logs: Vec::new(),
            resume: false,
            world: Rc::new(World::alone()),
        })
    }
}

#[derive(Debug, Args)]
#[command(
    override_usage = "catlip-train fit [OPTIONS] --data <DIR|URL|SHARDS> --out <RUN>\n       \
                            catlip-train fit [OPTIONS] --dry-run"
)]
pub(super) struct FitArgs {
    /// Data set made by `catlip-prep run`: a folder, or s3://bucket/folder, gs://…, az://…; or plain
    /// shards such as 'train-{000..099}.tar'. Several are mixed by `data.weights`
    #[arg(long, value_name = "DIR|URL|SHARDS", required_unless_present = "dry_run")]
    data: Vec<PathBuf>,
    /// Folder of the run: new or empty, or with --resume a run; also s3://bucket/folder, gs://…,
    /// az://…
    #[arg(long, value_name = "RUN|URL", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// What `catlip-prep run --log` wrote: its stages then stand in the report too
    #[arg(long = "prep-log", value_name = "FILE")]
    prep_logs: Vec<PathBuf>,
    /// Print parameters, operations, memory and images per epoch; write nothing. --data and --vocab
    /// make the numbers exact
    #[arg(long)]
    dry_run: bool,
    /// Go on with the run in --out, if there is one
    #[arg(long)]
    resume: bool,
}

#[derive(Debug, Args)]
pub(super) struct BatchesArgs {
    /// Data set or shards, as of `fit`
    #[arg(long, value_name = "DIR|URL|SHARDS", required = true)]
    data: Vec<PathBuf>,
    /// Folder to write: new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
    /// Batches to write; 0: those of the whole run
    #[arg(long, default_value_t = 0)]
    steps: u64,
}

pub(super) fn batches(args: &BatchesArgs) -> Result<u8, TrainError> {
    let config = args.run.config()?;
    output::check_on_disk(&args.out)?;
    let out = RunFolder::new(&args.out);
    let request = args.run.request(&config, &args.data, out, &stores())?;
    let plan = plan::plan(config, &request)?;
    let written = batches::write(&plan, args.steps)?;
    say(&format!("{written} batches: {}", plan.run.path().display()));
    Ok(exit::OK)
}

pub(super) fn run(args: &FitArgs, commit: Option<&str>) -> Result<u8, TrainError> {
    // First of all: what comes before the first step may take long.
    let stop = (!args.dry_run).then(stop::flag).unwrap_or_default();
    let config = args.run.config()?;
    if args.dry_run {
        let data = DataPlace::find(&config.feed_recipe(), &args.data, &stores())?;
        print(&dry_run::text(&config, &data, args.run.vocab.as_deref())?);
        return Ok(exit::OK);
    }
    let world = join(&config)?;
    // clap asks for the folder unless it is a dry run.
    let stores = stores();
    let out = RunFolder::find(&args.out.clone().unwrap_or_default(), &stores)?;
    let request = args.run.request(&config, &args.data, out, &stores)?;
    let request = FitRequest {
        prep_logs: args.prep_logs.clone(),
        resume: args.resume,
        world: world.clone(),
        ..request
    };
    let plan = plan::plan(config, &request)?;
    if world.is_first() {
        say(&plan.device_report);
        say(&described(&plan));
        say(&order_text(&plan.feed.stream));
        plan.run.add_machine(&Machine::here(commit, &plan))?;
    }
    let mut progress = Progress::new(&plan);
    let outcome = train::train(&plan, &mut progress, &stop);
    progress.finish();
    let summary = outcome?;
    if !world.is_first() {
        return Ok(exit::OK);
    }
    say(&format!("report: {}", plan.run.report_path().display()));
    match &summary.evaluation {
        Some(evaluation) => super::tell(&evaluation.report.summary),
        None => say("nothing is held out: say --val, or --set data.holdout_percent=5"),
    }
    Ok(exit::OK)
}

/// Joins the other ranks, if the environment says that there are any.
fn join(config: &TrainConfig) -> Result<Rc<World>, TrainError> {
    let Some(at) = rendezvous::read(|name| std::env::var(name).ok())? else {
        return Ok(Rc::new(World::alone()));
    };
    if at.rank == 0 && at.world_size > 1 {
        say(&format!("waiting for {} ranks at {}:{}", at.world_size, at.host, at.port));
    }
    Ok(Rc::new(World::join(&at, Duration::from_secs(config.dist.timeout_secs))?))
}

fn described(plan: &TrainPlan) -> String {
    let (vit, held_out) = (&plan.vit, plan.eval.as_ref().map_or(0, |eval| eval.num_rows));
    format!(
        "model: {} × {} blocks, {} heads; {} synsets; {} training rows, {held_out} held out; \
         {} steps of {}; {} threads",
        vit.width,
        vit.depth,
        vit.num_heads,
        plan.vocab.len(),
        plan.priors.rows,
        plan.schedule.steps,
        report::step_sizes(&plan.feed.stream.sampler),
        plan.num_threads,
    )
}

/// How well the order shuffles, and what that costs.
fn order_text(stream: &Stream) -> String {
    format!(
        "order: {} lanes; {:.3} × the rows are read in an epoch; were the data sorted by class, \
         the counts of a batch would vary {:.1} × as much as drawn independently \
         (feed.window_bytes)",
        stream.num_lanes(),
        stream.rows_read_ratio(0),
        stream.sorted_variance_ratio(),
    )
}
