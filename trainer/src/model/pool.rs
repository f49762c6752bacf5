//! Tokens to one vector for each image.
//!
//! In: normalised tokens `[b, t, d]`. Out: `[b, d]`. Never: looks at registers.
//!
//! b images, t tokens, n of them of the grid, d width, a heads, k = d ÷ a width of a head.

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use super::Pass;
use super::block::{LayerNorm, Linear, attend};
use super::params::{EntryId, Init, Layout, Weights};
use super::vit::VitPlan;

/// Width of the attention pool's hidden layer over the width of the model.
const HIDDEN_FACTOR: i64 = 4;

/// Which vector the classifier sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The summary token.
    #[default]
    Summary,
    /// The mean of the grid's tokens.
    Mean,
    /// A learned query over the grid's tokens, then a hidden layer: timm's `AttentionPoolLatent`.
    Attention,
}

/// A pool's entries.
#[derive(Clone, Debug)]
pub(super) enum Pooling {
    Summary,
    Mean,
    Attention(Box<AttentionPool>),
}

#[derive(Clone, Debug)]
pub(super) struct AttentionPool {
    num_heads: i64,
    latent: EntryId,
    query: Linear,
    key_value: Linear,
    out: Linear,
    norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
}

impl Pooling {
    /// Declares what the pool of a plan needs.
    pub fn declare(layout: &mut Layout, plan: &VitPlan) -> Self {
        match plan.pool {
            Pool::Summary => Self::Summary,
            Pool::Mean => Self::Mean,
            Pool::Attention => Self::Attention(Box::new(AttentionPool::declare(layout, plan))),
        }
    }

    /// Tokens `[b, t, d]`, of which the first `num_prefix` are not of the grid → `[b, d]`.
    pub fn forward(
        &self,
        w: &Weights,
        tokens_btd: &Tensor,
        num_prefix: i64,
        pass: Pass,
    ) -> Result<Tensor, TchError> {
        let num_grid = tokens_btd.size()[1] - num_prefix;
        match self {
            Self::Summary => tokens_btd.f_select(1, 0),
            Self::Mean => {
                let grid_bnd = tokens_btd.f_narrow(1, num_prefix, num_grid)?;
                grid_bnd.f_mean_dim([1_i64].as_slice(), false, Kind::Float)
            }
            Self::Attention(pool) => {
                pool.forward(w, &tokens_btd.f_narrow(1, num_prefix, num_grid)?, pass)
            }
        }
    }
}

impl AttentionPool {
    fn declare(layout: &mut Layout, plan: &VitPlan) -> Self {
        let (d, hidden) = (plan.width, plan.width * HIDDEN_FACTOR);
        let init = Init::Normal { std: (d as f64).powf(-0.5) };
        Self {
            num_heads: plan.num_heads,
            latent: layout.token("pool.latent".into(), &[1, 1, d], init),
            query: Linear::declare(layout, "pool.q", d, d),
            key_value: Linear::declare(layout, "pool.kv", d, 2 * d),
            out: Linear::declare(layout, "pool.proj", d, d),
            norm: LayerNorm::declare(layout, "pool.norm", d),
            widen: Linear::declare(layout, "pool.mlp.fc1", d, hidden),
            narrow: Linear::declare(layout, "pool.mlp.fc2", hidden, d),
        }
    }

    fn forward(&self, w: &Weights, x_bnd: &Tensor, pass: Pass) -> Result<Tensor, TchError> {
        let (b, n, d) = x_bnd.size3()?;
        let (kind, heads) = (pass.kind(), self.num_heads);
        let latent = w.get(self.latent).f_to_kind(kind)?.f_expand([b, 1, d], false)?;
        let query = self.query.forward(w, &latent)?;
        let query_ba1k = query.f_view([b, 1, heads, d / heads])?.f_transpose(1, 2)?;
        let key_value = self.key_value.forward(w, &x_bnd.f_to_kind(kind)?)?;
        let parts_2bank = key_value
            .f_view([b, n, 2, heads, d / heads])?
            .f_permute([2, 0, 3, 1, 4])?
            .f_unbind(0)?;
        let mixed_ba1k = attend(&query_ba1k, &parts_2bank[0], &parts_2bank[1])?;
        let x_bd = self.out.forward(w, &mixed_ba1k.f_transpose(1, 2)?.f_reshape([b, d])?)?;
        let hidden = self.widen.forward(w, &self.norm.forward(w, &x_bd, kind)?)?.f_gelu("none")?;
        x_bd.f_to_kind(Kind::Float)?.f_add(&self.narrow.forward(w, &hidden)?)
    }
}
