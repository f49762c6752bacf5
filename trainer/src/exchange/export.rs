//! A model → what timm or Hugging Face load.
//!
//! In: [`ModelFolder`]. Out: `config.json`, `model.safetensors`, `preprocessor_config.json`,
//! `README.md` (the model card), `vocab.parquet`; with the corenet stem, which neither of them has,
//! `modeling_catlip.py` too. Never: a number that is not the model's.

use std::path::Path;

use catlip_pipeline::prep::vocab;
use catlip_schemas::Vocab;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::model_folder::{ModelFolder, begin, tensors, write_bytes, write_json, write_weights};
use super::names::{self, Names};
use crate::error::TrainError;
use crate::model::{Pool, StemKind, VitPlan};

/// The model in Python, for timm and for `trust_remote_code`.
const MODELING: &str = include_str!("modeling_catlip.py");
/// What an export that was killed may have left. The card, written just before the end, is not
/// among them: it has the name that many folders have.
const FILES: [&str; 5] = [
    "model.safetensors",
    "vocab.parquet",
    "modeling_catlip.py",
    "preprocessor_config.json",
    "config.json",
];
/// Names of sizes as timm has them, by width, depth and heads.
const TIMM_SIZES: [(&str, [i64; 3]); 5] = [
    ("tiny", [192, 12, 3]),
    ("small", [384, 12, 6]),
    ("base", [768, 12, 12]),
    ("large", [1024, 24, 16]),
    ("huge", [1280, 32, 16]),
];

/// The program for which a model is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// timm: `create_model("local-dir:DIR", pretrained=True)`.
    Timm,
    /// Hugging Face: `AutoModelForImageClassification.from_pretrained(DIR)`.
    HuggingFace,
}

/// Writes `model` into `folder` for `target`; `config.json` last.
///
/// # Errors
///
/// [`TrainError::Exchange`] for a model that the target does not have; [`TrainError::ModelTaken`],
/// [`TrainError::Foreign`],
/// [`TrainError::Io`].
pub fn export(model: &ModelFolder, target: Target, folder: &Path) -> Result<(), TrainError> {
    let plan = model.vit.plan();
    let is_corenet = plan.stem == StemKind::Corenet;
    let named = tensors(&model.weights)?;
    let named = match (is_corenet, target) {
        (true, _) => without_augmentation(named),
        (false, Target::Timm) => names::theirs(plan, &named, Names::Timm)?,
        (false, Target::HuggingFace) => names::theirs(plan, &named, Names::HuggingFace)?,
    };
    begin(folder, "config.json", &FILES)?;
    write_weights(folder, &named)?;
    if let Some(vocab) = &model.vocab {
        vocab::write(&folder.join("vocab.parquet"), vocab)?;
    }
    if is_corenet {
        write_bytes(&folder.join("modeling_catlip.py"), MODELING.as_bytes())?;
    }
    write_json(&folder.join("preprocessor_config.json"), &preprocessor(model))?;
    write_bytes(&folder.join("README.md"), card(model, target).as_bytes())?;
    let config = match (is_corenet, target) {
        (true, _) => corenet_config(model),
        (false, Target::Timm) => timm_config(model),
        (false, Target::HuggingFace) => hf_config(model),
    };
    write_json(&folder.join("config.json"), &config)
}

fn without_augmentation(named: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    named.into_iter().filter(|(name, _)| !name.starts_with("neural_augmentor.")).collect()
}

/// Side of the image before the centre is cut out.
fn resize_px(model: &ModelFolder) -> usize {
    (model.image_px as f64 / model.crop_share).round() as usize
}

/// Images in 0…1, no mean, no deviation, bilinear: what the model was trained with.
fn preprocessor(model: &ModelFolder) -> Value {
    let side = model.image_px;
    json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": { "height": side, "width": side },
        "resample": 2,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
    })
}

/// What the labels mean, for Hugging Face: `n02084071 dog`.
fn labels(model: &ModelFolder) -> (Value, Value) {
    let num_labels = model.vit.plan().num_labels as usize;
    let text = |vocab: &Vocab, at: usize| {
        let row = &vocab.rows()[at];
        format!("{} {}", row.synset.wnid(), row.lemma)
    };
    let name = |at: usize| match &model.vocab {
        Some(vocab) => text(vocab, at),
        None => format!("LABEL_{at}"),
    };
    let by_id: Map<_, _> = (0..num_labels).map(|at| (at.to_string(), json!(name(at)))).collect();
    let by_label: Map<_, _> = (0..num_labels).map(|at| (name(at), json!(at))).collect();
    (by_id.into(), by_label.into())
}

fn hf_config(model: &ModelFolder) -> Value {
    let plan = model.vit.plan();
    let (id2label, label2id) = labels(model);
    json!({
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": plan.width,
        "num_hidden_layers": plan.depth,
        "num_attention_heads": plan.num_heads,
        "intermediate_size": plan.hidden,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
        "qkv_bias": true,
        "image_size": plan.num_positions.isqrt() * plan.patch_px,
        "patch_size": plan.patch_px,
        "num_channels": 3,
        "problem_type": "multi_label_classification",
        "torch_dtype": "float32",
        "id2label": id2label,
        "label2id": label2id,
    })
}

fn corenet_config(model: &ModelFolder) -> Value {
    let plan = model.vit.plan();
    let (id2label, label2id) = labels(model);
    json!({
        "architectures": ["CatlipForImageClassification"],
        "model_type": "catlip",
        "auto_map": {
            "AutoConfig": "modeling_catlip.CatlipConfig",
            "AutoModelForImageClassification": "modeling_catlip.CatlipForImageClassification",
        },
        "width": plan.width,
        "depth": plan.depth,
        "heads": plan.num_heads,
        "hidden": plan.hidden,
        "positions": plan.num_positions,
        "patch_size": plan.patch_px,
        "image_size": model.image_px,
        "problem_type": "multi_label_classification",
        "torch_dtype": "float32",
        "id2label": id2label,
        "label2id": label2id,
    })
}

/// timm's name of the nearest model that it has; the arguments say the rest.
fn timm_name(plan: &VitPlan) -> String {
    let shape = [plan.width, plan.depth, plan.num_heads];
    let size =
        TIMM_SIZES.iter().find(|(_, known)| *known == shape).map_or("base", |(name, _)| name);
    let patch_px = match (size, plan.patch_px) {
        ("huge", _) => 14,
        (_, 8) if size != "tiny" => 8,
        (_, 32) if size != "tiny" => 32,
        _ => 16,
    };
    format!("vit_{size}_patch{patch_px}_224")
}

fn timm_config(model: &ModelFolder) -> Value {
    let plan = model.vit.plan();
    let side = plan.num_positions.isqrt() * plan.patch_px;
    let pool = match plan.pool {
        Pool::Summary => "token",
        Pool::Mean => "avg",
        Pool::Attention => "map",
    };
    let mut arguments = json!({
        "img_size": side,
        "patch_size": plan.patch_px,
        "embed_dim": plan.width,
        "depth": plan.depth,
        "num_heads": plan.num_heads,
        "class_token": plan.summary,
        "global_pool": pool,
        "dynamic_img_size": true,
    });
    let mut say = |key: &str, value: Value| arguments[key] = value;
    if plan.pool == Pool::Mean {
        say("fc_norm", json!(false));
    }
    if plan.num_registers > 0 {
        say("reg_tokens", json!(plan.num_registers));
    }
    if plan.summary && !names::has_summary_position(plan) {
        say("no_embed_class", json!(true));
    }
    if plan.qk_norm {
        say("qk_norm", json!(true));
    }
    // Half a number more, so that the product is not rounded down.
    let widened = if plan.gated { 2 * plan.hidden } else { plan.hidden };
    if plan.gated || widened != 4 * plan.width {
        say("mlp_ratio", json!((widened as f64 + 0.5) / plan.width as f64));
    }
    json!({
        "architecture": timm_name(plan),
        "num_classes": plan.num_labels,
        "num_features": plan.width,
        "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": plan.num_labels,
            "input_size": [3, side, side],
            "fixed_input_size": false,
            "interpolation": "bilinear",
            "crop_pct": model.image_px as f64 / resize_px(model) as f64,
            "crop_mode": "center",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    })
}

/// The model card.
fn card(model: &ModelFolder, target: Target) -> String {
    let plan = model.vit.plan();
    let library = match (target, plan.stem) {
        (Target::Timm, StemKind::Linear) => "timm",
        _ => "transformers",
    };
    let stem = match plan.stem {
        StemKind::Corenet => "three convolutions (the stem of CatLIP's reference)",
        StemKind::Linear => "linear patches",
    };
    let use_of = match (target, plan.stem) {
        // A config of timm cannot name a class.
        (Target::Timm, StemKind::Linear) if plan.gated => {
            "import timm, torch\nmodel = timm.create_model(\"local-dir:DIR\", pretrained=True, \
             mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU).eval()"
        }
        (Target::Timm, StemKind::Linear) => {
            "import timm\nmodel = timm.create_model(\"local-dir:DIR\", pretrained=True).eval()"
        }
        (Target::HuggingFace, StemKind::Linear) => {
            "from transformers import ViTForImageClassification\n\
             model = ViTForImageClassification.from_pretrained(\"DIR\").eval()"
        }
        (Target::HuggingFace, StemKind::Corenet) => {
            "from transformers import AutoModelForImageClassification\n\
             model = AutoModelForImageClassification.from_pretrained(\"DIR\", \
             trust_remote_code=True).eval()"
        }
        (Target::Timm, StemKind::Corenet) => {
            "import sys, timm\nsys.path.insert(0, \"DIR\")\nimport modeling_catlip\n\
             model = timm.create_model(\"catlip\", checkpoint_path=\"DIR/model.safetensors\", \
             config=\"DIR/config.json\").eval()"
        }
    };
    let labels = match &model.vocab {
        Some(_) => "`vocab.parquet` names the WordNet 3.0 synset of each logit.",
        None => "Which synset a logit stands for is not known here.",
    };
    format!(
        "---\nlibrary_name: {library}\npipeline_tag: image-classification\ntags:\n- catlip\n---\n\
         # A CatLIP vision transformer\n\n\
         Pre-trained on images and captions as classification: the labels are WordNet noun synsets \
         found in captions (Mehta et al., 2024, arXiv 2404.15653).\n\n\
         | | |\n|---|---|\n\
         | parameters | {:.1} M |\n| blocks, width, heads | {}, {}, {} |\n| stem | {stem} |\n\
         | patch, image | {} px, {} px |\n| logits | {}, one sigmoid each |\n\n\
         Images are RGB in 0…1, **without mean and deviation**, resized with bilinear antialiasing \
         to a shorter side of {} px, of which the centre is taken. {labels}\n\n\
         ```python\n{use_of}\n```\n\n\
         Labels come from captions of the web: they are noisy, follow what people write about, and \
         carry the biases of their source. A logit is no judgement about a person.\n",
        model.vit.layout().num_params() as f64 / 1e6,
        plan.depth,
        plan.width,
        plan.num_heads,
        plan.patch_px,
        model.image_px,
        plan.num_labels,
        resize_px(model),
    )
}
