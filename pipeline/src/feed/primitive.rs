//! What the lock-free parts of the feed are written over: std, or loom's doubles under `cfg(loom)`.
//!
//! `pipeline/loom` compiles [`super::ring`] and [`super::queue`] a second time over loom, which
//! runs their threads in every order that the memory model allows.

#[cfg(loom)]
pub use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex},
};
#[cfg(not(loom))]
pub use std::sync::{
    Condvar, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering, fence},
};

/// A cell with the face of loom's, which watches who reads and who writes.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Hands a pointer for writing to `work`.
    pub fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
        work(self.0.get())
    }
}
