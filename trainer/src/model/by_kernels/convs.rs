//! The corenet stem by kernels, where a patch has 16 pixels and BatchNorm takes all rows together.
//!
//! Its convolutions do not overlap, so each is a product over rows. Between them stand BatchNorm,
//! whose mean and variance are found in two passes, and GELU.
//!
//! b images, y x rows and columns of a grid, n = b · y · x rows, c channels.

use tch::{Kind, TchError, Tensor};

use super::Way;
use crate::kernels::NormalRows;
use crate::model::batch_norm::{EPS, MOMENTUM};
use crate::model::params::EntryId;
use crate::model::stem::{Conv, ConvNorm, Stem};

/// Stride of the first convolution where patches do not overlap.
const FIRST_STRIDE: i64 = 4;

/// What is kept of the stem.
#[derive(Debug)]
pub(super) struct ConvsTape {
    /// Images, height and width.
    size: [i64; 3],
    first: NormTape,
    second: NormTape,
    /// Rows that the last product took.
    patches: Tensor,
}

/// What is kept of a convolution, its BatchNorm and GELU.
#[derive(Debug)]
struct NormTape {
    /// Rows that the product took, and what it gave.
    patches: Tensor,
    x_nc: Tensor,
    /// Images, rows and columns of the grid.
    grid: [i64; 3],
    vectors_4c: Tensor,
}

/// The stem's convolutions, if kernels can pass them.
pub(super) fn convs(stem: &Stem) -> Option<(&ConvNorm, &ConvNorm, &Conv)> {
    match stem {
        Stem::Corenet { first, second, last } if first.stride == FIRST_STRIDE => {
            Some((first, second, last))
        }
        _ => None,
    }
}

impl Way<'_> {
    /// Pixels `[b, h, w, 3]`, bytes or floats 0…1 → rows of the grid `[b · h/16 · w/16, d]`.
    pub(super) fn convs_forward(
        &self,
        (first, second, last): (&ConvNorm, &ConvNorm, &Conv),
        pixels_bhwc: &Tensor,
    ) -> Result<(Tensor, ConvsTape), TchError> {
        let (b, height, width, _) = pixels_bhwc.size4()?;
        let patches = self.form.kernels.stem_patches(pixels_bhwc, self.kind)?;
        let weight = self.w.of_kind(first.conv, self.kind)?.f_flatten(1, 3)?;
        let first = self.norm_forward(first, patches, &weight, [b, height / 4, width / 4])?;
        let patches = self.form.kernels.normal_gelu(first.rows())?;
        let weight = self.by_place(second.conv)?;
        let second = self.norm_forward(second, patches, &weight, [b, height / 8, width / 8])?;
        let patches = self.form.kernels.normal_gelu(second.rows())?;
        let bias = self.w.of_kind(last.bias, self.kind)?;
        let grid_nd = patches.f_linear(&self.by_place(last.weight)?, Some(&bias))?;
        Ok((grid_nd, ConvsTape { size: [b, height, width], first, second, patches }))
    }

    /// Gradient of the grid's rows → that of the pixels, `[b, c, h, w]`, float32, if it is wanted.
    /// The gradient of the last bias is the caller's.
    pub(super) fn convs_back(
        &self,
        (first, second, last): (&ConvNorm, &ConvNorm, &Conv),
        tape: ConvsTape,
        of_grid_nd: &Tensor,
        wants_pixels: bool,
    ) -> Result<Option<Tensor>, TchError> {
        self.add_by_place(last.weight, of_grid_nd, &tape.patches)?;
        let of_patches = of_grid_nd.f_matmul(&self.by_place(last.weight)?)?;
        let of_x_nc = self.norm_back_of(second, &tape.second, &of_patches)?;
        self.add_by_place(second.conv, &of_x_nc, &tape.second.patches)?;
        let of_patches = of_x_nc.f_matmul(&self.by_place(second.conv)?)?;
        let of_x_nc = self.norm_back_of(first, &tape.first, &of_patches)?;
        let gradient = self.hand.gradient(first.conv)?.f_flatten(1, 3)?;
        self.add_product(&gradient, &of_x_nc, &tape.first.patches)?;
        self.hand.has(first.conv);
        if !wants_pixels {
            return Ok(None);
        }
        let weight = self.w.of_kind(first.conv, self.kind)?.f_flatten(1, 3)?;
        let of_patches = of_x_nc.f_matmul(&weight)?;
        let of_pixels = self.form.kernels.stem_patches_back(&of_patches, tape.size)?;
        of_pixels.f_permute([0, 3, 1, 2]).map(Some)
    }

    fn norm_forward(
        &self,
        layer: &ConvNorm,
        patches: Tensor,
        weight: &Tensor,
        grid: [i64; 3],
    ) -> Result<NormTape, TchError> {
        let kernels = &self.form.kernels;
        let x_nc = patches.f_matmul(&weight.f_tr()?)?;
        let (n, c) = x_nc.size2()?;
        let sums_c = Tensor::f_zeros([c], (Kind::Float, x_nc.device()))?;
        kernels.column_sum(&x_nc, &sums_c)?;
        let mean_c = sums_c.f_div_scalar(n as f64)?;
        let var_c = kernels.square_off(&x_nc, &mean_c)?.f_div_scalar(n as f64)?;
        let unbiased_c = var_c.f_mul_scalar(n as f64 / (n - 1).max(1) as f64)?;
        for (id, now_c) in [(layer.running_mean, &mean_c), (layer.running_var, &unbiased_c)] {
            // As data: see batch_norm.rs.
            _ = self.w.get(id).f_data()?.f_lerp_(now_c, MOMENTUM)?;
        }
        let rstd_c = var_c.f_add_scalar(EPS)?.f_rsqrt()?;
        let [weight_c, bias_c] =
            [self.w.of_kind(layer.weight, Kind::Float)?, self.w.of_kind(layer.bias, Kind::Float)?];
        let vectors_4c = Tensor::f_stack(&[&mean_c, &rstd_c, &weight_c, &bias_c], 0)?;
        Ok(NormTape { patches, x_nc, grid, vectors_4c })
    }

    /// The gradient of what the product gave, in the place of that.
    fn norm_back_of(
        &self,
        layer: &ConvNorm,
        tape: &NormTape,
        gradient: &Tensor,
    ) -> Result<Tensor, TchError> {
        let of = [self.hand.gradient(layer.weight)?, self.hand.gradient(layer.bias)?];
        self.form.kernels.normal_gelu_back(tape.rows(), gradient, of.each_ref())?;
        self.hand.has(layer.weight);
        self.hand.has(layer.bias);
        Ok(tape.x_nc.shallow_clone())
    }

    /// A weight `[o, c, 2, 2]` as the matrix `[o, 4 · c]` whose columns go by line, column and
    /// channel, as the kernels write rows.
    fn by_place(&self, id: EntryId) -> Result<Tensor, TchError> {
        let weight = self.w.of_kind(id, self.kind)?;
        weight.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_flatten(1, 3)
    }

    /// Adds to the gradient of such a weight that of rows, and tells of it.
    fn add_by_place(
        &self,
        id: EntryId,
        gradient_no: &Tensor,
        x_ni: &Tensor,
    ) -> Result<(), TchError> {
        let of_weight = self.hand.gradient(id)?;
        let [o, c, height, width] = <[i64; 4]>::try_from(of_weight.size())
            .map_err(|size| TchError::Torch(format!("a convolution's weight is {size:?}")))?;
        let columns = [o, height * width * c];
        let product = Tensor::f_zeros(columns, (Kind::Float, of_weight.device()))?;
        self.add_product(&product, gradient_no, x_ni)?;
        let product = product.f_view([o, height, width, c])?.f_permute([0, 3, 1, 2])?;
        self.hand.add(id, &product)
    }
}

impl NormTape {
    fn rows(&self) -> NormalRows<'_> {
        NormalRows { x_nc: &self.x_nc, grid: self.grid, vectors_4c: &self.vectors_4c }
    }
}
