"""Benchmarks at a tiny size, so that they cannot rot."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT


def test_labels_are_measured_beside_a_rust_program() -> None:
    bench = ROOT / "python/benches/labels.py"
    command = [sys.executable, str(bench), "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, header, *ways = done.stdout.splitlines()
    assert first.startswith("2000 captions, ")
    assert [way.split()[0] for way in ways] == ["csr(Arrow)", "keys(Arrow)", "keys(list)"]
    assert all(float(way.split()[-1]) > 0 for way in ways)
