//! Why a checkpoint cannot be written or read. Facts only; nothing is read here.

use std::path::{Path, PathBuf};

use catlip_pipeline::error::PrepError;
use catlip_schemas::SchemaError;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file that cannot be read or written.
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
    /// A store that does not answer, or refuses.
    #[error("the store of the run fails")]
    Store(#[source] Box<PrepError>),
    /// Another process has begun to write the run.
    #[error("{path} is now being trained by {holder}")]
    Claimed {
        /// The run.
        path: PathBuf,
        /// Who claimed it.
        holder: String,
    },
    /// libtorch gave up.
    #[error("libtorch could not copy a tensor")]
    Torch(#[from] tch::TchError),
    /// No checkpoint in the run.
    #[error("{path} holds no checkpoint")]
    None {
        /// The run.
        path: PathBuf,
    },
    /// Every checkpoint is damaged.
    #[error("every checkpoint of {path} is damaged:{}", list(.damages))]
    AllDamaged {
        /// The run.
        path: PathBuf,
        /// What is wrong with each.
        damages: Vec<Damage>,
    },
    /// A file that is not what `state.json` says.
    #[error("{path}: {what} is {found}, expected {expected}")]
    File {
        /// The file.
        path: PathBuf,
        /// Bytes or SHA-256.
        what: &'static str,
        /// As found.
        found: String,
        /// As `state.json` says.
        expected: String,
    },
    /// `state.json` does not follow the format.
    #[error("{path} is damaged")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SchemaError,
    },
    /// A rank whose part of a checkpoint did not come.
    #[error("the checkpoint of step {step} lacks the part of rank {rank}")]
    Part {
        /// Its step.
        step: u64,
        /// Whose part.
        rank: u32,
    },
    /// A file that is no safetensors.
    #[error("{path} is no safetensors file")]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the model does not have so.
    #[error("{path}: tensor `{name}` is {found}, expected {expected}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        name: String,
        /// Type and shape as found, or `missing`.
        found: String,
        /// Type and shape of the model's.
        expected: String,
    },
    /// A checkpoint of another run.
    #[error("{path}: {what} is {found}, expected {expected}")]
    Identity {
        /// Its `state.json`.
        path: PathBuf,
        /// Which hash.
        what: &'static str,
        /// As found.
        found: String,
        /// This run's.
        expected: String,
    },
}

impl CheckpointError {
    /// Makes an error of what the system says about `path`.
    pub fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { verb, path, source }
    }

    /// Whether the checkpoint's own bytes are wrong, so that the one before may be taken.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::File { .. } | Self::State { .. } | Self::Format { .. } => true,
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// A checkpoint that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its step.
    pub step: u64,
    /// What is wrong with it.
    pub message: String,
}

fn list(damages: &[Damage]) -> String {
    damages.iter().map(|d| format!("\n    step {}: {}", d.step, d.message)).collect()
}
