"""Prep on Spark: ``catlip.spark.prep(spark, inputs, output)``.

In: what ``catlip-prep run`` is told. Out: the same data set, byte by byte. Each row of a table of
shards is a partition of its own, so that one Spark task makes one part; Spark starts it again where
an executor is lost. Never: a state that only Spark has; the same call goes on from the receipts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from . import _prep
from ._catlip import CatlipError, PrepJob, PrepSummary, merge_tallies
from .errors import refused

#: Tallies that one task merges: the driver of 130,000 parts collects 2,032.
FAN_IN = 64


def prep(
    spark: Any,
    inputs: str | Iterable[str],
    output: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    *,
    settings: Iterable[str] = (),
) -> PrepSummary:
    """Makes a data set of shards on a Spark cluster.

    ``spark`` is what ``pyspark`` calls the entry point of its DataFrames. The other arguments are
    those of ``catlip-prep run``. A task runs ``runtime.threads`` threads, 1 if that is left open:
    set ``spark.task.cpus`` to it; ``runtime.memory_bytes`` is taken outside of the JVM
    (``spark.executor.memoryOverhead`` for each task of an executor).

    Returns the summary of the snapshot. Raises `CatlipError` as ``catlip-prep run`` ends; budgets
    are judged once all tasks are done.
    """
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    job = PrepJob(inputs, os.fspath(output), config and os.fspath(config), list(settings))
    num_tasks = len(job)
    if num_tasks:
        spec = bytes(job.spec(job.threads or 1))
        rows = ((index, bytearray(job.task(index))) for index in range(num_tasks))
        shards = spark.createDataFrame(list(rows), "number long, task binary")
        shards = shards.repartitionByRange(num_tasks, "number")
        made = shards.mapInArrow(lambda batches: _make(spec, batches), "tally binary, error string")
        merged = made.repartition(-(-num_tasks // FAN_IN)).mapInArrow(_merge, made.schema)
        for tally, error in merged.collect():
            if error:
                raise refused(*json.loads(error))
            job.take(bytes(tally))
    return job.commit()


def _make(spec: bytes, batches: Iterator[Any]) -> Iterator[Any]:
    """A task: the parts of its rows. An error is a row too, so that Spark does not try it again."""
    for batch in batches:
        for task in batch.column("task").to_pylist():
            try:
                yield _row(_prep.make(spec, task), None)
            except CatlipError as error:
                message = str(error).removesuffix(f"\nhint: {error.hint}")
                yield _row(None, json.dumps([message, error.hint, error.exit_code]))


def _merge(batches: Iterator[Any]) -> Iterator[Any]:
    """A task: several tallies as one, or the first error."""
    rows = [row for batch in batches for row in batch.to_pylist()]
    error = next((row["error"] for row in rows if row["error"]), None)
    if rows:
        yield _row(None if error else merge_tallies([row["tally"] for row in rows]), error)


def _row(tally: bytes | None, error: str | None) -> Any:
    import pyarrow

    columns = [pyarrow.array([tally], "binary"), pyarrow.array([error], "string")]
    return pyarrow.RecordBatch.from_arrays(columns, ["tally", "error"])
