//! What a person named, opened: shards, plan and folder of a job.
//!
//! In: a config, inputs, an output, and what the process knows of its surroundings. Out: the shard
//! list, the plan that reaches the shards, the folder. Never: asks the environment itself; writes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::folder::{Folder, Stores};
use super::plan::PrepPlan;
use crate::config::{PrepConfig, SourceConfig};
use crate::error::PrepError;
use crate::source::ShardList;
use crate::source::object::RemoteOptions;

/// What a program knows of where it runs.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The variables of the environment; those of stores are read.
    pub variables: Vec<(OsString, OsString)>,
    /// The system's folder for temporary files.
    pub temp_dir: PathBuf,
}

impl Surroundings {
    /// The way to stores: patience from the config, endpoints and credentials from the usual
    /// variables of the environment.
    pub fn stores(&self, config: &SourceConfig) -> Stores {
        Stores::new(RemoteOptions {
            requests: config.requests,
            retries: config.retries,
            timeout_secs: config.timeout_secs,
            ..RemoteOptions::new(self.variables.clone(), self.spool_dir(config))
        })
    }

    /// The plan of `config` with the way to its stores, and the folder that `output` names.
    ///
    /// # Errors
    ///
    /// Those of [`PrepPlan::new`] and [`Stores::folder`].
    pub fn plan(&self, config: PrepConfig, output: &Path) -> Result<(PrepPlan, Folder), PrepError> {
        let stores = self.stores(&config.source);
        let folder = stores.folder(output)?;
        Ok((self.plan_by(&stores, config)?, folder))
    }

    /// The same, and the shards that `inputs` name.
    ///
    /// # Errors
    ///
    /// Also those of [`ShardList::expand_with`].
    pub fn job(
        &self,
        config: PrepConfig,
        inputs: &[String],
        output: &Path,
    ) -> Result<(ShardList, PrepPlan, Folder), PrepError> {
        let stores = self.stores(&config.source);
        let folder = stores.folder(output)?;
        let root = Some(config.source.root.as_str()).filter(|root| !root.is_empty());
        let shards = ShardList::expand_with(inputs, root, &*stores.remote()?)?;
        Ok((shards, self.plan_by(&stores, config)?, folder))
    }

    fn plan_by(&self, stores: &Stores, mut config: PrepConfig) -> Result<PrepPlan, PrepError> {
        config.source.spool_dir = self.spool_dir(&config.source).to_string_lossy().into_owned();
        Ok(PrepPlan { remote: Some(stores.remote()?), ..PrepPlan::new(config)? })
    }

    fn spool_dir(&self, config: &SourceConfig) -> PathBuf {
        match config.spool_dir.as_str() {
            "" => self.temp_dir.clone(),
            folder => folder.into(),
        }
    }
}
