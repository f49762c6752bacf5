//! The whole line by its programs: shards in, a trained checkpoint out, evaluated.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use catlip_tests::{Place, SMALL_MODEL, demo_data, files_of, peer, program, root, run, told};

const SETTINGS: [&str; 3] = ["feed.lanes=2", "train.steps=8", "checkpoint.every_steps=4"];

fn ok(program: &str, arguments: &[&str]) -> String {
    let (code, out, err) = told(&run(program, arguments));
    assert_eq!(code, 0, "{program} {arguments:?}: {out}{err}");
    out
}

fn fit(dir: &Path, out: &str, more: &[&str]) -> (i32, String, String) {
    let text = |name: &str| dir.join(name).display().to_string();
    let (train, heldout, run_folder) = (text("train"), text("heldout"), text(out));
    let mut arguments = vec!["fit", "--data", &train, "--val", &heldout, "--out", &run_folder];
    for setting in SMALL_MODEL.iter().chain(&SETTINGS) {
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

/// Two grey images of 48 × 32 px as safetensors.
fn images_file(path: &Path) {
    let numbers: Vec<f32> = (0..2 * 3 * 48 * 32).map(|i| (i % 97) as f32 / 97.0).collect();
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let header = format!(
        "{{\"images\":{{\"dtype\":\"F32\",\"shape\":[2,3,48,32],\"data_offsets\":[0,{}]}}}}",
        data.len()
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(path, file).unwrap();
}

/// A run goes out, comes back, and gives the same logits to the bit.
fn the_model_goes_out_and_comes_back(dir: &Path) {
    let text = |name: &str| dir.join(name).display().to_string();
    images_file(&dir.join("images.safetensors"));
    let logits = |weights: &str, output: &str| {
        let (weights, images) = (text(weights), text("images.safetensors"));
        let output = text(output);
        let arguments = ["--weights", &weights, "--images", &images, "--output", &output];
        ok("catlip-train", &[&["logits"], &arguments[..]].concat());
        std::fs::read(output).unwrap()
    };
    let expected = logits("run", "of-run");
    for target in ["hf", "timm"] {
        let (run, out) = (text("run"), text(target));
        ok("catlip-train", &["export", "--weights", &run, "--to", target, "--out", &out]);
        for file in ["config.json", "README.md", "modeling_catlip.py", "vocab.parquet"] {
            assert!(dir.join(target).join(file).is_file(), "{target}: {file}");
        }
        let (file, back) =
            (text(&format!("{target}/model.safetensors")), text(&format!("{target}-back")));
        ok("catlip-train", &["import", "--weights", &file, "--out", &back]);
    }
    let plain = |name: &str| std::fs::read(dir.join(name).join("model.safetensors")).unwrap();
    assert!(plain("hf-back") == plain("timm-back"));
    // The patch of 8 px is not in the shapes of this stem: said by name it is.
    let of_shapes = logits("hf-back", "of-shapes");
    assert_eq!(of_shapes.len(), expected.len());
    let json = std::fs::read_to_string(dir.join("hf-back/model.json")).unwrap();
    let json = json.replace("\"patch_px\": 16", "\"patch_px\": 8");
    std::fs::write(dir.join("hf-back/model.json"), json).unwrap();
    assert!(logits("hf-back", "of-import") == expected);

    let hostile = dir.join("hostile.pt");
    std::fs::write(&hostile, b"PK\x03\x04 and nothing more").unwrap();
    let hostile = hostile.display().to_string();
    let import = ["import", "--weights", &hostile, "--out", &text("never")];
    let (code, _, err) = told(&run("catlip-train", &import));
    assert_eq!(code, 5, "{err}");
    assert!(!dir.join("never").exists());
}

/// By the programs that others have: what goes out loads there, and gives the same logits.
#[test]
fn timm_and_hugging_face_load_what_is_exported() {
    let Some(python) = peer("python") else { return };
    let script = root().join("trainer/golden/check_exchange.py");
    let program = program("catlip-train");
    let checked = Command::new(python).arg(script).arg(program.get_program()).output().unwrap();
    let (code, out, err) = told(&checked);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(out.matches("of logits up to").count(), 22, "{out}");
}

/// Shards as they are, and several data sets by weight, are fed as one data set is.
fn shards_and_mixes_are_fed(dir: &Path) {
    let text = |name: &str| dir.join(name).display().to_string();
    let (train, heldout) = (text("train"), text("heldout"));
    let ids = |data: &[&str], more: &[&str]| {
        let base = ["feed", "--ids", "--set", "feed.lanes=4", "--batch", "10"];
        let data: Vec<&str> = data.iter().flat_map(|path| ["--data", *path]).collect();
        ok("catlip-train", &[&base[..], &data, more].concat())
    };
    let shards = text("shards/train-*.tar");
    let prepared = ids(&[&train], &[]);
    assert_eq!(ids(&[&shards], &[]), prepared);
    // The index is found again, and printed.
    let folder = ok("catlip-prep", &["index", "--input", &shards]);
    assert!(folder.contains("/shards/.catlip-index-"), "{folder}");
    assert_eq!(ids(&[folder.trim()], &[]), prepared);

    let names = |out: &str| -> Vec<String> {
        out.lines().flat_map(|l| l.split(' ').skip(3)).map(str::to_owned).collect()
    };
    // 96 + 32 rows by 1 to 3: 32 of the first, and each of the second three times.
    let weights = ["--set", "data.weights=[1, 3]"];
    let mixed = ids(&[&train, &heldout], &weights);
    assert_eq!(mixed.lines().count(), 12);
    let of_train: std::collections::HashSet<String> = names(&prepared).into_iter().collect();
    let count = names(&mixed).iter().filter(|id| of_train.contains(*id)).count();
    assert!((26..=32).contains(&count), "{count} of 120");
    let (code, _, err) = told(&run(
        "catlip-train",
        &["feed", "--ids", "--data", &train, "--data", &heldout, "--set", "data.weights=[1]"],
    ));
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("`data.weights` is [1.0], expected"), "{err}");

    let more = ["--data", &shards, "--set", "data.weights=[1, 1]"];
    let more = [&more[..], &["--set", "data.labels=one_caption"]].concat();
    let (code, out, err) = fit(dir, "mixed", &[&more[..], &["--set", "train.steps=4"]].concat());
    assert_eq!(code, 0, "{out}{err}");
    let again = [&more[..], &["--set", "train.steps=8", "--resume"]].concat();
    let (code, _, err) = fit(dir, "mixed", &again);
    assert_eq!(code, 6, "a run of 4 steps is another: {err}");
    let state = std::fs::read_to_string(dir.join("mixed/checkpoints/step-00000004/state.json"));
    assert!(state.unwrap().contains("\"sets\""));
    let bench = ["bench", "feed", "--data", &train, "--images", "32", "--set", "train.batch=16"];
    let out = ok("catlip-train", &[&bench[..], &["--set", "train.image_px=32"]].concat());
    assert!(out.contains("first ") && out.trim_end().ends_with('.'), "{out}");
    let sizes = ["--rounds", "1", "--latency-ms", "1", "--images", "32", "--batch", "16"];
    let far = ok("catlip-remote-feed", &[&sizes[..], &[&shards]].concat());
    assert!(far.starts_with("skipped: no s3s-fs") || far.contains("\"ratio\":"), "{far}");
}

#[test]
fn shards_become_a_checkpoint_that_evaluates_and_predicts() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let text = |name: &str| dir.join(name).display().to_string();
    demo_data(dir);
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

    the_model_goes_out_and_comes_back(dir);
    let train = text("train");
    let dry =
        ["fit", "--dry-run", "--recipe", &recipe, "--data", &train, "--set", "train.batch=32"];
    let out = ok("catlip-train", &dry);
    assert!(out.contains("epoch       96 images, 3 steps; the run takes 1.00 epochs"), "{out}");
    let events = std::fs::read(dir.join("run/events.out.tfevents.catlip")).unwrap();
    for tag in ["train/loss", "speed/images_per_sec", "eval/map"] {
        let is_there = events.windows(tag.len()).any(|bytes| bytes == tag.as_bytes());
        assert!(is_there, "{tag} in {} bytes", events.len());
    }

    let out = ok("catlip-train", &["eval", "--run", &text("run"), "--data", &text("heldout")]);
    assert!(out.contains("held-out mAP 0."), "{out}");

    the_order_is_shown(&text("train"));
    shards_and_mixes_are_fed(dir);

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

/// Data sets of scenes in a folder that vanishes.
fn scenes() -> Place {
    let place = Place::new();
    demo_data(&place.path("."));
    place
}

/// A run of the demo's scenes, rows of which are held out by their id.
fn fit_alone(place: &Place, out: &str, more: &[&str]) -> (i32, String, String) {
    let (train, out) = (place.text("train"), place.text(out));
    let mut arguments = vec!["fit", "--data", &train, "--out", &out];
    for setting in SMALL_MODEL.iter().chain(&SETTINGS).chain(&["data.holdout_percent=20"]) {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(more);
    told(&run("catlip-train", &arguments))
}

/// What `catlip-train` says to these words.
fn said(arguments: &[&str]) -> (i32, String, String) {
    told(&run("catlip-train", arguments))
}

#[test]
fn a_run_goes_on_over_its_own_labels_and_snapshot_when_others_have_come() {
    let place = scenes();
    let (train, folder) = (place.text("train"), place.text("run"));
    let (code, _, err) = fit_alone(&place, "run", &["--set", "train.steps=4"]);
    assert_eq!(code, 0, "{err}");
    let config = std::fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains("snapshots = [1]"), "{config}");
    let eval = ["eval", "--run", &folder, "--data", &train];
    let before = ok("catlip-train", &eval);

    ok("catlip-prep", &["relabel", &train, "--rule", "nouns"]);
    let (code, _, err) = fit_alone(&place, "other", &[]);
    assert!(code == 3 && err.contains("hint: choose one, with --labels NAME"), "{err}");
    let feed = ["feed", "--data", &train, "--ids", "--batch", "10"];
    let ids = ok("catlip-train", &[&feed[..], &["--labels", "corenet-1"]].concat());
    place.write("ids.txt", format!("{}\n", ids.split(' ').nth(3).unwrap()).as_bytes());
    ok("catlip-prep", &["drop", &train, "--ids", &place.text("ids.txt")]);

    // The run that is there reads what it read; a new one reads what it is told to.
    let (code, _, err) = fit_alone(&place, "run", &["--set", "train.steps=4", "--resume"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(ok("catlip-train", &eval), before);
    let other = ["--snapshot", "2", "--labels", "corenet-1"];
    let resumed = ["--set", "train.steps=4", "--resume"];
    let (code, _, err) = fit_alone(&place, "run", &[&resumed[..], &other].concat());
    assert!(code == 6 && err.contains("`data.snapshots` = [1], this command says [2]"), "{err}");
    let (code, _, err) = fit_alone(&place, "other", &other);
    assert_eq!(code, 0, "{err}");
    let config = std::fs::read_to_string(place.path("other/config.toml")).unwrap();
    assert!(config.contains("label_set = \"synsets.corenet-1\""), "{config}");
    assert!(config.contains("snapshots = [2]"), "{config}");

    let steps = |more: &[&str]| ok("catlip-train", &[&feed[..], more].concat());
    let all = steps(&["--snapshot", "1", "--set", "feed.last_batch=pad"]);
    let less = steps(&["--labels", "nouns-1", "--set", "feed.last_batch=pad"]);
    assert_eq!(all.split(' ').count(), less.split(' ').count() + 1);
    for wrong in [["--snapshot", "99"], ["--labels", "nope"]] {
        let (code, _, err) = said(&[&feed[..], &wrong].concat());
        assert_eq!(code, 3, "{err}");
    }
}

#[test]
fn a_folder_that_holds_something_else_is_refused() {
    let place = scenes();
    std::fs::create_dir(place.path("thesis")).unwrap();
    place.write("thesis/chapter.tex", b"once");
    let (train, shards) = (place.text("train"), place.text("shards"));
    for (out, code_expected, found) in [
        (train.as_str(), 6, "holds something else: "),
        (&place.text("thesis"), 6, "holds something else: chapter.tex"),
    ] {
        for command in ["fit", "batches"] {
            let (code, _, err) = said(&[command, "--data", &train, "--out", out]);
            assert!(code == code_expected && err.contains(found), "{code} {err}");
        }
    }
    let (code, _, err) = said(&["batches", "--data", &train, "--out", "s3://bucket/batches"]);
    assert!(code == 2 && err.contains("s3://bucket/batches is a URL"), "{code} {err}");
    assert_eq!(fit_alone(&place, "run", &["--set", "train.steps=2"]).0, 0);
    let export = ["export", "--weights", &place.text("run"), "--to", "hf", "--out"];
    for (out, code_expected) in [(shards.as_str(), 6), ("s3://bucket/x", 2)] {
        let (code, _, err) = said(&[&export[..], &[out]].concat());
        assert_eq!(code, code_expected, "{err}");
    }
    assert!(!Path::new("s3:").exists());
}

#[test]
fn a_run_that_is_being_trained_is_left_alone() {
    let place = scenes();
    let (train, out) = (place.text("train"), place.text("run"));
    let mut command = program("catlip-train");
    command.args(["fit", "--data", &train, "--out", &out]);
    for setting in
        SMALL_MODEL.iter().chain(&SETTINGS).chain(&["train.steps=1000000", "eval.every_steps=0"])
    {
        command.args(["--set", setting]);
    }
    let mut first = command.stderr(Stdio::null()).spawn().unwrap();
    let log = place.path("run/checkpoints");
    while !log.exists() {
        assert!(first.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    let more = ["--set", "train.steps=1000000", "--resume"];
    let (code, _, err) = fit_alone(&place, "run", &more);
    assert_eq!(code, 6, "{err}");
    assert!(err.contains(&format!("trained by process {} on host", first.id())), "{err}");
    // A kill gives the lock back.
    first.kill().unwrap();
    first.wait().unwrap();
    let mut again = command.arg("--resume").stderr(Stdio::piped()).spawn().unwrap();
    let told = BufReader::new(again.stderr.take().unwrap()).lines().map_while(Result::ok);
    let begun = told.take(200).find(|line| line.starts_with("begin at step "));
    assert!(begun.is_some());
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn a_missing_or_cut_file_of_the_data_is_named_before_the_first_step() {
    let place = scenes();
    assert_eq!(fit_alone(&place, "run", &["--set", "train.steps=2"]).0, 0);
    let (heldout, train) = (place.text("heldout"), place.text("train"));
    let mut captions = files_of(&place.path("heldout")).into_iter().map(|(name, _)| name);
    let captions = captions.rfind(|name| name.contains("captions/")).unwrap();
    let captions = place.path("heldout").join(captions);
    let whole = std::fs::read(&captions).unwrap();
    std::fs::write(&captions, &whole[..100]).unwrap();
    let expected = format!("size is 100 bytes, expected {} bytes", whole.len());
    let (code, _, err) = fit(&place.path("."), "cut", &[]);
    assert!(code == 7 && err.contains(&expected), "{code} {err}");
    assert!(!err.contains("begin at step"), "{err}");
    std::fs::remove_file(&captions).unwrap();
    let eval = ["eval", "--run", &place.text("run"), "--data", &heldout];
    let (code, _, err) = said(&[&eval[..], &["--set", "data.holdout_percent=0"]].concat());
    assert!(code == 7 && err.contains("size is no file, expected "), "{code} {err}");

    let feed = ["feed", "--data", &train, "--ids", "--batch", "10"];
    for more in [["--epoch", "18446744073709551615"], ["--epochs", "18446744073709551615"]] {
        let (code, _, err) = said(&[&feed[..], &more].concat());
        assert!(code == 2 && err.contains("not in 0..=1000000000"), "{code} {err}");
    }
    let last = ["--epoch", "1000000000", "--start-step", "8"];
    let (code, out, err) = said(&[&feed[..], &last].concat());
    assert!(code == 0 && out.lines().count() == 1, "{code} {out} {err}");
    let last = ["--start-step", "1099511627776"];
    assert_eq!(said(&[&feed[..], &last].concat()).1, "");
}

/// Sends a signal to a process that this test started.
fn send(signal: &str, child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
}

#[test]
fn signals_are_heard_from_the_beginning_and_twice_at_once_still_saves() {
    let place = scenes();
    let start = |out: &str| {
        let (train, out) = (place.text("train"), place.text(out));
        let mut command = program("catlip-train");
        command.args(["fit", "--resume", "--data", &train, "--out", &out]);
        for setting in SMALL_MODEL.iter().chain(&SETTINGS).chain(&["train.steps=1000000"]) {
            command.args(["--set", setting]);
        }
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = start("run");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("begin at step ")));
    send("-INT", &child);
    send("-INT", &child);
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(9), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("stopped by a signal")), "{rest:?}");
    let folders = || -> Vec<String> {
        let names = std::fs::read_dir(place.path("run/checkpoints")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert!(folders().iter().all(|name| name.starts_with("step-")), "{:?}", folders());

    // What a kill left half is gone once the next start has begun, which a signal stops too.
    std::fs::create_dir(place.path("run/checkpoints/.step-99999999.new")).unwrap();
    let mut child = start("run");
    // The loader maps libtorch for a while; the program itself begins by asking for signals.
    let hears = |id: u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        u64::from_str_radix(caught, 16).unwrap() & (1 << 14) != 0
    };
    while !hears(child.id()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    send("-TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(folders().iter().all(|name| name.starts_with("step-")), "{:?}", folders());
}

#[test]
fn what_is_wrong_with_an_input_or_a_setting_has_its_code_and_names_it() {
    let place = scenes();
    assert_eq!(fit_alone(&place, "run", &["--set", "train.steps=2"]).0, 0);
    let (train, run, none) = (place.text("train"), place.text("run"), place.text("none"));
    let never = place.text("never");
    let junk = place.text("junk.pkl");
    place.write("junk.pkl", b"this is no pickle");
    let fit = ["fit", "--data", &train, "--out", &never];
    let eval = ["eval", "--run", &run, "--data", &train];
    for (arguments, code_expected, message) in [
        (vec!["predict", "--run", &run, &none], 5, "cannot read"),
        ([&fit[..], &["--vocab", &none]].concat(), 5, "cannot read"),
        ([&fit[..], &["--vocab", &junk]].concat(), 5, "junk.pkl is no vocabulary"),
        ([&fit[..], &["--vocab", &junk]].concat(), 5, "hint: make one with `catlip-prep vocab"),
        ([&fit[..], &["--prep-log", &none]].concat(), 5, "cannot read"),
        ([&fit[..], &["--prep-log", &junk]].concat(), 5, "it is no log of catlip-prep"),
        (vec!["import", "--weights", &none, "--out", &never], 5, "cannot read"),
        (
            vec!["logits", "--weights", &run, "--images", &none, "--output", &never],
            5,
            "cannot read",
        ),
        (vec!["fit", "--data", &none, "--out", &never], 5, "there is no data set at"),
        (vec!["eval", "--run", &run, "--data", &none], 5, "there is no data set at"),
        ([&eval[..], &["--snapshot", "99"]].concat(), 3, "has no snapshot 99"),
        ([&eval[..], &["--labels", "nope"]].concat(), 3, "synsets.nope is not there"),
        ([&eval[..], &["--snapshot", "0"]].concat(), 2, "0 is not in 1.."),
        ([&eval[..], &["--set", "model.width=32"]].concat(), 3, "`model.width` is 32, but"),
        (
            [&fit[..], &["--set", "train.steps=-1"]].concat(),
            3,
            "--set train.steps=-1: `train.steps`",
        ),
        (vec!["batches", "--data", &train, "--out", &never, "--resume"], 2, "--resume"),
        (vec!["fit"], 2, "Usage: catlip-train fit [OPTIONS] --data <DIR|URL|SHARDS> --out <RUN>"),
    ] {
        let (code, out, err) = said(&arguments);
        assert!(code == code_expected && err.contains(message), "{arguments:?}: {code} {out}{err}");
    }
    assert!(!place.path("never").exists());
}

#[test]
fn heads_come_from_beside_the_weights_and_numbers_of_other_labels_warn() {
    let place = scenes();
    let two = ["--set", "train.steps=4", "--set", "model.heads=2"];
    assert_eq!(fit_alone(&place, "run", &two).0, 0);
    let weights = place.text("run/checkpoints/step-00000004/model.safetensors");
    let out = place.text("back");
    let told = ok("catlip-train", &["import", "--weights", &weights, "--out", &out]);
    assert!(told.starts_with("64 × 2 blocks, 2 heads"), "{told}");
    std::fs::copy(&weights, place.path("alone.safetensors")).unwrap();
    let (alone, out) = (place.text("alone.safetensors"), place.text("alone"));
    let import = ["import", "--weights", &alone, "--out", &out];
    let (code, _, err) = said(&import);
    assert!(code == 5 && err.contains("hint: say how many: --set model.heads=N"), "{code} {err}");
    let told = ok("catlip-train", &[&import[..], &["--set", "model.heads=2"]].concat());
    assert!(told.contains("2 heads"), "{told}");

    // Captions that name nothing: no row has a label of the run's vocabulary.
    let image = catlip_tests::picture(3, 48, 48);
    let files = [("0.jpg".to_owned(), image), ("0.txt".to_owned(), b"of the".to_vec())];
    place.shard("mute.tar", &files);
    let (tar, mute) = (place.text("mute.tar"), place.text("mute"));
    ok("catlip-prep", &["run", "--quiet", "--input", &tar, "--output", &mute]);
    let eval = ["eval", "--run", &place.text("run"), "--data", &mute];
    let (code, out, err) = said(&[&eval[..], &["--set", "data.holdout_percent=0"]].concat());
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("warning: no held-out row has a synset of the run's vocabulary"), "{err}");
}
