//! Kernels loaded into a device and launched by NVIDIA's driver.
//!
//! In: cubins, launches. Out: work on libtorch's own stream. Never: links CUDA; makes a context of
//! its own, libtorch's is the device's primary one; waits for the device.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::RTLD_NOW;

use super::cache::Cubin;
use super::error::KernelError;
use super::stream::signatures;
use super::{Argument, Launch};
use crate::device::{function, loaded_path, open_for_ever};

/// The driver's library.
const LIBRARY: &str = "libcuda.so.1";
/// Arguments of a kernel at most: `pack_heads` has 20.
const ARGUMENTS_MAX: usize = 24;
/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`.
const PROCESSORS: c_int = 16;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];

pub(super) type Context = *mut c_void;
type Function = *mut c_void;
pub(super) type Stream = *mut c_void;

/// The functions of the driver that are called, with their signatures in `cuda.h`, and the one of
/// libtorch that tells its stream.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    init: unsafe extern "C" fn(c_uint) -> c_int,
    device_get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
    retain: unsafe extern "C" fn(*mut Context, c_int) -> c_int,
    pub set_current: unsafe extern "C" fn(Context) -> c_int,
    load: unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int,
    get_function: unsafe extern "C" fn(*mut Function, *mut c_void, *const c_char) -> c_int,
    launch: unsafe extern "C" fn(
        Function,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        Stream,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> c_int,
    error_text: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
    current_stream: unsafe extern "C" fn(i32, *mut Stream) -> i32,
    pub create_stream: signatures::CreateStream,
    pub create_event: signatures::CreateEvent,
    pub record: signatures::Record,
    pub stream_wait: signatures::StreamWait,
    pub event_wait: signatures::EventWait,
    pub copy: signatures::Copy,
    pub alloc_host: signatures::AllocHost,
    pub free_host: signatures::FreeHost,
}

/// The kernels of a device.
pub struct Module {
    calls: Calls,
    ordinal: usize,
    context: Context,
    processors: u32,
    functions: HashMap<&'static str, Function>,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module(cuda:{}, {} kernels)", self.ordinal, self.functions.len())
    }
}

impl Module {
    /// Loads into device `ordinal` what `compiled` makes for its architecture, such as `sm_90`.
    ///
    /// # Errors
    ///
    /// [`KernelError`]: no driver, no CUDA half of libtorch, what `compiled` says, a cubin that the
    /// driver does not take.
    pub(super) fn open(
        ordinal: usize,
        compiled: impl FnOnce(&str) -> Result<Vec<Cubin>, KernelError>,
    ) -> Result<Self, KernelError> {
        let calls = Calls::open()?;
        let (device, context) = calls.primary(ordinal)?;
        let attribute = |attribute| {
            let mut value = 0;
            // SAFETY: after `cuInit`, with room for an int.
            let code = unsafe { (calls.attribute)(&mut value, attribute, device) };
            calls.checked("cuDeviceGetAttribute", &format!("cuda:{ordinal}"), code)?;
            Ok::<_, KernelError>(value)
        };
        let [major, minor] = [attribute(CAPABILITY[0])?, attribute(CAPABILITY[1])?];
        let processors = attribute(PROCESSORS)?.max(1) as u32;
        let mut module = Self { calls, ordinal, context, processors, functions: HashMap::new() };
        for cubin in compiled(&format!("sm_{major}{minor}"))? {
            module.load(&cubin)?;
        }
        Ok(module)
    }

    /// Multiprocessors of the device.
    pub fn processors(&self) -> u32 {
        self.processors
    }

    fn load(&mut self, cubin: &Cubin) -> Result<(), KernelError> {
        let calls = self.calls;
        let mut module = ptr::null_mut();
        // SAFETY: the context is current; the image is a whole cubin, which has its length in its
        // header, and outlives the call.
        let code = unsafe { (calls.load)(&mut module, cubin.cubin.as_ptr().cast()) };
        calls.checked("cuModuleLoadData", cubin.file.name, code)?;
        for &name in cubin.file.kernels {
            let unknown = || KernelError::Unknown { name: name.to_owned() };
            let text = CString::new(name).map_err(|_| unknown())?;
            let mut kernel = ptr::null_mut();
            // SAFETY: a module that was just loaded and stays, a string, room for a function.
            let code = unsafe { (calls.get_function)(&mut kernel, module, text.as_ptr()) };
            calls.checked("cuModuleGetFunction", name, code)?;
            self.functions.insert(name, kernel);
        }
        Ok(())
    }
}

impl Launch for Module {
    unsafe fn launch(
        &self,
        kernel: &str,
        grid: [u32; 2],
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), KernelError> {
        let function = *self
            .functions
            .get(kernel)
            .ok_or_else(|| KernelError::Unknown { name: kernel.to_owned() })?;
        assert!(arguments.len() <= ARGUMENTS_MAX, "{kernel} has {} arguments", arguments.len());
        let mut values = [0_u64; ARGUMENTS_MAX];
        let mut pointers: [*mut c_void; ARGUMENTS_MAX] = [ptr::null_mut(); ARGUMENTS_MAX];
        for ((value, pointer), argument) in values.iter_mut().zip(&mut pointers).zip(arguments) {
            *value = argument.bits();
            *pointer = ptr::from_mut(value).cast();
        }
        let calls = self.calls;
        let stream = calls.stream_of_torch(self.ordinal)?;
        // SAFETY: the context is the one that the function was loaded in; each pointer is at a
        // value of at least the argument's bytes, low ones first; the driver copies them before it
        // returns. What they point at is the caller's promise.
        unsafe {
            calls.checked("cuCtxSetCurrent", kernel, (calls.set_current)(self.context))?;
            let [x, y] = grid;
            let code = (calls.launch)(
                function,
                x,
                y,
                1,
                threads,
                1,
                1,
                0,
                stream,
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            );
            calls.checked("cuLaunchKernel", kernel, code)
        }
    }
}

impl Calls {
    pub(super) fn open() -> Result<Self, KernelError> {
        let torch = loaded_path("libtorch_cuda.so");
        let torch = torch.unwrap_or_else(|| PathBuf::from("libtorch_cuda.so"));
        Self::open_from(Path::new(LIBRARY), &torch)
    }

    fn open_from(driver: &Path, torch: &Path) -> Result<Self, KernelError> {
        let failed = |library: &Path| {
            let library = library.to_path_buf();
            move |message| KernelError::Library { library, message }
        };
        // SAFETY: the driver's library and libtorch's, which are loaded already where a device was
        // found; their initialisers ask nothing of the process. The symbols have had these
        // signatures since CUDA 7.0, the last one since libtorch 2.1.
        unsafe {
            let library = open_for_ever(driver, RTLD_NOW).map_err(failed(driver))?;
            let of_torch = open_for_ever(torch, RTLD_NOW).map_err(failed(torch))?;
            let of_driver = || -> Result<Self, String> {
                Ok(Self {
                    init: function(library, b"cuInit\0")?,
                    device_get: function(library, b"cuDeviceGet\0")?,
                    attribute: function(library, b"cuDeviceGetAttribute\0")?,
                    retain: function(library, b"cuDevicePrimaryCtxRetain\0")?,
                    set_current: function(library, b"cuCtxSetCurrent\0")?,
                    load: function(library, b"cuModuleLoadData\0")?,
                    get_function: function(library, b"cuModuleGetFunction\0")?,
                    launch: function(library, b"cuLaunchKernel\0")?,
                    error_text: function(library, b"cuGetErrorString\0")?,
                    current_stream: function(of_torch, b"aoti_torch_get_current_cuda_stream\0")?,
                    create_stream: function(library, b"cuStreamCreate\0")?,
                    create_event: function(library, b"cuEventCreate\0")?,
                    record: function(library, b"cuEventRecord\0")?,
                    stream_wait: function(library, b"cuStreamWaitEvent\0")?,
                    event_wait: function(library, b"cuEventSynchronize\0")?,
                    copy: function(library, b"cuMemcpyHtoDAsync_v2\0")?,
                    alloc_host: function(library, b"cuMemAllocHost_v2\0")?,
                    free_host: function(library, b"cuMemFreeHost\0")?,
                })
            };
            of_driver().map_err(failed(driver))
        }
    }

    /// Device `ordinal` and its primary context, which libtorch uses too; it is kept for the life
    /// of the process, and current to this thread from here on.
    pub(super) fn primary(&self, ordinal: usize) -> Result<(c_int, Context), KernelError> {
        let of = format!("cuda:{ordinal}");
        let (mut device, mut context) = (0, ptr::null_mut());
        // SAFETY: `cuInit` may be called at any time; the rest after it, with room for what is
        // written.
        unsafe {
            self.checked("cuInit", &of, (self.init)(0))?;
            let number = ordinal as c_int;
            self.checked("cuDeviceGet", &of, (self.device_get)(&mut device, number))?;
            let code = (self.retain)(&mut context, device);
            self.checked("cuDevicePrimaryCtxRetain", &of, code)?;
            self.checked("cuCtxSetCurrent", &of, (self.set_current)(context))?;
        }
        Ok((device, context))
    }

    /// The stream on which libtorch puts the work of this thread.
    pub(super) fn stream_of_torch(&self, ordinal: usize) -> Result<Stream, KernelError> {
        let mut stream = ptr::null_mut();
        // SAFETY: room for a stream.
        let code = unsafe { (self.current_stream)(ordinal as i32, &mut stream) };
        if code != 0 {
            return Err(KernelError::Stream { ordinal, code });
        }
        Ok(stream)
    }

    pub(super) fn checked(
        &self,
        call: &'static str,
        of: &str,
        code: c_int,
    ) -> Result<(), KernelError> {
        if code == 0 {
            return Ok(());
        }
        let mut text: *const c_char = ptr::null();
        // SAFETY: room for a pointer; an unknown code leaves it null or sets it so.
        _ = unsafe { (self.error_text)(code, &mut text) };
        let message = match text.is_null() {
            true => "an error that it does not know".to_owned(),
            // SAFETY: not null, so a constant of the driver's.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        };
        Err(KernelError::Driver { call, of: of.to_owned(), code, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_is_told_so() {
        let error = Calls::open_from(Path::new("libcuda-is-not-here.so.1"), Path::new("libc.so.6"));
        let error = error.err().unwrap();
        assert!(error.to_string().starts_with("libcuda-is-not-here.so.1 does not load"), "{error}");
        assert!(error.hint().contains("train.by_hand"));
    }
}
