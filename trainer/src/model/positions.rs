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

use tch::{TchError, Tensor};

use super::params::{EntryId, Init, Layout, Weights};
use super::stem::StemKind;

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
        let learned = w.get(self.embedding);
        let positions = match self.stem {
            StemKind::Corenet => self.along_sequence(learned, grid[0] * grid[1])?,
            StemKind::Linear => self.over_grid(learned, grid)?,
        };
        tokens_bnd.f_add(&positions.f_squeeze_dim(1)?)
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
        let eye = Tensor::f_eye(n, (tch::Kind::Float, tch::Device::Cpu))?.f_view([1, 1, n, n])?;
        let wide = Self { width: n, ..self.clone() };
        let made = match self.stem {
            StemKind::Corenet => wide.along_sequence(&eye, grid[0] * grid[1])?,
            StemKind::Linear => wide.over_grid(&eye, grid)?,
        };
        let is_same = made.data_ptr() == eye.data_ptr();
        (!is_same).then(|| made.f_reshape([grid[0] * grid[1], n])).transpose()
    }

    fn along_sequence(&self, learned: &Tensor, num_tokens: i64) -> Result<Tensor, TchError> {
        if num_tokens == self.num_positions {
            return Ok(learned.shallow_clone());
        }
        // The map is `positions × width`; only its first side is resampled.
        learned.f_upsample_bilinear2d([num_tokens, self.width], false, None, None)
    }

    fn over_grid(&self, learned: &Tensor, grid: [i64; 2]) -> Result<Tensor, TchError> {
        let side = self.num_positions.isqrt();
        if grid == [side, side] {
            return Ok(learned.shallow_clone());
        }
        learned
            .f_view([1, side, side, self.width])?
            .f_permute([0, 3, 1, 2])?
            .f_internal_upsample_bicubic2d_aa(grid, false, None, None)?
            .f_flatten(2, 3)?
            .f_transpose(1, 2)?
            .f_unsqueeze(1)
    }
}
