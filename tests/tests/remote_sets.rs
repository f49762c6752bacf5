//! Data sets that live in object stores: the same life as in a folder, and the same bytes.
//!
//! The programs run as users run them; the servers are those of `catlip_tests::servers`.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use catlip_pipeline::feed::order::Layout;
use catlip_pipeline::feed::{BatchSampler, Feed, FeedPlan, Selection, Sources, Stream, Viewing};
use catlip_pipeline::image::Filter;
use catlip_pipeline::prep::{DataSet, Folder, vocab};
use catlip_schemas::VocabCut;
use catlip_tests::servers::{Act, Cloud, Proxy, objects_of, s3_variables, stores};
use catlip_tests::{Place, files_of, program, samples, told};

type Variables = [(String, String)];

fn prep(variables: &Variables, arguments: &[&str]) -> Command {
    let mut command = program("catlip-prep");
    command.args(arguments).envs(variables.iter().cloned());
    command
}

/// Runs `catlip-prep`: exit code, standard output, standard error.
fn run(variables: &Variables, arguments: &[&str]) -> (i32, String, String) {
    told(&prep(variables, arguments).output().unwrap())
}

/// Runs it and expects success; what it printed, with the place of the data set as `PLACE`.
fn done(variables: &Variables, root: &str, arguments: &[&str]) -> String {
    let (code, out, err) = run(variables, arguments);
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out.replace(root, "PLACE")
}

/// Shards `in/00.tar` … of a few samples each.
fn shards(place: &Place, count: usize) {
    std::fs::create_dir_all(place.path("in")).unwrap();
    for i in 0..count {
        place.shard(&format!("in/{i:02}.tar"), &samples(5 * i, 5, 64));
    }
}

/// Everything that can happen to a data set at `root`/set; what the programs said.
fn life(place: &Place, variables: &Variables, root: &str) -> Vec<String> {
    let set = &format!("{root}/set");
    let shards = |last: usize| place.text(&format!("in/{{00..{last:02}}}.tar"));
    let (first, more) = (shards(2), shards(4));
    let run_more = ["run", "--quiet", "--set", "image.rows_per_group=2", "--input", &more];
    let with = |arguments: &[&str]| {
        let mut all = run_more.to_vec();
        all.extend(["--output", set]);
        all.extend(arguments);
        done(variables, root, &all)
    };
    let of = |command: &str, arguments: &[&str]| {
        let mut all = vec![command, set];
        all.extend(arguments);
        done(variables, root, &all)
    };
    let mut said = vec![done(
        variables,
        root,
        &["run", "--quiet", "--set", "image.rows_per_group=2", "--input", &first, "--output", set],
    )];
    let dry = with(&["--dry-run"]);
    said.push(dry.lines().take(3).collect());
    said.push(with(&["--jobs", "1/2"]));
    said.push(with(&["--jobs", "2/2"]));
    said.push(done(variables, root, &["commit", "--output", set]));
    said.push(of("relabel", &["--rule", "nouns"]));
    said.push(of("drop", &["--keys", &place.text("keys.txt")]));
    said.push(of("add-column", &["--table", &place.text("scores.csv")]));
    said.push(done(
        variables,
        root,
        &["retry", "--set", "image.rows_per_group=2", "--input", &more, "--output", set],
    ));
    let new = format!("{root}/new");
    said.push(of("reshuffle", &["--output", &new, "--seed", "7", "--part-bytes", "9000"]));
    said.push(of("reshuffle", &["--output", &new, "--seed", "7", "--part-bytes", "9000"]));
    said.push(of("verify", &["--clean"]));
    said.push(of("verify", &["--snapshot", "1"]));
    said.push(of("inspect", &["--labels", "corenet-1", "--html", &place.text("page.html")]));
    said.push(of("duplicates", &[]));
    let vocab = place.text("vocab.parquet");
    let counted = ["vocab", "--labels", "corenet-1", "--input", set, "--output", &vocab];
    said.push(done(variables, root, &counted));
    // Again, there is nothing to do.
    said.push(with(&[]));
    said.push(of("relabel", &["--rule", "nouns"]));
    said
}

/// Sample ids and pixels of the first batches that the feed makes of a data set.
fn fed(data: DataSet) -> Vec<(Vec<String>, Vec<u8>)> {
    let data = Arc::new(data.with_labels("corenet-1").unwrap());
    let (frequencies, _) = vocab::count(&data, |_| true).unwrap();
    let cut = VocabCut { min_count: 1, top_k: None, multiple_of: 1 };
    let layout = Layout::Shuffled { seed: 1, lanes: 2, window_groups: 2 };
    let stream = Stream::of_one(Selection::all(&data), layout, BatchSampler::fixed(32, 4));
    let vocab = Arc::new(vocab::from_frequencies(&frequencies, &cut).unwrap());
    let viewing = Viewing::Centre { resize_px: 32, filter: Filter::Bilinear };
    let sources = Sources::of_one(data).unwrap();
    let plan = FeedPlan {
        with_captions: true,
        decode_threads: 2,
        reader_threads: 2,
        ..FeedPlan::new(sources, stream, vocab, viewing, 8)
    };
    let mut feed = Feed::start(plan).unwrap();
    let mut batches = Vec::new();
    while let Some(mut batch) = feed.next().unwrap() {
        assert!(batch.weights.iter().all(|&weight| weight == 1.0));
        let ids = batch.sample_ids.iter().map(ToString::to_string).collect();
        batches.push((ids, batch.images_bhwc().to_vec()));
    }
    batches
}

fn lives_as_in_a_folder(cloud: &Cloud) {
    let place = Place::new();
    shards(&place, 5);
    place.write("keys.txt", b"00003\n00012\n");
    place.write("scores.csv", b"key,score\n00001,0.5\n00007,0.25\n");
    let local = place.text("local");
    let said = life(&place, &[], &local);
    let page = std::fs::read(place.path("page.html")).unwrap();
    let vocab = std::fs::read(place.path("vocab.parquet")).unwrap();
    let remote = format!("{}/a/deep/folder", cloud.root);
    let found = life(&place, &cloud.variables, &remote);
    assert_eq!(found, said);
    assert!(std::fs::read(place.path("page.html")).unwrap() == page, "the page differs");
    assert!(std::fs::read(place.path("vocab.parquet")).unwrap() == vocab, "the vocabulary differs");
    let stores = cloud.stores();
    same_files(&objects_of(&stores, &remote), &files_of(&place.path("local")));
    let open = |root: &str, name: &str| {
        let folder: Folder = stores.folder(Path::new(&format!("{root}/{name}"))).unwrap();
        fed(DataSet::open(&folder).unwrap())
    };
    for name in ["set", "new"] {
        let batches = open(&local, name);
        assert_eq!(batches.len(), 8);
        assert!(open(&remote, name) == batches, "{name}: other batches");
    }
}

fn same_files(found: &[(String, Vec<u8>)], expected: &[(String, Vec<u8>)]) {
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(found), names(expected));
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        assert!(found == expected, "{name} has other bytes");
    }
}

#[test]
fn a_data_set_in_s3_is_the_one_of_a_folder() {
    if let Some(cloud) = Cloud::s3() {
        lives_as_in_a_folder(&cloud);
    }
}

#[test]
fn a_data_set_in_azure_is_the_one_of_a_folder() {
    if let Some(cloud) = Cloud::azure() {
        lives_as_in_a_folder(&cloud);
    }
}

#[test]
fn a_data_set_in_google_s_protocol_is_the_one_of_a_folder() {
    if let Some(cloud) = Cloud::google() {
        lives_as_in_a_folder(&cloud);
    }
}

/// A job over ten shards, and the files that it makes in a folder.
fn job(place: &Place) -> (String, Vec<(String, Vec<u8>)>) {
    shards(place, 10);
    let input = place.text("in/*.tar");
    let local = place.text("local");
    done(&[], &local, &["run", "--quiet", "--input", &input, "--output", &local]);
    (input, files_of(&place.path("local")))
}

fn started(variables: &Variables, input: &str, output: &str) -> Child {
    let mut command = prep(variables, &["run", "--quiet", "--input", input, "--output", output]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_job_that_is_killed_and_started_again_makes_the_same_objects() {
    let Some(cloud) = Cloud::s3() else { return };
    let place = Place::new();
    let (input, expected) = job(&place);
    let output = &format!("{}/killed", cloud.root);
    let mut kills = 0;
    for turn in 1..=40 {
        let mut child = started(&cloud.variables, &input, output);
        std::thread::sleep(Duration::from_millis(150 * turn));
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0, "the job ended before it could be killed");
    let out = done(&cloud.variables, output, &["verify", output]);
    assert!(!out.contains("belong to no snapshot"), "{out}");
    same_files(&objects_of(&cloud.stores(), output), &expected);
}

#[test]
fn two_jobs_at_once_make_one_data_set() {
    let Some(cloud) = Cloud::s3() else { return };
    let place = Place::new();
    let (input, expected) = job(&place);
    let output = &format!("{}/shared", cloud.root);
    let jobs = [(); 2].map(|()| started(&cloud.variables, &input, output));
    for job in jobs {
        let (code, _, err) = told(&job.wait_with_output().unwrap());
        assert_eq!(code, 0, "{err}");
    }
    same_files(&objects_of(&cloud.stores(), output), &expected);
}

#[test]
fn a_store_that_fails_and_loses_answers_gets_the_same_objects() {
    let Some(cloud) = Cloud::s3() else { return };
    let place = Place::new();
    let (input, expected) = job(&place);
    let puts = Arc::new(AtomicUsize::new(0));
    let count = puts.clone();
    let proxy = Proxy::start(cloud.port, move |head| {
        if !head.starts_with("PUT ") {
            return Act::Pass;
        }
        match count.fetch_add(1, Ordering::Relaxed) % 7 {
            2 => Act::Answer("503 Service Unavailable", "<Error><Code>SlowDown</Code></Error>"),
            4 => Act::Lose,
            6 => Act::Close,
            _ => Act::Pass,
        }
    });
    let variables = s3_variables(proxy.port);
    let output = &format!("{}/faulty", cloud.root);
    done(&variables, output, &["run", "--quiet", "--input", &input, "--output", output]);
    assert!(puts.load(Ordering::Relaxed) > 60, "{puts:?}");
    same_files(&objects_of(&cloud.stores(), output), &expected);
}

#[test]
fn a_creation_whose_answer_was_lost_knows_its_own_object_from_another_s() {
    let Some(cloud) = Cloud::s3() else { return };
    let proxy = Proxy::start(cloud.port, |head| match head.starts_with("PUT ") {
        true => Act::Lose,
        false => Act::Pass,
    });
    let stores = stores(&s3_variables(proxy.port));
    let folder = stores.folder(Path::new(&format!("{}/lost", cloud.root))).unwrap();
    assert!(folder.put_new("a.json", b"ours").unwrap());
    assert!(!folder.put_new("a.json", b"others").unwrap());
    assert!(!folder.put_new("a.json", b"theirs, longer").unwrap());
    assert_eq!(folder.read("a.json").unwrap(), b"ours");
}

/// What `catlip-prep run` says when every PUT is answered with `act`; the bucket is `BUCKET`.
fn refused(cloud: &Cloud, act: Act) -> (i32, String) {
    let place = Place::new();
    shards(&place, 1);
    let proxy = Proxy::start(cloud.port, move |head| match head.starts_with("PUT ") {
        true => act.clone(),
        false => Act::Pass,
    });
    let mut variables = s3_variables(proxy.port);
    variables.push(("TMPDIR".to_owned(), place.text("")));
    let input = place.text("in/00.tar");
    let output = format!("{}/x", cloud.root);
    let retries = ["--set", "source.retries=1"];
    let mut arguments = vec!["run", "--quiet", "--input", &input, "--output", &output];
    arguments.extend(retries);
    let (code, _, err) = run(&variables, &arguments);
    assert_eq!(objects_of(&cloud.stores(), &output), [], "something was written");
    (code, err.replace(&cloud.root, "BUCKET"))
}

#[test]
fn a_store_that_refuses_is_a_clear_error() {
    let Some(cloud) = Cloud::s3() else { return };
    let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    let (code, err) = refused(&cloud, Act::Answer("403 Forbidden", denied));
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("BUCKET/x/") && err.contains("may not be accessed"), "{err}");
    assert!(err.contains("hint: ") && err.contains("AWS_SECRET_ACCESS_KEY"), "{err}");

    let full = "<Error><Code>XMinioStorageFull</Code></Error>";
    let (code, err) = refused(&cloud, Act::Answer("507 Insufficient Storage", full));
    assert_eq!(code, 8, "{err}");
    assert!(err.contains("no space is left for BUCKET/x/"), "{err}");
    assert!(err.contains("hint: raise the quota or free space"), "{err}");

    let (code, err) = refused(&cloud, Act::Answer("500 Internal Server Error", ""));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("hint: start the same command again"), "{err}");
}

#[test]
fn a_bucket_or_data_set_that_is_not_there_is_named() {
    let Some(cloud) = Cloud::s3() else { return };
    let place = Place::new();
    shards(&place, 1);
    let input = place.text("in/00.tar");
    let nowhere = ["run", "--quiet", "--input", &input, "--output", "s3://nowhere/x"];
    let (code, _, err) = run(&cloud.variables, &nowhere);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("s3://nowhere/x") && err.contains("hint: check bucket"), "{err}");

    let none = format!("{}/none", cloud.root);
    let (code, _, err) = run(&cloud.variables, &["verify", &none]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains(&format!("there is no data set at {none}")), "{err}");

    let (code, _, err) = run(&[], &["verify", "http://127.0.0.1:9/none"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("a web server cannot be written, and holds no data set"), "{err}");

    // Somebody else's folder is left alone.
    let theirs = format!("{}/theirs", cloud.root);
    let folder = cloud.stores().folder(Path::new(&theirs)).unwrap();
    folder.put("notes.txt", b"mine").unwrap();
    let (code, _, err) =
        run(&cloud.variables, &["run", "--quiet", "--input", &input, "--output", &theirs]);
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("holds `notes.txt`"), "{err}");
}

#[test]
fn an_object_that_was_changed_or_lost_is_found() {
    let Some(cloud) = Cloud::s3() else { return };
    let place = Place::new();
    place.shard("a.tar", &samples(0, 5, 64));
    let output = &format!("{}/damaged", cloud.root);
    let input = place.text("a.tar");
    done(&cloud.variables, output, &["run", "--quiet", "--input", &input, "--output", output]);
    let folder = cloud.stores().folder(Path::new(output)).unwrap();
    let data = DataSet::open(&folder).unwrap();
    let images = data.parts[0].files["images"].file.clone();
    let whole = folder.read(&images).unwrap();
    let mut other = whole.clone();
    other[100] ^= 1;
    folder.put(&images, &other).unwrap();
    let (code, _, err) = run(&cloud.variables, &["verify", output]);
    assert_eq!(code, 7, "{err}");
    assert!(err.contains(&format!("{output}/{images}")) && err.contains("CRC-32C"), "{err}");
    folder.remove(&images).unwrap();
    let (code, _, err) = run(&cloud.variables, &["verify", output]);
    assert_eq!(code, 7, "{err}");
    assert!(err.contains(&format!("{output}/{images}: file is none, expected one")), "{err}");
    folder.put(&images, &whole).unwrap();
    done(&cloud.variables, output, &["verify", output]);
}
