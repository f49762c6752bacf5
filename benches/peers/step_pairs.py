"""The step of `catlip-train bench` and of its twin `vit.py` by turns, and the median of the ratios.

step_pairs.py CATLIP_TRAIN RECIPE BATCHES [--pairs 10] [--threads 2] [--set section.key=value …]

BATCHES is what `catlip-train batches --recipe RECIPE --steps 60 …` wrote: the twin trains on it.
Ours trains on a batch of the same size that lies in memory; neither waits for data.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("recipe")
    parser.add_argument("batches")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[])
    arguments = parser.parse_args()
    threads = str(arguments.threads)
    ours = [arguments.program, "bench", "--recipe", arguments.recipe]
    for setting in [f"runtime.threads={threads}", "runtime.device=cpu", *arguments.set]:
        ours += ["--set", setting]
    twin = [sys.executable, str(pathlib.Path(__file__).with_name("vit.py")), arguments.batches,
            "--threads", threads, "--time"]

    def run(command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    rates = []
    for _ in range(arguments.pairs):
        step = float(re.search(r"^step +([\d.]+) images/s", run(ours), re.M).group(1))
        last = json.loads(run(twin).splitlines()[-1])["images_per_sec"]
        rates.append((step, last))
        print(f"ours {step:.0f}, twin {last:.0f} images/s: {step / last:.3f}", flush=True)
    print(f"median of {len(rates)} pairs: ours {statistics.median(a for a, _ in rates):.0f}, "
          f"twin {statistics.median(b for _, b in rates):.0f}, "
          f"ratio {statistics.median(a / b for a, b in rates):.3f}")


main()
