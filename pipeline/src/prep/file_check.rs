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
    let stored = or_missing(folder, entry, folder.open(&entry.file))?;
    same(&folder.path(&entry.file), "size in bytes", stored.bytes(), entry.bytes)?;
    Ok(stored)
}

/// What came of a file; one that is missing is damage.
fn or_missing<T>(
    folder: &Folder,
    entry: &FileEntry,
    came: Result<T, PrepError>,
) -> Result<T, PrepError> {
    match came {
        Err(_) if folder.head(&entry.file).is_ok_and(|found| found.is_none()) => {
            Err(PrepError::Damaged {
                path: folder.path(&entry.file),
                what: "file".to_owned(),
                found: "none".to_owned(),
                expected: format!("one of {} bytes", entry.bytes),
            })
        }
        came => came,
    }
}

/// The bytes of a file, which are those that `entry` tells of.
///
/// # Errors
///
/// As of [`open_listed`]; [`PrepError::Damaged`] for other bytes.
pub fn read_listed(folder: &Folder, entry: &FileEntry) -> Result<Bytes, PrepError> {
    let found = or_missing(folder, entry, folder.read(&entry.file))?;
    checked(&folder.path(&entry.file), found, entry.bytes, &entry.sha256)
}

/// The bytes that were `found`, which must be so many with that checksum.
///
/// # Errors
///
/// [`PrepError::Damaged`] for others.
pub fn checked(path: &Path, found: Vec<u8>, bytes: u64, sha256: &str) -> Result<Bytes, PrepError> {
    same(path, "size in bytes", found.len() as u64, bytes)?;
    let (_, found_sha256, _) =
        fingerprint(&found[..], Vec::new()).map_err(|e| PrepError::io("read", path, e))?;
    same(path, "SHA-256", found_sha256.as_str(), sha256)?;
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
