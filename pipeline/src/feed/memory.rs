//! Compressed row groups within a limit of bytes; what is beyond lies in one file on the disk.
//!
//! In: the bytes of a row group. Out: [`Held`] bytes, from which images are read; dropping it gives
//! the room back. Never: waits for room, so that no thread can wait for another; leaves a file
//! behind, since the spill file has no name.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Why bytes could not be spilled or read back.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {verb} {bytes} bytes of row groups beyond feed.memory_bytes in `{dir}`: {message}")]
pub struct SpillError {
    /// What was tried.
    verb: &'static str,
    /// How many bytes.
    bytes: usize,
    /// `feed.spill_dir`.
    dir: PathBuf,
    /// What the system says.
    message: String,
}

/// The room for row groups.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    dir: PathBuf,
    used: AtomicU64,
    used_max: AtomicU64,
    spilled: AtomicU64,
    spill: Mutex<Spill>,
}

/// The spill file and which of its bytes are free.
#[derive(Debug, Default)]
struct Spill {
    file: Option<Arc<File>>,
    /// Free extents by offset, never side by side.
    free: BTreeMap<u64, u64>,
    end: u64,
}

/// What a [`Memory`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes in memory now.
    pub used_bytes: u64,
    /// The most that there were.
    pub used_bytes_max: u64,
    /// Bytes that went to the disk since the start.
    pub spilled_bytes: u64,
}

/// Bytes of a row group, in memory or on the disk.
#[derive(Debug)]
pub struct Held {
    place: Place,
    bytes: u64,
    memory: Arc<Memory>,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    Disk(Arc<File>, u64),
}

impl Memory {
    /// Room for `limit` bytes; the rest goes to a file in `dir`, or in the system's folder for
    /// temporary files if that is empty.
    pub fn new(limit: u64, dir: PathBuf) -> Arc<Self> {
        let (used, used_max, spilled) = Default::default();
        Arc::new(Self { limit, dir, used, used_max, spilled, spill: Mutex::default() })
    }

    /// Keeps `bytes`.
    ///
    /// # Errors
    ///
    /// [`SpillError`] if they had to be spilled and could not be.
    pub fn keep(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Held, SpillError> {
        let (count, memory) = (bytes.len() as u64, self.clone());
        let fits = |used: u64| Some(used + count).filter(|&used| used <= self.limit);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        if let Ok(before) = taken {
            self.used_max.fetch_max(before + count, Ordering::Relaxed);
            return Ok(Held { place: Place::Memory(bytes), bytes: count, memory });
        }
        let (file, at) = self.take_extent(count)?;
        let held = Held { place: Place::Disk(file.clone(), at), bytes: count, memory };
        file.write_all_at(&bytes, at).map_err(|e| self.wrong("write", count, &e))?;
        self.spilled.fetch_add(count, Ordering::Relaxed);
        Ok(held)
    }

    /// What it has done.
    pub fn stats(&self) -> MemoryStats {
        MemoryStats {
            used_bytes: self.used.load(Ordering::Relaxed),
            used_bytes_max: self.used_max.load(Ordering::Relaxed),
            spilled_bytes: self.spilled.load(Ordering::Relaxed),
        }
    }

    fn wrong(&self, verb: &'static str, bytes: u64, error: &std::io::Error) -> SpillError {
        let (dir, message) = (self.dir.clone(), error.to_string());
        SpillError { verb, bytes: bytes as usize, dir, message }
    }

    /// The first free extent that is large enough, or new room at the end.
    fn take_extent(&self, count: u64) -> Result<(Arc<File>, u64), SpillError> {
        let mut spill = self.spill.lock().unwrap_or_else(|e| e.into_inner());
        let file = match &spill.file {
            Some(file) => file.clone(),
            None => {
                let file = match self.dir.as_os_str().is_empty() {
                    true => tempfile::tempfile(),
                    false => tempfile::tempfile_in(&self.dir),
                };
                let file = Arc::new(file.map_err(|e| self.wrong("write", count, &e))?);
                spill.file = Some(file.clone());
                file
            }
        };
        let fitting = spill.free.iter().find(|&(_, &bytes)| bytes >= count);
        let at = match fitting.map(|(&at, &bytes)| (at, bytes)) {
            Some((at, bytes)) => {
                spill.free.remove(&at);
                if bytes > count {
                    spill.free.insert(at + count, bytes - count);
                }
                at
            }
            None => {
                spill.end += count;
                spill.end - count
            }
        };
        Ok((file, at))
    }

    fn give_extent(&self, mut at: u64, mut count: u64) {
        let mut spill = self.spill.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((&before, &bytes)) = spill.free.range(..at).next_back()
            && before + bytes == at
        {
            spill.free.remove(&before);
            (at, count) = (before, count + bytes);
        }
        if let Some(bytes) = spill.free.remove(&(at + count)) {
            count += bytes;
        }
        if at + count == spill.end {
            spill.end = at;
        } else if count > 0 {
            spill.free.insert(at, count);
        }
    }
}

impl Held {
    /// Bytes `from..to`; those on the disk are read into `buffer`.
    ///
    /// # Errors
    ///
    /// [`SpillError`] if the disk fails.
    pub fn read<'b>(
        &'b self,
        from: usize,
        to: usize,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], SpillError> {
        match &self.place {
            Place::Memory(bytes) => Ok(&bytes[from..to]),
            Place::Disk(file, at) => {
                buffer.resize(to - from, 0);
                let read = file.read_exact_at(buffer, at + from as u64);
                read.map_err(|e| self.memory.wrong("read", (to - from) as u64, &e))?;
                Ok(buffer)
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.place {
            Place::Memory(_) => drop(self.memory.used.fetch_sub(self.bytes, Ordering::AcqRel)),
            Place::Disk(_, at) => self.memory.give_extent(at, self.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_is_spilled_and_reads_the_same() {
        let memory = Memory::new(5, PathBuf::new());
        let (a, b) = (memory.keep(vec![1, 2, 3, 4]).unwrap(), memory.keep(vec![5, 6, 7]).unwrap());
        let mut buffer = Vec::new();
        assert_eq!(a.read(1, 3, &mut buffer).unwrap(), [2, 3]);
        assert_eq!(b.read(1, 3, &mut buffer).unwrap(), [6, 7]);
        let expected = MemoryStats { used_bytes: 4, used_bytes_max: 4, spilled_bytes: 3 };
        assert_eq!(memory.stats(), expected);
        drop(a);
        assert_eq!(memory.stats().used_bytes, 0);
    }

    #[test]
    fn a_spill_folder_that_is_not_there_is_named() {
        let memory = Memory::new(0, "/nowhere/at/all".into());
        let error = memory.keep(vec![1]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all") && error.contains("1 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn extents_never_overlap_and_all_come_back(
            actions in prop::collection::vec((1usize..50, any::<prop::sample::Index>()), 1..60),
        ) {
            let memory = Memory::new(40, PathBuf::new());
            let mut held: Vec<(u8, usize, Held)> = Vec::new();
            for (n, (count, which)) in actions.into_iter().enumerate() {
                if n % 3 == 2 {
                    held.remove(which.index(held.len()));
                } else {
                    held.push((n as u8, count, memory.keep(vec![n as u8; count]).unwrap()));
                }
                for (value, count, bytes) in &held {
                    let mut buffer = Vec::new();
                    let read = bytes.read(0, *count, &mut buffer).unwrap();
                    prop_assert!(read.iter().all(|byte| byte == value));
                }
            }
            drop(held);
            let spill = memory.spill.lock().unwrap();
            prop_assert_eq!((memory.stats().used_bytes, spill.end, spill.free.len()), (0, 0, 0));
        }
    }
}
