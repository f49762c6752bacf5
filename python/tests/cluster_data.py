"""What the tests of Ray and Spark share: small shards, the program's own output, comparisons."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

from conftest import run_prep

#: Small images in small row groups, so that a part has several.
SETTINGS = ["image.short_side_px=64", "image.rows_per_group=8", "runtime.threads=1"]


def scenes(folder: Path, count: int) -> list[tuple[str, bytes]]:
    """Files of the demo's samples, in order."""
    drawn = run_prep("demo-data", "--output", folder, "--scenes", count, "--heldout", 1)
    assert drawn.returncode == 0, drawn.stderr
    files = []
    for path in sorted(folder.glob("**/train*.tar")):
        with tarfile.open(path) as tar:
            files += [(m.name, tar.extractfile(m).read()) for m in tar if m.isfile()]
    return files


def write_shards(folder: Path, files: list[tuple[str, bytes]], num_shards: int) -> None:
    """Deals samples to shards; the first sample of the second shard has no image."""
    samples: dict[str, list[tuple[str, bytes]]] = {}
    for name, data in files:
        samples.setdefault(name.split(".")[0], []).append((name, data))
    folder.mkdir()
    for number in range(num_shards):
        with tarfile.open(folder / f"s-{number:03}.tar", "w") as tar:
            for at, members in enumerate(list(samples.values())[number::num_shards]):
                for name, data in members:
                    if (number, at) == (1, 0) and not name.endswith(("txt", "json")):
                        data = b"no image"
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))


def run_program(shards: Path, output: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    sets = [part for setting in [*SETTINGS, *settings] for part in ("--set", setting)]
    return run_prep("run", "--quiet", "--input", shards / "*.tar", "--output", output, *sets)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a data set but those that a killed process did not finish."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def receipts(folder: Path) -> list[Path]:
    return sorted(folder.glob("receipts/part-*.json"))


def assert_same(output: Path, expected: Path) -> None:
    """The same files with the same bytes, each part once, and a data set that is whole."""
    ours, theirs = files_of(output), files_of(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    sources = [json.dumps(json.loads(p.read_bytes())["source"]) for p in receipts(output)]
    assert len(sources) == len(set(sources))
    verified = run_prep("verify", output)
    assert verified.returncode == 0, verified.stderr
