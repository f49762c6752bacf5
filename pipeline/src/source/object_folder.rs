//! A folder of a remote store, as the place of an output.
//!
//! In: a [`Remote`] and the folder's URL. Out: a [`Store`]. Never: an object half written.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::object::Remote;
use super::store::{ObjectInfo, RemoteUrl, Store, StoreError};

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
                message: "a web server cannot be written".to_owned(),
            });
        }
        Ok(Self { remote, root })
    }
}

impl Store for ObjectFolder {
    fn place(&self) -> String {
        self.root.to_string().trim_end_matches('/').to_owned()
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.remote.put_new(&self.root.join(name), bytes)
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), StoreError> {
        self.remote.put_file(&self.root.join(name), from)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let url = self.root.join(name);
        let info = self.remote.head(&url)?;
        self.remote.get_range(&url, &info, range)
    }

    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
        match self.remote.head(&self.root.join(name)) {
            Ok(info) => Ok(Some(info)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let url = self.root.join(folder);
        let objects = self.remote.list(&url, false)?;
        let name = |url: RemoteUrl| url.key.rsplit('/').next().unwrap_or_default().to_owned();
        let mut names: Vec<_> = objects.into_iter().map(|(url, _)| name(url)).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.remote.remove(&self.root.join(name))
    }
}
