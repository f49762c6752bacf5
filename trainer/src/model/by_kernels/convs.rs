//! The corenet stem by kernels, where a patch has 16 pixels.
//!
//! Its convolutions do not overlap, so each is a product over rows. Between them stand BatchNorm,
//! whose mean and variance are found in two passes, and GELU; the rows of a group follow each
//! other, so what is done by group is done to a stretch of rows.
//!
//! b images, y x rows and columns of a grid, n = b · y · x rows, g groups, c channels.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::Way;
use crate::kernels::NormalRows;
use crate::model::batch_norm::{self, EPS, Groups};
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
    /// Rows and columns of the grid.
    grid: [i64; 2],
    /// Of each group what its rows are normalised by, `[g, 4, c]`.
    vectors_g4c: Tensor,
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
    /// Pixels `[b, h, w, 3]`, bytes or of the kind of matrices → rows of the grid
    /// `[b · h/16 · w/16, d]`.
    pub(super) fn convs_forward(
        &self,
        (first, second, last): (&ConvNorm, &ConvNorm, &Conv),
        pixels_bhwc: &Tensor,
        groups: Option<&Groups>,
    ) -> Result<(Tensor, ConvsTape), TchError> {
        let (b, height, width, _) = pixels_bhwc.size4()?;
        let mut all = None;
        let groups = or_all(groups, &mut all, b, pixels_bhwc.device())?;
        let patches = self.form.kernels.stem_patches(pixels_bhwc, self.kind)?;
        let weight = self.w.of_kind(first.conv, self.kind)?.f_flatten(1, 3)?;
        let grid = [height / 4, width / 4];
        let (first, patches) = self.norm_forward(first, patches, &weight, grid, groups)?;
        let weight = self.by_place(second.conv)?;
        let grid = [height / 8, width / 8];
        let (second, patches) = self.norm_forward(second, patches, &weight, grid, groups)?;
        let bias = self.w.of_kind(last.bias, self.kind)?;
        let grid_nd = patches.f_linear(&self.by_place(last.weight)?, Some(&bias))?;
        Ok((grid_nd, ConvsTape { size: [b, height, width], first, second, patches }))
    }

    /// Gradient of the grid's rows → that of the pixels, `[b, h, w, 3]`, if it is wanted. The
    /// gradient of the last bias is the caller's.
    pub(super) fn convs_back(
        &self,
        (first, second, last): (&ConvNorm, &ConvNorm, &Conv),
        tape: ConvsTape,
        of_grid_nd: &Tensor,
        wants_pixels: bool,
        groups: Option<&Groups>,
    ) -> Result<Option<Tensor>, TchError> {
        let mut all = None;
        let groups = or_all(groups, &mut all, tape.size[0], of_grid_nd.device())?;
        self.add_by_place(last.weight, of_grid_nd, &tape.patches)?;
        let of_patches = of_grid_nd.f_matmul(&self.by_place(last.weight)?)?;
        let of_x_nc = self.norm_back_of(second, &tape.second, &of_patches, groups)?;
        self.add_by_place(second.conv, &of_x_nc, &tape.second.patches)?;
        let of_patches = of_x_nc.f_matmul(&self.by_place(second.conv)?)?;
        let of_x_nc = self.norm_back_of(first, &tape.first, &of_patches, groups)?;
        let gradient = self.hand.gradient(first.conv)?.f_flatten(1, 3)?;
        self.add_product(&gradient, &of_x_nc, &tape.first.patches)?;
        self.hand.has(first.conv);
        if !wants_pixels {
            return Ok(None);
        }
        let weight = self.w.of_kind(first.conv, self.kind)?.f_flatten(1, 3)?;
        let of_patches = of_x_nc.f_matmul(&weight)?;
        self.form.kernels.stem_patches_back(&of_patches, tape.size).map(Some)
    }

    /// Rows that a convolution takes, of a `grid` → what is kept, and rows that the next one takes.
    fn norm_forward(
        &self,
        layer: &ConvNorm,
        patches: Tensor,
        weight: &Tensor,
        grid: [i64; 2],
        groups: &Groups,
    ) -> Result<(NormTape, Tensor), TchError> {
        let kernels = &self.form.kernels;
        let x_nc = patches.f_matmul(&weight.f_tr()?)?;
        let (n, c) = x_nc.size2()?;
        let of_group = groups.spans().len() as i64;
        let count_g1 = groups.count(grid[0] * grid[1])?;
        let zeros = || Tensor::f_zeros([of_group, c], (Kind::Float, x_nc.device()));
        let (sums_gc, squares_gc) = (zeros()?, zeros()?);
        for (group, rows, _) in stretches(groups, grid) {
            kernels.column_sum(&cut(&x_nc, &rows)?, &sums_gc.f_get(group)?)?;
        }
        groups.sum(&sums_gc)?;
        let mean_gc = sums_gc.f_div(&count_g1)?;
        for (group, rows, _) in stretches(groups, grid) {
            let (mean_c, squares_c) = (mean_gc.f_get(group)?, squares_gc.f_get(group)?);
            kernels.square_off(&cut(&x_nc, &rows)?, &mean_c, &squares_c)?;
        }
        groups.sum(&squares_gc)?;
        let var_gc = squares_gc.f_div(&count_g1)?;
        let running = [self.w.get(layer.running_mean), self.w.get(layer.running_var)];
        batch_norm::follow(running, [&mean_gc, &var_gc], &count_g1)?;

        let rstd_gc = var_gc.f_add_scalar(EPS)?.f_rsqrt()?;
        let own = |id| self.w.of_kind(id, Kind::Float)?.f_expand_as(&mean_gc);
        let (weight_gc, bias_gc) = (own(layer.weight)?, own(layer.bias)?);
        let vectors_g4c = Tensor::f_stack(&[&mean_gc, &rstd_gc, &weight_gc, &bias_gc], 1)?;
        let next = Tensor::f_empty([n / 4, 4 * c], (self.kind, x_nc.device()))?;
        let tape = NormTape { patches, x_nc, grid, vectors_g4c };
        for (group, rows, _) in stretches(groups, grid) {
            let next = next.f_narrow(0, rows.start / 4, (rows.end - rows.start) / 4)?;
            tape.with_rows(group, &rows, |rows| kernels.normal_gelu(rows, &next))?;
        }
        Ok((tape, next))
    }

    /// The gradient of what the product gave, in the place of that.
    fn norm_back_of(
        &self,
        layer: &ConvNorm,
        tape: &NormTape,
        of_next: &Tensor,
        groups: &Groups,
    ) -> Result<Tensor, TchError> {
        let kernels = &self.form.kernels;
        let c = tape.x_nc.size()[1];
        let of_group = groups.spans().len() as i64;
        let sums_g2c = Tensor::f_zeros([of_group, 2, c], (Kind::Float, tape.x_nc.device()))?;
        let of_rows =
            |rows: &Range<i64>| of_next.f_narrow(0, rows.start / 4, (rows.end - rows.start) / 4);
        for (group, rows, _) in stretches(groups, tape.grid) {
            let (gradient, sums_2c) = (of_rows(&rows)?, sums_g2c.f_get(group)?);
            tape.with_rows(group, &rows, |rows| {
                kernels.normal_gelu_sums(rows, &gradient, &sums_2c)
            })?;
        }
        // Of the rows here; those of all ranks are added up with all gradients.
        let own_2c = sums_g2c.f_sum_dim_intlist([0].as_slice(), false, Kind::Float)?;
        self.hand.add(layer.weight, &own_2c.f_get(0)?)?;
        self.hand.add(layer.bias, &own_2c.f_get(1)?)?;
        groups.sum(&sums_g2c)?;
        for (group, rows, count) in stretches(groups, tape.grid) {
            let (gradient, sums_2c) = (of_rows(&rows)?, sums_g2c.f_get(group)?);
            tape.with_rows(group, &rows, |rows| {
                kernels.normal_gelu_back(rows, &gradient, &sums_2c, count)
            })?;
        }
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
    /// Calls `work` with a group and its rows.
    fn with_rows(
        &self,
        group: i64,
        rows: &Range<i64>,
        work: impl FnOnce(NormalRows) -> Result<(), TchError>,
    ) -> Result<(), TchError> {
        let (x_nc, vectors_4c) = (cut(&self.x_nc, rows)?, self.vectors_g4c.f_get(group)?);
        let [y, x] = self.grid;
        let grid = [(rows.end - rows.start) / (y * x), y, x];
        work(NormalRows { x_nc: &x_nc, grid, vectors_4c: &vectors_4c })
    }
}

/// The groups, or one of all rows, for which there is `room`.
fn or_all<'g>(
    groups: Option<&'g Groups<'g>>,
    room: &'g mut Option<Groups<'g>>,
    rows: i64,
    device: Device,
) -> Result<&'g Groups<'g>, TchError> {
    match groups {
        Some(groups) => Ok(groups),
        None => Ok(room.insert(Groups::of_all(rows, device)?)),
    }
}

/// The groups that have rows here: which, where its rows of a grid lie, and how many it has over
/// all ranks.
fn stretches(groups: &Groups, [y, x]: [i64; 2]) -> impl Iterator<Item = (i64, Range<i64>, i64)> {
    let of_image = y * x;
    let all = (0_i64..).zip(groups.spans()).map(move |(group, (span, rows))| {
        (group, span.start * of_image..span.end * of_image, rows * of_image)
    });
    all.filter(|(_, rows, _)| !rows.is_empty())
}

fn cut(x_nc: &Tensor, rows: &Range<i64>) -> Result<Tensor, TchError> {
    x_nc.f_narrow(0, rows.start, rows.end - rows.start)
}
