use super::*;
use crate::image::jpeg::encode;
use crate::image::jpeg::tests::{Kind, encode_as};
use crate::image::{Crop, CropDecoder, Image, decode};

/// Soft shapes in colours that change: a photograph has no sharper chroma.
fn drawn((width_px, height_px): (u32, u32)) -> Image {
    let wave = |x: u32, y: u32, k: f64| {
        let (x, y) = (f64::from(x) / f64::from(width_px), f64::from(y) / f64::from(height_px));
        (127.5 + 120.0 * (9.0 * k * x + 5.0 * y).sin() * (6.0 * y - k * x).cos()) as u8
    };
    let pixel = |x, y| [wave(x, y, 1.0), wave(x, y, 1.4), wave(x, y, 0.7)];
    let pixels = (0..height_px).flat_map(|y| (0..width_px).flat_map(move |x| pixel(x, y)));
    Image { width_px, height_px, pixels: pixels.collect() }
}

fn picture(width_px: u32, height_px: u32, chroma: Chroma) -> Vec<u8> {
    encode(&drawn((width_px, height_px)), 95, chroma).unwrap()
}

/// Peak signal to noise of two images, in dB.
fn psnr(a: &Image, b: &Image) -> f64 {
    assert_eq!((a.width_px, a.height_px), (b.width_px, b.height_px));
    let squares = a.pixels.iter().zip(&b.pixels).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2));
    let mean = squares.sum::<f64>() / a.pixels.len() as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}

/// What was drawn, shrunk.
fn truth(drawn: &Image, size_px: (u32, u32), filter: Filter) -> Image {
    let region = Region::whole((drawn.width_px, drawn.height_px));
    let (width_px, height_px) = size_px;
    let mut pixels = vec![0; width_px as usize * height_px as usize * 3];
    let source = Source::whole(drawn);
    Resizer::default().resize_into(source, region, filter, size_px, &mut pixels);
    Image { width_px, height_px, pixels }
}

/// Shrinks by planes and by RGB, both encoded alike: how far the two are apart, and how far each is
/// from the truth.
fn compare(source: &[u8], truth: &Image, filter: Filter, chroma: Chroma) -> [f64; 3] {
    let options = DecodeOptions::default();
    let header = Header::read(source, &options).unwrap();
    let (before_px, (width_px, height_px)) = (header.stored_px, (truth.width_px, truth.height_px));
    let size_px = (width_px, height_px);
    let mut shrinker = Shrinker::default();
    assert!(shrinker.decode(source, &header, &options, filter, size_px).unwrap());
    shrinker.shrink(before_px, size_px, filter, chroma);
    let planes = decode(&shrinker.encode(95, chroma).unwrap(), &options).unwrap();
    let crop = Crop {
        region: Region::whole(before_px),
        reaches_out: true,
        filter,
        output_px: size_px,
        flipped: false,
        may_scale: true,
    };
    let mut pixels = vec![0; truth.pixels.len()];
    CropDecoder::default().decode(source, &header, &options, &crop, &mut pixels).unwrap();
    let rgb = encode(&Image { width_px, height_px, pixels }, 95, chroma).unwrap();
    let rgb = decode(&rgb, &options).unwrap();
    [psnr(&planes, &rgb), psnr(&planes, truth), psnr(&rgb, truth)]
}

#[test]
fn planes_shrink_as_well_as_rgb() {
    // Odd sides, sides that are no MCUs, and reductions at each scale of the decoder.
    for (before, after) in [
        ((500, 375), (341, 256)),
        ((501, 333), (385, 255)),
        ((640, 480), (640, 480)),
        ((700, 1033), (173, 255)),
        ((1023, 801), (120, 94)),
        ((900, 1000), (31, 34)),
    ] {
        let drawn = drawn(before);
        for filter in [Filter::Bilinear, Filter::Lanczos3] {
            let truth = truth(&drawn, after, filter);
            for from in [Chroma::Yuv420, Chroma::Yuv444] {
                let source = encode(&drawn, 95, from).unwrap();
                for to in [Chroma::Yuv420, Chroma::Yuv444] {
                    let [apart, planes, rgb] = compare(&source, &truth, filter, to);
                    let case = format!("{before:?} to {after:?}, {from:?} to {to:?}, {filter:?}");
                    assert!(apart > 35.0, "{case}: {apart:.1} dB apart");
                    assert!(
                        planes > rgb - 1.0,
                        "{case}: {planes:.1} dB from the truth, RGB {rgb:.1}"
                    );
                }
            }
        }
    }
}

/// Above this the way in which levels are rounded tells. At a reduction of 16, of which the decoder
/// does 8, a smooth image has most means halfway between two levels and they go up: in RGB that
/// brightens by 0.4 levels, in planes it is a tint.
const ROUNDED_DB: f64 = 43.0;

/// Where both are far apart it is RGB that is far from the truth.
#[test]
fn so_they_do_at_any_reduction_and_sampling() {
    for (width, reduction) in [
        (17, 1.1),
        (31, 1.1),
        (100, 1.1),
        (16, 1.5),
        (63, 1.9),
        (24, 2.0),
        (101, 2.3),
        (32, 3.3),
        (64, 4.0),
        (33, 5.5),
        (47, 7.9),
        (31, 8.0),
        (90, 9.0),
        (48, 13.0),
        (63, 16.0),
        (61, 17.0),
        (31, 20.0),
        (27, 29.0),
        (31, 40.0),
    ] {
        let after = (width, width + 5);
        let before = |side: u32| (f64::from(side) * reduction).ceil() as u32;
        let before = (before(after.0), before(after.1));
        let drawn = drawn(before);
        let truths = [Filter::Bilinear, Filter::Lanczos3].map(|f| (f, truth(&drawn, after, f)));
        for sampling in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            let kind = Kind::sampled(sampling.0, sampling.1);
            let source = encode_as(kind, before, &drawn.pixels);
            for (filter, truth) in &truths {
                for to in [Chroma::Yuv420, Chroma::Yuv444] {
                    let [_, planes, rgb] = compare(&source, truth, *filter, to);
                    let case =
                        format!("{before:?} to {after:?}, {sampling:?} to {to:?}, {filter:?}");
                    let told = format!("{case}: {planes:.1} dB from the truth, RGB {rgb:.1}");
                    assert!(planes > rgb.min(ROUNDED_DB) - 1.0, "{told}");
                }
            }
        }
    }
}

#[test]
fn a_mean_of_two_that_falls_between_goes_down_and_up_by_turns() {
    let mut to = [0; 4];
    average(&[1, 2, 1, 2, 1, 2, 9], (7, 1), (4, 1), &mut to);
    assert_eq!(to, [1, 2, 1, 9]);
    average(&[1, 2, 3, 4, 5, 6, 7, 8, 255], (3, 3), (2, 2), &mut to);
    assert_eq!(to, [3, 5, 7, 255]);
    let mut to = [0; 3];
    average(&[10, 20, 30, 20, 30, 40], (3, 2), (3, 1), &mut to);
    assert_eq!(to, [15, 25, 35]);
}

#[test]
fn what_has_other_planes_is_left_to_others() {
    let options = DecodeOptions::default();
    let mut shrinker = Shrinker::default();
    for name in ["cmyk.jpg", "turned_6.jpg", "lossy.webp", "turned.png"] {
        let path = format!("{}/tests/data/images/{name}", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let header = Header::read(&bytes, &options).unwrap();
        let done = shrinker.decode(&bytes, &header, &options, Filter::Lanczos3, (8, 8));
        assert!(matches!(done, Ok(false)), "{name}: {done:?}");
    }
    let grey = encode_as(Kind::grey(), (64, 48), &drawn((64, 48)).pixels);
    let header = Header::read(&grey, &options).unwrap();
    assert!(!shrinker.decode(&grey, &header, &options, Filter::Lanczos3, (8, 6)).unwrap());
}

#[test]
fn a_cut_file_is_an_error_by_planes_too() {
    let bytes = picture(300, 200, Chroma::Yuv420);
    let cut = &bytes[..bytes.len() / 2];
    let header = Header::read(cut, &DecodeOptions::default()).unwrap();
    let decode = |allow_truncated| {
        let options = DecodeOptions { allow_truncated, ..DecodeOptions::default() };
        Shrinker::default().decode(cut, &header, &options, Filter::Lanczos3, (60, 40))
    };
    assert!(matches!(decode(false), Err(SampleError::ImageCorrupt { .. })));
    assert!(matches!(decode(true), Ok(true)));
}

#[test]
fn the_smallest_images_shrink() {
    for (before, after) in
        [((1, 1), (1, 1)), ((2, 1), (1, 1)), ((17, 33), (1, 2)), ((9, 8), (8, 7))]
    {
        for chroma in [Chroma::Yuv420, Chroma::Yuv444] {
            let bytes = picture(before.0, before.1, chroma);
            let options = DecodeOptions::default();
            let header = Header::read(&bytes, &options).unwrap();
            let mut shrinker = Shrinker::default();
            assert!(shrinker.decode(&bytes, &header, &options, Filter::Lanczos3, after).unwrap());
            shrinker.shrink(before, after, Filter::Lanczos3, chroma);
            let image = decode(&shrinker.encode(90, chroma).unwrap(), &options).unwrap();
            assert_eq!((image.width_px, image.height_px), after);
        }
    }
}

/// The JPEG with other sampling factors of its three channels, in the header alone.
fn with_factors(jpeg: &[u8], factors: [u8; 3]) -> Vec<u8> {
    let mut bytes = jpeg.to_vec();
    let at = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for (channel, factors) in factors.into_iter().enumerate() {
        // Marker, length, precision, two sides, channels: 10 bytes; then id, factors and table.
        bytes[at + 10 + 3 * channel + 1] = factors;
    }
    bytes
}

#[test]
fn planes_of_fractional_chroma_are_refused_as_pixels_are() {
    let drawn = picture(48, 48, Chroma::Yuv444);
    let options = DecodeOptions { allow_truncated: true, ..DecodeOptions::default() };
    for factors in [[0x22, 0x13, 0x11], [0x21, 0x31, 0x11], [0x13, 0x12, 0x11], [0x41, 0x31, 0x11]]
    {
        let bytes = with_factors(&drawn, factors);
        let header = Header::read(&bytes, &options).unwrap();
        let whole = decode(&bytes, &options).unwrap_err().to_string();
        for size_px in [(48, 48), (20, 20), (5, 5)] {
            let mut shrinker = Shrinker::default();
            let planes = shrinker.decode(&bytes, &header, &options, Filter::Lanczos3, size_px);
            assert_eq!(planes.unwrap_err().to_string(), whole);
        }
        assert!(whole.contains("expected divisors of"), "{whole}");
    }
    let bytes = with_factors(&drawn, [0x22, 0x12, 0x21]);
    assert!(decode(&bytes, &options).is_ok());
}
