//! `catlip-bench-tar [SHARD…]`: tar to samples on one thread, page cache, against the `tar` crate.
//!
//! Without shards it draws two: files of 110 kB, as ImageNet's are, and of 1 kB, where headers
//! count. `benches/peers/webdataset_tar.py` measures Python's webdataset over the same files.

use std::path::PathBuf;

use catlip_benches::{Failure, tar_bench};

fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let named: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let mut sets = vec![named.clone()];
    if named.is_empty() {
        sets.clear();
        for (name, samples, bytes) in [("large.tar", 4000, 110_000), ("small.tar", 100_000, 1000)] {
            let path = folder.path().join(name);
            tar_bench::draw(&path, samples, bytes)?;
            sets.push(vec![path]);
        }
    }
    println!(
        "{:<12} {:>9} {:>14} {:>9} {:>7} {:>9} {:>11}   sum",
        "reader", "files", "bytes", "s", "GB/s", "CPU s", "GB/CPU s"
    );
    for shards in sets {
        // One pass that is not shown brings the shards into the page cache.
        tar_bench::ours(&shards)?;
        for pass in tar_bench::compare(&shards, 5)? {
            println!(
                "{:<12} {:>9} {:>14} {:>9.4} {:>7.2} {:>9.4} {:>11.2}   {}",
                pass.reader,
                pass.files,
                pass.payload_bytes,
                pass.secs,
                pass.payload_bytes as f64 / pass.secs.max(1e-9) / 1e9,
                pass.cpu_secs,
                pass.payload_bytes as f64 / pass.cpu_secs.max(1e-9) / 1e9,
                pass.sum
            );
        }
    }
    Ok(())
}
