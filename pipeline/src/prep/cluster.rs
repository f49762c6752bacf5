//! A job whose parts are made by many machines.
//!
//! In: shards, plan and output of a job. Out: on the driver a [`ClusterJob`], which says what is
//! missing, judges the budget and commits once; on each machine a [`Worker`], which makes one part
//! by the function that [`super::run::run`] makes it by. Between them go bytes: what all tasks
//! share ([`ClusterJob::spec`]), one [`PartTask`] a part, and back a [`Tally`]. Never: a state
//! beside the output. A receipt that is there is a part that is made, so a task may be started
//! twice, or at two places at once, and a job whose driver is gone goes on by the same command.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use catlip_schemas::columns::receipt_file;
use catlip_schemas::{Counts, PartName, Receipt};
use serde::{Deserialize, Serialize};

use super::change::json_text;
use super::folder::Folder;
use super::numbers::Numbers;
use super::open::Surroundings;
use super::plan::PrepPlan;
use super::rejects::{FILTER_PREFIX, read_ledger};
use super::run::{PrepSummary, commit_whole, make_parts};
use super::watch::{failure_text, judge};
use super::work::{Listed, Receipts, Work, differences, receipts_of};
use crate::config::PrepConfig;
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::source::list::ShardPlace;
use crate::source::store::RemoteUrl;
use crate::source::{ShardUrl, SourceError};

/// What a machine must know of a job, whatever part it makes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct JobSpec {
    /// Of the driver's program.
    version: String,
    /// Path or URL.
    output: PathBuf,
    /// Paths in it are absolute.
    config: PrepConfig,
    /// What the driver makes of it.
    config_hash: String,
    config_json: serde_json::Value,
}

/// One part to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartTask {
    /// Number of the part.
    pub number: u32,
    /// The shard: its name, and where it lies; a path is absolute.
    pub shard: ShardUrl,
    /// Whether it is made although its receipt is there, since one of its files is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_lost: bool,
}

/// What became of some parts: what a task returns, and several of them merged in any order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Parts.
    pub parts: u64,
    /// Bytes of their shards.
    pub source_bytes: u64,
    /// What became of their samples.
    pub counts: Counts,
    /// The last of them that has a bad sample.
    pub last_failed: Option<u32>,
}

impl Tally {
    fn of(part: PartName, receipt: &Receipt) -> Self {
        let mut tally = Self {
            parts: 1,
            source_bytes: receipt.source.bytes,
            counts: receipt.counts.clone(),
            last_failed: None,
        };
        tally.last_failed = (tally.failed() > 0).then_some(part.shard);
        tally
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.parts += other.parts;
        self.source_bytes += other.source_bytes;
        self.counts.merge(&other.counts);
        self.last_failed = self.last_failed.max(other.last_failed);
    }

    /// Entries of the ledger that a budget is charged with: not what the config does not want.
    pub fn failed(&self) -> u64 {
        let is_failure = |(reason, _): &(&String, &u64)| !reason.starts_with(FILTER_PREFIX);
        self.counts.rejects.iter().filter(is_failure).map(|(_, count)| count).sum()
    }

    /// As bytes, to be sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        json_text(self)
    }

    /// From the bytes of [`Tally::to_bytes`].
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PrepError> {
        sent("tally", bytes)
    }
}

/// A job on its driver.
pub struct ClusterJob {
    /// As it was said: what is left open, each machine settles for itself.
    config: PrepConfig,
    plan: PrepPlan,
    output: Folder,
    numbers: Numbers,
    /// All parts of the list.
    wanted: Vec<PartName>,
    tasks: Vec<PartTask>,
    /// Of the tasks that were taken.
    totals: Tally,
}

impl ClusterJob {
    /// Expands `inputs`, compares them with what is in `output` and gives numbers to new shards,
    /// as [`super::run::run`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Surroundings::job`] and [`Work::find`]; [`SourceError::PathNotUtf8`].
    pub fn plan(
        config: PrepConfig,
        inputs: &[String],
        output: &Path,
        surroundings: &Surroundings,
    ) -> Result<Self, PrepError> {
        let (shards, plan, output) = surroundings.job(config.clone(), inputs, output)?;
        let (shards, output) = (&shards, &output);
        let work = Work::find(shards, output, &plan, false)?;
        // Only where files may be lost are there receipts of parts that are not made.
        let present = match plan.config.runtime.redo_lost {
            true => Some(Receipts::list(output)?),
            false => None,
        };
        let has_receipt = |part| present.as_ref().is_some_and(|p| p.has(part, plan.config_tag()));
        let task = |listed: &Listed<'_>| {
            Ok(PartTask {
                number: listed.part.shard,
                shard: ShardUrl { place: whole_place(listed.shard)?, ..listed.shard.clone() },
                is_lost: has_receipt(listed.part),
            })
        };
        let missing = work.listed.iter().filter(|listed| !listed.is_made);
        let tasks = missing.map(task).collect::<Result<_, PrepError>>()?;
        let wanted = work.listed.iter().map(|listed| listed.part).collect();
        let (output, numbers) = (output.clone(), work.numbers);
        Ok(Self { config, plan, output, numbers, wanted, tasks, totals: Tally::default() })
    }

    /// The parts that are missing.
    pub fn tasks(&self) -> &[PartTask] {
        &self.tasks
    }

    /// Number of all parts of the list.
    pub fn num_parts(&self) -> u64 {
        self.wanted.len() as u64
    }

    /// Parts that are whole: those that were there, and those of the tasks that were taken.
    pub fn parts_made(&self) -> u64 {
        self.num_parts() - self.tasks.len() as u64 + self.totals.parts
    }

    /// The settings.
    pub fn config(&self) -> &PrepConfig {
        &self.config
    }

    /// What a process that makes parts takes of a machine's memory, in bytes.
    pub fn process_bytes(&self) -> u64 {
        self.plan.memory.process_bytes()
    }

    /// What [`Worker::open`] needs, for workers of so many threads each: about 3 kB.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`] if there is no current folder for paths that are relative to it;
    /// [`SourceError::PathNotUtf8`].
    pub fn spec(&self, threads: usize) -> Result<Vec<u8>, PrepError> {
        let mut config = self.config.clone();
        config.runtime.threads = threads;
        let (filter, budget) = (&mut config.filter, &mut config.budget);
        for path in [&mut filter.keep_keys, &mut filter.drop_keys, &mut budget.quarantine_dir] {
            *path = whole_text(Path::new(&*path))?;
        }
        let output = match self.output.is_local() {
            true => whole_text(&self.output.place())?.into(),
            false => self.output.place(),
        };
        Ok(json_text(&JobSpec {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            output,
            config,
            config_hash: self.plan.config_hash.clone(),
            config_json: self.plan.config_json.clone(),
        }))
    }

    /// What came of the tasks that were taken.
    pub fn totals(&self) -> &Tally {
        &self.totals
    }

    /// Counts what came of some tasks, each once, and judges the budget as a run in one process
    /// does: by all samples so far.
    ///
    /// # Errors
    ///
    /// [`PrepError::FailureRate`], [`PrepError::FailureCount`].
    pub fn take(&mut self, tally: &Tally) -> Result<(), PrepError> {
        self.totals.merge(tally);
        let (samples, failed) = (self.totals.counts.samples, self.totals.failed());
        judge(&self.plan.config.budget, samples, failed, || self.last_failure(&self.totals))
    }

    /// The last bad sample of a tally, from the ledger of its part.
    fn last_failure(&self, tally: &Tally) -> Result<String, PrepError> {
        let Some(shard) = tally.last_failed else { return Ok(String::new()) };
        let part = PartName { shard, cut: 0 };
        let receipts = receipts_of(&self.output, self.plan.config_tag(), [part])?;
        let files = receipts.values().flat_map(|receipt| &receipt.files);
        let Some(file) = files.into_iter().find(|file| file.column_set == "rejects") else {
            return Ok(format!("part {part}"));
        };
        let ledger = read_ledger(&self.output, &file.file)?;
        let last = ledger.iter().rfind(|reject| !reject.reason.starts_with(FILTER_PREFIX));
        Ok(last.map_or_else(
            || format!("part {part}"),
            |reject| failure_text(&reject.shard, &reject.key, reject.offset, &reject.message),
        ))
    }

    /// Commits the list as one snapshot, once all tasks are done; reads their receipts.
    ///
    /// # Errors
    ///
    /// As [`super::run::run`].
    pub fn commit(&self) -> Result<PrepSummary, PrepError> {
        let made = self.tasks.len() as u64;
        commit_whole(&self.output, &self.plan, &self.numbers, self.wanted.clone(), made)
    }

    /// The error of a job that a signal asked to stop.
    pub fn interrupted(&self) -> PrepError {
        PrepError::Interrupted { done: self.parts_made(), parts: self.num_parts() }
    }
}

/// A job on one machine of the cluster.
pub struct Worker {
    plan: PrepPlan,
    output: Folder,
}

impl Worker {
    /// Opens the job that the driver calls `spec`.
    ///
    /// # Errors
    ///
    /// [`PrepError::OtherMachine`] if the same settings mean something else here; those of
    /// [`Surroundings::plan`].
    pub fn open(spec: &[u8], surroundings: &Surroundings) -> Result<Self, PrepError> {
        let version: Version = sent("job", spec)?;
        let found = env!("CARGO_PKG_VERSION");
        if version.version != found {
            return Err(PrepError::OtherMachine {
                what: "version of catlip",
                found: found.to_owned(),
                expected: version.version,
                keys: Vec::new(),
            });
        }
        let mut spec: JobSpec = sent("job", spec)?;
        // A rate is judged over all parts, so by the driver.
        spec.config.budget.failure_rate = 1.0;
        let (plan, output) = surroundings.plan(spec.config, &spec.output)?;
        if plan.config_hash == spec.config_hash {
            return Ok(Self { plan, output });
        }
        Err(PrepError::OtherMachine {
            what: "config",
            found: plan.config_tag().to_owned(),
            expected: spec.config_hash.chars().take(8).collect(),
            keys: differences(&spec.config_json, &plan.config_json),
        })
    }

    /// Makes one part, if nobody has: its files, then its receipt, of which the counts are
    /// returned.
    ///
    /// # Errors
    ///
    /// As [`make_parts`]; [`PrepError::Interrupted`] once `stop` is set.
    pub fn make(&self, task: &PartTask, stop: &AtomicBool) -> Result<Tally, PrepError> {
        let part = PartName { shard: task.number, cut: 0 };
        if !task.is_lost
            && let Some(receipt) = self.receipt(part)?
        {
            return Ok(Tally::of(part, &receipt));
        }
        let listed = Listed { part, shard: &task.shard, is_made: false, only: None };
        make_parts(&[&listed], &self.output, &self.plan, &PrepMetrics::default(), stop)?;
        let made = if stop.load(Ordering::Relaxed) { None } else { self.receipt(part)? };
        let made = made.ok_or(PrepError::Interrupted { done: 0, parts: 1 })?;
        Ok(Tally::of(part, &made))
    }

    /// The receipt of a part under this config.
    fn receipt(&self, part: PartName) -> Result<Option<Receipt>, PrepError> {
        let name = receipt_file(part, self.plan.config_tag());
        let Some(bytes) = self.output.find(&name)? else { return Ok(None) };
        Receipt::from_json(&bytes)
            .map(Some)
            .map_err(|source| PrepError::Schema { path: self.output.path(&name), source })
    }
}

/// The part of a [`JobSpec`] that every version has.
#[derive(Deserialize)]
struct Version {
    version: String,
}

impl PartTask {
    /// As bytes, to be sent: about 200 of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        json_text(self)
    }

    /// From the bytes of [`PartTask::to_bytes`].
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PrepError> {
        sent("task", bytes)
    }
}

/// Reads what another machine sent.
fn sent<T: for<'d> Deserialize<'d>>(what: &str, bytes: &[u8]) -> Result<T, PrepError> {
    serde_json::from_slice(bytes).map_err(|e| {
        PrepError::io("understand", Path::new(&format!("a {what} that was sent here")), e.into())
    })
}

/// Where a shard lies, said so that every machine understands it.
fn whole_place(shard: &ShardUrl) -> Result<ShardPlace, PrepError> {
    Ok(match &shard.place {
        ShardPlace::Local(path) => ShardPlace::Local(whole_text(path)?.into()),
        remote => remote.clone(),
    })
}

/// A path from the root on; a URL and an empty path stay.
fn whole_text(path: &Path) -> Result<String, PrepError> {
    let wrong = || SourceError::PathNotUtf8 { path: path.to_string_lossy().into_owned() };
    let text = path.to_str().ok_or_else(wrong)?;
    if text.is_empty() || RemoteUrl::parse(text)?.is_some() {
        return Ok(text.to_owned());
    }
    let whole = std::path::absolute(path).map_err(|e| PrepError::io("find", path, e))?;
    Ok(whole.to_str().ok_or_else(wrong)?.to_owned())
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
