//! A folder of a remote store, as data sets and their changes see it.
//!
//! In: a [`Remote`] and the folder's URL. Out: a [`Store`]. A file is written into one without a
//! name on the local disk and then put whole; one that is read comes in blocks, which grow while
//! they are read in a row. Never: an object half written; bytes of two versions of one object.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::object::Remote;
use super::store::{NewFile, ObjectInfo, ReadAt, RemoteUrl, Store, StoreError};

/// Bytes of the first block of a file: 10 ms at 100 MB/s, about what the request itself takes.
const BLOCK_BYTES_MIN: u64 = 1 << 20;

/// Bytes of the largest block, which several requests read; one reader holds as much.
const BLOCK_BYTES_MAX: u64 = 32 << 20;

/// A folder of a remote store.
pub struct ObjectFolder {
    remote: Arc<Remote>,
    root: RemoteUrl,
}

impl ObjectFolder {
    /// The folder at `root`; no connection is made yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] for the web, which is not written.
    pub fn new(remote: Arc<Remote>, root: RemoteUrl) -> Result<Self, StoreError> {
        if root.is_http() {
            return Err(StoreError::Url {
                url: root.to_string(),
                message: "a web server cannot be written, and holds no data set".to_owned(),
            });
        }
        Ok(Self { remote, root })
    }

    fn head_of(&self, name: &str) -> Result<(RemoteUrl, ObjectInfo), StoreError> {
        let url = self.root.join(name);
        let info = self.remote.head(&url)?;
        Ok((url, info))
    }
}

impl Store for ObjectFolder {
    fn place(&self) -> String {
        self.root.to_string().trim_end_matches('/').to_owned()
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.remote.put_new(&self.root.join(name), bytes)
    }

    fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StoreError> {
        let folder = &self.remote.options().scratch;
        // Without a name from the beginning: no exit, however sudden, leaves it behind.
        let file = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        Ok(Box::new(NewObject {
            remote: self.remote.clone(),
            root: self.root.clone(),
            name: name.to_owned(),
            file: file.map_err(|e| StoreError::local("create a file below", folder, e))?,
            folder: folder.clone(),
        }))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
        let (url, info) = self.head_of(name)?;
        Ok(Arc::new(ObjectReader {
            remote: self.remote.clone(),
            url,
            info,
            blocks: Mutex::default(),
        }))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let (url, info) = self.head_of(name)?;
        self.remote.get_range(&url, Some(&info), 0..info.bytes)
    }

    fn get_all(&self, names: &[String]) -> Result<Vec<Vec<u8>>, StoreError> {
        let urls: Vec<RemoteUrl> = names.iter().map(|name| self.root.join(name)).collect();
        self.remote.get_all(&urls)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.remote.get_range(&self.root.join(name), None, range)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        match self.head_of(name) {
            Ok((_, info)) => Ok(Some(info)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let objects = self.remote.list(&self.root.join(folder), false)?;
        let name = |url: RemoteUrl| url.key.rsplit('/').next().unwrap_or_default().to_owned();
        let mut names: Vec<_> = objects.into_iter().map(|(url, _)| name(url)).collect();
        names.sort();
        Ok(names)
    }

    fn top_names(&self) -> Result<Vec<String>, StoreError> {
        self.remote.top_names(&self.root)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.remote.remove(&self.root.join(name))
    }
}

/// A file on the local disk that will be an object.
struct NewObject {
    remote: Arc<Remote>,
    root: RemoteUrl,
    name: String,
    file: File,
    folder: PathBuf,
}

impl Write for NewObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for NewObject {
    fn handle(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(Box::new(self.file.try_clone()?))
    }

    fn read_back(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }

    fn keep(self: Box<Self>) -> Result<(), StoreError> {
        self.remote.put_file(&self.root.join(&self.name), &self.file, &self.folder)
    }

    fn keep_new(&self, name: &str) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        self.read_back()
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|e| StoreError::local("read a file below", &self.folder, e))?;
        self.remote.put_new(&self.root.join(name), &bytes)
    }
}

/// An object that is read in blocks.
struct ObjectReader {
    remote: Arc<Remote>,
    url: RemoteUrl,
    info: ObjectInfo,
    /// The blocks that are held, with their first bytes; the newest last.
    blocks: Mutex<VecDeque<(u64, Vec<u8>)>>,
}

impl ObjectReader {
    /// Which bytes to ask for if those from `at` on are wanted.
    fn block_at(&self, at: u64, wanted: u64, last: Option<&(u64, Vec<u8>)>) -> Range<u64> {
        // A reading that goes on where the last block ended is likely to go on further.
        let bytes = match last {
            Some((start, block)) if start + block.len() as u64 == at => {
                (2 * block.len() as u64).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
            }
            _ => BLOCK_BYTES_MIN,
        };
        // Parquet is read from its end: what stands before the last bytes is wanted next.
        let start = at.min(self.info.bytes.saturating_sub(BLOCK_BYTES_MIN));
        start..(at + bytes.max(wanted.min(BLOCK_BYTES_MAX))).min(self.info.bytes)
    }
}

impl ReadAt for ObjectReader {
    fn bytes(&self) -> u64 {
        self.info.bytes
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize, StoreError> {
        if at >= self.info.bytes || into.is_empty() {
            return Ok(0);
        }
        let mut blocks = self.blocks.lock().unwrap_or_else(|e| e.into_inner());
        let has =
            |(start, block): &(u64, Vec<u8>)| (*start..start + block.len() as u64).contains(&at);
        if !blocks.iter().any(has) {
            let range = self.block_at(at, into.len() as u64, blocks.back());
            let block = self.remote.get_range(&self.url, Some(&self.info), range.clone())?;
            blocks.push_back((range.start, block));
            let held = |blocks: &VecDeque<(u64, Vec<u8>)>| -> u64 {
                blocks.iter().map(|(_, block)| block.len() as u64).sum()
            };
            while blocks.len() > 1 && held(&blocks) > BLOCK_BYTES_MAX {
                blocks.pop_front();
            }
        }
        let Some((start, block)) = blocks.iter().find(|block| has(block)) else { return Ok(0) };
        let rest = &block[(at - start) as usize..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
