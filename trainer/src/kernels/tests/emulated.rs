//! The kernels on the CPU: the same text, compiled as C++ (`trainer/kernels/emulate.h`).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::{env, ptr};

use libloading::os::unix::RTLD_NOW;

use super::super::{Argument, KernelError, Kernels, Launch};
use crate::device::{function, open_for_ever};

/// Runs kernels, one launch at a time.
#[derive(Debug, Default)]
struct Emulated {
    /// Whether threads and blocks take turns from the last on.
    is_reversed: bool,
    /// A kernel that is not run.
    left_out: Option<&'static str>,
}

#[derive(Clone, Copy)]
struct Calls {
    emulate: unsafe extern "C" fn(
        *const c_char,
        *const c_char,
        *const u32,
        u32,
        *mut *mut c_void,
        c_int,
        *mut c_char,
        usize,
    ) -> c_int,
    signature: unsafe extern "C" fn(*const c_char) -> *const c_char,
}

/// The emulation has one place of memory for the block that runs.
static TURN: Mutex<()> = Mutex::new(());

/// The emulation's library, compiled once for each process.
fn calls() -> Calls {
    static CALLS: OnceLock<Calls> = OnceLock::new();
    *CALLS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libemulated.so");
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let output = Command::new(&compiler)
            // One rounding for each operation, as ATen's own code has it.
            .args(["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"])
            .args(["-Wno-unknown-pragmas", "-fPIC", "-shared", "-o"])
            .arg(&library)
            .arg(kernels.join("emulate.cpp"))
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // SAFETY: our own library; the functions are declared so there.
        unsafe {
            let library = open_for_ever(&library, RTLD_NOW).unwrap();
            Calls {
                emulate: function(library, b"catlip_emulate\0").unwrap(),
                signature: function(library, b"catlip_emulated_signature\0").unwrap(),
            }
        }
    })
}

/// Whether the emulation has a kernel of this name.
pub fn has(kernel: &str) -> bool {
    let name = CString::new(kernel).unwrap();
    // SAFETY: a string.
    !unsafe { (calls().signature)(name.as_ptr()) }.is_null()
}

impl Launch for Emulated {
    unsafe fn launch(
        &self,
        kernel: &str,
        grid: [u32; 2],
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), KernelError> {
        if self.left_out == Some(kernel) {
            return Ok(());
        }
        let letter = |argument: &Argument| match argument {
            Argument::Tensor(_) | Argument::Null => 'p',
            Argument::Index(_) => 'i',
            Argument::Float(_) => 'f',
        };
        let signature: String = arguments.iter().map(letter).collect();
        let [name, signature] = [kernel, &signature].map(|text| CString::new(text).unwrap());
        let mut values: Vec<u64> = arguments.iter().map(|argument| argument.bits()).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| ptr::from_mut(value).cast()).collect();
        let mut reason = [0_u8; 256];
        let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: strings, two sizes, pointers to values of the kinds that the signature says,
        // which is compared, and room for a reason; what they point at is the caller's promise.
        let code = unsafe {
            (calls().emulate)(
                name.as_ptr(),
                signature.as_ptr(),
                grid.as_ptr(),
                threads,
                pointers.as_mut_ptr(),
                self.is_reversed.into(),
                reason.as_mut_ptr().cast(),
                reason.len(),
            )
        };
        if code == 0 {
            return Ok(());
        }
        let reason = CStr::from_bytes_until_nul(&reason).unwrap();
        Err(KernelError::Emulated(reason.to_string_lossy().into_owned()))
    }
}

/// Kernels that run on the CPU, where those that walk over their work have at most so many blocks.
pub fn kernels(blocks: u32) -> Kernels {
    Kernels { launcher: Box::new(Emulated::default()), blocks }
}

/// The same, threads and blocks in the opposite order.
pub fn reversed(blocks: u32) -> Kernels {
    Kernels { launcher: Box::new(Emulated { is_reversed: true, left_out: None }), blocks }
}

/// The same, one of which does nothing.
pub fn without(kernel: &'static str) -> Kernels {
    assert!(has(kernel), "{kernel}");
    Kernels {
        launcher: Box::new(Emulated { is_reversed: false, left_out: Some(kernel) }),
        blocks: 3,
    }
}
