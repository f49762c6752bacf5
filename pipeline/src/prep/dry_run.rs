//! What a job would do, without doing it.
//!
//! In: the same as a job, and a folder for a trial. Out: parts, bytes, and the time they are
//! expected to take, judged by preparing the first samples of the first missing shard. Never:
//! writes below the output.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::columns::RejectRow;
use super::folder::Folder;
use super::part::{PartJob, PartWatch, make_part};
use super::plan::PrepPlan;
use super::run::Share;
use super::work::{Listed, Work};
use crate::error::PrepError;
use crate::metrics::PrepMetrics;
use crate::source::ShardList;
use crate::source::list::ShardPlace;
use crate::source::spool::{Spool, SpoolOptions};

/// A trial goes on with whole batches until it took so long.
const TRIAL: Duration = Duration::from_secs(2);

/// What a job would do.
#[derive(Clone, Debug, PartialEq)]
pub struct DryRun {
    /// Parts that are there already.
    pub parts_made: u64,
    /// Parts that are missing.
    pub parts_missing: u64,
    /// Bytes of the shards of the parts that are missing.
    pub bytes_missing: u64,
    /// Names of the first parts that are missing, with their shards.
    pub first: Vec<String>,
    /// Threads of the job.
    pub threads: usize,
    /// What was tried; `None` if nothing is missing.
    pub trial: Option<Trial>,
}

/// The first samples of a job, prepared and thrown away.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The shard.
    pub shard: String,
    /// Samples that were tried.
    pub samples: u64,
    /// Bytes of their files in the shard.
    pub bytes_in: u64,
    /// Bytes of the images that came out.
    pub bytes_out: u64,
    /// How long they took.
    pub secs: f64,
}

impl DryRun {
    /// Seconds that the missing parts are expected to take.
    pub fn expected_secs(&self) -> Option<f64> {
        let trial = self.trial.as_ref().filter(|trial| trial.bytes_in > 0)?;
        Some(trial.secs * self.bytes_missing as f64 / trial.bytes_in as f64)
    }
}

/// Looks at a job; the trial is made below `scratch` and removed.
///
/// # Errors
///
/// As [`super::run::run`].
pub fn dry_run(
    shards: &ShardList,
    output: &Folder,
    plan: &PrepPlan,
    share: Option<Share>,
    scratch: &Path,
) -> Result<DryRun, PrepError> {
    let work = Work::find(shards, output, plan, true)?;
    let is_mine = |listed: &&Listed<'_>| share.is_none_or(|share| share.has(listed.part));
    let (made, missing): (Vec<&Listed<'_>>, Vec<_>) =
        work.listed.iter().filter(is_mine).partition(|listed| listed.is_made);
    let mut bytes_missing = 0;
    for listed in &missing {
        bytes_missing += match &listed.shard.place {
            ShardPlace::Local(path) => {
                std::fs::metadata(path).map_err(|e| PrepError::io("read", path, e))?.len()
            }
            ShardPlace::Remote(_, info) => info.bytes,
        };
    }
    let trial = missing.first().map(|listed| try_shard(listed, plan, scratch)).transpose()?;
    Ok(DryRun {
        parts_made: made.len() as u64,
        parts_missing: missing.len() as u64,
        bytes_missing,
        first: missing.iter().map(|l| format!("part {}: {}", l.part, l.shard.name)).collect(),
        threads: plan.threads(),
        trial,
    })
}

/// Ends a part after the time of a trial.
struct TrialWatch {
    until: Instant,
    ended: Mutex<Option<Instant>>,
}

impl PartWatch for TrialWatch {
    fn check(&self, _samples: u64, _rejects: &[RejectRow]) -> Result<(), PrepError> {
        let now = Instant::now();
        *self.ended.lock().unwrap_or_else(|e| e.into_inner()) = Some(now);
        match now < self.until {
            true => Ok(()),
            false => Err(PrepError::Interrupted { done: 0, parts: 1 }),
        }
    }
}

fn try_shard(listed: &Listed<'_>, plan: &PrepPlan, scratch: &Path) -> Result<Trial, PrepError> {
    let folder = scratch.join(format!("catlip-dry-run-{}", std::process::id()));
    let metrics = PrepMetrics::default();
    let start = Instant::now();
    let watch = TrialWatch { until: start + TRIAL, ended: Mutex::new(None) };
    let spool = SpoolOptions { folder: scratch.into(), bytes_max: plan.config.source.spool_bytes };
    let spool = Spool::start(std::iter::once(listed.shard), plan.remote.clone(), spool)?;
    let bytes = &spool.open(listed.shard, &AtomicBool::new(false))?;
    let job = PartJob {
        plan,
        output: &Folder::from(&folder),
        part: listed.part,
        shard: listed.shard,
        bytes,
        metrics: &metrics,
        watch: &watch,
        only: None,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(plan.threads())
        .build()
        .map_err(|e| PrepError::io("start threads in", scratch, std::io::Error::other(e)))?;
    let made = pool.install(|| make_part(&job));
    let removed = std::fs::remove_dir_all(&folder);
    match made {
        Ok(_) | Err(PrepError::Interrupted { .. }) => {}
        Err(error) => return Err(error),
    }
    removed.map_err(|e| PrepError::io("remove", &folder, e))?;
    let ended = watch.ended.into_inner().unwrap_or_else(|e| e.into_inner()).unwrap_or(start);
    Ok(Trial {
        shard: listed.shard.name.clone(),
        samples: metrics.samples.get(),
        bytes_in: metrics.bytes_in.get(),
        bytes_out: metrics.bytes_out.get(),
        secs: (ended - start).as_secs_f64(),
    })
}
