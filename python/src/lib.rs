//! The extension module `catlip._catlip`: bindings without logic.
//!
//! In: Python objects. Out: what `catlip-pipeline` makes of them. Never: decides anything that a
//! program of this repository would decide otherwise; holds the GIL while it works.

use pyo3::prelude::*;

mod error;
mod stores;
mod capsule;
mod array;
mod captions;
mod blocks;
mod labels;
mod data_set;
mod batch;
mod page_lock;
mod feed;
mod prep;

/// The extension module.
#[pymodule]
mod _catlip {
    #[pymodule_export]
    use crate::array::Array;
    #[pymodule_export]
    use crate::batch::{Batch, Labels};
    #[pymodule_export]
    use crate::capsule::{ArrowArray, joined_arrays};
    #[pymodule_export]
    use crate::data_set::{File, Snapshot, head_lemma};
    #[pymodule_export]
    use crate::error::CatlipError;
    #[pymodule_export]
    use crate::feed::Feed;
    #[pymodule_export]
    use crate::labels::{Keys, Labeler};
    #[pymodule_export]
    use crate::prep::{PrepJob, PrepSummary, PrepWorker, merge_tallies, tally_numbers};

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
