//! The durable form of a [`TrainState`].
//!
//! In: a state. Out: `RUN/checkpoints/step-00000100/` with `model.safetensors`, `ema.safetensors`,
//! `optim-rank0.safetensors` and `state.json`, which holds the SHA-256 of the others; and
//! `RUN/LATEST`, which names it. Never: a checkpoint that looks whole and is not: files and folder
//! are flushed before the folder gets its name, and `LATEST` is renamed last.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use catlip_pipeline::prep::commit;
use catlip_schemas::SchemaError;
use catlip_schemas::checkpoint::{CheckpointFile, CheckpointState};
use catlip_schemas::version::CHECKPOINT_VERSION;
use sha2::{Digest, Sha256};
use tch::Tensor;

pub use self::error::{CheckpointError, Damage};
use crate::ema::Ema;
use crate::model::Weights;
use crate::state::TrainState;
use crate::tensor_file;

pub(crate) mod error;

const FOLDER: &str = "checkpoints";
const LATEST: &str = "LATEST";
const STATE: &str = "state.json";
const MODEL: &str = "model.safetensors";
const EMA: &str = "ema.safetensors";
const OPTIM: &str = "optim-rank0.safetensors";

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
    folder: PathBuf,
    files: Vec<(String, Vec<u8>)>,
}

/// Saves `state`, names it in `LATEST`, and removes all but the `keep_last` newest.
///
/// # Errors
///
/// [`CheckpointError::Io`], also for a full disk: then the checkpoints before are untouched.
pub fn save(
    run: &Path,
    state: &TrainState,
    identity: &Identity,
    keep_last: usize,
) -> Result<(), CheckpointError> {
    let parent = run.join(FOLDER);
    let folder = run.join(CheckpointState::folder(state.step));
    let name = name_of(&folder);
    let temporary = parent.join(format!(".{name}.new"));
    remove(&temporary)?;
    fs::create_dir_all(&temporary).map_err(CheckpointError::io("create", &temporary))?;
    let files = write_files(&temporary, state)?;
    write_state(&temporary, state, identity, files)?;
    flush(&temporary)?;
    // The same step may have been saved before a run went back behind it.
    discard(&folder)?;
    fs::rename(&temporary, &folder).map_err(CheckpointError::io("rename", &temporary))?;
    flush(&parent)?;
    name_latest(run, &CheckpointState::folder(state.step))?;
    for step in steps(run)?.into_iter().skip_while(|&s| s > state.step).skip(keep_last.max(1)) {
        discard(&run.join(CheckpointState::folder(step)))?;
    }
    Ok(())
}

/// The newest whole checkpoint, at most as new as `LATEST` says. Reads every file once.
///
/// # Errors
///
/// [`CheckpointError::None`], [`CheckpointError::AllDamaged`], [`CheckpointError::Io`].
pub fn newest(run: &Path) -> Result<Whole, CheckpointError> {
    let latest = latest_step(run);
    let mut passed_over = Vec::new();
    for step in steps(run)?.into_iter().filter(|&step| latest.is_none_or(|l| step <= l)) {
        match open(&run.join(CheckpointState::folder(step))) {
            Ok(whole) => return Ok(Whole { passed_over, ..whole }),
            Err(error) if error.is_damage() => {
                passed_over.push(Damage { step, message: chain(&error) });
            }
            Err(error) => return Err(error),
        }
    }
    if passed_over.is_empty() {
        return Err(CheckpointError::None { path: run.to_path_buf() });
    }
    Err(CheckpointError::AllDamaged { path: run.to_path_buf(), damages: passed_over })
}

/// The step that `LATEST` names, if there is a run to go on with.
pub fn latest_step(run: &Path) -> Option<u64> {
    let text = fs::read_to_string(run.join(LATEST)).ok()?;
    step_of(text.trim().strip_prefix(FOLDER)?.strip_prefix('/')?)
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
        let (path, bytes) = self.file(OPTIM)?;
        tensor_file::read_into(&path, bytes, &moments(state))?;
        state.step = self.state.step;
        state.adamw.steps = self.state.step;
        state.images_seen = self.state.images_seen;
        state.cursor = self.state.cursor;
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

    fn file(&self, name: &str) -> Result<(PathBuf, &[u8]), CheckpointError> {
        let path = self.folder.join(name);
        match self.files.iter().find(|(file, _)| file == name) {
            Some((_, bytes)) => Ok((path, bytes)),
            None => Err(CheckpointError::io("find", &path)(std::io::ErrorKind::NotFound.into())),
        }
    }
}

fn write_files(folder: &Path, state: &TrainState) -> Result<Vec<CheckpointFile>, CheckpointError> {
    let write = |name: &str, tensors: &[_]| tensor_file::write(&folder.join(name), tensors);
    let mut files = vec![write(MODEL, &tensor_file::named(&state.weights)?)?];
    if let Some(average) = state.ema.as_ref().map(Ema::weights) {
        files.push(write(EMA, &tensor_file::named(average)?)?);
    }
    files.push(write(OPTIM, &moments(state))?);
    Ok(files)
}

/// The optimiser's moments; their places are those of the flat weights.
fn moments(state: &TrainState) -> Vec<(String, Tensor)> {
    vec![
        ("exp_avg".to_owned(), state.adamw.exp_avg.shallow_clone()),
        ("exp_avg_sq".to_owned(), state.adamw.exp_avg_sq.shallow_clone()),
    ]
}

fn write_state(
    folder: &Path,
    state: &TrainState,
    identity: &Identity,
    files: Vec<CheckpointFile>,
) -> Result<(), CheckpointError> {
    let content = CheckpointState {
        checkpoint_version: CHECKPOINT_VERSION,
        step: state.step,
        images_seen: state.images_seen,
        cursor: state.cursor,
        config_hash: identity.config_hash.clone(),
        vocab_hash: identity.vocab_hash.clone(),
        files,
    };
    let path = folder.join(STATE);
    let json = serde_json::to_vec_pretty(&content)
        .map_err(|source| SchemaError::Json { what: "state.json", source })
        .map_err(|source| CheckpointError::State { path: path.clone(), source })?;
    write_durably(&path, &json)
}

fn open(folder: &Path) -> Result<Whole, CheckpointError> {
    let path = folder.join(STATE);
    let json = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
    let state = CheckpointState::from_json(&json)
        .map_err(|source| CheckpointError::State { path: path.clone(), source })?;
    let mut files = Vec::new();
    for expected in &state.files {
        let path = folder.join(&expected.file);
        let bytes = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
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
    Ok(Whole { state, passed_over: Vec::new(), folder: folder.to_path_buf(), files })
}

/// Steps of the folders that are there, newest first.
fn steps(run: &Path) -> Result<Vec<u64>, CheckpointError> {
    let folder = run.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CheckpointError::io("list", &folder)(error)),
    };
    let mut steps = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CheckpointError::io("list", &folder))?;
        steps.extend(step_of(&entry.file_name().to_string_lossy()));
    }
    steps.sort_unstable_by(|a, b| b.cmp(a));
    Ok(steps)
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

fn name_of(folder: &Path) -> String {
    folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn name_latest(run: &Path, folder: &str) -> Result<(), CheckpointError> {
    let path = run.join(LATEST);
    commit::write_whole(&path, format!("{folder}\n").as_bytes())
        .map_err(CheckpointError::io("write", &path))
}

/// Gives a folder a name that no reader looks at, then removes it.
fn discard(folder: &Path) -> Result<(), CheckpointError> {
    if !folder.exists() {
        return Ok(());
    }
    let away = folder.with_file_name(format!(".{}.old", name_of(folder)));
    remove(&away)?;
    fs::rename(folder, &away).map_err(CheckpointError::io("rename", folder))?;
    remove(&away)
}

fn remove(folder: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CheckpointError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(CheckpointError::io("create", path))?;
    file.write_all(bytes).map_err(CheckpointError::io("write", path))?;
    file.sync_all().map_err(CheckpointError::io("flush", path))
}

fn flush(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(CheckpointError::io("flush", folder))
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
    use tch::Device;

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
        let cursor = Cursor { snapshot: 1, epoch: 0, position: 0, order_version: 1 };
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

    fn saved_at(steps: &[u64], keep_last: usize) -> (tempfile::TempDir, TrainState) {
        let run = tempfile::tempdir().unwrap();
        let mut state = fresh();
        for &step in steps {
            train(&mut state, step);
            save(run.path(), &state, &identity(), keep_last).unwrap();
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
        for name in [MODEL, EMA, OPTIM, STATE] {
            let read =
                |run: &Path| fs::read(run.join("checkpoints/step-00000002").join(name)).unwrap();
            assert!(read(first.path()) == read(second.path()), "{name}");
        }
    }

    #[test]
    fn only_the_last_are_kept_and_latest_names_the_newest() {
        let (run, _) = saved_at(&[1, 2, 3, 4], 2);
        assert_eq!(steps(run.path()).unwrap(), [4, 3]);
        let latest = fs::read_to_string(run.path().join(LATEST)).unwrap();
        assert_eq!(latest, "checkpoints/step-00000004\n");
        assert_eq!(fs::read_dir(run.path().join(FOLDER)).unwrap().count(), 2);
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
        let whole = damage(OPTIM, |bytes| bytes[..bytes.len() - 1].to_vec());
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

    #[test]
    fn a_checkpoint_that_latest_does_not_name_yet_is_not_taken() {
        let (run, _) = saved_at(&[1, 2], 3);
        name_latest(run.path(), &CheckpointState::folder(1)).unwrap();
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
