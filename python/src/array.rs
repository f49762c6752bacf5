//! Memory of ours as an array of Python.
//!
//! In: the pixels of a batch, or numbers. Out: an [`Array`], which `torch.from_dlpack` and
//! `numpy.asarray` take over where it lies, to read and to write. Never: copies; frees anything
//! before the last view of it is gone.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use catlip_pipeline::feed::Pixels;
use dlpark::ffi::{DLDataType, DLDevice, DLManagedTensor, DLManagedTensorVersioned};
use dlpark::metadata::Dynamic;
use dlpark::python::{DlpackExporter, ExportRequest, export_dlpack};
use dlpark::{DlpackFlags, Managed, ManagedTensorBase};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// An array in the memory of the host. `numpy.asarray(it)` and `torch.from_dlpack(it)` share that
/// memory, which stays as long as one of them is there.
#[pyclass(frozen, module = "catlip")]
pub struct Array {
    memory: Arc<Memory>,
    shape: Vec<usize>,
    /// From one number of a dimension to the next, in numbers.
    strides: Vec<usize>,
    kind: Kind,
}

/// What the numbers are.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// As NumPy writes it.
    code: &'static str,
    bytes: usize,
    dlpack: DLDataType,
}

const UINT8: Kind = Kind { name: "uint8", code: "|u1", bytes: 1, dlpack: DLDataType::U8 };
const INT32: Kind = Kind { name: "int32", code: "<i4", bytes: 4, dlpack: DLDataType::I32 };
const INT64: Kind = Kind { name: "int64", code: "<i8", bytes: 8, dlpack: DLDataType::I64 };
const FLOAT32: Kind = Kind { name: "float32", code: "<f4", bytes: 4, dlpack: DLDataType::F32 };

/// What arrays lie in.
struct Memory {
    start: NonNull<u8>,
    /// `None` while it is dropped.
    owner: Option<Box<dyn Any + Send + Sync>>,
    process: u32,
}

// SAFETY: `start` points into what `owner` holds, which may itself be sent and shared. Rust reads
// and writes through it only in `Array::int64s`, with the GIL.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // In a forked child the threads of the feed are not there, but their locks may be taken.
        if self.process != std::process::id() {
            std::mem::forget(self.owner.take());
        }
    }
}

impl Memory {
    fn new(start: NonNull<u8>, owner: impl Any + Send + Sync) -> Arc<Self> {
        Arc::new(Self { start, owner: Some(Box::new(owner)), process: std::process::id() })
    }

    /// Numbers, which stay where they are while the vector moves.
    fn of<T: Send + Sync + 'static>(mut numbers: Vec<T>) -> Arc<Self> {
        let start = NonNull::new(numbers.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Self::new(start.cast(), numbers)
    }
}

impl Array {
    /// `[rows, height, width, 3]` in this order, or `[rows, 3, height, width]` over the same bytes:
    /// what PyTorch calls `channels_last`.
    pub fn of_pixels(mut pixels: Pixels, size: [usize; 3], channels_first: bool) -> Self {
        let [rows, height, width] = size;
        assert_eq!(pixels.len(), rows * height * width * 3, "bytes of {size:?} images");
        let row = height * width * 3;
        let (shape, strides) = match channels_first {
            true => (vec![rows, 3, height, width], vec![row, 1, width * 3, 3]),
            false => (vec![rows, height, width, 3], vec![row, width * 3, 3, 1]),
        };
        let start = pixels.start();
        Self { memory: Memory::new(start, pixels), shape, strides, kind: UINT8 }
    }

    /// A row of int32.
    pub fn of_int32s(numbers: Vec<i32>) -> Self {
        let shape = vec![numbers.len()];
        Self { memory: Memory::of(numbers), shape, strides: vec![1], kind: INT32 }
    }

    /// A row of int64.
    pub fn of_int64s(numbers: Vec<i64>) -> Self {
        let shape = vec![numbers.len()];
        Self { memory: Memory::of(numbers), shape, strides: vec![1], kind: INT64 }
    }

    /// Rows of float32; one row of them with the shape `[n]`.
    pub fn of_float32s(numbers: Vec<f32>, shape: Vec<usize>) -> Self {
        assert_eq!(numbers.len(), shape.iter().product::<usize>(), "numbers of {shape:?}");
        let strides = (1..=shape.len()).map(|from| shape[from..].iter().product()).collect();
        Self { memory: Memory::of(numbers), shape, strides, kind: FLOAT32 }
    }

    /// A copy of a row of int64, as it is now.
    pub fn int64s(&self) -> Vec<i64> {
        assert_eq!(self.kind.code, INT64.code, "an array of int64");
        let start = self.memory.start.cast::<i64>();
        // SAFETY: they lie one behind the other in memory that `self.memory` keeps, and were
        // written before anybody else knew of it. What Python wrote since are int64 too.
        (0..self.shape[0]).map(|at| unsafe { start.add(at).read() }).collect()
    }

    fn managed<M: ManagedTensorBase>(&self) -> PyResult<Managed<M>> {
        let metadata = Dynamic::new(&self.shape[..], &self.strides[..]);
        let refused = |error: dlpark::metadata::Error| PyBufferError::new_err(error.to_string());
        let mut tensor = metadata.initialize_as::<M>(self.memory.clone()).map_err(refused)?;
        tensor
            .set_data(self.memory.start.as_ptr().cast())
            .set_dtype(self.kind.dlpack)
            .set_device(DLDevice::CPU);
        // SAFETY: shape and strides lie within the memory by the constructors above, the tensor
        // holds the memory until its consumer deletes it, and it may be written to.
        Ok(unsafe { tensor.finish() })
    }
}

impl DlpackExporter for Array {
    fn device(&self) -> DLDevice {
        DLDevice::CPU
    }

    fn flags(&self) -> DlpackFlags {
        DlpackFlags::empty()
    }

    fn prepare_export(&self, _: Python<'_>, _: &ExportRequest<'_>) -> PyResult<()> {
        // The numbers are there; nothing on a stream makes them.
        Ok(())
    }

    fn export_legacy(&self, _: Python<'_>) -> PyResult<Managed<DLManagedTensor>> {
        self.managed()
    }

    fn export_versioned(&self, _: Python<'_>) -> PyResult<Managed<DLManagedTensorVersioned>> {
        self.managed()
    }
}

#[pymethods]
impl Array {
    /// Length of each dimension.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// Bytes from one number of a dimension to the next.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.strides.iter().map(|stride| stride * self.kind.bytes))
    }

    /// `uint8`, `int32`, `int64` or `float32`.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.kind.name
    }

    /// What `numpy.asarray` asks for; NumPy keeps this object as long as its array.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", self.shape(py)?)?;
        interface.set_item("strides", self.strides(py)?)?;
        interface.set_item("typestr", self.kind.code)?;
        let address = self.memory.start.as_ptr().expose_provenance();
        interface.set_item("data", (address, false))?;
        Ok(interface)
    }

    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__(
        &self,
        py: Python<'_>,
        stream: Option<Bound<'_, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(u32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Py<PyAny>> {
        let request = ExportRequest::parse(stream.as_ref(), max_version, dl_device, copy)?;
        export_dlpack(self, py, request)
    }

    fn __dlpack_device__(&self) -> (u32, i32) {
        (DLDevice::CPU.device_type.0, DLDevice::CPU.device_id)
    }

    fn __len__(&self) -> usize {
        self.shape[0]
    }

    fn __repr__(&self) -> String {
        format!("<catlip.Array of {:?} {}>", self.shape, self.kind.name)
    }
}
