//! `state.json` of a training checkpoint.

use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::error::SchemaError;
use crate::version::{CHECKPOINT_VERSION, check_version};

/// Everything of a checkpoint that is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointState {
    /// [`CHECKPOINT_VERSION`] of the writer.
    pub checkpoint_version: u32,
    /// Steps that were taken.
    pub step: u64,
    /// Images that were seen, counted truly.
    pub images_seen: u64,
    /// Where the feed goes on.
    pub cursor: Cursor,
    /// Hash of the training config without paths.
    pub config_hash: String,
    /// Hash of the vocabulary that the labels mean.
    pub vocab_hash: String,
    /// Ranks that wrote it, each its stretch of the moments. Since version 2.
    #[serde(default = "one")]
    pub world_size: u32,
    /// Steps that were skipped because their gradient was no number. Since version 2.
    #[serde(default)]
    pub skipped_steps: u64,
    /// How many of them were the last ones in a row; 0 where the last step was good. Since
    /// version 2.
    #[serde(default)]
    pub skipped_in_row: u64,
    /// Running mean of the loss at log steps, if there is one yet. Since version 2.
    #[serde(default)]
    pub loss_mean: Option<f32>,
    /// Whether the run was asked to stop here, at a step that is not saved otherwise: then it goes
    /// on from here, but never goes back to here. Since version 3.
    #[serde(default)]
    pub stopped: bool,
    /// Files of this checkpoint with their SHA-256.
    pub files: Vec<CheckpointFile>,
}

/// Version 1 knew one rank.
fn one() -> u32 {
    1
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointFile {
    /// Name below the checkpoint's folder.
    pub file: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

impl CheckpointState {
    /// Reads `state.json`.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Json`], [`SchemaError::Version`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SchemaError> {
        let state: Self = serde_json::from_slice(bytes)
            .map_err(|source| SchemaError::Json { what: "state.json", source })?;
        check_version("state.json", state.checkpoint_version, CHECKPOINT_VERSION)?;
        Ok(state)
    }

    /// The file of a rank's stretch of the moments.
    pub fn optim_file(rank: u32) -> String {
        format!("optim-rank{rank}.safetensors")
    }

    /// The stretch of `floats` flat moments that is in the file of `rank`: as equal as can be, cut
    /// at multiples of 16 numbers.
    pub fn stretch(rank: u32, world_size: u32, floats: i64) -> std::ops::Range<i64> {
        let world_size = i64::from(world_size.max(1));
        let cut = |rank: i64| match rank {
            rank if rank >= world_size => floats,
            rank => floats / 16 * rank / world_size * 16,
        };
        cut(i64::from(rank))..cut(i64::from(rank) + 1)
    }

    /// Folder of the checkpoint of `step` below the run: `checkpoints/step-00000100`.
    pub fn folder(step: u64) -> String {
        format!("checkpoints/step-{step:08}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_follow_each_other_and_leave_nothing_out() {
        for (floats, world_size) in [(16, 1), (160, 3), (48, 4), (7, 2), (100_003, 8)] {
            let mut end = 0;
            for rank in 0..world_size {
                let stretch = CheckpointState::stretch(rank, world_size, floats);
                assert_eq!(stretch.start, end, "rank {rank} of {world_size}, {floats} floats");
                assert!(stretch.start % 16 == 0 && stretch.end >= stretch.start);
                end = stretch.end;
            }
            assert_eq!(end, floats);
        }
    }

    /// What version 0.1.0 wrote.
    const VERSION_1: &str = r#"{
      "checkpoint_version": 1, "step": 8, "images_seen": 128,
      "cursor": { "snapshot": 1, "epoch": 0, "position": 128, "order_version": 1 },
      "config_hash": "e3f7a1f9a94ef19c", "vocab_hash": "0123456789abcdef",
      "files": [{ "file": "model.safetensors", "bytes": 1, "sha256": "ab" }]
    }"#;

    #[test]
    fn a_state_of_version_1_is_one_rank_that_skipped_nothing() {
        let state = CheckpointState::from_json(VERSION_1.as_bytes()).unwrap();
        assert_eq!((state.step, state.world_size, state.skipped_steps), (8, 1, 0));
        assert_eq!((state.skipped_in_row, state.loss_mean), (0, None));
    }

    #[test]
    fn a_state_of_version_2_was_not_made_by_a_stop() {
        let more = r#""world_size": 2, "skipped_steps": 3, "skipped_in_row": 1, "loss_mean": 0.1,"#;
        let text = VERSION_1.replace("version\": 1,", &format!("version\": 2, {more}"));
        let state = CheckpointState::from_json(text.as_bytes()).unwrap();
        assert_eq!((state.world_size, state.skipped_steps, state.skipped_in_row), (2, 3, 1));
        assert_eq!((state.loss_mean, state.stopped), (Some(0.1), false));
    }

    #[test]
    fn a_state_of_a_later_version_is_refused_with_both_numbers() {
        let text = VERSION_1.replace("version\": 1", "version\": 9");
        let error = CheckpointState::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains('9') && error.contains('3'), "{error}");
    }
}
