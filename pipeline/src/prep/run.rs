//! The job: parts that are missing are made, then all are committed as one snapshot.
//!
//! In: the shard list, the plan, the output folder. Out: a committed data set, or an error and the
//! parts that are whole. Started again it goes on; started again after success it does nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use catlip_schemas::columns::receipt_file;
use catlip_schemas::{ColumnSet, Counts, PartName, Receipt};

use super::columns::RejectRow;
use super::commit::write_new;
use super::part::{PartJob, PartWatch, make_part, source_entry};
use super::plan::PrepPlan;
use super::snapshot;
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::source::object::Remote;
use crate::source::spool::{Spool, SpoolOptions, identity};
use crate::source::{ShardList, ShardUrl};

/// Parts that are made at the same time, so that one is written while another is decoded.
const PARTS_AT_ONCE: usize = 2;

/// Folders that a data set has at its top; anything else there is somebody else's.
const KNOWN_NAMES: [&str; 6] = ["images", "meta", "captions", "rejects", "receipts", "manifest"];

/// What a job came to.
#[derive(Clone, Debug)]
pub struct PrepSummary {
    /// Number of the snapshot.
    pub snapshot: u64,
    /// Parts made by this run; the others were there.
    pub parts_made: u64,
    /// All parts.
    pub parts: u64,
    /// What became of all samples.
    pub totals: Counts,
}

/// Runs a job of local shards.
///
/// # Errors
///
/// [`PrepError`]; parts that were finished stay and are not made again.
pub fn run(
    shards: &ShardList,
    output: &Path,
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<PrepSummary, PrepError> {
    run_with(shards, None, output, plan, metrics, stop)
}

/// As [`run`], with the way to the stores in which shards lie.
///
/// # Errors
///
/// As of [`run`]; [`PrepError::Store`].
pub fn run_with(
    shards: &ShardList,
    remote: Option<&Arc<Remote>>,
    output: &Path,
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<PrepSummary, PrepError> {
    check_output(output, plan)?;
    let todo = missing_parts(shards, output, plan, remote)?;
    let parts = shards.0.len() as u64;
    metrics.parts.add(parts - todo.len() as u64);
    let parts_made = todo.len() as u64;
    let spool = SpoolOptions {
        folder: plan.config.source.spool_dir.clone().into(),
        bytes_max: plan.config.source.spool_bytes,
    };
    let spool = Spool::start(todo.iter().map(|&(_, shard)| shard), remote.cloned(), spool)?;
    make_parts(&todo, &spool, output, plan, metrics, stop)?;
    if stop.load(Ordering::Relaxed) {
        return Err(PrepError::Interrupted { done: metrics.parts.get(), parts });
    }
    let receipts = read_receipts(output, plan, parts)?;
    let totals = check_damage(&receipts, plan)?;
    let snapshot = snapshot::commit_first(output, plan, &receipts, &totals)?;
    Ok(PrepSummary { snapshot, parts_made, parts, totals })
}

/// The folder must be empty, absent, or this very job's.
fn check_output(output: &Path, plan: &PrepPlan) -> Result<(), PrepError> {
    let taken = |message: String| PrepError::OutputTaken { path: output.into(), message };
    let entries = match std::fs::read_dir(output) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(PrepError::io("read", output, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| PrepError::io("read", output, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = KNOWN_NAMES.contains(&name.as_str())
            || ColumnSet::from_name(&name).is_some()
            || matches!(name.as_str(), "vocab" | "README.md");
        if !known && !name.starts_with('.') {
            return Err(taken(format!("holds `{name}`, which is no part of a data set")));
        }
    }
    if let Some(manifest) = snapshot::newest(output)?
        && manifest.config_hash != plan.config_hash
    {
        return Err(taken(format!(
            "already holds another run: snapshot {} of config {}, this one is {}",
            manifest.snapshot,
            &manifest.config_hash[..8],
            plan.config_tag()
        )));
    }
    for name in receipt_names(output)? {
        if !name.ends_with(&format!("-{}.json", plan.config_tag())) {
            return Err(taken(format!(
                "already holds another run: receipts/{name} is not of config {}",
                plan.config_tag()
            )));
        }
    }
    Ok(())
}

fn receipt_names(output: &Path) -> Result<Vec<String>, PrepError> {
    let folder = output.join("receipts");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(PrepError::io("read", &folder, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| PrepError::io("read", &folder, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn part_name(number: usize) -> PartName {
    PartName { shard: u32::try_from(number).unwrap_or(u32::MAX), cut: 0 }
}

/// The parts without a receipt. A receipt of another shard, or of one that changed, is refused.
fn missing_parts<'s>(
    shards: &'s ShardList,
    output: &Path,
    plan: &PrepPlan,
    remote: Option<&Arc<Remote>>,
) -> Result<Vec<(PartName, &'s ShardUrl)>, PrepError> {
    let present: BTreeMap<String, ()> =
        receipt_names(output)?.into_iter().map(|name| (name, ())).collect();
    if present.len() > shards.0.len() {
        return Err(PrepError::OutputTaken {
            path: output.into(),
            message: format!(
                "already holds another run: {} parts, the input names {} shards",
                present.len(),
                shards.0.len()
            ),
        });
    }
    let mut todo = Vec::new();
    for (number, shard) in shards.0.iter().enumerate() {
        let part = part_name(number);
        let file = receipt_file(part, plan.config_tag());
        let name = file.trim_start_matches("receipts/");
        if !present.contains_key(name) {
            todo.push((part, shard));
            continue;
        }
        let path = output.join(&file);
        let receipt = read_receipt(&path)?;
        let now = source_entry(shard, &identity(shard, remote)?);
        if now == receipt.source {
            continue;
        }
        let committed = snapshot::newest(output)?.is_some();
        if committed || !plan.config.runtime.redo_changed {
            let identity = |s: &catlip_schemas::SourceEntry| {
                format!("{} of {} bytes, ETag {}", s.shard, s.bytes, s.etag)
            };
            return Err(PrepError::SourceChanged {
                shard: shard.name.clone(),
                part: part.to_string(),
                found: identity(&now),
                expected: identity(&receipt.source),
            });
        }
        std::fs::remove_file(&path).map_err(|e| PrepError::io("remove", &path, e))?;
        todo.push((part, shard));
    }
    Ok(todo)
}

fn read_receipt(path: &Path) -> Result<Receipt, PrepError> {
    let bytes = std::fs::read(path).map_err(|e| PrepError::io("read", path, e))?;
    Receipt::from_json(&bytes)
        .map_err(|source| PrepError::Schema { path: path.to_path_buf(), source })
}

fn read_receipts(output: &Path, plan: &PrepPlan, parts: u64) -> Result<Vec<Receipt>, PrepError> {
    (0..parts as usize)
        .map(|number| {
            read_receipt(&output.join(receipt_file(part_name(number), plan.config_tag())))
        })
        .collect()
}

/// Budget and stop flag, shared by the parts in work.
struct Watch<'w> {
    plan: &'w PrepPlan,
    stop: &'w AtomicBool,
    /// Set when one part failed, so that the others end early.
    failed: AtomicBool,
    samples: AtomicU64,
    rejects: AtomicU64,
    parts: u64,
    metrics: &'w PrepMetrics,
}

impl PartWatch for Watch<'_> {
    fn check(&self, samples: u64, rejects: &[RejectRow]) -> Result<(), PrepError> {
        if self.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed) {
            return Err(PrepError::Interrupted {
                done: self.metrics.parts.get(),
                parts: self.parts,
            });
        }
        let added = rejects.len() as u64;
        let samples = self.samples.fetch_add(samples, Ordering::Relaxed) + samples;
        let failed = self.rejects.fetch_add(added, Ordering::Relaxed) + added;
        let budget = &self.plan.config.budget;
        let rate = failed as f64 / samples.max(1) as f64;
        match rejects.last() {
            Some(last) if samples >= budget.probation && rate > budget.failure_rate => {
                Err(PrepError::FailureRate {
                    failed,
                    samples,
                    rate: 100.0 * rate,
                    budget: 100.0 * budget.failure_rate,
                    last: format!(
                        "shard {}, key {}: {}",
                        last.source_shard, last.key, last.message
                    ),
                })
            }
            _ => Ok(()),
        }
    }
}

fn make_parts(
    todo: &[(PartName, &ShardUrl)],
    spool: &Spool,
    output: &Path,
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<(), PrepError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(plan.threads())
        .thread_name(|i| format!("prep-{i}"))
        .build()
        .map_err(|e| PrepError::io("start threads in", output, std::io::Error::other(e)))?;
    let watch = Watch {
        plan,
        stop,
        failed: AtomicBool::new(false),
        samples: AtomicU64::new(0),
        rejects: AtomicU64::new(0),
        parts: metrics.parts.get() + todo.len() as u64,
        metrics,
    };
    let next = AtomicU64::new(0);
    let first_error: Mutex<Option<PrepError>> = Mutex::new(None);
    let work = || {
        while !watch.failed.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(&(part, shard)) = todo.get(index) else { return };
            let make = || {
                let bytes = &spool.open(shard, stop)?;
                let job = PartJob { plan, output, part, shard, bytes, metrics, watch: &watch };
                pool.install(|| make_part(&job))
            };
            let done = make().and_then(|r| write_receipt(output, plan, part, &r));
            match done {
                Ok(()) => metrics.parts.add(1),
                Err(error) => {
                    watch.failed.store(true, Ordering::Relaxed);
                    let mut first = first_error.lock().unwrap_or_else(|e| e.into_inner());
                    first.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..PARTS_AT_ONCE.min(todo.len()) {
            scope.spawn(work);
        }
    });
    match first_error.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn write_receipt(
    output: &Path,
    plan: &PrepPlan,
    part: PartName,
    receipt: &Receipt,
) -> Result<(), PrepError> {
    let path: PathBuf = output.join(receipt_file(part, plan.config_tag()));
    let bytes = snapshot::json_text(receipt);
    match write_new(&path, &bytes) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            // Another job on the same output made the same part; it must have come to the same.
            let theirs = read_receipt(&path)?;
            if theirs == *receipt {
                return Ok(());
            }
            Err(PrepError::OutputTaken {
                path: output.into(),
                message: format!("is being written by another job, which made another part {part}"),
            })
        }
        other => other.map_err(|e| PrepError::io("write", &path, e)),
    }
}

/// The totals, if no more shards are damaged than the budget allows.
fn check_damage(receipts: &[Receipt], plan: &PrepPlan) -> Result<Counts, PrepError> {
    let mut totals = Counts::default();
    let mut damaged = Vec::new();
    for receipt in receipts {
        totals.merge(&receipt.counts);
        for reason in ["shard-cut", "shard-damaged"] {
            if receipt.counts.rejects.contains_key(reason) {
                let ledger = receipt.files.iter().find(|f| f.column_set == "rejects");
                let ledger = ledger.map_or("", |f| f.file.as_str());
                damaged.push(format!("{}: {reason}, see {ledger}", receipt.source.shard));
            }
        }
    }
    let budget = plan.config.budget.damaged_shards;
    if damaged.len() as u64 > budget {
        return Err(PrepError::DamagedShards { shards: damaged, budget });
    }
    Ok(totals)
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
