//! JPEG through libjpeg (mozjpeg's build of libjpeg-turbo).
//!
//! In: JPEG bytes, or an [`Image`]. Out: the other. A file that ends early or whose entropy data
//! are broken is an error, although libjpeg would fill the rest with grey and go on. Never: exits
//! or prints, as libjpeg does by default; leaks when a decode fails half-way.
//!
//! libjpeg reports a fatal error by a call that must not return. Here it unwinds as a Rust panic
//! with a `Fatal` inside, which `run` catches; mozjpeg-sys builds its C code for that.

use std::ffi::{c_int, c_uchar, c_ulong};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys as sys;

use super::{Format, Image, check_size};
use crate::error::SampleError;

/// How chroma is sampled when encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// Half width and height: libjpeg's default, what most photographs have.
    Yuv420,
    /// Full resolution.
    Yuv444,
}

/// What a fatal libjpeg error unwinds with.
struct Fatal(String);

/// libjpeg's error table and the first damage that it passed over with a warning.
#[repr(C)]
struct Errors {
    // First, so that a pointer to it is a pointer to `Errors`.
    table: sys::jpeg_error_mgr,
    damage: Option<String>,
}

/// Decodes a JPEG to RGB.
///
/// # Errors
///
/// [`SampleError::ImageTooLarge`] from the header alone; [`SampleError::ImageCorrupt`],
/// [`SampleError::ImageUnsupported`] with libjpeg's words.
pub fn decode(bytes: &[u8], pixels_max: u64) -> Result<Image, SampleError> {
    let mut errors = Errors::new();
    let mut decoder = Decoder::new(&mut errors);
    decoder.read_header(bytes)?;
    let (width_px, height_px) = (decoder.raw.image_width, decoder.raw.image_height);
    check_size(Format::Jpeg, width_px, height_px, pixels_max)?;
    let image = decoder.read_pixels()?;
    drop(decoder);
    match errors.damage {
        None => Ok(image),
        Some(message) => Err(corrupt(message)),
    }
}

/// Size of a JPEG from its header: (width, height) in px.
///
/// # Errors
///
/// [`SampleError::ImageCorrupt`] with libjpeg's words.
pub fn size(bytes: &[u8]) -> Result<(u32, u32), SampleError> {
    let mut errors = Errors::new();
    let mut decoder = Decoder::new(&mut errors);
    decoder.read_header(bytes)?;
    Ok((decoder.raw.image_width, decoder.raw.image_height))
}

/// Encodes `image` as a baseline JPEG of `quality` 1 to 100.
///
/// # Errors
///
/// [`SampleError::ImageUnsupported`] for a side above 65,500 px, libjpeg's limit.
pub fn encode(image: &Image, quality: u8, chroma: Chroma) -> Result<Vec<u8>, SampleError> {
    let mut errors = Errors::new();
    let mut encoder = Encoder::new(&mut errors);
    encoder.write(image, quality, chroma)
}

fn corrupt(message: String) -> SampleError {
    // libjpeg's words for kinds of JPEG that it does not know, from its jerror.h.
    let unsupported = ["Unsupported", "not implemented", "precision", "Maximum supported"];
    if unsupported.iter().any(|word| message.contains(word)) {
        return SampleError::ImageUnsupported { format: "JPEG", message };
    }
    SampleError::ImageCorrupt { format: "JPEG", message }
}

/// Runs libjpeg calls; a fatal error comes back as a value.
fn run<T>(calls: impl FnOnce() -> T) -> Result<T, SampleError> {
    catch_unwind(AssertUnwindSafe(calls)).map_err(|payload| match payload.downcast::<Fatal>() {
        Ok(fatal) => corrupt(fatal.0),
        Err(other) => resume_unwind(other),
    })
}

impl Errors {
    fn new() -> Box<Self> {
        let mut table = MaybeUninit::zeroed();
        // SAFETY: the struct is plain C data, for which zero is a value; `jpeg_std_error` fills it.
        let table = unsafe {
            sys::jpeg_std_error(table.assume_init_mut());
            table.assume_init()
        };
        let mut errors = Box::new(Self { table, damage: None });
        errors.table.error_exit = Some(on_fatal);
        errors.table.emit_message = Some(on_warning);
        errors
    }
}

/// The words of the error or warning that libjpeg holds just now.
fn message(cinfo: &mut sys::jpeg_common_struct) -> String {
    let buffer = [0u8; 80];
    // SAFETY: `err` was set by `Decoder::new` or `Encoder::new` and lives as long as they do;
    // `format_message` writes at most 80 bytes, JMSG_LENGTH_MAX, with a NUL.
    unsafe {
        if let Some(format) = (*cinfo.err).format_message {
            format(cinfo, std::hint::black_box(&buffer));
        }
    }
    let end = buffer.iter().position(|&b| b == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&std::hint::black_box(buffer)[..end]).into_owned()
}

unsafe extern "C-unwind" fn on_fatal(cinfo: &mut sys::jpeg_common_struct) {
    resume_unwind(Box::new(Fatal(message(cinfo))));
}

/// Level −1 is a warning; others are traces. Only damage to the pixels counts.
unsafe extern "C-unwind" fn on_warning(cinfo: &mut sys::jpeg_common_struct, level: c_int) {
    if level >= 0 {
        return;
    }
    let text = message(cinfo);
    let damage = ["remature end", "bad Huffman", "bad arithmetic"];
    if damage.iter().any(|word| text.contains(word)) {
        // SAFETY: `err` points to the first field of an `Errors`, see `Errors` and the two `new`s.
        let errors = unsafe { &mut *cinfo.err.cast::<Errors>() };
        errors.damage.get_or_insert(text);
    }
}

struct Decoder<'e> {
    raw: Box<sys::jpeg_decompress_struct>,
    _errors: &'e mut Errors,
}

impl<'e> Decoder<'e> {
    fn new(errors: &'e mut Errors) -> Self {
        // SAFETY: plain C data, for which zero is a value; created before any other use. `errors`
        // is borrowed for longer than `raw` lives.
        let raw = unsafe {
            let mut raw =
                Box::new(MaybeUninit::<sys::jpeg_decompress_struct>::zeroed().assume_init());
            raw.common.err = (&raw mut *errors).cast();
            sys::jpeg_create_decompress(&mut *raw);
            raw
        };
        Self { raw, _errors: errors }
    }

    fn read_header(&mut self, bytes: &[u8]) -> Result<(), SampleError> {
        let raw = &mut *self.raw;
        // SAFETY: `bytes` outlives the calls: no call after the caller's borrow ends reads it,
        // because `Decoder` never leaves the functions of this file that hold `bytes`.
        run(|| unsafe {
            sys::jpeg_mem_src(raw, bytes.as_ptr(), bytes.len() as c_ulong);
            sys::jpeg_read_header(raw, 1);
        })
    }

    fn read_pixels(&mut self) -> Result<Image, SampleError> {
        let raw = &mut *self.raw;
        use sys::J_COLOR_SPACE::{JCS_CMYK, JCS_EXT_RGB, JCS_YCCK};
        let is_cmyk = matches!(raw.jpeg_color_space, JCS_CMYK | JCS_YCCK);
        raw.out_color_space = if is_cmyk { JCS_CMYK } else { JCS_EXT_RGB };
        let channels = if is_cmyk { 4 } else { 3 };
        let stride = raw.image_width as usize * channels;
        let mut pixels = vec![0u8; stride * raw.image_height as usize];
        run(|| {
            // SAFETY: each row pointer lies in `pixels`, which holds `output_height` rows of
            // `stride` bytes: without scaling the output has the header's size.
            unsafe {
                sys::jpeg_start_decompress(raw);
                assert_eq!(raw.output_width as usize * channels, stride);
                assert_eq!(raw.output_height as usize * stride, pixels.len());
                while raw.output_scanline < raw.output_height {
                    let at = raw.output_scanline as usize * stride;
                    let mut row = pixels[at..at + stride].as_mut_ptr();
                    sys::jpeg_read_scanlines(raw, &mut row, 1);
                }
                sys::jpeg_finish_decompress(raw);
            }
        })?;
        let (width_px, height_px) = (raw.image_width, raw.image_height);
        let pixels = if is_cmyk { cmyk_to_rgb(&pixels) } else { pixels };
        Ok(Image { width_px, height_px, pixels })
    }
}

impl Drop for Decoder<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { sys::jpeg_destroy_decompress(&mut self.raw) }
    }
}

/// CMYK as Adobe writes it, inverted: 255 is no ink. Every four-channel JPEG met in practice is.
fn cmyk_to_rgb(cmyk: &[u8]) -> Vec<u8> {
    let scale = |ink: u8, key: u8| ((u16::from(ink) * u16::from(key) + 127) / 255) as u8;
    cmyk.chunks_exact(4)
        .flat_map(|p| [scale(p[0], p[3]), scale(p[1], p[3]), scale(p[2], p[3])])
        .collect()
}

struct Encoder<'e> {
    raw: Box<sys::jpeg_compress_struct>,
    output: *mut c_uchar,
    output_bytes: c_ulong,
    _errors: &'e mut Errors,
}

impl<'e> Encoder<'e> {
    fn new(errors: &'e mut Errors) -> Self {
        // SAFETY: as in `Decoder::new`.
        let raw = unsafe {
            let mut raw =
                Box::new(MaybeUninit::<sys::jpeg_compress_struct>::zeroed().assume_init());
            raw.common.err = (&raw mut *errors).cast();
            sys::jpeg_create_compress(&mut *raw);
            raw
        };
        Self { raw, output: std::ptr::null_mut(), output_bytes: 0, _errors: errors }
    }

    fn write(
        &mut self,
        image: &Image,
        quality: u8,
        chroma: Chroma,
    ) -> Result<Vec<u8>, SampleError> {
        let stride = image.width_px as usize * 3;
        assert_eq!(image.pixels.len(), stride * image.height_px as usize, "pixels of an image");
        let Self { raw, output, output_bytes, .. } = self;
        run(|| {
            // SAFETY: `output` and `output_bytes` live in `self` until after the last call; row
            // pointers lie in `image.pixels`, whose length was just checked. libjpeg does not
            // write through input rows.
            unsafe {
                sys::jpeg_mem_dest(raw, output, output_bytes);
                raw.image_width = image.width_px;
                raw.image_height = image.height_px;
                raw.input_components = 3;
                raw.in_color_space = sys::J_COLOR_SPACE::JCS_EXT_RGB;
                sys::jpeg_c_set_int_param(
                    raw,
                    sys::J_INT_PARAM::JINT_COMPRESS_PROFILE,
                    sys::JINT_COMPRESS_PROFILE_VALUE::JCP_FASTEST as c_int,
                );
                sys::jpeg_set_defaults(raw);
                sys::jpeg_set_quality(raw, c_int::from(quality.clamp(1, 100)), 1);
                let factor = if chroma == Chroma::Yuv420 { 2 } else { 1 };
                (*raw.comp_info).h_samp_factor = factor;
                (*raw.comp_info).v_samp_factor = factor;
                sys::jpeg_start_compress(raw, 1);
                while raw.next_scanline < raw.image_height {
                    let row = image.pixels[raw.next_scanline as usize * stride..].as_ptr();
                    sys::jpeg_write_scanlines(raw, &row, 1);
                }
                sys::jpeg_finish_compress(raw);
            }
        })?;
        // SAFETY: after `jpeg_finish_compress` the two describe the written bytes.
        Ok(unsafe { std::slice::from_raw_parts(self.output, self.output_bytes as usize) }.to_vec())
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once; the output buffer was allocated by libjpeg
        // with malloc and belongs to the caller (libjpeg's `jpeg_mem_dest`).
        unsafe {
            sys::jpeg_destroy_compress(&mut self.raw);
            free(self.output.cast());
        }
    }
}

unsafe extern "C" {
    /// The C library's; libjpeg allocates its output with the C library's malloc.
    fn free(pointer: *mut std::ffi::c_void);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width_px: u32, height_px: u32) -> Image {
        let pixels = (0..height_px)
            .flat_map(|y| (0..width_px).flat_map(move |x| [x as u8, y as u8, (x ^ y) as u8]))
            .collect();
        Image { width_px, height_px, pixels }
    }

    fn smooth(width_px: u32, height_px: u32) -> Image {
        let pixels = (0..height_px)
            .flat_map(|y| (0..width_px).flat_map(move |x| [x as u8, y as u8, 128]))
            .collect();
        Image { width_px, height_px, pixels }
    }

    #[test]
    fn what_is_encoded_decodes_to_nearly_the_same() {
        for (chroma, tolerance) in [(Chroma::Yuv444, 3), (Chroma::Yuv420, 8)] {
            let image = smooth(67, 43);
            let bytes = encode(&image, 98, chroma).unwrap();
            assert_eq!(size(&bytes).unwrap(), (67, 43));
            let back = decode(&bytes, 1 << 20).unwrap();
            assert_eq!((back.width_px, back.height_px), (67, 43));
            let worst = image.pixels.iter().zip(&back.pixels).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst.unwrap() <= tolerance, "{chroma:?}: {worst:?}");
        }
    }

    #[test]
    fn one_pixel_is_an_image() {
        let bytes = encode(&gradient(1, 1), 90, Chroma::Yuv420).unwrap();
        assert_eq!(decode(&bytes, 1).unwrap().pixels.len(), 3);
    }

    #[test]
    fn the_pixel_limit_is_judged_from_the_header() {
        let bytes = encode(&gradient(40, 30), 90, Chroma::Yuv420).unwrap();
        let error = decode(&bytes[..bytes.len() - 20], 1199).unwrap_err();
        assert!(matches!(error, SampleError::ImageTooLarge { width_px: 40, height_px: 30, .. }));
    }

    #[test]
    fn a_jpeg_that_ends_early_is_corrupt() {
        let bytes = encode(&gradient(200, 200), 90, Chroma::Yuv420).unwrap();
        for cut in [3, 20, bytes.len() / 4, bytes.len() / 2, bytes.len() - 40] {
            let error = decode(&bytes[..cut], 1 << 20).unwrap_err();
            assert_eq!(error.reason(), "image-corrupt", "cut at {cut}: {error}");
        }
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let bytes = encode(&gradient(64, 64), 80, Chroma::Yuv420).unwrap();
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let _ = decode(&broken, 1 << 20);
        }
    }

    #[test]
    fn twelve_bits_are_refused_clearly() {
        let mut bytes = encode(&gradient(16, 16), 90, Chroma::Yuv444).unwrap();
        let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        bytes[frame + 4] = 12;
        let error = decode(&bytes, 1 << 20).unwrap_err();
        assert_eq!(error.reason(), "image-unsupported", "{error}");
    }

    #[test]
    fn cmyk_of_no_ink_is_white() {
        assert_eq!(
            cmyk_to_rgb(&[255, 255, 255, 255, 0, 255, 255, 255]),
            [255, 255, 255, 0, 255, 255]
        );
    }
}
