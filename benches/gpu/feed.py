"""The whole trainer, fed from shards that are drawn here, beside its own step on synthetic images.

Prepared shards (decoded once, resized, encoded) and originals (as they came), B/16 by the fused
step; both sides in turns, twice. What is drawn stays in OUT/feed, whole or not at all.
"""

import json
import pathlib
import shutil

import card
import ours

# Scenes and their side: enough that their bytes are read and not those of a cache of the decoder;
# the largest side that the demo draws.
SCENES, SIDE_PX = 6144, 512
SCENES_TINY, SIDE_TINY_PX = 48, 64


def measure(part, scale):
    model, batch = "B/16", scale.batches[0]
    folder = scale.out / "feed"
    try:
        sets = prepare(part, scale, folder)
    except ours.Failed as failed:
        part.row(model, "feed", batch, scale.size(), f"skipped: {failed}")
        return
    for name, data in sets:
        try:
            fed(part, scale, model, batch, name, data)
        except ours.Failed as failed:
            part.row(f"{model} {name}", "feed", batch, scale.size(), f"skipped: {failed}")
            print(f"gpu-check: feed {name}: skipped: {failed}", flush=True)


def prepare(part, scale, folder):
    """Name and path of each data set: prepared, and originals."""
    prep, log = str(scale.bin / "catlip-prep"), scale.log
    folder.mkdir(parents=True, exist_ok=True)
    shards, prepared = folder / "shards", folder / "prepared"
    if scale.data:
        shards = pathlib.Path(scale.data)
    elif not shards.exists():
        scenes, side = (SCENES_TINY, SIDE_TINY_PX) if scale.is_tiny else (SCENES, SIDE_PX)
        new = folder / "shards.new"
        shutil.rmtree(new, ignore_errors=True)
        ours.run([prep, "demo-data", "--output", str(new), "--scenes", str(scenes), "--heldout",
                  "1", "--side-px", str(side)], part.left(), log)
        # Held-out shards are no part of what is read.
        for held_out in new.glob("heldout-*.tar"):
            held_out.unlink()
        new.rename(shards)
    command = [prep, "run", "--quiet", "--input", f"{shards}/*.tar", "--output"]
    originals = folder / "originals"
    ours.run([*command, str(prepared)], part.left(), log)
    ours.run([*command, str(originals), "--set", 'image.mode="keep"'], part.left(), log)
    return [("prepared", prepared), ("originals", originals)]


def fed(part, scale, model, batch, name, data):
    """Rows of one data set: fed and synthetic, in turns."""
    size = scale.size()
    form = "catlip-fused"
    wanted = ours.settings(scale, model, "linear", form, batch, variable=False)
    synthetic = ours.Ours(scale, model, "linear", form, batch)
    # The head has the labels that the data have.
    labels = count_labels(part, scale, data, wanted)
    synthetic.wanted["vocab.top_k"] = labels
    secs = scale.secs
    rates, waits, lines, synthetic_rates = [], [], [], []
    for turn in range(2):
        told = synthetic.run(secs, max(1.0, part.left()))
        steps = told["sizes"][0]["step_secs"]
        synthetic_rates.append(batch / card.median(steps))
        steps_wanted = max(4, round(secs / card.median(steps)))
        with card.Watcher(scale.device == "cpu") as watcher:
            logged = fit(part, scale, data, wanted, steps_wanted)
        lines.append(logged)
        rates.append(sum_of(logged, "images") / sum_of(logged, "interval_secs"))
        waits.append(sum_of(logged, "wait_secs") / sum_of(logged, "interval_secs"))
        part.raw.append({"part": "feed", "data": name, "turn": turn, "synthetic": told,
                         "lines": logged, "busy": watcher.busy(), "samples": watcher.samples})
    flops = told["sizes"][0]["image_flops"]
    row_name = f"{model} {name}"
    part.more["image_gflops"][f"{row_name} {size}"] = flops / 1e9
    part.more["image_gflops"][f"{row_name} synthetic {size}"] = flops / 1e9
    rate, alone = max(rates), max(synthetic_rates)
    peak = told["peak_bytes"]
    peak = round(peak / 1e9, 2) if peak is not None else None
    note = (
        f"{rate / alone:.3f} × synthetic with its {labels} labels; runs differ by "
        f"{100 * (max(rates) / min(rates) - 1):.1f} %; {len(lines[0])} log lines a run"
    )
    part.row(row_name, "feed", batch, size, note, images_per_s=rate, data_wait=round(max(waits), 5))
    part.row(f"{row_name} synthetic", form, batch, size, f"{labels} labels, on the device",
             images_per_s=alone, peak_gb=peak)
    print(f"gpu-check: feed {name}: {rate:.1f} images/s, {note}", flush=True)


def fit(part, scale, data, wanted, steps):
    """Trains so many steps; the log lines of the steady part."""
    run = scale.out / "feed" / "run"
    shutil.rmtree(run, ignore_errors=True)
    every = max(1, steps // 10)
    more = {
        "train.steps": steps, "runtime.log_every_steps": every, "checkpoint.every_steps": 0,
        "optim.warmup_steps": 0,
    }
    command = [str(scale.bin / "catlip-train"), "fit", "--data", str(data), "--out", str(run)]
    ours.run([*command, *ours.flags(wanted | more)], max(1.0, part.left()), scale.log)
    logged, seen = [], 0
    for line in (run / "log.jsonl").read_text().splitlines():
        made = json.loads(line)
        if "images_per_sec" in made:
            made["images"], seen = made["images_seen"] - seen, made["images_seen"]
            logged.append(made)
    shutil.rmtree(run, ignore_errors=True)
    # The first interval has the start of the feed and of the kernels in it.
    return logged[1:] or logged


def sum_of(lines, name):
    return sum(line[name] for line in lines)


def count_labels(part, scale, data, wanted):
    """Labels of the vocabulary that a run over these data makes."""
    run = scale.out / "feed" / "labels"
    shutil.rmtree(run, ignore_errors=True)
    small = wanted | {"train.batch": 1, "model.width": 16, "model.heads": 1, "model.depth": 1}
    command = [str(scale.bin / "catlip-train"), "batches", "--data", str(data), "--out", str(run),
               "--steps", "1"]
    ours.run([*command, *ours.flags(small | {"train.steps": 1})], max(1.0, part.left()), scale.log)
    labels = len(json.loads((run / "priors.json").read_text())["positives"])
    shutil.rmtree(run, ignore_errors=True)
    return labels
