//! A JPEG to a smaller JPEG, without RGB between.
//!
//! In: the bytes of an upright JPEG of luma and chroma, as nearly all are. Out: its planes, shrunk
//! each by itself, and their JPEG. Never: enlarges; changes colours, which are numbers of the same
//! meaning before and after.

use super::jpeg::{self, Chroma, Planes, Scale};
use super::resize::{Filter, Part, Region, Resizer, Source};
use super::{DecodeOptions, Format, Header, Orientation};
use crate::error::SampleError;

/// Shrinks images; keeps its buffers between calls: one a thread.
#[derive(Default)]
pub struct Shrinker {
    resizer: Resizer,
    decoded: Planes,
    shrunk: Planes,
    /// A sample of a plane for each pixel of the result.
    made: Vec<u8>,
}

impl Shrinker {
    /// Decodes the JPEG in `bytes` to planes; false and nothing done for an image that has other
    /// planes or is not upright, and for a filter whose passes must follow each other in RGB.
    ///
    /// # Errors
    ///
    /// [`SampleError::ImageCorrupt`], [`SampleError::ImageUnsupported`].
    pub fn decode(
        &mut self,
        bytes: &[u8],
        header: &Header,
        options: &DecodeOptions,
        filter: Filter,
        size_px: (u32, u32),
    ) -> Result<bool, SampleError> {
        let is_upright = header.orientation == Orientation::UPRIGHT;
        if header.format != Format::Jpeg || !is_upright || filter == Filter::Bicubic {
            return Ok(false);
        }
        let of = |before: u32, after: u32| f64::from(before) / f64::from(after.max(1));
        let (width_px, height_px) = header.stored_px;
        let reduction = of(width_px, size_px.0).min(of(height_px, size_px.1));
        let scale = Scale::for_reduction(reduction);
        jpeg::decode_planes(bytes, header, options, scale, &mut self.decoded)
    }

    /// Shrinks what was decoded, an image of `before_px`, to `size_px`.
    pub fn shrink(
        &mut self,
        before_px: (u32, u32),
        size_px: (u32, u32),
        filter: Filter,
        chroma: Chroma,
    ) {
        for (number, (from, to)) in self.decoded.iter().zip(&mut self.shrunk).enumerate() {
            let factor = if number == 0 { 1 } else { chroma.factor() };
            let columns = Axis::new(from.per_px.0, before_px.0, size_px.0, factor);
            let rows = Axis::new(from.per_px.1, before_px.1, size_px.1, factor);
            to.size_px = (size_px.0.div_ceil(factor), size_px.1.div_ceil(factor));
            to.stride = to.size_px.0 as usize;
            let samples = to.stride * to.size_px.1 as usize;
            if to.samples.len() < samples {
                to.samples.resize(samples, 0);
            }
            let (width_px, height_px) = (columns.reach, rows.reach);
            let region = Region { left_px: 0.0, top_px: 0.0, width_px, height_px };
            // What is behind the border is looked at only where the region goes there.
            let view = |size: u32, reach: f64| size.max(reach.ceil() as u32);
            let view = (view(from.size_px.0, width_px), view(from.size_px.1, height_px));
            let lines = (from.samples.len() / from.stride) as u32;
            let view = Part::whole(view);
            let source =
                Source { pixels: &from.samples, size_px: (from.stride as u32, lines), view };
            let (out, made_px) = (&mut to.samples[..samples], (columns.made, rows.made));
            if made_px == to.size_px {
                self.resizer.resize_plane_into(source, region, filter, made_px, out);
            } else {
                self.made.resize(made_px.0 as usize * made_px.1 as usize, 0);
                self.resizer.resize_plane_into(source, region, filter, made_px, &mut self.made);
                average(&self.made, made_px, to.size_px, out);
            }
        }
    }

    /// The JPEG of what was shrunk.
    ///
    /// # Errors
    ///
    /// [`SampleError::ImageUnsupported`] for a side above 65,500 px.
    pub fn encode(&self, quality: u8, chroma: Chroma) -> Result<Vec<u8>, SampleError> {
        jpeg::encode_planes(&self.shrunk, quality, chroma)
    }
}

/// How a plane shrinks along one axis.
struct Axis {
    /// Samples that the filter makes.
    made: u32,
    /// How far it goes along the samples that are there.
    reach: f64,
}

impl Axis {
    /// A sample of the result is one for `factor` of its pixels.
    ///
    /// The filter makes a sample for each pixel, of which [`average`] takes means: so it goes with
    /// RGB. A filter for `factor` pixels at once would blur more, and reach behind the border where
    /// they are odd. Where the plane has less than a sample for a pixel it makes those of the
    /// result, and reaches less than [`jpeg::BEHIND_PX`] behind the border.
    fn new(per_px: f64, before_px: u32, after_px: u32, factor: u32) -> Self {
        let samples = f64::from(before_px) * per_px;
        if samples >= f64::from(after_px) {
            return Self { made: after_px, reach: samples };
        }
        let made = after_px.div_ceil(factor);
        Self { made, reach: samples * f64::from(made * factor) / f64::from(after_px) }
    }
}

/// Means of the samples of `from` that lie in one of `to`: two along an axis that has more of them.
/// A last one without a second counts twice.
fn average(from: &[u8], from_px: (u32, u32), to_px: (u32, u32), to: &mut [u8]) {
    let wide = from_px.0 as usize;
    let down = if from_px.1 > to_px.1 { 2 } else { 1 };
    let means = if from_px.0 > to_px.0 { means::<2> } else { means::<1> };
    for (to, rows) in to.chunks_exact_mut(to_px.0 as usize).zip(from.chunks(wide * down)) {
        means(&rows[..wide], &rows[rows.len() - wide..], to);
    }
}

/// Means of `ACROSS` samples of each of two rows.
fn means<const ACROSS: usize>(above: &[u8], below: &[u8], to: &mut [u8]) {
    let mean = |x: usize, four: [u8; 4]| {
        let sum: u16 = four.into_iter().map(u16::from).sum();
        // A half is rounded down and up by turns, so that no plane becomes brighter.
        ((sum + 1 + x as u16 % 2) / 4) as u8
    };
    let ((above, above_last), (below, below_last)) = (above.as_chunks(), below.as_chunks());
    for (x, (to, (a, b))) in to.iter_mut().zip(above.iter().zip(below)).enumerate() {
        let (a, b): (&[u8; ACROSS], &[u8; ACROSS]) = (a, b);
        *to = mean(x, [a[0], a[ACROSS - 1], b[0], b[ACROSS - 1]]);
    }
    if let (Some(to), &[a], &[b]) = (to.last_mut(), above_last, below_last) {
        *to = mean(above.len(), [a, a, b, b]);
    }
}

#[cfg(test)]
#[path = "shrink_tests.rs"]
mod tests;
