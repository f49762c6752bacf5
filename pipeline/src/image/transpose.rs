//! Turns rows of bytes into columns.
//!
//! In: bytes of a plane, and its rows' length. Out: the same plane with rows and columns changed
//! over. Never: allocates.

/// Side of a tile: the bytes of a vector register.
const SIDE: usize = 16;

/// Rows end to end.
type Tile = [u8; SIDE * SIDE];

/// Writes `from`, rows of `width` bytes, into `to`, so that its rows are the columns.
///
/// # Panics
///
/// If the two are not of the same length, or not of whole rows: the caller made both.
pub(super) fn transpose(from: &[u8], width: usize, to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "bytes of a transposed plane");
    assert!(from.len().is_multiple_of(width), "{} bytes in rows of {width}", from.len());
    let height = from.len() / width;
    let (wide, high) = (width - width % SIDE, height - height % SIDE);
    for y in (0..high).step_by(SIDE) {
        for x in (0..wide).step_by(SIDE) {
            let mut tile = [0; SIDE * SIDE];
            for (row, bytes) in tile.chunks_exact_mut(SIDE).enumerate() {
                bytes.copy_from_slice(&from[(y + row) * width + x..][..SIDE]);
            }
            for (row, bytes) in turned(tile).chunks_exact(SIDE).enumerate() {
                to[(x + row) * height + y..][..SIDE].copy_from_slice(bytes);
            }
        }
    }
    let mut copy = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
        for x in columns {
            for y in rows.clone() {
                to[x * height + y] = from[y * width + x];
            }
        }
    };
    copy(0..height, wide..width);
    copy(high..height, 0..wide);
}

/// A tile by its columns: a perfect shuffle for each bit of a place in a row. The compiler makes
/// vector instructions of this loop, not of one over rows.
fn turned(mut tile: Tile) -> Tile {
    for _ in 0..SIDE.ilog2() {
        let (above, below) = tile.split_at(SIDE * SIDE / 2);
        let mut shuffled = [0; SIDE * SIDE];
        for ((pair, &a), &b) in shuffled.chunks_exact_mut(2).zip(above).zip(below) {
            (pair[0], pair[1]) = (a, b);
        }
        tile = shuffled;
    }
    tile
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_byte_goes_to_its_place(width in 1usize..70, height in 0usize..70, seed: u64) {
            let byte = |i: usize| ((i as u64).wrapping_mul(seed | 1) >> 7) as u8;
            let from: Vec<u8> = (0..width * height).map(byte).collect();
            let mut to = vec![0; from.len()];
            transpose(&from, width, &mut to);
            for (i, &found) in to.iter().enumerate() {
                prop_assert_eq!(found, from[i % height * width + i / height]);
            }
        }
    }
}
