use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::image::jpeg::tests::{Kind, encode_as, kinds};
use crate::image::jpeg::{Planes, Scale, decode_part, decode_planes};
use crate::image::resize::Part;
use crate::image::{DecodeOptions, Header};

thread_local! {
    static IS_OFF: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread leaves libjpeg alone.
pub(super) fn is_off() -> bool {
    IS_OFF.get()
}

/// Samples, or what was wrong.
type Decoded = Result<Vec<u8>, String>;

/// Ways in which a file is decoded, each once without and once with leave to be cut.
const WAYS: usize = 9;

/// What comes of a file, with its damage, in every way that it is decoded.
fn decoded(bytes: &[u8]) -> Vec<Decoded> {
    let options = DecodeOptions::default();
    let lenient = DecodeOptions { allow_truncated: true, ..options };
    let header = match Header::read(bytes, &options) {
        Ok(header) => header,
        Err(error) => return vec![Err(error.to_string())],
    };
    let mut all = Vec::new();
    for options in [&options, &lenient] {
        for scale in [Scale::Full, Scale::Half, Scale::Eighth] {
            let (width_px, height_px) = scale.size(header.stored_px);
            let whole = Part::whole((width_px, height_px));
            let corner = Part {
                left_px: width_px / 2,
                top_px: height_px / 2,
                width_px: width_px.div_ceil(4),
                height_px: height_px.div_ceil(4),
            };
            for part in [whole, corner] {
                let mut pixels = Vec::new();
                let part = decode_part(bytes, &header, options, scale, part, &mut pixels);
                all.push(part.map(|_| pixels).map_err(|error| error.to_string()));
            }
            let mut planes = Planes::default();
            let done = decode_planes(bytes, &header, options, scale, &mut planes);
            let samples = planes.map(|plane| plane.samples).concat();
            all.push(done.map(|_| samples).map_err(|error| error.to_string()));
        }
    }
    all
}

fn decoded_by_libjpeg(bytes: &[u8]) -> Vec<Decoded> {
    IS_OFF.set(true);
    let all = decoded(bytes);
    IS_OFF.set(false);
    all
}

/// Noise over slopes, so that codes of every length come.
fn drawn(kind: Kind, (width, height): (u32, u32), noise: u32, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let samples = (width * height) as usize * kind.channels();
    let pixels: Vec<u8> = (0..samples as u32)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (at / 7 + if noise == 0 { 0 } else { (state >> 8) % noise }) as u8
        })
        .collect();
    encode_as(kind, (width, height), &pixels)
}

#[test]
fn places_go_along_the_diagonals() {
    assert_eq!(NATURAL[..10], [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]);
    assert_eq!(NATURAL[60..66], [47, 55, 62, 63, 63, 63]);
    let mut places = NATURAL[..64].to_vec();
    places.sort_unstable();
    assert!(places.iter().copied().eq(0..64));
}

#[test]
fn coefficients_are_extended_as_the_standard_says() {
    let of = |bits: u64, size: u32| coefficient(bits << (64 - size), size);
    assert_eq!((of(0, 1), of(1, 1)), (-1, 1));
    assert_eq!((of(0, 3), of(3, 3), of(4, 3), of(7, 3)), (-7, -4, 4, 7));
    assert_eq!((of(0, 15), of(0x7fff, 15)), (-32_767, 32_767));
}

#[test]
fn every_kind_of_file_is_decoded_as_by_libjpeg() {
    for kind in kinds() {
        for (noise, size) in [(0, (33, 70)), (40, (130, 97)), (256, (97, 130))] {
            let bytes = drawn(kind, size, noise, 7);
            assert!(decoded(&bytes) == decoded_by_libjpeg(&bytes), "{kind:?}, noise {noise}");
        }
    }
}

#[test]
fn most_mcus_are_decoded_here() {
    let bytes = drawn(Kind::sampled(2, 2), (400, 300), 60, 1);
    let asked = DECODED.get();
    decoded(&bytes);
    // 25 × 19 MCUs, of which the last ones lie too near the end of the file; nine whole images.
    assert!(DECODED.get() - asked > 3 * 400, "{}", DECODED.get() - asked);
}

thread_local! {
    /// MCUs that were decoded here.
    pub(super) static DECODED: Cell<usize> = const { Cell::new(0) };
}

/// A place, a byte, and what is done with it.
fn damage() -> impl Strategy<Value = (prop::sample::Index, u8, i32)> {
    (any::<prop::sample::Index>(), any::<u8>(), 0..4)
}

/// Whether the two give the same in a way, but for what depends on how far libjpeg had read ahead.
fn is_alike(found: &[Decoded], expected: &[Decoded], at: usize, is_padded: bool) -> bool {
    let says = |words: &str, one: &Decoded| one.as_ref().is_err_and(|e| e.contains(words));
    let pair = [&found[at], &expected[at]];
    // Of its decoders the fast one says nothing of a code that is none.
    if pair[0] == pair[1] || pair.iter().any(|one| says("bad Huffman code", one)) {
        return true;
    }
    // Over the end of a part, all bits of which are there.
    if at < WAYS && pair.iter().any(|one| says("Premature end", one)) {
        let lenient = [&found[at + WAYS], &expected[at + WAYS]];
        return lenient[0] == lenient[1] && pair.into_iter().flatten().eq(lenient[0]);
    }
    let lens = pair.map(|one| one.as_ref().map(Vec::len));
    is_padded && lens[0] == lens[1]
}

/// Whether a byte of 0xFF that is one of data has others before it.
fn is_padded(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|three| three == [0xff, 0xff, 0])
}

/// What libjpeg's fast decoder makes of the zeroes that it sees behind the first 0xFF stays in the
/// block where its slow one decodes it again, if it had not read so far ahead; so does ours.
#[test]
fn a_padded_byte_is_one_of_data_and_harms_one_mcu_at_most() {
    let kind = Kind::sampled(1, 1);
    let bytes = drawn(kind, (96, 80), 200, 5);
    let whole = |bytes: &[u8]| decoded(bytes)[0].clone().unwrap();
    let expected = whole(&bytes);
    let scan = bytes.windows(2).position(|two| two == [0xff, 0xda]).unwrap();
    let mut tried = 0;
    for at in (scan + 14..bytes.len() - 1).filter(|&at| bytes[at..at + 2] == [0xff, 0]) {
        let padded = [&bytes[..at], &[0xff], &bytes[at..]].concat();
        assert!(is_padded(&padded));
        let off = whole(&padded).iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(off <= kind.channels() * BLOCK_LEN, "{off} numbers at byte {at}");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_files_are_decoded_as_by_libjpeg(
        kind in proptest::sample::select(kinds()),
        noise in 0_u32..300,
        seed: u32,
        damage in proptest::collection::vec(damage(), 1..4),
    ) {
        let mut bytes = drawn(kind, (96, 80), noise, seed);
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] = 0xff,
                2 => bytes[at] ^= 1 << (byte & 7),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let (found, expected) = (decoded(&bytes), decoded_by_libjpeg(&bytes));
        prop_assert_eq!(found.len(), expected.len());
        for at in 0..found.len() {
            prop_assert!(is_alike(&found, &expected, at, is_padded(&bytes)), "way {}", at);
        }
    }
}
