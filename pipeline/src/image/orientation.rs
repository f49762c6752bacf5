//! How a stored image is turned to stand upright.
//!
//! In: the orientation of an EXIF block, 1 to 8. Out: upright sizes, regions and pixels.

use super::Image;
use super::resize::Region;

/// The tag of IFD 0 that holds the orientation.
const TAG_ORIENTATION: u16 = 0x0112;

/// Entries of IFD 0 that are looked at; cameras write some 20.
const ENTRIES_MAX: usize = 512;

/// One of the eight ways to store an image; upright pixel (x, y) is stored at (y, x) or (x, y),
/// counted from either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation {
    /// Whether stored rows are upright columns.
    pub swaps_sides: bool,
    /// Whether stored columns are counted from the right.
    pub from_right: bool,
    /// Whether stored rows are counted from the bottom.
    pub from_bottom: bool,
}

impl Orientation {
    /// Stored as it is seen.
    pub const UPRIGHT: Self = Self { swaps_sides: false, from_right: false, from_bottom: false };

    /// The orientation of that EXIF number; anything else than 1 to 8 is taken as upright.
    pub fn from_exif(number: u32) -> Self {
        let (swaps_sides, from_right, from_bottom) = match number {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, false, true),
            7 => (true, true, true),
            8 => (true, true, false),
            _ => return Self::UPRIGHT,
        };
        Self { swaps_sides, from_right, from_bottom }
    }

    /// The orientation that an EXIF block (a TIFF header and its first directory) tells; upright if
    /// the block is damaged, as every viewer takes it.
    pub fn of_exif_block(block: &[u8]) -> Self {
        Self::from_exif(orientation_tag(block).unwrap_or(1))
    }

    /// With left and right of the upright image swapped.
    pub fn mirrored(self) -> Self {
        match self.swaps_sides {
            false => Self { from_right: !self.from_right, ..self },
            true => Self { from_bottom: !self.from_bottom, ..self },
        }
    }

    /// With the upright image turned by 90° against the clock.
    pub fn rotated_left(self) -> Self {
        Self {
            swaps_sides: !self.swaps_sides,
            from_right: self.from_right == self.swaps_sides,
            from_bottom: self.from_bottom != self.swaps_sides,
        }
    }

    /// Upright size of a stored size, or the other way round.
    pub fn size(self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.swaps_sides { (height, width) } else { (width, height) }
    }

    /// Where a region of the upright image lies in the stored one of `stored_px`.
    pub fn stored_region(self, upright: Region, stored_px: (u32, u32)) -> Region {
        let mut region = upright;
        if self.swaps_sides {
            region = Region {
                left_px: upright.top_px,
                top_px: upright.left_px,
                width_px: upright.height_px,
                height_px: upright.width_px,
            };
        }
        if self.from_right {
            region.left_px = f64::from(stored_px.0) - region.left_px - region.width_px;
        }
        if self.from_bottom {
            region.top_px = f64::from(stored_px.1) - region.top_px - region.height_px;
        }
        region
    }

    /// Writes the upright form of `stored`, RGB of `stored_px`, to `upright`.
    ///
    /// # Panics
    ///
    /// If a buffer is not of that size: the caller made both.
    pub fn turn(self, stored: &[u8], stored_px: (u32, u32), upright: &mut [u8]) {
        let (width, height) = (stored_px.0 as usize, stored_px.1 as usize);
        assert_eq!(stored.len(), width * height * 3, "stored pixels");
        assert_eq!(upright.len(), stored.len(), "upright pixels");
        let (upright_width, _) = self.size(stored_px);
        for (y, row) in upright.chunks_exact_mut(upright_width as usize * 3).enumerate() {
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let (mut column, mut line) = if self.swaps_sides { (y, x) } else { (x, y) };
                if self.from_right {
                    column = width - 1 - column;
                }
                if self.from_bottom {
                    line = height - 1 - line;
                }
                let at = (line * width + column) * 3;
                pixel.copy_from_slice(&stored[at..at + 3]);
            }
        }
    }

    /// The image upright.
    pub fn upright(self, stored: Image) -> Image {
        if self == Self::UPRIGHT {
            return stored;
        }
        let stored_px = (stored.width_px, stored.height_px);
        let mut pixels = vec![0; stored.pixels.len()];
        self.turn(&stored.pixels, stored_px, &mut pixels);
        let (width_px, height_px) = self.size(stored_px);
        Image { width_px, height_px, pixels }
    }
}

/// The value of the tag in the first directory.
fn orientation_tag(block: &[u8]) -> Option<u32> {
    let is_big = match block.get(..4)? {
        [b'I', b'I', 42, 0] => false,
        [b'M', b'M', 0, 42] => true,
        _ => return None,
    };
    let two = |at: usize| -> Option<u16> {
        let bytes = block.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let four = |at: usize| -> Option<u32> {
        let bytes = block.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let directory = four(4)? as usize;
    let entries = usize::from(two(directory)?).min(ENTRIES_MAX);
    for entry in 0..entries {
        let at = directory.checked_add(2 + 12 * entry)?;
        if two(at)? == TAG_ORIENTATION {
            const SHORT: u16 = 3;
            const LONG: u16 = 4;
            return match two(at + 2)? {
                SHORT => two(at + 8).map(u32::from),
                LONG => four(at + 8),
                _ => None,
            };
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An EXIF block with an orientation, as a camera writes it.
    pub(crate) fn exif_block(orientation: u8, is_big: bool) -> Vec<u8> {
        match is_big {
            true => {
                let mut block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
                block.extend([orientation, 0, 0, 0, 0, 0, 0]);
                block
            }
            false => {
                let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
                block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
                block
            }
        }
    }

    /// Six pixels, named by their red: 1 2 3 above 4 5 6.
    fn six() -> Image {
        let pixels = (1..=6).flat_map(|n| [n, 0, 0]).collect();
        Image { width_px: 3, height_px: 2, pixels }
    }

    fn rows(image: &Image) -> String {
        let line = |row: &[u8]| row.chunks(3).map(|p| p[0].to_string()).collect::<String>();
        let stride = image.width_px as usize * 3;
        image.pixels.chunks(stride).map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn all_eight_orientations_are_those_of_the_standard() {
        let expected = [
            "123 456", "321 654", "654 321", "456 123", "14 25 36", "41 52 63", "63 52 41",
            "36 25 14",
        ];
        for (number, expected) in (1..).zip(expected) {
            for is_big in [false, true] {
                let orientation = Orientation::of_exif_block(&exif_block(number, is_big));
                assert_eq!(rows(&orientation.upright(six())), expected, "{number} {is_big}");
            }
        }
    }

    #[test]
    fn a_region_of_the_upright_image_is_found_in_the_stored_one() {
        for number in 1..=8 {
            let orientation = Orientation::from_exif(number);
            let upright = orientation.upright(six());
            for y in 0..upright.height_px {
                for x in 0..upright.width_px {
                    let (left_px, top_px) = (f64::from(x), f64::from(y));
                    let pixel = Region { left_px, top_px, width_px: 1.0, height_px: 1.0 };
                    let stored = orientation.stored_region(pixel, (3, 2));
                    let at = stored.top_px as usize * 3 + stored.left_px as usize;
                    let name = upright.pixels[(y * upright.width_px + x) as usize * 3];
                    assert_eq!(name as usize, at + 1, "{number}: {x}, {y}");
                }
            }
        }
    }

    #[test]
    fn a_mirrored_orientation_swaps_left_and_right() {
        for number in 1..=8 {
            let orientation = Orientation::from_exif(number);
            let mut expected = orientation.upright(six());
            let stride = expected.width_px as usize * 3;
            for row in expected.pixels.chunks_mut(stride) {
                let turned: Vec<u8> = row.chunks(3).rev().flatten().copied().collect();
                row.copy_from_slice(&turned);
            }
            assert_eq!(orientation.mirrored().upright(six()), expected, "{number}");
        }
    }

    #[test]
    fn a_turn_to_the_left_takes_the_last_column_as_the_first_row() {
        for number in 1..=8 {
            let orientation = Orientation::from_exif(number);
            let before = orientation.upright(six());
            let after = orientation.rotated_left().upright(six());
            assert_eq!((after.width_px, after.height_px), (before.height_px, before.width_px));
            let names = |image: &Image| rows(image).replace(' ', "").into_bytes();
            let (names_before, names_after) = (names(&before), names(&after));
            for x in 0..before.width_px {
                for y in 0..before.height_px {
                    let from = (y * before.width_px + before.width_px - 1 - x) as usize;
                    let to = (x * after.width_px + y) as usize;
                    assert_eq!(names_before[from], names_after[to], "{number}: {x}, {y}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_block_is_upright() {
        let block = exif_block(6, true);
        for end in 0..block.len() - 6 {
            assert_eq!(Orientation::of_exif_block(&block[..end]), Orientation::UPRIGHT, "{end}");
        }
        assert_eq!(Orientation::of_exif_block(&exif_block(9, false)), Orientation::UPRIGHT);
        let mut endless = exif_block(6, true);
        endless[4..8].copy_from_slice(&[0xff; 4]);
        assert_eq!(Orientation::of_exif_block(&endless), Orientation::UPRIGHT);
    }
}
