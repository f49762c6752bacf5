use super::*;
use crate::image::jpeg::Chroma;
use crate::image::{Image, decode};

/// What `tests/data/make_crops.py` wrote.
const TABLE: &str = include_str!("../../tests/data/crops.jsonl");

/// Largest difference from torchvision, in levels of 255. Both sum the same weights; Pillow keeps
/// 22 bits of them and we 15, and each pass is rounded. Bicubic overshoots at sharp edges and is
/// cut off at 0 and 255 after each pass, and the passes come in another order.
fn levels_max(filter: Filter) -> u8 {
    if filter == Filter::Bilinear { 1 } else { 8 }
}

fn file(name: &str) -> &'static [u8] {
    match name {
        "a.jpg" => include_bytes!("../../tests/data/crops/a.jpg"),
        "b.jpg" => include_bytes!("../../tests/data/crops/b.jpg"),
        "c.jpg" => include_bytes!("../../tests/data/crops/c.jpg"),
        other => panic!("{other} was not drawn"),
    }
}

fn decoded(bytes: &[u8], crop: &Crop) -> Vec<u8> {
    let options = DecodeOptions::default();
    let header = Header::read(bytes, &options).unwrap();
    let mut out = vec![0; (crop.output_px.0 * crop.output_px.1 * 3) as usize];
    CropDecoder::default().decode(bytes, &header, &options, crop, &mut out).unwrap();
    out
}

fn table(op: &str) -> Vec<serde_json::Value> {
    let rows = TABLE.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let rows: Vec<_> = rows.filter(|row| row["op"] == op).collect();
    assert!(!rows.is_empty());
    rows
}

fn pixels_of(row: &serde_json::Value) -> Vec<u8> {
    let hex = row["pixels"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap()
}

fn worst(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn a_crop_is_torchvisions() {
    for row in table("crop") {
        let region: Vec<f64> = row["region"].as_array().unwrap().iter().map(number).collect();
        let side = number(&row["crop"]) as u32;
        let crop = Crop {
            region: Region {
                left_px: region[0],
                top_px: region[1],
                width_px: region[2],
                height_px: region[3],
            },
            reaches_out: false,
            filter: serde_json::from_value(row["filter"].clone()).unwrap(),
            output_px: (side, side),
            flipped: false,
            may_scale: false,
        };
        let found = decoded(file(row["image"].as_str().unwrap()), &crop);
        let worst = worst(&found, &pixels_of(&row));
        println!("{} {crop:?}: {worst}", row["image"]);
        assert!(worst <= levels_max(crop.filter), "{} {crop:?}: {worst}", row["image"]);
    }
}

#[test]
fn a_centre_crop_is_torchvisions() {
    for row in table("centre") {
        let bytes = file(row["image"].as_str().unwrap());
        let header = Header::read(bytes, &DecodeOptions::default()).unwrap();
        let side = number(&row["crop"]) as u32;
        let resize_px = number(&row["resize"]) as u32;
        let crop = Crop {
            region: Region::centre(header.upright_px(), resize_px, side),
            reaches_out: true,
            filter: serde_json::from_value(row["filter"].clone()).unwrap(),
            output_px: (side, side),
            flipped: false,
            may_scale: false,
        };
        let worst = worst(&decoded(bytes, &crop), &pixels_of(&row));
        println!("{} {crop:?}: {worst}", row["image"]);
        assert!(worst <= levels_max(crop.filter), "{} {crop:?}: {worst}", row["image"]);
    }
}

fn drawn(width_px: u32, height_px: u32) -> Image {
    let at = |x: u32, y: u32| {
        let wave = |a: f64| (127.0 + 120.0 * (a * f64::from(x + 2 * y)).sin()) as u8;
        [wave(0.11), wave(0.07), ((x / 9 + y / 7) % 2 * 200) as u8]
    };
    let pixels = (0..height_px).flat_map(|y| (0..width_px).flat_map(move |x| at(x, y))).collect();
    Image { width_px, height_px, pixels }
}

#[test]
fn a_crop_of_a_turned_and_flipped_image_is_that_of_the_decoded_one() {
    let files: [&[u8]; 4] = [
        include_bytes!("../../tests/data/images/turned_5.jpg"),
        include_bytes!("../../tests/data/images/turned_6.jpg"),
        include_bytes!("../../tests/data/images/turned_3.jpg"),
        include_bytes!("../../tests/data/images/turned.png"),
    ];
    for (number, bytes) in files.into_iter().enumerate() {
        let image = decode(bytes, &DecodeOptions::default()).unwrap();
        for flipped in [false, true] {
            let (left_px, top_px, width_px, height_px) = (2.0, 3.0, 9.0, 11.0);
            let region = Region { left_px, top_px, width_px, height_px };
            let crop = Crop {
                region,
                reaches_out: false,
                filter: Filter::Bilinear,
                output_px: (6, 5),
                flipped,
                may_scale: false,
            };
            let mut expected = vec![0; 6 * 5 * 3];
            let view = Part { left_px: 2, top_px: 3, width_px: 9, height_px: 11 };
            let source = Source { view, ..Source::whole(&image) };
            let inside = Region { left_px: 0.0, top_px: 0.0, ..region };
            let size_px = (6, 5);
            Resizer::default().resize_into(
                source,
                inside,
                Filter::Bilinear,
                size_px,
                &mut expected,
            );
            if flipped {
                mirror_rows(&mut expected, 6);
            }
            // Turned images are resized before they are turned, so the passes change places.
            let worst = worst(&decoded(bytes, &crop), &expected);
            assert!(worst <= 1, "file {number}, flipped {flipped}: {worst}");
        }
    }
}

#[test]
fn decoding_at_a_half_or_less_stays_above_28_decibel() {
    for (width, height, output_px) in [(900, 700, (300, 233)), (1601, 1203, (200, 150))] {
        let mut image = drawn(width, height);
        // Cells as small as a pixel of the result show which filter it was, not what was lost.
        image.pixels.chunks_exact_mut(3).for_each(|rgb| rgb[2] = rgb[0] / 2);
        for chroma in [Chroma::Yuv444, Chroma::Yuv420] {
            let bytes = jpeg::encode(&image, 92, chroma).unwrap();
            let crop = Crop {
                region: Region::whole((width, height)),
                reaches_out: true,
                filter: Filter::Lanczos3,
                output_px,
                flipped: false,
                may_scale: true,
            };
            let scaled = decoded(&bytes, &crop);
            let full = decoded(&bytes, &Crop { may_scale: false, ..crop });
            let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
            let sum: f64 = scaled.iter().zip(&full).map(square).sum();
            let decibel = 10.0 * (255.0 * 255.0 * full.len() as f64 / sum.max(1e-9)).log10();
            assert!(decibel > 28.0, "{width} × {height} {chroma:?}: {decibel:.1} dB");
        }
    }
}

#[test]
fn mirrored_rows_swap_left_and_right() {
    let mut pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19];
    mirror_rows(&mut pixels, 3);
    assert_eq!(pixels, [7, 8, 9, 4, 5, 6, 1, 2, 3, 17, 18, 19, 14, 15, 16, 11, 12, 13]);
    mirror_rows(&mut pixels, 2);
    assert_eq!(pixels[..6], [4, 5, 6, 7, 8, 9]);
}
