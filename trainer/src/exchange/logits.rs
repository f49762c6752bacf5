//! The logits of images that lie in a file as numbers.
//!
//! In: a model and `images`, float32 `[n, 3, h, w]` in 0…1, of safetensors. Out: `logits`, float32
//! `[n, labels]`, as safetensors. Never: resizes.

use std::path::Path;

use catlip_pipeline::source::map::MappedFile;
use tch::{Kind, Tensor};

use super::model_folder::{ModelFolder, write_tensors};
use super::{ExchangeError, state};
use crate::error::TrainError;
use crate::model::Pass;

/// Images that go through the model at once: ViT-H at 320 px takes 0.6 GB.
const BATCH: i64 = 16;

/// Reads `images`, computes their logits, writes them to `output`.
///
/// # Errors
///
/// [`TrainError::Exchange`] for images of another shape, [`TrainError::Input`], [`TrainError::Io`].
pub fn logits(model: &ModelFolder, images: &Path, output: &Path) -> Result<[i64; 2], TrainError> {
    let images_bchw = read_images(images, model.vit.plan().patch_px)?;
    let of_part = |part: &Tensor| model.vit.forward(&model.weights, part, Pass::EVAL);
    let whole = tch::no_grad(|| {
        let parts = images_bchw.f_split(BATCH, 0)?;
        let parts = parts.iter().map(of_part).collect::<Result<Vec<_>, _>>()?;
        Tensor::f_cat(&parts, 0)
    });
    let logits_bv = whole.map_err(TrainError::torch("compute the logits"))?;
    let (b, v) = logits_bv.size2().map_err(TrainError::torch("compute the logits"))?;
    write_tensors(output, &[("logits".to_owned(), logits_bv)])?;
    Ok([b, v])
}

fn read_images(path: &Path, patch_px: i64) -> Result<Tensor, TrainError> {
    let bytes = MappedFile::open(path).map_err(TrainError::input(path))?;
    let mut state = state::safetensors(path, &bytes)?;
    let wrong = |found: String| ExchangeError::Tensor {
        path: path.to_path_buf(),
        name: "images".to_owned(),
        found,
        expected: format!("float32 [n, 3, h, w] with h and w multiples of {patch_px}"),
    };
    let images = state.remove("images").ok_or_else(|| wrong("missing".to_owned()))?;
    let size = images.size();
    let fits = match size.as_slice() {
        &[n, 3, h, w] => n > 0 && h > 0 && w > 0 && h % patch_px == 0 && w % patch_px == 0,
        _ => false,
    };
    if images.kind() != Kind::Float || !fits {
        return Err(wrong(format!("{:?} {size:?}", images.kind())).into());
    }
    Ok(images)
}
