//! Pages of batches, locked by whoever knows the device.
//!
//! In: an object of Python with `register(address, num_bytes)` and `unregister(address)`, such as
//! `catlip.page_lock.Cuda`. Out: a [`PageLock`] for the feed. Never: knows a device.

use std::fmt;
use std::sync::Arc;

use catlip_pipeline::feed::slot::PageLock;
use pyo3::prelude::*;

/// Locks pages by an object of Python.
pub struct PythonPageLock(Arc<Py<PyAny>>);

impl PythonPageLock {
    /// That object.
    pub fn new(object: Py<PyAny>) -> Self {
        Self(Arc::new(object))
    }
}

impl fmt::Debug for PythonPageLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PythonPageLock")
    }
}

impl PageLock for PythonPageLock {
    fn lock(&self, pages: &mut [u8]) -> Result<Box<dyn Send>, String> {
        let (address, num_bytes) = (pages.as_mut_ptr().expose_provenance(), pages.len());
        Python::attach(|py| self.0.call_method1(py, "register", (address, num_bytes)))
            .map_err(|error| error.to_string())?;
        Ok(Box::new(Locked { by: self.0.clone(), address }))
    }
}

/// Pages that are locked.
struct Locked {
    by: Arc<Py<PyAny>>,
    address: usize,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // When Python has ended, so has the device's driver; the pages are freed all the same.
        Python::try_attach(|py| {
            if let Err(error) = self.by.call_method1(py, "unregister", (self.address,)) {
                error.write_unraisable(py, Some(self.by.bind(py)));
            }
        });
    }
}
