"""What the tests share: the programs that were built beside the wheel, a data set of the demo."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Where `cargo build` puts programs; `scripts/python.sh` says it to the tests.
BIN = Path(os.environ.get("CATLIP_BIN", ROOT / "target/release"))

Program = Callable[..., subprocess.CompletedProcess[str]]


def run_prep(*words: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `catlip-prep`, whatever its exit code."""
    program = BIN / "catlip-prep"
    if not program.is_file():
        pytest.fail(f"{program} is not built: cargo build --bins, or say where with CATLIP_BIN")
    command = [str(program), *map(str, words)]
    return subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="package")
def prep() -> Program:
    """Runs `catlip-prep` and expects success."""

    def run(*words: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
        done = run_prep(*words, text=text)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    return run


@pytest.fixture(scope="package")
def shards(tmp_path_factory: pytest.TempPathFactory, prep: Program) -> Path:
    """Shards of the demo: 96 scenes to train on, 32 held out."""
    folder = tmp_path_factory.mktemp("demo")
    prep("demo-data", "--output", folder / "shards", "--scenes", 96, "--heldout", 32)
    return folder / "shards"


@pytest.fixture(scope="package")
def data_set(shards: Path, prep: Program) -> Path:
    """The data set of the scenes to train on, with a column set of the rule `nouns` too."""
    output = shards.parent / "train"
    prep("run", "--quiet", "--input", shards / "train-*.tar", "--output", output)
    return output


@pytest.fixture(scope="package")
def captions(shards: Path, data_set: Path) -> list[str]:
    """The captions of that data set, row by row."""
    import pyarrow.parquet as parquet

    files = sorted((data_set / "captions").glob("*.parquet"))
    rows = [row for file in files for row in parquet.read_table(file)["captions"].to_pylist()]
    return [caption["text"] for row in rows for caption in row]


@pytest.fixture(scope="package")
def labels_of(prep: Program) -> Callable[..., list[list[str]]]:
    """What `catlip-prep labels` prints for captions."""

    def labels(captions: list[str], *words: str) -> list[list[str]]:
        lines = "".join(json.dumps({"caption": caption}) + "\n" for caption in captions)
        printed = prep("labels", *words, text=lines).stdout
        return [json.loads(line)["synsets"] for line in printed.splitlines()]

    return labels


@pytest.fixture(autouse=True)
def in_a_place_of_examples(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Examples of documents name `data/train`: they run where that is."""
    if request.node.__class__.__name__ == "DoctestItem":
        shards = request.getfixturevalue("shards")
        request.getfixturevalue("data_set")
        place = shards.parent / "data"
        if not place.exists():
            place.symlink_to(shards.parent, target_is_directory=True)
        monkeypatch.chdir(shards.parent)
    yield


@pytest.fixture(scope="package")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that lead to an S3 with the bucket `lake`, spoken by moto."""
    own = ROOT / ".deps/moto/bin/moto_server"
    program = str(own) if own.is_file() else shutil.which("moto_server")
    if program is None:
        pytest.skip("no moto_server (scripts/setup.sh --tests)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-H", "127.0.0.1", "-p", str(port)]
    silent = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=silent, stderr=silent)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                bucket = http.client.HTTPConnection("127.0.0.1", port)
                bucket.request("PUT", "/lake")
                assert bucket.getresponse().status == 200
                break
            assert server.poll() is None, "moto ended before it answered"
            time.sleep(0.1)
        else:
            pytest.fail("moto does not answer")
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()
