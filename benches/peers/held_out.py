"""Held-out images for two models that learn the same, and what each makes of them.

held_out.py images OUT SHARD…            the images of tars (.tar, .tar.zst), all of one size, as
                                         float32 0…1 [n, 3, h, w], and their labels in OUT.wnids
held_out.py score LOGITS IMAGES VOCAB    macro mAP of their softmax over the labels that an image
                                         has; VOCAB is a run's vocab.parquet

Needs numpy, safetensors, Pillow, zstandard, pyarrow, scikit-learn. Between the two:
`catlip-train logits --weights RUN --images IMAGES --output LOGITS`, `vit.py RUN --scores IMAGES`.
"""

import io
import pathlib
import sys
import tarfile

import numpy
from safetensors.numpy import load_file, save_file


def images(out, shards):
    import zstandard
    from PIL import Image

    pixels, wnids = [], []
    for shard in sorted(shards):
        data = pathlib.Path(shard).read_bytes()
        if shard.endswith(".zst"):
            data = zstandard.ZstdDecompressor().stream_reader(data).read()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                content = tar.extractfile(member).read() if member.isfile() else b""
                if member.name.endswith(".jpg"):
                    image = numpy.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
                    pixels.append(image.transpose(2, 0, 1))
                elif member.name.endswith(".wnid"):
                    wnids.append(content.decode().strip())
    assert len(pixels) == len(wnids), "each image has a label"
    # safetensors writes memory as it lies, and channels lie last in it.
    images = numpy.ascontiguousarray(numpy.stack(pixels), dtype=numpy.float32) / 255
    save_file({"images": images}, out)
    pathlib.Path(f"{out}.wnids").write_text("\n".join(wnids) + "\n")


def score(logits, images, vocab):
    import pyarrow.parquet
    from sklearn.metrics import average_precision_score

    logits = load_file(logits)["logits"].astype(numpy.float64)
    # A softmax says nothing of how logits of two images compare.
    logits -= numpy.logaddexp.reduce(logits, axis=1, keepdims=True)
    found = numpy.array(pathlib.Path(f"{images}.wnids").read_text().split())
    labels = pyarrow.parquet.read_table(vocab)["wnid"].to_pylist()
    scores = [average_precision_score(found == wnid, logits[:, at])
              for at, wnid in enumerate(labels) if (found == wnid).any()]
    print(f"macro mAP {numpy.mean(scores):.4f} over {len(scores)} labels, {len(found)} images")


if sys.argv[1] == "images":
    images(sys.argv[2], sys.argv[3:])
else:
    score(*sys.argv[2:])
