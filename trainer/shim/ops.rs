//! The C surface of `ops.cpp`: operations of ATen that tch lacks, without a graph.
//!
//! In and out: tensors. Never: keeps a tensor of the caller but in [`Attended`].

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;

use tch::{TchError, Tensor};

use super::{Reason, Refusal, asked, raw};

unsafe extern "C" {
    fn catlip_layer_norm(
        x: *mut c_void,
        weight: *mut c_void,
        bias: *mut c_void,
        eps: f64,
        out3: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_layer_norm_back(
        gradient: *mut c_void,
        x: *mut c_void,
        mean: *mut c_void,
        rstd: *mut c_void,
        weight: *mut c_void,
        bias: *mut c_void,
        out3: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_attention(
        backend: c_int,
        query: *mut c_void,
        key: *mut c_void,
        value: *mut c_void,
        out: *mut *mut c_void,
        kept: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_attention_back(
        kept: *mut c_void,
        gradient: *mut c_void,
        out3: *mut *mut c_void,
        reason: Reason,
    ) -> c_int;
    fn catlip_attention_free(kept: *mut c_void);
    fn catlip_add_product(
        out: *mut c_void,
        a: *mut c_void,
        b: *mut c_void,
        is_direct: c_int,
        reason: Reason,
    ) -> c_int;
    fn catlip_forbid_tf32(reason: Reason) -> c_int;
    fn catlip_set_deterministic(is_wanted: c_int, reason: Reason) -> c_int;
    fn catlip_backward(output: *mut c_void, gradient: *mut c_void, reason: Reason) -> c_int;
}

/// What computes attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBackend {
    /// ATen's flash attention for the CPU.
    Cpu = 0,
    /// cuDNN.
    Cudnn = 1,
    /// FlashAttention.
    Flash = 2,
    /// xFormers' memory-efficient attention.
    Efficient = 3,
}

fn failed(reason: Refusal) -> TchError {
    TchError::Torch(reason)
}

/// Makes a call that gives three tensors.
fn three(call: impl FnOnce(*mut *mut c_void, Reason) -> c_int) -> Result<[Tensor; 3], TchError> {
    let mut out = [ptr::null_mut(); 3];
    asked(|reason| call(out.as_mut_ptr(), reason)).map_err(failed)?;
    // SAFETY: the call succeeded, so each is a tensor that nobody else has.
    Ok(out.map(|tensor| unsafe { Tensor::from_ptr(tensor.cast()) }))
}

/// Normalises the last dimension of `x`: the result, and mean and 1 ÷ deviation of each row.
///
/// # Errors
///
/// What libtorch says.
pub fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<[Tensor; 3], TchError> {
    // SAFETY: tensors that outlive the call, and room for three.
    three(|out, reason| unsafe {
        catlip_layer_norm(raw(x), raw(weight), raw(bias), eps, out, reason)
    })
}

/// The way back of [`layer_norm`]: gradients of `x`, `weight` and `bias`.
///
/// # Errors
///
/// What libtorch says.
pub fn layer_norm_back(
    gradient: &Tensor,
    x: &Tensor,
    [mean, rstd]: [&Tensor; 2],
    weight: &Tensor,
    bias: &Tensor,
) -> Result<[Tensor; 3], TchError> {
    let [x, mean, rstd, weight, bias] = [x, mean, rstd, weight, bias].map(raw);
    // SAFETY: as in `layer_norm`.
    three(|out, reason| unsafe {
        catlip_layer_norm_back(raw(gradient), x, mean, rstd, weight, bias, out, reason)
    })
}

/// What attention keeps for its way back.
pub struct Attended(*mut c_void);

// SAFETY: tensors of ATen, which belong to no thread; an `Attended` is not `Sync`.
unsafe impl Send for Attended {}

impl fmt::Debug for Attended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attended")
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `catlip_attention` and is freed here only.
        unsafe { catlip_attention_free(self.0) }
    }
}

/// Softmax attention without a mask, scaled by 1 ÷ √k, over `[b, a, t, k]`.
///
/// # Errors
///
/// What libtorch says, such as that the back end does not take these tensors.
pub fn attention(
    backend: AttentionBackend,
    [query, key, value]: [&Tensor; 3],
) -> Result<(Tensor, Attended), TchError> {
    let (mut out, mut kept) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: tensors, of which the shim takes references, and places for what it makes.
    asked(|reason| unsafe {
        let [query, key, value] = [query, key, value].map(raw);
        catlip_attention(backend as c_int, query, key, value, &mut out, &mut kept, reason)
    })
    .map_err(failed)?;
    // SAFETY: the call succeeded, so `out` is a tensor that nobody else has.
    Ok((unsafe { Tensor::from_ptr(out.cast()) }, Attended(kept)))
}

/// Adds the product of `a` and `b` to the float32 matrix `out`. With `is_direct` the product of
/// narrower numbers is added as float32; else it is rounded to their kind before.
///
/// # Errors
///
/// What libtorch says; with `is_direct` that this device does not do so.
pub fn add_product(out: &Tensor, a: &Tensor, b: &Tensor, is_direct: bool) -> Result<(), TchError> {
    // SAFETY: tensors that outlive the call.
    asked(|reason| unsafe {
        catlip_add_product(raw(out), raw(a), raw(b), is_direct.into(), reason)
    })
    .map_err(failed)
}

/// Takes float32 as float32: products and convolutions would else be of TF32, with 11 bits, where
/// libtorch pleases.
///
/// # Errors
///
/// What libtorch says.
pub fn forbid_tf32() -> Result<(), TchError> {
    // SAFETY: any time is right.
    asked(|reason| unsafe { catlip_forbid_tf32(reason) }).map_err(failed)
}

/// Says whether operations that give other bits in another run are to be avoided, from here on in
/// this process.
///
/// # Errors
///
/// What libtorch says.
pub fn set_deterministic(is_wanted: bool) -> Result<(), TchError> {
    // SAFETY: any time is right.
    asked(|reason| unsafe { catlip_set_deterministic(is_wanted.into(), reason) }).map_err(failed)
}

/// Goes back through the graph of `output`, whose gradient is `gradient`.
///
/// # Errors
///
/// What libtorch says.
pub fn backward(output: &Tensor, gradient: &Tensor) -> Result<(), TchError> {
    // SAFETY: tensors that outlive the call.
    asked(|reason| unsafe { catlip_backward(raw(output), raw(gradient), reason) }).map_err(failed)
}

impl Attended {
    /// The way back: gradients of queries, keys and values.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn back(&self, gradient: &Tensor) -> Result<[Tensor; 3], TchError> {
        // SAFETY: our handle, a tensor that outlives the call, and room for three.
        three(|out, reason| unsafe { catlip_attention_back(self.0, raw(gradient), out, reason) })
    }
}
