//! A data set that changes: appended, joined, redone; each change is a snapshot, none rewrites.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use catlip_pipeline::prep::DataSet;
use catlip_tests::{Place, files_of, program, samples};

/// Every file of a data set but the README, which tells of the newest snapshot only.
fn kept(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    files_of(folder).into_iter().filter(|(name, _)| name != "README.md").collect()
}

/// Asserts that no file of `before` is gone or another.
fn nothing_was_rewritten(before: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    let after = kept(folder);
    for (name, bytes) in before {
        assert!(after.get(name) == Some(bytes), "{name} was changed");
    }
}

fn parts_of(folder: &Path, snapshot: u64) -> Vec<(String, String)> {
    let data = DataSet::open_at(folder, Some(snapshot)).unwrap();
    data.parts.iter().map(|part| (part.name.to_string(), part.source.shard.clone())).collect()
}

fn text(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

#[test]
fn more_shards_are_appended_and_keep_the_numbers_of_the_others() {
    let place = Place::new();
    place.shard("b.tar", &samples(0, 3, 16));
    place.shard("d.tar", &samples(3, 3, 16));
    assert_eq!(place.prep("*.tar", "out", &[]).0, 0);
    let before = kept(&place.path("out"));
    // One before, one between, one behind the others of the glob.
    for (name, first) in [("a.tar", 6), ("c.tar", 9), ("e.tar", 12)] {
        place.shard(name, &samples(first, 3, 16));
    }
    let (code, out, err) = place.prep("*.tar", "out", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("snapshot 2, 15 rows from 15 samples in 5 parts"), "{out}");
    nothing_was_rewritten(&before, &place.path("out"));
    let first = [("000000", "b.tar"), ("000001", "d.tar")];
    assert_eq!(parts_of(&place.path("out"), 1), text(&first));
    let second =
        [first[0], first[1], ("000002", "a.tar"), ("000003", "c.tar"), ("000004", "e.tar")];
    assert_eq!(parts_of(&place.path("out"), 2), text(&second));
    let (_, out, _) = place.prep("*.tar", "out", &[]);
    assert!(out.contains("nothing to do") && out.contains("snapshot 2,"), "{out}");
    // A list of new shards only is as good as one that has grown.
    place.shard("f.tar", &samples(15, 1, 16));
    let (_, out, _) = place.prep("f.tar", "out", &[]);
    assert!(out.contains("snapshot 3, 16 rows"), "{out}");
    for snapshot in ["1", "2", "3"] {
        let (code, out, err) = place.run(&["verify", &place.text("out"), "--snapshot", snapshot]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(&format!("snapshot {snapshot}:")) && !out.contains("belong"), "{out}");
    }
    let (code, _, err) = place.run(&["verify", &place.text("out"), "--snapshot", "4"]);
    assert!(code == 7 && err.contains("has no snapshot 4, the newest is 3"), "{err}");
}

#[test]
fn a_changed_shard_is_named_and_redone_under_a_new_number() {
    let place = Place::new();
    for (name, first) in [("a.tar", 0), ("b.tar", 3)] {
        place.shard(name, &samples(first, 3, 16));
    }
    assert_eq!(place.prep("*.tar", "out", &[]).0, 0);
    let before = kept(&place.path("out"));
    place.shard("a.tar", &samples(6, 5, 16));
    let (code, _, err) = place.prep("*.tar", "out", &[]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("a.tar (part 000000): ") && err.contains("redo_changed"), "{err}");
    assert!(!err.contains("b.tar"), "{err}");
    assert!(kept(&place.path("out")) == before);
    let redo = ["--set", "runtime.redo_changed=true"];
    let (code, out, err) = place.prep("*.tar", "out", &redo);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("snapshot 2, 8 rows from 8 samples in 2 parts"), "{out}");
    nothing_was_rewritten(&before, &place.path("out"));
    let parts = [("000001", "b.tar"), ("000002", "a.tar")];
    assert_eq!(parts_of(&place.path("out"), 2), text(&parts));
    let (_, out, _) = place.prep("*.tar", "out", &[]);
    assert!(out.contains("nothing to do") && out.contains("snapshot 2,"), "{out}");
    assert_eq!(place.run(&["verify", &place.text("out"), "--snapshot", "1"]).0, 0);
}

#[test]
fn a_changed_config_is_named_key_by_key_and_redone_as_a_new_snapshot() {
    let place = Place::new();
    for (name, first) in [("a.tar", 0), ("b.tar", 3)] {
        place.shard(name, &samples(first, 3, 40));
    }
    assert_eq!(place.prep("*.tar", "out", &[]).0, 0);
    let before = kept(&place.path("out"));
    let other = ["--set", "image.quality=40", "--set", "image.short_side_px=16"];
    let (code, _, err) = place.prep("*.tar", "out", &other);
    assert_eq!(code, 6, "{err}");
    let named = "\n    image.quality: 40, was 90\n    image.short_side_px: 16, was 320\n";
    assert!(err.contains(named), "{err}");
    assert!(kept(&place.path("out")) == before);
    let redo = [&other[..], &["--set", "runtime.redo_config=true"]].concat();
    let (code, _, err) = place.prep("b.tar", "out", &redo);
    assert!(code == 5 && err.contains("\n    a.tar\n"), "{err}");
    let (code, out, err) = place.prep("*.tar", "out", &redo);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("snapshot 2, 6 rows from 6 samples in 2 parts"), "{out}");
    nothing_was_rewritten(&before, &place.path("out"));
    assert_eq!(place.run(&["verify", &place.text("out"), "--snapshot", "1"]).0, 0);
    assert_eq!(place.run(&["verify", &place.text("out")]).0, 0);
    assert!(place.prep("*.tar", "out", &other).1.contains("nothing to do"));
}

#[test]
fn the_same_file_under_another_root_is_refused() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("x/y")).unwrap();
    place.shard("x/y/a.tar", &samples(0, 3, 16));
    place.shard("x/b.tar", &samples(3, 3, 16));
    assert_eq!(place.prep("x/y/a.tar", "out", &[]).0, 0);
    let list = place.text("list.txt");
    place.write(
        "list.txt",
        format!("{}\n{}\n", place.text("x/y/a.tar"), place.text("x/b.tar")).as_bytes(),
    );
    let (code, _, err) =
        place.run(&["run", "--input", &format!("@{list}"), "--output", &place.text("out")]);
    assert_eq!(code, 5, "{err}");
    assert!(
        err.contains("shard y/a.tar has the bytes of part 000000") && err.contains("source.root"),
        "{err}"
    );
}

#[test]
fn a_dry_run_says_what_is_to_do_and_writes_nothing() {
    let place = Place::new();
    place.shard("a.tar", &samples(0, 8, 64));
    assert_eq!(place.prep("a.tar", "out", &[]).0, 0);
    let bytes = place.shard("b.tar", &samples(8, 8, 64)).len();
    let before = files_of(&place.path("out"));
    let (code, out, err) = place.prep("*.tar", "out", &["--dry-run"]);
    assert_eq!(code, 0, "{err}");
    let head = format!("1 parts to make from {:.1} MB of shards, 1 are there", bytes as f64 / 1e6);
    assert!(out.contains(&head) && out.contains("part 000001: b.tar"), "{out}");
    assert!(out.contains("tried: 8 samples of b.tar"), "{out}");
    assert!(files_of(&place.path("out")) == before);
    assert_eq!(place.prep("*.tar", "new", &["--dry-run"]).0, 0);
    assert!(!place.path("new").exists());
}

#[test]
fn shares_of_several_jobs_join_to_what_one_job_makes() {
    let place = Place::new();
    for i in 0..5 {
        place.shard(&format!("s-{i}.tar"), &samples(i * 4, 4, 24));
    }
    assert_eq!(place.prep("s-*.tar", "whole", &[]).0, 0);
    for share in ["1/3", "2/3"] {
        let (code, out, err) = place.prep("s-*.tar", "out", &["--jobs", share]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("2 parts made") && out.contains("commit --output"), "{out}");
    }
    assert!(!place.path("out/manifest").exists());
    let (code, _, err) = place.run(&["commit", "--output", &place.text("out")]);
    assert_eq!(code, 7, "{err}");
    assert!(
        err.contains("1 of 5 parts are not made yet:\n    000000") || err.contains("000003"),
        "{err}"
    );
    assert_eq!(place.prep("s-*.tar", "out", &["--jobs", "3/3"]).0, 0);
    let (code, out, err) = place.run(&["commit", "--output", &place.text("out")]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("snapshot 1, 20 rows from 20 samples in 5 parts"), "{out}");
    assert!(files_of(&place.path("out")) == files_of(&place.path("whole")));
    let (code, out, _) = place.run(&["commit", "--output", &place.text("out")]);
    assert!(code == 0 && out.contains("nothing to do"), "{out}");
}

#[test]
fn jobs_that_run_on_one_output_at_once_make_what_one_makes() {
    let place = Place::new();
    for i in 0..6 {
        place.shard(&format!("s-{i}.tar"), &samples(i * 10, 10, 96));
    }
    let settings = ["--set", "image.short_side_px=32", "--set", "image.rows_per_group=4"];
    assert_eq!(place.prep("s-*.tar", "whole", &settings).0, 0);
    let start = |input: &str| {
        program("catlip-prep")
            .args(["run", "--quiet", "--input", &place.text(input)])
            .args(["--output", &place.text("out")])
            .args(settings)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..3).map(|_| start("s-*.tar")).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(files_of(&place.path("out")) == files_of(&place.path("whole")));
    // Two that append different shards: both are there afterwards, whoever came first.
    place.shard("t.tar", &samples(60, 3, 96));
    place.shard("u.tar", &samples(63, 3, 96));
    let children = [start("t.tar"), start("u.tar")];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let (code, out, err) = place.run(&["verify", &place.text("out")]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("snapshot 3: 66 rows") && !out.contains("belong"), "{out}");
}

#[test]
fn a_count_of_failures_and_stop_end_the_job() {
    let place = Place::new();
    let mut files = samples(0, 6, 16);
    for (_, bytes) in files.iter_mut().filter(|(name, _)| name.ends_with("jpg")).take(2) {
        bytes.truncate(20);
    }
    place.shard("s.tar", &files);
    let (code, _, err) = place.prep("s.tar", "out", &["--set", "budget.failure_count=1"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("2 of 6, the budget is 1 (last: shard s.tar, key 00001: "), "{err}");
    let (code, _, err) = place.prep("s.tar", "out", &["--set", "budget.on_bad_sample=stop"]);
    assert!(code == 4 && err.contains("the budget is 0"), "{err}");
    assert!(!place.path("out/manifest").exists());
    let (code, out, err) = place.prep("s.tar", "out", &["--set", "budget.failure_count=2"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("4 rows from 6 samples"), "{out}");
}
