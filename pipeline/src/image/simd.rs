//! Says whether the JPEG library that is linked uses SIMD on this machine.
//!
//! In: nothing. Out: the library's own answer, for `--version` and reports. Never: guesses from
//! how it was built.

use std::ffi::c_int;

// The symbols below stand in the library that mozjpeg-sys builds.
use mozjpeg_sys as _;

unsafe extern "C" {
    /// `jsimd.h`: whether colours are converted by SIMD; 0 in a build without, and where the
    /// processor lacks SSE2.
    fn jsimd_can_rgb_ycc() -> c_int;
}

/// Whether JPEGs are decoded and encoded with SIMD, several times as fast as without.
pub fn jpeg_simd() -> bool {
    // SAFETY: takes nothing, and keeps what it found of the processor in a variable of the thread.
    unsafe { jsimd_can_rgb_ycc() != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jpeg_uses_simd_unless_it_was_built_without() {
        let is_unwanted = std::env::var_os("CATLIP_NO_SIMD").is_some_and(|value| value == "1");
        assert!(jpeg_simd() || is_unwanted);
    }
}
