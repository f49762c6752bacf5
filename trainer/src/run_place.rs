//! Where a run lies: a folder of this machine, or one of a store.
//!
//! In: a path or a URL. Out: its files by name; a folder of this machine for what grows line by
//! line, which is put into the store at each checkpoint. Never: decides what a file means.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use catlip_pipeline::error::PrepError;
use catlip_pipeline::prep::commit;
use catlip_pipeline::prep::{Folder, Stores};
use tempfile::TempDir;

use crate::checkpoint::CheckpointError;
use crate::error::TrainError;
use crate::output::LOCK;

/// Folder of the checkpoints in a run.
pub const CHECKPOINTS: &str = "checkpoints";
/// A line for each log step and evaluation.
pub const LOG: &str = "log.jsonl";
/// The same for TensorBoard, which finds files by `tfevents` in their names.
pub const EVENTS: &str = "events.out.tfevents.catlip";
/// A line for each start.
pub const MACHINES: &str = "machines.jsonl";
/// Files that grow while a run is trained.
const GROWING: [&str; 3] = [LOG, EVENTS, MACHINES];

/// Where a run lies.
#[derive(Clone, Debug)]
pub struct RunPlace {
    run: Folder,
    checkpoints: Folder,
    /// The run itself, or what stands for it on this machine.
    disk: PathBuf,
    /// Removes `disk` with its last copy; none where `disk` is the run.
    spool: Option<Arc<TempDir>>,
    /// What this process wrote into the store's lock; empty: it does not write the run.
    claim: String,
}

impl From<&Path> for RunPlace {
    fn from(path: &Path) -> Self {
        Self {
            run: path.into(),
            checkpoints: Folder::from(&path.join(CHECKPOINTS)),
            disk: path.to_path_buf(),
            spool: None,
            claim: String::new(),
        }
    }
}

impl From<&PathBuf> for RunPlace {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<&Self> for RunPlace {
    fn from(place: &Self) -> Self {
        place.clone()
    }
}

impl RunPlace {
    /// The run that the user named by a path or a URL.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] for a URL that is not understood or not written; [`TrainError::Io`] if
    /// there is no room for its growing files on this machine.
    pub fn find(named: &Path, stores: &Stores) -> Result<Self, TrainError> {
        let run = stores.folder(named)?;
        if run.is_local() {
            return Ok(named.into());
        }
        let checkpoints = stores.folder(&run.path(CHECKPOINTS))?;
        let above = stores.remote()?.options().scratch.clone();
        let spool = tempfile::Builder::new().prefix("catlip-run-").tempdir_in(&above);
        let spool = spool.map_err(TrainError::io("create a folder below", &above))?;
        let disk = spool.path().to_path_buf();
        Ok(Self { run, checkpoints, disk, spool: Some(Arc::new(spool)), claim: String::new() })
    }

    /// Whether it lies in a store.
    pub fn is_remote(&self) -> bool {
        self.spool.is_some()
    }

    /// Path or URL of a file of the run, or of the run itself for an empty name.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.run.place() } else { self.run.path(name) }
    }

    /// The run's folder on this machine, or the one that stands for it.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// The run as a folder of files.
    pub fn folder(&self) -> &Folder {
        &self.run
    }

    /// The names in the folder of checkpoints.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], [`CheckpointError::Store`].
    pub fn checkpoints(&self) -> Result<Vec<String>, CheckpointError> {
        self.checkpoints.top_names().map_err(CheckpointError::of_place)
    }

    /// All bytes of a file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], also for one that is not there; [`CheckpointError::Store`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        self.run.read(name).map_err(CheckpointError::of_place)
    }

    /// Writes a file whole.
    ///
    /// # Errors
    ///
    /// As of [`Self::read`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        if self.is_remote() {
            return self.run.put(name, bytes).map_err(CheckpointError::of_place);
        }
        let path = self.disk.join(name);
        commit::write_whole(&path, bytes).map_err(CheckpointError::io("write", &path))
    }

    /// Fetches files of a run in a store to this machine; those that are not there are left out.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`], [`TrainError::Io`].
    pub fn fetch(&self, names: &[&str]) -> Result<(), TrainError> {
        if !self.is_remote() {
            return Ok(());
        }
        for name in names {
            if let Some(bytes) = self.run.find(name)? {
                let path = self.disk.join(name);
                fs::write(&path, bytes).map_err(TrainError::io("write", &path))?;
            }
        }
        Ok(())
    }

    /// Puts a file of this machine into the store, if the run lies in one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], [`CheckpointError::Store`].
    pub fn put(&self, name: &str) -> Result<(), CheckpointError> {
        if !self.is_remote() {
            return Ok(());
        }
        let path = self.disk.join(name);
        match fs::read(&path) {
            Ok(bytes) => self.write(name, &bytes),
            // Nothing of it was written yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(CheckpointError::io("read", &path)(error)),
        }
    }

    /// Puts what has grown into the store, if the run lies in one.
    ///
    /// # Errors
    ///
    /// As of [`Self::put`].
    pub fn put_growing(&self) -> Result<(), CheckpointError> {
        GROWING.iter().try_for_each(|name| self.put(name))
    }

    /// Says in the store that this process writes the run from now on. Stores have no locks: who
    /// said so last has it, and the one before is told at its next checkpoint.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`].
    pub fn claim(&mut self, holder: &str) -> Result<(), CheckpointError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.claim = format!("{holder}, start {:x}", since.as_nanos());
        self.write(LOCK, self.claim.as_bytes())
    }

    /// Refuses to go on where another process has claimed the run.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Claimed`], [`CheckpointError::Store`].
    pub fn check_claim(&self) -> Result<(), CheckpointError> {
        if self.claim.is_empty() {
            return Ok(());
        }
        let holder = self.read(LOCK)?;
        if holder == self.claim.as_bytes() {
            return Ok(());
        }
        let holder = String::from_utf8_lossy(&holder).into_owned();
        Err(CheckpointError::Claimed { path: self.path(""), holder })
    }
}

impl CheckpointError {
    /// What went wrong with a file of a run, wherever that lies.
    pub(crate) fn of_place(error: PrepError) -> Self {
        match error {
            PrepError::Io { verb, path, source } => Self::Io { verb, path, source },
            other => Self::Store(Box::new(other)),
        }
    }
}
