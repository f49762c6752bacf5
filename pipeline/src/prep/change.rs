//! Commits: old snapshot + new files → new snapshot, by exclusive create, tried again on conflict.
//!
//! In: a folder and a function from the newest snapshot to a [`Draft`] of the next. Out: the next
//! snapshot, or the newest one if the draft changes nothing. Whoever comes second finds the number
//! taken, reads what the first made of the data set, and drafts again. Never: replaces a file that
//! a snapshot names.

use catlip_schemas::manifest::PartsEntry;
use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{ColumnSetEntry, Counts, Manifest, TombstonesEntry};

use super::columns::fingerprint;
use super::error::ChangeError;
use super::folder::Folder;
use super::parts_table::{Part, write_parts};
use super::snapshot::DataSet;
use super::tombstones::{Tombstones, write_tombstones};
use crate::error::PrepError;
use crate::source::store::{NewFile, StoreError};

/// Conflicts in a row before a commit gives up: each one is a commit of somebody else.
const CONFLICTS_MAX: usize = 1000;

/// What the next snapshot is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Hash of the config of the run.
    pub config_hash: String,
    /// That config.
    pub config: serde_json::Value,
    /// What became of all samples.
    pub totals: Counts,
    /// The column sets in order; bytes and number of parts are counted at the commit.
    pub column_sets: Vec<ColumnSetEntry>,
    /// The parts, in any order.
    pub parts: Vec<Part>,
    /// The rows that are left out.
    pub dropped: Tombstones,
    /// What was changed, for people.
    pub change: String,
}

impl Draft {
    /// A draft that changes nothing.
    pub fn of(data: &DataSet) -> Self {
        Self {
            config_hash: data.manifest.config_hash.clone(),
            config: data.manifest.config.clone(),
            totals: data.manifest.totals.clone(),
            column_sets: data.manifest.column_sets.clone(),
            parts: data.parts.clone(),
            dropped: data.dropped.clone(),
            change: String::new(),
        }
    }

    /// Names a column set that the snapshot has from now on.
    pub fn add_set(&mut self, entry: ColumnSetEntry) {
        match self.column_sets.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => *known = entry,
            None => self.column_sets.push(entry),
        }
    }

    /// Brings parts and sets into the one form in which they are compared and written.
    fn settle(&mut self) {
        self.parts.sort_by_key(|part| part.name);
        for entry in &mut self.column_sets {
            let files = self.parts.iter().filter_map(|part| part.files.get(&entry.name));
            let (count, bytes) = files.fold((0, 0), |(n, sum), file| (n + 1, sum + file.bytes));
            entry.bytes = bytes;
            entry.parts = (count != self.parts.len() as u64).then_some(count);
        }
        // A set that no part has any more is gone.
        let num_parts = self.parts.len();
        self.column_sets.retain(|entry| entry.parts != Some(0) || num_parts == 0);
    }
}

/// Commits what `draft` makes of the newest snapshot.
///
/// # Errors
///
/// Those of `draft`; [`PrepError::Io`], [`PrepError::Parquet`], [`PrepError::DiskFull`];
/// [`ChangeError::Conflicts`] if others keep committing.
pub fn commit(
    folder: &Folder,
    draft: impl Fn(Option<&DataSet>) -> Result<Draft, PrepError>,
) -> Result<Manifest, PrepError> {
    for _ in 0..CONFLICTS_MAX {
        let old = DataSet::open_newest(folder)?;
        let mut draft = draft(old.as_ref())?;
        draft.settle();
        if let Some(old) = &old {
            let same = Draft { change: String::new(), ..draft.clone() } == Draft::of(old);
            if same {
                write_readme(folder, &old.manifest)?;
                return Ok(old.manifest.clone());
            }
        }
        let parent = old.map(|old| old.manifest.snapshot);
        if let Some(manifest) = try_commit(folder, parent, &draft)? {
            write_readme(folder, &manifest)?;
            return Ok(manifest);
        }
    }
    Err(ChangeError::Conflicts { path: folder.place(), tries: CONFLICTS_MAX }.into())
}

/// The next snapshot, or `None` if somebody else made one of that number first.
fn try_commit(
    folder: &Folder,
    parent: Option<u64>,
    draft: &Draft,
) -> Result<Option<Manifest>, PrepError> {
    let number = parent.unwrap_or(0) + 1;
    let tombstones = if draft.dropped.is_empty() {
        None
    } else {
        let name = Manifest::tombstones_file(number);
        let new = write_tombstones(folder, &name, &draft.dropped)?;
        let (file, bytes, sha256) = keep_new(folder, &name, &*new)?;
        Some(TombstonesEntry { file, bytes, sha256, rows: draft.dropped.count() })
    };
    let name = Manifest::parts_file(number);
    let new = write_parts(folder, &name, &draft.parts)?;
    let (file, bytes, sha256) = keep_new(folder, &name, &*new)?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        snapshot: number,
        parent,
        change: parent.map(|_| draft.change.clone()),
        config_hash: draft.config_hash.clone(),
        config: draft.config.clone(),
        totals: draft.totals.clone(),
        column_sets: draft.column_sets.clone(),
        parts: PartsEntry { file, bytes, sha256, parts: draft.parts.len() as u64 },
        tombstones,
    };
    let is_new = folder.put_new(&Manifest::file(number), &json_text(&manifest))?;
    Ok(is_new.then_some(manifest))
}

/// Gives a table its name, exclusively: its path below the data set, bytes and SHA-256.
///
/// The plain name may be taken: by a job that ended before its manifest, which wrote the same bytes
/// if it was this one, or by another job that commits right now. A reader takes the name from the
/// manifest, so the second table carries 8 digits of its hash.
fn keep_new(
    folder: &Folder,
    name: &str,
    new: &dyn NewFile,
) -> Result<(String, u64, String), PrepError> {
    let (bytes, sha256, _) = new
        .read_back()
        .and_then(|file| fingerprint(file, Vec::new()))
        .map_err(|e| PrepError::io("read back", &folder.path(name), e))?;
    let tagged = name.replacen(".p", &format!(".{}.p", &sha256[..8]), 1);
    for name in [name, &tagged] {
        match new.keep_new(name) {
            Ok(()) => return Ok((name.to_owned(), bytes, sha256)),
            Err(StoreError::Exists { .. }) => {
                let theirs = folder.open(name)?.from(0);
                let theirs = fingerprint(theirs, Vec::new())
                    .map_err(|e| PrepError::io("read back", &folder.path(name), e))?;
                if theirs.1 == sha256 {
                    return Ok((name.to_owned(), bytes, sha256));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(PrepError::Damaged {
        path: folder.path(&tagged),
        what: "SHA-256".to_owned(),
        found: "another".to_owned(),
        expected: sha256,
    })
}

/// JSON with sorted keys where they are ours, indented, with a final newline.
///
/// # Panics
///
/// Never: our types serialise.
pub fn json_text<T: serde::Serialize>(value: &T) -> Vec<u8> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            text
        }
        Err(error) => panic!("our own types serialise: {error}"),
    }
}

/// The README of the newest snapshot; after a crash between the two it is made good here.
fn write_readme(folder: &Folder, manifest: &Manifest) -> Result<(), PrepError> {
    const NAME: &str = "README.md";
    let text = readme_text(manifest);
    match folder.find(NAME)?.is_some_and(|found| found == text.as_bytes()) {
        true => Ok(()),
        false => folder.put(NAME, text.as_bytes()),
    }
}

fn readme_text(manifest: &Manifest) -> String {
    let totals = &manifest.totals;
    let mut text = format!(
        "# A catlip data set\n\n{} rows from {} samples in {} parts; {} captions, {} synsets.\n",
        totals.rows, totals.samples, manifest.parts.parts, totals.captions, totals.synsets
    );
    if let Some(tombstones) = &manifest.tombstones {
        text.push_str(&format!("{} of the rows are left out.\n", tombstones.rows));
    }
    text.push_str(
        "\nEach folder below is a column set: one Parquet file a part, all with the same rows\n\
         in the same order. `manifest/` holds the snapshots, which are the truth; `rejects/`\n\
         lists the samples that are no rows, and why.\n\n\
         | column set | schema | bytes |\n|---|---|---|\n",
    );
    for set in &manifest.column_sets {
        text.push_str(&format!("| {} | {} | {} |\n", set.name, set.schema_id, set.bytes));
    }
    if !totals.rejects.is_empty() {
        text.push_str("\n| rejected because | entries |\n|---|---|\n");
        for (reason, count) in &totals.rejects {
            text.push_str(&format!("| {reason} | {count} |\n"));
        }
    }
    text
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
