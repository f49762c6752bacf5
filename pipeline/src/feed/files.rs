//! Whether the files of data sets are there, before a run relies on them.
//!
//! In: [`DataSets`]. Out: the first file that is absent or of another length than its part says.
//! Never: opens one, or asks a store about each: a listing tells which are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;

use catlip_schemas::{ColumnSet, FileEntry};

use super::data_sets::DataSets;
use crate::error::PrepError;
use crate::prep::DataSet;

/// Refuses data sets of which a file is missing that training or evaluation reads.
///
/// # Errors
///
/// [`PrepError::Damaged`]: the file, what was found, what was expected.
pub fn check(data: &DataSets) -> Result<(), PrepError> {
    for set in data.sets() {
        let names = [ColumnSet::Images, ColumnSet::Meta, ColumnSet::Captions, set.synsets_set()?]
            .map(|column_set| column_set.name());
        let files = || {
            let of_part = set.parts.iter().flat_map(|part| names.iter().map(|n| part.files.get(n)));
            // A set that a part lacks, as references lack images, is the reader's to judge.
            of_part.flatten()
        };
        match set.folder.is_local() {
            true => files().try_for_each(|file| check_length(set, file))?,
            false => check_listed(set, files())?,
        }
    }
    Ok(())
}

fn check_length(set: &DataSet, file: &FileEntry) -> Result<(), PrepError> {
    let path = set.folder.path(&file.file);
    let found = match fs::metadata(&path) {
        Ok(found) if found.len() == file.bytes => return Ok(()),
        Ok(found) => format!("{} bytes", found.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => "no file".to_owned(),
        Err(error) => return Err(PrepError::io("look up", &path, error)),
    };
    Err(differs(set, file, found))
}

/// Looks for the names only, of which a store tells a thousand at a time.
fn check_listed<'f>(
    set: &DataSet,
    files: impl Iterator<Item = &'f FileEntry>,
) -> Result<(), PrepError> {
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let Some((folder, name)) = file.file.rsplit_once('/') else { continue };
        if !listed.contains_key(folder) {
            let names = set.folder.list(folder)?.into_iter().collect();
            listed.insert(folder.to_owned(), names);
        }
        if !listed.get(folder).is_some_and(|names| names.contains(name)) {
            return Err(differs(set, file, "no file".to_owned()));
        }
    }
    Ok(())
}

fn differs(set: &DataSet, file: &FileEntry, found: String) -> PrepError {
    let path = set.folder.path(&file.file);
    let (what, expected) = ("size".to_owned(), format!("{} bytes", file.bytes));
    PrepError::Damaged { path, what, found, expected }
}
