//! A data set that changes: appended, joined, redone; each change is a snapshot, none rewrites.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;

use catlip_pipeline::caption::nouns::NounsOptions;
use catlip_pipeline::caption::{Explanation, LabelRule, rule};
use catlip_pipeline::config::PrepConfig;
use catlip_pipeline::feed::Selection;
use catlip_pipeline::metrics::PrepMetrics;
use catlip_pipeline::prep::add_set::SetSummary;
use catlip_pipeline::prep::relabel::relabel;
use catlip_pipeline::prep::{DataSet, PrepPlan, vocab};
use catlip_schemas::{SampleId, Synsets};
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
    assert!(code == 3 && err.contains("has no snapshot 4, the newest is 3"), "{err}");
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
    for (share, made) in [("1/3", "2 parts made"), ("2/3", "1 parts made")] {
        let (code, out, err) = place.prep("s-*.tar", "out", &["--jobs", share]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(made) && out.contains("commit --output"), "{out}");
    }
    assert!(!place.path("out/manifest").exists());
    let (code, _, err) = place.run(&["commit", "--output", &place.text("out")]);
    assert_eq!(code, 7, "{err}");
    assert!(
        err.contains("2 of 5 parts are not made yet:\n    000000: s-0.tar\n    000003: s-3.tar"),
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
    // A table that lost the race for a snapshot's number may be left; it belongs to nothing.
    assert!(out.contains("snapshot 3: 66 rows"), "{out}");
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
    assert!(
        err.contains("2 of 6, the budget is 1 (last: shard s.tar, key 00001, byte 2560: "),
        "{err}"
    );
    let (code, _, err) = place.prep("s.tar", "out", &["--set", "budget.on_bad_sample=stop"]);
    assert!(code == 4 && err.contains("the budget is 0"), "{err}");
    assert!(!place.path("out/manifest").exists());
    let (code, out, err) = place.prep("s.tar", "out", &["--set", "budget.failure_count=2"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("4 rows from 6 samples"), "{out}");
}

/// A rule of the tests: the first synset that `corenet` finds.
struct First;

impl LabelRule for First {
    fn id(&self) -> &'static str {
        "first-1"
    }

    fn synsets(&self, caption: &str) -> Synsets {
        self.explain(caption).synsets()
    }

    fn explain(&self, caption: &str) -> Explanation {
        let mut explanation = rule("corenet", &NounsOptions::default()).unwrap().explain(caption);
        let first = explanation.steps.iter().position(|step| step.outcome.is_kept());
        explanation.steps.truncate(first.map_or(0, |first| first + 1));
        explanation
    }
}

fn relabelled(folder: &Path) -> SetSummary {
    let mut plan = PrepPlan::new(PrepConfig::default()).unwrap();
    plan.rule = std::sync::Arc::new(First);
    let data = DataSet::open(folder).unwrap();
    relabel(&data, &plan, &PrepMetrics::default(), &AtomicBool::new(false)).unwrap()
}

#[test]
fn new_labels_stand_beside_the_old_ones_and_one_must_be_chosen() {
    let place = Place::new();
    for (name, first) in [("a.tar", 0), ("b.tar", 4)] {
        place.shard(name, &samples(first, 4, 16));
    }
    assert_eq!(place.prep("*.tar", "out", &[]).0, 0);
    let out = place.path("out");
    let before = kept(&out);
    let summary = relabelled(&out);
    assert_eq!((summary.snapshot, summary.parts_made, summary.parts_with), (2, 2, 2));
    assert_eq!((summary.counts.rows, summary.counts.captions, summary.counts.synsets), (8, 8, 8));
    nothing_was_rewritten(&before, &out);
    let again = relabelled(&out);
    assert_eq!((again.snapshot, again.parts_made, again.parts_with), (2, 0, 2));

    let synsets = |labels: &str, snapshot| {
        let data = DataSet::open_at(&out, Some(snapshot)).unwrap().with_labels(labels).unwrap();
        let rows = data.read_synsets(&data.parts[0]).unwrap();
        rows[0].iter().map(|caption| caption.0.len()).collect::<Vec<_>>()
    };
    assert_eq!(
        (synsets("", 1), synsets("corenet-1", 2), synsets("first-1", 2)),
        (vec![2], vec![2], vec![1])
    );
    let vocab = |more: &[&str]| {
        let (input, output) = (place.text("out"), place.text("v.parquet"));
        let arguments = ["vocab", "--input", &input, "--output", &output];
        place.run(&[&arguments[..], more].concat())
    };
    let (code, _, err) = vocab(&[]);
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("synsets.corenet-1, synsets.first-1") && err.contains("--labels"),
        "{err}"
    );
    assert_eq!(vocab(&["--snapshot", "1"]).0, 0);
    assert_eq!(vocab(&["--labels", "first-1"]).0, 0);
    let (code, _, err) = place.run(&["inspect", &place.text("out")]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("synsets.first-1)") && err.contains("--labels NAME"), "{err}");
    let (code, text, err) = place.run(&["inspect", &place.text("out"), "--labels", "first-1"]);
    assert!(code == 0 && text.contains("\nsynsets.first-1: "), "{text}{err}");

    // New parts lack the labels until they are made for them alone.
    place.shard("c.tar", &samples(8, 4, 16));
    assert_eq!(place.prep("*.tar", "out", &[]).0, 0);
    let (code, _, err) = vocab(&["--labels", "first-1"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("synsets.first-1 covers 2 of 3 parts in snapshot 3"), "{err}");
    let summary = relabelled(&out);
    assert_eq!((summary.snapshot, summary.parts_made, summary.parts_with), (4, 1, 3));
    assert_eq!(vocab(&["--labels", "synsets.first-1"]).0, 0);
    assert_eq!(place.run(&["relabel", &place.text("out"), "--rule", "corenet"]).0, 0);
    let (code, text, err) = place.run(&["verify", &place.text("out")]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("snapshot 4: 12 rows in 18 files") && !text.contains("belong"), "{text}");
}

#[test]
fn labels_that_a_signal_stopped_go_on_to_the_same_bytes() {
    let place = Place::new();
    for i in 0..3 {
        place.shard(&format!("s-{i}.tar"), &samples(i * 4, 4, 16));
    }
    for name in ["whole", "out"] {
        assert_eq!(place.prep("s-*.tar", name, &[]).0, 0);
    }
    relabelled(&place.path("whole"));
    let mut plan = PrepPlan::new(PrepConfig::default()).unwrap();
    plan.rule = std::sync::Arc::new(First);
    let data = DataSet::open(&place.path("out")).unwrap();
    let stop = AtomicBool::new(true);
    let error = relabel(&data, &plan, &PrepMetrics::default(), &stop).unwrap_err();
    assert_eq!(error.exit_code(), 9, "{error}");
    // Of one part the file and the receipt were there when it stopped, of another the file only.
    std::fs::create_dir_all(place.path("out/synsets.first-1")).unwrap();
    for (name, bytes) in files_of(&place.path("whole")) {
        let wanted =
            name.contains("part-000001") || name.starts_with("synsets.first-1/part-000002");
        if wanted && !place.path("out").join(&name).exists() {
            std::fs::write(place.path("out").join(&name), bytes).unwrap();
        }
    }
    assert_eq!(relabelled(&place.path("out")).parts_made, 2);
    assert!(files_of(&place.path("out")) == files_of(&place.path("whole")));
}

#[test]
fn dropped_rows_are_left_out_by_every_reader_and_kept_by_older_snapshots() {
    let place = Place::new();
    for (name, first) in [("a.tar", 0), ("b.tar", 8)] {
        place.shard(name, &samples(first, 8, 16));
    }
    let settings = ["--set", "image.rows_per_group=3"];
    assert_eq!(place.prep("*.tar", "out", &settings).0, 0);
    let out = place.path("out");
    let before = kept(&out);
    let data = DataSet::open(&out).unwrap();
    let ids = data.read_sample_ids(&data.parts[0]).unwrap();
    place.write("ids.txt", format!("{}\n{}\n", ids[1], ids[6]).as_bytes());
    place.write("keys.txt", b"00009\n00001\n");
    let drop = |list: &str, file: &str, more: &[&str]| {
        let (out, file) = (place.text("out"), place.text(file));
        place.run(&[&["drop", out.as_str(), list, &file][..], more].concat())
    };
    let (code, text, err) = drop("--ids", "ids.txt", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(
        text.contains("snapshot 2, 2 rows dropped (0 were") && text.contains("14 rows left"),
        "{text}"
    );
    let (_, text, _) = drop("--keys", "keys.txt", &[]);
    assert!(
        text.contains("snapshot 3, 1 rows dropped (1 were") && text.contains("13 rows left"),
        "{text}"
    );
    let (_, text, _) = drop("--keys", "keys.txt", &[]);
    assert!(text.contains("snapshot 3, 0 rows dropped (2 were"), "{text}");
    place.write("keys.txt", b"00010\nnobody\n");
    let (code, _, err) = drop("--keys", "keys.txt", &[]);
    assert!(code == 5 && err.contains("1 of 2 keys") && err.contains("\n    nobody\n"), "{err}");
    nothing_was_rewritten(&before, &out);

    let rows = |snapshot| {
        let data = DataSet::open_at(&out, Some(snapshot)).unwrap();
        let selection = Selection::all(&data);
        let by_id = Selection::by_id(&data, |_| true).unwrap();
        let (_, counted) = vocab::count(&data, |_| true).unwrap();
        assert_eq!((selection.num_rows(), by_id.num_rows()), (counted, data.live_rows()));
        let groups = selection.groups().iter().enumerate();
        let rows = groups.flat_map(|(i, g)| (0..g.rows).map(move |nth| (i, nth)));
        let rows: Vec<_> =
            rows.map(|(i, nth)| (selection.groups()[i].part, selection.row(i, nth))).collect();
        (counted, rows)
    };
    assert_eq!((rows(1).0, rows(2).0), (16, 14));
    let (count, left) = rows(3);
    assert_eq!((count, left.len()), (13, 13));
    // (part, (row of the part, row of the group)).
    assert_eq!(left[..4], [(0, (0, 0)), (0, (2, 2)), (0, (3, 0)), (0, (4, 1))]);
    assert!(!left.contains(&(0, (6, 0))) && !left.contains(&(1, (1, 1))));
    assert_eq!(place.run(&["verify", &place.text("out")]).0, 0);

    // They stay away when the parts are made again, wherever they come to stand.
    place.shard("a.tar", &samples(0, 9, 16));
    let redo = [&settings[..], &["--set", "runtime.redo_changed=true"]].concat();
    assert_eq!(place.prep("*.tar", "out", &redo).0, 0);
    assert_eq!(rows(4).0, 14);
    let redo = ["--set", "runtime.redo_config=true", "--set", "image.quality=50"];
    assert_eq!(place.prep("*.tar", "out", &redo).0, 0);
    assert_eq!((rows(5).0, rows(1).0), (14, 16));
}

#[test]
fn a_table_is_joined_as_a_column_set() {
    let place = Place::new();
    for (name, first) in [("a.tar", 0), ("b.tar", 3)] {
        place.shard(name, &samples(first, 3, 16));
    }
    assert_eq!(place.prep("*.tar", "out", &[]).0, 0);
    let out = place.path("out");
    let before = kept(&out);
    let add = |more: &[&str]| {
        let folder = place.text("out");
        place.run(&[&["add-column", folder.as_str()][..], more].concat())
    };
    place.write("scores.csv", b"key,clip_score,note\n00004,0.25,\"a, b\"\n00000,1,\n00002,,\n");
    let (code, text, err) = add(&["--table", &place.text("scores.csv")]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("snapshot 2, added.scores for 2 of 2 parts"), "{text}");
    assert!(text.contains("2 rows have a value, 4 have none, 0 keys"), "{text}");
    nothing_was_rewritten(&before, &out);
    let column = |name: &str| {
        let data = DataSet::open(&out).unwrap();
        let mut values = Vec::new();
        for part in &data.parts {
            data.read_named(part, "added.scores", name, |c| {
                values.extend(
                    (0..c.len()).map(|i| c.is_valid(i).then(|| format!("{:?}", c.slice(i, 1)))),
                );
            })
            .unwrap();
        }
        values
    };
    let scores = column("clip_score");
    let are_there: Vec<bool> = scores.iter().map(Option::is_some).collect();
    assert_eq!(are_there, [true, false, false, false, true, false]);
    assert!(scores[4].as_ref().unwrap().contains("0.25"), "{scores:?}");
    assert!(column("note")[4].as_ref().unwrap().contains("a, b"));

    let (_, text, _) = add(&["--table", &place.text("scores.csv")]);
    assert!(text.contains("nothing to do") && text.contains("snapshot 2,"), "{text}");
    place.write("other.csv", b"key,clip_score,note\n00004,0.5,\n");
    let (code, _, err) = add(&["--table", &place.text("other.csv"), "--name", "scores"]);
    assert!(code == 6 && err.contains("has a column set added.scores already"), "{err}");
    place.write("more.jsonl", b"{\"key\":\"nobody\",\"x\":1}\n{\"key\":\"00001\",\"x\":2}\n");
    place.write("again.csv", b"\xef\xbb\xbfkey,x\n00001,1\n\n00001,2\n");
    let (code, _, err) = add(&["--table", &place.text("again.csv")]);
    assert!(code == 5 && err.contains("line 2 and line 4 have the same key"), "{err}");
    place.write("bare.csv", b"00001,1\n00002,2\n");
    let (code, _, err) = add(&["--table", &place.text("bare.csv")]);
    assert!(code == 5 && err.contains("but `00001`, `1` (the first row of a CSV names"), "{err}");
    let (code, _, err) = add(&["--table", &place.text("more.jsonl")]);
    assert!(code == 5 && err.contains("1 of 2 keys of") && err.contains("\n    nobody\n"), "{err}");
    let (code, text, _) = add(&["--table", &place.text("more.jsonl"), "--allow-unknown"]);
    assert!(code == 0 && text.contains("1 rows have a value, 5 have none, 1 keys"), "{text}");
    let (code, text, err) = place.run(&["verify", &place.text("out")]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("snapshot 3: 6 rows in 14 files") && !text.contains("belong"), "{text}");
    // `run` knows the folders of added columns as the data set's own.
    assert!(place.prep("*.tar", "out", &[]).1.contains("nothing to do"));
}

#[test]
fn inspect_counts_and_draws_a_page_that_needs_nothing_else() {
    let place = Place::new();
    let mut files = samples(0, 6, 40);
    files[1].1 = b"a dog </figure><script>alert(1)</script>".to_vec();
    files.push(("bad.txt".to_owned(), b"no image".to_vec()));
    place.shard("a.tar", &files);
    assert_eq!(place.prep("a.tar", "out", &["--set", "budget.failure_count=1"]).0, 0);
    place.write("keys.txt", b"00005\n");
    let (folder, keys) = (place.text("out"), place.text("keys.txt"));
    assert_eq!(place.run(&["drop", &folder, "--keys", &keys]).0, 0);
    let page = place.text("page.html");
    let (code, text, err) = place.run(&["inspect", &folder, "--html", &page]);
    assert_eq!(code, 0, "{err}");
    for line in [
        "snapshot 2: 5 rows in 1 parts, 5 captions, 7 samples seen, 1 rejected",
        "       1            6 rows, 0 dropped: run",
        "       2            5 rows, 1 dropped: drop: 1 rows",
        "    n02084071 dog ",
        "    image-missing ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}: {text}");
    }
    assert!(text.contains("short side 40 px on average"), "{text}");
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,/9j/").count(), 5);
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
    assert!(!page.contains("http") && !page.contains("<link") && !page.contains("url("));
    let (_, text, _) = place.run(&["inspect", &folder, "--snapshot", "1"]);
    assert!(text.starts_with("snapshot 1: 6 rows"), "{text}");
}

#[test]
fn the_metrics_file_holds_the_counters_of_the_job() {
    let place = Place::new();
    place.shard("a.tar", &samples(0, 5, 40));
    let file = place.text("metrics.prom");
    assert_eq!(place.prep("a.tar", "out", &["--metrics-file", &file]).0, 0);
    let text = std::fs::read_to_string(file).unwrap();
    for line in ["catlip_prep_samples_total 5", "catlip_prep_parts_total 1"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn rejected_samples_are_tried_again_and_appended() {
    let place = Place::new();
    let mut files = samples(0, 6, 40);
    files[2].1.truncate(30); // 00001.jpg, which no setting mends
    files.extend(samples(6, 1, 90)); // above the limit of the first run
    place.shard("a.tar", &files);
    place.shard("b.tar", &samples(7, 3, 40));
    let low = ["--set", "image.pixels_max=4000"];
    let (code, text, err) = place.prep("*.tar", "out", &low);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("8 rows from 10 samples"), "{text}");
    let before = kept(&place.path("out"));
    let retry = |more: &[&str]| {
        let (input, output) = (place.text("*.tar"), place.text("out"));
        place.run(&[&["retry", "--input", &input, "--output", &output][..], more].concat())
    };
    let (code, text, err) = retry(&low);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("snapshot 1, 0 of 2 rejected samples are rows now"), "{text}");
    let (code, text, err) = retry(&["--set", "image.pixels_max=100000"]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("snapshot 2, 1 of 2 rejected samples are rows now"), "{text}");
    assert!(text.contains("still rejected: 1 × image-"), "{text}");
    nothing_was_rewritten(&before, &place.path("out"));
    let data = DataSet::open(&place.path("out")).unwrap();
    let totals = &data.manifest.totals;
    assert_eq!((totals.samples, totals.rows, totals.num_rejects()), (10, 9, 1));
    assert_eq!(data.read_keys(data.parts.last().unwrap()).unwrap(), ["00006"]);
    let (_, text, _) = retry(&["--set", "image.pixels_max=100000"]);
    assert!(text.contains("snapshot 2, 0 of 1 rejected"), "{text}");
    let (code, text, err) = place.run(&["verify", &place.text("out")]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("snapshot 2: 9 rows"), "{text}");
    // `run` goes on with the list as if nothing had been retried.
    assert!(place.prep("*.tar", "out", &low).1.contains("nothing to do"));
    let (code, _, err) = retry(&["--set", "image.rows_per_group=7"]);
    assert!(code == 6 && err.contains("image.rows_per_group: 7, was 256"), "{err}");
    // A shard that is redone takes its retried samples with it.
    files.remove(2);
    files.remove(2);
    place.shard("a.tar", &files);
    let redo = [&low[..], &["--set", "runtime.redo_changed=true"]].concat();
    assert_eq!(place.prep("*.tar", "out", &redo).0, 0);
    assert_eq!(DataSet::open(&place.path("out")).unwrap().live_rows(), 8);
}

#[test]
fn quarantined_samples_are_a_shard_of_their_own() {
    let place = Place::new();
    let mut files = samples(0, 4, 40);
    files[3].1 = b"caf\xe9".to_vec();
    place.shard("a.tar", &files);
    let folder = format!("budget.quarantine_dir={}", place.text("bad"));
    let settings = ["--set", "budget.on_bad_sample=quarantine", "--set", &folder];
    let (code, text, err) = place.prep("a.tar", "out", &settings);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("3 rows from 4 samples"), "{text}");
    assert_eq!(place.prep("a.tar", "plain", &[]).0, 0);
    assert!(files_of(&place.path("out")) == files_of(&place.path("plain")), "no byte is another");
    let bad = files_of(&place.path("bad"));
    assert!(bad.len() == 1 && bad[0].0.starts_with("part-000000-"), "{:?}", bad[0].0);
    assert!(bad[0].1.windows(files[2].1.len()).any(|bytes| bytes == files[2].1), "its image");
    let (code, text, err) = place.prep("bad/*.tar", "again", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("0 rows from 1 samples") && text.contains("caption-not-utf8"), "{text}");
    let (code, _, err) = place.prep("a.tar", "new", &settings[..2]);
    assert!(code == 3 && err.contains("budget.quarantine_dir"), "{err}");
    for inside in ["new", "new/bad", "new/rejects", "bad/../new/bad"] {
        let folder = format!("budget.quarantine_dir={}", place.text(inside));
        let (code, _, err) =
            place.prep("a.tar", "new", &[settings[0], settings[1], "--set", &folder]);
        assert_eq!(code, 3, "{err}");
        assert!(err.contains("expected a folder outside the data set"), "{err}");
    }
    assert!(!place.path("new").exists());
}

#[test]
fn settings_that_a_command_passes_over_are_refused_by_name() {
    let place = Place::new();
    place.shard("a.tar", &samples(0, 2, 16));
    assert_eq!(place.prep("a.tar", "out", &["--jobs", "1/1"]).0, 0);
    let out = place.text("out");
    let (code, _, err) = place.run(&["commit", "--output", &out, "--set", "image.quality=40"]);
    assert_eq!(code, 3, "{err}");
    let said = "image.quality: `commit` does not read that setting, only `budget.damaged_shards`";
    assert!(err.contains(said), "{err}");
    let damaged = ["commit", "--output", &out, "--set", "budget.damaged_shards=1"];
    assert_eq!(place.run(&damaged).0, 0);
    let relabel =
        |setting: &str| place.run(&["relabel", &out, "--rule", "nouns", "--set", setting]);
    let (code, _, err) = relabel("caption.rule=corenet");
    assert!(code == 3 && err.contains("hint: name the rule with --rule"), "{err}");
    let (code, _, err) = relabel("caption.bytes_max=5");
    assert!(code == 3 && err.contains("`relabel` does not read that setting"), "{err}");
    assert_eq!(relabel("nouns.phrases=false").0, 0);
}

#[test]
fn a_shuffled_data_set_has_the_same_rows_in_another_order() {
    let place = Place::new();
    let mut files = samples(0, 30, 24);
    files.push(("bad.txt".to_owned(), b"no image".to_vec()));
    place.shard("a.tar", &files);
    place.shard("b.tar", &samples(30, 30, 24));
    assert_eq!(place.prep("*.tar", "in", &["--set", "image.rows_per_group=4"]).0, 0);
    place.write("keys.txt", b"00007\n");
    place.write("scores.csv", b"key,score\n00003,3\n00044,44\n");
    let input = place.text("in");
    assert_eq!(place.run(&["drop", &input, "--keys", &place.text("keys.txt")]).0, 0);
    assert_eq!(place.run(&["add-column", &input, "--table", &place.text("scores.csv")]).0, 0);
    let before = files_of(&place.path("in"));
    let shuffle = |name: &str, more: &[&str]| {
        let output = place.text(name);
        let arguments = ["reshuffle", &input, "--output", &output, "--part-bytes", "20000"];
        place.run(&[&arguments[..], more].concat())
    };
    let (code, text, err) = shuffle("out", &["--seed", "5"]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("snapshot 1, 59 rows in "), "{text}");
    assert!(files_of(&place.path("in")) == before, "the source is as it was");

    let rows = |name: &str| whole_rows(&place.path(name));
    let (mut source, mut shuffled) = (rows("in"), rows("out"));
    assert_ne!(source, shuffled);
    let keys: Vec<_> = shuffled.iter().map(|(key, _, _)| key.clone()).collect();
    let rising = keys.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((15..45).contains(&rising), "{rising} of 58 neighbours rise");
    source.sort();
    shuffled.sort();
    assert_eq!(source, shuffled);
    let totals = |name: &str| DataSet::open(&place.path(name)).unwrap().manifest.totals;
    assert_eq!((totals("out").rows, totals("out").num_rejects()), (59, 1));
    assert_eq!(totals("out").synsets, rows_synsets(&place.path("in")));
    let (code, text, err) = place.run(&["verify", &place.text("out")]);
    assert_eq!(code, 0, "{err}");
    assert!(text.contains("59 rows") && !text.contains("belong"), "{text}");

    // The seed decides the bytes, not the memory; a part that is lost is made again alike.
    assert_eq!(shuffle("tight", &["--seed", "5", "--memory-bytes", "1"]).0, 0);
    assert!(files_of(&place.path("tight")) == files_of(&place.path("out")));
    std::fs::remove_dir_all(place.path("tight/manifest")).unwrap();
    let lost = files_of(&place.path("tight")).into_iter().map(|(name, _)| name);
    let lost = lost.filter(|name| name.starts_with("receipts/part-000001")).collect::<Vec<_>>();
    std::fs::remove_file(place.path("tight").join(&lost[0])).unwrap();
    assert_eq!(shuffle("tight", &["--seed", "5"]).0, 0);
    assert!(files_of(&place.path("tight")) == files_of(&place.path("out")));
    assert!(shuffle("out", &["--seed", "5"]).1.contains("nothing to do"));
    let (code, _, err) = shuffle("out", &["--seed", "6"]);
    assert!(code == 6 && err.contains("is another data set already"), "{err}");
    assert_eq!(shuffle("other", &["--seed", "6"]).0, 0);
    assert_ne!(rows("other"), rows("out"));
}

/// Each row that is not left out: key, id, and what stands beside them in the other column sets.
fn whole_rows(folder: &Path) -> Vec<(String, SampleId, String)> {
    let data = DataSet::open(folder).unwrap();
    let mut rows = Vec::new();
    for part in &data.parts {
        let (keys, ids) = (data.read_keys(part).unwrap(), data.read_sample_ids(part).unwrap());
        let captions = data.read_captions(part).unwrap();
        let synsets = data.read_synsets(part).unwrap();
        let cells = |set: &str, column: &str| {
            let mut cells = Vec::new();
            data.read_named(part, set, column, |c| {
                cells.extend((0..c.len()).map(|i| format!("{:?}", c.slice(i, 1))));
            })
            .unwrap();
            cells
        };
        let (images, scores) = (cells("images", "image"), cells("added.scores", "score"));
        for at in 0..keys.len() {
            if !data.dropped.is_dropped(part.name, at as u64) {
                let row = (&captions[at], &synsets[at], &images[at], &scores[at]);
                rows.push((keys[at].clone(), ids[at], format!("{row:?}")));
            }
        }
    }
    rows
}

/// Synsets of the rows that are not left out.
fn rows_synsets(folder: &Path) -> u64 {
    let data = DataSet::open(folder).unwrap();
    let mut sum = 0;
    for part in &data.parts {
        for (row, at) in data.read_synsets(part).unwrap().iter().zip(0..) {
            if !data.dropped.is_dropped(part.name, at) {
                sum += row.iter().map(|caption| caption.0.len() as u64).sum::<u64>();
            }
        }
    }
    sum
}
