//! A JPEG to a smaller JPEG, without RGB between.
//!
//! In: the bytes of an upright JPEG of luma and chroma, as nearly all are. Out: its planes, shrunk
//! each by itself, and their JPEG. Never: enlarges; changes colours, which are numbers of the same
//! meaning before and after.

use super::jpeg::{self, BEHIND_PX, Chroma, Plane, Planes, Scale};
use super::resize::{Filter, Part, Region, Resizer, Source};
use super::{DecodeOptions, Format, Header, Orientation};
use crate::error::SampleError;

/// Shrinks images; keeps its buffers between calls: one a thread.
#[derive(Default)]
pub struct Shrinker {
    resizer: Resizer,
    decoded: Planes,
    shrunk: Planes,
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
            to.size_px = (size_px.0.div_ceil(factor), size_px.1.div_ceil(factor));
            to.stride = to.size_px.0 as usize;
            let samples = to.stride * to.size_px.1 as usize;
            if to.samples.len() < samples {
                to.samples.resize(samples, 0);
            }
            let region = Region {
                left_px: 0.0,
                top_px: 0.0,
                width_px: reach(from, 0, before_px.0, size_px.0, to.size_px.0 * factor),
                height_px: reach(from, 1, before_px.1, size_px.1, to.size_px.1 * factor),
            };
            // What is behind the border is looked at only where the region goes there.
            let view = |size: u32, region: f64| size.max(region.ceil() as u32);
            let view = Part::whole((
                view(from.size_px.0, region.width_px),
                view(from.size_px.1, region.height_px),
            ));
            let rows = (from.samples.len() / from.stride) as u32;
            let source =
                Source { pixels: &from.samples, size_px: (from.stride as u32, rows), view };
            let out = &mut to.samples[..samples];
            self.resizer.resize_plane_into(source, region, filter, to.size_px, out);
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

/// How far along an axis the samples of a plane reach that become `covered` of the `after_px` pixels
/// of a result: one more than all, where chroma is halved and the side is odd.
fn reach(plane: &Plane, axis: usize, before_px: u32, after_px: u32, covered: u32) -> f64 {
    let (per_px, size) = match axis {
        0 => (plane.per_px.0, plane.size_px.0),
        _ => (plane.per_px.1, plane.size_px.1),
    };
    let samples = f64::from(before_px) * per_px * f64::from(covered) / f64::from(after_px);
    samples.min(f64::from(size + BEHIND_PX))
}

#[cfg(test)]
#[path = "shrink_tests.rs"]
mod tests;
