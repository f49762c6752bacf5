"""Shards that the tests draw: flat images whose colour is their number."""

import io
import os
import signal
import struct
import subprocess
import sys
import tarfile
import zlib

from conftest import BIN, ROOT

EXAMPLES = ROOT / "python" / "examples"
SETTINGS = ("train.batch=8", "train.image_px=32", "feed.lanes=6", "feed.threads=2",
            "feed.window_bytes=2000")


def png(width_px, height_px, rgb, noise=None):
    """A flat PNG, or one of noise, by the standard library alone."""

    def part(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(rgb) * width_px) * height_px
    if noise is not None:
        rows = b"".join(b"\0" + noise.randbytes(3 * width_px) for _ in range(height_px))
    return (b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header)
            + part(b"IDAT", zlib.compress(rows, 1)) + part(b"IEND", b""))


def shard(path, rows):
    """A tar of (key, image, caption)."""
    with tarfile.open(path, "w") as tar:
        for key, image, caption in rows:
            for name, data in ((f"{key}.png", image), (f"{key}.txt", caption.encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def shards(folder, num_shards=3, num_rows=15):
    """Image n has the red 4 n; "a dog" where n is even, else "a car and a tree"."""
    for number in range(num_shards):
        rows = []
        for n in range(number * num_rows, (number + 1) * num_rows):
            caption = "a car and a tree" if n % 2 else "a dog"
            rows.append((f"{n:03}", png(40, 36, (4 * n, 100, 200)), caption))
        shard(folder / f"train-{number:03}.tar", rows)
    return str(folder / "train-*.tar")


def program(name):
    """The path of a program of the workspace, or None where it is not built."""
    path = BIN / name
    return path if path.exists() else None


def run_program(path, *args):
    """Runs a program; its libtorch is where the set-up put it."""
    torch = ROOT / ".deps" / "libtorch" / "lib"
    env = {**os.environ, "LD_LIBRARY_PATH": f"{torch}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    return subprocess.run(
        [path, *args], env=env, capture_output=True, text=True, check=False, timeout=120)


def python(code, *args):
    """Starts Python on a text; it hears SIGINT, also where a shell's background job does not."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
