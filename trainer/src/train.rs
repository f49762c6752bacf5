//! The run: feed → device batch → step → log, evaluate, save.
//!
//! In: a [`TrainPlan`]. Out: a run folder with checkpoints, log and report, and a [`TrainSummary`].
//! Never: prints; installs a signal handler; waits for the device but at steps that log, evaluate
//! or save.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use catlip_pipeline::feed::{Feed, FeedPlan, FeedStats};
use catlip_pipeline::metrics::StageMeter;
use tch::Tensor;

use crate::batch::DeviceBatch;
use crate::checkpoint::{self, CheckpointError, Damage};
use crate::error::TrainError;
use crate::eval::{self, EvalPlan, EvalSummary, Evaluation};
use crate::model::Vit;
use crate::plan::TrainPlan;
use crate::report;
use crate::run_folder::{EvalLine, Log, LogLine, StepLine};
use crate::state::TrainState;
use crate::step::step;

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'e> {
    /// The first step is about to be taken; `step` were taken before.
    Begun {
        /// Steps that were taken.
        step: u64,
        /// Trained parameters.
        num_params: i64,
    },
    /// A newer checkpoint is damaged, so an older one was taken.
    PassedOver(&'e Damage),
    /// A step was taken.
    Stepped {
        /// Steps that were taken.
        step: u64,
    },
    /// A step was logged.
    Logged(&'e StepLine),
    /// An evaluation begins.
    Evaluating {
        /// Held-out rows.
        num_rows: u64,
    },
    /// An evaluation is done.
    Evaluated {
        /// Steps that were taken.
        step: u64,
        /// Its numbers.
        summary: &'e EvalSummary,
    },
    /// A checkpoint is whole.
    Saved {
        /// Its step.
        step: u64,
    },
    /// Rows that did not decode took part with weight zero.
    BadRows {
        /// How many.
        count: u64,
        /// The last one: sample id and error.
        last: String,
    },
}

/// Whoever watches a run.
pub trait Watch {
    /// Takes note of an event.
    fn see(&mut self, event: Event<'_>);
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct TrainSummary {
    /// The evaluation at the end, if rows are held out.
    pub evaluation: Option<Evaluation>,
    /// How long each stage took in this process.
    pub stages: Vec<StageTime>,
}

/// Time and images of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTime {
    /// Its name.
    pub name: &'static str,
    /// Images that went through it.
    pub images: u64,
    /// Seconds in it, summed over its threads.
    pub busy_secs: f64,
    /// Its threads.
    pub num_threads: usize,
}

/// The stages of a run, measured.
#[derive(Debug, Default)]
struct Meters {
    copy: StageMeter,
    step: StageMeter,
    evaluate: StageMeter,
    save: StageMeter,
}

/// Trains to the end of the plan, or until `stop` is set: then the state is saved and
/// [`TrainError::Interrupted`] returned.
///
/// # Errors
///
/// [`TrainError`]; what was saved before stays.
pub fn train(
    plan: &TrainPlan,
    watch: &mut dyn Watch,
    stop: &AtomicBool,
) -> Result<TrainSummary, TrainError> {
    let steps = plan.schedule.steps;

    // --- state: new, or as the newest whole checkpoint has it ------------------------------------
    let mut state = new_state(plan)?;
    let mut saved = resume(plan, &mut state, watch)?;
    let mut log = plan.run.log_from(state.step, state.step < steps)?;
    let meters = Meters::default();
    watch.see(Event::Begun { step: state.step, num_params: state.vit.layout().num_params() });
    let eval_due = |step| is_due(step, plan.config.eval.every_steps) && step < steps;
    if saved.is_some() && eval_due(state.step) && log.last_eval() != saved {
        // A stop came between this step and its evaluation.
        evaluate(plan, &state, &mut log, &meters, watch)?;
    }

    // --- steps ----------------------------------------------------------------------------------
    let left = FeedPlan { start: state.cursor, num_steps: steps - state.step, ..plan.feed.clone() };
    let mut feed = (left.num_steps > 0).then(|| Feed::start(left)).transpose()?;
    let mut since_log = Interval::new(&state);
    while let Some(mut host) = next_batch(&mut feed)? {
        let batch = meters.copy.measure(|| DeviceBatch::from_host(&mut host, plan.device));
        let batch = batch.map_err(TrainError::torch("copy a batch"))?;
        let lr = plan.schedule.lr(state.step);
        let metrics = meters.step.measure(|| step(&mut state, &batch, lr));
        let metrics = metrics.map_err(TrainError::torch("take a step"))?;
        state.cursor = host.cursor;
        drop(host);
        watch.see(Event::Stepped { step: state.step });

        // --- log --------------------------------------------------------------------------------
        let at_end = state.step == steps;
        let stopping = stop.load(Ordering::Relaxed);
        if is_due(state.step, plan.config.runtime.log_every_steps) || at_end {
            let loss = finite(&metrics.loss, state.step)?;
            let gradient_norm = finite(&metrics.gradient_norm, state.step)?;
            let waited = feed.as_ref().map_or(0.0, |feed| feed.stats().wait_secs);
            let line = since_log.end(&state, waited, loss, gradient_norm, lr);
            log.add(&LogLine::Step(line))?;
            watch.see(Event::Logged(&line));
        }

        // --- evaluate ---------------------------------------------------------------------------
        if eval_due(state.step) && !stopping {
            since_log.pause();
            evaluate(plan, &state, &mut log, &meters, watch)?;
            since_log.go_on();
        }

        // --- save -------------------------------------------------------------------------------
        let save_due = is_due(state.step, plan.config.checkpoint.every_steps);
        if (save_due || stopping) && !at_end {
            since_log.pause();
            finite(&metrics.loss, state.step)?;
            saved = Some(save(plan, &state, &meters, watch)?);
            since_log.go_on();
        }
        if stopping && !at_end {
            return Err(TrainError::Interrupted { step: state.step, steps });
        }
    }

    // --- the end --------------------------------------------------------------------------------
    let fed = feed.map(|feed| feed.stats());
    if saved != Some(state.step) {
        save(plan, &state, &meters, watch)?;
    }
    let evaluation = evaluate(plan, &state, &mut log, &meters, watch)?;
    let summary = TrainSummary { evaluation, stages: stage_times(plan, &meters, fed.as_ref()) };
    write_report(plan, &state, &summary)?;
    if let Some(fed) = fed.filter(|fed| fed.bad_rows > 0) {
        let last = fed.last_bad_row.unwrap_or_default();
        watch.see(Event::BadRows { count: fed.bad_rows, last });
    }
    Ok(summary)
}

fn new_state(plan: &TrainPlan) -> Result<TrainState, TrainError> {
    let vit = Vit::new(plan.vit);
    let bias: Option<Vec<f32>> = plan
        .config
        .model
        .bias_from_priors
        .then(|| plan.priors.logits().into_iter().map(|logit| logit as f32).collect());
    vit.init(plan.config.train.seed, bias.as_deref(), plan.device)
        .and_then(|weights| {
            let momentum = plan.config.optim.ema_momentum;
            TrainState::new(vit, weights, plan.adamw, momentum, plan.feed.start)
        })
        .map_err(TrainError::torch("allocate the weights"))
}

/// Reads the newest whole checkpoint into `state`; gives its step. A run that was killed before its
/// first checkpoint begins anew.
fn resume(
    plan: &TrainPlan,
    state: &mut TrainState,
    watch: &mut dyn Watch,
) -> Result<Option<u64>, TrainError> {
    if !plan.resume {
        return Ok(None);
    }
    let whole = match checkpoint::newest(plan.run.path()) {
        Ok(whole) => whole,
        Err(CheckpointError::None { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    whole.passed_over.iter().for_each(|damage| watch.see(Event::PassedOver(damage)));
    whole.check(&plan.identity)?;
    whole.restore(state)?;
    Ok(Some(state.step))
}

fn next_batch(
    feed: &mut Option<Feed>,
) -> Result<Option<catlip_pipeline::feed::HostBatch>, TrainError> {
    match feed {
        Some(feed) => Ok(feed.next()?),
        None => Ok(None),
    }
}

/// Every `every` steps; 0 is never.
fn is_due(step: u64, every: u64) -> bool {
    every != 0 && step % every == 0
}

/// Reads a scalar; waits for the device.
fn finite(scalar: &Tensor, step: u64) -> Result<f64, TrainError> {
    let loss = scalar.f_double_value(&[]).map_err(TrainError::torch("read the loss"))?;
    if loss.is_finite() { Ok(loss) } else { Err(TrainError::NotFinite { step, loss }) }
}

fn evaluate(
    plan: &TrainPlan,
    state: &TrainState,
    log: &mut Log,
    meters: &Meters,
    watch: &mut dyn Watch,
) -> Result<Option<Evaluation>, TrainError> {
    let Some(eval_plan) = &plan.eval else { return Ok(None) };
    let EvalPlan { num_rows, .. } = *eval_plan;
    watch.see(Event::Evaluating { num_rows });
    let evaluation = meters
        .evaluate
        .measure(|| eval::evaluate(eval_plan, &state.vit, state.best_weights(), state.step))?;
    let summary = &evaluation.report.summary;
    log.add(&LogLine::Eval(EvalLine { step: state.step, summary: summary.clone() }))?;
    watch.see(Event::Evaluated { step: state.step, summary });
    Ok(Some(evaluation))
}

fn save(
    plan: &TrainPlan,
    state: &TrainState,
    meters: &Meters,
    watch: &mut dyn Watch,
) -> Result<u64, TrainError> {
    let keep_last = plan.config.checkpoint.keep_last;
    meters.save.measure(|| checkpoint::save(plan.run.path(), state, &plan.identity, keep_last))?;
    watch.see(Event::Saved { step: state.step });
    Ok(state.step)
}

fn write_report(
    plan: &TrainPlan,
    state: &TrainState,
    summary: &TrainSummary,
) -> Result<(), TrainError> {
    if let Some(evaluation) = &summary.evaluation {
        plan.run.write_eval(&evaluation.report)?;
    }
    let lines = plan.run.log_lines()?;
    plan.run.write_report(&report::html(plan, state.vit.layout().num_params(), &lines, summary))
}

fn stage_times(plan: &TrainPlan, meters: &Meters, fed: Option<&FeedStats>) -> Vec<StageTime> {
    let batch = plan.feed.batch as u64;
    let eval_rows = plan.eval.as_ref().map_or(0, |eval| eval.num_rows);
    let stage = |name, meter: &StageMeter, images| StageTime {
        name,
        images: meter.items() * images,
        busy_secs: meter.busy().as_secs_f64(),
        num_threads: 1,
    };
    let mut stages = Vec::new();
    if let Some(fed) = fed {
        stages.push(StageTime {
            name: "decode, crop, resize",
            images: fed.decoded,
            busy_secs: fed.decode_busy_secs,
            num_threads: plan.feed.decode_threads,
        });
        let (name, images) = ("wait for a batch", meters.step.items() * batch);
        stages.push(StageTime { name, images, busy_secs: fed.wait_secs, num_threads: 1 });
    }
    stages.push(stage("copy to the device", &meters.copy, batch));
    stages.push(stage("step", &meters.step, batch));
    stages.push(stage("evaluate", &meters.evaluate, eval_rows));
    stages.push(stage("save", &meters.save, 0));
    stages
}

/// The time since the last log line, pauses left out.
struct Interval {
    start: Instant,
    before_pause_secs: f64,
    images_seen: u64,
    waited_secs: f64,
}

impl Interval {
    fn new(state: &TrainState) -> Self {
        Self {
            start: Instant::now(),
            before_pause_secs: 0.0,
            images_seen: state.images_seen,
            waited_secs: 0.0,
        }
    }

    fn pause(&mut self) {
        self.before_pause_secs += self.start.elapsed().as_secs_f64();
    }

    fn go_on(&mut self) {
        self.start = Instant::now();
    }

    /// Ends the interval with a line and begins the next. `waited_secs` counts from the start of
    /// the feed.
    fn end(
        &mut self,
        state: &TrainState,
        waited_secs: f64,
        loss: f64,
        gradient_norm: f64,
        lr: f64,
    ) -> StepLine {
        self.pause();
        let images = (state.images_seen - self.images_seen) as f64;
        let line = StepLine {
            step: state.step,
            images_seen: state.images_seen,
            loss,
            gradient_norm,
            lr,
            images_per_sec: images / self.before_pause_secs.max(1e-9),
            wait_secs: waited_secs - self.waited_secs,
        };
        *self = Self { waited_secs, ..Self::new(state) };
        line
    }
}

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;
