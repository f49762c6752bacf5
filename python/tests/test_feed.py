"""The feed, over shards that the tests draw."""

import gc
import json
import multiprocessing
import os
import random
import threading
import time

import drawn
import pytest

import catlip

numpy = pytest.importorskip("numpy")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return drawn.shards(tmp_path_factory.mktemp("shards"))


def feed_of(data, *settings, **named):
    return catlip.Feed(data, settings=(*drawn.SETTINGS, *settings), **named)


def describe(batch):
    """All that a batch says, copied."""
    arrays = (batch.images, batch.labels.offsets, batch.labels.ids, batch.weights, batch.positions)
    of_arrays = [numpy.array(array).tobytes() for array in arrays]
    return [batch.epoch, batch.step, batch.ids, *of_arrays]


def numbers(batch):
    """Which image each row shows: by its colour."""
    return [round(int(red) / 4) for red in numpy.asarray(batch.images)[:, 0, 16, 16]]


def walks(feed, epochs):
    return [[describe(batch) for batch in feed] for _ in range(epochs)]


def test_an_epoch_shows_every_image_once_with_its_labels(data):
    feed = feed_of(data, "feed.last_batch='pad'")
    assert len(feed) == 6
    words = [word for _, word in feed.vocab]
    assert sorted(words) == ["car", "dog", "tree"]
    assert feed.num_labels == 3
    seen = []
    for number, batch in enumerate(feed):
        assert (batch.epoch, batch.step, len(batch)) == (0, number, 8)
        assert batch.images.shape == (8, 3, 32, 32)
        assert batch.images.dtype == "uint8"
        weights = numpy.asarray(batch.weights)
        offsets, ids = map(numpy.asarray, batch.labels)
        assert weights.dtype == numpy.float32
        assert offsets.dtype == ids.dtype == numpy.int64
        for row, image in enumerate(numbers(batch)):
            if weights[row] == 0:
                assert batch.ids[row] == "0" * 32
                assert offsets[row] == offsets[row + 1]
                assert not numpy.asarray(batch.images)[row].any()
                continue
            found = {words[label] for label in ids[offsets[row]:offsets[row + 1]]}
            assert found == ({"car", "tree"} if image % 2 else {"dog"})
            seen.append(image)
    assert sorted(seen) == list(range(45))


def test_each_loop_is_one_epoch_and_goes_on_after_a_break(data):
    feed = feed_of(data)
    expected = walks(feed_of(data), 3)
    assert [len(epoch) for epoch in expected] == [5, 5, 5]
    assert expected[0][0][2] != expected[1][0][2]
    found = []
    for batch in feed:
        found.append(describe(batch))
        if feed.step == 2:
            break
    assert (feed.epoch, feed.step) == (0, 2)
    found += [describe(batch) for batch in feed]
    assert (feed.epoch, feed.step) == (1, 0)
    assert found == expected[0]
    feed.set_epoch(1)
    walk = iter(feed)
    found = [describe(next(walk)), describe(next(walk))]
    # It is in that epoch, so it stays where it is.
    feed.set_epoch(1)
    assert found + [describe(batch) for batch in walk] == expected[1]
    # A walk that has ended stays ended.
    assert list(walk) == []
    feed.set_epoch(0)
    assert walks(feed, 3) == expected
    # A loop that counts steps, and never asks whether there are more.
    feed.set_epoch(0)
    found = []
    for _ in range(3):
        walk = iter(feed)
        found.append([describe(next(walk)) for _ in range(len(feed))])
    assert found == expected


def test_a_data_set_in_a_store_is_fed_as_one_on_the_disk(data, s3, monkeypatch, tmp_path):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    prep = drawn.program("catlip-prep")
    if prep is None:
        pytest.skip("no catlip-prep")
    here, there = str(tmp_path / "fed"), "s3://lake/fed"
    for place in (here, there):
        done = drawn.run_program(prep, "run", "--quiet", "--input", data, "--output", place)
        assert done.returncode == 0, done.stderr
    expected = walks(feed_of(here), 2)
    assert walks(feed_of(there), 2) == expected
    # It goes on in the store from where it stood on the disk.
    feed = feed_of(here)
    [next(iter(feed)) for _ in range(2)]
    rest = feed_of(there)
    rest.load_state_dict(feed.state_dict())
    assert walks(rest, 1) == [expected[0][2:]]
    with pytest.raises(catlip.CatlipError, match="there is no data set at s3://lake/nothing"):
        catlip.Feed("s3://lake/nothing")


def test_arrays_are_shared_and_not_copied(data):
    torch = pytest.importorskip("torch")
    for batch in feed_of(data):
        for array in (batch.images, batch.labels.offsets, batch.labels.ids, batch.weights):
            tensor, numbers_of_numpy = torch.from_dlpack(array), numpy.asarray(array)
            assert tensor.data_ptr() == numbers_of_numpy.ctypes.data
            assert tuple(tensor.shape) == array.shape == numbers_of_numpy.shape
            assert array.strides == numbers_of_numpy.strides
            assert numpy.from_dlpack(array).ctypes.data == tensor.data_ptr()
            assert torch.equal(tensor, torch.from_numpy(numbers_of_numpy))
        images = torch.from_dlpack(batch.images)
        assert images.is_contiguous(memory_format=torch.channels_last)
        images[0, 0, 0, 0] = 77
        assert numpy.asarray(batch.images)[0, 0, 0, 0] == 77


def test_both_layouts_are_the_same_bytes(data):
    channels_last = feed_of(data, layout="nhwc")
    for first, last in zip(feed_of(data), channels_last, strict=True):
        assert last.images.shape == (8, 32, 32, 3)
        last = numpy.asarray(last.images)
        assert last.flags.c_contiguous
        assert (numpy.asarray(first.images) == last.transpose(0, 3, 1, 2)).all()


def test_a_view_outlives_its_batch_and_the_feed(data):
    torch = pytest.importorskip("torch")
    feed = feed_of(data)
    batch = next(iter(feed))
    views = [torch.from_dlpack(batch.images), numpy.asarray(batch.images)]
    before = views[0].clone()
    del batch
    # Enough steps to use every other buffer again.
    for _ in range(3):
        for _ in feed:
            pass
    del feed
    gc.collect()
    assert all(torch.equal(torch.as_tensor(view), before) for view in views)


def test_a_buffer_goes_back_when_its_last_view_is_gone(data):
    feed = feed_of(data, "feed.queue_batches=2")
    addresses = set()
    for _ in range(4):
        for batch in feed:
            addresses.add(numpy.asarray(batch.images).ctypes.data)
    assert len(addresses) <= 3


def test_batches_that_are_kept_do_not_stop_the_feed(data):
    feed = feed_of(data, "feed.queue_batches=1")
    kept = [batch for _ in range(4) for batch in feed]
    assert len(kept) == 20
    assert [describe(batch) for batch in kept] == sum(walks(feed_of(data), 4), [])


def test_targets_are_dense_on_demand(data):
    for batch in feed_of(data):
        targets = numpy.asarray(batch.targets())
        assert targets.shape == (8, 3) and targets.dtype == numpy.float32
        offsets, ids = map(numpy.asarray, batch.labels)
        for row in range(8):
            assert numpy.flatnonzero(targets[row]).tolist() == ids[
                offsets[row]:offsets[row + 1]].tolist()
    # Labels may be changed in place, to others that there are.
    ids[0] = 2
    assert numpy.asarray(batch.targets())[0, 2] == 1
    ids[0] = 3
    with pytest.raises(catlip.CatlipError, match="label 3 of row 0, expected 0 to 3"):
        batch.targets()


def test_a_state_goes_on_exactly_with_any_number_of_ranks(data):
    expected = walks(feed_of(data), 3)
    feed = feed_of(data)
    for number in range(2):
        for batch in feed:
            state = json.loads(json.dumps(feed.state_dict()))
            # Behind the last batch of an epoch the next one is left.
            is_last = batch.step == 4
            epoch, done = (number + 1, 0) if is_last else (number, batch.step + 1)
            same = feed_of(data, "feed.threads=1", "feed.queue_batches=1")
            same.load_state_dict(state)
            assert (same.epoch, same.step) == (feed.epoch, feed.step) == (epoch, done)
            assert [describe(batch) for batch in same] == expected[epoch][done:]
            assert same.epoch == epoch + 1
            ranks = [feed_of(data, rank=rank, world_size=3) for rank in range(3)]
            for rank in ranks:
                rank.load_state_dict(state)
            steps = [sum((part.ids for part in parts), [])
                     for parts in zip(*ranks, strict=True)]
            assert [sorted(ids) for ids in steps] == [
                sorted(batch[2]) for batch in expected[epoch][done:]]
        state = feed.state_dict()
        assert (state["cursor"]["epoch"], state["cursor"]["position"]) == (number + 1, 0)


def test_a_state_of_another_order_is_refused(data, tmp_path):
    state = feed_of(data).state_dict()
    for setting, words in (
        ("train.batch=4", "train.batch 8, this one has 4"),
        ("train.seed=1", "train.seed 0, this one has 1"),
        ("data.holdout_percent=20", "data.holdout_percent 0.0, this one has 20.0"),
    ):
        with pytest.raises(catlip.CatlipError, match=words) as refused:
            feed_of(data, setting).load_state_dict(state)
        assert refused.value.exit_code == 6
        assert refused.value.hint.startswith("go on with the data, vocabulary and settings")
    other = drawn.shards(tmp_path, num_rows=16)
    with pytest.raises(catlip.CatlipError, match="the state is of a feed with data "):
        feed_of(other).load_state_dict(state)
    with pytest.raises(catlip.CatlipError, match="no state of a feed: unknown field `step`"):
        feed_of(data).load_state_dict({"step": 3})


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_order_is_that_of_catlip_train(data, world_size):
    program = drawn.program("catlip-train")
    if program is None:
        pytest.skip("catlip-train is not built")
    for rank in range(world_size):
        flags = ["--data", data, "--ids", "--world-size", str(world_size), "--rank", str(rank)]
        settings = [flag for setting in drawn.SETTINGS for flag in ("--set", setting)]
        for start in (0, 2):
            place = ["--epochs", "2", "--start-step", str(start)]
            printed = drawn.run_program(program, "feed", *flags, *settings, *place)
            assert printed.returncode == 0, printed.stderr
            feed = feed_of(data, rank=rank, world_size=world_size)
            if start:
                first = feed_of(data)
                for batch in first:
                    if batch.step + 1 == start:
                        break
                feed.load_state_dict(first.state_dict())
            lines = [
                " ".join(map(str, [batch.step, batch.images.shape[2], len(batch), *batch.ids]))
                for _ in range(2) for batch in feed
            ]
            assert lines == printed.stdout.splitlines()


def test_errors_have_the_words_hints_and_codes_of_the_programs(data, tmp_path):
    with pytest.raises(catlip.CatlipError) as error:
        catlip.Feed(tmp_path / "nowhere")
    assert "nowhere" in str(error.value)
    assert error.value.exit_code == 5
    assert "catlip-prep run" in error.value.hint
    for setting in ("train.bach=8", "feed.lanes=0", "train.batch=4000"):
        with pytest.raises(catlip.CatlipError) as error:
            next(iter(catlip.Feed(data, settings=[setting])))
        program = drawn.program("catlip-train")
        if program is not None:
            printed = drawn.run_program(
                program, "bench", "feed", "--data", data, "--set", setting)
            assert printed.returncode == error.value.exit_code
            # That program says first which part of it had to end.
            said = printed.stderr.strip().replace("the feed ended early\n  caused by: ", "")
            assert said == f"error: {error.value}"
    vocab = tmp_path / "vocab.parquet"
    vocab.write_bytes(b"no table")
    with pytest.raises(catlip.CatlipError, match="is no vocabulary") as error:
        catlip.Feed(data, vocab=vocab)
    assert error.value.exit_code == 5


def test_arguments_that_cannot_be_are_refused(data):
    with pytest.raises(ValueError, match='layout is "?\'?chw'):
        catlip.Feed(data, layout="chw")
    with pytest.raises(TypeError, match="expected a list of texts"):
        catlip.Feed(data, settings="train.batch=8")
    with pytest.raises(ValueError, match="rank 2 of 2: expected 0 to 1"):
        catlip.Feed(data, rank=2, world_size=2)
    with pytest.raises(catlip.CatlipError, match="rank 6 of 7: expected 1 to 6 ranks"):
        feed_of(data, rank=6, world_size=7)
    with pytest.raises(ValueError, match="one rank reads the held-out rows"):
        feed_of(data, rank=0, world_size=2, held_out=True)


def test_ranks_are_those_of_torchrun(data, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match="RANK is 1, but nothing says the world_size"):
        feed_of(data)
    monkeypatch.setenv("WORLD_SIZE", "3")
    feed = feed_of(data)
    assert (feed.rank, feed.world_size) == (1, 3)
    assert walks(feed, 1) == walks(feed_of(data, rank=1, world_size=3), 1)
    # What is said wins over the environment.
    assert feed_of(data, rank=0, world_size=1).world_size == 1
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ValueError, match="WORLD_SIZE is 'many', expected a number"):
        feed_of(data)


def test_held_out_rows_are_the_others(data):
    settings = ("data.holdout_percent=40", "feed.last_batch='pad'")
    ids = {}
    for held_out in (False, True):
        feed = feed_of(data, *settings, held_out=held_out, captions=True)
        batches = list(feed)
        real = [(id, tuple(captions)) for batch in batches
                for id, captions, weight in zip(
                    batch.ids, batch.captions, numpy.asarray(batch.weights))
                if weight]
        assert {captions for _, captions in real} == {("a dog",), ("a car and a tree",)}
        ids[held_out] = [id for id, _ in real]
        if held_out:
            # Each walk shows the same.
            assert [describe(batch)[2:] for batch in feed] == [
                describe(batch)[2:] for batch in batches]
    assert len(set(ids[False]) | set(ids[True])) == len(ids[False]) + len(ids[True]) == 45
    assert len(ids[True]) > 5


def test_a_rotten_image_keeps_its_place_with_weight_zero(tmp_path):
    noise = random.Random(5)
    images = [drawn.png(120, 100, (0, 0, 0), noise) for _ in range(16)]
    drawn.shard(tmp_path / "a.tar", [(f"{n:03}", images[n], "a dog") for n in range(16)])
    data = str(tmp_path / "*.tar")
    feed_of(data)
    # After the index was made, and where its check of the shard's two ends does not look.
    path = tmp_path / "a.tar"
    at = path.read_bytes().index(images[8]) + 1000
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"rotten")
    feed = feed_of(data)
    weights = numpy.concatenate([numpy.array(batch.weights) for batch in feed])
    assert sorted(weights) == [0] + [1] * 15
    stats = feed.stats()
    # Of what was read ahead, too.
    assert stats["bad_rows"] >= 1
    assert "sample " in stats["last_bad_row"]
    with pytest.raises(catlip.CatlipError, match="1 rows did not decode, 0 may") as error:
        for _ in range(3):
            list(feed_of(data, "feed.bad_rows_max=0"))
    assert error.value.exit_code == 4


def threads():
    return len(os.listdir("/proc/self/task"))


def settled_threads():
    """The number of threads, once those of feeds that are gone have ended."""
    gc.collect()
    while True:
        before = threads()
        time.sleep(0.5)
        if threads() == before:
            return before


def test_a_feed_that_is_dropped_or_closed_ends_its_threads(data):
    # Pools that the first feed begins stay.
    next(iter(feed_of(data)))
    before = settled_threads()
    feed = feed_of(data)
    assert threads() == before, "it begins with the first batch"
    for batch in feed:
        break
    assert threads() >= before + 5
    feed.close()
    assert threads() == before
    # It goes on where it was.
    expected = walks(feed_of(data), 1)[0]
    assert [describe(batch) for batch in feed] == expected[1:]
    next(iter(feed))
    assert threads() >= before + 5
    del feed
    gc.collect()
    assert threads() == before
    assert len(describe(batch)) == 8


INTERRUPTED = """
import os, signal, sys, threading, catlip
feed = catlip.Feed(sys.argv[1], settings=["train.batch=64", "feed.threads=1"])

def interrupt():
    while not feed.stats().get("decoded"):
        pass
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    next(iter(feed))
except KeyboardInterrupt:
    print("interrupted after", feed.stats()["decoded"])
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """64 images, each of which takes long to decode."""
    folder = tmp_path_factory.mktemp("slow")
    image = drawn.png(4000, 4000, (1, 2, 3))
    drawn.shard(folder / "a.tar", [(f"{n:03}", image, "a dog") for n in range(64)])
    data = str(folder / "a.tar")
    catlip.Feed(data, settings=["train.batch=64"])
    return data


def test_ctrl_c_interrupts_a_wait(slow):
    with drawn.python(INTERRUPTED, slow) as child:
        output, errors = child.communicate(timeout=300)
    assert output.startswith("interrupted after "), (output, errors)
    # The batch of 64 was not waited for.
    assert 1 <= int(output.split()[-1]) < 64, output


def test_other_threads_run_while_it_waits(slow):
    feed = catlip.Feed(slow, settings=["train.batch=64", "feed.threads=1"])
    batches = []
    waiting = threading.Thread(target=lambda: batches.append(next(iter(feed))))
    waiting.start()
    turns = 0
    while turns < 20 and not batches:
        time.sleep(0.01)
        # They may ask the feed, too: who waits for a batch looks away every tenth of a second.
        assert feed.step in (0, 1)
        turns += 1
    assert turns >= 3, "it kept the lock until the batch was there"
    waiting.join(300)
    # Its one step is done, so it is in the next epoch.
    assert (batches[0].step, feed.epoch, feed.step) == (0, 1, 0)


def in_child(feed, pipe):
    try:
        next(iter(feed))
        pipe.send("it fed")
    except catlip.CatlipError as error:
        pipe.send(str(error))


def test_a_forked_child_is_refused_with_words(data):
    feed = feed_of(data)
    batch = next(iter(feed))
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=in_child, args=(feed, theirs))
    child.start()
    assert ours.poll(60)
    words = ours.recv()
    assert f"made in process {os.getpid()} and is used in process {child.pid}" in words
    assert "hint: make the Feed in the process that uses it" in words
    child.join(60)
    # It ends well, though it drops a feed and a batch of threads that it has not.
    assert child.exitcode == 0
    del batch
    assert len(list(feed)) == 4


class Mlock:
    """Pages locked by the kernel."""

    def __init__(self):
        import ctypes

        self.libc = ctypes.CDLL(None, use_errno=True)
        self.pages, self.most = {}, 0

    def register(self, address, num_bytes):
        import ctypes

        size = ctypes.c_size_t(num_bytes)
        if self.libc.mlock(ctypes.c_void_p(address), size) != 0:
            raise OSError(ctypes.get_errno(), "mlock")
        self.pages[address] = size
        self.most = max(self.most, len(self.pages))

    def unregister(self, address):
        import ctypes

        assert self.libc.munlock(ctypes.c_void_p(address), self.pages.pop(address)) == 0


def test_pages_are_locked_as_long_as_they_are_there(data):
    lock = Mlock()
    feed = feed_of(data, "feed.queue_batches=2", page_lock=lock)
    for batch in feed:
        assert numpy.asarray(batch.images).ctypes.data in lock.pages
    assert lock.most == 3
    del feed
    gc.collect()
    assert len(lock.pages) == 1, "the batch is still there"
    del batch
    gc.collect()
    assert not lock.pages


class Refusing:
    def register(self, address, num_bytes):
        raise RuntimeError("no more pages")


def test_pages_that_cannot_be_locked_are_an_error(data):
    with pytest.raises(catlip.CatlipError, match="RuntimeError: no more pages") as error:
        next(iter(feed_of(data, page_lock=Refusing())))
    assert "cannot be locked in memory for the GPU" in str(error.value)
    assert error.value.exit_code == 3


def test_a_lock_for_a_gpu_needs_one(data):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(catlip.CatlipError, match="page_lock=True needs a GPU") as error:
        feed_of(data, page_lock=True)
    assert error.value.hint.startswith("leave page_lock out")


def test_pages_are_locked_for_a_gpu(data):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    from catlip.torch import to_device

    feed = feed_of(data, page_lock=True)
    expected = walks(feed_of(data), 1)[0]
    for batch in feed:
        assert torch.from_dlpack(batch.images).is_pinned()
    feed.set_epoch(0)
    for moved, batch in zip(to_device(feed, "cuda"), expected, strict=True):
        assert moved["images"].cpu().numpy().tobytes() == batch[3]


def test_stats_say_what_it_did(data):
    feed = feed_of(data)
    assert feed.stats() == {}
    list(feed)
    stats = feed.stats()
    assert stats["decoded"] >= 40
    assert stats["bad_rows"] == 0 and stats["last_bad_row"] is None
    assert stats["decode_secs"] > 0
