"""How fast `Labeler` is beside a Rust program that runs the same rule on as many threads.

    python python/benches/labels.py [--captions FILE] [--rule corenet] [--passes 15] [--tiny]

In: captions, a line each, or those that the demo draws; 100,000 of them, again from the front where
the file has fewer. Out: a table of captions a second in the fastest pass of each with the ratio of
those, and of captions a second of CPU time over all passes with theirs. The program keeps a vector
of numbers for each caption beside `csr`, and one of strings beside `keys`. Passes take turns, so
that both meet the same noise; where others use the machine too, CPU time is what can be compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pyarrow as pa

import catlip

BIN = Path(os.environ.get("CATLIP_BIN", Path(__file__).resolve().parents[2] / "target/release"))


def demo_captions(folder: Path) -> list[str]:
    """What `catlip-prep demo-data` writes below its images."""
    shards = folder / "shards"
    prep = BIN / "catlip-prep"
    words = ["demo-data", "--output", shards, "--scenes", "2000", "--heldout", "32"]
    subprocess.run([prep, *words], check=True, capture_output=True)
    out = folder / "set"
    words = ["run", "--quiet", "--input", shards / "train-*.tar", "--output", out]
    subprocess.run([prep, *words], check=True, capture_output=True)
    rows = catlip.open(out).joined(["captions"]).read_all()["captions"].to_pylist()
    return [caption["text"] for row in rows for caption in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--rule", default="corenet")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--passes", type=int, default=40)
    parser.add_argument("--tiny", action="store_true")
    said = parser.parse_args()
    num, passes = (2000, 2) if said.tiny else (100_000, said.passes)
    with tempfile.TemporaryDirectory() as folder:
        if said.captions is None:
            some = demo_captions(Path(folder))
        else:
            some = said.captions.read_text(encoding="utf-8").split("\n")
        captions = list(islice(cycle(" ".join(text.splitlines()) for text in some), num))
        listed = Path(folder) / "captions.txt"
        listed.write_text("".join(text + "\n" for text in captions), encoding="utf-8")
        compare(captions, listed, said.rule, said.threads, passes)


def cpu_secs(pid: int) -> float:
    """CPU time of a process and all its threads, of the user and the system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compare(captions: list[str], listed: Path, rule: str, threads: int, passes: int) -> None:
    labeler = catlip.Labeler(rule, threads=threads)
    array = pa.array(captions)
    ways: dict[str, tuple[Callable[[], object], str]] = {
        "csr(Arrow)": (lambda: labeler.csr(array), "synsets"),
        "keys(Arrow)": (lambda: labeler.keys(array), "keys"),
        "keys(list)": (lambda: labeler.keys(captions), "keys"),
    }
    program = subprocess.Popen(
        [BIN / "catlip-bench-labels", listed, rule, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None and program.stdout is not None

    def program_secs(what: str) -> float:
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(f"{what}\n")
        program.stdin.flush()
        secs, found = program.stdout.readline().split()
        assert int(found) == num_synsets, (found, num_synsets)
        return float(secs)

    num_synsets = len(labeler.csr(array)[1])
    program_secs("synsets")
    print(f"{len(captions)} captions, {num_synsets} synsets, rule {rule}, {threads} threads")
    print(
        f"{'way':<14} {'captions/s':>12} {'Rust':>12} {'of Rust':>8} "
        f"{'of CPU time':>12} {'Rust':>12} {'of Rust':>8}"
    )
    for name, (way, what) in ways.items():
        ours, theirs = [], []
        way()
        cpu_before = [cpu_secs(pid) for pid in (os.getpid(), program.pid)]
        for _ in range(passes):
            start = time.perf_counter()
            way()
            ours.append(time.perf_counter() - start)
            theirs.append(program_secs(what))
        cpu_after = [cpu_secs(pid) for pid in (os.getpid(), program.pid)]
        cpu = [max(after - before, 0.01) for before, after in zip(cpu_before, cpu_after)]
        rates = [len(captions) / min(secs) for secs in (ours, theirs)]
        cpu_rates = [len(captions) * passes / secs for secs in cpu]
        print(
            f"{name:<14} {rates[0]:>12.0f} {rates[1]:>12.0f} {rates[0] / rates[1]:>8.2f} "
            f"{cpu_rates[0]:>12.0f} {cpu_rates[1]:>12.0f} {cpu_rates[0] / cpu_rates[1]:>8.2f}"
        )
    program.stdin.close()
    program.wait()


if __name__ == "__main__":
    main()
