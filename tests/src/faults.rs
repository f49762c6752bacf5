//! Jobs that are killed or run out of disk, and what the next start makes of the rest.
//!
//! In: how many times, a seed. Out: counts, at which stages it struck. Every time the output must
//! equal that of a job that nobody disturbed, file by file, by hash. `tests/faults.rs` does it a
//! few times, `benches/robustness.sh` 200 times. Never: kills a process that it did not start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stages::{Symbols, stages_of};
use crate::{picture, program, shard};

/// Why a trial did not end as it must.
pub type Failure = Box<dyn std::error::Error>;

/// Paths below a data set, with the hash of each file.
type Hashes = BTreeMap<String, blake3::Hash>;

/// How often the folder of a job is looked at by a kill that waits for something to appear.
const LOOK: Duration = Duration::from_micros(200);

/// What a kill waits for, where it does not wait for a time: steps of a job that take milliseconds.
const AIMS: [&str; 5] = ["receipts/", ".tmp in receipts/", "manifest/", "README.md", "sources/"];

/// SplitMix64: moments need no better one.
pub struct Moments(u64);

impl Moments {
    /// The moments of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A job whose undisturbed output is known.
pub struct Job {
    folder: PathBuf,
    expected: Hashes,
    shards: usize,
    /// Seconds that the undisturbed job took.
    pub secs: f64,
    /// Bytes of its output.
    pub output_bytes: u64,
}

impl Job {
    /// Draws shards into `folder` and prepares them once, undisturbed.
    ///
    /// # Errors
    ///
    /// If the job does not end well.
    pub fn draw(
        folder: &Path,
        shards: usize,
        samples: usize,
        side_px: u32,
    ) -> Result<Self, Failure> {
        // Few pictures under many keys: drawing is not what is tested.
        let pictures: Vec<_> =
            (0..16).map(|i| picture(i, side_px + u32::from(i), side_px)).collect();
        for number in 0..shards {
            let files = (0..samples).flat_map(|i| {
                let jpeg = pictures[(number * 7 + i) % pictures.len()].clone();
                let text = format!("two dogs and a cat on the beach of {number} near tree {i}");
                [(format!("{i:05}.jpg"), jpeg), (format!("{i:05}.txt"), text.into_bytes())]
            });
            std::fs::write(
                folder.join(format!("s-{number:02}.tar")),
                shard(&files.collect::<Vec<_>>()),
            )?;
        }
        let mut job = Self {
            folder: folder.into(),
            expected: Hashes::new(),
            shards,
            secs: 0.0,
            output_bytes: 0,
        };
        let start = Instant::now();
        job.finish("whole", 2)?;
        job.secs = start.elapsed().as_secs_f64();
        job.expected = hashes(&job.folder.join("whole"))?;
        for name in job.expected.keys() {
            job.output_bytes += std::fs::metadata(job.folder.join("whole").join(name))?.len();
        }
        Ok(job)
    }

    fn arguments(&self, output: &Path, threads: u64) -> Vec<String> {
        let input = self.folder.join("s-*.tar");
        [
            "run",
            "--quiet",
            "--input",
            &input.to_string_lossy(),
            "--output",
            &output.to_string_lossy(),
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(
            ["image.short_side_px=256", "image.rows_per_group=16"]
                .map(String::from)
                .into_iter()
                .flat_map(|s| ["--set".to_owned(), s]),
        )
        .chain(["--set".to_owned(), format!("runtime.threads={threads}")])
        .collect()
    }

    fn start(&self, output: &str, threads: u64) -> Result<Child, Failure> {
        let arguments = self.arguments(&self.folder.join(output), threads);
        let mut command = program("catlip-prep");
        Ok(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    fn finish(&self, output: &str, threads: u64) -> Result<(), Failure> {
        let status = self.start(output, threads)?.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("the job into {output} ended with {status}").into()),
        }
    }

    /// Every file must be there, whole, under its name; what a killed job left under temporary
    /// names may lie about.
    fn compare(&self, found: &Hashes, all: bool) -> Result<(), Failure> {
        let differ = |name: &&String| found.get(*name) != self.expected.get(*name);
        let expected = self.expected.keys().filter(|_| all);
        let names: Vec<_> = found.keys().chain(expected).filter(differ).collect();
        match names.is_empty() {
            true => Ok(()),
            false => Err(format!("these files differ: {names:?}").into()),
        }
    }
}

/// Files below `folder`, but for temporary ones, with their hashes.
fn hashes(folder: &Path) -> Result<Hashes, Failure> {
    let mut hashes = Hashes::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        if !at.is_dir() {
            continue;
        }
        for path in std::fs::read_dir(at)?.map(|entry| Ok::<_, Failure>(entry?.path())) {
            let path = path?;
            let name = path.strip_prefix(folder)?.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.ends_with(".tmp") {
                hashes.insert(name, blake3::hash(&std::fs::read(path)?));
            }
        }
    }
    Ok(hashes)
}

/// Whether what a kill waits for is there.
fn is_there(output: &Path, aim: &str) -> bool {
    let has_file = |folder: &str, suffix: &str| {
        let entries = std::fs::read_dir(output.join(folder)).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(suffix))
    };
    match aim {
        ".tmp in receipts/" => has_file("receipts", ".tmp"),
        "sources/" | "manifest/" => has_file(aim, "json"),
        _ => output.join(aim).exists(),
    }
}

/// Kills a job `kills` times, each time at another moment, and lets it go on; gives the counts.
/// A job that went on is killed again until it comes to its end, as on a bad day.
///
/// # Errors
///
/// If a file under its final name is not whole after a kill, if the output in the end differs from
/// that of an undisturbed job, or if a job does not go on.
pub fn kills(job: &Job, kills: u64, seed: u64) -> Result<Value, Failure> {
    let mut moments = Moments::new(seed);
    let symbols = Symbols::of_program("catlip-prep")?;
    let mut by_stage: BTreeMap<&str, u64> = BTreeMap::new();
    let mut by_tenth = [0_u64; 10];
    let (mut done, mut lives) = (0, 0);
    while done < kills {
        let output = job.folder.join("killed");
        loop {
            // One in eight waits for a step that is too short to be met by chance.
            let aim = (done % 8 == 7).then(|| AIMS[(done / 8) as usize % AIMS.len()]);
            let at = Duration::from_secs_f64(moments.unit() * 0.4 * job.secs);
            let child = job.start("killed", 1 + done % 3)?;
            let before = receipts(&output);
            let Some(stages) = kill_at(child, &output, at, aim, before, &symbols)? else { break };
            done += 1;
            for stage in stages {
                *by_stage.entry(stage).or_default() += 1;
            }
            by_tenth[(receipts(&output) * 10 / (job.shards + 1)).min(9)] += 1;
            // What is under a final name is whole, before anybody mends anything.
            let wrong = |e| format!("seed {seed}, after kill {done}: {e}");
            job.compare(&hashes(&output)?, false).map_err(wrong)?;
            if done == kills {
                job.finish("killed", 2)?;
                break;
            }
        }
        lives += 1;
        let wrong = |e| format!("seed {seed}, at the end, after kill {done}: {e}");
        job.compare(&hashes(&output)?, true).map_err(wrong)?;
        std::fs::remove_dir_all(&output)?;
    }
    Ok(json!({
        "kills": done,
        "jobs_that_came_to_their_end": lives,
        "outputs_that_differ": 0,
        "undisturbed_job_secs": (job.secs * 10.0).round() / 10.0,
        "kills_with_a_thread_in_stage": by_stage,
        "kills_by_tenth_of_the_job": by_tenth,
        "seed": seed,
    }))
}

/// Parts of a job that are whole.
fn receipts(output: &Path) -> usize {
    let entries = std::fs::read_dir(output.join("receipts")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("part-")).count()
}

/// Kills a job at a time or at what it waits for: the stages that its threads were in, or nothing
/// if it came to its end before.
fn kill_at(
    mut child: Child,
    output: &Path,
    at: Duration,
    aim: Option<&str>,
    receipts_before: usize,
    symbols: &Symbols,
) -> Result<Option<BTreeSet<&'static str>>, Failure> {
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        let is_time = match aim {
            Some("receipts/") => receipts(output) > receipts_before,
            Some(aim) => is_there(output, aim),
            None => start.elapsed() >= at,
        };
        if is_time {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let mut stages = stages_of(&child, symbols)?;
    child.kill()?;
    let status = child.wait()?;
    if status.code().is_some() {
        return match status.success() {
            true => Ok(None),
            false => Err(format!("a job ended with {status}").into()),
        };
    }
    if stages.is_empty() {
        stages.insert("between stages");
    }
    Ok(Some(stages))
}

/// Runs a job on disks of random sizes that are too small, then makes them large enough; `None`
/// where this machine lets nobody mount a disk.
///
/// # Errors
///
/// If the error is not the one of a full disk, a file is not whole, or the job does not go on.
pub fn full_disks(job: &Job, times: u64, seed: u64) -> Result<Option<Value>, Failure> {
    const SCRIPT: &str = r#"
        set -u
        disk=$1 size=$2 kept=$3; shift 3
        mount -t tmpfs -o size="$size" tmpfs "$disk" || exit 77
        "$@" >/dev/null 2>"$kept/err"; echo $? >"$kept/code"
        mkdir "$kept/after"; [ ! -d "$disk/out" ] || cp -a "$disk/out/." "$kept/after"
        mount -o remount,size=1G "$disk" || exit 77
        "$@" >/dev/null || exit 1
        cp -a "$disk/out" "$kept/out"
    "#;
    let mut moments = Moments::new(seed);
    let mut by_file: BTreeMap<String, u64> = BTreeMap::new();
    for time in 0..times {
        let kept = tempfile::tempdir_in(&job.folder)?;
        let disk = kept.path().join("disk");
        std::fs::create_dir(&disk)?;
        let bytes = 65_536.0 + moments.unit() * (job.output_bytes as f64 * 0.95 - 65_536.0);
        let command = program("catlip-prep");
        let status = std::process::Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"])
            .args([&disk, Path::new(&format!("{}", bytes as u64)), kept.path()])
            .arg(command.get_program())
            .args(job.arguments(&disk.join("out"), 1 + time % 3))
            .stderr(Stdio::null())
            .status();
        let status = match status {
            Ok(status)
                if !matches!(status.code(), Some(77)) && kept.path().join("code").exists() =>
            {
                status
            }
            _ if time == 0 => return Ok(None),
            other => return Err(format!("a disk could not be mounted: {other:?}").into()),
        };
        let told = std::fs::read_to_string(kept.path().join("err"))?;
        let code = std::fs::read_to_string(kept.path().join("code"))?;
        let wrong = |what: &str| {
            Failure::from(format!("seed {seed}, disk {time} of {bytes:.0} bytes: {what}: {told}"))
        };
        if code.trim() != "8" || !told.contains("no space is left on the disk of") {
            return Err(wrong(&format!("exit code {}", code.trim())));
        }
        job.compare(&hashes(&kept.path().join("after"))?, false)
            .map_err(|e| wrong(&e.to_string()))?;
        if !status.success() {
            return Err(wrong("it did not go on when there was room"));
        }
        job.compare(&hashes(&kept.path().join("out"))?, true).map_err(|e| wrong(&e.to_string()))?;
        // Which folder the file stands in for which there was no room.
        let folder = told.split("/out/").nth(1).and_then(|rest| rest.split(['/', '`', ' ']).next());
        *by_file.entry(folder.unwrap_or("the data set's folder").to_owned()).or_default() += 1;
    }
    Ok(Some(json!({
        "full_disks": times,
        "outputs_that_differ": 0,
        "no_room_for_a_file_in": by_file,
        "seed": seed,
    })))
}
