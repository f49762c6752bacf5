//! What a run was computed with, for whoever asks why two runs differ.
//!
//! In: the plan of a run. Out: a [`Machine`], one line of `machines.jsonl` for each start. Never: a
//! name of a host or of a person.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use serde::Serialize;

use crate::plan::TrainPlan;

/// The versions that the program was built with.
const LOCK: &str = include_str!("../../Cargo.lock");
/// Packages whose versions may change what a run computes.
const PACKAGES: [&str; 8] = [
    "tch",
    "safetensors",
    "parquet",
    "arrow-array",
    "mozjpeg-sys",
    "png",
    "image-webp",
    "fast_image_resize",
];

/// One start of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Version of the trainer.
    pub version: &'static str,
    /// Commit that it was built from, if that was known.
    pub commit: Option<String>,
    /// Versions of what it was built with.
    pub packages: BTreeMap<&'static str, String>,
    /// The processor, as Linux names it.
    pub cpu: Option<String>,
    /// Cores that the process may use.
    pub cores: usize,
    /// Threads of libtorch.
    pub threads: usize,
    /// Which devices were found, and why not, if not.
    pub devices: String,
}

impl Machine {
    /// This machine, for a run of `plan` by a program of `commit`.
    pub fn here(commit: Option<&str>, plan: &TrainPlan) -> Self {
        let version_of = |package: &'static str| {
            version_in(LOCK, package).map(|version| (package, version.to_owned()))
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: commit.filter(|commit| !commit.is_empty()).map(str::to_owned),
            packages: PACKAGES.into_iter().filter_map(version_of).collect(),
            cpu: fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu_in(&text)),
            cores: thread::available_parallelism().map_or(1, usize::from),
            threads: plan.num_threads,
            devices: plan.device_report.clone(),
        }
    }
}

/// The version of a package in a lock file of cargo.
fn version_in<'l>(lock: &'l str, package: &str) -> Option<&'l str> {
    let name = format!("name = \"{package}\"");
    let line = lock.lines().skip_while(|line| *line != name).nth(1)?;
    line.strip_prefix("version = \"")?.strip_suffix('"')
}

fn cpu_in(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_a_version_in_the_lock_file() {
        for package in PACKAGES {
            let version = version_in(LOCK, package).unwrap_or_else(|| panic!("{package}"));
            assert!(version.contains('.'), "{package} {version}");
        }
        assert_eq!(version_in(LOCK, "tch"), Some("0.24.0"));
        assert_eq!(version_in(LOCK, "no-such-package"), None);
    }

    #[test]
    fn the_processor_is_the_first_of_the_list() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\n\nmodel name\t: other\n";
        assert_eq!(cpu_in(text).as_deref(), Some("AMD EPYC"));
        assert_eq!(cpu_in(""), None);
    }
}
