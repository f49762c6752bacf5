use super::*;
use crate::image::{Crop, CropDecoder, Image, decode, jpeg::encode};

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

/// Shrinks by planes and by RGB, both encoded alike: how far the two are apart, and how far each is
/// from what was drawn, shrunk.
fn compare(
    before: (u32, u32),
    size_px: (u32, u32),
    filter: Filter,
    (from, chroma): (Chroma, Chroma),
) -> [f64; 3] {
    let source = picture(before.0, before.1, from);
    let options = DecodeOptions::default();
    let header = Header::read(&source, &options).unwrap();
    let mut shrinker = Shrinker::default();
    assert!(shrinker.decode(&source, &header, &options, filter, size_px).unwrap());
    shrinker.shrink(before, size_px, filter, chroma);
    let planes = decode(&shrinker.encode(95, chroma).unwrap(), &options).unwrap();
    let crop = Crop {
        region: Region::whole(before),
        reaches_out: true,
        filter,
        output_px: size_px,
        flipped: false,
        may_scale: true,
    };
    let (width_px, height_px) = size_px;
    let mut pixels = vec![0; width_px as usize * height_px as usize * 3];
    CropDecoder::default().decode(&source, &header, &options, &crop, &mut pixels).unwrap();
    let rgb = encode(&Image { width_px, height_px, pixels: pixels.clone() }, 95, chroma).unwrap();
    let rgb = decode(&rgb, &options).unwrap();
    let (drawn, whole) = (drawn(before), Region::whole(before));
    Resizer::default().resize_into(Source::whole(&drawn), whole, filter, size_px, &mut pixels);
    let truth = Image { width_px, height_px, pixels };
    [psnr(&planes, &rgb), psnr(&planes, &truth), psnr(&rgb, &truth)]
}

#[test]
fn planes_shrink_as_well_as_rgb() {
    let (half, full) = (Chroma::Yuv420, Chroma::Yuv444);
    for (from, to) in [(half, half), (half, full), (full, half), (full, full)] {
        for filter in [Filter::Bilinear, Filter::Lanczos3] {
            // Odd sides, sides that are no MCUs, and reductions at each scale of the decoder.
            for (before, after) in [
                ((500, 375), (341, 256)),
                ((501, 333), (385, 255)),
                ((640, 480), (640, 480)),
                ((700, 1033), (173, 255)),
                ((1023, 801), (120, 94)),
            ] {
                let [apart, planes, rgb] = compare(before, after, filter, (from, to));
                let case = format!("{before:?} to {after:?}, {from:?} to {to:?}, {filter:?}");
                assert!(apart > 35.0, "{case}: {apart:.1} dB apart");
                assert!(planes > rgb - 1.0, "{case}: {planes:.1} dB from the truth, RGB {rgb:.1}");
            }
        }
    }
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
