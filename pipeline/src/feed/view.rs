//! Which part of an image a batch shows, and how it is put there.
//!
//! In: compressed pixels, the recipe, a stream of draws. Out: `u8` pixels of the wanted size in the
//! slot of a batch, and the [`View`] that says what they show.

use super::draw::Draws;
use crate::error::SampleError;
use crate::image::resize::{Region, Resizer};
use crate::image::{self, Filter, Image};

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
    },
    /// torchvision's `Resize` of the short side, then `CenterCrop`.
    Centre {
        /// Short side after the resize, in px; the crop has the size of the batch.
        resize_px: u32,
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
            Self::RandomCrop { area, aspect, flip } => {
                let region = random_crop(size_px, area, aspect, draws);
                (region, draws.unit() < flip)
            }
            Self::Centre { resize_px } => (centre_crop(size_px, resize_px, output_px), false),
        };
        View { region, scale: f64::from(output_px) / region.width_px, flipped }
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
        let w = (target * ratio).sqrt().round();
        let h = (target / ratio).sqrt().round();
        if w >= 1.0 && h >= 1.0 && w <= width && h <= height {
            let top_px = draws.below((height - h) as u64 + 1) as f64;
            let left_px = draws.below((width - w) as u64 + 1) as f64;
            return Region { left_px, top_px, width_px: w, height_px: h };
        }
    }
    let ratio = (width / height).clamp(aspect.0, aspect.1);
    let (w, h) = if width / height < aspect.0 {
        (width, (width / ratio).round())
    } else if width / height > aspect.1 {
        ((height * ratio).round(), height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1.0, width), h.clamp(1.0, height));
    let left_px = ((width - w) / 2.0).floor();
    let top_px = ((height - h) / 2.0).floor();
    Region { left_px, top_px, width_px: w, height_px: h }
}

/// The region that `Resize(resize_px)` and `CenterCrop(output_px)` leave, in px of the image.
fn centre_crop((width_px, height_px): (u32, u32), resize_px: u32, output_px: u32) -> Region {
    let short = width_px.min(height_px);
    let resized = |side: u32| (u64::from(side) * u64::from(resize_px) / u64::from(short)).max(1);
    let axis = |side: u32| {
        let after = if side == short { u64::from(resize_px) } else { resized(side) } as f64;
        let crop = f64::from(output_px).min(after);
        // CenterCrop rounds half to even, as Python does.
        let offset = ((after - crop) / 2.0).round_ties_even();
        let per_px = f64::from(side) / after;
        (offset * per_px, crop * per_px)
    };
    let ((left_px, width_px), (top_px, height_px)) = (axis(width_px), axis(height_px));
    Region { left_px, top_px, width_px, height_px }
}

/// Decodes an image and puts what `viewing` chooses into `slot`, `output_px² × 3` bytes.
///
/// # Errors
///
/// [`SampleError`] when the image does not decode.
pub fn fill_slot(
    encoded: &[u8],
    viewing: &Viewing,
    output_px: u32,
    draws: &mut Draws,
    resizer: &mut Resizer,
    slot: &mut [u8],
) -> Result<View, SampleError> {
    // What prep stored is within its own limit; the format's limit is the guard here.
    let image: Image = image::decode(encoded, image::PIXELS_MAX_DEFAULT)?;
    let view = viewing.choose((image.width_px, image.height_px), output_px, draws);
    resizer.resize_into(&image, view.region, Filter::Bilinear, (output_px, output_px), slot);
    if view.flipped {
        flip_rows(slot, output_px as usize);
    }
    Ok(view)
}

fn flip_rows(pixels: &mut [u8], width_px: usize) {
    for row in pixels.chunks_exact_mut(width_px * 3) {
        for x in 0..width_px / 2 {
            let other = width_px - 1 - x;
            for channel in 0..3 {
                row.swap(3 * x + channel, 3 * other + channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::feed::draw::Purpose;

    fn draws(n: u64) -> Draws {
        Draws::new(Purpose::View, n, 0, 0, 0)
    }

    #[test]
    fn the_centre_crop_is_torchvisions() {
        // Resize(232) of 500 × 375 gives 309 × 232; CenterCrop(224) starts at (42, 4).
        let region = centre_crop((500, 375), 232, 224);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(region.left_px, 42.0 * 500.0 / 309.0), "{region:?}");
        assert!(close(region.top_px, 4.0 * 375.0 / 232.0), "{region:?}");
        assert!(close(region.width_px, 224.0 * 500.0 / 309.0), "{region:?}");
        assert!(close(region.height_px, 224.0 * 375.0 / 232.0), "{region:?}");
    }

    #[test]
    fn the_mean_area_of_crops_is_that_of_the_range() {
        let mut draws = draws(1);
        let area = |d: &mut Draws| {
            let r = random_crop((300, 300), (0.08, 1.0), (0.75, 4.0 / 3.0), d);
            r.width_px * r.height_px / 90_000.0
        };
        let mean = (0..4000).map(|_| area(&mut draws)).sum::<f64>() / 4000.0;
        // Crops that do not fit are drawn again, which costs some of the largest.
        assert!((0.47..0.54).contains(&mean), "{mean}");
    }

    #[test]
    fn rows_are_mirrored() {
        let mut pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        flip_rows(&mut pixels, 3);
        assert_eq!(pixels, [7, 8, 9, 4, 5, 6, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn every_crop_lies_inside_and_resizes(
            width in 1u32..400, height in 1u32..400, seed in any::<u64>(), output in 1u32..40,
        ) {
            let image = Image {
                width_px: width,
                height_px: height,
                pixels: vec![7; (width * height * 3) as usize],
            };
            let random =
                Viewing::RandomCrop { area: (0.08, 1.0), aspect: (0.75, 4.0 / 3.0), flip: 0.5 };
            for viewing in [random, Viewing::Centre { resize_px: output + 3 }] {
                let view = viewing.choose((width, height), output, &mut draws(seed));
                let mut out = vec![0; (output * output * 3) as usize];
                let mut resizer = Resizer::default();
                let size_px = (output, output);
                resizer.resize_into(&image, view.region, Filter::Bilinear, size_px, &mut out);
                prop_assert!(out.iter().all(|&p| p == 7));
            }
        }
    }
}
