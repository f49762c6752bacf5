//! The one exception of the package.
//!
//! In: an error of `catlip-pipeline`. Out: [`CatlipError`] with the words that the programs print,
//! and the attributes `hint` (text or `None`) and `exit_code` (that of the programs).

use std::error::Error;

use catlip_pipeline::error::{PrepError, error_text};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(
    catlip,
    CatlipError,
    PyException,
    "What catlip cannot do: what, where, expected, actual.\n\n`hint` says what can be done, or is \
     None; `exit_code` is the one that the programs would end with."
);

/// An exception with what `error` and its causes say, its hint and its exit code.
pub fn raised(error: &dyn Error, hint: Option<&'static str>, exit_code: u8) -> PyErr {
    let text = error_text(error, hint);
    with_facts(text.trim_end().trim_start_matches("error: ").to_owned(), hint, exit_code)
}

/// An exception of this package alone, with what can be done and the exit code of its kind.
pub fn refused(fact: String, hint: Option<&'static str>, exit_code: u8) -> PyErr {
    let text = hint.map_or_else(|| fact.clone(), |hint| format!("{fact}\nhint: {hint}"));
    with_facts(text, hint, exit_code)
}

/// An exception with that text, its hint and its exit code.
fn with_facts(text: String, hint: Option<&'static str>, exit_code: u8) -> PyErr {
    Python::attach(|py| {
        let raised = CatlipError::new_err(text);
        let value = raised.value(py);
        match value.setattr("hint", hint).and_then(|()| value.setattr("exit_code", exit_code)) {
            Ok(()) => raised,
            Err(other) => other,
        }
    })
}

/// What a command of `catlip-prep` would say and end with.
pub fn prep_raised(error: &PrepError) -> PyErr {
    raised(error, error.hint(), error.exit_code())
}
