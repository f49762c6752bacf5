//! The command line of `catlip-train`: the only file that knows terminal, signals and exit codes.
//!
//! In: arguments. Out: progress on stderr, results on stdout, an exit code of
//! [`catlip_pipeline::error::exit`]. Never: a decision about training.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use catlip_pipeline::error::exit;
use catlip_pipeline::feed::DataPlace;
use catlip_pipeline::prep::Stores;
use catlip_pipeline::source::object::RemoteOptions;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tch::TchError;

use crate::error::TrainError;
use crate::eval::EvalSummary;
use crate::predict::{self, Prediction};
use crate::run_folder::RunFolder;
use crate::trained::TrainedRun;

mod bench;
mod dry_run;
mod exchange;
mod feed;
mod fit;
mod progress;
mod selftest;
mod stop;

/// Synsets that `predict` prints for each image.
const PREDICTED: usize = 5;

/// Trains vision models on prepared image-text data as classification (CatLIP).
#[derive(Debug, Parser)]
#[command(name = "catlip-train", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trains a model; writes checkpoints, log and report.html into the folder of the run
    Fit(fit::FitArgs),
    /// Writes the first weights and the batches of a run, for a program to compare with
    Batches(fit::BatchesArgs),
    /// Evaluates a run on held-out rows
    Eval(EvalArgs),
    /// Prints the likeliest synsets of image files
    Predict(PredictArgs),
    /// Prints what a feed delivers, or where a row stands, without reading a pixel
    Feed(feed::FeedArgs),
    /// Makes a model folder of weights from elsewhere
    Import(exchange::ImportArgs),
    /// Writes a model for timm or Hugging Face
    Export(exchange::ExportArgs),
    /// Computes the logits of images in a file
    Logits(exchange::LogitsArgs),
    /// Measures the training step on random images, or with `feed` the feed on real ones
    Bench(bench::BenchArgs),
    /// Tests this program on the device: a line each, ok, failed or skipped, with its numbers
    Selftest(selftest::SelftestArgs),
}

/// What of a data set is read.
#[derive(Debug, Args)]
struct ReadArgs {
    /// Which labels, such as corenet-1; needed where the data set has several. As --set
    /// data.label_set=NAME
    #[arg(long, value_name = "NAME")]
    labels: Option<String>,
    /// Which snapshot, once for all or once for each --data; the newest if it is left out, but a
    /// run goes on over its own and is evaluated on it. As --set data.snapshots=[N]
    #[arg(long = "snapshot", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    snapshots: Vec<u64>,
}

impl ReadArgs {
    /// The settings of a command, and what these flags mean.
    fn with(&self, settings: &[String]) -> Vec<String> {
        let mut settings = settings.to_vec();
        if let Some(name) = &self.labels {
            settings.push(format!("data.label_set={}", toml::Value::from(name.as_str())));
        }
        if !self.snapshots.is_empty() {
            settings.push(format!("data.snapshots={:?}", self.snapshots));
        }
        settings
    }
}

#[derive(Debug, Args)]
struct EvalArgs {
    /// Folder of the run, or its URL
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// Data set: its rows that the run holds out, or all if it holds out none
    #[arg(long, value_name = "DIR|URL")]
    data: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// The average of the weights, or the weights of the last step
    #[arg(long, value_enum, default_value_t = WeightsChoice::Ema)]
    weights: WeightsChoice,
    /// One setting; wins over the run's own
    #[arg(long = "set", value_name = "section.key=value")]
    settings: Vec<String>,
}

#[derive(Debug, Args)]
struct PredictArgs {
    /// Folder of the run, or its URL
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// The average of the weights, or the weights of the last step
    #[arg(long, value_enum, default_value_t = WeightsChoice::Ema)]
    weights: WeightsChoice,
    /// JPEG, PNG, WebP or GIF files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WeightsChoice {
    Ema,
    Raw,
}

/// Runs the program, which was built from `commit` if that was known.
pub fn run(commit: Option<&str>) -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Fit(args) => fit::run(&args, commit),
        Command::Batches(args) => fit::batches(&args),
        Command::Eval(args) => eval(&args),
        Command::Predict(args) => predict(&args),
        Command::Feed(args) => feed::run(&args),
        Command::Import(args) => exchange::import(&args),
        Command::Export(args) => exchange::export(&args),
        Command::Logits(args) => exchange::logits(&args),
        Command::Bench(args) => bench::run(&args, commit),
        Command::Selftest(args) => selftest::run(&args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&error_text(&error, error.hint()));
            ExitCode::from(error.exit_code())
        }
    }
}

/// The way to stores, by the usual variables of the environment.
fn stores() -> Stores {
    Stores::new(RemoteOptions::new(std::env::vars_os(), std::env::temp_dir()))
}

/// Where `runtime.kernel_cache = "auto"` keeps kernels: a folder of the user's.
fn kernel_cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|f| !f.is_empty()).map(PathBuf::from);
    let caches =
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("catlip").join("kernels"))
}

fn eval(args: &EvalArgs) -> Result<u8, TrainError> {
    let raw = args.weights == WeightsChoice::Raw;
    let stores = stores();
    let run = RunFolder::find(&args.run, &stores)?;
    let run = TrainedRun::open(&run, raw, &args.read.with(&args.settings))?;
    warn_of_damage(&run);
    let data =
        DataPlace::find(&run.config.feed_recipe(), std::slice::from_ref(&args.data), &stores)?;
    let evaluation = run.evaluate(data[0].clone())?;
    tell(&evaluation.report.summary);
    Ok(exit::OK)
}

fn predict(args: &PredictArgs) -> Result<u8, TrainError> {
    let run = RunFolder::find(&args.run, &stores())?;
    let run = TrainedRun::open(&run, args.weights == WeightsChoice::Raw, &[])?;
    warn_of_damage(&run);
    let mut code = exit::OK;
    for path in &args.images {
        match predict::predict(&run, path, PREDICTED) {
            Ok(predictions) => {
                print(&format!("{}\n{}", path.display(), predictions_text(&predictions)));
            }
            Err(error) => {
                say(&error_text(&error, error.hint()));
                code = error.exit_code();
            }
        }
    }
    Ok(code)
}

fn warn_of_damage(run: &TrainedRun) {
    for damage in &run.passed_over {
        say(&format!(
            "warning: checkpoint of step {} is passed over: {}",
            damage.step, damage.message
        ));
    }
}

fn eval_text(summary: &EvalSummary) -> String {
    let mut text = format!(
        "held-out rows {}, synsets {}, of which scored {}\n\
         held-out BCE {:.4} (label-frequency baseline {:.4}, {})\n",
        summary.rows,
        summary.labels,
        summary.labels_scored,
        summary.bce,
        summary.bce_baseline,
        difference_text(summary.bce_improvement_percent),
    );
    for recall in &summary.recall {
        _ = writeln!(
            text,
            "held-out recall@{} {:.3} (label-frequency baseline {:.3})",
            recall.at, recall.model, recall.baseline
        );
    }
    for band in &summary.bands {
        _ = writeln!(
            text,
            "held-out mAP of the {} synsets that {} of the training rows have {:.3} \
             (baseline {:.3})",
            band.labels,
            share_text(band.share_min),
            band.map,
            band.map_baseline
        );
    }
    if let Some(micro) = summary.map_micro {
        _ = writeln!(text, "held-out mAP over all pairs (micro) {micro:.3}");
    }
    match (summary.map, summary.map_baseline) {
        (Some(map), Some(baseline)) => {
            _ = write!(text, "held-out mAP {map:.3} (label-frequency baseline {baseline:.3})");
        }
        _ => text.push_str("held-out mAP: no synset has enough held-out positives"),
    }
    text
}

/// The numbers of an evaluation, and why there may be none to speak of.
fn tell(summary: &EvalSummary) {
    print(&eval_text(summary));
    // The average over all pairs of a row and a label is there as soon as a row has a label.
    if summary.map_micro.is_none() {
        say("warning: no held-out row has a synset of the run's vocabulary: these numbers say \
             nothing about the model\n\
             hint: evaluate on data with labels by the rule that the run was trained with; see \
             --labels");
    }
}

/// How far a number is from the baseline's.
fn difference_text(lower_percent: f64) -> String {
    let side = if lower_percent < 0.0 { "higher" } else { "lower" };
    format!("{:.2} % {side}", lower_percent.abs())
}

fn share_text(share_min: f64) -> String {
    if share_min == 0.0 {
        return "fewer".to_owned();
    }
    format!("≥ {} %", 100.0 * share_min)
}

fn predictions_text(predictions: &[Prediction]) -> String {
    let lines = predictions.iter().map(|prediction| {
        let Prediction { wnid, lemma, probability } = prediction;
        format!("  {probability:.3}  {wnid}  {lemma}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// An error with its causes and what can be done.
fn error_text(error: &dyn Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Of libtorch the first line; what follows are addresses in its own stack.
        let message = inner.to_string();
        let message = match inner.is::<TchError>() {
            true => message.lines().next().unwrap_or_default(),
            false => &message,
        };
        _ = write!(text, "\n  caused by: {message}");
        cause = inner.source();
    }
    if let Some(hint) = hint {
        _ = write!(text, "\nhint: {hint}");
    }
    text
}

/// A line for a person, on stderr. A closed pipe is no reason to stop.
fn say(text: &str) {
    _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A result, on stdout.
fn print(text: &str) {
    _ = writeln!(std::io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;
    use crate::eval::{Band, Recall};
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_whole() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_shows_its_causes_and_a_hint() {
        let config = TrainConfig::load(None, &["train.bach=8".to_owned()]).unwrap_err();
        let error = TrainError::from(config);
        assert_eq!(
            error_text(&error, Some("look")),
            "error: the config is wrong\n  caused by: --set train.bach=8: no setting is called \
             `train.bach`; did you mean `train.batch`?\nhint: look"
        );
        assert_eq!(error.exit_code(), exit::CONFIG);
    }

    #[test]
    fn of_libtorch_one_line_is_shown_and_memory_has_a_hint() {
        let trace = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes\n\
                     Exception raised from alloc_cpu at x.cpp:1\nframe #0: c10::Error";
        let error = TrainError::torch("allocate the weights")(TchError::Torch(trace.to_owned()));
        let text = error_text(&error, error.hint());
        assert_eq!(
            text,
            "error: libtorch failed to allocate the weights\n  caused by: Internal torch error: \
             DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes\n\
             hint: lower `train.batch`, `train.image_px` or the model (`model.size`, \
             `model.width`, `model.depth`), or raise `train.parts`"
        );
        let other = TrainError::torch("copy a batch")(TchError::Torch("no".to_owned()));
        assert_eq!(other.hint(), None);
    }

    #[test]
    fn a_number_above_the_baseline_is_called_higher() {
        assert_eq!(difference_text(-62.853), "62.85 % higher");
        assert_eq!(difference_text(6.8), "6.80 % lower");
    }

    #[test]
    fn an_evaluation_ends_with_the_line_of_map() {
        let summary = EvalSummary {
            rows: 500,
            labels: 60,
            labels_scored: 41,
            bce: 9.5,
            bce_baseline: 10.0,
            bce_improvement_percent: 5.0,
            map: Some(0.6184),
            map_baseline: Some(0.0912),
            map_micro: Some(0.702),
            bands: vec![Band { share_min: 0.01, labels: 3, map: 0.7, map_baseline: 0.2 }],
            recall: vec![Recall { at: 5, model: 0.5, baseline: 0.25 }],
        };
        assert_eq!(
            eval_text(&summary),
            "held-out rows 500, synsets 60, of which scored 41\n\
             held-out BCE 9.5000 (label-frequency baseline 10.0000, 5.00 % lower)\n\
             held-out recall@5 0.500 (label-frequency baseline 0.250)\n\
             held-out mAP of the 3 synsets that ≥ 1 % of the training rows have 0.700 (baseline \
             0.200)\n\
             held-out mAP over all pairs (micro) 0.702\n\
             held-out mAP 0.618 (label-frequency baseline 0.091)"
        );
    }
}
