//! The C surface of `meter.cpp`: moments on a device's stream, and its memory.
//!
//! In: the number of a CUDA device. Out: seconds and bytes. Never: waits but where it says so.

use std::ffi::{c_int, c_void};
use std::ptr;

use tch::TchError;

use super::{Reason, asked};

unsafe extern "C" {
    fn catlip_moment(device: c_int, out: *mut *mut c_void, reason: Reason) -> c_int;
    fn catlip_moment_await(moment: *mut c_void, reason: Reason) -> c_int;
    fn catlip_moment_secs(
        from: *mut c_void,
        until: *mut c_void,
        secs: *mut f64,
        reason: Reason,
    ) -> c_int;
    fn catlip_moment_free(moment: *mut c_void);
    fn catlip_memory_peak(device: c_int, peak2: *mut i64, reason: Reason) -> c_int;
    fn catlip_memory_reset(device: c_int, reason: Reason) -> c_int;
}

/// A moment at which the stream of a CUDA device gets somewhere.
#[derive(Debug)]
pub struct Moment(*mut c_void);

impl Moment {
    /// Notes that the current stream of device `number` gets here; does not wait.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as that there is no such device.
    pub fn note(number: usize) -> Result<Self, TchError> {
        let mut out = ptr::null_mut();
        // SAFETY: a number, and a place for what the shim makes.
        asked(|reason| unsafe { catlip_moment(number as c_int, &mut out, reason) })
            .map_err(TchError::Torch)?;
        Ok(Self(out))
    }

    /// Waits until the stream has got there.
    ///
    /// # Errors
    ///
    /// What libtorch says, also of an operation before it that failed.
    pub fn wait(&self) -> Result<(), TchError> {
        // SAFETY: our handle.
        asked(|reason| unsafe { catlip_moment_await(self.0, reason) }).map_err(TchError::Torch)
    }

    /// Seconds from here to a later moment of the same stream. Waits for both.
    ///
    /// # Errors
    ///
    /// As of [`Self::wait`].
    pub fn secs_until(&self, later: &Self) -> Result<f64, TchError> {
        let mut secs = 0.0;
        // SAFETY: our handles, and a place for a number.
        asked(|reason| unsafe { catlip_moment_secs(self.0, later.0, &mut secs, reason) })
            .map_err(TchError::Torch)?;
        Ok(secs)
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `catlip_moment` and is freed here only.
        unsafe { catlip_moment_free(self.0) }
    }
}

/// The most bytes of device `number` that tensors took at once since [`reset_peak`], and the most
/// that libtorch's allocator held.
///
/// # Errors
///
/// What libtorch says, such as that there is no CUDA.
pub fn peak_bytes(number: usize) -> Result<[u64; 2], TchError> {
    let mut peak = [0_i64; 2];
    // SAFETY: a number, and places for two.
    asked(|reason| unsafe { catlip_memory_peak(number as c_int, peak.as_mut_ptr(), reason) })
        .map_err(TchError::Torch)?;
    Ok(peak.map(|bytes| bytes.max(0) as u64))
}

/// Gives back what the allocator holds for nobody, and begins to count anew.
///
/// # Errors
///
/// What libtorch says, such as that there is no CUDA.
pub fn reset_peak(number: usize) -> Result<(), TchError> {
    // SAFETY: a number.
    asked(|reason| unsafe { catlip_memory_reset(number as c_int, reason) }).map_err(TchError::Torch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_cuda_every_question_has_a_reason() {
        assert!(tch::get_num_threads() >= 1, "links libtorch");
        if tch::Cuda::is_available() {
            println!("skipped: there is CUDA");
            return;
        }
        for error in
            [Moment::note(0).unwrap_err(), peak_bytes(0).unwrap_err(), reset_peak(0).unwrap_err()]
        {
            assert!(error.to_string().len() > "Internal torch error: ".len(), "{error}");
        }
    }
}
