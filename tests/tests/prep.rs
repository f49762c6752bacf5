//! `catlip-prep` as its users meet it: the program, real files, bad input.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use catlip_tests::{Place, files_of, picture, program, run, samples, told};

fn file(name: &str, data: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), data.to_vec())
}

#[test]
fn each_bad_sample_has_its_reason_and_the_good_ones_are_rows() {
    let place = Place::new();
    let jpeg = picture(1, 30, 20);
    place.shard(
        "s.tar",
        &[
            file("zero.jpg", b""),
            file("zero.txt", b"a dog"),
            file("pixel.jpg", &picture(2, 1, 1)),
            file("pixel.txt", b"a dog"),
            file("latin.jpg", &jpeg),
            file("latin.txt", b"caf\xe9"),
            file("alone.jpg", &jpeg),
            file("words.txt", b"a dog"),
            file("twins.jpg", &jpeg),
            file("twins.png", &jpeg),
            file("twins.txt", b"a dog"),
            file("half.jpg", &jpeg[..jpeg.len() / 2]),
            file("half.txt", b"a dog"),
            file("text.jpg", b"<html>404</html>"),
            file("text.txt", b"a dog"),
            file("list.jpg", &jpeg),
            file("list.json", br#"{"captions": 7}"#),
        ],
    );
    let (code, out, err) = place.prep("s.tar", "out", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("1 rows from 9 samples"), "{out}");
    for reason in [
        "image-empty",
        "caption-not-utf8",
        "caption-missing",
        "image-missing",
        "image-ambiguous",
        "image-corrupt",
        "image-format",
        "caption-json",
    ] {
        assert!(out.contains(&format!("rejected: 1 × {reason} ")), "{reason}: {out}");
    }
}

#[test]
fn damaged_shards_are_named_and_nothing_looks_whole() {
    let place = Place::new();
    place.shard("a-whole.tar", &samples(0, 4, 32));
    let bytes = place.shard("b-cut.tar", &samples(4, 4, 32));
    std::fs::write(place.path("b-cut.tar"), &bytes[..bytes.len() / 2]).unwrap();
    // At an entry's border: the last sample may lack a file.
    std::fs::write(place.path("c-border.tar"), &bytes[..bytes.len() - 1024]).unwrap();
    std::fs::write(place.path("d-empty.tar"), b"").unwrap();
    std::fs::write(place.path("e-text.tar"), b"this is no tar\n".repeat(99)).unwrap();
    let (code, _, err) = place.prep("*.tar", "out", &[]);
    assert_eq!(code, 4, "{err}");
    for name in ["b-cut.tar", "c-border.tar", "d-empty.tar", "e-text.tar"] {
        assert!(err.contains(name), "{name}: {err}");
    }
    assert!(err.contains("e-text.tar: the shard is damaged: "), "{err}");
    assert!(err.contains("b-cut.tar: the shard is cut: it ends inside `"), "{err}");
    assert!(!err.contains("a-whole.tar") && err.contains("hint: "), "{err}");
    assert!(!place.path("out/manifest").exists());
    let (code, _, err) = told(&run("catlip-prep", &["verify", &place.text("out")]));
    assert_eq!(code, 7, "{err}");
    let (code, out, err) = place.prep("*.tar", "out", &["--set", "budget.damaged_shards=4"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("nothing to do: all 5 parts were there"), "{out}");
    assert!(out.contains("3 × shard-cut") && out.contains("1 × shard-damaged"), "{out}");
}

#[test]
fn another_run_and_other_files_in_the_output_are_left_alone() {
    let place = Place::new();
    place.shard("s.tar", &samples(0, 3, 16));
    assert_eq!(place.prep("s.tar", "out", &[]).0, 0);
    let before = files_of(&place.path("out"));
    let (code, _, err) = place.prep("s.tar", "out", &["--set", "image.quality=40"]);
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("image.quality: 40, was 90") && err.contains("redo_config"), "{err}");
    assert!(files_of(&place.path("out")) == before);
    std::fs::create_dir(place.path("mine")).unwrap();
    std::fs::write(place.path("mine/diary.txt"), b"").unwrap();
    assert_eq!(place.prep("s.tar", "mine", &[]).0, 6);
}

#[test]
fn wrong_words_are_refused_with_the_right_ones() {
    let place = Place::new();
    place.shard("s.tar", &samples(0, 1, 16));
    let (code, _, err) = place.prep("s.tar", "out", &["--set", "image.qualty=40"]);
    assert_eq!(code, 3);
    assert!(err.contains("did you mean `image.quality`?"), "{err}");
    let (code, _, err) = place.prep("s.tar", "out", &["--set", "caption.rule=nouns2"]);
    assert_eq!(code, 3);
    assert!(err.contains("corenet"), "{err}");
    let (code, _, err) = place.prep("s-{0..3}.tar", "out", &[]);
    assert_eq!(code, 5);
    assert!(err.contains("s-0.tar"), "{err}");
    for (sources, found) in [("[]", "is [],"), ("[\"jsn:caption\"]", "is \"jsn:caption\",")] {
        let setting = format!("caption.sources={sources}");
        let (code, _, err) = place.prep("s.tar", "out", &["--set", &setting]);
        assert_eq!(code, 3, "{err}");
        assert!(err.contains("`caption.sources`") && err.contains(found), "{err}");
        assert!(err.contains("\"json:caption\""), "{err}");
    }
    place.write("list.txt", b"\xef\xbb\xbf# none yet\n\n");
    let list = format!("@{}", place.text("list.txt"));
    let (code, _, err) = place.run(&["run", "--input", &list, "--output", &place.text("out")]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("list.txt names no shard") && err.contains("hint: "), "{err}");
    assert!(!place.path("out").exists());
}

#[test]
fn captions_that_no_sample_has_commit_nothing_and_the_right_ones_go_on() {
    let place = Place::new();
    place.shard("s.tar", &samples(0, 3, 16));
    let wrong = ["--set", "caption.sources=[\"json:alt\", \"cap\"]"];
    for _ in 0..2 {
        let (code, _, err) = place.prep("s.tar", "out", &wrong);
        assert_eq!(code, 3, "{err}");
        let said = "3 of 3 have no caption in `caption.sources` = [\"json:alt\",\"cap\"]";
        assert!(err.contains(said) && err.contains("(s.tar, key 00000: "), "{err}");
        assert!(err.contains("(its files: jpg, txt)"), "{err}");
        assert!(err.contains("same --output"), "{err}");
    }
    assert!(!place.path("out/manifest").exists());
    let (code, out, err) = place.prep("s.tar", "out", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("snapshot 1, 3 rows from 3 samples"), "{out}");
    assert_eq!(place.run(&["verify", &place.text("out")]).0, 0);

    // Jobs that share the work are told so where they are joined.
    let output = place.text("shares");
    let all = [&wrong[..], &["--jobs", "1/1"]].concat();
    assert_eq!(place.prep("s.tar", "shares", &all).0, 0);
    let (code, _, err) = place.run(&["commit", "--output", &output]);
    assert!(code == 3 && err.contains("caption.sources"), "{err}");
    assert_eq!(place.prep("s.tar", "shares", &[]).0, 0);

    // What another config made is left alone where it has rows.
    assert_eq!(place.prep("s.tar", "begun", &["--jobs", "1/1"]).0, 0);
    let (code, _, err) = place.prep("s.tar", "begun", &["--set", "image.quality=40"]);
    assert!(code == 6 && err.contains("is being made") && err.contains("if that job"), "{err}");
    let redo = ["--set", "image.quality=40", "--set", "runtime.redo_config=true"];
    assert_eq!(place.prep("s.tar", "begun", &redo).0, 0);
}

#[test]
fn the_demo_is_drawn_for_numbers_and_folders_that_make_sense() {
    let place = Place::new();
    let demo = |folder: &str, more: &[&str]| {
        let folder = place.text(folder);
        place.run(&[&["demo-data", "--output", folder.as_str()], more].concat())
    };
    for flag in ["--scenes", "--heldout"] {
        let (code, _, err) = demo("new", &[flag, "0"]);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(flag) && err.contains("1..=1000000"), "{err}");
    }
    assert!(!place.path("new").exists());
    std::fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/diary.txt", b"");
    let (code, _, err) = demo("mine", &["--scenes", "1", "--heldout", "1"]);
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("diary.txt") && err.contains("another --output"), "{err}");
    assert_eq!(files_of(&place.path("mine")).len(), 1);
}

#[test]
fn a_job_that_is_killed_goes_on_to_the_same_bytes() {
    let place = Place::new();
    for i in 0..6 {
        place.shard(&format!("s-{i}.tar"), &samples(i * 40, 40, 160));
    }
    let settings = ["--set", "image.short_side_px=64", "--set", "image.rows_per_group=16"];
    assert_eq!(place.prep("s-*.tar", "whole", &settings).0, 0);
    let expected = files_of(&place.path("whole"));
    let mut kills = 0;
    // Later and later, until the job is faster than the kill.
    for delay_ms in (0..).map(|i| 2 + 7 * i) {
        let mut child = program("catlip-prep")
            .args(["run", "--quiet", "--input", &place.text("s-*.tar")])
            .args(["--output", &place.text("out")])
            .args(settings)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
    }
    assert!(kills > 0);
    assert_eq!(place.prep("s-*.tar", "out", &settings).0, 0);
    let (_, out, _) = told(&run("catlip-prep", &["verify", &place.text("out")]));
    assert!(out.contains("240 rows"), "{out}");
    remove_temp_files(&place.path("out"));
    assert!(files_of(&place.path("out")) == expected, "after {kills} kills");
}

/// What a killed job leaves beside whole files; `verify --clean` spares it for a day.
fn remove_temp_files(folder: &Path) {
    for (name, _) in files_of(folder) {
        if name.ends_with(".tmp") {
            std::fs::remove_file(folder.join(name)).unwrap();
        }
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_that_looks_whole() {
    let place = Place::new();
    place.shard("s.tar", &samples(0, 60, 200));
    let disk = place.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"])
        .arg(&disk)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: a small disk cannot be mounted here (needs root)");
        return;
    }
    let (code, _, err) = place.prep("s.tar", "disk/out", &[]);
    let left: Vec<_> = files_of(&disk.join("out")).into_iter().map(|(name, _)| name).collect();
    let unmounted = std::process::Command::new("umount").arg(&disk).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    assert_eq!(code, 8, "{err}");
    assert!(err.contains("no space is left on the disk of"), "{err}");
    // What was begun is written down; nothing of a part is there.
    let is_plan = |name: &String| name.starts_with("sources/") || name.contains("/config-");
    assert!(left.iter().all(is_plan), "{left:?}");
}

#[test]
fn a_signal_keeps_what_is_whole_and_says_how_to_go_on() {
    let place = Place::new();
    for i in 0..40 {
        place.shard(&format!("s-{i:02}.tar"), &samples(i * 20, 20, 320));
    }
    let mut child = program("catlip-prep")
        .args(["run", "--quiet", "--input", &place.text("s-*.tar")])
        .args(["--output", &place.text("out"), "--set", "image.short_side_px=64"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !place.path("out/receipts").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let _ = child.wait().unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{err}");
    assert!(err.contains("start the same command again"), "{err}");
    assert_eq!(place.prep("s-*.tar", "out", &["--set", "image.short_side_px=64"]).0, 0);
}

#[test]
fn labels_are_a_filter() {
    let place = Place::new();
    std::fs::write(place.path("captions.txt"), "hot dog on a cell phone\n\n").unwrap();
    let (code, out, err) = told(&run(
        "catlip-prep",
        &["labels", "--keys", "wnid", "--input", &place.text("captions.txt")],
    ));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "{\"caption\":\"hot dog on a cell phone\",\"synsets\":[\"n02084071\",\"n02991711\"]}\n\
         {\"caption\":\"\",\"synsets\":[]}\n"
    );
}

#[test]
fn help_and_version_are_short() {
    let (code, out, _) = told(&run("catlip-prep", &["--version"]));
    assert_eq!(code, 0);
    assert!(out.starts_with("catlip-prep 0.1.0, JPEG with"), "{out}");
    let (code, out, _) = told(&run("catlip-prep", &["--help"]));
    assert_eq!(code, 0);
    for command in [
        "run",
        "commit",
        "retry",
        "relabel",
        "add-column",
        "drop",
        "reshuffle",
        "labels",
        "vocab",
        "demo-data",
        "verify",
        "inspect",
        "config",
    ] {
        assert!(out.contains(&format!("\n  {command}")), "{out}");
    }
}
