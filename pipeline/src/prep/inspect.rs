//! What is in a data set, counted.
//!
//! In: a snapshot. Out: its history, sizes of images, labels per caption, the vocabulary's head and
//! tail, and a few samples to look at. Rows that are left out are not counted.

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use catlip_schemas::{ColumnSet, Frequencies, Manifest, SynsetId, VocabCut};
use rayon::prelude::*;

use super::folder::Folder;
use super::snapshot::{DataSet, Part, read_manifest};
use crate::caption::wordnet::WordNet;
use crate::error::PrepError;

/// A histogram of small numbers; the last bin holds all that are larger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Width of a bin.
    pub step: u64,
    /// How many values fell into each.
    pub bins: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    fn new(step: u64, bins: usize) -> Self {
        Self { step, bins: vec![0; bins], sum: 0 }
    }

    fn add(&mut self, value: u64) {
        let bin = ((value / self.step) as usize).min(self.bins.len() - 1);
        self.bins[bin] += 1;
        self.sum += value;
    }

    fn merge(mut self, other: &Self) -> Self {
        self.bins.iter_mut().zip(&other.bins).for_each(|(sum, count)| *sum += count);
        self.sum += other.sum;
        self
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// Mean of the values, 0 without any.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count().max(1) as f64
    }
}

/// One synset of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynsetCount {
    /// Its wnid.
    pub wnid: String,
    /// Its head lemma.
    pub lemma: String,
    /// How often it occurs.
    pub occurrences: u64,
    /// In how many captions.
    pub captions: u64,
}

/// One row, to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its key.
    pub key: String,
    /// Encoding of the image: `jpeg`, ….
    pub encoding: String,
    /// The stored image; empty where images are not stored.
    pub image: Vec<u8>,
    /// Its captions, each with the lemmas of its labels.
    pub captions: Vec<(String, Vec<String>)>,
}

/// What is in a snapshot.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The snapshot.
    pub manifest: Manifest,
    /// Every snapshot up to it: number, rows, rows left out, what was changed.
    pub history: Vec<(u64, u64, u64, String)>,
    /// Rows that readers see.
    pub rows: u64,
    /// Short side of the stored images in px.
    pub short_side_px: Histogram,
    /// Name of the labels below.
    pub labels: String,
    /// Labels of a caption.
    pub labels_per_caption: Histogram,
    /// Distinct synsets.
    pub num_synsets: u64,
    /// The most frequent synsets.
    pub head: Vec<SynsetCount>,
    /// The rarest synsets.
    pub tail: Vec<SynsetCount>,
    /// A few rows, spread over the parts.
    pub shown: Vec<Shown>,
}

/// What one part adds.
struct Counted {
    sides: Histogram,
    labels: Histogram,
    frequencies: Frequencies,
}

/// Counts a snapshot; shows `num_shown` rows and `num_synsets` of the vocabulary's head and tail.
///
/// # Errors
///
/// [`PrepError`] when a part cannot be read or labels are not chosen.
pub fn inspect(
    data: &DataSet,
    num_synsets: usize,
    num_shown: usize,
) -> Result<Inspection, PrepError> {
    let labels = data.synsets_set()?.name();
    let none = || Counted {
        sides: Histogram::new(32, 33),
        labels: Histogram::new(1, 21),
        frequencies: Frequencies::default(),
    };
    let counted = data.parts.par_iter().map(|part| count_part(data, part, none())).try_reduce(
        none,
        |mut a, b| {
            a.frequencies.merge(&b.frequencies);
            Ok(Counted { sides: a.sides.merge(&b.sides), labels: a.labels.merge(&b.labels), ..a })
        },
    )?;
    let cut = VocabCut { min_count: 1, top_k: None, multiple_of: 1 };
    let ranked = counted.frequencies.ranked(&cut);
    let named = |&(synset, frequency): &(SynsetId, catlip_schemas::Frequency)| SynsetCount {
        wnid: synset.wnid(),
        lemma: lemma(synset),
        occurrences: frequency.occurrences,
        captions: frequency.captions,
    };
    let tail = ranked.len() - num_synsets.min(ranked.len() / 2);
    Ok(Inspection {
        history: history(&data.folder, data.manifest.snapshot)?,
        rows: data.live_rows(),
        short_side_px: counted.sides,
        labels,
        labels_per_caption: counted.labels,
        num_synsets: ranked.len() as u64,
        head: ranked.iter().take(num_synsets).map(named).collect(),
        tail: ranked[tail..].iter().map(named).collect(),
        shown: show(data, num_shown)?,
        manifest: data.manifest.clone(),
    })
}

fn lemma(synset: SynsetId) -> String {
    let lemma = WordNet::embedded().head_lemma(synset).unwrap_or_default();
    lemma.replace('_', " ")
}

fn history(folder: &Folder, newest: u64) -> Result<Vec<(u64, u64, u64, String)>, PrepError> {
    (1..=newest)
        .map(|number| {
            let manifest = read_manifest(folder, number)?;
            let dropped = manifest.tombstones.map_or(0, |entry| entry.rows);
            let change = manifest.change.unwrap_or_else(|| "run".to_owned());
            Ok((number, manifest.totals.rows - dropped, dropped, change))
        })
        .collect()
}

fn count_part(data: &DataSet, part: &Part, mut counted: Counted) -> Result<Counted, PrepError> {
    let is_there = |row: u64| !data.dropped.is_dropped(part.name, row);
    let mut sides: Vec<u64> = Vec::new();
    for name in ["width", "height"] {
        let mut row = 0;
        data.read_column(part, &ColumnSet::Meta, name, |column| {
            for &side in column.as_primitive::<Int32Type>().values() {
                let side = u64::try_from(side).unwrap_or(0);
                match sides.get_mut(row) {
                    Some(short) => *short = side.min(*short),
                    None => sides.push(side),
                }
                row += 1;
            }
        })?;
    }
    let there = sides.into_iter().zip(0..).filter(|&(_, row)| is_there(row));
    there.for_each(|(side, _)| counted.sides.add(side));
    for (captions, _) in data.read_synsets(part)?.iter().zip(0..).filter(|&(_, row)| is_there(row))
    {
        for caption in captions {
            counted.labels.add(caption.0.len() as u64);
            counted.frequencies.add(caption);
        }
    }
    Ok(counted)
}

/// The first rows that are there of parts at equal distances.
fn show(data: &DataSet, num_shown: usize) -> Result<Vec<Shown>, PrepError> {
    let mut shown = Vec::new();
    let parts = data.parts.len();
    let wanted = parts.min(num_shown);
    for at in 0..wanted {
        let part = &data.parts[at * parts / wanted];
        let of_this = num_shown / wanted + usize::from(at < num_shown % wanted);
        let is_there = |row: &u64| !data.dropped.is_dropped(part.name, *row);
        let rows: Vec<u64> = (0..part.rows()).filter(is_there).take(of_this).collect();
        show_part(data, part, &rows, &mut shown)?;
    }
    Ok(shown)
}

fn show_part(
    data: &DataSet,
    part: &Part,
    rows: &[u64],
    shown: &mut Vec<Shown>,
) -> Result<(), PrepError> {
    let (keys, captions) = (data.read_keys(part)?, data.read_captions(part)?);
    let synsets = data.read_synsets(part)?;
    let mut encodings = Vec::new();
    data.read_column(part, &ColumnSet::Meta, "encoding", |column| {
        encodings.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
    })?;
    let mut images: Vec<Vec<u8>> = Vec::new();
    let num_rows = rows.last().map_or(0, |&last| last as usize + 1);
    if part.files.contains_key("images") {
        data.read_head(part, "images", "image", num_rows, |column| {
            images.extend(column.as_binary::<i32>().iter().flatten().map(<[u8]>::to_vec));
        })?;
    }
    for &row in rows {
        let at = row as usize;
        let labels = synsets[at].iter().map(|c| c.0.iter().map(|&s| lemma(s)).collect());
        shown.push(Shown {
            key: keys[at].clone(),
            encoding: encodings[at].clone(),
            image: images.get(at).cloned().unwrap_or_default(),
            captions: captions[at].iter().cloned().zip(labels).collect(),
        });
    }
    Ok(())
}
