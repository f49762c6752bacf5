//! Bad samples put aside, whole, for people to look at and mend.
//!
//! In: the files of samples that were rejected. Out: a tar a part below `budget.quarantine_dir`,
//! in the order of the shard, which `run` reads like any shard. The bad samples of one part are
//! held in memory. Never: a file below the data set.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;

use catlip_schemas::PartName;

use super::commit::write_whole;
use super::folder::{Folder, whole_path};
use crate::config::{BadSample, BudgetConfig};
use crate::error::{ConfigError, PrepError};
use crate::source::Sample;

/// Refuses a quarantine in the folder of the data set: `run` would take it for somebody else's, and
/// `verify --clean` would remove it.
///
/// # Errors
///
/// [`PrepError::Config`].
pub fn check_outside(budget: &BudgetConfig, output: &Folder) -> Result<(), PrepError> {
    let is_used = budget.on_bad_sample == BadSample::Quarantine && output.is_local();
    let (folder, set) = (Path::new(&budget.quarantine_dir), output.place());
    if !is_used || !whole_path(folder).starts_with(whole_path(&set)) {
        return Ok(());
    }
    Err(PrepError::Config(ConfigError::Range {
        key: "budget.quarantine_dir",
        found: folder.display().to_string(),
        expected: format!("a folder outside the data set {}", set.display()),
    }))
}

/// The bad samples of one part, by offset in its shard.
#[derive(Debug, Default)]
pub struct Quarantine(Mutex<BTreeMap<u64, Vec<NamedFile>>>);

type NamedFile = (Vec<u8>, Vec<u8>);

impl Quarantine {
    /// Keeps the files of a sample.
    pub fn add(&self, sample: &Sample<'_>) {
        let named = sample.files.iter().map(|file| {
            let name = [&sample.key[..], b".", file.extension.as_bytes()].concat();
            (name, file.data.to_vec())
        });
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        all.insert(sample.offset(), named.collect());
    }

    /// Writes what was kept; nothing if no sample was bad.
    ///
    /// # Errors
    ///
    /// [`PrepError::Io`], [`PrepError::DiskFull`].
    pub fn write(self, folder: &Path, part: PartName, config_tag: &str) -> Result<(), PrepError> {
        let all = self.0.into_inner().unwrap_or_else(|e| e.into_inner());
        if all.is_empty() {
            return Ok(());
        }
        let path = folder.join(format!("part-{part}-{config_tag}.tar"));
        let wrong = |e| PrepError::io("write", &path, e);
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in all.into_values().flatten() {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            // As bytes: a key need not be UTF-8.
            let name = Path::new(std::ffi::OsStr::from_bytes(&name));
            builder.append_data(&mut header, name, &data[..]).map_err(wrong)?;
        }
        let bytes = builder.into_inner().map_err(wrong)?;
        write_whole(&path, &bytes).map_err(wrong)
    }
}
