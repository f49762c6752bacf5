//! Which part of an image a batch shows, and how it is put there.
//!
//! In: compressed pixels, the recipe, a stream of draws. Out: `u8` pixels of the wanted size in the
//! slot of a batch, and the [`View`] that says what they show.

use super::draw::Draws;
use crate::error::SampleError;
use crate::image::{Crop, CropDecoder, DecodeOptions, Filter, Header, Region};

/// Tries of RandomResizedCrop before it takes the largest centred crop (torchvision: 10).
const CROP_TRIES: usize = 10;

/// How images are seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Viewing {
    /// torchvision's `RandomResizedCrop` with antialias, then a horizontal flip.
    RandomCrop {
        /// Smallest and largest area of the crop, as shares of the image.
        area: (f64, f64),
        /// Smallest and largest width ÷ height.
        aspect: (f64, f64),
        /// Probability of a flip.
        flip: f64,
        /// Antialiased resampling; CatLIP: bilinear.
        filter: Filter,
    },
    /// torchvision's `Resize` of the short side, then `CenterCrop`.
    Centre {
        /// Short side after the resize, in px; the crop has the size of the batch.
        resize_px: u32,
        /// Antialiased resampling.
        filter: Filter,
    },
}

/// What a slot of a batch shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// The part of the stored image.
    pub region: Region,
    /// Pixels of the batch per pixel of the stored image, horizontally.
    pub scale: f64,
    /// Whether left and right were swapped.
    pub flipped: bool,
}

impl Viewing {
    /// Chooses what to see of an image of that size.
    pub fn choose(&self, size_px: (u32, u32), output_px: u32, draws: &mut Draws) -> View {
        let (region, flipped) = match *self {
            Self::RandomCrop { area, aspect, flip, .. } => {
                let region = random_crop(size_px, area, aspect, draws);
                (region, draws.unit() < flip)
            }
            Self::Centre { resize_px, .. } => {
                (Region::centre(size_px, resize_px, output_px), false)
            }
        };
        View { region, scale: f64::from(output_px) / region.width_px, flipped }
    }

    /// How a view is decoded. A random crop is cropped first and then resized, and a large one may
    /// be decoded smaller than stored; the centre is resized first, from all of its pixels, since
    /// evaluations are compared across programs.
    fn crop(&self, view: &View, output_px: u32) -> Crop {
        let (is_random, filter) = match *self {
            Self::RandomCrop { filter, .. } => (true, filter),
            Self::Centre { filter, .. } => (false, filter),
        };
        Crop {
            region: view.region,
            reaches_out: !is_random,
            filter,
            output_px: (output_px, output_px),
            flipped: view.flipped,
            may_scale: is_random,
        }
    }
}

/// torchvision's `RandomResizedCrop.get_params`, with our draws.
fn random_crop(
    (width_px, height_px): (u32, u32),
    area: (f64, f64),
    aspect: (f64, f64),
    draws: &mut Draws,
) -> Region {
    let (width, height) = (f64::from(width_px), f64::from(height_px));
    for _ in 0..CROP_TRIES {
        let target = width * height * draws.between(area.0, area.1);
        let ratio = draws.between(aspect.0.ln(), aspect.1.ln()).exp();
        // Python rounds half to even.
        let w = (target * ratio).sqrt().round_ties_even();
        let h = (target / ratio).sqrt().round_ties_even();
        if w >= 1.0 && h >= 1.0 && w <= width && h <= height {
            let top_px = draws.below((height - h) as u64 + 1) as f64;
            let left_px = draws.below((width - w) as u64 + 1) as f64;
            return Region { left_px, top_px, width_px: w, height_px: h };
        }
    }
    let ratio = (width / height).clamp(aspect.0, aspect.1);
    let (w, h) = if width / height < aspect.0 {
        (width, (width / ratio).round_ties_even())
    } else if width / height > aspect.1 {
        ((height * ratio).round_ties_even(), height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1.0, width), h.clamp(1.0, height));
    let left_px = ((width - w) / 2.0).floor();
    let top_px = ((height - h) / 2.0).floor();
    Region { left_px, top_px, width_px: w, height_px: h }
}

/// How the images of a data set are decoded: as the config of its job says (`image.background`,
/// `image.allow_truncated`), within the limit of the format, since prep kept to its own.
pub fn decode_options(config: &serde_json::Value) -> DecodeOptions {
    let mut options = DecodeOptions::default();
    let image = &config["image"];
    if let Some(colour) = image["background"].as_array() {
        for (to, from) in options.background.iter_mut().zip(colour) {
            *to = from.as_u64().and_then(|level| u8::try_from(level).ok()).unwrap_or(*to);
        }
    }
    options.allow_truncated = image["allow_truncated"].as_bool().unwrap_or(false);
    options
}

/// Decodes what `viewing` chooses of an image into `slot`, `output_px² × 3` bytes.
///
/// # Errors
///
/// [`SampleError`] when the image does not decode.
pub fn fill_slot(
    encoded: &[u8],
    options: &DecodeOptions,
    (viewing, output_px): (&Viewing, u32),
    draws: &mut Draws,
    decoder: &mut CropDecoder,
    slot: &mut [u8],
) -> Result<View, SampleError> {
    let header = Header::read(encoded, options)?;
    let view = viewing.choose(header.upright_px(), output_px, draws);
    decoder.decode(encoded, &header, options, &viewing.crop(&view, output_px), slot)?;
    Ok(view)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::feed::draw::Purpose;
    use crate::image::Image;
    use crate::image::jpeg::{Chroma, encode};

    fn draws(n: u64) -> Draws {
        Draws::new(Purpose::View, n, 0, 0, 0)
    }

    #[test]
    fn random_crops_have_torchvisions_means() {
        let table = include_str!("../../tests/data/crops.jsonl");
        let rows = table.lines().map(|line| serde_json::from_str(line).unwrap());
        let rows: Vec<serde_json::Value> = rows.filter(is_means).collect();
        assert_eq!(rows.len(), 5);
        for row in rows {
            let list = |key: &str| -> Vec<f64> {
                row[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
            };
            let (size, expected) = (list("size"), list("mean"));
            let mut draws = draws(1);
            let mut sums = [0.0; 4];
            const DRAWS: u32 = 100_000;
            for _ in 0..DRAWS {
                let size = (size[0] as u32, size[1] as u32);
                let r = random_crop(size, (0.08, 1.0), (0.75, 4.0 / 3.0), &mut draws);
                for (sum, value) in
                    sums.iter_mut().zip([r.width_px, r.height_px, r.left_px, r.top_px])
                {
                    *sum += value / f64::from(DRAWS);
                }
            }
            for (found, expected) in sums.iter().zip(expected) {
                // Five times the error of a mean of 100,000 draws that differ by half a side.
                let tolerance = 5.0 * 0.5 * size[0].max(size[1]) / f64::from(DRAWS).sqrt();
                assert!((found - expected).abs() < tolerance, "{row}: {sums:?}");
            }
        }
    }

    fn is_means(row: &serde_json::Value) -> bool {
        row["op"] == "means"
    }

    fn picture(width_px: u32, height_px: u32) -> Vec<u8> {
        let pixels = vec![7; (width_px * height_px * 3) as usize];
        encode(&Image { width_px, height_px, pixels }, 95, Chroma::Yuv420).unwrap()
    }

    #[test]
    fn the_config_of_a_data_set_says_how_it_is_decoded() {
        let config = serde_json::json!({"image": {"background": [1, 2, 3]}});
        assert_eq!(decode_options(&config).background, [1, 2, 3]);
        assert!(!decode_options(&config).allow_truncated);
        assert_eq!(decode_options(&serde_json::json!({})), DecodeOptions::default());
    }

    proptest! {
        #[test]
        fn every_crop_lies_inside_and_resizes(
            width in 1u32..300, height in 1u32..300, seed in any::<u64>(), output in 1u32..40,
        ) {
            let (area, aspect) = ((0.08, 1.0), (0.75, 4.0 / 3.0));
            let filter = Filter::Bilinear;
            let random = Viewing::RandomCrop { area, aspect, flip: 0.5, filter };
            let bytes = picture(width, height);
            for viewing in [random, Viewing::Centre { resize_px: output + 3, filter }] {
                let mut out = vec![0; (output * output * 3) as usize];
                let (options, mut decoder) = (DecodeOptions::default(), CropDecoder::default());
                let mut draws = draws(seed);
                fill_slot(
                    &bytes, &options, (&viewing, output), &mut draws, &mut decoder, &mut out,
                ).unwrap();
                prop_assert!(out.iter().all(|&p| p.abs_diff(7) <= 1), "{out:?}");
            }
        }
    }
}
