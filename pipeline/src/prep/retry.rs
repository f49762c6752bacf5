//! Rejected samples, tried again.
//!
//! In: a data set, its shards, and settings that may have changed (a limit was raised, a format is
//! read now). Out: a part for each shard of whose rejected samples some are rows now, appended as a
//! new snapshot. Never: tries what damage of the shard or a repeated key cost: that needs another
//! shard, and `run` with `runtime.redo_changed`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catlip_schemas::{Counts, NumberedSource, PartName, Receipt, SampleId, SourceUse};

use super::change::{Draft, commit};
use super::error::ChangeError;
use super::folder::Folder;
use super::numbers::Numbers;
use super::plan::PrepPlan;
use super::quarantine::check_outside;
use super::rejects::{SAMPLE_REPEATS, SHARD_DAMAGE, read_ledger};
use super::run::make_parts;
use super::snapshot::{DataSet, Part};
use super::work::{Listed, Receipts, receipts_of, source_now};
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::source::{ShardList, ShardUrl};

/// A rejected sample: its shard and its offset there.
type At = (String, i64);

/// What a retry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySummary {
    /// Number of the snapshot.
    pub snapshot: u64,
    /// Samples that were tried.
    pub tried: u64,
    /// Of these, those that are rows now.
    pub recovered: u64,
    /// Entries of the ledger that a retry cannot mend.
    pub final_rejects: u64,
    /// Why the others are still rejected.
    pub rejects: BTreeMap<String, u64>,
}

/// Tries the rejected samples of the newest snapshot again; `ledgers` names Parquet files of them
/// where only some are meant.
///
/// # Errors
///
/// [`ChangeError::ConfigChanged`] for another rule or size of row groups,
/// [`ChangeError::SourcesChanged`], [`ChangeError::ShardsNotNamed`]; those of a run.
pub fn retry(
    shards: &ShardList,
    output: impl Into<Folder>,
    ledgers: &[PathBuf],
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<RetrySummary, PrepError> {
    let output = &output.into();
    check_outside(&plan.config.budget, output)?;
    let data = DataSet::open(output)?;
    check_plan(&data, plan)?;
    let mut numbers = Numbers::load(output, Some(&data))?;
    let (open, final_rejects) = open_rejects(&data, &numbers, ledgers)?;
    let mut by_shard: BTreeMap<&str, HashSet<u64>> = BTreeMap::new();
    for (shard, offset) in open.keys() {
        by_shard.entry(shard).or_default().insert(u64::try_from(*offset).unwrap_or(0));
    }
    let found = find_shards(&data, shards, plan, &by_shard)?;
    let parts = give_numbers(output, &data, &mut numbers, found.keys().copied().collect())?;
    let present = Receipts::list(output)?;
    let listed: Vec<Listed<'_>> = found
        .into_iter()
        .map(|(name, shard)| {
            let part = parts[name];
            let is_made = present.has(part, plan.config_tag());
            let only = by_shard.get(name).cloned().map(Arc::new);
            Listed { part, shard, is_made, only }
        })
        .collect();
    let todo: Vec<&Listed<'_>> = listed.iter().filter(|listed| !listed.is_made).collect();
    make_parts(&todo, output, plan, metrics, stop)?;
    if stop.load(Ordering::Relaxed) {
        let parts = listed.len() as u64;
        return Err(PrepError::Interrupted { done: metrics.parts.get(), parts });
    }
    let made = receipts_of(output, plan.config_tag(), listed.iter().map(|l| l.part))?;
    let receipts: Vec<Receipt> = made.into_values().collect();
    let mut sum = Counts::default();
    receipts.iter().for_each(|receipt| sum.merge(&receipt.counts));
    let manifest = commit_retried(output, &data, &receipts, &open)?;
    Ok(RetrySummary {
        snapshot: manifest,
        tried: sum.samples,
        recovered: sum.rows,
        final_rejects,
        rejects: sum.rejects,
    })
}

/// Rows of one data set share their labels and the size of row groups.
fn check_plan(data: &DataSet, plan: &PrepPlan) -> Result<(), PrepError> {
    let then = data.manifest.column_sets.iter();
    let names: BTreeSet<&str> = then.clone().map(|entry| entry.name.as_str()).collect();
    let rows_then = then.clone().find_map(|entry| entry.rows_per_group);
    let mut keys = Vec::new();
    for set in plan.column_set_entries() {
        if !names.contains(set.name.as_str()) {
            keys.push(format!("the column set {}, which the data set lacks", set.name));
        }
        if set.rows_per_group.is_some() && set.rows_per_group != rows_then {
            let number = |rows: Option<u32>| rows.map_or("none".to_owned(), |n| n.to_string());
            let (now, then) = (number(set.rows_per_group), number(rows_then));
            keys.push(format!("image.rows_per_group: {now}, was {then}"));
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    Err(ChangeError::ConfigChanged {
        path: data.folder.place(),
        was: "was",
        found: plan.config_tag().to_owned(),
        expected: data.manifest.config_hash[..8].to_owned(),
        keys,
    }
    .into())
}

/// The entries of the ledger that stand, with their reasons, and how many a retry cannot mend.
fn open_rejects(
    data: &DataSet,
    numbers: &Numbers,
    ledgers: &[PathBuf],
) -> Result<(HashMap<At, String>, u64), PrepError> {
    let mut open: HashMap<At, (String, SampleId)> = HashMap::new();
    let mut recovered = HashSet::new();
    // A part of a higher number has the later word.
    for part in &data.parts {
        if let Some(file) = part.files.get("rejects") {
            for reject in read_ledger(&data.folder, &file.file)? {
                let id = SampleId::new(&reject.shard, reject.key.as_bytes());
                open.insert((reject.shard, reject.offset), (reject.reason, id));
            }
        }
        let is_retried = numbers.source(part.name).is_some_and(|s| s.samples != SourceUse::Whole);
        if is_retried {
            recovered.extend(data.read_sample_ids(part)?);
        }
    }
    open.retain(|_, (_, id)| !recovered.contains(id));
    if !ledgers.is_empty() {
        let mut wanted = HashSet::new();
        for path in ledgers {
            let (folder, name) = find_ledger(data, path)?;
            wanted.extend(read_ledger(&folder, &name)?.into_iter().map(|r| (r.shard, r.offset)));
        }
        open.retain(|at, _| wanted.contains(at));
    }
    let before = open.len();
    let is_final =
        |reason: &str| SHARD_DAMAGE.contains(&reason) || SAMPLE_REPEATS.contains(&reason);
    open.retain(|_, (reason, _)| !is_final(reason));
    let final_rejects = (before - open.len()) as u64;
    Ok((open.into_iter().map(|(at, (reason, _))| (at, reason)).collect(), final_rejects))
}

/// Where a ledger lies that the user named: in the data set, or in a local folder.
fn find_ledger(data: &DataSet, path: &Path) -> Result<(Folder, String), PrepError> {
    let inside = path.strip_prefix(data.folder.place()).ok().and_then(Path::to_str);
    if let Some(name) = inside {
        return Ok((data.folder.clone(), name.to_owned()));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    let message = || "it has no file name in UTF-8".to_owned();
    let name = name.ok_or_else(|| ChangeError::Table { path: path.into(), message: message() })?;
    Ok((Folder::from(path.parent().unwrap_or(Path::new(""))), name.to_owned()))
}

/// The shards of the rejected samples, which must be what they were.
fn find_shards<'s, 'n>(
    data: &DataSet,
    shards: &'s ShardList,
    plan: &PrepPlan,
    wanted: &BTreeMap<&'n str, HashSet<u64>>,
) -> Result<BTreeMap<&'n str, &'s ShardUrl>, PrepError> {
    let mut found = BTreeMap::new();
    let (mut absent, mut changed) = (Vec::new(), Vec::new());
    for &name in wanted.keys() {
        let Some(shard) = shards.0.iter().find(|shard| shard.name == name) else {
            absent.push(name.to_owned());
            continue;
        };
        let now = source_now(shard, plan)?;
        // The newest part of the shard is the one whose ledger counts.
        let part = data.parts.iter().rev().find(|part| part.source.shard == name);
        if let Some(part) = part.filter(|part| part.source != now) {
            changed.push(format!(
                "{name} (part {}): {} bytes, was {}",
                part.name, now.bytes, part.source.bytes
            ));
        }
        found.insert(name, shard);
    }
    if !absent.is_empty() {
        return Err(ChangeError::ShardsNotNamed { shards: absent }.into());
    }
    if !changed.is_empty() {
        return Err(ChangeError::SourcesChanged { shards: changed }.into());
    }
    Ok(found)
}

/// The numbers of the retried parts; those that a retry which ended early gave are used.
fn give_numbers<'n>(
    output: &Folder,
    data: &DataSet,
    numbers: &mut Numbers,
    shards: Vec<&'n str>,
) -> Result<HashMap<&'n str, PartName>, PrepError> {
    let samples = SourceUse::RejectsOf(data.manifest.snapshot);
    loop {
        let given: HashMap<String, PartName> = numbers
            .all()
            .filter(|(_, source)| source.samples == samples)
            .map(|(part, source)| (source.shard.clone(), part))
            .collect();
        let new: Vec<NumberedSource> = shards
            .iter()
            .filter(|name| !given.contains_key(**name))
            .map(|name| NumberedSource { shard: (*name).to_owned(), samples: samples.clone() })
            .collect();
        if new.is_empty() {
            return Ok(shards.iter().map(|&name| (name, given[name])).collect());
        }
        numbers.give(new);
        if !numbers.keep(output)? {
            *numbers = Numbers::load(output, Some(data))?;
        }
    }
}

/// Appends the parts that have rows; what they recovered leaves the totals of the ledger.
fn commit_retried(
    output: &Folder,
    data: &DataSet,
    receipts: &[Receipt],
    open: &HashMap<At, String>,
) -> Result<u64, PrepError> {
    let mut tried: HashMap<&str, BTreeMap<String, u64>> = HashMap::new();
    for ((shard, _), reason) in open {
        *tried.entry(shard).or_default().entry(reason.clone()).or_default() += 1;
    }
    let manifest = commit(output, |old| {
        let mut draft = Draft::of(old.unwrap_or(data));
        let mut rows = 0;
        for receipt in receipts.iter().filter(|receipt| receipt.counts.rows > 0) {
            let part = Part::from_receipt(receipt)
                .map_err(|source| PrepError::Schema { path: output.place(), source })?;
            if draft.parts.iter().any(|known| known.name == part.name) {
                continue;
            }
            let before = tried.get(receipt.source.shard.as_str()).cloned().unwrap_or_default();
            draft.totals.subtract(&Counts { rejects: before, ..Counts::default() });
            draft.totals.merge(&Counts { samples: 0, ..receipt.counts.clone() });
            draft.parts.push(part);
            rows += receipt.counts.rows;
        }
        draft.change = format!("retry: {rows} rows of rejected samples");
        Ok(draft)
    })?;
    Ok(manifest.snapshot)
}
