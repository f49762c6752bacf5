//! Finds the devices of this machine and opens the one that was asked for.
//!
//! In: a [`DeviceChoice`] of the config. Out: a [`DeviceReport`], whose text is the log line that
//! says which devices were found and, where there is no CUDA, why not; and the [`Device`].
//! Never: prints; links CUDA; loads it where no driver or no device is.
//!
//! Our binary links the CPU half of libtorch only, so that it also runs where no CUDA is. The CUDA
//! half is `libtorch_cuda.so`, which registers itself when it is loaded, and which lies beside the
//! loaded `libtorch_cpu.so`. libtorch remembers the answer to the first question about CUDA, so
//! [`find`] must run before anything else asks.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::Device;

/// Most threads of a run: what the largest machines have, far from what an `i32` of libtorch holds.
pub const THREADS_MAX: usize = 4096;

/// Which device a run wants: `auto`, `cpu`, `cuda` (the first) or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first CUDA device, and the CPU where there is none.
    #[default]
    Auto,
    /// The CPU; CUDA is not looked for, which saves a second.
    Cpu,
    /// That CUDA device, or an error.
    Cuda(usize),
}

/// A device that was asked for is unknown or not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No name of a device.
    #[error("device is `{text}`, expected `auto`, `cpu`, `cuda` or `cuda:N`")]
    Unknown {
        /// What was said.
        text: String,
    },
    /// A CUDA device was asked for, and there is none.
    #[error("device `cuda:{index}` was asked for, but there is no CUDA: {reason}")]
    NoCuda {
        /// Which one was asked for.
        index: usize,
        /// Why there is none.
        reason: String,
    },
    /// There are fewer CUDA devices.
    #[error("device `cuda:{index}` was asked for, but the last of {num_devices} is `cuda:{last}`")]
    NoSuchDevice {
        /// Which one was asked for.
        index: usize,
        /// How many there are.
        num_devices: usize,
        /// The last one's number.
        last: usize,
    },
}

/// One CUDA device as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
}

/// What was found of CUDA, or why nothing was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaState {
    /// `cpu` was asked for.
    NotLookedFor,
    /// The driver's library does not load.
    NoDriver {
        /// What the loader says.
        message: String,
    },
    /// The driver is there and refuses a call.
    DriverFailed {
        /// Its function.
        call: &'static str,
        /// Its `CUresult`.
        code: i32,
    },
    /// The driver has no device, or `CUDA_VISIBLE_DEVICES` hides them all.
    NoDevice,
    /// No CUDA half lies beside libtorch's CPU half.
    LibraryAbsent {
        /// Where it was looked for.
        path: PathBuf,
        /// How many devices the driver has.
        num_devices: usize,
    },
    /// The CUDA half does not load.
    LoadFailed {
        /// Its file.
        path: PathBuf,
        /// What the loader says.
        message: String,
    },
    /// The CUDA half is loaded and sees another number of devices, as with a driver too old.
    Disagrees {
        /// How many devices libtorch sees.
        num_seen: usize,
        /// How many devices the driver has.
        num_devices: usize,
    },
    /// These devices are ready, `cuda:0` first.
    Found(Vec<CudaDevice>),
}

/// Which devices were found, and why not, if not. Its text is one line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The CUDA devices; the CPU is always there.
    pub cuda: CudaState,
}

/// Looks for devices and loads what they need. Run it once, before any other question about CUDA.
///
/// Loading the CUDA half takes about a second; without driver or device it is not loaded.
pub fn find(choice: DeviceChoice) -> DeviceReport {
    let cuda = match choice {
        DeviceChoice::Cpu => CudaState::NotLookedFor,
        DeviceChoice::Auto | DeviceChoice::Cuda(_) => find_cuda().unwrap_or_else(|why| why),
    };
    DeviceReport { cuda }
}

/// Sets the threads of libtorch's operations; 0 means one for each core that this process may use.
/// Gives the number that was set, at most [`THREADS_MAX`]. Run it before the first operation: a
/// thread that has already run one keeps the number that it had.
pub fn set_threads(num_threads: usize) -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let num_threads = if num_threads == 0 { cores() } else { num_threads }.min(THREADS_MAX);
    tch::set_num_threads(num_threads as i32);
    num_threads
}

impl DeviceReport {
    /// The device that `choice` means here.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoCuda`] with the reason and [`DeviceError::NoSuchDevice`] with the count, if
    /// a CUDA device was asked for by name; `auto` takes the CPU instead.
    pub fn open(&self, choice: DeviceChoice) -> Result<Device, DeviceError> {
        let num_devices = match &self.cuda {
            CudaState::Found(devices) => devices.len(),
            _ => 0,
        };
        match choice {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto if num_devices == 0 => Ok(Device::Cpu),
            DeviceChoice::Auto => Ok(Device::Cuda(0)),
            DeviceChoice::Cuda(index) if index < num_devices => Ok(Device::Cuda(index)),
            DeviceChoice::Cuda(index) if num_devices == 0 => {
                Err(DeviceError::NoCuda { index, reason: self.cuda.to_string() })
            }
            DeviceChoice::Cuda(index) => {
                Err(DeviceError::NoSuchDevice { index, num_devices, last: num_devices - 1 })
            }
        }
    }
}

impl fmt::Display for DeviceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cuda {
            CudaState::NotLookedFor => write!(f, "devices: cpu"),
            CudaState::Found(_) => write!(f, "devices: cpu, {}", self.cuda),
            _ => write!(f, "devices: cpu; no CUDA: {}", self.cuda),
        }
    }
}

impl fmt::Display for CudaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLookedFor => write!(f, "not looked for, because `cpu` was asked for"),
            Self::NoDriver { message } => write!(f, "no NVIDIA driver ({message})"),
            Self::DriverFailed { call, code } => {
                write!(f, "the NVIDIA driver answers {call} with error {code}")
            }
            Self::NoDevice => write!(f, "the NVIDIA driver shows no device"),
            Self::LibraryAbsent { path, num_devices } => {
                write!(f, "{num_devices} found, but this libtorch has no {}", path.display())
            }
            Self::LoadFailed { path, message } => {
                write!(f, "{} does not load ({message})", path.display())
            }
            Self::Disagrees { num_seen, num_devices } => write!(
                f,
                "libtorch sees {num_seen} of the driver's {num_devices} devices: is the driver \
                 too old for this libtorch?"
            ),
            Self::Found(devices) => {
                for (index, device) in devices.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    let gib = device.memory_bytes as f64 / f64::from(1 << 30);
                    write!(f, "{comma}cuda:{index} ({}, {gib:.1} GiB)", device.name)?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { text: text.to_string() };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let digits = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                let index = digits.parse().ok().filter(|_| is_plain).ok_or_else(unknown)?;
                Ok(Self::Cuda(index))
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Asks the driver first, because it answers at once, then loads libtorch's CUDA half.
fn find_cuda() -> Result<CudaState, CudaState> {
    let devices = ask_driver(Path::new("libcuda.so.1"))?;
    let path = match loaded_path("libtorch_cpu.so") {
        Some(library) => library.with_file_name("libtorch_cuda.so"),
        None => PathBuf::from("libtorch_cuda.so"),
    };
    if !path.exists() {
        return Err(CudaState::LibraryAbsent { path, num_devices: devices.len() });
    }
    load_cuda_half(&path)?;
    let num_seen = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if num_seen != devices.len() {
        return Err(CudaState::Disagrees { num_seen, num_devices: devices.len() });
    }
    Ok(CudaState::Found(devices))
}

/// Loads libtorch's CUDA half with all its symbols.
fn load_cuda_half(path: &Path) -> Result<(), CudaState> {
    // SAFETY: it lies beside the libtorch_cpu.so that is loaded, so both come from one build of
    // libtorch, whose initialisers register kernels with it and ask nothing else of the process.
    match unsafe { open_for_ever(path, RTLD_NOW | RTLD_GLOBAL) } {
        Ok(_) => Ok(()),
        Err(message) => Err(CudaState::LoadFailed { path: path.to_path_buf(), message }),
    }
}

/// Opens a library for this process and for good: pointers to what is in it stay valid. An error
/// is what the loader says.
///
/// # Safety
///
/// Its initialisers run; they must be sound in this process.
pub(crate) unsafe fn open_for_ever(path: &Path, flags: c_int) -> Result<&'static Library, String> {
    // SAFETY: the caller's.
    let library = unsafe { Library::open(Some(path), flags) }.map_err(|error| reason(&error))?;
    Ok(Box::leak(Box::new(library)))
}

/// A function of a library that is never closed. An error is what the loader says.
///
/// # Safety
///
/// `T` is the type of the function that `name`, which ends in a NUL, stands for.
pub(crate) unsafe fn function<T: Copy>(
    library: &'static Library,
    name: &[u8],
) -> Result<T, String> {
    // SAFETY: the caller's.
    unsafe { library.get::<T>(name) }.map(|found| *found).map_err(|error| reason(&error))
}

/// The devices that the driver shows; it obeys `CUDA_VISIBLE_DEVICES` as libtorch does.
fn ask_driver(library: &Path) -> Result<Vec<CudaDevice>, CudaState> {
    /// `CUDA_ERROR_NO_DEVICE`.
    const NO_DEVICE: c_int = 100;
    let driver = Driver::open(library)?;
    // SAFETY: `cuInit` may be called at any time and any number of times; its flags must be 0.
    match unsafe { (driver.init)(0) } {
        NO_DEVICE => return Err(CudaState::NoDevice),
        code => checked("cuInit", code)?,
    }
    let mut num_devices: c_int = 0;
    // SAFETY: after `cuInit`, with a pointer that is valid for one int.
    checked("cuDeviceGetCount", unsafe { (driver.device_get_count)(&mut num_devices) })?;
    if num_devices <= 0 {
        return Err(CudaState::NoDevice);
    }
    (0..num_devices).map(|ordinal| driver.describe(ordinal)).collect()
}

/// The few functions of the driver that say what there is, with their signatures in `cuda.h`.
struct Driver {
    init: unsafe extern "C" fn(c_uint) -> c_int,
    device_get_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    device_get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    device_get_name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    device_total_mem: unsafe extern "C" fn(*mut usize, c_int) -> c_int,
}

impl Driver {
    fn open(path: &Path) -> Result<Self, CudaState> {
        let functions = || {
            // SAFETY: the NVIDIA driver's library; its initialisers ask nothing of the process. The
            // symbols have had these signatures since CUDA 3.2.
            unsafe {
                let library = open_for_ever(path, RTLD_NOW)?;
                Ok(Self {
                    init: function(library, b"cuInit\0")?,
                    device_get_count: function(library, b"cuDeviceGetCount\0")?,
                    device_get: function(library, b"cuDeviceGet\0")?,
                    device_get_name: function(library, b"cuDeviceGetName\0")?,
                    device_total_mem: function(library, b"cuDeviceTotalMem_v2\0")?,
                })
            }
        };
        functions().map_err(|message| CudaState::NoDriver { message })
    }

    fn describe(&self, ordinal: c_int) -> Result<CudaDevice, CudaState> {
        let mut device: c_int = 0;
        // The driver's names have at most 96 bytes; it cuts them at the length that it is told.
        let mut name: [c_char; 256] = [0; 256];
        let mut memory_bytes: usize = 0;
        // SAFETY: after `cuInit`, with an ordinal below the driver's count, pointers that are
        // valid for one int and one size, and a buffer with its length.
        unsafe {
            checked("cuDeviceGet", (self.device_get)(&mut device, ordinal))?;
            let length = name.len() as c_int - 1;
            let code = (self.device_get_name)(name.as_mut_ptr(), length, device);
            checked("cuDeviceGetName", code)?;
            let code = (self.device_total_mem)(&mut memory_bytes, device);
            checked("cuDeviceTotalMem", code)?;
        }
        // SAFETY: the last byte is 0, because the driver was told one less than there is.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(CudaDevice { name, memory_bytes: memory_bytes as u64 })
    }
}

/// Passes the driver's 0 on as success.
fn checked(call: &'static str, code: c_int) -> Result<(), CudaState> {
    if code == 0 { Ok(()) } else { Err(CudaState::DriverFailed { call, code }) }
}

/// What `dlerror` said, without the words that libloading puts before it.
fn reason(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// The real path of the library named `file_name` that is loaded in this process.
pub(crate) fn loaded_path(file_name: &str) -> Option<PathBuf> {
    path_in_maps(&fs::read("/proc/self/maps").ok()?, file_name)
}

/// Finds a file by its name in the text of `/proc/self/maps`, where the path stands last in a line
/// and nothing before it has a slash.
fn path_in_maps(maps: &[u8], file_name: &str) -> Option<PathBuf> {
    maps.split(|&byte| byte == b'\n').find_map(|line| {
        let start = line.iter().position(|&byte| byte == b'/')?;
        let path = Path::new(OsStr::from_bytes(&line[start..]));
        (path.file_name()? == file_name).then(|| path.to_path_buf())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(num_devices: usize) -> DeviceReport {
        let device = CudaDevice { name: "NVIDIA H200".to_string(), memory_bytes: 140 << 30 };
        DeviceReport { cuda: CudaState::Found(vec![device; num_devices]) }
    }

    #[test]
    fn a_choice_reads_back_as_it_is_written() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(3)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
    }

    #[test]
    fn a_word_that_is_no_device_is_refused_with_the_words_that_are() {
        for text in ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda: 1"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            let expected =
                format!("device is `{text}`, expected `auto`, `cpu`, `cuda` or `cuda:N`");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_choice_is_a_string_in_a_config() {
        #[derive(serde::Deserialize)]
        struct Config {
            device: DeviceChoice,
        }
        let config: Config = toml::from_str("device = \"cuda:1\"").unwrap();
        assert_eq!(config.device, DeviceChoice::Cuda(1));
        let error = toml::from_str::<Config>("device = \"tpu\"").err().unwrap().to_string();
        assert!(error.contains("device is `tpu`, expected `auto`"), "{error}");
    }

    #[test]
    fn asking_for_the_cpu_does_not_look_for_cuda() {
        let report = find(DeviceChoice::Cpu);
        assert_eq!(report.cuda, CudaState::NotLookedFor);
        assert_eq!(report.to_string(), "devices: cpu");
        assert_eq!(report.open(DeviceChoice::Cpu), Ok(Device::Cpu));
    }

    #[test]
    fn auto_takes_the_first_cuda_device_and_else_the_cpu() {
        assert_eq!(found(2).open(DeviceChoice::Auto), Ok(Device::Cuda(0)));
        let without = DeviceReport { cuda: CudaState::NoDevice };
        assert_eq!(without.open(DeviceChoice::Auto), Ok(Device::Cpu));
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_with_the_reason() {
        assert_eq!(found(2).open(DeviceChoice::Cuda(1)), Ok(Device::Cuda(1)));
        assert_eq!(
            found(2).open(DeviceChoice::Cuda(2)).unwrap_err().to_string(),
            "device `cuda:2` was asked for, but the last of 2 is `cuda:1`"
        );
        let without = DeviceReport { cuda: CudaState::NoDevice };
        assert_eq!(
            without.open(DeviceChoice::Cuda(0)).unwrap_err().to_string(),
            "device `cuda:0` was asked for, but there is no CUDA: the NVIDIA driver shows no device"
        );
    }

    #[test]
    fn the_report_is_one_line_with_each_device() {
        assert_eq!(
            found(2).to_string(),
            "devices: cpu, cuda:0 (NVIDIA H200, 140.0 GiB), cuda:1 (NVIDIA H200, 140.0 GiB)"
        );
    }

    #[test]
    fn a_machine_without_a_driver_says_what_the_loader_said() {
        let state = ask_driver(Path::new("libcuda-is-not-here.so.1")).unwrap_err();
        let line = DeviceReport { cuda: state }.to_string();
        assert!(line.starts_with("devices: cpu; no CUDA: no NVIDIA driver ("), "{line}");
        assert!(line.contains("libcuda-is-not-here.so.1: cannot open"), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }

    #[test]
    fn a_library_that_is_no_driver_is_not_called() {
        let state = ask_driver(Path::new("libc.so.6")).unwrap_err();
        assert!(state.to_string().contains("undefined symbol: cuInit"), "{state}");
    }

    #[test]
    fn a_cuda_half_that_does_not_load_says_its_path_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libtorch_cuda.so");
        fs::write(&path, "cut").unwrap();
        let state = load_cuda_half(&path).unwrap_err();
        let text = state.to_string();
        assert!(text.starts_with(&format!("{} does not load (", path.display())), "{text}");
        assert!(text.contains("file too short"), "{text}");
    }

    #[test]
    fn a_library_is_found_by_its_whole_name_also_in_a_path_with_spaces() {
        let maps = b"7f00-7f01 r--p 00000000 08:01 42    /a/libtorch_cpu.so.bak\n\
            7f01-7f02 rw-p 00000000 00:00 0     [heap]\n\
            7f02-7f03 r-xp 00000000 08:01 43    /some where/lib/libtorch_cpu.so\n";
        let path = path_in_maps(maps, "libtorch_cpu.so");
        assert_eq!(path, Some(PathBuf::from("/some where/lib/libtorch_cpu.so")));
        assert_eq!(path_in_maps(maps, "libc10.so"), None);
    }

    #[test]
    fn the_loaded_libtorch_is_found_and_is_a_file() {
        assert!(tch::get_num_threads() >= 1, "links libtorch");
        let path = loaded_path("libtorch_cpu.so").unwrap();
        assert!(path.is_file(), "{}", path.display());
    }

    #[test]
    fn zero_threads_means_the_cores_of_this_process() {
        assert_eq!(set_threads(0), thread::available_parallelism().unwrap().get());
        assert_eq!(tch::get_num_threads() as usize, set_threads(0));
    }
}
