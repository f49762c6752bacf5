//! Re-reads a data set against its manifest.
//!
//! In: the folder. Out: what was checked, and which files belong to nothing. Never: changes a file,
//! unless it is asked to remove rubbish, and then none younger than a day.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use catlip_schemas::{FileEntry, Manifest, SourceList};
use rayon::prelude::*;

use super::file_check::{check_bytes, same};
use super::folder::Folder;
use super::snapshot::{DataSet, Part, newest_number};
use super::work::{Receipts, read_receipts};
use crate::error::PrepError;

/// Files younger than this may belong to a job that runs now.
const RUBBISH_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifySummary {
    /// Number of the snapshot.
    pub snapshot: u64,
    /// Rows.
    pub rows: u64,
    /// Files that were read whole.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that no snapshot names.
    pub rubbish: Vec<PathBuf>,
    /// How many of them were removed.
    pub removed: u64,
}

/// Reads every file of a snapshot, the newest if none is named, and compares it with the manifest.
///
/// With `clean`, files that no snapshot names and that are older than a day are removed.
///
/// # Errors
///
/// [`PrepError::Damaged`], or [`PrepError::DamagedFiles`] with all that differ.
pub fn verify(
    folder: impl Into<Folder>,
    snapshot: Option<u64>,
    clean: bool,
) -> Result<VerifySummary, PrepError> {
    let folder = &folder.into();
    let data = DataSet::open_at(folder, snapshot)?;
    let files: Vec<(&FileEntry, u64)> = data
        .parts
        .iter()
        .flat_map(|part| part.files.values().map(|file| (file, part.rows())))
        .collect();
    let checked = files.par_iter().map(|(file, rows)| check_file(folder, file, *rows));
    let (damaged, other): (Vec<_>, Vec<_>) = checked
        .filter_map(Result::err)
        .partition(|error| matches!(error, PrepError::Damaged { .. }));
    // A disk that fails says nothing about the files.
    other.into_iter().next().map_or(Ok(()), Err)?;
    all_of(damaged)?;
    let sum: u64 = data.parts.iter().map(Part::rows).sum();
    let manifest = folder.path(&Manifest::file(data.manifest.snapshot));
    same(&manifest, "number of rows", data.manifest.totals.rows, sum)?;
    let rubbish = rubbish(folder)?;
    let mut removed = 0;
    for name in rubbish.iter().filter(|_| clean) {
        if is_old(folder, name)? {
            folder.remove(name)?;
            removed += 1;
        }
    }
    Ok(VerifySummary {
        snapshot: data.manifest.snapshot,
        rows: data.manifest.totals.rows,
        files: files.len() as u64,
        bytes: files.iter().map(|(file, _)| file.bytes).sum(),
        rubbish: rubbish.iter().map(|name| folder.path(name)).collect(),
        removed,
    })
}

fn check_file(folder: &Folder, file: &FileEntry, rows: u64) -> Result<(), PrepError> {
    if file.column_set != "rejects" {
        same(&folder.path(&file.file), "number of rows", file.rows, rows)?;
    }
    check_bytes(folder, file)
}

/// One error as it is, several as a list.
fn all_of(mut errors: Vec<PrepError>) -> Result<(), PrepError> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => {
            Err(PrepError::DamagedFiles { files: errors.iter().map(ToString::to_string).collect() })
        }
    }
}

/// Files below the data set's own folders that neither a snapshot nor a receipt names.
fn rubbish(folder: &Folder) -> Result<Vec<String>, PrepError> {
    let mut named = BTreeSet::from(["README.md".to_owned()]);
    for number in 1..=newest_number(folder)? {
        let data = DataSet::open_at(folder, Some(number))?;
        named.insert(Manifest::file(number));
        named.insert(data.manifest.parts.file.clone());
        named.extend(data.manifest.tombstones.iter().map(|entry| entry.file.clone()));
        for file in data.parts.iter().flat_map(|part| part.files.values()) {
            named.insert(file.file.clone());
        }
    }
    let receipts = Receipts::list(folder)?.of_parts();
    for receipt in read_receipts(folder, &receipts)? {
        named.extend(receipt.files.into_iter().map(|file| file.file));
    }
    named.extend(receipts);
    let mut first = 0;
    while let Some(bytes) = folder.find(&SourceList::file(first))? {
        named.insert(SourceList::file(first));
        let Ok(list) = SourceList::from_json(&bytes) else { break };
        first += u32::try_from(list.sources.len()).unwrap_or(u32::MAX);
    }
    let folders: BTreeSet<String> = named
        .iter()
        .filter_map(|name| name.rsplit_once('/'))
        .map(|(folder, _)| folder.to_owned())
        .collect();
    let mut rubbish = Vec::new();
    for below in folders {
        for name in folder.list(&below)? {
            let path = format!("{below}/{name}");
            if !named.contains(&path) && !name.starts_with("config-") {
                rubbish.push(path);
            }
        }
    }
    rubbish.sort();
    Ok(rubbish)
}

fn is_old(folder: &Folder, name: &str) -> Result<bool, PrepError> {
    let Some(found) = folder.head(name)? else { return Ok(false) };
    let modified = Duration::from_secs(u64::try_from(found.modified_secs).unwrap_or(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(now.is_ok_and(|now| now.saturating_sub(modified) > RUBBISH_AGE))
}
