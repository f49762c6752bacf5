//! Numbers of ours as arrays of Python.
//!
//! In: numbers in a row. Out: [`Numbers`], which NumPy, PyTorch and Arrow read where they lie:
//! `numpy.asarray(it)`, `pyarrow.array(it)`. Never: needs NumPy.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array};
use arrow_schema::DataType;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use crate::capsule::ArrowArray;

/// A row of integers, int32 or int64, that nobody writes to.
#[pyclass(frozen, module = "catlip")]
pub struct Numbers(ArrayRef);

impl Numbers {
    /// Of 32 bits each.
    pub fn of_32(numbers: Vec<i32>) -> Self {
        Self(Arc::new(Int32Array::from(numbers)))
    }

    /// Of 64 bits each.
    pub fn of_64(numbers: Vec<i64>) -> Self {
        Self(Arc::new(Int64Array::from(numbers)))
    }

    fn is_64(&self) -> bool {
        *self.0.data_type() == DataType::Int64
    }
}

#[pymethods]
impl Numbers {
    /// What `numpy.asarray` asks for: address, shape and type.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (address, kind) = match self.is_64() {
            true => (self.0.as_primitive::<Int64Type>().values().as_ptr().addr(), "<i8"),
            false => (self.0.as_primitive::<Int32Type>().values().as_ptr().addr(), "<i4"),
        };
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", (self.0.len(),))?;
        interface.set_item("typestr", kind)?;
        // NumPy keeps this object as long as its array; `true` for read-only.
        interface.set_item("data", (address, true))?;
        Ok(interface)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        ArrowArray::new(self.0.clone()).__arrow_c_array__(py, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        ArrowArray::new(self.0.clone()).__arrow_c_schema__(py)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__(&self, index: isize) -> PyResult<i64> {
        let len = self.0.len();
        let at = if index < 0 { index.checked_add_unsigned(len) } else { Some(index) };
        match at.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < len) {
            Some(at) if self.is_64() => Ok(self.0.as_primitive::<Int64Type>().value(at)),
            Some(at) => Ok(self.0.as_primitive::<Int32Type>().value(at).into()),
            None => Err(PyIndexError::new_err(format!("index {index} of {len} numbers"))),
        }
    }

    /// The numbers as a list.
    fn tolist(&self) -> Vec<i64> {
        match self.is_64() {
            true => self.0.as_primitive::<Int64Type>().values().to_vec(),
            false => {
                self.0.as_primitive::<Int32Type>().values().iter().map(|&n| n.into()).collect()
            }
        }
    }

    fn __repr__(&self) -> String {
        format!("<catlip.Numbers of {} × {}>", self.0.len(), self.0.data_type())
    }
}
