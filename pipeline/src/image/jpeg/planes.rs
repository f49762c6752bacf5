//! JPEG bytes to the planes that are in them, and planes to JPEG bytes.
//!
//! A JPEG holds a plane of luma and two of chroma, mostly at half the resolution. Who shrinks an
//! image and stores it again as JPEG needs no RGB between: no chroma is enlarged, converted,
//! resized at full resolution, converted back and halved again.

use std::ffi::c_int;

use super::decode::{Decoder, outcome};
use super::encode::Encoder;
use super::*;
use crate::image::{DecodeOptions, Header};

/// Side of a block of DCT coefficients.
const BLOCK_PX: u32 = 8;

/// The largest sampling factor that a JPEG may have.
const SAMPLING_MAX: usize = 4;

/// Columns and rows that repeat the last one behind it, for a filter that reaches over the border
/// by less than a sample.
pub const BEHIND_PX: u32 = 1;

/// One channel of an image.
#[derive(Clone, Debug, Default)]
pub struct Plane {
    /// Columns and rows.
    pub size_px: (u32, u32),
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Samples, rows from the top; what is behind the size is left over, but for
    /// [`BEHIND_PX`] columns and rows that repeat the last.
    pub samples: Vec<u8>,
    /// Samples a stored pixel, horizontal and vertical: 0.5 where there is one for two.
    pub per_px: (f64, f64),
}

/// Luma, blue chroma, red chroma.
pub type Planes = [Plane; 3];

/// Decodes a whole JPEG to its planes, at `scale`, as it is stored; false and nothing done for
/// those that are not luma and two chromas: grey, RGB, CMYK.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_planes(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
    scale: Scale,
    planes: &mut Planes,
) -> Result<bool, SampleError> {
    let mut errors = Errors::new();
    let mut decoder = Decoder::new(&mut errors);
    decoder.read_header(bytes)?;
    header.check_decoded((decoder.raw.image_width, decoder.raw.image_height))?;
    let is_done = read_planes(&mut decoder.raw, scale, planes)?;
    drop(decoder);
    outcome(&errors, options).map(|()| is_done)
}

/// Where the samples of a channel go.
struct Channel {
    rows_at_once: usize,
    size_px: (u32, u32),
    stride: usize,
    rows: usize,
    per_px: (f64, f64),
}

/// Lays a channel out. libjpeg decodes one whose resolution is lower at more than `scale` where
/// that saves enlarging it (jdmaster.c, `jpeg_calc_output_dimensions`).
fn channel(raw: &sys::jpeg_decompress_struct, number: usize, block_px: u32) -> Channel {
    // SAFETY: libjpeg has read the header, and `number` is below `num_components`.
    let info = unsafe { &*raw.comp_info.add(number) };
    let (h, v) = (info.h_samp_factor as u32, info.v_samp_factor as u32);
    let (h_max, v_max) = (raw.max_h_samp_factor as u32, raw.max_v_samp_factor as u32);
    let mut own_px = block_px;
    while own_px < BLOCK_PX
        && (h_max * block_px).is_multiple_of(h * own_px * 2)
        && (v_max * block_px).is_multiple_of(v * own_px * 2)
    {
        own_px *= 2;
    }
    let per_px = (
        f64::from(h * own_px) / f64::from(h_max * BLOCK_PX),
        f64::from(v * own_px) / f64::from(v_max * BLOCK_PX),
    );
    let side = |px: u32, per_px: f64| (f64::from(px) * per_px).ceil() as u32;
    let groups = raw.image_height.div_ceil(v_max * BLOCK_PX);
    // Whatever libjpeg decides, a block has at most 8 × 8 samples: what is written stays inside.
    let stride = info.width_in_blocks.next_multiple_of(h) * BLOCK_PX + BEHIND_PX;
    let rows = groups * v * own_px + v * BLOCK_PX + BEHIND_PX;
    Channel {
        rows_at_once: (v * own_px) as usize,
        size_px: (side(raw.image_width, per_px.0), side(raw.image_height, per_px.1)),
        stride: stride as usize,
        rows: rows as usize,
        per_px,
    }
}

fn read_planes(
    raw: &mut sys::jpeg_decompress_struct,
    scale: Scale,
    planes: &mut Planes,
) -> Result<bool, SampleError> {
    if raw.jpeg_color_space != sys::J_COLOR_SPACE::JCS_YCbCr || raw.num_components != 3 {
        return Ok(false);
    }
    raw.scale_num = 1;
    raw.scale_denom = scale.divisor();
    raw.raw_data_out = 1;
    raw.out_color_space = sys::J_COLOR_SPACE::JCS_YCbCr;
    raw.do_block_smoothing = 0;
    run(|| {
        // SAFETY: the header was read; nothing else was called since.
        unsafe { sys::jpeg_start_decompress(raw) };
        // SAFETY: it has started, and `_faster` lives until the rows below are read.
        let _faster = unsafe { huffman::install(raw) };
        let block_px = BLOCK_PX / scale.divisor();
        let channels = [0, 1, 2].map(|number| channel(raw, number, block_px));
        for (plane, channel) in planes.iter_mut().zip(&channels) {
            let bytes = channel.stride * channel.rows;
            if plane.samples.len() < bytes {
                plane.samples.resize(bytes, 0);
            }
            let Channel { size_px, stride, per_px, .. } = *channel;
            (plane.size_px, plane.stride, plane.per_px) = (size_px, stride, per_px);
        }
        read_groups(raw, &channels, block_px, planes);
        // SAFETY: all rows were read.
        unsafe { sys::jpeg_finish_decompress(raw) };
        planes.iter_mut().for_each(repeat_border);
        true
    })
}

/// Reads one row of MCUs after another.
fn read_groups(
    raw: &mut sys::jpeg_decompress_struct,
    channels: &[Channel; 3],
    block_px: u32,
    planes: &mut Planes,
) {
    const ROWS: usize = SAMPLING_MAX * BLOCK_PX as usize;
    let lines = raw.max_v_samp_factor as u32 * block_px;
    let mut group = 0;
    while raw.output_scanline < raw.output_height {
        let mut rows = [[std::ptr::null_mut(); ROWS]; 3];
        for ((rows, channel), plane) in rows.iter_mut().zip(channels).zip(&mut *planes) {
            let from = group * channel.rows_at_once;
            let lines = plane.samples.chunks_exact_mut(channel.stride).skip(from);
            for (row, samples) in rows.iter_mut().zip(lines) {
                *row = samples.as_mut_ptr();
            }
        }
        let mut all = rows.each_mut().map(|rows| rows.as_mut_ptr());
        // SAFETY: libjpeg writes `v_samp_factor` blocks of rows a channel, at most
        // `width_in_blocks` blocks of columns, each block at most 8 × 8. `channel` gives each row
        // that width, and the plane that many rows behind the last group, so that many pointers
        // are set. `max_lines` is what a row of MCUs has at least.
        let read = unsafe {
            sys::jpeg_read_raw_data(raw, all.as_mut_ptr(), (SAMPLING_MAX as u32) * BLOCK_PX)
        };
        assert_eq!(read, lines, "lines of a row of MCUs");
        group += 1;
    }
}

/// Repeats the last column and row, as if the image went on.
fn repeat_border(plane: &mut Plane) {
    let (width, height) = (plane.size_px.0 as usize, plane.size_px.1 as usize);
    for row in plane.samples.chunks_exact_mut(plane.stride).take(height) {
        let last = row[width - 1];
        row[width..width + BEHIND_PX as usize].fill(last);
    }
    let last = (height - 1) * plane.stride;
    for row in height..height + BEHIND_PX as usize {
        plane.samples.copy_within(last..last + plane.stride, row * plane.stride);
    }
}

/// Encodes planes as a baseline JPEG: the two of chroma are as `chroma` has them, half as large as
/// the luma, rounded up, or as large.
///
/// # Errors
///
/// As [`encode`].
///
/// # Panics
///
/// If the planes are not of those sizes: the caller made them.
pub fn encode_planes(planes: &Planes, quality: u8, chroma: Chroma) -> Result<Vec<u8>, SampleError> {
    let mut errors = Errors::new();
    let mut encoder = Encoder::new(&mut errors);
    let (width_px, height_px) = planes[0].size_px;
    let factor = chroma.factor();
    let of_chroma = (width_px.div_ceil(factor), height_px.div_ceil(factor));
    assert!(planes[1..].iter().all(|plane| plane.size_px == of_chroma), "planes of chroma");
    run(|| {
        encoder.begin(planes[0].size_px, quality, chroma, true);
        let raw = &mut *encoder.raw;
        let block = BLOCK_PX as usize;
        let factors = [factor as usize, 1, 1];
        let wide = (width_px.div_ceil(BLOCK_PX * factor) * BLOCK_PX) as usize;
        // A row of MCUs: 16 rows of luma at most.
        let mut samples = factors.map(|factor| vec![0; wide * factor * block * factor]);
        let mut group = 0;
        while raw.next_scanline < raw.image_height {
            let mut rows = [[std::ptr::null(); 2 * BLOCK_PX as usize]; 3];
            for (number, samples) in samples.iter_mut().enumerate() {
                let factor = factors[number];
                fill_group(&planes[number], group * block * factor, wide * factor, samples);
                for (row, line) in rows[number].iter_mut().zip(samples.chunks_exact(wide * factor))
                {
                    *row = line.as_ptr();
                }
            }
            let all = rows.each_ref().map(|rows| rows.as_ptr());
            // SAFETY: each channel has its sampling factor × 8 rows of whole MCUs, which is what
            // libjpeg reads for `factor` × 8 lines; it does not write through them.
            let done = unsafe { sys::jpeg_write_raw_data(raw, all.as_ptr(), factor * BLOCK_PX) };
            assert_eq!(done, factor * BLOCK_PX, "lines of a row of MCUs");
            group += 1;
        }
        encoder.finish()
    })
}

/// Copies the rows of a plane from `first` on; behind the border the last column and row repeat.
fn fill_group(plane: &Plane, first: usize, wide: usize, samples: &mut [u8]) {
    let (width, height) = (plane.size_px.0 as usize, plane.size_px.1 as usize);
    for (number, line) in samples.chunks_exact_mut(wide).enumerate() {
        let from = (first + number).min(height - 1) * plane.stride;
        let row = &plane.samples[from..from + width];
        line[..width].copy_from_slice(row);
        line[width..].fill(row[width - 1]);
    }
}

impl Chroma {
    /// Luma samples for one of chroma, each way.
    pub fn factor(self) -> u32 {
        match self {
            Self::Yuv420 => 2,
            Self::Yuv444 => 1,
        }
    }

    fn sampling(self) -> c_int {
        self.factor() as c_int
    }
}

impl Encoder<'_> {
    /// Sets an encoder up for pixels of RGB, or for planes.
    pub(super) fn begin(
        &mut self,
        (width_px, height_px): (u32, u32),
        quality: u8,
        chroma: Chroma,
        is_planes: bool,
    ) {
        let Self { raw, output, output_bytes, .. } = self;
        // SAFETY: `output` and `output_bytes` live in `self` until after the last call.
        unsafe {
            sys::jpeg_mem_dest(raw, &mut **output, &mut **output_bytes);
            raw.image_width = width_px;
            raw.image_height = height_px;
            raw.input_components = 3;
            raw.in_color_space = match is_planes {
                true => sys::J_COLOR_SPACE::JCS_YCbCr,
                false => sys::J_COLOR_SPACE::JCS_EXT_RGB,
            };
            sys::jpeg_c_set_int_param(
                raw,
                sys::J_INT_PARAM::JINT_COMPRESS_PROFILE,
                sys::JINT_COMPRESS_PROFILE_VALUE::JCP_FASTEST as c_int,
            );
            sys::jpeg_set_defaults(raw);
            sys::jpeg_set_quality(raw, c_int::from(quality.clamp(1, 100)), 1);
            raw.raw_data_in = is_planes.into();
            (*raw.comp_info).h_samp_factor = chroma.sampling();
            (*raw.comp_info).v_samp_factor = chroma.sampling();
            sys::jpeg_start_compress(raw, 1);
        }
    }
}
