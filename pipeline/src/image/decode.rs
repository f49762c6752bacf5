//! Decodes one image of any format that is read.
//!
//! In: encoded bytes. Out: an upright [`Image`]; palettes, grey, 16 bits and interlacing become
//! 8-bit RGB; what is transparent shows the background.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{DecodeOptions, Format, Header, Image, avif, jpeg};
use crate::error::SampleError;

/// Decodes `bytes` to RGB, upright.
///
/// # Errors
///
/// Those of [`Header::read`], before anything is allocated; [`SampleError::ImageCorrupt`] and
/// [`SampleError::ImageUnsupported`] when the decoder gives up.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image, SampleError> {
    let header = Header::read(bytes, options)?;
    Ok(header.orientation.upright(decode_stored(bytes, &header, options)?))
}

/// Decodes `bytes` to RGB, as it is stored.
pub(super) fn decode_stored(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
) -> Result<Image, SampleError> {
    let decoded = match header.format {
        Format::Jpeg => jpeg::decode(bytes, header, options),
        Format::Png => guarded(header, || decode_png(bytes, header, options)),
        Format::WebP => guarded(header, || decode_webp(bytes, header, options)),
        Format::Gif => guarded(header, || decode_gif(bytes, header, options)),
        Format::Avif => guarded(header, || avif::decode(bytes, header, options)),
    }?;
    header.check_decoded((decoded.width_px, decoded.height_px))?;
    Ok(decoded)
}

/// Runs a decoder that is not ours: should a file make it panic, then that file is bad, and not
/// the job.
fn guarded(
    header: &Header,
    decode: impl FnOnce() -> Result<Image, SampleError>,
) -> Result<Image, SampleError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no words");
        Err(corrupt(header.format)(format!("the decoder panicked: {text}")))
    })
}

fn corrupt(format: Format) -> impl Fn(String) -> SampleError {
    move |message| SampleError::ImageCorrupt { format: format.name(), message }
}

/// The bytes of `channels` a pixel, if the address space holds them.
pub(super) fn buffer(header: &Header, channels: usize) -> Result<Vec<u8>, SampleError> {
    let (width_px, height_px) = (header.stored_px.0 as usize, header.stored_px.1 as usize);
    let bytes = width_px.checked_mul(height_px).and_then(|pixels| pixels.checked_mul(channels));
    let bytes = bytes.ok_or_else(|| SampleError::ImageUnsupported {
        format: header.format.name(),
        message: "its pixels exceed the address space".to_owned(),
    })?;
    Ok(vec![0; bytes])
}

fn image(header: &Header, pixels: Vec<u8>) -> Image {
    Image { width_px: header.stored_px.0, height_px: header.stored_px.1, pixels }
}

fn decode_png(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
) -> Result<Image, SampleError> {
    let corrupt = |e: png::DecodingError| corrupt(Format::Png)(e.to_string());
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    // Text and colour profiles are not used, and may be bombs.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(corrupt)?;
    header.check_decoded((reader.info().width, reader.info().height))?;
    let (color, depth) = reader.output_color_type();
    let mut pixels = buffer(header, color.samples())?;
    if depth != png::BitDepth::Eight || reader.output_buffer_size() != Some(pixels.len()) {
        let message = format!("{color:?} of {depth:?} bits is not expanded to 8 bits");
        return Err(SampleError::ImageUnsupported { format: "PNG", message });
    }
    reader.next_frame(&mut pixels).map_err(corrupt)?;
    let grey = |level: u8| [level; 3];
    let rgb = match color {
        png::ColorType::Rgb => pixels,
        png::ColorType::Grayscale => pixels.iter().flat_map(|&level| grey(level)).collect(),
        png::ColorType::GrayscaleAlpha => {
            let over = |p: &[u8]| over(grey(p[0]), p[1], options.background);
            pixels.chunks_exact(2).flat_map(over).collect()
        }
        png::ColorType::Rgba => flatten(pixels, options.background),
        png::ColorType::Indexed => {
            let message = "its palette was not expanded".to_owned();
            return Err(SampleError::ImageUnsupported { format: "PNG", message });
        }
    };
    Ok(image(header, rgb))
}

/// Pixels above which the WebP decoder's 32-bit sizes overflow.
const WEBP_PIXELS_MAX: u64 = u32::MAX as u64 / 4;

fn decode_webp(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
) -> Result<Image, SampleError> {
    let corrupt = |e: image_webp::DecodingError| corrupt(Format::WebP)(e.to_string());
    let (width_px, height_px) = header.stored_px;
    if u64::from(width_px) * u64::from(height_px) > WEBP_PIXELS_MAX {
        let pixels_max = WEBP_PIXELS_MAX;
        return Err(SampleError::ImageTooLarge { width_px, height_px, pixels_max });
    }
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(corrupt)?;
    header.check_decoded(decoder.dimensions())?;
    if decoder.is_animated() {
        // What the first frame leaves free shows our background, not the file's.
        let [red, green, blue] = options.background;
        decoder.set_background_color([red, green, blue, 0]).map_err(corrupt)?;
    }
    let has_alpha = decoder.has_alpha();
    let mut pixels = buffer(header, if has_alpha { 4 } else { 3 })?;
    decoder.read_image(&mut pixels).map_err(corrupt)?;
    let pixels = if has_alpha { flatten(pixels, options.background) } else { pixels };
    Ok(image(header, pixels))
}

/// The first frame, laid on the background where the screen is larger.
fn decode_gif(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
) -> Result<Image, SampleError> {
    let corrupt = |e: gif::DecodingError| corrupt(Format::Gif)(e.to_string());
    let mut settings = gif::DecodeOptions::new();
    settings.set_color_output(gif::ColorOutput::RGBA);
    let limit = options.pixels_max.saturating_mul(4);
    settings.set_memory_limit(match std::num::NonZeroU64::new(limit) {
        Some(bytes) => gif::MemoryLimit::Bytes(bytes),
        None => gif::MemoryLimit::Unlimited,
    });
    // A frame that reaches over the screen is refused: no program that writes GIF makes one.
    settings.check_frame_consistency(true);
    let mut decoder = settings.read_info(Cursor::new(bytes)).map_err(corrupt)?;
    header.check_decoded((u32::from(decoder.width()), u32::from(decoder.height())))?;
    let frame = decoder.read_next_frame().map_err(corrupt)?;
    let frame = frame.ok_or_else(|| self::corrupt(Format::Gif)("it has no frame".to_owned()))?;
    let mut canvas = buffer(header, 3)?;
    canvas.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&options.background));
    let stride = header.stored_px.0 as usize * 3;
    let rows = canvas.chunks_exact_mut(stride).skip(usize::from(frame.top));
    for (row, pixels) in rows.zip(frame.buffer.chunks_exact(usize::from(frame.width).max(1) * 4)) {
        let row = row[usize::from(frame.left) * 3..].chunks_exact_mut(3);
        for (to, from) in row.zip(pixels.chunks_exact(4)) {
            to.copy_from_slice(&over([from[0], from[1], from[2]], from[3], options.background));
        }
    }
    Ok(image(header, canvas))
}

/// RGBA on a background, in place.
fn flatten(mut rgba: Vec<u8>, background: [u8; 3]) -> Vec<u8> {
    let pixels = rgba.len() / 4;
    for pixel in 0..pixels {
        let at = 4 * pixel;
        let rgb = over([rgba[at], rgba[at + 1], rgba[at + 2]], rgba[at + 3], background);
        rgba[3 * pixel..3 * pixel + 3].copy_from_slice(&rgb);
    }
    rgba.truncate(pixels * 3);
    rgba
}

/// `alpha · colour + (1 − alpha) · background`, rounded; the reference drops alpha instead.
fn over(rgb: [u8; 3], alpha: u8, background: [u8; 3]) -> [u8; 3] {
    let (a, rest) = (u32::from(alpha), 255 - u32::from(alpha));
    let mix = |c: usize| (u32::from(rgb[c]) * a + u32::from(background[c]) * rest + 127) / 255;
    [mix(0) as u8, mix(1) as u8, mix(2) as u8]
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
