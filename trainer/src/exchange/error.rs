//! What can be wrong with a file of weights or of images.

use std::path::{Path, PathBuf};

use catlip_pipeline::source::pickle::PickleError;

/// A file of weights or images that is not read, or a model that is not written.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Neither a zip nor safetensors.
    #[error("{path} is neither a zip file of PyTorch (since 1.6) nor safetensors")]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// A zip that is damaged or no checkpoint.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A pickle that asks for more than data, or is damaged.
    #[error("{path}: its pickle is refused")]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: PickleError,
    },
    /// Tensors that are not those of the model.
    #[error("{path}: tensor `{name}` is {found}, expected {expected}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is there.
        found: String,
        /// What the model has.
        expected: String,
    },
    /// Names of no model that is known.
    #[error("{path}: its names are none of the reference's, timm's or Hugging Face's: {found}")]
    Names {
        /// The file.
        path: PathBuf,
        /// Some of them.
        found: String,
    },
    /// A model's name that is none.
    #[error(
        "model is `{found}`, expected `auto` or vit_ti16, vit_s16, vit_b16, vit_l16, vit_h16; \
             8 or 4 instead of 16 for other patches"
    )]
    Model {
        /// What was said.
        found: String,
    },
    /// A file of another model than was said.
    #[error("{path} is {found}, expected {expected}")]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// What its tensors are.
        found: String,
        /// What was said.
        expected: String,
    },
    /// Nothing says into how many heads the width is divided.
    #[error(
        "{path} does not say how many attention heads its {depth} blocks of width {width} have"
    )]
    Heads {
        /// The file.
        path: PathBuf,
        /// Its width.
        width: i64,
        /// Its blocks.
        depth: i64,
    },
    /// A model that the other program does not have.
    #[error("{target} has no {what}: this model is not exported to it")]
    NoEquivalent {
        /// The other program.
        target: &'static str,
        /// What it lacks.
        what: &'static str,
    },
    /// A vocabulary of another size than the head.
    #[error("{path} has {found} synsets, the model has {expected} labels")]
    Vocab {
        /// The vocabulary.
        path: PathBuf,
        /// Its size.
        found: usize,
        /// The head's.
        expected: i64,
    },
}

impl ExchangeError {
    /// Makes an error of what is wrong with the file at `path`.
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), message: message.into() }
    }
}
