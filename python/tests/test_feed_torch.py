"""The feed as a data set of PyTorch, and the examples, where their packages are installed."""

import json
import os
import pickle
import re
import subprocess
import sys

import drawn
import pytest

import catlip

torch = pytest.importorskip("torch")

from catlip.torch import IterableFeed, to_device  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return drawn.shards(tmp_path_factory.mktemp("shards"))


def loader(data, **named):
    images = IterableFeed(data, settings=drawn.SETTINGS)
    return torch.utils.data.DataLoader(images, batch_size=None, **named)


def test_a_data_loader_hands_over_the_same_memory(data):
    feed = catlip.Feed(data, settings=drawn.SETTINGS)
    batches = loader(data)
    assert len(batches) == len(feed) == 5
    for _ in range(2):
        for batch, expected in zip(batches, feed, strict=True):
            assert torch.equal(batch["images"], torch.from_dlpack(expected.images))
            assert torch.equal(batch["label_ids"], torch.from_dlpack(expected.labels.ids))
            assert torch.equal(batch["label_offsets"], torch.from_dlpack(expected.labels.offsets))
            assert torch.equal(batch["weights"], torch.from_dlpack(expected.weights))
            assert batch["ids"] == expected.ids


def test_workers_of_a_data_loader_are_refused_with_words(data):
    for start in ("fork", "spawn"):
        with pytest.raises(Exception, match="use DataLoader\\(..., num_workers=0\\)"):
            list(loader(data, num_workers=2, multiprocessing_context=start))


def test_a_copy_for_another_process_opens_a_feed_of_its_own(data):
    images = IterableFeed(data, settings=drawn.SETTINGS)
    first = [batch["ids"] for batch in images]
    copy = pickle.loads(pickle.dumps(images))
    assert [batch["ids"] for batch in copy] == first


def test_a_device_gets_the_same(data):
    images = IterableFeed(data, settings=drawn.SETTINGS)
    feed = catlip.Feed(data, settings=drawn.SETTINGS)
    for batch, expected in zip(to_device(feed, "cpu"), images, strict=True):
        assert torch.equal(batch["images"], expected["images"])
        assert batch["ids"] == expected["ids"]


def run(command, folder, **env):
    """Runs an example to its end."""
    paths = os.pathsep.join([os.path.dirname(os.path.dirname(catlip.__file__)),
                             os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
           "HF_HUB_OFFLINE": "1", **env}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True,
                          check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def flags(data):
    return [data, *(flag for setting in drawn.SETTINGS for flag in ("--set", setting))]


def steps(printed):
    """What the ranks of the plain loop printed: images of each step, and its losses."""
    found = {}
    line = r"epoch (\d+) step (\d+) rank (\d+) images (\d+) loss ([\d.]+)"
    for epoch, step, _, images, loss in re.findall(line, printed):
        entry = found.setdefault((int(epoch), int(step)), [0, 0.0, 0])
        entry[0] += int(images)
        entry[1] += float(loss)
        entry[2] += 1
    return {place: (images, round(loss / ranks, 3))
            for place, (images, loss, ranks) in sorted(found.items())}


def test_the_plain_loop_runs_under_torchrun_and_goes_on_with_other_ranks(data, tmp_path):
    script = [str(drawn.EXAMPLES / "torch_loop.py"), *flags(data), "--epochs", "2"]
    alone = steps(run([sys.executable, *script, "--checkpoint", "alone.pt"], tmp_path))
    assert list(alone) == [(epoch, step) for epoch in range(2) for step in range(1, 6)]
    assert {images for images, _ in alone.values()} == {8}
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
           *script, "--checkpoint", "two.pt"]
    begun = steps(run([*two, "--steps", "3"], tmp_path))
    assert list(begun) == [(0, 1), (0, 2), (0, 3)]
    went_on = steps(run([sys.executable, *script, "--checkpoint", "two.pt"], tmp_path))
    together = {**begun, **went_on}
    assert list(together) == list(alone)
    for place, (images, loss) in alone.items():
        assert together[place][0] == images
        # The same rows and weights, summed in another order.
        assert together[place][1] == pytest.approx(loss, abs=2e-3), place


def test_lightning_trains_on_a_feed_and_goes_on_in_an_epoch(data, tmp_path):
    pytest.importorskip("lightning")
    script = [sys.executable, str(drawn.EXAMPLES / "lightning_module.py"), *flags(data)]

    def lines(printed):
        return re.findall(r"step (\d+) ids (\S+) loss ([\d.]+)", printed)

    whole = lines(run([*script, "--epochs", "2", "--out", "whole"], tmp_path))
    assert [int(step) for step, _, _ in whole] == list(range(10))
    begun = lines(run([*script, "--epochs", "2", "--steps", "3", "--save-every", "3",
                       "--out", "cut"], tmp_path))
    rest = lines(run([*script, "--epochs", "2", "--out", "cut", "--resume", "cut/last.ckpt"],
                     tmp_path))
    ids = [ids for _, ids, _ in whole]
    assert [ids for _, ids, _ in begun] == ids[:3]
    assert [ids for _, ids, _ in rest] == ids[3:]


def test_the_trainer_of_transformers_trains_on_a_feed(data, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    script = [str(drawn.EXAMPLES / "transformers_trainer.py"), *flags(data), "--image-px", "32"]
    printed = run([sys.executable, *script, "--steps", "7", "--save-every", "3", "--out", "one"],
                  tmp_path)
    losses = [float(loss) for loss in re.findall(r"'loss': '?([\d.]+)", printed)]
    assert len(losses) == 7
    state = json.loads((tmp_path / "one" / "checkpoint-3" / "feed.json").read_text())
    assert state["cursor"]["position"] == 3 * 8
    state = json.loads((tmp_path / "one" / "checkpoint-6" / "feed.json").read_text())
    assert (state["cursor"]["epoch"], state["cursor"]["position"]) == (1, 8)
    printed = run([sys.executable, *script, "--steps", "7", "--save-every", "3", "--out", "one",
                   "--resume", "one/checkpoint-3"], tmp_path)
    rest = [float(loss) for loss in re.findall(r"'loss': '?([\d.]+)", printed)]
    assert rest == pytest.approx(losses[3:], abs=2e-4)


def test_the_benchmark_runs(tmp_path):
    pytest.importorskip("PIL")
    pytest.importorskip("torchvision")
    bench = drawn.ROOT / "python" / "benches" / "feed.py"
    printed = run([sys.executable, str(bench), "--tiny"], tmp_path)
    assert re.search(r"catlip +\d+ images/s", printed), printed
