"""Draws the small AVIF files of avif/, each beside the pixels that another decoder sees in it.

Run once with Pillow >= 11.3 and `avifenc` (Debian: libavif-bin); the files are committed. The PNGs
are libavif's own decoding by Pillow, of 8 bits, turned upright, alpha kept.
"""

import io
import pathlib
import subprocess
import tempfile

from PIL import Image, ImageOps

from make_images import four

FOLDER = pathlib.Path(__file__).parent / "avif"


def slopes(width, height):
    """Red to the right, green downwards, blue in the middle, alpha along the diagonal."""
    image = Image.new("RGBA", (width, height))
    image.putdata([
        (255 * x // width, 255 * y // height, 255 - 2 * abs(255 * x // width - 128),
         255 * (x + y) // (width + height))
        for y in range(height) for x in range(width)
    ])
    return image


def pillow(name, image, **options):
    image.save(FOLDER / f"{name}.avif", speed=4, **options)


def avifenc(name, image, *options):
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "source.png"
        image.save(source)
        subprocess.run(["avifenc", "-c", "aom", "-s", "4", *options, source,
                        FOLDER / f"{name}.avif"], check=True, stdout=subprocess.DEVNULL)


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def main():
    FOLDER.mkdir(exist_ok=True)
    whole = slopes(38, 29)
    for sampling in ("4:2:0", "4:2:2", "4:4:4", "4:0:0"):
        pillow(f"slopes_8_{sampling.replace(':', '')}", whole.convert("RGB"), quality=70,
               subsampling=sampling)
    for depth, sampling in (("10", "420"), ("12", "422"), ("10", "444"), ("12", "400")):
        avifenc(f"slopes_{depth}_{sampling}", whole.convert("RGB"), "-d", depth, "-y", sampling,
                "--min", "20", "--max", "20")
    pillow("odd", slopes(37, 29).convert("RGB"), quality=70, subsampling="4:2:0")
    avifenc("limited_709", whole.convert("RGB"), "-r", "limited", "--cicp", "1/13/1", "-d", "10",
            "-y", "444", "--min", "1", "--max", "1")
    avifenc("lossless", four("RGB"), "--lossless")
    pillow("alpha", whole, quality=70)
    avifenc("premultiplied", whole, "-p", "--min", "20", "--max", "20", "-y", "444")
    blocks = slopes(8, 8).resize((128, 128), Image.Resampling.NEAREST)
    avifenc("grid", blocks, "--grid", "2x2", "--min", "20", "--max", "20", "-y", "444")
    flat = Image.new("RGB", (32, 32), (1, 2, 3))
    pillow("sequence", four("RGB"), save_all=True, append_images=[flat], quality=80)
    for orientation in range(1, 9):
        pillow(f"turned_{orientation}", four("RGB").crop((0, 0, 32, 16)), quality=90,
               exif=exif(orientation))
    for path in sorted(FOLDER.glob("*.avif")):
        data = path.read_bytes()
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if path.stem == "limited_709":
            # libavif takes 2 for the 2.11 of blue, so the reference is what was drawn.
            image = whole.convert("RGB")
        image.save(path.with_suffix(".png"), optimize=True, exif=b"")
        print(path.name, image.mode, image.size, len(data),
              path.with_suffix(".png").stat().st_size)


main()
