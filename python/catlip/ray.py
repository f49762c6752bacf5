"""Prep on a Ray cluster: ``catlip.ray.prep(...)`` or ``python -m catlip.ray prep ...``.

In: what ``catlip-prep run`` is told. Out: the same data set, byte by byte. One task a source shard
makes one part and writes its receipt; tallies are merged by tasks; the driver commits once. Never:
a state that only Ray has. Whatever is killed, the same call goes on from the receipts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from . import _prep
from ._catlip import CatlipError, PrepJob, PrepSummary, merge_tallies, tally_numbers
from ._progress import Progress
from .errors import USAGE, needed, refused

#: Tallies that one task merges: of 130,000 parts the driver sees 2,032.
FAN_IN = 64
#: So few tallies the driver merges itself: Ray would start a process for the task each time.
FEW = 16
#: Tallies wait at most so long, so that a budget is judged while a job runs.
MERGE_SECS = 2.0
#: How often the driver looks for nodes that came or went.
NODES_SECS = 10.0


def prep(
    inputs: str | Iterable[str],
    output: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    *,
    settings: Iterable[str] = (),
    cpus_per_task: float | None = None,
    tasks_per_slot: float = 2.0,
    retries: int = 8,
    node_of: Callable[[str], str | None] | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> PrepSummary:
    """Makes a data set of shards on a Ray cluster.

    ``inputs``, ``output``, ``config`` and ``settings`` are those of ``catlip-prep run``:
    ``--input``, ``--output``, ``--config``, ``--set``. Every node must reach inputs and output by
    the same paths or URLs, and has its own credentials for stores.

    ``cpus_per_task``: CPUs that a task is given, and threads that it runs; below 1, one thread. By
    default ``runtime.threads``, else as few as leave no CPU of a node without memory: a task is
    given ``runtime.memory_bytes`` and 200 MB more.

    ``tasks_per_slot``: tasks in flight for each that the cluster can run at once; the others wait
    on the driver as descriptions of about 400 B.

    ``retries``: how often a task is started again whose process or node was lost.

    ``node_of``: the id of the node that is near a shard, by its path or URL, or None. A wish: the
    task runs elsewhere if that node is gone or full. Without it tasks are spread over all nodes.

    ``address``: of the cluster, for ``ray.init``, where the process is not connected yet.

    Returns the summary of the snapshot. Raises `CatlipError` with the words, hints and exit codes
    of ``catlip-prep run``.
    """
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    job = PrepJob(inputs, os.fspath(output), config and os.fspath(config), list(settings))
    return _run(job, address, quiet, cpus_per_task, tasks_per_slot, retries, node_of)


def _run(
    job: PrepJob,
    address: str | None,
    quiet: bool,
    cpus_per_task: float | None,
    tasks_per_slot: float = 2.0,
    retries: int = 8,
    node_of: Callable[[str], str | None] | None = None,
    is_program: bool = False,
) -> PrepSummary:
    """Has the missing parts made, if there are any, and commits."""
    if len(job):
        ray = needed("ray", "catlip.ray")
        if not ray.is_initialized():
            ray.init(address=address)
        if is_program:
            # Ray has set a handler of its own, which would end without a word.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        slots = _Slots(ray, job, cpus_per_task)
        with Progress(job, quiet) as progress:
            _schedule(ray, job, slots, tasks_per_slot, retries, node_of, progress)
    return job.commit()


def _make(spec: bytes, task: bytes) -> bytes:
    """A task: one part."""
    tally = _prep.make(spec, task)
    _counted(tally)
    return tally


def _merge(*tallies: bytes) -> bytes:
    """A task: several tallies as one."""
    return merge_tallies(list(tallies))


@functools.cache
def _counter(name: str) -> Any:
    from ray.util.metrics import Counter

    return Counter(f"catlip_prep_{name}", f"{name} of the prep tasks that are done")


def _counted(tally: bytes) -> None:
    """Raises the counters of this process, which Ray's dashboard shows by node."""
    names = ("parts", "samples", "rows", "rejects", "source_bytes")
    for name, number in zip(names, tally_numbers(tally), strict=True):
        if number:
            _counter(name).inc(number)


class _Slots:
    """What a task is given, and how many of them the cluster runs at once."""

    def __init__(self, ray: Any, job: PrepJob, cpus_per_task: float | None) -> None:
        self._ray = ray
        self._looked = 0.0
        self._count = 0
        self.memory = job.process_bytes
        self.cpus = cpus_per_task or job.threads or self._fewest_cpus()
        if self.cpus > 1 and self.cpus != int(self.cpus):
            raise refused(
                f"cpus_per_task is {self.cpus}, expected a whole number, or one below 1",
                exit_code=USAGE,
            )

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))

    def count(self) -> int:
        """Tasks that run at once; looked up now and then, since nodes come and go."""
        if time.monotonic() - self._looked > NODES_SECS or not self._count:
            self._looked = time.monotonic()
            self._count = sum(
                min(int(cpus / self.cpus), int(memory // self.memory))
                for cpus, memory in self._nodes()
            )
        return self._count

    def missing(self) -> CatlipError:
        """Why no task can be started."""
        nodes = ", ".join(f"{c:g} CPUs and {m / 1e9:.1f} GB" for c, m in self._nodes()) or "none"
        return refused(
            f"no node of the cluster has the {self.cpus:g} CPUs and {self.memory / 1e9:.1f} GB "
            f"that a task is given (nodes: {nodes})",
            "start larger nodes, or lower `runtime.memory_bytes`, which needs 20 bytes for each of "
            "`image.pixels_max`",
        )

    def _nodes(self) -> list[tuple[float, float]]:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [(node.get("CPU", 0), node.get("memory", 0)) for node in nodes if node.get("CPU")]

    def _fewest_cpus(self) -> int:
        """CPUs of a task, so that none is left over where the memory is given out."""
        usable = [(cpus, memory // self.memory) for cpus, memory in self._nodes()]
        return max((math.ceil(cpus / slots) for cpus, slots in usable if slots), default=1)


def _schedule(
    ray: Any,
    job: PrepJob,
    slots: _Slots,
    tasks_per_slot: float,
    retries: int,
    node_of: Callable[[str], str | None] | None,
    progress: Progress,
) -> None:
    """Starts a task for each missing part, a bounded number at a time, and awaits them all.

    No task is cancelled: of one that ends at that moment Ray 2.60 aborts the driver (a race in its
    task manager, ray-project/ray#54798). Ray ends them with the driver; of one that lives on they
    end by themselves, and their parts are kept.
    """
    spec = ray.put(job.spec(slots.threads))
    part = ray.remote(_make)
    merge = ray.remote(_merge).options(num_cpus=0, max_retries=retries)

    def start(index: int) -> Any:
        node = node_of(str(job.shard(index))) if node_of else None
        task = part.options(
            num_cpus=slots.cpus,
            memory=slots.memory,
            max_retries=retries,
            scheduling_strategy=_near(node) if node else "SPREAD",
        )
        return task.remote(spec, job.task(index))

    todo = iter(range(len(job)))
    in_flight: dict[Any, int] = {}
    done: dict[Any, int] = {}
    merges: dict[Any, dict[Any, int]] = {}
    merged = time.monotonic()
    try:
        while True:
            if not slots.count():
                progress.waits(slots.missing())
            room = max(1, math.ceil(slots.count() * tasks_per_slot)) - len(in_flight)
            in_flight.update((start(i), i) for i in itertools.islice(todo, max(0, room)))
            is_due = time.monotonic() - merged > MERGE_SECS or not in_flight
            if len(done) >= FAN_IN or (done and is_due):
                if len(done) <= FEW:
                    job.take(_tally(ray, job, done, lambda: _merge(*ray.get(list(done)))))
                else:
                    merges[merge.remote(*done)] = done
                done, merged = {}, time.monotonic()
            if not in_flight and not merges:
                return
            for ref in _ready(ray, [*in_flight, *merges]):
                if ref in in_flight:
                    done[ref] = in_flight.pop(ref)
                else:
                    job.take(_tally(ray, job, merges.pop(ref), lambda: bytes(ray.get(ref))))
            progress.show(in_flight=len(in_flight), unmerged=len(done))
    except KeyboardInterrupt:
        # So that the parts that are whole are told of.
        with contextlib.suppress(ray.exceptions.RayError, CatlipError):
            job.take(_merge(*ray.get(list(done))))
        raise


def _near(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=True)


def _ready(ray: Any, refs: list[Any]) -> list[Any]:
    """Those that are done; waits a second for the first one."""
    some, _ = ray.wait(refs, num_returns=1, timeout=1.0, fetch_local=False)
    if not some:
        return []
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
    return list(ready)


def _tally(ray: Any, job: PrepJob, parts: dict[Any, int], merged: Callable[[], bytes]) -> bytes:
    """The merged tally of parts, or the error of the first of them that failed."""
    try:
        return merged()
    except ray.exceptions.RayError:
        for ref, index in parts.items():
            _raise_error_of(ray, job, ref, index)
        raise


def _raise_error_of(ray: Any, job: PrepJob, ref: Any, index: int) -> None:
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        raise refused(
            f"the task of shard {job.shard(index)} was lost again and again: {error}",
            "look at the logs and the memory of the node; parts that are whole are kept, and the "
            "same call goes on",
        ) from error


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code, those of ``catlip-prep``."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m catlip.ray", description="Prep on Ray.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("prep", help="shards in, a data set out; goes on where it stopped")
    run.add_argument("--input", nargs="+", required=True, metavar="SHARDS", action="extend")
    run.add_argument("--output", required=True, metavar="DIR|URL")
    run.add_argument("--config", metavar="FILE", help="TOML: what differs from the defaults")
    run.add_argument("--set", action="append", default=[], metavar="section.key=value")
    run.add_argument("--address", help="of the cluster; without it RAY_ADDRESS, or this machine")
    run.add_argument("--cpus-per-task", type=float, metavar="N")
    run.add_argument("--retries", type=int, default=8, metavar="N")
    run.add_argument("--quiet", "-q", action="store_true", help="no progress, only errors")
    said = parser.parse_args(arguments)
    try:
        job = PrepJob(said.input, said.output, said.config, said.set)
        try:
            summary = _run(
                job, said.address, said.quiet, said.cpus_per_task, retries=said.retries,
                is_program=True,
            )
        except KeyboardInterrupt:
            raise job.interrupted() from None
    except CatlipError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(summary)
    return 0


if __name__ == "__main__":
    # By its name, so that tasks find their functions there and not in `__main__`.
    from catlip.ray import main as named_main

    sys.exit(named_main())
