//! Resizes pixels, antialiased as Pillow does.
//!
//! In: an [`Image`] and the part of it that is wanted. Out: pixels of the wanted size, in a new
//! image or straight in a caller's buffer.

use fast_image_resize as fir;

use super::Image;

/// A resampling filter; its support widens with the reduction (Pillow's, not OpenCV's, meaning).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle; what CatLIP trains with.
    Bilinear,
    /// Cubic with a = −0.5.
    Bicubic,
    /// Windowed sinc of three lobes.
    Lanczos3,
}

/// A part of an image in px; may have fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Left edge.
    pub left_px: f64,
    /// Upper edge.
    pub top_px: f64,
    /// Width.
    pub width_px: f64,
    /// Height.
    pub height_px: f64,
}

impl Region {
    /// The whole image.
    pub fn whole(image: &Image) -> Self {
        let (width_px, height_px) = (f64::from(image.width_px), f64::from(image.height_px));
        Self { left_px: 0.0, top_px: 0.0, width_px, height_px }
    }
}

/// Keeps the buffers between calls: one a thread.
#[derive(Default)]
pub struct Resizer(fir::Resizer);

impl Resizer {
    /// Resizes `region` of `image` into `out`, `height_px × width_px × 3` bytes.
    ///
    /// # Panics
    ///
    /// If `region` is empty or not inside the image, or `out` is not of that length: the caller
    /// computed both.
    pub fn resize_into(
        &mut self,
        image: &Image,
        region: Region,
        filter: Filter,
        (width_px, height_px): (u32, u32),
        out: &mut [u8],
    ) {
        assert_eq!(out.len(), width_px as usize * height_px as usize * 3, "output buffer");
        let kernel = match filter {
            Filter::Bilinear => fir::FilterType::Bilinear,
            Filter::Bicubic => fir::FilterType::CatmullRom,
            Filter::Lanczos3 => fir::FilterType::Lanczos3,
        };
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(kernel))
            .use_alpha(false)
            .crop(region.left_px, region.top_px, region.width_px, region.height_px);
        let done = fir::images::ImageRef::new(
            image.width_px,
            image.height_px,
            &image.pixels,
            fir::PixelType::U8x3,
        )
        .map_err(|e| e.to_string())
        .and_then(|source| {
            let mut target =
                fir::images::Image::from_slice_u8(width_px, height_px, out, fir::PixelType::U8x3)
                    .map_err(|e| e.to_string())?;
            self.0.resize(&source, &mut target, &options).map_err(|e| e.to_string())
        });
        if let Err(message) = done {
            panic!("{region:?} of {} × {} px: {message}", image.width_px, image.height_px);
        }
    }

    /// Resizes all of `image` to `width_px × height_px`.
    pub fn resize(&mut self, image: &Image, filter: Filter, size_px: (u32, u32)) -> Image {
        let (width_px, height_px) = size_px;
        let mut pixels = vec![0; width_px as usize * height_px as usize * 3];
        self.resize_into(image, Region::whole(image), filter, size_px, &mut pixels);
        Image { width_px, height_px, pixels }
    }
}

/// Size with the short side at most `short_side_px`, aspect kept, never enlarged, at least 1 px.
///
/// The long side is rounded down, as torchvision does: `int(short · long / short_before)`.
pub fn shrunk_size(width_px: u32, height_px: u32, short_side_px: u32) -> (u32, u32) {
    let short = width_px.min(height_px);
    if short <= short_side_px {
        return (width_px, height_px);
    }
    let scale = |side: u32| {
        let scaled = u64::from(side) * u64::from(short_side_px) / u64::from(short);
        u32::try_from(scaled.max(1)).unwrap_or(u32::MAX)
    };
    (scale(width_px), scale(height_px))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_side_shrinks_and_never_grows() {
        assert_eq!(shrunk_size(640, 480, 320), (426, 320));
        assert_eq!(shrunk_size(480, 640, 320), (320, 426));
        assert_eq!(shrunk_size(300, 200, 320), (300, 200));
        assert_eq!(shrunk_size(1, 1, 320), (1, 1));
        assert_eq!(shrunk_size(65_500, 1_000, 320), (20_960, 320));
    }

    #[test]
    fn a_flat_image_stays_flat_and_a_region_is_taken() {
        let mut pixels = vec![200u8; 40 * 20 * 3];
        for row in pixels.chunks_exact_mut(40 * 3) {
            row[..20 * 3].fill(10);
        }
        let image = Image { width_px: 40, height_px: 20, pixels };
        let mut out = vec![0; 8 * 8 * 3];
        let right = Region { left_px: 24.0, top_px: 2.0, width_px: 12.5, height_px: 12.5 };
        Resizer::default().resize_into(&image, right, Filter::Bilinear, (8, 8), &mut out);
        assert!(out.iter().all(|&p| p == 200), "{out:?}");
        let small = Resizer::default().resize(&image, Filter::Lanczos3, (10, 5));
        assert_eq!((small.pixels[0], small.pixels[27]), (10, 200));
    }
}
