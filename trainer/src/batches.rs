//! What a run sees, for programs that are to see the same.
//!
//! In: a [`TrainPlan`]. Out: in its folder `initial.safetensors`, the weights that it begins with,
//! and `batches/step-00000000.safetensors`, …: pixels, labels, weights and rate of each step.
//! Never: trains.

use std::collections::HashMap;
use std::fs;

use catlip_pipeline::feed::{Feed, FeedPlan, HostBatch, Targets};
use catlip_pipeline::prep::commit;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

use crate::error::TrainError;
use crate::plan::TrainPlan;
use crate::tensor_file;
use crate::train;

/// Writes the weights and the first `steps` batches of a run, all of them for 0.
///
/// # Errors
///
/// [`TrainError::Feed`], [`TrainError::Io`], [`TrainError::Checkpoint`].
pub fn write(plan: &TrainPlan, steps: u64) -> Result<u64, TrainError> {
    let folder = plan.run.path().join("batches");
    fs::create_dir_all(&folder).map_err(TrainError::io("create", &folder))?;
    let (_, weights) = train::initial_weights(plan)?;
    let named = tensor_file::named(&weights).map_err(TrainError::torch("read the weights"))?;
    tensor_file::write(&plan.run.path().join("initial.safetensors"), &named)?;
    let num_steps = if steps == 0 { plan.schedule.steps } else { steps.min(plan.schedule.steps) };
    let mut feed = Feed::start(FeedPlan { num_steps, ..plan.feed.clone() })?;
    let mut written = 0;
    while let Some(mut host) = feed.next()? {
        let path = folder.join(format!("step-{written:08}.safetensors"));
        let bytes = serialised(&mut host, plan.schedule.lr(written));
        let bytes = bytes.map_err(std::io::Error::other);
        bytes
            .and_then(|bytes| commit::write_whole(&path, &bytes))
            .map_err(TrainError::io("write", &path))?;
        written += 1;
    }
    Ok(written)
}

fn serialised(host: &mut HostBatch, lr: f64) -> Result<Vec<u8>, SafeTensorError> {
    let Targets::LabelsCsr { offsets, ids } = host.targets.clone();
    let weights: Vec<u8> = host.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let ints = |ints: &[i64]| ints.iter().flat_map(|int| int.to_le_bytes()).collect::<Vec<u8>>();
    let (rows, height_px, width_px) = (host.len(), host.height_px, host.width_px);
    let (num_offsets, num_ids) = (offsets.len(), ids.len());
    let (offsets, ids, lr) = (ints(&offsets), ints(&ids), lr.to_le_bytes());
    let tensors = [
        ("images", Dtype::U8, vec![rows, height_px, width_px, 3], host.images_bhwc()),
        ("offsets", Dtype::I64, vec![num_offsets], &offsets),
        ("labels", Dtype::I64, vec![num_ids], &ids),
        ("weights", Dtype::F32, vec![rows], &weights),
        ("lr", Dtype::F64, vec![1], &lr),
    ];
    let views = tensors
        .into_iter()
        .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(dtype, shape, data)?)))
        .collect::<Result<HashMap<_, _>, SafeTensorError>>()?;
    safetensors::serialize(views, None)
}
