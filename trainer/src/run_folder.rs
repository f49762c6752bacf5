//! The folder of a run, apart from its checkpoints.
//!
//! In: what a run is. Out: `config.toml`, `vocab.parquet`, `priors.json`, written once before the
//! first step; `log.jsonl`, one line for each log step and evaluation, and the same numbers as
//! events of TensorBoard; `.lock`, who trains it; `machines.jsonl`, a line for each start;
//! `eval.json` and `report.html` at the end; all of it also where the run is in a store. Never: a
//! file that is half written under its own name; a log line of a step that the newest checkpoint
//! has not seen.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catlip_pipeline::prep::lock::Lock;
use catlip_pipeline::prep::{Stores, commit, vocab};
use catlip_schemas::Vocab;
use serde::Serialize;

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::eval::EvalReport;
use crate::machine::Machine;
use crate::metrics::LabelPriors;
use crate::output;
use crate::run_place::{EVENTS, LOG, MACHINES, RunPlace};
use crate::tensorboard::EventFile;

pub use lines::{EvalLine, Fault, LogLine, RollbackLine, SkippedLine, StepLine};

mod lines;

/// Files that the first step needs, in the order in which they are written.
const VOCAB: &str = "vocab.parquet";
const PRIORS: &str = "priors.json";
const CONFIG: &str = "config.toml";
const EVAL: &str = "eval.json";
const REPORT: &str = "report.html";

/// A folder that `fit` writes and the other commands read.
#[derive(Clone, Debug)]
pub struct RunFolder {
    place: RunPlace,
    /// Held by the process that writes, as long as a copy of this is there.
    lock: Option<Arc<Lock>>,
}

impl RunFolder {
    /// The run in the local folder `path`, which may not be there yet.
    pub fn new(path: &Path) -> Self {
        Self { place: path.into(), lock: None }
    }

    /// The run that the user named by a path or a URL, which may not be there yet.
    ///
    /// # Errors
    ///
    /// As of [`RunPlace::find`] and [`Self::refresh`].
    pub fn find(named: &Path, stores: &Stores) -> Result<Self, TrainError> {
        let run = Self { place: RunPlace::find(named, stores)?, lock: None };
        run.refresh()?;
        Ok(run)
    }

    /// Fetches what another process wrote of a run in a store, that the first step and whoever
    /// reads the run need.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`], [`TrainError::Io`].
    pub fn refresh(&self) -> Result<(), TrainError> {
        self.place.fetch(&[VOCAB, PRIORS, CONFIG])
    }

    /// Fetches what a run in a store that goes on adds to; its events are made anew of the log.
    ///
    /// # Errors
    ///
    /// As of [`Self::refresh`].
    pub fn fetch_log(&self) -> Result<(), TrainError> {
        self.place.fetch(&[LOG, MACHINES])
    }

    /// Refuses a folder that holds anything but a run, whole or hardly begun.
    ///
    /// # Errors
    ///
    /// [`TrainError::Foreign`], [`TrainError::Io`], [`TrainError::Data`].
    pub fn check(&self) -> Result<(), TrainError> {
        let own = [VOCAB, PRIORS, CONFIG];
        match (self.is_begun(), self.place.is_remote()) {
            (true, _) => Ok(()),
            (false, false) => output::check(self.disk(), &own),
            (false, true) => {
                output::check_names(&self.path(), &self.place.folder().top_names()?, &own)
            }
        }
    }

    /// Takes the run for this process alone, until the last copy of this is dropped.
    ///
    /// # Errors
    ///
    /// [`TrainError::Locked`], [`TrainError::Io`], [`TrainError::Checkpoint`].
    pub fn lock(&mut self) -> Result<(), TrainError> {
        match self.place.is_remote() {
            true => self.place.claim(&output::holder())?,
            false => self.lock = output::lock(self.disk())?.map(Arc::new),
        }
        Ok(())
    }

    /// Where it lies, for messages.
    pub fn path(&self) -> PathBuf {
        self.place.path("")
    }

    /// Where it lies.
    pub fn place(&self) -> &RunPlace {
        &self.place
    }

    fn disk(&self) -> &Path {
        self.place.disk()
    }

    /// The report that a person reads.
    pub fn report_path(&self) -> PathBuf {
        self.place.path(REPORT)
    }

    /// Whether a run was begun here.
    pub fn is_begun(&self) -> bool {
        self.config_path().exists()
    }

    /// Begins a run: everything that the first step needs to be read back, the config last.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`], [`TrainError::Data`].
    pub fn begin(
        &self,
        config: &TrainConfig,
        vocab: &Vocab,
        priors: &LabelPriors,
    ) -> Result<(), TrainError> {
        fs::create_dir_all(self.disk()).map_err(TrainError::io("create", self.disk()))?;
        vocab::write(&self.vocab_path(), vocab)?;
        self.place.put(VOCAB)?;
        self.write_json(PRIORS, priors)?;
        self.write_config(config)
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn write_config(&self, config: &TrainConfig) -> Result<(), TrainError> {
        let text = format!("# Every setting of this run.\n\n{}", config.to_toml());
        self.write(CONFIG, text.as_bytes())
    }

    /// The config that the run was begun with.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoRun`], [`TrainError::Config`].
    pub fn config(&self, settings: &[String]) -> Result<TrainConfig, TrainError> {
        if !self.is_begun() {
            return Err(TrainError::NoRun { path: self.path() });
        }
        Ok(TrainConfig::load(Some(&self.config_path()), settings)?)
    }

    /// The vocabulary of the run.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`].
    pub fn vocab(&self) -> Result<Vocab, TrainError> {
        Ok(vocab::read(&self.vocab_path())?)
    }

    /// How often each label occurs among the training rows.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`], [`TrainError::Damaged`].
    pub fn priors(&self, vocab: &Vocab) -> Result<LabelPriors, TrainError> {
        let path = self.disk().join(PRIORS);
        let bytes = fs::read(&path).map_err(TrainError::io("read", &path))?;
        let damaged = |message| TrainError::Damaged { path: path.clone(), message };
        let priors: LabelPriors =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if priors.positives.len() != vocab.len() {
            let (found, expected) = (priors.positives.len(), vocab.len());
            return Err(damaged(format!("it has {found} labels, the vocabulary has {expected}")));
        }
        Ok(priors)
    }

    /// Where the vocabulary lies.
    pub fn vocab_path(&self) -> PathBuf {
        self.disk().join(VOCAB)
    }

    fn config_path(&self) -> PathBuf {
        self.disk().join(CONFIG)
    }

    fn log_path(&self) -> PathBuf {
        self.disk().join(LOG)
    }

    /// Opens the log behind the lines up to `step`; later ones, and one that was cut by a kill, are
    /// removed. The evaluation of `step` itself is kept if `evaluated` says so.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn log_from(&self, step: u64, evaluated: bool) -> Result<Log, TrainError> {
        let is_kept = |line: &LogLine| {
            let is_eval = matches!(line, LogLine::Eval(_));
            line.step() < step || line.step() == step && (evaluated || !is_eval)
        };
        let mut lines = self.log_lines()?;
        lines.retain(is_kept);
        self.log_of(&lines)
    }

    /// Opens the log behind the lines up to the step that a run went back to, and the line that
    /// says so: all at once, so that a kill leaves the log before or after it.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn log_rolled_back(&self, rollback: RollbackLine) -> Result<Log, TrainError> {
        let mut lines = self.log_lines()?;
        lines.retain(|line| line.step() <= rollback.step);
        lines.push(LogLine::Rollback(rollback));
        let log = self.log_of(&lines)?;
        // What comes next depends on it, in a run that is killed and gone on with too.
        self.place.put_growing()?;
        Ok(log)
    }

    fn log_of(&self, lines: &[LogLine]) -> Result<Log, TrainError> {
        let text: String = lines.iter().map(|line| format!("{}\n", json_of(line))).collect();
        let events_path = self.disk().join(EVENTS);
        let events = EventFile::create(&events_path);
        let mut events = events.map_err(TrainError::io("create", &events_path))?;
        for line in lines {
            line.tell(&mut events).map_err(TrainError::io("write", &events_path))?;
        }
        let path = self.log_path();
        write_whole(&path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(TrainError::io("open", &path))?;
        let last_eval = lines.iter().rev().find_map(|line| match line {
            LogLine::Eval(line) => Some(line.step),
            _ => None,
        });
        let rollbacks = lines.iter().filter_map(|line| match line {
            LogLine::Rollback(line) => Some(line.clone()),
            _ => None,
        });
        let open = Some((file, events));
        Ok(Log { open, path, last_eval, rollbacks: rollbacks.collect() })
    }

    /// The log as a rank sees it that writes none.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn log_unwritten(&self, step: u64) -> Result<Log, TrainError> {
        let rollbacks = self.log_lines()?.into_iter().filter_map(|line| match line {
            LogLine::Rollback(line) if line.step <= step => Some(line),
            _ => None,
        });
        let rollbacks = rollbacks.collect();
        Ok(Log { open: None, path: self.log_path(), last_eval: None, rollbacks })
    }

    /// The lines of the log; a last line that was cut is left out.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn log_lines(&self) -> Result<Vec<LogLine>, TrainError> {
        let path = self.log_path();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().map_while(|l| serde_json::from_str(l).ok()).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(TrainError::io("read", &path)(error)),
        }
    }

    /// Adds a line to `machines.jsonl`: what this start of the run computes with.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn add_machine(&self, machine: &Machine) -> Result<(), TrainError> {
        let path = self.disk().join(MACHINES);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let line = format!("{}\n", json_of(machine));
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(TrainError::io("write", &path))?;
        Ok(self.place.put(MACHINES)?)
    }

    /// Writes the last evaluation, each synset's too.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn write_eval(&self, report: &EvalReport) -> Result<(), TrainError> {
        self.write_json(EVAL, report)
    }

    /// Writes the report that a person reads.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn write_report(&self, html: &str) -> Result<(), TrainError> {
        self.write(REPORT, html.as_bytes())
    }

    /// Makes the log in the store that of this machine, at the end of a run.
    ///
    /// # Errors
    ///
    /// [`TrainError::Checkpoint`].
    pub fn put_log(&self) -> Result<(), TrainError> {
        Ok(self.place.put_growing()?)
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), TrainError> {
        self.write(name, format!("{}\n", json_of(value)).as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
        write_whole(&self.disk().join(name), bytes)?;
        Ok(self.place.put(name)?)
    }
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    /// The log and its events; none: this rank writes neither.
    open: Option<(File, EventFile)>,
    path: PathBuf,
    last_eval: Option<u64>,
    rollbacks: Vec<RollbackLine>,
}

impl Log {
    /// Step of the last evaluation that it held when it was opened.
    pub fn last_eval(&self) -> Option<u64> {
        self.last_eval
    }

    /// How often the run went back, and the last time, if that was to `step`.
    pub fn rollbacks(&self, step: u64) -> (u64, Option<RollbackLine>) {
        let last = self.rollbacks.last().filter(|line| line.step == step);
        (self.rollbacks.len() as u64, last.cloned())
    }

    /// Adds a line.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`].
    pub fn add(&mut self, line: &LogLine) -> Result<(), TrainError> {
        let Some((file, events)) = &mut self.open else { return Ok(()) };
        let text = format!("{}\n", json_of(line));
        let written = file.write_all(text.as_bytes());
        written.and_then(|()| line.tell(events)).map_err(TrainError::io("write", &self.path))
    }
}

fn json_of<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value)
        .unwrap_or_else(|error| unreachable!("our tables have text keys: {error}"))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    commit::write_whole(path, bytes).map_err(TrainError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use catlip_schemas::Cursor;

    fn line(step: u64) -> LogLine {
        LogLine::Step(StepLine {
            step,
            images_seen: step * 2,
            loss: 1.5,
            augment_loss: None,
            gradient_norm: 0.5,
            lr: 1e-3,
            images_per_sec: 10.0,
            wait_secs: 0.0,
            skipped: 0,
            goodput: 1.0,
            mfu: None,
            slowest_rank: None,
            slowest_rank_secs: None,
            interval_secs: 0.0,
        })
    }

    #[test]
    fn the_log_is_cut_back_to_the_step_of_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        let mut log = run.log_from(0, true).unwrap();
        (1..=5).for_each(|step| log.add(&line(step)).unwrap());
        let mut log = run.log_from(3, true).unwrap();
        log.add(&line(4)).unwrap();
        assert_eq!(run.log_lines().unwrap(), [line(1), line(2), line(3), line(4)]);
    }

    #[test]
    fn a_line_that_a_kill_has_cut_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        let mut log = run.log_from(0, true).unwrap();
        log.add(&line(1)).unwrap();
        log.open.as_mut().unwrap().0.write_all(b"{\"kind\":\"step\",\"st").unwrap();
        assert_eq!(run.log_lines().unwrap(), [line(1)]);
    }

    #[test]
    fn a_run_that_went_back_says_where_its_feed_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        let mut log = run.log_from(0, true).unwrap();
        (1..=5).for_each(|step| log.add(&line(step)).unwrap());
        let cursor =
            Cursor { snapshot: 1, epoch: 0, position: 40, order_version: 1, sets: Vec::new() };
        let rollback = RollbackLine {
            step: 2,
            from_step: 5,
            reason: Fault::Spike,
            loss: Some(9.0),
            skipped: 0,
            cursor,
        };
        let mut log = run.log_rolled_back(rollback.clone()).unwrap();
        assert_eq!(log.rollbacks(2), (1, Some(rollback.clone())));
        log.add(&line(3)).unwrap();
        let lines = run.log_lines().unwrap();
        assert_eq!(lines, [line(1), line(2), LogLine::Rollback(rollback.clone()), line(3)]);
        assert_eq!(run.log_from(2, true).unwrap().rollbacks(2), (1, Some(rollback)));
        // From a later checkpoint the feed goes on by itself.
        assert_eq!(run.log_from(3, true).unwrap().rollbacks(3), (1, None));
        assert_eq!(run.log_from(1, true).unwrap().rollbacks(1), (0, None));
    }

    #[test]
    fn priors_of_another_vocabulary_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        let priors = LabelPriors { rows: 3, positives: vec![1, 2] };
        let vocab = Vocab::new(Vec::new()).unwrap();
        run.begin(&TrainConfig::default(), &vocab, &priors).unwrap();
        let error = run.priors(&run.vocab().unwrap()).unwrap_err().to_string();
        assert!(error.ends_with("it has 2 labels, the vocabulary has 0"), "{error}");
        assert_eq!(run.config(&[]).unwrap(), TrainConfig::default());
    }
}
