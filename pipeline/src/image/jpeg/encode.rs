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

pub(super) struct Encoder<'e> {
    pub(super) raw: Box<sys::jpeg_compress_struct>,
    // Boxed, since libjpeg keeps pointers to them.
    pub(super) output: Box<*mut c_uchar>,
    pub(super) output_bytes: Box<c_ulong>,
    _errors: &'e mut Errors,
}

impl<'e> Encoder<'e> {
    pub(super) fn new(errors: &'e mut Errors) -> Self {
        // SAFETY: as in `Decoder::new`.
        let raw = unsafe {
            let mut raw =
                Box::new(MaybeUninit::<sys::jpeg_compress_struct>::zeroed().assume_init());
            raw.common.err = (&raw mut *errors).cast();
            sys::jpeg_create_compress(&mut *raw);
            raw
        };
        let (output, output_bytes) = (Box::new(std::ptr::null_mut()), Box::new(0));
        Self { raw, output, output_bytes, _errors: errors }
    }

    fn write(
        &mut self,
        image: &Image,
        quality: u8,
        chroma: Chroma,
    ) -> Result<Vec<u8>, SampleError> {
        let stride = image.width_px as usize * 3;
        assert_eq!(image.pixels.len(), stride * image.height_px as usize, "pixels of an image");
        run(|| {
            self.begin((image.width_px, image.height_px), quality, chroma, false);
            let raw = &mut *self.raw;
            while raw.next_scanline < raw.image_height {
                let row = image.pixels[raw.next_scanline as usize * stride..].as_ptr();
                // SAFETY: the row lies in `image.pixels`, whose length was just checked. libjpeg
                // does not write through it.
                unsafe { sys::jpeg_write_scanlines(raw, &row, 1) };
            }
            self.finish()
        })
    }

    /// Ends the file and gives its bytes; all rows were written.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        // SAFETY: after `jpeg_finish_compress` the two describe the written bytes.
        unsafe {
            sys::jpeg_finish_compress(&mut self.raw);
            std::slice::from_raw_parts(*self.output, *self.output_bytes as usize).to_vec()
        }
    }
}

impl Drop for Encoder<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once; the output buffer was allocated by libjpeg
        // with malloc and belongs to the caller (libjpeg's `jpeg_mem_dest`).
        unsafe {
            sys::jpeg_destroy_compress(&mut self.raw);
            free((*self.output).cast());
        }
    }
}

unsafe extern "C" {
    /// The C library's; libjpeg allocates its output with the C library's malloc.
    fn free(pointer: *mut std::ffi::c_void);
}
