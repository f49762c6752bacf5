//! What can go wrong in a run, with hints and exit codes.
//!
//! Facts stand in the errors of the stages; outcomes stand here.

use std::path::{Path, PathBuf};

use catlip_pipeline::error::{ConfigError, PrepError, SampleError, exit};
use catlip_pipeline::feed::{DataError, FeedError};
use catlip_pipeline::prep::error::ChangeError;
use tch::TchError;

use crate::checkpoint::CheckpointError;
use crate::device::DeviceError;
use crate::dist::DistError;
use crate::exchange::ExchangeError;
use crate::kernels::KernelError;

/// What libtorch says, without the addresses of its stack.
pub fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A run stops: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The config is wrong.
    #[error("the config is wrong")]
    Config(#[from] ConfigError),
    /// The device that was asked for is not there.
    #[error("the device cannot be used")]
    Device(#[from] DeviceError),
    /// A data set or vocabulary cannot be read.
    #[error("the data set cannot be read")]
    Data(#[from] PrepError),
    /// Data sets that cannot be fed together, or by so many ranks, or without a vocabulary.
    #[error(transparent)]
    DataSets(DataError),
    /// The feed gave up.
    #[error("the feed ended early")]
    Feed(#[from] FeedError),
    /// A checkpoint cannot be written or read.
    #[error("the checkpoint cannot be used")]
    Checkpoint(#[from] CheckpointError),
    /// Ranks cannot work together.
    #[error("the ranks do not work together")]
    Dist(#[from] DistError),
    /// A model cannot be read or written for another program.
    #[error("the model cannot be exchanged")]
    Exchange(#[from] ExchangeError),
    /// libtorch gave up.
    #[error("libtorch failed to {what}")]
    Torch {
        /// What was tried.
        what: &'static str,
        /// What it says.
        #[source]
        source: TchError,
    },
    /// A file of the run that cannot be read or written.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file that the command names and that cannot be read.
    #[error("cannot read {path}")]
    Input {
        /// The file.
        path: PathBuf,
        /// What the system or the parser says.
        #[source]
        source: std::io::Error,
    },
    /// A setting that would make another model of the run's weights.
    #[error("`{key}` is {found}, but the weights of the run are of a model with {expected}")]
    OtherModel {
        /// Section and key.
        key: String,
        /// The command's value.
        found: String,
        /// The run's.
        expected: String,
    },
    /// A file of the run that is not what it should be.
    #[error("{path} is damaged: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The output folder already holds a run.
    #[error("{path} already holds a run")]
    OutputTaken {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder already holds a model.
    #[error("{path} already holds a model")]
    ModelTaken {
        /// The folder.
        path: PathBuf,
    },
    /// The output is not on a disk.
    #[error("{path} is a URL, but models and batches are written to a disk")]
    NotOnDisk {
        /// The output.
        path: PathBuf,
    },
    /// The output folder holds what this program did not write.
    #[error("{path} holds something else: {found}")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// A name in it.
        found: String,
    },
    /// Another process trains the run.
    #[error("{path} is being trained by {holder}")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Process and host.
        holder: String,
    },
    /// The folder holds no run.
    #[error("{path} holds no run: it has no config.toml")]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds neither a model nor a run.
    #[error("{path} holds no model: neither model.json nor config.toml is there")]
    NoModel {
        /// The folder.
        path: PathBuf,
    },
    /// The run was begun with another config.
    #[error("the run was begun with `{key}` = {found}, this command says {expected}")]
    OtherConfig {
        /// Section and key.
        key: String,
        /// The run's value.
        found: String,
        /// The command's value.
        expected: String,
    },
    /// A row that is not among those to train on.
    #[error("{path} has no such row to train on")]
    NoRow {
        /// The data set.
        path: PathBuf,
    },
    /// Two files that must mean the same labels do not.
    #[error("{path} has vocabulary {found}, expected {expected}")]
    OtherVocab {
        /// The file.
        path: PathBuf,
        /// Its hash and size.
        found: String,
        /// The run's.
        expected: String,
    },
    /// Nothing to evaluate on.
    #[error("{path} has no rows to evaluate")]
    NothingHeldOut {
        /// The data set.
        path: PathBuf,
    },
    /// The loss is no number.
    #[error("the loss is {loss} at step {step}")]
    NotFinite {
        /// The step.
        step: u64,
        /// NaN or an infinity.
        loss: f64,
    },
    /// The steps stay bad, however often the run goes back.
    #[error("the loss is {loss} at step {step}, after going back {rollbacks} times")]
    StaysBad {
        /// The step.
        step: u64,
        /// The loss at the last step that was looked at.
        loss: f64,
        /// How often the run went back to an earlier checkpoint.
        rollbacks: u64,
    },
    /// An image file that cannot be decoded.
    #[error("{path} cannot be shown to the model")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SampleError,
    },
    /// Our own kernels cannot run on the device.
    #[error("no kernels for the device")]
    Kernels(#[source] KernelError),
    /// A signal asked to stop; the state was saved.
    #[error("stopped by a signal; step {step} of {steps} is saved")]
    Interrupted {
        /// Steps that were taken.
        step: u64,
        /// Steps of the run.
        steps: u64,
    },
}

impl From<DataError> for TrainError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Prep(error) => Self::Data(error),
            other => Self::DataSets(other),
        }
    }
}

impl TrainError {
    /// Makes an error of what libtorch says.
    pub fn torch(what: &'static str) -> impl FnOnce(TchError) -> Self {
        move |source| Self::Torch { what, source }
    }

    /// Makes an error of what the system says about `path`.
    pub fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { verb, path, source }
    }

    /// Makes an error of what the system says about an input at `path`: that it is not there, no
    /// file or not allowed is the input's fault.
    pub fn input(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
        let path = path.to_path_buf();
        move |source| match source.kind() {
            // A folder is opened, and then neither read nor mapped.
            NotFound | PermissionDenied | IsADirectory | NotADirectory => {
                Self::Input { path, source }
            }
            _ if path.is_dir() => Self::Input { path, source },
            _ => Self::Io { verb: "read", path, source },
        }
    }

    /// Whether libtorch found no memory.
    fn is_out_of_memory(&self) -> bool {
        let (Self::Torch { source, .. } | Self::Checkpoint(CheckpointError::Torch(source))) = self
        else {
            return false;
        };
        let said = first_line(source);
        ["can't allocate memory", "out of memory", "not enough memory"]
            .iter()
            .any(|words| said.contains(words))
    }

    fn is_full_disk(&self) -> bool {
        let source = match self {
            Self::Io { source, .. } => source,
            Self::Checkpoint(CheckpointError::Io { source, .. }) => source,
            Self::Data(error) => return matches!(error, PrepError::DiskFull { .. }),
            Self::Checkpoint(CheckpointError::Store(error)) => {
                return matches!(**error, PrepError::DiskFull { .. });
            }
            _ => return false,
        };
        source.kind() == std::io::ErrorKind::StorageFull
    }

    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        if self.is_full_disk() {
            return exit::DISK_FULL;
        }
        match self {
            Self::Config(_)
            | Self::Device(_)
            | Self::Kernels(_)
            | Self::OtherModel { .. }
            | Self::Dist(DistError::Environment { .. }) => exit::CONFIG,
            Self::Feed(error) => error.exit_code(),
            Self::DataSets(error) => error.exit_code(),
            // What the command names is no data set, or has no such labels; a program that changes
            // data sets calls them incomplete.
            Self::Data(PrepError::NoDataSet { .. }) => exit::INPUT,
            Self::Data(PrepError::Change(ChangeError::NoColumnSet { .. })) => exit::CONFIG,
            Self::Data(error) => error.exit_code(),
            Self::NotOnDisk { .. } => exit::USAGE,
            Self::OutputTaken { .. }
            | Self::ModelTaken { .. }
            | Self::Foreign { .. }
            | Self::Locked { .. }
            | Self::OtherConfig { .. }
            | Self::OtherVocab { .. }
            | Self::Checkpoint(CheckpointError::Identity { .. }) => exit::CONFLICT,
            Self::Checkpoint(CheckpointError::Claimed { .. }) => exit::CONFLICT,
            Self::Checkpoint(CheckpointError::Store(error)) => error.exit_code(),
            Self::Damaged { .. } | Self::Checkpoint(_) => exit::DAMAGED,
            Self::Input { .. }
            | Self::NoRun { .. }
            | Self::NoModel { .. }
            | Self::Exchange(_)
            | Self::NoRow { .. }
            | Self::NothingHeldOut { .. }
            | Self::Image { .. } => exit::INPUT,
            Self::Interrupted { .. } => exit::INTERRUPTED,
            Self::Dist(_)
            | Self::Torch { .. }
            | Self::Io { .. }
            | Self::NotFinite { .. }
            | Self::StaysBad { .. } => exit::FAILED,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        if self.is_full_disk() {
            return Some("free space and start the same command with --resume");
        }
        if self.is_out_of_memory() {
            return Some(
                "lower `train.batch`, `train.image_px` or the model (`model.size`, `model.width`, \
                 `model.depth`), or raise `train.parts`",
            );
        }
        if let Some(hint) = self.hint_of_names() {
            return Some(hint);
        }
        match self {
            Self::Data(error) => error.hint(),
            Self::Feed(error) => error.hint(),
            Self::DataSets(error) => error.hint(),
            Self::NoRow { .. } => {
                Some("it may be held out, dropped or of another data set: see data.holdout_percent")
            }
            Self::Device(_) => Some("say --set runtime.device=cpu, or auto"),
            Self::Kernels(error) => Some(error.hint()),
            Self::OtherConfig { .. } => {
                Some("resume with the run's own recipe and settings, or choose another --out")
            }
            Self::Checkpoint(CheckpointError::Identity { .. }) => {
                Some("resume over the run's own data set and vocabulary, or choose another --out")
            }
            Self::Checkpoint(CheckpointError::Claimed { .. }) => {
                Some("one process at a time trains a run; this one stops, what it saved stays")
            }
            Self::Checkpoint(CheckpointError::Store(error)) => error.hint(),
            Self::Checkpoint(CheckpointError::AllDamaged { .. }) => {
                Some("nothing of the run is left; begin it anew in another --out")
            }
            Self::NothingHeldOut { .. } => {
                Some("the run holds out rows by their id; say --set data.holdout_percent=0 for all")
            }
            Self::NotFinite { .. } | Self::StaysBad { .. } => {
                Some("lower `optim.lr_max` or lengthen the warm-up, and begin anew")
            }
            Self::Dist(DistError::Environment { .. }) => Some(
                "start with torchrun --no-python, srun, or set RANK, WORLD_SIZE and the others",
            ),
            Self::Dist(DistError::Join { .. }) => {
                Some("all ranks must reach MASTER_ADDR; GLOO_SOCKET_IFNAME names the interface")
            }
            Self::Dist(DistError::Nccl { .. }) => {
                Some("say --set dist.nccl=false: sums then go through the host, and take longer")
            }
            Self::Dist(DistError::Lost { .. } | DistError::Elsewhere { .. }) => {
                Some("see what the other ranks said; start all again with --resume")
            }
            Self::Dist(DistError::Diverged { .. }) => {
                Some("take that machine out; start the others again with --resume")
            }
            Self::Interrupted { .. } => Some("start the same command with --resume to go on"),
            _ => None,
        }
    }

    /// What to name instead, where what the command names is wrong.
    fn hint_of_names(&self) -> Option<&'static str> {
        match self {
            Self::Data(PrepError::NoDataSet { .. }) => Some(
                "name a folder or URL that `catlip-prep run --output` wrote to its end, or shards \
                 such as 'train-{000..099}.tar'",
            ),
            Self::OtherModel { .. } => Some("leave out settings of the model: the run has them"),
            Self::Exchange(ExchangeError::Heads { .. }) => {
                Some("say how many: --set model.heads=N")
            }
            Self::OutputTaken { .. } => Some("go on with --resume, or choose another --out"),
            Self::NotOnDisk { .. } => Some("name a folder of this machine"),
            Self::Foreign { .. } | Self::ModelTaken { .. } => {
                Some("name a folder that is new or empty")
            }
            Self::Locked { .. } => Some(
                "let it train, or stop it by SIGTERM: it saves, and this command then goes on; or \
                 choose another --out",
            ),
            Self::NoModel { .. } => {
                Some("name a folder that `catlip-train import --out` or `fit --out` wrote")
            }
            Self::NoRun { .. } => Some("name the folder that `catlip-train fit --out` wrote"),
            _ => None,
        }
    }
}
