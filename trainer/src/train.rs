//! The run: feed → device batch → step → log, evaluate, save.
//!
//! In: a [`TrainPlan`]. Out: a run folder with checkpoints, log and report, and a [`TrainSummary`].
//! Never: prints; installs a signal handler; waits for the device but at steps that log, evaluate
//! or save; goes on with weights of which it does not know that they are good.

use std::sync::atomic::{AtomicBool, Ordering};

use catlip_pipeline::feed::{Feed, FeedPlan, FeedStats, HostBatch};
use catlip_schemas::Cursor;
use tch::Tensor;

use crate::checkpoint::{self, CheckpointError, Keep, Occasion, Saver, Share, Snapshot};
use crate::error::TrainError;
use crate::eval::{self, Evaluation};
use crate::loss::Loss;
use crate::plan::{self, TrainPlan};
use crate::ready::{Ready, ready};
use crate::report::{self, StageTime};
use crate::run_folder::{EvalLine, Fault, Log, LogLine, RollbackLine, SkippedLine, StepLine};
use crate::state::TrainState;
use crate::step::{StepMetrics, StepPlan, step};
pub use crate::train::begin::initial_weights;
use crate::train::begin::{new_state, resume, share};
use crate::train::pace::{Goodput, Interval, Pace};
use crate::train::stages::{Meters, stage_times};
pub use crate::train::watch::{Event, Watch};
use crate::upload::Uploads;

mod begin;
mod pace;
mod stages;
mod watch;

/// Share of each log step in the running mean of the loss: about the last 20 count.
const MEAN_SHARE: f64 = 0.05;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct TrainSummary {
    /// The evaluation at the end, if rows are held out.
    pub evaluation: Option<Evaluation>,
    /// How long each stage took in this process.
    pub stages: Vec<StageTime>,
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
        let metrics = run.step(host, stop)?;
        let at_end = run.state.step == steps;
        let stopping = run.stopping && !at_end;
        let log_due = is_due(run.state.step, plan.config.runtime.log_every_steps) || at_end;
        let save_due = is_due(run.state.step, plan.config.checkpoint.every_steps) || at_end;

        // --- look, and go back where the steps were bad -----------------------------------------
        // A stop does not look: what a run does must not depend on where it was stopped.
        if log_due || save_due {
            let seen = run.look(&metrics)?;
            if let Some(fault) = run.fault(&seen, log_due) {
                run.go_back(fault, &seen)?;
                feed = run.start_feed()?;
                continue;
            }
            if log_due {
                let waited_secs = feed.as_ref().map_or(0.0, |feed| feed.stats().wait_secs);
                run.log_step(&seen, waited_secs)?;
            }
        }
        run.compare()?;

        // --- evaluate ---------------------------------------------------------------------------
        if run.is_eval_due() && !stopping {
            run.evaluate()?;
        }

        // --- save -------------------------------------------------------------------------------
        if save_due || stopping {
            run.save(save_due)?;
        }
        if stopping {
            run.settle()?;
            return Err(TrainError::Interrupted { step: run.state.step, steps });
        }
    }
    run.settle()?;

    // --- the end --------------------------------------------------------------------------------
    let fed = feed.map(|feed| feed.stats());
    let evaluation = run.evaluate()?;
    run.finish(evaluation, fed)
}

/// What was read of the last step.
struct Seen {
    loss: f64,
    augment_loss: Option<f64>,
    gradient_norm: f64,
    skipped_in_row: u64,
    skipped: u64,
}

/// A run between two steps.
struct Run<'r> {
    plan: &'r TrainPlan,
    watch: &'r mut dyn Watch,
    state: TrainState,
    steps: StepPlan,
    uploads: Uploads,
    log: Log,
    saver: Saver,
    share: Share,
    rollbacks: u64,
    stopping: bool,
    meters: Meters,
    since_log: Interval,
    goodput: Goodput,
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
        let mut steps = plan::step_plan(&plan.config, loss, plan.schedule.steps);
        let (cache, sampler) = (plan.kernel_cache.as_deref(), &plan.feed.stream.sampler);
        let Ready { kernels, attention } =
            ready(&mut steps, plan.device, cache, &plan.vit, sampler)?;
        if let Some(kernels) = kernels {
            watch.see(Event::Kernels(&kernels));
        }
        if let Some(attention) = attention {
            watch.see(Event::Attention(&attention));
        }
        let world = &plan.world;
        let log = match world.is_first() {
            true => plan.run.log_from(state.step, state.step < plan.schedule.steps)?,
            false => plan.run.log_unwritten(state.step)?,
        };
        if world.is_first() {
            checkpoint::write::clean(plan.run.place())?;
        }
        let (rollbacks, last) = log.rollbacks(state.step);
        if let Some(last) = last {
            set_back(&mut state, &last)?;
        }
        let share = share(plan)?;
        world.compare(&state.weights, state.step)?;
        let num_params = state.vit.layout().num_params();
        watch.see(Event::Begun { step: state.step, num_params });
        let since_log = Interval::new(&state, world);
        Ok(Self {
            plan,
            watch,
            state,
            steps,
            uploads: Uploads::open(plan.device).map_err(TrainError::Kernels)?,
            log,
            saver: Saver::default(),
            share,
            rollbacks,
            stopping: false,
            meters: Meters::default(),
            since_log,
            goodput: Goodput::new(),
        })
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
        let left =
            FeedPlan { start: self.state.cursor.clone(), num_steps, ..self.plan.feed.clone() };
        Ok((num_steps > 0).then(|| Feed::start(left)).transpose()?)
    }

    fn step(&mut self, host: HostBatch, stop: &AtomicBool) -> Result<StepMetrics, TrainError> {
        self.goodput.begin_step();
        self.report_saved(|saver| saver.poll())?;
        let (plan, state) = (self.plan, &mut self.state);
        let (num_rows, cursor) = (host.len() as u64, host.cursor.clone());
        let batch = self.meters.copy.measure(|| self.uploads.begin(host));
        let mut batch = batch.map_err(TrainError::torch("copy a batch"))?;
        // Draws are keyed by the place in the whole step, of which this rank has a share.
        let Cursor { epoch, position, .. } = state.cursor;
        let (start, size) = match plan.feed.stream.step_at(epoch, position) {
            Some(size) => (position, size),
            None => (0, plan.feed.stream.sampler.at(epoch + 1, 0)),
        };
        batch.place.step_start = start;
        batch.place.step_rows = size.batch as usize;
        // Ranks stop together: where one was asked to, all do after the same step.
        let asked = f64::from(u8::from(stop.load(Ordering::Relaxed)));
        let [rows, asked] = plan.world.sums([batch.num_images as f64, asked], "agree on a step")?;
        if let Some(together) = &mut state.together {
            together.set_rows(rows);
        }
        self.since_log.add(rows * self.steps.image_flops(&plan.vit, size.side_px));
        let lr = plan.schedule.lr(state.step);
        let metrics = self.meters.step.measure(|| step(state, &self.steps, &batch, lr))?;
        self.uploads.settle().map_err(TrainError::torch("copy a batch"))?;
        self.meters.images += num_rows;
        state.cursor = cursor;
        self.watch.see(Event::Stepped { step: state.step });
        // One rank needs nobody's consent, and so may stop a step earlier.
        let alone = state.together.is_none() && stop.load(Ordering::Relaxed);
        self.stopping = asked > 0.0 || alone;
        self.goodput.end_step();
        Ok(metrics)
    }

    /// Reads what the step measured. Waits for the device.
    fn look(&self, metrics: &StepMetrics) -> Result<Seen, TrainError> {
        let read = |scalar: &Tensor| {
            scalar.f_double_value(&[]).map_err(TrainError::torch("read what a step measured"))
        };
        let of_images = metrics.augment_loss.as_ref().map(read).transpose()?;
        let losses = [read(&metrics.loss)?, of_images.unwrap_or(0.0)];
        let [loss, augment_loss] = self.plan.world.sums(losses, "sum the loss")?;
        let augment_loss = of_images.map(|_| augment_loss);
        let skipped = self.state.skipped().map_err(TrainError::torch("count skipped steps"))?;
        let gradient_norm = read(&metrics.gradient_norm)?;
        Ok(Seen {
            loss,
            augment_loss,
            gradient_norm,
            skipped_in_row: skipped[0],
            skipped: skipped[1],
        })
    }

    /// Whether the run must go back. The mean of the loss is that of log steps, so that it does not
    /// depend on when checkpoints are saved.
    fn fault(&mut self, seen: &Seen, is_logged: bool) -> Option<Fault> {
        let config = &self.plan.config.fault;
        if seen.skipped_in_row >= config.skipped_max {
            return Some(Fault::Skipped);
        }
        let mean = self.state.loss_mean.map(f64::from);
        let limit = mean.filter(|_| config.spike_factor > 0.0).map(|m| m * config.spike_factor);
        if limit.is_some_and(|limit| seen.loss > limit) {
            return Some(Fault::Spike);
        }
        if is_logged && seen.loss.is_finite() {
            let mean = mean.map_or(seen.loss, |mean| mean + MEAN_SHARE * (seen.loss - mean));
            self.state.loss_mean = Some(mean as f32);
        }
        None
    }

    /// Goes back to the last checkpoint whose steps were good, or to the beginning; what was read
    /// since is left out.
    fn go_back(&mut self, reason: Fault, seen: &Seen) -> Result<(), TrainError> {
        let (plan, from_step, cursor) = (self.plan, self.state.step, self.state.cursor.clone());
        self.rollbacks += 1;
        if self.rollbacks > plan.config.fault.rollbacks_max {
            let rollbacks = self.rollbacks - 1;
            return Err(TrainError::StaysBad { step: from_step, loss: seen.loss, rollbacks });
        }
        let world = &plan.world;
        let settled = self.settle();
        world.agree(settled, "save")?;
        let good = checkpoint::newest_good(plan.run.place())?;
        world.agree(Ok(()), "read a checkpoint")?;
        match &good {
            Some(whole) => whole.restore(&mut self.state)?,
            None => self.state = new_state(plan)?,
        }
        let line = RollbackLine {
            step: self.state.step,
            from_step,
            reason,
            loss: Some(seen.loss).filter(|loss| loss.is_finite()),
            skipped: seen.skipped,
            cursor,
        };
        if world.is_first() {
            checkpoint::go_back_to(plan.run.place(), good.map(|whole| whole.step()))?;
            self.log = plan.run.log_rolled_back(line.clone())?;
        }
        set_back(&mut self.state, &line)?;
        self.since_log = Interval::new(&self.state, world);
        self.goodput.undo();
        self.stopping = false;
        self.watch.see(Event::RolledBack(&line));
        Ok(())
    }

    /// Logs what was seen. `waited_secs` counts from the start of the feed.
    fn log_step(&mut self, seen: &Seen, waited_secs: f64) -> Result<(), TrainError> {
        let (step, world) = (self.state.step, &self.plan.world);
        let Pace { interval_secs, images_per_sec, wait_secs, own_secs, flops_per_sec } =
            self.since_log.end(&self.state, waited_secs, world);
        let each_secs = world.gather(own_secs, "compare the ranks' times")?;
        let slowest = slowest(&each_secs);
        if !seen.loss.is_finite() || !seen.gradient_norm.is_finite() {
            let (skipped, skipped_in_row) = (seen.skipped, seen.skipped_in_row);
            let line = SkippedLine { step, skipped, skipped_in_row };
            self.log.add(&LogLine::Skipped(line))?;
            self.watch.see(Event::Skipped(&line));
            return Ok(());
        }
        let line = StepLine {
            step,
            images_seen: self.state.images_seen,
            loss: seen.loss,
            augment_loss: seen.augment_loss,
            gradient_norm: seen.gradient_norm,
            lr: self.plan.schedule.lr(step - 1),
            images_per_sec,
            wait_secs,
            interval_secs,
            skipped: seen.skipped,
            goodput: self.goodput.share(),
            mfu: self.mfu(flops_per_sec),
            slowest_rank: slowest.map(|(rank, _)| rank),
            slowest_rank_secs: slowest.map(|(_, secs)| secs),
        };
        self.log.add(&LogLine::Step(line))?;
        self.watch.see(Event::Logged(&line));
        Ok(())
    }

    /// Operations of the model a second ÷ those that the devices could do, where that is known.
    fn mfu(&self, flops_per_sec: f64) -> Option<f64> {
        let peak = self.plan.config.runtime.peak_tflops * 1e12;
        let all = peak * f64::from(self.plan.world.size());
        (all > 0.0).then(|| flops_per_sec / all)
    }

    /// Compares the weights of all ranks, where that is due.
    fn compare(&self) -> Result<(), TrainError> {
        let step = self.state.step;
        if is_due(step, self.plan.config.dist.compare_every_steps) {
            self.plan.world.compare(&self.state.weights, step)?;
        }
        Ok(())
    }

    fn is_eval_due(&self) -> bool {
        let step = self.state.step;
        is_due(step, self.plan.config.eval.every_steps) && step < self.plan.schedule.steps
    }

    fn evaluate(&mut self) -> Result<Option<Evaluation>, TrainError> {
        let Some(plan) = self.plan.eval.as_ref().filter(|_| self.plan.world.is_first()) else {
            return Ok(None);
        };
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

    /// Copies the state and leaves the writing to a thread.
    fn save(&mut self, is_due: bool) -> Result<(), TrainError> {
        let (plan, state) = (self.plan, &self.state);
        self.since_log.pause();
        let checkpoints = &plan.config.checkpoint;
        let keep = Keep { last: checkpoints.keep_last, every_steps: checkpoints.keep_every_steps };
        let occasion = if is_due { Occasion::Due(keep) } else { Occasion::Stop };
        let take =
            || Snapshot::take(plan.run.place(), state, &plan.identity, &self.share, occasion);
        let snapshot = self.meters.save.measure(take)?;
        self.report_saved(|saver| saver.begin(snapshot))?;
        self.goodput.saved();
        self.since_log.go_on();
        Ok(())
    }

    /// Waits until what is being saved is whole.
    fn settle(&mut self) -> Result<(), TrainError> {
        self.report_saved(Saver::wait)
    }

    fn report_saved(
        &mut self,
        ask: impl FnOnce(&mut Saver) -> Result<Option<u64>, CheckpointError>,
    ) -> Result<(), TrainError> {
        if let Some(step) = ask(&mut self.saver)? {
            self.watch.see(Event::Saved { step });
        }
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
        if !self.plan.world.is_first() {
            return Ok(summary);
        }
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
        self.plan.run.put_log()?;
        if let Some(fed) = fed.filter(|fed| fed.bad_rows > 0) {
            let last = fed.last_bad_row.unwrap_or_default();
            self.watch.see(Event::BadRows { count: fed.bad_rows, last });
        }
        Ok(summary)
    }
}

/// Goes on where a run that went back does.
fn set_back(state: &mut TrainState, line: &RollbackLine) -> Result<(), TrainError> {
    state.cursor = line.cursor.clone();
    state.set_skipped([0, line.skipped]).map_err(TrainError::torch("count skipped steps"))
}

/// The rank that took longest, where there are several.
fn slowest(each_secs: &[f64]) -> Option<(u32, f64)> {
    let pairs = (0..).zip(each_secs.iter().copied());
    pairs.filter(|_| each_secs.len() > 1).max_by(|a, b| a.1.total_cmp(&b.1))
}

fn next_batch(feed: &mut Option<Feed>) -> Result<Option<HostBatch>, TrainError> {
    feed.as_mut().map_or(Ok(None), |feed| Ok(feed.next()?))
}

/// Every `every` steps; 0 is never.
fn is_due(step: u64, every: u64) -> bool {
    every != 0 && step.is_multiple_of(every)
}

#[cfg(test)]
mod tests;
