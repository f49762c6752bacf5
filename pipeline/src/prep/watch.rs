//! Budget and stop flag, shared by the parts in work.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::columns::RejectRow;
use super::part::PartWatch;
use crate::config::{BadSample, BudgetConfig};
use crate::error::{PrepError, STAGE_FILTER};
use crate::metrics::PrepMetrics;

/// What the parts in work may spend, and whether they are to stop.
pub struct Watch<'w> {
    budget: &'w BudgetConfig,
    stop: &'w AtomicBool,
    /// Set when one part failed, so that the others end early.
    pub failed: AtomicBool,
    /// One lock: whoever adds the last samples sees all failures, and the other way round.
    spent: Mutex<Spent>,
    parts: u64,
    metrics: &'w PrepMetrics,
}

#[derive(Default)]
struct Spent {
    samples: u64,
    failed: u64,
    /// Where the last sample failed and why.
    last: String,
}

impl<'w> Watch<'w> {
    /// Nothing is spent yet.
    pub fn new(
        budget: &'w BudgetConfig,
        stop: &'w AtomicBool,
        metrics: &'w PrepMetrics,
        parts: u64,
    ) -> Self {
        Self {
            budget,
            stop,
            failed: AtomicBool::new(false),
            spent: Mutex::default(),
            parts,
            metrics,
        }
    }

    /// Whether no further part is to be begun.
    pub fn ends(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }
}

impl PartWatch for Watch<'_> {
    fn check(&self, samples: u64, rejects: &[RejectRow]) -> Result<(), PrepError> {
        if self.ends() {
            return Err(PrepError::Interrupted {
                done: self.metrics.parts.get(),
                parts: self.parts,
            });
        }
        // What the config does not want is no failure.
        let failures = || rejects.iter().filter(|reject| reject.stage != STAGE_FILTER);
        let mut spent = self.spent.lock().unwrap_or_else(|e| e.into_inner());
        spent.samples += samples;
        spent.failed += failures().count() as u64;
        if let Some(reject) = failures().next_back() {
            let RejectRow { source_shard, key, source_offset, message, .. } = reject;
            spent.last = failure_text(source_shard, key, *source_offset, message);
        }
        judge(self.budget, spent.samples, spent.failed, || Ok(spent.last.clone()))
    }
}

/// Where a sample failed and why, for the errors of a budget.
pub fn failure_text(shard: &str, key: &str, offset: i64, message: &str) -> String {
    format!("shard {shard}, key {key}, byte {offset}: {message}")
}

/// Refuses more failures than the budget allows; `last` says where the last one was. Asked by good
/// samples too: they may be those that end the probation.
///
/// # Errors
///
/// [`PrepError::FailureCount`], [`PrepError::FailureRate`]; those of `last`.
pub fn judge(
    budget: &BudgetConfig,
    samples: u64,
    failed: u64,
    last: impl FnOnce() -> Result<String, PrepError>,
) -> Result<(), PrepError> {
    if failed == 0 {
        return Ok(());
    }
    if budget.on_bad_sample == BadSample::Stop {
        return Err(PrepError::FailureCount { failed, samples, budget: 0, last: last()? });
    }
    if u64::try_from(budget.failure_count).is_ok_and(|count| failed > count) {
        let budget = budget.failure_count.unsigned_abs();
        return Err(PrepError::FailureCount { failed, samples, budget, last: last()? });
    }
    let rate = failed as f64 / samples.max(1) as f64;
    if samples >= budget.probation && rate > budget.failure_rate {
        return Err(PrepError::FailureRate {
            failed,
            samples,
            rate: 100.0 * rate,
            budget: 100.0 * budget.failure_rate,
            last: last()?,
        });
    }
    Ok(())
}
