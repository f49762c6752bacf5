//! Captions to labels.
//!
//! In: captions of Python, by [`Captions`]. Out: keys of synsets, as lists of `str` or as an Arrow
//! array of the same rows; or a CSR pair. Never: another label than `catlip-prep labels` prints.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ListArray, StringArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer};
use arrow_schema::{DataType, Field};
use catlip_pipeline::caption::{LabelRule, rule};
use catlip_pipeline::config::{PrepConfig, THREADS_MAX};
use catlip_pipeline::error::{ConfigError, PrepError};
use catlip_pipeline::prep::vocab::read_any;
use catlip_schemas::synset::KEY_BYTES;
use catlip_schemas::{SynsetId, Synsets, Vocab};
use pyo3::exceptions::{PyOverflowError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::array::Array;
use crate::blocks::{Blocks, Stop};
use crate::capsule::ArrowArray;
use crate::captions::{BadRow, Captions, text_of};
use crate::error::prep_raised;

/// Labels of a caption, about, for which room is made: web captions have 3 to 5.
const IDS_EXPECTED: usize = 6;

/// How a synset is written.
#[pyclass(eq, frozen, module = "catlip._catlip", from_py_object)]
#[derive(Clone, Copy, PartialEq)]
pub enum Keys {
    /// As CatLIP's vocabulary has it, `n2084071`.
    Corenet,
    /// As ImageNet has it, `n02084071`.
    Wnid,
}

impl Keys {
    fn of(self, synset: SynsetId) -> String {
        match self {
            Self::Corenet => synset.corenet_key(),
            Self::Wnid => synset.wnid(),
        }
    }

    /// The same as bytes, of which the first so many count: the time counts beside that of the
    /// rule.
    fn bytes_of(self, synset: SynsetId) -> ([u8; KEY_BYTES], usize) {
        match self {
            Self::Corenet => synset.corenet_key_bytes(),
            Self::Wnid => (synset.wnid_bytes(), KEY_BYTES),
        }
    }
}

/// A label rule and, if wanted, a vocabulary.
#[pyclass(frozen, module = "catlip._catlip")]
pub struct Labeler {
    rule: Arc<dyn LabelRule>,
    vocab: Option<Vocab>,
    threads: usize,
}

/// Numbers of the rows of a block, one after the other.
struct Found {
    /// How many each row has; `None` for a null.
    counts: Vec<Option<u32>>,
    ids: Vec<i32>,
}

#[pymethods]
impl Labeler {
    #[new]
    fn new(
        name: &str,
        vocab: Option<PathBuf>,
        threads: i64,
        settings: Vec<String>,
    ) -> PyResult<Self> {
        let wrong = |error: PrepError| prep_raised(&error);
        let config = PrepConfig::load_for("labels", &["nouns."], None, &settings)
            .map_err(|e| wrong(e.into()))?;
        let num_threads = u64::try_from(threads).ok().filter(|&n| n <= THREADS_MAX);
        let num_threads = num_threads.ok_or_else(|| {
            let (found, expected) = (threads.to_string(), format!("0 to {THREADS_MAX}"));
            wrong(ConfigError::Range { key: "threads", found, expected }.into())
        })?;
        Ok(Self {
            rule: rule(name, &config.nouns).map_err(|e| wrong(e.into()))?,
            vocab: vocab.map(|path| read_any(&path)).transpose().map_err(wrong)?,
            threads: num_threads as usize,
        })
    }

    /// Rule and version.
    #[getter]
    fn id(&self) -> &str {
        self.rule.id()
    }

    /// Labels of the vocabulary; `None` without one.
    #[getter]
    fn num_labels(&self) -> Option<usize> {
        self.vocab.as_ref().map(Vocab::len)
    }

    /// The keys of one caption in token order, repeats kept.
    fn keys_of_text(
        &self,
        py: Python<'_>,
        caption: &Bound<'_, PyString>,
        keys: Keys,
    ) -> PyResult<Vec<String>> {
        let caption = text_of(caption, 0)?;
        let synsets = py.detach(|| self.rule.synsets(caption));
        Ok(synsets.0.into_iter().map(|synset| keys.of(synset)).collect())
    }

    /// The same of each caption, as a list of lists; `None` for `None`.
    fn keys_of_list<'py>(
        &self,
        captions: &Bound<'py, PyAny>,
        keys: Keys,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = captions.py();
        let captions = Captions::of(captions)?;
        let found = self
            .blocks(&captions)
            .each(py, |array, rows, stop| self.found(&captions, array, rows, stop, false))?;
        // Each key is one `str`, however often it occurs: a fifth of the time and memory.
        let mut known: HashMap<i32, Bound<'py, PyString>> = HashMap::new();
        let list = PyList::empty(py);
        for Found { counts, ids } in found {
            let mut ids = ids.into_iter();
            for count in counts {
                let Some(count) = count else {
                    list.append(py.None())?;
                    continue;
                };
                let texts = ids.by_ref().take(count as usize).map(|id| {
                    let text = known.entry(id);
                    text.or_insert_with(|| PyString::new(py, &keys.of(SynsetId(id)))).clone()
                });
                list.append(PyList::new(py, texts.collect::<Vec<_>>())?)?;
            }
        }
        Ok(list)
    }

    /// The same as Arrow arrays of lists of strings, one for each array of `captions`.
    fn keys_of_arrow(&self, captions: &Bound<'_, PyAny>, keys: Keys) -> PyResult<Vec<ArrowArray>> {
        let py = captions.py();
        let captions = Captions::of(captions)?;
        let found = self.blocks(&captions).each(py, |array, rows, stop| {
            let found = self.found(&captions, array, rows, stop, false)?;
            Ok::<_, BadRow>((array, Written::new(found, keys)))
        })?;
        py.detach(|| {
            let mut of_array: Vec<Vec<Written>> = captions.rows().iter().map(|_| vec![]).collect();
            found.into_iter().for_each(|(array, written)| of_array[array].push(written));
            of_array.iter().map(|blocks| joined(blocks)).collect()
        })
    }

    /// How many labels each caption has, summed up, and the labels of all one after the other:
    /// label ids of the vocabulary, rising and none twice, or without one WordNet's offsets in
    /// token order. A null has none.
    fn csr(&self, captions: &Bound<'_, PyAny>) -> PyResult<(Array, Array)> {
        let py = captions.py();
        let captions = Captions::of(captions)?;
        let found = self
            .blocks(&captions)
            .each(py, |array, rows, stop| self.found(&captions, array, rows, stop, true))?;
        Ok(py.detach(|| {
            let mut offsets = Vec::with_capacity(1 + captions.rows().iter().sum::<usize>());
            let mut all = Vec::with_capacity(found.iter().map(|found| found.ids.len()).sum());
            offsets.push(0);
            let mut end = 0;
            for Found { counts, ids } in found {
                offsets.extend(counts.into_iter().map(|count| {
                    end += i64::from(count.unwrap_or(0));
                    end
                }));
                all.extend(ids);
            }
            (Array::of_int64s(offsets), Array::of_int32s(all))
        }))
    }
}

impl Labeler {
    fn blocks(&self, captions: &Captions) -> Blocks {
        Blocks { rows: captions.rows(), threads: self.threads }
    }

    fn found(
        &self,
        captions: &Captions,
        array: usize,
        rows: Range<usize>,
        stop: &Stop,
        by_vocab: bool,
    ) -> Result<Found, BadRow> {
        let mut counts = Vec::with_capacity(rows.len());
        let mut ids = Vec::with_capacity(rows.len() * IDS_EXPECTED);
        let vocab = self.vocab.as_ref().filter(|_| by_vocab);
        let captions = captions.of_rows(array, rows.clone());
        for row in rows {
            if stop.is_asked() {
                break;
            }
            let Some(caption) = captions.get(row)? else {
                counts.push(None);
                continue;
            };
            let Synsets(synsets) = self.rule.synsets(caption);
            let before = ids.len();
            match vocab {
                None => ids.extend(synsets.iter().map(|synset| synset.0)),
                // At most 1,000,000 labels, so that an id is an `i32`.
                Some(vocab) => {
                    ids.extend(vocab.labels_of(synsets).ids().iter().map(|&id| id as i32));
                }
            }
            // A text of so many words that this would not hold them makes 16 GB of labels.
            counts.push(Some((ids.len() - before) as u32));
        }
        Ok(Found { counts, ids })
    }
}

/// Keys of the rows of a block, one after the other.
struct Written {
    /// How many each row has; `None` for a null.
    counts: Vec<Option<u32>>,
    /// Where each key ends in `bytes`; of more bytes than 32 bits count no array is made.
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Written {
    fn new(found: Found, keys: Keys) -> Self {
        let mut bytes = vec![0; found.ids.len() * KEY_BYTES];
        let mut end = 0;
        let write = |&id: &i32| {
            let (key, num_bytes) = keys.bytes_of(SynsetId(id));
            bytes[end..end + KEY_BYTES].copy_from_slice(&key);
            end += num_bytes;
            end as u32
        };
        let ends = found.ids.iter().map(write).collect();
        bytes.truncate(end);
        Self { counts: found.counts, ends, bytes }
    }
}

/// An Arrow array of the keys of all rows, `list<string>`.
fn joined(blocks: &[Written]) -> PyResult<ArrowArray> {
    let num_rows = blocks.iter().map(|block| block.counts.len()).sum::<usize>();
    let num_keys = blocks.iter().map(|block| block.ends.len()).sum::<usize>();
    let num_bytes = blocks.iter().map(|block| block.bytes.len()).sum::<usize>();
    // Arrow's lists and strings count in 32 bits; there are never more keys than their bytes.
    if i32::try_from(num_bytes).is_err() {
        return Err(PyOverflowError::new_err(format!(
            "the {num_keys} keys of {num_rows} captions in one Arrow array have {num_bytes} bytes, \
             expected at most {}; give fewer captions at once, or a ChunkedArray",
            i32::MAX
        )));
    }
    let mut bytes = Vec::with_capacity(num_bytes);
    let mut ends = Vec::with_capacity(num_keys + 1);
    ends.push(0);
    let mut row_ends = Vec::with_capacity(num_rows + 1);
    row_ends.push(0);
    let mut nulls = NullBufferBuilder::new(num_rows);
    let mut row_end = 0;
    for block in blocks {
        let start = bytes.len();
        ends.extend(block.ends.iter().map(|&end| (start + end as usize) as i32));
        bytes.extend_from_slice(&block.bytes);
        for count in &block.counts {
            row_end += count.unwrap_or(0) as i32;
            row_ends.push(row_end);
            nulls.append(count.is_some());
        }
    }
    let item = Arc::new(Field::new_list_field(DataType::Utf8, false));
    let (ends, row_ends) = (OffsetBuffer::new(ends.into()), OffsetBuffer::new(row_ends.into()));
    let texts = StringArray::try_new(ends, bytes.into(), None);
    texts
        .and_then(|texts| ListArray::try_new(item, row_ends, Arc::new(texts), nulls.finish()))
        .map(|lists| ArrowArray::new(Arc::new(lists)))
        .map_err(|e| PyRuntimeError::new_err(format!("the keys make no Arrow array: {e}")))
}
