//! What a run tells while it goes on: a bar on a terminal, lines elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{difference_text, say};
use crate::plan::TrainPlan;
use crate::run_folder::{Fault, StepLine};
use crate::train::{Event, Watch};

/// A bar on a terminal, lines elsewhere.
pub(super) struct Progress {
    bar: ProgressBar,
    steps: u64,
    /// Whether this is the first rank; the others only tell of faults.
    is_first: bool,
}

impl Progress {
    pub(super) fn new(plan: &TrainPlan) -> Self {
        let (steps, is_first) = (plan.schedule.steps, plan.world.is_first());
        if !is_first || !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), steps, is_first };
        }
        let bar = ProgressBar::new(steps);
        let template = "{bar:30} step {pos}/{len}  {msg}  {elapsed} of {duration}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, steps, is_first }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        if !self.is_first {
            return;
        }
        if self.bar.is_hidden() {
            say(text);
        } else {
            self.bar.println(text);
        }
    }
}

fn step_text(line: &StepLine) -> String {
    let StepLine { loss, lr, images_per_sec, .. } = line;
    let waited = 100.0 * line.data_wait_share();
    let mut text = format!(
        "loss {loss:.4}  lr {lr:.2e}  {images_per_sec:.0} images/s  data wait {waited:.1} %"
    );
    if let Some(mfu) = line.mfu {
        _ = write!(text, "  MFU {:.1} %", 100.0 * mfu);
    }
    text
}

impl Watch for Progress {
    fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Begun { step, num_params } => {
                let params = num_params as f64 / 1e6;
                self.line(&format!("begin at step {step} with {params:.1} M parameters"));
                self.bar.set_position(step);
                self.bar.reset_elapsed();
            }
            Event::Kernels(Ok(secs)) => {
                self.line(&format!("blocks by our own kernels, ready in {secs:.1} s"));
            }
            Event::Kernels(Err(error)) => {
                let hint = error.hint();
                self.line(&format!("blocks by autograd, since {error}\nhint: {hint}"));
            }
            Event::Attention(choice) => self.line(&choice.to_string()),
            Event::PassedOver(damage) => self.line(&format!(
                "warning: checkpoint of step {} is passed over: {}",
                damage.step, damage.message
            )),
            Event::Stepped { step } => self.bar.set_position(step),
            Event::Logged(line) if self.bar.is_hidden() => {
                self.line(&format!("step {}/{}  {}", line.step, self.steps, step_text(line)));
            }
            Event::Logged(line) => self.bar.set_message(step_text(line)),
            Event::Evaluating { num_rows } => {
                self.bar.set_message(format!("evaluating {num_rows} held-out rows"));
            }
            Event::Evaluated { step, summary } => {
                let map = summary.map.map_or_else(|| "–".to_owned(), |map| format!("{map:.3}"));
                self.line(&format!(
                    "step {step}: held-out BCE {:.4} ({} than the baseline), mAP {map}",
                    summary.bce,
                    difference_text(summary.bce_improvement_percent)
                ));
            }
            Event::RolledBack(line) => self.line(&format!(
                "warning: went back from step {} to step {}: {}",
                line.from_step,
                line.step,
                match line.reason {
                    Fault::Skipped => "too many steps in a row had a gradient that is no number",
                    Fault::Spike => "the loss rose above `fault.spike_factor` × its mean",
                }
            )),
            Event::Skipped(line) => self.line(&format!(
                "warning: step {} was skipped, its gradient is no number; {} so far",
                line.step, line.skipped
            )),
            Event::Saved { step } => self.line(&format!("step {step}: saved")),
            Event::BadRows { count, last } => self.line(&format!(
                "warning: {count} rows did not decode and counted for nothing; the last: {last}"
            )),
        }
    }
}
