//! Files that appear whole or not at all.
//!
//! In: bytes and a final path. Out: the file, durable, under that path. Either by rename (a second
//! writer replaces the same bytes) or by exclusive create (a second writer is told).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
use super::crash::may_die;

/// A place where the tests let a job die; elsewhere it is nothing.
#[cfg(not(test))]
#[inline]
fn may_die(_step: &'static str, _path: &Path) -> io::Result<()> {
    Ok(())
}

/// Ends the names of files that are being written.
pub const TEMP_SUFFIX: &str = ".tmp";

/// A file beside its final path; removed unless it is persisted.
pub struct TempFile {
    file: Option<File>,
    temp: PathBuf,
    path: PathBuf,
}

impl TempFile {
    /// Creates the file and, if need be, its folder.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self::create_counted(path, &COUNT)
    }

    /// The process id and a counter keep two jobs on one output apart. On several machines, and in
    /// containers one after the other, ids repeat: a name that is taken is passed over.
    fn create_counted(path: &Path, count: &AtomicU64) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        may_die("create", path)?;
        fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let unique = count.fetch_add(1, Ordering::Relaxed);
            let temp = folder.join(format!(".{name}.{}-{unique}{TEMP_SUFFIX}", std::process::id()));
            match File::options().write(true).create_new(true).open(&temp) {
                Ok(file) => return Ok(Self { file: Some(file), temp, path: path.into() }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file's path while it is written.
    pub fn temp_path(&self) -> &Path {
        &self.temp
    }

    /// A second handle on the file, for a writer that takes one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn handle(&self) -> io::Result<Handle> {
        let closed = || Err(io::ErrorKind::BrokenPipe.into());
        let file = self.file.as_ref().map_or_else(closed, File::try_clone)?;
        Ok(Handle { file, path: self.path.clone() })
    }

    /// Makes the bytes durable, then the name: a second file of that name is replaced.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn persist(mut self) -> io::Result<()> {
        self.sync()?;
        may_die("rename", &self.path)?;
        fs::rename(&self.temp, &self.path)?;
        sync_folder(&self.path)
    }

    /// Like [`TempFile::persist`], but an existing file stays.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken.
    pub fn persist_new(mut self) -> io::Result<()> {
        self.sync()?;
        // A link fails where the name exists; rename would replace it.
        may_die("link", &self.path)?;
        fs::hard_link(&self.temp, &self.path)?;
        may_die("remove", &self.path)?;
        fs::remove_file(&self.temp)?;
        sync_folder(&self.path)
    }

    /// Makes the bytes durable and gives them the name `path`, if nothing has it; the file keeps
    /// its temporary name until it is dropped, so that another name can be tried.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken.
    pub fn link_as(&self, path: &Path) -> io::Result<()> {
        may_die("sync", path)?;
        File::open(&self.temp)?.sync_all()?;
        may_die("link", path)?;
        fs::hard_link(&self.temp, path)?;
        sync_folder(path)
    }

    fn sync(&mut self) -> io::Result<()> {
        may_die("sync", &self.path)?;
        self.file.take().map_or(Ok(()), |file| file.sync_all())
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        may_die("write", &self.path)?;
        self.file.as_mut().map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), |f| f.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename nothing is there to remove; a job that died removes nothing.
        if may_die("remove", &self.path).is_ok() {
            let _ = fs::remove_file(&self.temp);
        }
    }
}

/// A second handle on a [`TempFile`].
pub struct Handle {
    file: File,
    path: PathBuf,
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        may_die("write", &self.path)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A rename is durable once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    may_die("sync folder", path)?;
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes `bytes` whole to `path`, replacing what was there.
///
/// # Errors
///
/// What the system says.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = TempFile::create(path)?;
    file.write_all(bytes)?;
    file.persist()
}

/// Writes `bytes` whole to `path`, which must not exist.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] if the name is taken.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = TempFile::create(path)?;
    file.write_all(bytes)?;
    file.persist_new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_is_not_persisted_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = TempFile::create(&dir.path().join("a")).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(file);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_file_of_a_process_with_the_same_id_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let left = TempFile::create_counted(&path, &AtomicU64::new(7)).unwrap();
        let next = TempFile::create_counted(&path, &AtomicU64::new(7)).unwrap();
        assert_ne!(left.temp_path(), next.temp_path());
        assert_eq!(names(dir.path()).len(), 2);
    }

    #[test]
    fn an_exclusive_create_keeps_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/a");
        write_new(&path, b"first").unwrap();
        let error = write_new(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_whole(&path, b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(names(&dir.path().join("sub")), ["a"]);
    }
}
