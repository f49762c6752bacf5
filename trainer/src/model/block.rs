//! One pre-norm transformer block, and the LayerNorm that it shares with the end of the trunk.
//!
//! In and out: tokens `[b, t, d]`. Never: keeps state.
//!
//! b images, t tokens, d width, a heads, k = d ÷ a width of a head.

use tch::{Kind, TchError, Tensor};

use super::params::{EntryId, Init, Layout, Weights};

/// Added to the variance in every LayerNorm of the reference.
const LAYER_NORM_EPS: f64 = 1e-6;
/// Standard deviation of every linear weight at the start.
pub(super) const LINEAR_STD: f64 = 0.02;
/// Width of the hidden layer over the width of the model.
const HIDDEN_FACTOR: i64 = 4;

/// Normalises the last dimension, always, in fp32.
///
/// The reference takes the channels for the second dimension when that is as long as the width; we
/// do not (`tokens_as_many_as_the_width_are_still_normalised_over_channels`).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: EntryId,
    bias: EntryId,
    width: i64,
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

    /// Normalises tokens `[b, t, d]` over d.
    pub fn forward(&self, w: &Weights, x_btd: &Tensor) -> Result<Tensor, TchError> {
        let (weight, bias) = (Some(w.get(self.weight)), Some(w.get(self.bias)));
        x_btd
            .f_to_kind(Kind::Float)?
            .f_layer_norm(self.width, weight, bias, LAYER_NORM_EPS, true)?
            .f_to_kind(x_btd.kind())
    }
}

/// A linear layer with bias.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: EntryId,
    bias: EntryId,
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

    /// `[…, width_in]` → `[…, width_out]`.
    pub fn forward(&self, w: &Weights, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(w.get(self.weight), Some(w.get(self.bias)))
    }

    /// Its bias, `[width_out]`.
    pub fn bias<'w>(&self, w: &'w Weights) -> &'w Tensor {
        w.get(self.bias)
    }
}

/// Attention and a hidden layer, each behind a norm and added to what came in.
#[derive(Clone, Debug)]
pub struct Block {
    num_heads: i64,
    norm_attention: LayerNorm,
    query_key_value: Linear,
    out: Linear,
    norm_hidden: LayerNorm,
    widen: Linear,
    narrow: Linear,
}

impl Block {
    /// Declares block `at` of a model.
    pub fn declare(layout: &mut Layout, at: i64, width: i64, num_heads: i64) -> Self {
        let hidden = width * HIDDEN_FACTOR;
        let attention = format!("transformer.{at}.pre_norm_mha");
        let ffn = format!("transformer.{at}.pre_norm_ffn");
        Self {
            num_heads,
            norm_attention: LayerNorm::declare(layout, &format!("{attention}.0"), width),
            query_key_value: Linear::declare(
                layout,
                &format!("{attention}.1.qkv_proj"),
                width,
                3 * width,
            ),
            out: Linear::declare(layout, &format!("{attention}.1.out_proj_attn"), width, width),
            norm_hidden: LayerNorm::declare(layout, &format!("{ffn}.0"), width),
            widen: Linear::declare(layout, &format!("{ffn}.1"), width, hidden),
            narrow: Linear::declare(layout, &format!("{ffn}.4"), hidden, width),
        }
    }

    /// Tokens `[b, t, d]` → tokens `[b, t, d]`.
    pub fn forward(&self, w: &Weights, x_btd: &Tensor) -> Result<Tensor, TchError> {
        let x = x_btd.f_add(&self.attention(w, &self.norm_attention.forward(w, x_btd)?)?)?;
        let hidden = self.widen.forward(w, &self.norm_hidden.forward(w, &x)?)?.f_gelu("none")?;
        x.f_add(&self.narrow.forward(w, &hidden)?)
    }

    fn attention(&self, w: &Weights, x_btd: &Tensor) -> Result<Tensor, TchError> {
        let (b, t, d) = x_btd.size3()?;
        let parts_3batk = self
            .query_key_value
            .forward(w, x_btd)?
            .f_view([b, t, 3, self.num_heads, d / self.num_heads])?
            .f_permute([2, 0, 3, 1, 4])?
            .f_unbind(0)?;
        let (query, key, value) = (&parts_3batk[0], &parts_3batk[1], &parts_3batk[2]);
        let no_mask = None::<&Tensor>;
        let mixed_batk = Tensor::f_scaled_dot_product_attention(
            query, key, value, no_mask, 0.0, false, None, false,
        )?;
        self.out.forward(w, &mixed_batk.f_transpose(1, 2)?.f_reshape([b, t, d])?)
    }
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
        let y_btd = norm.forward(&weights, &x_btd).unwrap();
        let mean_bt = y_btd.mean_dim(-1, false, Kind::Float);
        let var_bt = y_btd.var_dim(-1, false, false);
        assert!(mean_bt.abs().max().double_value(&[]) < 1e-5);
        assert!((var_bt - 1.0).abs().max().double_value(&[]) < 1e-4);
    }
}
