"""Draws three JPEGs into crops/ and writes what torchvision makes of them to crops.jsonl.

Run once with torch 2.11.0, torchvision 0.26.0 and Pillow; all that it writes is committed.
Crops are torchvision's own transforms on Pillow images, which is what CatLIP trains with.
"""

import json
import math
import pathlib
import random

import torch
from PIL import Image, ImageDraw
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional

FOLDER = pathlib.Path(__file__).parent
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def drawn(width, height, seed):
    """Waves, discs and lines: detail at every scale, sharp edges, all colours."""
    dice = random.Random(seed)
    image = Image.new("RGB", (width, height))
    wave = lambda a, x, y: int(127 + 120 * math.sin(a * (x * 0.9 + y * 1.3) / 9))
    image.putdata([(wave(0.7, x, y), wave(1.3, y, x), (3 * x + 5 * y) % 256)
                   for y in range(height) for x in range(width)])
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, r = dice.randrange(width), dice.randrange(height), dice.randrange(4, 24)
        colour = tuple(dice.randrange(256) for _ in range(3))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        draw.line((x, 0, y, height), fill=colour[::-1], width=2)
    return image


def rows(name, image):
    width, height = image.size
    for resize, crop in ((40, 32), (57, 48), (120, 24)):
        for filter, mode in MODES.items():
            view = v2.Compose([v2.Resize(resize, mode), v2.CenterCrop(crop)])(image)
            yield {"op": "centre", "resize": resize, "crop": crop, "filter": filter}, view
    for left, top, w, h, size in ((0, 0, width, height, 24), (11, 7, 60, 80, 32),
                                  (width - 31, height - 45, 31, 45, 48), (1, 33, 90, 17, 16)):
        for filter, mode in MODES.items():
            view = functional.resized_crop(image, top, left, h, w, [size, size], mode)
            yield {"op": "crop", "region": [left, top, w, h], "crop": size,
                   "filter": filter}, view


def means(width, height, draws=200_000):
    """Mean width, height, left and top of RandomResizedCrop's crops."""
    image = torch.empty(3, height, width, device="meta")
    sums = [0.0] * 4
    for _ in range(draws):
        top, left, h, w = RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        sums = [total + value for total, value in zip(sums, (w, h, left, top))]
    return [total / draws for total in sums]


def main():
    torch.manual_seed(1)
    (FOLDER / "crops").mkdir(exist_ok=True)
    saved = {"a.jpg": (133, 100, 0, False), "b.jpg": (210, 150, 2, False),
             "c.jpg": (97, 160, 1, True)}
    with open(FOLDER / "crops.jsonl", "w") as table:
        for name, (width, height, chroma, progressive) in saved.items():
            path = FOLDER / "crops" / name
            drawn(width, height, name).save(path, quality=90, subsampling=chroma,
                                            progressive=progressive)
            image = Image.open(path).convert("RGB")
            for row, view in rows(name, image):
                row = {"image": name} | row | {"pixels": view.tobytes().hex()}
                print(json.dumps(row), file=table)
        for width, height in ((500, 375), (64, 64), (90, 300), (300, 30), (3, 2)):
            row = {"op": "means", "size": [width, height], "mean": means(width, height)}
            print(json.dumps(row), file=table)


main()
