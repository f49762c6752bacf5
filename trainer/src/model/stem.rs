//! Pixels to tokens.
//!
//! In: `images_bchw`, float in 0…1. Out: float32 tokens `[b, n, d]`, row-major over the grid, and
//! its rows and columns. Never: adds positions.
//!
//! - corenet: three convolutions, the first two with BatchNorm and GELU, as the reference has it.
//! - linear: one matrix for each patch, as ViT, timm and Hugging Face have it.
//!
//! b images, c 3, h w pixels, s stem channels d/4, d width, n tokens.

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use super::batch_norm::{EPS, Groups, MOMENTUM, Normed};
use super::params::{EntryId, Init, Layout, Weights};
use super::{Mode, Pass};

/// Least number of channels inside the corenet stem.
const CHANNELS_MIN: i64 = 32;

/// How pixels become tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StemKind {
    /// The reference's three convolutions.
    #[default]
    Corenet,
    /// One linear map of each patch.
    Linear,
}

/// The stem's entries and strides.
#[derive(Clone, Debug)]
pub enum Stem {
    /// The reference's three convolutions.
    Corenet {
        /// To a quarter of the size, or a half.
        first: ConvNorm,
        /// To a half of that.
        second: ConvNorm,
        /// To a half of that, and the width.
        last: Conv,
    },
    /// One linear map of each patch.
    Linear(Conv),
}

/// A convolution with bias whose patches do not overlap.
#[derive(Clone, Debug)]
pub struct Conv {
    pub(super) stride: i64,
    pub(super) weight: EntryId,
    pub(super) bias: EntryId,
}

impl Conv {
    fn declare(layout: &mut Layout, name: &str, shape: [i64; 4], init: Init) -> Self {
        Self {
            stride: shape[3],
            weight: layout.param(format!("{name}.weight"), &shape, init),
            bias: layout.param(format!("{name}.bias"), &[shape[0]], Init::Zeros),
        }
    }

    fn forward(&self, w: &Weights, x_bchw: &Tensor, pass: Pass) -> Result<Tensor, TchError> {
        let (weight, bias) = (w.get(self.weight), w.get(self.bias));
        let (weight, bias) = (weight.f_to_kind(pass.kind())?, bias.f_to_kind(pass.kind())?);
        x_bchw.f_to_kind(pass.kind())?.f_conv2d(&weight, Some(&bias), self.stride, 0, 1, 1)
    }
}

/// A convolution without bias, BatchNorm and GELU.
#[derive(Clone, Debug)]
pub struct ConvNorm {
    pub(super) stride: i64,
    padding: i64,
    pub(super) conv: EntryId,
    pub(super) weight: EntryId,
    pub(super) bias: EntryId,
    pub(super) running_mean: EntryId,
    pub(super) running_var: EntryId,
}

impl Stem {
    /// Declares the stem of a model of `width` whose tokens are `patch_px` apart.
    ///
    /// The corenet stem knows 16 px, and 8 with the same weights: the reference's
    /// `output_stride = 8`, where the first stride is 2.
    pub fn declare(layout: &mut Layout, kind: StemKind, width: i64, patch_px: i64) -> Self {
        if kind == StemKind::Linear {
            let shape = [width, 3, patch_px, patch_px];
            // By fan-in: what comes out has the variance of the pixels.
            let init = Init::Normal { std: (3.0 * (patch_px * patch_px) as f64).powf(-0.5) };
            return Self::Linear(Conv::declare(layout, "patch_emb.proj", shape, init));
        }
        let channels = (width / 4).max(CHANNELS_MIN);
        let shape = [width, channels, 2, 2];
        Self::Corenet {
            first: ConvNorm::declare(layout, 0, [channels, 3, 4, 4], patch_px / 4, 1),
            second: ConvNorm::declare(layout, 1, [channels, channels, 2, 2], 2, 0),
            last: Conv::declare(layout, "patch_emb.2.block.conv", shape, conv_init(shape)),
        }
    }

    /// `images_bchw` → tokens `[b, n, d]`, and rows and columns of their grid. With `groups`,
    /// BatchNorm normalises by them, and its cuts of the graph are put behind each other.
    pub fn forward(
        &self,
        w: &Weights,
        images_bchw: &Tensor,
        pass: Pass,
        mut groups: Option<(&Groups, &mut Vec<Normed>)>,
    ) -> Result<(Tensor, [i64; 2]), TchError> {
        let x_bdhw = match self {
            Self::Linear(patches) => patches.forward(w, images_bchw, pass)?,
            Self::Corenet { first, second, last } => {
                let mut x = images_bchw.shallow_clone();
                for layer in [first, second] {
                    x = match &mut groups {
                        None => layer.forward(w, &x, pass)?,
                        Some((groups, cuts)) => {
                            layer.forward_in_groups(w, &x, pass, groups, cuts)?
                        }
                    };
                }
                last.forward(w, &x, pass)?
            }
        };
        let (_, _, rows, columns) = x_bdhw.size4()?;
        let tokens_bnd = x_bdhw.f_flatten(2, 3)?.f_transpose(1, 2)?.f_to_kind(Kind::Float)?;
        Ok((tokens_bnd, [rows, columns]))
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

    fn convolve(&self, w: &Weights, x_bchw: &Tensor, pass: Pass) -> Result<Tensor, TchError> {
        let conv = w.get(self.conv).f_to_kind(pass.kind())?;
        x_bchw
            .f_to_kind(pass.kind())?
            .f_conv2d(&conv, None::<&Tensor>, self.stride, self.padding, 1, 1)?
            .f_to_kind(Kind::Float)
    }

    fn forward_in_groups(
        &self,
        w: &Weights,
        x_bchw: &Tensor,
        pass: Pass,
        groups: &Groups,
        cuts: &mut Vec<Normed>,
    ) -> Result<Tensor, TchError> {
        let normed = Normed::new(self.convolve(w, x_bchw, pass)?, groups)?;
        normed.follow([w.get(self.running_mean), w.get(self.running_var)])?;
        let output = normed.output(w.get(self.weight), w.get(self.bias), groups)?;
        cuts.push(normed);
        output.f_gelu("none")
    }

    fn forward(&self, w: &Weights, x_bchw: &Tensor, pass: Pass) -> Result<Tensor, TchError> {
        self.convolve(w, x_bchw, pass)?
            .f_batch_norm(
                Some(w.get(self.weight)),
                Some(w.get(self.bias)),
                Some(w.get(self.running_mean)),
                Some(w.get(self.running_var)),
                pass.mode == Mode::Train,
                MOMENTUM,
                EPS,
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
