//! Tar members, without a copy.
//!
//! In: the bytes of a shard. Out: its files in order, with names and byte ranges. Reads ustar, GNU
//! long names, PAX `path` and `size`, base-256 sizes; names links and sparse files without their
//! bytes, which stand elsewhere or are not all there; passes over folders and devices. Never:
//! takes a missing end for an end; trusts a size it has not read.

use std::borrow::Cow;

use super::bytes::{Short, TarBytes};

/// Tar's unit.
const BLOCK_BYTES: u64 = 512;

/// Limit of a PAX header or GNU long name. Linux paths end at 4 KiB; PAX headers hold a few.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file with its bytes.
    File,
    /// A hard or symbolic link: the bytes are those of another name.
    Link,
    /// A sparse file: only some of its bytes are stored.
    Sparse,
}

/// One file of a tar.
#[derive(Debug)]
pub struct Member<'a> {
    /// What it is; only a regular file has content here.
    pub kind: MemberKind,
    /// Its path, as bytes: not every shard is UTF-8.
    pub name: Vec<u8>,
    /// Offset of its first byte in the tar stream.
    pub offset: u64,
    /// Its content.
    pub data: Cow<'a, [u8]>,
}

/// Why a tar stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It ends inside a member.
    #[error("it ends inside {what} at byte {offset}: expected {expected} bytes, found {found}")]
    Cut {
        /// A header or the data of a file.
        what: String,
        /// Where that begins in the tar stream.
        offset: u64,
        /// Bytes that should follow.
        expected: u64,
        /// Bytes that do.
        found: u64,
    },
    /// It ends at a member's border, without the two zero blocks of an end.
    #[error("it ends at byte {offset} without the end-of-archive mark of 1024 zero bytes")]
    NoEnd {
        /// Where it ends.
        offset: u64,
    },
    /// A decompressor gave up.
    #[error("it does not decompress after byte {offset}: {message}")]
    Compression {
        /// Decompressed bytes until there.
        offset: u64,
        /// What the decompressor says.
        message: String,
    },
    /// A header that is no header.
    #[error("the header at byte {offset} is damaged: {message}")]
    Header {
        /// Where it begins.
        offset: u64,
        /// Which field, expected and found.
        message: String,
    },
}

impl TarError {
    /// Whether the stream ends too early, rather than being wrong.
    pub fn is_cut(&self) -> bool {
        !matches!(self, Self::Header { .. })
    }
}

/// An iterator over the files of a tar; after an error it ends.
pub struct TarReader<'a> {
    bytes: TarBytes<'a>,
    done: bool,
    passed_over: u64,
    inside: Option<Vec<u8>>,
}

/// The offset of a header block, and its bytes.
type HeaderAt<'a> = (u64, Cow<'a, [u8]>);

/// What PAX and GNU members say about the member that follows.
#[derive(Default)]
struct Overrides {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<'a> TarReader<'a> {
    /// Reads the tar in `bytes`.
    pub fn new(bytes: TarBytes<'a>) -> Self {
        Self { bytes, done: false, passed_over: 0, inside: None }
    }

    /// Offset up to which was read.
    pub fn position(&self) -> u64 {
        self.bytes.position()
    }

    /// Members so far that are no files: folders and devices.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Name of the file inside which reading ended, if it did.
    pub fn inside(&self) -> Option<&[u8]> {
        self.inside.as_deref()
    }

    fn read_member(&mut self) -> Result<Option<Member<'a>>, TarError> {
        let mut overrides = Overrides::default();
        loop {
            let Some((at, block)) = self.read_header()? else { return Ok(None) };
            let header = Header { block: &block, at };
            header.check()?;
            let size = overrides.size.map_or_else(|| header.size(), Ok)?;
            match header.kind() {
                b'L' => overrides.name = Some(c_string(&self.read_extension(at, header.size()?)?)),
                b'K' => drop(self.read_extension(at, header.size()?)?),
                b'x' => {
                    let pax = self.read_extension(at, header.size()?)?;
                    read_pax(at, &pax, &mut overrides)?;
                }
                // A global PAX header (`git archive` writes one) names no file.
                b'g' => drop(self.read_extension(at, header.size()?)?),
                b'0' | b'\0' | b'7' if !overrides.sparse => {
                    let name = overrides.name.unwrap_or_else(|| header.name());
                    let offset = self.bytes.position();
                    let data = match self.read_padded(&name, size) {
                        Ok(data) => data,
                        Err(error) => {
                            self.inside = Some(name);
                            return Err(error);
                        }
                    };
                    if name.ends_with(b"/") {
                        self.passed_over += 1;
                        overrides = Overrides::default();
                        continue;
                    }
                    return Ok(Some(Member { kind: MemberKind::File, name, offset, data }));
                }
                kind => {
                    // Links, devices and folders have no data, whatever their size field says.
                    let empty = matches!(kind, b'1'..=b'6');
                    let is_sparse = kind == b'S' || overrides.sparse;
                    if kind == b'S' {
                        self.skip_sparse_map(&block)?;
                    }
                    let offset = self.bytes.position();
                    self.skip_padded(at, if empty { 0 } else { size })?;
                    let kind = match kind {
                        b'1' | b'2' => MemberKind::Link,
                        _ if is_sparse => MemberKind::Sparse,
                        _ => {
                            self.passed_over += 1;
                            overrides = Overrides::default();
                            continue;
                        }
                    };
                    let name = overrides.name.unwrap_or_else(|| header.name());
                    return Ok(Some(Member { kind, name, offset, data: Cow::Borrowed(&[]) }));
                }
            }
        }
    }

    /// The next header block and its offset; `None` at the end-of-archive mark.
    fn read_header(&mut self) -> Result<Option<HeaderAt<'a>>, TarError> {
        let at = self.bytes.position();
        let block = match self.bytes.take(BLOCK_BYTES) {
            Ok(block) => block,
            Err(Short { found: 0, cause: None }) => return Err(TarError::NoEnd { offset: at }),
            Err(short) => return Err(cut("a header", at, BLOCK_BYTES, short)),
        };
        if block.iter().any(|&b| b != 0) {
            return Ok(Some((at, block)));
        }
        // One zero block at the very end is what some writers leave of the two.
        match self.bytes.take(BLOCK_BYTES) {
            Ok(second) if second.iter().all(|&b| b == 0) => self.finish(),
            Ok(_) => Err(TarError::Header {
                offset: at,
                message: "a single zero block in the middle of the archive".to_owned(),
            }),
            Err(Short { found: 0, cause: None }) => Ok(None),
            Err(short) => Err(cut("the end-of-archive mark", at, 2 * BLOCK_BYTES, short)),
        }
    }

    /// What follows the mark is padding; a decompressor must still find its checksum right.
    fn finish(&mut self) -> Result<Option<HeaderAt<'a>>, TarError> {
        let offset = self.bytes.position();
        match self.bytes.finish() {
            Ok(()) => Ok(None),
            Err(cause) => Err(TarError::Compression { offset, message: cause.to_string() }),
        }
    }

    fn read_extension(&mut self, at: u64, size: u64) -> Result<Cow<'a, [u8]>, TarError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(TarError::Header {
                offset: at,
                message: format!(
                    "a long name or PAX header of {size} bytes, above the limit of \
                     {EXTENSION_BYTES_MAX}"
                ),
            });
        }
        self.read_padded(b"a long name or PAX header", size)
    }

    fn read_padded(&mut self, name: &[u8], size: u64) -> Result<Cow<'a, [u8]>, TarError> {
        let at = self.bytes.position();
        let what = || format!("`{}`", String::from_utf8_lossy(name));
        let data = self.bytes.take(size).map_err(|s| cut(&what(), at, size, s))?;
        let padding = size.next_multiple_of(BLOCK_BYTES) - size;
        self.bytes.skip(padding).map_err(|s| cut(&what(), at, size + padding, s))?;
        Ok(data)
    }

    fn skip_padded(&mut self, at: u64, size: u64) -> Result<(), TarError> {
        let padded = size.checked_next_multiple_of(BLOCK_BYTES).ok_or_else(|| {
            TarError::Header { offset: at, message: format!("size {size} is above 2^64") }
        })?;
        self.bytes.skip(padded).map_err(|s| cut("a member that is passed over", at, padded, s))
    }

    /// GNU sparse headers may go on in further blocks; byte 504 of each says whether one follows.
    fn skip_sparse_map(&mut self, header: &[u8]) -> Result<(), TarError> {
        let mut more = header[482] != 0;
        while more {
            let at = self.bytes.position();
            let block = self
                .bytes
                .take(BLOCK_BYTES)
                .map_err(|s| cut("a sparse map", at, BLOCK_BYTES, s))?;
            more = block[504] != 0;
        }
        Ok(())
    }
}

impl<'a> Iterator for TarReader<'a> {
    type Item = Result<Member<'a>, TarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let member = self.read_member().transpose();
        self.done = !matches!(member, Some(Ok(_)));
        member
    }
}

fn cut(what: &str, offset: u64, expected: u64, short: Short) -> TarError {
    match short.cause {
        None => TarError::Cut { what: what.to_owned(), offset, expected, found: short.found },
        Some(cause) => {
            TarError::Compression { offset: offset + short.found, message: cause.to_string() }
        }
    }
}

/// The 512 bytes of a header.
struct Header<'b> {
    block: &'b [u8],
    at: u64,
}

impl Header<'_> {
    fn wrong(&self, message: String) -> TarError {
        TarError::Header { offset: self.at, message }
    }

    /// The sum of all bytes with the checksum field as spaces; old writers summed signed bytes.
    fn check(&self) -> Result<(), TarError> {
        let said = parse_octal(&self.block[148..156]);
        let spaces = 8 * i64::from(b' ');
        let sum_of = |bytes: &[u8]| i64::from(bytes.iter().map(|&b| u32::from(b)).sum::<u32>());
        let unsigned = sum_of(self.block) - sum_of(&self.block[148..156]) + spaces;
        let signed = || {
            let high = |bytes: &[u8]| bytes.iter().filter(|&&b| b >= 0x80).count() as i64;
            unsigned - 256 * (high(self.block) - high(&self.block[148..156]))
        };
        match said {
            Some(sum) if sum as i64 == unsigned || sum as i64 == signed() => Ok(()),
            Some(sum) => {
                Err(self.wrong(format!("checksum {sum:o}, expected {unsigned:o} (octal)")))
            }
            None => Err(self.wrong("its checksum is no octal number; this is no tar".to_owned())),
        }
    }

    fn kind(&self) -> u8 {
        self.block[156]
    }

    fn size(&self) -> Result<u64, TarError> {
        let field = &self.block[124..136];
        let size = if field[0] & 0x80 != 0 { parse_base256(field) } else { parse_octal(field) };
        // Half of u64, so that rounding up to blocks cannot overflow.
        size.filter(|&s| s <= u64::MAX / 2)
            .ok_or_else(|| self.wrong("its size is no octal or base-256 number".to_owned()))
    }

    /// The name, with the prefix of POSIX ustar. GNU headers keep times where the prefix stands.
    fn name(&self) -> Vec<u8> {
        let name = c_string(&self.block[..100]);
        let prefix = c_string(&self.block[345..500]);
        if &self.block[257..263] != b"ustar\0" || prefix.is_empty() {
            return name;
        }
        [&prefix[..], b"/", &name].concat()
    }
}

fn c_string(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|&b| b != 0).collect()
}

/// Octal digits between spaces or NULs; an empty field is 0.
fn parse_octal(field: &[u8]) -> Option<u64> {
    let is_pad = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !is_pad(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_pad).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0u64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Big-endian with the top bit as a flag; bit 6 would be a sign, and no size is negative.
fn parse_base256(field: &[u8]) -> Option<u64> {
    if field[0] & 0x40 != 0 {
        return None;
    }
    let first = u64::from(field[0] & 0x3f);
    field[1..]
        .iter()
        .try_fold(first, |value, &byte| (value >> 56 == 0).then(|| value << 8 | u64::from(byte)))
}

/// Reads `length key=value\n` fields; only `path`, `size` and sparse marks matter here.
fn read_pax(at: u64, pax: &[u8], overrides: &mut Overrides) -> Result<(), TarError> {
    let wrong = |message: &str| TarError::Header { offset: at, message: message.to_owned() };
    let mut rest = pax;
    while !rest.is_empty() {
        let space =
            rest.iter().position(|&b| b == b' ').ok_or_else(|| wrong("PAX without space"))?;
        let length: usize = std::str::from_utf8(&rest[..space])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| wrong("PAX length is no number"))?;
        if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
            return Err(wrong("PAX length does not fit its field"));
        }
        let field = &rest[space + 1..length - 1];
        let equals =
            field.iter().position(|&b| b == b'=').ok_or_else(|| wrong("PAX field without `=`"))?;
        let (key, value) = (&field[..equals], &field[equals + 1..]);
        match key {
            b"path" if !overrides.sparse => overrides.name = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                let size = size.filter(|&s: &u64| s <= u64::MAX / 2);
                overrides.size = Some(size.ok_or_else(|| wrong("PAX size is no number"))?);
            }
            // The name in the header is made up then; the real one stands here.
            b"GNU.sparse.name" => {
                overrides.name = Some(value.to_vec());
                overrides.sparse = true;
            }
            _ if key.starts_with(b"GNU.sparse.") => overrides.sparse = true,
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(())
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
