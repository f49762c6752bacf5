//! Ranges of a remote store, kept on the local disk within a limit of bytes.
//!
//! In: ranges of objects. Out: the same bytes, from the disk if they were read before. A file of
//! the cache is named by BLAKE3 over the full URL, the ETag and the range, so an object that was
//! replaced is another one. Several processes may share a folder. Never: half a file; a failure of
//! the cache that fails a read.
//!
//! A file is the BLAKE3 hash (32 bytes) of the range and the range itself: rot on the local disk is
//! a miss.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::source::Ranges;
use crate::prep::Folder;
use crate::source::store::StoreError;

/// Extension of the cache's files; nothing else in the folder is touched.
const EXTENSION: &str = "range";

/// Bytes of the hash before the range.
const HASH_BYTES: usize = 32;

/// A store behind a cache.
pub struct Cached {
    files: Folder,
    reads: Arc<dyn Ranges>,
    folder: PathBuf,
    limit: u64,
    etags: Mutex<HashMap<String, String>>,
    /// Bytes of the folder as far as this process knows; recounted when they reach the limit.
    bytes: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Cached {
    /// `files`, read through `reads`, with at most about `limit` bytes in `folder`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Local`] if the folder cannot be made or listed.
    pub fn new(
        files: Folder,
        reads: Arc<dyn Ranges>,
        folder: &Path,
        limit: u64,
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|e| StoreError::local("create", folder, e))?;
        let bytes = files_of(folder).map_err(|e| StoreError::local("list", folder, e))?;
        let bytes = bytes.iter().map(|file| file.bytes).sum();
        Ok(Self {
            files,
            reads,
            folder: folder.to_owned(),
            limit,
            etags: Mutex::default(),
            bytes: AtomicU64::new(bytes),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// Reads that the cache served, and those that it did not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    fn path_of(&self, name: &str, range: &Range<u64>) -> Result<PathBuf, StoreError> {
        let url = format!("{}/{name}", self.files.store().place());
        let known = self.etags.lock().unwrap_or_else(|e| e.into_inner()).get(name).cloned();
        let etag = match known {
            Some(etag) => etag,
            None => {
                let info = self.files.store().head(name)?;
                let info = info.ok_or_else(|| StoreError::NotFound { url: url.clone() })?;
                let etag = info.etag_text().unwrap_or_else(|| info.modified_secs.to_string());
                let etag = format!("{etag} {}", info.bytes);
                let mut etags = self.etags.lock().unwrap_or_else(|e| e.into_inner());
                etags.insert(name.to_owned(), etag.clone());
                etag
            }
        };
        let key = format!("{url}\n{etag}\n{}-{}", range.start, range.end);
        let name = &blake3::hash(key.as_bytes()).to_hex()[..32];
        Ok(self.folder.join(format!("{name}.{EXTENSION}")))
    }

    /// Puts a range into the cache, if the disk lets it.
    fn put(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let size = (HASH_BYTES + bytes.len()) as u64;
        if size > self.limit {
            return Ok(());
        }
        if self.bytes.fetch_add(size, Ordering::AcqRel) + size > self.limit {
            self.make_room(size)?;
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(blake3::hash(bytes).as_bytes())?;
        file.write_all(bytes)?;
        // No fsync: a file that a crash cut short has another hash.
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    }

    /// Removes the files that were used longest ago until `size` more bytes fit in nine tenths of
    /// the limit, so that not every write has to look.
    fn make_room(&self, size: u64) -> std::io::Result<()> {
        let mut files = files_of(&self.folder)?;
        files.sort_by_key(|file| file.used);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let goal = (self.limit - self.limit / 10).saturating_sub(size);
        for file in files {
            if bytes <= goal {
                break;
            }
            // Another process may have removed it.
            _ = fs::remove_file(&file.path);
            bytes -= file.bytes;
        }
        self.bytes.store(bytes + size, Ordering::Release);
        Ok(())
    }
}

impl Ranges for Cached {
    fn read(&self, name: &str, range: Range<u64>, buffer: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let path = self.path_of(name, &range)?;
        if let Some(bytes) = kept(&path) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(bytes);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let bytes = self.reads.read(name, range, buffer)?;
        // A full disk costs speed, not the run.
        _ = self.put(&path, &bytes);
        Ok(bytes)
    }

    fn place(&self) -> String {
        self.files.store().place()
    }
}

/// The range in a file of the cache, if it is there and whole; it then counts as just used.
fn kept(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let hash: [u8; HASH_BYTES] = bytes.get(..HASH_BYTES)?.try_into().ok()?;
    bytes.drain(..HASH_BYTES);
    if *blake3::hash(&bytes).as_bytes() != hash {
        _ = fs::remove_file(path);
        return None;
    }
    _ = File::options().write(true).open(path).and_then(|f| f.set_modified(SystemTime::now()));
    Some(bytes)
}

struct CacheFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

fn files_of(folder: &Path) -> std::io::Result<Vec<CacheFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Ok(found) = fs::metadata(&path) else { continue };
        if path.extension().is_some_and(|e| e == EXTENSION) && found.is_file() {
            files.push(CacheFile { path, bytes: found.len(), used: found.modified()? });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(store: &Path, cache: &Path, limit: u64) -> Cached {
        let files = Folder::from(store);
        Cached::new(files.clone(), Arc::new(files), cache, limit).unwrap()
    }

    #[test]
    fn a_range_is_read_once_and_another_object_anew() {
        let (store, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(store.path().join("a"), b"0123456789").unwrap();
        let first = cached(store.path(), cache.path(), 1000);
        assert_eq!(first.read("a", 2..5, Vec::new()).unwrap(), b"234");
        assert_eq!(first.read("a", 2..5, Vec::new()).unwrap(), b"234");
        assert_eq!(first.read("a", 2..6, Vec::new()).unwrap(), b"2345");
        assert_eq!(first.hits_and_misses(), (1, 2));
        assert_eq!(
            cached(store.path(), cache.path(), 1000).read("a", 2..5, Vec::new()).unwrap(),
            b"234"
        );
        // A local folder has no ETag; its length stands in for it.
        fs::write(store.path().join("a"), b"abcdefghijk").unwrap();
        let second = cached(store.path(), cache.path(), 1000);
        assert_eq!(second.read("a", 2..5, Vec::new()).unwrap(), b"cde");
        assert_eq!(second.hits_and_misses(), (0, 1));
    }

    #[test]
    fn rot_on_the_local_disk_is_a_miss() {
        let (store, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(store.path().join("a"), b"0123456789").unwrap();
        let cached = cached(store.path(), cache.path(), 1000);
        cached.read("a", 0..9, Vec::new()).unwrap();
        let path = files_of(cache.path()).unwrap().remove(0).path;
        let mut bytes = fs::read(&path).unwrap();
        bytes[35] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(cached.read("a", 0..9, Vec::new()).unwrap(), b"012345678");
        assert_eq!(cached.hits_and_misses(), (0, 2));
    }

    #[test]
    fn the_folder_stays_within_its_limit_and_loses_what_was_used_longest_ago() {
        let (store, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(store.path().join("a"), vec![7; 4000]).unwrap();
        fs::write(cache.path().join("mine.txt"), b"not of the cache").unwrap();
        let cached = cached(store.path(), cache.path(), 1000);
        for n in 0..30 {
            cached.read("a", n * 100..n * 100 + 100, Vec::new()).unwrap();
            let bytes: u64 = files_of(cache.path()).unwrap().iter().map(|f| f.bytes).sum();
            assert!(bytes <= 1000, "{bytes} after {n}");
            // The first range is used again and again, and so stays.
            assert_eq!(cached.read("a", 0..100, Vec::new()).unwrap(), [7; 100]);
        }
        assert_eq!(cached.hits_and_misses().1, 30);
        assert!(cache.path().join("mine.txt").exists());
    }

    #[test]
    fn a_range_above_the_limit_is_not_kept() {
        let (store, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(store.path().join("a"), vec![7; 400]).unwrap();
        let cached = cached(store.path(), cache.path(), 100);
        cached.read("a", 0..400, Vec::new()).unwrap();
        assert!(files_of(cache.path()).unwrap().is_empty());
    }
}
