//! Several ranks on one machine: the same numbers as one, and what becomes of them when one goes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use catlip_tests::{SMALL_MODEL, demo_data, ends, peer, program};
use serde_json::Value;

const SETTINGS: [&str; 9] = [
    "model.stem=linear",
    "optim.lr_max=1e-3",
    "optim.warmup_steps=0",
    "optim.ema_momentum=0.1",
    "feed.lanes=4",
    "feed.threads=1",
    "dist.compare_every_steps=2",
    "dist.timeout_secs=60",
    "dist.bucket_bytes=65536",
];
const OF_MACHINE: [&str; 4] = [
    "runtime.threads=1",
    "runtime.log_every_steps=1",
    "runtime.device=cpu",
    "checkpoint.every_steps=4",
];

fn fit(dir: &Path, out: &str, more: &[&str]) -> Command {
    let mut command = program("catlip-train");
    command.args(["fit", "--resume", "--data"]).arg(dir.join("train"));
    command.arg("--val").arg(dir.join("heldout")).arg("--out").arg(dir.join(out));
    for setting in SMALL_MODEL.iter().chain(&SETTINGS).chain(&OF_MACHINE).chain(more) {
        command.args(["--set", setting]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn start(dir: &Path, out: &str, world_size: u32, more: &[&str]) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rank = |rank: u32| {
        let mut command = fit(dir, out, more);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", world_size.to_string());
        command.env("LOCAL_RANK", rank.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.spawn().unwrap()
    };
    (0..world_size).map(rank).collect()
}

fn succeed(dir: &Path, out: &str, world_size: u32, more: &[&str]) {
    for (code, said) in ends(start(dir, out, world_size, more)) {
        assert_eq!(code, Some(0), "{said}");
    }
}

/// A float tensor of a safetensors file.
fn tensor(path: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let at = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    let data = &bytes[8 + header_bytes..][at(0)..at(1)];
    data.chunks_exact(4).map(|float| f32::from_le_bytes(float.try_into().unwrap())).collect()
}

/// The first moment of all parameters: after one step a tenth of the gradient.
fn first_moment(dir: &Path, out: &str, step: u64, world_size: u32) -> Vec<f32> {
    let folder = dir.join(out).join(format!("checkpoints/step-{step:08}"));
    let part = |rank| tensor(&folder.join(format!("optim-rank{rank}.safetensors")), "exp_avg");
    (0..world_size).flat_map(part).collect()
}

fn losses(dir: &Path, out: &str) -> Vec<f64> {
    let log = fs::read_to_string(dir.join(out).join("log.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "step").map(|line| line["loss"].as_f64().unwrap()).collect()
}

fn assert_near(found: &[f64], expected: &[f64], share: f64) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in (1..).zip(found.iter().zip(expected)) {
        assert!((found / expected - 1.0).abs() < share, "step {step}: {found} {expected}");
    }
}

/// Waits until the log of a run holds a step.
fn await_step(dir: &Path, out: &str, step: u64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let wanted = format!("\"step\":{step},");
    let path = dir.join(out).join("log.jsonl");
    while !fs::read_to_string(&path).is_ok_and(|log| log.contains(&wanted)) {
        assert!(Instant::now() < deadline, "step {step} does not come");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_two_and_four_ranks_have_the_same_gradients_and_go_on_from_each_other() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    demo_data(dir);

    let one_step = ["train.steps=1"];
    succeed(dir, "g1", 1, &one_step);
    let expected = first_moment(dir, "g1", 1, 1);
    let largest = expected.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
    assert!(largest > 0.0);
    for world_size in [2, 4] {
        let out = format!("g{world_size}");
        succeed(dir, &out, world_size, &one_step);
        let found = first_moment(dir, &out, 1, world_size);
        assert_eq!(found.len(), expected.len());
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let off = off.fold(0.0_f32, f32::max) / largest;
        assert!(off < 2e-6, "{world_size} ranks: off by {off} of the largest");
    }

    let steps = ["train.steps=8"];
    succeed(dir, "one", 1, &steps);
    succeed(dir, "two", 2, &steps);
    assert_near(&losses(dir, "two"), &losses(dir, "one"), 1e-3);
    let log = fs::read_to_string(dir.join("two/log.jsonl")).unwrap();
    assert!(log.contains("\"slowest_rank\":"), "{log}");

    // Shared moments give the same weights to the bit.
    succeed(dir, "zero", 2, &["train.steps=8", "dist.share_moments=true"]);
    let model = "checkpoints/step-00000008/model.safetensors";
    assert!(
        fs::read(dir.join("two").join(model)).unwrap()
            == fs::read(dir.join("zero").join(model)).unwrap()
    );
    assert!(first_moment(dir, "two", 8, 2) == first_moment(dir, "zero", 8, 2));

    // Two ranks wrote step 4; four, and then one, go on from it.
    for world_size in [4, 1] {
        fs::remove_dir_all(dir.join("two/checkpoints/step-00000008")).unwrap();
        fs::write(dir.join("two/LATEST"), "checkpoints/step-00000004\n").unwrap();
        succeed(dir, "two", world_size, &steps);
        assert_near(&losses(dir, "two"), &losses(dir, "one"), 1e-3);
    }
}

#[test]
fn a_signal_to_one_rank_stops_all_after_the_same_step() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    demo_data(dir);
    let ranks = start(dir, "run", 2, &["train.steps=100000"]);
    await_step(dir, "run", 5);
    Command::new("kill").args(["-USR1", &ranks[1].id().to_string()]).status().unwrap();
    let told = ends(ranks);
    let stopped = |said: &str| {
        let line = said.lines().find(|line| line.starts_with("error: stopped by a signal"));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    assert!(told.iter().all(|(code, _)| *code == Some(9)), "{told:?}");
    assert_eq!(stopped(&told[0].1), stopped(&told[1].1));
    let latest = fs::read_to_string(dir.join("run/LATEST")).unwrap();
    let step: u64 = latest.trim().rsplit('-').next().unwrap().parse().unwrap();
    assert!(stopped(&told[0].1).contains(&format!("step {step} of")), "{latest}");
}

#[test]
fn a_rank_that_is_killed_ends_the_others_and_is_named() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    demo_data(dir);
    // A rank that only the timeout frees would show: none shall wait for it.
    let mut ranks = start(dir, "run", 3, &["train.steps=100000", "dist.timeout_secs=1200"]);
    await_step(dir, "run", 5);
    // The checkpoint of step 4 is written meanwhile.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !dir.join("run/LATEST").exists() {
        assert!(Instant::now() < deadline, "no checkpoint comes");
        thread::sleep(Duration::from_millis(20));
    }
    ranks[1].kill().unwrap();
    let told = ends(ranks);
    for rank in [0, 2] {
        let (code, said) = &told[rank];
        assert_eq!(*code, Some(1), "{said}");
        assert!(said.contains("rank 1 is gone or stands still"), "rank {rank}: {said}");
    }
    // What was saved is whole: the others go on without it.
    let latest = fs::read_to_string(dir.join("run/LATEST")).unwrap();
    assert!(latest.starts_with("checkpoints/step-"), "{latest}");
}

/// Rank 0 keeps the store, by which the others find out who is gone.
#[test]
fn a_rank_that_is_killed_with_the_store_is_named_too() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    demo_data(dir);
    let mut ranks = start(dir, "run", 3, &["train.steps=100000", "dist.timeout_secs=1200"]);
    await_step(dir, "run", 5);
    ranks[0].kill().unwrap();
    let told = ends(ranks);
    for (rank, (code, said)) in told.iter().enumerate().skip(1) {
        assert_eq!(*code, Some(1), "{said}");
        assert!(said.contains("rank 0 is gone or stands still"), "rank {rank}: {said}");
    }
    assert_eq!(ends(start(dir, "run", 2, &["train.steps=12"]))[0].0, Some(6), "other steps");
}

/// The reference's stem and augmentation: BatchNorm's groups are those of the whole step, so the
/// gradients of several ranks are those of one. Groups of 5 of 16 rows; then a step of 3 rows in
/// two parts, of which some of 4 ranks have none.
#[test]
fn batch_norm_over_rows_of_several_ranks_is_that_of_one() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    demo_data(dir);
    let base = ["train.steps=1", "model.stem=corenet", "augment.range=true"];
    for (case, more) in [
        ("groups", &["train.bn_group_samples=5"][..]),
        ("whole", &["train.bn_group_samples=16"]),
        ("few", &["train.batch=3", "train.parts=2", "train.bn_group_samples=2"]),
    ] {
        let settings = [&base[..], more].concat();
        let out = |world_size| format!("{case}{world_size}");
        succeed(dir, &out(1), 1, &settings);
        let expected = first_moment(dir, &out(1), 1, 1);
        let largest = expected.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
        let model = |out: &str| dir.join(out).join("checkpoints/step-00000001/model.safetensors");
        let running = "patch_emb.1.block.norm.running_var";
        for world_size in [2, 4] {
            succeed(dir, &out(world_size), world_size, &settings);
            let found = first_moment(dir, &out(world_size), 1, world_size);
            let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0_f32, f32::max) / largest;
            assert!(off < 1e-5, "{case}, {world_size} ranks: off by {off} of the largest");
            let variances = [1, world_size].map(|size| tensor(&model(&out(size)), running));
            for (one, all) in variances[0].iter().zip(&variances[1]) {
                assert!((one / all - 1.0).abs() < 1e-5, "{case}, {world_size} ranks: {one} {all}");
            }
        }
    }
    // The whole step as one group is what BatchNorm makes of it without groups.
    let whole = [&base[..], &["train.bn_group_samples=0"]].concat();
    succeed(dir, "plain", 1, &whole);
    let [plain, grouped] = ["plain", "whole1"].map(|out| losses(dir, out));
    assert_near(&grouped, &plain, 1e-6);
}

/// Two ranks under a real torchrun, which starts them again when one dies; none where it is not
/// installed.
fn torchrun(dir: &Path, out: &str, more: &[&str]) -> Option<Command> {
    let fit = fit(dir, out, more);
    let mut command = Command::new(peer("torchrun")?);
    command.args(["--no-python", "--nproc-per-node=2", "--standalone", "--max-restarts=2"]);
    command.arg(fit.get_program()).args(fit.get_args());
    Some(command)
}

/// The process that is rank `rank` of the run in `out`.
fn process_of_rank(out: &Path, rank: u32) -> Option<i32> {
    let holds = |path: std::path::PathBuf, text: &str| {
        fs::read(path)
            .is_ok_and(|bytes| bytes.split(|&b| b == 0).any(|word| word == text.as_bytes()))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut numbered = processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    let is_wanted = |(_, path): &(i32, std::path::PathBuf)| {
        holds(path.join("cmdline"), out.to_str().unwrap())
            && holds(path.join("environ"), &format!("RANK={rank}"))
    };
    numbered.find(is_wanted).map(|(process, _)| process)
}

#[test]
fn torchrun_starts_ranks_that_meet_at_its_own_store_and_starts_them_again() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    demo_data(dir);
    let settings = ["train.steps=40"];
    let Some(mut command) = torchrun(dir, "straight", &settings) else { return };
    assert!(command.status().unwrap().success());
    assert_eq!(losses(dir, "straight").len(), 40);

    let mut disturbed = torchrun(dir, "disturbed", &settings).unwrap().spawn().unwrap();
    await_step(dir, "disturbed", 9);
    let process = process_of_rank(&dir.join("disturbed"), 1).unwrap();
    assert!(Command::new("kill").args(["-9", &process.to_string()]).status().unwrap().success());
    assert!(disturbed.wait().unwrap().success());
    let machines = fs::read_to_string(dir.join("disturbed/machines.jsonl")).unwrap();
    assert_eq!(machines.lines().count(), 2, "it was not started again: {machines}");
    assert_eq!(losses(dir, "disturbed"), losses(dir, "straight"));
    for rank in 0..2 {
        let file = format!("checkpoints/step-00000040/optim-rank{rank}.safetensors");
        let bytes = |out: &str| fs::read(dir.join(out).join(&file)).unwrap();
        assert!(bytes("disturbed") == bytes("straight"), "{file}");
    }
}
