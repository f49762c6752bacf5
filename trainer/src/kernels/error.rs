//! Why the kernels cannot run. Facts only.

use std::path::PathBuf;

use tch::TchError;

/// Why the kernels cannot run.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The device is the CPU, or another one that has no kernels.
    #[error("kernels are for CUDA devices only")]
    NotCuda,
    /// A library does not load.
    #[error("{} does not load: {message}", .library.display())]
    Library {
        /// Its file, or its name where the loader looked for it.
        library: PathBuf,
        /// What the loader says.
        message: String,
    },
    /// NVRTC refuses a call.
    #[error("NVRTC answers {call} with {message}")]
    Nvrtc {
        /// Its function.
        call: &'static str,
        /// What it says.
        message: String,
    },
    /// A kernel file does not compile.
    #[error("{file} does not compile for {architecture}: {log}")]
    Compile {
        /// Its name.
        file: &'static str,
        /// Such as `sm_90`.
        architecture: String,
        /// What the compiler says.
        log: String,
    },
    /// The driver refuses a call.
    #[error("the driver answers {call} for {of} with {code}, {message}")]
    Driver {
        /// Its function.
        call: &'static str,
        /// The kernel or file.
        of: String,
        /// Its `CUresult`.
        code: i32,
        /// What it says.
        message: String,
    },
    /// No kernel has this name.
    #[error("no kernel is called {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// libtorch does not say on which stream it is.
    #[error("libtorch does not say which stream of device {ordinal} is its own: code {code}")]
    Stream {
        /// The device.
        ordinal: usize,
        /// Its answer.
        code: i32,
    },
    /// On this device they do not give what ATen and autograd give.
    #[error("they are wrong here in {bad} of {all} comparisons with autograd, the first: {first}")]
    Wrong {
        /// Comparisons that were not good.
        bad: usize,
        /// Comparisons.
        all: usize,
        /// The first that was not.
        first: String,
    },
    /// The trial of them ended in an error.
    #[error("trying them ended in an error: {message}")]
    Trial {
        /// What libtorch or the driver says.
        message: String,
    },
    /// The emulation says what is wrong with a launch; tests only.
    #[error("emulated: {0}")]
    Emulated(String),
}

impl KernelError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotCuda => "run with `train.by_hand=\"never\"`, or with runtime.device=cuda",
            Self::Library { .. } => {
                "install libtorch's CUDA packages whole (`pip install nvidia-cuda-nvrtc` beside \
                 torch), or run with `train.by_hand=\"never\"`"
            }
            Self::Nvrtc { .. } | Self::Compile { .. } => {
                "is this NVRTC older than the card? report the message, and run with \
                 `train.by_hand=\"never\"` until then"
            }
            Self::Driver { .. } | Self::Stream { .. } => {
                "is the driver older than libtorch's CUDA? run with `train.by_hand=\"never\"`"
            }
            Self::Wrong { .. } => "report this with what `catlip-train selftest` says",
            Self::Trial { .. } => {
                "run with `train.by_hand=\"never\"`, and report this with what \
                 `catlip-train selftest` says"
            }
            Self::Unknown { .. } | Self::Emulated(_) => "report this",
        }
    }
}

impl From<KernelError> for TchError {
    fn from(error: KernelError) -> Self {
        Self::Torch(format!("{error}; hint: {}", error.hint()))
    }
}
