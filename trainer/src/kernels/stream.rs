//! A second stream of work on a device, for copies, and marks in both.
//!
//! In: memory of the host. Out: the same on the device. Never: waits for the device but where a
//! caller says so; links CUDA.

use std::ffi::{c_int, c_uint, c_void};
use std::{fmt, ptr, slice};

use tch::Tensor;

use super::driver::{Calls, Context, Stream};
use super::error::KernelError;
use crate::upload::Transfer;

/// `CU_STREAM_NON_BLOCKING`: beside the stream that waits for all others.
const NON_BLOCKING: c_uint = 1;
/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: c_uint = 2;

/// Copies on a stream of its own.
pub struct CudaTransfer {
    calls: Calls,
    context: Context,
    ordinal: usize,
    copies: Stream,
}

/// A place in a stream's work.
#[derive(Debug)]
pub struct Event(*mut c_void);

/// Page-locked memory of the host.
pub struct Pinned {
    start: *mut u8,
    bytes: usize,
    calls: Calls,
}

impl fmt::Debug for CudaTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaTransfer(cuda:{})", self.ordinal)
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} bytes)", self.bytes)
    }
}

impl AsMut<[u8]> for Pinned {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: memory of so many bytes, all of them written once, that is ours alone.
        unsafe { slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the driver gave it and takes it back here only. An error, such as that the driver
        // has ended before, leaves nothing to do.
        _ = unsafe { (self.calls.free_host)(self.start.cast()) };
    }
}

impl CudaTransfer {
    /// For copies to device `ordinal`; the stream stays for the life of the process.
    ///
    /// # Errors
    ///
    /// [`KernelError`]: what the driver says.
    pub fn open(ordinal: usize) -> Result<Self, KernelError> {
        let calls = Calls::open()?;
        let (_, context) = calls.primary(ordinal)?;
        let mut copies = ptr::null_mut();
        // SAFETY: the context is current; room for a stream.
        let code = unsafe { (calls.create_stream)(&mut copies, NON_BLOCKING) };
        calls.checked("cuStreamCreate", "copies", code)?;
        Ok(Self { calls, context, ordinal, copies })
    }

    /// Makes the context current: another thread may have opened it.
    fn enter(&self) -> Result<(), KernelError> {
        // SAFETY: the primary context, kept for the life of the process.
        let code = unsafe { (self.calls.set_current)(self.context) };
        self.calls.checked("cuCtxSetCurrent", "copies", code)
    }

    fn mark(&self, stream: Stream, event: &Event) -> Result<(), KernelError> {
        self.enter()?;
        // SAFETY: an event and a stream of this context.
        let code = unsafe { (self.calls.record)(event.0, stream) };
        self.calls.checked("cuEventRecord", "copies", code)
    }

    fn hold(&self, stream: Stream, event: &Event) -> Result<(), KernelError> {
        self.enter()?;
        // SAFETY: an event and a stream of this context; the flags must be 0.
        let code = unsafe { (self.calls.stream_wait)(stream, event.0, 0) };
        self.calls.checked("cuStreamWaitEvent", "copies", code)
    }
}

impl Transfer for CudaTransfer {
    type Event = Event;
    type Staging = Pinned;

    fn event(&self) -> Result<Event, KernelError> {
        self.enter()?;
        let mut event = ptr::null_mut();
        // SAFETY: the context is current; room for an event. It stays for the life of the process.
        let code = unsafe { (self.calls.create_event)(&mut event, NO_TIMING) };
        self.calls.checked("cuEventCreate", "copies", code)?;
        Ok(Event(event))
    }

    fn staging(&self, bytes: usize) -> Result<Pinned, KernelError> {
        self.enter()?;
        let mut start: *mut c_void = ptr::null_mut();
        // SAFETY: the context is current; room for a pointer.
        let code = unsafe { (self.calls.alloc_host)(&mut start, bytes) };
        self.calls.checked("cuMemAllocHost", "copies", code)?;
        let start: *mut u8 = start.cast();
        // SAFETY: as many bytes as were asked for.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Pinned { start, bytes, calls: self.calls })
    }

    fn mark_step(&self, event: &Event) -> Result<(), KernelError> {
        self.mark(self.calls.stream_of_torch(self.ordinal)?, event)
    }

    fn mark_copies(&self, event: &Event) -> Result<(), KernelError> {
        self.mark(self.copies, event)
    }

    fn hold_copies(&self, event: &Event) -> Result<(), KernelError> {
        self.hold(self.copies, event)
    }

    fn hold_step(&self, event: &Event) -> Result<(), KernelError> {
        self.hold(self.calls.stream_of_torch(self.ordinal)?, event)
    }

    fn wait(&self, event: &Event) -> Result<(), KernelError> {
        self.enter()?;
        // SAFETY: an event of this context.
        let code = unsafe { (self.calls.event_wait)(event.0) };
        self.calls.checked("cuEventSynchronize", "copies", code)
    }

    unsafe fn copy(&self, from: &[u8], to: &Tensor, at: usize) -> Result<(), KernelError> {
        assert!(at + from.len() <= to.numel(), "{} bytes at {at} of {to:?}", from.len());
        if from.is_empty() {
            return Ok(());
        }
        self.enter()?;
        let to = to.data_ptr() as u64 + at as u64;
        let (from, bytes) = (from.as_ptr().cast(), from.len());
        // SAFETY: memory of the host that stays, by the caller's promise; memory of the device as
        // long as was asserted.
        let code = unsafe { (self.calls.copy)(to, from, bytes, self.copies) };
        self.calls.checked("cuMemcpyHtoDAsync", "copies", code)
    }
}

/// The driver's functions about streams, with their signatures in `cuda.h`.
pub(super) mod signatures {
    use super::{c_int, c_uint, c_void};

    pub type CreateStream = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
    pub type CreateEvent = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
    pub type Record = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;
    pub type StreamWait = unsafe extern "C" fn(*mut c_void, *mut c_void, c_uint) -> c_int;
    pub type EventWait = unsafe extern "C" fn(*mut c_void) -> c_int;
    pub type Copy = unsafe extern "C" fn(u64, *const c_void, usize, *mut c_void) -> c_int;
    pub type AllocHost = unsafe extern "C" fn(*mut *mut c_void, usize) -> c_int;
    pub type FreeHost = unsafe extern "C" fn(*mut c_void) -> c_int;
}
