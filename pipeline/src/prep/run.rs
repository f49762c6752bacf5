//! The job: parts that are missing are made, then all are committed as one snapshot.
//!
//! In: the shard list, the plan, the output folder. Out: a committed data set, or an error and the
//! parts that are whole. Started again it goes on; started again after success it does nothing;
//! started with more shards it appends.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use catlip_schemas::columns::receipt_file;
use catlip_schemas::{Counts, JobConfig, Manifest, PartName, Receipt, SourceUse};

use super::change::json_text;
use super::error::ChangeError;
use super::folder::Folder;
use super::join::RunCommit;
use super::memory::PARTS_AT_ONCE;
use super::numbers::Numbers;
use super::part::{PartJob, make_part};
use super::plan::PrepPlan;
use super::snapshot::DataSet;
use super::watch::Watch;
use super::work::{Listed, Receipts, Work, receipts_of};
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::source::ShardList;
use crate::source::spool::{Spool, SpoolOptions};

/// What a job came to.
#[derive(Clone, Debug)]
pub struct PrepSummary {
    /// Number of the snapshot.
    pub snapshot: u64,
    /// Parts made by this run; the others were there.
    pub parts_made: u64,
    /// All parts of the snapshot.
    pub parts: u64,
    /// What became of all samples.
    pub totals: Counts,
}

impl PrepSummary {
    /// For people: what was made, where.
    pub fn text(&self, output: &Path) -> String {
        let totals = &self.totals;
        let mut text = String::new();
        if self.parts_made == 0 {
            let _ = writeln!(text, "nothing to do: all {} parts were there", self.parts);
        }
        let _ = writeln!(
            text,
            "{}: snapshot {}, {} rows from {} samples in {} parts, {} captions, {} synsets",
            output.display(),
            self.snapshot,
            totals.rows,
            totals.samples,
            self.parts,
            totals.captions,
            totals.synsets
        );
        for (reason, count) in &totals.rejects {
            let _ = writeln!(text, "    rejected: {count} × {reason} (see rejects/)");
        }
        text
    }
}

/// One of n jobs that make the parts of one list together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which one. Counted from 0 or from 1: n of n is 0 of n.
    pub index: u32,
    /// n.
    pub of: u32,
}

impl Share {
    /// Whether a part is this job's: its number mod n.
    pub fn has(&self, part: PartName) -> bool {
        part.shard % self.of.max(1) == self.index % self.of.max(1)
    }
}

/// Runs the job.
///
/// # Errors
///
/// [`PrepError`]; parts that were finished stay and are not made again.
pub fn run(
    shards: &ShardList,
    output: impl Into<Folder>,
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<PrepSummary, PrepError> {
    let output = &output.into();
    let work = Work::find(shards, output, plan, false)?;
    let parts = work.listed.len() as u64;
    let todo = missing(&work, metrics, None);
    make_parts(&todo, output, plan, metrics, stop)?;
    if stop.load(Ordering::Relaxed) {
        return Err(PrepError::Interrupted { done: metrics.parts.get(), parts });
    }
    let wanted = work.listed.iter().map(|listed| listed.part).collect();
    commit_whole(output, plan, &work.numbers, wanted, todo.len() as u64)
}

/// Commits a job all of whose parts are there, `parts_made` of them made by this run.
///
/// # Errors
///
/// Those of [`RunCommit::commit`].
pub fn commit_whole(
    output: &Folder,
    plan: &PrepPlan,
    numbers: &Numbers,
    wanted: Vec<PartName>,
    parts_made: u64,
) -> Result<PrepSummary, PrepError> {
    let job = RunCommit {
        config_hash: &plan.config_hash,
        config: &plan.config_json,
        column_sets: &plan.column_set_entries(),
        may_redo: Some(plan),
        damaged_shards: plan.config.budget.damaged_shards,
        numbers,
        wanted,
    };
    Ok(summary(&job.commit(output)?, parts_made))
}

/// Makes this job's share of the missing parts and commits nothing: how many were made, of how many
/// that the share has.
///
/// # Errors
///
/// As [`run`].
pub fn run_share(
    shards: &ShardList,
    output: impl Into<Folder>,
    plan: &PrepPlan,
    share: Share,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<(u64, u64), PrepError> {
    let output = &output.into();
    let work = Work::find(shards, output, plan, false)?;
    let parts = work.listed.iter().filter(|listed| share.has(listed.part)).count() as u64;
    let todo = missing(&work, metrics, Some(share));
    make_parts(&todo, output, plan, metrics, stop)?;
    if stop.load(Ordering::Relaxed) {
        return Err(PrepError::Interrupted { done: metrics.parts.get(), parts });
    }
    Ok((todo.len() as u64, parts))
}

/// Commits the parts that jobs of [`run_share`] made: all that have a number, unless `is_partial`
/// is content with those that have a receipt.
///
/// # Errors
///
/// [`ChangeError::PartsMissing`], [`ChangeError::WhichConfig`], [`PrepError::DamagedShards`].
pub fn commit_shares(
    output: impl Into<Folder>,
    config_tag: Option<&str>,
    is_partial: bool,
    damaged_shards: u64,
) -> Result<PrepSummary, PrepError> {
    let output = &output.into();
    let old = DataSet::open_newest(output)?;
    let present = Receipts::list(output)?;
    let config = unfinished_config(output, &present, config_tag)?;
    let numbers = Numbers::load(output, old.as_ref())?;
    let tag = &config.config_hash[..8];
    let committed: HashSet<PartName> = old
        .iter()
        .filter(|data| data.manifest.config_hash == config.config_hash)
        .flat_map(|data| data.parts.iter().map(|part| part.name))
        .collect();
    let is_made = |part: PartName| committed.contains(&part) || present.has(part, tag);
    let (mut wanted, mut missing) = (Vec::new(), Vec::new());
    for (part, source) in numbers.all() {
        let newest = numbers.parts_of(&source.shard).next() == Some(part);
        match (newest && source.samples == SourceUse::Whole, is_made(part)) {
            (true, true) => wanted.push(part),
            (true, false) => missing.push(format!("{part}: {}", source.shard)),
            _ => {}
        }
    }
    if !missing.is_empty() && !is_partial {
        let parts = (missing.len() + wanted.len()) as u64;
        return Err(ChangeError::PartsMissing { missing, parts }.into());
    }
    let made = wanted.iter().filter(|part| !committed.contains(part)).count() as u64;
    let job = RunCommit {
        config_hash: &config.config_hash,
        config: &config.config,
        column_sets: &config.column_sets,
        may_redo: None,
        damaged_shards,
        numbers: &numbers,
        wanted,
    };
    let manifest = job.commit(output)?;
    Ok(summary(&manifest, made))
}

/// The config of the jobs that are to be joined.
fn unfinished_config(
    output: &Folder,
    present: &Receipts,
    config_tag: Option<&str>,
) -> Result<JobConfig, PrepError> {
    let mut configs = present.configs(output)?;
    if let Some(tag) = config_tag {
        configs.retain(|config| config.config_hash.starts_with(tag));
    }
    match (configs.pop(), configs.len()) {
        (Some(config), 0) => Ok(config),
        (None, _) if config_tag.is_none() => Err(PrepError::NotThere { path: output.place() }),
        (last, others) => {
            let all = configs.iter().chain(&last).map(|config| config.config_hash[..8].to_owned());
            let tags = all.collect::<Vec<_>>().join(", ");
            let found = others + usize::from(last.is_some());
            Err(ChangeError::WhichConfig { path: output.place(), found, tags }.into())
        }
    }
}

fn summary(manifest: &Manifest, parts_made: u64) -> PrepSummary {
    PrepSummary {
        snapshot: manifest.snapshot,
        parts_made,
        parts: manifest.parts.parts,
        totals: manifest.totals.clone(),
    }
}

/// The parts that are to be made; those of the share that are there are counted.
fn missing<'w, 's>(
    work: &'w Work<'s>,
    metrics: &PrepMetrics,
    share: Option<Share>,
) -> Vec<&'w Listed<'s>> {
    let is_mine = |listed: &&Listed<'_>| share.is_none_or(|share| share.has(listed.part));
    let mine = || work.listed.iter().filter(is_mine);
    metrics.parts.add(mine().filter(|listed| listed.is_made).count() as u64);
    mine().filter(|listed| !listed.is_made).collect()
}

/// Makes parts, several at a time.
///
/// # Errors
///
/// The first [`PrepError`] of a part.
pub fn make_parts(
    todo: &[&Listed<'_>],
    output: &Folder,
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    stop: &AtomicBool,
) -> Result<(), PrepError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(plan.threads())
        .thread_name(|i| format!("prep-{i}"))
        .build()
        .map_err(|e| {
            PrepError::io("start threads for", &output.place(), std::io::Error::other(e))
        })?;
    let spool = SpoolOptions {
        folder: plan.config.source.spool_dir.clone().into(),
        bytes_max: plan.config.source.spool_bytes,
    };
    let shards = todo.iter().map(|listed| listed.shard);
    let spool = Spool::start(shards, plan.remote.clone(), spool)?;
    let parts = metrics.parts.get() + todo.len() as u64;
    let watch = Watch::new(&plan.config.budget, stop, metrics, parts);
    let next = AtomicU64::new(0);
    let first_error: Mutex<Option<PrepError>> = Mutex::new(None);
    let work = || {
        while !watch.ends() {
            let index = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(listed) = todo.get(index) else { return };
            let (part, shard, only) = (listed.part, listed.shard, listed.only.as_deref());
            let make = || {
                let bytes = &spool.open(shard, stop)?;
                let watch = &watch;
                let job = PartJob { plan, output, part, shard, bytes, metrics, watch, only };
                pool.install(|| make_part(&job))?.keep(metrics)
            };
            let done = make().and_then(|r| write_receipt(output, plan.config_tag(), part, &r));
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

/// Writes the receipt of a part; if another job did so first, both must have come to the same.
///
/// # Errors
///
/// [`PrepError::OutputTaken`], [`PrepError::Io`], [`PrepError::DiskFull`], [`PrepError::Store`].
pub fn write_receipt(
    output: &Folder,
    config_tag: &str,
    part: PartName,
    receipt: &Receipt,
) -> Result<(), PrepError> {
    if output.put_new(&receipt_file(part, config_tag), &json_text(receipt))?
        || receipts_of(output, config_tag, [part])?.get(&part) == Some(receipt)
    {
        return Ok(());
    }
    Err(PrepError::OutputTaken {
        path: output.place(),
        message: format!("is being written by another job, which made another part {part}"),
    })
}

#[cfg(test)]
#[path = "run_tests.rs"]
pub(super) mod tests;
