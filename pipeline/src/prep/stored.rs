//! One source image to what is stored of it.
//!
//! In: the bytes of an image and the plan. Out: bytes to store, with sizes and encoding; none in
//! the mode `reference`. Never: enlarges.

use crate::config::ImageMode;
use crate::error::SampleError;
use crate::image::resize::shrunk_size;
use crate::image::{
    Crop, CropDecoder, DecodeOptions, Format, Header, Image, Orientation, Region, Shrinker, decode,
    jpeg,
};
use crate::metrics::PrepMetrics;
use crate::prep::memory::DECODE_BYTES_PER_PX;
use crate::prep::plan::PrepPlan;

/// What is stored of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The bytes; empty where rows point into the source.
    pub bytes: Vec<u8>,
    /// Their encoding, or that of the source where rows point into it.
    pub encoding: &'static str,
    /// Upright width and height of what is stored.
    pub size_px: (u32, u32),
    /// Upright width and height of the source.
    pub source_size_px: (u32, u32),
}

/// What images are made with; keeps its buffers between images: one a thread.
#[derive(Default)]
pub struct Tools {
    crops: CropDecoder,
    shrinker: Shrinker,
}

/// What the config says of decoding.
pub fn decode_options(plan: &PrepPlan) -> DecodeOptions {
    let config = &plan.config.image;
    DecodeOptions {
        pixels_max: config.pixels_max,
        background: config.background,
        allow_truncated: config.allow_truncated,
    }
}

/// Decides and makes what is stored of the image in `source`.
///
/// # Errors
///
/// [`SampleError`] for an image that is not decoded, that the filter does not want, or whose bytes
/// to store are too many.
pub fn store(
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    source: &[u8],
    tools: &mut Tools,
) -> Result<Stored, SampleError> {
    let options = decode_options(plan);
    let header = Header::read(source, &options)?;
    let source_size_px = header.upright_px();
    plan.filter.check_size(source_size_px)?;
    let as_it_is = |bytes: Vec<u8>| Stored {
        bytes,
        encoding: header.format.encoding(),
        size_px: source_size_px,
        source_size_px,
    };
    let config = &plan.config.image;
    let pixels = u64::from(source_size_px.0) * u64::from(source_size_px.1);
    let _held =
        (config.mode != ImageMode::Reference).then(|| plan.memory.hold(header.format, pixels));
    let stored = match config.mode {
        ImageMode::Reference => as_it_is(Vec::new()),
        ImageMode::Keep => {
            if config.check {
                metrics.decode.measure(|| tools.crops.check(source, &header, &options))?;
            }
            as_it_is(source.to_vec())
        }
        ImageMode::Resize => {
            let size_px = shrunk_size(source_size_px.0, source_size_px.1, config.short_side_px);
            let fits = size_px == source_size_px && header.format == Format::Jpeg;
            if fits && config.keep_small_jpeg && header.orientation == Orientation::UPRIGHT {
                if config.check {
                    metrics.decode.measure(|| tools.crops.check(source, &header, &options))?;
                }
                as_it_is(source.to_vec())
            } else {
                let bytes = shrunk(plan, metrics, source, &header, size_px, tools)?;
                let encoding = Format::Jpeg.encoding();
                Stored { bytes, encoding, size_px, source_size_px }
            }
        }
    };
    if pixels * DECODE_BYTES_PER_PX > plan.memory.kept_bytes(plan.threads()) {
        *tools = Tools::default();
    }
    if stored.bytes.len() as u64 > config.bytes_max {
        let limit = usize::try_from(config.bytes_max).unwrap_or(usize::MAX);
        return Err(SampleError::ImageTooManyBytes { bytes: stored.bytes.len(), limit });
    }
    Ok(stored)
}

/// The JPEG of the upright image at `size_px`.
fn shrunk(
    plan: &PrepPlan,
    metrics: &PrepMetrics,
    source: &[u8],
    header: &Header,
    size_px: (u32, u32),
    tools: &mut Tools,
) -> Result<Vec<u8>, SampleError> {
    let options = decode_options(plan);
    let (filter, quality, chroma) =
        (plan.config.image.filter, plan.config.image.quality, plan.chroma);
    let shrinker = &mut tools.shrinker;
    let decode = || shrinker.decode(source, header, &options, filter, size_px);
    if metrics.decode.measure(decode)? {
        let before_px = header.stored_px;
        metrics.resize.measure(|| shrinker.shrink(before_px, size_px, filter, chroma));
        return metrics.encode.measure(|| shrinker.encode(quality, chroma));
    }
    let pixels = || pixels(plan, source, header, size_px, &mut tools.crops);
    let image = metrics.decode.measure(pixels)?;
    metrics.encode.measure(|| jpeg::encode(&image, quality, chroma))
}

/// The upright image at `size_px`.
fn pixels(
    plan: &PrepPlan,
    source: &[u8],
    header: &Header,
    size_px: (u32, u32),
    decoder: &mut CropDecoder,
) -> Result<Image, SampleError> {
    let options = decode_options(plan);
    let before = header.upright_px();
    if size_px == before {
        return decode(source, &options);
    }
    let crop = Crop {
        region: Region::whole(before),
        reaches_out: true,
        filter: plan.config.image.filter,
        output_px: size_px,
        flipped: false,
        may_scale: true,
    };
    let (width_px, height_px) = size_px;
    let mut pixels = vec![0; width_px as usize * height_px as usize * 3];
    decoder.decode(source, header, &options, &crop, &mut pixels)?;
    Ok(Image { width_px, height_px, pixels })
}
