//! The bytes of a shard in order, plain or decompressed.
//!
//! In: a mapped shard; its first bytes say whether it is gzip, zstd or plain. Out: pieces of the
//! tar stream, borrowed from the map when plain. Never: allocates more than it has read.

use std::borrow::Cow;
use std::io::Read;

/// How a shard is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar: byte ranges of the shard are byte ranges of the tar.
    Plain,
    /// Gzip, possibly of several members.
    Gzip,
    /// Zstandard, possibly of several frames.
    Zstd,
}

impl Compression {
    /// Judges by the first bytes, not by the name.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// A tar stream that is read from front to back.
pub struct TarBytes<'a> {
    backing: Backing<'a>,
    position: u64,
}

enum Backing<'a> {
    Memory(&'a [u8]),
    Stream(Box<dyn Read + Send + 'a>),
}

/// The stream ended or broke before the bytes that were asked for.
#[derive(Debug)]
pub struct Short {
    /// Bytes that were still there.
    pub found: u64,
    /// What a decompressor says, if it is its fault.
    pub cause: Option<std::io::Error>,
}

impl<'a> TarBytes<'a> {
    /// Opens the bytes of a shard.
    ///
    /// # Errors
    ///
    /// When a decompressor cannot be set up.
    pub fn open(shard: &'a [u8]) -> std::io::Result<Self> {
        let backing = match Compression::of(shard) {
            Compression::Plain => Backing::Memory(shard),
            Compression::Gzip => {
                Backing::Stream(Box::new(flate2::read::MultiGzDecoder::new(shard)))
            }
            Compression::Zstd => {
                Backing::Stream(Box::new(zstd::stream::read::Decoder::with_buffer(shard)?))
            }
        };
        Ok(Self { backing, position: 0 })
    }

    /// Offset in the tar stream (decompressed) of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: u64) -> Result<Cow<'a, [u8]>, Short> {
        match &mut self.backing {
            Backing::Memory(rest) => {
                if count > rest.len() as u64 {
                    return Err(Short { found: rest.len() as u64, cause: None });
                }
                let (head, tail) = rest.split_at(count as usize);
                *rest = tail;
                self.position += count;
                Ok(Cow::Borrowed(head))
            }
            Backing::Stream(stream) => {
                // Grows with what arrives: a header that lies about its size allocates nothing.
                let mut bytes = Vec::new();
                let result = stream.by_ref().take(count).read_to_end(&mut bytes);
                let found = bytes.len() as u64;
                self.position += found;
                match result {
                    Ok(_) if found == count => Ok(Cow::Owned(bytes)),
                    Ok(_) => Err(Short { found, cause: None }),
                    Err(cause) => Err(Short { found, cause: Some(cause) }),
                }
            }
        }
    }

    /// Reads a compressed stream to its end, where its checksums stand.
    ///
    /// # Errors
    ///
    /// What the decompressor says.
    pub fn finish(&mut self) -> std::io::Result<()> {
        match &mut self.backing {
            Backing::Memory(_) => Ok(()),
            Backing::Stream(stream) => std::io::copy(stream, &mut std::io::sink()).map(|_| ()),
        }
    }

    /// Passes over the next `count` bytes.
    pub fn skip(&mut self, count: u64) -> Result<(), Short> {
        match &mut self.backing {
            Backing::Memory(_) => self.take(count).map(|_| ()),
            Backing::Stream(stream) => {
                let result = std::io::copy(&mut stream.by_ref().take(count), &mut std::io::sink());
                match result {
                    Ok(found) => {
                        self.position += found;
                        if found == count { Ok(()) } else { Err(Short { found, cause: None }) }
                    }
                    Err(cause) => Err(Short { found: 0, cause: Some(cause) }),
                }
            }
        }
    }
}
