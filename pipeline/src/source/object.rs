//! Object stores over the network, behind a face that blocks.
//!
//! In: URLs, and how patient to be. Out: lists, lengths, ETags, bytes and files. With `write.rs`
//! below it the only module of the house that is asynchronous: a small runtime lives inside
//! [`Remote`] and nobody else sees it. `object_store` repeats a request that failed before its
//! answer (5xx, 429, no connection) with growing, jittered pauses; what breaks later is taken up
//! here at the byte after the last one that came. Never: bytes of two versions of one object; bytes
//! of another length than asked.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path as LocalPath;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use futures_util::future::{Either, select};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use super::object_open::RemoteOptions;
use super::object_open::{failed, info_of, open, path_of, pause};
use super::store::{ObjectInfo, RemoteUrl, StoreError};

mod write;

/// Threads of the runtime: sums of the network, not of the processor.
const RUNTIME_THREADS: usize = 2;

/// Bytes of one ranged request: at 100 MB/s 80 ms, so the time to the first byte is hidden.
const RANGE_BYTES: u64 = 8 << 20;

/// Small objects that are read at the same time: waiting costs no processor, and at 50 ms each
/// 100,000 receipts are there in a minute and a half.
const SMALL_AT_ONCE: usize = 64;

/// Ends the transfers that were given it.
pub struct Cancel(watch::Sender<bool>);

impl Default for Cancel {
    fn default() -> Self {
        Self(watch::channel(false).0)
    }
}

impl Cancel {
    /// Ends them, now and later, with [`StoreError::Stopped`].
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

/// All stores of a job, opened when they are first named.
pub struct Remote {
    runtime: Runtime,
    options: RemoteOptions,
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    resumed: AtomicU64,
}

impl Remote {
    /// Starts the runtime; no connection is made yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Local`] if threads cannot be started.
    pub fn start(options: RemoteOptions) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|e| StoreError::local("start threads for", LocalPath::new("stores"), e))?;
        let stores = Mutex::default();
        Ok(Self { runtime, options, stores, resumed: AtomicU64::new(0) })
    }

    /// How the stores are reached.
    pub fn options(&self) -> &RemoteOptions {
        &self.options
    }

    /// How often a transfer was taken up again after it had broken off.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Length and ETag of each object, in order; several are asked for at the same time.
    ///
    /// # Errors
    ///
    /// The first that fails; [`StoreError::NotFound`] for one that is not there.
    pub fn heads(&self, urls: &[RemoteUrl]) -> Result<Vec<ObjectInfo>, StoreError> {
        let heads = iter(urls).map(|url| self.head_now(url)).buffered(self.options.requests.max(1));
        self.runtime.block_on(heads.try_collect())
    }

    /// The objects below a folder, sorted by key; `deep` also those in folders below it.
    ///
    /// Stores other than S3 write ETags in lists otherwise than in answers: ask [`Remote::heads`].
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the web has no lists.
    pub fn list(
        &self,
        folder: &RemoteUrl,
        deep: bool,
    ) -> Result<Vec<(RemoteUrl, ObjectInfo)>, StoreError> {
        if folder.is_http() {
            return Err(StoreError::Url {
                url: folder.to_string(),
                message: "a web server has no list of its files; name them with {00..17} or in \
                          an @list"
                    .to_owned(),
            });
        }
        let (store, prefix) = self.store(&folder.as_prefix())?;
        let found: Result<Vec<ObjectMeta>, Error> = self.runtime.block_on(async {
            if deep {
                return store.list(Some(&prefix)).try_collect().await;
            }
            Ok(store.list_with_delimiter(Some(&prefix)).await?.objects)
        });
        let mut objects: Vec<_> = found
            .map_err(|e| failed("list", folder, e))?
            .into_iter()
            .map(|meta| {
                let key = meta.location.as_ref().to_owned();
                (RemoteUrl { root: folder.root.clone(), key }, info_of(&meta))
            })
            .collect();
        objects.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(objects)
    }

    /// The names at the top of a folder, objects and folders alike, sorted.
    pub(super) fn top_names(&self, folder: &RemoteUrl) -> Result<Vec<String>, StoreError> {
        let (store, prefix) = self.store(&folder.as_prefix())?;
        let found = self.runtime.block_on(store.list_with_delimiter(Some(&prefix)));
        let found = found.map_err(|e| failed("list", folder, e))?;
        let objects = found.objects.iter().map(|meta| &meta.location);
        let names = objects.chain(&found.common_prefixes).filter_map(|path| path.filename());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Bytes `range` of an object, which must be the one that `info` tells of.
    ///
    /// Without `info` it is one request, and what it tells of the object holds for those that go on
    /// where it breaks off; with it a long range is several requests at the same time.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn get_range(
        &self,
        url: &RemoteUrl,
        info: Option<&ObjectInfo>,
        range: Range<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        if let Some(info) = info {
            within(url, &range, info.bytes)?;
        }
        let piece_bytes = if info.is_some() { RANGE_BYTES } else { u64::MAX };
        let pieces = (0..range.end.saturating_sub(range.start).div_ceil(piece_bytes)).map(|i| {
            let start = range.start + i * piece_bytes;
            start..start.saturating_add(piece_bytes).min(range.end)
        });
        self.runtime.block_on(async {
            let transfer = self.transfer(url, info)?;
            let mut read = iter(pieces)
                .map(|piece| transfer.read(piece))
                .buffered(self.options.requests.max(1));
            let mut bytes = read.next().await.unwrap_or_else(|| Ok(Vec::new()))?;
            while let Some(more) = read.next().await {
                bytes.extend(more?);
            }
            Ok(bytes)
        })
    }

    /// All bytes of several small objects, in order, many at the same time.
    ///
    /// # Errors
    ///
    /// That of the first that fails.
    pub fn get_all(&self, urls: &[RemoteUrl]) -> Result<Vec<Vec<u8>>, StoreError> {
        let get = |url| async move {
            let info = self.head_now(url).await?;
            self.transfer(url, Some(&info))?.read(0..info.bytes).await
        };
        self.runtime.block_on(iter(urls).map(get).buffered(SMALL_AT_ONCE).try_collect())
    }

    /// Writes a whole object into `file`, which lies in `folder`, by several ranged requests.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the file's content then means nothing.
    pub fn fetch(
        &self,
        url: &RemoteUrl,
        info: &ObjectInfo,
        file: &File,
        folder: &LocalPath,
        cancel: &Cancel,
    ) -> Result<(), StoreError> {
        let ranges = (0..info.bytes.div_ceil(RANGE_BYTES))
            .map(|i| i * RANGE_BYTES..((i + 1) * RANGE_BYTES).min(info.bytes));
        let take = |at: u64, piece: &[u8]| {
            file.write_all_at(piece, at)
                .map_err(|e| StoreError::local("write a fetched shard below", folder, e))
        };
        let mut stop = cancel.0.subscribe();
        self.runtime.block_on(async {
            let transfer = self.transfer(url, Some(info))?;
            let all = async {
                let mut served = iter(ranges)
                    .map(|range| transfer.range(range, true, &take))
                    .buffer_unordered(self.options.requests.max(1));
                while let Some(served) = served.next().await {
                    if let Served::WholeOnly = served? {
                        // One transfer of the whole, not one for each range.
                        return transfer.range(0..info.bytes, false, &take).await.map(|_| ());
                    }
                }
                Ok(())
            };
            match select(pin!(all), pin!(stop.wait_for(|&stop| stop))).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => Err(StoreError::Stopped { url: url.to_string() }),
            }
        })
    }

    fn transfer<'r>(
        &'r self,
        url: &'r RemoteUrl,
        info: Option<&ObjectInfo>,
    ) -> Result<Transfer<'r>, StoreError> {
        let (store, path) = self.store(url)?;
        let info = info.map_or_else(OnceLock::new, |info| OnceLock::from(info.clone()));
        Ok(Transfer { remote: self, url, info, store, path })
    }

    /// Length and ETag of an object.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if it is not there.
    pub(super) fn head(&self, url: &RemoteUrl) -> Result<ObjectInfo, StoreError> {
        self.runtime.block_on(self.head_now(url))
    }

    async fn head_now(&self, url: &RemoteUrl) -> Result<ObjectInfo, StoreError> {
        let (store, path) = self.store(url)?;
        let meta = store.head(&path).await.map_err(|e| failed("look up", url, e))?;
        Ok(info_of(&meta))
    }

    /// The store of a URL, and the place of the URL in it.
    fn store(&self, url: &RemoteUrl) -> Result<(Arc<dyn ObjectStore>, Path), StoreError> {
        let path = path_of(url)?;
        let mut stores = self.stores.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(store) = stores.get(&url.root) {
            return Ok((store.clone(), path));
        }
        let store = open(url, &self.options).map_err(|e| failed("open", url, e))?;
        stores.insert(url.root.clone(), store.clone());
        Ok((store, path))
    }
}

/// Takes a piece of an object that begins at a byte.
trait Take: Fn(u64, &[u8]) -> Result<(), StoreError> + Sync {}
impl<F: Fn(u64, &[u8]) -> Result<(), StoreError> + Sync> Take for F {}

/// Why an attempt to read ended before its range did.
enum Ended {
    /// Worth another attempt: the line broke, or the store ended too early.
    Early(Option<Error>),
    /// The store knows no ranges.
    WholeOnly,
    /// Not worth one.
    For(StoreError),
}

/// How a store served a range.
enum Served {
    /// It came.
    AsAsked,
    /// The store gives whole objects only; ask without a range.
    WholeOnly,
}

/// One object that is being read.
struct Transfer<'r> {
    remote: &'r Remote,
    url: &'r RemoteUrl,
    /// What the object must be; that of the first answer, if nothing was known before.
    info: OnceLock<ObjectInfo>,
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl Transfer<'_> {
    /// The bytes of a range.
    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let bytes = Mutex::new(Vec::new());
        let start = range.start;
        let take = |at: u64, piece: &[u8]| {
            let mut bytes = bytes.lock().unwrap_or_else(|e| e.into_inner());
            // Only a store without ranges sends again what has come.
            bytes.truncate((at - start) as usize);
            bytes.extend_from_slice(piece);
            Ok(())
        };
        if let Served::WholeOnly = self.range(range.clone(), true, &take).await? {
            self.range(range, false, &take).await?;
        }
        Ok(bytes.into_inner().unwrap_or_else(|e| e.into_inner()))
    }

    /// Length of the object, once it is known.
    fn bytes(&self) -> u64 {
        self.info.get().map_or(u64::MAX, |info| info.bytes)
    }

    /// Reads a range to its end, with as many requests as that takes.
    async fn range(
        &self,
        range: Range<u64>,
        has_ranges: bool,
        take: &impl Take,
    ) -> Result<Served, StoreError> {
        let mut at = range.start;
        let mut fruitless = 0;
        while at < range.end {
            let before = at;
            if !has_ranges {
                // The object comes from its first byte again, and only an ETag would prove that
                // it is still the same one.
                at = range.start;
            }
            let error = match self.attempt(&mut at, &range, has_ranges, take).await {
                Ok(()) => break,
                Err(Ended::For(error)) => return Err(self.explained(error, &range).await),
                Err(Ended::WholeOnly) => return Ok(Served::WholeOnly),
                Err(Ended::Early(error)) => error,
            };
            fruitless = if at > before { 0 } else { fruitless + 1 };
            if fruitless > self.remote.options.retries {
                return Err(StoreError::Broken {
                    url: self.url.to_string(),
                    at,
                    bytes: self.bytes(),
                    attempts: fruitless,
                    source: error.map(Into::into),
                });
            }
            self.remote.resumed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause(self.remote.options.pause_first, fruitless)).await;
        }
        Ok(Served::AsAsked)
    }

    /// One request for what is left of a range; `at` moves with the bytes that come.
    async fn attempt(
        &self,
        at: &mut u64,
        range: &Range<u64>,
        has_ranges: bool,
        take: &impl Take,
    ) -> Result<(), Ended> {
        let options = GetOptions {
            range: has_ranges.then_some(GetRange::Bounded(*at..range.end)),
            if_match: self.info.get().and_then(ObjectInfo::strong_etag),
            ..GetOptions::default()
        };
        let got = match self.store.get_opts(&self.path, options).await {
            Ok(got) => got,
            Err(Error::NotSupported { .. }) if has_ranges => return Err(Ended::WholeOnly),
            Err(error) => return Err(Ended::For(failed("read", self.url, error))),
        };
        let known = self.info.get_or_init(|| info_of(&got.meta));
        self.check(&got.meta, known).map_err(Ended::For)?;
        within(self.url, range, known.bytes).map_err(Ended::For)?;
        let mut position = got.range.start;
        let mut pieces = got.into_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| Ended::Early(Some(e)))?;
            let end = position + piece.len() as u64;
            if has_ranges && end > range.end || end > known.bytes {
                return Err(Ended::For(StoreError::Answer {
                    url: self.url.to_string(),
                    message: format!(
                        "bytes up to {} were asked for, more came: {end}",
                        range.end.min(known.bytes)
                    ),
                }));
            }
            // The part of the piece that is wanted and has not come before.
            let from = (*at).clamp(position, end);
            let to = range.end.clamp(from, end);
            if to > from {
                let wanted = (from - position) as usize..(to - position) as usize;
                take(from, &piece[wanted]).map_err(Ended::For)?;
                *at = to;
            }
            position = end;
            if !has_ranges && *at >= range.end {
                break;
            }
        }
        if *at < range.end { Err(Ended::Early(None)) } else { Ok(()) }
    }

    /// The object must still be the one of the list.
    fn check(&self, found: &ObjectMeta, known: &ObjectInfo) -> Result<(), StoreError> {
        let changed = |what, found: String, expected: String| {
            Err(StoreError::Changed { url: self.url.to_string(), what, found, expected })
        };
        if found.size != known.bytes {
            let (found, expected) = (found.size.to_string(), known.bytes.to_string());
            return changed("length in bytes", found, expected);
        }
        match (&found.e_tag, &known.etag) {
            (found, Some(expected)) if found.as_ref() != Some(expected) => {
                let found = found.clone().unwrap_or_else(|| "none".to_owned());
                changed("ETag", found, expected.clone())
            }
            (_, None) if found.last_modified.timestamp() != known.modified_secs => {
                let found = found.last_modified.timestamp().to_string();
                changed("time in seconds", found, known.modified_secs.to_string())
            }
            _ => Ok(()),
        }
    }

    /// A refusal may mean that the object was replaced or is shorter: then that is the error.
    async fn explained(&self, error: StoreError, range: &Range<u64>) -> StoreError {
        if !matches!(error, StoreError::Failed { .. }) {
            return error;
        }
        let Ok(found) = self.store.head(&self.path).await else { return error };
        let same = self.info.get().map_or(Ok(()), |known| self.check(&found, known));
        same.and_then(|()| within(self.url, range, found.size)).err().unwrap_or(error)
    }
}

/// A range must lie within its object.
fn within(url: &RemoteUrl, range: &Range<u64>, bytes: u64) -> Result<(), StoreError> {
    if range.start <= range.end && range.end <= bytes {
        return Ok(());
    }
    Err(StoreError::Answer {
        url: url.to_string(),
        message: format!("bytes {}..{} were asked for, it has {bytes}", range.start, range.end),
    })
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
