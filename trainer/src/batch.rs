//! A host batch on the device.
//!
//! In: `u8` pixels, height × width × RGB, and sparse labels of the rows. Out: a [`DeviceBatch`].
//! Never: normalises beyond ÷ 255 (CatLIP feeds 0…1); keeps the host's memory.
//!
//! b rows, h w pixels, c 3, k positives of all rows together.

use catlip_pipeline::feed::{HostBatch, Targets};
use tch::{Device, Kind, TchError, Tensor};

use crate::loss::SparseTargets;

/// One batch as a step consumes it.
#[derive(Debug)]
pub struct DeviceBatch {
    /// Pixels, float in 0…1, `[b, c, h, w]`; in memory the channels lie innermost.
    pub images_bchw: Tensor,
    /// Images among them: rows of a weight other than zero.
    pub num_images: u64,
    /// Labels and weights of the rows.
    pub targets: SparseTargets,
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

impl DeviceBatch {
    /// Copies a batch of the feed to `device`.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn from_host(host: &mut HostBatch, device: Device) -> Result<Self, TchError> {
        let (weights, targets) = (host.weights.clone(), host.targets.clone());
        let Targets::LabelsCsr { offsets, ids } = &targets;
        let (height_px, width_px) = (host.height_px, host.width_px);
        let rows = HostRows {
            images_bhwc: host.images_bhwc(),
            height_px,
            width_px,
            offsets,
            label_ids: ids,
            weights: &weights,
        };
        Self::from_rows(&rows, device)
    }

    /// Copies `rows` to `device` and makes floats of the pixels there.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn from_rows(rows: &HostRows, device: Device) -> Result<Self, TchError> {
        let to_device = |host: Result<Tensor, TchError>| host?.f_to_device(device);
        let labels_k = to_device(Tensor::f_from_slice(rows.label_ids))?;
        let weights_b = to_device(Tensor::f_from_slice(rows.weights))?;
        let rows_k = to_device(Tensor::f_from_slice(&row_of_each_label(rows.offsets)))?;
        Ok(Self {
            images_bchw: images_bchw(rows, device)?,
            num_images: rows.weights.iter().filter(|&&weight| weight != 0.0).count() as u64,
            targets: SparseTargets { rows_k, labels_k, weights_b },
        })
    }
}

fn images_bchw(rows: &HostRows, device: Device) -> Result<Tensor, TchError> {
    let size = [rows.weights.len() as i64, rows.height_px as i64, rows.width_px as i64, 3];
    assert_eq!(rows.images_bhwc.len() as i64, size.iter().product::<i64>(), "pixels of {size:?}");
    Tensor::f_from_data_size(rows.images_bhwc, &size, Kind::Uint8)?
        .f_to_device(device)?
        .f_permute([0, 3, 1, 2])?
        .f_to_kind(Kind::Float)?
        .f_div_scalar_(255.0)
}

/// 0, 0, 2 for the offsets 0, 2, 2, 3.
fn row_of_each_label(offsets: &[i64]) -> Vec<i64> {
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
        assert_eq!(batch.num_images, 1);
        // Row 1, channel 2, y 1, x 0 lies at ((1 × 2 + 1) × 3 + 0) × 3 + 2 = 29.
        let expected = f32::from(images_bhwc[29]) / 255.0;
        assert_eq!(batch.images_bchw.double_value(&[1, 2, 1, 0]), f64::from(expected));
        assert_eq!(Vec::<i64>::try_from(&batch.targets.rows_k).unwrap(), [0, 1, 1]);
    }

    #[test]
    fn rows_without_labels_are_skipped_by_the_offsets() {
        assert_eq!(row_of_each_label(&[0, 2, 2, 3, 3]), [0, 0, 2]);
        assert!(row_of_each_label(&[0, 0]).is_empty());
    }
}
