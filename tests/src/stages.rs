//! What the threads of a running program do just now, told from outside.
//!
//! In: a child process, stopped for the look. Out: the stages of the line that its threads are in:
//! by the system call that a thread stands in, else by the first return address on its stack that
//! belongs to a stage. A guess good enough for a histogram. Never: changes the child.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::faults::Failure;
use crate::program;

/// Bytes of a stack that are looked through.
const STACK_BYTES: usize = 32 << 10;

/// What functions are called in each stage; the first that fits counts.
const STAGES: [(&str, &[&str]); 11] = [
    (
        "decode",
        &[
            "decode_mcu",
            "jsimd_idct",
            "decompress_onepass",
            "image::jpeg::decode",
            "image::decode::",
            "image::header",
        ],
    ),
    ("resize", &["fast_image_resize", "image::resize"]),
    (
        "encode",
        &[
            "encode_mcu",
            "jsimd_huff",
            "jsimd_fdct",
            "forward_DCT",
            "compress_data",
            "image::jpeg::encode",
            "image::jpeg::planes::encode",
        ],
    ),
    ("captions to synsets", &["catlip_pipeline::caption::"]),
    ("hash what was written", &["columns::fingerprint"]),
    ("receipt", &["run::write_receipt"]),
    ("snapshot", &["prep::change::", "prep::join::"]),
    ("write columns", &["parquet::", "columns::ColumnWriter", "prep::commit::"]),
    ("tar to samples", &["source::tar", "source::sample", "source::bytes"]),
    (
        "list and number shards",
        &["prep::work::", "prep::numbers::", "source::list::", "source::spool"],
    ),
    ("start and end", &["catlip_prep::main", "catlip_pipeline::cli::"]),
];

/// System calls that are a stage of their own, by their numbers on x86-64.
const CALLS: [(&str, &[&str]); 3] = [
    ("fsync", &["74", "75"]),
    ("rename, link or remove", &["82", "86", "87", "264", "265", "316", "263"]),
    ("write", &["1", "18", "20"]),
];

/// Functions of a program by address.
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads those of one of our programs; none where `nm` is missing.
    ///
    /// # Errors
    ///
    /// If its output is not understood.
    pub fn of_program(name: &str) -> Result<Self, Failure> {
        let path = program(name);
        let Ok(output) = Command::new("nm")
            .args(["-C", "-n", "--defined-only"])
            .arg(path.get_program())
            .output()
        else {
            return Ok(Self(Vec::new()));
        };
        let mut symbols = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let mut words = line.splitn(3, ' ');
            if let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
            {
                symbols.push((u64::from_str_radix(address, 16)?, name.to_owned()));
            }
        }
        Ok(Self(symbols))
    }

    fn stage(&self, offset: u64) -> Option<&'static str> {
        let at = self.0.partition_point(|(address, _)| *address <= offset).checked_sub(1)?;
        let name = &self.0[at].1;
        let fits = |names: &&[&str]| names.iter().any(|part| name.contains(part));
        STAGES.iter().find(|(_, names)| fits(names)).map(|(stage, _)| *stage)
    }
}

/// Stops the child and tells in which stages its threads are; nothing if it has ended.
///
/// # Errors
///
/// If `kill` is missing.
pub fn stages_of(child: &Child, symbols: &Symbols) -> Result<BTreeSet<&'static str>, Failure> {
    let id = child.id().to_string();
    let mut stages = BTreeSet::new();
    Command::new("kill").args(["-STOP", &id]).stderr(Stdio::null()).status()?;
    let state = |id: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
    };
    for _ in 0..100 {
        if !matches!(state(&id), Some('R' | 'S' | 'D')) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).unwrap_or_default();
    let name = program("catlip-prep").get_program().to_string_lossy().into_owned();
    let base =
        maps.lines().find(|line| line.ends_with(&name)).and_then(|line| line.split('-').next());
    let Some(base) = base.and_then(|base| u64::from_str_radix(base, 16).ok()) else {
        return Ok(stages);
    };
    let memory = File::open(format!("/proc/{id}/mem"));
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let call = std::fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        let words: Vec<&str> = call.split_whitespace().collect();
        let [number, .., stack, at] = words[..] else { continue };
        if let Some((stage, _)) = CALLS.iter().find(|(_, numbers)| numbers.contains(&number)) {
            stages.insert(*stage);
        }
        let number_of =
            |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0);
        // Who waits for others on a futex is in no stage; the first thread waits all the time.
        if number == "202" {
            continue;
        }
        let mut words = vec![0; STACK_BYTES];
        let read = memory.as_ref().ok().and_then(|m| m.read_at(&mut words, number_of(stack)).ok());
        let on_stack =
            words[..read.unwrap_or(0)].as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w));
        let addresses = std::iter::once(number_of(at)).chain(on_stack);
        let offsets = addresses.filter_map(|address| address.checked_sub(base));
        stages.extend(offsets.filter_map(|offset| symbols.stage(offset)).next());
    }
    Ok(stages)
}
