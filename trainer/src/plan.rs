//! What a config means here: paths opened, lengths counted, the vocabulary made.
//!
//! In: a [`TrainConfig`] and the paths of the command. Out: a [`TrainPlan`] with nothing left to
//! decide. Never: trains; writes, except for a new run's folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use catlip_pipeline::error::PrepError;
use catlip_pipeline::feed::order::Layout;
use catlip_pipeline::feed::selection::is_held_out;
use catlip_pipeline::feed::{
    BatchSampler, Choice, DataError, DataPlace, DataSets, FeedPlan, LastBatch, Selection, Stream,
    data_error, files as data_files,
};
use catlip_pipeline::metrics::PrepLog;
use catlip_pipeline::prep::Folder;
use catlip_schemas::{SampleId, Vocab};
use sha2::{Digest, Sha256};
use tch::Device;

use crate::checkpoint::Identity;
use crate::config::{LossKind, TrainConfig};
use crate::device::{self, DeviceChoice, DeviceError};
use crate::dist::World;
use crate::error::TrainError;
use crate::eval::EvalPlan;
use crate::kernels::nvrtc::Nvrtc;
use crate::metrics::LabelPriors;
use crate::model::VitPlan;
use crate::optim::AdamWPlan;
use crate::page_lock;
use crate::run_folder::RunFolder;
use crate::schedule::Schedule;
use crate::shim::ops;
use crate::tensor_file::hex;

pub use training::{adamw_plan, block_form, kernel_cache, range_plan, step_plan, vit_plan};

mod training;

/// The paths of `fit`, and whether to go on.
#[derive(Clone, Debug)]
pub struct FitRequest {
    /// The data sets to train on.
    pub data: Vec<DataPlace>,
    /// The data set to evaluate on; none: the rows that are held out.
    pub val: Option<Folder>,
    /// The vocabulary; none: made from the training rows.
    pub vocab: Option<PathBuf>,
    /// The folder of the run.
    pub out: RunFolder,
    /// Logs of the prep jobs that made the data, for the report's table of stages.
    pub prep_logs: Vec<PathBuf>,
    /// Go on with a run that is there.
    pub resume: bool,
    /// The ranks that train it together.
    pub world: Rc<World>,
    /// Where `runtime.kernel_cache = "auto"` keeps kernels; none: nowhere.
    pub kernel_cache: Option<PathBuf>,
}

/// A run with nothing left to decide.
#[derive(Clone)]
pub struct TrainPlan {
    /// What was said.
    pub config: TrainConfig,
    /// Where the run is written.
    pub run: RunFolder,
    /// Whether the newest checkpoint, if there is one, is to be read.
    pub resume: bool,
    /// Where the weights lie.
    pub device: Device,
    /// Which devices were found, or why not.
    pub device_report: String,
    /// Where kernels are kept once they are compiled; none: nowhere.
    pub kernel_cache: Option<PathBuf>,
    /// Threads of libtorch on the CPU.
    pub num_threads: usize,
    /// The model.
    pub vit: VitPlan,
    /// The optimiser.
    pub adamw: AdamWPlan,
    /// The rates, and the number of steps.
    pub schedule: Schedule,
    /// What the labels mean.
    pub vocab: Arc<Vocab>,
    /// How often each label occurs among the training rows.
    pub priors: Arc<LabelPriors>,
    /// Training rows, from the beginning.
    pub feed: FeedPlan,
    /// Held-out rows, if there are any.
    pub eval: Option<EvalPlan>,
    /// What a checkpoint must agree with.
    pub identity: Identity,
    /// How long it took to prepare the data, where that was said.
    pub prep_logs: Vec<PrepLog>,
    /// The ranks that train together.
    pub world: Rc<World>,
}

/// The device of a run, ready.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    /// The device.
    pub device: Device,
    /// Which devices were found, or why not.
    pub report: String,
    /// Threads of libtorch on the CPU.
    pub num_threads: usize,
}

/// Opens the device of a config and sets libtorch's threads.
///
/// # Errors
///
/// [`TrainError::Device`].
pub fn open_device(config: &TrainConfig) -> Result<OpenDevice, TrainError> {
    let choice: DeviceChoice =
        config.runtime.device.parse().map_err(|error: DeviceError| TrainError::Device(error))?;
    let report = device::find(choice);
    let device = report.open(choice)?;
    if device != Device::Cpu {
        // cuDNN opens it by its name alone, under which it is found only where it is loaded. Where
        // there is none, who needs it says so.
        _ = Nvrtc::find();
    }
    let num_threads = device::set_threads(config.runtime.threads);
    ops::forbid_tf32()
        .and_then(|()| ops::set_deterministic(config.runtime.deterministic))
        .map_err(TrainError::torch("set modes"))?;
    Ok(OpenDevice { device, report: report.to_string(), num_threads })
}

/// The same for a rank, which sums over it with the others.
fn open_device_of(config: &TrainConfig, world: &World) -> Result<OpenDevice, TrainError> {
    let open = open_device(config)?;
    let device = of_rank(open.device, world.local_rank());
    if config.dist.nccl {
        world.add_device(device)?;
    }
    Ok(OpenDevice { device, ..open })
}

/// The device of a rank among those of its machine: the first CUDA device stands for all.
fn of_rank(device: Device, local_rank: u32) -> Device {
    match device {
        Device::Cuda(first) => Device::Cuda(first + local_rank as usize),
        other => other,
    }
}

/// Plans a run; begins its folder unless it goes on with one.
///
/// # Errors
///
/// Anything that can be known before the first step: [`TrainError`].
pub fn plan(mut config: TrainConfig, request: &FitRequest) -> Result<TrainPlan, TrainError> {
    let (mut run, world) = (request.out.clone(), &request.world);
    if request.val.is_some() {
        config.data.holdout_percent = 0.0;
    }
    let given = request.vocab.as_deref().map(read_vocab).transpose()?;
    let prep_logs = request.prep_logs.iter().map(|path| read_prep_log(path));
    let prep_logs = prep_logs.collect::<Result<_, _>>()?;
    let OpenDevice { device, report, num_threads } = open_device_of(&config, world)?;
    if request.resume && run.is_begun() {
        config.data.go_on_with(&run.config(&[])?.data, request.data.len());
    }
    let data = DataSets::open(&config.feed_recipe(), &request.data)?;
    data.note(&mut config.data)?;
    // The first rank begins the run; the others go on with it as with one that was there.
    if world.is_first() {
        let ours = run
            .check()
            .and_then(|()| data_files::check(&data).map_err(TrainError::from))
            .and_then(|()| run.lock());
        let begun = ours.and_then(|()| begin(&run, &config, request, given.as_ref(), &data));
        world.agree(begun, "begin the run")?;
    } else {
        world.agree(Ok(()), "begin the run")?;
        run.refresh()?;
    }
    run.fetch_log()?;
    check_same_config(&run, &config)?;
    let vocab = Arc::new(run.vocab()?);
    check_same_vocab(request, given.as_ref(), &vocab)?;
    let priors = Arc::new(run.priors(&vocab)?);

    let feed = config.feed_recipe().training_feed(&data, &vocab)?;
    let (rank, world_size, lanes) = (world.rank(), world.size(), feed.stream.num_lanes());
    if world_size > lanes {
        return Err(DataError::Ranks { rank, world_size, lanes }.into());
    }
    let feed = FeedPlan { stream: Stream { world_size, rank, ..feed.stream }, ..feed };
    let eval = match &request.val {
        Some(folder) => Some(other_data_plan(&config, folder, &data, &vocab, &priors)?),
        None => eval_plan(&config, &data, &vocab, &priors)?,
    };
    let steps = feed.num_steps;
    let lock = page_lock::of_run(&config, device)?;
    let eval = eval.map(|eval| eval.locked(lock.clone()));
    let feed = FeedPlan { page_lock: lock, ..feed };
    if world.is_first() {
        run.write_config(&config)?;
    }
    Ok(TrainPlan {
        world: world.clone(),
        run,
        resume: request.resume,
        device,
        kernel_cache: kernel_cache(&config, request.kernel_cache.as_deref()),
        device_report: report,
        num_threads,
        vit: vit_plan(&config, vocab.len()),
        adamw: adamw_plan(&config),
        schedule: training::schedule(&config, steps),
        identity: identity(&config, &data, &vocab),
        vocab,
        priors,
        feed,
        eval,
        config,
        prep_logs,
    })
}

/// Begins a run that is not there, or looks whether it may be gone on with.
fn begin(
    run: &RunFolder,
    config: &TrainConfig,
    request: &FitRequest,
    given: Option<&Vocab>,
    data: &DataSets,
) -> Result<(), TrainError> {
    if run.is_begun() {
        return match request.resume {
            true => Ok(()),
            false => Err(TrainError::OutputTaken { path: run.path() }),
        };
    }
    let percent = config.data.holdout_percent;
    let trains = |id: &SampleId| !is_held_out(id, percent);
    let vocab = match given {
        Some(given) => given.clone(),
        None => data.make_vocab(&config.feed_recipe())?,
    };
    let priors = count_labels(data, &vocab, trains)?;
    run.begin(config, &vocab, &priors)
}

fn read_prep_log(path: &Path) -> Result<PrepLog, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::input(path))?;
    serde_json::from_str(&text).map_err(|error| TrainError::Input {
        path: path.to_path_buf(),
        source: io::Error::other(format!("it is no log of catlip-prep: {error}")),
    })
}

/// The vocabulary that a command names: a Parquet file, or the pickle of the reference.
///
/// # Errors
///
/// [`TrainError::Input`], [`TrainError::DataSets`].
pub fn read_vocab(path: &Path) -> Result<Vocab, TrainError> {
    data_error::read_vocab(path).map_err(|error| match error {
        DataError::NoVocab { source, .. } if matches!(*source, PrepError::Io { .. }) => {
            match *source {
                PrepError::Io { source, .. } => TrainError::input(path)(source),
                other => other.into(),
            }
        }
        other => other.into(),
    })
}

/// The held-out rows of `data`, seen without any draw; `None` if there are none.
///
/// # Errors
///
/// [`TrainError::Data`].
pub fn eval_plan(
    config: &TrainConfig,
    data: &DataSets,
    vocab: &Arc<Vocab>,
    priors: &Arc<LabelPriors>,
) -> Result<Option<EvalPlan>, TrainError> {
    let percent = config.data.holdout_percent;
    if percent == 0.0 {
        return Ok(None);
    }
    let selection = data.rows(|id| is_held_out(id, percent))?;
    Ok(plan_of_rows(config, data, selection, vocab, priors))
}

/// All rows of the data set in `path`, which must be labelled as `trained_on` is.
///
/// # Errors
///
/// [`TrainError::Data`], [`TrainError::DataSets`], [`TrainError::NothingHeldOut`].
pub fn other_data_plan(
    config: &TrainConfig,
    folder: &Folder,
    trained_on: &DataSets,
    vocab: &Arc<Vocab>,
    priors: &Arc<LabelPriors>,
) -> Result<EvalPlan, TrainError> {
    let labels = trained_on.rule()?;
    // Other labels that are the only ones are refused below, in words of their own.
    let choice = Choice { snapshots: Vec::new(), labels: labels.clone(), takes_others: true };
    let data = DataSets::open_as(&config.feed_recipe(), &[folder.clone().into()], &choice)?;
    data.check_rule(&labels)?;
    data_files::check(&data)?;
    plan_of_rows(config, &data, data.all_rows(), vocab, priors)
        .ok_or_else(|| TrainError::NothingHeldOut { path: folder.place() })
}

/// A plan to evaluate on `selection`; `None` if it has no row.
pub fn plan_of_rows(
    config: &TrainConfig,
    data: &DataSets,
    selection: Selection,
    vocab: &Arc<Vocab>,
    priors: &Arc<LabelPriors>,
) -> Option<EvalPlan> {
    let num_rows = selection.num_rows().min(config.data.holdout_rows_max);
    if num_rows == 0 {
        return None;
    }
    let batch = config.eval.batch.min(num_rows as usize) as u32;
    let sampler = BatchSampler::fixed(config.train.image_px as u32, batch);
    let stream = Stream::of_one(selection, Layout::Sequential, sampler);
    let stream = Stream { last_batch: LastBatch::Pad, ..stream };
    let feed = FeedPlan {
        num_steps: num_rows.div_ceil(u64::from(batch)),
        with_captions: true,
        ..config.feed_recipe().feed(data, stream, vocab)
    };
    Some(EvalPlan {
        feed,
        num_rows,
        vocab: vocab.clone(),
        priors: priors.clone(),
        min_positives: config.eval.min_positives,
        recall_at: config.eval.recall_at.clone(),
        softmax: config.loss.kind == LossKind::Softmax,
    })
}

/// The feed that a run of `config` over `data` would begin with, for so many images at least.
///
/// # Errors
///
/// [`TrainError::Data`], [`TrainError::DataSets`].
pub fn feed_alone(
    config: &TrainConfig,
    data: &DataSets,
    num_images: u64,
) -> Result<FeedPlan, TrainError> {
    let recipe = config.feed_recipe();
    let vocab = data.make_vocab(&recipe)?;
    let feed = recipe.training_feed(data, &Arc::new(vocab))?;
    let steps = (num_images as f64 / feed.stream.sampler.mean_batch()).ceil() as u64;
    // The first batch is the warm-up.
    Ok(FeedPlan { num_steps: steps.max(1) + 1, ..feed })
}

fn count_labels(
    data: &DataSets,
    vocab: &Vocab,
    trains: impl Fn(&SampleId) -> bool,
) -> Result<LabelPriors, TrainError> {
    let mut priors = LabelPriors::none(vocab.len());
    for (set, part) in data.sets().iter().flat_map(|set| set.parts.iter().map(move |p| (set, p))) {
        let ids = set.read_sample_ids(part)?;
        for ((id, captions), row) in ids.iter().zip(set.read_synsets(part)?).zip(0..) {
            if trains(id) && !set.dropped.is_dropped(part.name, row) {
                let synsets = captions.iter().flat_map(|caption| caption.0.iter().copied());
                priors.add(vocab.labels_of(synsets).ids());
            }
        }
    }
    Ok(priors)
}

fn check_same_config(run: &RunFolder, config: &TrainConfig) -> Result<(), TrainError> {
    let begun = run.config(&[])?;
    match begun.first_difference(config).or_else(|| begun.data.other_choice(&config.data)) {
        Some([key, found, expected]) => Err(TrainError::OtherConfig { key, found, expected }),
        None => Ok(()),
    }
}

fn check_same_vocab(
    request: &FitRequest,
    given: Option<&Vocab>,
    vocab: &Vocab,
) -> Result<(), TrainError> {
    let (Some(path), Some(given)) = (&request.vocab, given) else { return Ok(()) };
    if given.hash() == vocab.hash() {
        return Ok(());
    }
    let described = |vocab: &Vocab| format!("{} of {} synsets", vocab.hash(), vocab.len());
    Err(TrainError::OtherVocab {
        path: path.clone(),
        found: described(given),
        expected: described(vocab),
    })
}

/// The config and the data set together: a run goes on only over the rows that it began with.
pub fn identity(config: &TrainConfig, data: &DataSets, vocab: &Vocab) -> Identity {
    let text = format!("{} {}", config.hash(), data.identity());
    let config_hash = hex(&Sha256::digest(text.as_bytes())[..8]);
    Identity { config_hash, vocab_hash: vocab.hash() }
}
