//! How fast a step is, on random images that lie on the device.
//!
//! In: a config. Out: seconds of each step of each size of the config's sampler, memory,
//! operations; images a second of the forward pass alone. Never: reads data; lets the device wait
//! for the host.
//!
//! Pixels are normal draws around grey, never zeros, on which matrix units run faster.

use std::path::Path;
use std::time::{Duration, Instant};

use catlip_schemas::Cursor;
use serde::Serialize;
use tch::{Device, Kind, TchError, Tensor};

use crate::batch::{DeviceBatch, Place};
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::loss::{Loss, SparseTargets};
use crate::model::{BlockForm, Pass, Vit};
use crate::plan::{self, OpenDevice};
use crate::ready::{Ready, ready};
use crate::shim::meter::{self, Moment};
use crate::state::TrainState;
use crate::step::{StepPlan, step};

/// Labels of each row: about what CatLIP's captions give.
const LABELS_PER_ROW: i64 = 4;
/// Steps of each size before the clock starts: libtorch chooses its kernels in them.
const WARM_UP_STEPS: u32 = 3;
/// Steps that the host may be ahead of the device: enough that the device never waits, few enough
/// that a budget is kept.
const STEPS_AHEAD: usize = 2;
/// Seed of the pixels.
const PIXEL_SEED: i64 = 0;
/// Spread of the pixels around grey, of the whole range: 5 % of them are cut at its ends.
const PIXEL_STD: f64 = 0.25;
/// Pixels that are drawn at once, as floats: 64 MiB.
const PIXELS_AT_ONCE: i64 = 1 << 24;

/// What is measured, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchBudget {
    /// How long steps are repeated.
    pub step: Duration,
    /// Whether the forward pass and the update are measured too.
    pub parts: bool,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// Trained parameters.
    pub num_params: i64,
    /// How blocks were passed: `plain`, `recompute` or `fused`.
    pub form: &'static str,
    /// What computed attention, where that was chosen by a trial.
    pub attention: Option<String>,
    /// Whether our own kernels ran, where they were asked for, or why not.
    pub kernels: Option<String>,
    /// Each size of the config's sampler, by rising side.
    pub sizes: Vec<SizeReport>,
    /// Seconds from the start to the end of the first step, weights and kernels included.
    pub first_step_secs: f64,
    /// The loss of the first step: the same for the same config on the same machine.
    pub loss: f64,
    /// The most bytes of the device that tensors took at once, images included; none on the CPU.
    pub peak_bytes: Option<u64>,
    /// The most bytes that libtorch's allocator held for them; none on the CPU.
    pub peak_held_bytes: Option<u64>,
    /// What of a step was measured alone, if it was.
    pub parts: Option<PartsReport>,
}

/// The steps of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SizeReport {
    /// Side of the images in px.
    pub side_px: u32,
    /// Images of a step.
    pub batch: u32,
    /// Tokens of an image.
    pub tokens: i64,
    /// Floating point operations of an image on both ways, by [`crate::estimate`].
    pub image_flops: f64,
    /// Seconds of each step in their order: augmentation, forward, backward, clipping, update,
    /// average.
    pub step_secs: Vec<f64>,
}

/// Parts of a step of the first size, alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PartsReport {
    /// Images a second of the forward pass in evaluation.
    pub forward_images_per_sec: f64,
    /// Seconds of one update and average without any image.
    pub update_secs: f64,
}

impl BenchReport {
    /// Images a second over all sizes.
    pub fn images_per_sec(&self) -> f64 {
        let images = |size: &SizeReport| size.step_secs.len() as f64 * f64::from(size.batch);
        let secs: f64 = self.sizes.iter().flat_map(|size| &size.step_secs).sum();
        self.sizes.iter().map(images).sum::<f64>() / secs
    }

    /// Steps that were measured.
    pub fn num_steps(&self) -> usize {
        self.sizes.iter().map(|size| size.step_secs.len()).sum()
    }
}

/// Measures the model of `config` with `num_labels` labels; kernels are kept in the folder
/// `kernel_cache`.
///
/// # Errors
///
/// [`TrainError::Torch`]; [`TrainError::Kernels`].
pub fn bench(
    config: &TrainConfig,
    device: &OpenDevice,
    kernel_cache: Option<&Path>,
    num_labels: usize,
    budget: BenchBudget,
) -> Result<BenchReport, TrainError> {
    let torch = || TrainError::torch("measure a step");
    let start = Instant::now();
    if let Device::Cuda(number) = device.device {
        meter::reset_peak(number).map_err(torch())?;
    }
    let mut state = new_state(config, device, num_labels).map_err(torch())?;
    let (plan, how) = step_plan(config, device, kernel_cache, num_labels)?;
    let batches = random_batches(config, device.device, num_labels).map_err(torch())?;
    let mut steps =
        Steps { state: &mut state, plan: &plan, lr: config.optim.lr_min, device: device.device };

    let loss = steps.one(&batches[0])?;
    let loss = loss.f_double_value(&[]).map_err(torch())?;
    let first_step_secs = start.elapsed().as_secs_f64();
    for _ in 1..WARM_UP_STEPS {
        batches.iter().try_for_each(|batch| steps.one(batch).map(|_| ()))?;
    }
    let step_secs = steps.repeat(&batches, budget.step)?;
    let parts = budget.parts.then(|| steps.parts(&batches[0], budget.step)).transpose();
    let parts = parts.map_err(torch())?;

    let peak = match device.device {
        Device::Cuda(number) => Some(meter::peak_bytes(number).map_err(torch())?),
        _ => None,
    };
    let vit = state.vit.plan();
    let sizes = config.feed_recipe().batch_sampler().sizes().to_vec();
    let sizes = sizes.into_iter().zip(step_secs).map(|(size, step_secs)| SizeReport {
        side_px: size.side_px,
        batch: size.batch,
        tokens: (i64::from(size.side_px) / vit.patch_px).pow(2) + vit.num_prefix(),
        image_flops: plan.image_flops(vit, size.side_px),
        step_secs,
    });
    Ok(BenchReport {
        num_params: state.vit.layout().num_params(),
        form: match plan.form {
            BlockForm::Plain => "plain",
            BlockForm::Recompute => "recompute",
            BlockForm::Fused => "fused",
        },
        attention: how.attention,
        kernels: how.kernels,
        sizes: sizes.collect(),
        first_step_secs,
        loss,
        peak_bytes: peak.map(|[taken, _]| taken),
        peak_held_bytes: peak.map(|[_, held]| held),
        parts,
    })
}

/// The state before the first step.
fn new_state(
    config: &TrainConfig,
    device: &OpenDevice,
    num_labels: usize,
) -> Result<TrainState, TchError> {
    let vit = Vit::new(plan::vit_plan(config, num_labels));
    let weights = vit.init(config.train.seed, None, device.device)?;
    let (adamw, momentum) = (plan::adamw_plan(config), config.optim.ema_momentum);
    TrainState::new(vit, weights, adamw, momentum, Cursor::start(0))
}

/// What was chosen on the device, in words.
struct How {
    attention: Option<String>,
    kernels: Option<String>,
}

fn step_plan(
    config: &TrainConfig,
    device: &OpenDevice,
    kernel_cache: Option<&Path>,
    num_labels: usize,
) -> Result<(StepPlan, How), TrainError> {
    let loss = Loss::new(&config.loss, 1, &vec![0; num_labels], device.device)
        .map_err(TrainError::torch("weigh the labels"))?;
    let mut plan = plan::step_plan(config, loss, 1);
    let vit = plan::vit_plan(config, num_labels);
    let sampler = config.feed_recipe().batch_sampler();
    let Ready { kernels, attention } =
        ready(&mut plan, device.device, kernel_cache, &vit, &sampler)?;
    let kernels = kernels.map(|loaded| match loaded {
        Ok(secs) => format!("kernels ready in {secs:.1} s"),
        Err(why) => format!("no kernels: {why}"),
    });
    Ok((plan, How { attention: attention.map(|choice| choice.to_string()), kernels }))
}

/// Steps that are taken to be measured.
struct Steps<'s> {
    state: &'s mut TrainState,
    plan: &'s StepPlan,
    lr: f64,
    device: Device,
}

impl Steps<'_> {
    /// Takes a step; its loss lies on the device.
    fn one(&mut self, batch: &DeviceBatch) -> Result<Tensor, TrainError> {
        Ok(step(self.state, self.plan, batch, self.lr)?.loss)
    }

    /// Takes rounds of one step of each batch until `budget` is spent, at least one; gives the
    /// seconds of each step of each batch.
    fn repeat(
        &mut self,
        batches: &[DeviceBatch],
        budget: Duration,
    ) -> Result<Vec<Vec<f64>>, TrainError> {
        let mut clock = Clock::start(self.device).map_err(TrainError::torch("read the time"))?;
        let (start, mut rounds) = (Instant::now(), 0);
        while rounds == 0 || start.elapsed() < budget {
            for batch in batches {
                _ = self.one(batch)?;
                clock.note().map_err(TrainError::torch("take a step"))?;
            }
            rounds += 1;
        }
        let secs = clock.secs().map_err(TrainError::torch("read the time"))?;
        let of_batch = |at| secs.iter().skip(at).step_by(batches.len()).copied().collect();
        Ok((0..batches.len()).map(of_batch).collect())
    }

    /// Measures the forward pass and the update alone.
    fn parts(&mut self, batch: &DeviceBatch, budget: Duration) -> Result<PartsReport, TchError> {
        let (state, lr) = (&mut *self.state, self.lr);
        let images_bchw = batch.unit_images()?;
        let forward_secs = mean_secs(budget, || {
            let logits =
                tch::no_grad(|| state.vit.forward(&state.weights, &images_bchw, Pass::EVAL))?;
            logits.f_double_value(&[0, 0]).map(|_| ())
        })?;
        let update_secs = mean_secs(budget / 4, || {
            let norm = tch::no_grad(|| state.adamw.step(&state.weights, &state.gradient, lr))?;
            if let Some(ema) = &mut state.ema {
                ema.update(&state.weights)?;
            }
            norm.f_double_value(&[]).map(|_| ())
        })?;
        Ok(PartsReport { forward_images_per_sec: batch.len() as f64 / forward_secs, update_secs })
    }
}

/// When steps end: on a GPU by its own clock, so that the host need not wait for it.
enum Clock {
    Host(Vec<Instant>),
    Cuda { number: usize, moments: Vec<Moment> },
}

impl Clock {
    fn start(device: Device) -> Result<Self, TchError> {
        Ok(match device {
            Device::Cuda(number) => Self::Cuda { number, moments: vec![Moment::note(number)?] },
            _ => Self::Host(vec![Instant::now()]),
        })
    }

    /// Notes that a step was asked for; waits for the one that is [`STEPS_AHEAD`] before it.
    fn note(&mut self) -> Result<(), TchError> {
        match self {
            Self::Host(instants) => instants.push(Instant::now()),
            Self::Cuda { number, moments } => {
                moments.push(Moment::note(*number)?);
                if let Some(before) = moments.len().checked_sub(1 + STEPS_AHEAD) {
                    moments[before].wait()?;
                }
            }
        }
        Ok(())
    }

    /// Seconds of each step. Waits for the last.
    fn secs(&self) -> Result<Vec<f64>, TchError> {
        match self {
            Self::Host(instants) => {
                let pairs = instants.windows(2);
                Ok(pairs.map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).collect())
            }
            Self::Cuda { moments, .. } => {
                moments.windows(2).map(|pair| pair[0].secs_until(&pair[1])).collect()
            }
        }
    }
}

/// Mean seconds of `work`, repeated until `budget` is spent.
fn mean_secs(
    budget: Duration,
    mut work: impl FnMut() -> Result<(), TchError>,
) -> Result<f64, TchError> {
    for _ in 0..WARM_UP_STEPS {
        work()?;
    }
    let (start, mut times) = (Instant::now(), 0_u32);
    while times == 0 || start.elapsed() < budget {
        work()?;
        times += 1;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(times))
}

/// A batch of each size of the sampler, by rising side, bytes as a feed gives them, all over the
/// same memory.
fn random_batches(
    config: &TrainConfig,
    device: Device,
    num_labels: usize,
) -> Result<Vec<DeviceBatch>, TchError> {
    let sampler = config.feed_recipe().batch_sampler();
    let sizes = sampler.sizes();
    let bytes_of = |side: u32, batch: u32| 3 * i64::from(side).pow(2) * i64::from(batch);
    let bytes = sizes.iter().map(|size| bytes_of(size.side_px, size.batch)).max().unwrap_or(0);
    let pixels = normal_bytes(bytes, device)?;
    let batch_of = |side_px: u32, batch: u32| {
        let (b, side) = (i64::from(batch), i64::from(side_px));
        let images_bhwc =
            pixels.f_narrow(0, 0, bytes_of(side_px, batch))?.f_view([b, side, side, 3])?;
        let count = Tensor::f_arange(b * LABELS_PER_ROW, (Kind::Int64, device))?;
        let rows_k = count.f_floor_divide_scalar(LABELS_PER_ROW)?;
        let labels_k = count.f_mul_scalar(7)?.f_remainder(num_labels as i64)?;
        let offsets: Vec<i64> = (0..=b).map(|row| row * LABELS_PER_ROW).collect();
        let offsets_b1 = Tensor::f_from_slice(&offsets)?.f_to_device(device)?;
        let weights_b = Tensor::f_ones([b], (Kind::Float, device))?;
        Ok(DeviceBatch {
            images_bchw: images_bhwc.f_permute([0, 3, 1, 2])?,
            num_images: u64::from(batch),
            targets: SparseTargets { rows_k, labels_k, offsets_b1, weights_b },
            offsets,
            place: Place::alone(0, 0, batch as usize),
        })
    };
    sizes.iter().map(|size| batch_of(size.side_px, size.batch)).collect()
}

/// So many normal draws around grey, in pieces, so that their floats do not count as the most
/// memory that a step took.
fn normal_bytes(bytes: i64, device: Device) -> Result<Tensor, TchError> {
    tch::manual_seed(PIXEL_SEED);
    let made = Tensor::f_empty([bytes], (Kind::Uint8, device))?;
    for from in (0..bytes).step_by(PIXELS_AT_ONCE as usize) {
        let count = PIXELS_AT_ONCE.min(bytes - from);
        let draws = Tensor::f_randn([count], (Kind::Float, device))?
            .f_mul_scalar_(255.0 * PIXEL_STD)?
            .f_add_scalar_(127.5)?
            .f_clamp_(0.0, 255.0)?;
        made.f_narrow(0, from, count)?.f_copy_(&draws)?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(settings: &[&str]) -> BenchReport {
        let base = [
            "model.width=16",
            "model.depth=1",
            "model.heads=2",
            "model.positions=4",
            "train.batch=4",
            "train.image_px=32",
            "runtime.device=cpu",
            "runtime.threads=1",
        ];
        let settings: Vec<_> = base.iter().chain(settings).map(|text| text.to_string()).collect();
        let config = TrainConfig::load(None, &settings).unwrap();
        let device = plan::open_device(&config).unwrap();
        let budget = BenchBudget { step: Duration::from_millis(5), parts: settings.len() > 9 };
        bench(&config, &device, None, 30, budget).unwrap()
    }

    #[test]
    fn a_fixed_size_has_its_steps_and_their_operations() {
        let report = measured(&["model.stem=\"linear\""]);
        let [size] = &report.sizes[..] else { panic!("{:?}", report.sizes) };
        assert_eq!((size.side_px, size.batch, size.tokens), (32, 4, 5));
        assert!(size.image_flops > 0.0 && !size.step_secs.is_empty());
        assert!(size.step_secs.iter().all(|secs| *secs > 0.0));
        assert_eq!((report.form, report.parts, report.peak_bytes), ("plain", None, None));
        assert_eq!((&report.attention, &report.kernels), (&None, &None));
        // ln 2 for each label, but for what random weights give.
        assert!((report.loss / (30.0 * 2_f64.ln()) - 1.0).abs() < 0.05, "{}", report.loss);
        assert!(report.images_per_sec() > 0.0 && report.num_steps() == size.step_secs.len());
    }

    #[test]
    fn every_size_of_the_variable_sampler_takes_equally_many_steps() {
        let report = measured(&[
            "sampler.kind=\"variable\"",
            "sampler.min_px=16",
            "sampler.max_px=48",
            "sampler.scales=3",
            "augment.range=true",
        ]);
        let sides: Vec<_> = report.sizes.iter().map(|size| (size.side_px, size.batch)).collect();
        assert_eq!(sides, [(16, 16), (32, 4), (48, 1)]);
        let steps = report.sizes[0].step_secs.len();
        assert!(report.sizes.iter().all(|size| size.step_secs.len() == steps && steps > 0));
        assert!(report.parts.unwrap().update_secs > 0.0);
    }
}
