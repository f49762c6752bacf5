//! Settings of what keeps a run going: bad steps, and several ranks.

use catlip_pipeline::error::ConfigError;
use serde::{Deserialize, Serialize};

use super::within;

/// Section `fault`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct FaultConfig {
    pub skipped_max: u64,
    pub spike_factor: f64,
    pub rollbacks_max: u64,
}

/// Section `dist`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "train.default.toml is the manual of every key")]
pub struct DistConfig {
    pub timeout_secs: u64,
    pub bucket_bytes: u64,
    pub share_moments: bool,
    pub compare_every_steps: u64,
}

impl Default for FaultConfig {
    fn default() -> Self {
        Self { skipped_max: 10, spike_factor: 0.0, rollbacks_max: 10 }
    }
}

impl Default for DistConfig {
    fn default() -> Self {
        Self {
            timeout_secs: 600,
            bucket_bytes: 25 << 20,
            share_moments: false,
            compare_every_steps: 1000,
        }
    }
}

impl FaultConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("fault.skipped_max", self.skipped_max as f64, 1.0, 1e6)?;
        within("fault.spike_factor", self.spike_factor, 0.0, 1e9)?;
        within("fault.rollbacks_max", self.rollbacks_max as f64, 0.0, 1000.0)
    }
}

impl DistConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("dist.timeout_secs", self.timeout_secs as f64, 1.0, 86_400.0)?;
        within("dist.bucket_bytes", self.bucket_bytes as f64, 1.0, (1_u64 << 32) as f64)
    }
}
