//! The model passed forwards and back by our own kernels, matrix products and attention apart.
//!
//! In and out: as of [`super::chain::backward`]. Never: waits for the device; keeps what a kernel
//! can compute again (norms, GELU); computes what nothing depends on: behind the last attention
//! only the summary token is read, so where the head sees that alone, only its rows are passed.
//!
//! Between blocks the tokens are a float32 sum and what is still to be added to it, which the next
//! norm does; on the way back the gradient goes along in float32 and, rounded, as matrices take it.
//!
//! b images, t tokens, d width, a heads, k = d ÷ a width of a head, n = b · t rows, f hidden.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tch::{Device, Kind, TchError, Tensor};

use super::Pass;
use super::block::{Block, LAYER_NORM_EPS, LayerNorm, Linear};
use super::chain::{Losses, Objective, Walk};
use super::fused::Hand;
use super::params::{EntryId, Weights};
use super::pool::Pooling;
use super::vit::Vit;
use crate::kernels::{Kernels, NormBack, NormIds, Normed};
use crate::shim::ops::{self, Attended, AttentionBackend};

mod augment;
mod convs;
mod embed;
mod head;

/// The kernels of a device, and what a step would else compute anew.
#[derive(Debug)]
pub struct KernelForm {
    kernels: Kernels,
    /// Whether a product of bfloat16 can be added to float32 without being rounded before.
    adds_directly: bool,
    /// Resampling of the positions, by the grid's rows and columns.
    resampling: RefCell<HashMap<[i64; 2], Option<Tensor>>>,
}

impl KernelForm {
    /// Over the kernels of `device`, which is asked once what it can.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn new(kernels: Kernels, device: Device) -> Result<Self, TchError> {
        let adds_directly = adds_directly(device)?;
        Ok(Self { kernels, adds_directly, resampling: RefCell::default() })
    }

    /// The kernels.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Whether a product of bfloat16 can be added to float32 without being rounded before.
    pub fn adds_directly(&self) -> bool {
        self.adds_directly
    }

    /// Whether the model can be passed so.
    pub fn takes(&self, vit: &Vit, pass: Pass) -> bool {
        let is_plain = !vit.blocks().is_empty() && vit.blocks().iter().all(Block::is_plain);
        is_plain && self.kernels.takes(vit.plan().width, pass.kind())
    }

    /// The matrix that resamples the positions to a grid, on `device`; none where they stay.
    fn resampling(
        &self,
        vit: &Vit,
        grid: [i64; 2],
        device: Device,
    ) -> Result<Option<Tensor>, TchError> {
        let mut known = self.resampling.borrow_mut();
        let matrix = match known.entry(grid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let made = vit.positions.resampling(grid)?;
                place.insert(made.map(|made| made.f_to_device(device)).transpose()?)
            }
        };
        Ok(matrix.as_ref().map(Tensor::shallow_clone))
    }
}

/// Tries on small numbers whether [`ops::add_product`] may be direct, and whether it is right.
fn adds_directly(device: Device) -> Result<bool, TchError> {
    if device == Device::Cpu {
        return Ok(false);
    }
    let matrix = Tensor::f_ones([16, 16], (Kind::BFloat16, device))?;
    let out = Tensor::f_full([16, 16], 0.5, (Kind::Float, device))?;
    let tried = ops::add_product(&out, &matrix, &matrix, true);
    Ok(tried.is_ok()
        && out.f_min()?.f_double_value(&[])? == 16.5
        && out.f_max()?.f_double_value(&[])? == 16.5)
}

/// What all functions below are told.
#[derive(Clone, Copy)]
struct Way<'w> {
    form: &'w KernelForm,
    w: &'w Weights,
    hand: Hand<'w>,
    kind: Kind,
    attention: AttentionBackend,
    /// For the last block, where one query of each image is left.
    attention_of_one: AttentionBackend,
}

/// Tokens between two blocks, as rows.
#[derive(Debug)]
struct Stream {
    /// Float32, `[n, d]`; rows may lie apart.
    base_nd: Tensor,
    /// What is still to be added, of the kind of matrices.
    added_nd: Option<Tensor>,
}

/// The gradient of a [`Stream`].
#[derive(Debug)]
struct Gradient {
    /// Float32, `[n, d]`.
    wide_nd: Tensor,
    /// The same as matrices take it.
    narrow_nd: Tensor,
}

/// What is kept of a norm: what came in, and its statistics.
#[derive(Debug)]
struct NormTape {
    x_nd: Tensor,
    mean_n: Tensor,
    rstd_n: Tensor,
}

/// What is kept of the hidden layer and the products around it.
#[derive(Debug)]
struct HiddenTape {
    /// What attention gave, `[n, d]`.
    mixed_nd: Tensor,
    second: NormTape,
    /// Before GELU.
    hidden_nf: Tensor,
}

/// What is kept of a block.
#[derive(Debug)]
struct BlockTape {
    first: NormTape,
    attended: Attended,
    hidden: HiddenTape,
}

/// Runs the model and back, as [`super::chain::backward`].
///
/// # Errors
///
/// What libtorch or the driver says.
pub(super) fn backward(
    form: &KernelForm,
    vit: &Vit,
    w: &Weights,
    images_bchw: &Tensor,
    objective: &Objective,
    walk: &Walk,
) -> Result<Losses, TchError> {
    w.refresh_narrow()?;
    let hand = Hand { w, arrived: walk.arrived };
    let (kind, attention) = (walk.pass.kind(), walk.attention);
    let attention_of_one = walk.attention_of_one.unwrap_or(attention);
    let way = Way { form, w, hand, kind, attention, attention_of_one };

    // --- forwards -------------------------------------------------------------------------------
    let b = images_bchw.size()[0];
    let (tokens_btd, embedded) = way.embed(vit, images_bchw, objective, walk)?;
    let t = tokens_btd.size()[1];
    let reads_summary = matches!(vit.pooling, Pooling::Summary) && walk.attention_of_one.is_some();
    let mut stream =
        Stream { base_nd: tokens_btd.f_view([b * t, vit.plan().width])?, added_nd: None };
    let mut tapes = Vec::with_capacity(vit.blocks().len());
    for (block, left) in vit.blocks().iter().zip((0..vit.blocks().len()).rev()) {
        let (next, tape) = match reads_summary && left == 0 {
            true => way.summary_forward(block, stream, b)?,
            false => way.block_forward(block, stream, b)?,
        };
        stream = next;
        tapes.push(tape);
    }

    // --- the head and its way back --------------------------------------------------------------
    let last = vit.blocks().last().map(|block| block.narrow.bias);
    let (loss, mut gradient) = match reads_summary {
        true => way.summary_head(vit, stream, objective, last)?,
        false => way.any_head(vit, stream, b, objective, walk.pass, last)?,
    };

    // --- backwards ------------------------------------------------------------------------------
    for (at, block) in vit.blocks().iter().enumerate().rev() {
        let Some(tape) = tapes.pop() else { break };
        let before = at.checked_sub(1).map(|before| vit.blocks()[before].narrow.bias);
        let is_summary = reads_summary && at + 1 == vit.blocks().len();
        gradient = match is_summary {
            true => way.summary_back(block, tape, gradient, before)?,
            false => way.block_back(block, tape, gradient, b, before)?,
        };
    }
    let gradient_btd = gradient.wide_nd.f_view([b, t, vit.plan().width])?;
    let of_images = embedded.loss_of_images().map(Tensor::shallow_clone);
    way.embed_back(vit, embedded, &gradient_btd, walk)?;
    Ok(Losses { of_labels: loss.f_detach()?, of_images })
}

impl Way<'_> {
    // --- blocks ---------------------------------------------------------------------------------

    fn norm(&self, norm: &LayerNorm, stream: Stream) -> Result<(Tensor, NormTape), TchError> {
        let Stream { base_nd, added_nd } = stream;
        let ids = self.norm_ids(norm)?;
        let ids = NormIds { weight: &ids[0], bias: &ids[1] };
        let made = self.form.kernels.add_norm(
            &base_nd,
            added_nd.as_ref(),
            ids,
            LAYER_NORM_EPS,
            self.kind,
        )?;
        let Normed { total_nd, normed_nd, mean_n, rstd_n } = made;
        let x_nd = total_nd.unwrap_or(base_nd);
        Ok((normed_nd, NormTape { x_nd, mean_n, rstd_n }))
    }

    fn norm_ids(&self, norm: &LayerNorm) -> Result<[Tensor; 2], TchError> {
        Ok([self.w.of_kind(norm.weight, Kind::Float)?, self.w.of_kind(norm.bias, Kind::Float)?])
    }

    /// Gradient of the normalised rows, which becomes those rows again; and that of the stream,
    /// to which the norm's is added. `bias` is the one of the product that the stream got last.
    fn norm_back(
        &self,
        norm: &LayerNorm,
        tape: &NormTape,
        of_normed_nd: &Tensor,
        wide_nd: Tensor,
        bias: Option<EntryId>,
    ) -> Result<Gradient, TchError> {
        let ids = self.norm_ids(norm)?;
        let of_ids = [self.hand.gradient(norm.weight)?, self.hand.gradient(norm.bias)?];
        let of_bias = bias.map(|bias| self.hand.gradient(bias)).transpose()?;
        let back = NormBack {
            x_nd: &tape.x_nd,
            statistics_n: [&tape.mean_n, &tape.rstd_n],
            norm: NormIds { weight: &ids[0], bias: &ids[1] },
            of_norm: NormIds { weight: &of_ids[0], bias: &of_ids[1] },
            of_bias: of_bias.as_ref(),
        };
        let narrow_nd = self.form.kernels.norm_back(of_normed_nd, &wide_nd, back)?;
        [Some(norm.weight), Some(norm.bias), bias].into_iter().flatten().for_each(|id| {
            self.hand.has(id);
        });
        Ok(Gradient { wide_nd, narrow_nd })
    }

    /// A linear layer of rows.
    fn product(&self, linear: &Linear, x_ni: &Tensor) -> Result<Tensor, TchError> {
        let weight = self.w.of_kind(linear.weight, self.kind)?;
        x_ni.f_linear(&weight, Some(&self.w.of_kind(linear.bias, self.kind)?))
    }

    /// Gradient of rows that went out → of those that came in.
    fn product_back(&self, linear: &Linear, gradient_no: &Tensor) -> Result<Tensor, TchError> {
        gradient_no.f_matmul(&self.w.of_kind(linear.weight, self.kind)?)
    }

    /// Adds to the gradient of a weight that of rows, and tells of it.
    fn add_to_weight(
        &self,
        linear: &Linear,
        gradient_no: &Tensor,
        x_ni: &Tensor,
    ) -> Result<(), TchError> {
        self.add_product(&self.hand.gradient(linear.weight)?, gradient_no, x_ni)?;
        self.hand.has(linear.weight);
        Ok(())
    }

    fn add_product(
        &self,
        out_oi: &Tensor,
        gradient_no: &Tensor,
        x_ni: &Tensor,
    ) -> Result<(), TchError> {
        ops::add_product(out_oi, &gradient_no.f_tr()?, x_ni, self.form.adds_directly)
    }

    fn block_forward(
        &self,
        block: &Block,
        stream: Stream,
        b: i64,
    ) -> Result<(Stream, BlockTape), TchError> {
        let _no_grad = tch::no_grad_guard();
        let (normed_nd, first) = self.norm(&block.norm_attention, stream)?;
        let (n, d) = normed_nd.size2()?;
        let parts_3batk = self
            .product(&block.query_key_value, &normed_nd)?
            .f_view([b, n / b, 3, block.num_heads, d / block.num_heads])?
            .f_permute([2, 0, 3, 1, 4])?
            .f_unbind(0)?;
        let [query, key, value] = [0, 1, 2].map(|part: usize| &parts_3batk[part]);
        let (mixed_batk, attended) = ops::attention(self.attention, [query, key, value])?;
        let mixed_nd = mixed_batk.f_transpose(1, 2)?.f_reshape([n, d])?;
        let base_nd = first.x_nd.shallow_clone();
        let (stream, hidden) = self.hidden_forward(block, base_nd, mixed_nd)?;
        Ok((stream, BlockTape { first, attended, hidden }))
    }

    /// From what attention gave to the end of the block.
    fn hidden_forward(
        &self,
        block: &Block,
        base_nd: Tensor,
        mixed_nd: Tensor,
    ) -> Result<(Stream, HiddenTape), TchError> {
        let added_nd = Some(self.product(&block.out, &mixed_nd)?);
        let (normed_nd, second) = self.norm(&block.norm_hidden, Stream { base_nd, added_nd })?;
        let hidden_nf = self.product(&block.widen, &normed_nd)?;
        let active_nf = self.form.kernels.gelu(&hidden_nf)?;
        let added_nd = Some(self.product(&block.narrow, &active_nf)?);
        let stream = Stream { base_nd: second.x_nd.shallow_clone(), added_nd };
        Ok((stream, HiddenTape { mixed_nd, second, hidden_nf }))
    }

    /// Gradient of a block's output → of what attention gave, and of the stream there.
    fn hidden_back(
        &self,
        block: &Block,
        tape: HiddenTape,
        gradient: Gradient,
    ) -> Result<(Tensor, Gradient), TchError> {
        let HiddenTape { mixed_nd, second, hidden_nf } = tape;
        let of_hidden_nf = self.product_back(&block.narrow, &gradient.narrow_nd)?;
        let of_bias = self.hand.gradient(block.widen.bias)?;
        self.form.kernels.gelu_back(&hidden_nf, &of_hidden_nf, &of_bias)?;
        self.hand.has(block.widen.bias);
        let active_nf = hidden_nf;
        self.add_to_weight(&block.narrow, &gradient.narrow_nd, &active_nf)?;
        drop(active_nf);

        let of_normed_nd = self.product_back(&block.widen, &of_hidden_nf)?;
        let (norm, bias) = (&block.norm_hidden, Some(block.out.bias));
        let gradient = self.norm_back(norm, &second, &of_normed_nd, gradient.wide_nd, bias)?;
        let normed_nd = of_normed_nd;
        self.add_to_weight(&block.widen, &of_hidden_nf, &normed_nd)?;
        let of_mixed_nd = self.product_back(&block.out, &gradient.narrow_nd)?;
        self.add_to_weight(&block.out, &gradient.narrow_nd, &mixed_nd)?;
        Ok((of_mixed_nd, gradient))
    }

    fn block_back(
        &self,
        block: &Block,
        tape: BlockTape,
        gradient: Gradient,
        b: i64,
        before: Option<EntryId>,
    ) -> Result<Gradient, TchError> {
        let _no_grad = tch::no_grad_guard();
        let (n, d) = gradient.wide_nd.size2()?;
        let BlockTape { first, attended, hidden } = tape;
        let (of_mixed_nd, gradient) = self.hidden_back(block, hidden, gradient)?;
        let heads = [b, n / b, block.num_heads, d / block.num_heads];
        let parts = attended.back(&of_mixed_nd.f_view(heads)?.f_transpose(1, 2)?)?;
        drop(attended);
        let linear = &block.query_key_value;
        let of_bias = self.hand.gradient(linear.bias)?;
        let of_parts = self.form.kernels.pack_heads(&parts.each_ref(), &of_bias)?;
        self.hand.has(linear.bias);
        drop(parts);
        let of_normed_nd = self.product_back(linear, &of_parts)?;
        let norm = &block.norm_attention;
        let gradient = self.norm_back(norm, &first, &of_normed_nd, gradient.wide_nd, before)?;
        self.add_to_weight(linear, &of_parts, &of_normed_nd)?;
        Ok(gradient)
    }
}

#[cfg(test)]
mod tests;
