//! AVIF: its boxes by our own walk, its AV1 by the library, its colours by our own conversion.
//!
//! In: the bytes of one file. Out: its size and how it is turned; or its pixels as they are
//! stored, RGB, alpha laid on the background. Of a sequence the primary item. Never: allocates by
//! a size that the boxes did not tell; starts a thread; applies a colour profile.

mod av1;
mod boxes;
mod colour;

use boxes::{Still, Tiles};
use colour::{Alpha, Rows};

use super::{DecodeOptions, Format, Header, Image, Orientation};
use crate::error::SampleError;

/// Width and height as stored, px, and how that is turned.
pub(super) fn header(bytes: &[u8]) -> Result<((u32, u32), Orientation), SampleError> {
    let still = Still::read(bytes)?;
    Ok((still.size_px, still.orientation))
}

/// Decodes the picture as it is stored, on the background.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
) -> Result<Image, SampleError> {
    let still = Still::read(bytes)?;
    let (width_px, height_px) = header.stored_px;
    let mut image = Image { width_px, height_px, pixels: super::decode::buffer(header, 3)? };
    each_tile(&still.colour, |place, picture| {
        let mut rows = Rows::new(picture, still.coding)?;
        paint(&mut image, place, rows.size(), |y, pixels| rows.write(y, pixels));
        Ok(())
    })?;
    if let Some(tiles) = &still.alpha {
        let (background, multiplied) = (options.background, still.is_premultiplied);
        each_tile(tiles, |place, picture| {
            let mut alpha = Alpha::new(picture, background, multiplied);
            paint(&mut image, place, alpha.size(), |y, pixels| alpha.lay(y, pixels));
            Ok(())
        })?;
    }
    Ok(image)
}

/// Decodes tile after tile: one is held at a time.
fn each_tile(
    tiles: &Tiles<'_>,
    mut call: impl FnMut((usize, usize), &av1::Picture) -> Result<(), SampleError>,
) -> Result<(), SampleError> {
    for tile in 0..tiles.count() {
        let picture = av1::decode(tiles.bytes(tile)?, tiles.tile_px)?;
        call(tiles.place(tile), &picture)?;
    }
    Ok(())
}

/// Calls with each row of a tile of `size` that begins at `place`, as far as the image has it.
fn paint(
    image: &mut Image,
    (left, top): (usize, usize),
    (width, height): (usize, usize),
    mut call: impl FnMut(usize, &mut [u8]),
) {
    let stride = image.width_px as usize * 3;
    let right = (3 * (left + width)).min(stride);
    for (y, row) in image.pixels.chunks_exact_mut(stride).skip(top).take(height).enumerate() {
        call(y, &mut row[3 * left..right]);
    }
}

fn corrupt(message: String) -> SampleError {
    SampleError::ImageCorrupt { format: Format::Avif.name(), message }
}

fn unsupported(message: String) -> SampleError {
    SampleError::ImageUnsupported { format: Format::Avif.name(), message }
}

#[cfg(test)]
#[path = "avif_tests.rs"]
mod tests;
