//! Which back end computes attention on a device.
//!
//! In: the device, and the shape of a batch. Out: the fastest back end that takes it, found by a
//! trial of at most a second, and what was measured. Never: tries anything on the CPU, which has
//! one.
//!
//! b images, a heads, t tokens, k width of a head.

use std::fmt;
use std::time::{Duration, Instant};

use tch::{Device, Kind, TchError, Tensor};

use super::Precision;
use crate::shim::ops::{self, AttentionBackend};

/// How long each back end is tried.
const TRIAL: Duration = Duration::from_millis(300);
/// Ways there and back before the clock starts.
const WARM_UP: u32 = 3;

/// What was chosen, and by which times.
#[derive(Clone, Debug)]
pub struct AttentionChoice {
    /// The fastest; none takes these tensors: blocks are then passed by autograd.
    pub backend: Option<AttentionBackend>,
    /// Seconds there and back, or why a back end does not take these tensors.
    pub tried: Vec<(AttentionBackend, Result<f64, String>)>,
}

impl AttentionChoice {
    /// The one that the CPU has.
    pub const CPU: Self = Self { backend: Some(AttentionBackend::Cpu), tried: Vec::new() };

    /// Tries the back ends of `device` on `[b, a, t, k]` with so many queries of the `t` tokens;
    /// with `is_deterministic` only those that can give the same bits in every run.
    pub fn find(
        device: Device,
        shape_batk: [i64; 4],
        queries: i64,
        precision: Precision,
        is_deterministic: bool,
    ) -> Self {
        let Device::Cuda(_) = device else { return Self::CPU };
        let mut backends =
            vec![AttentionBackend::Flash, AttentionBackend::Efficient, AttentionBackend::Cudnn];
        if is_deterministic || queries == 1 {
            // The way back of cuDNN adds in the order in which its blocks come to it, and with one
            // query versions of it are known to give what is no number.
            backends.retain(|backend| *backend != AttentionBackend::Cudnn);
        }
        let tried: Vec<_> = backends
            .into_iter()
            .map(|backend| (backend, try_one(backend, device, shape_batk, queries, precision)))
            .map(|(backend, secs)| (backend, secs.map_err(|error| first_line(&error))))
            .collect();
        let timed =
            tried.iter().filter_map(|(backend, secs)| Some((*backend, *secs.as_ref().ok()?)));
        let backend = timed.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(backend, _)| backend);
        Self { backend, tried }
    }
}

impl fmt::Display for AttentionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.backend {
            Some(backend) => write!(f, "attention by {backend:?}")?,
            None => write!(f, "attention by autograd, since no back end takes it by hand")?,
        }
        for (at, (backend, outcome)) in self.tried.iter().enumerate() {
            let sign = if at == 0 { ": " } else { ", " };
            match outcome {
                Ok(secs) => write!(f, "{sign}{backend:?} {:.0} µs", secs * 1e6)?,
                Err(reason) => write!(f, "{sign}{backend:?} not: {reason}")?,
            }
        }
        Ok(())
    }
}

fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Seconds there and back.
fn try_one(
    backend: AttentionBackend,
    device: Device,
    [b, a, t, k]: [i64; 4],
    queries: i64,
    precision: Precision,
) -> Result<f64, TchError> {
    let kind = if precision == Precision::BFloat16 { Kind::BFloat16 } else { Kind::Float };
    // As the block cuts them: parts of one tensor, tokens outside of heads.
    let parts = Tensor::f_randn([b, t, 3, a, k], (kind, device))?.f_permute([2, 0, 3, 1, 4])?;
    let parts = parts.f_unbind(0)?;
    let outside = || Tensor::f_randn([b, queries, a, k], (kind, device))?.f_transpose(1, 2);
    let query = if queries == t { parts[0].shallow_clone() } else { outside()? };
    let gradient = outside()?;
    let once = || {
        let (_, kept) = ops::attention(backend, [&query, &parts[1], &parts[2]])?;
        kept.back(&gradient).map(|[of_query, ..]| of_query)
    };
    // Reading a number waits for the device.
    let wait = |last: &Tensor| last.f_double_value(&[0, 0, 0, 0]);
    for _ in 0..WARM_UP {
        wait(&once()?)?;
    }
    let (start, mut times) = (Instant::now(), 0);
    while times == 0 || start.elapsed() < TRIAL {
        wait(&once()?)?;
        times += 1;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_one_back_end_whose_time_a_trial_would_tell() {
        let shape = [2, 3, 17, 8];
        let choice = AttentionChoice::find(Device::Cpu, shape, 17, Precision::Float32, true);
        assert_eq!(choice.backend, Some(AttentionBackend::Cpu));
        assert_eq!(choice.to_string(), "attention by Cpu");
        for precision in [Precision::Float32, Precision::BFloat16] {
            for queries in [17, 1] {
                let secs = try_one(AttentionBackend::Cpu, Device::Cpu, shape, queries, precision);
                assert!(secs.unwrap() > 0.0);
            }
        }
    }

    #[test]
    fn a_back_end_that_is_not_there_says_so() {
        let of = |precision| {
            let tried = try_one(AttentionBackend::Cudnn, Device::Cpu, [1, 1, 4, 8], 4, precision);
            first_line(&tried.unwrap_err())
        };
        let reason = of(Precision::BFloat16);
        assert!(reason.contains("cudnn") || reason.contains("backend"), "{reason}");
        let reason = of(Precision::Float32);
        assert!(reason.contains("takes numbers of 16 bits, not Float"), "{reason}");
    }
}
