//! The whole line by its programs: shards in, a trained checkpoint out, evaluated.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use catlip_tests::servers::Cloud;
use catlip_tests::{files_of, program, run, told};

const SETTINGS: [&str; 11] = [
    "feed.lanes=2",
    "eval.min_positives=1",
    "model.width=64",
    "model.depth=2",
    "model.heads=1",
    "model.positions=16",
    "model.patch_px=8",
    "train.image_px=32",
    "train.batch=16",
    "train.steps=8",
    "checkpoint.every_steps=4",
];

fn ok(program: &str, arguments: &[&str]) -> String {
    let (code, out, err) = told(&run(program, arguments));
    assert_eq!(code, 0, "{program} {arguments:?}: {out}{err}");
    out
}

fn fit(dir: &Path, out: &str, more: &[&str]) -> (i32, String, String) {
    let text = |name: &str| dir.join(name).display().to_string();
    let (train, heldout, run_folder) = (text("train"), text("heldout"), text(out));
    let mut arguments = vec!["fit", "--data", &train, "--val", &heldout, "--out", &run_folder];
    for setting in SETTINGS {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(more);
    told(&run("catlip-train", &arguments))
}

/// Two ranks share the steps of one; the standing of a sample is where the trace shows it.
fn the_order_is_shown(data: &str) {
    let base = ["feed", "--data", data, "--set", "feed.lanes=4", "--batch", "10", "--seed", "5"];
    let feed = |more: &[&str]| ok("catlip-train", &[&base[..], more].concat());
    let ids = |out: &str, step: usize| -> Vec<String> {
        let line = out.lines().nth(step).unwrap().to_owned();
        line.split(' ').skip(3).map(str::to_owned).collect()
    };
    let whole = feed(&["--ids"]);
    assert_eq!(whole.lines().count(), 9);
    assert!(whole.starts_with("0 224 10 "), "{whole}");
    let ranks = [0, 1].map(|r| feed(&["--ids", "--world-size", "2", "--rank", &r.to_string()]));
    let mut shares = [ids(&ranks[0], 3), ids(&ranks[1], 3)].map(Vec::into_iter);
    // Step 3 begins at position 30, in lane 2: an even lane, which is rank 0's.
    let woven: Vec<_> = (30..40).map(|p| shares[p % 2].next().unwrap()).collect();
    assert_eq!(woven, ids(&whole, 3));
    assert_eq!(ids(&feed(&["--ids", "--start-step", "3"]), 0), woven);
    assert_eq!(feed(&["--where", &woven[4]]), "0 3 34\n");
    let sizes = feed(&["--ids", "--set", "sampler.kind=variable"]);
    assert!(sizes.lines().any(|line| !line.split(' ').nth(1).unwrap().starts_with("224")));
}

#[test]
fn shards_become_a_checkpoint_that_evaluates_and_predicts() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let text = |name: &str| dir.join(name).display().to_string();
    let numbers = ["--scenes", "96", "--heldout", "32"];
    ok("catlip-prep", &[&["demo-data", "--output", &text("shards")], &numbers[..]].concat());
    for part in ["train", "heldout"] {
        let input = text(&format!("shards/{part}-*.tar"));
        ok("catlip-prep", &["run", "--quiet", "--input", &input, "--output", &text(part)]);
    }
    let recipe = dir.join("empty.toml");
    std::fs::write(&recipe, "").unwrap();
    let recipe = recipe.display().to_string();

    let (code, out, err) = fit(dir, "run", &["--recipe", &recipe]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.lines().last().unwrap().starts_with("held-out mAP 0."), "{out}");
    let latest = std::fs::read_to_string(dir.join("run/LATEST")).unwrap();
    assert!(latest.contains("step-00000008"), "{latest}");
    let report = std::fs::read_to_string(dir.join("run/report.html")).unwrap();
    assert!(report.contains("<svg") && !report.contains("src=\"http"));

    // A second run of the same words comes to the same weights.
    assert_eq!(fit(dir, "again", &["--recipe", &recipe, "--set", "feed.threads=3"]).0, 0);
    let weights = |name: &str| {
        files_of(&dir.join(name))
            .into_iter()
            .filter(|(file, _)| file.ends_with("step-00000008/model.safetensors"))
            .collect::<Vec<_>>()
    };
    assert_eq!(weights("run").len(), 1);
    assert!(weights("run") == weights("again"));

    let out = ok("catlip-train", &["eval", "--run", &text("run"), "--data", &text("heldout")]);
    assert!(out.contains("held-out mAP 0."), "{out}");

    the_order_is_shown(&text("train"));

    let picture = dir.join("picture.jpg");
    std::fs::write(&picture, catlip_tests::picture(3, 80, 60)).unwrap();
    let picture = picture.display().to_string();
    let out = ok("catlip-train", &["predict", "--run", &text("run"), &picture]);
    assert!(out.contains("picture.jpg"), "{out}");

    let (code, _, err) = fit(dir, "run", &["--recipe", &recipe]);
    assert_eq!(code, 6, "an existing run needs --resume: {err}");
    let (code, _, err) = fit(dir, "wrong", &["--recipe", &recipe, "--set", "train.bacth=3"]);
    assert_eq!(code, 3);
    assert!(err.contains("did you mean `train.batch`?"), "{err}");
}

#[test]
fn a_data_set_in_a_store_is_fed_and_trained_on_as_one_in_a_folder() {
    let Some(cloud) = Cloud::s3() else { return };
    let place = tempfile::tempdir().unwrap();
    let text = |name: &str| place.path().join(name).display().to_string();
    let done = |name: &str, arguments: &[&str]| {
        let mut command = program(name);
        command.args(arguments).envs(cloud.variables.iter().cloned());
        let (code, out, err) = told(&command.output().unwrap());
        assert_eq!(code, 0, "{name} {arguments:?}: {out}{err}");
        out
    };
    done("catlip-prep", &["demo-data", "--output", &text("shards"), "--scenes", "40"]);
    std::fs::write(text("empty.toml"), "").unwrap();
    let fed_and_trained = |data: &str, out: &str| {
        let input = text("shards/train-*.tar");
        done("catlip-prep", &["run", "--quiet", "--input", &input, "--output", data]);
        let ids = ["feed", "--ids", "--batch", "10", "--set", "feed.lanes=4", "--data", data];
        let fed = done("catlip-train", &ids);
        let (out, recipe) = (text(out), text("empty.toml"));
        let mut arguments = vec!["fit", "--data", data, "--out", &out, "--recipe", &recipe];
        let more = ["train.steps=2", "data.holdout_percent=10"];
        SETTINGS.iter().chain(&more).for_each(|setting| arguments.extend(["--set", setting]));
        done("catlip-train", &arguments);
        let weights = format!("{out}/checkpoints/step-00000002/model.safetensors");
        (fed, std::fs::read(weights).unwrap())
    };
    let local = fed_and_trained(&text("data"), "local");
    assert!(fed_and_trained(&format!("{}/data", cloud.root), "remote") == local);
}
