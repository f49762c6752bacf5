//! One process at a time.
//!
//! In: an open file, or the local folder that is written. Out: a lock on it that the system takes
//! back when the process ends, however it ends. Never: waits; makes a file.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::PrepError;

/// Held until it is dropped, or the process is gone.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that is being started holds a copy of the file for a moment: closing it here is
        // not enough.
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// Locks an open file or folder.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn on(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }

    /// Locks `folder`, which is made where it is missing.
    ///
    /// # Errors
    ///
    /// [`PrepError::OutputTaken`] if another process has it; [`PrepError::Io`].
    pub fn take(folder: &Path) -> Result<Self, PrepError> {
        std::fs::create_dir_all(folder).map_err(|e| PrepError::io("create", folder, e))?;
        let file = File::open(folder).map_err(|e| PrepError::io("open", folder, e))?;
        Self::on(file).map_err(|error| match error {
            TryLockError::WouldBlock => PrepError::OutputTaken {
                path: folder.into(),
                message: "is being written by another process; wait for it, or end it".to_owned(),
            },
            TryLockError::Error(e) => PrepError::io("lock", folder, e),
        })
    }

    /// The same, and removes the files that an earlier holder left there.
    ///
    /// # Errors
    ///
    /// As of [`Lock::take`].
    pub fn take_empty(folder: &Path) -> Result<Self, PrepError> {
        let lock = Self::take(folder)?;
        let wrong = |e| PrepError::io("empty", folder, e);
        for entry in std::fs::read_dir(folder).map_err(wrong)? {
            std::fs::remove_file(entry.map_err(wrong)?.path()).map_err(wrong)?;
        }
        Ok(lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_until_the_first_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new");
        let first = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(error.to_string().contains("by another process"), "{error}");
        drop(first);
        std::fs::write(path.join("left"), b"").unwrap();
        let _lock = Lock::take_empty(&path).unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }
}
