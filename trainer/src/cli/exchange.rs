//! `catlip-train import`, `export` and `logits`.

use std::path::PathBuf;

use catlip_pipeline::error::exit;
use clap::{Args, ValueEnum};

use super::{print, say, stores};
use crate::error::TrainError;
use crate::exchange::export::{self, Target};
use crate::exchange::{ModelFolder, import, logits};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// File of weights: .pt of PyTorch, which is read without running it, or .safetensors; with the
    /// names of CatLIP's reference, timm or Hugging Face
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// vit_ti16, vit_s16, vit_b16, vit_l16, vit_h16; 8 or 4 for other patches; auto: by its shapes
    #[arg(long, default_value = "auto")]
    model: String,
    /// Heads of a block, where neither name, size nor a file beside the weights says it
    #[arg(long = "set", value_name = "model.heads=N", value_parser = heads)]
    heads: Option<i64>,
    /// Vocabulary of its labels
    #[arg(long, value_name = "FILE")]
    vocab: Option<PathBuf>,
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Folder of a model or of a run, which may lie in a store; of a run the averaged weights
    #[arg(long, value_name = "DIR|RUN")]
    weights: PathBuf,
    /// Program for which it is written
    #[arg(long, value_enum)]
    to: To,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct LogitsArgs {
    /// Folder of a model or of a run, which may lie in a store; of a run the averaged weights
    #[arg(long, value_name = "DIR|RUN")]
    weights: PathBuf,
    /// Safetensors with `images`, float32 [n, 3, h, w] in 0…1
    #[arg(long, value_name = "FILE")]
    images: PathBuf,
    /// Safetensors to write, with `logits`, float32 [n, labels]
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Timm,
    Hf,
}

/// `model.heads=2` → 2: the one setting that weights do not say.
fn heads(setting: &str) -> Result<i64, String> {
    let number = setting.strip_prefix("model.heads=").and_then(|number| number.parse().ok());
    number.filter(|&heads| heads > 0).ok_or_else(|| "expected model.heads=N".to_owned())
}

pub(super) fn import(args: &ImportArgs) -> Result<u8, TrainError> {
    let model = import::import(&args.weights, &args.model, args.heads, args.vocab.as_deref())?;
    model.write(&args.out)?;
    let (plan, params) = (model.vit.plan(), model.vit.layout().num_params());
    print(&format!(
        "{} × {} blocks, {} heads, patch {} px, {} labels, {params} parameters: {}",
        plan.width,
        plan.depth,
        plan.num_heads,
        plan.patch_px,
        plan.num_labels,
        args.out.display()
    ));
    Ok(exit::OK)
}

pub(super) fn export(args: &ExportArgs) -> Result<u8, TrainError> {
    let model = ModelFolder::open(&args.weights, &stores())?;
    let target = match args.to {
        To::Timm => Target::Timm,
        To::Hf => Target::HuggingFace,
    };
    export::export(&model, target, &args.out)?;
    say(&format!("written: {}", args.out.display()));
    Ok(exit::OK)
}

pub(super) fn logits(args: &LogitsArgs) -> Result<u8, TrainError> {
    let model = ModelFolder::open(&args.weights, &stores())?;
    let [images, labels] = logits::logits(&model, &args.images, &args.output)?;
    say(&format!("{images} images × {labels} logits: {}", args.output.display()));
    Ok(exit::OK)
}
