//! Encoded images to pixels and back.
//!
//! In: the bytes of one image file (JPEG, PNG, WebP), told by their first bytes, not by a name.
//! Out: an [`Image`], `u8`, height × width × RGB. Never: allocates before the header's size is
//! checked; touches a file.

pub mod simd;
pub mod jpeg;
pub mod decode;
pub mod resize;

pub use decode::decode;
pub use resize::Filter;

use crate::error::SampleError;

/// Default limit of an image: 178,956,970 px × 3 B = 512 MiB, what one decode thread may hold.
pub const PIXELS_MAX_DEFAULT: u64 = 178_956_970;

/// Decoded pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels a row.
    pub width_px: u32,
    /// Rows.
    pub height_px: u32,
    /// `height_px × width_px × 3` bytes, RGB, rows from the top.
    pub pixels: Vec<u8>,
}

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Baseline or progressive JPEG of 8 bits.
    Jpeg,
    /// PNG of any kind.
    Png,
    /// WebP; of an animation the first frame.
    WebP,
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
        }
    }

    /// Its name in the column `encoding`.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::WebP => "webp",
        }
    }
}

/// Refuses an image above the pixel limit, or of no pixels, before anything is allocated.
pub(crate) fn check_size(
    format: Format,
    width_px: u32,
    height_px: u32,
    pixels_max: u64,
) -> Result<(), SampleError> {
    if width_px == 0 || height_px == 0 {
        return Err(SampleError::ImageCorrupt {
            format: format.name(),
            message: format!("its header says {width_px} × {height_px} px"),
        });
    }
    if u64::from(width_px) * u64::from(height_px) > pixels_max {
        return Err(SampleError::ImageTooLarge { width_px, height_px, pixels_max });
    }
    Ok(())
}
