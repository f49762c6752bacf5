//! Steps made ready for a device: kernels loaded, attention chosen, and both held against autograd.
//!
//! In: a step plan, a device. Out: the plan as it can be fulfilled there, and what was found.
//! Never: trusts kernels on a card because they were right on another: before a run that only
//! wishes for them (`train.by_hand = "auto"`), a model of its width takes a step by them and one by
//! autograd, and updates by both.

use std::path::Path;
use std::time::Instant;

use catlip_pipeline::feed::BatchSampler;
use tch::Device;

use crate::check::{self, Check, Rows};
use crate::error::TrainError;
use crate::kernels::KernelError;
use crate::loss::Loss;
use crate::model::{AttentionChoice, BlockForm, Precision, VitPlan};
use crate::step::StepPlan;

/// Blocks and labels of the model that is tried.
const TRIED_DEPTH: i64 = 2;
const TRIED_LABELS: i64 = 77;
/// Its images, and how many patches one has on a side.
const TRIED_IMAGES: usize = 6;
const TRIED_SIDE: i64 = 4;

/// What was found on a device.
#[derive(Debug)]
pub struct Ready {
    /// The seconds until the kernels were ready, or why there are none; none were needed where
    /// nothing is given.
    pub kernels: Option<Result<f64, KernelError>>,
    /// What computes attention where blocks are passed by hand.
    pub attention: Option<AttentionChoice>,
}

/// Makes `plan` one that `device` fulfils, for steps of `vit` in the sizes of `sampler`.
///
/// # Errors
///
/// [`TrainError::Kernels`] where kernels are no wish only, or where trying them ended in an error;
/// what libtorch says.
pub fn ready(
    plan: &mut StepPlan,
    device: Device,
    kernel_cache: Option<&Path>,
    vit: &VitPlan,
    sampler: &BatchSampler,
) -> Result<Ready, TrainError> {
    let mut kernels = plan.load_kernels(device, kernel_cache)?;
    let attention = plan.fit_to(device, vit, sampler);
    if let Some(Ok(secs)) = &mut kernels
        && plan.may_be_plain
        && plan.kernels.is_some()
    {
        let start = Instant::now();
        match prove(plan, vit, device)? {
            None => *secs += start.elapsed().as_secs_f64(),
            Some(wrong) => {
                (plan.form, plan.kernels) = (BlockForm::Plain, None);
                kernels = Some(Err(wrong));
            }
        }
    }
    Ok(Ready { kernels, attention })
}

/// Tries the kernels of `plan`; gives how they are wrong, if they are.
fn prove(
    plan: &mut StepPlan,
    vit: &VitPlan,
    device: Device,
) -> Result<Option<KernelError>, TrainError> {
    let Some(form) = plan.kernels.take() else { return Ok(None) };
    let tried = VitPlan { depth: vit.depth.min(TRIED_DEPTH), num_labels: TRIED_LABELS, ..*vit };
    let plain = |precision| StepPlan {
        precision,
        range: plan.range,
        ..StepPlan::plain(Loss::Bce { smoothing: 0.1 })
    };
    let found = StepPlan {
        form: BlockForm::Fused,
        attention: plan.attention,
        attention_of_one: plan.attention_of_one,
        is_deterministic: plan.is_deterministic,
        kernels: Some(form),
        ..plain(plan.precision)
    };
    let (autograd, expected) = (plain(plan.precision), plain(Precision::Float32));
    let rows = Rows::new(TRIED_IMAGES, (TRIED_SIDE * vit.patch_px) as usize, TRIED_LABELS);
    let checks = || {
        let mut checks = check::of_step(tried, &rows, [&found, &autograd, &expected], device)?;
        checks.extend(check::of_update(tried, [&found, &expected], device)?);
        Ok::<_, TrainError>(checks)
    };
    let checks = checks().map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let message = source.unwrap_or_else(|| error.to_string());
        TrainError::Kernels(KernelError::Trial { message })
    })?;
    plan.kernels = found.kernels;
    let bad: Vec<&Check> = checks.iter().filter(|check| !check.is_good()).collect();
    Ok(bad.first().map(|first| KernelError::Wrong {
        bad: bad.len(),
        all: checks.len(),
        first: first.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::RangePlan;
    use crate::kernels::tests::emulated;
    use crate::model::KernelForm;

    /// The recipe as wide as a block of two heads.
    const RECIPE: VitPlan =
        VitPlan { range_augment: true, ..VitPlan::corenet([64, 12, 2], 196, 24_320) };

    fn proved(kernels: crate::kernels::Kernels, precision: Precision) -> Option<KernelError> {
        let kernels = KernelForm::new(kernels, Device::Cpu).unwrap();
        let plain = StepPlan::plain(Loss::Bce { smoothing: 0.0 });
        let range = Some(RangePlan { psnr: [40.0, 20.0], steps: 10, seed: 1 });
        let (form, kernels) = (BlockForm::Fused, Some(kernels));
        let mut plan = StepPlan { form, precision, range, kernels, ..plain };
        let found = prove(&mut plan, &RECIPE, Device::Cpu).unwrap();
        assert!(plan.kernels.is_some(), "it is given back");
        found
    }

    #[test]
    fn kernels_that_are_right_are_taken() {
        for precision in [Precision::Float32, Precision::BFloat16] {
            let wrong = proved(emulated::kernels(3), precision);
            assert!(wrong.is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_kernel_that_does_nothing_is_found() {
        for kernel in ["gelu_back_f32", "range_back_of_bytes_f32", "normal_gelu_sums_f32", "adamw"]
        {
            let wrong = proved(emulated::without(kernel), Precision::Float32);
            let Some(wrong @ KernelError::Wrong { .. }) = wrong else { panic!("without {kernel}") };
            let text = wrong.to_string();
            assert!(text.contains("comparisons with autograd, the first: NOT "), "{text}");
            assert!(wrong.hint().contains("selftest"));
        }
    }
}
