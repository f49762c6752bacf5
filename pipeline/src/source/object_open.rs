//! How a store is opened, and what its answers mean in our words.
//!
//! In: a URL, the environment's variables and how patient to be. Out: a store of `object_store`;
//! paths, facts and errors of the house. Nothing here waits for the network.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, Error, ObjectMeta, ObjectStore, RetryConfig};

use super::store::{ObjectInfo, RemoteUrl, StoreError};

/// The first pause after a failure; each further one is drawn up to twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Seconds for an answer of a cloud's metadata service, which is beside the machine: it takes
/// milliseconds, and with [`METADATA_RETRIES`] a machine without one is told so in 10 s or less.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the metadata service is asked again.
const METADATA_RETRIES: usize = 2;

/// How stores are reached and how patiently.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// The environment's variables that begin with `AWS_`, `GOOGLE_` or `AZURE_`: endpoints,
    /// regions, credentials.
    pub variables: Vec<(String, String)>,
    /// Ranged requests of one shard at the same time.
    pub requests: usize,
    /// How often a request is repeated that brings nothing.
    pub retries: usize,
    /// Seconds without a byte after which a transfer counts as broken.
    pub timeout_secs: f64,
    /// The first pause before a request is repeated.
    pub pause_first: Duration,
    /// Folder of the files that are being written, before they are put.
    pub scratch: PathBuf,
}

impl RemoteOptions {
    /// The defaults, with those of the environment's `variables` that are of stores; files that are
    /// written lie in `scratch` before they are put.
    pub fn new(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        scratch: PathBuf,
    ) -> Self {
        let of_stores = ["AWS_", "GOOGLE_", "AZURE_"];
        let variables = variables
            .into_iter()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(key, _)| of_stores.iter().any(|start| key.starts_with(start)))
            .collect();
        Self { variables, scratch, ..Self::default() }
    }
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            variables: Vec::new(),
            requests: 8,
            retries: 8,
            timeout_secs: 30.0,
            pause_first: PAUSE_FIRST,
            scratch: PathBuf::new(),
        }
    }
}

/// How patiently a store is asked, and by which client.
#[derive(Clone)]
struct Patience {
    client: ClientOptions,
    retry: RetryConfig,
}

impl Patience {
    fn new(options: &RemoteOptions) -> Self {
        let timeout = Duration::from_secs_f64(options.timeout_secs);
        // The limit is on silence, not on the whole transfer: a slow line is no broken line.
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_read_timeout(timeout)
            .with_connect_timeout(timeout);
        let backoff =
            BackoffConfig { init_backoff: options.pause_first, max_backoff: PAUSE_MAX, base: 2.0 };
        let retry_timeout = timeout.saturating_mul(1 + options.retries as u32);
        Self { client, retry: RetryConfig { backoff, max_retries: options.retries, retry_timeout } }
    }

    /// That with which the cloud's metadata service is asked for credentials. It answers at once
    /// or, on a machine of no cloud, never.
    fn for_metadata(&self) -> Self {
        Self {
            client: self.client.clone().with_read_timeout(METADATA_TIMEOUT),
            retry: RetryConfig {
                max_retries: METADATA_RETRIES,
                retry_timeout: METADATA_TIMEOUT,
                ..self.retry.clone()
            },
        }
    }
}

/// What in the name of a variable says that credentials, or that none are needed, come with it.
fn credential_words(scheme: &str) -> &'static [&'static str] {
    match scheme {
        "s3" => &["access_key", "token", "container_credentials", "skip_signature"],
        "gs" => &["service_account", "application_credentials", "skip_signature"],
        _ => &["key", "token", "sas", "client", "emulator", "skip_signature"],
    }
}

/// Opens the store of a URL with what the environment says of it.
pub(super) fn open(
    url: &RemoteUrl,
    options: &RemoteOptions,
) -> Result<Arc<dyn ObjectStore>, Error> {
    let patience = Patience::new(options);
    let start = match url.scheme() {
        "s3" => "aws_",
        "gs" => "google_",
        _ => "azure_",
    };
    let variables = options.variables.iter().map(|(key, value)| (key.to_lowercase(), value));
    let variables: Vec<_> = variables.filter(|(key, _)| key.starts_with(start)).collect();
    let words = credential_words(url.scheme());
    let has_credentials =
        variables.iter().any(|(key, _)| words.iter().any(|word| key.contains(word)));
    let quick = patience.for_metadata();
    Ok(match url.scheme() {
        "s3" => {
            let mut builder = s3(url, &variables, patience);
            if !has_credentials {
                let asked = s3(url, &variables, quick).build()?;
                builder = builder.with_credentials(asked.credentials().clone());
            }
            Arc::new(builder.build()?)
        }
        "gs" => {
            let mut builder = gs(url, &variables, patience);
            if !has_credentials {
                let asked = gs(url, &variables, quick).build()?;
                builder = builder.with_credentials(asked.credentials().clone());
            }
            Arc::new(builder.build()?)
        }
        "az" => {
            let mut builder = az(url, &variables, patience);
            if !has_credentials {
                let asked = az(url, &variables, quick).build()?;
                builder = builder.with_credentials(asked.credentials().clone());
            }
            Arc::new(builder.build()?)
        }
        _ => {
            let client = patience.client.with_allow_http(is_plain(&url.root));
            let builder = HttpBuilder::new().with_client_options(client).with_retry(patience.retry);
            Arc::new(builder.with_url(url.root.clone()).build()?)
        }
    })
}

/// Variables of one cloud: names in lower case, and their values.
type Variables<'v> = [(String, &'v String)];

fn is_plain(value: &str) -> bool {
    value.starts_with("http://")
}

/// Whether one of the variables whose names begin so leads to an endpoint without TLS.
fn has_plain(variables: &Variables<'_>, start: &str) -> bool {
    variables.iter().any(|(key, value)| key.starts_with(start) && is_plain(value))
}

fn s3(url: &RemoteUrl, variables: &Variables<'_>, patience: Patience) -> AmazonS3Builder {
    let mut client = patience.client;
    if has_plain(variables, "aws_endpoint_url") {
        client = client.with_allow_http(true);
    }
    let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(patience.retry);
    for (key, value) in variables {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, *value);
        }
    }
    builder.with_bucket_name(url.host())
}

fn gs(url: &RemoteUrl, variables: &Variables<'_>, patience: Patience) -> GoogleCloudStorageBuilder {
    let client = patience.client.with_allow_http(has_plain(variables, "google_base_url"));
    let mut builder =
        GoogleCloudStorageBuilder::new().with_client_options(client).with_retry(patience.retry);
    for (key, value) in variables {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, *value);
        }
    }
    builder.with_bucket_name(url.host())
}

fn az(url: &RemoteUrl, variables: &Variables<'_>, patience: Patience) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(patience.client)
        .with_retry(patience.retry);
    for (key, value) in variables {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, *value);
        }
    }
    builder.with_container_name(url.host())
}

pub(super) fn info_of(meta: &ObjectMeta) -> ObjectInfo {
    ObjectInfo {
        bytes: meta.size,
        etag: meta.e_tag.clone(),
        modified_secs: meta.last_modified.timestamp(),
    }
}

pub(super) fn path_of(url: &RemoteUrl) -> Result<Path, StoreError> {
    Path::parse(&url.key)
        .map_err(|e| StoreError::Url { url: url.to_string(), message: e.to_string() })
}

pub(super) fn failed(verb: &'static str, url: &RemoteUrl, error: Error) -> StoreError {
    let text = url.to_string();
    if lacks_credentials(&error) {
        return StoreError::NoCredentials { url: text, source: Box::new(error) };
    }
    match error {
        Error::NotFound { .. } => StoreError::NotFound { url: text },
        Error::AlreadyExists { .. } => StoreError::Exists { url: text },
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
            StoreError::Denied { url: text, source }
        }
        // Lists have no outcomes of their own.
        other if verb == "list" && other.to_string().contains("404 Not Found") => {
            StoreError::NotFound { url: text }
        }
        other if verb == "list" && other.to_string().contains("403 Forbidden") => {
            StoreError::Denied { url: text, source: Box::new(other) }
        }
        other if is_full(&other) => StoreError::Full { url: text, source: Box::new(other) },
        other => StoreError::Failed { verb, url: text, source: Box::new(other) },
    }
}

/// Whether credentials were looked for in the environment and then asked of the cloud, in vain. The
/// library has no kind of error for it: the address that was asked tells.
fn lacks_credentials(error: &Error) -> bool {
    let text = error.to_string();
    let asked =
        ["/latest/api/token", "/latest/meta-data/iam", "/computeMetadata/", "/metadata/identity/"];
    let lacking = ["Missing AccessKeyId", "Missing SecretAccessKey", "Account must be specified"];
    asked.iter().chain(&lacking).any(|words| text.contains(words))
}

/// Whether a store said that nothing more fits: HTTP has a status for it, S3 and Google codes.
fn is_full(error: &Error) -> bool {
    let text = error.to_string();
    ["507 Insufficient Storage", "QuotaExceeded", "QuotaLimit", "StorageFull"]
        .iter()
        .any(|code| text.contains(code))
}

/// Grows with the attempts to [`PAUSE_MAX`]; drawn, so that many readers do not come back at once.
pub(super) fn pause(first: Duration, attempts: usize) -> Duration {
    let most = first.saturating_mul(1 << attempts.min(16)).min(PAUSE_MAX);
    let drawn = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    most.mul_f64(0.5 + 0.5 * drawn)
}
