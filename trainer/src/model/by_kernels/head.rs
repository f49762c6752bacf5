//! What lies behind the tokens of the last block but one: its successor where only the summary
//! token is read, and the head.
//!
//! b images, t tokens, d width, a heads, k = d ÷ a, n = b · t rows, v labels.

use tch::{Kind, TchError, Tensor};

use super::{BlockTape, Gradient, Stream, Way};
use crate::model::Pass;
use crate::model::block::Block;
use crate::model::chain::{Objective, leaf};
use crate::model::params::EntryId;
use crate::model::vit::Vit;
use crate::shim::ops;

impl Way<'_> {
    // --- the last block, where only the summary token is read ------------------------------------

    pub(super) fn summary_forward(
        &self,
        block: &Block,
        stream: Stream,
        b: i64,
    ) -> Result<(Stream, BlockTape), TchError> {
        let _no_grad = tch::no_grad_guard();
        let (normed_nd, first) = self.norm(&block.norm_attention, stream)?;
        let (n, d) = normed_nd.size2()?;
        let (heads, k) = (block.num_heads, d / block.num_heads);
        let linear = &block.query_key_value;
        let weight = self.w.of_kind(linear.weight, self.kind)?;
        let bias = self.w.of_kind(linear.bias, self.kind)?;
        let of_part = |rows_ni: &Tensor, from: i64, parts: i64| {
            let bias = bias.f_narrow(0, from * d, parts * d)?;
            rows_ni.f_linear(&weight.f_narrow(0, from * d, parts * d)?, Some(&bias))
        };
        let summary_bd = normed_nd.f_view([b, n / b, d])?.f_select(1, 0)?;
        let query = of_part(&summary_bd, 0, 1)?.f_view([b, 1, heads, k])?.f_transpose(1, 2)?;
        let parts_2batk = of_part(&normed_nd, 1, 2)?
            .f_view([b, n / b, 2, heads, k])?
            .f_permute([2, 0, 3, 1, 4])?
            .f_unbind(0)?;
        let [key, value] = [0, 1].map(|part: usize| &parts_2batk[part]);
        let (mixed_ba1k, attended) = ops::attention(self.attention_of_one, [&query, key, value])?;
        let mixed_bd = mixed_ba1k.f_transpose(1, 2)?.f_reshape([b, d])?;
        let base_bd = first.x_nd.f_view([b, n / b, d])?.f_select(1, 0)?;
        let (stream, hidden) = self.hidden_forward(block, base_bd, mixed_bd)?;
        Ok((stream, BlockTape { first, attended, hidden }))
    }

    pub(super) fn summary_back(
        &self,
        block: &Block,
        tape: BlockTape,
        gradient: Gradient,
        before: Option<EntryId>,
    ) -> Result<Gradient, TchError> {
        let _no_grad = tch::no_grad_guard();
        let (b, d) = gradient.wide_nd.size2()?;
        let BlockTape { first, attended, hidden } = tape;
        let n = first.x_nd.size()[0];
        let (of_mixed_bd, gradient) = self.hidden_back(block, hidden, gradient)?;
        let heads = [b, 1, block.num_heads, d / block.num_heads];
        let [of_query, of_key, of_value] =
            attended.back(&of_mixed_bd.f_view(heads)?.f_transpose(1, 2)?)?;
        drop(attended);
        let (linear, kernels) = (&block.query_key_value, &self.form.kernels);
        let of_bias = self.hand.gradient(linear.bias)?;
        let of_weight = self.hand.gradient(linear.weight)?;
        let of_query_bd = kernels.pack_heads(&[&of_query], &of_bias.f_narrow(0, 0, d)?)?;
        let of_pairs_n2d =
            kernels.pack_heads(&[&of_key, &of_value], &of_bias.f_narrow(0, d, 2 * d)?)?;
        self.hand.has(linear.bias);
        drop([of_query, of_key, of_value]);
        let weight = self.w.of_kind(linear.weight, self.kind)?;
        let of_normed_nd = of_pairs_n2d.f_matmul(&weight.f_narrow(0, d, 2 * d)?)?;
        let mut of_summary_bd = of_normed_nd.f_view([b, n / b, d])?.f_select(1, 0)?;
        _ = of_summary_bd.f_add_(&of_query_bd.f_matmul(&weight.f_narrow(0, 0, d)?)?)?;
        // The gradient of the stream is that of the summary tokens, and none of the others.
        let wide_btd = Tensor::f_zeros([b, n / b, d], (Kind::Float, gradient.wide_nd.device()))?;
        wide_btd.f_select(1, 0)?.f_copy_(&gradient.wide_nd)?;
        let wide_nd = wide_btd.f_view([n, d])?;
        let gradient =
            self.norm_back(&block.norm_attention, &first, &of_normed_nd, wide_nd, before)?;
        let normed_nd = of_normed_nd;
        let summary_bd = normed_nd.f_view([b, n / b, d])?.f_select(1, 0)?;
        self.add_product(&of_weight.f_narrow(0, 0, d)?, &of_query_bd, &summary_bd)?;
        self.add_product(&of_weight.f_narrow(0, d, 2 * d)?, &of_pairs_n2d, &normed_nd)?;
        self.hand.has(linear.weight);
        Ok(gradient)
    }

    // --- the head -------------------------------------------------------------------------------

    /// Rows of summary tokens → loss, and the gradient of these rows.
    pub(super) fn summary_head(
        &self,
        vit: &Vit,
        stream: Stream,
        objective: &Objective,
        last: Option<EntryId>,
    ) -> Result<(Tensor, Gradient), TchError> {
        let no_grad = tch::no_grad_guard();
        let (normed_bd, tape) = self.norm(&vit.norm, stream)?;
        let logits_bv = self.product(&vit.classifier, &normed_bd)?;
        let (loss, of_logits_bv) = match &objective.sparse {
            Some(sparse) => {
                let losses_b = self.form.kernels.loss(
                    &logits_bv,
                    sparse.targets,
                    sparse.loss,
                    sparse.divisor,
                )?;
                (losses_b.f_sum(Kind::Float)?, logits_bv)
            }
            None => {
                drop(no_grad);
                let logits_bv = leaf(&logits_bv.f_to_kind(Kind::Float)?)?;
                let loss = (objective.loss)(&logits_bv)?;
                loss.f_backward()?;
                (loss, logits_bv.f_grad()?.f_to_kind(self.kind)?)
            }
        };
        let _no_grad = tch::no_grad_guard();
        let classifier = &vit.classifier;
        let of_bias = self.hand.gradient(classifier.bias)?;
        self.form.kernels.column_sum(&of_logits_bv, &of_bias)?;
        self.hand.has(classifier.bias);
        let of_normed_bd = self.product_back(classifier, &of_logits_bv)?;
        let wide_bd = Tensor::f_zeros(of_normed_bd.size(), (Kind::Float, of_normed_bd.device()))?;
        let gradient = self.norm_back(&vit.norm, &tape, &of_normed_bd, wide_bd, last)?;
        self.add_to_weight(classifier, &of_logits_bv, &of_normed_bd)?;
        Ok((loss, gradient))
    }

    /// Tokens → loss by autograd, and the gradient of the tokens.
    pub(super) fn any_head(
        &self,
        vit: &Vit,
        stream: Stream,
        b: i64,
        objective: &Objective,
        pass: Pass,
        last: Option<EntryId>,
    ) -> Result<(Tensor, Gradient), TchError> {
        let (n, d) = stream.base_nd.size2()?;
        let tokens_nd = tch::no_grad(|| match &stream.added_nd {
            Some(added_nd) => stream.base_nd.f_add(added_nd),
            None => Ok(stream.base_nd.shallow_clone()),
        })?;
        drop(stream);
        let tokens_btd = leaf(&tokens_nd.f_view([b, n / b, d])?)?;
        let logits_bv = vit.head(self.w, &vit.normalise(self.w, &tokens_btd)?, pass)?;
        let loss = (objective.loss)(&logits_bv)?;
        loss.f_backward()?;
        let _no_grad = tch::no_grad_guard();
        let wide_nd = tokens_btd.f_grad()?.f_reshape([n, d])?;
        let narrow_nd = wide_nd.f_to_kind(self.kind)?;
        if let Some(last) = last {
            self.form.kernels.column_sum(&narrow_nd, &self.hand.gradient(last)?)?;
            self.hand.has(last);
        }
        Ok((loss, Gradient { wide_nd, narrow_nd }))
    }
}
