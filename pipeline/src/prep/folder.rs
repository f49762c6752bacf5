//! The folder of a data set, wherever it lies.
//!
//! In: a path, or a URL such as `s3://bucket/folder` and the way to stores. Out: a [`Folder`] whose
//! files everybody reads and writes by their names in it, and whose errors name path or URL. Never:
//! lists what it can compute.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::store::LocalFolder;
use crate::error::PrepError;
use crate::source::object::{Remote, RemoteOptions};
use crate::source::object_folder::ObjectFolder;
use crate::source::store::{NewFile, ObjectInfo, ReadAt, RemoteUrl, Store, StoreError};

/// The way to the stores of a program, opened when the first URL is met.
#[derive(Default)]
pub struct Stores {
    options: RemoteOptions,
    remote: Mutex<Option<Arc<Remote>>>,
}

impl Stores {
    /// Opens nothing yet.
    pub fn new(options: RemoteOptions) -> Self {
        Self { options, remote: Mutex::default() }
    }

    /// The way, opened now if it was not.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`] if its threads cannot be started.
    pub fn remote(&self) -> Result<Arc<Remote>, PrepError> {
        let mut remote = self.remote.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(remote) = &*remote {
            return Ok(remote.clone());
        }
        let opened = Arc::new(Remote::start(self.options.clone())?);
        *remote = Some(opened.clone());
        Ok(opened)
    }

    /// The folder that the user named by a path or a URL.
    ///
    /// # Errors
    ///
    /// [`PrepError::Store`] for a URL that is not understood or not written.
    pub fn folder(&self, named: &Path) -> Result<Folder, PrepError> {
        match named.to_str().map(RemoteUrl::parse).transpose()?.flatten() {
            Some(url) => Ok(Folder(Arc::new(ObjectFolder::new(self.remote()?, url)?))),
            None => Ok(Folder::from(named)),
        }
    }
}

/// A path without links and from the root on, as far as it is there: two of them can be compared.
pub fn whole_path(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let found = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match found {
        Some((above, whole)) => whole.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path,
    }
}

/// The folder of a data set.
#[derive(Clone)]
pub struct Folder(Arc<dyn Store>);

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folder({})", self.0.place())
    }
}

/// A local folder, which need not be there yet.
impl From<&Path> for Folder {
    fn from(path: &Path) -> Self {
        Self(Arc::new(LocalFolder::new(path)))
    }
}

impl From<&PathBuf> for Folder {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&Folder> for Folder {
    fn from(folder: &Folder) -> Self {
        folder.clone()
    }
}

impl Folder {
    /// The folder as a store.
    pub fn store(&self) -> &dyn Store {
        &*self.0
    }

    /// Where it is, for messages.
    pub fn place(&self) -> PathBuf {
        self.0.place().into()
    }

    /// Whether it lies in the file system.
    pub fn is_local(&self) -> bool {
        matches!(RemoteUrl::parse(&self.0.place()), Ok(None))
    }

    /// Path or URL of a file, for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place().join(name)
    }

    /// What went wrong with the file `name`, which ought to be there.
    fn wrong(&self, verb: &'static str, name: &str, error: StoreError) -> PrepError {
        match error {
            StoreError::NotFound { .. } if verb == "read" => {
                PrepError::io(verb, &self.path(name), io::ErrorKind::NotFound.into())
            }
            other => other.into(),
        }
    }

    /// Writes `bytes` under a name that nobody has taken; false if somebody has.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::DiskFull`], [`PrepError::Store`].
    pub fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, PrepError> {
        match self.0.put_new(name, bytes) {
            Ok(()) => Ok(true),
            Err(StoreError::Exists { .. }) => Ok(false),
            Err(error) => Err(self.wrong("write", name, error)),
        }
    }

    /// Writes `bytes` whole, replacing what was there.
    ///
    /// # Errors
    ///
    /// As of [`Folder::put_new`].
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), PrepError> {
        self.0.put(name, bytes).map_err(|e| self.wrong("write", name, e))
    }

    /// Begins a file that will have the name `name`.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::DiskFull`].
    pub fn create(&self, name: &str) -> Result<Box<dyn NewFile>, PrepError> {
        self.0.create(name).map_err(|e| self.wrong("create", name, e))
    }

    /// All bytes of a file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Store`].
    pub fn find(&self, name: &str) -> Result<Option<Vec<u8>>, PrepError> {
        match self.0.get(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.wrong("read", name, error)),
        }
    }

    /// All bytes of a file.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Store`], also for one that is not there.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, PrepError> {
        self.0.get(name).map_err(|e| self.wrong("read", name, e))
    }

    /// All bytes of several small files, in order, read at the same time where that helps.
    ///
    /// # Errors
    ///
    /// As of [`Folder::read`].
    pub fn read_all(&self, names: &[String]) -> Result<Vec<Vec<u8>>, PrepError> {
        let wrong = |error: StoreError| match error {
            StoreError::NotFound { url } => {
                let place = self.place();
                let name = Path::new(&url).strip_prefix(&place).ok().and_then(Path::to_str);
                self.wrong("read", name.unwrap_or(&url), StoreError::NotFound { url: url.clone() })
            }
            other => other.into(),
        };
        self.0.get_all(names).map_err(wrong)
    }

    /// Bytes `range` of a file, by one request.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn read_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.0.get_range(name, range)
    }

    /// The same in `buffer`, where the store can.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn read_range_in(
        &self,
        name: &str,
        range: Range<u64>,
        buffer: Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        self.0.get_range_in(name, range, buffer)
    }

    /// A file for a reader of Parquet, or for one from its first byte to its last.
    ///
    /// # Errors
    ///
    /// As of [`Folder::read`].
    pub fn open(&self, name: &str) -> Result<StoredFile, PrepError> {
        self.0.open(name).map(StoredFile).map_err(|e| self.wrong("read", name, e))
    }

    /// Length and time of a file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Store`].
    pub fn head(&self, name: &str) -> Result<Option<ObjectInfo>, PrepError> {
        self.0.head(name).map_err(|e| self.wrong("look up", name, e))
    }

    /// The names of the files in a folder below, sorted.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Store`].
    pub fn list(&self, folder: &str) -> Result<Vec<String>, PrepError> {
        self.0.list(folder).map_err(|e| self.wrong("list", folder, e))
    }

    /// The names at the top, of files and folders, sorted.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Store`].
    pub fn top_names(&self) -> Result<Vec<String>, PrepError> {
        self.0.top_names().map_err(|e| self.wrong("list", "", e))
    }

    /// Removes a file; nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Store`].
    pub fn remove(&self, name: &str) -> Result<(), PrepError> {
        self.0.remove(name).map_err(|e| self.wrong("remove", name, e))
    }
}

/// A file of a data set that is read at the places where a reader wants to.
#[derive(Clone)]
pub struct StoredFile(Arc<dyn ReadAt>);

impl StoredFile {
    /// The bytes from `at` to the end.
    pub fn from(&self, at: u64) -> BufReader<impl Read + use<>> {
        BufReader::new(Reading { file: self.0.clone(), at })
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

struct Reading {
    file: Arc<dyn ReadAt>,
    at: u64,
}

impl Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(self.at, into).map_err(io::Error::other)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Length for StoredFile {
    fn len(&self) -> u64 {
        self.bytes()
    }
}

impl ChunkReader for StoredFile {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(Box::new(BufReader::new(Reading { file: self.0.clone(), at: start })))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // Not allocated from a number that a damaged footer may have made up.
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes()) {
            let bytes = self.bytes();
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of {bytes}")));
        }
        let mut found = vec![0; length];
        Reading { file: self.0.clone(), at: start }.read_exact(&mut found)?;
        Ok(found.into())
    }
}
