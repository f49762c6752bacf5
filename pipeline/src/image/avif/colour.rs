//! Decoded planes to RGB of 8 bits, row by row.
//!
//! In: a [`Picture`] of 8, 10 or 12 bits. Out: RGB; or pixels laid on a background by its luma as
//! alpha. Chroma between two samples is a quarter of the farther and three of the nearer, as
//! libavif does by default. Never: applies a transfer function or a gamut.

use super::av1::Picture;
use super::boxes::Coding;
use super::unsupported;
use crate::error::SampleError;

/// Red, green and blue, each a sum of luma, two chromas (in sixteenths) and a number.
type Matrix = [[f32; 4]; 3];

/// The rows of a picture as RGB.
pub(super) struct Rows<'p> {
    picture: &'p Picture,
    matrix: Matrix,
    luma: Vec<i32>,
    /// Both chromas at the size of luma, in sixteenths.
    chroma: [Vec<i32>; 2],
    near: Vec<i32>,
    far: Vec<i32>,
}

impl<'p> Rows<'p> {
    /// Rows of `picture`, whose numbers mean what `coding` says, or else the picture itself.
    ///
    /// # Errors
    ///
    /// [`SampleError::ImageUnsupported`] for a matrix that is none: constant luminance, ICtCp.
    pub fn new(picture: &'p Picture, coding: Option<Coding>) -> Result<Self, SampleError> {
        let coding = coding.unwrap_or(picture.coding);
        let matrix = matrix(coding, picture.bits, picture.halves.is_none())?;
        let width = picture.size_px.0 as usize;
        let row = || vec![0; width];
        let (luma, chroma) = (row(), [row(), row()]);
        Ok(Self { picture, matrix, luma, chroma, near: row(), far: row() })
    }

    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        size(self.picture)
    }

    /// Writes the row `y` as far as `rgb` goes.
    pub fn write(&mut self, y: usize, rgb: &mut [u8]) {
        self.picture.read_row(0, y, &mut self.luma);
        if let Some((across, down)) = self.picture.halves {
            for plane in 0..2 {
                self.read_chroma(plane, y, across, down);
            }
        }
        let chroma = self.chroma[0].iter().zip(&self.chroma[1]);
        for ((pixel, &y), (&u, &v)) in rgb.chunks_exact_mut(3).zip(&self.luma).zip(chroma) {
            let (y, u, v) = (y as f32, u as f32, v as f32);
            for (value, [of_y, of_u, of_v, rest]) in pixel.iter_mut().zip(self.matrix) {
                // The cast ends at 0 and 255.
                *value = (y * of_y + u * of_u + v * of_v + rest) as u8;
            }
        }
    }

    /// Brings the row `y` of a chroma to the size of luma.
    fn read_chroma(&mut self, plane: usize, y: usize, across: bool, down: bool) {
        let (width, height) = size(self.picture);
        let halved = |side: usize, is_halved: bool| if is_halved { side.div_ceil(2) } else { side };
        let (width, height) = (halved(width, across), halved(height, down));
        let (near, far) = (&mut self.near[..width], &mut self.far[..width]);
        let (near_y, far_y) = if down { neighbours(y, height) } else { (y, y) };
        self.picture.read_row(1 + plane, near_y, near);
        self.picture.read_row(1 + plane, far_y, far);
        near.iter_mut().zip(&*far).for_each(|(near, far)| *near = 3 * *near + far);
        for (x, value) in self.chroma[plane].iter_mut().enumerate() {
            let (near_x, far_x) = if across { neighbours(x, width) } else { (x, x) };
            *value = 3 * near[near_x] + near[far_x];
        }
    }
}

/// The halved sample in which `at` lies, and the next nearest, of `count`.
fn neighbours(at: usize, count: usize) -> (usize, usize) {
    let near = at / 2;
    let far = if at % 2 == 1 { (near + 1).min(count - 1) } else { near.saturating_sub(1) };
    (near, far)
}

/// Luma and two chromas, of `bits`, to RGB of 8 bits; the number has the half that rounds.
fn matrix(coding: Coding, bits: u32, is_grey: bool) -> Result<Matrix, SampleError> {
    let unit = (1u32 << (bits - 8)) as f32;
    let (black, luma, chroma) = match coding.is_full_range {
        true => (0.0, 255.0 / (256.0 * unit - 1.0), 255.0 / (256.0 * unit - 1.0)),
        false => (16.0 * unit, 255.0 / (219.0 * unit), 255.0 / (224.0 * unit)),
    };
    let low = 0.5 - black * luma;
    if is_grey {
        return Ok([[luma, 0.0, 0.0, low]; 3]);
    }
    // Shares of red and blue in luma (ITU-T H.273, table 4).
    let (red, blue) = match coding.matrix {
        // Green, blue, red themselves.
        0 => {
            let part = luma / 16.0;
            return Ok([[0.0, 0.0, part, low], [luma, 0.0, 0.0, low], [0.0, part, 0.0, low]]);
        }
        1 => (0.2126, 0.0722),
        // Unspecified is taken as that of JPEG.
        2 | 5 | 6 => (0.299, 0.114),
        4 => (0.30, 0.11),
        7 => (0.212, 0.087),
        8 => return Ok(affine(luma, chroma, low, unit, [(-1.0, 1.0), (1.0, 0.0), (-1.0, -1.0)])),
        9 => (0.2627, 0.0593),
        other => return Err(unsupported(format!("matrix {other} of H.273 for its colours"))),
    };
    let green = 1.0 - red - blue;
    let (of_u, of_v) = (2.0 * (1.0 - blue), 2.0 * (1.0 - red));
    let greens = (-of_u * blue / green, -of_v * red / green);
    Ok(affine(luma, chroma, low, unit, [(0.0, of_v), greens, (of_u, 0.0)]))
}

/// A matrix whose chromas lie about their middle.
fn affine(luma: f32, chroma: f32, low: f32, unit: f32, parts: [(f32, f32); 3]) -> Matrix {
    let middle = 128.0 * unit * chroma;
    parts.map(|(u, v)| [luma, u * chroma / 16.0, v * chroma / 16.0, low - (u + v) * middle])
}

/// The rows of a picture as alpha of pixels that are there.
pub(super) struct Alpha<'p> {
    picture: &'p Picture,
    background: [f32; 3],
    is_premultiplied: bool,
    of_luma: f32,
    rest: f32,
    luma: Vec<i32>,
}

impl<'p> Alpha<'p> {
    /// Rows of `picture`; `is_premultiplied`: whether the pixels were multiplied by it.
    pub fn new(picture: &'p Picture, background: [u8; 3], is_premultiplied: bool) -> Self {
        let unit = (1u32 << (picture.bits - 8)) as f32;
        let (black, span) = match picture.coding.is_full_range {
            true => (0.0, 256.0 * unit - 1.0),
            false => (16.0 * unit, 219.0 * unit),
        };
        let luma = vec![0; picture.size_px.0 as usize];
        let background = background.map(f32::from);
        let (of_luma, rest) = (1.0 / span, -black / span);
        Self { picture, background, is_premultiplied, of_luma, rest, luma }
    }

    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        size(self.picture)
    }

    /// Lays the row `y` of `rgb` on the background.
    pub fn lay(&mut self, y: usize, rgb: &mut [u8]) {
        self.picture.read_row(0, y, &mut self.luma);
        for (pixel, &luma) in rgb.chunks_exact_mut(3).zip(&self.luma) {
            let alpha = (luma as f32 * self.of_luma + self.rest).clamp(0.0, 1.0);
            let part = if self.is_premultiplied { 1.0 } else { alpha };
            for (value, background) in pixel.iter_mut().zip(self.background) {
                *value = (f32::from(*value) * part + background * (1.0 - alpha) + 0.5) as u8;
            }
        }
    }
}

fn size(picture: &Picture) -> (usize, usize) {
    (picture.size_px.0 as usize, picture.size_px.1 as usize)
}
