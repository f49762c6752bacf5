//! Vocabularies: counted from column sets of synsets, kept as small Parquet files.
//!
//! In: data sets, or files of vocabularies, also the pickles of the reference. Out: `index, synset,
//! wnid, lemma, occurrences, captions`, by falling occurrences, or in the order of the file.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use catlip_schemas::{Frequencies, Frequency, SampleId, SynsetId, Vocab, VocabCut, VocabRow};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;

use super::columns::write_batch;
use super::commit::write_whole;
use super::snapshot::DataSet;
use super::vocab_pickle;
use crate::caption::wordnet::WordNet;
use crate::error::PrepError;

/// First bytes of a Parquet file.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// Limit of a pickled vocabulary: 1,000,000 synsets of at most 40 bytes each.
pub const PICKLE_BYTES_MAX: u64 = 40_000_000;

/// Counts the synsets of the rows that `keep` wants and that are not left out.
///
/// # Errors
///
/// [`PrepError`] when a part cannot be read.
pub fn count(
    data: &DataSet,
    keep: impl Fn(&SampleId) -> bool + Sync,
) -> Result<(Frequencies, u64), PrepError> {
    let counted = data.parts.par_iter().map(|part| {
        let ids = data.read_sample_ids(part)?;
        let mut frequencies = Frequencies::default();
        let mut rows = 0;
        for ((id, captions), row) in ids.iter().zip(data.read_synsets(part)?).zip(0..) {
            if keep(id) && !data.dropped.is_dropped(part.name, row) {
                rows += 1;
                captions.iter().for_each(|caption| frequencies.add(caption));
            }
        }
        Ok((frequencies, rows))
    });
    counted.try_reduce(Default::default, |mut sum, (frequencies, rows)| {
        sum.0.merge(&frequencies);
        Ok((sum.0, sum.1 + rows))
    })
}

/// The vocabulary of `frequencies` under `cut`, with head lemmas from WordNet.
pub fn from_frequencies(
    frequencies: &Frequencies,
    cut: &VocabCut,
) -> Result<Vocab, catlip_schemas::SchemaError> {
    let wordnet = WordNet::embedded();
    let row = |(synset, frequency)| VocabRow {
        synset,
        lemma: wordnet.head_lemma(synset).unwrap_or_default().to_owned(),
        frequency,
    };
    Vocab::new(frequencies.ranked(cut).into_iter().map(row).collect())
}

fn schema() -> Arc<Schema> {
    let field = |name, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("index", DataType::Int32),
        field("synset", DataType::Int32),
        field("wnid", DataType::Utf8),
        field("lemma", DataType::Utf8),
        field("occurrences", DataType::Int64),
        field("captions", DataType::Int64),
    ]))
}

/// Writes a vocabulary; an existing file is replaced whole.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::DiskFull`].
pub fn write(path: &Path, vocab: &Vocab) -> Result<(), PrepError> {
    let rows = vocab.rows();
    let wrong = |e: parquet::errors::ParquetError| PrepError::parquet("write", path, &e);
    // Nothing was counted above 2^63 - 1; only weights lead there.
    let long = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(0..rows.len() as i32)),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.synset.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.synset.wnid()))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.lemma))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| long(r.frequency.occurrences)))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| long(r.frequency.captions)))),
    ];
    let batch = RecordBatch::try_new(schema(), columns).map_err(|e| wrong(e.into()))?;
    let mut bytes = Vec::new();
    write_batch(&mut bytes, &batch).map_err(wrong)?;
    write_whole(path, &bytes).map_err(|e| PrepError::io("write", path, e))
}

/// Reads a vocabulary.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Parquet`]; [`PrepError::Damaged`] for another schema or an
/// index that is not its row; [`PrepError::Schema`] for a repeated synset.
pub fn read(path: &Path) -> Result<Vocab, PrepError> {
    let wrong = |e: &parquet::errors::ParquetError| PrepError::parquet("read", path, e);
    let damaged = |what: &str, found: String, expected: String| PrepError::Damaged {
        path: path.into(),
        what: what.to_owned(),
        found,
        expected,
    };
    let file = File::open(path).map_err(|e| PrepError::io("read", path, e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.build())
        .map_err(|e| wrong(&e))?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| wrong(&e.into()))?;
        if batch.schema().fields() != schema().fields() {
            let (found, expected) = (batch.schema().to_string(), schema().to_string());
            return Err(damaged("schema", found, expected));
        }
        let int = |c: usize, i: usize| batch.column(c).as_primitive::<Int32Type>().value(i);
        let long = |c: usize, i: usize| batch.column(c).as_primitive::<Int64Type>().value(i) as u64;
        for i in 0..batch.num_rows() {
            if int(0, i) as usize != rows.len() {
                return Err(damaged("index", int(0, i).to_string(), rows.len().to_string()));
            }
            rows.push(VocabRow {
                synset: SynsetId(int(1, i)),
                lemma: batch.column(3).as_string::<i32>().value(i).to_owned(),
                frequency: Frequency { occurrences: long(4, i), captions: long(5, i) },
            });
        }
    }
    Vocab::new(rows).map_err(|source| PrepError::Schema { path: path.into(), source })
}

/// Reads a vocabulary that is a Parquet file or a pickle of the reference, told apart by the first
/// bytes.
///
/// # Errors
///
/// Those of [`read`]; [`PrepError::VocabPickle`], [`PrepError::TooLong`], [`PrepError::Schema`].
pub fn read_any(path: &Path) -> Result<Vocab, PrepError> {
    let failed = |e| PrepError::io("read", path, e);
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.by_ref().take(PARQUET_MAGIC.len() as u64).read_to_end(&mut bytes).map_err(failed)?;
    if bytes == PARQUET_MAGIC {
        return read(path);
    }
    // One byte more than allowed shows that there is more.
    file.take(PICKLE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > PICKLE_BYTES_MAX {
        return Err(PrepError::TooLong { path: path.into(), limit: PICKLE_BYTES_MAX });
    }
    let rows = vocab_pickle::read(&bytes)
        .map_err(|source| PrepError::VocabPickle { path: path.into(), source })?;
    Vocab::new(rows).map_err(|source| PrepError::Schema { path: path.into(), source })
}

/// Writes a vocabulary as the reference reads it; an existing file is replaced whole.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::DiskFull`].
pub fn write_pickle(path: &Path, vocab: &Vocab) -> Result<(), PrepError> {
    write_whole(path, &vocab_pickle::write(vocab)).map_err(|e| PrepError::io("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_reads_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.parquet");
        let mut frequencies = Frequencies::default();
        let caption =
            |ids: &[i32]| catlip_schemas::Synsets(ids.iter().map(|&i| SynsetId(i)).collect());
        frequencies.add(&caption(&[2_084_071, 2_084_071, 2_958_343]));
        let cut = VocabCut { min_count: 1, top_k: None, multiple_of: 1 };
        let vocab = from_frequencies(&frequencies, &cut).unwrap();
        write(&path, &vocab).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.rows(), vocab.rows());
        assert_eq!(back.hash(), vocab.hash());
        assert_eq!((back.rows()[0].lemma.as_str(), back.rows()[1].lemma.as_str()), ("dog", "car"));
    }
}
