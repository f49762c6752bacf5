//! What the user said: `train.default.toml`, overlaid by a recipe and by `--set`.
//!
//! In: TOML. Out: a [`TrainConfig`]; what it means for a run is [`crate::plan`]. Never: a key that
//! is silently ignored.

use std::path::Path;

use catlip_pipeline::config::{overlay, refused, within};
use catlip_pipeline::error::ConfigError;
use catlip_pipeline::feed::recipe::{CentreConfig, CropConfig, FeedRecipe, StepsConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{Pool, Precision, StemKind};
use crate::optim::Decay;

mod default;

pub use catlip_pipeline::feed::recipe::{
    DataConfig, FeedConfig, LabelsKind, LastBatchKind, SamplerConfig, SamplerKind, VocabConfig,
};

/// The commented default file: the manual of every key.
pub const DEFAULT_TOML: &str = include_str!("../train.default.toml");

/// Keys that change how a run is watched, saved or executed, not what it computes: a run may be
/// resumed with others. A section ends with a dot.
const NOT_HASHED: [&str; 18] = [
    // What these mean, the table of parts and the name of the labels, is hashed beside the config.
    "data.label_set",
    "data.snapshots",
    "data.holdout_rows_max",
    "data.shards",
    "feed.threads",
    "feed.queue_batches",
    "feed.memory_bytes",
    "feed.spill_dir",
    "feed.hedge_ms",
    "feed.cache_dir",
    "feed.cache_bytes",
    "feed.bad_rows_max",
    "feed.page_lock",
    "eval.",
    "checkpoint.",
    "fault.",
    "dist.",
    "runtime.",
];

/// A named shape of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub enum ModelSize {
    Tiny,
    Small,
    Base,
    Large,
    Huge,
}

impl ModelSize {
    /// Width, depth, heads.
    pub fn shape(self) -> [i64; 3] {
        match self {
            Self::Tiny => [192, 12, 3],
            Self::Small => [384, 12, 6],
            Self::Base => [768, 12, 12],
            Self::Large => [1024, 24, 16],
            Self::Huge => [1280, 32, 20],
        }
    }
}

/// Section `model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct ModelConfig {
    pub size: ModelSize,
    pub width: i64,
    pub depth: i64,
    pub heads: i64,
    pub stem: StemKind,
    pub patch_px: i64,
    pub positions: i64,
    pub summary_token: bool,
    pub registers: i64,
    pub pool: Pool,
    pub hidden: i64,
    pub swiglu: bool,
    pub qk_norm: bool,
    pub bias_from_priors: bool,
}

/// Section `train`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct LengthConfig {
    pub steps: u64,
    pub epochs: f64,
    pub batch: usize,
    pub image_px: usize,
    pub seed: u64,
    pub precision: Precision,
    pub recompute: bool,
    pub by_hand: ByHand,
    pub parts: usize,
    pub bn_group_samples: usize,
}

/// `train.by_hand`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub enum ByHand {
    Auto,
    Always,
    Never,
}

/// `optim.schedule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub enum ScheduleKind {
    Cosine,
    Wsd,
}

/// Section `optim`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct OptimConfig {
    pub lr_max: f64,
    pub lr_min: f64,
    pub schedule: ScheduleKind,
    pub fall_steps: u64,
    pub warmup_start: f64,
    pub warmup_steps: u64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub decay: Decay,
    pub layer_decay: f64,
    pub clip_norm: f64,
    pub ema_momentum: f64,
}

/// Section `loss`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct LossConfig {
    pub kind: LossKind,
    pub smoothing: f64,
    pub idf: bool,
}

/// `loss.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub enum LossKind {
    Bce,
    Softmax,
}

/// Section `augment`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct AugmentConfig {
    pub crop_area_min: f64,
    pub crop_area_max: f64,
    pub crop_aspect_min: f64,
    pub crop_aspect_max: f64,
    pub flip: f64,
    pub range: bool,
    pub range_psnr_start: f64,
    pub range_psnr_end: f64,
    pub range_decay: bool,
}

/// Section `eval`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct EvalConfig {
    pub every_steps: u64,
    pub batch: usize,
    pub crop_share: f64,
    pub min_positives: usize,
    pub recall_at: Vec<usize>,
}

/// Section `checkpoint`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct CheckpointConfig {
    pub every_steps: u64,
    pub keep_last: usize,
    pub keep_every_steps: u64,
}

/// Section `fault`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct FaultConfig {
    pub skipped_max: u64,
    pub spike_factor: f64,
    pub rollbacks_max: u64,
}

/// Section `dist`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct DistConfig {
    pub timeout_secs: u64,
    pub bucket_bytes: u64,
    pub share_moments: bool,
    pub nccl: bool,
    pub compare_every_steps: u64,
}

/// Section `runtime`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct RuntimeConfig {
    pub device: String,
    pub threads: usize,
    pub log_every_steps: u64,
    pub peak_tflops: f64,
    pub deterministic: bool,
    pub kernel_cache: String,
}

/// All settings of `catlip-train fit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct TrainConfig {
    pub data: DataConfig,
    pub vocab: VocabConfig,
    pub model: ModelConfig,
    pub train: LengthConfig,
    pub sampler: SamplerConfig,
    pub optim: OptimConfig,
    pub loss: LossConfig,
    pub augment: AugmentConfig,
    pub feed: FeedConfig,
    pub eval: EvalConfig,
    pub checkpoint: CheckpointConfig,
    pub fault: FaultConfig,
    pub dist: DistConfig,
    pub runtime: RuntimeConfig,
}

impl TrainConfig {
    /// The defaults, overlaid by a recipe and by `section.key=value` settings.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] naming the key, its range, or the nearest key that is known.
    pub fn load(recipe: Option<&Path>, settings: &[String]) -> Result<Self, ConfigError> {
        let config: Self = overlay(DEFAULT_TOML, recipe, settings)?;
        config.check()?;
        Ok(config)
    }

    /// What it says about the feed.
    pub fn feed_recipe(&self) -> FeedRecipe {
        let (train, augment) = (&self.train, &self.augment);
        FeedRecipe {
            data: self.data.clone(),
            vocab: self.vocab.clone(),
            train: StepsConfig {
                steps: train.steps,
                epochs: train.epochs,
                batch: train.batch,
                image_px: train.image_px,
                seed: train.seed,
            },
            sampler: self.sampler.clone(),
            augment: CropConfig {
                crop_area_min: augment.crop_area_min,
                crop_area_max: augment.crop_area_max,
                crop_aspect_min: augment.crop_aspect_min,
                crop_aspect_max: augment.crop_aspect_max,
                flip: augment.flip,
            },
            feed: self.feed.clone(),
            eval: CentreConfig { crop_share: self.eval.crop_share },
        }
    }

    /// Every key with its value: `RUN/config.toml`.
    pub fn to_toml(&self) -> String {
        let table = self.table();
        let text = toml::to_string(&table);
        text.unwrap_or_else(|error| unreachable!("a table of plain values is TOML: {error}"))
    }

    /// SHA-256 (first 8 bytes, hex) of every key that changes what a run computes.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for (key, value) in self.hashed() {
            hasher.update(format!("{key}={value}\n"));
        }
        hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first key that changes what a run computes and in which `self` and `other` differ, with
    /// both values.
    pub fn first_difference(&self, other: &Self) -> Option<[String; 3]> {
        self.first_difference_of(other, |_| true)
    }

    /// The same among the keys that are `wanted`.
    pub fn first_difference_of(
        &self,
        other: &Self,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<[String; 3]> {
        let pairs = self.hashed().into_iter().zip(other.hashed());
        pairs
            .filter(|(mine, theirs)| mine != theirs && wanted(&mine.0))
            .map(|((key, mine), (_, theirs))| [key, mine, theirs])
            .next()
    }

    fn hashed(&self) -> Vec<(String, String)> {
        let mut keys = Vec::new();
        for (section, values) in &self.table() {
            for (key, value) in values.as_table().into_iter().flatten() {
                keys.push((format!("{section}.{key}"), value.to_string()));
            }
        }
        keys.retain(|(key, _)| !NOT_HASHED.iter().any(|not| key.starts_with(not)));
        keys
    }

    fn table(&self) -> toml::Table {
        toml::Table::try_from(self)
            .unwrap_or_else(|error| unreachable!("a config of plain values is a table: {error}"))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Self { model, train, optim, augment, eval, .. } = self;
        self.feed_recipe().check()?;
        within("model.width", model.width as f64, 0.0, 16_384.0)?;
        within("model.depth", model.depth as f64, 0.0, 1024.0)?;
        within("model.heads", model.heads as f64, 0.0, 1024.0)?;
        within("model.positions", model.positions as f64, 1.0, 1e6)?;
        within("model.registers", model.registers as f64, 0.0, 64.0)?;
        within("model.hidden", model.hidden as f64, 0.0, 65_536.0)?;
        within("train.parts", train.parts as f64, 1.0, train.batch as f64)?;
        within("train.bn_group_samples", train.bn_group_samples as f64, 0.0, 1e6)?;
        within("optim.lr_max", optim.lr_max, 0.0, 10.0)?;
        within("optim.lr_min", optim.lr_min, 0.0, optim.lr_max)?;
        within("optim.warmup_start", optim.warmup_start, 0.0, optim.lr_max)?;
        within("optim.beta1", optim.beta1, 0.0, 0.999_999)?;
        within("optim.beta2", optim.beta2, 0.0, 0.999_999)?;
        within("optim.eps", optim.eps, 1e-16, 1.0)?;
        within("optim.weight_decay", optim.weight_decay, 0.0, 10.0)?;
        within("optim.layer_decay", optim.layer_decay, 0.1, 1.0)?;
        within("optim.clip_norm", optim.clip_norm, 0.0, 1e9)?;
        within("optim.ema_momentum", optim.ema_momentum, 0.0, 1.0)?;
        within("loss.smoothing", self.loss.smoothing, 0.0, 0.999)?;
        within("augment.range_psnr_start", augment.range_psnr_start, 1.0, 100.0)?;
        within("augment.range_psnr_end", augment.range_psnr_end, 1.0, 100.0)?;
        within("eval.batch", eval.batch as f64, 1.0, 65_536.0)?;
        within("checkpoint.keep_last", self.checkpoint.keep_last as f64, 1.0, 1000.0)?;
        within("fault.skipped_max", self.fault.skipped_max as f64, 1.0, 1e6)?;
        within("fault.spike_factor", self.fault.spike_factor, 0.0, 1e9)?;
        within("fault.rollbacks_max", self.fault.rollbacks_max as f64, 0.0, 1000.0)?;
        within("dist.timeout_secs", self.dist.timeout_secs as f64, 1.0, 86_400.0)?;
        within("dist.bucket_bytes", self.dist.bucket_bytes as f64, 1.0, (1_u64 << 32) as f64)?;
        within("runtime.threads", self.runtime.threads as f64, 0.0, 4096.0)?;
        within("runtime.log_every_steps", self.runtime.log_every_steps as f64, 1.0, 1e5)?;
        self.check_sampler()?;
        self.check_shape()
    }

    fn check_sampler(&self) -> Result<(), ConfigError> {
        let Self { sampler, model, .. } = self;
        let fits = i64::from(sampler.multiple_px) % model.patch_px == 0;
        if sampler.kind == SamplerKind::Variable && !fits {
            let expected = format!("a multiple of model.patch_px = {}", model.patch_px);
            return Err(refused("sampler.multiple_px", sampler.multiple_px, expected));
        }
        Ok(())
    }

    fn check_shape(&self) -> Result<(), ConfigError> {
        let [width, _, heads] = self.model_shape();
        let Self { model, .. } = self;
        let known: &[i64] = match model.stem {
            StemKind::Corenet => &[8, 16],
            StemKind::Linear => &[4, 8, 14, 16, 32],
        };
        if !known.contains(&model.patch_px) {
            let expected = format!("one of {known:?} with this model.stem");
            return Err(refused("model.patch_px", model.patch_px, expected));
        }
        if model.stem == StemKind::Linear && model.positions.isqrt().pow(2) != model.positions {
            let expected = "a square number with model.stem = linear".to_owned();
            return Err(refused("model.positions", model.positions, expected));
        }
        if model.pool == Pool::Summary && !model.summary_token {
            let expected = "true with model.pool = summary".to_owned();
            return Err(refused("model.summary_token", false, expected));
        }
        if width % heads != 0 || width % 4 != 0 {
            let expected = format!("a multiple of 4 and of the {heads} heads");
            return Err(refused("model.width", width, expected));
        }
        if self.train.image_px as i64 % self.model.patch_px != 0 {
            let expected = format!("a multiple of model.patch_px = {}", self.model.patch_px);
            return Err(refused("train.image_px", self.train.image_px, expected));
        }
        Ok(())
    }

    /// Width, depth and heads: those of the size, where the config names no others.
    pub fn model_shape(&self) -> [i64; 3] {
        let said = [self.model.width, self.model.depth, self.model.heads];
        let named = self.model.size.shape();
        [0, 1, 2].map(|i| if said[i] == 0 { named[i] } else { said[i] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(settings: &[&str]) -> Result<TrainConfig, String> {
        let settings: Vec<_> = settings.iter().map(|s| s.to_string()).collect();
        TrainConfig::load(None, &settings).map_err(|e| e.to_string())
    }

    #[test]
    fn the_default_file_is_the_default() {
        assert_eq!(load(&[]).unwrap(), TrainConfig::default());
    }

    #[test]
    fn a_written_config_reads_back() {
        let config = load(&["model.depth=4", "eval.recall_at=[2]"]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, config.to_toml()).unwrap();
        assert_eq!(TrainConfig::load(Some(&path), &[]).unwrap(), config);
    }

    #[test]
    fn a_misspelt_key_names_the_nearest() {
        let error = load(&["optim.lr_maks=1"]).unwrap_err();
        assert!(error.contains("did you mean `optim.lr_max`?"), "{error}");
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_refused() {
        assert_eq!(
            load(&["model.heads=5"]).unwrap_err(),
            "`model.width` is 192, expected a multiple of 4 and of the 5 heads"
        );
    }

    #[test]
    fn an_image_that_the_patch_does_not_divide_is_refused() {
        assert_eq!(
            load(&["train.image_px=72"]).unwrap_err(),
            "`train.image_px` is 72, expected a multiple of model.patch_px = 16"
        );
    }

    #[test]
    fn a_value_outside_its_range_is_refused_with_the_range() {
        assert_eq!(load(&["augment.flip=2"]).unwrap_err(), "`augment.flip` is 2, expected 0 to 1");
        assert!(load(&["optim.lr_max=nan"]).is_err());
    }

    #[test]
    fn the_hash_names_what_is_computed_and_not_how() {
        let config = TrainConfig::default();
        let same = load(&["runtime.threads=7", "checkpoint.every_steps=5", "feed.threads=1"]);
        assert_eq!(same.unwrap().hash(), config.hash());
        let other = load(&["optim.lr_max=2e-3"]).unwrap();
        assert_ne!(other.hash(), config.hash());
        let difference = config.first_difference(&other).unwrap();
        assert_eq!(difference, ["optim.lr_max", "0.001", "0.002"]);
    }

    /// catlip.md §5.1, key by key: what is the same for all sizes, then what is not.
    #[test]
    fn the_recipes_of_datacomp_are_the_references() {
        for (name, size, rates, shares) in [
            ("vit_b16", ModelSize::Base, [1e-3, 1e-5], 64),
            ("vit_l16", ModelSize::Large, [6e-4, 6e-6], 128),
            ("vit_h16", ModelSize::Huge, [4e-4, 4e-6], 256),
        ] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
            let recipe = folder.join(format!("{name}_datacomp.toml"));
            let config = TrainConfig::load(Some(&recipe), &[]).unwrap();
            let default = TrainConfig::default();
            let expected = TrainConfig {
                model: ModelConfig { size, ..default.model.clone() },
                train: LengthConfig {
                    steps: 200_001,
                    batch: 65_536,
                    precision: Precision::BFloat16,
                    recompute: true,
                    ..default.train.clone()
                },
                sampler: SamplerConfig {
                    kind: SamplerKind::Variable,
                    shares,
                    ..default.sampler.clone()
                },
                optim: OptimConfig {
                    lr_max: rates[0],
                    lr_min: rates[1],
                    warmup_steps: 10_000,
                    ..default.optim.clone()
                },
                augment: AugmentConfig { range: true, ..default.augment.clone() },
                checkpoint: CheckpointConfig { every_steps: 5000, ..default.checkpoint.clone() },
                ..default
            };
            assert_eq!(config, expected, "{name}");
        }
    }

    /// Whoever has only the pipeline reads the same of a recipe.
    #[test]
    fn every_recipe_is_read_and_says_the_same_to_the_feed_alone() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let entries = std::fs::read_dir(folder).unwrap();
        let recipes: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(recipes.len() >= 5);
        for recipe in recipes {
            let settings = ["train.batch=512".to_owned()];
            let config = TrainConfig::load(Some(&recipe), &settings).unwrap();
            let feed = FeedRecipe::load(DEFAULT_TOML, Some(&recipe), &settings).unwrap();
            assert_eq!(feed, config.feed_recipe(), "{}", recipe.display());
        }
        let wrong = FeedRecipe::load(DEFAULT_TOML, None, &["optim.lr_maks=1".to_owned()]);
        assert!(wrong.unwrap_err().to_string().contains("did you mean `optim.lr_max`?"));
        let wrong = FeedRecipe::load(DEFAULT_TOML, None, &["train.batch=0".to_owned()]);
        assert!(wrong.unwrap_err().to_string().contains("`train.batch` is 0, expected 1 to 65536"));
    }
}
