//! The batch job for clusters: what `catlip.ray` and `catlip.spark` schedule.
//!
//! In: what a person named, and bytes that one machine sends to another. Out: a job on its driver
//! ([`PrepJob`]), a job on one machine ([`PrepWorker`]), tallies merged, a summary. All of it is
//! `catlip_pipeline::prep::cluster`. Never: starts a task.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::Thread;
use std::time::Duration;

use catlip_pipeline::config::PrepConfig;
use catlip_pipeline::error::PrepError;
use catlip_pipeline::prep::cluster::{ClusterJob, PartTask, Tally, Worker};
use catlip_pipeline::prep::run;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::error::prep_raised;
use crate::stores::surroundings;

/// How often a part in work is interrupted to see whether Python was sent a signal.
const SIGNAL_LOOK: Duration = Duration::from_millis(100);

/// A prep job on its driver: what is to do, what was done, the commit.
#[pyclass(frozen, module = "catlip._catlip")]
pub struct PrepJob {
    job: Mutex<ClusterJob>,
    output: PathBuf,
}

/// A prep job on one machine: makes parts.
#[pyclass(frozen, module = "catlip._catlip")]
pub struct PrepWorker(Worker);

/// What a job came to; as text, what `catlip-prep run` prints.
#[pyclass(frozen, get_all, module = "catlip._catlip")]
pub struct PrepSummary {
    /// Number of the snapshot.
    snapshot: u64,
    /// Parts made by this job; the others were there.
    parts_made: u64,
    /// All parts of the snapshot.
    parts: u64,
    /// Samples of their shards.
    samples: u64,
    /// Rows of those.
    rows: u64,
    /// Captions of the rows.
    captions: u64,
    /// Synsets of the captions, repeats counted.
    synsets: u64,
    /// Entries of the ledger by reason.
    rejects: BTreeMap<String, u64>,
    text: String,
}

#[pymethods]
impl PrepJob {
    /// Plans a job: expands the inputs, compares them with the output, gives numbers to new shards.
    #[new]
    #[pyo3(signature = (inputs, output, config=None, settings=Vec::new()))]
    fn new(
        py: Python<'_>,
        inputs: Vec<String>,
        output: PathBuf,
        config: Option<PathBuf>,
        settings: Vec<String>,
    ) -> PyResult<Self> {
        let plan = || {
            let config = PrepConfig::load(config.as_deref(), &settings)?;
            ClusterJob::plan(config, &inputs, &output, &surroundings())
        };
        let job = Mutex::new(py.detach(plan).map_err(failed)?);
        Ok(Self { job, output })
    }

    /// Number of parts that are missing.
    fn __len__(&self) -> usize {
        self.job().tasks().len()
    }

    /// The description of one of them, for `PrepWorker.make`.
    fn task<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.with_task(index, |task| PyBytes::new(py, &task.to_bytes()))
    }

    /// Path or URL of its shard.
    fn shard(&self, index: usize) -> PyResult<PathBuf> {
        self.with_task(index, |task| task.shard.path())
    }

    /// What all tasks share, for `PrepWorker`: about 3 kB.
    fn spec<'py>(&self, py: Python<'py>, threads: usize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.job().spec(threads).map_err(failed)?))
    }

    /// `runtime.threads`; 0 if it was left open.
    #[getter]
    fn threads(&self) -> usize {
        self.job().config().runtime.threads
    }

    /// What a process that makes parts takes of a machine's memory, in bytes.
    #[getter]
    fn process_bytes(&self) -> u64 {
        self.job().process_bytes()
    }

    /// All parts of the list.
    #[getter]
    fn parts(&self) -> u64 {
        self.job().num_parts()
    }

    /// Those of them that are whole, as far as the job was told.
    #[getter]
    fn parts_made(&self) -> u64 {
        self.job().parts_made()
    }

    /// Samples of the parts that the job was told of.
    #[getter]
    fn samples(&self) -> u64 {
        self.job().totals().counts.samples
    }

    /// Entries of their ledgers.
    #[getter]
    fn rejected(&self) -> u64 {
        self.job().totals().counts.num_rejects()
    }

    /// Bytes of their shards.
    #[getter]
    fn source_bytes(&self) -> u64 {
        self.job().totals().source_bytes
    }

    /// Tells the job what came of some tasks, each once; raises if that is above the budget.
    fn take(&self, py: Python<'_>, tally: &[u8]) -> PyResult<()> {
        py.detach(|| self.job().take(&Tally::from_bytes(tally)?)).map_err(failed)
    }

    /// Commits all parts of the list as one snapshot.
    fn commit(&self, py: Python<'_>) -> PyResult<PrepSummary> {
        let summary = py.detach(|| self.job().commit()).map_err(failed)?;
        Ok(self.summary(summary))
    }

    /// The error of a job that was asked to stop.
    fn interrupted(&self) -> PyErr {
        failed(self.job().interrupted())
    }
}

impl PrepJob {
    fn job(&self) -> MutexGuard<'_, ClusterJob> {
        self.job.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn with_task<T>(&self, index: usize, of: impl FnOnce(&PartTask) -> T) -> PyResult<T> {
        let job = self.job();
        let tasks = job.tasks();
        let wrong = || format!("task {index} of {}", tasks.len());
        tasks.get(index).map(of).ok_or_else(|| PyIndexError::new_err(wrong()))
    }

    fn summary(&self, summary: run::PrepSummary) -> PrepSummary {
        PrepSummary {
            text: summary.text(&self.output),
            snapshot: summary.snapshot,
            parts_made: summary.parts_made,
            parts: summary.parts,
            samples: summary.totals.samples,
            rows: summary.totals.rows,
            captions: summary.totals.captions,
            synsets: summary.totals.synsets,
            rejects: summary.totals.rejects,
        }
    }
}

#[pymethods]
impl PrepWorker {
    /// Opens the job that the driver calls `spec`; refuses if it means something else here.
    #[new]
    fn new(py: Python<'_>, spec: &[u8]) -> PyResult<Self> {
        py.detach(|| Worker::open(spec, &surroundings())).map(Self).map_err(failed)
    }

    /// Makes one part, unless its receipt is there: a tally as bytes. A signal ends it early.
    fn make<'py>(&self, py: Python<'py>, task: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let task = PartTask::from_bytes(task).map_err(failed)?;
        let made = until_signal(py, |stop| self.0.make(&task, stop))?.map_err(failed)?;
        Ok(PyBytes::new(py, &made.to_bytes()))
    }
}

#[pymethods]
impl PrepSummary {
    fn __str__(&self) -> &str {
        self.text.trim_end()
    }
}

/// Several tallies as one.
#[pyfunction]
pub fn merge_tallies<'py>(
    py: Python<'py>,
    tallies: Vec<PyBackedBytes>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut merged = Tally::default();
    for tally in &tallies {
        merged.merge(&Tally::from_bytes(tally).map_err(failed)?);
    }
    Ok(PyBytes::new(py, &merged.to_bytes()))
}

/// The numbers of a tally: parts, samples, rows, rejected, bytes of the shards.
#[pyfunction]
pub fn tally_numbers(tally: &[u8]) -> PyResult<[u64; 5]> {
    let Tally { parts, source_bytes, counts, .. } = Tally::from_bytes(tally).map_err(failed)?;
    Ok([parts, counts.samples, counts.rows, counts.num_rejects(), source_bytes])
}

fn failed(error: PrepError) -> PyErr {
    prep_raised(&error)
}

/// Tells a waiting thread when it is dropped, however the work ended.
struct Told<'d>(&'d AtomicBool, Thread);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.unpark();
    }
}

/// Runs `work` on a thread while this one looks for signals; one that raises asks `work` to stop.
fn until_signal<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> T + Send,
) -> PyResult<T> {
    let (stop, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
    let here = std::thread::current();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let _told = Told(&is_done, here);
            work(&stop)
        });
        let mut signalled = Ok(());
        while !is_done.load(Ordering::Acquire) {
            py.detach(|| std::thread::park_timeout(SIGNAL_LOOK));
            if signalled.is_ok() {
                signalled = py.check_signals();
                stop.store(signalled.is_err(), Ordering::Relaxed);
            }
        }
        let done = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        signalled.map(|()| done)
    })
}
