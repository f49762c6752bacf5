//! The C surface of the shim's C++ files.
//!
//! In: tensors, and handles that the types below own. Out: results with the shim's reasons. Never:
//! a handle that is used after it was freed, or by two threads at once.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::Tensor;

pub mod c10d;
pub mod meter;
pub mod ops;

/// Bytes of a reason: one line, with two paths of the system's longest names in it.
const REASON_BYTES: usize = 1024;

/// What the shim says of a call that failed.
pub type Refusal = String;

#[repr(C)]
struct Reason {
    text: *mut c_char,
    bytes: usize,
}

/// Makes a call that says in its reason why it failed.
fn asked(call: impl FnOnce(Reason) -> c_int) -> Result<(), Refusal> {
    let mut text = vec![0_u8; REASON_BYTES];
    let reason = Reason { text: text.as_mut_ptr().cast(), bytes: text.len() };
    if call(reason) == 0 {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&text).unwrap_or(c"it gave no reason");
    Err(text.to_string_lossy().into_owned())
}

fn raw(tensor: &Tensor) -> *mut c_void {
    tensor.as_ptr().cast_mut().cast()
}
