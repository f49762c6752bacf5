//! Shards that are read as they are: an index of them instead of a copy.
//!
//! In: plain tar shards. Out: a data set of `image.mode` `reference` in a folder beside them: where
//! each image lies, its captions and their synsets. It is made in one pass, found again by the
//! pattern that named the shards, and appended to when that matches more of them. So the order, the
//! cursor and the ledger of shards are those of any data set.

use std::path::{Path, PathBuf, absolute};
use std::sync::atomic::AtomicBool;

use super::plan::PrepPlan;
use super::run::{PrepSummary, run};
use crate::config::PrepConfig;
use crate::error::{ConfigError, PrepError};
use crate::metrics::PrepMetrics;
use crate::source::ShardList;
use crate::source::list::is_shard_name;

/// How the folder of an index begins; a dot hides it from globs.
const FOLDER_PREFIX: &str = ".catlip-index-";

/// Where an index is, and what it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The folder below which the shards lie: names of shards are relative to it.
    pub root: PathBuf,
    /// The data set.
    pub folder: PathBuf,
    /// What it is prepared with, besides what the user said.
    pub settings: Vec<String>,
}

/// Whether `text` names shards rather than the folder of a data set.
pub fn names_shards(text: &str) -> bool {
    !Path::new(text).is_dir() && (text.starts_with('@') || is_shard_name(text))
}

/// Where the index of the local shards `inputs` under `settings` is, whether or not it was made.
///
/// # Errors
///
/// [`PrepError::Source`] for a pattern that matches nothing, or a URL;
/// [`PrepError::Io`] where the current folder is gone.
pub fn index_of(inputs: &[String], settings: &[String]) -> Result<Index, PrepError> {
    let whole = |input: &String| match input.strip_prefix('@') {
        Some(list) => absolute(list).map(|path| format!("@{}", path.display())),
        None => absolute(input).map(|path| path.display().to_string()),
    };
    let inputs: Vec<String> = inputs
        .iter()
        .map(|input| whole(input).map_err(|e| PrepError::io("find", Path::new(input), e)))
        .collect::<Result<_, _>>()?;
    let root = match &inputs[..] {
        // Stays the same when the pattern matches more shards.
        [only] if !only.starts_with('@') => fixed_folder(only),
        _ => shared_folder(&ShardList::expand(&inputs, None)?),
    };
    let key = [&inputs[..], settings].concat().join("\n");
    let name = format!("{FOLDER_PREFIX}{}", &blake3::hash(key.as_bytes()).to_hex()[..16]);
    let mode = "image.mode=reference".to_owned();
    let root_setting = format!("source.root={}", toml::Value::from(root.display().to_string()));
    Ok(Index { folder: root.join(name), root, settings: vec![mode, root_setting] })
}

/// Makes or brings up to date the index of the local shards `inputs`.
///
/// # Errors
///
/// As of [`run`]; [`PrepError::NoByteRanges`] for a compressed shard; [`ConfigError::Value`] for a
/// setting that only an index decides.
pub fn make_index(
    inputs: &[String],
    settings: &[String],
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<(Index, PrepSummary), PrepError> {
    let index = index_of(inputs, settings)?;
    for (own, expected) in index.settings.iter().filter_map(|setting| setting.split_once('=')) {
        let mut said = settings.iter().filter_map(|setting| setting.split_once('='));
        if let Some((_, found)) = said.find(|(key, _)| key.trim() == own) {
            return Err(ConfigError::Value {
                origin: format!("--set {own}={found}"),
                key: own.to_owned(),
                found: found.trim().to_owned(),
                expected: format!("{expected}, which `index` sets itself"),
            }
            .into());
        }
    }
    let all = [settings, &index.settings[..]].concat();
    let plan = PrepPlan::new(PrepConfig::load(None, &all)?)?;
    let list = ShardList::expand(inputs, Some(&index.root))?;
    let summary = run(&list, &index.folder, &plan, metrics, stop)?;
    Ok((index, summary))
}

/// The folder before the first wildcard or brace.
fn fixed_folder(input: &str) -> PathBuf {
    let fixed = match Path::new(input).is_file() {
        true => input,
        false => &input[..input.find(['*', '?', '[', '{']).unwrap_or(input.len())],
    };
    match fixed.rsplit_once('/') {
        None | Some(("", _)) => "/".into(),
        Some((folder, _)) => folder.into(),
    }
}

/// The folder to which the names of a list are relative.
fn shared_folder(list: &ShardList) -> PathBuf {
    let Some(first) = list.0.first() else { return PathBuf::new() };
    let depth = first.name.split('/').count();
    first.path().ancestors().nth(depth).map_or_else(PathBuf::new, Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_pattern_is_what_stands_before_it() {
        assert_eq!(fixed_folder("/data/cc/train-{000..099}.tar"), Path::new("/data/cc"));
        assert_eq!(fixed_folder("/data/*/a.tar"), Path::new("/data"));
        assert_eq!(fixed_folder("/a.tar"), Path::new("/"));
    }

    #[test]
    fn an_index_is_found_again_by_its_pattern() {
        let inputs = ["shards/train-{000..099}.tar".to_owned()];
        let index = index_of(&inputs, &[]).unwrap();
        assert_eq!(index, index_of(&inputs, &[]).unwrap());
        assert!(index.root.is_absolute() && index.root.ends_with("shards"));
        assert_eq!(index.folder.parent(), Some(index.root.as_path()));
        let other = index_of(&inputs, &["caption.rule=nouns".to_owned()]).unwrap();
        assert_ne!(index.folder, other.folder);
        assert!(names_shards("train-{000..099}.tar") && names_shards("@list.txt"));
        assert!(!names_shards("data/train"));
    }

    #[test]
    fn what_makes_an_index_is_not_said_otherwise() {
        let settings = ["caption.rule=nouns".to_owned(), "image.mode = \"keep\"".to_owned()];
        let inputs = ["shards/train-{000..099}.tar".to_owned()];
        let (metrics, stop) = (PrepMetrics::default(), AtomicBool::new(false));
        let error = make_index(&inputs, &settings, &metrics, &stop).unwrap_err();
        let PrepError::Config(error) = error else { panic!("{error}") };
        let message = "--set image.mode= \"keep\": `image.mode` is \"keep\", expected reference, \
                       which `index` sets itself";
        assert_eq!(error.to_string(), message);
    }
}
