use super::*;
use crate::image::orientation::tests::exif_block;

const RED: [u8; 3] = [200, 30, 20];
const GREEN: [u8; 3] = [20, 180, 40];
const BLUE: [u8; 3] = [10, 60, 220];
const WHITE: [u8; 3] = [255; 3];

fn read(bytes: &[u8]) -> Result<Image, SampleError> {
    decode(bytes, &DecodeOptions::default())
}

/// A file that `tests/data/make_images.py` drew.
macro_rules! drawn {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/data/images/", $name)).as_slice()
    };
}

fn pixel(image: &Image, x: u32, y: u32) -> [u8; 3] {
    let at = (y * image.width_px + x) as usize * 3;
    [image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]
}

/// The middles of the four quarters.
fn quarters(image: &Image) -> [[u8; 3]; 4] {
    let (w, h) = (image.width_px / 4, image.height_px / 4);
    [(w, h), (3 * w, h), (w, 3 * h), (3 * w, 3 * h)].map(|(x, y)| pixel(image, x, y))
}

fn assert_near(found: &[[u8; 3]], expected: &[[u8; 3]], tolerance: u8, what: &str) {
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= tolerance, "{what}: {found:?}, expected {expected:?}");
}

fn png_of(color: png::ColorType, depth: png::BitDepth, width: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, 1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
        encoder.set_trns(vec![255, 0]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

#[test]
fn every_kind_of_png_becomes_rgb() {
    use png::{BitDepth::*, ColorType::*};
    let cases: [(_, _, &[u8], [u8; 6]); 7] = [
        (Rgb, Eight, &[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        (Grayscale, Eight, &[9, 200], [9, 9, 9, 200, 200, 200]),
        (Grayscale, Two, &[0b0110_0000], [85, 85, 85, 170, 170, 170]),
        (Rgba, Eight, &[9, 9, 9, 255, 9, 9, 9, 0], [9, 9, 9, 255, 255, 255]),
        (GrayscaleAlpha, Eight, &[0, 128, 7, 255], [127, 127, 127, 7, 7, 7]),
        (Indexed, One, &[0b0100_0000], [10, 20, 30, 255, 255, 255]),
        (Grayscale, Sixteen, &[9, 99, 200, 1], [9, 9, 9, 200, 200, 200]),
    ];
    for (color, depth, data, rgb) in cases {
        let image = read(&png_of(color, depth, 2, data)).unwrap();
        assert_eq!(image.pixels, rgb, "{color:?} {depth:?}");
    }
}

#[test]
fn an_interlaced_png_is_put_together() {
    for bytes in [drawn!("interlaced_8.png"), drawn!("interlaced_16.png")] {
        assert_eq!(quarters(&read(bytes).unwrap()), [RED, GREEN, BLUE, WHITE]);
    }
}

#[test]
fn what_is_transparent_shows_the_background() {
    let options = DecodeOptions { background: [1, 100, 200], ..DecodeOptions::default() };
    for (bytes, tolerance) in [
        (drawn!("interlaced_8.png"), 0),
        (drawn!("lossless_alpha.webp"), 0),
        (drawn!("lossy_alpha.webp"), 6),
        (drawn!("animated.webp"), 0),
        (drawn!("animated.gif"), 0),
    ] {
        let image = decode(bytes, &options).unwrap();
        let what = format!("{:?}", Format::of(bytes));
        assert_near(&quarters(&image), &[RED, GREEN, BLUE, [1, 100, 200]], tolerance, &what);
    }
}

#[test]
fn webp_and_gif_give_their_first_frame() {
    for (bytes, fourth, tolerance) in [
        (drawn!("lossy.webp"), [9; 3], 6),
        (drawn!("lossless_alpha.webp"), WHITE, 0),
        (drawn!("animated.webp"), WHITE, 0),
        (drawn!("still.gif"), [9; 3], 0),
        (drawn!("animated.gif"), WHITE, 0),
    ] {
        let what = format!("{:?} of {} bytes", Format::of(bytes), bytes.len());
        assert_near(
            &quarters(&read(bytes).unwrap()),
            &[RED, GREEN, BLUE, fourth],
            tolerance,
            &what,
        );
    }
}

#[test]
fn jpeg_of_other_programs_decodes() {
    let image = read(drawn!("progressive.jpg")).unwrap();
    assert_near(&quarters(&image), &[RED, GREEN, BLUE, [9; 3]], 12, "progressive");
    for bytes in [drawn!("cmyk.jpg"), drawn!("cmyk_plain.jpg")] {
        // 255 − ink, of which 255 − 51 = 204 in 255 pass the black.
        assert_near(&[pixel(&read(bytes).unwrap(), 8, 8)], &[[64, 96, 128]], 2, "CMYK");
    }
}

#[test]
fn exif_orientation_is_applied_in_every_format() {
    // Red left of green, 32 × 16 px, then turned as each of the eight numbers says.
    let files = [
        drawn!("turned_1.jpg"),
        drawn!("turned_2.jpg"),
        drawn!("turned_3.jpg"),
        drawn!("turned_4.jpg"),
        drawn!("turned_5.jpg"),
        drawn!("turned_6.jpg"),
        drawn!("turned_7.jpg"),
        drawn!("turned_8.jpg"),
    ];
    let seen = files.map(|bytes| {
        let image = read(bytes).unwrap();
        let first = pixel(&image, 3, 3)[0] > 100;
        let last = pixel(&image, image.width_px - 4, image.height_px - 4)[0] > 100;
        assert_ne!(first, last);
        (image.width_px, if first { "red first" } else { "green first" })
    });
    let expected = [
        (32, "red first"),
        (32, "green first"),
        (32, "green first"),
        (32, "red first"),
        (16, "red first"),
        (16, "red first"),
        (16, "green first"),
        (16, "green first"),
    ];
    assert_eq!(seen, expected);
    let png = read(drawn!("turned.png")).unwrap();
    assert_eq!((png.width_px, pixel(&png, 8, 8), pixel(&png, 8, 24)), (16, GREEN, RED));
    let webp = read(drawn!("turned.webp")).unwrap();
    assert_eq!((webp.width_px, pixel(&webp, 8, 8), pixel(&webp, 8, 24)), (16, RED, GREEN));
}

/// A file of that format whose header says 50,000 × 40,000 px, and nothing behind it.
fn hostile(format: Format) -> Vec<u8> {
    let (w, h) = (50_000u32, 40_000u32);
    match format {
        Format::Png => {
            let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
            bytes.extend(w.to_be_bytes());
            bytes.extend(h.to_be_bytes());
            bytes.extend([8, 6, 0, 0, 0, 0, 0, 0, 0]);
            bytes
        }
        Format::Jpeg => {
            let mut bytes = b"\xff\xd8\xff\xc0\0\x11\x08".to_vec();
            bytes.extend((h as u16).to_be_bytes());
            bytes.extend((w as u16).to_be_bytes());
            bytes.extend(b"\x03\x01\x11\0\x02\x11\0\x03\x11\0");
            bytes
        }
        Format::WebP => {
            let mut bytes = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
            bytes.extend(&(w - 1).to_le_bytes()[..3]);
            bytes.extend(&(h - 1).to_le_bytes()[..3]);
            bytes
        }
        Format::Gif => {
            let mut bytes = b"GIF89a".to_vec();
            bytes.extend((w as u16).to_le_bytes());
            bytes.extend((h as u16).to_le_bytes());
            bytes.extend([0, 0, 0]);
            bytes
        }
        Format::Avif => unreachable!("its tests have their own"),
    }
}

#[test]
fn the_pixel_limit_is_judged_from_the_header() {
    for format in [Format::Jpeg, Format::Png, Format::WebP, Format::Gif] {
        let error = read(&hostile(format)).unwrap_err();
        let is_too_large =
            matches!(error, SampleError::ImageTooLarge { width_px: 50_000, height_px: 40_000, .. });
        assert!(is_too_large, "{format:?}: {error}");
        // Allowed by size, it is found to be no image without its pixels being allocated first.
        let options = DecodeOptions { pixels_max: 3_000_000_000, ..DecodeOptions::default() };
        let header = Header::read(&hostile(format), &options).unwrap();
        assert_eq!(header.upright_px(), (50_000, 40_000), "{format:?}");
    }
}

#[test]
fn a_webp_frame_larger_than_its_canvas_is_refused_from_the_header() {
    let mut bytes = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x0f\0\0\x0f\0\0".to_vec();
    bytes.extend(b"VP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f");
    let error = Header::read(&bytes, &DecodeOptions::default()).unwrap_err();
    assert_eq!(error.reason(), "image-corrupt", "{error}");
}

#[test]
fn headers_without_an_end_or_of_no_size_are_corrupt() {
    let exif = exif_block(6, true);
    let mut endless = b"\xff\xd8\xff\xe1".to_vec();
    endless.extend((exif.len() as u16 + 8).to_be_bytes());
    endless.extend(b"Exif\0\0");
    endless.extend(exif);
    let mut flat = hostile(Format::Gif);
    flat[6..8].fill(0);
    for bytes in [endless, flat, b"\xff\xd8\xff".to_vec(), b"GIF89a".to_vec()] {
        let error = read(&bytes).unwrap_err();
        assert_eq!(error.reason(), "image-corrupt", "{error}");
    }
    assert_eq!(read(b"BM...").unwrap_err().reason(), "image-format");
}

#[test]
fn cut_and_flipped_files_never_panic_and_never_decode_to_another_size() {
    for bytes in [
        drawn!("interlaced_8.png"),
        drawn!("lossy_alpha.webp"),
        drawn!("animated.webp"),
        drawn!("animated.gif"),
        drawn!("turned_6.jpg"),
    ] {
        let options = DecodeOptions { pixels_max: 1 << 16, ..DecodeOptions::default() };
        for at in 0..bytes.len() {
            let mut broken = bytes.to_vec();
            broken[at] ^= 0x55;
            for broken in [&broken[..], &bytes[..at]] {
                if let Ok(image) = decode(broken, &options) {
                    let header = Header::read(broken, &options).unwrap();
                    assert_eq!((image.width_px, image.height_px), header.upright_px());
                }
            }
        }
    }
}
