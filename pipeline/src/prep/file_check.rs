//! Whether a file of a data set is what its manifest says.
//!
//! In: a folder and an entry of a manifest. Out: the file, or what is wrong with it. Never: parses
//! it.

use catlip_schemas::FileEntry;

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
    let damaged = |what: &str, found: String, expected: String| PrepError::Damaged {
        path: folder.path(&entry.file),
        what: what.to_owned(),
        found,
        expected,
    };
    let stored = match folder.open(&entry.file) {
        Err(error) if folder.head(&entry.file).is_ok_and(|found| found.is_none()) => {
            drop(error);
            return Err(damaged("file", "none".into(), format!("one of {} bytes", entry.bytes)));
        }
        stored => stored?,
    };
    if stored.bytes() != entry.bytes {
        let (found, expected) = (stored.bytes().to_string(), entry.bytes.to_string());
        return Err(damaged("size in bytes", found, expected));
    }
    Ok(stored)
}

/// Reads a whole file and compares its checksums.
///
/// # Errors
///
/// As of [`open_listed`]; [`PrepError::Damaged`] for other bytes.
pub fn check_bytes(folder: &Folder, entry: &FileEntry) -> Result<(), PrepError> {
    let path = folder.path(&entry.file);
    let damaged = |what: String, found: String, expected: String| {
        Err(PrepError::Damaged { path: path.clone(), what, found, expected })
    };
    let stored = open_listed(folder, entry)?;
    let (_, sha256, groups) = fingerprint(stored.from(0), entry.groups.clone())
        .map_err(|e| PrepError::io("read", &path, e))?;
    for (i, (found, expected)) in groups.iter().zip(&entry.groups).enumerate() {
        if found.crc32c != expected.crc32c {
            let hex = |crc: u32| format!("{crc:08x}");
            let what = format!("CRC-32C of row group {i}");
            return damaged(what, hex(found.crc32c), hex(expected.crc32c));
        }
    }
    if sha256 != entry.sha256 {
        return damaged("SHA-256".into(), sha256, entry.sha256.clone());
    }
    Ok(())
}
