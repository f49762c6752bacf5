//! Resizes pixels, antialiased as Pillow does.
//!
//! In: RGB pixels and the part of them that is wanted. Out: pixels of the wanted size in a
//! caller's buffer.

use fast_image_resize as fir;

use super::Image;
use super::transpose::transpose;

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

impl Filter {
    fn kernel(self) -> fir::FilterType {
        match self {
            Self::Bilinear => fir::FilterType::Bilinear,
            Self::Bicubic => fir::FilterType::CatmullRom,
            Self::Lanczos3 => fir::Filter::new("lanczos3", lanczos3, 3.0)
                .map_or(fir::FilterType::Lanczos3, fir::FilterType::Custom),
        }
    }

    /// Source pixels at either side of a result's centre that count, before it widens.
    pub fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos3 => 3.0,
        }
    }
}

/// sin(πx) ÷ πx · sin(πx ÷ 3) ÷ (πx ÷ 3) within three lobes.
///
/// By one polynomial: the library's two sines were an eighth of the time of preparing an image, and
/// differ between C libraries in the last digit.
fn lanczos3(x: f64) -> f64 {
    let third = x.abs() * std::f64::consts::FRAC_PI_3;
    if third >= std::f64::consts::PI {
        return 0.0;
    }
    if third < 1e-6 {
        return 1.0;
    }
    // sin is the same on either side of π ÷ 2, and there the first left-out term is below 1e-11.
    let a = third.min(std::f64::consts::PI - third);
    let square = a * a;
    let terms = [17.0 * 16.0, 15.0 * 14.0, 13.0 * 12.0, 11.0 * 10.0, 72.0, 42.0, 20.0, 6.0];
    let sine = a * terms.iter().fold(1.0, |sum, term| 1.0 - sum * square / term);
    // sin(3a) = 3 sin a − 4 sin³ a
    let triple = sine * (3.0 - 4.0 * sine * sine);
    triple * sine / (3.0 * third * third)
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
    /// All of an image of that size.
    pub fn whole((width_px, height_px): (u32, u32)) -> Self {
        let (width_px, height_px) = (f64::from(width_px), f64::from(height_px));
        Self { left_px: 0.0, top_px: 0.0, width_px, height_px }
    }

    /// What torchvision's `Resize(resize_px)` of the short side and `CenterCrop(crop_px)` leave of
    /// an image of that size.
    ///
    /// Where the resized image is smaller than the crop, which torchvision fills with black, all
    /// of it is left, and so stretched.
    pub fn centre((width_px, height_px): (u32, u32), resize_px: u32, crop_px: u32) -> Self {
        let short = width_px.min(height_px);
        let axis = |side: u32| {
            let resized = u64::from(side) * u64::from(resize_px) / u64::from(short);
            let resized = resized.max(1) as f64;
            let crop = f64::from(crop_px).min(resized);
            // CenterCrop rounds half to even, as Python does.
            let offset = ((resized - crop) / 2.0).round_ties_even();
            let per_px = f64::from(side) / resized;
            (offset * per_px, crop * per_px)
        };
        let ((left_px, width_px), (top_px, height_px)) = (axis(width_px), axis(height_px));
        Self { left_px, top_px, width_px, height_px }
    }
}

/// A part of an image in whole px.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Columns to the left of it.
    pub left_px: u32,
    /// Rows above it.
    pub top_px: u32,
    /// Its columns.
    pub width_px: u32,
    /// Its rows.
    pub height_px: u32,
}

impl Part {
    /// All of an image of that size.
    pub fn whole((width_px, height_px): (u32, u32)) -> Self {
        Self { left_px: 0, top_px: 0, width_px, height_px }
    }
}

/// Pixels to resize.
#[derive(Clone, Copy)]
pub struct Source<'p> {
    /// RGB, or one channel, rows from the top.
    pub pixels: &'p [u8],
    /// Width and height of `pixels`.
    pub size_px: (u32, u32),
    /// The part that the filter may look at.
    pub view: Part,
}

impl<'p> Source<'p> {
    /// All of an image.
    pub fn whole(image: &'p Image) -> Self {
        let size_px = (image.width_px, image.height_px);
        Self { pixels: &image.pixels, size_px, view: Part::whole(size_px) }
    }
}

/// Keeps the buffers between calls: one a thread.
#[derive(Default)]
pub struct Resizer {
    passes: fir::Resizer,
    between: Vec<u8>,
    turned: Vec<u8>,
}

impl Resizer {
    /// Resizes `region` of the view of `source` into `out`, `height_px × width_px × 3` bytes.
    ///
    /// # Panics
    ///
    /// If `region` is empty or not inside the view, or `out` is not of that length: the caller
    /// computed both.
    pub fn resize_into(
        &mut self,
        source: Source<'_>,
        region: Region,
        filter: Filter,
        (width_px, height_px): (u32, u32),
        out: &mut [u8],
    ) {
        let rows = source.view.height_px;
        if filter != Filter::Bicubic {
            let size_px = (width_px, height_px);
            return self.pass::<3>(source, region, filter, size_px, out);
        }
        // Pillow's order, columns before rows: an overshoot at a sharp edge is cut off after each
        // pass, so the other order differs by up to 13 levels there.
        let mut between = std::mem::take(&mut self.between);
        between.resize(width_px as usize * rows as usize * 3, 0);
        let columns = Region { top_px: 0.0, height_px: f64::from(rows), ..region };
        self.pass::<3>(source, columns, filter, (width_px, rows), &mut between);
        let size_px = (width_px, rows);
        let lines = Region { left_px: 0.0, width_px: f64::from(width_px), ..region };
        let source = Source { pixels: &between, size_px, view: Part::whole(size_px) };
        self.pass::<3>(source, lines, filter, (width_px, height_px), out);
        self.between = between;
    }

    /// Resizes `region` of the view of a single channel into `out`, `height_px × width_px` bytes.
    ///
    /// # Panics
    ///
    /// As [`Resizer::resize_into`].
    pub fn resize_plane_into(
        &mut self,
        source: Source<'_>,
        region: Region,
        filter: Filter,
        size_px: (u32, u32),
        out: &mut [u8],
    ) {
        let (width_px, height_px) = size_px;
        let view_px = source.view.width_px;
        let is_wide = region.left_px == 0.0 && region.width_px == f64::from(width_px);
        if is_wide && view_px == width_px {
            return self.pass::<1>(source, region, filter, size_px, out);
        }
        // The library takes a sample at a time along a row, but whole vectors across rows: so its
        // rows are made first, and its columns as the rows of the turned plane; the same bytes in
        // a third of the time.
        let (mut between, mut turned) =
            (std::mem::take(&mut self.between), std::mem::take(&mut self.turned));
        let bytes = view_px as usize * height_px as usize;
        between.resize(between.len().max(bytes).max(out.len()), 0);
        turned.resize(turned.len().max(bytes), 0);
        let lines = Region { left_px: 0.0, width_px: f64::from(view_px), ..region };
        self.pass::<1>(source, lines, filter, (view_px, height_px), &mut between[..bytes]);
        transpose(&between[..bytes], view_px as usize, &mut turned[..bytes]);
        let turned_px = (height_px, view_px);
        let columns = Region {
            left_px: 0.0,
            width_px: f64::from(height_px),
            top_px: region.left_px,
            height_px: region.width_px,
        };
        let source =
            Source { pixels: &turned[..bytes], size_px: turned_px, view: Part::whole(turned_px) };
        let made = &mut between[..out.len()];
        self.pass::<1>(source, columns, filter, (height_px, width_px), made);
        transpose(made, height_px as usize, out);
        (self.between, self.turned) = (between, turned);
    }

    fn pass<const CHANNELS: usize>(
        &mut self,
        source: Source<'_>,
        region: Region,
        filter: Filter,
        (width_px, height_px): (u32, u32),
        out: &mut [u8],
    ) {
        assert_eq!(out.len(), width_px as usize * height_px as usize * CHANNELS, "output buffer");
        let kind = if CHANNELS == 1 { fir::PixelType::U8 } else { fir::PixelType::U8x3 };
        let Part { left_px, top_px, width_px: view_width, height_px: view_height } = source.view;
        // Sums of fractions may pass the border by a rounding.
        let (left, top) = (region.left_px.max(0.0), region.top_px.max(0.0));
        let wide = region.width_px.min(f64::from(view_width) - left);
        let high = region.height_px.min(f64::from(view_height) - top);
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(filter.kernel()))
            .use_alpha(false)
            .crop(left, top, wide, high);
        let (columns, rows) = source.size_px;
        let done = fir::images::ImageRef::new(columns, rows, source.pixels, kind)
            .map_err(|e| e.to_string())
            .and_then(|all| {
                let view =
                    fir::images::CroppedImage::new(&all, left_px, top_px, view_width, view_height)
                        .map_err(|e| e.to_string())?;
                let mut target = fir::images::Image::from_slice_u8(width_px, height_px, out, kind)
                    .map_err(|e| e.to_string())?;
                self.passes.resize(&view, &mut target, &options).map_err(|e| e.to_string())
            });
        if let Err(message) = done {
            panic!("{region:?} of {:?} of {columns} × {rows} px: {message}", source.view);
        }
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
    fn the_polynomial_is_the_windowed_sinc() {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { x.sin() / x };
        for i in -3200..=3200 {
            let x = f64::from(i) / 1000.0;
            let angle = x * std::f64::consts::PI;
            let expected = if x.abs() < 3.0 { sinc(angle) * sinc(angle / 3.0) } else { 0.0 };
            assert!((lanczos3(x) - expected).abs() < 1e-10, "{x}: {} {expected}", lanczos3(x));
        }
    }

    #[test]
    fn the_centre_is_torchvisions() {
        // Resize(232) of 500 × 375 gives 309 × 232; CenterCrop(224) starts at (42, 4).
        let region = Region::centre((500, 375), 232, 224);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(region.left_px, 42.0 * 500.0 / 309.0), "{region:?}");
        assert!(close(region.top_px, 4.0 * 375.0 / 232.0), "{region:?}");
        assert!(close(region.width_px, 224.0 * 500.0 / 309.0), "{region:?}");
        assert!(close(region.height_px, 224.0 * 375.0 / 232.0), "{region:?}");
    }

    #[test]
    fn a_plane_that_is_turned_between_has_the_bytes_of_one_pass() {
        let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
        let mut resizer = Resizer::default();
        for (size_px, to_px, left_px) in [
            ((97, 50), (61, 33), 0.0),
            ((300, 7), (40, 7), 2.5),
            ((33, 200), (33, 20), 0.0),
            ((16, 16), (31, 64), 0.25),
        ] {
            let (width, height) = size_px;
            let pixels: Vec<u8> = (0..(width * height) as usize).map(noise).collect();
            let view = Part { width_px: width - 1, ..Part::whole(size_px) };
            let source = Source { pixels: &pixels, size_px, view };
            let wide = f64::from(width - 1) - left_px;
            let region = Region { left_px, width_px: wide, ..Region::whole(size_px) };
            for filter in [Filter::Bilinear, Filter::Lanczos3] {
                let mut out = [(); 2].map(|()| vec![0; (to_px.0 * to_px.1) as usize]);
                resizer.pass::<1>(source, region, filter, to_px, &mut out[0]);
                resizer.resize_plane_into(source, region, filter, to_px, &mut out[1]);
                assert!(out[0] == out[1], "{size_px:?} to {to_px:?}, {filter:?}");
            }
        }
    }

    #[test]
    fn a_region_is_taken_and_the_view_bounds_it() {
        let mut pixels = vec![200u8; 40 * 20 * 3];
        for row in pixels.chunks_exact_mut(40 * 3) {
            row[..20 * 3].fill(10);
        }
        let image = Image { width_px: 40, height_px: 20, pixels };
        let mut out = vec![0; 8 * 8 * 3];
        let mut resizer = Resizer::default();
        let right = Region { left_px: 24.0, top_px: 2.0, width_px: 12.5, height_px: 12.5 };
        resizer.resize_into(Source::whole(&image), right, Filter::Bilinear, (8, 8), &mut out);
        assert!(out.iter().all(|&p| p == 200), "{out:?}");
        // The filter sees the dark half across the border of a region, but not across a view's.
        let right = Region { left_px: 20.0, top_px: 0.0, width_px: 20.0, height_px: 20.0 };
        resizer.resize_into(Source::whole(&image), right, Filter::Bilinear, (8, 8), &mut out);
        assert!(out[0] < 200, "{out:?}");
        let view = Part { left_px: 20, top_px: 0, width_px: 20, height_px: 20 };
        let source = Source { view, ..Source::whole(&image) };
        let region = Region::whole((20, 20));
        resizer.resize_into(source, region, Filter::Bilinear, (8, 8), &mut out);
        assert!(out.iter().all(|&p| p == 200), "{out:?}");
    }
}
