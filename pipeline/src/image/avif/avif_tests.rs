use super::*;
use crate::image::{Crop, CropDecoder, Filter, Region, decode as decode_upright};

/// A file that `tests/data/make_avif.py` drew, and what libavif sees in it.
macro_rules! drawn {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../../tests/data/avif/", $name, ".avif")).as_slice(),
            include_bytes!(concat!("../../../tests/data/avif/", $name, ".png")).as_slice(),
        )
    };
}

type Drawn = (&'static str, &'static [u8], &'static [u8]);

/// Of each kind one.
fn all() -> Vec<Drawn> {
    vec![
        drawn!("slopes_8_400"),
        drawn!("slopes_8_420"),
        drawn!("slopes_8_422"),
        drawn!("slopes_8_444"),
        drawn!("slopes_10_420"),
        drawn!("slopes_10_444"),
        drawn!("slopes_12_400"),
        drawn!("slopes_12_422"),
        drawn!("limited_709"),
        drawn!("lossless"),
        drawn!("alpha"),
        drawn!("premultiplied"),
        drawn!("grid"),
        drawn!("sequence"),
    ]
}

fn options() -> DecodeOptions {
    DecodeOptions { pixels_max: 1 << 16, background: [1, 100, 200], ..DecodeOptions::default() }
}

fn read(bytes: &[u8]) -> Result<Image, SampleError> {
    decode_upright(bytes, &options())
}

/// Root of the mean square and largest difference to the reference, both in levels of 255.
fn differences(image: &Image, reference: &[u8]) -> (f64, u8) {
    let expected = decode_upright(reference, &options()).unwrap();
    assert_eq!((image.width_px, image.height_px), (expected.width_px, expected.height_px));
    let pairs = image.pixels.iter().zip(&expected.pixels);
    let differences: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
    let squares: f64 = differences.iter().map(|&d| f64::from(d).powi(2)).sum();
    let largest = differences.iter().copied().max().unwrap();
    ((squares / differences.len() as f64).sqrt(), largest)
}

/// Changes the bytes that follow the first `name`.
fn with(bytes: &[u8], name: &[u8], skip: usize, new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    let at = at + name.len() + skip;
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn every_kind_has_the_pixels_that_libavif_sees() {
    // Of 255 levels. One is rounding, the others are the six bits of libavif's coefficients. Where
    // colours were multiplied, the reference has divided them again in 8 bits.
    for (name, bytes, reference) in all() {
        let (mean, largest) = differences(&read(bytes).unwrap(), reference);
        let limit = if name == "premultiplied" { 6 } else { 3 };
        assert!(mean <= 1.2 && largest <= limit, "{name}: {mean:.2}, at most {largest}");
    }
}

#[test]
fn an_odd_width_is_read_to_its_end() {
    let (_, bytes, reference) = drawn!("odd");
    let (found, expected) = (read(bytes).unwrap(), read(reference).unwrap());
    assert_eq!((found.width_px, found.height_px), (37, 29));
    let rows = found.pixels.chunks(37 * 3).zip(expected.pixels.chunks(37 * 3));
    for (found, expected) in rows {
        for (x, (a, b)) in found.chunks(3).zip(expected.chunks(3)).enumerate() {
            // libavif repeats the last chroma in the last column, where it lies between two.
            let limit = if x == 36 { 8 } else { 3 };
            assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= limit), "{x}: {a:?}, {b:?}");
        }
    }
}

#[test]
fn lossless_colours_are_exact() {
    let (_, bytes, reference) = drawn!("lossless");
    assert_eq!(differences(&read(bytes).unwrap(), reference), (0.0, 0));
}

#[test]
fn the_eight_ways_to_turn_are_those_of_libavif() {
    for (name, bytes, reference) in [
        drawn!("turned_1"),
        drawn!("turned_2"),
        drawn!("turned_3"),
        drawn!("turned_4"),
        drawn!("turned_5"),
        drawn!("turned_6"),
        drawn!("turned_7"),
        drawn!("turned_8"),
    ] {
        let header = Header::read(bytes, &options()).unwrap();
        assert_eq!(header.stored_px, (32, 16), "{name}");
        let (mean, largest) = differences(&read(bytes).unwrap(), reference);
        assert!(mean <= 1.2 && largest <= 3, "{name}: {mean:.2}, at most {largest}");
    }
}

#[test]
fn what_is_transparent_shows_the_background() {
    for (name, bytes, _) in [drawn!("alpha"), drawn!("premultiplied")] {
        let image = read(bytes).unwrap();
        // Alpha is 0 in the first pixel.
        for (found, expected) in image.pixels.iter().zip([1u8, 100, 200]) {
            assert!(found.abs_diff(expected) <= 3, "{name}: {:?}", &image.pixels[..3]);
        }
    }
}

#[test]
fn a_crop_of_an_avif_is_that_of_its_pixels() {
    let (_, bytes, _) = drawn!("turned_6");
    let header = Header::read(bytes, &options()).unwrap();
    let region = Region { left_px: 4.0, top_px: 20.0, width_px: 8.0, height_px: 8.0 };
    let crop = Crop {
        region,
        reaches_out: false,
        filter: Filter::Bilinear,
        output_px: (8, 8),
        flipped: false,
        may_scale: false,
    };
    let mut out = vec![0; 8 * 8 * 3];
    CropDecoder::default().decode(bytes, &header, &options(), &crop, &mut out).unwrap();
    let whole = read(bytes).unwrap();
    let rows = whole.pixels.chunks(16 * 3).skip(20).take(8);
    let expected: Vec<u8> = rows.flat_map(|row| &row[4 * 3..12 * 3]).copied().collect();
    assert_eq!(out, expected);
}

#[test]
fn the_pixel_limit_is_judged_from_the_header() {
    let (_, bytes, _) = drawn!("slopes_8_420");
    let sides = [50_000u32.to_be_bytes(), 40_000u32.to_be_bytes()].concat();
    let large = with(bytes, b"ispe", 4, &sides);
    let error = read(&large).unwrap_err();
    assert_eq!(error.reason(), "image-too-large", "{error}");
    // Allowed by size, the pixels that are there are found to be of another.
    let options = DecodeOptions { pixels_max: 1 << 20, ..DecodeOptions::default() };
    let sides = [1000u32.to_be_bytes(), 1000u32.to_be_bytes()].concat();
    let error = decode_upright(&with(bytes, b"ispe", 4, &sides), &options).unwrap_err();
    let message = "AVIF does not decode: its boxes say 1000 × 1000 px, its pixels are 38 × 29";
    assert_eq!(error.to_string(), message);
    // Nor is a stream taken that is larger than its boxes say.
    let sides = [8u32.to_be_bytes(), 8u32.to_be_bytes()].concat();
    let error = decode_upright(&with(bytes, b"ispe", 4, &sides), &options).unwrap_err();
    let message = "AVIF does not decode: its boxes say 8 × 8 px, its pixels are 38 × 29";
    assert_eq!(error.to_string(), message);
}

#[test]
fn brands_tell_an_avif() {
    let (_, bytes, _) = drawn!("slopes_8_420");
    let brands = |brands: &[u8]| {
        let mut file = (brands.len() as u32 + 8).to_be_bytes().to_vec();
        file.extend(b"ftyp");
        file.extend(brands);
        Format::of(&file).ok()
    };
    assert_eq!(Format::of(bytes).unwrap(), Format::Avif);
    assert_eq!(brands(b"avif\0\0\0\0mif1"), Some(Format::Avif));
    assert_eq!(brands(b"avis\0\0\0\0"), Some(Format::Avif));
    assert_eq!(brands(b"mif1\0\0\0\0miafavif"), Some(Format::Avif));
    // HEIC, MP4, and a version that looks like a brand.
    assert_eq!(brands(b"heic\0\0\0\0mif1heic"), None);
    assert_eq!(brands(b"isom\0\0\x02\0isommp41"), None);
    assert_eq!(brands(b"mif1avifmiaf"), None);
}

#[test]
fn kinds_that_are_not_read_are_named() {
    let (_, still, _) = drawn!("slopes_8_420");
    let (_, turned, _) = drawn!("turned_6");
    let (_, grid, _) = drawn!("grid");
    let infe = |bytes: &[u8], kind: &[u8]| with(bytes, b"infe", 8, kind);
    let cases = [
        (infe(still, b"hvc1"), "its picture is an item `hvc1`"),
        (with(turned, b"ip", 0, b"xx"), "its box `iprp` is missing or cut"),
        (with(turned, b"iro", 0, b"x"), "the property `irox` must be followed"),
        (with(grid, b"\0\0\x01\x01\0\x80", 0, b"\0\0"), "a grid of 2 × 2 tiles and 128 × 0 px"),
    ];
    for (bytes, message) in cases {
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn cut_and_flipped_files_are_refused_or_of_their_size() {
    for (_, bytes, _) in all() {
        for at in 0..bytes.len() {
            let mut broken = bytes.to_vec();
            broken[at] ^= 0x55;
            for broken in [&broken[..], &bytes[..at]] {
                if let Ok(image) = read(broken) {
                    let header = Header::read(broken, &options()).unwrap();
                    assert_eq!((image.width_px, image.height_px), header.upright_px());
                }
            }
        }
    }
}

/// A thread keeps its decoder: whole and broken pictures in turn are what a new thread makes of
/// each.
#[test]
fn what_was_decoded_before_changes_no_picture() {
    let seen = |bytes: &[u8]| read(bytes).map(|image| image.pixels).map_err(|e| e.to_string());
    let mut broken = 0;
    for round in 0..12 {
        for (name, bytes, _) in all() {
            let mut bytes = bytes.to_vec();
            let data = bytes.windows(4).rposition(|window| window == b"mdat").unwrap() + 4;
            if round > 0 {
                let at = data + round * 37 % (bytes.len() - data);
                bytes[at] ^= 1 << (round % 8);
            }
            let here = seen(&bytes);
            broken += usize::from(here.is_err());
            let there = std::thread::scope(|scope| scope.spawn(|| seen(&bytes)).join().unwrap());
            assert_eq!(here, there, "{name}, round {round}");
        }
    }
    assert!(broken > 10, "only {broken} pictures were broken");
}

#[test]
fn boxes_that_multiply_their_work_are_refused_soon() {
    // A thousand properties, asked for by each of ten thousand entries.
    fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let size = (content.len() as u32 + 8).to_be_bytes();
        [&size, name.as_slice(), content].concat()
    }
    let ipco = boxed(b"ipco", &boxed(b"free", b"").repeat(2000));
    let entry = [&1u16.to_be_bytes(), [255].as_slice(), &[0x07, 0xcf].repeat(255)].concat();
    let ipma = [&[0, 0, 0, 1], 1000u32.to_be_bytes().as_slice(), &entry.repeat(1000)].concat();
    let iprp = boxed(b"iprp", &[ipco, boxed(b"ipma", &ipma)].concat());
    let infe = boxed(b"infe", b"\x02\0\0\0\0\x01\0\0av01\0");
    let iinf = boxed(b"iinf", &[b"\0\0\0\0\0\x01", infe.as_slice()].concat());
    let pitm = boxed(b"pitm", b"\0\0\0\0\0\x01");
    let iloc = boxed(b"iloc", b"\0\0\0\0\0\0\0\0");
    let parts = [b"\0\0\0\0".to_vec(), pitm, iinf, iloc, iprp].concat();
    let file = [boxed(b"ftyp", b"avif\0\0\0\0"), boxed(b"meta", &parts)].concat();
    let start = std::time::Instant::now();
    let error = Header::read(&file, &options()).unwrap_err();
    assert_eq!(error.to_string(), "AVIF does not decode: the properties of item 1 are cut");
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn an_item_in_pieces_is_put_together() {
    // The one piece of the item, given as two.
    let (_, bytes, _) = drawn!("slopes_8_420");
    let mdat = bytes.windows(4).position(|window| window == b"mdat").unwrap() + 4;
    let length = bytes.len() - mdat;
    let half = length / 2;
    let mut split = bytes.to_vec();
    let iloc = split.windows(4).position(|window| window == b"iloc").unwrap();
    let mut new = Vec::new();
    new.extend(b"\0\0\0\0\x44\0\0\x01\0\x01\0\0\0\x02");
    let shift = 8;
    for (offset, length) in [(mdat + shift, half), (mdat + shift + half, length - half)] {
        new.extend((offset as u32).to_be_bytes());
        new.extend((length as u32).to_be_bytes());
    }
    let old = u32::from_be_bytes(split[iloc - 4..iloc].try_into().unwrap()) as usize - 8;
    assert_eq!(old + shift, new.len());
    split.splice(iloc + 4..iloc + 4 + old, new);
    for (name, more) in [(b"iloc", shift), (b"meta", shift)] {
        let at = split.windows(4).position(|window| window == name).unwrap() - 4;
        let size = u32::from_be_bytes(split[at..at + 4].try_into().unwrap()) + more as u32;
        split[at..at + 4].copy_from_slice(&size.to_be_bytes());
    }
    assert_eq!(read(&split).unwrap(), read(bytes).unwrap());
}
