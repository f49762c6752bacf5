//! The labels of rows, by part.
//!
//! In: data sets and a vocabulary. Out: the sorted labels of any row of a part: the union over its
//! captions, or those of each caption. The vocabulary is applied here, when read; files hold all
//! synsets. Parts that were used last are kept within a limit of bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use catlip_schemas::{LabelId, Vocab};

use super::draw::Draws;
use super::source::Sources;
use crate::error::PrepError;

/// Which captions of a sample give its labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelsFrom {
    /// All of them.
    #[default]
    Union,
    /// One, drawn anew whenever the sample is read.
    OneCaption,
}

/// The labels of a part's rows, end to end.
#[derive(Debug)]
pub struct PartLabels {
    /// Where each row's lists begin in `offsets`, and the end of the last. A row has one list for
    /// the union, or one for each caption.
    rows: Vec<u32>,
    /// Where each list begins in `ids`, and the end of the last.
    offsets: Vec<u32>,
    ids: Vec<LabelId>,
    /// The captions of each row, if they were asked for.
    captions: Option<Vec<Vec<String>>>,
}

impl PartLabels {
    /// The sorted labels of a row of the part; `draws` chooses where there are several lists.
    pub fn row(&self, row: u32, draws: &mut Draws) -> &[LabelId] {
        let row = row as usize;
        let (first, end) = (self.rows[row] as usize, self.rows[row + 1] as usize);
        if first == end {
            return &[];
        }
        let list = first + draws.below((end - first) as u64) as usize;
        &self.ids[self.offsets[list] as usize..self.offsets[list + 1] as usize]
    }

    /// The captions of a row of the part.
    pub fn captions(&self, row: u32) -> Option<&[String]> {
        self.captions.as_ref().map(|rows| &rows[row as usize][..])
    }

    fn bytes(&self) -> usize {
        let texts = self.captions.iter().flatten().flatten().map(|t| t.len() + 24).sum::<usize>();
        4 * (self.rows.len() + self.offsets.len() + self.ids.len()) + texts
    }
}

/// Reads and keeps the labels of parts.
pub struct LabelStore {
    sources: Sources,
    vocab: Arc<Vocab>,
    from: LabelsFrom,
    with_captions: bool,
    bytes_max: usize,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    parts: HashMap<u32, (u64, Arc<PartLabels>)>,
    bytes: usize,
    clock: u64,
}

impl LabelStore {
    /// Labels of `sources` under `vocab`; about `bytes_max` bytes of them are kept.
    pub fn new(
        sources: Sources,
        vocab: Arc<Vocab>,
        from: LabelsFrom,
        with_captions: bool,
        bytes_max: u64,
    ) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { sources, vocab, from, with_captions, bytes_max, cache: Mutex::default() }
    }

    /// The labels of the part of that number.
    ///
    /// # Errors
    ///
    /// [`PrepError`] when its column set cannot be read.
    pub fn part(&self, part: u32) -> Result<Arc<PartLabels>, PrepError> {
        // Read under the lock: a part is read once, however many threads ask for it.
        let mut cache = self.cache.lock().unwrap_or_else(|e| e.into_inner());
        cache.clock += 1;
        let now = cache.clock;
        if let Some((used, labels)) = cache.parts.get_mut(&part) {
            *used = now;
            return Ok(labels.clone());
        }
        let labels = Arc::new(self.read(part)?);
        cache.bytes += labels.bytes();
        cache.parts.insert(part, (now, labels.clone()));
        while cache.bytes > self.bytes_max && cache.parts.len() > 1 {
            let oldest = cache.parts.iter().min_by_key(|(_, (used, _))| *used).map(|(&p, _)| p);
            let Some((_, gone)) = oldest.and_then(|p| cache.parts.remove(&p)) else { break };
            cache.bytes -= gone.bytes();
        }
        Ok(labels)
    }

    fn read(&self, part: u32) -> Result<PartLabels, PrepError> {
        let (source, part) = self.sources.part(part);
        let mut labels =
            PartLabels { rows: vec![0], offsets: vec![0], ids: Vec::new(), captions: None };
        for captions in source.data.read_synsets(part)? {
            match self.from {
                LabelsFrom::Union => {
                    let synsets = captions.iter().flat_map(|c| c.0.iter().copied());
                    labels.push_list(self.vocab.labels_of(synsets).ids());
                }
                LabelsFrom::OneCaption => {
                    for caption in &captions {
                        labels.push_list(self.vocab.labels_of(caption.0.iter().copied()).ids());
                    }
                }
            }
            labels.rows.push(labels.offsets.len() as u32 - 1);
        }
        if self.with_captions {
            labels.captions = Some(source.data.read_captions(part)?);
        }
        Ok(labels)
    }
}

impl PartLabels {
    fn push_list(&mut self, ids: &[LabelId]) {
        self.ids.extend_from_slice(ids);
        self.offsets.push(self.ids.len() as u32);
    }
}
