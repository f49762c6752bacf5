//! Arrow arrays in and out of Python, without a copy.
//!
//! In: an object with `__arrow_c_array__` or `__arrow_c_stream__` (the Arrow PyCapsule interface).
//! Out: its arrays, which keep the memory of the other library alive; and [`ArrowArray`], an array
//! of ours that other libraries take over in the same way. Never: looks into what it passes on.

use std::ffi::CStr;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi, to_ffi};
use arrow_array::ffi_stream::{ArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::{Array, ArrayRef, make_array};
use arrow_schema::ArrowError;
use arrow_select::concat::concat;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods, PyTuple};

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

/// The arrays of `object`, one of an array and any number of a stream; `None` for an object that
/// does not speak the interface.
///
/// # Errors
///
/// What the object raises; `ValueError` for a producer that breaks the protocol.
pub fn arrays_of(object: &Bound<'_, PyAny>) -> PyResult<Option<Vec<ArrayRef>>> {
    // A stream first: what has both, such as a column in pieces, has to join them for an array.
    if let Some(method) = object.getattr_opt("__arrow_c_stream__")? {
        return read_stream(&method.call0()?).map(Some);
    }
    let Some(method) = object.getattr_opt("__arrow_c_array__")? else { return Ok(None) };
    let pair = method.call0()?;
    let pair = pair.cast::<PyTuple>().map_err(|_| broken("no pair of capsules"))?;
    if pair.len() != 2 {
        return Err(broken("no pair of capsules"));
    }
    let schema = pair.get_item(0)?;
    let schema = schema.cast::<PyCapsule>().map_err(|_| broken("no capsule of a schema"))?;
    let array = pair.get_item(1)?;
    let array = array.cast::<PyCapsule>().map_err(|_| broken("no capsule of an array"))?;
    let schema = schema.pointer_checked(Some(SCHEMA))?.cast::<FFI_ArrowSchema>();
    let array = array.pointer_checked(Some(ARRAY))?.cast::<FFI_ArrowArray>();
    // SAFETY: the interface promises that capsules of these names hold such structures, alive as
    // long as `pair`, and that who is given them may move the array out, which leaves it released.
    let data = unsafe {
        if array.as_ref().is_released() {
            return Err(broken("an array that was taken before"));
        }
        from_ffi(FFI_ArrowArray::from_raw(array.as_ptr()), schema.as_ref())
    };
    Ok(Some(vec![make_array(data.map_err(|e| refused(&e))?)]))
}

fn read_stream(capsule: &Bound<'_, PyAny>) -> PyResult<Vec<ArrayRef>> {
    let capsule = capsule.cast::<PyCapsule>().map_err(|_| broken("no capsule of a stream"))?;
    let stream = capsule.pointer_checked(Some(STREAM))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: the interface promises that a capsule of that name holds a stream, alive as long as
    // `capsule`, and that who is given it may move it out, which leaves it released.
    let reader = unsafe { ArrayStreamReader::from_raw(stream.as_ptr()) };
    // With the GIL, since a producer in Python may be asked for each array.
    reader.and_then(Iterator::collect).map_err(|e| refused(&e))
}

fn broken(what: &str) -> PyErr {
    PyValueError::new_err(format!(
        "the object breaks the Arrow PyCapsule interface: it gave {what}"
    ))
}

fn refused(error: &ArrowError) -> PyErr {
    PyValueError::new_err(format!("the Arrow data cannot be taken over: {error}"))
}

/// An Arrow array that every library with the Arrow PyCapsule interface takes over without a copy:
/// `pyarrow.array(it)`, `polars.Series(it)`.
#[pyclass(frozen, module = "catlip")]
pub struct ArrowArray(ArrayRef);

impl ArrowArray {
    /// Of an array of ours.
    pub fn new(array: ArrayRef) -> Self {
        Self(array)
    }
}

#[pymethods]
impl ArrowArray {
    /// Capsules of schema and array. `requested_schema` is a wish that the interface lets us pass
    /// over; a consumer casts what it was given.
    #[pyo3(signature = (requested_schema=None))]
    pub fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        let _ = requested_schema;
        let (array, schema) = to_ffi(&self.0.to_data()).map_err(|e| unsupported(&e))?;
        Ok((
            PyCapsule::new_with_value(py, schema, SCHEMA)?,
            PyCapsule::new_with_value(py, array, ARRAY)?,
        ))
    }

    /// A capsule of the type.
    pub fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.0.data_type()).map_err(|e| unsupported(&e))?;
        PyCapsule::new_with_value(py, schema, SCHEMA)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("<catlip.ArrowArray of {} × {}>", self.0.len(), self.0.data_type())
    }
}

fn unsupported(error: &ArrowError) -> PyErr {
    PyTypeError::new_err(format!("the array has no form in Arrow's C interface: {error}"))
}

/// One array of the rows of all.
///
/// # Errors
///
/// `OverflowError` where they are too long for one.
#[pyfunction]
pub fn joined_arrays(py: Python<'_>, arrays: Vec<Bound<'_, ArrowArray>>) -> PyResult<ArrowArray> {
    let arrays: Vec<ArrayRef> = arrays.iter().map(|array| array.get().0.clone()).collect();
    py.detach(|| {
        let all: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        match &arrays[..] {
            [array] => Ok(ArrowArray(array.clone())),
            _ => concat(&all).map(ArrowArray).map_err(|e| {
                PyOverflowError::new_err(format!("the arrays make no single one: {e}"))
            }),
        }
    })
}
