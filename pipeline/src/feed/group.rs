//! One row group of images, read by one ranged read and cut into images without a footer.
//!
//! In: object, offset, bytes and checksum of a row group. Out: its compressed images and sample
//! ids. Follows FORMAT.md: two columns, each one plain, uncompressed version-1 data page.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use catlip_schemas::RowGroup;
use catlip_schemas::key::{SAMPLE_ID_BYTES, SampleId};

use super::memory::{Held, Memory, SpillError};
use super::source::{Ranges, Sources};
use crate::error::PrepError;

/// Why a row group cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError {
    /// The object cannot be read there.
    #[error("cannot read {bytes} bytes at {offset} of {path}: {message}")]
    Read {
        /// The file or URL.
        path: String,
        /// Offset of the group.
        offset: u64,
        /// Bytes of the group.
        bytes: u64,
        /// What the system or store says, with its causes.
        message: String,
    },
    /// The bytes are not those that were written.
    #[error("{path}: the row group at {offset} has CRC-32C {found:08x}, expected {expected:08x}")]
    Checksum {
        /// The file or URL.
        path: String,
        /// Offset of the group.
        offset: u64,
        /// Of the bytes that were read.
        found: u32,
        /// Of the manifest.
        expected: u32,
    },
    /// The bytes are not laid out as FORMAT.md says.
    #[error("{path}: the row group at {offset} is not laid out as the format says: {message}")]
    Layout {
        /// The file or URL.
        path: String,
        /// Offset of the group.
        offset: u64,
        /// What differs.
        message: String,
    },
    /// A source shard is not the one that the data set was made from.
    #[error("shard {shard} has {found}; the data set was made from one of {expected}")]
    Shard {
        /// Its file or URL.
        shard: String,
        /// Length and ETag now.
        found: String,
        /// Length and ETag then.
        expected: String,
    },
    /// Beyond the limit of memory, and the disk failed.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// The data set does not say where the images are.
    #[error("{0}")]
    Data(Arc<PrepError>),
}

impl GroupError {
    /// A read that failed, with all causes of `error`.
    pub(super) fn read(
        path: String,
        offset: u64,
        bytes: u64,
        error: &dyn std::error::Error,
    ) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        Self::Read { path, offset, bytes, message }
    }
}

/// The images of a row group.
#[derive(Debug)]
pub struct GroupImages {
    held: Held,
    ids: Vec<SampleId>,
    images: Vec<Range<u32>>,
    /// Of the images, where only they tell that the bytes are those that were prepared.
    hashes: Option<Vec<[u8; 16]>>,
}

/// What a group of `images` is cut into.
struct Cut {
    ids: Vec<SampleId>,
    images: Vec<Range<u32>>,
}

impl GroupImages {
    /// Reads the group `entry` of the object `name` of `files`.
    ///
    /// # Errors
    ///
    /// A [`GroupError`] with the object and offset.
    pub fn read(
        files: &dyn Ranges,
        name: &str,
        entry: &RowGroup,
        memory: &Arc<Memory>,
    ) -> Result<Self, GroupError> {
        let path = || format!("{}/{name}", files.place());
        let offset = entry.offset;
        let bytes = files
            .read(name, offset..offset + entry.bytes, memory.buffer(entry.bytes))
            .map_err(|error| GroupError::read(path(), offset, entry.bytes, &error))?;
        let (found, expected) = (crc32c::crc32c(&bytes), entry.crc32c);
        if found != expected {
            return Err(GroupError::Checksum { path: path(), offset, found, expected });
        }
        let Cut { ids, images } = cut(&bytes, entry.rows)
            .map_err(|message| GroupError::Layout { path: path(), offset, message })?;
        Ok(Self { held: memory.keep(bytes)?, ids, images, hashes: None })
    }

    /// A group put together from images that lie elsewhere.
    pub(super) fn of_images(
        bytes: Vec<u8>,
        ids: Vec<SampleId>,
        images: Vec<Range<u32>>,
        hashes: Vec<[u8; 16]>,
        memory: &Arc<Memory>,
    ) -> Result<Self, GroupError> {
        Ok(Self { held: memory.keep(bytes)?, ids, images, hashes: Some(hashes) })
    }

    /// The compressed image of a row of the group; `buffer` is used where it lies on the disk.
    ///
    /// # Errors
    ///
    /// [`SpillError`].
    pub fn image<'b>(&'b self, row: u32, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], SpillError> {
        let range = &self.images[row as usize];
        self.held.read(range.start as usize, range.end as usize, buffer)
    }

    /// The sample id of a row of the group.
    pub fn sample_id(&self, row: u32) -> SampleId {
        self.ids[row as usize]
    }

    /// The hash that the image of a row must have, where no checksum covers it.
    pub fn image_hash(&self, row: u32) -> Option<[u8; 16]> {
        self.hashes.as_ref().map(|hashes| hashes[row as usize])
    }
}

fn cut(bytes: &[u8], rows: u32) -> Result<Cut, String> {
    let ids = plain_page(bytes, 0, rows)?;
    if ids.len() != rows as usize * SAMPLE_ID_BYTES {
        return Err(format!("{} bytes of sample ids for {rows} rows", ids.len()));
    }
    let page = plain_page(bytes, ids.end, rows)?;
    if page.end != bytes.len() {
        return Err(format!("{} bytes behind the images", bytes.len() - page.end));
    }
    let mut images = Vec::with_capacity(rows as usize);
    let mut at = page.start;
    for row in 0..rows {
        let length = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let length = length.ok_or_else(|| format!("no length of image {row}"))? as usize;
        at += 4;
        if length > page.end - at {
            return Err(format!("image {row} of {length} bytes ends behind its page"));
        }
        images.push(at as u32..(at + length) as u32);
        at += length;
    }
    if at != page.end {
        return Err(format!("{} bytes behind the last image", page.end - at));
    }
    let (ids, _) = bytes[ids].as_chunks::<SAMPLE_ID_BYTES>();
    Ok(Cut { ids: ids.iter().copied().map(SampleId).collect(), images })
}

/// The values of the data page whose header begins at `at`.
fn plain_page(bytes: &[u8], at: usize, rows: u32) -> Result<Range<usize>, String> {
    let mut header = Compact { bytes: bytes.get(at..).unwrap_or(&[]), at: 0 };
    let page = header.page_header()?;
    let start = at + header.at;
    if page.kind != 0 || page.encoding != 0 {
        return Err(format!(
            "page type {} of encoding {}, expected 0, 0",
            page.kind, page.encoding
        ));
    }
    if page.values != i64::from(rows) {
        return Err(format!("a page of {} values, expected {rows}", page.values));
    }
    if page.size != page.compressed_size {
        return Err("a compressed page".to_owned());
    }
    let size = usize::try_from(page.size).map_err(|_| "a page of negative size".to_owned())?;
    if size > bytes.len() - start {
        return Err(format!("a page of {size} bytes ends behind the row group"));
    }
    Ok(start..start + size)
}

/// What matters of Parquet's `PageHeader`.
#[derive(Debug, Default)]
struct PageHeader {
    kind: i64,
    size: i64,
    compressed_size: i64,
    values: i64,
    encoding: i64,
}

/// Thrift's compact protocol, as far as page headers go.
struct Compact<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Compact<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let byte = self.bytes.get(self.at).copied().ok_or("a page header that ends early")?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits".to_owned())
    }

    fn int(&mut self) -> Result<i64, String> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Field id and type, or `None` at the end of a struct.
    fn field(&mut self, last: i64) -> Result<Option<(i64, u8)>, String> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let delta = i64::from(byte >> 4);
        let id = if delta == 0 { self.int()? } else { last + delta };
        Ok(Some((id, byte & 0x0f)))
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Result<(), String> {
        // Page headers nest three deep; a limit keeps hostile bytes from exhausting the stack.
        if depth == 0 {
            return Err("a page header that nests too deep".to_owned());
        }
        match kind {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.int()?),
            7 => self.at += 8,
            8 => {
                let length = self.varint()?;
                self.at = self.at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            }
            12 => {
                let mut last = 0;
                while let Some((id, kind)) = self.field(last)? {
                    self.skip(kind, depth - 1)?;
                    last = id;
                }
            }
            other => return Err(format!("a field of type {other} in a page header")),
        }
        Ok(())
    }

    fn page_header(&mut self) -> Result<PageHeader, String> {
        const DEPTH_MAX: u8 = 8;
        let mut header = PageHeader { kind: -1, encoding: -1, ..PageHeader::default() };
        let mut last = 0;
        while let Some((id, kind)) = self.field(last)? {
            last = id;
            match (id, kind) {
                (1, 5) => header.kind = self.int()?,
                (2, 5) => header.size = self.int()?,
                (3, 5) => header.compressed_size = self.int()?,
                (5, 12) => {
                    let mut inner = 0;
                    while let Some((id, kind)) = self.field(inner)? {
                        inner = id;
                        match (id, kind) {
                            (1, 5) => header.values = self.int()?,
                            (2, 5) => header.encoding = self.int()?,
                            (_, kind) => self.skip(kind, DEPTH_MAX)?,
                        }
                    }
                }
                (_, kind) => self.skip(kind, DEPTH_MAX)?,
            }
        }
        Ok(header)
    }
}

/// A row group that is read when it is first needed, by whoever needs it first.
#[derive(Debug)]
pub struct GroupHandle {
    sources: Sources,
    part: u32,
    group: u32,
    memory: Arc<Memory>,
    images: OnceLock<Result<Arc<GroupImages>, GroupError>>,
}

impl GroupHandle {
    /// Names row group `group` of a part; reads nothing.
    pub fn new(sources: Sources, part: u32, group: u32, memory: Arc<Memory>) -> Self {
        Self { sources, part, group, memory, images: OnceLock::new() }
    }

    /// The part, in the numbers of all sources.
    pub fn part(&self) -> u32 {
        self.part
    }

    /// The images; the first call reads them, others wait for it.
    ///
    /// # Errors
    ///
    /// The [`GroupError`] of the one reading.
    pub fn images(&self) -> Result<&Arc<GroupImages>, GroupError> {
        let read = || {
            let (source, part) = self.sources.part(self.part);
            source.read_group(part, self.group, &self.memory).map(Arc::new)
        };
        self.images.get_or_init(read).as_ref().map_err(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), rows in 0u32..5,
        ) {
            let _ = cut(&bytes, rows);
        }
    }
}
