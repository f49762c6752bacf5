//! The C surface of `c10d.cpp`, behind types that cannot be used wrongly.
//!
//! In: tensors, and handles that these types own. Out: results with the shim's reasons. Never: a
//! handle that is used after it was freed, or by two threads at once.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::ptr;
use std::time::Duration;

use libloading::os::unix::RTLD_NOW;
use tch::Tensor;

use super::{Reason, Refusal, asked, raw};
use crate::device::{function, open_for_ever};

/// How the numbers of the ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// Where and as whom a process joins.
#[derive(Clone, Debug)]
pub struct Seat<'s> {
    /// Host of the store.
    pub host: &'s str,
    /// Its port.
    pub port: u16,
    /// Whether this process keeps the store.
    pub is_server: bool,
    /// Which process this is.
    pub rank: u32,
    /// Of how many.
    pub size: u32,
    /// Before every key, so that an earlier start is not taken for this one.
    pub prefix: &'s str,
    /// Own address or network interface; empty: found by itself.
    pub address: &'s str,
    /// After which a collective gives up.
    pub timeout: Duration,
}

unsafe extern "C" {
    fn catlip_world_open(
        host: *const c_char,
        port: u16,
        is_server: c_int,
        rank: c_int,
        size: c_int,
        prefix: *const c_char,
        address: *const c_char,
        timeout_millis: i64,
        out: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_world_add_device(
        world: *mut c_void,
        open_nccl: *mut c_void,
        rank: c_int,
        size: c_int,
        device: c_int,
        timeout_millis: i64,
        reason: Reason,
    ) -> c_int;
    fn catlip_world_leave(world: *mut c_void, reason: Reason) -> c_int;
    fn catlip_world_close(world: *mut c_void);
    fn catlip_reduce(
        world: *mut c_void,
        tensor: *mut c_void,
        op: c_int,
        out: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_gather(
        world: *mut c_void,
        whole: *mut c_void,
        part: *mut c_void,
        out: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_scatter(
        world: *mut c_void,
        part: *mut c_void,
        whole: *mut c_void,
        out: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_broadcast(
        world: *mut c_void,
        tensor: *mut c_void,
        root: c_int,
        out: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_wait(pending: *mut c_void, reason: Reason) -> c_int;
    fn catlip_store_set(
        world: *mut c_void,
        key: *const c_char,
        value: *const c_char,
        reason: Reason,
    ) -> c_int;
    fn catlip_store_has(
        world: *mut c_void,
        key: *const c_char,
        out: *mut c_int,
        reason: Reason,
    ) -> c_int;
    fn catlip_buckets_attach(
        world: *mut c_void,
        stretches: *const *mut c_void,
        num_stretches: usize,
        leaves: *const *mut c_void,
        bucket_of: *const i64,
        num_leaves: usize,
        out: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_buckets_begin(buckets: *mut c_void);
    fn catlip_buckets_arrived(buckets: *mut c_void, bucket: i64, reason: Reason) -> c_int;
    fn catlip_buckets_finish(buckets: *mut c_void, reason: Reason) -> c_int;
    fn catlip_buckets_free(buckets: *mut c_void);
}

fn c_text(text: &str) -> Result<CString, Refusal> {
    CString::new(text).map_err(|_| format!("`{}` has a zero byte", text.escape_default()))
}

/// A seat that is taken: a store, and a group over Gloo.
pub struct Link(*mut c_void);

// SAFETY: c10d's store and group belong to no thread; a `Link` is not `Sync`, so one thread at a
// time has it.
unsafe impl Send for Link {}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `catlip_world_open` and is freed here only.
        unsafe { catlip_world_close(self.0) }
    }
}

impl Link {
    /// Takes a seat; waits until all have theirs, or for the timeout.
    ///
    /// # Errors
    ///
    /// What c10d says.
    pub fn open(seat: &Seat<'_>) -> Result<Self, Refusal> {
        let [host, prefix, address] = [seat.host, seat.prefix, seat.address].map(c_text);
        let (host, prefix, address) = (host?, prefix?, address?);
        let mut out = ptr::null_mut();
        // SAFETY: three texts that end in zero and outlive the call, and a place for the handle.
        asked(|reason| unsafe {
            catlip_world_open(
                host.as_ptr(),
                seat.port,
                seat.is_server.into(),
                seat.rank as c_int,
                seat.size as c_int,
                prefix.as_ptr(),
                address.as_ptr(),
                seat.timeout.as_millis() as i64,
                &mut out,
                reason,
            )
        })?;
        Ok(Self(out))
    }

    /// Opens a second group, over NCCL, for tensors of a CUDA device.
    ///
    /// # Errors
    ///
    /// Why it is not there: see [`NcclLibrary`]; what c10d says.
    pub fn add_device(
        &self,
        library: &NcclLibrary,
        seat: [u32; 2],
        device: usize,
        timeout: Duration,
    ) -> Result<(), Refusal> {
        let [rank, size] = seat.map(|number| number as c_int);
        let device = c_int::try_from(device).map_err(|error| error.to_string())?;
        // SAFETY: our handle, and the function of that signature which `nccl.cpp` has.
        asked(|reason| unsafe {
            let millis = timeout.as_millis() as i64;
            catlip_world_add_device(self.0, library.open, rank, size, device, millis, reason)
        })
    }

    /// Closes the connections, so that the others see it; the store stays. No collective after it.
    /// Waits for nothing that is under way.
    ///
    /// # Errors
    ///
    /// What c10d says.
    pub fn leave(&self) -> Result<(), Refusal> {
        // SAFETY: our handle.
        asked(|reason| unsafe { catlip_world_leave(self.0, reason) })
    }

    /// Begins to reduce `tensor` in place.
    ///
    /// # Errors
    ///
    /// What c10d says.
    pub fn reduce(&self, tensor: &Tensor, by: Reduction) -> Result<Pending, Refusal> {
        let op = c_int::from(by == Reduction::Max);
        // SAFETY: our handle and a tensor, of which the shim takes a reference of its own.
        Pending::begin(|out, reason| unsafe { catlip_reduce(self.0, raw(tensor), op, out, reason) })
    }

    /// Begins to put the `part` of each rank into `whole`.
    ///
    /// # Errors
    ///
    /// What c10d says.
    pub fn gather(&self, whole: &Tensor, part: &Tensor) -> Result<Pending, Refusal> {
        // SAFETY: as in `reduce`.
        Pending::begin(|out, reason| unsafe {
            catlip_gather(self.0, raw(whole), raw(part), out, reason)
        })
    }

    /// Begins to sum `whole`, of which each rank gets its `part`.
    ///
    /// # Errors
    ///
    /// What c10d says.
    pub fn scatter(&self, part: &Tensor, whole: &Tensor) -> Result<Pending, Refusal> {
        // SAFETY: as in `reduce`.
        Pending::begin(|out, reason| unsafe {
            catlip_scatter(self.0, raw(part), raw(whole), out, reason)
        })
    }

    /// Begins to give every rank the `tensor` of `root`.
    ///
    /// # Errors
    ///
    /// What c10d says.
    pub fn broadcast(&self, tensor: &Tensor, root: u32) -> Result<Pending, Refusal> {
        // SAFETY: as in `reduce`.
        Pending::begin(|out, reason| unsafe {
            catlip_broadcast(self.0, raw(tensor), root as c_int, out, reason)
        })
    }

    /// Puts a value into the store.
    ///
    /// # Errors
    ///
    /// What c10d says.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Refusal> {
        let (key, value) = (c_text(key)?, c_text(value)?);
        // SAFETY: our handle and two texts that end in zero.
        asked(|reason| unsafe { catlip_store_set(self.0, key.as_ptr(), value.as_ptr(), reason) })
    }

    /// Whether the store has a key.
    ///
    /// # Errors
    ///
    /// What c10d says, such as that the store is gone.
    pub fn has(&self, key: &str) -> Result<bool, Refusal> {
        let key = c_text(key)?;
        let mut out = 0;
        // SAFETY: our handle, a text that ends in zero, and a place for the answer.
        asked(|reason| unsafe { catlip_store_has(self.0, key.as_ptr(), &mut out, reason) })?;
        Ok(out != 0)
    }

    /// Sums `stretches` of a gradient during each backward pass: see [`Buckets`]. Leaf `i` lies in
    /// stretch `bucket_of[i]`.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    ///
    /// # Panics
    ///
    /// If the leaves and their numbers differ in length.
    pub fn buckets(
        &self,
        stretches: &[Tensor],
        leaves: &[&Tensor],
        bucket_of: &[i64],
    ) -> Result<Buckets, Refusal> {
        assert_eq!(leaves.len(), bucket_of.len(), "each leaf lies in a stretch");
        let stretches: Vec<_> = stretches.iter().map(raw).collect();
        let leaves: Vec<_> = leaves.iter().map(|leaf| raw(leaf)).collect();
        let mut out = ptr::null_mut();
        // SAFETY: arrays with their lengths, of tensors of which the shim takes references.
        asked(|reason| unsafe {
            catlip_buckets_attach(
                self.0,
                stretches.as_ptr(),
                stretches.len(),
                leaves.as_ptr(),
                bucket_of.as_ptr(),
                leaves.len(),
                &mut out,
                reason,
            )
        })?;
        Ok(Buckets(out))
    }
}

/// `nccl.cpp` as a library, which is opened where libtorch's CUDA half was, and never closed.
#[derive(Clone, Copy, Debug)]
pub struct NcclLibrary {
    open: *mut c_void,
}

impl NcclLibrary {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// That this program was built without it; that there is no room for it; what the loader says.
    pub fn open() -> Result<Self, Refusal> {
        let mut file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        file.write_all(nccl_library()?).map_err(|error| error.to_string())?;
        // SAFETY: its initialisers are those of a C++ file that has no objects of its own, and the
        // symbol is a function, of whose type only the C++ half makes use.
        unsafe {
            let library = open_for_ever(file.path(), RTLD_NOW)?;
            Ok(Self { open: function(library, b"catlip_nccl_open\0")? })
        }
    }
}

/// The bytes of the library that the build made of `nccl.cpp`.
#[cfg(catlip_nccl)]
fn nccl_library() -> Result<&'static [u8], Refusal> {
    Ok(include_bytes!(concat!(env!("OUT_DIR"), "/libcatlip_nccl.so")))
}

#[cfg(not(catlip_nccl))]
fn nccl_library() -> Result<&'static [u8], Refusal> {
    Err("this program was built without NCCL's headers: `scripts/setup.sh --gpu`".to_owned())
}

/// A collective under way.
#[must_use = "its tensors are whole only after `wait`"]
pub struct Pending(*mut c_void);

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

impl Pending {
    fn begin(call: impl FnOnce(*mut *mut c_void, Reason) -> c_int) -> Result<Self, Refusal> {
        let mut out = ptr::null_mut();
        asked(|reason| call(&mut out, reason))?;
        Ok(Self(out))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// What c10d says: that a rank is gone, or that it took longer than the timeout.
    pub fn wait(mut self) -> Result<(), Refusal> {
        let pending = std::mem::replace(&mut self.0, ptr::null_mut());
        // SAFETY: the handle of a collective, given up here.
        asked(|reason| unsafe { catlip_wait(pending, reason) })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // Its tensors may not go before it ends; how it ends interests nobody any more.
            // SAFETY: as in `wait`, which did not take it.
            _ = asked(|reason| unsafe { catlip_wait(self.0, reason) });
        }
    }
}

/// Stretches of a gradient that are summed while the backward pass goes on. Must be dropped before
/// the [`Link`] that made it; the owner of both keeps that order.
pub struct Buckets(*mut c_void);

// SAFETY: as for `Link`.
unsafe impl Send for Buckets {}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buckets")
    }
}

impl Buckets {
    /// Awaits the next backward pass.
    pub fn begin(&self) {
        // SAFETY: our handle; no backward pass runs.
        unsafe { catlip_buckets_begin(self.0) }
    }

    /// Says that a leaf of stretch `bucket` has its gradient, which no graph gave it. What goes
    /// wrong then is told by [`Self::finish`].
    pub fn arrived(&self, bucket: i64) {
        // SAFETY: our handle, and a number that it was made with.
        _ = asked(|reason| unsafe { catlip_buckets_arrived(self.0, bucket, reason) });
    }

    /// Begins the sums that the backward pass did not, and waits for all.
    ///
    /// # Errors
    ///
    /// What c10d says.
    pub fn finish(&self) -> Result<(), Refusal> {
        // SAFETY: our handle; the backward pass is over.
        asked(|reason| unsafe { catlip_buckets_finish(self.0, reason) })
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `catlip_buckets_attach` and is freed here only.
        unsafe { catlip_buckets_free(self.0) }
    }
}

/// Whether a host is this one, so that the loopback interface reaches all ranks.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || format!("{host}:0").parse::<SocketAddr>().is_ok_and(|at| at.ip().is_loopback())
}
