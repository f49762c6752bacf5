//! Pixels to JPEG bytes.

use std::ffi::{c_uchar, c_ulong};

use super::*;
use crate::image::Image;

/// How chroma is sampled when encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// Half width and height: libjpeg's default, what most photographs have.
    Yuv420,
    /// Full resolution.
    Yuv444,
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
