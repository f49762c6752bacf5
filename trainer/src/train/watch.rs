//! What a run tells whoever watches it.
//!
//! In: events. Out: nothing that the run would depend on. Never: a terminal, which is `cli`'s.

use crate::checkpoint::Damage;
use crate::eval::EvalSummary;
use crate::kernels::KernelError;
use crate::model::AttentionChoice;
use crate::run_folder::{RollbackLine, SkippedLine, StepLine};

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
    /// Seconds until our own kernels were ready, or why there are none and autograd does the work.
    Kernels(&'e Result<f64, KernelError>),
    /// What computes attention was chosen by a trial.
    Attention(&'e AttentionChoice),
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
    /// The run went back to an earlier checkpoint.
    RolledBack(&'e RollbackLine),
    /// A step is looked at whose gradient was no number.
    Skipped(&'e SkippedLine),
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
