//! Hostile images: headers, decoders, crops.

use catlip_pipeline::error::SampleError;
use catlip_pipeline::image::jpeg::Chroma;
use catlip_pipeline::image::{
    Crop, CropDecoder, DecodeOptions, Filter, Header, READS_AVIF, Region, Shrinker, decode,
};

use crate::drive::Random;

/// Pixels up to which an image is decoded: 64 KiB of pixels keep a try below a millisecond.
const PIXELS_MAX: u64 = 1 << 16;

/// Bytes of an image that is mutated further.
const BYTES_MAX: usize = 1 << 16;

/// Numbers on which headers turn, little and big end first.
const NUMBERS: [&[u8]; 10] = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\0\x01",
    b"\x01\0",
    b"\xff\xff",
    b"\xff",
    b"\0",
];

/// Words of the formats.
const WORDS: [&[u8]; 30] = [
    b"\xff\xd8\xff",
    b"\xff\xd9",
    b"\xff\xda",
    b"\xff\xc0",
    b"\xff\xc2",
    b"\xff\xc4",
    b"\xff\xdb",
    b"\xff\xdd",
    b"\xff\xd0",
    b"\xff\xe1",
    b"Exif\0\0",
    b"II*\0",
    b"MM\0*",
    b"\x89PNG\r\n\x1a\n",
    b"IHDR",
    b"IDAT",
    b"eXIf",
    b"acTL",
    b"RIFF",
    b"WEBPVP8X",
    b"ANMF",
    b"VP8 ",
    b"VP8L",
    b"GIF89a",
    b"ispe",
    b"irot",
    b"ipma",
    b"iloc",
    b"grid",
    b"auxl",
];

/// Decodes all of an image and a crop of it; what became of it. A decoder that is not ours and
/// panics costs one image.
///
/// # Panics
///
/// If a promise is broken.
pub fn check(bytes: &[u8]) -> &'static str {
    let random = &mut Random::of(bytes);
    let background = [random.below(256) as u8; 3];
    let allow_truncated = random.below(2) == 0;
    let options = DecodeOptions { pixels_max: PIXELS_MAX, background, allow_truncated };
    let header = match Header::read(bytes, &options) {
        Ok(header) => header,
        Err(error) => {
            assert_ne!(error.reason(), "");
            assert!(decode(bytes, &options).is_err(), "decoded without a header");
            return "refused";
        }
    };
    let (width, height) = header.upright_px();
    assert!(u64::from(width) * u64::from(height) <= PIXELS_MAX);
    let crop = Crop {
        region: Region {
            left_px: random.below(width as usize) as f64,
            top_px: random.below(height as usize) as f64,
            width_px: 0.0,
            height_px: 0.0,
        },
        reaches_out: random.below(2) == 0,
        filter: [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3][random.below(3)],
        output_px: (1 + random.below(40) as u32, 1 + random.below(40) as u32),
        flipped: random.below(2) == 0,
        may_scale: random.below(2) == 0,
    };
    let rest = |side: u32, from: f64, random: &mut Random| {
        1.0 + random.below((f64::from(side) - from) as usize) as f64
    };
    let region = Region {
        width_px: rest(width, crop.region.left_px, random),
        height_px: rest(height, crop.region.top_px, random),
        ..crop.region
    };
    let crop = Crop { region, ..crop };
    let mut out = vec![0; crop.output_px.0 as usize * crop.output_px.1 as usize * 3];
    let cropped = CropDecoder::default().decode(bytes, &header, &options, &crop, &mut out);
    let is_whole = decode(bytes, &options).is_ok();
    let size_px = (crop.output_px.0.min(width), crop.output_px.1.min(height));
    let chroma = [Chroma::Yuv420, Chroma::Yuv444][random.below(2)];
    let mut shrinker = Shrinker::default();
    if let Ok(true) = shrinker.decode(bytes, &header, &options, crop.filter, size_px) {
        assert!(is_whole, "planes of an image that does not decode");
        shrinker.shrink((width, height), size_px, crop.filter, chroma);
        let small = shrinker.encode(90, chroma).expect("a small image is encoded");
        let small = decode(&small, &DecodeOptions::default()).expect("what we encode decodes");
        assert_eq!((small.width_px, small.height_px), size_px, "size of a shrunk image");
    }
    match decode(bytes, &options) {
        Ok(image) => {
            assert_eq!((image.width_px, image.height_px), (width, height), "size of the header");
            assert_eq!(image.pixels.len(), width as usize * height as usize * 3);
            assert!(cropped.is_ok(), "an image that decodes has no crop: {cropped:?}");
            "decoded"
        }
        Err(SampleError::ImageCorrupt { message, .. }) if message.contains("panicked") => {
            "decoder panicked"
        }
        Err(_) => "refused",
    }
}

/// Changes one thing.
fn mutate(image: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>]) {
    // Headers are where lengths stand: half of all changes fall into the first 64 bytes.
    let reach = if random.below(2) == 0 { image.len().min(64) } else { image.len() };
    let at = random.below(reach + 1);
    let end = (at + 1 + random.below(16)).min(image.len());
    match random.below(9) {
        0..=2 if at < image.len() => image[at] ^= 1 << random.below(8),
        3 if at < image.len() => image[at] = random.below(256) as u8,
        4 | 5 => {
            let number = NUMBERS[random.below(NUMBERS.len())];
            image.splice(at..(at + number.len()).min(image.len()), number.iter().copied());
        }
        6 => drop(image.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
        7 if random.below(3) == 0 => image.truncate(at),
        7 if at < end => drop(image.drain(at..end)),
        _ => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let to = (from + random.below(200)).min(other.len());
            image.splice(at..end.max(at), other[from..to].iter().copied());
        }
    }
}

/// A baseline JPEG of three channels with sampling factors that do not divide the largest, which
/// libjpeg decodes to planes and not to pixels.
fn fractional_chroma(image: &[u8]) -> Option<Vec<u8>> {
    const FACTORS: [u8; 3] = [0x22, 0x13, 0x11];
    let at = image.windows(3).position(|bytes| bytes == [0xff, 0xc0, 0])?;
    // Marker, length, precision, sides, channels: 10 bytes; then id, factors and table of each.
    let mut image = image.to_vec();
    let channels = image.get_mut(at + 9..at + 19).filter(|bytes| bytes[0] == 3)?;
    for (channel, factors) in FACTORS.into_iter().enumerate() {
        channels[2 + 3 * channel] = factors;
    }
    Some(image)
}

/// Makes one image after another out of drawn ones.
///
/// # Panics
///
/// If those are not there.
pub fn maker() -> impl FnMut(&mut Random, &mut Vec<u8>) {
    let mut seeds = Vec::new();
    for folder in ["images", "crops", "avif"] {
        if folder == "avif" && !READS_AVIF {
            continue;
        }
        let folder = format!("{}/../tests/data/{folder}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(&folder).expect("the folder of drawn images");
        let mut paths: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
        // Beside each AVIF stands what it must decode to.
        paths.retain(|path| folder != "avif" || path.extension().is_some_and(|e| e == "avif"));
        paths.sort();
        seeds.extend(paths.iter().map(|path| std::fs::read(path).expect("a drawn image")));
    }
    let fractional: Vec<_> = seeds.iter().filter_map(|seed| fractional_chroma(seed)).collect();
    seeds.extend(fractional);
    move |random, image| {
        if image.is_empty() || image.len() > BYTES_MAX || random.below(8) == 0 {
            image.clone_from(&seeds[random.below(seeds.len())]);
        }
        for _ in 0..=random.below(4) {
            mutate(image, random, &seeds);
        }
    }
}
