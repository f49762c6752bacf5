//! Locks memory of the host for a CUDA device.
//!
//! In: the device, and pages of the feed. Out: pages that the device copies by itself. Never: links
//! CUDA; touches another device, where it would begin a context of 500 MB.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Arc;

use catlip_pipeline::feed::FeedError;
use catlip_pipeline::feed::slot::PageLock;
use libloading::os::unix::RTLD_NOW;
use tch::Device;

use crate::config::TrainConfig;
use crate::device::{function, loaded_path, open_for_ever};

/// The CUDA runtime that libtorch is linked with.
const RUNTIME: &str = "libcudart.so.13";

/// Locks pages through the CUDA runtime.
#[derive(Clone, Copy, Debug)]
struct CudaPageLock {
    ordinal: c_int,
    calls: Calls,
}

/// The functions of the runtime that are called, with their signatures in `cuda_runtime_api.h`.
#[derive(Clone, Copy, Debug)]
struct Calls {
    set_device: unsafe extern "C" fn(c_int) -> c_int,
    register: unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int,
    unregister: unsafe extern "C" fn(*mut c_void) -> c_int,
    error_text: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// Pages that are locked.
struct Locked {
    start: usize,
    calls: Calls,
}

/// What locks the batches of a run; none where `feed.page_lock` says so, and for the CPU.
///
/// # Errors
///
/// [`FeedError::PageLock`].
pub fn of_run(
    config: &TrainConfig,
    device: Device,
) -> Result<Option<Arc<dyn PageLock>>, FeedError> {
    if !config.feed.page_lock {
        return Ok(None);
    }
    of_device(device).map_err(FeedError::PageLock)
}

/// What locks pages for `device`; none is needed for the CPU.
///
/// # Errors
///
/// Why the CUDA runtime does not load, as text.
pub fn of_device(device: Device) -> Result<Option<Arc<dyn PageLock>>, String> {
    let Device::Cuda(ordinal) = device else { return Ok(None) };
    let path = loaded_path(RUNTIME).unwrap_or_else(|| RUNTIME.into());
    let calls = Calls::open(&path)?;
    let ordinal = c_int::try_from(ordinal).map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(CudaPageLock { ordinal, calls })))
}

impl Calls {
    fn open(path: &Path) -> Result<Self, String> {
        let functions = || {
            // SAFETY: it is the library that libtorch has loaded, so no initialiser runs, or
            // NVIDIA's of that name, whose initialisers ask nothing of the process. The symbols
            // have had these signatures since CUDA 4.0.
            unsafe {
                let library = open_for_ever(path, RTLD_NOW)?;
                Ok(Self {
                    set_device: function(library, b"cudaSetDevice\0")?,
                    register: function(library, b"cudaHostRegister\0")?,
                    unregister: function(library, b"cudaHostUnregister\0")?,
                    error_text: function(library, b"cudaGetErrorString\0")?,
                })
            }
        };
        let failed = |message: String| format!("{} does not load ({message})", path.display());
        functions().map_err(failed)
    }

    /// Passes the runtime's 0 on as success.
    fn checked(&self, call: &str, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: any code has a text, which is a constant of the library.
        let text = unsafe { CStr::from_ptr((self.error_text)(code)) };
        Err(format!("{call} answers {code}, {}", text.to_string_lossy()))
    }
}

impl PageLock for CudaPageLock {
    fn lock(&self, pages: &mut [u8]) -> Result<Box<dyn Send>, String> {
        /// `cudaHostRegisterPortable`: for every context of the process.
        const PORTABLE: c_uint = 1;
        let calls = self.calls;
        // SAFETY: any number is allowed; one without a device is an error.
        calls.checked("cudaSetDevice", unsafe { (calls.set_device)(self.ordinal) })?;
        let start = pages.as_mut_ptr();
        // SAFETY: the pages are there, and stay until `Locked` is dropped, as the trait demands.
        let code = unsafe { (calls.register)(start.cast(), pages.len(), PORTABLE) };
        calls.checked("cudaHostRegister", code)?;
        Ok(Box::new(Locked { start: start.expose_provenance(), calls }))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: it was registered and not yet unregistered. An error, such as that the driver has
        // ended before, leaves nothing to do: the pages are freed all the same.
        let _ =
            unsafe { (self.calls.unregister)(std::ptr::with_exposed_provenance_mut(self.start)) };
    }
}

#[cfg(test)]
mod tests {
    use catlip_pipeline::feed::slot::{SlotBuffer, SlotError};

    use super::*;
    use crate::device::{CudaState, DeviceChoice, find};

    #[test]
    fn the_cpu_needs_no_lock() {
        assert!(of_device(Device::Cpu).unwrap().is_none());
    }

    /// The runtime is there with any libtorch; what it answers depends on the machine.
    #[test]
    fn the_runtime_locks_pages_or_says_why_not() {
        assert!(tch::get_num_threads() >= 1, "links libtorch");
        let lock = of_device(Device::Cuda(0)).unwrap().unwrap();
        let buffer = SlotBuffer::new(2, 10_000, Some(&*lock));
        match find(DeviceChoice::Auto).cuda {
            CudaState::Found(_) => assert!(buffer.is_ok()),
            _ => {
                let Err(SlotError::Lock(message)) = buffer else { panic!("locked without GPU") };
                assert!(message.starts_with("cudaSetDevice answers "), "{message}");
                assert!(message.len() > "cudaSetDevice answers 35, ".len(), "{message}");
            }
        }
    }

    #[test]
    fn a_library_that_is_no_runtime_is_not_called() {
        let message = Calls::open(Path::new("libc.so.6")).unwrap_err();
        assert!(message.contains("undefined symbol: cudaSetDevice"), "{message}");
    }
}
