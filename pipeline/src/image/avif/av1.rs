//! One AV1 picture to planes, by `re_rav1d`.
//!
//! In: the AV1 bytes of one item and its size. Out: a [`Picture`] of just that size. Never:
//! starts a thread, decodes a frame that is larger (and than [`KEPT_PX`]), or more frames than a
//! picture has layers.

use std::cell::Cell;

use re_rav1d::{Decoder, PixelLayout, PlanarImageComponent, Settings, pixel};

use super::boxes::Coding;
use super::{corrupt, unsupported};
use crate::error::SampleError;

/// Frames of one item: AV1 has up to four layers of a picture. Each may be held until the end.
const FRAMES_MAX: usize = 4;
/// Pictures to this size, full HD, are decoded by a thread's own decoder, which keeps their memory:
/// a decoder for each left holes of 50 KB in glibc's heap that it never filled again.
const KEPT_PX: u32 = 1 << 21;

thread_local! {
    static KEPT: Cell<Option<Decoder>> = const { Cell::new(None) };
}

/// Decoded planes; chroma may be halved, or absent.
pub(super) struct Picture {
    pub size_px: (u32, u32),
    /// Bits of a number: 8, 10 or 12.
    pub bits: u32,
    /// Whether chroma is halved across and down; none for grey.
    pub halves: Option<(bool, bool)>,
    /// What the stream says of its numbers.
    pub coding: Coding,
    planes: Vec<(re_rav1d::Plane, usize)>,
}

impl Picture {
    /// Reads the row `y` of a plane (0 luma, 1 and 2 chroma) as far as `numbers` goes.
    pub fn read_row(&self, plane: usize, y: usize, numbers: &mut [i32]) {
        let (bytes, stride) = &self.planes[plane];
        let row = &bytes[y * stride..];
        if self.bits == 8 {
            numbers.iter_mut().zip(row).for_each(|(number, &byte)| *number = i32::from(byte));
        } else {
            for (number, pair) in numbers.iter_mut().zip(row.chunks_exact(2)) {
                *number = i32::from(u16::from_ne_bytes([pair[0], pair[1]]));
            }
        }
    }
}

/// Decodes the picture in `bytes`.
///
/// # Errors
///
/// [`SampleError::ImageCorrupt`] if it does not decode or is not of `size_px`;
/// [`SampleError::ImageUnsupported`] if it has more frames than layers.
pub(super) fn decode(bytes: Vec<u8>, size_px: (u32, u32)) -> Result<Picture, SampleError> {
    let frames = count_frames(&bytes);
    if frames > FRAMES_MAX {
        return Err(unsupported(format!("an item of {frames} frames, limit {FRAMES_MAX}")));
    }
    // Also because of no bytes at all the library would complain on stderr.
    if frames == 0 {
        return Err(corrupt(format!("AV1: no frame in {} bytes", bytes.len())));
    }
    let pixels = u64::from(size_px.0) * u64::from(size_px.1);
    let limit = u32::try_from(pixels)
        .map_err(|_| unsupported(format!("{pixels} px exceed the decoder's 32 bits")))?;
    let is_kept = limit <= KEPT_PX;
    // Taken, so that after a panic no other picture meets its state.
    let kept = if is_kept { KEPT.take() } else { None };
    let mut decoder = match kept {
        Some(decoder) => decoder,
        None => open(limit.max(KEPT_PX))?,
    };
    let picture = first_picture(&mut decoder, bytes);
    if is_kept {
        // Forgets all but its buffers.
        decoder.flush();
        KEPT.set(Some(decoder));
    }
    let picture = picture?;
    let found_px = (picture.width(), picture.height());
    if found_px != size_px {
        let ((fw, fh), (w, h)) = (found_px, size_px);
        return Err(corrupt(format!("its boxes say {w} × {h} px, its pixels are {fw} × {fh}")));
    }
    let halves = match picture.pixel_layout() {
        PixelLayout::I400 => None,
        PixelLayout::I420 => Some((true, true)),
        PixelLayout::I422 => Some((true, false)),
        PixelLayout::I444 => Some((false, false)),
    };
    let parts = [PlanarImageComponent::Y, PlanarImageComponent::U, PlanarImageComponent::V];
    let parts = parts.into_iter().take(if halves.is_some() { 3 } else { 1 });
    let planes = parts.map(|part| (picture.plane(part), picture.stride(part) as usize)).collect();
    let coding = Coding {
        matrix: matrix_number(picture.matrix_coefficients()),
        is_full_range: picture.color_range() == pixel::YUVRange::Full,
    };
    Ok(Picture { size_px, bits: picture.bit_depth() as u32, halves, coding, planes })
}

fn first_picture(decoder: &mut Decoder, bytes: Vec<u8>) -> Result<re_rav1d::Picture, SampleError> {
    match decoder.send_data(bytes, None, None, None) {
        Ok(()) | Err(re_rav1d::Error::Again) => {}
        Err(error) => return Err(failed(error)),
    }
    decoder.get_picture().map_err(|error| match error {
        re_rav1d::Error::Again => corrupt("AV1: it ends before its picture".to_owned()),
        error => failed(error),
    })
}

/// A decoder of frames of at most `limit` pixels.
fn open(limit: u32) -> Result<Decoder, SampleError> {
    let mut settings = Settings::new();
    settings.set_n_threads(1);
    settings.set_max_frame_delay(1);
    settings.set_frame_size_limit(limit);
    // Of several layers the last, which is the best.
    settings.set_all_layers(false);
    Decoder::with_settings(&settings).map_err(failed)
}

fn failed(error: re_rav1d::Error) -> SampleError {
    corrupt(format!("AV1: {error}"))
}

/// The number that H.273 gives the matrix; 2, unspecified, for those that have none here.
fn matrix_number(matrix: pixel::MatrixCoefficients) -> u16 {
    use pixel::MatrixCoefficients as M;
    match matrix {
        M::Identity => 0,
        M::BT709 => 1,
        M::BT470M => 4,
        M::BT470BG | M::ST170M => 6,
        M::ST240M => 7,
        M::YCgCo => 8,
        M::BT2020NonConstantLuminance => 9,
        M::BT2020ConstantLuminance => 10,
        M::ST2085 => 11,
        M::ChromaticityDerivedNonConstantLuminance => 12,
        M::ChromaticityDerivedConstantLuminance => 13,
        M::ICtCp => 14,
        _ => 2,
    }
}

/// Frames in `bytes`, by the heads of AV1's units; what is cut is counted as far as it goes.
fn count_frames(bytes: &[u8]) -> usize {
    const FRAME_HEADER: u8 = 3;
    const FRAME: u8 = 6;
    let mut frames = 0;
    let mut at = 0usize;
    while let Some(&head) = bytes.get(at) {
        frames += usize::from(matches!(head >> 3 & 15, FRAME_HEADER | FRAME));
        let has_extension = head & 4 != 0;
        let has_size = head & 2 != 0;
        at += 1 + usize::from(has_extension);
        if !has_size {
            break;
        }
        let mut size = 0usize;
        // Seven bits a byte, the low ones first.
        for byte in 0..8 {
            let Some(&bits) = bytes.get(at) else { return frames };
            at += 1;
            size |= usize::from(bits & 0x7f) << (7 * byte);
            if bits & 0x80 == 0 {
                break;
            }
        }
        at = at.saturating_add(size);
    }
    frames
}
