//! Parts made one by one, as machines of a cluster make them, against a run in one process.

use super::*;
use crate::prep::run::tests::{Job, files_of, samples, shard};
use crate::prep::verify::verify;

fn surroundings() -> Surroundings {
    Surroundings { variables: Vec::new(), temp_dir: std::env::temp_dir() }
}

fn plan_of(job: &Job, name: &str, settings: &[&str]) -> Result<ClusterJob, PrepError> {
    let mut all = vec!["image.rows_per_group=4".to_owned()];
    all.extend(settings.iter().map(|s| s.to_string()));
    let config = PrepConfig::load(None, &all).unwrap();
    ClusterJob::plan(config, &[job.pattern()], &job.output(name), &surroundings())
}

fn worker_of(job: &ClusterJob) -> Worker {
    Worker::open(&job.spec(1).unwrap(), &surroundings()).unwrap()
}

/// What a task does, with everything sent as bytes.
fn make(worker: &Worker, task: &PartTask) -> Result<Tally, PrepError> {
    let task = PartTask::from_bytes(&task.to_bytes()).unwrap();
    let tally = worker.make(&task, &AtomicBool::new(false))?;
    Ok(Tally::from_bytes(&tally.to_bytes()).unwrap())
}

fn three_shards() -> Job {
    Job::new(&[shard(&samples(0, 5)), shard(&samples(5, 9)), shard(&samples(14, 2))])
}

#[test]
fn parts_of_many_machines_are_those_of_one_run_byte_by_byte() {
    let job = three_shards();
    let whole = job.run("one", &[]).unwrap();
    let mut cluster = plan_of(&job, "many", &[]).unwrap();
    assert_eq!((cluster.num_parts(), cluster.tasks().len()), (3, 3));
    // A worker for each, and the last part first.
    for task in cluster.tasks().to_vec().iter().rev() {
        let tally = make(&worker_of(&cluster), task).unwrap();
        cluster.take(&tally).unwrap();
    }
    let summary = cluster.commit().unwrap();
    assert_eq!((summary.parts_made, &summary.totals), (3, &whole.totals));
    assert_eq!((cluster.totals().parts, &cluster.totals().counts), (3, &whole.totals));
    assert_eq!(cluster.parts_made(), 3);
    assert!(files_of(&job.output("one")) == files_of(&job.output("many")));
    assert!(plan_of(&job, "many", &[]).unwrap().tasks().is_empty());
}

#[test]
fn a_task_that_finds_its_receipt_does_nothing_and_counts_the_same() {
    let job = three_shards();
    let cluster = plan_of(&job, "out", &[]).unwrap();
    let worker = worker_of(&cluster);
    let first = make(&worker, &cluster.tasks()[1]).unwrap();
    let meta = job.output("out").join("meta");
    std::fs::remove_dir_all(&meta).unwrap();
    assert_eq!(make(&worker, &cluster.tasks()[1]).unwrap(), first);
    assert!(!meta.exists());
}

#[test]
fn two_tasks_for_one_part_at_once_make_it_once() {
    let job = three_shards();
    job.run("one", &[]).unwrap();
    let cluster = plan_of(&job, "many", &[]).unwrap();
    for task in cluster.tasks() {
        let both: Vec<_> = std::thread::scope(|scope| {
            let one = || make(&worker_of(&cluster), task).unwrap();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(both.iter().all(|tally| *tally == both[0]));
    }
    cluster.commit().unwrap();
    assert!(files_of(&job.output("one")) == files_of(&job.output("many")));
}

#[test]
fn a_driver_that_is_gone_is_gone_on_with_from_the_receipts() {
    let job = three_shards();
    job.run("one", &[]).unwrap();
    let gone = plan_of(&job, "many", &[]).unwrap();
    make(&worker_of(&gone), &gone.tasks()[0]).unwrap();
    let next = plan_of(&job, "many", &[]).unwrap();
    assert_eq!((next.num_parts(), next.parts_made(), next.tasks()), (3, 1, &gone.tasks()[1..]));
    for task in next.tasks() {
        make(&worker_of(&next), task).unwrap();
    }
    assert_eq!(next.commit().unwrap().parts_made, 2);
    assert!(files_of(&job.output("one")) == files_of(&job.output("many")));
}

#[test]
fn a_part_whose_file_is_lost_is_made_again_although_its_receipt_is_there() {
    let job = three_shards();
    job.run("out", &[]).unwrap();
    let expected = files_of(&job.output("out"));
    let lost = expected.keys().find(|name| name.starts_with("images/part-000001")).unwrap();
    std::fs::remove_file(job.output("out").join(lost)).unwrap();
    assert!(plan_of(&job, "out", &[]).unwrap().tasks().is_empty());
    let again = plan_of(&job, "out", &["runtime.redo_lost=true"]).unwrap();
    let [task] = again.tasks() else { panic!("{:?}", again.tasks()) };
    assert!(task.is_lost && task.number == 1);
    make(&worker_of(&again), task).unwrap();
    again.commit().unwrap();
    assert!(files_of(&job.output("out")) == expected);
    verify(&job.output("out"), None, false).unwrap();
}

#[test]
fn a_failure_rate_is_judged_over_the_job_and_not_over_a_part() {
    let mut bad = samples(0, 4);
    bad[0].1 = b"no image".to_vec();
    let job = Job::new(&[shard(&bad), shard(&samples(4, 40))]);
    let settings = ["budget.probation=2", "budget.failure_rate=0.1"];
    let mut cluster = plan_of(&job, "out", &settings).unwrap();
    let worker = worker_of(&cluster);
    let tallies: Vec<_> = cluster.tasks().iter().map(|t| make(&worker, t).unwrap()).collect();
    let mut merged = tallies[1].clone();
    merged.merge(&tallies[0]);
    assert_eq!((merged.failed(), merged.last_failed), (1, Some(0)));
    cluster.take(&merged).unwrap();
    let mut strict = plan_of(&job, "out", &settings).unwrap();
    let error = strict.take(&tallies[0]).unwrap_err();
    assert_eq!(error.exit_code(), crate::error::exit::BUDGET);
    let text = error.to_string();
    let start = "too many bad samples: 1 of 4 (25.0 %), the budget is 10.0 % (last: shard s-0.tar, \
                 key 0000, byte 512: ";
    assert!(text.starts_with(start), "{text}");
    let alone = job.run("alone", &["budget.probation=2", "budget.failure_rate=0.01"]).unwrap_err();
    // The one that ends the probation may have no bad sample of its own.
    let mut late =
        plan_of(&job, "out", &["budget.probation=10", "budget.failure_rate=0.01"]).unwrap();
    late.take(&tallies[0]).unwrap();
    assert!(late.take(&tallies[1]).unwrap_err().to_string().contains("1 of 44 (2.3 %)"));
    let last = |text: &str| text.split_once("(last").unwrap().1.to_owned();
    assert_eq!(last(&text), last(&alone.to_string()));
}

#[test]
fn what_the_config_does_not_want_is_charged_to_no_budget() {
    let job = Job::new(&[shard(&samples(0, 4))]);
    let settings = ["filter.side_min_px=1000", "budget.probation=1", "budget.failure_rate=0.0"];
    let mut cluster = plan_of(&job, "out", &settings).unwrap();
    let tally = make(&worker_of(&cluster), &cluster.tasks()[0]).unwrap();
    assert_eq!((tally.counts.num_rejects(), tally.failed(), tally.last_failed), (4, 0, None));
    cluster.take(&tally).unwrap();
}

#[test]
fn a_bad_sample_that_stops_a_run_stops_the_task() {
    let mut bad = samples(0, 4);
    bad[0].1 = b"no image".to_vec();
    let job = Job::new(&[shard(&bad)]);
    let cluster = plan_of(&job, "out", &["budget.on_bad_sample=stop"]).unwrap();
    let error = make(&worker_of(&cluster), &cluster.tasks()[0]).unwrap_err();
    assert!(error.to_string().starts_with("too many bad samples: 1 of 4, the budget is 0"));
}

#[test]
fn a_machine_that_reads_another_list_of_keys_is_refused() {
    let job = three_shards();
    let list = job.output("keys");
    std::fs::write(&list, "0001\n").unwrap();
    let setting = format!("filter.keep_keys={:?}", list.to_str().unwrap());
    let cluster = plan_of(&job, "out", &[&setting]).unwrap();
    worker_of(&cluster);
    std::fs::write(&list, "0002\n").unwrap();
    let error = Worker::open(&cluster.spec(1).unwrap(), &surroundings()).err().unwrap();
    assert_eq!(error.exit_code(), crate::error::exit::CONFIG);
    let text = error.to_string();
    assert!(text.contains("this machine's config is") && text.contains("filter.keep_keys: "));
}

#[test]
fn a_machine_of_another_version_is_refused() {
    let cluster = plan_of(&three_shards(), "out", &[]).unwrap();
    let spec = String::from_utf8(cluster.spec(1).unwrap()).unwrap();
    let ours = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let other = spec.replace(&ours, "\"version\": \"9.9.9\", \"unheard_of\": 1");
    let error = Worker::open(other.as_bytes(), &surroundings()).err().unwrap();
    let expected = format!(
        "this machine's version of catlip is {}, the driver's is 9.9.9",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_task_that_is_stopped_leaves_no_receipt() {
    let job = three_shards();
    let cluster = plan_of(&job, "out", &[]).unwrap();
    let stopped = worker_of(&cluster).make(&cluster.tasks()[0], &AtomicBool::new(true));
    assert!(matches!(stopped, Err(PrepError::Interrupted { .. })));
    assert!(matches!(cluster.interrupted(), PrepError::Interrupted { done: 0, parts: 3 }));
    assert_eq!(plan_of(&job, "out", &[]).unwrap().tasks().len(), 3);
}

#[test]
fn paths_that_are_sent_begin_at_the_root() {
    assert_eq!(whole_text(Path::new("")).unwrap(), "");
    assert_eq!(whole_text(Path::new("s3://b/a")).unwrap(), "s3://b/a");
    let here = std::env::current_dir().unwrap();
    assert_eq!(whole_text(Path::new("a/b.tar")).unwrap(), here.join("a/b.tar").to_str().unwrap());
}
