//! The way to object stores, as the programs have it.
//!
//! In: the variables of the environment. Out: [`Stores`] that open what a path or URL names.

use std::path::Path;

use catlip_pipeline::error::PrepError;
use catlip_pipeline::prep::{Folder, Stores};
use catlip_pipeline::source::object::RemoteOptions;

/// The folder that a path or URL names; endpoints and credentials come from the usual variables.
///
/// # Errors
///
/// [`PrepError::Store`] for a URL that is not understood.
pub fn folder(named: &Path) -> Result<Folder, PrepError> {
    let options = RemoteOptions::new(std::env::vars_os(), std::env::temp_dir());
    Stores::new(options).folder(named)
}
