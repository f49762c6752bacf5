"""What others need for our image work: img2dataset's own Resizer, Pillow, OpenCV, simplejpeg.

images.py FOLDER [REPEAT]: FOLDER holds JPEGs. One thread; images per second of CPU time, so that
other work on the machine counts little. Installed by name: img2dataset opencv-python-headless
Pillow simplejpeg. The figures stand beside ours in ../runs/.
"""

import io
import math
import pathlib
import random
import sys
import time

import cv2
import numpy
from PIL import Image


def img2dataset_resizer(filter):
    from img2dataset.resizer import Resizer

    resizer = Resizer(256, "keep_ratio", True, downscale_interpolation=filter, encode_quality=95)

    def work(data, _):
        result = resizer(io.BytesIO(data))
        assert result[-1] is None, result[-1]
        return result[0]

    return work


def pillow_prep(data, _):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    short = min(image.size)
    if short > 256:
        size = tuple(side * 256 // short for side in image.size)
        image = image.resize(size, Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def crop_of(width, height, dice):
    """torchvision's RandomResizedCrop."""
    for _ in range(10):
        area = width * height * dice.uniform(0.08, 1.0)
        aspect = math.exp(dice.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return dice.randint(0, width - w), dice.randint(0, height - h), w, h
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def pillow_crop(data, dice):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    x, y, w, h = crop_of(*image.size, dice)
    box = (x, y, x + w, y + h)
    return numpy.asarray(image.crop(box).resize((224, 224), Image.Resampling.BILINEAR))


def opencv_crop(data, dice):
    image = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_COLOR)
    x, y, w, h = crop_of(image.shape[1], image.shape[0], dice)
    area = cv2.INTER_AREA if w > 224 and h > 224 else cv2.INTER_LINEAR
    return cv2.cvtColor(cv2.resize(image[y:y + h, x:x + w], (224, 224), interpolation=area),
                        cv2.COLOR_BGR2RGB)


def simplejpeg_crop(data, dice):
    import simplejpeg

    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    x, y, w, h = crop_of(width, height, dice)
    # Its scaled decode: the smallest of at least 224 px where the crop allows one.
    factor = max(1.0, min(w, h) / 224)
    image = simplejpeg.decode_jpeg(data, min_height=math.ceil(height / factor),
                                   min_width=math.ceil(width / factor), min_factor=1)
    sx, sy = image.shape[1] / width, image.shape[0] / height
    part = image[int(y * sy):int((y + h) * sy) or 1, int(x * sx):int((x + w) * sx) or 1]
    return cv2.resize(part, (224, 224), interpolation=cv2.INTER_LINEAR)


def main():
    folder, repeat = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    cv2.setNumThreads(1)
    peers = {
        "prep: img2dataset, area (its default)": img2dataset_resizer("area"),
        "prep: img2dataset, lanczos": img2dataset_resizer("lanczos"),
        "prep: Pillow, bilinear": pillow_prep,
        "crop: Pillow": pillow_crop,
        "crop: OpenCV": opencv_crop,
        "crop: simplejpeg, scaled, OpenCV": simplejpeg_crop,
    }
    for name, work in peers.items():
        dice = random.Random(1)
        work(images[0], dice)
        start = time.process_time()
        for _ in range(repeat):
            for data in images:
                work(data, dice)
        spent = time.process_time() - start
        print(f"{name:<40} {len(images) * repeat / spent:8.0f} images/s")


main()
