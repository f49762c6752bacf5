//! Encoded images to pixels and back.
//!
//! In: the bytes of one image file, told by their first bytes, not by a name. Out: an [`Image`],
//! `u8`, height × width × RGB, upright; or a part of it, resized, in a caller's buffer. Never:
//! allocates before the header's size is checked; touches a file.
//!
//! | format | read | not read |
//! |---|---|---|
//! | JPEG | grey, YCbCr, RGB, CMYK, YCCK; baseline, progressive | 12 bits, lossless, arithmetic |
//! | PNG | every kind; 16 bits lose the lower eight | later frames of an animation |
//! | WebP | lossy, lossless, alpha; of an animation the first frame | later frames |
//! | GIF | the first frame | later frames |
//! | AVIF | every depth and sampling, grids, the primary item | `clap`, constant luminance, ICtCp |
//!
//! Colour profiles are not applied: numbers are taken as sRGB. EXIF orientation is applied; of an
//! AVIF `irot` and `imir`, beside which the standard has no other. AVIF is read with the feature
//! `avif`, and refused by name without it.

pub mod simd;
pub mod orientation;
pub mod header;
pub mod jpeg;
#[cfg(any(test, not(feature = "avif")))]
mod absent_avif;
#[cfg(feature = "avif")]
mod avif;
pub mod decode;
mod transpose;
pub mod resize;
pub mod crop;
pub mod shrink;

#[cfg(not(feature = "avif"))]
use absent_avif as avif;

pub use crop::{Crop, CropDecoder};
pub use decode::decode;
pub use header::{Format, Header};
pub use orientation::Orientation;
pub use resize::{Filter, Region};
pub use shrink::Shrinker;

/// Whether this build reads AVIF.
pub const READS_AVIF: bool = cfg!(feature = "avif");

/// Default limit of an image: 178,956,970 px × 3 B = 512 MiB, what one decode thread may hold.
/// A progressive JPEG needs three times as much, for its coefficients.
pub const PIXELS_MAX_DEFAULT: u64 = 178_956_970;

/// What decoding may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Limit of width × height, judged from the header.
    pub pixels_max: u64,
    /// The colour below transparent pixels, RGB.
    pub background: [u8; 3],
    /// Whether a JPEG that ends early is taken, grey where its rows are missing.
    pub allow_truncated: bool,
}

impl Default for DecodeOptions {
    /// The limit above, white, and no truncated files.
    fn default() -> Self {
        Self { pixels_max: PIXELS_MAX_DEFAULT, background: [255; 3], allow_truncated: false }
    }
}

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
