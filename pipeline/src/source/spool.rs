//! Shards as bytes in memory, wherever they lie.
//!
//! In: the shards of a job in the order in which they will be opened. Out: each one mapped, with
//! its length and ETag. A local shard is mapped where it is; a remote one is fetched into a file
//! without a name first, some of them ahead, within a bound on their bytes, and then goes the same
//! way. Never: a file that outlives the process; more bytes on the disk than the bound.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::list::{ShardPlace, ShardUrl};
use super::map::MappedFile;
use super::object::{Cancel, Remote};
use super::store::{ObjectInfo, RemoteUrl, StoreError};

/// Bytes at each end of a shard that its ETag covers, where no store gives one.
const ETAG_BYTES: usize = 64 << 10;

/// Shards that are fetched at the same time, each by several requests.
const FETCHES_AT_ONCE: usize = 2;

/// How long a waiting reader sleeps before it looks at the stop flag.
const STOP_LOOK: Duration = Duration::from_millis(100);

/// Length and ETag: what tells a changed shard from the one that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIdentity {
    /// Its bytes.
    pub bytes: u64,
    /// `etag-…` of its store, or `blake3-…` of its length and both ends.
    pub etag: String,
}

impl ShardIdentity {
    /// Of a shard without a store: its length and its first and last [`ETAG_BYTES`].
    fn of_ends(bytes: u64, first: &[u8], last: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes.to_le_bytes());
        hasher.update(first);
        hasher.update(last);
        Self { bytes, etag: format!("blake3-{}", &hasher.finalize().to_hex()[..32]) }
    }

    /// Of a shard that is in memory.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let end = bytes.len().min(ETAG_BYTES);
        Self::of_ends(bytes.len() as u64, &bytes[..end], &bytes[bytes.len() - end..])
    }
}

/// A shard in memory; a fetched one gives its place on the disk back when it is dropped.
pub struct OpenShard {
    map: MappedFile,
    identity: ShardIdentity,
    _room: Option<Room>,
}

impl OpenShard {
    /// Its length and ETag.
    pub fn identity(&self) -> &ShardIdentity {
        &self.identity
    }

    /// Says that the first `bytes` were read and are not needed in memory any more.
    pub fn release(&self, bytes: usize) {
        self.map.release(bytes);
    }
}

impl Deref for OpenShard {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Where fetched shards lie and how many bytes of them.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// The folder.
    pub folder: PathBuf,
    /// Bytes of all fetched shards together.
    pub bytes_max: u64,
}

/// The shards of a job, the remote ones fetched ahead.
pub struct Spool {
    shared: Arc<Shared>,
    fetchers: Vec<JoinHandle<()>>,
}

/// A fetched shard, or why it is none; taken once.
type Fetched = Result<OpenShard, StoreError>;

struct Shared {
    remote: Option<Arc<Remote>>,
    options: SpoolOptions,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    cancel: Cancel,
}

#[derive(Default)]
struct State {
    /// Shards in the order in which they will be opened.
    ahead: Vec<(RemoteUrl, ObjectInfo)>,
    /// The next of them to fetch.
    next: usize,
    /// What was fetched and not yet opened.
    done: HashMap<RemoteUrl, Fetched>,
    bytes_used: u64,
}

/// A share of the bound; given back when dropped.
struct Room {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.lock().bytes_used -= self.bytes;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Fetches shard after shard until all are there or the job stops.
    fn fetch_all(self: Arc<Self>) {
        while let Some((url, info, room)) = self.next_with_room() {
            let fetched = self.fetch(&url, &info, room);
            self.lock().done.insert(url, fetched);
            self.changed.notify_all();
        }
    }

    /// The next shard, once there is room for it.
    fn next_with_room(self: &Arc<Self>) -> Option<(RemoteUrl, ObjectInfo, Option<Room>)> {
        let mut state = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let (url, info) = state.ahead.get(state.next)?.clone();
            if info.bytes > self.options.bytes_max {
                state.next += 1;
                return Some((url, info, None));
            }
            if state.bytes_used + info.bytes <= self.options.bytes_max {
                state.next += 1;
                state.bytes_used += info.bytes;
                let room = Room { shared: self.clone(), bytes: info.bytes };
                return Some((url, info, Some(room)));
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    fn fetch(&self, url: &RemoteUrl, info: &ObjectInfo, room: Option<Room>) -> Fetched {
        let Some(room) = room else {
            return Err(StoreError::SpoolTooSmall {
                url: url.to_string(),
                bytes: info.bytes,
                limit: self.options.bytes_max,
            });
        };
        let folder = &self.options.folder;
        let wrong = |e| StoreError::local("write a fetched shard below", folder, e);
        std::fs::create_dir_all(folder).map_err(wrong)?;
        // Without a name from the beginning: no exit, however sudden, leaves it behind.
        let file = tempfile::tempfile_in(folder).map_err(wrong)?;
        file.set_len(info.bytes).map_err(wrong)?;
        remote_of(self.remote.as_ref(), url)?.fetch(url, info, &file, folder, &self.cancel)?;
        let map = MappedFile::of_file(&file).map_err(wrong)?;
        let identity = match info.etag_text() {
            Some(etag) => ShardIdentity { bytes: info.bytes, etag },
            None => ShardIdentity::of_bytes(&map),
        };
        Ok(OpenShard { map, identity, _room: Some(room) })
    }
}

fn remote_of<'r>(
    remote: Option<&'r Arc<Remote>>,
    url: &RemoteUrl,
) -> Result<&'r Arc<Remote>, StoreError> {
    remote.ok_or_else(|| StoreError::Url {
        url: url.to_string(),
        message: "no way to stores was opened".to_owned(),
    })
}

impl Spool {
    /// Begins to fetch the remote ones of `shards`, which will be opened in this order.
    ///
    /// A job of local shards needs no `remote`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Local`] if threads cannot be started.
    pub fn start<'s>(
        shards: impl Iterator<Item = &'s ShardUrl>,
        remote: Option<Arc<Remote>>,
        options: SpoolOptions,
    ) -> Result<Self, StoreError> {
        let ahead: Vec<_> = shards
            .filter_map(|shard| match &shard.place {
                ShardPlace::Local(_) => None,
                ShardPlace::Remote(url, info) => Some((url.clone(), info.clone())),
            })
            .collect();
        let count = FETCHES_AT_ONCE.min(ahead.len());
        let state = Mutex::new(State { ahead, ..State::default() });
        let (changed, stop) = (Condvar::new(), AtomicBool::new(false));
        let cancel = Cancel::default();
        let shared = Arc::new(Shared { remote, options, state, changed, stop, cancel });
        let mut spool = Self { shared, fetchers: Vec::new() };
        for number in 0..count {
            let shared = spool.shared.clone();
            let fetcher = std::thread::Builder::new()
                .name(format!("fetch-{number}"))
                .spawn(move || shared.fetch_all())
                .map_err(|e| StoreError::local("start threads for", Path::new("shards"), e))?;
            spool.fetchers.push(fetcher);
        }
        Ok(spool)
    }

    /// A shard's bytes. A remote one must be among those that [`Spool::start`] was given, and is
    /// handed out once; it is waited for.
    ///
    /// # Errors
    ///
    /// What the store said; [`StoreError::Stopped`] once `stop` is set.
    pub fn open(&self, shard: &ShardUrl, stop: &AtomicBool) -> Result<OpenShard, StoreError> {
        let url = match &shard.place {
            ShardPlace::Local(path) => {
                let map = MappedFile::open(path).map_err(|e| StoreError::local("read", path, e))?;
                let identity = ShardIdentity::of_bytes(&map);
                return Ok(OpenShard { map, identity, _room: None });
            }
            ShardPlace::Remote(url, _) => url,
        };
        let mut state = self.shared.lock();
        loop {
            if let Some(fetched) = state.done.remove(url) {
                return fetched;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(StoreError::Stopped { url: url.to_string() });
            }
            let waited = self.shared.changed.wait_timeout(state, STOP_LOOK);
            state = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.cancel.cancel();
        self.shared.changed.notify_all();
        for fetcher in self.fetchers.drain(..) {
            // A fetcher that panicked has left its shard out; whoever waits for it is gone.
            let _ = fetcher.join();
        }
        // What was fetched in vain holds the state that it lies in.
        let done = std::mem::take(&mut self.shared.lock().done);
        drop(done);
    }
}

/// Length and ETag of a shard as it is now, without fetching it.
///
/// # Errors
///
/// [`StoreError`].
pub fn identity(
    shard: &ShardUrl,
    remote: Option<&Arc<Remote>>,
) -> Result<ShardIdentity, StoreError> {
    let (url, info) = match &shard.place {
        ShardPlace::Local(path) => {
            let map = MappedFile::open(path).map_err(|e| StoreError::local("read", path, e))?;
            return Ok(ShardIdentity::of_bytes(&map));
        }
        ShardPlace::Remote(url, info) => (url, info),
    };
    if let Some(etag) = info.etag_text() {
        return Ok(ShardIdentity { bytes: info.bytes, etag });
    }
    let remote = remote_of(remote, url)?;
    let end = info.bytes.min(ETAG_BYTES as u64);
    let first = remote.get_range(url, Some(info), 0..end)?;
    let last = remote.get_range(url, Some(info), info.bytes - end..info.bytes)?;
    Ok(ShardIdentity::of_ends(info.bytes, &first, &last))
}
