//! Learned positions, resampled when the grid of an image has another size.
//!
//! In: tokens `[b, n, d]` of the grid, without any other token. Out: the same with positions added.
//! Never: gives a position to the summary token or a register.
//!
//! - corenet stem: linear along the row-major sequence, as the reference does. It does not look at
//!   the grid: every size but that of the positions sees a sheared one, in a faithful port too.
//! - linear stem: bicubic over the grid, antialiased, as timm does (`resample_abs_pos_embed`).
//!
//! h w rows and columns of the grid, n = h · w tokens, d width.

use tch::{Device, Kind, TchError, Tensor};

use super::params::{EntryId, Init, Layout, Weights};
use super::stem::StemKind;
use crate::batch::sent;

/// The learned positions.
#[derive(Clone, Debug)]
pub struct Positions {
    embedding: EntryId,
    stem: StemKind,
    num_positions: i64,
    width: i64,
}

impl Positions {
    /// Declares `num_positions` positions of `width`; a square number for the linear stem.
    pub fn declare(layout: &mut Layout, stem: StemKind, num_positions: i64, width: i64) -> Self {
        let embedding = layout.token(
            "pos_embed.pos_embed.pos_embed".into(),
            &[1, 1, num_positions, width],
            Init::Normal { std: (width as f64).powf(-0.5) },
        );
        Self { embedding, stem, num_positions, width }
    }

    /// Adds the positions to tokens `[b, n, d]` of a grid of so many rows and columns.
    pub fn add(
        &self,
        w: &Weights,
        tokens_bnd: &Tensor,
        grid: [i64; 2],
    ) -> Result<Tensor, TchError> {
        let learned_pd = w.get(self.embedding).f_view([-1, self.width])?;
        let positions_nd = match self.resampling(grid)? {
            None => learned_pd,
            // A product, since ATen's resampling has no deterministic way back on a GPU.
            Some(matrix_np) => sent(&matrix_np, w.device())?.f_matmul(&learned_pd)?,
        };
        tokens_bnd.f_add(&positions_nd)
    }

    /// The learned positions among the weights.
    pub fn embedding(&self) -> EntryId {
        self.embedding
    }

    /// The matrix, on the CPU, that makes of the learned positions those of a grid; none where they
    /// are the same. Resampling is linear, so it is what is made of a matrix of ones on a diagonal.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn resampling(&self, grid: [i64; 2]) -> Result<Option<Tensor>, TchError> {
        let n = self.num_positions;
        let (side, [rows, columns]) = (n.isqrt(), grid);
        let is_same = match self.stem {
            StemKind::Corenet => rows * columns == n,
            StemKind::Linear => grid == [side, side],
        };
        if is_same {
            return Ok(None);
        }
        let eye = Tensor::f_eye(n, (Kind::Float, Device::Cpu))?;
        let made = match self.stem {
            // The map is `positions × n`; only its first side is resampled.
            StemKind::Corenet => eye.f_view([1, 1, n, n])?.f_upsample_bilinear2d(
                [rows * columns, n],
                false,
                None,
                None,
            ),
            // A map of the grid for each position.
            StemKind::Linear => eye
                .f_view([1, n, side, side])?
                .f_internal_upsample_bicubic2d_aa(grid, false, None, None)?
                .f_flatten(2, 3)?
                .f_transpose(1, 2),
        };
        made?.f_reshape([rows * columns, n]).map(Some)
    }
}
