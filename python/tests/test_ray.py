"""Prep on a real Ray cluster of two nodes, against what `catlip-prep run` makes, byte by byte."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import catlip
from catlip import _prep
from catlip import ray as catlip_ray
from catlip._catlip import PrepJob, PrepSummary, merge_tallies, tally_numbers
from cluster_data import (
    SETTINGS,
    assert_same,
    files_of,
    receipts,
    run_program,
    scenes,
    write_shards,
)

ray = pytest.importorskip("ray", reason="skipped: ray is not installed")
psutil = pytest.importorskip("psutil", reason="skipped: psutil is not installed")

NUM_SHARDS = 12
METRICS_PORT = 18273
NODE = {"num_cpus": 1, "memory": 6 * 10**9}
#: The program where Ray is not installed.
WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from catlip.ray import main; sys.exit(main())"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve shards of scenes; a part takes about a fifth of a second."""
    place = tmp_path_factory.mktemp("shards")
    write_shards(place / "in", scenes(place / "demo", 480), NUM_SHARDS)
    return place / "in"


@pytest.fixture(scope="module")
def expected(shards: Path) -> Path:
    output = shards.parent / "program"
    done = run_program(shards, output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    from ray.cluster_utils import Cluster

    # Metrics reach the exporter each second instead of each ten.
    os.environ["RAY_metrics_report_interval_ms"] = "1000"
    head = {**NODE, "metrics_export_port": METRICS_PORT, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def prep(shards: Path, output: Path, *settings: str, **options: object) -> PrepSummary:
    settings = (*SETTINGS, *settings)
    return catlip_ray.prep(str(shards / "*.tar"), output, settings=settings, quiet=True, **options)


def arguments(shards: Path, output: Path) -> list[str]:
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["prep", "--input", str(shards / "*.tar"), "--output", str(output), *sets]


def driver(shards: Path, output: Path, address: str, *more: str) -> subprocess.Popen[str]:
    line = [*arguments(shards, output), "--address", address, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "catlip.ray", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(what: Callable[[], object], secs: float = 60) -> object:
    """Waits until something is true."""
    end = time.monotonic() + secs
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.01)
    raise AssertionError("did not come true in time")


def part_workers() -> list[psutil.Process]:
    """Processes that make a part right now."""
    processes = psutil.process_iter(["cmdline"])
    return [p for p in processes if any("ray::_make" in word for word in p.info["cmdline"] or [])]


def during(output: Path, act: Callable[[], None]) -> threading.Thread:
    """Acts once a part is there and others are not."""
    thread = threading.Thread(target=lambda: (until(lambda: receipts(output)), act()))
    thread.start()
    return thread


def test_two_nodes_make_the_bytes_of_the_program(cluster, shards, expected, tmp_path):
    output = tmp_path / "out"
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = []

    def node_of(shard: str) -> str:
        asked.append((shard, len(receipts(output))))
        return nodes[len(asked) % 2]

    summary = prep(shards, output, node_of=node_of, tasks_per_slot=2)
    assert_same(output, expected)
    assert (summary.parts, summary.parts_made, summary.samples) == (NUM_SHARDS, NUM_SHARDS, 480)
    assert summary.rejects == {"image-format": 1} and summary.rows == 479
    # Back-pressure: of two slots, never more than four tasks are in flight.
    assert [shard for shard, _ in asked] == sorted(str(path) for path in shards.iterdir())
    assert all(started - made < 4 for started, (_, made) in enumerate(asked))


def test_counters_reach_the_exporter_of_a_node(cluster, shards, tmp_path):
    pytest.importorskip("opencensus", reason="skipped: ray without its metrics agent")
    prep(shards, tmp_path / "out")

    def is_exported() -> bool:
        page = urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics").read().decode()
        return "catlip_prep_samples" in page

    until(is_exported, 20)


def test_what_is_done_is_not_done_again_and_needs_no_ray(shards, expected):
    before = files_of(expected)
    line = [sys.executable, "-c", WITHOUT_RAY, *arguments(shards, expected)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == run_program(shards, expected).stdout
    assert done.stdout.startswith(f"nothing to do: all {NUM_SHARDS} parts were there\n")
    assert files_of(expected) == before


def test_without_ray_the_error_says_what_to_install(shards, tmp_path):
    line = [sys.executable, "-c", WITHOUT_RAY, *arguments(shards, tmp_path / "out")]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: catlip.ray needs ray: ")
    assert ended.stderr.endswith("hint: install it: pip install ray\n")


def test_a_worker_that_is_killed_loses_nothing(cluster, shards, expected, tmp_path):
    made = []

    def kill() -> None:
        os.kill(until(part_workers)[0].pid, signal.SIGKILL)
        made.append(len(receipts(tmp_path / "out")))

    thread = during(tmp_path / "out", kill)
    prep(shards, tmp_path / "out")
    thread.join()
    assert made and made[0] < NUM_SHARDS
    assert_same(tmp_path / "out", expected)


def test_a_node_that_is_removed_loses_nothing(cluster, shards, expected, tmp_path):
    made = []

    def remove() -> None:
        [node] = cluster.worker_nodes
        made.append(len(receipts(tmp_path / "out")))
        cluster.remove_node(node, allow_graceful=False)

    thread = during(tmp_path / "out", remove)
    prep(shards, tmp_path / "out")
    thread.join()
    cluster.add_node(**NODE)
    assert made and made[0] < NUM_SHARDS
    assert_same(tmp_path / "out", expected)


def test_a_driver_that_is_killed_goes_on_from_the_receipts(cluster, shards, expected, tmp_path):
    output = tmp_path / "out"
    killed = driver(shards, output, cluster.address)
    until(lambda: len(receipts(output)) >= 2)
    killed.kill()
    killed.communicate()
    until(lambda: not part_workers())
    made = {path: path.stat().st_mtime_ns for path in receipts(output)}
    assert 2 <= len(made) < NUM_SHARDS and not (output / "manifest").exists()
    next_one = driver(shards, output, cluster.address)
    out, err = next_one.communicate(timeout=120)
    assert next_one.returncode == 0, err
    assert f"{output}: snapshot 1, 479 rows from 480 samples in {NUM_SHARDS} parts" in out
    # The last line of a log that is no terminal.
    assert f'"parts": {NUM_SHARDS}, "of": {NUM_SHARDS}' in err
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert_same(output, expected)


def test_a_driver_that_is_asked_to_stop_says_how_to_go_on(cluster, shards, expected, tmp_path):
    output = tmp_path / "out"
    stopped = driver(shards, output, cluster.address, "--quiet")
    until(lambda: len(receipts(output)) >= 2)
    stopped.send_signal(signal.SIGTERM)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 9, err
    assert "error: stopped by a signal after " in err and f" of {NUM_SHARDS} parts" in err
    assert "\nhint: start the same command again to go on\n" in err
    until(lambda: not part_workers())
    prep(shards, output)
    assert_same(output, expected)


def test_a_node_that_is_too_small_is_told_of(cluster, shards, tmp_path):
    too_much = "runtime.memory_bytes=10000000000000"
    waiting = driver(shards, tmp_path / "out", cluster.address, "--set", too_much)
    until(lambda: "warning: no node of the cluster has the 1 CPUs and 10000.2 GB that a task is"
          in waiting.stderr.readline())
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 9


def both_errors(shards: Path, tmp_path: Path, *settings: str) -> tuple[str, str]:
    """What the program says on standard error, and what is raised here, of the same output."""
    ended = run_program(shards, tmp_path / "program", *settings)
    with pytest.raises(catlip.CatlipError) as raised:
        prep(shards, tmp_path / "ray", *settings)
    assert ended.returncode == raised.value.exit_code
    assert (raised.value.hint or "") in ended.stderr
    said = f"error: {raised.value}\n".replace(str(tmp_path / "ray"), str(tmp_path / "program"))
    return ended.stderr, said


def test_a_wrong_setting_has_the_words_of_the_program(shards, tmp_path):
    program, ours = both_errors(shards, tmp_path, "image.qualty=3")
    assert program == ours and "image.quality" in ours
    program, ours = both_errors(tmp_path / "nowhere", tmp_path)
    assert program == ours and "matches no file" in ours


def some_of(shards: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    for path in sorted(shards.iterdir())[:count]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_spent_budget_has_the_words_of_the_program(cluster, shards, tmp_path):
    few = some_of(shards, tmp_path / "few", 2)
    program, ours = both_errors(few, tmp_path, "budget.probation=60", "budget.failure_rate=0.0")
    assert program == ours
    start = "error: too many bad samples: 1 of 80 (1.2 %), the budget is 0.0 % (last: shard s-001"
    assert ours.startswith(start)
    # The parts that were made stay: with another budget the job is done.
    for name, run in (("ray", prep), ("program", run_program)):
        run(few, tmp_path / name, "budget.failure_rate=0.1")
    assert_same(tmp_path / "ray", tmp_path / "program")
    _, ours = both_errors(few, tmp_path / "stop", "budget.on_bad_sample=stop")
    start = "error: too many bad samples: 1 of 40, the budget is 0 (last: shard s-001"
    assert ours.startswith(start)


def test_damaged_and_changed_shards_have_the_words_of_the_program(cluster, shards, tmp_path):
    few = some_of(shards, tmp_path / "few", 1)
    data = (few / "s-000.tar").read_bytes()
    (few / "s-000.tar").write_bytes(data[: len(data) // 2 + 700])
    program, ours = both_errors(few, tmp_path)
    assert program == ours and "cannot be read whole, the budget is 0" in ours
    (few / "s-000.tar").write_bytes(data)
    program, ours = both_errors(few, tmp_path)
    assert program == ours and "have changed since their parts were made" in ours
    for name, run in (("ray", prep), ("program", run_program)):
        run(few, tmp_path / name, "runtime.redo_changed=true")
    assert_same(tmp_path / "ray", tmp_path / "program")


def test_an_error_of_a_task_keeps_its_hint_and_exit_code(shards, tmp_path):
    job = PrepJob([str(shards / "*.tar")], tmp_path / "out", None, SETTINGS)
    with pytest.raises(catlip.CatlipError) as raised:
        _prep.make(job.spec(1), job.task(0).replace(b"s-000.tar", b"s-999.tar"))
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again) == str(raised.value) and "s-999.tar" in str(again)
    assert (again.hint, again.exit_code) == (raised.value.hint, 5)


def test_tallies_merge_in_any_order(shards, tmp_path):
    job = PrepJob([str(shards / "*.tar")], tmp_path / "out", None, SETTINGS)
    tallies = [_prep.make(job.spec(1), job.task(index)) for index in range(4)]
    left = merge_tallies([merge_tallies(tallies[:2]), merge_tallies(tallies[2:])])
    right = merge_tallies([tallies[3], merge_tallies([tallies[1], tallies[0]]), tallies[2]])
    assert left == right and tally_numbers(left)[:4] == [4, 160, 159, 1]
    job.take(left)
    assert (job.parts_made, job.samples, job.rejected) == (4, 160, 1)
    again = PrepJob([str(shards / "*.tar")], tmp_path / "out", None, SETTINGS)
    assert (len(again), again.parts_made) == (NUM_SHARDS - 4, 4)


@pytest.mark.parametrize("what", ["scaling", "overhead", "driver"])
def test_the_benchmark_runs_small(what):
    bench = Path(__file__).parents[1] / "benches/ray_overhead.py"
    line = [sys.executable, str(bench), what, "--tiny"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    secs = [value for line in lines for key, value in line.items() if "secs" in key]
    assert lines and all(value > 0 for value in secs)
