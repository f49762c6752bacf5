//! The whole feed over shards, beside its decoder alone, on one core and on all.
//!
//! In: shards. Out: for each number of threads a [`FeedReport`] and images a second of CPU.
//! The shards are prepared first: their images as they are (`keep`), so that peers which read the
//! shards themselves decode the same bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use catlip_pipeline::config::PrepConfig;
use catlip_pipeline::feed::measure::{FeedReport, measure};
use catlip_pipeline::feed::order::Layout;
use catlip_pipeline::feed::{BatchSampler, Feed, FeedPlan, Selection, Sources, Stream, Viewing};
use catlip_pipeline::image::Filter;
use catlip_pipeline::metrics::PrepMetrics;
use catlip_pipeline::prep::{self, DataSet, PrepPlan, vocab};
use catlip_pipeline::source::ShardList;
use catlip_schemas::VocabCut;

use crate::Failure;

/// Images that the decoder alone is measured on.
const DECODED_ALONE: usize = 1000;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct FeedBench {
    /// Images of a batch.
    pub batch: u32,
    /// Side of the crops in px.
    pub side_px: u32,
    /// Steps after the first batch.
    pub steps: u64,
    /// `feed.memory_bytes`.
    pub memory_bytes: u64,
}

/// Prepares `shards` below `folder` and gives the plan of a feed over them.
///
/// # Errors
///
/// What preparing and opening may give.
pub fn plan(shards: &[String], folder: &Path, bench: FeedBench) -> Result<FeedPlan, Failure> {
    let list = ShardList::expand(shards, None)?;
    let keep = ["image.mode=keep", "image.check=false", "image.rows_per_group=64"];
    let settings = keep.map(str::to_owned);
    let config = PrepPlan::new(PrepConfig::load(None, &settings)?)?;
    let output = folder.join("data");
    prep::run(&list, &output, &config, &PrepMetrics::default(), &AtomicBool::new(false))?;
    let data = Arc::new(DataSet::open(&output)?);
    let (frequencies, _) = vocab::count(&data, |_| true)?;
    let cut = VocabCut { min_count: 1, top_k: None, multiple_of: 1 };
    let vocab = Arc::new(vocab::from_frequencies(&frequencies, &cut)?);
    let layout = Layout::Shuffled { seed: 1, lanes: 8, window_groups: 1 };
    let sampler = BatchSampler::fixed(bench.side_px, bench.batch);
    let stream = Stream::of_one(Selection::all(&data), layout, sampler);
    let viewing = Viewing::RandomCrop {
        area: (0.08, 1.0),
        aspect: (0.75, 4.0 / 3.0),
        flip: 0.5,
        filter: Filter::Bilinear,
    };
    let sources = Sources::of_one(data)?;
    let mut plan = FeedPlan::new(sources, stream, vocab, viewing, bench.steps + 1);
    plan.memory.bytes = bench.memory_bytes;
    Ok(plan)
}

/// The feed with `threads` decoding threads, and its images for each second of CPU: a figure that
/// other work on the machine changes little.
///
/// # Errors
///
/// What the feed may give.
pub fn run(plan: &FeedPlan, threads: usize) -> Result<(FeedReport, f64), Failure> {
    let plan = FeedPlan { decode_threads: threads, ..plan.clone() };
    let before = cpu_secs()?;
    let mut feed = Feed::start(plan.clone())?;
    let mut images = 0;
    while let Some(batch) = feed.next()? {
        images += batch.len();
    }
    let per_cpu_sec = images as f64 / (cpu_secs()? - before).max(0.01);
    Ok((measure(&plan, DECODED_ALONE)?, per_cpu_sec))
}

/// The most memory that this process ever had, in bytes.
///
/// # Errors
///
/// If the system does not say.
pub fn peak_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.and_then(|l| l.split_whitespace().next()).ok_or("no VmHWM")?.parse()?;
    Ok(kib << 10)
}

/// User and system seconds of this process.
fn cpu_secs() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name in brackets: state is field 3, utime 14, stime 15, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use catlip_pipeline::demo::{DemoConfig, write_demo};

    #[test]
    fn the_bench_of_the_feed_runs_small() -> Result<(), Failure> {
        let folder = tempfile::tempdir()?;
        let config = DemoConfig { scenes_train: 40, scenes_heldout: 1, ..DemoConfig::default() };
        write_demo(&folder.path().join("shards"), &config)?;
        let shards = [folder.path().join("shards/train-*.tar").display().to_string()];
        let bench = FeedBench { batch: 8, side_px: 32, steps: 3, memory_bytes: 1 << 24 };
        let (report, _) = run(&plan(&shards, folder.path(), bench)?, 2)?;
        assert_eq!((report.images, report.bad_rows, report.decode_threads), (32, 0, 2));
        assert!(peak_bytes()? > report.group_bytes_max);
        Ok(())
    }
}
