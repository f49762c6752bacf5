//! A batch on the host.
//!
//! In: slots that decode threads fill, each with its outcome. Out: the whole batch, once all are
//! in. Its buffer goes back to the feed when the batch is dropped.

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
    pixels: Option<SlotBuffer>,
    home: Arc<Buffers>,
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
        let bytes = self.len() * self.height_px * self.width_px * 3;
        self.pixels.as_mut().map_or(&[], |pixels| &pixels.bytes()[..bytes])
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
            pixels: Some(open.pixels),
            home,
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

impl Drop for HostBatch {
    fn drop(&mut self) {
        if let Some(pixels) = self.pixels.take() {
            self.home.give_back(pixels);
        }
    }
}
