//! Runs that lie in a store: the same bytes as on a disk, whatever interrupts them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use catlip_tests::servers::{Act, Cloud, Proxy, objects_of, s3_variables};
use catlip_tests::{
    Place, SMALL_MODEL, demo_data, ends, files_of, log_without_times, program, told,
};
use serde_json::Value;

const SETTINGS: [&str; 11] = [
    "model.stem=linear",
    "train.steps=12",
    "optim.ema_momentum=0.1",
    "checkpoint.every_steps=3",
    "eval.every_steps=6",
    "feed.lanes=2",
    "feed.threads=1",
    "runtime.threads=1",
    "runtime.log_every_steps=1",
    "runtime.device=cpu",
    "dist.timeout_secs=60",
];

fn scenes() -> Place {
    let place = Place::new();
    demo_data(&place.path("."));
    place
}

fn fit(place: &Place, out: &str, variables: &[(String, String)], more: &[&str]) -> Command {
    let mut command = program("catlip-train");
    command.args(["fit", "--resume", "--data", &place.text("train")]);
    command.args(["--val", &place.text("heldout"), "--out", out]);
    for setting in SMALL_MODEL.iter().chain(&SETTINGS).chain(more) {
        command.args(["--set", setting]);
    }
    command.envs(variables.iter().cloned());
    command
}

fn ok(command: &mut Command) -> String {
    let (code, out, err) = told(&command.output().unwrap());
    assert_eq!(code, 0, "{command:?}: {out}{err}");
    out
}

/// Files of a run by name, without what differs between machines.
fn comparable(files: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let is_same = |name: &str| {
        name.starts_with("checkpoints/")
            || ["LATEST", "config.toml", "priors.json", "vocab.parquet", "eval.json"]
                .contains(&name)
    };
    let mut files: Vec<_> = files.into_iter().filter(|(name, _)| is_same(name)).collect();
    files.sort();
    files
}

/// The log of a run in a store, without what differs between machines.
fn log(files: &[(String, Vec<u8>)]) -> Vec<Value> {
    let (_, bytes) = files.iter().find(|(name, _)| name == "log.jsonl").unwrap();
    log_without_times(bytes)
}

/// Waits until the store names the checkpoint of `step` the newest.
fn await_latest(cloud: &Cloud, url: &str, step: u64) {
    let (stores, wanted) = (cloud.stores(), format!("checkpoints/step-{step:08}\n"));
    let folder = stores.folder(url.as_ref()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while folder.find("LATEST").unwrap().is_none_or(|latest| latest < wanted.clone().into_bytes()) {
        assert!(Instant::now() < deadline, "the checkpoint of step {step} does not come");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_in_a_store_is_that_on_a_disk_also_when_it_was_killed() {
    let Some(cloud) = Cloud::quick_s3() else { return };
    let place = scenes();
    ok(&mut fit(&place, &place.text("run"), &[], &[]));
    let local = files_of(&place.path("run"));

    let url = format!("{}/runs/first", cloud.root);
    ok(&mut fit(&place, &url, &cloud.variables, &[]));
    let remote = objects_of(&cloud.stores(), &url);
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        comparable(files.to_vec()).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&remote), names(&local));
    assert!(comparable(remote.clone()) == comparable(local.clone()), "other bytes");
    assert_eq!(log(&remote), log(&local));
    for name in ["report.html", "machines.jsonl", "events.out.tfevents.catlip"] {
        assert!(remote.iter().any(|(found, _)| found == name), "{name} is not there");
    }

    // Killed behind a checkpoint, and gone on with by a machine that has nothing of it.
    let killed = format!("{}/runs/killed", cloud.root);
    let mut child = fit(&place, &killed, &cloud.variables, &[]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    await_latest(&cloud, &killed, 6);
    child.kill().unwrap();
    child.wait().unwrap();
    ok(&mut fit(&place, &killed, &cloud.variables, &[]));
    let again = objects_of(&cloud.stores(), &killed);
    assert!(comparable(again.clone()) == comparable(local.clone()), "other bytes after a kill");
    assert_eq!(log(&again), log(&local));

    the_readers_take_its_url(&place, &cloud, &url);
}

fn the_readers_take_its_url(place: &Place, cloud: &Cloud, url: &str) {
    let train = |arguments: &[&str]| {
        let mut command = program("catlip-train");
        ok(command.args(arguments).envs(cloud.variables.iter().cloned()))
    };
    let local = place.text("run");
    let eval = |run| ["eval", "--run", run, "--data"];
    let heldout = place.text("heldout");
    assert_eq!(
        train(&[&eval(url)[..], &[&heldout]].concat()),
        train(&[&eval(&local)[..], &[&heldout]].concat())
    );
    for (weights, out) in [(url, "of-store"), (&local, "of-disk")] {
        train(&["export", "--weights", weights, "--to", "timm", "--out", &place.text(out)]);
    }
    let of = |out| files_of(&place.path(out)).into_iter().find(|(n, _)| n == "model.safetensors");
    assert!(of("of-store").is_some() && of("of-store") == of("of-disk"));
}

/// Ranks that share no disk: each hands its part in through the store.
#[test]
fn ranks_without_a_disk_in_common_make_the_checkpoint_of_ranks_with_one() {
    let Some(cloud) = Cloud::quick_s3() else { return };
    let place = scenes();
    let url = format!("{}/runs/ranks", cloud.root);
    for out in [place.text("ranks"), url.clone()] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let rank = |rank: u32| {
            let temporary = place.path(&format!("machine-{rank}"));
            std::fs::create_dir_all(&temporary).unwrap();
            let mut command = fit(&place, &out, &cloud.variables, &["train.steps=6"]);
            command.env("TMPDIR", temporary).env("RANK", rank.to_string()).env("WORLD_SIZE", "2");
            command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        for (code, said) in ends(vec![rank(0), rank(1)]) {
            assert_eq!(code, Some(0), "{said}");
        }
    }
    let remote = objects_of(&cloud.stores(), &url);
    let local = files_of(&place.path("ranks"));
    assert!(remote.iter().any(|(name, _)| name.ends_with("optim-rank1.safetensors")));
    assert!(comparable(remote) == comparable(local), "other bytes");
    // One rank goes on from what two have saved.
    ok(&mut fit(&place, &url, &cloud.variables, &["train.steps=6"]));
}

#[test]
fn who_claims_a_run_last_has_it_and_a_store_that_fails_is_named() {
    let Some(cloud) = Cloud::quick_s3() else { return };
    let place = scenes();
    let url = format!("{}/runs/claimed", cloud.root);
    let long = ["train.steps=100000", "eval.every_steps=0"];
    let mut first = fit(&place, &url, &cloud.variables, &long);
    let first = first.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    await_latest(&cloud, &url, 3);
    let folder = cloud.stores().folder(url.as_ref()).unwrap();
    folder.put(".lock", b"process 1 on host elsewhere, start 0").unwrap();
    let (code, said) = ends(vec![first]).remove(0);
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("is now being trained by process 1 on host elsewhere"), "{said}");

    // A store that takes nothing any more: what was saved stays, and is gone on with.
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let proxy = Proxy::start(cloud.port, move |head| {
        match failing.load(Ordering::Relaxed) && head.starts_with("PUT ") {
            true => Act::Answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"),
            false => Act::Pass,
        }
    });
    let url = format!("{}/runs/failing", cloud.root);
    let mut child = fit(&place, &url, &s3_variables(proxy.port), &long);
    let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    await_latest(&cloud, &url, 3);
    fails.store(true, Ordering::Relaxed);
    let (code, said) = ends(vec![child]).remove(0);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("the store of the run fails") && said.contains(&url), "{said}");
    let (code, _, said) = told(
        &program("catlip-train")
            .args(["eval", "--run", &url])
            .args(["--data", &place.text("heldout")])
            .envs(cloud.variables.iter().cloned())
            .output()
            .unwrap(),
    );
    assert_eq!(code, 0, "{said}");
}
