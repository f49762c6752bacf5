//! The lines of `log.jsonl`.
//!
//! In: what a step, an evaluation or a fault measured. Out: one JSON object a line, and the same
//! numbers as events of TensorBoard. Never: opens a file.

use catlip_schemas::Cursor;
use serde::{Deserialize, Serialize};

use crate::eval::EvalSummary;
use crate::tensorboard::EventFile;

/// One line of `log.jsonl`. Fields that end in `_secs` or `_per_sec`, `goodput`, `mfu` and
/// `slowest_rank` differ between machines; all others are a function of the config and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LogLine {
    /// A step of training.
    Step(StepLine),
    /// An evaluation on the held-out rows.
    Eval(EvalLine),
    /// A log step whose gradient was no number.
    Skipped(SkippedLine),
    /// A return to an earlier checkpoint.
    Rollback(RollbackLine),
}

/// What is logged of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Steps that were taken.
    pub step: u64,
    /// Images that were seen.
    pub images_seen: u64,
    /// Loss of this step's batch, per row.
    pub loss: f64,
    /// Loss of the distance to the images before the learned augmentation, if that is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment_loss: Option<f64>,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Images a second since the line before, waiting included, evaluation and saving not.
    pub images_per_sec: f64,
    /// Seconds of that time in which the trainer waited for the feed.
    pub wait_secs: f64,
    /// That time in seconds.
    #[serde(default)]
    pub interval_secs: f64,
    /// Steps so far that were skipped because their gradient was no number.
    #[serde(default)]
    pub skipped: u64,
    /// Share of this process's wall time that went into steps which were accepted and stayed.
    #[serde(default)]
    pub goodput: f64,
    /// Share of the devices' operations that the model's were since the line before, where
    /// `runtime.peak_tflops` says what they could do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The rank that took longest since the line before, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowest_rank: Option<u32>,
    /// Seconds that it took, waiting for other ranks left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowest_rank_secs: Option<f64>,
}

impl StepLine {
    /// Share of the time in which the trainer waited for the feed.
    pub fn data_wait_share(&self) -> f64 {
        self.wait_secs / self.interval_secs.max(1e-9)
    }
}

/// What is logged of a step that changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkippedLine {
    /// Steps that were taken, those that were skipped too.
    pub step: u64,
    /// How many were skipped so far.
    pub skipped: u64,
    /// How many of them are the last ones in a row.
    pub skipped_in_row: u64,
}

/// What is logged of a return to an earlier checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RollbackLine {
    /// The step that the run went back to.
    pub step: u64,
    /// The step after which it did.
    pub from_step: u64,
    /// Why.
    pub reason: Fault,
    /// Loss at that step; none if it was no number.
    pub loss: Option<f64>,
    /// Steps so far that were skipped, those that are undone too.
    pub skipped: u64,
    /// Where the feed goes on: everything before it was read, and is left out.
    pub cursor: Cursor,
}

/// Why a run goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// Too many steps in a row were skipped.
    Skipped,
    /// The loss rose above its mean.
    Spike,
}

/// What is logged of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalLine {
    /// Steps that were taken.
    pub step: u64,
    /// Its numbers.
    #[serde(flatten)]
    pub summary: EvalSummary,
}

impl LogLine {
    pub(super) fn step(&self) -> u64 {
        match self {
            Self::Step(line) => line.step,
            Self::Eval(line) => line.step,
            Self::Skipped(line) => line.step,
            Self::Rollback(line) => line.step,
        }
    }

    /// Writes its numbers as an event of TensorBoard.
    pub(super) fn tell(&self, events: &mut EventFile) -> std::io::Result<()> {
        match self {
            Self::Step(line) => {
                let mut numbers = vec![
                    ("train/loss", line.loss),
                    ("train/gradient_norm", line.gradient_norm),
                    ("train/lr", line.lr),
                    ("train/images_seen", line.images_seen as f64),
                    ("speed/images_per_sec", line.images_per_sec),
                    ("speed/wait_secs", line.wait_secs),
                ];
                numbers.push(("speed/goodput", line.goodput));
                numbers.extend(line.mfu.map(|mfu| ("speed/mfu", mfu)));
                numbers.extend(line.augment_loss.map(|loss| ("train/augment_loss", loss)));
                events.add(line.step, &numbers)
            }
            Self::Eval(line) => {
                let summary = &line.summary;
                let mut numbers = vec![
                    ("eval/bce", summary.bce),
                    ("eval/bce_improvement_percent", summary.bce_improvement_percent),
                ];
                numbers.extend(summary.map.map(|map| ("eval/map", map)));
                numbers.extend(summary.map_micro.map(|map| ("eval/map_micro", map)));
                let recall: Vec<_> = summary
                    .recall
                    .iter()
                    .map(|recall| (format!("eval/recall_at_{}", recall.at), recall.model))
                    .collect();
                numbers.extend(recall.iter().map(|(tag, recall)| (tag.as_str(), *recall)));
                events.add(line.step, &numbers)
            }
            Self::Skipped(line) => {
                events.add(line.step, &[("faults/skipped", line.skipped as f64)])
            }
            Self::Rollback(line) => {
                events.add(line.step, &[("faults/back_from_step", line.from_step as f64)])
            }
        }
    }
}
