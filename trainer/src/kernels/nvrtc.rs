//! NVRTC, the CUDA compiler that libtorch brings along, loaded when it is needed.
//!
//! In: CUDA C++, an architecture. Out: a cubin, or what the compiler says. Never: needs a device or
//! a driver; is linked; reads a header from a disk.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{RTLD_GLOBAL, RTLD_NOW};

use super::error::KernelError;
use super::source::{File, HEADER, HEADER_NAME};
use crate::device::{function, loaded_path, open_for_ever};

/// The compiler's library, of the CUDA that libtorch is built with.
const LIBRARY: &str = "libnvrtc.so.13";
/// How the library begins that it opens by name, which must be there before.
const BUILTINS: &str = "libnvrtc-builtins.so.13";
/// Where that lies beside the folder of libtorch's libraries, as pip installs it.
const BESIDE_TORCH: [&str; 3] = ["../../nvidia/cu13/lib", "../../nvidia/cuda_nvrtc/lib", "."];

/// What is told to the compiler besides the architecture.
pub const OPTIONS: [&str; 1] = ["--std=c++17"];

type Program = *mut c_void;

/// The compiler.
#[derive(Clone, Copy, Debug)]
pub struct Nvrtc {
    calls: Calls,
    /// Major and minor version.
    pub version: [i32; 2],
}

/// The functions that are called, with their signatures in `nvrtc.h`.
#[derive(Clone, Copy, Debug)]
struct Calls {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_bytes: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_bytes: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    error_text: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// What the compiler made of a file.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The device's code, an ELF file.
    pub cubin: Vec<u8>,
    /// Warnings, and what the options ask for.
    pub log: String,
}

/// A program that is destroyed with this.
struct Owned {
    program: Program,
    calls: Calls,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: it was created and is destroyed here only.
        _ = unsafe { (self.calls.destroy)(&mut self.program) };
    }
}

impl Nvrtc {
    /// Finds the compiler beside libtorch, else where the loader looks.
    ///
    /// # Errors
    ///
    /// [`KernelError::Library`] with what the loader says of the last place.
    pub fn find() -> Result<Self, KernelError> {
        if let Some(path) = loaded_path(LIBRARY) {
            return Self::open(&path);
        }
        let torch = loaded_path("libtorch_cpu.so");
        let folder = torch.as_deref().and_then(Path::parent);
        let places = folder.into_iter().flat_map(|f| BESIDE_TORCH.map(|place| f.join(place)));
        let found = places.map(|place| place.join(LIBRARY)).find(|path| path.exists());
        Self::open(&found.unwrap_or_else(|| PathBuf::from(LIBRARY)))
    }

    /// Opens the compiler's library, and before it the one beside it that it needs.
    ///
    /// # Errors
    ///
    /// [`KernelError::Library`].
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let failed = |library: &Path, message| KernelError::Library {
            library: library.to_path_buf(),
            message,
        };
        if let Some(builtins) = builtins_beside(path) {
            // SAFETY: NVIDIA's library of that name, which holds tables.
            unsafe { open_for_ever(&builtins, RTLD_NOW | RTLD_GLOBAL) }
                .map_err(|message| failed(&builtins, message))?;
        }
        let calls = Calls::open(path).map_err(|message| failed(path, message))?;
        let mut version = [0; 2];
        let [major, minor] = &mut version;
        // SAFETY: pointers to two ints.
        calls.checked("nvrtcVersion", unsafe { (calls.version)(major, minor) })?;
        Ok(Self { calls, version })
    }

    /// Compiles `file` for `architecture`, such as `sm_90`, with more options than [`OPTIONS`].
    ///
    /// # Errors
    ///
    /// [`KernelError::Compile`] with what the compiler says.
    pub fn compile(
        &self,
        file: &File,
        architecture: &str,
        more: &[&str],
    ) -> Result<Compiled, KernelError> {
        let calls = self.calls;
        let owned = self.create(file)?;
        let architecture_option = format!("--gpu-architecture={architecture}");
        let options = [architecture_option.as_str()].into_iter().chain(OPTIONS);
        let options: Vec<CString> =
            options.chain(more.iter().copied()).map(c_string).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let count = pointers.len() as c_int;
        // SAFETY: our program, and as many strings as are said, which outlive the call.
        let code = unsafe { (calls.compile)(owned.program, count, pointers.as_ptr()) };
        let log = owned.text("nvrtcGetProgramLog", calls.log_bytes, calls.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
        if code != 0 {
            let architecture = architecture.to_owned();
            let log = if log.is_empty() { calls.text(code) } else { log };
            return Err(KernelError::Compile { file: file.name, architecture, log });
        }
        let cubin = owned.text("nvrtcGetCUBIN", calls.cubin_bytes, calls.cubin)?;
        Ok(Compiled { cubin, log })
    }

    fn create(&self, file: &File) -> Result<Owned, KernelError> {
        let calls = self.calls;
        let [text, name] = [c_string(file.text)?, c_string(file.name)?];
        let [header, header_name] = [c_string(HEADER)?, c_string(HEADER_NAME)?];
        let (headers, names) = ([header.as_ptr()], [header_name.as_ptr()]);
        let mut program: Program = ptr::null_mut();
        // SAFETY: strings that end in a NUL and outlive the call, one header with its name, and
        // room for the program.
        let code = unsafe {
            (calls.create)(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                1,
                headers.as_ptr(),
                names.as_ptr(),
            )
        };
        calls.checked("nvrtcCreateProgram", code)?;
        Ok(Owned { program, calls })
    }
}

impl Owned {
    /// What two calls give: one says how long it is, the other writes it.
    fn text(
        &self,
        call: &'static str,
        bytes: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        write: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, KernelError> {
        let mut length = 0;
        // SAFETY: our program, room for a size.
        self.calls.checked(call, unsafe { bytes(self.program, &mut length) })?;
        let mut text = vec![0_u8; length];
        // SAFETY: our program, and room for as many bytes as it said.
        self.calls.checked(call, unsafe { write(self.program, text.as_mut_ptr().cast()) })?;
        Ok(text)
    }
}

impl Calls {
    fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: NVIDIA's compiler, whose initialisers ask nothing of the process. The symbols
        // have had these signatures since CUDA 11.1.
        unsafe {
            let library = open_for_ever(path, RTLD_NOW)?;
            Ok(Self {
                version: function(library, b"nvrtcVersion\0")?,
                create: function(library, b"nvrtcCreateProgram\0")?,
                compile: function(library, b"nvrtcCompileProgram\0")?,
                log_bytes: function(library, b"nvrtcGetProgramLogSize\0")?,
                log: function(library, b"nvrtcGetProgramLog\0")?,
                cubin_bytes: function(library, b"nvrtcGetCUBINSize\0")?,
                cubin: function(library, b"nvrtcGetCUBIN\0")?,
                destroy: function(library, b"nvrtcDestroyProgram\0")?,
                error_text: function(library, b"nvrtcGetErrorString\0")?,
            })
        }
    }

    fn checked(&self, call: &'static str, code: c_int) -> Result<(), KernelError> {
        if code == 0 {
            return Ok(());
        }
        Err(KernelError::Nvrtc { call, message: self.text(code) })
    }

    fn text(&self, code: c_int) -> String {
        // SAFETY: any code has a text, which is a constant of the library.
        let text = unsafe { CStr::from_ptr((self.error_text)(code)) };
        text.to_string_lossy().into_owned()
    }
}

fn c_string(text: &str) -> Result<CString, KernelError> {
    let message = "a text with a NUL in it".to_owned();
    CString::new(text).map_err(|_| KernelError::Nvrtc { call: "nvrtcCreateProgram", message })
}

/// The library that the compiler opens by name, in the compiler's own folder.
fn builtins_beside(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    names.filter(|path| is_builtins(path)).min()
}

fn is_builtins(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(BUILTINS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_no_compiler_is_not_called() {
        let error = Nvrtc::open(Path::new("libc.so.6")).unwrap_err().to_string();
        assert!(error.contains("libc.so.6 does not load"), "{error}");
        assert!(error.contains("undefined symbol: nvrtcVersion"), "{error}");
    }

    #[test]
    fn the_builtins_are_found_beside_the_compiler_and_not_their_variants() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libnvrtc.so.13", "libnvrtc-builtins.alt.so.13.0", "libnvrtc-builtins.so.13.0"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = builtins_beside(&folder.path().join(LIBRARY)).unwrap();
        assert!(found.ends_with("libnvrtc-builtins.so.13.0"), "{found:?}");
        assert_eq!(builtins_beside(Path::new(LIBRARY)), None);
    }
}
