//! A model without a run: what it is, its weights, what its labels mean.
//!
//! In and out: `DIR/model.json`, `DIR/model.safetensors`, and `DIR/vocab.parquet` where that
//! is known.
//! Never: takes weights that are not exactly those of its `model.json`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use catlip_pipeline::prep::{Stores, commit, vocab};
use catlip_schemas::Vocab;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::ExchangeError;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::model::{Vit, VitPlan, Weights};
use crate::output;
use crate::run_folder::RunFolder;
use crate::tensor_file;
use crate::trained::TrainedRun;

const MODEL: &str = "model.json";
const WEIGHTS: &str = "model.safetensors";
const VOCAB: &str = "vocab.parquet";
/// Version of `model.json`.
const MODEL_VERSION: u32 = 1;

/// `model.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    /// [`MODEL_VERSION`].
    model_version: u32,
    /// Side of the images that it was trained with.
    image_px: usize,
    /// Share of the shorter side that the centre crop takes.
    crop_share: f64,
    /// What the model is.
    model: VitPlan,
}

/// A model with its weights, from a folder or from a run.
#[derive(Debug)]
pub struct ModelFolder {
    /// The model.
    pub vit: Vit,
    /// Its weights.
    pub weights: Weights,
    /// What the labels mean, if that is known.
    pub vocab: Option<Arc<Vocab>>,
    /// Side of the images that it was trained with.
    pub image_px: usize,
    /// Share of the shorter side that the centre crop takes.
    pub crop_share: f64,
}

impl ModelFolder {
    /// Opens a model folder, or the averaged weights of a run's newest whole checkpoint, on the
    /// CPU.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoModel`] for a folder of neither kind, and what their files may give.
    pub fn open(folder: &Path, stores: &Stores) -> Result<Self, TrainError> {
        if folder.join(MODEL).exists() {
            return Self::open_model(folder);
        }
        let run = RunFolder::find(folder, stores)?;
        if !run.is_begun() {
            return Err(TrainError::NoModel { path: folder.to_path_buf() });
        }
        let run = TrainedRun::open(&run, false, &["runtime.device=cpu".to_owned()])?;
        Ok(Self {
            vit: run.vit,
            weights: run.weights,
            vocab: Some(run.vocab),
            image_px: run.config.train.image_px,
            crop_share: run.config.eval.crop_share,
        })
    }

    fn open_model(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(MODEL);
        let damaged = |message: String| TrainError::Damaged { path: path.clone(), message };
        let json = fs::read(&path).map_err(TrainError::io("read", &path))?;
        let file: ModelFile =
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if file.model_version != MODEL_VERSION {
            let found = file.model_version;
            return Err(damaged(format!("version {found}, expected {MODEL_VERSION}")));
        }
        super::import::check_plan(&file.model).map_err(damaged)?;
        let vit = Vit::new(file.model);
        let mut weights = Weights::zeros(vit.layout(), Device::Cpu)
            .map_err(TrainError::torch("allocate the weights"))?;
        let weights_path = folder.join(WEIGHTS);
        let bytes = fs::read(&weights_path).map_err(TrainError::io("read", &weights_path))?;
        tensor_file::read_weights(&weights_path, &bytes, &mut weights)?;
        let vocab_path = folder.join(VOCAB);
        let vocab = vocab_path.exists().then(|| vocab::read(&vocab_path)).transpose()?;
        if let Some(vocab) = &vocab {
            check_vocab(&vocab_path, vocab, &file.model)?;
        }
        let (image_px, crop_share) = (file.image_px, file.crop_share);
        Ok(Self { vit, weights, vocab: vocab.map(Arc::new), image_px, crop_share })
    }

    /// Writes the folder, which must not hold a model yet; `model.json` last.
    ///
    /// # Errors
    ///
    /// [`TrainError::ModelTaken`], [`TrainError::Foreign`], [`TrainError::Io`],
    /// [`TrainError::Checkpoint`].
    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        begin(folder, MODEL, &[WEIGHTS, VOCAB, MODEL])?;
        write_weights(folder, &tensors(&self.weights)?)?;
        if let Some(vocab) = &self.vocab {
            vocab::write(&folder.join(VOCAB), vocab)?;
        }
        let (image_px, crop_share) = (self.image_px, self.crop_share);
        let model = *self.vit.plan();
        let file = ModelFile { model_version: MODEL_VERSION, image_px, crop_share, model };
        write_json(&folder.join(MODEL), &file)
    }
}

/// Defaults of a model that comes from elsewhere.
pub(super) fn default_view() -> (usize, f64) {
    let config = TrainConfig::default();
    (config.train.image_px, config.eval.crop_share)
}

/// Refuses a vocabulary of another size than the head.
pub(super) fn check_vocab(
    path: &Path,
    vocab: &Vocab,
    model: &VitPlan,
) -> Result<(), ExchangeError> {
    if vocab.len() as i64 == model.num_labels {
        return Ok(());
    }
    let (path, found, expected) = (path.to_path_buf(), vocab.len(), model.num_labels);
    Err(ExchangeError::Vocab { path, found, expected })
}

/// Makes `folder` if it is not there; refuses it if it holds `file`, or anything that is not among
/// `files`.
pub(super) fn begin(folder: &Path, file: &str, files: &[&str]) -> Result<(), TrainError> {
    output::check_on_disk(folder)?;
    if folder.join(file).exists() {
        return Err(TrainError::ModelTaken { path: folder.to_path_buf() });
    }
    output::check(folder, files)?;
    fs::create_dir_all(folder).map_err(TrainError::io("create", folder))
}

/// All weights by name.
pub(super) fn tensors(weights: &Weights) -> Result<Vec<(String, Tensor)>, TrainError> {
    tensor_file::named(weights).map_err(TrainError::torch("read the weights"))
}

/// Writes `model.safetensors` of a folder whole or not at all.
pub(super) fn write_weights(folder: &Path, tensors: &[(String, Tensor)]) -> Result<(), TrainError> {
    write_tensors(&folder.join(WEIGHTS), tensors)
}

/// Writes safetensors whole or not at all.
pub(super) fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), TrainError> {
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let temporary = path.with_file_name(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(TrainError::io("remove", &temporary)(error));
        }
        _ => {}
    }
    tensor_file::write(&temporary, tensors)?;
    fs::rename(&temporary, path).map_err(TrainError::io("rename", &temporary))
}

/// Writes JSON whole or not at all.
pub(super) fn write_json(path: &Path, content: &impl Serialize) -> Result<(), TrainError> {
    let json = serde_json::to_vec_pretty(content)
        .map_err(|error| TrainError::io("write", path)(std::io::Error::other(error)))?;
    write_bytes(path, &json)
}

/// Writes a file whole or not at all.
pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    commit::write_whole(path, bytes).map_err(TrainError::io("write", path))
}
