//! The model's mathematics in float64 on the CPU, written from the names of its weights alone.
//!
//! In: weights by their names, images, labels. Out: loss and the gradient of each weight. Never:
//! calls a module of `model`; takes another size of image than the positions are for.
//!
//! b images, n t tokens, d width, a heads, k = d ÷ a width of a head, v labels.

use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use crate::model::params::{Role, Weights};
use crate::model::{StemKind, VitPlan};

/// Added to variances: of LayerNorm as in the reference, of BatchNorm as PyTorch does.
const LAYER_NORM_EPS: f64 = 1e-6;
const BATCH_NORM_EPS: f64 = 1e-5;

/// Weights in float64, each a leaf.
pub(super) struct Reference<'p> {
    plan: &'p VitPlan,
    weights: BTreeMap<String, Tensor>,
}

impl<'p> Reference<'p> {
    /// Copies `weights`, from whichever device.
    pub fn of(plan: &'p VitPlan, weights: &Weights) -> Result<Self, TchError> {
        let mut copied = BTreeMap::new();
        for (entry, view) in weights.entries() {
            let double = view.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?;
            let leaf = double.f_set_requires_grad(entry.role != Role::Buffer)?;
            copied.insert(entry.name.clone(), leaf);
        }
        Ok(Self { plan, weights: copied })
    }

    fn get(&self, name: &str) -> Result<&Tensor, TchError> {
        let missing = || TchError::Torch(format!("the model has no weight {name}"));
        self.weights.get(name).ok_or_else(missing)
    }

    /// Binary cross-entropy of `images_bchw`, where row b has `labels[b]`: summed over labels,
    /// averaged over rows. Gives it and the gradient of each weight by its name.
    pub fn gradients(
        &self,
        images_bchw: &Tensor,
        labels: &[Vec<i64>],
    ) -> Result<(f64, BTreeMap<String, Tensor>), TchError> {
        let logits_bv = self.logits(&images_bchw.f_to_kind(Kind::Double)?)?;
        let mut target_bv = logits_bv.f_zeros_like()?;
        for (row, labels) in labels.iter().enumerate() {
            for &label in labels {
                _ = target_bv.f_get(row as i64)?.f_get(label)?.f_fill_(1.0)?;
            }
        }
        target_bv = target_bv.f_detach()?;
        // −y ln σ(z) − (1 − y) ln σ(−z)
        let of_absent = target_bv.f_neg()?.f_add_scalar(1.0)?;
        let each_bv = target_bv
            .f_mul(&logits_bv.f_log_sigmoid()?)?
            .f_add(&of_absent.f_mul(&logits_bv.f_neg()?.f_log_sigmoid()?)?)?;
        let loss = each_bv.f_sum(Kind::Double)?.f_neg()?.f_div_scalar(labels.len() as f64)?;
        loss.f_backward()?;
        let mut gradients = BTreeMap::new();
        for (name, leaf) in self.weights.iter().filter(|(_, leaf)| leaf.requires_grad()) {
            let gradient = leaf.grad();
            let gradient = if gradient.defined() { gradient } else { leaf.f_zeros_like()? };
            gradients.insert(name.clone(), gradient);
        }
        Ok((loss.f_double_value(&[])?, gradients))
    }

    fn logits(&self, images_bchw: &Tensor) -> Result<Tensor, TchError> {
        let grid_bnd = match self.plan.stem {
            StemKind::Linear => self.patches(images_bchw)?,
            StemKind::Corenet => self.convolved(images_bchw)?,
        };
        let b = grid_bnd.size()[0];
        let positions = self.get("pos_embed.pos_embed.pos_embed")?.f_squeeze_dim(1)?;
        let summary = self.get("cls_token")?.f_expand([b, 1, -1], false)?;
        let mut x_btd = Tensor::f_cat(&[summary, grid_bnd.f_add(&positions)?], 1)?;
        for at in 0..self.plan.depth {
            x_btd = self.block(at, &x_btd)?;
        }
        let x_btd = self.layer_norm("post_transformer_norm", &x_btd)?;
        self.linear("classifier", &x_btd.f_select(1, 0)?)
    }

    /// Each patch times a matrix.
    fn patches(&self, images_bchw: &Tensor) -> Result<Tensor, TchError> {
        let (b, c, h, w) = images_bchw.size4()?;
        let p = self.plan.patch_px;
        let pixels = images_bchw
            .f_reshape([b, c, h / p, p, w / p, p])?
            .f_permute([0, 2, 4, 1, 3, 5])?
            .f_reshape([b, (h / p) * (w / p), c * p * p])?;
        let weight = self.get("patch_emb.proj.weight")?.f_flatten(1, 3)?;
        pixels.f_matmul(&weight.f_tr()?)?.f_add(self.get("patch_emb.proj.bias")?)
    }

    fn convolved(&self, images_bchw: &Tensor) -> Result<Tensor, TchError> {
        let mut x = images_bchw.shallow_clone();
        for (at, stride, padding) in [(0, self.plan.patch_px / 4, 1), (1, 2, 0)] {
            let name = format!("patch_emb.{at}.block");
            let weight = self.get(&format!("{name}.conv.weight"))?;
            x = x.f_conv2d(weight, None::<&Tensor>, stride, padding, 1, 1)?;
            let dims = [0_i64, 2, 3];
            let mean = x.f_mean_dim(dims.as_slice(), true, Kind::Double)?;
            let off = x.f_sub(&mean)?;
            let variance = off.f_square()?.f_mean_dim(dims.as_slice(), true, Kind::Double)?;
            let normed = off.f_mul(&variance.f_add_scalar(BATCH_NORM_EPS)?.f_rsqrt()?)?;
            let [weight, bias] = ["weight", "bias"]
                .map(|part| self.get(&format!("{name}.norm.{part}"))?.f_view([1, -1, 1, 1]));
            x = normed.f_mul(&weight?)?.f_add(&bias?)?.f_gelu("none")?;
        }
        let name = "patch_emb.2.block.conv";
        let weight = self.get(&format!("{name}.weight"))?;
        let bias = self.get(&format!("{name}.bias"))?;
        x.f_conv2d(weight, Some(bias), 2, 0, 1, 1)?.f_flatten(2, 3)?.f_transpose(1, 2)
    }

    fn block(&self, at: i64, x_btd: &Tensor) -> Result<Tensor, TchError> {
        let (b, t, d) = x_btd.size3()?;
        let a = self.plan.num_heads;
        let name = format!("transformer.{at}.pre_norm_mha");
        let normed = self.layer_norm(&format!("{name}.0"), x_btd)?;
        let parts = self
            .linear(&format!("{name}.1.qkv_proj"), &normed)?
            .f_view([b, t, 3, a, d / a])?
            .f_permute([2, 0, 3, 1, 4])?;
        let [query, key, value] = [0, 1, 2].map(|part| parts.f_get(part));
        let scores = query?.f_matmul(&key?.f_transpose(2, 3)?)?;
        let scale = ((d / a) as f64).powf(-0.5);
        let shares = scores.f_mul_scalar(scale)?.f_softmax(-1, Kind::Double)?;
        let mixed = shares.f_matmul(&value?)?.f_transpose(1, 2)?.f_reshape([b, t, d])?;
        let x_btd = x_btd.f_add(&self.linear(&format!("{name}.1.out_proj_attn"), &mixed)?)?;

        let name = format!("transformer.{at}.pre_norm_ffn");
        let normed = self.layer_norm(&format!("{name}.0"), &x_btd)?;
        let hidden = self.linear(&format!("{name}.1"), &normed)?.f_gelu("none")?;
        x_btd.f_add(&self.linear(&format!("{name}.4"), &hidden)?)
    }

    fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor, TchError> {
        let weight = self.get(&format!("{name}.weight"))?;
        x.f_matmul(&weight.f_tr()?)?.f_add(self.get(&format!("{name}.bias"))?)
    }

    fn layer_norm(&self, name: &str, x: &Tensor) -> Result<Tensor, TchError> {
        let off = x.f_sub(&x.f_mean_dim(-1, true, Kind::Double)?)?;
        let variance = off.f_square()?.f_mean_dim(-1, true, Kind::Double)?;
        off.f_mul(&variance.f_add_scalar(LAYER_NORM_EPS)?.f_rsqrt()?)?
            .f_mul(self.get(&format!("{name}.weight"))?)?
            .f_add(self.get(&format!("{name}.bias"))?)
    }
}
