//! Pixels to tokens: three convolutions, the first two with BatchNorm and GELU.
//!
//! In: `images_bchw`, float in 0…1. Out: tokens `[b, n, d]`, row-major over the grid.
//! Never: adds positions.
//!
//! b images, c 3, h w pixels, s stem channels d/4, d width, n tokens.

use tch::{TchError, Tensor};

use super::Mode;
use super::params::{EntryId, Init, Layout, Weights};

/// Least number of channels inside the stem.
const CHANNELS_MIN: i64 = 32;
/// Share of the old running statistics that a batch replaces.
const BATCH_NORM_MOMENTUM: f64 = 0.1;
/// Added to the variance.
const BATCH_NORM_EPS: f64 = 1e-5;

/// The stem's entries and strides.
#[derive(Clone, Debug)]
pub struct Stem {
    first: ConvNorm,
    second: ConvNorm,
    last_weight: EntryId,
    last_bias: EntryId,
}

/// A convolution without bias, BatchNorm and GELU.
#[derive(Clone, Debug)]
struct ConvNorm {
    stride: i64,
    padding: i64,
    conv: EntryId,
    weight: EntryId,
    bias: EntryId,
    running_mean: EntryId,
    running_var: EntryId,
}

impl Stem {
    /// Declares the stem of a model of `width` whose tokens are `patch_px` (16 or 8) apart.
    ///
    /// 8 px is the reference's `output_stride = 8`: the first stride is 2, the weights stay.
    pub fn declare(layout: &mut Layout, width: i64, patch_px: i64) -> Self {
        let channels = (width / 4).max(CHANNELS_MIN);
        let first_stride = patch_px / 4;
        let name = "patch_emb.2.block.conv";
        Self {
            first: ConvNorm::declare(layout, 0, [channels, 3, 4, 4], first_stride, 1),
            second: ConvNorm::declare(layout, 1, [channels, channels, 2, 2], 2, 0),
            last_weight: {
                let shape = [width, channels, 2, 2];
                layout.param(format!("{name}.weight"), &shape, conv_init(shape))
            },
            last_bias: layout.param(format!("{name}.bias"), &[width], Init::Zeros),
        }
    }

    /// `images_bchw` → tokens `[b, n, d]`.
    pub fn forward(
        &self,
        w: &Weights,
        images_bchw: &Tensor,
        mode: Mode,
    ) -> Result<Tensor, TchError> {
        let x = self.first.forward(w, images_bchw, mode)?;
        let x = self.second.forward(w, &x, mode)?;
        let bias = Some(w.get(self.last_bias));
        let x = x.f_conv2d(w.get(self.last_weight), bias, 2, 0, 1, 1)?;
        x.f_flatten(2, 3)?.f_transpose(1, 2)
    }
}

impl ConvNorm {
    fn declare(layout: &mut Layout, at: usize, shape: [i64; 4], stride: i64, padding: i64) -> Self {
        let channels = [shape[0]];
        let name = format!("patch_emb.{at}.block");
        layout.counter(format!("{name}.norm.num_batches_tracked"));
        Self {
            stride,
            padding,
            conv: layout.param(format!("{name}.conv.weight"), &shape, conv_init(shape)),
            weight: layout.param(format!("{name}.norm.weight"), &channels, Init::Ones),
            bias: layout.param(format!("{name}.norm.bias"), &channels, Init::Zeros),
            running_mean: layout.buffer(
                format!("{name}.norm.running_mean"),
                &channels,
                Init::Zeros,
            ),
            running_var: layout.buffer(format!("{name}.norm.running_var"), &channels, Init::Ones),
        }
    }

    fn forward(&self, w: &Weights, x_bchw: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let conv = w.get(self.conv);
        x_bchw
            .f_conv2d(conv, None::<&Tensor>, self.stride, self.padding, 1, 1)?
            .f_batch_norm(
                Some(w.get(self.weight)),
                Some(w.get(self.bias)),
                Some(w.get(self.running_mean)),
                Some(w.get(self.running_var)),
                mode == Mode::Train,
                BATCH_NORM_MOMENTUM,
                BATCH_NORM_EPS,
                true,
            )?
            .f_gelu("none")
    }
}

/// Kaiming normal by fan-out with the gain of a rectifier: std = √(2 ÷ (out · height · width)).
fn conv_init(shape: [i64; 4]) -> Init {
    let fan_out = shape[0] * shape[2] * shape[3];
    Init::Normal { std: (2.0 / fan_out as f64).sqrt() }
}
