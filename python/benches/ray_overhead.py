"""Measures prep on Ray: scaling, overhead of a shard, planning and committing many shards.

In: a built `catlip-prep` and an installed `catlip` and `ray`. Out: lines of JSON. The arithmetic of
docs/clusters.md is made of them. Run it on a machine that does nothing else:

    python python/benches/ray_overhead.py scaling         # 1 and 2 CPUs, the program beside it
    python python/benches/ray_overhead.py overhead        # shards without a sample
    python python/benches/ray_overhead.py driver          # plan and commit of 130,000 parts

`--tiny` runs them at the size of a test.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cluster_data import scenes, write_shards  # noqa: E402
from conftest import run_prep  # noqa: E402

#: Names that a file is given at most; ext4 allows 65,000.
LINKS_MAX = 60_000


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    scenes: int = 4000
    copies: int = 50
    shards: int = 40
    empty_shards: int = 400
    parts: int = 130_000


TINY = Sizes(scenes=12, copies=1, shards=3, empty_shards=3, parts=5)


def prep_on_ray(shards: Path, output: Path, cpus: int) -> dict[str, float]:
    """One job in a process of its own, on a cluster of `cpus` CPUs that is warm."""
    script = f"""
import json, resource, sys, time
import ray
from catlip import ray as catlip_ray
ray.init("local", num_cpus={cpus}, _memory=100 << 30, include_dashboard=False, log_to_driver=False)
# Workers are started, also the one that merges beside them.
warm = ray.remote(lambda: (time.sleep(2), __import__("catlip.ray"))[0])
ray.get([warm.options(num_cpus=int(n < {cpus})).remote() for n in range({cpus} + 1)])
start = time.monotonic()
summary = catlip_ray.prep({str(shards / "*.tar")!r}, {str(output)!r}, quiet=True, cpus_per_task=1)
secs = time.monotonic() - start
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({{"secs": secs, "samples": summary.samples, "driver_mb": rss}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def timed_program(*arguments: str | Path) -> float:
    start = time.monotonic()
    done = run_prep(*arguments)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.monotonic() - start


def scaling(place: Path, sizes: Sizes) -> None:
    """The same shards on 1 and on 2 CPUs of one node, and by the program with as many threads."""
    drawn = scenes(place / "demo", sizes.scenes)
    files = [(f"{copy}-{name}", data) for copy in range(sizes.copies) for name, data in drawn]
    write_shards(place / "in", files, sizes.shards)
    secs = {}
    for cpus in (1, 2):
        found = prep_on_ray(place / "in", place / f"ray-{cpus}", cpus)
        secs[cpus] = found["secs"]
        alone = timed_program(
            "run", "-q", "--input", place / "in/*.tar", "--output", place / f"program-{cpus}",
            "--set", f"runtime.threads={cpus}",
        )
        print(json.dumps({"cpus": cpus, "shards": sizes.shards, **found, "program_secs": alone}))
    print(json.dumps({"speed_of_2_cpus_over_1": secs[1] / secs[2]}))


def overhead(place: Path, sizes: Sizes) -> None:
    """Shards with nothing in them: what is left is the task, five files, the receipt."""
    (place / "in").mkdir()
    for number in range(sizes.empty_shards):
        tarfile.open(place / f"in/s-{number:06}.tar", "w").close()
    found = prep_on_ray(place / "in", place / "ray", 1)
    settings = ["--set", "runtime.threads=1"]
    line = ["run", "-q", "--input", place / "in/*.tar", "--output", place / "program", *settings]
    alone = timed_program(*line)
    each = {"ray_ms": found["secs"], "program_ms": alone}
    print(json.dumps({key: secs / sizes.empty_shards * 1e3 for key, secs in each.items()} | found))


def driver(place: Path, sizes: Sizes) -> None:
    """Plan and commit of many parts; the receipts are written here, as if tasks had."""
    from catlip import _prep
    from catlip._catlip import PrepJob

    num_shards = sizes.parts
    (place / "in").mkdir()
    write_shards(place / "model", scenes(place / "demo", 12), 1)
    [model] = (place / "model").iterdir()
    bytes_of_model = model.read_bytes()
    for number in range(num_shards):
        path = place / f"in/s-{number:06}.tar"
        # One file, as often as the file system lets it have names.
        if number % LINKS_MAX == 0:
            path.write_bytes(bytes_of_model)
            model = path
        else:
            os.link(model, path)
    inputs, output = [str(place / "in")], str(place / "out")
    start, before = time.monotonic(), peak_mb()
    job = PrepJob(inputs, output, None, [])
    tasks = [job.task(index) for index in range(0, len(job), max(1, len(job) // 1000))]
    say("plan", start, before, shards=num_shards, bytes_of_a_task=sum(map(len, tasks)) / len(tasks))
    _prep.make(job.spec(1), job.task(0))
    [first] = Path(output, "receipts").glob("part-000000-*.json")
    receipt = json.loads(first.read_text())
    # A part of 10,000 images has 40 row groups of 256 rows.
    for file in receipt["files"]:
        file["groups"] = file["groups"][:1] * (40 if file["column_set"] != "rejects" else 1)
    for number in range(1, num_shards):
        text = json.dumps(receipt).replace("000000", f"{number:06}")
        Path(str(first).replace("000000", f"{number:06}")).write_text(text)
    start, before = time.monotonic(), peak_mb()
    job = PrepJob(inputs, output, None, [])
    assert len(job) == 0, f"{len(job)} parts are missing"
    say("plan again, all receipts there", start, before, shards=num_shards)
    start, before = time.monotonic(), peak_mb()
    job.commit()
    say("commit", start, before, shards=num_shards, bytes_of_a_receipt=len(json.dumps(receipt)))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def say(what: str, start: float, before_mb: float, **more: float) -> None:
    found = {"secs": time.monotonic() - start, "peak_mb": peak_mb(), "peak_mb_before": before_mb}
    print(json.dumps({"what": what} | found | more))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    measures = {"scaling": scaling, "overhead": overhead, "driver": driver}
    parser.add_argument("what", choices=measures)
    parser.add_argument("--tiny", action="store_true", help="at the size of a test")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        measures[said.what](Path(place), TINY if said.tiny else Sizes())


if __name__ == "__main__":
    main()
