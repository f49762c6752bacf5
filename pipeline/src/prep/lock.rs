//! One process at a time.
//!
//! In: a path beside what is written. Out: a lock that the system takes back when the process ends,
//! however it ends. Never: waits.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::PrepError;

/// Held until it is dropped, or the process is gone.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

impl Lock {
    /// Takes the lock at `path`, a local file that is made where it is missing.
    ///
    /// # Errors
    ///
    /// [`PrepError::OutputTaken`] if another process has it; [`PrepError::Io`].
    pub fn take(path: &Path) -> Result<Self, PrepError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(|e| PrepError::io("create", folder, e))?;
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| PrepError::io("create", path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(PrepError::OutputTaken {
                path: folder.into(),
                message: "is being written by another process; wait for it, or end it".to_owned(),
            }),
            Err(TryLockError::Error(e)) => Err(PrepError::io("lock", path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_until_the_first_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/.lock");
        let first = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(error.to_string().contains("by another process"), "{error}");
        drop(first);
        Lock::take(&path).unwrap();
    }
}
