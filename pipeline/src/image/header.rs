//! What the first bytes of an image tell: format, size, orientation.
//!
//! In: the bytes of one image file. Out: a [`Header`]. Walks over markers and boxes by their
//! lengths. Never: allocates, decompresses, or trusts a size that a decoder would have to hold.

use super::orientation::Orientation;
use super::{DecodeOptions, avif};
use crate::error::SampleError;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Baseline or progressive JPEG of 8 bits.
    Jpeg,
    /// PNG of any kind.
    Png,
    /// WebP; of an animation the first frame.
    WebP,
    /// GIF, its first frame.
    Gif,
    /// AVIF; of a sequence the primary item. Read with the feature `avif`.
    Avif,
}

impl Format {
    /// Judges by the first bytes.
    ///
    /// # Errors
    ///
    /// [`SampleError::ImageFormat`] with the bytes.
    pub fn of(bytes: &[u8]) -> Result<Self, SampleError> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] if is_avif(bytes) => Ok(Self::Avif),
            _ => {
                let head: Vec<_> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
                Err(SampleError::ImageFormat { head: head.join(" ") })
            }
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Avif => "AVIF",
        }
    }

    /// Its name in the column `encoding`.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Avif => "avif",
        }
    }
}

/// What is known of an image before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its format.
    pub format: Format,
    /// Width and height as stored, px.
    pub stored_px: (u32, u32),
    /// How the stored pixels are turned.
    pub orientation: Orientation,
}

impl Header {
    /// Reads the header of `bytes` and judges its size.
    ///
    /// # Errors
    ///
    /// [`SampleError::ImageFormat`], [`SampleError::ImageCorrupt`] for a header that is none,
    /// [`SampleError::ImageTooLarge`] above `options.pixels_max`; of an AVIF also
    /// [`SampleError::ImageUnsupported`] and, without the feature, [`SampleError::ImageNotBuilt`].
    pub fn read(bytes: &[u8], options: &DecodeOptions) -> Result<Self, SampleError> {
        let format = Format::of(bytes)?;
        let (size, orientation) = match format {
            Format::Jpeg => jpeg(bytes),
            Format::Png => png(bytes),
            Format::WebP => webp(bytes),
            Format::Gif => gif(bytes),
            Format::Avif => avif::header(bytes).map(|(size, turned)| (Some(size), turned))?,
        };
        let corrupt =
            |message: String| SampleError::ImageCorrupt { format: format.name(), message };
        let (width_px, height_px) =
            size.ok_or_else(|| corrupt("it ends inside its header".to_owned()))?;
        if width_px == 0 || height_px == 0 {
            return Err(corrupt(format!("its header says {width_px} × {height_px} px")));
        }
        let pixels_max = options.pixels_max;
        if u64::from(width_px) * u64::from(height_px) > pixels_max {
            return Err(SampleError::ImageTooLarge { width_px, height_px, pixels_max });
        }
        Ok(Self { format, stored_px: (width_px, height_px), orientation })
    }

    /// Width and height as seen, px.
    pub fn upright_px(&self) -> (u32, u32) {
        self.orientation.size(self.stored_px)
    }

    /// Refuses a decoder that came to another size than the header.
    pub(crate) fn check_decoded(&self, found_px: (u32, u32)) -> Result<(), SampleError> {
        if found_px == self.stored_px {
            return Ok(());
        }
        let (width_px, height_px) = self.stored_px;
        Err(SampleError::ImageCorrupt {
            format: self.format.name(),
            message: format!(
                "its header says {width_px} × {height_px} px, its pixels are {} × {}",
                found_px.0, found_px.1
            ),
        })
    }
}

/// Size if it was found, and orientation.
type Found = (Option<(u32, u32)>, Orientation);

fn big_u16(bytes: &[u8], at: usize) -> Option<u32> {
    let two = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(u32::from(u16::from_be_bytes(two)))
}

fn little_u16(bytes: &[u8], at: usize) -> Option<u32> {
    let two = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(u32::from(u16::from_le_bytes(two)))
}

fn little_u24(bytes: &[u8], at: usize) -> Option<u32> {
    let three = bytes.get(at..at.checked_add(3)?)?;
    Some(u32::from(three[0]) | u32::from(three[1]) << 8 | u32::from(three[2]) << 16)
}

fn four(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok()
}

/// Markers up to the first scan: the frame's size, and the orientation of the first EXIF segment.
fn jpeg(bytes: &[u8]) -> Found {
    let mut found = (None, Orientation::UPRIGHT);
    let mut has_exif = false;
    let mut at = 2;
    loop {
        // Bytes between segments and fill bytes are passed over, as libjpeg does.
        let Some(skip) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xff))
        else {
            return found;
        };
        at += skip;
        let Some(fill) = bytes[at..].iter().position(|&b| b != 0xff) else { return found };
        at += fill;
        let marker = bytes[at];
        at += 1;
        match marker {
            // Stuffing and markers without a length.
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            // The first scan, or the end.
            0xda | 0xd9 => return found,
            _ => {}
        }
        let Some(length) = big_u16(bytes, at) else { return found };
        let segment = bytes.get(at + 2..(at + length.max(2) as usize).min(bytes.len()));
        let segment = segment.unwrap_or(&[]);
        match marker {
            // Start of frame: precision, height, width.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf if found.0.is_none() => {
                let sides = big_u16(segment, 3).zip(big_u16(segment, 1));
                if sides.is_none() {
                    return found;
                }
                found.0 = sides;
            }
            0xe1 if !has_exif => {
                if let Some(block) = segment.strip_prefix(b"Exif\0") {
                    found.1 = Orientation::of_exif_block(block.get(1..).unwrap_or(&[]));
                    has_exif = true;
                }
            }
            _ => {}
        }
        at += length.max(2) as usize;
    }
}

/// `IHDR`, and the chunk `eXIf` wherever it stands.
fn png(bytes: &[u8]) -> Found {
    let big_u32 = |at: usize| four(bytes, at).map(u32::from_be_bytes);
    let mut found = (None, Orientation::UPRIGHT);
    if four(bytes, 12) != Some(*b"IHDR") {
        return found;
    }
    found.0 = big_u32(16).zip(big_u32(20));
    let mut at = 8usize;
    while let (Some(length), Some(name)) = (big_u32(at), four(bytes, at + 4)) {
        let start = at + 8;
        let end = start.saturating_add(length as usize);
        if name == *b"eXIf" {
            found.1 = Orientation::of_exif_block(bytes.get(start..end).unwrap_or(&[]));
            break;
        }
        if name == *b"IEND" {
            break;
        }
        // Four bytes of checksum follow.
        at = end.saturating_add(4);
    }
    found
}

/// The canvas, or the one frame of a file without one; every bitstream must fit the canvas, since
/// a decoder allocates by the bitstream.
fn webp(bytes: &[u8]) -> Found {
    let mut found = (None, Orientation::UPRIGHT);
    let mut is_extended = false;
    let mut at = 12usize;
    while let Some((name, data, next)) = riff_chunk(bytes, at) {
        at = next;
        match &name {
            b"VP8X" => {
                let side = |at| little_u24(data, at).map(|less_one| less_one + 1);
                found.0 = side(4).zip(side(7));
                is_extended = true;
            }
            b"VP8 " | b"VP8L" | b"ANMF" => {
                let mut frame = bitstream_size(&name, data);
                let mut inner = 16usize;
                while name == *b"ANMF" && frame.is_none() {
                    let Some((name, data, next)) = riff_chunk(data, inner) else { break };
                    frame = bitstream_size(&name, data);
                    inner = next;
                }
                match (is_extended, frame, found.0) {
                    (false, _, _) => found.0 = frame,
                    (true, Some((w, h)), Some((width, height))) if w <= width && h <= height => {}
                    _ => return (None, found.1),
                }
                if !is_extended {
                    return found;
                }
            }
            b"EXIF" => {
                // Some writers keep the prefix of JPEG's segment.
                let block = data.strip_prefix(b"Exif\0\0").unwrap_or(data);
                found.1 = Orientation::of_exif_block(block);
            }
            _ => {}
        }
    }
    found
}

/// Name and data of the chunk at `at`, and where the next one begins. Data may be cut.
fn riff_chunk(bytes: &[u8], at: usize) -> Option<([u8; 4], &[u8], usize)> {
    let name = four(bytes, at)?;
    let length = u32::from_le_bytes(four(bytes, at.checked_add(4)?)?) as usize;
    let start = at.checked_add(8)?;
    let end = start.saturating_add(length);
    let data = bytes.get(start..end.min(bytes.len()))?;
    Some((name, data, end.saturating_add(length % 2)))
}

/// Size in the header of a lossy or lossless bitstream.
fn bitstream_size(name: &[u8; 4], data: &[u8]) -> Option<(u32, u32)> {
    match name {
        // Three bytes of frame tag, three of start code, then 14 bits each.
        b"VP8 " => Some((little_u16(data, 6)? & 0x3fff, little_u16(data, 8)? & 0x3fff)),
        // One byte of signature, then 14 bits less one each.
        b"VP8L" => {
            let bits = u32::from_le_bytes(four(data, 1)?);
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        _ => None,
    }
}

/// The logical screen.
fn gif(bytes: &[u8]) -> Found {
    (little_u16(bytes, 6).zip(little_u16(bytes, 8)), Orientation::UPRIGHT)
}

/// Whether one of the brands, of which files have some five, is that of AVIF.
fn is_avif(bytes: &[u8]) -> bool {
    const BRANDS_MAX: usize = 64;
    let is_brand = |brand: &[u8]| matches!(brand, b"avif" | b"avis");
    let length = four(bytes, 0).map_or(0, |length| u32::from_be_bytes(length) as usize);
    let brands = bytes.get(8..length.min(bytes.len())).unwrap_or(&[]);
    // The second of them is a version.
    let mut brands = brands.chunks_exact(4).take(BRANDS_MAX).enumerate();
    brands.any(|(at, brand)| at != 1 && is_brand(brand))
}
