"""What others need to feed a trainer: webdataset with torchvision, and DALI's CPU decoder.

feed.py loader SHARD…     webdataset and torchvision's transforms in as many workers as cores:
                          images a second from the first batch of 256 on, and of CPU, median of 5
                          epochs.
feed.py dali FOLDER [N]   image_random_crop and resize to 224 px of the folder's JPEGs, N rounds,
                          one thread: images a second of CPU time.

Installed by name: webdataset torchvision, nvidia-dali-cuda130. Beside them:
`catlip-bench-feed SHARD…` and `catlip-bench-images FOLDER`.
"""

import os
import pathlib
import resource
import statistics
import sys
import time


def loader(shards):
    import torch
    import torchvision.transforms as transforms
    import webdataset

    view = transforms.Compose([
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
    ])
    workers = len(os.sched_getaffinity(0))

    def epoch():
        data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=1,
                                     workersplitter=webdataset.split_by_worker)
        data = data.shuffle(1000).decode("pil").to_tuple("jpg;png", "txt").map_tuple(view, str)
        batches = torch.utils.data.DataLoader(data.batched(256, partial=False), batch_size=None,
                                              num_workers=workers)
        start, before = time.perf_counter(), cpu_secs()
        first, images, all_images = None, 0, 0
        for pixels, _ in batches:
            all_images += len(pixels)
            if first is None:
                first = time.perf_counter()
            else:
                images += len(pixels)
        rate = images / (time.perf_counter() - first)
        # The workers have ended, so their time is in.
        return first - start, rate, all_images / (cpu_secs() - before)

    first, rate, per_cpu = (statistics.median(of) for of in zip(*(epoch() for _ in range(5))))
    name = f"webdataset {webdataset.__version__} + torchvision, {workers} workers"
    print(f"{name}: {rate:.0f} images/s, "
          f"{per_cpu:.0f} images a second of CPU, first batch {first:.2f} s")


def cpu_secs():
    who = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in who)


def dali(folder, rounds):
    import numpy
    from nvidia.dali import fn, pipeline_def, types, __version__

    images = [numpy.frombuffer(path.read_bytes(), numpy.uint8)
              for path in sorted(pathlib.Path(folder).glob("*.jpg"))]
    batch = 32

    def source(info):
        start = info.iteration * batch
        return [images[(start + n) % len(images)] for n in range(batch)]

    @pipeline_def(batch_size=batch, num_threads=1, device_id=None, seed=1)
    def crops():
        encoded = fn.external_source(source=source, batch_info=True)
        image = fn.decoders.image_random_crop(encoded, device="cpu", random_area=[0.08, 1.0],
                                              random_aspect_ratio=[3 / 4, 4 / 3], num_attempts=10)
        return fn.resize(image, size=[224, 224], interp_type=types.INTERP_LINEAR, antialias=True)

    pipe = crops()
    pipe.build()
    for _ in range(4):
        pipe.run()
    batches = max(1, len(images) * rounds // batch)
    rates = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(batches):
            pipe.run()
        rates.append(batches * batch / (time.process_time() - start))
    print(f"DALI {__version__} image_random_crop + resize: {statistics.median(rates):.0f} images/s")


if sys.argv[1] == "loader":
    loader(sys.argv[2:])
else:
    dali(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
