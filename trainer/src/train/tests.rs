//! The whole of training over a small data set that the tests prepare themselves.

use std::path::{Path, PathBuf};

use catlip_pipeline::config::PrepConfig;
use catlip_pipeline::image::Image;
use catlip_pipeline::image::jpeg::{Chroma, encode};
use catlip_pipeline::metrics::PrepMetrics;
use catlip_pipeline::prep::{self, PrepPlan};
use catlip_pipeline::source::ShardList;

use super::*;
use crate::config::TrainConfig;
use crate::plan::{self, FitRequest};
use crate::predict::predict;
use crate::run_folder::RunFolder;
use crate::trained::TrainedRun;

/// Things and the colour of their images.
const THINGS: [(&str, [u8; 3]); 3] =
    [("a dog", [220, 30, 30]), ("a car", [30, 200, 40]), ("one boat", [40, 60, 220])];

/// A data set and a folder for runs.
struct Prepared {
    dir: tempfile::TempDir,
    data: PathBuf,
}

/// Two shards of 30 flat images each, whose colour says what their caption says.
fn prepared() -> Prepared {
    prepared_of(|i| THINGS[i % 3].0)
}

/// The same images with other captions, by their number in the shard.
fn prepared_of(caption: impl Fn(usize) -> &'static str) -> Prepared {
    let dir = tempfile::tempdir().unwrap();
    for shard in 0..2_u8 {
        let file = std::fs::File::create(dir.path().join(format!("{shard}.tar"))).unwrap();
        let mut builder = tar::Builder::new(file);
        let mut append = |name: String, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data).unwrap();
        };
        for i in 0..30_u8 {
            let (number, colour) = (usize::from(i), THINGS[usize::from(i) % 3].1);
            append(format!("{i:03}.jpg"), &jpeg(colour, i));
            append(format!("{i:03}.txt"), caption(number).as_bytes());
        }
        builder.finish().unwrap();
    }
    let list = ShardList::expand(&[format!("{}/*.tar", dir.path().display())], None).unwrap();
    let config = PrepConfig::load(None, &["image.rows_per_group=8".to_owned()]).unwrap();
    let (plan, data) = (PrepPlan::new(config).unwrap(), dir.path().join("data"));
    prep::run(&list, &data, &plan, &PrepMetrics::default(), &AtomicBool::new(false)).unwrap();
    Prepared { dir, data }
}

fn jpeg(colour: [u8; 3], shade: u8) -> Vec<u8> {
    let pixels = colour.map(|value| value.saturating_add(shade)).repeat(24 * 20);
    encode(&Image { width_px: 24, height_px: 20, pixels }, 95, Chroma::Yuv444).unwrap()
}

fn config(settings: &[&str]) -> TrainConfig {
    let base = [
        "model.width=16",
        "model.depth=1",
        "model.heads=2",
        "model.positions=1",
        "train.steps=8",
        "train.batch=8",
        "train.image_px=16",
        "train.seed=5",
        "optim.lr_max=3e-3",
        "optim.warmup_steps=2",
        "optim.ema_momentum=0.2",
        "data.holdout_percent=30",
        "eval.min_positives=2",
        "eval.batch=7",
        "feed.threads=2",
        "runtime.device=cpu",
        "runtime.threads=1",
        "runtime.log_every_steps=1",
    ];
    let settings: Vec<_> = base.iter().chain(settings).map(|text| text.to_string()).collect();
    TrainConfig::load(None, &settings).unwrap()
}

fn request(prepared: &Prepared, out: &str, resume: bool) -> FitRequest {
    FitRequest {
        kernel_cache: None,
        data: vec![(&prepared.data).into()],
        val: None,
        vocab: None,
        out: RunFolder::new(&prepared.dir.path().join(out)),
        prep_logs: Vec::new(),
        resume,
        world: std::rc::Rc::new(crate::dist::World::alone()),
    }
}

/// Notes what happens, and asks to stop at a step.
#[derive(Default)]
struct Notes<'s> {
    stop: Option<(u64, &'s AtomicBool)>,
    saved: Vec<u64>,
    passed_over: usize,
    rolled_back: Vec<(u64, u64)>,
    skipped: usize,
    /// The folder of the run, and where to copy it when it goes back for the first time.
    copy: Option<[PathBuf; 2]>,
}

impl Watch for Notes<'_> {
    fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Saved { step } => self.saved.push(step),
            Event::PassedOver(_) => self.passed_over += 1,
            Event::RolledBack(line) => {
                self.rolled_back.push((line.from_step, line.step));
                if let Some([from, to]) = self.copy.take() {
                    copy_folder(&from, &to);
                }
            }
            Event::Skipped(_) => self.skipped += 1,
            Event::Stepped { step } => {
                if let Some((_, stop)) = self.stop.filter(|(at, _)| *at == step) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

/// What a kill at this moment leaves behind.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => _ = std::fs::copy(entry.path(), target).unwrap(),
        }
    }
}

fn fit(config: TrainConfig, request: &FitRequest) -> Result<TrainSummary, TrainError> {
    let plan = plan::plan(config, request)?;
    train(&plan, &mut Notes::default(), &AtomicBool::new(false))
}

fn model_bytes(run: &Path, step: u64) -> Vec<Vec<u8>> {
    ["model", "ema", "optim-rank0"]
        .iter()
        .map(|name| {
            let file = format!("checkpoints/step-{step:08}/{name}.safetensors");
            std::fs::read(run.join(file)).unwrap()
        })
        .collect()
}

/// The log without what differs from machine to machine.
fn log(run: &Path) -> Vec<String> {
    let lines = RunFolder::new(run).log_lines().unwrap();
    lines
        .into_iter()
        .map(|line| match line {
            LogLine::Step(line) => {
                let timeless = StepLine { images_per_sec: 0.0, wait_secs: 0.0, ..line };
                let timeless = StepLine { interval_secs: 0.0, goodput: 0.0, ..timeless };
                format!("{:?}", StepLine { mfu: None, ..timeless })
            }
            LogLine::Eval(line) => format!("{line:?}"),
            LogLine::Skipped(line) => format!("{line:?}"),
            LogLine::Rollback(line) => format!("{line:?}"),
        })
        .collect()
}

#[test]
fn a_run_learns_and_leaves_everything_in_its_folder() {
    let prepared = prepared();
    let settings = ["train.steps=60", "eval.every_steps=20", "checkpoint.every_steps=25"];
    let request = request(&prepared, "run", false);
    let summary = fit(config(&settings), &request).unwrap();
    let report = summary.evaluation.unwrap().report;
    let (map, baseline) = (report.summary.map.unwrap(), report.summary.map_baseline.unwrap());
    assert!(map > 0.95 && baseline < 0.6, "{map} {baseline}");
    assert!(report.summary.bce_improvement_percent > 30.0, "{report:?}");
    assert_eq!(report.synsets.len(), 4, "dog, car, one, boat");
    let run = &request.out.path();
    for file in ["config.toml", "vocab.parquet", "priors.json", "eval.json", "report.html"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    assert_eq!(std::fs::read_to_string(run.join("LATEST")).unwrap(), "checkpoints/step-00000060\n");
    let evaluations = log(run).iter().filter(|line| line.starts_with("EvalLine")).count();
    assert_eq!((log(run).len(), evaluations), (60 + 3, 3));
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert_eq!(page.matches("<figure class=\"chart\">").count(), 3);
    assert!(page.matches("src=\"data:image/jpeg").count() >= 10);
    assert!(!page.contains("http") && !page.contains(prepared.dir.path().to_str().unwrap()));
}

#[test]
fn stopped_and_resumed_equals_uninterrupted_in_weights_and_log() {
    let prepared = prepared();
    let straight = request(&prepared, "straight", false);
    fit(config(&["eval.every_steps=3"]), &straight).unwrap();

    let stopped = request(&prepared, "stopped", true);
    let plan = plan::plan(config(&["eval.every_steps=3"]), &stopped).unwrap();
    let stop = AtomicBool::new(false);
    let mut notes = Notes { stop: Some((3, &stop)), ..Notes::default() };
    let error = train(&plan, &mut notes, &stop).err().unwrap();
    assert!(matches!(error, TrainError::Interrupted { step: 3, steps: 8 }), "{error}");
    assert_eq!(notes.saved, [3]);
    // The run is locked as long as its plan lives.
    drop(plan);
    // Another number of decoding threads changes nothing.
    fit(config(&["eval.every_steps=3", "feed.threads=1"]), &stopped).unwrap();

    assert!(model_bytes(&straight.out.path(), 8) == model_bytes(&stopped.out.path(), 8));
    assert_eq!(log(&straight.out.path()), log(&stopped.out.path()));
}

#[test]
fn a_kill_between_checkpoints_goes_back_to_the_last_and_repeats_its_steps() {
    let prepared = prepared();
    let straight = request(&prepared, "straight", false);
    fit(config(&["checkpoint.every_steps=2"]), &straight).unwrap();
    let killed = request(&prepared, "killed", true);
    fit(config(&["checkpoint.every_steps=2"]), &killed).unwrap();
    // As after a kill at step 7, while the checkpoint of step 6 lost a byte: step 4 is the newest
    // whole one, and the log is ahead of it.
    for step in [6, 8] {
        let model = killed.out.path().join(format!("checkpoints/step-{step:08}/model.safetensors"));
        let bytes = std::fs::read(&model).unwrap();
        std::fs::write(&model, &bytes[1..]).unwrap();
    }
    let plan = plan::plan(config(&["checkpoint.every_steps=2"]), &killed).unwrap();
    let mut notes = Notes::default();
    train(&plan, &mut notes, &AtomicBool::new(false)).unwrap();
    assert_eq!((notes.passed_over, notes.saved), (2, vec![6, 8]));
    assert!(model_bytes(&straight.out.path(), 8) == model_bytes(&killed.out.path(), 8));
    assert_eq!(log(&straight.out.path()), log(&killed.out.path()));
}

#[test]
fn weights_that_overflow_end_in_an_error_after_going_back_and_stay_finite_on_disk() {
    let prepared = prepared();
    let request = request(&prepared, "run", false);
    // Each step multiplies the weights by 1 − 10 × 10: they overflow after some 20 steps.
    let settings = [
        "train.steps=100",
        "optim.lr_max=10",
        "optim.lr_min=10",
        "optim.warmup_steps=0",
        "optim.weight_decay=10",
        "checkpoint.every_steps=5",
        "fault.skipped_max=3",
        "fault.rollbacks_max=2",
    ];
    let plan = plan::plan(config(&settings), &request).unwrap();
    let mut notes = Notes::default();
    let error = train(&plan, &mut notes, &AtomicBool::new(false)).err().unwrap();
    assert!(matches!(error, TrainError::StaysBad { rollbacks: 2, .. }), "{error}");
    assert_eq!(notes.rolled_back.len(), 2);
    for (from, to) in &notes.rolled_back {
        assert!(to % 5 == 0 && (to + 1..to + 12).contains(from), "{:?}", notes.rolled_back);
    }
    assert!(notes.skipped >= 6, "{}", notes.skipped);
    let lines = request.out.log_lines().unwrap();
    let rollbacks: Vec<_> = lines.iter().filter(|l| matches!(l, LogLine::Rollback(_))).collect();
    assert_eq!(rollbacks.len(), 2);
    let good = checkpoint::newest_good(request.out.place()).unwrap().unwrap();
    let mut state = new_state(&plan).unwrap();
    good.restore(&mut state).unwrap();
    assert!(state.weights.flat().isfinite().all().int64_value(&[]) == 1);
}

#[test]
fn a_run_that_stays_bad_says_so_after_the_same_steps_however_it_is_stopped() {
    let prepared = prepared();
    // As above, but seen up to three steps later: a stop may come between. It ends at step 8.
    let settings = || {
        let overflow = ["optim.lr_max=10", "optim.lr_min=10", "optim.weight_decay=10"];
        let looked_at = ["checkpoint.every_steps=5", "runtime.log_every_steps=4"];
        let short = ["train.steps=100", "optim.warmup_steps=0", "fault.skipped_max=3"];
        config(&[&overflow[..], &looked_at, &short, &["fault.rollbacks_max=2"]].concat())
    };
    let log_of = |request: &FitRequest| {
        let error = fit(settings(), request).err().unwrap();
        assert!(matches!(error, TrainError::StaysBad { rollbacks: 2, .. }), "{error}");
        log(&request.out.path())
    };
    let expected = log_of(&request(&prepared, "straight", false));
    for at in 1..8 {
        let stopped = request(&prepared, &format!("stopped-{at}"), true);
        assert!(stop_at(settings(), &stopped, at));
        assert_eq!(log_of(&stopped), expected, "stopped after step {at}");
    }
}

/// Now and then a spike: the rate is so low that the loss of a batch is a function of its labels,
/// and of 30 rows one has ten rare ones.
fn prepared_with_spikes() -> Prepared {
    const RARE: &str =
        "a horse, a bird, a table, a chair, a clock, a bottle, a train, a bus, a cake and a sheep";
    prepared_of(|i| if i == 7 { RARE } else { THINGS[i % 3].0 })
}

const SPIKES: [&str; 8] = [
    "train.steps=20",
    "train.seed=2",
    "optim.lr_max=1e-5",
    "optim.lr_min=1e-5",
    "model.bias_from_priors=true",
    "fault.spike_factor=1.5",
    "fault.rollbacks_max=200",
    "eval.every_steps=4",
];

fn spikes(settings: &[&str]) -> TrainConfig {
    config(&[&SPIKES[..], settings].concat())
}

/// Weights and log of a run.
type Outcome = (Vec<Vec<u8>>, Vec<String>);

/// Weights and log of a run that nobody disturbs, and the steps from and to which it goes back.
fn undisturbed(
    config: TrainConfig,
    request: &FitRequest,
    copy: Option<[PathBuf; 2]>,
) -> (Outcome, Vec<(u64, u64)>) {
    let plan = plan::plan(config, request).unwrap();
    let mut notes = Notes { copy, ..Notes::default() };
    train(&plan, &mut notes, &AtomicBool::new(false)).unwrap();
    (result(&request.out.path()), notes.rolled_back)
}

/// Weights and log of a run of 20 steps.
fn result(run: &Path) -> Outcome {
    (model_bytes(run, 20), log(run))
}

/// Goes on with a run until it has taken step `at`; whether that was not its last.
fn stop_at(config: TrainConfig, request: &FitRequest, at: u64) -> bool {
    let plan = plan::plan(config, request).unwrap();
    let stop = AtomicBool::new(false);
    let mut notes = Notes { stop: Some((at, &stop)), ..Notes::default() };
    match train(&plan, &mut notes, &stop) {
        Ok(_) => false,
        Err(TrainError::Interrupted { .. }) => true,
        Err(error) => panic!("stop at {at}: {error}"),
    }
}

#[test]
fn a_run_that_goes_back_leaves_out_what_it_read_and_is_resumed_to_the_bit() {
    let prepared = prepared_with_spikes();
    let spikes = || spikes(&["checkpoint.every_steps=3"]);
    let [straight, killed] = [("straight", false), ("killed", true)]
        .map(|(out, resume)| request(&prepared, out, resume));
    let copy = Some([straight.out.path(), killed.out.path()]);
    let (expected, rolled_back) = undisturbed(spikes(), &straight, copy);
    assert!(rolled_back.iter().any(|&(_, to)| to > 0), "{rolled_back:?}");
    let lines = killed.out.log_lines().unwrap();
    assert!(matches!(lines.last(), Some(LogLine::Rollback(_))));
    fit(spikes(), &killed).unwrap();
    assert!(result(&killed.out.path()) == expected);
}

/// Stops a run after each step in turn, and one after every step that it takes, and goes on.
fn stops_change_nothing(settings: &[&str]) {
    let prepared = prepared_with_spikes();
    let (expected, rolled_back) =
        undisturbed(spikes(settings), &request(&prepared, "straight", false), None);
    assert!(rolled_back.len() > 2, "{rolled_back:?}");
    for at in 1..20 {
        let stopped = request(&prepared, &format!("stopped-{at}"), true);
        assert!(stop_at(spikes(settings), &stopped, at));
        fit(spikes(settings), &stopped).unwrap();
        let (weights, lines) = result(&stopped.out.path());
        assert_eq!(lines, expected.1, "stopped after step {at}; {rolled_back:?}");
        assert!(weights == expected.0, "stopped after step {at}; {rolled_back:?}");
    }
    let often = request(&prepared, "often", true);
    let mut stops = 0;
    let next = || checkpoint::latest_step(often.out.place()).unwrap().unwrap_or(0) + 1;
    while stop_at(spikes(settings), &often, next()) {
        stops += 1;
        assert!(stops < 200);
    }
    let (weights, lines) = result(&often.out.path());
    assert_eq!(lines, expected.1, "stopped after every step; {rolled_back:?}");
    assert!(weights == expected.0, "stopped after every step; {rolled_back:?}");
}

#[test]
fn a_run_that_goes_back_and_is_stopped_ends_with_the_same_bits() {
    stops_change_nothing(&["checkpoint.every_steps=3"]);
}

#[test]
fn so_does_one_that_keeps_one_checkpoint_and_looks_at_every_third_step() {
    let rarely =
        ["checkpoint.every_steps=4", "checkpoint.keep_last=1", "runtime.log_every_steps=3"];
    stops_change_nothing(&[&rarely[..], &["train.batch=7", "train.seed=5"]].concat());
}

#[test]
fn a_finished_run_that_is_resumed_only_evaluates() {
    let prepared = prepared();
    let request = request(&prepared, "run", true);
    let first = fit(config(&[]), &request).unwrap();
    let before = (model_bytes(&request.out.path(), 8), log(&request.out.path()));
    let again = fit(config(&[]), &request).unwrap();
    assert!(before == (model_bytes(&request.out.path(), 8), log(&request.out.path())));
    assert_eq!(again.evaluation.unwrap().report, first.evaluation.unwrap().report);
}

#[test]
fn a_folder_with_a_run_is_not_overwritten() {
    let prepared = prepared();
    let request = request(&prepared, "run", false);
    fit(config(&[]), &request).unwrap();
    let error = fit(config(&[]), &request).err().unwrap();
    assert!(matches!(error, TrainError::OutputTaken { .. }), "{error}");
}

#[test]
fn a_resume_with_another_setting_names_it() {
    let prepared = prepared();
    fit(config(&[]), &request(&prepared, "run", false)).unwrap();
    let error =
        fit(config(&["optim.lr_max=1e-3"]), &request(&prepared, "run", true)).err().unwrap();
    let expected = "the run was begun with `optim.lr_max` = 0.003, this command says 0.001";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn more_images_in_a_batch_than_rows_is_an_error_with_both_numbers() {
    let prepared = prepared();
    let error = fit(config(&["train.batch=100"]), &request(&prepared, "run", false)).err().unwrap();
    let TrainError::Feed(source) = &error else { panic!("{error}") };
    assert!(source.to_string().contains("too few for one batch of 100"), "{source}");
}

#[test]
fn a_trained_run_evaluates_as_it_did_and_predicts_what_it_saw() {
    let prepared = prepared();
    let request = request(&prepared, "run", false);
    let summary = fit(config(&["train.steps=60"]), &request).unwrap();
    let run = TrainedRun::open(&request.out, false, &[]).unwrap();
    let evaluation = run.evaluate(&prepared.data).unwrap();
    assert_eq!(evaluation.report, summary.evaluation.unwrap().report);

    let path = prepared.dir.path().join("green.jpg");
    std::fs::write(&path, jpeg([30, 200, 40], 7)).unwrap();
    let predictions = predict(&run, &path, 2).unwrap();
    assert_eq!(predictions[0].lemma, "car");
    assert!(predictions[0].probability > 0.5 && predictions[1].probability < 0.5);
    std::fs::write(&path, b"no image").unwrap();
    assert!(matches!(predict(&run, &path, 2), Err(TrainError::Image { .. })));
}

#[test]
fn a_data_set_for_evaluation_leaves_all_rows_to_training() {
    let prepared = prepared();
    let mut request = request(&prepared, "run", false);
    request.val = Some((&prepared.data).into());
    let summary = fit(config(&[]), &request).unwrap();
    assert_eq!(summary.evaluation.unwrap().report.summary.rows, 60);
    let run = TrainedRun::open(&request.out, true, &[]).unwrap();
    assert_eq!((run.priors.rows, run.config.data.holdout_percent), (60, 0.0));
}
