//! The synsets of an image file.
//!
//! In: a trained run and compressed images. Out: the highest labels with their probabilities.
//! Never: writes.

use std::fs;
use std::path::Path;

use catlip_pipeline::feed::draw::{Draws, Purpose};
use catlip_pipeline::feed::view::fill_slot;
use catlip_pipeline::image::{CropDecoder, DecodeOptions};
use tch::{Kind, TchError, Tensor};

use crate::batch::{DeviceBatch, HostRows};
use crate::config::LossKind;
use crate::error::TrainError;
use crate::model::Pass;
use crate::trained::TrainedRun;

/// A label of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Its synset.
    pub wnid: String,
    /// Its head lemma.
    pub lemma: String,
    /// How likely the model thinks it is.
    pub probability: f64,
}

/// The `count` highest labels of the image in `path`, seen as evaluation sees it.
///
/// # Errors
///
/// [`TrainError::Input`], [`TrainError::Image`], [`TrainError::Torch`].
pub fn predict(run: &TrainedRun, path: &Path, count: usize) -> Result<Vec<Prediction>, TrainError> {
    let side_px = run.config.train.image_px;
    let encoded = fs::read(path).map_err(TrainError::input(path))?;
    let mut pixels = vec![0; side_px * side_px * 3];
    // The centre of an image needs no draw.
    let mut draws = Draws::new(Purpose::View, 0, 0, 0, 0);
    let (viewing, mut decoder) = (run.config.feed_recipe().centre_view(), CropDecoder::default());
    let (options, seen) = (DecodeOptions::default(), (&viewing, side_px as u32));
    fill_slot(&encoded, &options, seen, &mut draws, &mut decoder, &mut pixels)
        .map_err(|source| TrainError::Image { path: path.to_path_buf(), source })?;
    let rows = HostRows {
        images_bhwc: &pixels,
        height_px: side_px,
        width_px: side_px,
        offsets: &[0, 0],
        label_ids: &[],
        weights: &[1.0],
    };
    let highest = tch::no_grad(|| highest(run, &rows, count));
    let (probabilities, labels) = highest.map_err(TrainError::torch("look at an image"))?;
    let rows = run.vocab.rows();
    let synset = |label: i64| &rows[label as usize];
    Ok(labels
        .into_iter()
        .zip(probabilities)
        .map(|(label, probability)| Prediction {
            wnid: synset(label).synset.wnid(),
            lemma: synset(label).lemma.clone(),
            probability,
        })
        .collect())
}

fn highest(
    run: &TrainedRun,
    rows: &HostRows,
    count: usize,
) -> Result<(Vec<f64>, Vec<i64>), TchError> {
    let batch = DeviceBatch::from_rows(rows, run.weights.device())?;
    let images_bchw = batch.unit_images()?;
    let logits_v = run.vit.forward(&run.weights, &images_bchw, Pass::EVAL)?.f_select(0, 0)?;
    let logits_v = logits_v.f_to_kind(Kind::Double)?;
    let probabilities_v = match run.config.loss.kind {
        LossKind::Bce => logits_v.f_sigmoid()?,
        LossKind::Softmax => logits_v.f_softmax(0, None)?,
    };
    let count = count.min(run.vocab.len()) as i64;
    let (highest, labels): (Tensor, Tensor) = probabilities_v.f_topk(count, 0, true, true)?;
    Ok((Vec::try_from(highest)?, Vec::try_from(labels)?))
}
