//! A host batch on the device.
//!
//! In: `u8` pixels, height × width × RGB, and sparse labels of the rows. Out: a [`DeviceBatch`].
//! Never: makes floats of the pixels before a step asks for them, four bytes of each; keeps the
//! host's memory.
//!
//! b rows, h w pixels, c 3, k positives of all rows together.

use std::ops::Range;

use catlip_pipeline::feed::{HostBatch, Targets};
use tch::{Device, Kind, TchError, Tensor};

use crate::loss::SparseTargets;

/// One batch as a step consumes it.
#[derive(Debug)]
pub struct DeviceBatch {
    /// Pixels, bytes or floats in 0…1, `[b, c, h, w]`; in memory the channels lie innermost.
    pub images_bchw: Tensor,
    /// Images among them: rows of a weight other than zero.
    pub num_images: u64,
    /// Labels and weights of the rows.
    pub targets: SparseTargets,
    /// Where the labels of each row start among those of all rows; on the host, so that a batch
    /// can be cut without asking the device.
    pub offsets: Vec<i64>,
    /// Where the rows stand in the order of the run.
    pub place: Place,
}

/// Where rows stand in the order: what their draws are keyed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The epoch.
    pub epoch: u64,
    /// The position at which the whole step begins, over all ranks.
    pub step_start: u64,
    /// The rows of the whole step, over all ranks.
    pub step_rows: usize,
    /// The position of each row here.
    pub positions: Vec<u64>,
}

/// A part of a step, of whole groups of rows that follow each other in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupedRows {
    /// Its rows here; there may be none.
    pub rows: Range<usize>,
    /// The group of each of these rows, from 0.
    pub group_of_rows: Vec<i64>,
    /// Rows of each group over all ranks.
    pub rows_of_groups: Vec<i64>,
}

impl Place {
    /// Where the rows of a batch of the feed stand, taken for a whole step.
    pub fn of(host: &HostBatch) -> Self {
        Self {
            epoch: host.cursor.epoch,
            step_start: host.positions.first().copied().unwrap_or(0),
            step_rows: host.len(),
            positions: host.positions.clone(),
        }
    }

    /// Cuts the whole step into groups of `group_rows` rows, the last as large as is left, and
    /// these into `parts`; with `group_rows` 0 each part is one group. All ranks get as many parts.
    pub fn groups(&self, group_rows: usize, parts: usize) -> Vec<GroupedRows> {
        let groups = match group_rows {
            0 => stretches(self.step_rows, parts),
            _ => (0..self.step_rows)
                .step_by(group_rows)
                .map(|from| from..(from + group_rows).min(self.step_rows))
                .collect(),
        };
        let here = |rows: &Range<usize>| {
            let until =
                |end: usize| self.positions.partition_point(|at| at - self.step_start < end as u64);
            until(rows.start)..until(rows.end)
        };
        let part = |of: Range<usize>| {
            let groups = &groups[of];
            let numbered = (0..).zip(groups);
            GroupedRows {
                rows: groups.first().map_or(0, |first| here(first).start)
                    ..groups.last().map_or(0, |last| here(last).end),
                group_of_rows: numbered
                    .flat_map(|(n, group)| here(group).map(move |_| n))
                    .collect(),
                rows_of_groups: groups.iter().map(|group| group.len() as i64).collect(),
            }
        };
        stretches(groups.len(), parts).into_iter().map(part).collect()
    }

    /// A step of one rank, whose rows follow each other from `step_start` on.
    pub fn alone(epoch: u64, step_start: u64, step_rows: usize) -> Self {
        let positions = (step_start..step_start + step_rows as u64).collect();
        Self { epoch, step_start, step_rows, positions }
    }
}

/// One batch in the memory of the host.
#[derive(Clone, Copy, Debug)]
pub struct HostRows<'h> {
    /// Pixels, `[b, h, w, c]`.
    pub images_bhwc: &'h [u8],
    /// Height of an image.
    pub height_px: usize,
    /// Width of an image.
    pub width_px: usize,
    /// Where the labels of each row start in `label_ids`: `b + 1` numbers, from 0.
    pub offsets: &'h [i64],
    /// Labels of all rows.
    pub label_ids: &'h [i64],
    /// Weight of each row; 0 leaves it out.
    pub weights: &'h [f32],
}

impl<'h> HostRows<'h> {
    /// The rows of a batch of the feed.
    pub fn of(host: &'h mut HostBatch) -> Self {
        let HostBatch { pixels, targets, weights, height_px, width_px, .. } = host;
        let Targets::LabelsCsr { offsets, ids: label_ids } = &*targets;
        let (height_px, width_px) = (*height_px, *width_px);
        let images_bhwc = pixels.bytes();
        Self { images_bhwc, height_px, width_px, offsets, label_ids, weights }
    }
}

impl DeviceBatch {
    /// Copies a batch of the feed to `device`.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn from_host(host: &mut HostBatch, device: Device) -> Result<Self, TchError> {
        let batch = Self::from_rows(&HostRows::of(host), device)?;
        Ok(Self { place: Place::of(host), ..batch })
    }

    /// Copies `rows` to `device`.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn from_rows(rows: &HostRows, device: Device) -> Result<Self, TchError> {
        let to_device = |host: Result<Tensor, TchError>| host?.f_to_device(device);
        let labels_k = to_device(Tensor::f_from_slice(rows.label_ids))?;
        let weights_b = to_device(Tensor::f_from_slice(rows.weights))?;
        let rows_k = to_device(Tensor::f_from_slice(&row_of_each_label(rows.offsets)))?;
        let offsets_b1 = to_device(Tensor::f_from_slice(rows.offsets))?;
        Ok(Self {
            images_bchw: images_bchw(rows, device)?,
            num_images: rows.weights.iter().filter(|&&weight| weight != 0.0).count() as u64,
            targets: SparseTargets { rows_k, labels_k, offsets_b1, weights_b },
            offsets: rows.offsets.to_vec(),
            place: Place::alone(0, 0, rows.weights.len()),
        })
    }

    /// The pixels as floats in 0…1.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn unit_images(&self) -> Result<Tensor, TchError> {
        unit_floats(&self.images_bchw)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its rows in `parts` stretches, as equal as can be; none is empty.
    pub fn parts(&self, parts: usize) -> Vec<Range<usize>> {
        stretches(self.len(), parts)
    }

    /// Some of its rows, sharing their memory.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self, TchError> {
        let (from, len) = (rows.start as i64, rows.len() as i64);
        let [first, last] = [self.offsets[rows.start], self.offsets[rows.end]];
        let SparseTargets { rows_k, labels_k, offsets_b1, weights_b } = &self.targets;
        let positions = self.place.positions[rows.clone()].to_vec();
        Ok(Self {
            images_bchw: self.images_bchw.f_narrow(0, from, len)?,
            // Counted for whole batches only.
            num_images: 0,
            targets: SparseTargets {
                rows_k: rows_k.f_narrow(0, first, last - first)?.f_sub_scalar(from)?,
                labels_k: labels_k.f_narrow(0, first, last - first)?,
                offsets_b1: offsets_b1.f_narrow(0, from, len + 1)?,
                weights_b: weights_b.f_narrow(0, from, len)?,
            },
            offsets: self.offsets[rows.start..=rows.end].iter().map(|at| at - first).collect(),
            place: Place { positions, ..self.place.clone() },
        })
    }
}

/// `0..all` in `parts` stretches, as equal as can be; none is empty but where all is.
fn stretches(all: usize, parts: usize) -> Vec<Range<usize>> {
    let parts = parts.clamp(1, all.max(1));
    (0..parts).map(|at| all * at / parts..all * (at + 1) / parts).collect()
}

fn images_bchw(rows: &HostRows, device: Device) -> Result<Tensor, TchError> {
    let size = [rows.weights.len() as i64, rows.height_px as i64, rows.width_px as i64, 3];
    assert_eq!(rows.images_bhwc.len() as i64, size.iter().product::<i64>(), "pixels of {size:?}");
    let strides = [size[1] * size[2] * 3, size[2] * 3, 3, 1];
    let host = rows.images_bhwc.as_ptr();
    // SAFETY: the bytes of the contiguous shape are there, as was just asserted. The tensor that
    // borrows them does not leave this function, and nothing writes it: what does is a copy.
    let borrowed = unsafe { Tensor::f_from_blob(host, &size, &strides, Kind::Uint8, Device::Cpu)? };
    borrowed.f_to_device_(device, Kind::Uint8, false, true)?.f_permute([0, 3, 1, 2])
}

/// A few numbers of the host on `device`, put behind what that has to do; nobody waits. CUDA takes
/// what is not page-locked into memory of its own before it returns.
///
/// # Errors
///
/// What libtorch says, such as out of memory.
pub(crate) fn sent(host: &Tensor, device: Device) -> Result<Tensor, TchError> {
    host.f_to_device_(device, host.kind(), true, false)
}

/// Images as floats in 0…1, which they are already or which is made of their bytes.
///
/// # Errors
///
/// What libtorch says, such as out of memory.
pub fn unit_floats(images_bchw: &Tensor) -> Result<Tensor, TchError> {
    match images_bchw.kind() {
        // CatLIP normalises no further.
        Kind::Uint8 => images_bchw.f_to_kind(Kind::Float)?.f_div_scalar_(255.0),
        _ => Ok(images_bchw.shallow_clone()),
    }
}

/// 0, 0, 2 for the offsets 0, 2, 2, 3.
pub(crate) fn row_of_each_label(offsets: &[i64]) -> Vec<i64> {
    let mut rows = Vec::with_capacity(offsets.last().map_or(0, |&end| end as usize));
    for (row, ends) in offsets.windows(2).enumerate() {
        rows.resize(ends[1] as usize, row as i64);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_channels_first_and_unit_floats() {
        let images_bhwc: Vec<u8> = (0..2 * 2 * 3 * 3).map(|i| (i * 7) as u8).collect();
        let batch = DeviceBatch::from_rows(
            &HostRows {
                images_bhwc: &images_bhwc,
                height_px: 2,
                width_px: 3,
                offsets: &[0, 1, 3],
                label_ids: &[5, 0, 9],
                weights: &[1.0, 0.0],
            },
            Device::Cpu,
        )
        .unwrap();
        assert_eq!(batch.images_bchw.size(), [2, 3, 2, 3]);
        assert_eq!(batch.images_bchw.kind(), Kind::Uint8);
        assert_eq!(batch.num_images, 1);
        // Row 1, channel 2, y 1, x 0 lies at ((1 × 2 + 1) × 3 + 0) × 3 + 2 = 29.
        let expected = f32::from(images_bhwc[29]) / 255.0;
        let unit = batch.unit_images().unwrap();
        assert_eq!(unit.double_value(&[1, 2, 1, 0]), f64::from(expected));
        assert_eq!(Vec::<i64>::try_from(&batch.targets.rows_k).unwrap(), [0, 1, 1]);
    }

    #[test]
    fn a_batch_is_cut_into_rows_with_their_labels_and_positions() {
        let batch = DeviceBatch::from_rows(
            &HostRows {
                images_bhwc: &[0; 5 * 3],
                height_px: 1,
                width_px: 1,
                offsets: &[0, 1, 3, 3, 4, 6],
                label_ids: &[5, 0, 9, 2, 1, 3],
                weights: &[1.0, 0.5, 0.0, 0.25, 1.0],
            },
            Device::Cpu,
        )
        .unwrap();
        assert_eq!(batch.parts(2), [0..2, 2..5]);
        assert_eq!(batch.parts(9).len(), 5);
        let part = batch.rows(2..5).unwrap();
        assert_eq!(part.images_bchw.size(), [3, 3, 1, 1]);
        assert_eq!(Vec::<i64>::try_from(&part.targets.rows_k).unwrap(), [1, 2, 2]);
        assert_eq!(Vec::<i64>::try_from(&part.targets.labels_k).unwrap(), [2, 1, 3]);
        assert_eq!(part.offsets, [0, 0, 1, 3]);
        assert_eq!((part.len(), &part.place.positions[..]), (3, &[2, 3, 4][..]));
        assert_eq!(part.place.step_rows, 5);
    }

    #[test]
    fn groups_of_a_step_are_the_same_whoever_has_their_rows() {
        let place = |positions: &[u64]| Place {
            epoch: 0,
            step_start: 100,
            step_rows: 7,
            positions: positions.to_vec(),
        };
        let even = place(&[100, 102, 104, 106]).groups(3, 2);
        let rows = |parts: &[GroupedRows]| -> Vec<_> {
            parts.iter().map(|p| (p.rows.clone(), p.group_of_rows.clone())).collect()
        };
        assert_eq!(rows(&even), [(0..2, vec![0, 0]), (2..4, vec![0, 1])]);
        let odd = place(&[101, 103]).groups(3, 2);
        assert_eq!(rows(&odd), [(0..1, vec![0]), (1..2, vec![0])]);
        for parts in [even, odd] {
            assert_eq!(parts[0].rows_of_groups, [3]);
            assert_eq!(parts[1].rows_of_groups, [3, 1]);
        }
        // Parts that are one group each, of which the second has no row here.
        let first = place(&[101]).groups(0, 2);
        assert_eq!(rows(&first), [(0..1, vec![0]), (1..1, vec![])]);
        assert_eq!([&first[0].rows_of_groups, &first[1].rows_of_groups], [&[3], &[4]]);
        assert_eq!(place(&[]).groups(100, 4).len(), 1);
    }

    #[test]
    fn rows_without_labels_are_skipped_by_the_offsets() {
        assert_eq!(row_of_each_label(&[0, 2, 2, 3, 3]), [0, 0, 2]);
        assert!(row_of_each_label(&[0, 0]).is_empty());
    }
}
