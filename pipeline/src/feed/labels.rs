//! The labels of rows, by part.
//!
//! In: a data set and a vocabulary. Out: the sorted labels of any row of a part: the union over its
//! captions. The vocabulary is applied here, when read; files hold all synsets. Parts that were
//! used last are kept within a limit of bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use catlip_schemas::{LabelId, Vocab};

use crate::error::PrepError;
use crate::prep::DataSet;

/// Bytes of labels that are kept: 10^7 rows of 5 labels are 280 MB; fewer are read again.
const CACHE_BYTES_MAX: usize = 256 << 20;

/// The labels of a part's rows, end to end.
#[derive(Debug)]
pub struct PartLabels {
    /// Where each row's labels begin in `ids`, and the end of the last.
    offsets: Vec<u32>,
    ids: Vec<LabelId>,
    /// The captions of each row, if they were asked for.
    captions: Option<Vec<Vec<String>>>,
}

impl PartLabels {
    /// The sorted labels of a row of the part.
    pub fn row(&self, row: u32) -> &[LabelId] {
        let row = row as usize;
        &self.ids[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// The captions of a row of the part.
    pub fn captions(&self, row: u32) -> Option<&[String]> {
        self.captions.as_ref().map(|rows| &rows[row as usize][..])
    }

    fn bytes(&self) -> usize {
        let texts = self.captions.iter().flatten().flatten().map(|t| t.len() + 24).sum::<usize>();
        4 * (self.offsets.len() + self.ids.len()) + texts
    }
}

/// Reads and keeps the labels of parts.
pub struct LabelStore {
    data: Arc<DataSet>,
    vocab: Arc<Vocab>,
    with_captions: bool,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    parts: HashMap<u32, (u64, Arc<PartLabels>)>,
    bytes: usize,
    clock: u64,
}

impl LabelStore {
    /// Labels of `data` under `vocab`.
    pub fn new(data: Arc<DataSet>, vocab: Arc<Vocab>, with_captions: bool) -> Self {
        Self { data, vocab, with_captions, cache: Mutex::default() }
    }

    /// The labels of the part of that index.
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
        while cache.bytes > CACHE_BYTES_MAX && cache.parts.len() > 1 {
            let oldest = cache.parts.iter().min_by_key(|(_, (used, _))| *used).map(|(&p, _)| p);
            let Some((_, gone)) = oldest.and_then(|p| cache.parts.remove(&p)) else { break };
            cache.bytes -= gone.bytes();
        }
        Ok(labels)
    }

    fn read(&self, part: u32) -> Result<PartLabels, PrepError> {
        let part = &self.data.parts[part as usize];
        let mut labels = PartLabels { offsets: vec![0], ids: Vec::new(), captions: None };
        for captions in self.data.read_synsets(part)? {
            let synsets = captions.iter().flat_map(|c| c.0.iter().copied());
            labels.ids.extend_from_slice(self.vocab.labels_of(synsets).ids());
            labels.offsets.push(labels.ids.len() as u32);
        }
        if self.with_captions {
            labels.captions = Some(self.data.read_captions(part)?);
        }
        Ok(labels)
    }
}
