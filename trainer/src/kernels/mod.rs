//! Our own CUDA kernels, as functions of tensors.
//!
//! In: tensors on the device. Out: tensors there. Never: waits for the device; checks what a caller
//! inside this crate promises but by assertion; is called on tensors of another device.
//!
//! The text of the kernels stands in `trainer/kernels/*.cu`. NVRTC, which comes with libtorch,
//! compiles it for the device ([`nvrtc`], [`cache`]) and the driver launches it ([`driver`]); the
//! tests run the same text on the CPU through the same functions.

use std::fmt;
use std::path::Path;

use tch::{Device, Kind, TchError, Tensor};

pub mod error;
pub mod cache;
pub mod driver;
pub mod nvrtc;
pub(crate) mod stream;
mod augment;
mod columns;
mod input;
mod loss;
mod norm;
mod source;
mod stem;
mod update;
#[cfg(test)]
pub(crate) mod tests;

pub use augment::NoisyImages;
pub use error::KernelError;
pub use input::Grid;
pub use norm::{NormBack, NormIds, Normed};
pub use source::{FILES, File};
pub use stem::NormalRows;
pub use update::Update;

/// Numbers that a thread works on at once: `EIGHT` in number.h.
const EIGHT: i64 = 8;
/// Bytes on which a wide access starts.
const WIDE_BYTES: usize = 16;
/// Threads of a block where nothing else decides.
const THREADS: u32 = 256;
/// Blocks for each multiprocessor where a kernel walks over its work: enough to hide the memory's
/// latency, few enough that their partial sums cost nothing beside what is summed.
const BLOCKS_PER_PROCESSOR: u32 = 8;

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'t> {
    /// The first number of a tensor.
    Tensor(&'t Tensor),
    /// No tensor.
    Null,
    /// An `Index`.
    Index(i64),
    /// A float.
    Float(f32),
}

impl Argument<'_> {
    /// A tensor or none.
    fn maybe(tensor: Option<&Tensor>) -> Argument<'_> {
        tensor.map_or(Argument::Null, Argument::Tensor)
    }

    /// The eight bytes that the launch reads its value from.
    fn bits(self) -> u64 {
        match self {
            Self::Tensor(tensor) => tensor.data_ptr() as u64,
            Self::Null => 0,
            Self::Index(index) => index as u64,
            Self::Float(float) => u64::from(float.to_bits()),
        }
    }
}

/// What runs kernels.
pub(crate) trait Launch: fmt::Debug {
    /// Puts a kernel behind what its device is already to do.
    ///
    /// # Safety
    ///
    /// The arguments are those of the kernel, in number, order and kind; what they point at is as
    /// long as the kernel reads and writes there, lies on the device and is not freed before all
    /// that was put there before is done.
    unsafe fn launch(
        &self,
        kernel: &str,
        grid: [u32; 2],
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), KernelError>;
}

/// The kernels of one device, ready to be launched.
#[derive(Debug)]
pub struct Kernels {
    launcher: Box<dyn Launch>,
    /// Blocks that a kernel which walks over its work has at most.
    blocks: u32,
}

impl Kernels {
    /// Compiles the kernels for `device`, or takes what was compiled before from the folder
    /// `cache`, and loads them.
    ///
    /// # Errors
    ///
    /// [`KernelError`]: no CUDA device, no NVRTC, no driver, or a text that does not compile.
    pub fn open(device: Device, cache: Option<&Path>) -> Result<Self, KernelError> {
        let Device::Cuda(ordinal) = device else { return Err(KernelError::NotCuda) };
        let module =
            driver::Module::open(ordinal, |architecture| cache::compiled(cache, architecture))?;
        let blocks = module.processors() * BLOCKS_PER_PROCESSOR;
        Ok(Self { launcher: Box::new(module), blocks })
    }

    /// Puts the kernel `name` for numbers of `kind` behind what the device is already to do.
    ///
    /// # Safety
    ///
    /// As of [`Launch::launch`].
    unsafe fn launch_of(
        &self,
        name: &str,
        kind: Kind,
        grid: [u32; 2],
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), TchError> {
        // SAFETY: the caller's.
        unsafe { self.launch(&format!("{name}_{}", suffix(kind)), grid, threads, arguments) }
    }

    /// Puts a kernel behind what the device is already to do.
    ///
    /// # Safety
    ///
    /// As of [`Launch::launch`].
    unsafe fn launch(
        &self,
        kernel: &str,
        grid: [u32; 2],
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), TchError> {
        // An empty grid is an error of the driver, and there is nothing to do.
        if grid.contains(&0) {
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe { self.launcher.launch(kernel, grid, threads, arguments) }.map_err(TchError::from)
    }

    /// Blocks of a kernel that has work for so many.
    fn blocks_for(&self, work: i64) -> u32 {
        work.clamp(0, self.blocks.into()) as u32
    }

    /// Blocks of a kernel whose threads take eight numbers at a time.
    fn blocks_for_numbers(&self, numbers: i64) -> u32 {
        self.blocks_for(ceil(numbers, i64::from(THREADS) * EIGHT))
    }
}

/// The end of a kernel's name.
fn suffix(kind: Kind) -> &'static str {
    assert!(is_known(kind), "kernels know float32 and bfloat16, not {kind:?}");
    if kind == Kind::Float { "f32" } else { "bf16" }
}

/// Whether there are kernels for numbers of `kind`.
fn is_known(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::BFloat16)
}

fn ceil(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

/// Whether rows of `width` numbers that begin at `tensors` can be read eight at a time.
fn is_wide(width: i64, tensors: &[&Tensor]) -> Argument<'static> {
    let starts = |tensor: &&Tensor| (tensor.data_ptr() as usize).is_multiple_of(WIDE_BYTES);
    Argument::Index(i64::from(width % EIGHT == 0 && tensors.iter().all(starts)))
}

/// Asserts that a tensor is dense and as the caller promises: a launch would else read beside it.
#[track_caller]
fn assert_dense(tensor: &Tensor, kind: Kind, numbers: i64) {
    let is_right =
        tensor.kind() == kind && tensor.numel() as i64 == numbers && tensor.is_contiguous();
    assert!(is_right, "{tensor:?} is to be {numbers} dense numbers of {kind:?}");
}
