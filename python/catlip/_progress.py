"""Progress of a prep job on a cluster: one line on a terminal, JSON lines in a log, Ray's gauges.

In: a job that is told what was done. Out: text on standard error. Never: a word when quiet.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from ._catlip import PrepJob

#: How often a terminal's line is drawn, a log gets one, and a warning is repeated.
TERMINAL_SECS, LOG_SECS, WARNING_SECS = 0.5, 10.0, 30.0


class Progress:
    """Shows a job while it runs."""

    def __init__(self, job: PrepJob, quiet: bool) -> None:
        self._job = job
        self._quiet = quiet
        self._is_terminal = sys.stderr.isatty()
        self._start = self._shown = time.monotonic()
        self._made_before = job.parts_made
        self._warned = -WARNING_SECS
        self._gauges: dict[str, Any] = {}
        self._parts_made = job.parts_made

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw(self._job.parts_made)
        if self._is_terminal and not self._quiet:
            print(file=sys.stderr)

    def show(self, in_flight: int, unmerged: int) -> None:
        """Draws, if it is time; `unmerged` parts are whole and not counted yet."""
        interval = TERMINAL_SECS if self._is_terminal else LOG_SECS
        if time.monotonic() - self._shown < interval:
            return
        self._shown = time.monotonic()
        self._draw(self._job.parts_made + unmerged)
        self._gauge(in_flight)

    def waits(self, why: Exception) -> None:
        """Says why nothing can be started."""
        if time.monotonic() - self._warned >= WARNING_SECS:
            self._warned = time.monotonic()
            print(f"warning: {why}", file=sys.stderr)

    def _draw(self, parts: int) -> None:
        if self._quiet:
            return
        job, secs = self._job, max(time.monotonic() - self._start, 1e-9)
        made, left = parts - self._made_before, job.parts - parts
        eta_secs = round(secs * left / made) if made else None
        if not self._is_terminal:
            line = {
                "parts": parts,
                "of": job.parts,
                "samples": job.samples,
                "rejected": job.rejected,
                "samples_per_sec": round(job.samples / secs),
                "mb_per_sec": round(job.source_bytes / 1e6 / secs, 1),
                "elapsed_secs": round(secs),
                "eta_secs": eta_secs,
            }
            print(json.dumps(line), file=sys.stderr)
            return
        to_go = "" if eta_secs is None else f", {eta_secs} s to go"
        text = (
            f"{parts}/{job.parts} parts, {job.samples} samples, "
            f"{job.samples / secs:.0f} samples/s, "
            f"{job.source_bytes / 1e6 / secs:.1f} MB/s, {job.rejected} rejected, "
            f"{secs:.0f} s gone{to_go}"
        )
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def _gauge(self, in_flight: int) -> None:
        values = {
            "parts_wanted": self._job.parts,
            "parts_whole": self._job.parts_made,
            "parts_in_flight": in_flight,
        }
        for name, value in values.items():
            if name not in self._gauges:
                from ray.util.metrics import Gauge

                self._gauges[name] = Gauge(f"catlip_prep_{name}", f"{name} of a prep job")
            self._gauges[name].set(value)
