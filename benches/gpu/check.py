"""Measures parts, writes gpu-check.json: what `benches/gpu/check.sh` runs.

Parts: ceiling, step-b16, step-lh, peers, feed, selftest. Each takes at most --budget seconds: what
no time is left for says so in a row, and is measured by another call, which leaves out what is
there. Only rows of one card and one binary stand in a file.
"""

import argparse
import datetime
import hashlib
import json
import pathlib
import subprocess
import sys
import time

import card
import feed
import ours
import record

PARTS = ["selftest", "ceiling", "peers", "step-b16", "step-lh", "feed"]
FUSED, PLAIN = "catlip-fused", "catlip-plain"
# What starting a program, its weights and three warm-up steps take; the same of each size of the
# variable sampler; and compiling a peer.
START_SECS, SIZES_SECS, COMPILE_SECS = 12, 20, 60


class Scale:
    """What is measured, how large, how long."""

    def __init__(self, args):
        self.is_tiny = args.tiny
        self.device = "cpu" if args.tiny and args.device is None else args.device or "cuda"
        self.bin = pathlib.Path(args.bin)
        self.out = pathlib.Path(args.out)
        self.log = self.out / "gpu-check.log"
        self.secs, self.sustained = args.secs, args.sustained
        self.data, self.again = args.data, args.again
        # Weights and moments of H/16 and what an allocator keeps beside them.
        self.resting_bytes_max = 16e9
        if args.tiny:
            self.models = {"B/16": (64, 2, 2), "L/16": (64, 3, 2), "H/16": (96, 3, 3)}
            self.labels, self.side, self.patch, self.variable = 100, 32, 8, (16, 48, 3)
            self.batches, self.lh = [8, 4, 2], [("L/16", 4), ("H/16", 2)]
        else:
            self.models = {
                "B/16": (768, 12, 12), "L/16": (1024, 24, 16), "H/16": (1280, 32, 20)
            }
            self.labels, self.side, self.patch, self.variable = 24320, 224, 16, (128, 320, 25)
            self.batches, self.lh = [1024, 512, 256], [("L/16", 512), ("H/16", 256)]

    def size(self, variable=False):
        return f"{self.variable[0]}-{self.variable[1]}" if variable else str(self.side)


class Part:
    """A part under way: its time, its rows, what it notes beside them."""

    def __init__(self, name, check):
        self.name, self.check, self.scale = name, check, check.scale
        self.begun = time.monotonic()
        self.deadline = self.begun + check.args.budget
        self.rows, self.raw, self.more = [], [], {"image_gflops": {}, "clocks": []}

    def left(self):
        return self.deadline - time.monotonic()

    def row(self, model, impl, batch, size, note, **numbers):
        self.rows.append(record.row(self.name, model, impl, batch, size, note, **numbers))

    def has(self, model, impl, batch, size):
        """Whether an earlier call measured this on the same card and binary."""
        wanted = (self.name, model, impl, batch, size)
        rows = self.check.record.data["rows"]
        return not self.scale.again and any(
            record.key(made)[:5] == wanted and made["images_per_s"] is not None for made in rows
        )

    def needed(self, side, secs):
        """Seconds of both turns of a side: ours starts anew, a peer stays."""
        _, impl, _, size, _, own = side
        runs, start = 2 * (own or secs), START_SECS + ("-" in size) * SIZES_SECS
        if impl.startswith("timm"):
            return runs + start + (impl == "timm-compiled") * COMPILE_SECS
        return runs + 2 * start

    def group(self, sides, secs):
        """Measures sides that are compared, in turns and twice: A B A B. A side is (model, impl,
        batch, size, runner, seconds of its own or None)."""
        if all(self.has(*side[:4]) for side in sides):
            print(f"gpu-check: {sides[0][0]} × {sides[0][2]} was measured before", flush=True)
            return
        needed = sum(self.needed(side, secs) for side in sides)
        if self.scale.is_tiny:
            needed = 0
        told = {at: [] for at in range(len(sides))}
        why = {}
        if self.left() < needed:
            why = dict.fromkeys(told, f"skipped: {self.left():.0f} s left, {needed:.0f} needed")
        for turn in range(2):
            for at, side in enumerate(sides):
                if at not in why:
                    self.take(at, sides, side[5] or secs, told, why, turn)
        for side in sides:
            side[4].stop()
        for at, side in enumerate(sides):
            if told[at]:
                self.summarise(side, told[at])
            else:
                self.row(*side[:4], why[at])
        self.check.save(self)

    def take(self, at, sides, secs, told, why, turn):
        model, impl, batch, size, runner, _ = sides[at]
        try:
            with card.Watcher(self.scale.device == "cpu") as watcher:
                try:
                    made = runner.run(secs, max(1.0, self.left()))
                except ours.Failed as failed:
                    # The peers keep memory while they rest: without them there may be enough.
                    if "memory" not in str(failed) or all(s[4] is runner for s in sides):
                        raise
                    for side in sides:
                        side[4].stop()
                    made = runner.run(secs, max(1.0, self.left()))
        except ours.Failed as failed:
            why[at] = f"skipped: {failed}"
            print(f"gpu-check: {model} {impl} × {batch}: {why[at]}", flush=True)
            return
        told[at].append(made)
        busy = watcher.busy()
        self.raw.append({
            "part": self.name, "model": model, "impl": impl, "batch": batch, "size": size,
            "turn": turn, "busy": busy, "samples": watcher.samples, "told": made,
        })
        if busy:
            self.more["clocks"].append({"row": f"{model} {impl} × {batch}", "turn": turn, **busy})
        pairs = ours.secs_of(made)
        rate = sum(images or batch for _, images in pairs) / sum(secs for secs, _ in pairs)
        print(f"gpu-check: {model} {impl} × {batch} {size}: {rate:.1f} images/s", flush=True)

    def summarise(self, side, told):
        """A row of the runs of a side: the median step, and how far steps and runs spread."""
        model, impl, batch, size = side[:4]
        runs = [[secs for secs, _ in ours.secs_of(made)] for made in told]
        pairs = [pair for made in told for pair in ours.secs_of(made)]
        mean = sum(images or batch for _, images in pairs) / sum(secs for secs, _ in pairs)
        steps = sorted(secs for run in runs for secs in run)
        is_variable = any(len(made.get("sizes", [])) > 1 for made in told)
        # Steps of several sizes have no median that means anything.
        rate = mean if is_variable else batch / card.median(steps)
        means = [sum(run) / len(run) for run in runs]
        notes = [
            f"{len(steps)} steps in {len(runs)} runs, mean {mean:.1f}, runs differ by "
            f"{100 * (max(means) / min(means) - 1):.1f} %"
        ]
        if not is_variable:
            low, high = steps[len(steps) // 10], steps[-1 - len(steps) // 10]
            notes.append(f"steps (10-90 %) by {100 * (high / low - 1):.1f} %")
        first = told[0]
        if "sizes" in first:
            notes += self.note_ours(model, impl, size, first, told)
        else:
            notes.append(f"{side[4].setting}, {first['warm_up_secs']:.0f} s to warm up")
        clocks = [c for c in self.more["clocks"] if c["row"] == f"{model} {impl} × {batch}"]
        if clocks:
            notes.append(f"{clocks[-1]['sm_mhz']:.0f} MHz, {clocks[-1]['watts']:.0f} W")
        peaks = [made["peak_bytes"] for made in told if made["peak_bytes"] is not None]
        peak = round(max(peaks) / 1e9, 2) if peaks else None
        self.row(model, impl, batch, size, "; ".join(notes), images_per_s=rate, peak_gb=peak)

    def note_ours(self, model, impl, size, first, told):
        sizes = first["sizes"]
        images = sum(s["batch"] * len(s["step_secs"]) for s in sizes)
        flops = sum(s["image_flops"] * s["batch"] * len(s["step_secs"]) for s in sizes) / images
        self.more["image_gflops"][f"{model} {size}"] = flops / 1e9
        pairs = [(s["tokens"] * s["batch"], secs) for t in told for s in t["sizes"]
                 for secs in s["step_secs"]]
        tokens = sum(count for count, _ in pairs) / sum(secs for _, secs in pairs)
        start = f"{first['first_step_secs']:.1f} s to the first step"
        notes = [f"{tokens / 1e3:.1f} k tokens/s", start]
        if impl == FUSED and first["form"] != "fused":
            notes.insert(0, f"not fused but {first['form']}")
        return notes + [first[name] for name in ["kernels", "attention"] if first[name]]


class Check:
    """All parts that were asked for, on this card, by this binary."""

    def __init__(self, args):
        self.args, self.scale = args, Scale(args)
        self.record = record.Record(self.scale.out / "gpu-check.json")
        self.torch = version_of_torch()
        self.identity = {
            **card.identity(self.scale.device == "cpu"),
            "binary_sha256": sha256(self.scale.bin / "catlip-train"),
            "torch": self.torch or "none",
            "commit": self.commit(),
        }
        if self.torch and (lacking := ours.lacking_for_compilers()):
            print(f"gpu-check: peers cannot be compiled here: {lacking}", flush=True)
        self.peak = args.peak_tflops or card.datasheet_tflops(self.identity["card"])

    def commit(self):
        """Of the sources of the binary, which alone knows it: here may be no git, or another."""
        toy = {"model.width": 16, "model.depth": 1, "model.heads": 1, "train.batch": 1,
               "train.image_px": 16, "vocab.top_k": 2, "runtime.device": '"cpu"'}
        command = [str(self.scale.bin / "catlip-train"), "bench", "--json", "--secs", "0"]
        try:
            told = ours.run([*command, *ours.flags(toy)], 120, self.scale.log)
        except ours.Failed as failed:
            sys.exit(f"error: {command[0]} does not run: {failed}\nhint: say --python with a "
                     f"torch 2.11, whose libraries it needs")
        return json.loads(told).get("commit") or "unknown"

    def run(self, name):
        part = Part(name, self)
        self.identity["part"] = name
        now = datetime.datetime.now(datetime.timezone.utc)
        self.identity["date"] = now.isoformat("T", "seconds")
        print(f"gpu-check: part {name}, at most {self.args.budget:.0f} s", flush=True)
        {
            "ceiling": self.ceiling, "peers": self.peers, "step-b16": self.step_b16,
            "step-lh": self.step_lh, "feed": lambda part: feed.measure(part, self.scale),
            "selftest": self.selftest,
        }[name](part)
        self.save(part)

    def save(self, part):
        """Writes what a part has so far: a machine that is lent may go before the part ends."""
        part.more["secs"] = round(time.monotonic() - part.begun, 1)
        part.more["datasheet_tflops"] = self.peak
        self.record.add(self.identity, part.rows, **part.more)
        self.record.write()
        with open(self.scale.out / f"{part.name}.raw.jsonl", "a") as file:
            file.writelines(json.dumps(made) + "\n" for made in part.raw)
        part.raw.clear()

    def ceiling(self, part):
        if self.torch is None:
            part.more["skipped"] = "skipped: this Python has no torch"
            return
        command = [sys.executable, "benches/gpu/ceilings.py", "--device", self.scale.device]
        if self.scale.is_tiny:
            command += ["--tiny", "--secs", "0.01"]
        try:
            told = json.loads(ours.run(command, part.left(), self.scale.log))
        except ours.Failed as failed:
            part.more["skipped"] = f"skipped: {failed}"
            print(f"gpu-check: ceiling: {part.more['skipped']}", flush=True)
            return
        cubes = [made["tflops"] for made in told["products"] if "cube" in made["name"]]
        # On a CPU neither is a whole 10^12.
        self.record.data["ceiling_tflops"] = float(f"{max(cubes):.4g}")
        self.record.data["copy_tb_s"] = float(f"{told['copy_tb_s']:.4g}")
        part.more.update(products=told["products"], attention=told["attention"])

    def peers(self, part):
        """The search: each setting for a few seconds; the fastest is the peer of other parts."""
        model, batch, size = "B/16", self.scale.batches[0], self.scale.size()
        eager, settings = self.settings()
        secs, best = (0.2 if self.scale.is_tiny else 5.0), None
        self.gflops_of(part, model)
        for setting in [eager, *settings]:
            impl = "timm-eager" if setting == eager else "timm-compiled"
            runner = ours.Peer(self.scale, model, setting, batch)
            needed = 0 if self.scale.is_tiny else 2 * START_SECS + secs
            if part.left() < needed:
                part.row(model, impl, batch, size, f"{setting}: skipped: no time left")
                continue
            try:
                told = runner.run(secs, max(1.0, part.left()))
            except ours.Failed as failed:
                part.row(model, impl, batch, size, f"{setting}: skipped: {failed}")
                print(f"gpu-check: {setting}: skipped: {failed}", flush=True)
                continue
            finally:
                runner.stop()
            rate = batch / card.median(told["step_secs"])
            peak = told["peak_bytes"]
            note = f"{setting}: {told['warm_up_secs']:.0f} s to warm up"
            part.row(model, impl, batch, size, note, images_per_s=rate,
                     peak_gb=round(peak / 1e9, 2) if peak is not None else None)
            part.raw.append({"part": "peers", "setting": setting, "told": told})
            print(f"gpu-check: {setting}: {rate:.1f} images/s, {note}", flush=True)
            if impl == "timm-compiled" and (best is None or rate > best[1]):
                best = (setting, rate)
                part.more["winner"] = setting
            self.save(part)

    def settings(self):
        """Eager and compiled settings; none without timm."""
        if self.torch is None:
            return "eager/autocast/any", []
        command = [sys.executable, "benches/gpu/peers.py", "--list", "--device", self.scale.device]
        try:
            told = json.loads(ours.run(command, 300, self.scale.log))
        except ours.Failed as failed:
            print(f"gpu-check: no peers: {failed}", flush=True)
            return "eager/autocast/any", []
        return told["eager"], told["settings"]

    def gflops_of(self, part, model):
        """Operations of an image, which the binary knows: rows of the peers alone need them too."""
        runner = ours.Ours(self.scale, model, "linear", PLAIN, 1)
        try:
            told = runner.run(0, max(1.0, part.left()))
        except ours.Failed as failed:
            print(f"gpu-check: no operations of {model}: {failed}", flush=True)
            return
        flops = told["sizes"][0]["image_flops"]
        part.more["image_gflops"][f"{model} {self.scale.size()}"] = flops / 1e9

    def compiled(self):
        """The setting that was named, or won; without a search the likeliest."""
        if self.args.setting:
            return self.args.setting
        # There each model would cost a minute of a compiler.
        if self.scale.device == "cpu":
            return "aot_eager/autocast/any"
        parts = {part["part"]: part for part in self.record.data["parts"]}
        return parts.get("peers", {}).get("winner", "default/bf16/cudnn")

    def side(self, model, impl, batch, stem="linear", variable=False, secs=None):
        name = model if stem == "linear" else f"{model}+catlip"
        size = self.scale.size(variable)
        if impl.startswith("timm"):
            setting = "eager/autocast/any" if impl == "timm-eager" else self.compiled()
            return (name, impl, batch, size, ours.Peer(self.scale, model, setting, batch), secs)
        runner = ours.Ours(self.scale, model, stem, impl, batch, variable)
        return (name, impl, batch, size, runner, secs)

    def step_b16(self, part):
        model, (large, *smaller) = "B/16", self.scale.batches
        short, long = self.scale.secs, self.scale.sustained
        part.group([
            self.side(model, FUSED, large),
            self.side(model, "timm-compiled", large),
            self.side(model, FUSED, large, "catlip"),
            self.side(model, "timm-eager", large, secs=short),
        ], long)
        part.group([
            self.side(model, FUSED, large, "catlip", variable=True),
            self.side(model, FUSED, large, "linear", variable=True),
        ], short)
        plain = [self.side(model, PLAIN, large), self.side(model, PLAIN, large, "catlip")]
        part.group(plain, short)
        for batch in smaller:
            part.group([
                self.side(model, FUSED, batch),
                self.side(model, "timm-compiled", batch),
                self.side(model, "timm-eager", batch),
            ], short)

    def step_lh(self, part):
        for model, batch in self.scale.lh:
            part.group([
                self.side(model, FUSED, batch),
                self.side(model, "timm-compiled", batch),
                self.side(model, FUSED, batch, "catlip"),
                self.side(model, "timm-eager", batch),
            ], self.scale.secs)

    def selftest(self, part):
        program = str(self.scale.bin / "catlip-train")
        command = [program, "selftest", "--device", self.scale.device]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=part.left())
        except OSError as error:
            part.more["tests"] = [f"skipped: {error}"]
            return
        except subprocess.TimeoutExpired as error:
            # Bytes, also where text was asked for.
            said = (error.stdout or b"").decode(errors="replace").splitlines()
            part.more["tests"] = [*said, f"skipped: the rest, after {error.timeout:.0f} s"]
            print("\n".join(part.more["tests"]), flush=True)
            return
        part.more["tests"] = told.stdout.splitlines()
        part.more["exit_code"] = told.returncode
        print(told.stdout, end="", flush=True)
        if told.returncode != 0:
            print(f"gpu-check: selftest: {ours.last_words(told.stderr)}", flush=True)
            self.failed = True

    failed = False


def version_of_torch():
    """Of this Python's torch, which is not imported: that takes seconds."""
    from importlib import metadata

    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def sha256(path):
    if not path.is_file():
        sys.exit(f"error: no {path}\nhint: build it with `make build`, or say --bin DIR")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(prog="check.sh", description=__doc__)
    parser.add_argument("--only", action="append", help="parts, with commas between; else all")
    parser.add_argument("--bin", default="target/release", help="folder of our binaries")
    parser.add_argument("--python", help="a Python with torch 2.11 and timm")
    parser.add_argument("--out", required=True, help="folder for what is written")
    parser.add_argument("--cache", help="folder for what is compiled; OUT/cache if left out")
    parser.add_argument("--data", help="folder of shards (*.tar) of photographs for part feed")
    parser.add_argument("--device", help="cuda, or cpu with --tiny")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try this command itself")
    parser.add_argument("--budget", type=float, default=540, help="seconds of a part")
    parser.add_argument("--secs", type=float, default=10, help="seconds of a run")
    parser.add_argument("--sustained", type=float, default=30, help="the same of B/16 × 1024")
    parser.add_argument("--setting", help="the compiled setting; else the one that won")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--peak-tflops", type=float, help="dense bf16 of the card's data sheet")
    args = parser.parse_args()
    wanted = [name for names in args.only or [",".join(PARTS)] for name in names.split(",")]
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"error: no part is called {unknown[0]}; parts are {', '.join(PARTS)}")
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    ours.environment(pathlib.Path(args.cache) if args.cache else out / "cache", args.tiny)
    check = Check(args)
    check.record.begin(check.identity | {"part": wanted[0]})
    for name in wanted:
        check.run(name)
    print((out / "gpu-check.md").read_text())
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
