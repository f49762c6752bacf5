//! The way to object stores, as the programs have it.
//!
//! In: the variables of the environment. Out: [`Stores`] that open what a path or URL names.

use std::path::Path;

use catlip_pipeline::config::PrepConfig;
use catlip_pipeline::error::PrepError;
use catlip_pipeline::prep::open::Surroundings;
use catlip_pipeline::prep::{Folder, Stores};

/// What this process knows of where it runs.
pub fn surroundings() -> Surroundings {
    Surroundings { variables: std::env::vars_os().collect(), temp_dir: std::env::temp_dir() }
}

/// The stores that paths and URLs lie in; endpoints and credentials come from the usual variables.
pub fn stores() -> Stores {
    surroundings().stores(&PrepConfig::default().source)
}

/// The folder that a path or URL names.
///
/// # Errors
///
/// [`PrepError::Store`] for a URL that is not understood.
pub fn folder(named: &Path) -> Result<Folder, PrepError> {
    stores().folder(named)
}
