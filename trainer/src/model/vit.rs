//! The vision transformer of CatLIP: stem, positions, learned tokens, blocks, norm; and the head.
//!
//! In: `images_bchw`, float in 0…1, any h and w that the patch divides. Out: tokens, and logits
//! over the vocabulary. Never: holds numbers, so that one model runs over the weights and over
//! their average.
//!
//! The trunk's names are the reference's; those of the head begin with `pool.` or `classifier.`.
//!
//! b images, n tokens of the grid, t tokens: a summary token or none, registers, the grid; d width,
//! v labels.

use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};

use super::Pass;
use super::batch_norm::{Groups, Normed};
use super::block::{Block, LINEAR_STD, LayerNorm, Linear};
use super::params::{EntryId, Init, Layout, Part, Weights};
use super::pool::{Pool, Pooling};
use super::positions::Positions;
use super::stem::{Stem, StemKind};
use crate::augment::Ranges;

/// What a model is: enough to name and shape every parameter. `model.json` of an imported model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitPlan {
    /// How pixels become tokens.
    pub stem: StemKind,
    /// Width of a token.
    pub width: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Number of attention heads; divides the width.
    pub num_heads: i64,
    /// Width of a block's hidden layer.
    pub hidden: i64,
    /// Whether the hidden layer is gated by SiLU (SwiGLU) instead of GELU.
    pub gated: bool,
    /// Whether queries and keys are normalised.
    pub qk_norm: bool,
    /// Pixels between tokens. corenet stem: 16, or 8 with the same weights.
    pub patch_px: i64,
    /// Number of learned positions.
    pub num_positions: i64,
    /// Whether a learned summary token stands before the grid's.
    pub summary: bool,
    /// Learned tokens that nothing reads: room for the attention (arXiv 2309.16588).
    pub num_registers: i64,
    /// Which vector the classifier sees.
    pub pool: Pool,
    /// Number of labels.
    pub num_labels: i64,
    /// Whether the six scalars of the learned augmentation belong to the weights.
    pub range_augment: bool,
}

impl VitPlan {
    /// The reference's model of `[width, depth, heads]`, without its augmentation.
    pub const fn corenet(
        [width, depth, num_heads]: [i64; 3],
        num_positions: i64,
        num_labels: i64,
    ) -> Self {
        Self {
            stem: StemKind::Corenet,
            width,
            depth,
            num_heads,
            hidden: 4 * width,
            gated: false,
            qk_norm: false,
            patch_px: 16,
            num_positions,
            summary: true,
            num_registers: 0,
            pool: Pool::Summary,
            num_labels,
            range_augment: false,
        }
    }

    /// Tokens before those of the grid.
    pub fn num_prefix(&self) -> i64 {
        i64::from(self.summary) + self.num_registers
    }
}

/// The model: which entry of the weights stands where.
#[derive(Clone, Debug)]
pub struct Vit {
    plan: VitPlan,
    layout: Layout,
    /// Summary token and registers, those that there are.
    pub(super) prefix: Vec<EntryId>,
    pub(super) positions: Positions,
    ranges: Option<Ranges>,
    pub(super) stem: Stem,
    blocks: Vec<Block>,
    pub(super) norm: LayerNorm,
    pub(super) pooling: Pooling,
    pub(super) classifier: Linear,
}

impl Vit {
    /// Declares the model; allocates nothing.
    pub fn new(plan: VitPlan) -> Self {
        let mut layout = Layout::default();
        let init = Init::Normal { std: LINEAR_STD };
        let mut prefix = Vec::new();
        if plan.summary {
            prefix.push(layout.token("cls_token".into(), &[1, 1, plan.width], init));
        }
        if plan.num_registers > 0 {
            let shape = [1, plan.num_registers, plan.width];
            prefix.push(layout.token("reg_token".into(), &shape, init));
        }
        let positions = Positions::declare(&mut layout, plan.stem, plan.num_positions, plan.width);
        let ranges = plan.range_augment.then(|| Ranges::declare(&mut layout));
        let stem = Stem::declare(&mut layout, plan.stem, plan.width, plan.patch_px);
        let mut blocks = Vec::new();
        for at in 0..plan.depth {
            layout.begin(Part::Block(at));
            blocks.push(Block::declare(&mut layout, at, &plan));
        }
        layout.begin(Part::Norm);
        let norm = LayerNorm::declare(&mut layout, "post_transformer_norm", plan.width);
        layout.begin(Part::Head);
        let pooling = Pooling::declare(&mut layout, &plan);
        let classifier = Linear::declare(&mut layout, "classifier", plan.width, plan.num_labels);
        let layout = layout.place();
        Self { plan, layout, prefix, positions, ranges, stem, blocks, norm, pooling, classifier }
    }

    /// What the model is.
    pub fn plan(&self) -> &VitPlan {
        &self.plan
    }

    /// Names and shapes of its weights.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether what it makes of a row in training depends on the other rows.
    pub fn has_batch_norm(&self) -> bool {
        self.plan.stem == StemKind::Corenet
    }

    /// The ranges of the learned augmentation, if they belong to the model.
    pub fn ranges(&self) -> Option<&Ranges> {
        self.ranges.as_ref()
    }

    /// The blocks, from the images on.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Initial weights from a seed; `bias_v`, if given, becomes the classifier's bias.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn init(
        &self,
        seed: u64,
        bias_v: Option<&[f32]>,
        device: Device,
    ) -> Result<Weights, TchError> {
        let weights = Weights::init(&self.layout, seed, device)?;
        if let Some(bias_v) = bias_v {
            let mut bias = self.classifier.bias(&weights).shallow_clone();
            bias.f_copy_(&Tensor::f_from_slice(bias_v)?)?;
        }
        Ok(weights)
    }

    /// `images_bchw` → tokens `[b, t, d]` before the first block.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn embed(&self, w: &Weights, images_bchw: &Tensor, pass: Pass) -> Result<Tensor, TchError> {
        let (grid_bnd, grid) = self.stem.forward(w, images_bchw, pass, None)?;
        self.place(w, &grid_bnd, grid)
    }

    /// The same, where BatchNorm normalises by `groups`: the graph is cut before each, from the
    /// images on.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn embed_in_groups(
        &self,
        w: &Weights,
        images_bchw: &Tensor,
        pass: Pass,
        groups: &Groups,
    ) -> Result<(Tensor, Vec<Normed>), TchError> {
        let mut cuts = Vec::new();
        let by = Some((groups, &mut cuts));
        let (grid_bnd, grid) = self.stem.forward(w, images_bchw, pass, by)?;
        Ok((self.place(w, &grid_bnd, grid)?, cuts))
    }

    /// Adds positions to the tokens of the grid, and puts the learned tokens before them.
    fn place(&self, w: &Weights, grid_bnd: &Tensor, grid: [i64; 2]) -> Result<Tensor, TchError> {
        let grid_bnd = self.positions.add(w, grid_bnd, grid)?;
        let b = grid_bnd.size()[0];
        let mut parts = Vec::new();
        for &token in &self.prefix {
            parts.push(w.get(token).f_expand([b, -1, -1], false)?);
        }
        parts.push(grid_bnd);
        Tensor::f_cat(&parts, 1)
    }

    /// Tokens behind the last block, normalised.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn normalise(&self, w: &Weights, tokens_btd: &Tensor) -> Result<Tensor, TchError> {
        self.norm.forward(w, tokens_btd, tch::Kind::Float)
    }

    /// `images_bchw` → for each of `layers`, rising numbers from 1 to the depth, the tokens
    /// `[b, t, d]` behind that block, normalised as those behind the last one are. The first
    /// [`VitPlan::num_prefix`] tokens are not of the grid.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    ///
    /// # Panics
    ///
    /// If a layer is not there, or they do not rise.
    pub fn trunk(
        &self,
        w: &Weights,
        images_bchw: &Tensor,
        layers: &[usize],
        pass: Pass,
    ) -> Result<Vec<Tensor>, TchError> {
        let last = layers.last().copied().unwrap_or(0);
        let is_known = layers.first().is_none_or(|&first| first > 0) && last <= self.blocks.len();
        assert!(is_known && layers.is_sorted_by(|a, b| a < b), "layers {layers:?}");
        let mut tokens_btd = self.embed(w, images_bchw, pass)?;
        let mut chosen = Vec::with_capacity(layers.len());
        for (block, layer) in self.blocks[..last].iter().zip(1..) {
            tokens_btd = block.forward(w, &tokens_btd, pass)?;
            if layers.contains(&layer) {
                chosen.push(self.normalise(w, &tokens_btd)?);
            }
        }
        Ok(chosen)
    }

    /// Normalised tokens `[b, t, d]` → logits `[b, v]`, float32.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn head(&self, w: &Weights, tokens_btd: &Tensor, pass: Pass) -> Result<Tensor, TchError> {
        let pooled_bd = self.pooling.forward(w, tokens_btd, self.plan.num_prefix(), pass)?;
        let logits_bv = self.classifier.forward(w, &pooled_bd.f_to_kind(pass.kind())?)?;
        logits_bv.f_to_kind(tch::Kind::Float)
    }

    /// `images_bchw` → logits `[b, v]`.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn forward(
        &self,
        w: &Weights,
        images_bchw: &Tensor,
        pass: Pass,
    ) -> Result<Tensor, TchError> {
        let mut tokens_btd = self.embed(w, images_bchw, pass)?;
        for block in &self.blocks {
            tokens_btd = block.forward(w, &tokens_btd, pass)?;
        }
        self.head(w, &self.normalise(w, &tokens_btd)?, pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DeviceBatch, Place};
    use crate::loss::{Loss, SparseTargets};
    use crate::model::params::{Entry, Role};
    use crate::optim::AdamWPlan;
    use crate::state::TrainState;
    use crate::step::{StepPlan, step};
    use catlip_schemas::Cursor;
    use serde_json::Value;
    use std::collections::BTreeMap;
    use tch::Kind;

    const SMALL: VitPlan = VitPlan::corenet([64, 2, 2], 4, 10);

    fn bce() -> StepPlan {
        StepPlan::plain(Loss::Bce { smoothing: 0.0 })
    }

    /// What PyTorch gives for the model `SMALL`; made by `golden/make_torch.py`.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../../golden/torch.json")).unwrap()
    }

    /// The weights of the golden numbers: sines of their index.
    fn sine_weights(vit: &Vit) -> Weights {
        let weights = Weights::zeros(vit.layout(), Device::Cpu).unwrap();
        for (phase, (entry, view)) in weights.entries().enumerate() {
            let is_scale = ["norm.weight", ".0.weight", "running_var"];
            let around = f64::from(is_scale.iter().any(|end| entry.name.ends_with(end)));
            let values: Vec<f32> = (0..entry.numel())
                .map(|i| around + 0.1 * (0.7 * i as f64 + 1.3 * phase as f64).sin())
                .map(|value| value as f32)
                .collect();
            view.shallow_clone().copy_(&Tensor::from_slice(&values).view_as(view));
        }
        weights
    }

    fn sine_images(height: i64, width: i64) -> Tensor {
        let values: Vec<f32> = (0..2 * 3 * height * width)
            .map(|i| (0.5 + 0.5 * (0.013 * i as f64).sin()) as f32)
            .collect();
        Tensor::from_slice(&values).view([2, 3, height, width])
    }

    fn sine_batch() -> DeviceBatch {
        DeviceBatch {
            images_bchw: sine_images(32, 32),
            num_images: 2,
            targets: SparseTargets {
                rows_k: Tensor::from_slice(&[0_i64, 0, 0]),
                labels_k: Tensor::from_slice(&[0_i64, 3, 9]),
                offsets_b1: Tensor::from_slice(&[0_i64, 3, 3]),
                weights_b: Tensor::from_slice(&[1.0_f32, 1.0]),
            },
            offsets: vec![0, 3, 3],
            place: Place::alone(0, 0, 2),
        }
    }

    fn assert_logits(size: &str, height: i64, width: i64) {
        let expected: Vec<Vec<f64>> =
            serde_json::from_value(golden()["logits"][size].clone()).unwrap();
        let expected = Tensor::from_slice2(&expected).to_kind(Kind::Float);
        let vit = Vit::new(SMALL);
        let weights = sine_weights(&vit);
        let found = vit.forward(&weights, &sine_images(height, width), Pass::EVAL).unwrap();
        let off = (found - expected).abs().max().double_value(&[]);
        assert!(off < 2e-5, "logits at {size} are off by {off}");
    }

    #[test]
    fn logits_are_those_of_torch_at_the_size_of_the_positions() {
        assert_logits("32x32", 32, 32);
    }

    #[test]
    fn logits_are_those_of_torch_at_a_larger_size() {
        assert_logits("48x48", 48, 48);
    }

    #[test]
    fn logits_are_those_of_torch_at_a_wide_size() {
        assert_logits("32x64", 32, 64);
    }

    #[test]
    fn names_are_those_of_the_reference_in_its_order() {
        let names: Vec<String> = serde_json::from_value(golden()["names"].clone()).unwrap();
        let vit = Vit::new(SMALL);
        let found: Vec<_> = vit.layout().entries().iter().map(|e| e.name.clone()).collect();
        assert_eq!(found, names);
    }

    #[test]
    fn gradients_are_those_of_torch() {
        let golden = golden();
        let vit = Vit::new(SMALL);
        let cursor = Cursor::start(0);
        let weights = sine_weights(&vit);
        let mut state = TrainState::new(vit, weights, REFERENCE, 0.0, cursor).unwrap();
        let metrics = step(&mut state, &bce(), &sine_batch(), 0.0).unwrap();
        assert!((metrics.loss.double_value(&[]) - golden["loss"].as_f64().unwrap()).abs() < 1e-5);
        let norms: BTreeMap<String, f64> =
            serde_json::from_value(golden["gradient_norms"].clone()).unwrap();
        // The step clipped the gradient to norm 1.
        let factor = metrics.gradient_norm.double_value(&[]).max(1.0);
        for (entry, leaf) in state.weights.entries().filter(|(e, _)| norms.contains_key(&e.name)) {
            let (found, expected) =
                (leaf.grad().norm().double_value(&[]) * factor, norms[&entry.name]);
            let off = (found - expected).abs();
            assert!(off < 1e-4 * expected + 1e-7, "{}: {found}, expected {expected}", entry.name);
        }
        let running_var: Vec<f64> = serde_json::from_value(golden["running_var"].clone()).unwrap();
        let name = "patch_emb.1.block.norm.running_var";
        let (_, found) = state.weights.entries().find(|(e, _)| e.name == name).unwrap();
        let off = (found - Tensor::from_slice(&running_var)).abs().max().double_value(&[]);
        assert!(off < 1e-6, "running variance is off by {off}");
    }

    const REFERENCE: AdamWPlan = AdamWPlan::REFERENCE;

    #[test]
    fn six_steps_give_the_curve_the_weights_and_the_average_of_torch() {
        let curve = golden()["curve"].clone();
        let losses: Vec<f64> = serde_json::from_value(curve["losses"].clone()).unwrap();
        let norms: Vec<f64> = serde_json::from_value(curve["norms"].clone()).unwrap();
        let vit = Vit::new(SMALL);
        let cursor = Cursor::start(0);
        let weights = sine_weights(&vit);
        let mut state = TrainState::new(vit, weights, REFERENCE, 5e-4, cursor).unwrap();
        for (at, (loss, norm)) in losses.iter().zip(&norms).enumerate() {
            let metrics = step(&mut state, &bce(), &sine_batch(), 1e-3 * (at + 1) as f64).unwrap();
            let (found, found_norm) =
                (metrics.loss.double_value(&[]), metrics.gradient_norm.double_value(&[]));
            assert!((found / loss - 1.0).abs() < 1e-4, "step {at}: loss {found}, torch {loss}");
            assert!((found_norm / norm - 1.0).abs() < 1e-3, "step {at}: {found_norm} {norm}");
        }
        assert_sums(&state.weights, &curve["sums"]);
        assert_sums(state.best_weights(), &curve["ema_sums"]);
    }

    /// Waves whose lengths tell their labels, as `lesson` of `golden/make_torch.py` draws them.
    fn lesson(at: usize) -> DeviceBatch {
        let classes: Vec<usize> = (0..8).map(|row| (7 * at + 3 * row) % 10).collect();
        let wave = |class: usize| {
            (0..3 * 32 * 32).map(move |i| {
                let phase = (0.01 + 0.004 * class as f64) * f64::from(i) + at as f64;
                (0.5 + 0.5 * phase.sin()) as f32
            })
        };
        let values: Vec<f32> = classes.iter().flat_map(|&class| wave(class)).collect();
        let of_rows: Vec<i64> = (0..8).flat_map(|row| [row, row]).collect();
        let labels: Vec<i64> =
            classes.iter().flat_map(|&c| [c as i64, (c as i64 + 1) % 10]).collect();
        DeviceBatch {
            images_bchw: Tensor::from_slice(&values).view([8, 3, 32, 32]),
            num_images: 8,
            targets: SparseTargets {
                rows_k: Tensor::from_slice(&of_rows),
                labels_k: Tensor::from_slice(&labels),
                offsets_b1: Tensor::arange_start_step(0, 17, 2, (Kind::Int64, Device::Cpu)),
                weights_b: Tensor::ones([8], (Kind::Float, Device::Cpu)),
            },
            offsets: (0..=8).map(|row| 2 * row).collect(),
            place: Place::alone(0, 8 * at as u64, 8),
        }
    }

    /// Numbers that look drawn, as `noise` of `golden/make_torch.py` makes them.
    fn noise_weights(vit: &Vit) -> Weights {
        let weights = vit.init(0, None, Device::Cpu).unwrap();
        let trained = weights.entries().filter(|(entry, _)| entry.role != Role::Buffer);
        for (phase, (entry, view)) in trained.enumerate() {
            let is_scale = entry.shape.len() == 1 && entry.name.ends_with("weight");
            let noise = |i: i64| {
                let value = (12.9898 * i as f64 + 78.233 * phase as f64).sin() * 43758.5453;
                0.07 * (value - value.floor() - 0.5)
            };
            let value = |i| if is_scale { 1.0 } else { noise(i) as f32 };
            let values: Vec<f32> = (0..entry.numel()).map(value).collect();
            view.shallow_clone().copy_(&Tensor::from_slice(&values).view_as(view));
        }
        weights
    }

    #[test]
    fn two_hundred_steps_give_the_curve_of_torch_and_learn() {
        let losses: Vec<f64> = serde_json::from_value(golden()["long_curve"].clone()).unwrap();
        assert_eq!(losses.len(), 200);
        let vit = Vit::new(SMALL);
        let weights = noise_weights(&vit);
        let mut state = TrainState::new(vit, weights, REFERENCE, 0.0, Cursor::start(0)).unwrap();
        for (at, loss) in losses.iter().enumerate() {
            let lr = 1e-3 * ((at + 1) as f64 / 20.0).min(1.0);
            let found = step(&mut state, &bce(), &lesson(at), lr).unwrap().loss.double_value(&[]);
            assert!((found / loss - 1.0).abs() < 1e-3, "step {at}: loss {found}, torch {loss}");
        }
        assert!(losses[199] < 0.2 * losses[0], "{losses:?}");
    }

    fn assert_sums(weights: &Weights, expected: &Value) {
        for (entry, view) in weights.entries() {
            let mut known = view.to_kind(Kind::Double);
            if entry.name.ends_with("qkv_proj.bias") {
                // No softmax sees the biases of keys: AdamW makes steps of rounding there.
                let parts = known.chunk(3, 0);
                known = Tensor::cat(&[&parts[0], &parts[2]], 0);
            }
            let found = known.abs().sum(Kind::Double).double_value(&[]);
            let expected = expected[&entry.name].as_f64().unwrap();
            assert!((found / expected - 1.0).abs() < 1e-3, "{}: {found} {expected}", entry.name);
        }
    }

    #[test]
    fn base_large_and_huge_have_the_parameters_of_the_reference() {
        let num_params = |shape| {
            let plan = VitPlan::corenet(shape, 196, 24_320);
            Vit::new(VitPlan { range_augment: true, ..plan }).layout().num_params()
        };
        assert_eq!(num_params([768, 12, 12]), 104_657_414);
        assert_eq!(num_params([1024, 24, 16]), 328_766_214);
        assert_eq!(num_params([1280, 32, 20]), 663_152_646);
    }

    #[test]
    fn base_has_the_shapes_of_the_state_dict_table() {
        let vit = Vit::new(VitPlan::corenet([768, 12, 12], 196, 24_320));
        let shapes: BTreeMap<_, _> = vit
            .layout()
            .entries()
            .iter()
            .map(|e: &Entry| (e.name.as_str(), &e.shape[..]))
            .collect();
        assert_eq!(shapes["patch_emb.0.block.conv.weight"], [192, 3, 4, 4]);
        assert_eq!(shapes["patch_emb.1.block.norm.running_mean"], [192]);
        assert_eq!(shapes["patch_emb.2.block.conv.weight"], [768, 192, 2, 2]);
        assert_eq!(shapes["transformer.11.pre_norm_mha.1.qkv_proj.weight"], [2304, 768]);
        assert_eq!(shapes["transformer.0.pre_norm_ffn.4.weight"], [768, 3072]);
        assert_eq!(shapes["classifier.weight"], [24_320, 768]);
    }

    #[test]
    fn a_patch_of_eight_pixels_has_the_same_weights_and_four_times_the_tokens() {
        let (coarse, fine) = (Vit::new(SMALL), Vit::new(VitPlan { patch_px: 8, ..SMALL }));
        assert_eq!(coarse.layout(), fine.layout());
        let weights = sine_weights(&coarse);
        let tokens =
            |vit: &Vit| vit.embed(&weights, &sine_images(32, 32), Pass::EVAL).unwrap().size();
        assert_eq!(tokens(&coarse), [2, 1 + 4, 64]);
        assert_eq!(tokens(&fine), [2, 1 + 16, 64]);
    }

    #[test]
    fn a_given_bias_is_what_the_head_starts_from() {
        let vit = Vit::new(SMALL);
        let bias: Vec<f32> = (0..10).map(|i| i as f32 - 5.0).collect();
        let weights = vit.init(3, Some(&bias), Device::Cpu).unwrap();
        let zeros = Tensor::zeros([1, 1, 64], (Kind::Float, Device::Cpu));
        let logits = vit.head(&weights, &zeros, Pass::EVAL).unwrap();
        assert_eq!(Vec::<f32>::try_from(logits.flatten(0, -1)).unwrap(), bias);
    }

    #[test]
    fn the_trunk_gives_the_tokens_of_chosen_layers_for_any_size() {
        for plan in [SMALL, VitPlan { summary: false, pool: Pool::Mean, ..SMALL }] {
            let vit = Vit::new(plan);
            let weights = sine_weights(&vit);
            let images = sine_images(48, 32);
            let layers = vit.trunk(&weights, &images, &[1, 2], Pass::EVAL).unwrap();
            let tokens = plan.num_prefix() + 6;
            assert_eq!([layers[0].size(), layers[1].size()], [[2, tokens, 64], [2, tokens, 64]]);
            let logits = vit.head(&weights, &layers[1], Pass::EVAL).unwrap();
            assert_eq!(logits, vit.forward(&weights, &images, Pass::EVAL).unwrap());
            let last = vit.trunk(&weights, &images, &[2], Pass::EVAL).unwrap();
            assert_eq!(last, layers[1..]);
        }
    }

    #[test]
    fn names_tell_trunk_and_head_apart() {
        let plan = VitPlan { pool: Pool::Attention, range_augment: true, ..SMALL };
        for entry in Vit::new(plan).layout().entries() {
            let is_head = entry.name.starts_with("pool.") || entry.name.starts_with("classifier.");
            assert_eq!(is_head, entry.part == Part::Head, "{}", entry.name);
        }
    }
}
