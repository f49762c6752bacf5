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
    /// Files of this checkpoint with their SHA-256.
    pub files: Vec<CheckpointFile>,
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

    /// Folder of the checkpoint of `step` below the run: `checkpoints/step-00000100`.
    pub fn folder(step: u64) -> String {
        format!("checkpoints/step-{step:08}")
    }
}
