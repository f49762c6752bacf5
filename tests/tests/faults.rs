//! A job that is disturbed ends as one that was not; here a few times, by
//! `benches/robustness.sh` a few hundred times.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use catlip_tests::faults::{Job, full_disks, kills};
use catlip_tests::{Place, picture, program, samples, shard};

#[test]
fn a_killed_job_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::draw(folder.path(), 4, 12, 400).unwrap();
    let found = kills(&job, 5, 1).unwrap();
    assert_eq!(found["kills"], 5, "{found}");
}

#[test]
fn a_full_disk_is_said_and_leaves_only_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::draw(folder.path(), 3, 12, 300).unwrap();
    match full_disks(&job, 3, 1).unwrap() {
        Some(found) => assert_eq!(found["full_disks"], 3, "{found}"),
        None => println!("skipped: no small disk can be mounted here"),
    }
}

/// Most memory that a job had, in bytes, by the system's own count.
fn peak_bytes(place: &Place, input: &str, settings: &[&str]) -> u64 {
    let mut child = program("catlip-prep")
        .args(["run", "--quiet", "--input", &place.text(input), "--output", &place.text("out")])
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = high.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(1024 * kib.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return peak;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_shard_of_560_mb_needs_no_more_memory_than_the_config_says() {
    let place = Place::new();
    let mut file = std::fs::File::create(place.path("large.tar")).unwrap();
    let whole = shard(&samples(0, 2, 64));
    // What is behind the end of a JPEG is none of the decoder's business, but of the hash's.
    let mut image = picture(1, 64, 64);
    image.resize(2_000_000, 7);
    for i in 0..280 {
        let one =
            shard(&[(format!("x{i}.jpg"), image.clone()), (format!("x{i}.txt"), b"a".to_vec())]);
        file.write_all(&one[..one.len() - 1024]).unwrap();
    }
    file.write_all(&whole).unwrap();
    let (memory, allowance) = (64 << 20, 200 << 20);
    let memory_bytes = format!("runtime.memory_bytes={memory}");
    let settings = [&memory_bytes, "image.pixels_max=3000000", "image.mode=reference"];
    let peak = peak_bytes(&place, "large.tar", &settings);
    assert!(peak <= memory + allowance, "{peak} bytes");
}

#[test]
fn large_images_wait_for_each_other() {
    let place = Place::new();
    // 6 MP each: eight at once would be 480 MB at 10 bytes a pixel.
    let jpeg = picture(3, 3000, 2000);
    let files = (0..16).flat_map(|i| {
        [(format!("{i}.jpg"), jpeg.clone()), (format!("{i}.txt"), b"a dog".to_vec())]
    });
    place.shard("s.tar", &files.collect::<Vec<_>>());
    let settings =
        ["runtime.memory_bytes=128000000", "image.pixels_max=6000000", "runtime.threads=8"];
    let peak = peak_bytes(&place, "s.tar", &settings);
    assert!(peak <= 128_000_000 + (200 << 20), "{peak} bytes");
}
