//! The part of a shard list that lies in stores.
//!
//! In: URLs, folders and globs. Out: the objects that they name, with length and ETag. Asks as
//! seldom as it can: names of one folder are looked up in one list of it.

use std::collections::{BTreeMap, HashMap};

use super::list::{ShardPlace, SourceError, is_glob, is_shard_name};
use super::object::Remote;
use super::store::{ObjectInfo, RemoteUrl, StoreError};

/// Names in one folder from which on a list of the folder is cheaper: it tells 1,000 an answer.
const NAMES_FOR_LIST: usize = 32;

/// Limit of a list file: 10^7 names of 100 bytes.
const LIST_BYTES_MAX: u64 = 1 << 30;

/// The text of a list that lies in a store.
///
/// # Errors
///
/// [`SourceError`] if it cannot be read or is not UTF-8.
pub fn text(url: &RemoteUrl, remote: &Remote) -> Result<String, SourceError> {
    let info = &remote.heads(std::slice::from_ref(url))?[0];
    let answer = |message: String| StoreError::Answer { url: url.to_string(), message };
    if info.bytes > LIST_BYTES_MAX {
        let message = format!("a list of {} bytes, the limit is {LIST_BYTES_MAX}", info.bytes);
        return Err(answer(message).into());
    }
    let bytes = remote.get_range(url, Some(info), 0..info.bytes)?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        answer(format!("the list is not UTF-8 from its byte {at} on")).into()
    })
}

/// What was found for each name.
pub struct RemoteNames {
    found: HashMap<RemoteUrl, Vec<(RemoteUrl, ObjectInfo)>>,
}

impl RemoteNames {
    /// Looks up every name that is a URL; names that match nothing are told by
    /// [`RemoteNames::places`].
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub fn look_up(
        names: &[(String, String)],
        remote: Option<&Remote>,
    ) -> Result<Self, SourceError> {
        let mut found = HashMap::new();
        let mut exact: BTreeMap<RemoteUrl, Vec<RemoteUrl>> = BTreeMap::new();
        for (input, name) in names {
            let Some(url) = RemoteUrl::parse(name)? else { continue };
            let Some(remote) = remote else {
                return Err(SourceError::NotLocal { input: input.clone() });
            };
            if url.key.is_empty() || url.key.ends_with('/') {
                let mut objects = remote.list(&url, true)?;
                objects.retain(|(object, _)| is_shard_name(&object.key));
                found.insert(url, objects);
            } else if is_glob(&url.key) && !url.is_http() {
                let objects = matches(input, &url, remote)?;
                found.insert(url, objects);
            } else {
                exact.entry(folder_of(&url)).or_default().push(url);
            }
        }
        let Some(remote) = remote else { return Ok(Self { found }) };
        for (folder, urls) in exact {
            let is_many = urls.len() > NAMES_FOR_LIST && !folder.is_http();
            let objects = if is_many {
                let wanted: std::collections::HashSet<_> = urls.into_iter().collect();
                let mut objects = remote.list(&folder, false)?;
                objects.retain(|(object, _)| wanted.contains(object));
                objects
            } else {
                let infos = remote.heads(&urls)?;
                urls.into_iter().zip(infos).collect()
            };
            found.extend(objects.into_iter().map(|o| (o.0.clone(), vec![o])));
        }
        // Other stores than S3 write another ETag in lists than in answers.
        for objects in found.values_mut() {
            let unsure = |(url, _): &&mut (RemoteUrl, _)| url.scheme() != "s3" && !url.is_http();
            let unsure: Vec<_> = objects.iter_mut().filter(unsure).collect();
            let urls: Vec<_> = unsure.iter().map(|(url, _)| url.clone()).collect();
            for (object, info) in unsure.into_iter().zip(remote.heads(&urls)?) {
                object.1 = info;
            }
        }
        Ok(Self { found })
    }

    /// The objects that `url` names, sorted by name.
    ///
    /// # Errors
    ///
    /// [`SourceError::NoMatch`].
    pub fn places(&self, input: &str, url: &RemoteUrl) -> Result<Vec<ShardPlace>, SourceError> {
        let objects = self.found.get(url).filter(|objects| !objects.is_empty());
        let objects = objects.ok_or_else(|| SourceError::NoMatch {
            input: input.to_owned(),
            tried: url.to_string(),
        })?;
        Ok(objects
            .iter()
            .map(|(url, info)| ShardPlace::Remote(url.clone(), info.clone()))
            .collect())
    }
}

fn folder_of(url: &RemoteUrl) -> RemoteUrl {
    let folder = url.key.rsplit_once('/').map_or("", |(folder, _)| folder);
    RemoteUrl { root: url.root.clone(), key: folder.to_owned() }
}

/// The objects that match a glob; `*` does not cross a `/`, `**` does.
fn matches(
    input: &str,
    url: &RemoteUrl,
    remote: &Remote,
) -> Result<Vec<(RemoteUrl, ObjectInfo)>, SourceError> {
    let wrong = |message: String| SourceError::Pattern { input: input.to_owned(), message };
    let pattern = glob::Pattern::new(&url.key).map_err(|e| wrong(e.to_string()))?;
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let fixed = url.key.find(['*', '?', '[']).unwrap_or(url.key.len());
    let folder = url.key[..fixed].rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_deep = url.key[folder.len()..].trim_start_matches('/').contains('/');
    let folder = RemoteUrl { root: url.root.clone(), key: folder.to_owned() };
    let mut objects = remote.list(&folder, is_deep)?;
    objects.retain(|(object, _)| pattern.matches_with(&object.key, options));
    Ok(objects)
}
