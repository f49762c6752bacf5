//! Which files a snapshot consists of.
//!
//! In: path or URL of a data set, the number of a snapshot. Out: its column sets, and for each part
//! its files and the rows that are left out; the bytes of files, wherever they lie. Never: reads a
//! column.

use std::io::Read;
use std::path::PathBuf;

use catlip_pipeline::caption::wordnet::WordNet;
use catlip_pipeline::error::PrepError;
use catlip_pipeline::prep::DataSet;
use catlip_pipeline::prep::file_check::open_listed;
use catlip_pipeline::prep::folder::StoredFile;
use catlip_schemas::SynsetId;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::prep_raised;
use crate::stores::folder;

/// A snapshot of a data set.
#[pyclass(frozen, module = "catlip._catlip")]
pub struct Snapshot(DataSet);

#[pymethods]
impl Snapshot {
    /// Opens a snapshot by its number, or the newest.
    #[new]
    fn new(py: Python<'_>, place: PathBuf, number: Option<u64>) -> PyResult<Self> {
        let opened = py.detach(|| DataSet::open_at(folder(&place)?, number));
        opened.map(Self).map_err(|e| prep_raised(&e))
    }

    /// Path or URL.
    #[getter]
    fn place(&self) -> String {
        self.0.folder.place().display().to_string()
    }

    /// Whether its files lie in the file system.
    #[getter]
    fn is_local(&self) -> bool {
        self.0.folder.is_local()
    }

    /// Its number.
    #[getter]
    fn number(&self) -> u64 {
        self.0.manifest.snapshot
    }

    /// Rows that are not left out.
    #[getter]
    fn num_rows(&self) -> u64 {
        self.0.live_rows()
    }

    /// Rows that are left out.
    #[getter]
    fn num_dropped(&self) -> u64 {
        self.0.dropped.count()
    }

    /// The names of its column sets.
    #[getter]
    fn sets(&self) -> Vec<&str> {
        self.0.manifest.column_sets.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// The files of a column set, a part each: name of the part, name of the file, rows.
    fn files(&self, set: &str) -> PyResult<Vec<(String, &str, u64)>> {
        let file = |part| {
            let entry = self.0.named_file(part, set)?;
            Ok((part.name.to_string(), entry.file.as_str(), entry.rows))
        };
        let files = self.0.check_set(set).and_then(|()| self.0.parts.iter().map(file).collect());
        files.map_err(|e: PrepError| prep_raised(&e))
    }

    /// Which rows of a part are left out, a bit each from the lowest on; `None` for none.
    fn dropped(&self, part: &str) -> PyResult<Option<&[u8]>> {
        let name = part.parse().map_err(|e| PyValueError::new_err(format!("{part}: {e}")))?;
        Ok(self.0.dropped.bitmap(name))
    }

    /// Opens a file that [`Snapshot::files`] named; it must have the length of the manifest.
    fn open(&self, py: Python<'_>, set: &str, part: &str) -> PyResult<File> {
        let opened = py.detach(|| {
            let found = self.0.parts.iter().find(|found| found.name.to_string() == part);
            let found = found.ok_or_else(|| PrepError::NoDataSet {
                path: self.0.folder.place(),
                message: format!("its snapshot has no part {part}"),
            })?;
            open_listed(&self.0.folder, self.0.named_file(found, set)?)
        });
        opened.map(File).map_err(|e| prep_raised(&e))
    }
}

/// A file of a data set, wherever it lies.
#[pyclass(frozen, module = "catlip._catlip")]
pub struct File(StoredFile);

#[pymethods]
impl File {
    /// Its length in bytes.
    #[getter]
    fn num_bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// At most `num_bytes` bytes from byte `at` on; fewer at the end alone.
    fn read_at<'py>(
        &self,
        py: Python<'py>,
        at: u64,
        num_bytes: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let found = py.detach(|| {
            let mut found = vec![0; num_bytes.min(self.0.bytes().saturating_sub(at)) as usize];
            self.0.from(at).read_exact(&mut found).map(|()| found)
        });
        Ok(PyBytes::new(py, &found?))
    }
}

/// The first lemma of a noun synset of WordNet 3.0, such as `dog` of 2084071.
#[pyfunction]
pub fn head_lemma(offset: i32) -> Option<&'static str> {
    WordNet::embedded().head_lemma(SynsetId(offset))
}
