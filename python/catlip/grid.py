"""A grid of images with their captions and labels, for notebooks.

In: a `DataSet`, a pyarrow table, batch or reader, or a batch of a feed. Out: a `Grid` that Jupyter
and its kin draw by HTML. Never: fetches anything from elsewhere; lets a caption be HTML.
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from . import _catlip
from .data import DataSet
from .errors import USAGE, needed, refused

__all__ = ["Grid", "show"]

# Cells that a page still draws quickly: 1000 images of 15 KB are 20 MB of HTML.
CELLS_MAX = 1000
# Characters of a caption, and captions and labels of a row, that a cell has room for.
CAPTION_CHARS = 300
CELL_TEXTS = 8
# How the formats begin that a data set may hold: offset, bytes, media type.
FORMATS = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (8, b"WEBP", "image/webp"),
    (0, b"GIF8", "image/gif"),
    (4, b"ftypavi", "image/avif"),
)


def show(rows: Any, n: int = 16) -> Grid:
    """The first `n` rows as a grid, for the last line of a notebook's cell.

    `rows` is a `DataSet`, a pyarrow table, record batch or reader with a column `image`, or a batch
    of a feed with `images` of uint8. Of a row are shown what is there of `image`, `captions`,
    `synsets` (by the names that WordNet gives them) and `key`.
    """
    if not 1 <= n <= CELLS_MAX:
        raise refused(f"`n` is {n}, expected 1 to {CELLS_MAX}", None, USAGE)
    if isinstance(rows, DataSet):
        return Grid(list(islice(_rows_of_set(rows, n), n)))
    if hasattr(rows, "images"):
        return Grid(list(islice(_rows_of_batch(rows, n), n)))
    batches = rows.to_batches() if hasattr(rows, "to_batches") else rows
    if hasattr(rows, "to_pylist") and not hasattr(rows, "to_batches"):
        batches = [rows]
    try:
        found = (row for batch in batches for row in batch.slice(0, n).to_pylist())
        return Grid([_Cell.of(row) for row in islice(found, n)])
    except (AttributeError, TypeError) as error:
        kind = type(rows).__name__
        raise TypeError(
            f"`rows` is {kind}, expected a DataSet, a pyarrow table, record batch or reader, or a "
            "batch of a feed"
        ) from error


class Grid:
    """Cells that a notebook draws side by side."""

    def __init__(self, cells: Sequence[_Cell]) -> None:
        self._cells = list(cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __repr__(self) -> str:
        return "\n".join(f"{at}: {cell}" for at, cell in enumerate(self._cells))

    def _repr_html_(self) -> str:
        style = "display:grid;grid-template-columns:repeat(auto-fill,minmax(180px,1fr));gap:12px"
        cells = "".join(cell.html() for cell in self._cells)
        return f'<div style="{style}">{cells}</div>'


class _Cell:
    """What is shown of one row."""

    def __init__(
        self, image: bytes | None, captions: list[str], labels: list[str], key: str | None
    ) -> None:
        self.image, self.captions, self.labels, self.key = image, captions, labels, key

    @classmethod
    def of(cls, row: dict[str, Any]) -> _Cell:
        """Of a row as pyarrow gives it, as far as it has these columns."""
        image = row.get("image")
        captions = row.get("captions", row.get("caption")) or []
        captions = [captions] if isinstance(captions, (str, dict)) else captions
        texts = [caption["text"] if isinstance(caption, dict) else caption for caption in captions]
        synsets = row.get("synsets") or []
        offsets = [each for one in synsets for each in (one if isinstance(one, list) else [one])]
        labels = [_name(each) for each in dict.fromkeys(offsets)]
        key = row.get("key")
        return cls(
            bytes(image) if isinstance(image, (bytes, bytearray, memoryview)) else None,
            [str(text) for text in texts if text is not None],
            labels,
            None if key is None else str(key),
        )

    def __str__(self) -> str:
        size = "no image" if self.image is None else f"image of {len(self.image)} bytes"
        captions = "; ".join(self.captions[:CELL_TEXTS])
        return f"{self.key or ''} {size}, {captions!r}, {', '.join(self.labels[:CELL_TEXTS])}"

    def html(self) -> str:
        """One cell of the grid."""
        parts = [self._image_html()]
        for caption in self.captions[:CELL_TEXTS]:
            cut = caption if len(caption) <= CAPTION_CHARS else caption[:CAPTION_CHARS] + " …"
            parts.append(f"<div>{html.escape(cut)}</div>")
        if self.labels:
            labels = ", ".join(self.labels[:CELL_TEXTS])
            parts.append(f'<div style="opacity:0.6">{html.escape(labels)}</div>')
        title = html.escape(self.key or "")
        return f'<div title="{title}" style="font-size:12px">{"".join(parts)}</div>'

    def _image_html(self) -> str:
        if self.image is None:
            return '<div style="opacity:0.6">no image</div>'
        media = _media_type(self.image)
        if media is None:
            return '<div style="opacity:0.6">an image of no known format</div>'
        data = base64.b64encode(self.image).decode("ascii")
        style = "max-width:100%;max-height:224px;image-orientation:from-image"
        return f'<img src="data:{media};base64,{data}" style="{style}">'


def _media_type(image: bytes) -> str | None:
    for at, begin, media in FORMATS:
        if image[at : at + len(begin)] == begin:
            return media
    return None


def _name(synset: Any) -> str:
    """The name of a synset: of an offset its first lemma, of a key the key."""
    if not isinstance(synset, int):
        return str(synset)
    return _catlip.head_lemma(synset) or f"n{synset:08}"


def _rows_of_set(data: DataSet, n: int) -> Iterator[_Cell]:
    sets = [name for name in data.sets if name in ("images", "meta", "captions")]
    synsets = [name for name in data.sets if name.startswith("synsets.")]
    # Labels of two rules are never mixed: of several sets none is shown.
    sets += synsets if len(synsets) == 1 else []
    wanted = {"image", "key", "captions", "synsets"}
    columns = [name for name in data.column_names(sets) if name in wanted]
    for batch in data.joined(sets, columns, batch_rows=min(n, 64)):
        yield from (_Cell.of(row) for row in batch.to_pylist())


def _rows_of_batch(batch: Any, n: int) -> Iterator[_Cell]:
    numpy = needed("numpy", "images of a batch")
    images = batch.images
    pixels = numpy.from_dlpack(images) if hasattr(images, "__dlpack__") else numpy.asarray(images)
    if pixels.ndim != 4 or pixels.dtype != numpy.uint8:
        shape = f"{pixels.dtype} of shape {pixels.shape}"
        raise TypeError(f"`images` are {shape}, expected uint8 of four dimensions")
    # Channels first, unless only the last axis can be them.
    if pixels.shape[3] != 3 and pixels.shape[1] == 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    captions = getattr(batch, "captions", None) or [[]] * len(pixels)
    ids = getattr(batch, "ids", None) or [None] * len(pixels)
    # The last batch of an epoch may be padded: what has an id is a row.
    for at in range(min(n, len(pixels), len(ids))):
        yield _Cell(png(pixels[at]), captions[at], [], ids[at])


def png(pixels: Any) -> bytes:
    """A PNG of `pixels`, uint8 of height × width × 3."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + pixels[y].tobytes() for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    blocks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + b"".join(_png_block(kind, data) for kind, data in blocks)


def _png_block(kind: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc
