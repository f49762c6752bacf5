"""The type stubs are those of what was compiled, and the package is typed throughout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

EXAMPLE = '''
import catlip

labeler = catlip.Labeler("nouns", vocab=None)
one: list[str] = labeler.keys("a dog")
many: list[list[str] | None] = labeler.wnids(["a dog", None])
offsets, ids = labeler.csr(["a dog"])
shape: tuple[int, ...] = ids.shape
data = catlip.open("data", snapshot=3)
names: list[str] = data.sets
grid: catlip.Grid = catlip.show(data)
try:
    pass
except catlip.CatlipError as error:
    hint: str | None = error.hint
'''


def mypy(tmp_path: Path, *words: str) -> str:
    """What mypy says, with its cache where it vanishes."""
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_stubs_say_what_the_compiled_module_has(tmp_path: Path) -> None:
    # PyO3 lists what the module exports, which is what stubtest compares one by one.
    allowed = tmp_path / "allowed.txt"
    allowed.write_text("catlip._catlip.__all__\n")
    words = ["--ignore-disjoint-bases", "--allowlist", str(allowed)]
    assert mypy(tmp_path, "mypy.stubtest", "catlip._catlip", *words) == ""


def test_the_package_and_its_use_are_typed(tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text(EXAMPLE)
    strict = ["--strict", "--ignore-missing-imports", "--disable-error-code=unused-ignore"]
    assert mypy(tmp_path, "mypy", *strict, str(example)) == ""
    assert mypy(tmp_path, "mypy", *strict, "-p", "catlip") == ""
    example.write_text(EXAMPLE + "two: int = labeler.keys('a dog')\n")
    assert "example.py:16" in mypy(tmp_path, "mypy", *strict, str(example))
