"""The losses of runs and of their twins, side by side: curves.py OUT.png RUN TWIN_LOG [RUN …]

RUN/log.jsonl is ours; TWIN_LOG is what `vit.py` printed, a line a step. Both of a pair saw the same
batches. Draws the mean of every 200 steps and prints how far the pairs are apart, step by step
where both have a number. Needs numpy and matplotlib.
"""

import json
import pathlib
import sys

import matplotlib
import numpy

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot

WINDOW = 200


def losses(path, wanted):
    lines = map(json.loads, pathlib.Path(path).read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if wanted(line)}


def means(found):
    steps = numpy.array(sorted(found))
    values = numpy.array([found[step] for step in steps])
    at = numpy.arange(WINDOW, steps[-1] + 1, WINDOW)
    return at, [values[(steps > end - WINDOW) & (steps <= end)].mean() for end in at]


def main():
    out, pairs = sys.argv[1], sys.argv[2:]
    figure, axes = pyplot.subplots(figsize=(8, 4), dpi=100)
    for number, (run, log) in enumerate(zip(pairs[::2], pairs[1::2])):
        ours = losses(pathlib.Path(run) / "log.jsonl", lambda line: line["kind"] == "step")
        twin = losses(log, lambda line: "loss" in line)
        both = sorted(ours.keys() & twin.keys())
        apart = numpy.array([abs(ours[step] / twin[step] - 1) for step in both])
        early = apart[numpy.array(both) <= WINDOW].max()
        last = numpy.array(both) > both[-1] - 500
        mean = [numpy.mean([side[step] for step, is_last in zip(both, last) if is_last])
                for side in (ours, twin)]
        print(f"pair {number + 1}: {len(both)} steps compared; off by at most {early:.1e} up to "
              f"step {WINDOW}; mean of the last 500 steps: ours {mean[0]:.4f}, twin {mean[1]:.4f}")
        # Of the twin the steps that ours has: a mean of others is another one.
        twin = {step: twin[step] for step in both}
        for name, found, style in (("catlip-train", ours, "-"), ("PyTorch twin", twin, ":")):
            axes.plot(*means(found), style, color=f"C{number}", label=f"{name}, seed {number + 1}")
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss, mean of {WINDOW} steps")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out)


main()
