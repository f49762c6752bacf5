//! The output of a job as a store: a local folder, or a folder of a remote store.
//!
//! In: what the user named as output. Out: a [`Store`]. The local one goes through `commit.rs`, so
//! that an object appears whole or not at all and an exclusive create is one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::commit::{TempFile, write_new};
use crate::source::object::Remote;
use crate::source::object_folder::ObjectFolder;
use crate::source::store::{ObjectInfo, RemoteUrl, Store, StoreError};

/// A folder of the file system.
pub struct LocalFolder(PathBuf);

/// Opens the folder or URL that `output` names.
///
/// # Errors
///
/// [`StoreError::Url`] for a URL that is not understood or not written.
pub fn open_store(output: &str, remote: &Arc<Remote>) -> Result<Box<dyn Store>, StoreError> {
    Ok(match RemoteUrl::parse(output)? {
        Some(url) => Box::new(ObjectFolder::new(remote.clone(), url)?),
        None => Box::new(LocalFolder::new(Path::new(output))),
    })
}

impl LocalFolder {
    /// The folder at `path`, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    fn wrong(&self, verb: &'static str, name: &str, error: io::Error) -> StoreError {
        let path = self.0.join(name);
        let url = path.display().to_string();
        match error.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound { url },
            io::ErrorKind::AlreadyExists => StoreError::Exists { url },
            _ => StoreError::local(verb, &path, error),
        }
    }
}

impl Store for LocalFolder {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        write_new(&self.0.join(name), bytes).map_err(|e| self.wrong("create", name, e))
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), StoreError> {
        let mut source = File::open(from).map_err(|e| StoreError::local("read", from, e))?;
        let mut put = || {
            let mut file = TempFile::create(&self.0.join(name))?;
            io::copy(&mut source, &mut file)?;
            file.flush()?;
            file.persist()
        };
        put().map_err(|e| self.wrong("write", name, e))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let file = File::open(self.0.join(name)).map_err(|e| self.wrong("read", name, e))?;
        let bytes = file.metadata().map_err(|e| self.wrong("read", name, e))?.len();
        if range.end > bytes || range.start > range.end {
            return Err(StoreError::Answer {
                url: self.0.join(name).display().to_string(),
                message: format!(
                    "bytes {}..{} were asked for, it has {bytes}",
                    range.start, range.end
                ),
            });
        }
        let mut found = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut found, range.start).map_err(|e| self.wrong("read", name, e))?;
        Ok(found)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        match fs::metadata(self.0.join(name)) {
            Ok(found) => Ok(Some(ObjectInfo { bytes: found.len(), etag: None, modified_secs: 0 })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.wrong("look up", name, e)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(self.0.join(folder)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.wrong("list", folder, e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| self.wrong("list", folder, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_file() && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.0.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.wrong("remove", name, e)),
            _ => Ok(()),
        }
    }
}
