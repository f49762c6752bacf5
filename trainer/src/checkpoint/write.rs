//! Checkpoints on their way to the disk.
//!
//! In: a state. Out: a [`Snapshot`] of it in the host's memory, and a folder that is whole once its
//! name stands there; in a store, which renames nothing, once its `state.json` does. Written by a
//! thread, while the steps go on. Never: two folders at once; a file of one rank in the checkpoint
//! of another start.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use catlip_schemas::SchemaError;
use catlip_schemas::checkpoint::{CheckpointFile, CheckpointState};
use catlip_schemas::version::CHECKPOINT_VERSION;
use tch::{Device, Kind, Tensor};

use super::{CheckpointError, EMA, EXP_AVG, EXP_AVG_SQ, Identity, LATEST, MODEL, STATE};
use super::{STATE_DIGEST, digest_line, name_of, read_state, step_of, steps};
use crate::ema::Ema;
use crate::model::Weights;
use crate::run_place::{CHECKPOINTS, RunPlace};
use crate::state::TrainState;
use crate::tensor_file;

/// How often the first rank looks for what the others wrote.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The same in a store, where a look is a request.
const LOOK_IN_STORE_EVERY: Duration = Duration::from_millis(500);

/// Why a checkpoint is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Its step is one that is saved in any run; then so many older ones stay.
    Due(Keep),
    /// The run is asked to stop. No checkpoint goes for it but that of an earlier stop, so that
    /// those which are due are the same as in a run that is not stopped.
    Stop,
}

/// Which checkpoints are kept, of those that were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest; at least 1.
    pub last: usize,
    /// And those whose step is a multiple of this; 0: no others.
    pub every_steps: u64,
}

/// Whose part of a checkpoint is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// This rank.
    pub rank: u32,
    /// Of how many.
    pub world_size: u32,
    /// The same on all ranks of a start, and different from earlier ones: so that what a rank of
    /// an earlier start left behind is not taken for its part.
    pub start: String,
    /// How long the first rank waits for the others' parts.
    pub timeout: Duration,
}

impl Share {
    /// The one rank that there is.
    pub fn whole() -> Self {
        Self { rank: 0, world_size: 1, start: String::new(), timeout: Duration::ZERO }
    }
}

/// One rank's part of a state, apart from what the next step changes.
#[derive(Debug)]
pub struct Snapshot {
    run: RunPlace,
    share: Share,
    occasion: Occasion,
    files: Vec<(String, Vec<(String, Tensor)>)>,
    state: CheckpointState,
}

impl Snapshot {
    /// Copies a state. Waits for the device.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Torch`], such as out of memory.
    pub fn take(
        run: impl Into<RunPlace>,
        state: &TrainState,
        identity: &Identity,
        share: &Share,
        occasion: Occasion,
    ) -> Result<Self, CheckpointError> {
        let mut files = Vec::new();
        if share.rank == 0 {
            files.push((MODEL.to_owned(), on_host(&state.weights)?));
            if let Some(average) = state.ema.as_ref().map(Ema::weights) {
                files.push((EMA.to_owned(), on_host(average)?));
            }
        }
        files.push((CheckpointState::optim_file(share.rank), moments(state, share)?));
        let [skipped_in_row, skipped_steps] = state.skipped()?;
        let state = CheckpointState {
            checkpoint_version: CHECKPOINT_VERSION,
            step: state.step,
            images_seen: state.images_seen,
            cursor: state.cursor.clone(),
            config_hash: identity.config_hash.clone(),
            vocab_hash: identity.vocab_hash.clone(),
            world_size: share.world_size,
            skipped_steps,
            skipped_in_row,
            loss_mean: state.loss_mean,
            stopped: occasion == Occasion::Stop,
            files: Vec::new(),
        };
        Ok(Self { run: run.into(), share: share.clone(), occasion, files, state })
    }

    /// Its step.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Writes it: every rank its files; the first one waits for them, names the folder, then
    /// `LATEST`, and removes what is not to be kept. `cancel` ends the waiting.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], also for a full disk: then the checkpoints before are untouched;
    /// [`CheckpointError::Part`] for a rank whose part did not come.
    pub fn write(&self, cancel: &AtomicBool) -> Result<(), CheckpointError> {
        if self.run.is_remote() {
            return self.write_into_store(cancel);
        }
        let parent = self.run.disk().join(CHECKPOINTS);
        let folder = self.run.disk().join(CheckpointState::folder(self.state.step));
        let temporary = parent.join(format!(".{}.new{}", last_name(&folder), self.share.start));
        if self.share.world_size == 1 {
            remove(&temporary)?;
        }
        fs::create_dir_all(&temporary).map_err(CheckpointError::io("create", &temporary))?;
        let write =
            |(name, tensors): &(String, Vec<_>)| tensor_file::write(&temporary.join(name), tensors);
        let mut files = self.files.iter().map(write).collect::<Result<Vec<_>, _>>()?;
        let slip = |rank| format!("{CHECKPOINTS}/{}/{}", last_name(&temporary), slip(rank));
        if self.share.rank != 0 {
            return self.hand_in(&slip(self.share.rank), &files);
        }
        for rank in 1..self.share.world_size {
            files.push(self.await_part(&slip(rank), rank, LOOK_EVERY, cancel)?);
        }
        write_state(&temporary, CheckpointState { files, ..self.state.clone() })?;
        flush(&temporary)?;
        // The same step may have been saved before a run went back behind it.
        discard(&self.run, self.state.step)?;
        fs::rename(&temporary, &folder).map_err(CheckpointError::io("rename", &temporary))?;
        flush(&parent)?;
        name_latest(&self.run, self.state.step)?;
        self.remove_old()
    }

    /// The same in a store: every rank puts its files under their own names, and says so in an
    /// object that only this start looks for; the first one then puts `state.json`, without which
    /// they are no checkpoint, what has grown, and `LATEST`.
    fn write_into_store(&self, cancel: &AtomicBool) -> Result<(), CheckpointError> {
        let (run, step) = (&self.run, self.state.step);
        if self.share.rank == 0 {
            run.check_claim()?;
            // What was saved before a run went back behind it vouches for none of these files.
            run.folder().remove(&name_of(step, STATE)).map_err(CheckpointError::of_place)?;
        }
        let put = |(name, tensors): &(String, Vec<_>)| {
            tensor_file::put(run.folder(), &name_of(step, name), name, tensors)
        };
        let mut files = self.files.iter().map(put).collect::<Result<Vec<_>, _>>()?;
        let slip = |rank| name_of(step, &format!("{}{}", slip(rank), self.share.start));
        if self.share.rank != 0 {
            return self.hand_in(&slip(self.share.rank), &files);
        }
        for rank in 1..self.share.world_size {
            files.push(self.await_part(&slip(rank), rank, LOOK_IN_STORE_EVERY, cancel)?);
        }
        let json = json_of(
            &run.path(&name_of(step, STATE)),
            &CheckpointState { files, ..self.state.clone() },
        )?;
        run.write(&name_of(step, STATE_DIGEST), digest_line(&json).as_bytes())?;
        run.write(&name_of(step, STATE), &json)?;
        run.put_growing()?;
        run.check_claim()?;
        name_latest(run, step)?;
        self.remove_old()
    }

    /// Tells the first rank that this one's file is whole.
    fn hand_in(&self, name: &str, files: &[CheckpointFile]) -> Result<(), CheckpointError> {
        self.run.write(name, &json_of(&self.run.path(name), &files)?)
    }

    /// Waits for what a rank says of its part.
    fn await_part(
        &self,
        name: &str,
        rank: u32,
        look_every: Duration,
        cancel: &AtomicBool,
    ) -> Result<CheckpointFile, CheckpointError> {
        let deadline = Instant::now() + self.share.timeout;
        let json = loop {
            match self.run.folder().find(name).map_err(CheckpointError::of_place)? {
                Some(json) => break json,
                None if cancel.load(Ordering::Relaxed) || Instant::now() > deadline => {
                    return Err(CheckpointError::Part { step: self.state.step, rank });
                }
                None => thread::sleep(look_every),
            }
        };
        self.run.folder().remove(name).map_err(CheckpointError::of_place)?;
        let what = "what a rank says of its part";
        let files: Vec<CheckpointFile> = serde_json::from_slice(&json)
            .map_err(|source| SchemaError::Json { what, source })
            .map_err(|source| CheckpointError::State { path: self.run.path(name), source })?;
        let missing = CheckpointError::Part { step: self.state.step, rank };
        files.into_iter().next().ok_or(missing)
    }

    /// Removes what is not to be kept. While steps are bad all that were due stay: the newest that
    /// is good, to which the run may go back, may be the oldest of them.
    fn remove_old(&self) -> Result<(), CheckpointError> {
        let (mut after, is_good) = (0, self.state.skipped_in_row == 0);
        for step in steps(&self.run)?.into_iter().filter(|&step| step < self.state.step) {
            let is_kept = match (self.occasion, is_of_stop(&self.run, step)) {
                (_, true) => false,
                (Occasion::Due(Keep { last, every_steps }), _) if is_good => {
                    after += 1;
                    after < last || every_steps != 0 && step.is_multiple_of(every_steps)
                }
                _ => true,
            };
            if !is_kept {
                discard(&self.run, step)?;
            }
        }
        Ok(())
    }
}

/// The thread that writes; at most one snapshot is under way.
#[derive(Debug, Default)]
pub struct Saver {
    writing: Option<(u64, JoinHandle<Result<(), CheckpointError>>)>,
    cancel: Arc<AtomicBool>,
}

impl Saver {
    /// Begins to write a snapshot; waits for the one before, whose step it gives.
    ///
    /// # Errors
    ///
    /// What became of the one before.
    pub fn begin(&mut self, snapshot: Snapshot) -> Result<Option<u64>, CheckpointError> {
        let before = self.wait()?;
        let (step, cancel) = (snapshot.step(), self.cancel.clone());
        self.writing = Some((step, thread::spawn(move || snapshot.write(&cancel))));
        Ok(before)
    }

    /// The step of a snapshot that has become a checkpoint since it was last asked.
    ///
    /// # Errors
    ///
    /// What became of it.
    pub fn poll(&mut self) -> Result<Option<u64>, CheckpointError> {
        if self.writing.as_ref().is_some_and(|(_, thread)| thread.is_finished()) {
            return self.wait();
        }
        Ok(None)
    }

    /// Waits for the snapshot that is under way, if there is one, and gives its step.
    ///
    /// # Errors
    ///
    /// What became of it.
    pub fn wait(&mut self) -> Result<Option<u64>, CheckpointError> {
        let Some((step, thread)) = self.writing.take() else { return Ok(None) };
        match thread.join() {
            Ok(outcome) => outcome.map(|()| Some(step)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        if let Some((_, thread)) = self.writing.take() {
            // A run that ends by an error keeps its first one; what was being written is then
            // either whole or has no name.
            drop(thread.join());
        }
    }
}

/// Removes what starts that were killed left behind.
///
/// # Errors
///
/// [`CheckpointError::Io`].
pub fn clean(run: impl Into<RunPlace>) -> Result<(), CheckpointError> {
    let run = run.into();
    if run.is_remote() {
        let latest = super::latest_step(&run)?;
        let left = steps(&run)?.into_iter().filter(|&step| latest.is_none_or(|l| step > l));
        return left.into_iter().try_for_each(|step| discard(&run, step));
    }
    let parent = run.disk().join(CHECKPOINTS);
    let Ok(entries) = fs::read_dir(&parent) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(CheckpointError::io("list", &parent))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let step = name.strip_prefix('.').and_then(|name| name.split('.').next());
        if step.and_then(step_of).is_some() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether a stop made the checkpoint of a step; one that cannot be read counts as due.
fn is_of_stop(run: &RunPlace, step: u64) -> bool {
    read_state(run, step).is_ok_and(|state| state.stopped)
}

/// Where a rank says that its part is whole.
fn slip(rank: u32) -> String {
    format!(".rank{rank}.json")
}

/// All weights under their names, copied.
fn on_host(weights: &Weights) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    let mut copy = Weights::zeros(weights.layout(), Device::Cpu)?;
    tch::no_grad(|| copy.flat().shallow_clone().f_copy_(weights.flat()))?;
    copy.set_batches_tracked(weights.batches_tracked());
    Ok(tensor_file::named(&copy)?)
}

/// This rank's stretch of the moments, copied; their places are those of the flat weights.
fn moments(state: &TrainState, share: &Share) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    let floats = state.weights.layout().trained_floats();
    let stretch = CheckpointState::stretch(share.rank, share.world_size, floats);
    let count = stretch.end - stretch.start;
    // Where ranks share the work, a rank has these moments and no others.
    let start = stretch.start - state.adamw.stretch().start;
    let copy = |name: &str, moment: &Tensor| {
        let mut copy = Tensor::f_zeros([count], (Kind::Float, Device::Cpu))?;
        copy.f_copy_(&moment.f_narrow(0, start, count)?)?;
        Ok::<_, CheckpointError>((name.to_owned(), copy))
    };
    Ok(vec![copy(EXP_AVG, &state.adamw.exp_avg)?, copy(EXP_AVG_SQ, &state.adamw.exp_avg_sq)?])
}

fn write_state(folder: &Path, state: CheckpointState) -> Result<(), CheckpointError> {
    let path = folder.join(STATE);
    let json = json_of(&path, &state)?;
    write_durably(&path, &json)?;
    write_durably(&folder.join(STATE_DIGEST), digest_line(&json).as_bytes())
}

fn json_of<T: serde::Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, CheckpointError> {
    serde_json::to_vec_pretty(value)
        .map_err(|source| SchemaError::Json { what: "state.json", source })
        .map_err(|source| CheckpointError::State { path: path.to_path_buf(), source })
}

fn last_name(folder: &Path) -> String {
    folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

pub(super) fn name_latest(run: &RunPlace, step: u64) -> Result<(), CheckpointError> {
    run.write(LATEST, format!("{}\n", CheckpointState::folder(step)).as_bytes())
}

/// Gives the folder of a step a name that no reader looks at, then removes it; in a store, which
/// renames nothing, removes `state.json` first.
pub(super) fn discard(run: &RunPlace, step: u64) -> Result<(), CheckpointError> {
    let name = CheckpointState::folder(step);
    if run.is_remote() {
        let remove = |file: &str| run.folder().remove(&name_of(step, file));
        let files = remove(STATE).and_then(|()| run.folder().list(&name));
        let files = files.map_err(CheckpointError::of_place)?;
        return files.iter().try_for_each(|file| remove(file)).map_err(CheckpointError::of_place);
    }
    let folder = run.disk().join(&name);
    if !folder.exists() {
        return Ok(());
    }
    let away = folder.with_file_name(format!(".{}.old", last_name(&folder)));
    remove(&away)?;
    fs::rename(&folder, &away).map_err(CheckpointError::io("rename", &folder))?;
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
