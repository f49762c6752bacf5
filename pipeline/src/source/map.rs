//! A local file as bytes in memory, without a copy.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// A read-only memory map of a whole file; empty files map to no bytes.
pub struct MappedFile(Option<memmap2::Mmap>);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    ///
    /// What the system says when the file cannot be opened or mapped.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Self::of_file(&File::open(path)?)
    }

    /// Maps an open file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn of_file(file: &File) -> std::io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is private to this value and read-only. That nobody shortens the file
        // while a job reads it is the caller's promise, which README.md states for input shards;
        // a file that is shortened all the same ends the process by SIGBUS, it corrupts nothing.
        let map = unsafe { memmap2::Mmap::map(file)? };
        // Advice only: read ahead, since shards are read from front to back.
        let _ = map.advise(memmap2::Advice::Sequential);
        Ok(Self(Some(map)))
    }

    /// Gives the pages of the first `bytes` back to the system: they count as memory of this process
    /// no longer. Who looks at them again, reads them again.
    pub fn release(&self, bytes: usize) {
        let Some(map) = &self.0 else { return };
        // SAFETY: the map is of a file, read-only and never written through, so pages that come
        // again hold what they held; slices of it stay valid.
        let _ = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, 0, bytes.min(map.len()))
        };
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_no_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert!(MappedFile::open(&path).unwrap().is_empty());
    }
}
