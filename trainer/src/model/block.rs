//! One pre-norm transformer block, and the LayerNorm that it shares with the end of the trunk.
//!
//! In and out: float32 tokens `[b, t, d]`. Never: keeps state; other forms than the plain one stand
//! in [`super::chain`].
//!
//! b images, t tokens, d width, a heads, k = d ÷ a width of a head.

use tch::{Kind, TchError, Tensor};

use super::Pass;
use super::params::{EntryId, Init, Layout, Weights};
use super::vit::VitPlan;

/// Added to the variance in every LayerNorm of the reference.
pub(crate) const LAYER_NORM_EPS: f64 = 1e-6;
/// Standard deviation of every linear weight at the start.
pub(super) const LINEAR_STD: f64 = 0.02;

/// Normalises the last dimension, always, in fp32.
///
/// The reference takes the channels for the second dimension when that is as long as the width; we
/// do not (`tokens_as_many_as_the_width_are_still_normalised_over_channels`).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    pub(super) weight: EntryId,
    pub(super) bias: EntryId,
    pub(super) width: i64,
}

impl LayerNorm {
    /// Declares the norm `name` over `width` channels.
    pub fn declare(layout: &mut Layout, name: &str, width: i64) -> Self {
        Self {
            weight: layout.param(format!("{name}.weight"), &[width], Init::Ones),
            bias: layout.param(format!("{name}.bias"), &[width], Init::Zeros),
            width,
        }
    }

    /// Normalises `[…, d]` over d; what comes out is of `kind`.
    pub fn forward(&self, w: &Weights, x: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        let (weight, bias) = (Some(w.get(self.weight)), Some(w.get(self.bias)));
        x.f_to_kind(Kind::Float)?
            .f_layer_norm(self.width, weight, bias, LAYER_NORM_EPS, true)?
            .f_to_kind(kind)
    }
}

/// A linear layer with bias.
#[derive(Clone, Debug)]
pub struct Linear {
    pub(super) weight: EntryId,
    pub(super) bias: EntryId,
}

impl Linear {
    /// Declares the layer `name` from `width_in` to `width_out`.
    pub fn declare(layout: &mut Layout, name: &str, width_in: i64, width_out: i64) -> Self {
        let init = Init::Normal { std: LINEAR_STD };
        Self {
            weight: layout.param(format!("{name}.weight"), &[width_out, width_in], init),
            bias: layout.param(format!("{name}.bias"), &[width_out], Init::Zeros),
        }
    }

    /// `[…, width_in]` → `[…, width_out]`, computed in the kind of `x`.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Result<Tensor, TchError> {
        let weight = w.get(self.weight).f_to_kind(x.kind())?;
        x.f_linear(&weight, Some(w.get(self.bias).f_to_kind(x.kind())?))
    }

    /// Its bias, `[width_out]`.
    pub fn bias<'w>(&self, w: &'w Weights) -> &'w Tensor {
        w.get(self.bias)
    }
}

/// Norms of queries and keys, each over the width of a head.
#[derive(Clone, Debug)]
pub(super) struct QueryKeyNorms {
    query: LayerNorm,
    key: LayerNorm,
}

/// Attention and a hidden layer, each behind a norm and added to what came in.
#[derive(Clone, Debug)]
pub struct Block {
    pub(super) num_heads: i64,
    pub(super) is_gated: bool,
    pub(super) norm_attention: LayerNorm,
    pub(super) query_key_value: Linear,
    pub(super) query_key_norms: Option<QueryKeyNorms>,
    pub(super) out: Linear,
    pub(super) norm_hidden: LayerNorm,
    pub(super) widen: Linear,
    pub(super) narrow: Linear,
}

impl Block {
    /// Declares block `at` of a model.
    pub fn declare(layout: &mut Layout, at: i64, plan: &VitPlan) -> Self {
        let (width, hidden) = (plan.width, plan.hidden);
        let attention = format!("transformer.{at}.pre_norm_mha");
        let ffn = format!("transformer.{at}.pre_norm_ffn");
        let inner = format!("{attention}.1");
        let head = width / plan.num_heads;
        Self {
            num_heads: plan.num_heads,
            is_gated: plan.gated,
            norm_attention: LayerNorm::declare(layout, &format!("{attention}.0"), width),
            query_key_value: Linear::declare(
                layout,
                &format!("{inner}.qkv_proj"),
                width,
                3 * width,
            ),
            query_key_norms: plan.qk_norm.then(|| QueryKeyNorms {
                query: LayerNorm::declare(layout, &format!("{inner}.q_norm"), head),
                key: LayerNorm::declare(layout, &format!("{inner}.k_norm"), head),
            }),
            out: Linear::declare(layout, &format!("{inner}.out_proj_attn"), width, width),
            norm_hidden: LayerNorm::declare(layout, &format!("{ffn}.0"), width),
            widen: {
                let widened = if plan.gated { 2 * hidden } else { hidden };
                Linear::declare(layout, &format!("{ffn}.1"), width, widened)
            },
            narrow: Linear::declare(layout, &format!("{ffn}.4"), hidden, width),
        }
    }

    /// Tokens `[b, t, d]` → tokens `[b, t, d]`.
    pub fn forward(&self, w: &Weights, x_btd: &Tensor, pass: Pass) -> Result<Tensor, TchError> {
        let kind = pass.kind();
        let mixed = self.attention(w, &self.norm_attention.forward(w, x_btd, kind)?)?;
        let x_btd = x_btd.f_add(&mixed)?;
        let hidden = self.widen.forward(w, &self.norm_hidden.forward(w, &x_btd, kind)?)?;
        let hidden = if self.is_gated {
            let halves = hidden.f_chunk(2, -1)?;
            halves[0].f_silu()?.f_mul(&halves[1])?
        } else {
            hidden.f_gelu("none")?
        };
        x_btd.f_add(&self.narrow.forward(w, &hidden)?)
    }

    fn attention(&self, w: &Weights, x_btd: &Tensor) -> Result<Tensor, TchError> {
        let (b, t, d) = x_btd.size3()?;
        let parts_3batk = self
            .query_key_value
            .forward(w, x_btd)?
            .f_view([b, t, 3, self.num_heads, d / self.num_heads])?
            .f_permute([2, 0, 3, 1, 4])?
            .f_unbind(0)?;
        let [query, key, value] = [0, 1, 2].map(|part: usize| parts_3batk[part].shallow_clone());
        let (query, key) = match &self.query_key_norms {
            Some(norms) => {
                let kind = x_btd.kind();
                (norms.query.forward(w, &query, kind)?, norms.key.forward(w, &key, kind)?)
            }
            None => (query, key),
        };
        let mixed_batk = attend(&query, &key, &value)?;
        self.out.forward(w, &mixed_batk.f_transpose(1, 2)?.f_reshape([b, t, d])?)
    }
}

/// Softmax attention without a mask, scaled by 1 ÷ √k.
pub(super) fn attend(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, TchError> {
    let no_mask = None::<&Tensor>;
    Tensor::f_scaled_dot_product_attention(query, key, value, no_mask, 0.0, false, None, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn tokens_as_many_as_the_width_are_still_normalised_over_channels() {
        let mut layout = Layout::default();
        let norm = LayerNorm::declare(&mut layout, "norm", 64);
        let weights = Weights::init(&layout.place(), 0, Device::Cpu).unwrap();
        let x_btd = Tensor::randn([2, 64, 64], (Kind::Float, Device::Cpu)) * 3.0 + 5.0;
        let y_btd = norm.forward(&weights, &x_btd, Kind::Float).unwrap();
        let mean_bt = y_btd.mean_dim(-1, false, Kind::Float);
        let var_bt = y_btd.var_dim(-1, false, false);
        assert!(mean_bt.abs().max().double_value(&[]) < 1e-5);
        assert!((var_bt - 1.0).abs().max().double_value(&[]) < 1e-4);
    }
}
