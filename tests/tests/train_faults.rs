//! Runs that are killed and stopped: what is left goes on to the same bytes and the same log.
//!
//! Few faults in the tests; as many as wished for the README, with a line of JSON as the result:
//! `CATLIP_KILLS=50 CATLIP_STOPS=20 CATLIP_DISKS=20 cargo test --release -p catlip-tests --features
//! train --test train_faults -- --nocapture`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use catlip_tests::{SMALL_MODEL, demo_data, files_of, log_without_times, program};
use serde_json::{Value, json};

const SETTINGS: [&str; 8] = [
    "train.steps=60",
    "optim.ema_momentum=0.1",
    "checkpoint.every_steps=3",
    "eval.every_steps=20",
    "feed.lanes=2",
    "runtime.threads=1",
    "runtime.log_every_steps=1",
    "runtime.device=cpu",
];
/// Faults of one run: then it may end, so that many runs are tried and none for ever.
const FAULTS_OF_RUN: usize = 5;

fn start(dir: &Path, out: &str, feed_threads: usize) -> Child {
    let mut command = fit(dir, &dir.join(out), feed_threads);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn fit(dir: &Path, out: &Path, feed_threads: usize) -> Command {
    let mut command = program("catlip-train");
    command.args(["fit", "--resume", "--data"]).arg(dir.join("train"));
    command.arg("--val").arg(dir.join("heldout")).arg("--out").arg(out);
    for setting in SMALL_MODEL.iter().chain(&SETTINGS) {
        command.args(["--set", setting]);
    }
    command.args(["--set", &format!("feed.threads={feed_threads}")]);
    command
}

/// Weights, average, moments of the last step, and the log without what differs by machine.
fn result(run: &Path) -> (Vec<(String, Vec<u8>)>, Vec<Value>) {
    let mut files = files_of(&run.join("checkpoints/step-00000060"));
    files.retain(|(name, _)| name.ends_with(".safetensors"));
    assert_eq!(files.len(), 3);
    let log = fs::read(run.join("log.jsonl")).unwrap();
    (files, log_without_times(&log))
}

fn wished(name: &str, least: usize) -> usize {
    std::env::var(name).map_or(least, |text| text.parse().unwrap())
}

/// SplitMix64: the same delays in every run of the tests.
fn draw(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Lets a run go for a while and ends it so; whether it was still there.
fn interrupt(mut child: Child, after: Duration, signal: &str) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < after {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    Command::new("kill").args([signal, &id]).status().unwrap();
    let status = child.wait().unwrap();
    if signal == "-TERM" {
        // 0: it was ending by itself when the signal came; a process that has not yet asked for
        // signals dies of it.
        assert!([Some(9), Some(0), None].contains(&status.code()), "{status}");
    }
    true
}

#[test]
fn killed_and_stopped_runs_end_with_the_same_bytes_and_log() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    demo_data(dir);
    let begun = Instant::now();
    assert!(start(dir, "straight", 2).wait().unwrap().success());
    let whole = begun.elapsed();
    let expected = result(&dir.join("straight"));
    assert!(expected.1.len() >= 60);

    let wanted = [wished("CATLIP_KILLS", 4), wished("CATLIP_STOPS", 2)];
    let (mut done, mut seed, mut runs, mut differing) = ([0, 0], 11, 0, 0);
    while done[0] < wanted[0] || done[1] < wanted[1] {
        let out = format!("run-{runs}");
        runs += 1;
        for fault in 0..FAULTS_OF_RUN {
            let kind = usize::from(done[0] >= wanted[0] || done[1] * 3 < done[0]);
            let kind = if done[kind] >= wanted[kind] { 1 - kind } else { kind };
            if done[kind] >= wanted[kind] {
                break;
            }
            // Threads of the feed change nothing, so each start has another number.
            let child = start(dir, &out, 1 + fault % 3);
            let after = whole.mul_f64(0.2 + 0.7 * (draw(&mut seed) % 1000) as f64 / 1000.0);
            if interrupt(child, after, ["-KILL", "-TERM"][kind]) {
                done[kind] += 1;
            }
        }
        assert!(start(dir, &out, 2).wait().unwrap().success());
        differing += usize::from(result(&dir.join(&out)) != expected);
        fs::remove_dir_all(dir.join(&out)).unwrap();
    }
    let told = json!({
        "kills": done[0], "stops": done[1], "runs": runs, "differing": differing,
    });
    println!("{told}");
    assert_eq!(differing, 0, "{told}");
}

/// The disk is full at some moment: the run ends with its code, what was saved is whole, and where
/// there is room it goes on to the same bytes.
#[test]
fn a_full_disk_ends_a_run_that_then_goes_on_to_the_same_bytes() {
    const SCRIPT: &str = r#"
        set -u
        disk=$1 size=$2 kept=$3; shift 3
        mount -t tmpfs -o size="$size" tmpfs "$disk" || exit 77
        "$@" >/dev/null 2>"$kept/err"; echo $? >"$kept/code"
        mount -o remount,size=1G "$disk" || exit 77
        "$@" >/dev/null 2>>"$kept/err" || exit 1
        cp -a "$disk/out" "$kept/out"
    "#;
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    demo_data(dir);
    assert!(start(dir, "straight", 2).wait().unwrap().success());
    let expected = result(&dir.join("straight"));
    let bytes: usize = files_of(&dir.join("straight")).iter().map(|(_, bytes)| bytes.len()).sum();
    let (wanted, mut seed) = (wished("CATLIP_DISKS", 2), 5);
    for time in 0..wanted {
        let kept = tempfile::tempdir_in(dir).unwrap();
        let disk = kept.path().join("disk");
        fs::create_dir(&disk).unwrap();
        // From no room for the first checkpoint to none for the last.
        let size = bytes as f64 * (0.05 + 0.85 * (draw(&mut seed) % 1000) as f64 / 1000.0);
        let command = fit(dir, &disk.join("out"), 1 + time % 3);
        let status = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"])
            .args([&disk, Path::new(&format!("{}", size as u64)), kept.path()])
            .arg(command.get_program())
            .args(command.get_args())
            .stderr(Stdio::null())
            .status();
        let Some(code) = status.ok().and_then(|status| status.code()).filter(|&code| code != 77)
        else {
            println!("skipped: no disk can be mounted");
            return;
        };
        let read = |name: &str| fs::read_to_string(kept.path().join(name)).unwrap();
        let said = read("err");
        assert_eq!(read("code").trim(), "8", "disk {time} of {size:.0} bytes: {said}");
        assert!(said.contains("free space and start the same command with --resume"), "{said}");
        assert_eq!(code, 0, "it does not go on where there is room: {said}");
        assert!(result(&kept.path().join("out")) == expected, "disk {time} of {size:.0} bytes");
    }
    println!("{}", json!({ "full_disks": wanted, "differing": 0 }));
}
