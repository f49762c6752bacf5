//! The stages of the line, each on the demo's scenes, timed and hashed.
//!
//! In: how many scenes. Out: for each stage items, seconds and a hash of what it made: a bench that
//! still runs but no longer does its work shows another hash.

pub mod feed_bench;
pub mod labels;
pub mod order;
pub mod order_quality;
pub mod tar_bench;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use catlip_pipeline::caption::nouns::NounsOptions;
use catlip_pipeline::caption::rule;
use catlip_pipeline::config::PrepConfig;
use catlip_pipeline::demo::{DemoConfig, write_demo};
use catlip_pipeline::feed::order::Layout;
use catlip_pipeline::feed::queue::PrefetchQueue;
use catlip_pipeline::feed::ring::Ring;
use catlip_pipeline::feed::{BatchSampler, Feed, FeedPlan, Selection, Sources, Stream, Viewing};
use catlip_pipeline::image::{self, DecodeOptions, Filter};
use catlip_pipeline::metrics::PrepMetrics;
use catlip_pipeline::prep::{self, DataSet, PrepPlan, vocab};
use catlip_pipeline::source::bytes::TarBytes;
use catlip_pipeline::source::map::MappedFile;
use catlip_pipeline::source::{SampleReader, ShardList};
use catlip_schemas::VocabCut;
use crossbeam_queue::ArrayQueue;

/// What went wrong: a bench has no user to be gentle with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One stage, measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was done.
    pub stage: &'static str,
    /// To how many of what.
    pub items: u64,
    /// Name of the items.
    pub unit: &'static str,
    /// Seconds.
    pub secs: f64,
    /// First 8 hex digits of BLAKE3 over the result.
    pub hash: String,
}

fn measure(
    stage: &'static str,
    unit: &'static str,
    work: impl FnOnce(&mut blake3::Hasher) -> Result<u64, Failure>,
) -> Result<Measured, Failure> {
    let mut hasher = blake3::Hasher::new();
    let start = Instant::now();
    let items = work(&mut hasher)?;
    let secs = start.elapsed().as_secs_f64();
    let hash = hasher.finalize().to_hex()[..8].to_owned();
    Ok(Measured { stage, items, unit, secs, hash })
}

/// Runs every stage over `scenes` scenes that are drawn below `folder`.
///
/// # Errors
///
/// The first failure of any stage.
pub fn run(folder: &Path, scenes: usize) -> Result<Vec<Measured>, Failure> {
    let shards = folder.join("shards");
    let config = DemoConfig { scenes_train: scenes, scenes_heldout: 1, ..DemoConfig::default() };
    let mut all =
        vec![measure(
            "draw scenes",
            "scenes",
            |_| Ok(write_demo(&shards, &config)?.scenes as u64),
        )?];
    let list = ShardList::expand(&[shards.join("train-*.tar").display().to_string()], None)?;
    all.push(read_samples(&list)?);
    all.push(decode(&list)?);
    all.push(label(&list)?);
    all.push(prepare(&list, &folder.join("data"))?);
    all.push(feed(&folder.join("data"))?);
    let items = scenes as u64 * 100;
    all.push(queue(items)?);
    let (push, pop) = (|r: &Ring<u64>, n| r.push(n).is_ok(), |r: &Ring<u64>| r.pop().ok());
    all.push(hand_over("our ring, spinning", items, Ring::new(64), push, pop)?);
    let (push, pop) = (|r: &ArrayQueue<u64>, n| r.push(n).is_ok(), ArrayQueue::pop);
    all.push(hand_over("crossbeam ArrayQueue, spinning", items, ArrayQueue::new(64), push, pop)?);
    // 130,000 parts of 10,000 rows are DataComp-1B.
    all.extend(order::measure_order(if scenes < 1000 { 130 } else { 130_000 })?);
    Ok(all)
}

fn read_samples(list: &ShardList) -> Result<Measured, Failure> {
    measure("tar to samples, one thread", "bytes", |hasher| {
        let mut bytes = 0;
        for shard in &list.0 {
            let map = MappedFile::open(&shard.path())?;
            for sample in SampleReader::new(TarBytes::open(&map)?, false) {
                for file in sample.map_err(|reject| reject.error)?.files {
                    hasher.update(&file.data);
                    bytes += file.data.len() as u64;
                }
            }
        }
        Ok(bytes)
    })
}

/// Calls `work` with every file of every sample.
fn each_file(
    list: &ShardList,
    mut work: impl FnMut(&str, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for shard in &list.0 {
        let map = MappedFile::open(&shard.path())?;
        for sample in SampleReader::new(TarBytes::open(&map)?, false) {
            for file in sample.map_err(|reject| reject.error)?.files {
                work(&file.extension, &file.data)?;
            }
        }
    }
    Ok(())
}

fn decode(list: &ShardList) -> Result<Measured, Failure> {
    measure("decode images, one thread", "images", |hasher| {
        let mut images = 0;
        each_file(list, |extension, data| {
            if matches!(extension, "jpg" | "png") {
                hasher.update(&image::decode(data, &DecodeOptions::default())?.pixels);
                images += 1;
            }
            Ok(())
        })?;
        Ok(images)
    })
}

fn label(list: &ShardList) -> Result<Measured, Failure> {
    let rule = rule("corenet", &NounsOptions::default())?;
    let mut captions = Vec::new();
    each_file(list, |extension, data| {
        if extension == "txt" {
            captions.push(String::from_utf8(data.to_vec())?);
        }
        Ok(())
    })?;
    measure("captions to synsets, one thread", "captions", |hasher| {
        for caption in &captions {
            for synset in rule.synsets(caption).0 {
                hasher.update(&synset.0.to_le_bytes());
            }
        }
        Ok(captions.len() as u64)
    })
}

fn prepare(list: &ShardList, output: &Path) -> Result<Measured, Failure> {
    measure("catlip-prep run, all cores", "samples", |hasher| {
        let plan = PrepPlan::new(PrepConfig::default())?;
        let stop = AtomicBool::new(false);
        let summary = prep::run(list, output, &plan, &PrepMetrics::default(), &stop)?;
        hasher.update(&std::fs::read(output.join("manifest/00000001.json"))?);
        Ok(summary.totals.samples)
    })
}

fn feed(folder: &Path) -> Result<Measured, Failure> {
    let data = Arc::new(DataSet::open(folder)?);
    let (frequencies, rows) = vocab::count(&data, |_| true)?;
    let cut = VocabCut { min_count: 1, top_k: None, multiple_of: 1 };
    let batch = rows.clamp(1, 32) as u32;
    let layout = Layout::Shuffled { seed: 1, lanes: 4, window_groups: 1 };
    let stream = Stream::of_one(Selection::all(&data), layout, BatchSampler::fixed(64, batch));
    let vocab = Arc::new(vocab::from_frequencies(&frequencies, &cut)?);
    let viewing = Viewing::RandomCrop {
        area: (0.08, 1.0),
        aspect: (0.75, 4.0 / 3.0),
        flip: 0.5,
        filter: Filter::Bilinear,
    };
    let (sources, num_steps) = (Sources::of_one(data)?, rows / u64::from(batch));
    let plan = FeedPlan {
        decode_threads: std::thread::available_parallelism().map_or(1, usize::from),
        depth_batches: 4,
        ..FeedPlan::new(sources, stream, vocab, viewing, num_steps)
    };
    measure("the feed to full batches, all cores", "images", |hasher| {
        let mut feed = Feed::start(plan)?;
        let mut images = 0;
        while let Some(mut batch) = feed.next()? {
            hasher.update(batch.images_bhwc());
            images += batch.len() as u64;
        }
        Ok(images)
    })
}

fn queue(items: u64) -> Result<Measured, Failure> {
    measure("queue, one thread to another", "items", |hasher| {
        let queue = PrefetchQueue::new(64);
        let sum = std::thread::scope(|scope| {
            scope.spawn(|| {
                for item in 0..items {
                    if queue.push(item).is_err() {
                        return;
                    }
                }
                queue.close();
            });
            std::iter::from_fn(|| queue.pop()).sum::<u64>()
        });
        hasher.update(&sum.to_le_bytes());
        Ok(items)
    })
}

/// The hand-over without sleep or counts, for our ring and for crossbeam's.
fn hand_over<T: Sync>(
    name: &'static str,
    items: u64,
    ring: T,
    push: impl Fn(&T, u64) -> bool + Sync,
    pop: impl Fn(&T) -> Option<u64>,
) -> Result<Measured, Failure> {
    measure(name, "items", |hasher| {
        let sum: u64 = std::thread::scope(|scope| {
            scope.spawn(|| {
                for item in 0..items {
                    while !push(&ring, item) {
                        std::thread::yield_now();
                    }
                }
            });
            let next = || loop {
                match pop(&ring) {
                    Some(item) => break item,
                    None => std::thread::yield_now(),
                }
            };
            (0..items).map(|_| next()).sum()
        });
        hasher.update(&sum.to_le_bytes());
        Ok(items)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_make_the_same_things() -> Result<(), Failure> {
        let hashes = || -> Result<Vec<String>, Failure> {
            let folder = tempfile::tempdir()?;
            Ok(run(folder.path(), 40)?.into_iter().map(|m| m.hash).collect())
        };
        assert_eq!(hashes()?, hashes()?);
        Ok(())
    }
}
