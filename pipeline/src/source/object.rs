//! Object stores over the network, behind a face that blocks.
//!
//! In: URLs, and how patient to be. Out: lists, lengths, ETags, bytes and files. The only file of
//! the house that is asynchronous: a small runtime lives inside [`Remote`] and nobody else sees
//! it. `object_store` repeats a request that failed before its answer (5xx, 429, no connection)
//! with growing, jittered pauses; what breaks later is taken up here at the byte after the last
//! one that came. Never: bytes of two versions of one object; bytes of another length than asked.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path as LocalPath;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::{Either, select};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use super::object_open::RemoteOptions;
use super::object_open::{failed, info_of, open, path_of, pause};
use super::store::{ObjectInfo, RemoteUrl, StoreError, read_exactly};

/// Threads of the runtime: sums of the network, not of the processor.
const RUNTIME_THREADS: usize = 2;

/// Bytes of one ranged request: at 100 MB/s 80 ms, so the time to the first byte is hidden.
const RANGE_BYTES: u64 = 8 << 20;

/// Files up to this size are put in one request, others in parts.
const PUT_BYTES_MAX: u64 = 16 << 20;

/// Parts of an upload that stores allow.
const PUT_PARTS_MAX: u64 = 10_000;

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
        let (store, _) = self.store(folder)?;
        let prefix = path_of(&RemoteUrl {
            root: folder.root.clone(),
            key: folder.key.trim_end_matches('/').to_owned(),
        })?;
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

    /// Bytes `range` of an object; the object must be the one that `info` tells of.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn get_range(
        &self,
        url: &RemoteUrl,
        info: &ObjectInfo,
        range: Range<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        if range.end > info.bytes || range.start > range.end {
            return Err(StoreError::Answer {
                url: url.to_string(),
                message: format!(
                    "bytes {}..{} were asked for, it has {}",
                    range.start, range.end, info.bytes
                ),
            });
        }
        let bytes = Mutex::new(Vec::new());
        let start = range.start;
        let take = |at: u64, piece: &[u8]| {
            let mut bytes = bytes.lock().unwrap_or_else(|e| e.into_inner());
            // Only a store without ranges sends again what has come.
            bytes.truncate((at - start) as usize);
            bytes.extend_from_slice(piece);
            Ok(())
        };
        self.runtime.block_on(async {
            let transfer = self.transfer(url, info)?;
            match transfer.range(range.clone(), true, &take).await? {
                Served::AsAsked => Ok(()),
                Served::WholeOnly => transfer.range(range.clone(), false, &take).await.map(|_| ()),
            }
        })?;
        Ok(bytes.into_inner().unwrap_or_else(|e| e.into_inner()))
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
            let transfer = self.transfer(url, info)?;
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

    /// Creates the object, unless it is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] if it is.
    pub(super) fn put_new(&self, url: &RemoteUrl, bytes: &[u8]) -> Result<(), StoreError> {
        let (store, path) = self.store(url)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = store.put_opts(&path, PutPayload::from(bytes.to_vec()), options);
        match self.runtime.block_on(put) {
            Ok(_) => Ok(()),
            Err(Error::Precondition { .. }) => Err(StoreError::Exists { url: url.to_string() }),
            Err(error) => Err(failed("create", url, error)),
        }
    }

    /// Makes the object of the bytes of a file, and looks whether it has as many.
    pub(super) fn put_file(&self, url: &RemoteUrl, from: &LocalPath) -> Result<(), StoreError> {
        let (store, path) = self.store(url)?;
        let unread = |e| StoreError::local("read", from, e);
        let mut file = File::open(from).map_err(unread)?;
        let bytes = file.metadata().map_err(unread)?.len();
        self.runtime.block_on(async {
            if bytes > PUT_BYTES_MAX {
                self.put_parts((url, store.as_ref(), &path), &mut file, from, bytes).await?;
            } else {
                let payload = PutPayload::from(read_exactly(&mut file, bytes, from)?);
                store.put(&path, payload).await.map_err(|e| failed("write", url, e))?;
            }
            // An upload that lost a part must not pass for whole.
            let found = self.head_now(url).await?;
            if found.bytes != bytes {
                return Err(StoreError::Answer {
                    url: url.to_string(),
                    message: format!("{bytes} bytes were written, it has {}", found.bytes),
                });
            }
            Ok(())
        })
    }

    /// Uploads in parts, several at a time; what was uploaded is given up after an error.
    async fn put_parts(
        &self,
        (url, store, path): (&RemoteUrl, &dyn ObjectStore, &Path),
        file: &mut File,
        from: &LocalPath,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let wrong = |e| failed("write", url, e);
        let part_bytes = PUT_BYTES_MAX.max(bytes.div_ceil(PUT_PARTS_MAX).next_multiple_of(1 << 20));
        let mut upload = store.put_multipart(path).await.map_err(wrong)?;
        let outcome = async {
            let mut under_way = Vec::new();
            let mut at = 0;
            while at < bytes {
                let count = part_bytes.min(bytes - at);
                let part = read_exactly(file, count, from)?;
                under_way.push(upload.put_part(part.into()));
                at += count;
                if under_way.len() == self.options.requests.max(1) || at == bytes {
                    let parts = std::mem::take(&mut under_way);
                    futures_util::future::try_join_all(parts).await.map_err(wrong)?;
                }
            }
            upload.complete().await.map(|_| ()).map_err(wrong)
        };
        let outcome = outcome.await;
        if outcome.is_err() {
            // Best effort: stores drop unfinished uploads by their own rules as well.
            let _ = upload.abort().await;
        }
        outcome
    }

    /// Removes the object; that it is not there is no error.
    pub(super) fn remove(&self, url: &RemoteUrl) -> Result<(), StoreError> {
        let (store, path) = self.store(url)?;
        match self.runtime.block_on(store.delete(&path)) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", url, error)),
        }
    }

    fn transfer<'r>(
        &'r self,
        url: &'r RemoteUrl,
        info: &'r ObjectInfo,
    ) -> Result<Transfer<'r>, StoreError> {
        let (store, path) = self.store(url)?;
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
    info: &'r ObjectInfo,
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl Transfer<'_> {
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
                Err(Ended::For(error)) => return Err(self.explained(error).await),
                Err(Ended::WholeOnly) => return Ok(Served::WholeOnly),
                Err(Ended::Early(error)) => error,
            };
            fruitless = if at > before { 0 } else { fruitless + 1 };
            if fruitless > self.remote.options.retries {
                return Err(StoreError::Broken {
                    url: self.url.to_string(),
                    at,
                    bytes: self.info.bytes,
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
            if_match: self.info.strong_etag(),
            ..GetOptions::default()
        };
        let got = match self.store.get_opts(&self.path, options).await {
            Ok(got) => got,
            Err(Error::NotSupported { .. }) if has_ranges => return Err(Ended::WholeOnly),
            Err(error) => return Err(Ended::For(failed("read", self.url, error))),
        };
        self.check(&got.meta).map_err(Ended::For)?;
        let mut position = got.range.start;
        let mut pieces = got.into_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| Ended::Early(Some(e)))?;
            let end = position + piece.len() as u64;
            if has_ranges && end > range.end || end > self.info.bytes {
                return Err(Ended::For(StoreError::Answer {
                    url: self.url.to_string(),
                    message: format!(
                        "bytes up to {} were asked for, more came: {end}",
                        range.end.min(self.info.bytes)
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
    fn check(&self, found: &ObjectMeta) -> Result<(), StoreError> {
        let changed = |what, found: String, expected: String| {
            Err(StoreError::Changed { url: self.url.to_string(), what, found, expected })
        };
        if found.size != self.info.bytes {
            let (found, expected) = (found.size.to_string(), self.info.bytes.to_string());
            return changed("length in bytes", found, expected);
        }
        match (&found.e_tag, &self.info.etag) {
            (found, Some(expected)) if found.as_ref() != Some(expected) => {
                let found = found.clone().unwrap_or_else(|| "none".to_owned());
                changed("ETag", found, expected.clone())
            }
            (_, None) if found.last_modified.timestamp() != self.info.modified_secs => {
                let found = found.last_modified.timestamp().to_string();
                changed("time in seconds", found, self.info.modified_secs.to_string())
            }
            _ => Ok(()),
        }
    }

    /// A refusal may mean that the object was replaced: then that is the error.
    async fn explained(&self, error: StoreError) -> StoreError {
        if !matches!(error, StoreError::Failed { .. }) {
            return error;
        }
        match self.store.head(&self.path).await {
            Ok(found) => self.check(&found).err().unwrap_or(error),
            Err(_) => error,
        }
    }
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
