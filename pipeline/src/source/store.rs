//! A store: where shards come from and where a data set goes, apart from a local folder.
//!
//! In: names such as `receipts/part-000000-0123abcd.json` or URLs such as `s3://bucket/a.tar`.
//! Out: bytes, or one error that says which object, what was found and what was expected. The
//! implementation over the network is `object.rs`, the one over a folder `prep/store.rs`; one
//! suite tests both. Never: half an object; an object that was replaced without a word.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The schemes that are read; all but the last two are written too.
pub const SCHEMES: [&str; 5] = ["s3", "gs", "az", "http", "https"];

/// An object of a store, or a folder of it: `s3://bucket/folder/name.tar`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemoteUrl {
    /// Scheme and host or bucket: `s3://bucket`, `http://host:8080`.
    pub root: String,
    /// What follows, without a leading slash; of `http` with its percent signs decoded.
    pub key: String,
}

impl RemoteUrl {
    /// Reads a URL; `None` if `text` has no scheme and so is a local path.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] for another scheme, no bucket or host, or a query.
    pub fn parse(text: &str) -> Result<Option<Self>, StoreError> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
        let wrong = |message: String| StoreError::Url { url: text.to_owned(), message };
        if !SCHEMES.contains(&scheme) {
            return Err(wrong(format!("`{scheme}://` is not one of {}", SCHEMES.join(", "))));
        }
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(wrong("no bucket or host follows the scheme".to_owned()));
        }
        let is_http = scheme.starts_with("http");
        if is_http && key.contains(['?', '#']) {
            return Err(wrong("a query or fragment is not read".to_owned()));
        }
        let key = if is_http {
            percent_decoded(key).ok_or_else(|| wrong("a `%` starts no UTF-8 text".to_owned()))?
        } else {
            key.to_owned()
        };
        Ok(Some(Self { root: format!("{scheme}://{host}"), key }))
    }

    /// The scheme: `s3`.
    pub fn scheme(&self) -> &str {
        self.root.split(':').next().unwrap_or_default()
    }

    /// The bucket or host, with the port.
    pub fn host(&self) -> &str {
        self.root.split_once("://").map_or("", |(_, host)| host)
    }

    /// Whether the scheme is one of the web, which has no lists and is not written.
    pub fn is_http(&self) -> bool {
        self.root.starts_with("http")
    }

    /// The same folder without the slash at its end.
    pub(super) fn as_prefix(&self) -> Self {
        Self { root: self.root.clone(), key: self.key.trim_end_matches('/').to_owned() }
    }

    /// The object of that name below this folder.
    pub fn join(&self, name: &str) -> Self {
        let folder = self.key.trim_end_matches('/');
        let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        Self { root: self.root.clone(), key }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.root, self.key)
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// What a store says of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// Its bytes.
    pub bytes: u64,
    /// Its ETag as the store gives it, quotes included; none if the store has none.
    pub etag: Option<String>,
    /// When it was written, in Unix seconds; 0 if the store does not say. Stands in for the ETag.
    pub modified_secs: i64,
}

impl ObjectInfo {
    /// The ETag that may be sent back as `If-Match`: a weak one never matches.
    pub fn strong_etag(&self) -> Option<String> {
        self.etag.clone().filter(|etag| !etag.starts_with("W/"))
    }

    /// The ETag as receipts keep it: `etag-` and what stands between the quotes.
    pub fn etag_text(&self) -> Option<String> {
        let etag = self.etag.as_ref()?;
        Some(format!("etag-{}", etag.trim_start_matches("W/").trim_matches('"')))
    }
}

/// What a store or the way to it did wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A URL that is not understood.
    #[error("`{url}`: {message}")]
    Url {
        /// As the user wrote it.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// No object of that name.
    #[error("{url} does not exist")]
    NotFound {
        /// The object.
        url: String,
    },
    /// An exclusive create of a name that is taken.
    #[error("{url} exists already")]
    Exists {
        /// The object.
        url: String,
    },
    /// The store does not let us.
    #[error("{url} may not be accessed")]
    Denied {
        /// The object.
        url: String,
        /// What the store says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nothing says who we are, and the cloud does not either.
    #[error("no credentials for {url}: the environment has none, nor has this machine")]
    NoCredentials {
        /// The object.
        url: String,
        /// Who was asked last.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The object is not the one that it was when the list was made.
    #[error("{url} changed while it was read: its {what} is {found}, was {expected}")]
    Changed {
        /// The object.
        url: String,
        /// `ETag`, `length in bytes` or `time in seconds`.
        what: &'static str,
        /// Now.
        found: String,
        /// Before.
        expected: String,
    },
    /// The store answered something else than what was asked.
    #[error("{url}: {message}")]
    Answer {
        /// The object.
        url: String,
        /// What was asked and what came.
        message: String,
    },
    /// Transfers broke again and again at the same byte.
    #[error("{url} broke off at byte {at} of {bytes}, {attempts} times in a row")]
    Broken {
        /// The object.
        url: String,
        /// The first byte that is missing.
        at: u64,
        /// Its length.
        bytes: u64,
        /// How often it was tried there.
        attempts: usize,
        /// The last of the errors; none if the store ended the transfer as if it were whole.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The store has no room left, or our share of it is used up.
    #[error("no space is left for {url}")]
    Full {
        /// The object that was written.
        url: String,
        /// What the store says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Anything else, after all retries.
    #[error("cannot {verb} {url}")]
    Failed {
        /// What was tried.
        verb: &'static str,
        /// The object or folder.
        url: String,
        /// What the store or network says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A local file that cannot be read or written.
    #[error("cannot {verb} {path}")]
    Local {
        /// What was tried.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A shard that does not fit the folder into which shards are fetched.
    #[error("{url} has {bytes} bytes, above the limit of {limit} for all fetched shards together")]
    SpoolTooSmall {
        /// The shard.
        url: String,
        /// Its bytes.
        bytes: u64,
        /// `source.spool_bytes`.
        limit: u64,
    },
    /// The job was asked to stop while it waited.
    #[error("stopped while {url} was awaited")]
    Stopped {
        /// What was awaited.
        url: String,
    },
}

impl StoreError {
    /// A local error at `path`.
    pub fn local(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Local { verb, path: path.into(), source }
    }

    /// The error and its causes on one line, for those who can keep a text only.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        text
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Url { .. } => {
                Some("URLs begin with s3://bucket/, gs://, az://, http:// or https://")
            }
            Self::NotFound { .. } => Some("check bucket, path and the endpoint in the environment"),
            Self::Denied { url, .. } | Self::NoCredentials { url, .. } => {
                Some(credentials_hint(url))
            }
            Self::Full { .. } => Some(
                "raise the quota or free space, and start the same command again: whole parts are \
                 kept",
            ),
            Self::Changed { .. } => Some("start again when nobody writes to it any more"),
            Self::Failed { verb: "open", .. } => Some("check the variables that lead to the store"),
            Self::Broken { .. } | Self::Failed { .. } => Some(
                "start the same command again: whole parts are kept; `source.retries` and \
                 `source.timeout_secs` say how patient it is; if nothing ever answers, check the \
                 network and the endpoint in the environment, such as AWS_ENDPOINT_URL",
            ),
            Self::SpoolTooSmall { .. } => {
                Some("raise source.spool_bytes, and see that source.spool_dir has the room")
            }
            _ => None,
        }
    }
}

/// The variables that say who we are, by the cloud of a URL.
fn credentials_hint(url: &str) -> &'static str {
    match url.split(':').next() {
        Some("gs") => {
            "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to a file of them, or \
             GOOGLE_SKIP_SIGNATURE=true for a public bucket; reading needs the rights to get and \
             list, writing those to put and delete as well"
        }
        Some("az") => {
            "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or, for a public \
             container, AZURE_SKIP_SIGNATURE=true; reading needs the rights to get and list, \
             writing those to put and delete as well"
        }
        Some("s3") => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (files below ~/.aws are not read), \
             or AWS_SKIP_SIGNATURE=true for a public bucket; reading needs the rights to get and \
             list, writing those to put and delete as well"
        }
        _ => "the server asks who we are, and URLs of the web are read without credentials",
    }
}

/// A file that is written and not yet in its store; dropped, it leaves nothing there.
pub trait NewFile: Write + Send {
    /// A second way to write to its end, for a writer that takes one.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn handle(&self) -> io::Result<Box<dyn Write + Send>>;

    /// What was written so far, from its first byte on.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn read_back(&self) -> io::Result<File>;

    /// Makes it the object of its name; an object of that name is replaced.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the name then holds what it held before, or this file whole.
    fn keep(self: Box<Self>) -> Result<(), StoreError>;

    /// Makes it the object `name`, unless that is taken: then another name can be tried.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] if the name is taken.
    fn keep_new(&self, name: &str) -> Result<(), StoreError>;
}

/// A whole object, open for reading at any place.
pub trait ReadAt: Send + Sync {
    /// Its length.
    fn bytes(&self) -> u64;

    /// Fills as much of `into` as it likes from byte `at` on: how many; 0 only at the end.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; [`StoreError::Changed`] if the object was replaced since it was opened.
    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize, StoreError>;
}

/// A folder of durable objects, local or remote. Names are relative and use `/`.
pub trait Store: Send + Sync {
    /// Where it is, for messages.
    fn place(&self) -> String;

    /// Writes `bytes` whole under a name that nobody has taken.
    ///
    /// An answer of a remote store may be lost and the put be repeated; an object that holds these
    /// very bytes then counts as made here.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] if the name is taken; else what went wrong.
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Begins a file that will have the name `name`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Local`].
    fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StoreError>;

    /// Writes `bytes` whole; an object of that name is replaced.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the name then holds what it held before, or these bytes.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut file = self.create(name)?;
        let path = || PathBuf::from(format!("{}/{name}", self.place()));
        file.write_all(bytes).map_err(|e| StoreError::local("write", &path(), e))?;
        file.keep()
    }

    /// Opens an object.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError`].
    fn open(&self, name: &str) -> Result<Arc<dyn ReadAt>, StoreError>;

    /// All bytes of an object.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], [`StoreError`].
    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError>;

    /// All bytes of several small objects, in order; a remote store is asked for many at once.
    ///
    /// # Errors
    ///
    /// That of the first that fails.
    fn get_all(&self, names: &[String]) -> Result<Vec<Vec<u8>>, StoreError> {
        names.iter().map(|name| self.get(name)).collect()
    }

    /// Bytes `range` of an object, by one request.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::Answer`] if the object is shorter.
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, StoreError>;

    /// The same in `buffer`, where a store can read into given memory; what it held is lost.
    ///
    /// # Errors
    ///
    /// As of [`Store::get_range`].
    fn get_range_in(
        &self,
        name: &str,
        range: Range<u64>,
        _buffer: Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        self.get_range(name, range)
    }

    /// Length, time and ETag of an object; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn head(&self, name: &str) -> Result<Option<ObjectInfo>, StoreError>;

    /// The names of the objects in a folder such as `receipts`, sorted, without those in folders
    /// below it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; a folder that is not there is empty.
    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError>;

    /// The names at its top, objects and folders alike, sorted.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; a store that is not there is empty.
    fn top_names(&self) -> Result<Vec<String>, StoreError>;

    /// Removes an object; nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_root_and_a_key() {
        let url = RemoteUrl::parse("s3://bucket/a%20b/{0}.tar").unwrap().unwrap();
        assert_eq!((url.root.as_str(), url.key.as_str()), ("s3://bucket", "a%20b/{0}.tar"));
        assert_eq!((url.scheme(), url.host()), ("s3", "bucket"));
        assert_eq!(url.to_string(), "s3://bucket/a%20b/{0}.tar");
        let url = RemoteUrl::parse("http://host:80/a%20b.tar").unwrap().unwrap();
        assert_eq!((url.host(), url.key.as_str()), ("host:80", "a b.tar"));
        assert_eq!(RemoteUrl::parse("a/100%.tar").unwrap(), None);
    }

    #[test]
    fn a_wrong_url_is_named() {
        for (url, message) in [
            ("ftp://host/a.tar", "not one of s3, gs, az, http, https"),
            ("s3:///a.tar", "no bucket or host"),
            ("https://host/a.tar?x=1", "a query or fragment"),
            ("http://host/a%zz", "no UTF-8 text"),
            ("http://host/a%f", "no UTF-8 text"),
        ] {
            let error = RemoteUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains(url), "{error}");
        }
    }

    #[test]
    fn a_weak_etag_is_no_condition() {
        let info =
            |etag: &str| ObjectInfo { bytes: 1, etag: Some(etag.to_owned()), modified_secs: 0 };
        assert_eq!(info("\"ab\"").strong_etag().unwrap(), "\"ab\"");
        assert_eq!(info("W/\"ab\"").strong_etag(), None);
        assert_eq!(info("W/\"ab\"").etag_text().unwrap(), "etag-ab");
    }
}
