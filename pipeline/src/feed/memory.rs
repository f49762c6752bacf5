//! Compressed row groups within a limit of bytes; what is beyond lies in one file on the disk.
//!
//! In: the bytes of a row group. Out: [`Held`] bytes, from which images are read; dropping it gives
//! the room back, and the buffer to the next group: a new one of several MB costs a page fault for
//! each 4 kB of it and is zeroed twice. Never: waits for room, so that no thread can wait for
//! another; holds more than the limit in groups and spare buffers together; leaves a file behind,
//! since the spill file has no name.

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
    spares: Mutex<Spares>,
}

/// Buffers of groups that were dropped.
#[derive(Debug, Default)]
struct Spares {
    buffers: Vec<Vec<u8>>,
    bytes: u64,
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
    /// Bytes in memory now, without spare buffers.
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
    /// That it takes: of the buffer, or of the file.
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
        let (spill, spares) = Default::default();
        Arc::new(Self { limit, dir, used, used_max, spilled, spill, spares })
    }

    /// A buffer for `bytes`, with anything in it: the smallest spare one that is large enough, else
    /// an empty one.
    pub fn buffer(&self, bytes: u64) -> Vec<u8> {
        let mut spares = self.spares.lock().unwrap_or_else(|e| e.into_inner());
        let capacities = spares.buffers.iter().map(Vec::capacity).enumerate();
        let fitting = capacities.filter(|&(_, capacity)| capacity as u64 >= bytes);
        let fitting = fitting.min_by_key(|&(_, capacity)| capacity).map(|(index, _)| index);
        fitting.map(|index| spares.take(index)).unwrap_or_default()
    }

    /// Keeps a buffer for a later group, if groups and spares leave room for it.
    pub fn spare(&self, buffer: Vec<u8>) {
        let bytes = buffer.capacity() as u64;
        let mut spares = self.spares.lock().unwrap_or_else(|e| e.into_inner());
        if bytes > 0 && self.used.load(Ordering::Acquire) + spares.bytes + bytes <= self.limit {
            spares.bytes += bytes;
            spares.buffers.push(buffer);
        }
    }

    /// Lets spares go until they and the groups are within the limit.
    fn shrink_spares(&self) {
        let mut spares = self.spares.lock().unwrap_or_else(|e| e.into_inner());
        let used = self.used.load(Ordering::Acquire);
        while used + spares.bytes > self.limit && !spares.buffers.is_empty() {
            spares.take(0);
        }
    }

    /// Keeps `bytes`.
    ///
    /// # Errors
    ///
    /// [`SpillError`] if they had to be spilled and could not be.
    pub fn keep(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Held, SpillError> {
        let (taken, memory) = (bytes.capacity() as u64, self.clone());
        let fits = |used: u64| Some(used + taken).filter(|&used| used <= self.limit);
        if let Ok(before) = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            self.used_max.fetch_max(before + taken, Ordering::Relaxed);
            self.shrink_spares();
            return Ok(Held { place: Place::Memory(bytes), bytes: taken, memory });
        }
        let count = bytes.len() as u64;
        let (file, at) = self.take_extent(count)?;
        let held = Held { place: Place::Disk(file.clone(), at), bytes: count, memory };
        file.write_all_at(&bytes, at).map_err(|e| self.wrong("write", count, &e))?;
        self.spilled.fetch_add(count, Ordering::Relaxed);
        self.spare(bytes);
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

impl Spares {
    fn take(&mut self, index: usize) -> Vec<u8> {
        let buffer = self.buffers.swap_remove(index);
        self.bytes -= buffer.capacity() as u64;
        buffer
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match &mut self.place {
            Place::Memory(bytes) => {
                self.memory.used.fetch_sub(self.bytes, Ordering::AcqRel);
                self.memory.spare(std::mem::take(bytes));
            }
            Place::Disk(_, at) => self.memory.give_extent(*at, self.bytes),
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
    fn the_buffer_of_a_dropped_group_is_the_next_ones_within_the_limit() {
        let memory = Memory::new(10, PathBuf::new());
        let (small, large) = (memory.keep(vec![1; 3]).unwrap(), memory.keep(vec![2; 6]).unwrap());
        drop((small, large));
        assert_eq!((memory.buffer(4), memory.buffer(4)), (vec![2; 6], Vec::new()));
        assert_eq!(memory.buffer(2), [1; 3]);
        // A group that needs the room of a spare buffer has it.
        drop(memory.keep(vec![3; 6]).unwrap());
        let held = memory.keep(vec![4; 8]).unwrap();
        assert_eq!((memory.stats().spilled_bytes, memory.buffer(1)), (0, Vec::new()));
        drop(held);
        assert_eq!(memory.buffer(1), [4; 8]);
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
            prop_assert!(memory.spares.lock().unwrap().bytes <= 40);
            let spill = memory.spill.lock().unwrap();
            prop_assert_eq!((memory.stats().used_bytes, spill.end, spill.free.len()), (0, 0, 0));
        }
    }
}
