//! Batches on their way to the device, beside the steps.
//!
//! In: batches of the feed, page-locked. Out: a [`DeviceBatch`] that the next step may use at once:
//! its stream waits for the copy, the host does not. Never: copies over what a step still reads;
//! runs more than two steps ahead of the device.
//!
//! ```text
//! host     copy k │ step k │ settle k  │ copy k+1 │ step k+1 │ …
//! copies   [after step k−2] ── copy k ──┘
//! compute  … step k−1 ─────────┤ [after copy k] ── step k ── …
//! ```
//!
//! There are two buffers on the device: while a step reads one, the next batch is copied into the
//! other. Pixels, labels and weights lie behind each other in it.

use std::fmt;
use std::ops::Range;

use catlip_pipeline::feed::HostBatch;
use tch::{Device, Kind, TchError, Tensor};

use crate::batch::{DeviceBatch, HostRows, Place, row_of_each_label};
use crate::kernels::KernelError;
use crate::kernels::stream::CudaTransfer;
use crate::loss::SparseTargets;

/// Buffers on the device.
const LANES: usize = 2;
/// Each part of a buffer starts on a multiple of so many bytes, as libtorch's allocations do.
const ALIGN_BYTES: usize = 512;

/// What copies, and who waits for whom.
pub(crate) trait Transfer: fmt::Debug {
    /// What marks a place in a stream's work.
    type Event: fmt::Debug;
    /// Memory of the host that the device copies by itself.
    type Staging: AsMut<[u8]> + fmt::Debug;

    /// A new mark, at no place yet: to wait for it takes no time.
    fn event(&self) -> Result<Self::Event, KernelError>;
    /// Memory of so many bytes.
    fn staging(&self, bytes: usize) -> Result<Self::Staging, KernelError>;
    /// Marks what the step's stream has to do up to now.
    fn mark_step(&self, event: &Self::Event) -> Result<(), KernelError>;
    /// Marks what the copies' stream has to do up to now.
    fn mark_copies(&self, event: &Self::Event) -> Result<(), KernelError>;
    /// Lets the copies wait for a mark.
    fn hold_copies(&self, event: &Self::Event) -> Result<(), KernelError>;
    /// Lets the step wait for a mark.
    fn hold_step(&self, event: &Self::Event) -> Result<(), KernelError>;
    /// Waits on the host for a mark.
    fn wait(&self, event: &Self::Event) -> Result<(), KernelError>;
    /// Puts a copy behind the copies.
    ///
    /// # Safety
    ///
    /// `from` stays as it is until the copy is done; the tensor is as long behind `at`.
    unsafe fn copy(&self, from: &[u8], to: &Tensor, at: usize) -> Result<(), KernelError>;
}

/// One buffer on the device.
#[derive(Debug)]
struct Lane<T: Transfer> {
    bytes: Tensor,
    /// Labels and weights on their way.
    staging: Option<T::Staging>,
    staging_bytes: usize,
    /// The copies into it are done.
    copied: T::Event,
    /// The step that reads it is done.
    used: T::Event,
}

/// Copies batches by a [`Transfer`].
#[derive(Debug)]
struct Lanes<T: Transfer> {
    transfer: T,
    lanes: Vec<Lane<T>>,
    next: usize,
    device: Device,
}

/// Copies batches to a device.
pub struct Uploads {
    device: Device,
    lanes: Option<Lanes<CudaTransfer>>,
    /// The batch whose copy may not be done.
    host: Option<HostBatch>,
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Uploads {
    /// For batches to `device`. On the CPU there is nothing to be done beside.
    ///
    /// # Errors
    ///
    /// [`KernelError`]: what the driver says.
    pub fn open(device: Device) -> Result<Self, KernelError> {
        let lanes = match device {
            Device::Cuda(ordinal) => Some(Lanes::new(CudaTransfer::open(ordinal)?, device)?),
            _ => None,
        };
        Ok(Self { device, lanes, host: None })
    }

    /// Begins to copy a batch; the next step may use what is given, until the batch after the next
    /// is begun.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn begin(&mut self, mut host: HostBatch) -> Result<DeviceBatch, TchError> {
        let Some(lanes) = &mut self.lanes else {
            return DeviceBatch::from_host(&mut host, self.device);
        };
        // SAFETY: the pixels are those of `host`, which is kept until `settle` or `drop` has waited
        // for the copy.
        let batch = unsafe { lanes.send(&HostRows::of(&mut host))? };
        let place = Place::of(&host);
        self.host = Some(host);
        Ok(DeviceBatch { place, ..batch })
    }

    /// After the step that uses the batch was begun: waits until the batch has left the host, and
    /// gives its memory back to the feed.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn settle(&mut self) -> Result<(), TchError> {
        let settled = match (&mut self.lanes, &self.host) {
            (Some(lanes), Some(_)) => lanes.settle(),
            _ => Ok(()),
        };
        self.host = None;
        settled.map_err(TchError::from)
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        // An error leaves nothing to wait for.
        _ = self.settle();
    }
}

/// Where the parts of a batch lie in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    pixels: Range<usize>,
    offsets: Range<usize>,
    labels: Range<usize>,
    rows: Range<usize>,
    weights: Range<usize>,
}

impl Parts {
    fn new(rows: &HostRows) -> Self {
        let mut end = 0_usize;
        let mut part = |bytes: usize| {
            let start = end.next_multiple_of(ALIGN_BYTES);
            end = start + bytes;
            start..end
        };
        Self {
            pixels: part(rows.images_bhwc.len()),
            offsets: part(size_of_val(rows.offsets)),
            labels: part(size_of_val(rows.label_ids)),
            rows: part(size_of_val(rows.label_ids)),
            weights: part(size_of_val(rows.weights)),
        }
    }

    /// Everything but the pixels.
    fn small(&self) -> Range<usize> {
        self.offsets.start..self.weights.end
    }
}

impl<T: Transfer> Lanes<T> {
    fn new(transfer: T, device: Device) -> Result<Self, KernelError> {
        let lane = || {
            Ok(Lane {
                bytes: Tensor::empty([0], (Kind::Uint8, device)),
                staging: None,
                staging_bytes: 0,
                copied: transfer.event()?,
                used: transfer.event()?,
            })
        };
        let lanes = (0..LANES).map(|_| lane()).collect::<Result<_, KernelError>>()?;
        Ok(Self { transfer, lanes, next: 0, device })
    }

    /// Copies a batch into the next buffer, and lets the step's stream wait for it.
    ///
    /// # Safety
    ///
    /// The pixels stay as they are until [`Self::settle`] was called.
    unsafe fn send(&mut self, rows: &HostRows) -> Result<DeviceBatch, TchError> {
        let parts = Parts::new(rows);
        let transfer = &self.transfer;
        let lane = &mut self.lanes[self.next];
        if lane.bytes.numel() < parts.weights.end {
            let size = [parts.weights.end.next_power_of_two() as i64];
            lane.bytes = Tensor::f_empty(size, (Kind::Uint8, self.device))?;
            // What libtorch gives may be in use by what its stream has yet to do.
            transfer.mark_step(&lane.used)?;
        }
        let small = parts.small();
        if lane.staging_bytes < small.len() {
            lane.staging_bytes = small.len().next_power_of_two();
            lane.staging = Some(transfer.staging(lane.staging_bytes)?);
        }
        if let Some(staging) = &mut lane.staging {
            fill(staging.as_mut(), &parts, rows);
        }
        transfer.hold_copies(&lane.used)?;
        // SAFETY: pixels by the caller's promise; the staging is written again after the lane's
        // `copied` was waited for, in `settle`. The buffer is as long as all parts.
        unsafe {
            transfer.copy(rows.images_bhwc, &lane.bytes, parts.pixels.start)?;
            if let Some(staging) = &mut lane.staging {
                let staged = &staging.as_mut()[..small.len()];
                transfer.copy(staged, &lane.bytes, small.start)?;
            }
        }
        transfer.mark_copies(&lane.copied)?;
        transfer.hold_step(&lane.copied)?;
        views(&lane.bytes, &parts, rows)
    }

    /// Marks the step that was begun as the one that reads the buffer, and waits for its copies.
    fn settle(&mut self) -> Result<(), KernelError> {
        let lane = &self.lanes[self.next];
        self.next = (self.next + 1) % LANES;
        self.transfer.mark_step(&lane.used)?;
        self.transfer.wait(&lane.copied)
    }
}

/// Writes everything but the pixels as it is to lie on the device.
fn fill(staging: &mut [u8], parts: &Parts, rows: &HostRows) {
    let start = parts.offsets.start;
    let mut put = |part: &Range<usize>, bytes: &mut dyn Iterator<Item = u8>| {
        let to = &mut staging[part.start - start..part.end - start];
        to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    };
    let of_each_label = row_of_each_label(rows.offsets);
    put(&parts.offsets, &mut rows.offsets.iter().flat_map(|int| int.to_ne_bytes()));
    put(&parts.labels, &mut rows.label_ids.iter().flat_map(|int| int.to_ne_bytes()));
    put(&parts.rows, &mut of_each_label.iter().flat_map(|int| int.to_ne_bytes()));
    put(&parts.weights, &mut rows.weights.iter().flat_map(|float| float.to_ne_bytes()));
}

/// The batch in a buffer.
fn views(bytes: &Tensor, parts: &Parts, rows: &HostRows) -> Result<DeviceBatch, TchError> {
    let part = |part: &Range<usize>, kind: Kind| {
        bytes.f_narrow(0, part.start as i64, part.len() as i64)?.f_view_dtype(kind)
    };
    let size = [rows.weights.len() as i64, rows.height_px as i64, rows.width_px as i64, 3];
    let images_bhwc = part(&parts.pixels, Kind::Uint8)?.f_view(size)?;
    Ok(DeviceBatch {
        images_bchw: images_bhwc.f_permute([0, 3, 1, 2])?,
        num_images: rows.weights.iter().filter(|&&weight| weight != 0.0).count() as u64,
        targets: SparseTargets {
            rows_k: part(&parts.rows, Kind::Int64)?,
            labels_k: part(&parts.labels, Kind::Int64)?,
            offsets_b1: part(&parts.offsets, Kind::Int64)?,
            weights_b: part(&parts.weights, Kind::Float)?,
        },
        offsets: rows.offsets.to_vec(),
        place: Place::alone(0, 0, rows.weights.len()),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Copies at once on the host, and writes down who waits for whom.
    #[derive(Debug, Default)]
    struct Told {
        lines: RefCell<Vec<String>>,
        events: RefCell<usize>,
    }

    impl Told {
        fn tell(&self, what: &str, event: usize) -> Result<(), KernelError> {
            self.lines.borrow_mut().push(format!("{what} {event}"));
            Ok(())
        }
    }

    impl Transfer for Told {
        type Event = usize;
        type Staging = Vec<u8>;

        fn event(&self) -> Result<usize, KernelError> {
            *self.events.borrow_mut() += 1;
            Ok(*self.events.borrow())
        }
        fn staging(&self, bytes: usize) -> Result<Vec<u8>, KernelError> {
            Ok(vec![0; bytes])
        }
        fn mark_step(&self, event: &usize) -> Result<(), KernelError> {
            self.tell("step marks", *event)
        }
        fn mark_copies(&self, event: &usize) -> Result<(), KernelError> {
            self.tell("copies mark", *event)
        }
        fn hold_copies(&self, event: &usize) -> Result<(), KernelError> {
            self.tell("copies wait for", *event)
        }
        fn hold_step(&self, event: &usize) -> Result<(), KernelError> {
            self.tell("step waits for", *event)
        }
        fn wait(&self, event: &usize) -> Result<(), KernelError> {
            self.tell("host waits for", *event)
        }
        unsafe fn copy(&self, from: &[u8], to: &Tensor, at: usize) -> Result<(), KernelError> {
            let mut part = to.narrow(0, at as i64, from.len() as i64);
            part.copy_(&Tensor::from_slice(from));
            Ok(())
        }
    }

    fn assert_same(found: &DeviceBatch, rows: &HostRows) {
        let expected = DeviceBatch::from_rows(rows, Device::Cpu).unwrap();
        assert!(found.images_bchw.equal(&expected.images_bchw));
        assert_eq!(found.images_bchw.stride(), expected.images_bchw.stride());
        let of = |batch: &DeviceBatch| {
            let SparseTargets { rows_k, labels_k, offsets_b1, weights_b } = &batch.targets;
            [rows_k, labels_k, offsets_b1, weights_b].map(Tensor::shallow_clone)
        };
        for (a, b) in of(found).iter().zip(&of(&expected)) {
            assert!(a.kind() == b.kind() && a.equal(b), "{a:?} {b:?}");
        }
        assert_eq!(found.offsets, expected.offsets);
        assert_eq!((found.num_images, &found.place), (expected.num_images, &expected.place));
    }

    fn pixels(rows: usize, side_px: usize, phase: usize) -> Vec<u8> {
        (0..rows * side_px * side_px * 3).map(|i| ((i * 7 + phase) % 251) as u8).collect()
    }

    #[test]
    fn batches_of_any_size_arrive_as_they_were() {
        let mut lanes = Lanes::new(Told::default(), Device::Cpu).unwrap();
        let sizes: [(usize, usize, &[i64], &[i64]); 4] = [
            (3, 5, &[0, 1, 3, 3], &[5, 0, 9]),
            (1, 2, &[0, 0], &[]),
            (2, 40, &[0, 0, 1], &[7]),
            (5, 9, &[0, 2, 2, 4, 4, 5], &[1, 2, 3, 4, 0]),
        ];
        for (at, (count, side, offsets, label_ids)) in sizes.into_iter().enumerate() {
            let images = pixels(count, side, at);
            let weights: Vec<f32> = (0..count).map(|row| [1.0, 0.0, 0.5][row % 3]).collect();
            let rows = HostRows {
                images_bhwc: &images,
                height_px: side,
                width_px: side,
                offsets,
                label_ids,
                weights: &weights,
            };
            // SAFETY: the pixels outlive the call to `settle`.
            let batch = unsafe { lanes.send(&rows).unwrap() };
            assert_same(&batch, &rows);
            lanes.settle().unwrap();
        }
    }

    #[test]
    fn a_copy_waits_for_the_step_before_the_last_and_a_step_for_its_copy() {
        let mut lanes = Lanes::new(Told::default(), Device::Cpu).unwrap();
        let images = pixels(2, 4, 0);
        let rows = HostRows {
            images_bhwc: &images,
            height_px: 4,
            width_px: 4,
            offsets: &[0, 1, 1],
            label_ids: &[3],
            weights: &[1.0, 1.0],
        };
        let mut steps = Vec::new();
        for _ in 0..3 {
            lanes.transfer.lines.borrow_mut().clear();
            // SAFETY: the pixels outlive the call to `settle`.
            _ = unsafe { lanes.send(&rows).unwrap() };
            lanes.settle().unwrap();
            steps.push(lanes.transfer.lines.borrow().join(", "));
        }
        // Fresh memory is waited for; then the lane's own step.
        let fresh = |copied: usize, used: usize| {
            format!(
                "step marks {used}, copies wait for {used}, copies mark {copied}, \
                 step waits for {copied}, step marks {used}, host waits for {copied}"
            )
        };
        assert_eq!(steps[..2], [fresh(1, 2), fresh(3, 4)]);
        assert_eq!(
            steps[2],
            "copies wait for 2, copies mark 1, step waits for 1, step marks 2, host waits for 1"
        );
    }

    #[test]
    fn the_cpu_needs_no_lanes_and_no_driver() {
        let uploads = Uploads::open(Device::Cpu).unwrap();
        assert!(uploads.lanes.is_none());
    }
}
