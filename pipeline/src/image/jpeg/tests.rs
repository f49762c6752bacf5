use super::*;
use crate::image::resize::Part;
use crate::image::{DecodeOptions, Header, Image};

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

fn read(bytes: &[u8]) -> Result<Image, SampleError> {
    let options = DecodeOptions::default();
    decode(bytes, &Header::read(bytes, &options)?, &options)
}

/// A kind of JPEG that the encoder of the house does not write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    color: sys::J_COLOR_SPACE,
    horizontal: i32,
    vertical: i32,
    progressive: bool,
    restart_rows: i32,
}

impl Kind {
    /// Luma has so many samples across and down for one of chroma.
    pub(crate) fn sampled(horizontal: i32, vertical: i32) -> Self {
        Self { horizontal, vertical, ..PLAIN }
    }

    /// Channels of its pixels.
    pub(crate) fn channels(self) -> usize {
        use sys::J_COLOR_SPACE::{JCS_CMYK, JCS_YCCK};
        if matches!(self.color, JCS_CMYK | JCS_YCCK) { 4 } else { 3 }
    }

    /// One channel.
    pub(crate) fn grey() -> Self {
        Self { color: sys::J_COLOR_SPACE::JCS_GRAYSCALE, ..PLAIN }
    }
}

const YCC: sys::J_COLOR_SPACE = sys::J_COLOR_SPACE::JCS_YCbCr;
const PLAIN: Kind =
    Kind { color: YCC, horizontal: 1, vertical: 1, progressive: false, restart_rows: 0 };

/// Encodes RGB pixels, or four channels of ink for CMYK and YCCK, as that kind.
pub(crate) fn encode_as(kind: Kind, (width, height): (u32, u32), pixels: &[u8]) -> Vec<u8> {
    use sys::J_COLOR_SPACE::{JCS_CMYK, JCS_EXT_RGB};
    let channels = kind.channels();
    let is_ink = channels == 4;
    assert_eq!(pixels.len(), (width * height) as usize * channels);
    let errors = Box::leak(Errors::new());
    let (mut output, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: plain C data, created before any use; row pointers lie in `pixels`; the output of a
    // test is never freed.
    unsafe {
        let mut raw = MaybeUninit::<sys::jpeg_compress_struct>::zeroed().assume_init();
        raw.common.err = (&raw mut *errors).cast();
        sys::jpeg_create_compress(&mut raw);
        sys::jpeg_mem_dest(&mut raw, &mut output, &mut bytes);
        (raw.image_width, raw.image_height) = (width, height);
        raw.input_components = channels as c_int;
        raw.in_color_space = if is_ink { JCS_CMYK } else { JCS_EXT_RGB };
        let profile = sys::JINT_COMPRESS_PROFILE_VALUE::JCP_FASTEST as c_int;
        sys::jpeg_c_set_int_param(&mut raw, sys::J_INT_PARAM::JINT_COMPRESS_PROFILE, profile);
        sys::jpeg_set_defaults(&mut raw);
        sys::jpeg_set_colorspace(&mut raw, kind.color);
        sys::jpeg_set_quality(&mut raw, 95, 1);
        (*raw.comp_info).h_samp_factor = kind.horizontal;
        (*raw.comp_info).v_samp_factor = kind.vertical;
        raw.restart_in_rows = kind.restart_rows;
        if kind.progressive {
            sys::jpeg_simple_progression(&mut raw);
        }
        sys::jpeg_start_compress(&mut raw, 1);
        while raw.next_scanline < height {
            let at = raw.next_scanline as usize * width as usize * channels;
            sys::jpeg_write_scanlines(&mut raw, &pixels[at..].as_ptr(), 1);
        }
        sys::jpeg_finish_compress(&mut raw);
        let encoded = std::slice::from_raw_parts(output, bytes as usize).to_vec();
        sys::jpeg_destroy_compress(&mut raw);
        encoded
    }
}

/// Every kind of sampling and colour that is met.
pub(crate) fn kinds() -> Vec<Kind> {
    use sys::J_COLOR_SPACE::{JCS_CMYK, JCS_GRAYSCALE, JCS_RGB, JCS_YCCK};
    let mut kinds = Vec::new();
    for progressive in [false, true] {
        for (horizontal, vertical) in [(1, 1), (2, 1), (2, 2), (1, 2), (4, 1)] {
            kinds.push(Kind { horizontal, vertical, progressive, ..PLAIN });
        }
        kinds.push(Kind { color: JCS_GRAYSCALE, progressive, ..PLAIN });
        kinds.push(Kind { color: JCS_RGB, progressive, ..PLAIN });
        kinds.push(Kind { color: JCS_CMYK, progressive, ..PLAIN });
        kinds.push(Kind { color: JCS_YCCK, horizontal: 2, vertical: 2, progressive, ..PLAIN });
    }
    kinds.push(Kind { horizontal: 2, vertical: 2, restart_rows: 1, ..PLAIN });
    kinds
}

/// Pixels of that kind with detail everywhere.
fn drawn(kind: Kind, (width, height): (u32, u32)) -> Vec<u8> {
    use sys::J_COLOR_SPACE::{JCS_CMYK, JCS_YCCK};
    let is_ink = matches!(kind.color, JCS_CMYK | JCS_YCCK);
    let pixel = |x: u32, y: u32| {
        let (r, g, b) = ((3 * x + y) as u8, (x ^ (2 * y)) as u8, (x * y / 7) as u8);
        if is_ink { vec![r, g, b, 255 - (x as u8 >> 2)] } else { vec![r, g, b] }
    };
    (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect()
}

#[test]
fn what_is_encoded_decodes_to_nearly_the_same() {
    for (chroma, tolerance) in [(Chroma::Yuv444, 3), (Chroma::Yuv420, 8)] {
        let image = smooth(67, 43);
        let back = read(&encode(&image, 98, chroma).unwrap()).unwrap();
        assert_eq!((back.width_px, back.height_px), (67, 43));
        let worst = image.pixels.iter().zip(&back.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst.unwrap() <= tolerance, "{chroma:?}: {worst:?}");
    }
}

#[test]
fn every_kind_decodes_to_what_was_drawn() {
    use sys::J_COLOR_SPACE::{JCS_CMYK, JCS_YCCK};
    for kind in kinds() {
        let size_px = (48, 32);
        let is_ink = matches!(kind.color, JCS_CMYK | JCS_YCCK);
        // Flat, so that chroma loses nothing: half ink of each, over a key that lets 204 through.
        let pixel: &[u8] = if is_ink { &[100, 150, 200, 204] } else { &[90, 120, 150] };
        let pixels = pixel.repeat(48 * 32);
        let image = read(&encode_as(kind, size_px, &pixels)).unwrap();
        let expected = match kind.color {
            sys::J_COLOR_SPACE::JCS_GRAYSCALE => [114, 114, 114],
            JCS_CMYK | JCS_YCCK => [80, 120, 160],
            _ => [90, 120, 150],
        };
        let worst = image
            .pixels
            .chunks(3)
            .flat_map(|p| p.iter().zip(expected).map(|(found, expected)| found.abs_diff(expected)));
        assert!(worst.max().unwrap() <= 3, "{kind:?}: {:?}", &image.pixels[..3]);
    }
}

#[test]
fn a_part_equals_that_part_of_the_whole() {
    let options = DecodeOptions::default();
    let mut pixels = Vec::new();
    for kind in kinds() {
        let size_px = (211, 149);
        let bytes = encode_as(kind, size_px, &drawn(kind, size_px));
        let header = Header::read(&bytes, &options).unwrap();
        for scale in [Scale::Full, Scale::Half, Scale::Quarter, Scale::Eighth] {
            let (width, height) = scale.size(size_px);
            let whole = Part::whole((width, height));
            let mut all = Vec::new();
            let all_of = decode_part(&bytes, &header, &options, scale, whole, &mut all).unwrap();
            assert_eq!(all_of, whole);
            for n in 0..40u32 {
                // Parts of every size at every offset, by arithmetic.
                let left_px = n * 37 % width;
                let top_px = n * 53 % height;
                let width_px = 1 + n * n * 11 % (width - left_px);
                let height_px = 1 + n * n * 7 % (height - top_px);
                let part = Part { left_px, top_px, width_px, height_px };
                let found =
                    decode_part(&bytes, &header, &options, scale, part, &mut pixels).unwrap();
                for y in 0..height_px {
                    let from = |of: Part, y: u32| {
                        let row = (y - of.top_px) * of.width_px + left_px - of.left_px;
                        row as usize * 3
                    };
                    let (a, b) = (from(found, top_px + y), from(whole, top_px + y));
                    let bytes = width_px as usize * 3;
                    assert!(
                        pixels[a..a + bytes] == all[b..b + bytes],
                        "{kind:?} {scale:?} {part:?}, row {y}"
                    );
                }
            }
        }
    }
}

#[test]
fn one_pixel_is_an_image() {
    let bytes = encode(&gradient(1, 1), 90, Chroma::Yuv420).unwrap();
    assert_eq!(read(&bytes).unwrap().pixels.len(), 3);
}

#[test]
fn a_jpeg_that_ends_early_is_corrupt_unless_it_is_allowed() {
    let bytes = encode(&gradient(200, 200), 90, Chroma::Yuv420).unwrap();
    let allowing = DecodeOptions { allow_truncated: true, ..DecodeOptions::default() };
    let whole = read(&bytes).unwrap();
    for cut in [3, 20, bytes.len() / 4, bytes.len() / 2, bytes.len() - 40] {
        let error = read(&bytes[..cut]).unwrap_err();
        assert_eq!(error.reason(), "image-corrupt", "cut at {cut}: {error}");
        let Ok(header) = Header::read(&bytes[..cut], &allowing) else { continue };
        let Ok(half) = decode(&bytes[..cut], &header, &allowing) else { continue };
        let first_rows = 16 * 200 * 3;
        assert_eq!(half.pixels.len(), whole.pixels.len());
        if cut > bytes.len() / 3 {
            assert_eq!(half.pixels[..first_rows], whole.pixels[..first_rows]);
        }
    }
}

#[test]
fn broken_data_are_corrupt_even_where_truncated_files_are_allowed() {
    let kind = Kind { restart_rows: 1, ..PLAIN };
    let mut bytes = encode_as(kind, (64, 64), &drawn(kind, (64, 64)));
    let restart = bytes.windows(2).rposition(|w| w[0] == 0xff && (0xd0..=0xd7).contains(&w[1]));
    bytes[restart.unwrap() + 1] ^= 5;
    let allowing = DecodeOptions { allow_truncated: true, ..DecodeOptions::default() };
    let header = Header::read(&bytes, &allowing).unwrap();
    let error = decode(&bytes, &header, &allowing).unwrap_err();
    assert_eq!(error.reason(), "image-corrupt", "{error}");
}

#[test]
fn flipped_bytes_never_panic() {
    let options = DecodeOptions::default();
    let mut pixels = Vec::new();
    for progressive in [false, true] {
        let kind = Kind { horizontal: 2, vertical: 2, progressive, ..PLAIN };
        let bytes = encode_as(kind, (64, 64), &drawn(kind, (64, 64)));
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let Ok(header) = Header::read(&broken, &options) else { continue };
            if header.stored_px.0 as u64 * header.stored_px.1 as u64 > 1 << 20 {
                continue;
            }
            let _ = decode(&broken, &header, &options);
            let (w, h) = header.stored_px;
            let part = Part { left_px: w / 3, top_px: h / 3, width_px: w / 3 + 1, height_px: 1 };
            let _ = decode_part(&broken, &header, &options, Scale::Full, part, &mut pixels);
        }
    }
}

#[test]
fn what_is_not_decoded_is_refused_clearly() {
    let bytes = encode(&gradient(16, 16), 90, Chroma::Yuv444).unwrap();
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    // 12 bits a sample; lossless; arithmetic coding.
    for (at, value) in [(frame + 4, 12), (frame + 1, 0xc3), (frame + 1, 0xc9)] {
        let mut other = bytes.clone();
        other[at] = value;
        let error = read(&other).unwrap_err();
        assert_eq!(error.reason(), "image-unsupported", "{error}");
    }
}

#[test]
fn endless_scans_are_refused() {
    let kind = Kind { progressive: true, ..PLAIN };
    let bytes = encode_as(kind, (64, 64), &drawn(kind, (64, 64)));
    // The last scan again and again: legal to the letter, and each costs a pass over the image.
    let scan = bytes.windows(2).rposition(|w| w == [0xff, 0xda]).unwrap();
    let mut bomb = bytes[..bytes.len() - 2].to_vec();
    (0..1000).for_each(|_| bomb.extend(&bytes[scan..bytes.len() - 2]));
    bomb.extend([0xff, 0xd9]);
    let error = read(&bomb).unwrap_err();
    assert_eq!(error.reason(), "image-unsupported", "{error}");
    assert!(read(&bytes).is_ok());
}
