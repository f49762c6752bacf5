//! How fast a step is, on random images.
//!
//! In: a config. Out: images a second of the step and of the forward pass alone. Never: reads data.

use std::time::{Duration, Instant};

use catlip_schemas::Cursor;
use tch::{Kind, TchError, Tensor};

use crate::batch::{DeviceBatch, Place};
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::loss::{Loss, SparseTargets};
use crate::model::{Pass, Vit};
use crate::plan::{self, OpenDevice};
use crate::state::TrainState;
use crate::step::step;

/// Labels of each row: about what CatLIP's captions give.
const LABELS_PER_ROW: i64 = 4;
/// Steps before the clock starts: libtorch chooses its kernels in them.
const WARM_UP_STEPS: u32 = 3;

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchReport {
    /// Trained parameters.
    pub num_params: i64,
    /// Steps that were measured.
    pub steps: u32,
    /// Images a second: forward, backward, clipping, update, average.
    pub step_images_per_sec: f64,
    /// Images a second of the forward pass in evaluation.
    pub forward_images_per_sec: f64,
    /// Seconds of one update and average without any image.
    pub update_secs: f64,
    /// The last loss: the same for the same config on the same machine.
    pub loss: f64,
}

/// Measures the model of `config` with `num_labels` labels for about `budget` each.
///
/// # Errors
///
/// [`TrainError::Torch`].
pub fn bench(
    config: &TrainConfig,
    device: &OpenDevice,
    num_labels: usize,
    budget: Duration,
) -> Result<BenchReport, TrainError> {
    measure(config, device, num_labels, budget).map_err(TrainError::torch("measure a step"))
}

/// A step of one rank fails only where libtorch does.
fn of_torch(error: TrainError) -> TchError {
    match error {
        TrainError::Torch { source, .. } => source,
        other => TchError::Torch(other.to_string()),
    }
}

fn measure(
    config: &TrainConfig,
    device: &OpenDevice,
    num_labels: usize,
    budget: Duration,
) -> Result<BenchReport, TchError> {
    let vit = Vit::new(plan::vit_plan(config, num_labels));
    let num_params = vit.layout().num_params();
    let weights = vit.init(config.train.seed, None, device.device)?;
    let cursor = Cursor::start(0);
    let (adamw, momentum) = (plan::adamw_plan(config), config.optim.ema_momentum);
    let mut state = TrainState::new(vit, weights, adamw, momentum, cursor)?;
    let loss = Loss::new(&config.loss, 1, &vec![0; num_labels], device.device)?;
    let mut plan = plan::step_plan(config, loss, 1);
    let cache = plan::kernel_cache(config, None);
    _ = plan.load_kernels(device.device, cache.as_deref()).map_err(of_torch)?;
    plan.fit_to(
        device.device,
        &plan::vit_plan(config, num_labels),
        &config.feed_recipe().batch_sampler(),
    );
    let batch = waves(config, device, num_labels)?;
    let lr = config.optim.lr_min;

    let mut loss = 0.0;
    let (steps, step_secs) = repeat(budget, || {
        let metrics = step(&mut state, &plan, &batch, lr).map_err(of_torch)?;
        loss = metrics.loss.f_double_value(&[])?;
        Ok(())
    })?;
    let (_, forward_secs) = repeat(budget, || {
        let logits =
            tch::no_grad(|| state.vit.forward(&state.weights, &batch.images_bchw, Pass::EVAL))?;
        logits.f_double_value(&[0, 0]).map(|_| ())
    })?;
    let (_, update_secs) = repeat(budget / 4, || {
        let norm = tch::no_grad(|| state.adamw.step(&state.weights, &state.gradient, lr))?;
        if let Some(ema) = &mut state.ema {
            ema.update(&state.weights)?;
        }
        norm.f_double_value(&[]).map(|_| ())
    })?;
    let images = config.train.batch as f64;
    Ok(BenchReport {
        num_params,
        steps,
        step_images_per_sec: images / step_secs,
        forward_images_per_sec: images / forward_secs,
        update_secs,
        loss,
    })
}

/// Runs `work` until `budget` is spent; gives how often, and the mean seconds.
fn repeat(
    budget: Duration,
    mut work: impl FnMut() -> Result<(), TchError>,
) -> Result<(u32, f64), TchError> {
    for _ in 0..WARM_UP_STEPS {
        work()?;
    }
    let (start, mut times) = (Instant::now(), 0);
    while times == 0 || start.elapsed() < budget {
        work()?;
        times += 1;
    }
    Ok((times, start.elapsed().as_secs_f64() / f64::from(times)))
}

/// A batch of sines: full of detail, and the same everywhere.
fn waves(
    config: &TrainConfig,
    device: &OpenDevice,
    num_labels: usize,
) -> Result<DeviceBatch, TchError> {
    let (b, side) = (config.train.batch as i64, config.train.image_px as i64);
    let on_device = (Kind::Float, device.device);
    let images_bhwc = Tensor::f_arange(b * side * side * 3, on_device)?
        .f_mul_scalar(0.37)?
        .f_sin()?
        .f_mul_scalar(0.5)?
        .f_add_scalar(0.5)?
        .f_view([b, side, side, 3])?;
    let count = Tensor::f_arange(b * LABELS_PER_ROW, (Kind::Int64, device.device))?;
    let rows_k = count.f_floor_divide_scalar(LABELS_PER_ROW)?;
    let labels_k = count.f_mul_scalar(7)?.f_remainder(num_labels as i64)?;
    let offsets: Vec<i64> = (0..=b).map(|row| row * LABELS_PER_ROW).collect();
    Ok(DeviceBatch {
        images_bchw: images_bhwc.f_permute([0, 3, 1, 2])?,
        num_images: config.train.batch as u64,
        targets: SparseTargets {
            rows_k,
            labels_k,
            offsets_b1: Tensor::f_from_slice(&offsets)?.f_to_device(device.device)?,
            weights_b: Tensor::f_ones([b], on_device)?,
        },
        offsets,
        place: Place::alone(0, 0, b as usize),
    })
}
