//! The boxes of an AVIF file: what its picture is made of, and where the bytes of that lie.
//!
//! In: the bytes of one file. Out: a [`Still`]: size, how it is turned, the tiles of its colours
//! and of its alpha. Walks over boxes by their lengths. Never: follows a length out of its box,
//! allocates more than the file has bytes, decodes.

use super::{corrupt, unsupported};
use crate::error::SampleError;
use crate::image::Orientation;

/// Bytes of the box of all descriptions; 1,024 tiles take some 45 KB, Exif and XMP lie elsewhere.
const META_BYTES_MAX: usize = 1 << 20;
/// Tiles of a grid: 1,024 of 512 × 512 px are 268 million px.
const TILES_MAX: u32 = 1024;
/// Properties that items share, and other pictures of the primary one: writers make some ten. Both
/// limits keep the work on hostile boxes below a second.
const PROPERTIES_MAX: u64 = 1024;
const AUXILIARIES_MAX: usize = 64;
/// What the standard calls the alpha of a picture, in today's words and in those of HEIC.
const ALPHA_NAMES: [&[u8]; 2] =
    [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0"];
/// Properties that we follow, or that change no pixel of ours.
const KNOWN_PROPERTIES: [&[u8; 4]; 10] =
    [b"av1C", b"ispe", b"pixi", b"colr", b"irot", b"imir", b"auxC", b"pasp", b"clli", b"mdcv"];

/// The picture of a file, not yet decoded.
pub(super) struct Still<'f> {
    /// Width and height as stored, px.
    pub size_px: (u32, u32),
    /// How the stored picture is turned.
    pub orientation: Orientation,
    /// What its numbers mean, where the file says so.
    pub coding: Option<Coding>,
    /// Its colours.
    pub colour: Tiles<'f>,
    /// Its alpha.
    pub alpha: Option<Tiles<'f>>,
    /// Whether the colours were multiplied by alpha.
    pub is_premultiplied: bool,
}

/// What the numbers of a picture mean (`nclx`, ITU-T H.273).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    /// Number of the matrix.
    pub matrix: u16,
    /// Whether black is 0 and white the largest number.
    pub is_full_range: bool,
}

/// Pictures of one size side by side; one, where nothing is cut.
pub(super) struct Tiles<'f> {
    meta: Meta<'f>,
    /// Pictures a row.
    pub columns: u32,
    /// Width and height of each, px.
    pub tile_px: (u32, u32),
    ids: Vec<u32>,
}

impl Tiles<'_> {
    /// How many.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// The AV1 bytes of one.
    pub fn bytes(&self, tile: usize) -> Result<Vec<u8>, SampleError> {
        self.meta.bytes_of(self.ids[tile])
    }

    /// Left and top of one, px.
    pub fn place(&self, tile: usize) -> (usize, usize) {
        let columns = self.columns as usize;
        let (width, height) = (self.tile_px.0 as usize, self.tile_px.1 as usize);
        (tile % columns * width, tile / columns * height)
    }
}

impl<'f> Still<'f> {
    /// Reads the description of the primary item.
    ///
    /// # Errors
    ///
    /// [`SampleError::ImageCorrupt`] for boxes that are cut or contradict each other,
    /// [`SampleError::ImageUnsupported`] for a picture of another kind.
    pub fn read(file: &'f [u8]) -> Result<Self, SampleError> {
        let meta = Meta::read(file)?;
        let primary = meta.item(meta.primary)?;
        let colour = meta.tiles(meta.primary, &primary)?;
        let alpha = meta.alpha();
        let is_premultiplied = alpha.is_some_and(|id| meta.refers(b"prem", meta.primary, id));
        let alpha = alpha.map(|id| {
            let item = meta.item(id)?;
            if item.size_px != primary.size_px {
                let ((aw, ah), (w, h)) = (item.size_px, primary.size_px);
                return Err(corrupt(format!("alpha of {aw} × {ah} px on a picture of {w} × {h}")));
            }
            meta.tiles(id, &item)
        });
        Ok(Self {
            size_px: primary.size_px,
            orientation: primary.orientation,
            coding: primary.coding,
            colour,
            alpha: alpha.transpose()?,
            is_premultiplied,
        })
    }
}

/// One item with its properties.
struct Item {
    kind: [u8; 4],
    size_px: (u32, u32),
    orientation: Orientation,
    coding: Option<Coding>,
}

/// The box of all descriptions, by its parts.
#[derive(Clone, Copy)]
struct Meta<'f> {
    file: &'f [u8],
    primary: u32,
    kinds: Reader<'f>,
    places: Reader<'f>,
    properties: Reader<'f>,
    references: Reader<'f>,
    data: Reader<'f>,
}

impl<'f> Meta<'f> {
    fn read(file: &'f [u8]) -> Result<Self, SampleError> {
        let mut meta = Reader(file).find(b"meta").ok_or_else(|| {
            corrupt("its box `meta` is missing or cut: no picture is described".to_owned())
        })?;
        if meta.0.len() > META_BYTES_MAX {
            let bytes = meta.0.len();
            let message = format!("its descriptions have {bytes} bytes, limit {META_BYTES_MAX}");
            return Err(unsupported(message));
        }
        // Its version is 0; a box that ends before it has no parts either.
        meta.version();
        let part = |name: &[u8; 4]| {
            let missing = || format!("its box `{}` is missing or cut", name.escape_ascii());
            meta.find(name).ok_or_else(|| corrupt(missing()))
        };
        let none = Reader(&[]);
        let (kinds, places, properties) = (part(b"iinf")?, part(b"iloc")?, part(b"iprp")?);
        let mut primary = part(b"pitm")?;
        let (references, data) = (part(b"iref").unwrap_or(none), part(b"idat").unwrap_or(none));
        let primary = primary.version().and_then(|(version, _)| primary.id(version > 0));
        let primary = primary.ok_or_else(|| corrupt("it ends inside its box `pitm`".to_owned()))?;
        Ok(Self { file, primary, kinds, places, properties, references, data })
    }

    /// Type and properties of an item.
    fn item(&self, id: u32) -> Result<Item, SampleError> {
        let kind = self.kind(id).ok_or_else(|| corrupt(format!("item {id} is not described")))?;
        let mut found = (None, Orientation::UPRIGHT, None);
        let mut unknown = None;
        self.each_property(id, |is_essential, name, mut property| {
            match name {
                b"ispe" if found.0.is_none() => {
                    property.version()?;
                    found.0 = Some((property.id(true)?, property.id(true)?));
                }
                b"irot" => {
                    let turns = property.number(1)? & 3;
                    found.1 = (0..turns).fold(found.1, |turned, _| turned.rotated_left());
                }
                b"imir" => {
                    // 1: left and right are exchanged; 0: top and bottom.
                    let is_horizontal = property.number(1)? & 1 == 1;
                    let turns = if is_horizontal { 0 } else { 2 };
                    let turned = (0..turns).fold(found.1, |turned, _| turned.rotated_left());
                    found.1 = turned.mirrored();
                }
                b"colr" if property.take(4)? == b"nclx" => {
                    property.take(4)?;
                    let matrix = property.number(2)? as u16;
                    let is_full_range = property.number(1)? & 0x80 != 0;
                    found.2 = Some(Coding { matrix, is_full_range });
                }
                _ if is_essential && !KNOWN_PROPERTIES.contains(&name) => unknown = Some(*name),
                _ => {}
            }
            Some(())
        })
        .ok_or_else(|| corrupt(format!("the properties of item {id} are cut")))?;
        if let Some(name) = unknown {
            let message = format!("the property `{}` must be followed", name.escape_ascii());
            return Err(unsupported(message));
        }
        let (size_px, orientation, coding) = found;
        let size_px = size_px.ok_or_else(|| corrupt(format!("item {id} has no size")))?;
        Ok(Item { kind, size_px, orientation, coding })
    }

    /// The tiles of an item: itself, or those of a grid.
    fn tiles(&self, id: u32, item: &Item) -> Result<Tiles<'f>, SampleError> {
        match &item.kind {
            b"av01" => Ok(Tiles { meta: *self, columns: 1, tile_px: item.size_px, ids: vec![id] }),
            b"grid" => self.grid(id, item.size_px),
            other => {
                let message = format!("its picture is an item `{}`", other.escape_ascii());
                Err(unsupported(message))
            }
        }
    }

    /// The tiles of a grid, which must cover it, none of them in vain.
    fn grid(&self, id: u32, size_px: (u32, u32)) -> Result<Tiles<'f>, SampleError> {
        let data = self.bytes_of(id)?;
        let (rows, columns, grid_px) = grid_head(Reader(&data))
            .ok_or_else(|| corrupt(format!("the grid of item {id} is cut")))?;
        if rows * columns > TILES_MAX {
            let message = format!("a grid of {columns} × {rows} tiles, limit {TILES_MAX}");
            return Err(unsupported(message));
        }
        let mut ids = Vec::new();
        self.each_reference(b"dimg", |from, to| {
            if from == id {
                ids.push(to)
            }
        });
        ids.truncate(TILES_MAX as usize + 1);
        let wrong =
            |what: String| Err(corrupt(format!("a grid of {columns} × {rows} tiles {what}")));
        if grid_px != size_px || ids.len() != (rows * columns) as usize {
            let (found, (gw, gh), (w, h)) = (ids.len(), grid_px, size_px);
            return wrong(format!("and {gw} × {gh} px has {found} tiles and {w} × {h} px"));
        }
        let mut tile_px = None;
        for &tile in &ids {
            let item = self.item(tile)?;
            if &item.kind != b"av01" || tile_px.is_some_and(|px| px != item.size_px) {
                return wrong("has tiles of several sizes or kinds".to_owned());
            }
            tile_px = Some(item.size_px);
        }
        let (tw, th) = tile_px.unwrap_or((0, 0));
        let covers = |tile: u32, count: u32, side: u32| {
            let (tile, count, side) = (u64::from(tile), u64::from(count), u64::from(side));
            tile <= side && tile * count >= side && tile * (count - 1) < side
        };
        if !covers(tw, columns, size_px.0) || !covers(th, rows, size_px.1) {
            let (w, h) = size_px;
            return wrong(format!("of {tw} × {th} px for {w} × {h} px"));
        }
        Ok(Tiles { meta: *self, columns, tile_px: (tw, th), ids })
    }

    /// The item that is the alpha of the primary one.
    fn alpha(&self) -> Option<u32> {
        let mut others = Vec::new();
        self.each_reference(b"auxl", |from, to| {
            if to == self.primary && others.len() < AUXILIARIES_MAX {
                others.push(from);
            }
        });
        others.into_iter().find(|&other| self.is_alpha(other))
    }

    fn is_alpha(&self, id: u32) -> bool {
        let mut is_alpha = false;
        self.each_property(id, |_, name, mut property| {
            if name == b"auxC" {
                property.version()?;
                is_alpha |= ALPHA_NAMES.iter().any(|alpha| property.0.starts_with(alpha));
            }
            Some(())
        });
        is_alpha
    }

    fn refers(&self, name: &[u8; 4], from: u32, to: u32) -> bool {
        let mut refers = false;
        self.each_reference(name, |f, t| refers |= (f, t) == (from, to));
        refers
    }

    /// The type of an item; none if it is not there, or encrypted.
    fn kind(&self, id: u32) -> Option<[u8; 4]> {
        let mut entries = self.kinds;
        let (version, _) = entries.version()?;
        entries.number(if version == 0 { 2 } else { 4 })?;
        while let Some((name, mut entry)) = entries.next_box() {
            let (version, _) = entry.version()?;
            if name == b"infe" && version >= 2 && entry.id(version > 2)? == id {
                let protection = entry.number(2)?;
                return (protection == 0).then_some(*entry.four()?);
            }
        }
        None
    }

    /// Calls with each property of an item: whether it is essential, its name, its content.
    fn each_property(
        &self,
        id: u32,
        mut call: impl FnMut(bool, &[u8; 4], Reader<'f>) -> Option<()>,
    ) -> Option<()> {
        let all = self.properties.find(b"ipco")?;
        let mut boxes = self.properties;
        while let Some((name, mut uses)) = boxes.next_box() {
            if name != b"ipma" {
                continue;
            }
            let (version, flags) = uses.version()?;
            let index_bytes = if flags & 1 == 1 { 2 } else { 1 };
            for _ in 0..uses.number(4)? {
                let owner = uses.id(version > 0)?;
                let count = uses.number(1)? as usize;
                let mut indices = Reader(uses.take(count * index_bytes)?);
                if owner != id {
                    continue;
                }
                while let Some(index) = indices.number(index_bytes) {
                    let essential = 1 << (8 * index_bytes - 1);
                    // Counted from 1; 0 is none.
                    if let Some(before) = (index & (essential - 1)).checked_sub(1) {
                        let mut rest = all;
                        let is_sane = before < PROPERTIES_MAX;
                        (0..before.min(PROPERTIES_MAX))
                            .try_for_each(|_| rest.next_box().map(drop))?;
                        let (name, property) = rest.next_box().filter(|_| is_sane)?;
                        call(index & essential != 0, name, property)?;
                    }
                }
                return Some(());
            }
        }
        Some(())
    }

    /// Calls with each reference of that name: from which item to which.
    fn each_reference(&self, wanted: &[u8; 4], mut call: impl FnMut(u32, u32)) -> Option<()> {
        let mut boxes = self.references;
        let (version, _) = boxes.version()?;
        while let Some((name, mut reference)) = boxes.next_box() {
            if name == wanted {
                let from = reference.id(version > 0)?;
                for _ in 0..reference.number(2)? {
                    call(from, reference.id(version > 0)?);
                }
            }
        }
        Some(())
    }

    /// The bytes of an item, put together where they lie in pieces.
    fn bytes_of(&self, id: u32) -> Result<Vec<u8>, SampleError> {
        let cut = || corrupt(format!("the bytes of item {id} are cut or missing"));
        let (source, mut pieces) = self.pieces(id).ok_or_else(cut)?;
        let mut bytes = Vec::new();
        for _ in 0..pieces.count {
            let (offset, length) = pieces.next().ok_or_else(cut)?;
            let piece = source.get(offset..).ok_or_else(cut)?;
            let piece = match length {
                0 => piece,
                length => piece.get(..length).ok_or_else(cut)?,
            };
            // Pieces that overlap would make much of a small file.
            if bytes.len() + piece.len() > source.len() {
                return Err(cut());
            }
            bytes.extend_from_slice(piece);
        }
        Ok(bytes)
    }

    /// What the bytes of an item are pieces of, and which.
    fn pieces(&self, id: u32) -> Option<(&'f [u8], Pieces<'f>)> {
        let mut places = self.places;
        let (version, _) = places.version()?;
        let (first, second) = (places.number(1)? as usize, places.number(1)? as usize);
        let (offset_bytes, length_bytes, base_bytes) = (first >> 4, first & 15, second >> 4);
        let index_bytes = if version > 0 { second & 15 } else { 0 };
        for _ in 0..places.number(if version < 2 { 2 } else { 4 })? {
            let owner = places.id(version > 1)?;
            let method = if version > 0 { places.number(2)? & 15 } else { 0 };
            let elsewhere = places.number(2)?;
            let base = places.number(base_bytes)?;
            let count = places.number(2)?;
            let piece_bytes = index_bytes + offset_bytes + length_bytes;
            let list = Reader(places.take(count as usize * piece_bytes)?);
            if owner == id {
                let source = match (method, elsewhere) {
                    (0, 0) => self.file,
                    (1, 0) => self.data.0,
                    _ => return None,
                };
                let pieces = Pieces { list, count, base, index_bytes, offset_bytes, length_bytes };
                return Some((source, pieces));
            }
        }
        None
    }
}

/// Rows, columns, width and height.
fn grid_head(mut grid: Reader<'_>) -> Option<(u32, u32, (u32, u32))> {
    grid.number(1)?;
    let side_bytes = if grid.number(1)? & 1 == 1 { 4 } else { 2 };
    let (rows, columns) = (grid.number(1)? as u32 + 1, grid.number(1)? as u32 + 1);
    let size_px = (grid.number(side_bytes)? as u32, grid.number(side_bytes)? as u32);
    Some((rows, columns, size_px))
}

/// Where the pieces of an item lie.
struct Pieces<'f> {
    list: Reader<'f>,
    count: u64,
    base: u64,
    index_bytes: usize,
    offset_bytes: usize,
    length_bytes: usize,
}

impl Pieces<'_> {
    /// Offset and length of the next one; a length of 0 is all that follows.
    fn next(&mut self) -> Option<(usize, usize)> {
        self.list.number(self.index_bytes)?;
        let offset = self.base.checked_add(self.list.number(self.offset_bytes)?)?;
        let length = self.list.number(self.length_bytes)?;
        Some((usize::try_from(offset).ok()?, usize::try_from(length).ok()?))
    }
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'f>(pub &'f [u8]);

impl<'f> Reader<'f> {
    fn take(&mut self, bytes: usize) -> Option<&'f [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn four(&mut self) -> Option<&'f [u8; 4]> {
        self.take(4)?.try_into().ok()
    }

    /// A number of up to eight bytes, big end first.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        if bytes > 8 {
            return None;
        }
        Some(self.take(bytes)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A number of two bytes, or of four.
    fn id(&mut self, is_wide: bool) -> Option<u32> {
        self.number(if is_wide { 4 } else { 2 }).map(|number| number as u32)
    }

    /// Version and flags, with which many boxes begin.
    fn version(&mut self) -> Option<(u8, u32)> {
        Some((self.number(1)? as u8, self.number(3)? as u32))
    }

    /// Name and content of the next box; none at the end, and where it is cut.
    pub fn next_box(&mut self) -> Option<(&'f [u8; 4], Self)> {
        let size = self.number(4)?;
        let name = self.four()?;
        let content = match size {
            0 => self.0.len(),
            1 => usize::try_from(self.number(8)?.checked_sub(16)?).ok()?,
            _ => usize::try_from(size.checked_sub(8)?).ok()?,
        };
        Some((name, Reader(self.take(content)?)))
    }

    /// The content of the first box of that name.
    fn find(mut self, wanted: &[u8; 4]) -> Option<Self> {
        while let Some((name, content)) = self.next_box() {
            if name == wanted {
                return Some(content);
            }
        }
        None
    }
}
