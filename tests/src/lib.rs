//! What the tests share. The tests themselves stand in `tests/tests/`, one file per subject.

pub mod faults;
pub mod servers;
pub mod stages;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use catlip_pipeline::image::Image;
use catlip_pipeline::image::jpeg::{Chroma, encode};

/// The program `name` that stands beside this one, or one folder above, as tests have it: where
/// `cargo build --bins` puts it.
///
/// # Panics
///
/// If it is not there.
pub fn program(name: &str) -> Command {
    let exe = std::env::current_exe().unwrap_or_default();
    let mut folders = exe.ancestors().skip(1).take(2);
    let Some(path) = folders.find_map(|at| Some(at.join(name)).filter(|path| path.is_file()))
    else {
        panic!("{name} is not built: cargo build --bins");
    };
    Command::new(path)
}

/// A program of a Python that has PyTorch, timm and Transformers, where `CATLIP_PEERS` says; none,
/// and a line that says so, where it is not set: that is 3 GB, nothing that the set-up fetches.
pub fn peer(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("CATLIP_PEERS").filter(|folder| !folder.is_empty());
    if found.is_none() {
        println!("skipped: no {name} of PyTorch's (CATLIP_PEERS)");
    }
    Some(Path::new(&found?).join(name))
}

/// Runs a program to its end.
///
/// # Panics
///
/// If it cannot be started.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    match program(name).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("{name} does not start: {error}"),
    }
}

/// Exit code, standard output and standard error of a program that ran.
pub fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Prepares the demo's scenes in `dir`: data sets `train` of 96 rows and `heldout` of 32.
///
/// # Panics
///
/// If a program fails.
pub fn demo_data(dir: &Path) {
    let text = |name: &str| dir.join(name).display().to_string();
    let ok = |arguments: &[&str]| {
        let (code, out, err) = told(&run("catlip-prep", arguments));
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    };
    ok(&["demo-data", "--output", &text("shards"), "--scenes", "96", "--heldout", "32"]);
    for part in ["train", "heldout"] {
        let input = text(&format!("shards/{part}-*.tar"));
        ok(&["run", "--quiet", "--input", &input, "--output", &text(part)]);
    }
}

/// A folder that vanishes, with shards and data sets in it.
pub struct Place(tempfile::TempDir);

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// An empty folder.
    ///
    /// # Panics
    ///
    /// If the system has no room for it.
    pub fn new() -> Self {
        match tempfile::tempdir() {
            Ok(folder) => Self(folder),
            Err(error) => panic!("no temporary folder: {error}"),
        }
    }

    /// The path of a name in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file.
    ///
    /// # Panics
    ///
    /// If the system refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = std::fs::write(self.path(name), bytes) {
            panic!("{name}: {error}");
        }
    }

    /// Writes a shard and gives its bytes.
    pub fn shard(&self, name: &str, files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let bytes = shard(files);
        self.write(name, &bytes);
        bytes
    }

    /// Runs `catlip-prep` with a command: exit code, standard output, standard error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        told(&run("catlip-prep", arguments))
    }

    /// Runs `catlip-prep run` over `input`: exit code, standard output, standard error.
    pub fn prep(&self, input: &str, output: &str, more: &[&str]) -> (i32, String, String) {
        let (input, output) = (self.text(input), self.text(output));
        let mut arguments = vec!["run", "--quiet", "--input", &input, "--output", &output];
        arguments.extend(more);
        self.run(&arguments)
    }
}

/// A JPEG of a gradient that depends on `seed`.
///
/// # Panics
///
/// Never for sizes that libjpeg knows.
pub fn picture(seed: u8, width_px: u32, height_px: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| [x as u8 ^ seed, y as u8, seed];
    let pixels =
        (0..height_px).flat_map(|y| (0..width_px).flat_map(move |x| pixel(x, y))).collect();
    match encode(&Image { width_px, height_px, pixels }, 90, Chroma::Yuv420) {
        Ok(bytes) => bytes,
        Err(error) => panic!("{error}"),
    }
}

/// The bytes of a tar of these files.
///
/// # Panics
///
/// If the tar crate cannot write to memory.
pub fn shard(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let written = files.iter().try_for_each(|(name, data)| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &data[..])
    });
    match written.and_then(|()| builder.into_inner()) {
        Ok(bytes) => bytes,
        Err(error) => panic!("{error}"),
    }
}

/// Samples `first`, `first + 1`, … with a picture and a caption each.
pub fn samples(first: usize, count: usize, side_px: u32) -> Vec<(String, Vec<u8>)> {
    const CAPTIONS: [&str; 4] = ["a dog on a beach", "two cars", "a tree and a house", "the dog"];
    (first..first + count)
        .flat_map(|i| {
            [
                (format!("{i:05}.jpg"), picture(i as u8, side_px, side_px)),
                (format!("{i:05}.txt"), CAPTIONS[i % 4].as_bytes().to_vec()),
            ]
        })
        .collect()
}

/// Every file below `folder` with its bytes, sorted by name.
///
/// # Panics
///
/// If the folder cannot be read.
pub fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&at) else { panic!("{} is not there", at.display()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                files.push((name, bytes));
            }
        }
    }
    files.sort();
    files
}

/// Settings of a model that learns within a second, for runs over [`demo_data`].
pub const SMALL_MODEL: [&str; 8] = [
    "model.width=64",
    "model.depth=2",
    "model.heads=1",
    "model.positions=16",
    "model.patch_px=8",
    "train.image_px=32",
    "train.batch=16",
    "eval.min_positives=1",
];

/// The lines of a run's log without what differs between machines.
///
/// # Panics
///
/// If a line is no JSON object.
pub fn log_without_times(log: &[u8]) -> Vec<serde_json::Value> {
    const OF_MACHINE: [&str; 3] = ["goodput", "mfu", "slowest_rank"];
    let lines = log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let timeless = |line: &[u8]| match serde_json::from_slice(line) {
        Ok(serde_json::Value::Object(mut fields)) => {
            fields.retain(|key, _| {
                let is_time = key.ends_with("_secs") || key.ends_with("_per_sec");
                !is_time && !OF_MACHINE.contains(&key.as_str())
            });
            fields.into()
        }
        other => panic!("no line of a log: {other:?}"),
    };
    lines.map(timeless).collect()
}

/// Waits for programs whose standard error is piped: exit code and what each said.
///
/// # Panics
///
/// If the system loses one.
pub fn ends(programs: Vec<Child>) -> Vec<(Option<i32>, String)> {
    let end = |child: Child| match child.wait_with_output() {
        Ok(output) => (output.status.code(), told(&output).2),
        Err(error) => panic!("a program is lost: {error}"),
    };
    programs.into_iter().map(end).collect()
}

/// The folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
