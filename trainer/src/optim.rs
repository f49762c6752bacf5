//! AdamW and clipping over flat tensors.
//!
//! In: flat weights, flat gradient, rate. Out: the weights of the next step; the same weights and
//! moments, to the bit, where the gradient holds a number that is none. Never: waits for the
//! device; knows the parameters' names.
//!
//! tch has no fused AdamW, and one operation after another over the whole tensor reads it from
//! memory ten times. So the flat tensor is walked in pieces that stay in the cache of a core.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use crate::kernels::{Kernels, Update};
use crate::model::params::{Entry, Gradient, Part, Role, Weights};

/// Floats of one piece on a CPU: six tensors × 256 Ki floats × 4 B = 6 MiB stay in the last cache,
/// and eight threads find work, since libtorch gives none to fewer than 32 Ki floats. 5.7 M
/// parameters on 2 cores: 25 ms, 35 ms in pieces of 32 Ki, 61 ms whole.
const PIECE_FLOATS_CPU: i64 = 256 * 1024;
/// Floats of one piece elsewhere: few launches, and scratch of 2 × 256 MiB at most.
const PIECE_FLOATS_DEVICE: i64 = 64 * 1024 * 1024;
/// Added to the norm before the limit is divided by it, as `clip_grad_norm_` does.
const CLIP_EPS: f64 = 1e-6;

/// What AdamW is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWPlan {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, times the rate.
    pub weight_decay: f64,
    /// Limit of the gradient's global norm; 0 is no limit.
    pub clip_norm: f64,
    /// Which parameters are decayed.
    pub decay: Decay,
    /// Whether the scalars of the augmentation are decayed.
    pub decay_ranges: bool,
    /// Factor of the rate from each block to the one before it; 1 is none.
    pub layer_decay: f64,
}

impl AdamWPlan {
    /// What the reference pre-trains with.
    pub const REFERENCE: Self = Self {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.2,
        clip_norm: 1.0,
        decay: Decay::Reference,
        decay_ranges: true,
        layer_decay: 1.0,
    };

    /// Weight decay and factor of the rate of an entry, in a model of `depth` blocks.
    ///
    /// Layer-wise decay is the reference's: of 1 + depth steps the input has taken none, block j
    /// j + 1, the norm as many as the last block; the head has the whole rate and no weight decay.
    fn group(&self, entry: &Entry, depth: i64) -> (f64, f64) {
        let is_decayed = match entry.role {
            Role::Matrix => true,
            Role::Token => self.decay == Decay::Reference,
            Role::Scalar => self.decay_ranges,
            Role::Vector | Role::Buffer => false,
        };
        let weight_decay = if is_decayed { self.weight_decay } else { 0.0 };
        if self.layer_decay == 1.0 {
            return (weight_decay, 1.0);
        }
        let taken = match entry.part {
            Part::Input => 0,
            Part::Block(at) => at + 1,
            Part::Norm => depth,
            Part::Head => return (0.0, 1.0),
        };
        let factor = self.layer_decay.powi((1 + depth - taken) as i32);
        (weight_decay, (factor * 1e5).round() / 1e5)
    }
}

/// Which parameters weight decay applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// All but those of one dimension: learned tokens and positions too.
    #[default]
    Reference,
    /// What a linear layer or convolution multiplies with, and nothing else.
    Matrices,
}

/// Moments of every parameter, as long as the flat gradient; or of a stretch of it, where ranks
/// share the work.
#[derive(Debug)]
pub struct AdamW {
    plan: AdamWPlan,
    stretch: Range<i64>,
    /// First moment.
    pub exp_avg: Tensor,
    /// Second moment.
    pub exp_avg_sq: Tensor,
    /// Steps that were taken.
    pub steps: u64,
    pieces: Vec<Piece>,
    scratch: [Tensor; 2],
}

/// 1 where the gradient is one of numbers and 0 where it is not, and factors of it: scalars on the
/// device, so that nobody waits to learn which.
struct Verdict {
    /// Whether the gradient is to be set to zero.
    is_bad: Tensor,
    /// 1 or 0.
    accepted: Tensor,
    /// What the gradient is clipped by.
    scale: Option<Tensor>,
    /// Shares of the gradient and of its square in the moments.
    shares: [Tensor; 2],
}

/// One piece of the flat tensors, whose parameters are all of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    offset: i64,
    floats: i64,
    weight_decay: f64,
    lr_factor: f64,
}

impl Piece {
    fn cut(&self, flat: &Tensor) -> Result<Tensor, TchError> {
        flat.f_narrow(0, self.offset, self.floats)
    }

    /// The same of moments that begin at `start`.
    fn cut_from(&self, start: i64, moments: &Tensor) -> Result<Tensor, TchError> {
        moments.f_narrow(0, self.offset - start, self.floats)
    }

    /// What of it lies in a stretch.
    fn within(&self, stretch: &Range<i64>) -> Option<Self> {
        let offset = self.offset.max(stretch.start);
        let floats = (self.offset + self.floats).min(stretch.end) - offset;
        (floats > 0).then_some(Self { offset, floats, ..*self })
    }
}

impl AdamW {
    /// Moments of zero for `weights`.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn new(plan: AdamWPlan, weights: &Weights) -> Result<Self, TchError> {
        Self::of_stretch(plan, weights, 0..weights.layout().trained_floats())
    }

    /// Moments of zero for a stretch of `weights`: a step leaves the others as they are.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn of_stretch(
        plan: AdamWPlan,
        weights: &Weights,
        stretch: Range<i64>,
    ) -> Result<Self, TchError> {
        let like = (Kind::Float, weights.device());
        let floats = stretch.end - stretch.start;
        let zeros = |floats| Tensor::f_zeros([floats], like);
        let piece = piece_floats(weights.device()).min(floats);
        Ok(Self {
            plan,
            exp_avg: zeros(floats)?,
            exp_avg_sq: zeros(floats)?,
            steps: 0,
            pieces: pieces(&plan, weights).iter().filter_map(|p| p.within(&stretch)).collect(),
            scratch: [zeros(piece)?, zeros(piece)?],
            stretch,
        })
    }

    /// Which floats of the flat tensors it has moments of.
    pub fn stretch(&self) -> Range<i64> {
        self.stretch.clone()
    }

    /// Takes one step with the rate `lr`, the gradient clipped in place to the limit of its global
    /// norm; gives the norm before, a scalar on the device. A norm that is no finite number makes
    /// it a step that changes nothing but the gradient, which becomes zero, and the count.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn step(
        &mut self,
        weights: &Weights,
        gradient: &Gradient,
        lr: f64,
    ) -> Result<Tensor, TchError> {
        self.steps += 1;
        let norm = gradient.flat().f_norm()?;
        let verdict = self.judge(&norm)?;
        for piece in &self.pieces {
            let mut part = piece.cut(gradient.flat())?;
            _ = part.f_masked_fill_(&verdict.is_bad, 0.0)?;
            if let Some(scale) = &verdict.scale {
                _ = part.f_mul_(scale)?;
            }
            self.step_piece(piece, weights, gradient, lr * piece.lr_factor, &verdict)?;
        }
        Ok(norm)
    }

    /// The same by our own kernels, which leave the gradient as it is and pass over all numbers
    /// once: with `average`, it and the share of the weights in it, they move that too, and where
    /// the weights are kept rounded, those. Gives norm, whether it is a finite number (1 or 0) and
    /// what the gradient was clipped by, three floats on the device.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn step_by(
        &mut self,
        kernels: &Kernels,
        weights: &Weights,
        gradient: &Gradient,
        lr: f64,
        average: Option<(&Tensor, f64)>,
    ) -> Result<Tensor, TchError> {
        self.steps += 1;
        let verdict = kernels.verdict(gradient.flat(), self.plan.clip_norm, CLIP_EPS)?;
        let AdamWPlan { beta1, beta2, eps, .. } = self.plan;
        let bias1 = 1.0 - beta1.powf(self.steps as f64);
        let bias2 = 1.0 - beta2.powf(self.steps as f64);
        for piece in &self.pieces {
            let of = |moments| piece.cut_from(self.stretch.start, moments);
            let tensors = [
                piece.cut(weights.flat())?,
                piece.cut(gradient.flat())?,
                of(&self.exp_avg)?,
                of(&self.exp_avg_sq)?,
            ];
            let average_cut = average.map(|(flat, _)| piece.cut(flat)).transpose()?;
            let narrow = weights.narrow().map(|flat| piece.cut(flat)).transpose()?;
            let update = Update {
                tensors: tensors.each_ref(),
                average: average_cut.as_ref(),
                narrow: narrow.as_ref(),
                lr: lr * piece.lr_factor,
                decay: piece.weight_decay,
                shares: [1.0 - beta1, 1.0 - beta2],
                root_scale: bias1 / bias2.sqrt(),
                eps: eps * bias1,
                ema_share: average.map_or(0.0, |(_, share)| share),
            };
            kernels.adamw(&update, &verdict)?;
        }
        Ok(verdict)
    }

    fn judge(&self, norm: &Tensor) -> Result<Verdict, TchError> {
        let is_good = norm.f_isfinite()?;
        let accepted = is_good.f_to_kind(Kind::Float)?;
        let scale = self.clip_scale(norm)?;
        Ok(Verdict {
            is_bad: is_good.f_logical_not()?,
            scale: scale.map(|scale| scale.f_nan_to_num(0.0, 0.0, 0.0)).transpose()?,
            shares: [
                accepted.f_mul_scalar(1.0 - self.plan.beta1)?,
                accepted.f_mul_scalar(1.0 - self.plan.beta2)?,
            ],
            accepted,
        })
    }

    /// `min(1, limit ÷ (norm + 1e-6))`, a scalar on the device.
    fn clip_scale(&self, norm: &Tensor) -> Result<Option<Tensor>, TchError> {
        if self.plan.clip_norm == 0.0 {
            return Ok(None);
        }
        let inverse = norm.f_add_scalar(CLIP_EPS)?.f_reciprocal()?;
        inverse.f_mul_scalar(self.plan.clip_norm)?.f_clamp_max(1.0).map(Some)
    }

    fn step_piece(
        &self,
        piece: &Piece,
        weights: &Weights,
        gradient: &Gradient,
        lr: f64,
        verdict: &Verdict,
    ) -> Result<(), TchError> {
        let [square, step] = &self.scratch;
        let mut square = square.f_narrow(0, 0, piece.floats)?;
        let mut step = step.f_narrow(0, 0, piece.floats)?;
        let AdamWPlan { beta1, beta2, eps, .. } = self.plan;
        let bias1 = 1.0 - beta1.powf(self.steps as f64);
        let bias2 = 1.0 - beta2.powf(self.steps as f64);

        let (mut weight, gradient) = (piece.cut(weights.flat())?, piece.cut(gradient.flat())?);
        let of = |moments| piece.cut_from(self.stretch.start, moments);
        let (mut mean, mut mean_sq) = (of(&self.exp_avg)?, of(&self.exp_avg_sq)?);
        let [of_mean, of_square] = &verdict.shares;
        _ = mean.f_lerp_tensor_(&gradient, of_mean)?;
        _ = gradient.f_mul_out(&square, &gradient)?;
        _ = mean_sq.f_lerp_tensor_(&square, of_square)?;
        // weight −= lr × (m ÷ bias1) ÷ (√(v ÷ bias2) + ε), with bias1 moved into the divisor.
        _ = mean_sq.f_sqrt_out(&step)?;
        _ = step.f_mul_scalar_(bias1 / bias2.sqrt())?.f_add_scalar_(eps * bias1)?;
        _ = mean.f_div_out(&square, &step)?;
        _ = square.f_mul_(&verdict.accepted.f_mul_scalar(-lr)?)?;
        if piece.weight_decay != 0.0 {
            let mut decay = verdict.accepted.f_mul_scalar(-lr * piece.weight_decay)?;
            _ = weight.f_mul_(&decay.f_add_scalar_(1.0)?)?;
        }
        weight.f_add_(&square).map(|_| ())
    }
}

/// The flat tensor cut so that a piece is all of one group and not too long.
fn pieces(plan: &AdamWPlan, weights: &Weights) -> Vec<Piece> {
    let mut entries: Vec<&Entry> = weights.layout().entries().iter().collect();
    entries.retain(|entry| entry.role != Role::Buffer);
    entries.sort_by_key(|entry| entry.offset);
    let depth = entries.iter().map(|entry| match entry.part {
        Part::Block(at) => at + 1,
        _ => 0,
    });
    let depth = depth.max().unwrap_or(0);
    let mut groups: Vec<Piece> = Vec::new();
    for entry in entries {
        let (weight_decay, lr_factor) = plan.group(entry, depth);
        let (offset, floats) = (entry.offset, entry.padded_floats());
        let next = Piece { offset, floats, weight_decay, lr_factor };
        match groups.last_mut() {
            Some(last) if next == (Piece { offset, floats, ..*last }) => last.floats += floats,
            _ => groups.push(next),
        }
    }
    let longest = piece_floats(weights.device());
    let cut = |group: Piece| {
        let starts = (0..group.floats).step_by(longest as usize);
        starts.map(move |from| Piece {
            offset: group.offset + from,
            floats: longest.min(group.floats - from),
            ..group
        })
    };
    groups.into_iter().flat_map(cut).collect()
}

fn piece_floats(device: Device) -> i64 {
    if device == Device::Cpu { PIECE_FLOATS_CPU } else { PIECE_FLOATS_DEVICE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::{Init, Layout};

    const PLAN: AdamWPlan = AdamWPlan { clip_norm: 0.0, ..AdamWPlan::REFERENCE };

    fn sines(phase: usize, factor: f64) -> Vec<f32> {
        (0..8).map(|i| ((0.7 * i as f64 + 1.3 * phase as f64).sin() * factor) as f32).collect()
    }

    /// Four decayed floats (two dimensions) and four others.
    fn weights() -> Weights {
        let mut layout = Layout::default();
        layout.param("decayed".into(), &[2, 2], Init::Zeros);
        layout.param("spared".into(), &[4], Init::Zeros);
        Weights::zeros(&layout.place(), Device::Cpu).unwrap()
    }

    /// Both entries of a flat tensor, without the padding between them.
    fn both(flat: &Tensor) -> Tensor {
        Tensor::cat(&[flat.narrow(0, 0, 4), flat.narrow(0, 16, 4)], 0)
    }

    fn fill(flat: &Tensor, values: &[f32]) {
        flat.narrow(0, 0, 4).copy_(&Tensor::from_slice(&values[..4]));
        flat.narrow(0, 16, 4).copy_(&Tensor::from_slice(&values[4..]));
    }

    #[test]
    fn five_steps_give_the_numbers_of_torch() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../golden/torch.json")).unwrap();
        let expected: Vec<Vec<f64>> = serde_json::from_value(golden["adamw"].clone()).unwrap();
        let weights = weights();
        fill(weights.flat(), &sines(0, 1.0));
        let gradient = Gradient::attach(&weights).unwrap();
        let mut adamw = AdamW::new(PLAN, &weights).unwrap();
        for (at, row) in expected.iter().enumerate() {
            fill(gradient.flat(), &sines(at + 1, 10_f64.powi(at as i32 - 2)));
            _ = adamw.step(&weights, &gradient, 0.01).unwrap();
            let found = Vec::<f32>::try_from(both(weights.flat())).unwrap();
            for (found, expected) in found.iter().zip(row) {
                assert!(
                    (f64::from(*found) - expected).abs() < 2e-7,
                    "step {at}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_gradient_above_the_limit_is_scaled_to_it() {
        let weights = weights();
        let gradient = Gradient::attach(&weights).unwrap();
        fill(gradient.flat(), &[3.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0]);
        let mut adamw = AdamW::new(AdamWPlan { clip_norm: 1.0, ..PLAN }, &weights).unwrap();
        let before = adamw.step(&weights, &gradient, 0.0).unwrap();
        assert_eq!(before.double_value(&[]), 5.0);
        assert!((gradient.flat().norm().double_value(&[]) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_gradient_below_the_limit_is_left_as_it_is() {
        let weights = weights();
        let gradient = Gradient::attach(&weights).unwrap();
        fill(gradient.flat(), &sines(1, 0.1));
        let mut adamw = AdamW::new(AdamWPlan { clip_norm: 1.0, ..PLAN }, &weights).unwrap();
        _ = adamw.step(&weights, &gradient, 0.0).unwrap();
        assert_eq!(Vec::<f32>::try_from(both(gradient.flat())).unwrap(), sines(1, 0.1));
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_neither_weights_nor_moments() {
        for poison in [f32::NAN, f32::INFINITY] {
            let weights = weights();
            fill(weights.flat(), &sines(0, 1.0));
            let gradient = Gradient::attach(&weights).unwrap();
            let mut adamw = AdamW::new(AdamWPlan { clip_norm: 1.0, ..PLAN }, &weights).unwrap();
            fill(gradient.flat(), &sines(1, 1.0));
            _ = adamw.step(&weights, &gradient, 0.01).unwrap();
            let before = [weights.flat(), &adamw.exp_avg, &adamw.exp_avg_sq].map(Tensor::copy);
            fill(gradient.flat(), &[1.0, poison, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0]);
            let norm = adamw.step(&weights, &gradient, 0.01).unwrap();
            assert!(!norm.double_value(&[]).is_finite());
            for (after, before) in
                [weights.flat(), &adamw.exp_avg, &adamw.exp_avg_sq].into_iter().zip(&before)
            {
                assert!(after.equal(before), "{poison}");
            }
        }
    }

    /// Weight decay and factor of the rate of each entry of a model of two blocks, by name.
    fn groups(plan: AdamWPlan) -> std::collections::BTreeMap<String, (f64, f64)> {
        let mut vit = crate::model::VitPlan::corenet([64, 2, 1], 4, 10);
        vit.range_augment = true;
        let vit = crate::model::Vit::new(vit);
        let weights = Weights::zeros(vit.layout(), Device::Cpu).unwrap();
        let pieces = pieces(&plan, &weights);
        let of = |entry: &Entry| {
            let is_of = |p: &&Piece| (p.offset..p.offset + p.floats).contains(&entry.offset);
            let piece = pieces.iter().find(is_of).unwrap();
            (entry.name.clone(), (piece.weight_decay, piece.lr_factor))
        };
        let trained = vit.layout().entries().iter().filter(|e| e.role != Role::Buffer);
        trained.map(of).collect()
    }

    #[test]
    fn the_reference_decays_everything_but_vectors() {
        for (name, (decay, factor)) in groups(AdamWPlan::REFERENCE) {
            let is_vector = name.ends_with("bias")
                || name.ends_with(".0.weight")
                || name.ends_with("norm.weight");
            assert_eq!((decay, factor), (if is_vector { 0.0 } else { 0.2 }, 1.0), "{name}");
        }
    }

    #[test]
    fn tokens_positions_and_ranges_can_be_spared() {
        let sane =
            AdamWPlan { decay: Decay::Matrices, decay_ranges: false, ..AdamWPlan::REFERENCE };
        let groups = groups(sane);
        let decay = |name: &str| groups[name].0;
        assert_eq!(decay("cls_token"), 0.0);
        assert_eq!(decay("pos_embed.pos_embed.pos_embed"), 0.0);
        assert_eq!(decay("neural_augmentor.noise._high"), 0.0);
        assert_eq!(decay("patch_emb.0.block.conv.weight"), 0.2);
        assert_eq!(decay("classifier.weight"), 0.2);
    }

    #[test]
    fn layer_decay_is_the_references() {
        let groups = groups(AdamWPlan { layer_decay: 0.7, ..AdamWPlan::REFERENCE });
        let of = |name: &str| groups[name];
        assert_eq!(of("cls_token"), (0.2, 0.343));
        assert_eq!(of("patch_emb.2.block.conv.bias"), (0.0, 0.343));
        assert_eq!(of("transformer.0.pre_norm_ffn.1.weight"), (0.2, 0.49));
        assert_eq!(of("transformer.1.pre_norm_ffn.1.weight"), (0.2, 0.7));
        assert_eq!(of("post_transformer_norm.weight"), (0.0, 0.7));
        assert_eq!(of("classifier.weight"), (0.0, 1.0));
    }
}
