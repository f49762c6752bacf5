//! The names of other programs ↔ ours.
//!
//! In: named tensors of the reference, of timm or of Hugging Face. Out: the same under our names,
//! and back. Never: changes a number, but where the other program adds a position to the summary
//! token, which is one token for us.

use tch::{TchError, Tensor};

use super::ExchangeError;
use super::state::State;
use crate::error::TrainError;
use crate::model::{Pool, VitPlan};

/// Layers of a block: ours, timm's, Hugging Face's.
const BLOCK: [[&str; 3]; 8] = [
    ["pre_norm_mha.0", "norm1", "layernorm_before"],
    ["pre_norm_mha.1.qkv_proj", "attn.qkv", ""],
    ["pre_norm_mha.1.q_norm", "attn.q_norm", ""],
    ["pre_norm_mha.1.k_norm", "attn.k_norm", ""],
    ["pre_norm_mha.1.out_proj_attn", "attn.proj", "attention.output.dense"],
    ["pre_norm_ffn.0", "norm2", "layernorm_after"],
    ["pre_norm_ffn.1", "mlp.fc1", "intermediate.dense"],
    ["pre_norm_ffn.4", "mlp.fc2", "output.dense"],
];
/// Layers outside of blocks, likewise.
const OUTSIDE: [[&str; 3]; 3] = [
    ["patch_emb.proj", "patch_embed.proj", "vit.embeddings.patch_embeddings.projection"],
    ["post_transformer_norm", "norm", "vit.layernorm"],
    ["classifier", "head", "classifier"],
];
const POSITIONS: &str = "pos_embed.pos_embed.pos_embed";
const SUMMARY: &str = "cls_token";
const QUERY_KEY_VALUE: &str = "pre_norm_mha.1.qkv_proj";
/// The parts into which Hugging Face cuts ours.
const HF_PARTS: [&str; 3] = ["query", "key", "value"];

/// Whose names are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The reference's, which are ours.
    Reference,
    /// timm's `VisionTransformer`.
    Timm,
    /// Hugging Face's `ViTForImageClassification`.
    HuggingFace,
}

impl Names {
    /// Whose names these are, if anybody's.
    pub fn of(state: &State) -> Option<Self> {
        let has = |name: &str| state.contains_key(name);
        if has("patch_emb.0.block.conv.weight") || has("patch_emb.proj.weight") {
            Some(Self::Reference)
        } else if has("patch_embed.proj.weight") {
            Some(Self::Timm)
        } else if has("vit.embeddings.patch_embeddings.projection.weight") {
            Some(Self::HuggingFace)
        } else {
            None
        }
    }

    fn column(self) -> usize {
        match self {
            Self::Reference => 0,
            Self::Timm => 1,
            Self::HuggingFace => 2,
        }
    }

    /// What stands before the number of a block.
    fn block(self) -> &'static str {
        ["transformer.", "blocks.", "vit.encoder.layer."][self.column()]
    }
}

/// Names without what wrappers put before them, and with the reference's two names of one layer
/// made one: its block without flash attention calls the projection `out_proj`.
pub fn unwrapped(state: State) -> State {
    let wrapper = ["module.", "model.", "_orig_mod.", "ema."];
    let mut names: Vec<(String, Tensor)> = state.into_iter().collect();
    while let Some(before) = wrapper
        .iter()
        .find(|before| !names.is_empty() && names.iter().all(|(name, _)| name.starts_with(*before)))
    {
        names.iter_mut().for_each(|(name, _)| *name = name[before.len()..].to_owned());
    }
    let one_name = |(name, tensor): (String, Tensor)| {
        (name.replace("pre_norm_mha.1.out_proj.", "pre_norm_mha.1.out_proj_attn."), tensor)
    };
    names.into_iter().map(one_name).collect()
}

/// Tensors of `names` under our names.
///
/// # Errors
///
/// What libtorch says of tensors whose shapes do not fit each other.
pub fn ours(state: State, names: Names) -> Result<State, TchError> {
    if names == Names::Reference {
        return Ok(state);
    }
    let mut out = State::new();
    let mut parts: Vec<(String, usize, Tensor)> = Vec::new();
    for (name, tensor) in state {
        match hf_part(&name).filter(|_| names == Names::HuggingFace) {
            Some((whole, part)) => parts.push((whole, part, tensor)),
            None => _ = out.insert(our_name(&name, names), tensor),
        }
    }
    parts.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    for three in parts.chunk_by(|a, b| a.0 == b.0) {
        let tensors: Vec<&Tensor> = three.iter().map(|(_, _, tensor)| tensor).collect();
        out.insert(three[0].0.clone(), Tensor::f_cat(&tensors, 0)?);
    }
    if let Some(positions) = out.remove(POSITIONS) {
        let (_, count, width) = positions.size3()?;
        // Theirs may begin with a position of the summary token. A grid is square, or nearly: one
        // more than a square is a square and that position.
        let grid = match out.get(SUMMARY) {
            Some(summary) if count > 1 && (count - 1).isqrt().pow(2) == count - 1 => {
                let whole = summary.f_add(&positions.f_narrow(1, 0, 1)?)?;
                out.insert(SUMMARY.to_owned(), whole);
                positions.f_narrow(1, 1, count - 1)?
            }
            _ => positions,
        };
        let count = grid.size()[1];
        out.insert(POSITIONS.to_owned(), grid.f_contiguous()?.f_view([1, 1, count, width])?);
    }
    Ok(out)
}

/// `…attention.attention.key.weight` → the whole of which it is part 1.
fn hf_part(name: &str) -> Option<(String, usize)> {
    let (block, part) = name.split_once(".attention.attention.")?;
    let (layer, what) = part.split_once('.')?;
    let at = HF_PARTS.iter().position(|part| *part == layer)?;
    let number = block.strip_prefix(Names::HuggingFace.block())?;
    Some((format!("{}{number}.{QUERY_KEY_VALUE}.{what}", Names::Reference.block()), at))
}

fn our_name(name: &str, names: Names) -> String {
    match name {
        "pos_embed" | "vit.embeddings.position_embeddings" => return POSITIONS.to_owned(),
        "vit.embeddings.cls_token" => return SUMMARY.to_owned(),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("attn_pool.") {
        return format!("pool.{rest}");
    }
    renamed(name, names, Names::Reference).unwrap_or_else(|| name.to_owned())
}

/// A layer's tensor under another program's name.
fn renamed(name: &str, from: Names, to: Names) -> Option<String> {
    let (layer, what) = name.rsplit_once('.')?;
    let pair = |table: &[[&str; 3]], layer: &str| {
        let row = table.iter().find(|row| row[from.column()] == layer && !layer.is_empty())?;
        Some(row[to.column()].to_owned()).filter(|name| !name.is_empty())
    };
    let Some(in_block) = layer.strip_prefix(from.block()) else {
        return Some(format!("{}.{what}", pair(&OUTSIDE, layer)?));
    };
    let (number, layer) = in_block.split_once('.')?;
    Some(format!("{}{number}.{}.{what}", to.block(), pair(&BLOCK, layer)?))
}

/// Our tensors under the names of `names`, in the order of ours.
///
/// # Errors
///
/// [`ExchangeError::NoEquivalent`] for what the other program does not have.
pub fn theirs(
    plan: &VitPlan,
    state: &[(String, Tensor)],
    names: Names,
) -> Result<Vec<(String, Tensor)>, TrainError> {
    check(plan, names)?;
    let mut out = Vec::new();
    for (name, tensor) in state {
        // The augmentation belongs to training.
        if !name.starts_with("neural_augmentor.") {
            let tensors = their_tensors(plan, name, tensor, names);
            out.extend(tensors.map_err(TrainError::torch("rename a tensor"))?);
        }
    }
    Ok(out)
}

fn their_tensors(
    plan: &VitPlan,
    name: &str,
    tensor: &Tensor,
    names: Names,
) -> Result<Vec<(String, Tensor)>, TchError> {
    let is_hf = names == Names::HuggingFace;
    let same = |name: String| Ok(vec![(name, tensor.shallow_clone())]);
    match name {
        SUMMARY if is_hf => return same("vit.embeddings.cls_token".to_owned()),
        SUMMARY | "reg_token" => return same(name.to_owned()),
        POSITIONS => {
            let grid = tensor.f_squeeze_dim(1)?;
            let grid = if has_summary_position(plan) {
                let none = grid.f_narrow(1, 0, 1)?.f_zeros_like()?;
                Tensor::f_cat(&[none, grid], 1)?
            } else {
                grid
            };
            let name = if is_hf { "vit.embeddings.position_embeddings" } else { "pos_embed" };
            return Ok(vec![(name.to_owned(), grid)]);
        }
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("pool.") {
        return same(format!("attn_pool.{rest}"));
    }
    if let Some((block, what)) = name.split_once(&format!(".{QUERY_KEY_VALUE}.")).filter(|_| is_hf)
    {
        let block = block.replacen(Names::Reference.block(), names.block(), 1);
        let thirds = tensor.f_chunk(3, 0)?;
        let named = HF_PARTS.iter().zip(thirds);
        let named = named
            .map(|(part, third)| (format!("{block}.attention.attention.{part}.{what}"), third));
        return Ok(named.collect());
    }
    same(renamed(name, Names::Reference, names).unwrap_or_else(|| name.to_owned()))
}

/// Whether their positions begin with one of the summary token, which is zero for us. With
/// registers timm gives none to any token before the grid.
pub fn has_summary_position(plan: &VitPlan) -> bool {
    plan.summary && plan.num_registers == 0
}

fn check(plan: &VitPlan, names: Names) -> Result<(), ExchangeError> {
    let is_plain_vit =
        plan.pool == Pool::Summary && plan.num_registers == 0 && !plan.qk_norm && !plan.gated;
    if names == Names::HuggingFace && !is_plain_vit {
        let what = "registers, pooling, norms of queries or SwiGLU in its ViT";
        return Err(ExchangeError::NoEquivalent { target: "Hugging Face", what });
    }
    Ok(())
}
