//! What the device itself must do: multiply, copy, sum, attend.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use catlip_pipeline::feed::slot::{SlotBuffer, SlotError};
use tch::{Device, Kind, TchError, Tensor};

use super::{On, Outcome, Scale, all, torch, within};
use crate::batch::{DeviceBatch, HostRows};
use crate::check;
use crate::error::TrainError;
use crate::kernels::Kernels;
use crate::page_lock;
use crate::shim::c10d::{Link, NcclLibrary, Reduction, Seat};
use crate::shim::ops::{self, AttentionBackend};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);
/// Relative error of sums of some hundred products in float32.
const FLOAT32_BOUND: f64 = 1e-5;
/// The same of operands in bfloat16, which has 8 bits of significand, also inside attention.
const BFLOAT16_BOUND: f64 = 1.5e-2;
/// Bytes of the batch that is copied: enough to see the speed of the bus.
const COPIED_BYTES: [usize; 2] = [1 << 20, 1 << 28];

/// ‖found − expected‖ ÷ ‖expected‖, both taken to the CPU in float64.
pub(super) fn relative(found: &Tensor, expected: &Tensor) -> Result<f64, TchError> {
    let [found, expected] = [found, expected]
        .map(|tensor| tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double));
    let (found, expected) = (found?, expected?);
    found.f_sub(&expected)?.f_norm()?.f_div(&expected.f_norm()?)?.f_double_value(&[])
}

/// Normal draws on the CPU, the same whenever this is called.
pub(super) fn normal(seed: i64, size: &[i64]) -> Result<Tensor, TchError> {
    tch::manual_seed(seed);
    Tensor::f_randn(size, CPU)
}

pub(super) fn product(On { device, .. }: On) -> Result<Outcome, TrainError> {
    let off = || {
        let (a, b) = (normal(1, &[257, 129])?, normal(2, &[129, 65])?);
        let expected = a.f_to_kind(Kind::Double)?.f_matmul(&b.f_to_kind(Kind::Double)?)?;
        let found = a.f_to_device(device)?.f_matmul(&b.f_to_device(device)?)?;
        relative(&found, &expected)
    };
    Ok(within("relative error", off().map_err(torch)?, FLOAT32_BOUND))
}

pub(super) fn page_lock(On { device, scale, .. }: On) -> Result<Outcome, TrainError> {
    let lock = match page_lock::of_device(device) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(Outcome::Skipped("the CPU needs no locked pages".into())),
        Err(reason) => return Ok(Outcome::Failed(reason)),
    };
    let bytes = COPIED_BYTES[usize::from(scale == Scale::Full)];
    if let Err(SlotError::Memory(reason) | SlotError::Lock(reason)) =
        SlotBuffer::new(1, bytes, Some(&*lock))
    {
        return Ok(Outcome::Failed(reason));
    }
    let copied = || {
        let random = Tensor::f_randint(256, [bytes as i64], (Kind::Uint8, Device::Cpu))?;
        let pinned = random.f_pin_memory(device)?;
        let rate = |host: &Tensor| -> Result<f64, TchError> {
            // The first copy takes the memory.
            let arrived = host.f_to_device(device)?;
            let start = Instant::now();
            _ = host.f_to_device(device)?.f_get(0)?.f_int64_value(&[])?;
            let secs = start.elapsed().as_secs_f64();
            match arrived.f_to_device(Device::Cpu)?.f_equal(&random)? {
                true => Ok(bytes as f64 / secs / 1e9),
                false => Err(TchError::Torch("other bytes arrived".to_owned())),
            }
        };
        Ok::<_, TchError>([rate(&pinned)?, rate(&random)?])
    };
    let [locked, free] = copied().map_err(torch)?;
    Ok(Outcome::Ok(format!("{locked:.1} GB/s from locked pages, {free:.1} from others")))
}

pub(super) fn pixels(On { device, .. }: On) -> Result<Outcome, TrainError> {
    let images: Vec<u8> = (0..3 * 9 * 7 * 3_usize).map(|i| (i * 37 % 256) as u8).collect();
    let rows = HostRows {
        images_bhwc: &images,
        height_px: 9,
        width_px: 7,
        offsets: &[0, 2, 2, 3],
        label_ids: &[4, 0, 1],
        weights: &[1.0, 0.0, 1.0],
    };
    let off = || {
        let here = DeviceBatch::from_rows(&rows, device)?;
        let there = DeviceBatch::from_rows(&rows, Device::Cpu)?;
        let labels = here.targets.labels_k.f_to_device(Device::Cpu)?;
        if !labels.f_equal(&there.targets.labels_k)? {
            return Err(TchError::Torch("labels arrived as others".to_owned()));
        }
        relative(&here.unit_images()?, &there.unit_images()?)
    };
    Ok(within("relative error", off().map_err(torch)?, 1e-6))
}

pub(super) fn nccl(On { device, .. }: On) -> Result<Outcome, TrainError> {
    let Device::Cuda(number) = device else {
        return Ok(Outcome::Skipped("NCCL sums on CUDA devices only".into()));
    };
    let library = match NcclLibrary::open() {
        Ok(library) => library,
        Err(reason) => return Ok(Outcome::Skipped(reason)),
    };
    let summed = || {
        // A port that is free now; nobody else on this machine hears of it.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(|error| error.to_string())?.port();
        let timeout = Duration::from_secs(60);
        let seat = Seat {
            host: "127.0.0.1",
            port,
            is_server: true,
            rank: 0,
            size: 1,
            prefix: "catlip/selftest",
            address: "",
            timeout,
        };
        let link = Link::open(&seat)?;
        link.add_device(&library, [0, 1], number, timeout)?;
        let expected = normal(3, &[1000]).map_err(|error| error.to_string())?;
        let tensor = expected.f_to_device(device).map_err(|error| error.to_string())?;
        link.reduce(&tensor, Reduction::Sum)?.wait()?;
        let found = tensor.f_to_device(Device::Cpu).map_err(|error| error.to_string())?;
        found.f_equal(&expected).map_err(|error| error.to_string())
    };
    Ok(match summed() {
        Ok(true) => Outcome::Ok("1000 numbers, the same bits".into()),
        Ok(false) => Outcome::Failed("other numbers came back".into()),
        Err(reason) => Outcome::Failed(reason),
    })
}

pub(super) fn attention(On { device, .. }: On) -> Result<Outcome, TrainError> {
    let backends: &[AttentionBackend] = match device {
        Device::Cuda(_) => {
            &[AttentionBackend::Cudnn, AttentionBackend::Flash, AttentionBackend::Efficient]
        }
        _ => &[AttentionBackend::Cpu],
    };
    let mut outcomes = Vec::new();
    for (kind, bound) in [(Kind::BFloat16, BFLOAT16_BOUND), (Kind::Float, FLOAT32_BOUND)] {
        for &backend in backends {
            let name = format!("{backend:?} in {kind:?} off by");
            outcomes.push(match attend(backend, device, kind) {
                Ok(off) => within(&name, off, bound),
                Err(error) => {
                    let reason = error.to_string();
                    let first = reason.lines().next().unwrap_or_default();
                    Outcome::Skipped(format!("{backend:?} does not take {kind:?}: {first}"))
                }
            });
        }
    }
    Ok(all(outcomes))
}

pub(super) fn kernels(on: On) -> Result<Outcome, TrainError> {
    if on.device == Device::Cpu {
        let why = "they run on CUDA devices; on the CPU the tests of the crate emulate them";
        return Ok(Outcome::Skipped(why.into()));
    }
    let kernels = match Kernels::open(on.device, on.kernel_cache) {
        Ok(kernels) => kernels,
        Err(error) => return Ok(Outcome::Failed(error.to_string())),
    };
    let checks = check::of_kernels(&kernels, on.device).map_err(torch)?;
    let bad: Vec<_> = checks.iter().filter(|check| !check.is_good()).collect();
    Ok(match bad.first() {
        None => Outcome::Ok(format!("{} comparisons", checks.len())),
        Some(first) => {
            Outcome::Failed(format!("{} of {}, the first: {first}", bad.len(), checks.len()))
        }
    })
}

/// The largest relative error of what attention gives and of its three gradients.
fn attend(backend: AttentionBackend, device: Device, kind: Kind) -> Result<f64, TchError> {
    let size = [3_i64, 2, 37, 64];
    // As a block cuts them: parts of one tensor, tokens outside of heads. Rounded first, so that
    // the reference sees the same operands.
    let parts = normal(4, &[size[0], size[2], 3, size[1], size[3]])?.f_to_kind(kind)?;
    let cut = |tensor: &Tensor| tensor.f_permute([2, 0, 3, 1, 4])?.f_unbind(0);
    let gradient = normal(5, &[size[0], size[2], size[1], size[3]])?.f_to_kind(kind)?;

    let leaves: Vec<Tensor> = cut(&parts)?
        .iter()
        .map(|part| part.f_to_kind(Kind::Double)?.f_detach()?.f_set_requires_grad(true))
        .collect::<Result<_, _>>()?;
    let scores = leaves[0].f_matmul(&leaves[1].f_transpose(2, 3)?)?;
    let shares = scores.f_mul_scalar((size[3] as f64).powf(-0.5))?.f_softmax(-1, Kind::Double)?;
    let mixed = shares.f_matmul(&leaves[2])?;
    let pulled = gradient.f_to_kind(Kind::Double)?.f_transpose(1, 2)?;
    mixed.f_mul(&pulled)?.f_sum(Kind::Double)?.f_backward()?;

    let on_device = cut(&parts.f_to_device(device)?)?;
    let [query, key, value] = [0, 1, 2].map(|part: usize| &on_device[part]);
    let (found, kept) = ops::attention(backend, [query, key, value])?;
    let gradients = kept.back(&gradient.f_to_device(device)?.f_transpose(1, 2)?)?;
    let mut off = relative(&found, &mixed)?;
    for (found, leaf) in gradients.iter().zip(&leaves) {
        let of_part = relative(found, &leaf.f_grad()?)?;
        // `max` would drop a NaN.
        off = if of_part > off || of_part.is_nan() { of_part } else { off };
    }
    Ok(off)
}
