//! One row group of `images`, read by one ranged read and cut into images without a footer.
//!
//! In: folder, name, offset, bytes and checksum of a row group. Out: its compressed images and
//! sample ids. Follows FORMAT.md: two columns, each one plain, uncompressed version-1 data page.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use catlip_schemas::RowGroup;
use catlip_schemas::key::{SAMPLE_ID_BYTES, SampleId};

use crate::prep::Folder;

/// Why a row group cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError {
    /// The file cannot be read there.
    #[error("cannot read {bytes} bytes at {offset} of {path}: {message}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Offset of the group.
        offset: u64,
        /// Bytes of the group.
        bytes: u64,
        /// What the system or store says.
        message: String,
    },
    /// The bytes are not those that were written.
    #[error("{path}: the row group at {offset} has CRC-32C {found:08x}, expected {expected:08x}")]
    Checksum {
        /// The file.
        path: PathBuf,
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
        /// The file.
        path: PathBuf,
        /// Offset of the group.
        offset: u64,
        /// What differs.
        message: String,
    },
}

/// The images of a row group, in memory.
#[derive(Debug)]
pub struct GroupImages {
    bytes: Vec<u8>,
    ids: Range<usize>,
    images: Vec<Range<u32>>,
}

impl GroupImages {
    /// Reads the group `entry` of the file `name`, by one request where that is remote.
    ///
    /// # Errors
    ///
    /// A [`GroupError`] with the file and offset.
    pub fn read(folder: &Folder, name: &str, entry: &RowGroup) -> Result<Self, GroupError> {
        let path = || folder.path(name);
        let range = entry.offset..entry.offset.saturating_add(entry.bytes);
        let bytes = folder.read_range(name, range).map_err(|e| GroupError::Read {
            path: path(),
            offset: entry.offset,
            bytes: entry.bytes,
            message: e.with_causes(),
        })?;
        let found = crc32c::crc32c(&bytes);
        if found != entry.crc32c {
            return Err(GroupError::Checksum {
                path: path(),
                offset: entry.offset,
                found,
                expected: entry.crc32c,
            });
        }
        Self::parse(bytes, entry.rows).map_err(|message| GroupError::Layout {
            path: path(),
            offset: entry.offset,
            message,
        })
    }

    fn parse(bytes: Vec<u8>, rows: u32) -> Result<Self, String> {
        let ids = plain_page(&bytes, 0, rows)?;
        if ids.len() != rows as usize * SAMPLE_ID_BYTES {
            return Err(format!("{} bytes of sample ids for {rows} rows", ids.len()));
        }
        let page = plain_page(&bytes, ids.end, rows)?;
        if page.end != bytes.len() {
            return Err(format!("{} bytes behind the images", bytes.len() - page.end));
        }
        let mut images = Vec::with_capacity(rows as usize);
        let mut at = page.start;
        for row in 0..rows {
            let length =
                bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
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
        Ok(Self { bytes, ids, images })
    }

    /// The compressed image of a row of the group.
    pub fn image(&self, row: u32) -> &[u8] {
        let range = &self.images[row as usize];
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// The sample id of a row of the group.
    pub fn sample_id(&self, row: u32) -> SampleId {
        let start = self.ids.start + row as usize * SAMPLE_ID_BYTES;
        let mut id = [0; SAMPLE_ID_BYTES];
        id.copy_from_slice(&self.bytes[start..start + SAMPLE_ID_BYTES]);
        SampleId(id)
    }
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
    folder: Folder,
    name: String,
    entry: RowGroup,
    images: OnceLock<Result<Arc<GroupImages>, GroupError>>,
}

impl GroupHandle {
    /// Names a row group; reads nothing.
    pub fn new(folder: Folder, name: String, entry: RowGroup) -> Self {
        Self { folder, name, entry, images: OnceLock::new() }
    }

    /// The images; the first call reads them, others wait for it.
    ///
    /// # Errors
    ///
    /// The [`GroupError`] of the one reading.
    pub fn images(&self) -> Result<&Arc<GroupImages>, GroupError> {
        let read = || GroupImages::read(&self.folder, &self.name, &self.entry).map(Arc::new);
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
            let _ = GroupImages::parse(bytes, rows);
        }
    }
}
