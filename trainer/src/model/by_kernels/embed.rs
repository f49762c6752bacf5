//! Images to tokens by kernels, and the way back.
//!
//! b images, g tokens of the grid, t tokens, d width, n = b · g rows.

use tch::{Kind, TchError, Tensor};

use super::Way;
use super::augment::AugmentTape;
use super::convs::{ConvsTape, convs};
use crate::batch::unit_floats;
use crate::kernels::Grid;
use crate::model::batch_norm::Normed as Cut;
use crate::model::chain::{Objective, Walk, leaf};
use crate::model::stem::Stem;
use crate::model::vit::Vit;
use crate::shim::ops;

/// What is kept of the stem.
#[derive(Debug)]
enum StemTape {
    /// The rows that the linear stem multiplied.
    Patches(Tensor),
    /// What the corenet stem keeps by kernels.
    Convs(ConvsTape),
    /// The images, a leaf if their gradient is wanted, what it gave, and where the graph between
    /// them is cut.
    Graph { images_bchw: Tensor, grid_bnd: Tensor, cuts: Vec<Cut> },
}

/// What is kept of images on their way to tokens.
#[derive(Debug)]
pub(super) struct EmbedTape {
    stem: StemTape,
    /// Rows and columns of the grid.
    grid: [i64; 2],
    augment: Option<AugmentTape>,
}

impl EmbedTape {
    /// The loss of the augmentation's distance, if there is one.
    pub(super) fn loss_of_images(&self) -> Option<&Tensor> {
        self.augment.as_ref().map(|tape| &tape.loss)
    }
}

impl Way<'_> {
    // --- tokens ---------------------------------------------------------------------------------

    /// Images → tokens `[b, t, d]`, and what the way back needs.
    pub(super) fn embed(
        &self,
        vit: &Vit,
        images_bchw: &Tensor,
        objective: &Objective,
        walk: &Walk,
    ) -> Result<(Tensor, EmbedTape), TchError> {
        let kernels = &self.form.kernels;
        let (_, _, height, width) = images_bchw.size4()?;
        let convs = convs(&vit.stem).filter(|_| is_dense(height, width));
        let pixels_bhwc = images_bchw.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        let (pixels_bhwc, augment) = match &objective.augmentation {
            None => (pixels_bhwc, None),
            Some(augmentation) => {
                let kind = if convs.is_some() { self.kind } else { Kind::Float };
                let (mixed_bhwc, tape) = self.augment(augmentation, pixels_bhwc, kind)?;
                (mixed_bhwc, Some(tape))
            }
        };
        let is_bytes = pixels_bhwc.kind() == Kind::Uint8;
        let (grid_nd, grid, stem) = match (&vit.stem, convs) {
            (Stem::Linear(conv), _) if is_bytes => {
                let _no_grad = tch::no_grad_guard();
                let p = conv.stride;
                let patches = kernels.patchify(&pixels_bhwc, p, self.kind)?;
                let weight = self.w.of_kind(conv.weight, self.kind)?.f_flatten(1, 3)?;
                let bias = self.w.of_kind(conv.bias, self.kind)?;
                let grid_nd = patches.f_linear(&weight, Some(&bias))?;
                (grid_nd, [height / p, width / p], StemTape::Patches(patches))
            }
            (_, Some(convs)) => {
                let _no_grad = tch::no_grad_guard();
                let pixels_bhwc =
                    if is_bytes { pixels_bhwc } else { pixels_bhwc.f_to_kind(self.kind)? };
                let (grid_nd, tape) = self.convs_forward(convs, &pixels_bhwc, walk.groups)?;
                (grid_nd, [height / 16, width / 16], StemTape::Convs(tape))
            }
            (stem, None) => {
                let images_bchw = unit_floats(&pixels_bhwc.f_permute([0, 3, 1, 2])?)?;
                let images_bchw = if augment.is_some() { leaf(&images_bchw)? } else { images_bchw };
                let mut cuts = Vec::new();
                let by = walk.groups.map(|groups| (groups, &mut cuts));
                let (grid_bnd, grid) = stem.forward(self.w, &images_bchw, walk.pass, by)?;
                let grid_nd = grid_bnd.f_detach()?.f_flatten(0, 1)?.f_contiguous()?;
                (grid_nd, grid, StemTape::Graph { images_bchw, grid_bnd, cuts })
            }
        };
        let _no_grad = tch::no_grad_guard();
        let shape = self.grid(vit, grid);
        let learned = self.w.of_kind(vit.positions.embedding(), Kind::Float)?;
        let learned_pd = learned.f_view([-1, shape.width])?;
        let positions_gd = match self.form.resampling(vit, grid, self.w.device())? {
            Some(matrix_gp) => matrix_gp.f_matmul(&learned_pd)?,
            None => learned_pd,
        };
        let prefix =
            vit.prefix.iter().map(|&id| self.w.of_kind(id, Kind::Float)?.f_view([-1, shape.width]));
        let prefix = prefix.collect::<Result<Vec<_>, _>>()?;
        let prefix_pd = match prefix.is_empty() {
            true => Tensor::f_empty([0, shape.width], (Kind::Float, self.w.device()))?,
            false => Tensor::f_cat(&prefix, 0)?,
        };
        let tokens_btd = kernels.tokens(&grid_nd, &positions_gd, &prefix_pd, shape)?;
        Ok((tokens_btd, EmbedTape { stem, grid, augment }))
    }

    fn grid(&self, vit: &Vit, grid: [i64; 2]) -> Grid {
        let plan = vit.plan();
        Grid { num_prefix: plan.num_prefix(), num_grid: grid[0] * grid[1], width: plan.width }
    }

    pub(super) fn embed_back(
        &self,
        vit: &Vit,
        tape: EmbedTape,
        gradient_btd: &Tensor,
        walk: &Walk,
    ) -> Result<(), TchError> {
        let EmbedTape { stem, grid, augment } = tape;
        let shape = self.grid(vit, grid);
        let is_graph = matches!(stem, StemTape::Graph { .. });
        let kind = if is_graph { Kind::Float } else { self.kind };
        let no_grad = tch::no_grad_guard();
        let (of_grid_nd, sums_td) =
            self.form.kernels.tokens_back(gradient_btd, shape.num_prefix, kind)?;
        let mut from = 0;
        for &id in &vit.prefix {
            let like = self.w.get(id);
            let rows = like.numel() as i64 / shape.width;
            self.hand.add(id, &sums_td.f_narrow(0, from, rows)?.f_view_as(like)?)?;
            from += rows;
        }
        let sums_gd = sums_td.f_narrow(0, shape.num_prefix, shape.num_grid)?;
        let of_learned = match self.form.resampling(vit, grid, self.w.device())? {
            Some(matrix_gp) => matrix_gp.f_tr()?.f_matmul(&sums_gd)?,
            None => sums_gd.shallow_clone(),
        };
        let embedding = vit.positions.embedding();
        self.hand.add(embedding, &of_learned.f_view_as(self.w.get(embedding))?)?;
        let of_bias = sums_gd.f_sum_dim_intlist([0].as_slice(), false, Kind::Float)?;
        let of_images_bhwc = match (stem, &vit.stem) {
            (StemTape::Patches(patches), Stem::Linear(conv)) => {
                let gradient = self.hand.gradient(conv.weight)?.f_flatten(1, 3)?;
                self.add_product(&gradient, &of_grid_nd, &patches)?;
                self.hand.has(conv.weight);
                self.hand.add(conv.bias, &of_bias)?;
                None
            }
            (StemTape::Convs(tape), stem) => {
                let Some(convs) = convs(stem) else { unreachable!("a tape of convolutions") };
                let is_wanted = augment.is_some();
                let of_images =
                    self.convs_back(convs, tape, &of_grid_nd, is_wanted, walk.groups)?;
                self.hand.add(convs.2.bias, &of_bias)?;
                of_images
            }
            (StemTape::Graph { images_bchw, grid_bnd, cuts }, _) => {
                drop(no_grad);
                graph_back(grid_bnd, cuts, &of_grid_nd, walk)?;
                let of_images = augment.is_some().then(|| images_bchw.f_grad());
                of_images.transpose()?.map(|of| of.f_permute([0, 2, 3, 1])).transpose()?
            }
            (StemTape::Patches(_), Stem::Corenet { .. }) => {
                unreachable!("a stem of convolutions keeps its graph")
            }
        };
        match (augment, of_images_bhwc) {
            (Some(tape), Some(of)) => self.augment_back(&tape, &of.f_contiguous()?),
            _ => Ok(()),
        }
    }
}

/// Whether the sides are multiples of the corenet stem's patches.
fn is_dense(height: i64, width: i64) -> bool {
    height % 16 == 0 && width % 16 == 0
}

/// The way back through the graph of a stem, by the gradient of what it gave.
fn graph_back(
    output: Tensor,
    cuts: Vec<Cut>,
    gradient: &Tensor,
    walk: &Walk,
) -> Result<(), TchError> {
    let (mut output, mut gradient) = (output.shallow_clone(), gradient.f_reshape(output.size())?);
    if let Some(groups) = walk.groups {
        for cut in cuts.into_iter().rev() {
            ops::backward(&output, &gradient)?;
            (output, gradient) = cut.back(groups)?;
        }
    }
    ops::backward(&output, &gradient)
}
