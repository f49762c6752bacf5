//! `catlip-train fit --dry-run`: what a run will cost, before it is begun.

use std::fmt::Write;
use std::path::Path;

use catlip_pipeline::feed::{DataPlace, DataSets};

use crate::config::{ByHand, TrainConfig};
use crate::error::TrainError;
use crate::estimate::{image_cost, state_bytes};
use crate::model::params::{Part, Role};
use crate::model::{BlockForm, Vit};
use crate::plan;
use crate::report::step_sizes;

/// Parameters, operations, memory, images per epoch of the run of `config`.
pub(super) fn text(
    config: &TrainConfig,
    data: &[DataPlace],
    vocab: Option<&Path>,
) -> Result<String, TrainError> {
    let num_labels = match vocab {
        Some(path) => plan::read_vocab(path)?.len(),
        None => config.vocab.top_k,
    };
    let (vit, recipe) = (Vit::new(plan::vit_plan(config, num_labels)), config.feed_recipe());
    let stream = match data {
        [] => None,
        data => Some(DataSets::open(&recipe, data)?.training_stream(&recipe)?),
    };
    let mut out = String::new();
    model_lines(&mut out, &vit, vocab.is_some());
    step_lines(&mut out, config, &vit);

    let sampler = config.feed_recipe().batch_sampler();
    let steps = match (config.train.steps, &stream) {
        (0, Some(stream)) => Some(recipe.num_steps(stream)),
        (0, None) => None,
        (steps, _) => Some(steps),
    };
    if let Some(steps) = steps {
        let images = steps as f64 * sampler.mean_batch();
        _ = writeln!(out, "run         {steps} steps, {} images", grouped(images));
    }
    if let Some(stream) = &stream {
        let rows = stream.num_rows();
        let in_epoch = stream.steps_in(0);
        _ = write!(out, "epoch       {} images, {in_epoch} steps", grouped(rows as f64));
        if let Some(steps) = steps {
            let epochs = steps as f64 * sampler.mean_batch() / rows.max(1) as f64;
            _ = write!(out, "; the run takes {epochs:.2} epochs");
        }
    } else {
        out.push_str("epoch       unknown without --data");
    }
    Ok(out)
}

fn model_lines(out: &mut String, vit: &Vit, is_exact: bool) {
    let (plan, entries) = (vit.plan(), vit.layout().entries());
    let trained = entries.iter().filter(|entry| entry.role != Role::Buffer);
    let of_head = trained.filter(|entry| entry.part == Part::Head).map(|entry| entry.numel());
    let (all, of_head) = (vit.layout().num_params(), of_head.sum::<i64>());
    let most = if is_exact { "" } else { " at most" };
    _ = writeln!(
        out,
        "model       {} × {} blocks, {} heads, patch {} px, {} labels{most}\n\
         parameters  {} ({} in the trunk, {} in the head)",
        plan.width,
        plan.depth,
        plan.num_heads,
        plan.patch_px,
        plan.num_labels,
        grouped(all as f64),
        grouped((all - of_head) as f64),
        grouped(of_head as f64),
    );
}

fn step_lines(out: &mut String, config: &TrainConfig, vit: &Vit) {
    let sampler = config.feed_recipe().batch_sampler();
    // Without a device a wish for kernels is not fulfilled.
    let is_wish =
        config.train.by_hand == ByHand::Auto && !config.runtime.device.starts_with("cuda");
    let form = match plan::block_form(config) {
        BlockForm::Fused if is_wish => BlockForm::Plain,
        form => form,
    };
    let cost = |side_px: u32| image_cost(vit.plan(), side_px.into(), config.train.precision, form);
    let at_base = cost(config.train.image_px as u32);
    let sizes = sampler.sizes();
    let flops = sizes.iter().map(|s| f64::from(s.batch) * cost(s.side_px).step_flops() as f64);
    let flops = flops.sum::<f64>() / sizes.len().max(1) as f64;
    let kept = |size: &catlip_pipeline::feed::StepSize| {
        u64::from(size.batch).div_ceil(config.train.parts as u64) * cost(size.side_px).kept_bytes
    };
    let kept = sizes.iter().map(kept).max().unwrap_or(0);
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    _ = writeln!(
        out,
        "operations  {:.1} GFLOP an image of {} px forth, {:.1} forth and back\n\
         step        {}; {:.3} PFLOP\n\
         memory      {:.2} GiB weights, gradients, moments, average; {:.2} GiB kept of the largest \
         step in {} parts",
        at_base.forward_flops as f64 / 1e9,
        config.train.image_px,
        at_base.step_flops() as f64 / 1e9,
        step_sizes(&sampler),
        flops / 1e15,
        gib(state_bytes(vit.layout())),
        gib(kept),
        config.train.parts,
    );
}

/// A whole number with commas.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_of_base_costs_what_the_reference_says() {
        let recipe =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/vit_b16_datacomp.toml"));
        let config = TrainConfig::load(Some(recipe), &[]).unwrap();
        assert_eq!(
            text(&config, &[], None).unwrap(),
            "model       768 × 12 blocks, 12 heads, patch 16 px, 24320 labels at most\n\
             parameters  104,657,414 (85,955,334 in the trunk, 18,702,080 in the head)\n\
             operations  35.5 GFLOP an image of 224 px forth, 106.3 forth and back\n\
             step        83333 images on average, from 200704 at 128 px to 32064 at 320 px; \
             6.994 PFLOP\n\
             memory      1.95 GiB weights, gradients, moments, average; 802.47 GiB kept of the \
             largest step in 1 parts\n\
             run         200001 steps, 16,666,667,948 images\n\
             epoch       unknown without --data"
        );
    }
}
