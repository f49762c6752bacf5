//! The run: feed → device batch → step → log, evaluate, save.
//!
//! In: a [`TrainPlan`]. Out: a run folder with checkpoints, log and report, and a [`TrainSummary`].
//! Never: prints; installs a signal handler; waits for the device but at steps that log, evaluate
//! or save.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use catlip_pipeline::feed::{Feed, FeedPlan, FeedStats, HostBatch};
use catlip_pipeline::metrics::{PrepLog, StageMeter};
use tch::Tensor;

use crate::batch::DeviceBatch;
use crate::checkpoint::{self, CheckpointError, Damage};
use crate::error::TrainError;
use crate::eval::{self, EvalSummary, Evaluation};
use crate::loss::Loss;
use crate::model::{Vit, Weights};
use crate::plan::{self, TrainPlan};
use crate::report::{self, StageTime};
use crate::run_folder::{EvalLine, Log, LogLine, StepLine};
use crate::state::TrainState;
use crate::step::{StepMetrics, StepPlan, step};

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

/// The stages of a run, measured.
#[derive(Debug, Default)]
struct Meters {
    images: u64,
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
    let mut run = Run::begin(plan, watch)?;
    run.catch_up()?;

    // --- steps ----------------------------------------------------------------------------------
    let mut feed = run.start_feed()?;
    while let Some(host) = next_batch(&mut feed)? {
        let metrics = run.step(host)?;
        let at_end = run.state.step == steps;
        let stopping = stop.load(Ordering::Relaxed) && !at_end;

        // --- log --------------------------------------------------------------------------------
        if is_due(run.state.step, plan.config.runtime.log_every_steps) || at_end {
            let waited_secs = feed.as_ref().map_or(0.0, |feed| feed.stats().wait_secs);
            run.log_step(&metrics, waited_secs)?;
        }

        // --- evaluate ---------------------------------------------------------------------------
        if run.is_eval_due() && !stopping {
            run.evaluate()?;
        }

        // --- save -------------------------------------------------------------------------------
        if is_due(run.state.step, plan.config.checkpoint.every_steps) || stopping || at_end {
            finite(&metrics.loss, run.state.step)?;
            run.save()?;
        }
        if stopping {
            return Err(TrainError::Interrupted { step: run.state.step, steps });
        }
    }

    // --- the end --------------------------------------------------------------------------------
    let fed = feed.map(|feed| feed.stats());
    let evaluation = run.evaluate()?;
    run.finish(evaluation, fed)
}

/// A run between two steps.
struct Run<'r> {
    plan: &'r TrainPlan,
    watch: &'r mut dyn Watch,
    state: TrainState,
    steps: StepPlan,
    log: Log,
    meters: Meters,
    since_log: Interval,
}

impl<'r> Run<'r> {
    /// Makes the state, reads the newest whole checkpoint into it if the plan says so, and cuts the
    /// log back to it.
    fn begin(plan: &'r TrainPlan, watch: &'r mut dyn Watch) -> Result<Self, TrainError> {
        let mut state = new_state(plan)?;
        if plan.resume {
            resume(plan, &mut state, watch)?;
        }
        let priors = &plan.priors;
        let loss = Loss::new(&plan.config.loss, priors.rows, &priors.positives, plan.device)
            .map_err(TrainError::torch("weigh the labels"))?;
        let steps = plan::step_plan(&plan.config, loss, plan.schedule.steps);
        let log = plan.run.log_from(state.step, state.step < plan.schedule.steps)?;
        let num_params = state.vit.layout().num_params();
        watch.see(Event::Begun { step: state.step, num_params });
        let since_log = Interval::new(&state);
        Ok(Self { plan, watch, state, steps, log, meters: Meters::default(), since_log })
    }

    /// Evaluates a step that was saved by a stop before its evaluation.
    fn catch_up(&mut self) -> Result<(), TrainError> {
        let step = self.state.step;
        if step > 0 && self.is_eval_due() && self.log.last_eval() != Some(step) {
            self.evaluate()?;
        }
        Ok(())
    }

    /// Starts the feed where the state is; none if all steps were taken.
    fn start_feed(&self) -> Result<Option<Feed>, TrainError> {
        let num_steps = self.plan.schedule.steps - self.state.step;
        let left = FeedPlan { start: self.state.cursor, num_steps, ..self.plan.feed.clone() };
        Ok((num_steps > 0).then(|| Feed::start(left)).transpose()?)
    }

    fn step(&mut self, mut host: HostBatch) -> Result<StepMetrics, TrainError> {
        let (plan, state) = (self.plan, &mut self.state);
        let batch = self.meters.copy.measure(|| DeviceBatch::from_host(&mut host, plan.device));
        let batch = batch.map_err(TrainError::torch("copy a batch"))?;
        let lr = plan.schedule.lr(state.step);
        let metrics = self.meters.step.measure(|| step(state, &self.steps, &batch, lr));
        self.meters.images += host.len() as u64;
        state.cursor = host.cursor;
        self.watch.see(Event::Stepped { step: state.step });
        metrics.map_err(TrainError::torch("take a step"))
    }

    /// Reads what the step measured and logs it. `waited_secs` counts from the start of the feed.
    fn log_step(&mut self, metrics: &StepMetrics, waited_secs: f64) -> Result<(), TrainError> {
        let step = self.state.step;
        let loss = finite(&metrics.loss, step)?;
        let gradient_norm = finite(&metrics.gradient_norm, step)?;
        let augment_loss = metrics.augment_loss.as_ref();
        let augment_loss = augment_loss.map(|loss| finite(loss, step)).transpose()?;
        let (images_per_sec, wait_secs) = self.since_log.end(&self.state, waited_secs);
        let line = StepLine {
            step,
            images_seen: self.state.images_seen,
            loss,
            augment_loss,
            gradient_norm,
            lr: self.plan.schedule.lr(step - 1),
            images_per_sec,
            wait_secs,
        };
        self.log.add(&LogLine::Step(line))?;
        self.watch.see(Event::Logged(&line));
        Ok(())
    }

    fn is_eval_due(&self) -> bool {
        let step = self.state.step;
        is_due(step, self.plan.config.eval.every_steps) && step < self.plan.schedule.steps
    }

    fn evaluate(&mut self) -> Result<Option<Evaluation>, TrainError> {
        let Some(plan) = &self.plan.eval else { return Ok(None) };
        let (state, step) = (&self.state, self.state.step);
        self.since_log.pause();
        self.watch.see(Event::Evaluating { num_rows: plan.num_rows });
        let evaluate = || eval::evaluate(plan, &state.vit, state.best_weights(), step);
        let evaluation = self.meters.evaluate.measure(evaluate)?;
        let summary = &evaluation.report.summary;
        self.log.add(&LogLine::Eval(EvalLine { step, summary: summary.clone() }))?;
        self.watch.see(Event::Evaluated { step, summary });
        self.since_log.go_on();
        Ok(Some(evaluation))
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let (plan, state) = (self.plan, &self.state);
        let keep_last = plan.config.checkpoint.keep_last;
        self.since_log.pause();
        let save = || checkpoint::save(plan.run.path(), state, &plan.identity, keep_last);
        self.meters.save.measure(save)?;
        self.watch.see(Event::Saved { step: state.step });
        self.since_log.go_on();
        Ok(())
    }

    /// Writes what a person reads.
    fn finish(
        self,
        evaluation: Option<Evaluation>,
        fed: Option<FeedStats>,
    ) -> Result<TrainSummary, TrainError> {
        let stages = stage_times(self.plan, &self.meters, fed.as_ref());
        let summary = TrainSummary { evaluation, stages };
        if let Some(evaluation) = &summary.evaluation {
            self.plan.run.write_eval(&evaluation.report)?;
        }
        let (lines, num_params) =
            (self.plan.run.log_lines()?, self.state.vit.layout().num_params());
        let page = report::html(
            self.plan,
            num_params,
            &lines,
            summary.evaluation.as_ref(),
            &summary.stages,
        );
        self.plan.run.write_report(&page)?;
        if let Some(fed) = fed.filter(|fed| fed.bad_rows > 0) {
            let last = fed.last_bad_row.unwrap_or_default();
            self.watch.see(Event::BadRows { count: fed.bad_rows, last });
        }
        Ok(summary)
    }
}

/// The model of a run and the weights that it begins with.
///
/// # Errors
///
/// [`TrainError::Torch`], such as out of memory.
pub fn initial_weights(plan: &TrainPlan) -> Result<(Vit, Weights), TrainError> {
    let vit = Vit::new(plan.vit);
    let bias: Option<Vec<f32>> = plan
        .config
        .model
        .bias_from_priors
        .then(|| plan.priors.logits().into_iter().map(|logit| logit as f32).collect());
    let weights = vit.init(plan.config.train.seed, bias.as_deref(), plan.device);
    Ok((vit, weights.map_err(TrainError::torch("allocate the weights"))?))
}

fn new_state(plan: &TrainPlan) -> Result<TrainState, TrainError> {
    let (vit, weights) = initial_weights(plan)?;
    let momentum = plan.config.optim.ema_momentum;
    TrainState::new(vit, weights, plan.adamw, momentum, plan.feed.start)
        .map_err(TrainError::torch("allocate the state"))
}

/// Reads the newest whole checkpoint into `state`. A run that was killed before its first one
/// begins anew.
fn resume(
    plan: &TrainPlan,
    state: &mut TrainState,
    watch: &mut dyn Watch,
) -> Result<(), TrainError> {
    let whole = match checkpoint::newest(plan.run.path()) {
        Ok(whole) => whole,
        Err(CheckpointError::None { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    whole.passed_over.iter().for_each(|damage| watch.see(Event::PassedOver(damage)));
    whole.check(&plan.identity)?;
    Ok(whole.restore(state)?)
}

fn next_batch(feed: &mut Option<Feed>) -> Result<Option<HostBatch>, TrainError> {
    feed.as_mut().map_or(Ok(None), |feed| Ok(feed.next()?))
}

/// Every `every` steps; 0 is never.
fn is_due(step: u64, every: u64) -> bool {
    every != 0 && step.is_multiple_of(every)
}

/// Reads a scalar; waits for the device.
fn finite(scalar: &Tensor, step: u64) -> Result<f64, TrainError> {
    let loss = scalar.f_double_value(&[]).map_err(TrainError::torch("read the loss"))?;
    if loss.is_finite() { Ok(loss) } else { Err(TrainError::NotFinite { step, loss }) }
}

fn stage_times(plan: &TrainPlan, meters: &Meters, fed: Option<&FeedStats>) -> Vec<StageTime> {
    let eval_rows = plan.eval.as_ref().map_or(0, |eval| eval.num_rows);
    let evaluated = meters.evaluate.items() * eval_rows;
    let stage = |name: &str, meter: &StageMeter, images| StageTime {
        name: name.to_owned(),
        images,
        busy_secs: meter.busy().as_secs_f64(),
        num_threads: 1,
    };
    let mut stages: Vec<_> = plan.prep_logs.iter().flat_map(prep_times).collect();
    if let Some(fed) = fed {
        stages.push(StageTime {
            name: "decode, crop, resize".to_owned(),
            images: fed.decoded,
            busy_secs: fed.decode_busy_secs,
            num_threads: plan.feed.decode_threads,
        });
        stages.push(StageTime {
            name: "wait for a batch".to_owned(),
            images: meters.images,
            busy_secs: fed.wait_secs,
            num_threads: 1,
        });
    }
    stages.push(stage("copy to the device", &meters.copy, meters.images));
    stages.push(stage("step", &meters.step, meters.images));
    stages.push(stage("evaluate", &meters.evaluate, evaluated));
    stages.push(stage("save", &meters.save, 0));
    stages
}

/// The stages of a prep job; each of its threads takes a sample through all of them.
fn prep_times(log: &PrepLog) -> impl Iterator<Item = StageTime> {
    log.stages.iter().map(|stage| StageTime {
        name: format!("prep: {}", stage.stage),
        // Whole files are written, not images.
        images: if stage.stage == "write" { log.rows } else { stage.items },
        busy_secs: stage.busy_secs,
        num_threads: log.threads,
    })
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

    /// Ends the interval and begins the next; gives images a second and seconds of waiting.
    /// `waited_secs` counts from the start of the feed.
    fn end(&mut self, state: &TrainState, waited_secs: f64) -> (f64, f64) {
        self.pause();
        let images = (state.images_seen - self.images_seen) as f64;
        let images_per_sec = images / self.before_pause_secs.max(1e-9);
        let wait_secs = waited_secs - self.waited_secs;
        *self = Self { waited_secs, ..Self::new(state) };
        (images_per_sec, wait_secs)
    }
}

#[cfg(test)]
mod tests;
