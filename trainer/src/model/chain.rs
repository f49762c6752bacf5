//! The forms of a block, and the walk through the model and back that runs them.
//!
//! In: images, weights, what is to be minimised. Out: gradients, added to those of the weights.
//! Never: holds the graph of more than one block where the form is to recompute it.
//!
//! Each block has a graph of its own between two leaves, so that a form may keep what it likes and
//! go back by whatever means; and the gradients of a block are whole as soon as it was passed.

use std::fmt;

use tch::{TchError, Tensor};

use super::Pass;
use super::batch_norm::Groups;
use super::block::Block;
use super::by_kernels::{self, KernelForm};
use super::fused::{Hand, Kept};
use super::params::{EntryId, Weights};
use super::vit::Vit;
use crate::augment::Augmentation;
use crate::batch::unit_floats;
use crate::loss::{Loss, SparseTargets};
use crate::shim::ops::AttentionBackend;

/// How a block is passed forwards and backwards. Every form gives what [`BlockForm::Plain`] gives:
/// the tests hold all of [`BlockForm::ALL`] against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockForm {
    /// Autograd keeps what it needs: about 34 · d bytes a token in bf16, 60 · d in float32.
    #[default]
    Plain,
    /// Only the block's input is kept; what lies between is computed again on the way back
    /// (activation checkpointing): a third more work.
    Recompute,
    /// By hand, without a graph: with our own kernels where the walk has them (`by_kernels.rs`),
    /// else with ATen's (`fused.rs`). A block that cannot be is passed plainly.
    Fused,
}

/// What a form keeps of a block between the two ways.
#[derive(Debug)]
enum Tape {
    /// Its input, a leaf, and its output with the graph between them.
    Graph { input: Tensor, output: Tensor },
    /// Its input alone.
    Input(Tensor),
    /// What the way back by hand needs.
    Kept(Box<Kept>),
}

impl BlockForm {
    /// All forms, the plain one first.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Recompute, Self::Fused];

    /// Tokens in, a leaf → tokens out, and what the way back needs.
    fn forward(
        self,
        block: &Block,
        w: &Weights,
        input: Tensor,
        walk: &Walk,
    ) -> Result<(Tensor, Tape), TchError> {
        let pass = walk.pass;
        match self {
            Self::Fused if block.is_plain() => {
                let (output, kept) = block.forward_by_hand(w, &input, pass, walk.attention)?;
                Ok((leaf(&output)?, Tape::Kept(Box::new(kept))))
            }
            Self::Plain | Self::Fused => {
                let output = block.forward(w, &input, pass)?;
                Ok((leaf(&output)?, Tape::Graph { input, output }))
            }
            Self::Recompute => {
                let output = tch::no_grad(|| block.forward(w, &input, pass))?;
                Ok((leaf(&output)?, Tape::Input(input)))
            }
        }
    }

    /// Gradient of the output → gradient of the input; adds to those of the weights.
    fn backward(
        self,
        block: &Block,
        w: &Weights,
        tape: Tape,
        gradient: &Tensor,
        walk: &Walk,
    ) -> Result<Tensor, TchError> {
        let pass = walk.pass;
        let (input, output) = match tape {
            Tape::Graph { input, output } => (input, output),
            Tape::Kept(kept) => {
                return block.back_by_hand(
                    Hand { w, arrived: walk.arrived },
                    *kept,
                    gradient,
                    pass,
                );
            }
            Tape::Input(input) => {
                let output = block.forward(w, &input, pass)?;
                (input, output)
            }
        };
        pull(&output, gradient)?.f_backward()?;
        input.f_grad()
    }
}

/// How the model is walked through.
#[derive(Clone, Copy)]
pub struct Walk<'g> {
    /// Mode and precision.
    pub pass: Pass,
    /// How each block is passed.
    pub form: BlockForm,
    /// What BatchNorm normalises by; none: all rows here.
    pub groups: Option<&'g Groups<'g>>,
    /// What computes attention where a block is passed by hand.
    pub attention: AttentionBackend,
    /// What computes it for one query of each image; none: nothing does, so no block has one only.
    pub attention_of_one: Option<AttentionBackend>,
    /// Our own kernels, where blocks are passed by hand on a device that has them.
    pub kernels: Option<&'g KernelForm>,
    /// Who is told of a weight whose gradient was made by hand; autograd tells of the others.
    pub arrived: Option<&'g dyn Fn(EntryId)>,
}

impl Walk<'_> {
    /// A walk on the CPU, with all rows in one group.
    pub fn plain(pass: Pass, form: BlockForm) -> Self {
        Self {
            pass,
            form,
            groups: None,
            attention: AttentionBackend::Cpu,
            attention_of_one: Some(AttentionBackend::Cpu),
            kernels: None,
            arrived: None,
        }
    }
}

impl fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pass, form, groups, attention, kernels, .. } = self;
        write!(f, "Walk({pass:?}, {form:?}, {groups:?}, {attention:?}, {kernels:?})")
    }
}

/// What is minimised, apart from the model.
pub struct Objective<'o> {
    /// Logits → loss, a scalar.
    pub loss: &'o dyn Fn(&Tensor) -> Result<Tensor, TchError>,
    /// The same loss by its parts, for kernels that give its gradient at once; none: `loss` is
    /// another one.
    pub sparse: Option<SparseLoss<'o>>,
    /// The learned augmentation of the images, whose own loss is added.
    pub augmentation: Option<Augmentation<'o>>,
}

/// What a walk found, without graph.
#[derive(Debug)]
pub struct Losses {
    /// Of the logits.
    pub of_labels: Tensor,
    /// Of the augmentation's distance, if there is one.
    pub of_images: Option<Tensor>,
}

/// The sum of a loss over rows, divided.
#[derive(Clone, Copy, Debug)]
pub struct SparseLoss<'o> {
    /// The loss.
    pub loss: &'o Loss,
    /// What it is of.
    pub targets: &'o SparseTargets,
    /// What its sum is divided by, a float32 scalar on the device.
    pub divisor: &'o Tensor,
}

/// Runs the model over `images_bchw`, bytes or floats 0…1, and back.
///
/// # Errors
///
/// What libtorch says, such as out of memory.
pub fn backward(
    vit: &Vit,
    w: &Weights,
    images_bchw: &Tensor,
    objective: &Objective,
    walk: Walk,
) -> Result<Losses, TchError> {
    // --- forwards -------------------------------------------------------------------------------
    // A rank without rows of a step has nothing to launch.
    let has_rows = images_bchw.size().first().is_some_and(|&rows| rows > 0);
    let by_kernels = walk.kernels.filter(|_| walk.form == BlockForm::Fused && has_rows);
    if let Some(kernels) = by_kernels.filter(|kernels| kernels.takes(vit, walk.pass)) {
        return by_kernels::backward(kernels, vit, w, images_bchw, objective, &walk);
    }
    let images_bchw = unit_floats(images_bchw)?;
    let (images_bchw, of_images) = match &objective.augmentation {
        None => (images_bchw, None),
        Some(augmentation) => {
            let [augmented_bchw, loss] = augmentation.apply(w, &images_bchw)?;
            (augmented_bchw, Some(loss))
        }
    };
    let images_bchw = &images_bchw;
    let Walk { pass, form, groups, .. } = walk;
    let (mut embedded, cuts) = match groups {
        None => (vit.embed(w, images_bchw, pass)?, Vec::new()),
        Some(groups) => vit.embed_in_groups(w, images_bchw, pass, groups)?,
    };
    let mut tokens = leaf(&embedded)?;
    let mut tapes = Vec::with_capacity(vit.blocks().len());
    for block in vit.blocks() {
        let (output, tape) = form.forward(block, w, tokens, &walk)?;
        tapes.push(tape);
        tokens = output;
    }
    let logits_bv = vit.head(w, &vit.normalise(w, &tokens)?, pass)?;
    let loss = (objective.loss)(&logits_bv)?;

    // --- backwards ------------------------------------------------------------------------------
    loss.f_backward()?;
    let mut gradient = tokens.f_grad()?;
    for (block, tape) in vit.blocks().iter().zip(tapes).rev() {
        gradient = form.backward(block, w, tape, &gradient, &walk)?;
    }
    if let Some(groups) = groups {
        for cut in cuts.into_iter().rev() {
            pull(&embedded, &gradient)?.f_backward()?;
            (embedded, gradient) = cut.back(groups)?;
        }
    }
    let mut last = pull(&embedded, &gradient)?;
    if let Some(of_images) = &of_images {
        last = last.f_add(of_images)?;
    }
    last.f_backward()?;
    let of_images = of_images.map(|loss| loss.f_detach()).transpose()?;
    Ok(Losses { of_labels: loss.f_detach()?, of_images })
}

/// The same numbers as the start of a graph.
pub(super) fn leaf(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor.f_detach()?.f_set_requires_grad(true)
}

/// A scalar whose gradient for `output` is `gradient`: tch starts a backward pass from 1 only.
pub(super) fn pull(output: &Tensor, gradient: &Tensor) -> Result<Tensor, TchError> {
    output.f_mul(gradient)?.f_sum(output.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::Gradient;
    use crate::model::{Pool, Precision, StemKind, VitPlan};
    use tch::{Device, Kind};

    fn plans() -> [VitPlan; 3] {
        let corenet = VitPlan::corenet([64, 3, 2], 4, 10);
        let linear = VitPlan { stem: StemKind::Linear, patch_px: 8, ..corenet };
        let all = VitPlan {
            pool: Pool::Attention,
            num_registers: 2,
            qk_norm: true,
            gated: true,
            ..linear
        };
        [corenet, linear, all]
    }

    /// Loss and flat gradient, by a form or by one graph over the whole model.
    fn gradient(plan: VitPlan, form: Option<BlockForm>, pass: Pass) -> (f64, Tensor) {
        let vit = Vit::new(plan);
        let weights = vit.init(3, None, Device::Cpu).unwrap();
        let gradient = Gradient::attach(&weights).unwrap();
        let on_cpu = (Kind::Float, Device::Cpu);
        let images = (Tensor::arange(2 * 3 * 32 * 48, on_cpu) * 0.37).sin().view([2, 3, 32, 48]);
        let loss_of = |logits: &Tensor| logits.f_sin()?.f_square()?.f_sum(Kind::Float);
        let loss = match form {
            Some(form) => {
                let objective = Objective { loss: &loss_of, sparse: None, augmentation: None };
                let walk = Walk::plain(pass, form);
                backward(&vit, &weights, &images, &objective, walk).unwrap().of_labels
            }
            None => {
                let loss = loss_of(&vit.forward(&weights, &images, pass).unwrap()).unwrap();
                loss.backward();
                loss
            }
        };
        (loss.double_value(&[]), gradient.flat().copy())
    }

    #[test]
    fn every_form_gives_what_one_graph_over_the_whole_model_gives() {
        let pass = Pass::train(Precision::Float32);
        for plan in plans() {
            let (loss, expected) = gradient(plan, None, pass);
            for form in BlockForm::ALL {
                let (found_loss, found) = gradient(plan, Some(form), pass);
                assert_eq!(found_loss, loss, "{form:?} {plan:?}");
                let off = (found - &expected).abs().max() / expected.abs().max();
                assert!(off.double_value(&[]) < 1e-6, "{form:?} {plan:?}: off by {off:?}");
            }
        }
    }

    #[test]
    fn bfloat16_is_near_float32_in_loss_and_gradient() {
        for plan in plans() {
            let (loss, expected) = gradient(plan, None, Pass::train(Precision::Float32));
            for form in BlockForm::ALL {
                let pass = Pass::train(Precision::BFloat16);
                let (found_loss, found) = gradient(plan, Some(form), pass);
                assert!((found_loss / loss - 1.0).abs() < 0.05, "{found_loss} {loss}");
                let cosine = found.dot(&expected) / found.norm() / expected.norm();
                assert!(cosine.double_value(&[]) > 0.99, "{form:?} {plan:?}: {cosine:?}");
            }
        }
    }
}
