//! The built-in demo data: small drawn scenes of nameable things with captions.
//!
//! In: [`DemoConfig`]. Out: ordinary WebDataset shards, `train-00000.tar` … and
//! `heldout-00000.tar` …, which go down the line like any others. Same seed, same bytes.
//! Reading order: [`random`], [`colour`], [`raster`], [`things`], [`ground`], [`scene`],
//! [`words`], [`shards`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use random::Draws;

pub mod random;
pub mod colour;
pub mod raster;
pub mod things;
mod things_of_nature;
mod things_of_use;
mod things_outdoors;
pub mod ground;
pub mod scene;
pub mod words;
pub mod shards;

/// Most scenes of one part: keys count in six digits.
pub const SCENES_MAX: usize = 1_000_000;
/// Sides that can be drawn: below 32 px nothing is recognised; 512 px × 3² sub-pixels × 4 bytes
/// = 9 MiB a canvas.
pub const SIDE_PX: std::ops::RangeInclusive<u32> = 32..=512;

/// What is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoConfig {
    /// Scenes to train on, 1 to [`SCENES_MAX`].
    pub scenes_train: usize,
    /// Scenes to evaluate on, drawn from another seed, 1 to [`SCENES_MAX`].
    pub scenes_heldout: usize,
    /// Width and height of a scene in pixels, within [`SIDE_PX`].
    pub side_px: u32,
    /// All scenes and captions follow from it.
    pub seed: u64,
    /// Scenes in one tar file, at least 1; the last of a part may hold fewer.
    pub scenes_per_shard: usize,
}

impl Default for DemoConfig {
    fn default() -> Self {
        Self {
            scenes_train: 10000,
            scenes_heldout: 600,
            side_px: 96,
            seed: 20_240_424,
            scenes_per_shard: 750,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DemoSummary {
    /// Training shards in order.
    pub train: Vec<PathBuf>,
    /// Held-out shards in order.
    pub heldout: Vec<PathBuf>,
    /// Scenes in all of them.
    pub scenes: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Why no demo data were written.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A number of the config is out of its range.
    #[error("`{key}` is {found}, expected {expected}")]
    OutOfRange {
        /// Field of [`DemoConfig`].
        key: &'static str,
        /// Its value.
        found: u64,
        /// The range.
        expected: String,
    },
    /// The folder holds a file that this run would not write: it would be read with the shards.
    #[error("output folder already holds {path}, which is not of these demo data")]
    Occupied {
        /// The first such file by name.
        path: PathBuf,
    },
    /// The disk or the folder.
    #[error("cannot write {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Draws the scenes and writes the shards into `output`, which is made if it is not there.
///
/// The work is spread over rayon's threads. Shards of an earlier run with the same numbers are
/// written again, with the same bytes.
///
/// # Errors
///
/// [`DemoError::OutOfRange`] and [`DemoError::Occupied`] before anything is written;
/// [`DemoError::Io`] leaves the shards before it whole.
pub fn write_demo(output: &Path, config: &DemoConfig) -> Result<DemoSummary, DemoError> {
    config.check()?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| DemoError::Io { path, source }
    };
    fs::create_dir_all(output).map_err(failed(output))?;
    let train = shard_paths(output, "train", config.scenes_train, config.scenes_per_shard);
    let heldout = shard_paths(output, "heldout", config.scenes_heldout, config.scenes_per_shard);
    refuse_others(output, &[&train[..], &heldout[..]].concat()).map_err(failed(output))??;
    let mut summary = DemoSummary::default();
    let parts = [(0, 't', &train, config.scenes_train), (1, 'h', &heldout, config.scenes_heldout)];
    for (part, prefix, paths, scenes) in parts {
        let seed = Draws::new(config.seed, &[part]).bits();
        for (number, path) in paths.iter().enumerate() {
            let start = number * config.scenes_per_shard;
            let end = (start + config.scenes_per_shard).min(scenes);
            let numbers = start as u64..end as u64;
            let side_px = config.side_px as usize;
            summary.bytes +=
                shards::write_shard(path, prefix, seed, numbers, side_px).map_err(failed(path))?;
        }
        summary.scenes += scenes;
    }
    (summary.train, summary.heldout) = (train, heldout);
    Ok(summary)
}

impl DemoConfig {
    fn check(&self) -> Result<(), DemoError> {
        let scenes = 1..=SCENES_MAX as u64;
        let sides = u64::from(*SIDE_PX.start())..=u64::from(*SIDE_PX.end());
        let checks = [
            ("scenes_train", self.scenes_train as u64, scenes.clone()),
            ("scenes_heldout", self.scenes_heldout as u64, scenes.clone()),
            ("side_px", u64::from(self.side_px), sides),
            ("scenes_per_shard", self.scenes_per_shard as u64, scenes),
        ];
        for (key, found, range) in checks {
            if !range.contains(&found) {
                let expected = format!("{} to {}", range.start(), range.end());
                return Err(DemoError::OutOfRange { key, found, expected });
            }
        }
        Ok(())
    }
}

fn shard_paths(output: &Path, name: &str, scenes: usize, per_shard: usize) -> Vec<PathBuf> {
    let path = |number| output.join(format!("{name}-{number:05}.tar"));
    (0..scenes.div_ceil(per_shard)).map(path).collect()
}

/// Refuses a folder with files other than `ours` and what is left of writing them.
fn refuse_others(output: &Path, ours: &[PathBuf]) -> io::Result<Result<(), DemoError>> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(output)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
    found.sort();
    let other = found
        .into_iter()
        .find(|path| !ours.iter().any(|our| our == path || our.with_extension("tar.tmp") == *path));
    Ok(other.map_or(Ok(()), |path| Err(DemoError::Occupied { path })))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    const SMALL: DemoConfig = DemoConfig {
        scenes_train: 5,
        scenes_heldout: 2,
        side_px: 32,
        seed: 1,
        scenes_per_shard: 3,
    };

    fn bytes_of(paths: &[PathBuf]) -> Vec<Vec<u8>> {
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    fn members(paths: &[PathBuf]) -> BTreeMap<String, Vec<u8>> {
        let mut members = BTreeMap::new();
        for path in paths {
            for entry in tar::Archive::new(fs::File::open(path).unwrap()).entries().unwrap() {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                assert!(members.insert(name, bytes).is_none(), "a name comes twice");
            }
        }
        members
    }

    #[test]
    fn the_same_config_gives_the_same_bytes_and_another_seed_gives_others() {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let first = write_demo(folders[0].path(), &SMALL).unwrap();
        let again = write_demo(folders[1].path(), &SMALL).unwrap();
        let other = write_demo(folders[2].path(), &DemoConfig { seed: 2, ..SMALL }).unwrap();
        assert_eq!(bytes_of(&first.train), bytes_of(&again.train));
        assert_eq!(bytes_of(&first.heldout), bytes_of(&again.heldout));
        assert_ne!(bytes_of(&first.train), bytes_of(&other.train));
    }

    #[test]
    fn shards_hold_an_image_a_text_and_captions_for_each_scene() {
        let folder = tempfile::tempdir().unwrap();
        let summary = write_demo(folder.path(), &SMALL).unwrap();
        assert_eq!((summary.train.len(), summary.heldout.len(), summary.scenes), (2, 1, 7));
        assert!(summary.train[1].ends_with("train-00001.tar"));
        let train = members(&summary.train);
        assert_eq!(train.len(), 5 * 3);
        let json: serde_json::Value = serde_json::from_slice(&train["t000004.json"]).unwrap();
        let captions = json["captions"].as_array().unwrap();
        assert!((2..=3).contains(&captions.len()));
        assert_eq!(captions[0].as_str().unwrap().as_bytes(), train["t000004.txt"]);
        assert!(train["t000004.png"].starts_with(b"\x89PNG"));
    }

    #[test]
    fn heldout_scenes_are_no_training_scenes() {
        let folder = tempfile::tempdir().unwrap();
        let config = DemoConfig { scenes_train: 60, scenes_heldout: 60, ..SMALL };
        let summary = write_demo(folder.path(), &config).unwrap();
        let images = |paths: &[PathBuf]| {
            let members = members(paths).into_iter().filter(|(name, _)| name.ends_with(".png"));
            members.map(|(_, bytes)| bytes).collect::<std::collections::BTreeSet<_>>()
        };
        let (train, heldout) = (images(&summary.train), images(&summary.heldout));
        assert_eq!((train.len(), heldout.len()), (60, 60));
        assert!(train.is_disjoint(&heldout));
    }

    #[test]
    fn a_folder_with_other_files_is_refused_and_a_second_run_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write_demo(folder.path(), &SMALL).unwrap();
        fs::write(folder.path().join("train-00000.tar.tmp"), "left of a killed run").unwrap();
        write_demo(folder.path(), &SMALL).unwrap();
        assert!(!folder.path().join("train-00000.tar.tmp").exists());
        let fewer = DemoConfig { scenes_train: 3, ..SMALL };
        let error = write_demo(folder.path(), &fewer).unwrap_err();
        assert!(error.to_string().contains("train-00001.tar"), "{error}");
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let wrong = DemoConfig { side_px: 31, ..SMALL };
        let error = write_demo(Path::new("/nowhere"), &wrong).unwrap_err();
        assert_eq!(error.to_string(), "`side_px` is 31, expected 32 to 512");
        let wrong = DemoConfig { scenes_per_shard: 0, ..SMALL };
        let error = write_demo(Path::new("/nowhere"), &wrong).unwrap_err();
        assert_eq!(error.to_string(), "`scenes_per_shard` is 0, expected 1 to 1000000");
    }
}
