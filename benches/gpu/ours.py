"""Runs catlip-train's bench, and the peer beside it, each in a process of its own."""

import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time


class Failed(Exception):
    """A program ended or said nothing; its last words."""


def last_words(text):
    """The line of a program's standard error that says why it ended."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for mark in ["OutOfMemory", "out of memory", "caused by", "error:", "Error"]:
        found = [line for line in lines if mark in line]
        if found:
            return found[-1][:160]
    return lines[-1][:160] if lines else "it said nothing"


def run(command, timeout, log, **more):
    """A program's standard output; its standard error goes to the log."""
    with open(log, "a") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **more)
    except subprocess.TimeoutExpired:
        raise Failed(f"it ran longer than {timeout:.0f} s") from None
    except OSError as error:
        raise Failed(str(error)) from None
    with open(log, "a") as file:
        file.write(told.stderr)
    if told.returncode != 0:
        raise Failed(last_words(told.stderr) + f" (exit {told.returncode})")
    return told.stdout


def read(told):
    """JSON that a program wrote."""
    try:
        return json.loads(told)
    except ValueError:
        raise Failed(f"it wrote no JSON but {told[:80]!r}") from None


def lacking_for_compilers():
    """What torch.compile needs at run time on a GPU and is not here; None where all is."""
    if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
        return "no C compiler (cc, gcc or clang), which Triton calls"
    header = pathlib.Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.exists() else f"no {header}, which Triton includes"


def settings(scale, model, stem, form, batch, variable):
    """What `catlip-train bench` is told."""
    width, depth, heads = scale.models[model]
    recipe = stem == "catlip"
    wanted = {
        "model.width": width,
        "model.depth": depth,
        "model.heads": heads,
        "model.stem": '"corenet"' if recipe else '"linear"',
        "model.patch_px": scale.patch,
        "model.positions": (scale.side // scale.patch) ** 2,
        "vocab.top_k": scale.labels,
        "train.batch": batch,
        "train.image_px": scale.side,
        "train.precision": '"bfloat16"',
        "train.by_hand": '"always"' if form == "catlip-fused" else '"never"',
        "augment.range": str(recipe).lower(),
        # As CatLIP; the peer has no average, and so neither has what is compared with it.
        "optim.ema_momentum": 5e-4 if recipe else 0.0,
        "runtime.device": f'"{scale.device}"',
        "runtime.threads": 1 if scale.is_tiny else 0,
    }
    if variable:
        least, most, scales = scale.variable
        wanted.update({
            "sampler.kind": '"variable"',
            "sampler.min_px": least,
            "sampler.max_px": most,
            "sampler.scales": scales,
        })
    return wanted


def flags(wanted):
    return [part for key, value in wanted.items() for part in ("--set", f"{key}={value}")]


class Ours:
    """Our step: a process each time it runs."""

    def __init__(self, scale, model, stem, form, batch, variable=False):
        self.scale, self.form = scale, form
        self.wanted = settings(scale, model, stem, form, batch, variable)

    def run(self, secs, timeout):
        program = str(self.scale.bin / "catlip-train")
        command = [program, "bench", "--json", "--secs", str(secs), *flags(self.wanted)]
        return read(run(command, timeout, self.scale.log))

    def stop(self):
        pass


class Peer:
    """The peer: a process that stays, compiled, and rests while others run."""

    def __init__(self, scale, model, setting, batch):
        self.scale, self.setting, self.process = scale, setting, None
        shape = ",".join(map(str, scale.models[model]))
        self.command = [
            sys.executable, "benches/gpu/peers.py", "--shape", shape, "--batch", str(batch),
            "--labels", str(scale.labels), "--side", str(scale.side), "--patch", str(scale.patch),
            "--device", scale.device, "--setting", setting,
        ]

    def run(self, secs, timeout):
        deadline = time.monotonic() + timeout
        if self.process is None:
            self.start(deadline)
        try:
            self.process.stdin.write(f"{secs}\n")
            self.process.stdin.flush()
        except OSError:
            # It died while it rested; its last words tell why.
            pass
        told = self.answer(deadline)
        # What holds the card's memory while it rests starts anew the next time.
        if (told.get("resting_bytes") or 0) > self.scale.resting_bytes_max:
            self.stop()
        return told

    def start(self, deadline):
        with open(self.scale.log, "a") as file:
            file.write(f"$ {' '.join(self.command)}\n")
        # Of its own: another peer may rest beside it.
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True, bufsize=1,
        )
        self.answer(deadline)

    def answer(self, deadline):
        left = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([self.process.stdout], [], [], left)
        line = self.process.stdout.readline() if ready else ""
        if line:
            return read(line)
        self.process.kill()
        self.process.wait()
        self.process = None
        self.errors.flush()
        self.errors.seek(0)
        said = self.errors.read()
        with open(self.scale.log, "a") as file:
            file.write(said[-20000:])
        raise Failed(last_words(said) if ready else "no time was left")

    def stop(self):
        if self.process is not None:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def secs_of(told):
    """All step seconds of a run, whichever side told them, with the images of each."""
    if "sizes" not in told:
        return [(secs, None) for secs in told["step_secs"]]
    return [(secs, size["batch"]) for size in told["sizes"] for secs in size["step_secs"]]


def environment(cache, is_tiny):
    """One folder for what is compiled, so that later parts find it."""
    if is_tiny:
        # Threads that wait for each other at every toy product take minutes on a busy machine.
        os.environ["OMP_NUM_THREADS"] = "1"
    for name, folder in [("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")]:
        os.environ.setdefault(name, str(cache / folder))
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    os.environ.setdefault("XDG_CACHE_HOME", str(cache))
