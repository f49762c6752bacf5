//! A file of weights → a model folder.
//!
//! In: a `.pt` or safetensors file with the names of the reference, timm or Hugging Face, and the
//! name of a model. Out: [`ModelFolder`]. Never: a tensor of the file that is not used, or one of
//! the model that is not filled.

use std::path::Path;

use tch::{Device, Kind};

use super::ExchangeError;
use super::heads;
use super::model_folder::{ModelFolder, check_vocab, default_view};
use super::names::{self, Names};
use super::state::{self, State};
use crate::config::ModelSize;
use crate::error::TrainError;
use crate::model::{Pool, StemKind, Vit, VitPlan, Weights};
use crate::plan::read_vocab;

/// Limits of what is believed of a file: far above ViT-22B.
const WIDTH_MAX: i64 = 16_384;
const DEPTH_MAX: i64 = 1024;

/// Reads `weights` as the model that is called `model`, or as what its shapes say for `auto`; its
/// number of heads, which no shape says, is `heads`, or that of the files beside it.
///
/// # Errors
///
/// [`TrainError::Exchange`] with the first thing that does not fit.
pub fn import(
    weights: &Path,
    model: &str,
    heads: Option<i64>,
    vocab: Option<&Path>,
) -> Result<ModelFolder, TrainError> {
    let state = names::unwrapped(state::read(weights)?);
    let path = weights.to_path_buf();
    let Some(names) = Names::of(&state) else {
        let found: Vec<_> = state.keys().take(3).cloned().collect();
        return Err(ExchangeError::Names { path, found: found.join(", ") }.into());
    };
    let state = names::ours(state, names).map_err(TrainError::torch("rename a tensor"))?;
    let heads = heads.or_else(|| heads::beside(weights));
    let plan = plan_of(weights, &state, model, heads)?;
    let vit = Vit::new(plan);
    let weights = filled(weights, &vit, &state)?;
    let vocab = match vocab {
        Some(path) => {
            let vocab = read_vocab(path)?;
            check_vocab(path, &vocab, &plan)?;
            Some(vocab.into())
        }
        None => None,
    };
    let (image_px, crop_share) = default_view();
    Ok(ModelFolder { vit, weights, vocab, image_px, crop_share })
}

/// `vit_b16` → width, depth and heads, and the patch; none for `auto`.
fn named_shape(model: &str) -> Result<Option<([i64; 3], i64)>, ExchangeError> {
    let unknown = || ExchangeError::Model { found: model.to_owned() };
    if model == "auto" {
        return Ok(None);
    }
    let rest = model.strip_prefix("vit_").ok_or_else(unknown)?;
    let digits = rest.trim_start_matches(|letter: char| letter.is_ascii_lowercase());
    let size = match &rest[..rest.len() - digits.len()] {
        "ti" => ModelSize::Tiny,
        "s" => ModelSize::Small,
        "b" => ModelSize::Base,
        "l" => ModelSize::Large,
        "h" => ModelSize::Huge,
        _ => return Err(unknown()),
    };
    let patch_px = digits.parse().ok().filter(|px| [4, 8, 14, 16, 32].contains(px));
    Ok(Some((size.shape(), patch_px.ok_or_else(unknown)?)))
}

/// What a model the tensors are.
fn plan_of(
    path: &Path,
    state: &State,
    model: &str,
    heads: Option<i64>,
) -> Result<VitPlan, ExchangeError> {
    let named = named_shape(model)?;
    let side = |name: &str, at: usize| -> Result<i64, ExchangeError> {
        let wrong = |found: String| ExchangeError::Tensor {
            path: path.to_path_buf(),
            name: name.to_owned(),
            found,
            expected: format!("a tensor with a dimension {at}"),
        };
        let tensor = state.get(name).ok_or_else(|| wrong("missing".to_owned()))?;
        let size = tensor.size();
        size.get(at).copied().ok_or_else(|| wrong(format!("{size:?}")))
    };
    let has = |name: &str| state.contains_key(name);
    let width = side("post_transformer_norm.weight", 0)?;
    let is_block = |at: &i64| has(&format!("transformer.{at}.pre_norm_ffn.4.weight"));
    let depth = (0..DEPTH_MAX).take_while(is_block).count() as i64;
    let found = format!("{depth} blocks of width {width}");
    let stem =
        if has("patch_emb.0.block.conv.weight") { StemKind::Corenet } else { StemKind::Linear };
    let heads = match named {
        Some(([w, d, named], _)) if [w, d] == [width, depth] => heads.unwrap_or(named),
        Some(([w, d, _], _)) => {
            let expected = format!("{d} blocks of width {w}, as {model} has");
            return Err(ExchangeError::OtherModel { path: path.to_path_buf(), found, expected });
        }
        None => heads
            .or_else(|| heads::of_size(width, depth, stem))
            .ok_or_else(|| ExchangeError::Heads { path: path.to_path_buf(), width, depth })?,
    };
    let patch_px = match (stem, named) {
        (StemKind::Linear, _) => side("patch_emb.proj.weight", 3)?,
        (StemKind::Corenet, Some((_, patch_px))) => patch_px,
        (StemKind::Corenet, None) => 16,
    };
    if let Some((_, expected)) = named.filter(|(_, expected)| *expected != patch_px) {
        let (found, expected) = (format!("of patch {patch_px}"), format!("patch {expected}"));
        return Err(ExchangeError::OtherModel { path: path.to_path_buf(), found, expected });
    }
    let hidden = side("transformer.0.pre_norm_ffn.4.weight", 1)?;
    let summary = has("cls_token");
    let plan = VitPlan {
        stem,
        hidden,
        gated: side("transformer.0.pre_norm_ffn.1.weight", 0)? != hidden,
        qk_norm: has("transformer.0.pre_norm_mha.1.q_norm.weight"),
        patch_px,
        summary,
        num_registers: if has("reg_token") { side("reg_token", 1)? } else { 0 },
        pool: match (has("pool.latent"), summary) {
            (true, _) => Pool::Attention,
            (false, true) => Pool::Summary,
            (false, false) => Pool::Mean,
        },
        range_augment: has("neural_augmentor.brightness._low"),
        ..VitPlan::corenet(
            [width, depth, heads],
            side("pos_embed.pos_embed.pos_embed", 2)?,
            side("classifier.weight", 0)?,
        )
    };
    check_plan(&plan).map_err(|message| ExchangeError::file(path, message))?;
    Ok(plan)
}

/// Refuses a plan that no model has, before anything is allocated for it.
pub(super) fn check_plan(plan: &VitPlan) -> Result<(), String> {
    let within = |what: &str, found: i64, max: i64| {
        if (1..=max).contains(&found) {
            return Ok(());
        }
        Err(format!("{what} is {found}, expected 1 to {max}"))
    };
    within("width", plan.width, WIDTH_MAX)?;
    within("depth", plan.depth, DEPTH_MAX)?;
    within("number of heads", plan.num_heads, plan.width)?;
    within("width of the hidden layer", plan.hidden, 8 * WIDTH_MAX)?;
    within("number of positions", plan.num_positions, 1 << 20)?;
    within("number of labels", plan.num_labels, 1 << 24)?;
    within("number of registers + 1", plan.num_registers + 1, 1025)?;
    let patches: &[i64] = match plan.stem {
        StemKind::Corenet => &[8, 16],
        StemKind::Linear => &[4, 8, 14, 16, 32],
    };
    if !patches.contains(&plan.patch_px) {
        return Err(format!("patch of {} px, expected one of {patches:?}", plan.patch_px));
    }
    if plan.width % plan.num_heads != 0 {
        return Err(format!("width {} is no multiple of {} heads", plan.width, plan.num_heads));
    }
    if plan.stem == StemKind::Linear && plan.num_positions.isqrt().pow(2) != plan.num_positions {
        return Err(format!("{} positions, expected a square number", plan.num_positions));
    }
    if plan.pool == Pool::Summary && !plan.summary {
        return Err("the pool is the summary token, and there is none".to_owned());
    }
    Ok(())
}

/// The weights of `vit`, each tensor of the file used once.
fn filled(path: &Path, vit: &Vit, state: &State) -> Result<Weights, TrainError> {
    let wrong = |name: &str, found: String, expected: String| ExchangeError::Tensor {
        path: path.to_path_buf(),
        name: name.to_owned(),
        found,
        expected,
    };
    let mut weights = Weights::zeros(vit.layout(), Device::Cpu)
        .map_err(TrainError::torch("allocate the weights"))?;
    for (entry, view) in weights.entries() {
        let expected = || format!("float {:?}", entry.shape);
        let Some(tensor) = state.get(&entry.name) else {
            return Err(wrong(&entry.name, "missing".to_owned(), expected()).into());
        };
        if tensor.kind() != Kind::Float || tensor.size() != entry.shape {
            let found = format!("{:?} {:?}", tensor.kind(), tensor.size());
            return Err(wrong(&entry.name, found, expected()).into());
        }
        tch::no_grad(|| view.shallow_clone().f_copy_(tensor))
            .map_err(TrainError::torch("copy a tensor"))?;
    }
    let is_known = |name: &String| {
        vit.layout().counters().contains(name)
            || vit.layout().entries().iter().any(|entry| entry.name == *name)
    };
    if let Some(name) = state.keys().find(|name| !is_known(name)) {
        return Err(wrong(name, "there".to_owned(), "no such tensor".to_owned()).into());
    }
    let counter = vit.layout().counters().first().and_then(|name| state.get(name));
    if let Some(counter) = counter.filter(|counter| counter.numel() == 1) {
        let counted = counter.f_reshape([-1]).and_then(|counter| counter.f_int64_value(&[0]));
        weights.set_batches_tracked(counted.map_err(TrainError::torch("read a counter"))?);
    }
    Ok(weights)
}
