//! JPEG bytes to pixels: all of them, or only a part.
//!
//! libjpeg-turbo can leave out columns (`jpeg_crop_scanline`) and rows (`jpeg_skip_scanlines`) of
//! an image, and can decode it at 1/2, 1/4 or 1/8 of its size from fewer DCT coefficients. Rows
//! below the part are not even read.

use std::ffi::c_ulong;

use super::*;
use crate::image::resize::Part;
use crate::image::{DecodeOptions, Header, Image};

/// Rows that are asked of libjpeg at once; it gives at most those of one row of MCUs, 16 or so.
const ROWS_AT_ONCE: usize = 16;

/// Scans of a progressive file; 10 are usual. Each costs a pass over all coefficients, so a small
/// file of endless scans could keep a thread for hours.
const SCANS_MAX: i32 = 200;

/// Pixels by which a part is widened, so that what its chroma is interpolated from is there.
const MARGIN_PX: u32 = 2;

/// How much smaller than stored an image is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As stored.
    Full,
    /// Half the sides; the others likewise.
    Half,
    /// A quarter.
    Quarter,
    /// An eighth.
    Eighth,
}

impl Scale {
    /// Stored pixels a decoded one.
    pub fn divisor(self) -> u32 {
        match self {
            Self::Full => 1,
            Self::Half => 2,
            Self::Quarter => 4,
            Self::Eighth => 8,
        }
    }

    /// The smallest that leaves at least one pixel for each that is wanted: `reduction` is stored
    /// pixels a wanted one.
    pub fn for_reduction(reduction: f64) -> Self {
        match reduction {
            r if r >= 8.0 => Self::Eighth,
            r if r >= 4.0 => Self::Quarter,
            r if r >= 2.0 => Self::Half,
            _ => Self::Full,
        }
    }

    /// Size of an image of that size; a rest counts whole.
    pub fn size(self, (width_px, height_px): (u32, u32)) -> (u32, u32) {
        (width_px.div_ceil(self.divisor()), height_px.div_ceil(self.divisor()))
    }
}

/// Decodes a whole JPEG to RGB, as it is stored.
///
/// # Errors
///
/// [`SampleError::ImageCorrupt`], [`SampleError::ImageUnsupported`] with libjpeg's words.
pub fn decode(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
) -> Result<Image, SampleError> {
    let (width_px, height_px) = header.stored_px;
    let whole = Part::whole(header.stored_px);
    let mut pixels = Vec::new();
    decode_part(bytes, header, options, Scale::Full, whole, &mut pixels)?;
    // Four-channel JPEGs need more room while they are decoded.
    pixels.truncate(width_px as usize * height_px as usize * 3);
    Ok(Image { width_px, height_px, pixels })
}

/// Decodes at least `part` at `scale` into `pixels` and returns the part that is there, which is
/// wider by some columns and rows. Inside `part` its pixels equal those of the whole image at
/// that scale. `pixels` keeps its room; what it holds behind the part is left over.
///
/// # Errors
///
/// [`SampleError::ImageCorrupt`], [`SampleError::ImageUnsupported`] with libjpeg's words; damage
/// below the part is not seen, unless the part reaches the last row.
///
/// # Panics
///
/// If `part` is empty or not inside the image: the caller computed it from the header.
pub fn decode_part(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
    scale: Scale,
    part: Part,
    pixels: &mut Vec<u8>,
) -> Result<Part, SampleError> {
    let mut errors = Errors::new();
    let mut decoder = Decoder::new(&mut errors);
    decoder.read_header(bytes)?;
    header.check_decoded((decoder.raw.image_width, decoder.raw.image_height))?;
    let found = decoder.read_part(scale, part, pixels)?;
    drop(decoder);
    outcome(&errors, options).map(|()| found)
}

/// What damage that libjpeg passed over means.
pub(super) fn outcome(errors: &Errors, options: &DecodeOptions) -> Result<(), SampleError> {
    match &errors.damage {
        Some(Damage::Broken(message)) => Err(corrupt(message.clone())),
        Some(Damage::Truncated(message)) if !options.allow_truncated => {
            Err(corrupt(message.clone()))
        }
        _ => Ok(()),
    }
}

pub(super) struct Decoder<'e> {
    pub(super) raw: Box<sys::jpeg_decompress_struct>,
    progress: Box<sys::jpeg_progress_mgr>,
    _errors: &'e mut Errors,
}

impl<'e> Decoder<'e> {
    pub(super) fn new(errors: &'e mut Errors) -> Self {
        let mut progress = Box::new(sys::jpeg_progress_mgr {
            progress_monitor: Some(on_progress),
            pass_counter: 0,
            pass_limit: 0,
            completed_passes: 0,
            total_passes: 0,
        });
        // SAFETY: plain C data, for which zero is a value; created before any other use. `errors`
        // is borrowed for longer than `raw` lives, and `progress` lives beside it.
        let raw = unsafe {
            let mut raw =
                Box::new(MaybeUninit::<sys::jpeg_decompress_struct>::zeroed().assume_init());
            raw.common.err = (&raw mut *errors).cast();
            sys::jpeg_create_decompress(&mut *raw);
            raw.common.progress = &raw mut *progress;
            raw
        };
        Self { raw, progress, _errors: errors }
    }

    pub(super) fn read_header(&mut self, bytes: &[u8]) -> Result<(), SampleError> {
        let raw = &mut *self.raw;
        // SAFETY: `bytes` outlives the calls: no call after the caller's borrow ends reads it,
        // because `Decoder` never leaves the functions of this file that hold `bytes`.
        run(|| unsafe {
            sys::jpeg_mem_src(raw, bytes.as_ptr(), bytes.len() as c_ulong);
            sys::jpeg_read_header(raw, 1);
        })?;
        self.check_sampling()
    }

    /// Refuses sampling factors that do not divide the largest one. libjpeg has no way to enlarge
    /// such a channel and says so, but only where it makes pixels: it would hand out its plane.
    fn check_sampling(&self) -> Result<(), SampleError> {
        let raw = &*self.raw;
        let (h_max, v_max) = (raw.max_h_samp_factor, raw.max_v_samp_factor);
        let channels = usize::try_from(raw.num_components).unwrap_or(0);
        for number in 0..channels {
            // SAFETY: libjpeg has read the header, and `number` is below `num_components`.
            let info = unsafe { &*raw.comp_info.add(number) };
            let (h, v) = (info.h_samp_factor, info.v_samp_factor);
            if h <= 0 || v <= 0 || h_max % h != 0 || v_max % v != 0 {
                let message = format!(
                    "channel {number} has the sampling factors {h} × {v}, expected divisors of \
                     {h_max} × {v_max}"
                );
                return Err(SampleError::ImageUnsupported { format: "JPEG", message });
            }
        }
        Ok(())
    }

    fn read_part(
        &mut self,
        scale: Scale,
        part: Part,
        pixels: &mut Vec<u8>,
    ) -> Result<Part, SampleError> {
        use sys::J_COLOR_SPACE::{JCS_CMYK, JCS_EXT_RGB, JCS_YCCK};
        let raw = &mut *self.raw;
        let is_cmyk = matches!(raw.jpeg_color_space, JCS_CMYK | JCS_YCCK);
        raw.out_color_space = if is_cmyk { JCS_CMYK } else { JCS_EXT_RGB };
        raw.scale_num = 1;
        raw.scale_denom = scale.divisor();
        // Smoothing guesses at what a progressive file lacks, differently at the border of a part.
        raw.do_block_smoothing = 0;
        let channels = if is_cmyk { 4 } else { 3 };
        run(|| {
            // SAFETY: the header was read; nothing else was called since.
            unsafe { sys::jpeg_start_decompress(raw) };
            // SAFETY: it has started, and `_faster` lives until the rows below are read.
            let _faster = unsafe { huffman::install(raw) };
            let size_px = (raw.output_width, raw.output_height);
            let wide = widened(part, size_px);
            let (mut left_px, mut width_px) = (wide.left_px, wide.width_px);
            // SAFETY: the part lies inside the output, which `widened` asserts; no row was read.
            unsafe { sys::jpeg_crop_scanline(raw, &mut left_px, &mut width_px) };
            assert_eq!(raw.output_width, width_px, "columns of a part");
            let stride = width_px as usize * channels;
            let bytes = stride * wide.height_px as usize;
            if pixels.len() < bytes {
                pixels.resize(bytes, 0);
            }
            if wide.top_px > 0 {
                // SAFETY: fewer rows than there are.
                let skipped = unsafe { sys::jpeg_skip_scanlines(raw, wide.top_px) };
                assert_eq!(skipped, wide.top_px, "rows above a part");
            }
            read_rows(raw, &mut pixels[..bytes], stride);
            if raw.output_scanline == raw.output_height {
                // SAFETY: all rows were read.
                unsafe { sys::jpeg_finish_decompress(raw) };
            }
            if is_cmyk {
                cmyk_to_rgb(&mut pixels[..bytes]);
            }
            Part { left_px, width_px, ..wide }
        })
    }
}

/// `part` and a margin, as far as the image goes.
fn widened(part: Part, (width_px, height_px): (u32, u32)) -> Part {
    let (right, bottom) = (part.left_px + part.width_px, part.top_px + part.height_px);
    assert!(part.width_px > 0 && right <= width_px, "{part:?} of {width_px} columns");
    assert!(part.height_px > 0 && bottom <= height_px, "{part:?} of {height_px} rows");
    let left_px = part.left_px.saturating_sub(MARGIN_PX);
    let top_px = part.top_px.saturating_sub(MARGIN_PX);
    Part {
        left_px,
        top_px,
        width_px: (right + MARGIN_PX).min(width_px) - left_px,
        height_px: (bottom + MARGIN_PX).min(height_px) - top_px,
    }
}

/// Reads as many rows as `pixels` holds.
fn read_rows(raw: &mut sys::jpeg_decompress_struct, pixels: &mut [u8], stride: usize) {
    let mut left = pixels;
    while !left.is_empty() {
        let mut rows = [std::ptr::null_mut(); ROWS_AT_ONCE];
        let mut count = 0;
        for (row, pixels) in rows.iter_mut().zip(left.chunks_exact_mut(stride)) {
            *row = pixels.as_mut_ptr();
            count += 1;
        }
        // SAFETY: each row pointer is the start of `stride` bytes of `left`, and libjpeg writes
        // `output_width` pixels a row, which is what `stride` was computed from.
        let read = unsafe { sys::jpeg_read_scanlines(raw, rows.as_mut_ptr(), count) };
        assert!(read > 0, "libjpeg read no row");
        left = &mut left[read as usize * stride..];
    }
}

/// CMYK as Adobe writes it, inverted: 255 is no ink. Every four-channel JPEG met in practice is,
/// with or without Adobe's marker, and every viewer takes it so. Packs RGB at the front.
fn cmyk_to_rgb(pixels: &mut [u8]) {
    let scale = |ink: u8, key: u8| ((u16::from(ink) * u16::from(key) + 127) / 255) as u8;
    for pixel in 0..pixels.len() / 4 {
        let [cyan, magenta, yellow, key] = [0, 1, 2, 3].map(|c| pixels[4 * pixel + c]);
        let rgb = [scale(cyan, key), scale(magenta, key), scale(yellow, key)];
        pixels[3 * pixel..3 * pixel + 3].copy_from_slice(&rgb);
    }
}

/// libjpeg calls this while it reads the scans of a progressive file.
unsafe extern "C-unwind" fn on_progress(cinfo: &mut sys::jpeg_common_struct) {
    // SAFETY: only `Decoder::new` sets this callback, on the first field of its struct.
    let raw = unsafe { &*(&raw const *cinfo).cast::<sys::jpeg_decompress_struct>() };
    if raw.input_scan_number > SCANS_MAX {
        let message = format!("Unsupported: more than {SCANS_MAX} scans");
        resume_unwind(Box::new(Fatal(message)));
    }
}

impl Drop for Decoder<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { sys::jpeg_destroy_decompress(&mut self.raw) }
        // It must live until here, since libjpeg holds a pointer to it.
        self.progress.pass_counter = 0;
    }
}
