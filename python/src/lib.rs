//! The extension module `catlip._catlip`: bindings without logic.
//!
//! In: Python objects. Out: what `catlip-pipeline` makes of them. Never: decides anything that a
//! program of this repository would decide otherwise; holds the GIL while it works.

use pyo3::prelude::*;

mod error;
mod array;
mod batch;
mod page_lock;
mod feed;

/// The extension module.
#[pymodule]
mod _catlip {
    #[pymodule_export]
    use crate::array::Array;
    #[pymodule_export]
    use crate::batch::{Batch, Labels};
    #[pymodule_export]
    use crate::error::CatlipError;
    #[pymodule_export]
    use crate::feed::Feed;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
