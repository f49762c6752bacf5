//! The durable form of a [`TrainState`].
//!
//! In: a state. Out: `RUN/checkpoints/step-00000100/` with `model.safetensors`, `ema.safetensors`,
//! an `optim-rank0.safetensors` of each rank and `state.json`, which holds the SHA-256 of the
//! others; and `RUN/LATEST`, which names it. Never: a checkpoint that looks whole and is not: files
//! and folder are flushed before the folder gets its name, and `LATEST` is renamed last.

use std::path::PathBuf;

use catlip_schemas::checkpoint::CheckpointState;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

pub use self::error::{CheckpointError, Damage};
pub use self::write::{Keep, Occasion, Saver, Share, Snapshot};
use crate::model::Weights;
use crate::run_place::{CHECKPOINTS, RunPlace};
use crate::state::TrainState;
use crate::tensor_file;

pub(crate) mod error;
pub mod write;

const LATEST: &str = "LATEST";
const STATE: &str = "state.json";
/// Digest of `state.json` as `sha256sum` writes it, so that `sha256sum -c` checks it too.
const STATE_DIGEST: &str = "state.sha256";
const MODEL: &str = "model.safetensors";
const EMA: &str = "ema.safetensors";
const EXP_AVG: &str = "exp_avg";
const EXP_AVG_SQ: &str = "exp_avg_sq";

/// What a checkpoint must agree with: the same labels, and for going on the same computation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// [`crate::config::TrainConfig::hash`].
    pub config_hash: String,
    /// [`catlip_schemas::Vocab::hash`].
    pub vocab_hash: String,
}

/// A checkpoint whose files are all what they should be, in memory.
#[derive(Debug)]
pub struct Whole {
    /// Its `state.json`.
    pub state: CheckpointState,
    /// Newer checkpoints that were passed over because they are damaged.
    pub passed_over: Vec<Damage>,
    /// Path or URL of its folder, for messages.
    folder: PathBuf,
    files: Vec<(String, Vec<u8>)>,
}

/// The newest whole checkpoint, at most as new as `LATEST` says. Reads every file once.
///
/// # Errors
///
/// [`CheckpointError::None`], [`CheckpointError::AllDamaged`], [`CheckpointError::Io`].
pub fn newest(run: impl Into<RunPlace>) -> Result<Whole, CheckpointError> {
    let run = run.into();
    let latest = latest_step(&run)?;
    let mut passed_over = Vec::new();
    for step in steps(&run)?.into_iter().filter(|&step| latest.is_none_or(|l| step <= l)) {
        match open(&run, step) {
            Ok(whole) => return Ok(Whole { passed_over, ..whole }),
            Err(error) if error.is_damage() => {
                passed_over.push(Damage { step, message: chain(&error) });
            }
            Err(error) => return Err(error),
        }
    }
    if passed_over.is_empty() {
        return Err(CheckpointError::None { path: run.path("") });
    }
    Err(CheckpointError::AllDamaged { path: run.path(""), damages: passed_over })
}

/// The newest whole checkpoint whose last step was a good one: where a run goes back to. Those that
/// a stop made do not count, so that a run that was stopped goes where one that was not does.
///
/// # Errors
///
/// [`CheckpointError::Io`].
pub fn newest_good(run: impl Into<RunPlace>) -> Result<Option<Whole>, CheckpointError> {
    let run = run.into();
    let latest = latest_step(&run)?;
    for step in steps(&run)?.into_iter().filter(|&step| latest.is_some_and(|l| step <= l)) {
        match open(&run, step) {
            Ok(Whole { state, .. }) if state.stopped || state.skipped_in_row > 0 => {}
            Ok(whole) => return Ok(Some(whole)),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Makes `step` the newest checkpoint and removes newer ones; without one, all are removed.
///
/// # Errors
///
/// [`CheckpointError::Io`].
pub fn go_back_to(run: impl Into<RunPlace>, step: Option<u64>) -> Result<(), CheckpointError> {
    let run = run.into();
    if let Some(step) = step {
        write::name_latest(&run, step)?;
    }
    for newer in steps(&run)?.into_iter().filter(|&newer| step.is_none_or(|step| newer > step)) {
        write::discard(&run, newer)?;
    }
    if step.is_some() {
        return Ok(());
    }
    // Without LATEST every folder counts, so it goes last.
    run.folder().remove(LATEST).map_err(CheckpointError::of_place)
}

/// The step that `LATEST` names, if there is a run to go on with.
///
/// # Errors
///
/// [`CheckpointError::Io`], [`CheckpointError::Store`].
pub fn latest_step(run: impl Into<RunPlace>) -> Result<Option<u64>, CheckpointError> {
    let found = run.into().folder().find(LATEST).map_err(CheckpointError::of_place)?;
    let text = found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let named = |text: &str| step_of(text.trim().strip_prefix(CHECKPOINTS)?.strip_prefix('/')?);
    Ok(named(&text))
}

impl Whole {
    /// Refuses a checkpoint of other labels or of another computation.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Identity`].
    pub fn check(&self, identity: &Identity) -> Result<(), CheckpointError> {
        self.check_hash("vocab_hash", &self.state.vocab_hash, &identity.vocab_hash)?;
        self.check_hash("config_hash", &self.state.config_hash, &identity.config_hash)
    }

    /// Refuses a checkpoint of other labels.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Identity`].
    pub fn check_vocab(&self, vocab_hash: &str) -> Result<(), CheckpointError> {
        self.check_hash("vocab_hash", &self.state.vocab_hash, vocab_hash)
    }

    fn check_hash(
        &self,
        what: &'static str,
        found: &str,
        expected: &str,
    ) -> Result<(), CheckpointError> {
        if found == expected {
            return Ok(());
        }
        Err(CheckpointError::Identity {
            path: self.folder.join(STATE),
            what,
            found: found.to_owned(),
            expected: expected.to_owned(),
        })
    }

    /// Puts everything of the checkpoint into `state`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Tensor`] for a tensor that the model does not have so.
    pub fn restore(&self, state: &mut TrainState) -> Result<(), CheckpointError> {
        let (path, bytes) = self.file(MODEL)?;
        tensor_file::read_weights(&path, bytes, &mut state.weights)?;
        if let Some(ema) = &mut state.ema {
            let (path, bytes) = self.file(EMA)?;
            tensor_file::read_weights(&path, bytes, ema.weights_mut())?;
        }
        self.restore_moments(state)?;
        state.set_skipped([self.state.skipped_in_row, self.state.skipped_steps])?;
        state.loss_mean = self.state.loss_mean;
        state.step = self.state.step;
        state.adamw.steps = self.state.step;
        state.images_seen = self.state.images_seen;
        state.cursor = self.state.cursor.clone();
        Ok(())
    }

    /// Joins the stretches of the ranks that saved it, however many there were, and takes what this
    /// rank has moments of.
    fn restore_moments(&self, state: &mut TrainState) -> Result<(), CheckpointError> {
        let (floats, world_size) = (state.weights.layout().trained_floats(), self.state.world_size);
        let own = state.adamw.stretch();
        for rank in 0..world_size {
            let (path, bytes) = self.file(&CheckpointState::optim_file(rank))?;
            let saved = CheckpointState::stretch(rank, world_size, floats);
            let whole = || Tensor::f_zeros([saved.end - saved.start], (Kind::Float, Device::Cpu));
            let targets = [(EXP_AVG.to_owned(), whole()?), (EXP_AVG_SQ.to_owned(), whole()?)];
            tensor_file::read_into(&path, bytes, &targets)?;
            let (from, end) = (saved.start.max(own.start), saved.end.min(own.end));
            for (moments, (_, read)) in
                [&state.adamw.exp_avg, &state.adamw.exp_avg_sq].into_iter().zip(&targets)
            {
                if from < end {
                    let read = read.f_narrow(0, from - saved.start, end - from)?;
                    moments.f_narrow(0, from - own.start, end - from)?.f_copy_(&read)?;
                }
            }
        }
        Ok(())
    }

    /// Puts the averaged weights into `weights`, or the raw ones if `raw` is asked for or there is
    /// no average.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Tensor`] for a tensor that the model does not have so.
    pub fn restore_weights(&self, weights: &mut Weights, raw: bool) -> Result<(), CheckpointError> {
        let averaged = self.files.iter().any(|(name, _)| name == EMA);
        let (path, bytes) = self.file(if averaged && !raw { EMA } else { MODEL })?;
        tensor_file::read_weights(&path, bytes, weights)
    }

    /// Its step.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    fn file(&self, name: &str) -> Result<(PathBuf, &[u8]), CheckpointError> {
        let path = self.folder.join(name);
        match self.files.iter().find(|(file, _)| file == name) {
            Some((_, bytes)) => Ok((path, bytes)),
            None => Err(CheckpointError::io("find", &path)(std::io::ErrorKind::NotFound.into())),
        }
    }
}

/// The name in a run of a file of the checkpoint of `step`.
fn name_of(step: u64, file: &str) -> String {
    format!("{}/{file}", CheckpointState::folder(step))
}

fn read_state(run: &RunPlace, step: u64) -> Result<CheckpointState, CheckpointError> {
    let name = name_of(step, STATE);
    let json = run.read(&name)?;
    let state = CheckpointState::from_json(&json)
        .map_err(|source| CheckpointError::State { path: run.path(&name), source })?;
    // Version 1 had no digest of this file.
    if state.checkpoint_version > 1 {
        check_digest(run, step, &json)?;
    }
    Ok(state)
}

fn open(run: &RunPlace, step: u64) -> Result<Whole, CheckpointError> {
    let state = read_state(run, step)?;
    let mut files = Vec::new();
    for expected in &state.files {
        let name = name_of(step, &expected.file);
        let (path, bytes) = (run.path(&name), run.read(&name)?);
        let differs = |what, found: String, expected: &dyn ToString| CheckpointError::File {
            path: path.clone(),
            what,
            found,
            expected: expected.to_string(),
        };
        if bytes.len() as u64 != expected.bytes {
            return Err(differs("size in bytes", bytes.len().to_string(), &expected.bytes));
        }
        let sha256 = tensor_file::hex(&Sha256::digest(&bytes));
        if sha256 != expected.sha256 {
            return Err(differs("SHA-256", sha256, &expected.sha256));
        }
        files.push((expected.file.clone(), bytes));
    }
    let folder = run.path(&CheckpointState::folder(step));
    Ok(Whole { state, passed_over: Vec::new(), folder, files })
}

/// What stands in `state.sha256`.
fn digest_line(json: &[u8]) -> String {
    format!("{}  {STATE}\n", tensor_file::hex(&Sha256::digest(json)))
}

fn check_digest(run: &RunPlace, step: u64, json: &[u8]) -> Result<(), CheckpointError> {
    let name = name_of(step, STATE_DIGEST);
    let (path, found) = (run.path(&name), run.read(&name)?);
    let expected = digest_line(json);
    if found == expected.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    let (what, expected) = ("digest of state.json", expected.trim().to_owned());
    Err(CheckpointError::File { path, what, found, expected })
}

/// Steps of the folders that are there, newest first.
fn steps(run: &RunPlace) -> Result<Vec<u64>, CheckpointError> {
    let mut steps: Vec<u64> = run.checkpoints()?.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    Ok(steps)
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DeviceBatch, HostRows};
    use crate::model::{Vit, VitPlan};
    use crate::optim::AdamWPlan;
    use crate::schedule::Schedule;
    use crate::step::{StepPlan, step};
    use catlip_schemas::Cursor;
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    const PLAN: VitPlan = VitPlan::corenet([16, 1, 2], 1, 5);
    const ADAMW: AdamWPlan = AdamWPlan::REFERENCE;
    const SCHEDULE: Schedule = Schedule {
        warmup_start: 1e-4,
        lr_max: 1e-2,
        lr_min: 1e-4,
        fall: crate::schedule::Fall::Cosine,
        warmup_steps: 2,
        steps: 6,
    };

    fn fresh() -> TrainState {
        let vit = Vit::new(PLAN);
        let weights = vit.init(1, None, Device::Cpu).unwrap();
        let cursor = Cursor::start(1);
        TrainState::new(vit, weights, ADAMW, 0.1, cursor).unwrap()
    }

    fn identity() -> Identity {
        Identity { config_hash: "c".repeat(16), vocab_hash: "v".repeat(16) }
    }

    /// Takes steps up to `until`; the batch is a function of the step.
    fn train(state: &mut TrainState, until: u64) {
        while state.step < until {
            let at = state.step as usize;
            let images: Vec<u8> = (0..2 * 32 * 32 * 3).map(|i| (i * (at + 3)) as u8).collect();
            let rows = HostRows {
                images_bhwc: &images,
                height_px: 32,
                width_px: 32,
                offsets: &[0, 1, 3],
                label_ids: &[(at % 5) as i64, 0, 4],
                weights: &[1.0, 1.0],
            };
            let batch = DeviceBatch::from_rows(&rows, Device::Cpu).unwrap();
            step(
                state,
                &StepPlan::plain(crate::loss::Loss::Bce { smoothing: 0.0 }),
                &batch,
                SCHEDULE.lr(state.step),
            )
            .unwrap();
            state.cursor.position += 2;
        }
    }

    /// All numbers of a state, as bits.
    fn bits(state: &TrainState) -> Vec<Vec<u32>> {
        let tensors = [
            state.weights.flat(),
            state.ema.as_ref().unwrap().weights().flat(),
            &state.adamw.exp_avg,
            &state.adamw.exp_avg_sq,
        ];
        tensors
            .iter()
            .map(|t| Vec::<f32>::try_from(*t).unwrap().into_iter().map(f32::to_bits).collect())
            .collect()
    }

    fn save(run: &Path, state: &TrainState, last: usize) {
        save_on(run, state, due(last, 0));
    }

    fn save_on(run: &Path, state: &TrainState, occasion: Occasion) {
        let snapshot = Snapshot::take(run, state, &identity(), &Share::whole(), occasion).unwrap();
        snapshot.write(&AtomicBool::new(false)).unwrap();
    }

    fn due(last: usize, every_steps: u64) -> Occasion {
        Occasion::Due(Keep { last, every_steps })
    }

    fn saved_at(steps: &[u64], keep_last: usize) -> (tempfile::TempDir, TrainState) {
        let run = tempfile::tempdir().unwrap();
        let mut state = fresh();
        for &step in steps {
            train(&mut state, step);
            save(run.path(), &state, keep_last);
        }
        (run, state)
    }

    #[test]
    fn interrupted_and_resumed_equals_uninterrupted_to_the_bit() {
        let mut straight = fresh();
        train(&mut straight, 6);
        let (run, _) = saved_at(&[3], 3);
        let mut resumed = fresh();
        let whole = newest(run.path()).unwrap();
        whole.check(&identity()).unwrap();
        whole.restore(&mut resumed).unwrap();
        train(&mut resumed, 6);
        assert_eq!(bits(&resumed), bits(&straight));
        assert_eq!((resumed.step, resumed.images_seen, resumed.cursor), (6, 12, straight.cursor));
        assert_eq!(resumed.weights.batches_tracked(), 6);
    }

    #[test]
    fn the_same_state_gives_the_same_bytes() {
        let (first, _) = saved_at(&[2], 3);
        let (second, _) = saved_at(&[2], 3);
        for name in [MODEL, EMA, "optim-rank0.safetensors", STATE] {
            let read =
                |run: &Path| fs::read(run.join("checkpoints/step-00000002").join(name)).unwrap();
            assert!(read(first.path()) == read(second.path()), "{name}");
        }
    }

    #[test]
    fn only_the_last_are_kept_and_latest_names_the_newest() {
        let (run, _) = saved_at(&[1, 2, 3, 4], 2);
        assert_eq!(steps(&run.path().into()).unwrap(), [4, 3]);
        let latest = fs::read_to_string(run.path().join(LATEST)).unwrap();
        assert_eq!(latest, "checkpoints/step-00000004\n");
        assert_eq!(fs::read_dir(run.path().join(CHECKPOINTS)).unwrap().count(), 2);
    }

    fn damage(file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Whole {
        let (run, _) = saved_at(&[1, 2], 3);
        let path = run.path().join("checkpoints/step-00000002").join(file);
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
        newest(run.path()).unwrap()
    }

    #[test]
    fn a_flipped_bit_is_recognised_and_the_checkpoint_before_is_taken() {
        let whole = damage(MODEL, |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        });
        assert_eq!(whole.state.step, 1);
        assert_eq!(whole.passed_over.len(), 1);
        assert!(whole.passed_over[0].message.contains("SHA-256"), "{:?}", whole.passed_over);
    }

    #[test]
    fn a_cut_file_is_recognised_by_its_size() {
        let whole = damage("optim-rank0.safetensors", |bytes| bytes[..bytes.len() - 1].to_vec());
        assert_eq!(whole.state.step, 1);
        assert!(whole.passed_over[0].message.contains("size in bytes"), "{:?}", whole.passed_over);
    }

    #[test]
    fn a_cut_state_is_recognised() {
        assert_eq!(damage(STATE, |bytes| bytes[..bytes.len() / 2].to_vec()).state.step, 1);
    }

    #[test]
    fn a_missing_file_is_recognised() {
        let (run, _) = saved_at(&[1, 2], 3);
        fs::remove_file(run.path().join("checkpoints/step-00000002").join(EMA)).unwrap();
        assert_eq!(newest(run.path()).unwrap().state.step, 1);
    }

    /// SplitMix64: the same damage in every run.
    fn draw(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn a_hundred_cuts_and_flipped_bits_are_each_recognised() {
        let (run, _) = saved_at(&[1, 2], 3);
        let folder = run.path().join("checkpoints/step-00000002");
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 5);
        let mut seed = 7;
        for at in 0..100 {
            let path = &files[at % files.len()];
            let whole = fs::read(path).unwrap();
            let mut bytes = whole.clone();
            let place = draw(&mut seed) as usize % bytes.len();
            let what = if draw(&mut seed).is_multiple_of(2) {
                bytes.truncate(place);
                format!("{} cut to {place} bytes", path.display())
            } else {
                bytes[place] ^= 1 << (draw(&mut seed) % 8);
                format!("{} with a flipped bit in byte {place}", path.display())
            };
            fs::write(path, &bytes).unwrap();
            let found = newest(run.path()).unwrap();
            assert_eq!((found.step(), found.passed_over.len()), (1, 1), "{what}");
            assert_eq!(found.passed_over[0].step, 2);
            fs::write(path, &whole).unwrap();
        }
        assert_eq!(newest(run.path()).unwrap().step(), 2);
    }

    /// A checkpoint of several ranks, which here write one after the other.
    fn save_as_ranks(run: &Path, state: &TrainState, world_size: u32) {
        for rank in (0..world_size).rev() {
            let timeout = std::time::Duration::ZERO;
            let share = Share { rank, world_size, start: "-1".to_owned(), timeout };
            let snapshot = Snapshot::take(run, state, &identity(), &share, due(3, 0)).unwrap();
            snapshot.write(&AtomicBool::new(false)).unwrap();
        }
    }

    #[test]
    fn any_number_of_ranks_reads_what_any_number_wrote() {
        let mut straight = fresh();
        train(&mut straight, 3);
        for world_size in [2, 3, 8] {
            let run = tempfile::tempdir().unwrap();
            save_as_ranks(run.path(), &straight, world_size);
            let folder = run.path().join("checkpoints/step-00000003");
            // model, ema, state.json and its digest, and the stretch of each rank.
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 4 + world_size as usize);
            let mut resumed = fresh();
            newest(run.path()).unwrap().restore(&mut resumed).unwrap();
            assert_eq!(bits(&resumed), bits(&straight));
        }
    }

    #[test]
    fn a_rank_whose_part_does_not_come_is_named_and_nothing_is_lost() {
        let (run, mut state) = saved_at(&[1], 3);
        train(&mut state, 2);
        let timeout = std::time::Duration::ZERO;
        let share = Share { rank: 0, world_size: 2, start: "-1".to_owned(), timeout };
        let snapshot = Snapshot::take(run.path(), &state, &identity(), &share, due(3, 0)).unwrap();
        let error = snapshot.write(&AtomicBool::new(false)).unwrap_err().to_string();
        assert_eq!(error, "the checkpoint of step 2 lacks the part of rank 1");
        assert_eq!(newest(run.path()).unwrap().step(), 1);
        write::clean(run.path()).unwrap();
        assert_eq!(fs::read_dir(run.path().join(CHECKPOINTS)).unwrap().count(), 1);
    }

    #[test]
    fn a_checkpoint_of_version_1_is_read() {
        let (run, saved) = saved_at(&[2], 3);
        let folder = run.path().join("checkpoints/step-00000002");
        fs::remove_file(folder.join(STATE_DIGEST)).unwrap();
        let text = fs::read_to_string(folder.join(STATE)).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields = json.as_object_mut().unwrap();
        for new in ["world_size", "skipped_steps", "skipped_in_row", "loss_mean", "stopped"] {
            fields.remove(new).unwrap();
        }
        fields["checkpoint_version"] = 1.into();
        fs::write(folder.join(STATE), json.to_string()).unwrap();
        let mut state = fresh();
        newest(run.path()).unwrap().restore(&mut state).unwrap();
        assert_eq!(bits(&state), bits(&saved));
        assert_eq!(state.skipped().unwrap(), [0, 0]);
    }

    #[test]
    fn a_thread_writes_while_the_state_goes_on() {
        let run = tempfile::tempdir().unwrap();
        let mut state = fresh();
        train(&mut state, 2);
        let expected = bits(&state);
        let mut saver = Saver::default();
        let take = |state: &TrainState| {
            Snapshot::take(run.path(), state, &identity(), &Share::whole(), due(1, 2)).unwrap()
        };
        assert_eq!(saver.begin(take(&state)).unwrap(), None);
        train(&mut state, 3);
        assert_eq!(saver.begin(take(&state)).unwrap(), Some(2));
        train(&mut state, 5);
        assert_eq!(saver.wait().unwrap(), Some(3));
        assert_eq!(saver.begin(take(&state)).unwrap(), None);
        assert_eq!((saver.wait().unwrap(), saver.wait().unwrap()), (Some(5), None));
        // 3 is neither the newest nor a multiple of 2.
        assert_eq!(steps(&run.path().into()).unwrap(), [5, 2]);
        let mut early = fresh();
        open(&run.path().into(), 2).unwrap().restore(&mut early).unwrap();
        assert_eq!(bits(&early), expected);
    }

    #[test]
    fn what_cannot_be_written_is_an_error_of_the_next_call() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join(CHECKPOINTS), "in the way").unwrap();
        let (state, share) = (fresh(), Share::whole());
        let snapshot = Snapshot::take(run.path(), &state, &identity(), &share, due(1, 0)).unwrap();
        let mut saver = Saver::default();
        saver.begin(snapshot).unwrap();
        assert!(matches!(saver.wait(), Err(CheckpointError::Io { .. })));
    }

    fn good(run: &Path) -> Option<u64> {
        newest_good(run).unwrap().map(|whole| whole.step())
    }

    #[test]
    fn a_run_goes_back_to_a_checkpoint_whose_last_step_was_good() {
        let (run, mut state) = saved_at(&[1, 2], 3);
        train(&mut state, 3);
        state.set_skipped([2, 2]).unwrap();
        save(run.path(), &state, 3);
        assert_eq!(newest(run.path()).unwrap().state.skipped_steps, 2);
        assert_eq!(good(run.path()), Some(2));
        go_back_to(run.path(), Some(2)).unwrap();
        assert_eq!(newest(run.path()).unwrap().step(), 2);
        assert_eq!(steps(&run.path().into()).unwrap(), [2, 1]);
        go_back_to(run.path(), None).unwrap();
        assert!(matches!(newest(run.path()), Err(CheckpointError::None { .. })));
    }

    #[test]
    fn a_run_goes_on_from_a_stop_but_never_back_to_one() {
        let run = tempfile::tempdir().unwrap();
        let mut state = fresh();
        train(&mut state, 1);
        save_on(run.path(), &state, Occasion::Stop);
        assert_eq!((newest(run.path()).unwrap().step(), good(run.path())), (1, None));
        train(&mut state, 2);
        save(run.path(), &state, 1);
        train(&mut state, 3);
        save_on(run.path(), &state, Occasion::Stop);
        assert_eq!((newest(run.path()).unwrap().step(), good(run.path())), (3, Some(2)));
    }

    #[test]
    fn a_stop_takes_no_place_of_a_checkpoint_that_is_due() {
        let (run, mut state) = saved_at(&[1, 2], 2);
        for (step, occasion, left) in [
            (3, Occasion::Stop, &[3, 2, 1][..]),
            (4, Occasion::Stop, &[4, 2, 1]),
            (5, due(2, 0), &[5, 2]),
        ] {
            train(&mut state, step);
            save_on(run.path(), &state, occasion);
            assert_eq!(steps(&run.path().into()).unwrap(), left);
        }
    }

    #[test]
    fn the_newest_good_checkpoint_stays_while_steps_are_bad() {
        let (run, mut state) = saved_at(&[1, 2], 1);
        for (step, skipped_in_row, left) in
            [(3, 1, &[3, 2][..]), (4, 2, &[4, 3, 2]), (5, 0, &[5]), (6, 0, &[6])]
        {
            train(&mut state, step);
            state.set_skipped([skipped_in_row, 2]).unwrap();
            save(run.path(), &state, 1);
            assert_eq!(steps(&run.path().into()).unwrap(), left);
        }
    }

    #[test]
    fn a_checkpoint_that_latest_does_not_name_yet_is_not_taken() {
        let (run, _) = saved_at(&[1, 2], 3);
        write::name_latest(&run.path().into(), 1).unwrap();
        assert_eq!(newest(run.path()).unwrap().state.step, 1);
    }

    #[test]
    fn a_run_without_checkpoints_and_one_with_damaged_ones_are_told_apart() {
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(newest(empty.path()), Err(CheckpointError::None { .. })));
        let (run, _) = saved_at(&[1], 3);
        fs::write(run.path().join("checkpoints/step-00000001").join(STATE), "{}").unwrap();
        let error = newest(run.path()).unwrap_err();
        assert!(matches!(error, CheckpointError::AllDamaged { .. }), "{error}");
    }

    #[test]
    fn a_checkpoint_of_other_labels_or_of_another_computation_is_refused() {
        let (run, _) = saved_at(&[1], 3);
        let whole = newest(run.path()).unwrap();
        let other = Identity { vocab_hash: "w".repeat(16), ..identity() };
        let error = whole.check(&other).unwrap_err().to_string();
        let expected = "state.json: vocab_hash is vvvvvvvvvvvvvvvv, expected wwwwwwwwwwwwwwww";
        assert!(error.ends_with(expected), "{error}");
        let other = Identity { config_hash: "d".repeat(16), ..identity() };
        assert!(whole.check(&other).unwrap_err().to_string().contains("config_hash"));
    }

    #[test]
    fn weights_of_another_shape_are_refused_by_name() {
        let (run, _) = saved_at(&[1], 3);
        let vit = Vit::new(VitPlan { num_labels: 6, ..PLAN });
        let mut weights = vit.init(1, None, Device::Cpu).unwrap();
        let whole = newest(run.path()).unwrap();
        let error = whole.restore_weights(&mut weights, false).unwrap_err().to_string();
        let expected = "tensor `classifier.weight` is F32 [5, 16], expected F32 [6, 16]";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn weights_are_the_average_unless_raw_ones_are_asked_for() {
        let (run, state) = saved_at(&[2], 3);
        let whole = newest(run.path()).unwrap();
        let mut weights = Weights::zeros(state.vit.layout(), Device::Cpu).unwrap();
        whole.restore_weights(&mut weights, false).unwrap();
        assert!(weights.flat().equal(state.best_weights().flat()));
        whole.restore_weights(&mut weights, true).unwrap();
        assert!(weights.flat().equal(state.weights.flat()));
    }
}
