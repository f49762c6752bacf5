//! Learned positions, resampled along the flattened sequence when the grid has another size.
//!
//! In: tokens `[b, n, d]` without the summary token. Out: the same with positions added.
//! Never: looks at the grid: the reference interpolates in one dimension, so every size but that of
//! training sees a sheared grid, and a faithful port does too.

use tch::{TchError, Tensor};

use super::params::{EntryId, Init, Layout, Weights};

/// The learned positions.
#[derive(Clone, Debug)]
pub struct Positions {
    embedding: EntryId,
    num_positions: i64,
    width: i64,
}

impl Positions {
    /// Declares `num_positions` positions of `width`.
    pub fn declare(layout: &mut Layout, num_positions: i64, width: i64) -> Self {
        let embedding = layout.param(
            "pos_embed.pos_embed.pos_embed".into(),
            &[1, 1, num_positions, width],
            Init::Normal { std: (width as f64).powf(-0.5) },
        );
        Self { embedding, num_positions, width }
    }

    /// Adds the positions to tokens `[b, n, d]`.
    pub fn add(&self, w: &Weights, tokens_bnd: &Tensor) -> Result<Tensor, TchError> {
        let num_tokens = tokens_bnd.size()[1];
        let learned = w.get(self.embedding);
        let positions = if num_tokens == self.num_positions {
            learned.shallow_clone()
        } else {
            // The map is `positions × width`; only its first side is resampled.
            learned.f_upsample_bilinear2d([num_tokens, self.width], false, None, None)?
        };
        tokens_bnd.f_add(&positions.f_squeeze_dim(1)?)
    }
}
