//! Decodes one image of any format that is read.
//!
//! In: encoded bytes. Out: an [`Image`]; PNG's palettes, grey, 16 bits and interlacing become
//! 8-bit RGB; alpha is composited on white.

use std::io::Cursor;

use super::{Format, Image, check_size, jpeg};
use crate::error::SampleError;

/// Decodes `bytes` to RGB.
///
/// # Errors
///
/// [`SampleError::ImageFormat`] for other formats, [`SampleError::ImageTooLarge`] from the header
/// alone, before any pixel is allocated; [`SampleError::ImageCorrupt`] when the decoder gives up.
pub fn decode(bytes: &[u8], pixels_max: u64) -> Result<Image, SampleError> {
    match Format::of(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, pixels_max),
        Format::Png => decode_png(bytes, pixels_max),
        Format::WebP => decode_webp(bytes, pixels_max),
    }
}

fn decode_png(bytes: &[u8], pixels_max: u64) -> Result<Image, SampleError> {
    let corrupt =
        |e: png::DecodingError| SampleError::ImageCorrupt { format: "PNG", message: e.to_string() };
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    // Text and colour profiles are not used, and may be bombs.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let (width_px, height_px) = {
        let info = decoder.read_header_info().map_err(corrupt)?;
        (info.width, info.height)
    };
    check_size(Format::Png, width_px, height_px, pixels_max)?;
    let mut reader = decoder.read_info().map_err(corrupt)?;
    let bytes = reader.output_buffer_size().ok_or_else(|| too_large("PNG"))?;
    let mut pixels = vec![0; bytes];
    let frame = reader.next_frame(&mut pixels).map_err(corrupt)?;
    pixels.truncate(frame.buffer_size());
    let pixels = match frame.color_type {
        png::ColorType::Rgb => pixels,
        png::ColorType::Grayscale => pixels.iter().flat_map(|&g| [g, g, g]).collect(),
        png::ColorType::GrayscaleAlpha => {
            pixels.chunks_exact(2).flat_map(|p| on_white([p[0], p[0], p[0]], p[1])).collect()
        }
        png::ColorType::Rgba => rgba_on_white(&pixels),
        png::ColorType::Indexed => {
            let message = "palette was not expanded".to_owned();
            return Err(SampleError::ImageUnsupported { format: "PNG", message });
        }
    };
    Ok(Image { width_px, height_px, pixels })
}

fn decode_webp(bytes: &[u8], pixels_max: u64) -> Result<Image, SampleError> {
    let corrupt = |e: image_webp::DecodingError| SampleError::ImageCorrupt {
        format: "WebP",
        message: e.to_string(),
    };
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(corrupt)?;
    let (width_px, height_px) = decoder.dimensions();
    check_size(Format::WebP, width_px, height_px, pixels_max)?;
    let bytes = decoder.output_buffer_size().ok_or_else(|| too_large("WebP"))?;
    let mut pixels = vec![0; bytes];
    decoder.read_image(&mut pixels).map_err(corrupt)?;
    let pixels = if decoder.has_alpha() { rgba_on_white(&pixels) } else { pixels };
    Ok(Image { width_px, height_px, pixels })
}

fn too_large(format: &'static str) -> SampleError {
    SampleError::ImageUnsupported { format, message: "its pixels exceed the address space".into() }
}

fn rgba_on_white(rgba: &[u8]) -> Vec<u8> {
    rgba.chunks_exact(4).flat_map(|p| on_white([p[0], p[1], p[2]], p[3])).collect()
}

/// `alpha · colour + (1 − alpha) · 255`, rounded; the reference drops alpha instead.
fn on_white(rgb: [u8; 3], alpha: u8) -> [u8; 3] {
    let (a, rest) = (u32::from(alpha), 255 - u32::from(alpha));
    rgb.map(|c| ((u32::from(c) * a + 255 * rest + 127) / 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(color: png::ColorType, depth: png::BitDepth, width: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    #[test]
    fn every_kind_of_png_becomes_rgb() {
        use png::{BitDepth::*, ColorType::*};
        let cases: [(_, _, &[u8], [u8; 6]); 6] = [
            (Rgb, Eight, &[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
            (Grayscale, Eight, &[9, 200], [9, 9, 9, 200, 200, 200]),
            (Rgba, Eight, &[9, 9, 9, 255, 9, 9, 9, 0], [9, 9, 9, 255, 255, 255]),
            (GrayscaleAlpha, Eight, &[0, 128, 7, 255], [127, 127, 127, 7, 7, 7]),
            (Indexed, One, &[0b0100_0000], [10, 20, 30, 40, 50, 60]),
            (Grayscale, Sixteen, &[9, 99, 200, 1], [9, 9, 9, 200, 200, 200]),
        ];
        for (color, depth, data, rgb) in cases {
            let image = decode(&png_of(color, depth, 2, data), 100).unwrap();
            assert_eq!(image.pixels, rgb, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn a_png_above_the_limit_is_refused_from_its_header() {
        let bytes = png_of(png::ColorType::Rgb, png::BitDepth::Eight, 50, &[0; 150]);
        let error = decode(&bytes[..40], 49).unwrap_err();
        assert!(matches!(error, SampleError::ImageTooLarge { width_px: 50, .. }), "{error}");
    }

    #[test]
    fn webp_decodes() {
        let mut bytes = Vec::new();
        image_webp::WebPEncoder::new(&mut bytes)
            .encode(&[1, 2, 3, 0, 200, 100, 50, 255], 2, 1, image_webp::ColorType::Rgba8)
            .unwrap();
        assert_eq!(decode(&bytes, 2).unwrap().pixels, [255, 255, 255, 200, 100, 50]);
        assert_eq!(decode(&bytes[..bytes.len() - 3], 2).unwrap_err().reason(), "image-corrupt");
    }

    #[test]
    fn other_bytes_are_named() {
        assert_eq!(
            decode(b"GIF89a", 100).unwrap_err().to_string(),
            "first bytes 47 49 46 38 39 61 are no JPEG, PNG or WebP"
        );
    }
}
