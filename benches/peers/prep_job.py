"""Whole jobs of `catlip-prep`, the first beside img2dataset on the same images and cores.

prep_job.py WORK SHARD...: WORK is a folder for inputs and outputs, SHARDs are plain tars of
originals (`jpg`, `txt` or `json`); each is repeated under new names up to IMAGES (5,000). Measured,
in turn, three rounds, the median:

  job        tar to decoded, resized, encoded, labelled, committed, every file fsynced; img2dataset
             reads the same bytes from a list of file:// URLs, writes webdataset, and is followed
             by `sync`, whose time counts as its own
  scale      the same job on one core and on two (`taskset`)
  reference  labels only: `image.mode = reference`, small images, page cache
  relabel    captions to a second set of synsets

PREP is the program to measure (target/release/catlip-prep). Peers installed by name: img2dataset.
Seconds are wall time; CPU seconds stand beside them, since a shared machine gives no core whole.
"""

import csv
import io
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import time

IMAGES = int(os.environ.get("IMAGES", 5000))
SMALL = int(os.environ.get("ROWS", 250_000))
ROUNDS = int(os.environ.get("ROUNDS", 3))
PREP = os.environ.get("PREP", "target/release/catlip-prep")
SIZE = ["--set", "image.short_side_px=256", "--set", "image.quality=95", "--set",
        "image.keep_small_jpeg=false", "--set", "image.filter=bilinear"]


def originals(shards):
    """The samples of the shards: (image, caption), again and again."""
    found = []
    for shard in shards:
        files = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                files.setdefault(key, {})[extension] = tar.extractfile(member).read()
        for sample in files.values():
            text = sample.get("txt") or json.loads(sample["json"])["captions"][0].encode()
            found.append((sample["jpg"], text))
    return found


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def draw(work, shards):
    """Ten tars, and the same images as files with a list of URLs."""
    samples = originals(shards)
    (work / "files").mkdir(parents=True)
    with open(work / "urls.csv", "w", newline="") as urls:
        rows = csv.writer(urls)
        rows.writerow(["url", "caption"])
        for shard in range(10):
            with tarfile.open(work / f"originals-{shard:02}.tar", "w") as tar:
                for i in range(shard * IMAGES // 10, (shard + 1) * IMAGES // 10):
                    image, text = samples[i % len(samples)]
                    add(tar, f"{i:06}.jpg", image)
                    add(tar, f"{i:06}.txt", text)
                    path = work / "files" / f"{i:06}.jpg"
                    path.write_bytes(image)
                    rows.writerow([path.resolve().as_uri(), text.decode()])


def draw_small(work, shards):
    """The same images at 32 px with their captions, again and again, in plain tars."""
    import cv2
    import numpy

    def small(image):
        pixels = cv2.imdecode(numpy.frombuffer(image, numpy.uint8), cv2.IMREAD_COLOR)
        return cv2.imencode(".jpg", cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA))[1]

    samples = [(small(image).tobytes(), text) for image, text in originals(shards)]
    for shard in range(10):
        with tarfile.open(work / f"small-{shard:02}.tar", "w") as tar:
            for i in range(shard * SMALL // 10, (shard + 1) * SMALL // 10):
                image, text = samples[i % len(samples)]
                add(tar, f"{i:07}.jpg", image)
                add(tar, f"{i:07}.txt", text)


def timed(command, cores=None, sync=False):
    """Wall and CPU seconds of a command and, if wanted, of bringing its output to the disk."""
    if cores:
        command = ["taskset", "-c", cores, *command]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    if sync:
        os.sync()
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prep(work, name, inputs, *more):
    output = work / name
    shutil.rmtree(output, ignore_errors=True)
    os.sync()
    return [PREP, "run", "--quiet", "--input", work / inputs, "--output", output, *more]


PEER = """
from img2dataset import download
if __name__ == "__main__":
    download(url_list={urls!r}, output_folder={out!r}, input_format="csv", url_col="url",
             caption_col="caption", output_format="webdataset", processes_count={cores},
             thread_count=16, image_size=256, resize_mode="keep_ratio", resize_only_if_bigger=True,
             encode_quality=95, number_sample_per_shard=500, enable_wandb=False,
             compute_hash=None, retries=0)
"""


def img2dataset(work, cores):
    output = work / "peer"
    shutil.rmtree(output, ignore_errors=True)
    os.sync()
    script = work / "peer.py"
    script.write_text(PEER.format(urls=str(work / "urls.csv"), out=str(output), cores=cores))
    return [sys.executable, script]


def report(name, items, unit, runs):
    wall = statistics.median(wall for wall, _ in runs)
    cpu = statistics.median(cpu for _, cpu in runs)
    print(f"{name:<28} {wall:7.2f} s wall {cpu:7.2f} s CPU {items / wall:10.0f} {unit}/s wall "
          f"{items / cpu:9.0f} {unit}/s a core of CPU", flush=True)
    return wall, cpu


def job(work):
    try:
        import img2dataset as _
        has_peer = True
    except ImportError:
        has_peer = False
        print("skipped: img2dataset is not installed")
    ours, theirs = [], []
    for _ in range(ROUNDS):
        two = ["--set", "runtime.threads=2"]
        ours.append(timed(prep(work, "ours", "originals-*.tar", *SIZE, *two)))
        if has_peer:
            theirs.append(timed(img2dataset(work, 2), sync=True))
            stats = [json.loads(p.read_text()) for p in (work / "peer").glob("*_stats.json")]
            done = sum(s["successes"] for s in stats)
            assert done == IMAGES, f"img2dataset made {done} of {IMAGES}"
    ours = report("catlip-prep run", IMAGES, "images", ours)
    if has_peer:
        theirs = report("img2dataset", IMAGES, "images", theirs)
        wall, cpu = theirs[0] / ours[0], theirs[1] / ours[1]
        print(f"ratio: {wall:.2f} of wall time, {cpu:.2f} of CPU time")


def scale(work):
    one, two = [], []
    for _ in range(ROUNDS):
        for runs, cores, threads in [(one, "0", 1), (two, "0,1", 2)]:
            command = prep(work, "ours", "originals-*.tar", *SIZE, "--set",
                           f"runtime.threads={threads}")
            runs.append(timed(command, cores))
    one, two = report("one core", IMAGES, "images", one), report("two cores", IMAGES, "images", two)
    print(f"ratio: {one[0] / two[0]:.2f}")


def reference(work):
    runs = [timed(prep(work, "labels", "small-*.tar", "--set", "image.mode=reference", "--set",
                       "runtime.threads=2")) for _ in range(ROUNDS)]
    report("reference", SMALL, "samples", runs)


def relabel(work):
    runs = []
    for _ in range(ROUNDS):
        shutil.rmtree(work / "relabelled", ignore_errors=True)
        shutil.copytree(work / "labels", work / "relabelled")
        os.sync()
        runs.append(timed([PREP, "relabel", "--rule", "nouns", work / "relabelled"]))
        made = list((work / "relabelled").glob("synsets.nouns*/*.parquet"))
        assert len(made) == 10, f"relabel made {len(made)} of 10 parts"
    report("relabel, rule nouns", SMALL, "rows", runs)


def main():
    work, shards = pathlib.Path(sys.argv[1]), sys.argv[2:]
    if not (work / "urls.csv").exists():
        draw(work, shards)
    if not (work / "small-09.tar").exists():
        draw_small(work, shards)
    wanted = os.environ.get("ONLY", "job scale reference relabel").split()
    for measure in (job, scale, reference, relabel):
        if measure.__name__ in wanted:
            measure(work)


main()
