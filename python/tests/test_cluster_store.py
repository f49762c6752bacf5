"""Parts made one by one with shards and output in a store, against what `catlip-prep run` makes."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from catlip import _prep
from catlip._catlip import PrepJob, merge_tallies
from cluster_data import SETTINGS, scenes, write_shards
from conftest import run_prep


def objects(endpoint: str, prefix: str) -> dict[str, str]:
    """The objects of the bucket below a prefix, by the rest of their keys: the MD5 of each."""
    listing = f"{endpoint}/lake?list-type=2&max-keys=1000&prefix={prefix}/"
    with urllib.request.urlopen(listing, timeout=60) as answer:
        entries = answer.read().decode()
    pattern = f"<Key>{prefix}/(.*?)</Key>.*?<ETag>(.*?)</ETag>"
    return dict(re.findall(pattern, entries, re.DOTALL))


def test_a_store_gets_the_bytes_that_the_program_writes_there(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    endpoint = s3["AWS_ENDPOINT_URL"]
    write_shards(tmp_path / "in", scenes(tmp_path / "demo", 24), 3)
    for path in (tmp_path / "in").iterdir():
        url = f"{endpoint}/lake/cluster/{path.name}"
        # Else the client calls it a form, which the server waits for the end of.
        kind = {"Content-Type": "application/x-tar"}
        put = urllib.request.Request(url, path.read_bytes(), kind, method="PUT")
        urllib.request.urlopen(put, timeout=60)
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    named = ["--input", "s3://lake/cluster/", "--output", "s3://lake/program"]
    done = run_prep("run", "--quiet", *named, *sets)
    assert done.returncode == 0, done.stderr

    job = PrepJob(["s3://lake/cluster/"], "s3://lake/tasks", None, SETTINGS)
    spec = job.spec(1)
    tallies = [_prep.make(spec, job.task(index)) for index in reversed(range(len(job)))]
    # A task that is started again finds its receipt.
    assert _prep.make(spec, job.task(2)) == tallies[0]
    job.take(merge_tallies(tallies))
    assert str(job.commit()) == done.stdout.strip().replace("lake/program", "lake/tasks")
    ours, theirs = objects(endpoint, "tasks"), objects(endpoint, "program")
    assert len(theirs) > 15 and ours == theirs
