//! The feed, for a training loop in Python.
//!
//! In: data sets, a recipe of `catlip-train`, ranks. Out: batches, one epoch after the other, and
//! the state to go on from. Never: holds the GIL while it waits; works in another process than the
//! one that it was made in.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use catlip_pipeline::error::{ConfigError, PrepError, exit};
use catlip_pipeline::feed::data_error::read_vocab;
use catlip_pipeline::feed::{
    DataError, DataPlace, DataSets, FeedError, FeedPlan, FeedRecipe, FeedState, Next, Passes,
    Stream,
};
use catlip_schemas::Vocab;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::batch::Batch;
use crate::error::{prep_raised, raised, refused};
use crate::page_lock::PythonPageLock;
use crate::stores::stores;

/// The settings of `catlip-train` and their defaults.
const DEFAULTS: &str = include_str!("../train.default.toml");

/// How long it waits for a batch before it looks whether a signal came.
const SIGNAL_EVERY: Duration = Duration::from_millis(100);

/// What a feed is made from.
#[derive(FromPyObject)]
struct Request {
    #[pyo3(item)]
    data: Vec<PathBuf>,
    #[pyo3(item)]
    recipe: Option<PathBuf>,
    #[pyo3(item)]
    settings: Vec<String>,
    #[pyo3(item)]
    vocab: Option<PathBuf>,
    #[pyo3(item)]
    rank: u32,
    #[pyo3(item)]
    world_size: u32,
    #[pyo3(item)]
    channels_first: bool,
    #[pyo3(item)]
    page_lock: Option<Py<PyAny>>,
    #[pyo3(item)]
    held_out: bool,
    #[pyo3(item)]
    captions: bool,
}

/// A feed and where it is.
#[pyclass(frozen, module = "catlip._catlip")]
pub struct Feed {
    passes: Mutex<Passes>,
    /// Taken before `passes`, and given back when that is had: who waits for a batch looks away now
    /// and then, and must not be the first again.
    turn: Mutex<()>,
    recipe: FeedRecipe,
    data: DataSets,
    vocab: Arc<Vocab>,
    channels_first: bool,
    process: u32,
}

/// Why there is no feed.
enum Failure {
    Config(ConfigError),
    Data(DataError),
    Feed(FeedError),
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

impl From<FeedError> for Failure {
    fn from(error: FeedError) -> Self {
        Self::Feed(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Config(error) => prep_raised(&PrepError::Config(error)),
            Failure::Data(error) => raised(&error, error.hint(), error.exit_code()),
            Failure::Feed(error) => raised(&error, error.hint(), error.exit_code()),
        }
    }
}

impl Request {
    fn open(self) -> Result<Feed, Failure> {
        let recipe = FeedRecipe::load(DEFAULTS, self.recipe.as_deref(), &self.settings)
            .map_err(Failure::Config)?;
        let places = DataPlace::find(&recipe, &self.data, &stores())?;
        let data = DataSets::open(&recipe, &places)?;
        let vocab = match &self.vocab {
            Some(path) => read_vocab(path)?,
            None => data.make_vocab(&recipe)?,
        };
        let vocab = Arc::new(vocab);
        let plan = match self.held_out {
            true => recipe.held_out_feed(&data, &vocab)?,
            false => recipe.training_feed(&data, &vocab)?,
        };
        let (rank, world_size, lanes) = (self.rank, self.world_size, plan.stream.num_lanes());
        if world_size == 0 || world_size > lanes || rank >= world_size {
            return Err(DataError::Ranks { rank, world_size, lanes }.into());
        }
        let page_lock = self.page_lock.map(|lock| Arc::new(PythonPageLock::new(lock)) as _);
        let plan = FeedPlan {
            stream: Stream { rank, world_size, ..plan.stream },
            with_captions: self.captions,
            page_lock,
            ..plan
        };
        let passes = Mutex::new(Passes::new(plan)?);
        let (channels_first, process) = (self.channels_first, std::process::id());
        let turn = Mutex::default();
        Ok(Feed { passes, turn, recipe, data, vocab, channels_first, process })
    }
}

impl Feed {
    /// Runs `work` without the GIL.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(MutexGuard<'_, Passes>) -> R + Send,
    ) -> PyResult<R> {
        let found = std::process::id();
        if found != self.process {
            let fact = format!(
                "the feed was made in process {} and is used in process {found}, where its threads \
                 are not",
                self.process
            );
            let hint = "make the Feed in the process that uses it, after the fork";
            return Err(refused(fact, Some(hint), exit::USAGE));
        }
        Ok(py.detach(|| {
            let turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
            let passes = self.passes.lock().unwrap_or_else(|e| e.into_inner());
            drop(turn);
            work(passes)
        }))
    }

    fn state_now(&self, passes: &Passes) -> Result<FeedState, DataError> {
        FeedState::new(&self.recipe, &self.data, &self.vocab, passes.cursor().clone())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let passes = self.passes.get_mut().unwrap_or_else(|e| e.into_inner());
        match self.process == std::process::id() {
            // Threads that end may need the GIL to unlock pages.
            true => Python::attach(|py| py.detach(|| passes.rest())),
            false => passes.leave(),
        }
    }
}

#[pymethods]
impl Feed {
    #[new]
    fn new(py: Python<'_>, request: Request) -> PyResult<Self> {
        Ok(py.detach(|| request.open())?)
    }

    /// The next batch, if it is of that epoch; None if it is of another.
    fn next(&self, py: Python<'_>, epoch: u64) -> PyResult<Option<Batch>> {
        loop {
            let wait = |mut passes: MutexGuard<'_, Passes>| {
                let step = passes.steps_done();
                Ok::<_, FeedError>((passes.next_of(epoch, SIGNAL_EVERY)?, step))
            };
            match self.with(py, wait)?.map_err(Failure::Feed)? {
                (Next::Batch(batch), step) => {
                    let (labels, channels_first) = (self.vocab.len(), self.channels_first);
                    return Batch::new(py, *batch, step, labels, channels_first).map(Some);
                }
                (Next::End, _) => return Ok(None),
                (Next::NotYet, _) => py.check_signals()?,
            }
        }
    }

    /// The epoch of the next batch, and the steps of it that were handed out.
    fn place(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        self.with(py, |passes| (passes.epoch(), passes.steps_done()))
    }

    /// Steps of that epoch.
    fn num_steps(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |passes| passes.num_steps())
    }

    fn enter_epoch(&self, py: Python<'_>, epoch: u64) -> PyResult<()> {
        Ok(self.with(py, |mut passes| passes.enter_epoch(epoch))?.map_err(Failure::Feed)?)
    }

    /// The state behind the batch that was handed out last, as JSON.
    fn state(&self, py: Python<'_>) -> PyResult<String> {
        let state = self.with(py, |passes| self.state_now(&passes))?;
        Ok(state.map_err(Failure::Data)?.text())
    }

    /// Goes on from a state.
    fn load_state(&self, py: Python<'_>, state: &str) -> PyResult<()> {
        let load = |mut passes: MutexGuard<'_, Passes>| {
            let state = FeedState::parse(state)?;
            state.check(&self.state_now(&passes)?)?;
            passes.go_to(state.cursor)?;
            Ok::<_, Failure>(())
        };
        Ok(self.with(py, load)??)
    }

    /// Ends its threads; the next batch begins them anew where it is.
    fn rest(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |mut passes| passes.rest())
    }

    /// What the labels mean: the WordNet synset of each, and its head word.
    fn vocab(&self) -> Vec<(String, String)> {
        let rows = self.vocab.rows().iter();
        rows.map(|row| (row.synset.to_string(), row.lemma.clone())).collect()
    }

    /// Labels of the vocabulary.
    #[getter]
    fn num_labels(&self) -> usize {
        self.vocab.len()
    }

    /// What it has done since its threads last began.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let Some(stats) = self.with(py, |passes| passes.stats())? else { return Ok(dict) };
        dict.set_item("decoded", stats.decoded)?;
        dict.set_item("bad_rows", stats.bad_rows)?;
        dict.set_item("last_bad_row", stats.last_bad_row)?;
        dict.set_item("decode_secs", stats.decode_busy_secs)?;
        dict.set_item("read_secs", stats.read_busy_secs)?;
        dict.set_item("wait_secs", stats.wait_secs)?;
        dict.set_item("ready_batches", stats.batches.occupancy)?;
        dict.set_item("group_bytes_max", stats.memory.used_bytes_max)?;
        dict.set_item("spilled_bytes", stats.memory.spilled_bytes)?;
        Ok(dict)
    }
}
