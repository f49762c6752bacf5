//! A local folder as a store.
//!
//! In: a path. Out: a [`Store`] that goes through `commit.rs`, so that an object appears whole or
//! not at all and an exclusive create is one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::commit::{TempFile, write_new};
use crate::source::store::{NewFile, ObjectInfo, ReadAt, Store, StoreError};

/// A folder of the file system.
pub struct LocalFolder(PathBuf);

impl LocalFolder {
    /// The folder at `path`, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    fn open_file(&self, name: &str) -> Result<(File, u64), StoreError> {
        let path = self.0.join(name);
        let open = || {
            let file = File::open(&path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        open().map_err(|e| wrong("read", &path, e))
    }

    fn names(
        &self,
        folder: &Path,
        wants: impl Fn(&fs::DirEntry) -> bool,
    ) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(wrong("list", folder, e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| wrong("list", folder, e))?;
            if wants(&entry) {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

fn wrong(verb: &'static str, path: &Path, error: io::Error) -> StoreError {
    let url = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound if verb == "read" => StoreError::NotFound { url },
        io::ErrorKind::AlreadyExists => StoreError::Exists { url },
        _ => StoreError::local(verb, path, error),
    }
}

impl Store for LocalFolder {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.0.join(name);
        write_new(&path, bytes).map_err(|e| wrong("write", &path, e))
    }

    fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StoreError> {
        let path = self.0.join(name);
        let temp = TempFile::create(&path).map_err(|e| wrong("create", &path, e))?;
        Ok(Box::new(NewLocal { temp, path, folder: self.0.clone() }))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
        let (file, bytes) = self.open_file(name)?;
        Ok(Arc::new(LocalReader { file, bytes, path: self.0.join(name) }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.0.join(name);
        fs::read(&path).map_err(|e| wrong("read", &path, e))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.get_range_in(name, range, Vec::new())
    }

    fn get_range_in(
        &self,
        name: &str,
        range: Range<u64>,
        mut buffer: Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        let (file, bytes) = self.open_file(name)?;
        if range.end > bytes || range.start > range.end {
            return Err(StoreError::Answer {
                url: self.0.join(name).display().to_string(),
                message: format!(
                    "bytes {}..{} were asked for, it has {bytes}",
                    range.start, range.end
                ),
            });
        }
        let count = (range.end - range.start) as usize;
        if buffer.capacity() < count {
            // Zeroed pages of the system, where growing would copy bytes that nobody wants.
            buffer = vec![0; count];
        }
        buffer.resize(count, 0);
        file.read_exact_at(&mut buffer, range.start)
            .map_err(|e| wrong("read", &self.0.join(name), e))?;
        Ok(buffer)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let path = self.0.join(name);
        let found = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|e| wrong("look up", &path, e))?,
        };
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        let modified = found.modified().ok().and_then(since);
        let modified_secs = modified.map_or(0, |time| time.as_secs() as i64);
        Ok(Some(ObjectInfo { bytes: found.len(), etag: None, modified_secs }))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.names(&self.0.join(folder), |entry| entry.path().is_file())
    }

    fn top_names(&self) -> Result<Vec<String>, StoreError> {
        self.names(&self.0, |_| true)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(wrong("remove", &path, e)),
            _ => Ok(()),
        }
    }
}

/// A file beside the place where it will be.
struct NewLocal {
    temp: TempFile,
    path: PathBuf,
    folder: PathBuf,
}

impl Write for NewLocal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temp.flush()
    }
}

impl NewFile for NewLocal {
    fn handle(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(Box::new(self.temp.handle()?))
    }

    fn read_back(&self) -> io::Result<File> {
        File::open(self.temp.temp_path())
    }

    fn keep(self: Box<Self>) -> Result<(), StoreError> {
        let Self { temp, path, .. } = *self;
        temp.persist().map_err(|e| wrong("write", &path, e))
    }

    fn keep_new(&self, name: &str) -> Result<(), StoreError> {
        let path = self.folder.join(name);
        self.temp.link_as(&path).map_err(|e| wrong("write", &path, e))
    }
}

/// A file that is read where it lies.
struct LocalReader {
    file: File,
    bytes: u64,
    path: PathBuf,
}

impl ReadAt for LocalReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize, StoreError> {
        self.file.read_at(into, at).map_err(|e| wrong("read", &self.path, e))
    }
}
