//! Writing to object stores.
//!
//! In: URLs and bytes, or a local file of them. Out: whole objects, created exclusively or
//! replaced. The answer to a request may be lost: a creation then looks whether the object is its
//! own, and what may be replaced is written again. Never: half an object; an object replaced that
//! was to be created.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path as LocalPath;

use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Remote, failed, pause};
use crate::source::store::{RemoteUrl, StoreError};

/// Files up to this size are put in one request, others in parts.
const PUT_BYTES_MAX: u64 = 16 << 20;

/// Parts of an upload that stores allow.
const PUT_PARTS_MAX: u64 = 10_000;

/// How often an object is put whose put failed after all repetitions of its requests.
const PUT_TRIES: usize = 3;

impl Remote {
    /// Creates the object, unless it is there; one that holds these bytes counts as created here.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] if it holds others.
    pub(in crate::source) fn put_new(
        &self,
        url: &RemoteUrl,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let (store, path) = self.store(url)?;
        self.runtime.block_on(async {
            let mut tries = 1;
            loop {
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                let payload = PutPayload::from(bytes.to_vec());
                let error = match store.put_opts(&path, payload, options).await {
                    Ok(_) => return Ok(()),
                    Err(Error::Precondition { .. }) => StoreError::Exists { url: url.to_string() },
                    Err(error) => failed("create", url, error),
                };
                let is_open =
                    matches!(error, StoreError::Exists { .. } | StoreError::Failed { .. });
                if !is_open {
                    return Err(error);
                }
                // Lost answers and puts that meet each other: what is there tells.
                match self.holds(url, bytes).await {
                    Ok(Some(true)) => return Ok(()),
                    Ok(Some(false)) => return Err(StoreError::Exists { url: url.to_string() }),
                    Ok(None) if tries < PUT_TRIES => tries += 1,
                    _ => return Err(error),
                }
                tokio::time::sleep(pause(self.options.pause_first, tries)).await;
            }
        })
    }

    /// Whether the object holds these bytes; `None` if there is none.
    async fn holds(&self, url: &RemoteUrl, bytes: &[u8]) -> Result<Option<bool>, StoreError> {
        let info = match self.head_now(url).await {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            found => found?,
        };
        if info.bytes != bytes.len() as u64 {
            return Ok(Some(false));
        }
        let found = self.transfer(url, Some(&info))?.read(0..info.bytes).await?;
        Ok(Some(found == bytes))
    }

    /// Makes the object of the bytes of `file`, and looks whether it has as many; `from` names the
    /// file in errors.
    pub(in crate::source) fn put_file(
        &self,
        url: &RemoteUrl,
        file: &File,
        from: &LocalPath,
    ) -> Result<(), StoreError> {
        let (store, path) = self.store(url)?;
        let bytes = file.metadata().map_err(|e| StoreError::local("read", from, e))?.len();
        self.runtime.block_on(async {
            let mut tries = 1;
            loop {
                let put = if bytes > PUT_BYTES_MAX {
                    self.put_parts((url, store.as_ref(), &path), file, from, bytes).await
                } else {
                    let payload = PutPayload::from(read_exactly(file, 0, bytes, from)?);
                    store.put(&path, payload).await.map_err(|e| failed("write", url, e)).map(|_| ())
                };
                match put {
                    Ok(()) => break,
                    // Of an upload that was completed, but the answer was lost, nothing is known.
                    Err(StoreError::Failed { .. }) if tries < PUT_TRIES => tries += 1,
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(pause(self.options.pause_first, tries)).await;
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
        file: &File,
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
                let part = read_exactly(file, at, count, from)?;
                under_way.push(upload.put_part(part.into()));
                at += count;
                if under_way.len() == self.options.requests.max(1) || at == bytes {
                    let parts = std::mem::take(&mut under_way);
                    futures_util::future::try_join_all(parts).await.map_err(wrong)?;
                }
            }
            match upload.complete().await {
                // A completion that was repeated after a lost answer finds its upload gone.
                Err(error @ Error::NotFound { .. }) => Err(StoreError::Failed {
                    verb: "write",
                    url: url.to_string(),
                    source: error.into(),
                }),
                other => other.map(|_| ()).map_err(wrong),
            }
        };
        let outcome = outcome.await;
        if outcome.is_err() {
            // Best effort: stores drop unfinished uploads by their own rules as well.
            let _ = upload.abort().await;
        }
        outcome
    }

    /// Removes the object; that it is not there is no error.
    pub(in crate::source) fn remove(&self, url: &RemoteUrl) -> Result<(), StoreError> {
        let (store, path) = self.store(url)?;
        match self.runtime.block_on(store.delete(&path)) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", url, error)),
        }
    }
}

/// Bytes `at..at + count` of a local file, which is being put into a store.
fn read_exactly(file: &File, at: u64, count: u64, from: &LocalPath) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, at).map_err(|e| StoreError::local("read", from, e))?;
    Ok(bytes)
}
