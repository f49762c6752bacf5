//! `catlip-faults KILLS DISKS SEED [SHARDS SAMPLES SIDE]`: disturbs a job many times and prints, as
//! JSON, how often and where. `benches/robustness.sh` runs it.

use catlip_tests::faults::{Failure, Job, full_disks, kills};

fn main() -> Result<(), Failure> {
    let numbers: Vec<u64> =
        std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [times, disks, seed, ref size @ ..] = numbers[..] else {
        return Err("usage: catlip-faults KILLS DISKS SEED [SHARDS SAMPLES SIDE]".into());
    };
    let (shards, samples, side_px) = match *size {
        [shards, samples, side_px] => (shards, samples, side_px),
        // More than 10 s of two cores.
        _ => (160, 80, 900),
    };
    let folder = tempfile::tempdir()?;
    let job = Job::draw(folder.path(), shards as usize, samples as usize, side_px as u32)?;
    eprintln!("the undisturbed job takes {:.1} s and {} bytes", job.secs, job.output_bytes);
    let killed = kills(&job, times, seed)?;
    let full = full_disks(&job, disks, seed)?;
    println!("{}", serde_json::json!({"killed": killed, "full_disk": full}));
    Ok(())
}
