//! Whether a file of a data set is what its manifest says.
//!
//! In: a folder and an entry of a manifest. Out: the file, or what is wrong with it. Never: parses
//! it.

use std::path::Path;

use bytes::Bytes;
use catlip_schemas::{FileEntry, RowGroup};

use super::columns::fingerprint;
use super::folder::{Folder, StoredFile};
use crate::error::PrepError;

/// Opens a file that must be there with the length that `entry` tells of.
///
/// # Errors
///
/// [`PrepError::Damaged`] for one that is missing or has another length; [`PrepError::Io`],
/// [`PrepError::Store`].
pub fn open_listed(folder: &Folder, entry: &FileEntry) -> Result<StoredFile, PrepError> {
    let path = folder.path(&entry.file);
    let stored = match folder.open(&entry.file) {
        Err(_) if folder.head(&entry.file).is_ok_and(|found| found.is_none()) => {
            let (what, found) = ("file".to_owned(), "none".to_owned());
            let expected = format!("one of {} bytes", entry.bytes);
            return Err(PrepError::Damaged { path, what, found, expected });
        }
        stored => stored?,
    };
    same(&path, "size in bytes", stored.bytes(), entry.bytes)?;
    Ok(stored)
}

/// The bytes of a file, which are those that `entry` tells of.
///
/// # Errors
///
/// As of [`open_listed`]; [`PrepError::Damaged`] for other bytes.
pub fn read_listed(folder: &Folder, entry: &FileEntry) -> Result<Bytes, PrepError> {
    let path = folder.path(&entry.file);
    // Tells of one that is missing.
    open_listed(folder, entry)?;
    let found = folder.read(&entry.file)?;
    let (_, sha256, _) =
        fingerprint(&found[..], Vec::new()).map_err(|e| PrepError::io("read", &path, e))?;
    same(&path, "SHA-256", sha256.as_str(), &entry.sha256)?;
    Ok(found.into())
}

/// Reads a whole file and compares its checksums.
///
/// # Errors
///
/// As of [`open_listed`]; [`PrepError::Damaged`] for other bytes.
pub fn check_bytes(folder: &Folder, entry: &FileEntry) -> Result<(), PrepError> {
    let path = folder.path(&entry.file);
    let stored = open_listed(folder, entry)?;
    let (_, sha256, groups) = fingerprint(stored.from(0), entry.groups.clone())
        .map_err(|e| PrepError::io("read", &path, e))?;
    for (i, (found, expected)) in groups.iter().zip(&entry.groups).enumerate() {
        let hex = |group: &RowGroup| format!("{:08x}", group.crc32c);
        same(&path, &format!("CRC-32C of row group {i}"), hex(found), hex(expected))?;
    }
    same(&path, "SHA-256", sha256.as_str(), &entry.sha256)
}

/// Refuses what is not as it was written down.
///
/// # Errors
///
/// [`PrepError::Damaged`] with both.
pub fn same<T: PartialEq + ToString>(
    path: &Path,
    what: &str,
    found: T,
    expected: T,
) -> Result<(), PrepError> {
    if found == expected {
        return Ok(());
    }
    Err(PrepError::Damaged {
        path: path.into(),
        what: what.to_owned(),
        found: found.to_string(),
        expected: expected.to_string(),
    })
}
