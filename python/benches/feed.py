"""Images a second of catlip's feed and of others', on the same images and cores.

    python benches/feed.py SHARD.tar…                 5 runs of each, by turns
    python benches/feed.py SHARD.tar… --batches 40 --copies 8 --loaders ours webdataset
    python benches/feed.py --tiny                     drawn images: only that it works

Each loader hands over batches of 256 images as uint8 tensors, RandomResizedCrop 224 with its
defaults and a flip of one half, with as many workers or threads as this process has cores. It runs
in a process of its own. A rate counts from the end of the fourth batch on, so that nobody's start,
and nobody's batches that lie ready by then, count for much. Installed by name: webdataset
torchvision mosaicml-streaming litdata datago; a loader whose package is not there is left out.

The others read what they read best: webdataset the tars, streaming and litdata their own shards,
datago a folder of files. All have the same compressed bytes, in the page cache.
"""

import argparse
import importlib.util
import io
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

SIDE_PX = 224
WARM_UP = 4
CORES = len(os.sched_getaffinity(0))


def torchvision_view(random_crop=True):
    import torchvision.transforms as transforms

    crop = [transforms.RandomResizedCrop(SIDE_PX)] if random_crop else []
    return transforms.Compose(
        [*crop, transforms.RandomHorizontalFlip(), transforms.PILToTensor()])


def decoded(encoded):
    from PIL import Image

    return Image.open(io.BytesIO(encoded)).convert("RGB")


def ours(folder, batch):
    import torch

    import catlip

    feed = catlip.Feed(sorted(map(str, folder.glob("tars/*.tar"))),
                       settings=[f"train.batch={batch}", f"train.image_px={SIDE_PX}"])
    while True:
        for step in feed:
            yield torch.from_dlpack(step.images)


def from_webdataset(folder, batch):
    import torch
    import webdataset

    view = torchvision_view()
    shards = sorted(map(str, folder.glob("tars/*.tar")))
    data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=1,
                                 workersplitter=webdataset.split_by_worker)
    data = data.repeat().shuffle(1000).decode("pil").to_tuple("jpg;png").map_tuple(view)
    batches = data.batched(batch, partial=False)
    for images, in torch.utils.data.DataLoader(batches, batch_size=None, num_workers=CORES):
        yield images


class Viewed:
    """Bytes of a row as a tensor."""

    def __init__(self, key):
        self.key, self.view = key, torchvision_view()

    def __call__(self, rows):
        import torch

        return torch.stack([self.view(decoded(row[self.key])) for row in rows])


def from_streaming(folder, batch):
    import streaming
    import torch

    while True:
        data = streaming.StreamingDataset(local=str(folder / "mds"), shuffle=True, batch_size=batch)
        yield from torch.utils.data.DataLoader(
            data, batch_size=batch, num_workers=CORES, drop_last=True,
            collate_fn=Viewed("image"))


def from_litdata(folder, batch):
    import litdata

    data = litdata.StreamingDataset(str(folder / "litdata"), shuffle=True, drop_last=True)
    loader = litdata.StreamingDataLoader(
        data, batch_size=batch, num_workers=CORES, drop_last=True, collate_fn=Viewed("image"))
    while True:
        yield from loader


def from_datago(folder, batch, random_crop):
    """Decoded by its threads; cropped by PIL in threads, or by its own centre crop."""
    from concurrent.futures import ThreadPoolExecutor

    import datago
    import torch

    view = torchvision_view(random_crop)
    config = {
        "source_type": "file",
        "source_config": {"root_path": str(folder / "files"), "random_sampling": True},
        "limit": 1 << 30,
        "samples_buffer_size": 2 * batch,
    }
    if not random_crop:
        config["image_config"] = {
            "crop_and_resize": True, "default_image_size": SIDE_PX, "downsampling_ratio": 32,
            "min_aspect_ratio": 1.0, "max_aspect_ratio": 1.0, "image_to_rgb8": True,
        }
    client = datago.DatagoClient(json.dumps(config))
    client.start()

    def images():
        while True:
            sample = client.get_sample()
            if sample is None:
                client.start()
                continue
            yield sample.image.to_pil_image().convert("RGB")

    source = images()
    try:
        with ThreadPoolExecutor(CORES) as pool:
            ahead = [pool.submit(view, next(source)) for _ in range(batch)]
            while True:
                now, ahead = ahead, [pool.submit(view, next(source)) for _ in range(batch)]
                yield torch.stack([image.result() for image in now])
    finally:
        client.stop()


# By name: the loader, the package that it needs, what is said of it.
LOADERS = {
    "ours": (ours, "catlip", "catlip"),
    "webdataset": (from_webdataset, "webdataset", "webdataset + torchvision"),
    "streaming": (from_streaming, "streaming", "MosaicML streaming + torchvision"),
    "litdata": (from_litdata, "litdata", "litdata + torchvision"),
    "datago": (lambda *of: from_datago(*of, random_crop=True), "datago",
               "datago + torchvision in threads"),
    "datago_centre": (lambda *of: from_datago(*of, random_crop=False), "datago",
                      "datago, its own centre crop"),
}


def measure(name, folder, batch, batches):
    """Images a second from the end of the warm-up on, and seconds to the first batch."""
    start = time.perf_counter()
    first, begin, images = None, None, 0
    for number, tensor in enumerate(LOADERS[name][0](folder, batch)):
        assert tensor.shape == (batch, 3, SIDE_PX, SIDE_PX), tensor.shape
        assert str(tensor.dtype) == "torch.uint8", tensor.dtype
        now = time.perf_counter()
        first = first or now - start
        if begin is not None:
            images += batch
        elif number + 1 == WARM_UP:
            begin = now
        if number + 1 == WARM_UP + batches:
            return {"images_per_sec": images / (now - begin), "first_batch_secs": first}
    raise RuntimeError(f"{name} ended early")


def lay_out(folder, shards, copies, wanted):
    """The images of the shards in the format of each loader: the same bytes, `copies` times."""
    for path in ("tars", "files"):
        (folder / path).mkdir()
    rows = []
    for copy in range(copies):
        for number, shard in enumerate(shards):
            name = f"{copy:03}-{number:03}"
            shutil.copyfile(shard, folder / "tars" / f"{name}.tar")
            with tarfile.open(shard) as tar:
                for member in tar:
                    if member.name.endswith((".jpg", ".png")):
                        path = folder / "files" / f"{name}-{member.name.replace('/', '-')}"
                        path.write_bytes(tar.extractfile(member).read())
                        rows.append(path)
    random.Random(1).shuffle(rows)
    if "streaming" in wanted:
        import streaming

        with streaming.MDSWriter(out=str(folder / "mds"), columns={"image": "bytes"}) as writer:
            for path in rows:
                writer.write({"image": path.read_bytes()})
    if "litdata" in wanted:
        import litdata

        litdata.optimize(as_row, list(map(str, rows)), str(folder / "litdata"),
                         chunk_bytes="64MB", num_workers=1, verbose=False)
    return len(rows)


def as_row(path):
    return {"image": pathlib.Path(path).read_bytes()}


def drawn_shard(path):
    """64 images of noise in 96 × 80 px."""
    from PIL import Image

    noise = random.Random(7)
    with tarfile.open(path, "w") as tar:
        for number in range(64):
            image = Image.frombytes("RGB", (96, 80), noise.randbytes(96 * 80 * 3))
            encoded = io.BytesIO()
            image.save(encoded, "JPEG", quality=90)
            for name, data in ((f"{number:03}.jpg", encoded.getvalue()),
                               (f"{number:03}.txt", b"a dog and a tree")):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", nargs="*", help="plain tars of jpg and txt")
    parser.add_argument("--loaders", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=16, help="that are measured in a run")
    parser.add_argument("--copies", type=int, default=8, help="of the shards")
    parser.add_argument("--scratch", help="where to lay out the images")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("LOADER", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, folder = args.one
        print(json.dumps(measure(name, pathlib.Path(folder), args.batch, args.batches)))
        return 0
    if args.tiny:
        args.runs, args.batch, args.batches, args.copies = 1, 16, 2, 2
    wanted = [name for name in args.loaders if importlib.util.find_spec(LOADERS[name][1])]
    for name in args.loaders:
        if name not in wanted:
            print(f"{name}: left out, no package {LOADERS[name][1]}")
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = pathlib.Path(scratch)
        shards = args.shards
        if args.tiny:
            shards = [folder / "drawn.tar"]
            drawn_shard(shards[0])
        images = lay_out(folder, shards, args.copies, wanted)
        print(f"{images} images, {args.runs} runs of {args.batches} batches of {args.batch}, "
              f"{CORES} cores")
        found = {name: [] for name in wanted}
        for _ in range(args.runs):
            for name in wanted:
                found[name].append(one_run(name, folder, args))
        report(found)
    return 0


def one_run(name, folder, args):
    command = [sys.executable, __file__, "--one", name, str(folder), "--batch", str(args.batch),
               "--batches", str(args.batches)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(found):
    rates = {name: [run["images_per_sec"] for run in runs] for name, runs in found.items()}
    for name, of_runs in rates.items():
        median = statistics.median(of_runs)
        first = statistics.median(run["first_batch_secs"] for run in found[name])
        line = (f"{LOADERS[name][2]:36} {median:7.0f} images/s "
                f"({min(of_runs):.0f} to {max(of_runs):.0f}), first batch {first:.2f} s")
        if name != "ours" and "ours" in rates:
            # Run by run, so that what else the machine did counts for both.
            ratios = [mine / theirs for mine, theirs in zip(rates["ours"], of_runs)]
            middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
            line += f"; ours × {middle:.2f} ({low:.2f} to {high:.2f})"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
