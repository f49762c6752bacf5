//! Measures the feed over shards: `catlip-bench-feed [--batch N] [--steps N] [--memory MB] SHARD…`,
//! beside `peers/feed.py` over the same shards; without shards the order of a large data set.

use catlip_benches::Failure;
use catlip_benches::feed_bench::{FeedBench, peak_bytes, plan, run};
use catlip_benches::order_quality::{read_ratio, stream, variance_ratio};

/// Batches of a round. Of 8 of them the start, when nothing is there to decode, was 6 % of the
/// time.
const STEPS: u64 = 64;
/// Rounds; the medians are printed.
const ROUNDS: usize = 5;

fn main() -> Result<(), Failure> {
    let mut bench = FeedBench { batch: 256, side_px: 224, steps: STEPS, memory_bytes: 4 << 30 };
    let (mut shards, mut arguments) = (Vec::new(), std::env::args().skip(1));
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64, Failure> {
            Ok(arguments.next().ok_or("a number is missing")?.parse()?)
        };
        match argument.as_str() {
            "--batch" => bench.batch = u32::try_from(number()?)?,
            "--steps" => bench.steps = number()?,
            "--memory" => bench.memory_bytes = number()? << 20,
            _ => shards.push(argument),
        }
    }
    if shards.is_empty() {
        return order();
    }
    let folder = tempfile::tempdir()?;
    let plan = plan(&shards, folder.path(), bench)?;
    let cores = std::thread::available_parallelism()?.get();
    println!("threads  feed img/s  decoder alone × threads  share  first batch s  img/CPU s");
    let mut medians = Vec::new();
    for threads in [1, cores] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(run(&plan, threads)?);
        }
        rounds.sort_by(|a, b| a.0.feed_images_per_sec.total_cmp(&b.0.feed_images_per_sec));
        let (report, per_cpu_sec) = &rounds[ROUNDS / 2];
        let alone = report.decoders_images_per_sec();
        println!(
            "{threads:>7}  {:>10.0}  {alone:>23.0}  {:>5.2}  {:>13.3}  {per_cpu_sec:>9.0}",
            report.feed_images_per_sec,
            report.feed_images_per_sec / alone,
            report.first_batch_secs,
        );
        println!("         {}", report.limit());
        medians.push(report.clone());
    }
    let scaling = medians[1].feed_images_per_sec / medians[0].feed_images_per_sec;
    println!("{cores} threads ÷ 1 thread: {scaling:.2}");
    println!(
        "memory: at most {} MB in the process; {} MB of row groups, {} MB spilled; budget {} MB",
        peak_bytes()? >> 20,
        medians[1].group_bytes_max >> 20,
        medians[1].spilled_bytes >> 20,
        bench.memory_bytes >> 20,
    );
    Ok(())
}

/// 130,000 parts of 39 row groups of 256 rows, as DataComp-1B would be.
fn order() -> Result<(), Failure> {
    for window_groups in [64, 256, 1024] {
        let sorted = stream([7000, 39, 256], 64, window_groups, 65_536);
        println!(
            "K {window_groups:>5}: {:.2} × the variance of independent draws, formula {:.2}",
            variance_ratio(&sorted, 20),
            sorted.sorted_variance_ratio()
        );
    }
    let start = std::time::Instant::now();
    let large = stream([130_000, 39, 256], 64, 16, 1024);
    let first = large.order(0, 0);
    let secs = start.elapsed().as_secs_f64();
    println!("{} rows laid out in {secs:.2} s, peak {} MB", first.num_rows(), peak_bytes()? >> 20);
    drop(first);
    for (name, stream) in
        [("130,000 parts", large), ("100 parts", stream([100, 39, 256], 64, 16, 1024))]
    {
        for world_size in [1, 2, 4, 8, 32, 64] {
            println!("{name}, {world_size} ranks: {:.5} × read", read_ratio(&stream, world_size));
        }
    }
    Ok(())
}
