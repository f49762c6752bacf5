//! A block passed forwards and back by hand: no graph, and nothing kept twice.
//!
//! In and out: as of [`Block::forward`]; on the way back gradients, added to those of the weights.
//! Never: takes blocks whose queries are normalised or whose hidden layer is gated; gives other
//! numbers than the plain form, but for the order in which some are added.
//!
//! Where memory counts, on a GPU, what both norms and GELU gave is computed again on the way back:
//! 22 · d bytes a token are kept in bf16, not 34 · d. On the CPU it is kept.
//!
//! b images, t tokens, d width, a heads, k = d ÷ a width of a head, n = b · t rows.

use tch::{Device, Kind, TchError, Tensor};

use super::Pass;
use super::block::{Block, LAYER_NORM_EPS, LayerNorm, Linear};
use super::params::{EntryId, Weights};
use crate::shim::ops::{self, Attended, AttentionBackend};

/// Weights whose gradients are made by hand.
#[derive(Clone, Copy)]
pub(super) struct Hand<'h> {
    /// The weights, to whose gradients is added.
    pub w: &'h Weights,
    /// Who is told which weight has its gradient, each once.
    pub arrived: Option<&'h dyn Fn(EntryId)>,
}

impl Hand<'_> {
    pub(super) fn add(&self, id: EntryId, gradient: &Tensor) -> Result<(), TchError> {
        _ = self.gradient(id)?.f_add_(gradient)?;
        self.has(id);
        Ok(())
    }

    /// Where the gradient of a weight is added.
    pub(super) fn gradient(&self, id: EntryId) -> Result<Tensor, TchError> {
        self.w.get(id).f_grad()
    }

    /// Tells that the gradient of a weight was added.
    pub(super) fn has(&self, id: EntryId) {
        if let Some(arrived) = self.arrived {
            arrived(id);
        }
    }
}

/// What is kept of a block between the two ways.
#[derive(Debug)]
pub(super) struct Kept {
    input_btd: Tensor,
    first: Norm,
    attended: Attended,
    /// What attention gave, `[n, d]`.
    mixed_nd: Tensor,
    /// After attention was added.
    middle_btd: Tensor,
    second: Norm,
    /// Before GELU, and after it where that is kept.
    hidden_nf: Tensor,
    active_nf: Option<Tensor>,
}

/// A norm: statistics of its rows, and what it gave where that is kept.
#[derive(Debug)]
struct Norm {
    mean: Tensor,
    rstd: Tensor,
    output_nd: Option<Tensor>,
}

impl Block {
    /// Whether the block can be passed by hand.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_gated && self.query_key_norms.is_none()
    }

    /// Tokens `[b, t, d]` → tokens `[b, t, d]`, and what the way back needs.
    pub(super) fn forward_by_hand(
        &self,
        w: &Weights,
        input_btd: &Tensor,
        pass: Pass,
        backend: AttentionBackend,
    ) -> Result<(Tensor, Kept), TchError> {
        let _no_grad = tch::no_grad_guard();
        let (b, t, d) = input_btd.size3()?;
        let kind = pass.kind();
        let keeps = input_btd.device() == Device::Cpu;

        let (normed_nd, first) = self.norm_attention.pass(w, input_btd, kind, keeps)?;
        let parts_3batk = self
            .query_key_value
            .forward(w, &normed_nd)?
            .f_view([b, t, 3, self.num_heads, d / self.num_heads])?
            .f_permute([2, 0, 3, 1, 4])?
            .f_unbind(0)?;
        let [query, key, value] = [0, 1, 2].map(|part: usize| &parts_3batk[part]);
        let (mixed_batk, attended) = ops::attention(backend, [query, key, value])?;
        let mixed_nd = mixed_batk.f_transpose(1, 2)?.f_reshape([b * t, d])?;
        let added_btd = self.out.forward(w, &mixed_nd)?.f_view([b, t, d])?;
        let middle_btd = input_btd.f_add(&added_btd)?;

        let (normed_nd, second) = self.norm_hidden.pass(w, &middle_btd, kind, keeps)?;
        let hidden_nf = self.widen.forward(w, &normed_nd)?;
        let active_nf = hidden_nf.f_gelu("none")?;
        let output_btd =
            middle_btd.f_add(&self.narrow.forward(w, &active_nf)?.f_view([b, t, d])?)?;
        let kept = Kept {
            input_btd: input_btd.shallow_clone(),
            first,
            attended,
            mixed_nd,
            middle_btd,
            second,
            hidden_nf,
            active_nf: keeps.then_some(active_nf),
        };
        Ok((output_btd, kept))
    }

    /// Gradient of the output → gradient of the input; adds to those of the weights.
    pub(super) fn back_by_hand(
        &self,
        hand: Hand,
        kept: Kept,
        gradient_btd: &Tensor,
        pass: Pass,
    ) -> Result<Tensor, TchError> {
        let _no_grad = tch::no_grad_guard();
        let (b, t, d) = gradient_btd.size3()?;
        let kind = pass.kind();

        // --- the hidden layer -------------------------------------------------------------------
        let of_output_nd = gradient_btd.f_reshape([b * t, d])?.f_to_kind(kind)?;
        let active_nf = match kept.active_nf {
            Some(active_nf) => active_nf,
            None => kept.hidden_nf.f_gelu("none")?,
        };
        let of_active_nf = self.narrow.back(hand, &active_nf, &of_output_nd)?;
        let of_hidden_nf = kept.hidden_nf.f_gelu_backward(&of_active_nf, "none")?;
        let normed_nd = self.norm_hidden.again(hand.w, &kept.second, &kept.middle_btd, kind)?;
        let of_normed_nd = self.widen.back(hand, &normed_nd, &of_hidden_nf)?;
        let of_middle_btd =
            self.norm_hidden.back(hand, &kept.second, &kept.middle_btd, &of_normed_nd)?;
        let of_middle_btd = gradient_btd.f_add(&of_middle_btd)?;

        // --- attention --------------------------------------------------------------------------
        let of_added_nd = of_middle_btd.f_reshape([b * t, d])?.f_to_kind(kind)?;
        let of_mixed_nd = self.out.back(hand, &kept.mixed_nd, &of_added_nd)?;
        let heads = [b, t, self.num_heads, d / self.num_heads];
        let parts = kept.attended.back(&of_mixed_nd.f_view(heads)?.f_transpose(1, 2)?)?;
        let parts = parts.iter().map(|part_batk| part_batk.f_transpose(1, 2));
        let parts_3 = parts.collect::<Result<Vec<_>, _>>()?;
        let of_parts_n3d = Tensor::f_stack(&parts_3, 2)?.f_view([b * t, 3 * d])?;
        let normed_nd = self.norm_attention.again(hand.w, &kept.first, &kept.input_btd, kind)?;
        let of_normed_nd = self.query_key_value.back(hand, &normed_nd, &of_parts_n3d)?;
        let of_input_btd =
            self.norm_attention.back(hand, &kept.first, &kept.input_btd, &of_normed_nd)?;
        of_middle_btd.f_add(&of_input_btd)
    }
}

impl LayerNorm {
    /// `[…, d]` → normalised rows `[n, d]` of `kind`.
    fn pass(
        &self,
        w: &Weights,
        x: &Tensor,
        kind: Kind,
        keeps: bool,
    ) -> Result<(Tensor, Norm), TchError> {
        let (weight, bias) = (w.get(self.weight), w.get(self.bias));
        let [output, mean, rstd] = ops::layer_norm(x, weight, bias, LAYER_NORM_EPS)?;
        let output_nd = output.f_view([-1, self.width])?.f_to_kind(kind)?;
        let kept_nd = keeps.then(|| output_nd.shallow_clone());
        Ok((output_nd, Norm { mean, rstd, output_nd: kept_nd }))
    }

    /// What [`Self::pass`] gave.
    fn again(&self, w: &Weights, norm: &Norm, x: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        match &norm.output_nd {
            Some(output_nd) => Ok(output_nd.shallow_clone()),
            None => self.pass(w, x, kind, false).map(|(output_nd, _)| output_nd),
        }
    }

    /// Gradient of the rows `[n, d]` → gradient of what came in, of its shape.
    fn back(
        &self,
        hand: Hand,
        norm: &Norm,
        x: &Tensor,
        gradient_nd: &Tensor,
    ) -> Result<Tensor, TchError> {
        let (weight, bias) = (hand.w.get(self.weight), hand.w.get(self.bias));
        let gradient = gradient_nd.f_to_kind(Kind::Float)?.f_view_as(x)?;
        let statistics = [&norm.mean, &norm.rstd];
        let [of_x, of_weight, of_bias] =
            ops::layer_norm_back(&gradient, x, statistics, weight, bias)?;
        hand.add(self.weight, &of_weight)?;
        hand.add(self.bias, &of_bias)?;
        Ok(of_x)
    }
}

impl Linear {
    /// Gradient of the rows that went out → of those that came in.
    fn back(&self, hand: Hand, x_ni: &Tensor, gradient_no: &Tensor) -> Result<Tensor, TchError> {
        let of_bias = gradient_no.f_sum_dim_intlist([0].as_slice(), false, Kind::Float)?;
        hand.add(self.weight, &gradient_no.f_tr()?.f_matmul(x_ni)?)?;
        hand.add(self.bias, &of_bias)?;
        gradient_no.f_matmul(&hand.w.get(self.weight).f_to_kind(gradient_no.kind())?)
    }
}
