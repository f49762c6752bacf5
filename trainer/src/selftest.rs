//! Tests that need the device, inside the program that is shipped: where it runs, no tool chain is.
//!
//! In: an open device. Out: one [`Check`] for each test, with its numbers. Never: prints; ends at
//! the first failure; calls a test passed that did not run: such a one says why it was skipped.
//!
//! What is exact is compared bit for bit. What is rounded is compared with the same mathematics in
//! float64 on the CPU, written by itself in `reference.rs`, by the relative error of each
//! parameter.

use std::path::Path;

use tch::{Device, TchError};

use crate::error::TrainError;

mod device;
mod reference;
mod runs;
mod steps;

/// How large the tests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Toy sizes: a second on a CPU.
    Small,
    /// Also ViT-B/16 with 24 320 labels at every size of the variable sampler: 12 GB of a GPU.
    Full,
}

/// Where tests run.
#[derive(Clone, Copy, Debug)]
pub struct On<'c> {
    /// The device.
    pub device: Device,
    /// How large they are.
    pub scale: Scale,
    /// Where kernels are kept; none: each test compiles them anew.
    pub kernel_cache: Option<&'c Path>,
}

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed, with these numbers.
    Ok(String),
    /// It did not.
    Failed(String),
    /// It did not run, and why.
    Skipped(String),
}

/// A test that was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

/// A test: a sentence, and what shows it.
type Test = (&'static str, fn(On) -> Result<Outcome, TrainError>);

/// All tests, the simplest first.
const TESTS: &[Test] = &[
    ("a product is that of float64", device::product),
    ("pages are locked, and what is copied from them arrives", device::page_lock),
    ("pixels of a batch arrive as the CPU makes them", device::pixels),
    ("a sum over NCCL of one rank is itself", device::nccl),
    ("every attention back end gives what float64 gives", device::attention),
    ("every kernel gives what float64 gives", device::kernels),
    ("a plain step has the gradients of float64", steps::plain_is_reference),
    ("a fused step has the gradients of float64", steps::fused_is_reference),
    ("a fused step in bfloat16 is as near to float64 as a plain one", steps::fused_in_bfloat16),
    ("augmented images are those of the CPU", steps::augmented),
    ("an update is that of float64", steps::update),
    ("a fused step updates as a plain one", steps::updates_agree),
    ("a step whose gradient is no number changes nothing", steps::poisoned),
    ("fused and plain steps agree over a run", runs::forms_agree),
    ("every size of the variable sampler has the plain gradients", runs::sizes_agree),
    ("two deterministic runs give the same bits", runs::deterministic),
    ("a run that is resumed gives the bits of one that is not", runs::resumed),
];

/// Runs all tests; `see` hears of each at once. Gives how many failed.
pub fn run(on: On, see: &mut dyn FnMut(&Check)) -> usize {
    let mut failed = 0;
    for &(name, test) in TESTS {
        let outcome = test(on).unwrap_or_else(|error| {
            // An error of libtorch says what was done, and its source why not.
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let reason = source.unwrap_or_default();
            Outcome::Failed(format!("{error}: {}", reason.lines().next().unwrap_or_default()))
        });
        failed += usize::from(matches!(outcome, Outcome::Failed(_)));
        see(&Check { name, outcome });
    }
    failed
}

/// The text of a step's or tensor's failure.
fn torch(error: TchError) -> TrainError {
    TrainError::torch("run a test")(error)
}

/// Passed if `found` is at most `bound`; NaN is not.
fn within(what: &str, found: f64, bound: f64) -> Outcome {
    match found <= bound {
        true => Outcome::Ok(format!("{what} {found:.1e}, bound {bound:.1e}")),
        false => Outcome::Failed(format!("{what} {found:.1e}, above the bound of {bound:.1e}")),
    }
}

/// One outcome of several: the first that failed, or what all say.
fn all(outcomes: Vec<Outcome>) -> Outcome {
    if let Some(failed) = outcomes.iter().find(|o| matches!(o, Outcome::Failed(_))) {
        return failed.clone();
    }
    let texts: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Ok(text) | Outcome::Failed(text) => text.clone(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        })
        .collect();
    match outcomes.iter().any(|o| matches!(o, Outcome::Ok(_))) {
        true => Outcome::Ok(texts.join("; ")),
        false => Outcome::Skipped(texts.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_kept_or_named_and_no_number_keeps_none() {
        assert_eq!(within("off by", 0.5, 1.0), Outcome::Ok("off by 5.0e-1, bound 1.0e0".into()));
        assert!(matches!(within("off by", 2.0, 1.0), Outcome::Failed(_)));
        assert!(matches!(within("off by", f64::NAN, 1.0), Outcome::Failed(_)));
    }

    #[test]
    fn one_failure_fails_all_and_only_skipped_ones_are_skipped() {
        let [ok, failed, skipped] =
            [Outcome::Ok("a".into()), Outcome::Failed("b".into()), Outcome::Skipped("c".into())];
        assert_eq!(all(vec![ok.clone(), failed.clone(), skipped.clone()]), failed);
        assert_eq!(all(vec![ok, skipped.clone()]), Outcome::Ok("a; skipped: c".into()));
        assert_eq!(all(vec![skipped]), Outcome::Skipped("skipped: c".into()));
    }
}
