"""What runs on a machine of a cluster, whoever starts it there.

In: bytes of a driver. Out: bytes for it. Never: knows of Ray or Spark.
"""

from __future__ import annotations

from functools import lru_cache

from ._catlip import PrepWorker


@lru_cache(maxsize=1)
def worker(spec: bytes) -> PrepWorker:
    """The job of a driver, opened once in a process: it reads tables and opens stores."""
    return PrepWorker(spec)


def make(spec: bytes, task: bytes) -> bytes:
    """Makes one part, unless its receipt is there; its tally."""
    return worker(spec).make(task)
