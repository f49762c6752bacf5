"""Draws the small images of images/ that our own encoders cannot write.

Run once with Pillow; the files are committed. What each must decode to stands in the tests.
"""

import io
import pathlib
import struct
import zlib

from PIL import Image

FOLDER = pathlib.Path(__file__).parent / "images"
RED, GREEN, BLUE, CLEAR = (200, 30, 20, 255), (20, 180, 40, 255), (10, 60, 220, 255), (9, 9, 9, 0)


def four(mode="RGBA"):
    """Red, green above blue and nothing: 16 x 16 px each."""
    image = Image.new("RGBA", (32, 32), CLEAR)
    for at, colour in (((0, 0), RED), ((16, 0), GREEN), ((0, 16), BLUE)):
        image.paste(colour, (*at, at[0] + 16, at[1] + 16))
    return image.convert(mode)


def save(name, image, **options):
    FOLDER.mkdir(exist_ok=True)
    image.save(FOLDER / name, **options)


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def interlaced(image, depth):
    """A PNG of Adam7's seven passes; Pillow reads such files and cannot write them."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))
    raw = b""
    for left, top, across, down in passes:
        for y in range(top, image.height, down):
            row = bytes(c for x in range(left, image.width, across) for c in image.getpixel((x, y)))
            raw += b"\0" + (row if depth == 8 else bytes(b for c in row for b in (c, 77)))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *image.size, depth, 6, 0, 0, 1)),
              (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks)


def main():
    flat = Image.new("RGBA", (32, 32), (1, 2, 3, 255))
    save("lossy.webp", four("RGB"), quality=90)
    save("lossy_alpha.webp", four(), quality=90)
    save("lossless_alpha.webp", four(), lossless=True)
    save("animated.webp", four(), save_all=True, append_images=[flat], lossless=True)
    save("turned.webp", four("RGB").crop((0, 0, 32, 16)), lossless=True, exif=exif(6))
    save("still.gif", four("RGB").quantize(8))
    save("animated.gif", four(), save_all=True, append_images=[flat])
    for depth in (8, 16):
        (FOLDER / f"interlaced_{depth}.png").write_bytes(interlaced(four(), depth))
    save("turned.png", four("RGB").crop((0, 0, 32, 16)), exif=exif(8))
    for orientation in range(1, 9):
        save(f"turned_{orientation}.jpg", four("RGB").crop((0, 0, 32, 16)), quality=95,
             subsampling=0, exif=exif(orientation))
    cmyk = Image.new("CMYK", (16, 16), (175, 135, 95, 51))
    save("cmyk.jpg", cmyk, quality=95)
    # Without Adobe's marker, as some scanners write it.
    data = (FOLDER / "cmyk.jpg").read_bytes()
    at = data.index(b"\xff\xee")
    length = int.from_bytes(data[at + 2:at + 4], "big")
    (FOLDER / "cmyk_plain.jpg").write_bytes(data[:at] + data[at + 2 + length:])
    save("progressive.jpg", four("RGB"), quality=95, progressive=True)
    for path in sorted(FOLDER.iterdir()):
        image = Image.open(io.BytesIO(path.read_bytes()))
        print(path.name, image.mode, image.size, path.stat().st_size)


if __name__ == "__main__":
    main()
