//! The defaults in Rust; `train.default.toml` says the same, and a test holds them equal.

use super::{
    AugmentConfig, ByHand, CheckpointConfig, DataConfig, DistConfig, EvalConfig, FaultConfig,
    FeedConfig, LengthConfig, LossConfig, LossKind, ModelConfig, ModelSize, OptimConfig,
    RuntimeConfig, SamplerConfig, SamplerKind, ScheduleKind, TrainConfig, VocabConfig,
};
use crate::model::{Pool, Precision, StemKind};
use crate::optim::Decay;

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            data: DataConfig::default(),
            vocab: VocabConfig { min_count: 1, top_k: 24_320, multiple_of: 1 },
            model: model(),
            train: LengthConfig {
                steps: 0,
                epochs: 1.0,
                batch: 256,
                image_px: 224,
                seed: 0,
                precision: Precision::Float32,
                recompute: false,
                by_hand: ByHand::Auto,
                parts: 1,
                bn_group_samples: 0,
            },
            sampler: SamplerConfig {
                kind: SamplerKind::Fixed,
                min_px: 128,
                max_px: 320,
                scales: 25,
                multiple_px: 16,
                shares: 1,
            },
            optim: optim(),
            loss: LossConfig { kind: LossKind::Bce, smoothing: 0.0, idf: false },
            augment: augment(),
            feed: FeedConfig::default(),
            eval: EvalConfig {
                every_steps: 0,
                batch: 256,
                crop_share: 224.0 / 232.0,
                min_positives: 10,
                recall_at: vec![1, 5, 10],
            },
            checkpoint: CheckpointConfig { every_steps: 1000, keep_last: 3, keep_every_steps: 0 },
            fault: FaultConfig { skipped_max: 10, spike_factor: 0.0, rollbacks_max: 10 },
            dist: DistConfig {
                timeout_secs: 600,
                bucket_bytes: 25 << 20,
                share_moments: false,
                nccl: true,
                compare_every_steps: 1000,
            },
            runtime: RuntimeConfig {
                device: "auto".to_owned(),
                threads: 0,
                log_every_steps: 10,
                peak_tflops: 0.0,
                deterministic: false,
                kernel_cache: "auto".to_owned(),
            },
        }
    }
}

fn model() -> ModelConfig {
    ModelConfig {
        size: ModelSize::Tiny,
        width: 0,
        depth: 0,
        heads: 0,
        stem: StemKind::Corenet,
        patch_px: 16,
        positions: 196,
        summary_token: true,
        registers: 0,
        pool: Pool::Summary,
        hidden: 0,
        swiglu: false,
        qk_norm: false,
        bias_from_priors: false,
    }
}

fn optim() -> OptimConfig {
    OptimConfig {
        lr_max: 1e-3,
        lr_min: 1e-5,
        schedule: ScheduleKind::Cosine,
        fall_steps: 0,
        warmup_start: 1e-6,
        warmup_steps: 500,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.2,
        decay: Decay::Reference,
        layer_decay: 1.0,
        clip_norm: 1.0,
        ema_momentum: 5e-4,
    }
}

fn augment() -> AugmentConfig {
    AugmentConfig {
        crop_area_min: 0.08,
        crop_area_max: 1.0,
        crop_aspect_min: 3.0 / 4.0,
        crop_aspect_max: 4.0 / 3.0,
        flip: 0.5,
        range: false,
        range_psnr_start: 40.0,
        range_psnr_end: 20.0,
        range_decay: true,
    }
}
