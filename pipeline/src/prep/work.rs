//! What a job has to do: which parts of its list are there, which are missing, which changed.
//!
//! In: the shard list, the plan, the output folder. Out: a part for each shard, or why the folder
//! is not to be touched. Never: makes a part.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use catlip_schemas::columns::{ADDED_PREFIX, receipt_file};
use catlip_schemas::version::FORMAT_VERSION;
use catlip_schemas::{
    ColumnSet, JobConfig, NumberedSource, PartName, Receipt, SourceEntry, SourceUse,
};

use rayon::prelude::*;

use super::change::json_text;
use super::error::ChangeError;
use super::folder::Folder;
use super::numbers::Numbers;
use super::part::source_entry;
use super::plan::PrepPlan;
use super::quarantine::check_outside;
use super::snapshot::{DataSet, Part};
use crate::error::PrepError;
use crate::source::list::ShardPlace;
use crate::source::spool::identity;
use crate::source::{ShardList, ShardUrl};

/// Folders that a data set has at its top; anything else there is somebody else's.
const KNOWN_NAMES: [&str; 10] = [
    "images",
    "meta",
    "captions",
    "rejects",
    "receipts",
    "manifest",
    "sources",
    "tombstones",
    "vocab",
    "README.md",
];

/// One shard of the list.
#[derive(Clone, Debug)]
pub struct Listed<'s> {
    /// Its part.
    pub part: PartName,
    /// The shard.
    pub shard: &'s ShardUrl,
    /// Whether the part is whole, committed or not.
    pub is_made: bool,
    /// Only the samples at these offsets, where rejected ones are tried again.
    pub only: Option<Arc<HashSet<u64>>>,
}

/// The list of a job with its part numbers.
pub struct Work<'s> {
    /// The shards in the order of the list.
    pub listed: Vec<Listed<'s>>,
    /// Every number that was given.
    pub numbers: Numbers,
}

impl<'s> Work<'s> {
    /// Compares the list with what is there and gives numbers to new shards.
    ///
    /// With `is_dry` nothing is written.
    ///
    /// # Errors
    ///
    /// [`PrepError::OutputTaken`], [`ChangeError::ConfigChanged`], [`ChangeError::SourcesChanged`],
    /// [`ChangeError::SameShard`], [`PrepError::Io`], those of [`check_outside`].
    pub fn find(
        shards: &'s ShardList,
        output: &Folder,
        plan: &PrepPlan,
        is_dry: bool,
    ) -> Result<Self, PrepError> {
        check_outside(&plan.config.budget, output)?;
        check_names(output)?;
        let old = DataSet::open_newest(output)?;
        let present = check_configs(output, plan, old.as_ref())?;
        if !is_dry {
            keep_config(output, plan)?;
        }
        loop {
            let mut numbers = Numbers::load(output, old.as_ref())?;
            let known = Known::new(output, plan, old.as_ref(), &present, shards, &numbers)?;
            let fresh = known.unnumbered(shards, &numbers)?;
            numbers.give(fresh);
            if is_dry || numbers.keep(output)? {
                let mut listed = known.list(shards, &numbers);
                if plan.config.runtime.redo_lost {
                    forget_lost(output, plan.config_tag(), &present, &mut listed, is_dry)?;
                }
                return Ok(Self { listed, numbers });
            }
        }
    }
}

/// Has parts made again of which a file or the receipt is gone or has another length: the same
/// shard and config give the same bytes.
fn forget_lost(
    output: &Folder,
    config_tag: &str,
    present: &Receipts,
    listed: &mut [Listed<'_>],
    is_dry: bool,
) -> Result<(), PrepError> {
    let has_receipt = |part: PartName| present.has(part, config_tag);
    let kept = listed.iter().filter(|l| l.is_made && has_receipt(l.part)).map(|l| l.part);
    let receipts = receipts_of(output, config_tag, kept.collect::<Vec<_>>())?;
    for listed in listed.iter_mut().filter(|listed| listed.is_made) {
        let Some(receipt) = receipts.get(&listed.part) else {
            listed.is_made = false;
            continue;
        };
        for file in &receipt.files {
            let found = output.head(&file.file)?;
            if found.as_ref().is_some_and(|found| found.bytes == file.bytes) {
                continue;
            }
            listed.is_made = false;
            if found.is_some() && !is_dry {
                output.remove(&file.file)?;
            }
        }
    }
    Ok(())
}

/// The folder must be empty, absent, or hold nothing but a data set.
///
/// # Errors
///
/// [`PrepError::OutputTaken`], [`PrepError::Io`], [`PrepError::Store`].
pub fn check_names(output: &Folder) -> Result<(), PrepError> {
    for name in output.top_names()? {
        let known = KNOWN_NAMES.contains(&name.as_str())
            || ColumnSet::from_name(&name).is_some()
            || name.starts_with(ADDED_PREFIX);
        if !known && !name.starts_with('.') {
            return Err(PrepError::OutputTaken {
                path: output.place(),
                message: format!("holds `{name}`, which is no part of a data set"),
            });
        }
    }
    Ok(())
}

/// Receipts that are read at the same time: about 8 MB of them.
const RECEIPTS_AT_ONCE: usize = 1024;

/// The names of what lies in `receipts/`, listed once.
pub struct Receipts(BTreeSet<String>);

impl Receipts {
    /// Lists them; only a job that goes on needs to.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Store`].
    pub fn list(output: &Folder) -> Result<Self, PrepError> {
        Ok(Self(output.list("receipts")?.into_iter().collect()))
    }

    /// Whether a part, or a column set of it, has its receipt under that config.
    pub fn has(&self, part: PartName, config_tag: &str) -> bool {
        self.0.contains(receipt_file(part, config_tag).trim_start_matches("receipts/"))
    }

    /// The files of all receipts of parts.
    pub fn of_parts(&self) -> Vec<String> {
        let is_receipt = |name: &&String| name.starts_with("part-") && name.ends_with(".json");
        self.0.iter().filter(is_receipt).map(|name| format!("receipts/{name}")).collect()
    }

    /// The configs of the jobs that ever ran on `output`.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::Schema`], [`PrepError::Store`].
    pub fn configs(&self, output: &Folder) -> Result<Vec<JobConfig>, PrepError> {
        let names = self.0.iter().filter(|name| name.starts_with("config-"));
        names
            .map(|name| {
                let name = format!("receipts/{name}");
                JobConfig::from_json(&output.read(&name)?)
                    .map_err(|source| PrepError::Schema { path: output.path(&name), source })
            })
            .collect()
    }
}

/// Refuses to go on under another config; gives the names of the receipts that are there.
fn check_configs(
    output: &Folder,
    plan: &PrepPlan,
    old: Option<&DataSet>,
) -> Result<Receipts, PrepError> {
    let present = Receipts::list(output)?;
    if let Some(old) = old {
        check_same_config(output, plan, "was", &old.manifest.config_hash, &old.manifest.config)?;
        return Ok(present);
    }
    let configs = present.configs(output)?;
    let is_ours = |config: &JobConfig| config.config_hash == plan.config_hash;
    if configs.iter().any(is_ours) || plan.config.runtime.redo_config {
        return Ok(present);
    }
    for other in &configs {
        if !came_to_nothing(output, &present, &other.config_hash[..8])? {
            check_same_config(output, plan, "is being", &other.config_hash, &other.config)?;
        }
    }
    Ok(present)
}

/// Whether parts were made under a config and none has a row: so ends a job whose settings were
/// wrong, and one whose are right may take its place.
fn came_to_nothing(
    output: &Folder,
    present: &Receipts,
    config_tag: &str,
) -> Result<bool, PrepError> {
    let ending = format!("-{config_tag}.json");
    let mut files = present.of_parts();
    files.retain(|file| file.ends_with(&ending));
    let receipts = read_receipts(output, &files)?;
    Ok(!receipts.is_empty() && receipts.iter().all(|receipt| receipt.counts.rows == 0))
}

/// Refuses a plan of another config, unless everything is to be made again.
///
/// # Errors
///
/// [`ChangeError::ConfigChanged`] with the keys that differ.
pub fn check_same_config(
    output: &Folder,
    plan: &PrepPlan,
    was: &'static str,
    hash: &str,
    config: &serde_json::Value,
) -> Result<(), PrepError> {
    if hash == plan.config_hash || plan.config.runtime.redo_config {
        return Ok(());
    }
    let mut keys = differences(config, &plan.config_json);
    if keys.is_empty() {
        keys.push(format!(
            "the rule `{}` or the program, whose version is another",
            plan.rule.id()
        ));
    }
    Err(ChangeError::ConfigChanged {
        path: output.place(),
        was,
        found: plan.config_tag().to_owned(),
        expected: hash.chars().take(8).collect(),
        keys,
    }
    .into())
}

/// `section.key: now, was then` for each key that differs.
pub(super) fn differences(then: &serde_json::Value, now: &serde_json::Value) -> Vec<String> {
    fn flat(prefix: &str, value: &serde_json::Value, all: &mut BTreeMap<String, String>) {
        match value.as_object() {
            Some(table) => {
                for (key, value) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    flat(&format!("{prefix}{dot}{key}"), value, all);
                }
            }
            None => drop(all.insert(prefix.to_owned(), value.to_string())),
        }
    }
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flat("", then, &mut before);
    flat("", now, &mut after);
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let value = |all: &BTreeMap<String, String>, key: &String| {
        all.get(key).cloned().unwrap_or_else(|| "absent".to_owned())
    };
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| format!("{key}: {}, was {}", value(&after, key), value(&before, key)))
        .collect()
}

/// Writes down what the receipts of this config mean, so that `commit` needs no config.
fn keep_config(output: &Folder, plan: &PrepPlan) -> Result<(), PrepError> {
    let config = JobConfig {
        format_version: FORMAT_VERSION,
        config_hash: plan.config_hash.clone(),
        config: plan.config_json.clone(),
        column_sets: plan.column_set_entries(),
    };
    output.put_new(&JobConfig::file(plan.config_tag()), &json_text(&config)).map(|_| ())
}

/// Size and ETag of a shard as it is now.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Store`].
pub fn source_now(shard: &ShardUrl, plan: &PrepPlan) -> Result<SourceEntry, PrepError> {
    Ok(source_entry(shard, &identity(shard, plan.remote.as_ref())?))
}

/// Reads the receipts of these files, in order, many at the same time.
///
/// # Errors
///
/// [`PrepError::Io`], [`PrepError::Schema`], [`PrepError::Store`].
pub fn read_receipts(output: &Folder, files: &[String]) -> Result<Vec<Receipt>, PrepError> {
    let mut receipts = Vec::with_capacity(files.len());
    for names in files.chunks(RECEIPTS_AT_ONCE) {
        for (name, bytes) in names.iter().zip(output.read_all(names)?) {
            let receipt = Receipt::from_json(&bytes)
                .map_err(|source| PrepError::Schema { path: output.path(name), source })?;
            receipts.push(receipt);
        }
    }
    Ok(receipts)
}

/// The receipts of these parts under one config.
///
/// # Errors
///
/// As of [`read_receipts`].
pub fn receipts_of(
    output: &Folder,
    config_tag: &str,
    parts: impl IntoIterator<Item = PartName>,
) -> Result<BTreeMap<PartName, Receipt>, PrepError> {
    let parts: Vec<PartName> = parts.into_iter().collect();
    let files: Vec<String> = parts.iter().map(|&part| receipt_file(part, config_tag)).collect();
    Ok(parts.into_iter().zip(read_receipts(output, &files)?).collect())
}

/// What is there of the parts of one config.
struct Known<'k> {
    plan: &'k PrepPlan,
    committed: HashMap<PartName, &'k Part>,
    /// The shards of parts that are whole and not committed, as they were.
    made: BTreeMap<PartName, SourceEntry>,
    /// The shards of the list that have a number, as they are now.
    now: HashMap<&'k str, SourceEntry>,
}

impl<'k> Known<'k> {
    fn new(
        output: &Folder,
        plan: &'k PrepPlan,
        old: Option<&'k DataSet>,
        present: &Receipts,
        shards: &'k ShardList,
        numbers: &Numbers,
    ) -> Result<Self, PrepError> {
        let old = old.filter(|data| data.manifest.config_hash == plan.config_hash);
        let parts = old.iter().flat_map(|data| &data.parts);
        let committed: HashMap<PartName, &Part> = parts.map(|part| (part.name, part)).collect();
        let tag = plan.config_tag();
        let is_made = |part: &PartName| !committed.contains_key(part) && present.has(*part, tag);
        let parts = shards.0.iter().flat_map(|shard| numbers.parts_of(&shard.name));
        let made = receipts_of(output, tag, parts.filter(is_made))?;
        let made = made.into_iter().map(|(part, receipt)| (part, receipt.source)).collect();
        let numbered = shards.0.par_iter().filter(|s| numbers.parts_of(&s.name).next().is_some());
        let now = numbered
            .map(|shard| Ok((shard.name.as_str(), source_now(shard, plan)?)))
            .collect::<Result<_, PrepError>>()?;
        Ok(Self { plan, committed, made, now })
    }

    /// The shard that a part was made from, as it was then; `None` if it is not made.
    fn source(&self, part: PartName) -> Option<&SourceEntry> {
        let committed = self.committed.get(&part).map(|part| &part.source);
        committed.or_else(|| self.made.get(&part))
    }

    /// The shards of the list that need a number: new ones, and changed ones that may be redone.
    fn unnumbered(
        &self,
        shards: &ShardList,
        numbers: &Numbers,
    ) -> Result<Vec<NumberedSource>, PrepError> {
        let mut fresh = Vec::new();
        let mut changed = Vec::new();
        for shard in &shards.0 {
            let source = NumberedSource { shard: shard.name.clone(), samples: SourceUse::Whole };
            let Some(newest) = numbers.parts_of(&shard.name).next() else {
                if !self.committed.is_empty() {
                    self.check_other_names(shard)?;
                }
                fresh.push(source);
                continue;
            };
            let mut made = Vec::new();
            for part in numbers.parts_of(&shard.name) {
                made.extend(self.source(part).map(|source| (part, source)));
            }
            let Some((part, then)) = made.first() else { continue };
            let Some(now) = self.now.get(shard.name.as_str()) else { continue };
            if made.iter().any(|&(_, then)| then == now) {
                continue;
            }
            let identity = |s: &SourceEntry| format!("{} bytes, ETag {}", s.bytes, s.etag);
            changed.push(format!(
                "{} (part {part}): {}, was {}",
                shard.name,
                identity(now),
                identity(then)
            ));
            // The newest number is used if nothing was made under it.
            if *part == newest {
                fresh.push(source);
            }
        }
        if !changed.is_empty() && !self.plan.config.runtime.redo_changed {
            return Err(ChangeError::SourcesChanged { shards: changed }.into());
        }
        Ok(fresh)
    }

    /// The same file under another name means that the root is not what it was.
    fn check_other_names(&self, shard: &ShardUrl) -> Result<(), PrepError> {
        let file_name = |name: &str| name.rsplit('/').next().map(str::to_owned);
        let bytes = match &shard.place {
            ShardPlace::Local(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
            ShardPlace::Remote(_, info) => info.bytes,
        };
        let alike = self.committed.values().filter(|part| {
            part.source.bytes == bytes && file_name(&part.source.shard) == file_name(&shard.name)
        });
        for part in alike {
            if source_now(shard, self.plan)?.etag == part.source.etag {
                return Err(ChangeError::SameShard {
                    shard: shard.name.clone(),
                    part: part.name.to_string(),
                    known: part.source.shard.clone(),
                }
                .into());
            }
        }
        Ok(())
    }

    fn list<'s>(&self, shards: &'s ShardList, numbers: &Numbers) -> Vec<Listed<'s>> {
        let mut listed = Vec::with_capacity(shards.0.len());
        for shard in &shards.0 {
            let mut chosen = None;
            for part in numbers.parts_of(&shard.name) {
                if let Some(then) = self.source(part)
                    && self.now.get(shard.name.as_str()) == Some(then)
                {
                    chosen = Some(Listed { part, shard, is_made: true, only: None });
                    break;
                }
            }
            let newest = || numbers.parts_of(&shard.name).next();
            let unmade = || newest().map(|part| Listed { part, shard, is_made: false, only: None });
            listed.extend(chosen.or_else(unmade));
        }
        listed
    }
}
