//! A batch on the host.
//!
//! In: slots that decode threads fill, each with its outcome. Out: the whole batch, once all are
//! in. Its buffer goes back to the feed when its pixels are dropped.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use catlip_schemas::{Cursor, LabelId, SampleId};

use super::buffers::Buffers;
use super::sampler::StepSize;
use super::slot::SlotBuffer;
use super::view::View;

/// What a batch teaches. An enum, since later trainers need boxes, masks or text here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// The labels of sample i are `ids[offsets[i]..offsets[i + 1]]`, rising.
    LabelsCsr {
        /// `len + 1` offsets.
        offsets: Vec<i64>,
        /// Label ids of all samples.
        ids: Vec<i64>,
    },
}

impl Targets {
    /// A row of `num_labels` for each sample, 1 where it has the label and 0 elsewhere. For
    /// libraries without sparse targets: 256 rows of 24,320 labels are 25 MB.
    ///
    /// # Errors
    ///
    /// Which offset or label cannot be, as text, if somebody wrote others into them.
    pub fn dense(&self, num_labels: usize) -> Result<Vec<f32>, String> {
        let Self::LabelsCsr { offsets, ids } = self;
        let num_rows = offsets.len().saturating_sub(1);
        let mut dense = vec![0.0; num_rows * num_labels];
        for (row, ends) in offsets.windows(2).enumerate() {
            let range = usize::try_from(ends[0]).ok().zip(usize::try_from(ends[1]).ok());
            let of_row = range.and_then(|(from, to)| ids.get(from..to)).ok_or_else(|| {
                let (from, to, all) = (ends[0], ends[1], ids.len());
                format!("labels {from} to {to} of row {row}, expected a range of 0 to {all}")
            })?;
            for &id in of_row {
                let label = usize::try_from(id).ok().filter(|&label| label < num_labels);
                let label = label.ok_or_else(|| {
                    format!("label {id} of row {row}, expected 0 to {num_labels} without the end")
                })?;
                dense[row * num_labels + label] = 1.0;
            }
        }
        Ok(dense)
    }
}

/// The pixels of a batch. They may outlive it, and the feed: their buffer goes back when they are
/// dropped, on whichever thread.
pub struct Pixels {
    /// `None` while it is dropped.
    buffer: Option<SlotBuffer>,
    bytes: usize,
    home: Arc<Buffers>,
}

impl Pixels {
    /// All of them.
    pub fn bytes(&mut self) -> &[u8] {
        self.buffer.as_mut().map_or(&[], |buffer| &buffer.bytes()[..self.bytes])
    }

    /// How many bytes they are.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether they are of no image.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Where they begin, for others to read and write. They stay there until they are dropped,
    /// even if this is moved; nobody else knows of them.
    pub fn start(&mut self) -> NonNull<u8> {
        self.buffer.as_mut().map_or(NonNull::dangling(), SlotBuffer::start)
    }
}

impl Drop for Pixels {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.home.give_back(buffer);
        }
    }
}

/// What one slot came to.
#[derive(Clone, Debug)]
pub(super) struct SlotOutcome {
    pub sample_id: SampleId,
    pub view: Option<View>,
    pub labels: Vec<LabelId>,
    pub captions: Option<Vec<String>>,
}

/// A batch in work: the planner makes it, decode threads fill it, the trainer waits for it.
pub(super) struct OpenBatch {
    pub step: u64,
    pub positions: Vec<u64>,
    pub size: StepSize,
    pub cursor: Cursor,
    pub pixels: SlotBuffer,
    pub outcomes: Vec<Mutex<Option<SlotOutcome>>>,
    pub unfilled: AtomicUsize,
}

impl OpenBatch {
    /// Puts in what a slot came to; true for the last one.
    pub fn fill(&self, slot: usize, outcome: SlotOutcome) -> bool {
        *self.outcomes[slot].lock().unwrap_or_else(|e| e.into_inner()) = Some(outcome);
        self.unfilled.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether all slots are in.
    pub fn is_full(&self) -> bool {
        self.unfilled.load(Ordering::Acquire) == 0
    }
}

/// A batch that is ready.
pub struct HostBatch {
    /// Number of the step in this feed, from 0.
    pub step: u64,
    /// Height of the images.
    pub height_px: usize,
    /// Width of the images.
    pub width_px: usize,
    /// Ids of the samples; zeros for padding.
    pub sample_ids: Vec<SampleId>,
    /// Positions in the epoch's global stream.
    pub positions: Vec<u64>,
    /// 1, or 0 for a slot that is padding or whose row did not decode.
    pub weights: Vec<f32>,
    /// What each slot shows; `None` where the weight is 0.
    pub views: Vec<Option<View>>,
    /// What each slot teaches.
    pub targets: Targets,
    /// The captions of each sample, if they were asked for.
    pub captions: Option<Vec<Vec<String>>>,
    /// Where a feed goes on after this batch.
    pub cursor: Cursor,
    /// `len × height × width × 3`, `u8`, RGB; zeros where the weight is 0.
    pub pixels: Pixels,
}

impl HostBatch {
    /// Slots.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether it has no slot: a rank without a share of this step.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The pixels, `len × height × width × 3`, `u8`, RGB; zeros where the weight is 0.
    pub fn images_bhwc(&mut self) -> &[u8] {
        self.pixels.bytes()
    }

    pub(super) fn assemble(open: OpenBatch, home: Arc<Buffers>) -> Self {
        home.hand_out();
        let side = open.size.side_px as usize;
        let slots = open.positions.len();
        let mut batch = Self {
            step: open.step,
            height_px: side,
            width_px: side,
            sample_ids: Vec::with_capacity(slots),
            positions: open.positions,
            weights: Vec::with_capacity(slots),
            views: Vec::with_capacity(slots),
            targets: Targets::LabelsCsr { offsets: vec![0], ids: Vec::new() },
            captions: None,
            cursor: open.cursor,
            pixels: Pixels {
                buffer: Some(open.pixels),
                bytes: slots * open.size.image_bytes(),
                home,
            },
        };
        let mut captions = Vec::new();
        let Targets::LabelsCsr { offsets, ids } = &mut batch.targets;
        for outcome in open.outcomes {
            let outcome = outcome.into_inner().unwrap_or_else(|e| e.into_inner());
            let Some(outcome) = outcome else { panic!("a full batch has all outcomes") };
            batch.sample_ids.push(outcome.sample_id);
            batch.weights.push(if outcome.view.is_some() { 1.0 } else { 0.0 });
            batch.views.push(outcome.view);
            ids.extend(outcome.labels.iter().map(|&id| i64::from(id)));
            offsets.push(ids.len() as i64);
            captions.extend(outcome.captions);
        }
        batch.captions = (captions.len() == slots && slots > 0).then_some(captions);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_targets_have_a_one_for_each_label() {
        let targets = Targets::LabelsCsr { offsets: vec![0, 2, 2, 3], ids: vec![0, 3, 1] };
        let rows = [[1.0, 0.0, 0.0, 1.0], [0.0; 4], [0.0, 1.0, 0.0, 0.0]];
        assert_eq!(targets.dense(4).unwrap(), rows.concat());
    }

    #[test]
    fn labels_that_cannot_be_are_refused() {
        let dense = |offsets: [i64; 2], id| {
            Targets::LabelsCsr { offsets: offsets.to_vec(), ids: vec![id] }.dense(4).unwrap_err()
        };
        assert_eq!(dense([0, 1], 4), "label 4 of row 0, expected 0 to 4 without the end");
        assert_eq!(dense([0, 2], 0), "labels 0 to 2 of row 0, expected a range of 0 to 1");
        assert_eq!(dense([1, 0], 0), "labels 1 to 0 of row 0, expected a range of 0 to 1");
    }
}
