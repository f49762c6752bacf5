//! Rows that are to be left out from now on.
//!
//! In: a list of sample ids, or of keys. Out: a snapshot whose readers pass over these rows. Older
//! snapshots have them, and so do the files, until `reshuffle` writes a data set without them.

use std::collections::HashSet;
use std::path::Path;

use catlip_schemas::SampleId;
use rayon::prelude::*;

use super::change::{Draft, commit};
use super::error::ChangeError;
use super::folder::Folder;
use super::snapshot::{DataSet, Part};
use crate::error::PrepError;
use crate::source::byte_order_mark::text_without_mark;

/// Unknown keys that an error shows.
const UNKNOWN_SHOWN: usize = 20;

/// Which rows are meant.
#[derive(Clone, Debug)]
pub enum RowList {
    /// By sample id.
    Ids(HashSet<SampleId>),
    /// By WebDataset key; every row of that key, since a key is unique within its shard only.
    Keys(HashSet<String>),
}

impl RowList {
    fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Keys(keys) => keys.len(),
        }
    }
}

/// What was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSummary {
    /// Number of the snapshot.
    pub snapshot: u64,
    /// Rows that this change left out.
    pub dropped: u64,
    /// Rows of the list that had been left out before.
    pub dropped_before: u64,
    /// Entries of the list that no row has.
    pub unknown: u64,
    /// Rows that readers see now.
    pub rows: u64,
}

/// Reads a list, one id or key a line; empty lines are passed over.
///
/// # Errors
///
/// [`PrepError::Io`]; [`ChangeError::Table`] for a line that is no sample id.
pub fn read_list(path: &Path, are_ids: bool) -> Result<RowList, PrepError> {
    let text = std::fs::read_to_string(path).map_err(|e| PrepError::io("read", path, e))?;
    let text = text_without_mark(&text);
    let lines = || text.lines().zip(1..).filter(|(line, _)| !line.is_empty());
    if !are_ids {
        return Ok(RowList::Keys(lines().map(|(line, _)| line.to_owned()).collect()));
    }
    lines()
        .map(|(line, number)| {
            line.trim().parse().map_err(|error| {
                let message = format!("line {number}: {error}");
                ChangeError::Table { path: path.into(), message }.into()
            })
        })
        .collect::<Result<_, PrepError>>()
        .map(RowList::Ids)
}

/// Rows of a part that are meant, and the entries of the list that they have.
struct Found {
    rows: Vec<u64>,
    entries: Vec<String>,
}

/// Leaves the rows of `list`, which was read from `path`, out of the data set in `folder`.
///
/// # Errors
///
/// [`ChangeError::UnknownKeys`] unless `allow_unknown`; [`PrepError::NoDataSet`],
/// [`PrepError::Io`], [`PrepError::DiskFull`].
pub fn drop_rows(
    folder: impl Into<Folder>,
    list: &RowList,
    path: &Path,
    allow_unknown: bool,
) -> Result<DropSummary, PrepError> {
    let folder = &folder.into();
    let counts = std::cell::Cell::new((0, 0, 0));
    let manifest = commit(folder, |old| {
        let Some(old) = old else {
            return Err(PrepError::NoDataSet {
                path: folder.place(),
                message: "it has no committed snapshot".to_owned(),
            });
        };
        let found: Vec<Found> = old
            .parts
            .par_iter()
            .map(|part| find(old, part, list))
            .collect::<Result<_, PrepError>>()?;
        let known: HashSet<&str> =
            found.iter().flat_map(|f| &f.entries).map(String::as_str).collect();
        let unknown = (list.len() - known.len()) as u64;
        if unknown > 0 && !allow_unknown {
            let keys = unknown_entries(list, &known);
            let (path, rows) = (path.into(), list.len() as u64);
            return Err(ChangeError::UnknownKeys { path, count: unknown, rows, keys }.into());
        }
        let mut draft = Draft::of(old);
        let (mut dropped, mut before) = (0, 0);
        for (part, found) in old.parts.iter().zip(&found) {
            for &row in &found.rows {
                match draft.dropped.drop_row(part.name, part.rows(), row) {
                    true => dropped += 1,
                    false => before += 1,
                }
            }
        }
        draft.change = format!("drop: {dropped} rows");
        counts.set((dropped, before, unknown));
        Ok(draft)
    })?;
    let (dropped, dropped_before, unknown) = counts.get();
    let left_out = manifest.tombstones.as_ref().map_or(0, |entry| entry.rows);
    Ok(DropSummary {
        snapshot: manifest.snapshot,
        dropped,
        dropped_before,
        unknown,
        rows: manifest.totals.rows - left_out,
    })
}

fn find(data: &DataSet, part: &Part, list: &RowList) -> Result<Found, PrepError> {
    let mut found = Found { rows: Vec::new(), entries: Vec::new() };
    let mut take = |row: u64, entry: String| {
        found.rows.push(row);
        found.entries.push(entry);
    };
    match list {
        RowList::Ids(ids) => {
            for (id, row) in data.read_sample_ids(part)?.into_iter().zip(0..) {
                if ids.contains(&id) {
                    take(row, id.to_string());
                }
            }
        }
        RowList::Keys(keys) => {
            for (key, row) in data.read_keys(part)?.into_iter().zip(0..) {
                if keys.contains(&key) {
                    take(row, key);
                }
            }
        }
    }
    Ok(found)
}

fn unknown_entries(list: &RowList, known: &HashSet<&str>) -> Vec<String> {
    let mut all: Vec<String> = match list {
        RowList::Ids(ids) => ids.iter().map(SampleId::to_string).collect(),
        RowList::Keys(keys) => keys.iter().cloned().collect(),
    };
    all.retain(|entry| !known.contains(entry.as_str()));
    all.sort();
    all.truncate(UNKNOWN_SHOWN);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_before_the_first_line_is_no_part_of_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt");
        std::fs::write(&path, "\u{feff}00001\r\n00002\n").unwrap();
        let RowList::Keys(keys) = read_list(&path, false).unwrap() else { panic!("keys") };
        assert_eq!(keys, HashSet::from(["00001", "00002"].map(str::to_owned)));
        let id = SampleId::new("a.tar", b"k");
        std::fs::write(&path, format!("\u{feff}{id}\n")).unwrap();
        let RowList::Ids(ids) = read_list(&path, true).unwrap() else { panic!("ids") };
        assert_eq!(ids, HashSet::from([id]));
    }
}
