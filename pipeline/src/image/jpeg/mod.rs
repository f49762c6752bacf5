//! JPEG through libjpeg (mozjpeg's build of libjpeg-turbo).
//!
//! In: JPEG bytes, or an [`Image`](super::Image). Out: the other. A file that ends early or whose
//! entropy data are broken is an error, although libjpeg would fill the rest with grey and go on.
//! Never: exits or prints, as libjpeg does by default; leaks when a decode fails half-way.
//!
//! libjpeg reports a fatal error by a call that must not return. Here it unwinds as a Rust panic
//! with a `Fatal` inside, which `run` catches; mozjpeg-sys builds its C code for that.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys as sys;

use crate::error::SampleError;

mod decode;
mod encode;
mod huffman;
mod planes;
mod scan;

pub use decode::{Scale, decode, decode_part};
pub use encode::{Chroma, encode};
pub use planes::{BEHIND_PX, Plane, Planes, decode_planes, encode_planes};

/// What a fatal libjpeg error unwinds with.
struct Fatal(String);

/// What libjpeg passed over with a warning.
enum Damage {
    /// The file ends early.
    Truncated(String),
    /// Its entropy data are broken.
    Broken(String),
}

/// libjpeg's error table and the worst damage that it passed over.
#[repr(C)]
struct Errors {
    // First, so that a pointer to it is a pointer to `Errors`.
    table: sys::jpeg_error_mgr,
    damage: Option<Damage>,
}

fn corrupt(message: String) -> SampleError {
    // libjpeg's words for kinds of JPEG that it does not know, from its jerror.h.
    let unsupported = ["Unsupported", "not implemented", "precision", "Maximum supported"];
    if unsupported.iter().any(|word| message.contains(word)) {
        return SampleError::ImageUnsupported { format: "JPEG", message };
    }
    SampleError::ImageCorrupt { format: "JPEG", message }
}

/// Runs libjpeg calls; a fatal error comes back as a value.
fn run<T>(calls: impl FnOnce() -> T) -> Result<T, SampleError> {
    catch_unwind(AssertUnwindSafe(calls)).map_err(|payload| match payload.downcast::<Fatal>() {
        Ok(fatal) => corrupt(fatal.0),
        Err(other) => resume_unwind(other),
    })
}

impl Errors {
    fn new() -> Box<Self> {
        let mut table = MaybeUninit::zeroed();
        // SAFETY: the struct is plain C data, for which zero is a value; `jpeg_std_error` fills it.
        let table = unsafe {
            sys::jpeg_std_error(table.assume_init_mut());
            table.assume_init()
        };
        let mut errors = Box::new(Self { table, damage: None });
        errors.table.error_exit = Some(on_fatal);
        errors.table.emit_message = Some(on_warning);
        errors
    }
}

/// The words of the error or warning that libjpeg holds just now.
fn message(cinfo: &mut sys::jpeg_common_struct) -> String {
    let buffer = [0u8; 80];
    // SAFETY: `err` was set by `Decoder::new` or `Encoder::new` and lives as long as they do;
    // `format_message` writes at most 80 bytes, JMSG_LENGTH_MAX, with a NUL.
    unsafe {
        if let Some(format) = (*cinfo.err).format_message {
            format(cinfo, std::hint::black_box(&buffer));
        }
    }
    let end = buffer.iter().position(|&b| b == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&std::hint::black_box(buffer)[..end]).into_owned()
}

unsafe extern "C-unwind" fn on_fatal(cinfo: &mut sys::jpeg_common_struct) {
    resume_unwind(Box::new(Fatal(message(cinfo))));
}

/// Level −1 is a warning; others are traces. Only damage to the pixels counts.
unsafe extern "C-unwind" fn on_warning(cinfo: &mut sys::jpeg_common_struct, level: c_int) {
    if level >= 0 {
        return;
    }
    let text = message(cinfo);
    let is_truncated = text.contains("remature end");
    let broken = ["bad Huffman", "bad arithmetic", "instead of RST"];
    if !is_truncated && !broken.iter().any(|word| text.contains(word)) {
        return;
    }
    // SAFETY: `err` points to the first field of an `Errors`, see `Errors` and the two `new`s.
    let errors = unsafe { &mut *cinfo.err.cast::<Errors>() };
    // Broken data are worse than missing ones: they are never allowed.
    match errors.damage {
        Some(Damage::Broken(_)) => {}
        _ if !is_truncated => errors.damage = Some(Damage::Broken(text)),
        Some(Damage::Truncated(_)) => {}
        None => errors.damage = Some(Damage::Truncated(text)),
    }
}

#[cfg(test)]
pub(super) mod tests;
