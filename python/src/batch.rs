//! A batch as Python sees it.
//!
//! In: a [`HostBatch`]. Out: a [`Batch`], whose arrays others take over without a copy.

use catlip_pipeline::error::exit;
use catlip_pipeline::feed::{HostBatch, Targets};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple};

use crate::array::Array;
use crate::error::refused;

/// Images of one step, their labels and weights.
#[pyclass(frozen, module = "catlip")]
pub struct Batch {
    /// uint8, RGB: `[n, 3, height, width]`, or `[n, height, width, 3]` with `layout="nhwc"`.
    #[pyo3(get)]
    images: Py<Array>,
    /// The labels of each image.
    #[pyo3(get)]
    labels: Py<Labels>,
    /// float32 `[n]`: 1, or 0 for padding and for images that do not decode, whose pixels are 0.
    #[pyo3(get)]
    weights: Py<Array>,
    /// int64 `[n]`: where each image stands in the order of the epoch, over all ranks.
    #[pyo3(get)]
    positions: Py<Array>,
    /// The sample id of each image, 32 hex digits; zeros for padding.
    #[pyo3(get)]
    ids: Vec<String>,
    /// The captions of each image, if the feed was asked for them.
    #[pyo3(get)]
    captions: Option<Vec<Vec<String>>>,
    /// The epoch, from 0.
    #[pyo3(get)]
    epoch: u64,
    /// The number of the step in its epoch, from 0.
    #[pyo3(get)]
    step: u64,
    num_labels: usize,
}

/// The labels of n images, sparse: those of image i are `ids[offsets[i]:offsets[i + 1]]`, rising.
#[pyclass(frozen, module = "catlip")]
pub struct Labels {
    /// int64 `[n + 1]`.
    #[pyo3(get)]
    offsets: Py<Array>,
    /// int64, of all images: rows of the vocabulary.
    #[pyo3(get)]
    ids: Py<Array>,
}

impl Batch {
    /// The batch of that step; `num_labels` are those of the vocabulary.
    pub fn new(
        py: Python<'_>,
        batch: HostBatch,
        step: u64,
        num_labels: usize,
        channels_first: bool,
    ) -> PyResult<Self> {
        let (num_rows, size) = (batch.len(), [batch.len(), batch.height_px, batch.width_px]);
        let HostBatch { pixels, targets, weights, positions, sample_ids, captions, cursor, .. } =
            batch;
        let Targets::LabelsCsr { offsets, ids } = targets;
        let array = |array: Array| Py::new(py, array);
        let offsets = array(Array::of_int64s(offsets))?;
        let labels = Labels { offsets, ids: array(Array::of_int64s(ids))? };
        let positions = positions.into_iter().map(u64::cast_signed).collect();
        Ok(Self {
            images: array(Array::of_pixels(pixels, size, channels_first))?,
            labels: Py::new(py, labels)?,
            weights: array(Array::of_float32s(weights, vec![num_rows]))?,
            positions: array(Array::of_int64s(positions))?,
            ids: sample_ids.iter().map(ToString::to_string).collect(),
            captions,
            epoch: cursor.epoch,
            step,
            num_labels,
        })
    }
}

#[pymethods]
impl Batch {
    /// float32 `[n, num_labels]`, made anew: 1 for each label of an image, else 0.
    fn targets(&self, py: Python<'_>) -> PyResult<Array> {
        let labels = self.labels.get();
        let (offsets, ids) = (labels.offsets.get().int64s(), labels.ids.get().int64s());
        let shape = vec![offsets.len().saturating_sub(1), self.num_labels];
        let targets = Targets::LabelsCsr { offsets, ids };
        let dense = py.detach(|| targets.dense(self.num_labels)).map_err(|message| {
            refused(format!("the labels of the batch were changed: {message}"), None, exit::INPUT)
        })?;
        Ok(Array::of_float32s(dense, shape))
    }

    fn __len__(&self) -> usize {
        self.ids.len()
    }

    fn __repr__(&self) -> String {
        let Self { epoch, step, ids, .. } = self;
        format!("<catlip.Batch of {} images, epoch {epoch}, step {step}>", ids.len())
    }
}

#[pymethods]
impl Labels {
    /// `offsets, ids = labels`.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyTuple::new(py, [&self.offsets, &self.ids])?.try_iter()
    }

    fn __repr__(&self) -> String {
        let (rows, ids) = (self.offsets.get().int64s().len() - 1, self.ids.get().int64s().len());
        format!("<catlip.Labels of {rows} images, {ids} in all>")
    }
}
