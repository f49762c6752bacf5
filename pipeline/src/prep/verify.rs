//! Re-reads a data set against its manifest.
//!
//! In: the folder. Out: what was checked, and which files belong to nothing. Never: changes a file,
//! unless it is asked to remove rubbish, and then none younger than a day.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use catlip_schemas::{FileEntry, Manifest, SourceList};
use rayon::prelude::*;

use super::columns::fingerprint;
use super::snapshot::{DataSet, Part, newest_number};
use super::work::{read_receipt, receipt_names};
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
/// [`PrepError::Damaged`] for the first file, in the order of parts, that differs.
pub fn verify(
    folder: &Path,
    snapshot: Option<u64>,
    clean: bool,
) -> Result<VerifySummary, PrepError> {
    let data = DataSet::open_at(folder, snapshot)?;
    let files: Vec<(&FileEntry, u64)> = data
        .parts
        .iter()
        .flat_map(|part| part.files.values().map(|file| (file, part.rows())))
        .collect();
    files.par_iter().try_for_each(|(file, rows)| check_file(folder, file, *rows))?;
    let sum: u64 = data.parts.iter().map(Part::rows).sum();
    if sum != data.manifest.totals.rows {
        return Err(PrepError::Damaged {
            path: folder.join(Manifest::file(data.manifest.snapshot)),
            what: "number of rows".to_owned(),
            found: data.manifest.totals.rows.to_string(),
            expected: sum.to_string(),
        });
    }
    let rubbish = rubbish(folder)?;
    let mut removed = 0;
    for path in rubbish.iter().filter(|_| clean) {
        if is_old(path) {
            std::fs::remove_file(path).map_err(|e| PrepError::io("remove", path, e))?;
            removed += 1;
        }
    }
    Ok(VerifySummary {
        snapshot: data.manifest.snapshot,
        rows: data.manifest.totals.rows,
        files: files.len() as u64,
        bytes: files.iter().map(|(file, _)| file.bytes).sum(),
        rubbish,
        removed,
    })
}

fn check_file(folder: &Path, file: &FileEntry, rows: u64) -> Result<(), PrepError> {
    let path = folder.join(&file.file);
    let damaged = |what: String, found: String, expected: String| {
        Err(PrepError::Damaged { path: path.clone(), what, found, expected })
    };
    let bytes = std::fs::metadata(&path).map_err(|e| PrepError::io("read", &path, e))?.len();
    if bytes != file.bytes {
        return damaged("size in bytes".into(), bytes.to_string(), file.bytes.to_string());
    }
    if file.column_set != "rejects" && file.rows != rows {
        return damaged("number of rows".into(), file.rows.to_string(), rows.to_string());
    }
    let (_, sha256, groups) =
        fingerprint(&path, file.groups.clone()).map_err(|e| PrepError::io("read", &path, e))?;
    for (i, (found, expected)) in groups.iter().zip(&file.groups).enumerate() {
        if found.crc32c != expected.crc32c {
            let hex = |crc: u32| format!("{crc:08x}");
            return damaged(
                format!("CRC-32C of row group {i}"),
                hex(found.crc32c),
                hex(expected.crc32c),
            );
        }
    }
    if sha256 != file.sha256 {
        return damaged("SHA-256".into(), sha256, file.sha256.clone());
    }
    Ok(())
}

/// Files below the data set's own folders that neither a snapshot nor a receipt names.
fn rubbish(folder: &Path) -> Result<Vec<PathBuf>, PrepError> {
    let mut named = BTreeSet::from([folder.join("README.md")]);
    for number in 1..=newest_number(folder) {
        let data = DataSet::open_at(folder, Some(number))?;
        named.insert(folder.join(Manifest::file(number)));
        named.insert(folder.join(&data.manifest.parts.file));
        named.extend(data.manifest.tombstones.iter().map(|entry| folder.join(&entry.file)));
        for file in data.parts.iter().flat_map(|part| part.files.values()) {
            named.insert(folder.join(&file.file));
        }
    }
    for name in receipt_names(folder)? {
        let path = folder.join("receipts").join(name);
        let files = read_receipt(&path)?.files;
        named.extend(files.iter().map(|file| folder.join(&file.file)));
        named.insert(path);
    }
    let mut first = 0;
    while let Ok(bytes) = std::fs::read(folder.join(SourceList::file(first))) {
        named.insert(folder.join(SourceList::file(first)));
        let Ok(list) = SourceList::from_json(&bytes) else { break };
        first += u32::try_from(list.sources.len()).unwrap_or(u32::MAX);
    }
    let is_config = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("config-"))
    };
    let mut folders: BTreeSet<PathBuf> =
        named.iter().filter_map(|path| path.parent()).map(Path::to_path_buf).collect();
    folders.remove(folder);
    let mut rubbish = Vec::new();
    for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
        let entries = std::fs::read_dir(&folder).map_err(|e| PrepError::io("read", &folder, e))?;
        for entry in entries {
            let path = entry.map_err(|e| PrepError::io("read", &folder, e))?.path();
            if path.is_file() && !named.contains(&path) && !is_config(&path) {
                rubbish.push(path);
            }
        }
    }
    rubbish.sort();
    Ok(rubbish)
}

fn is_old(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|m| m.modified());
    modified
        .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > RUBBISH_AGE))
}
