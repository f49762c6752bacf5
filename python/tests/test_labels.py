"""Labels as a notebook meets them: all kinds of captions, hostile ones too; and the program's."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import pandas
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import catlip
from conftest import Program, run_prep

LabelsOf = Callable[..., list[list[str]]]
DOGS = "dogs on a beach, dogs!"
DOGS_KEYS = ["n2084071", "n9217230", "n2084071"]
LISTS = pa.list_(pa.field("item", pa.string(), nullable=False))


@pytest.fixture(scope="module")
def labeler() -> catlip.Labeler:
    return catlip.Labeler()


def listed(arrays: tuple[catlip.Array, catlip.Array]) -> list[list[int]]:
    return [numpy.asarray(array).tolist() for array in arrays]


def ugly_captions(seed: int, count: int) -> list[str]:
    """Words that mean something between letters of every script, controls, entities, mojibake."""
    draw = random.Random(seed)
    words = ["dog", "Dogs", "ice cream", "&amp;", "cafÃ©", "naïve", "wolves", "1,000", "U.S.", "—"]
    words += ["\n", "\0", "\u200d", "🐕", "狗", "http://a.b/c?d=e", "don't", "men's", "black/white"]

    def word() -> str:
        if draw.random() < 0.7:
            return draw.choice(words)
        chars = (draw.randrange(0x110000) for _ in range(draw.randrange(6)))
        return "".join(chr(c) for c in chars if not 0xD800 <= c < 0xE000)

    return [" ".join(word() for _ in range(draw.randrange(12))) for _ in range(count)]


def test_a_caption_gives_its_keys_in_order_with_repeats(labeler: catlip.Labeler) -> None:
    assert labeler.keys(DOGS) == DOGS_KEYS
    assert labeler.wnids(DOGS) == ["n02084071", "n09217230", "n02084071"]
    assert labeler.keys("") == []
    assert labeler.id == "corenet-1"
    assert labeler.num_labels is None


def test_lists_and_tuples_give_lists_and_none_stays_none(labeler: catlip.Labeler) -> None:
    expected = [DOGS_KEYS, None, []]
    assert labeler.keys([DOGS, None, ""]) == expected
    assert labeler.keys((DOGS, None, "")) == expected
    assert labeler.keys([]) == []
    assert labeler.keys([None, None]) == [None, None]


@pytest.mark.parametrize("rule", ["corenet", "nouns"])
def test_labels_are_those_that_the_program_prints(
    rule: str, captions: list[str], labels_of: LabelsOf
) -> None:
    # The key of the first has four digits.
    texts = ["an entity", *captions, *ugly_captions(7, 3000)]
    labeler = catlip.Labeler(rule)
    for keys, labelled in (("corenet", labeler.keys), ("wnid", labeler.wnids)):
        expected = labels_of(texts, "--rule", rule, "--keys", keys)
        assert sum(map(len, expected)) > 1000
        assert labelled(texts) == expected
        assert labelled(pa.array(texts)).to_pylist() == expected
    assert [labeler.keys(text) for text in texts[-300:]] == labeler.keys(texts[-300:])


def test_settings_are_those_of_the_program(captions: list[str], labels_of: LabelsOf) -> None:
    texts = ["an ice cream at the traffic light", *captions]
    expected = labels_of(texts, "--rule", "nouns", "--set", "nouns.phrases=false")
    labeler = catlip.Labeler("nouns", settings=["nouns.phrases=false"])
    assert labeler.keys(texts) == expected
    assert labeler.id == "nouns-1.no-phrases"
    assert catlip.Labeler("nouns").keys(texts) != expected


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_every_arrow_type_of_strings_is_labelled_and_null_stays_null(
    labeler: catlip.Labeler, kind: pa.DataType
) -> None:
    texts = ["a dog", None, "", DOGS, "a caption that is longer than twelve bytes: a cat", None]
    # More rows than a thread takes at once, and nulls at the edges of blocks.
    texts = texts * 400
    array = pa.array(texts).cast(kind)
    expected = labeler.keys(texts)
    found = labeler.keys(array)
    found.validate(full=True)
    assert found.type == LISTS
    assert found.to_pylist() == expected
    assert found.null_count == array.null_count
    for start, length in ((1, 1), (511, 3), (7, 1500), (2399, 1), (2400, 0)):
        part = labeler.keys(array.slice(start, length))
        part.validate(full=True)
        assert part.to_pylist() == expected[start : start + length]


def test_a_chunked_array_gives_one_of_the_same_pieces(labeler: catlip.Labeler) -> None:
    chunked = pa.chunked_array([["a dog", None], [], [DOGS]], pa.string())
    found = labeler.keys(chunked)
    assert isinstance(found, pa.ChunkedArray)
    assert found.type == LISTS
    assert [len(chunk) for chunk in found.chunks] == [2, 0, 1]
    assert found.to_pylist() == [["n2084071"], None, DOGS_KEYS]
    assert labeler.keys(pa.chunked_array([], pa.string())).to_pylist() == []


def test_arrays_without_rows_or_captions_are_labelled(labeler: catlip.Labeler) -> None:
    assert labeler.keys(pa.array([], pa.string())).to_pylist() == []
    assert labeler.keys(pa.nulls(3)).to_pylist() == [None] * 3
    assert labeler.keys(pa.nulls(3, pa.string())).to_pylist() == [None] * 3
    keyed = pa.nulls(2, pa.dictionary(pa.int8(), pa.string()))
    assert labeler.keys(keyed).to_pylist() == [None] * 2
    assert listed(labeler.csr(pa.array([], pa.string()))) == [[0], []]


class Capsules:
    """An object of nobody that speaks the PyCapsule interface."""

    def __init__(self, array: object) -> None:
        self.array = array

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.array.__arrow_c_array__(requested_schema)  # type: ignore[attr-defined]


def test_what_speaks_the_capsule_interface_gives_an_array_that_speaks_it(
    labeler: catlip.Labeler,
) -> None:
    found = labeler.keys(Capsules(pa.array(["a dog", None])))
    assert isinstance(found, catlip.ArrowArray)
    assert len(found) == 2
    first, second = pa.array(found), pa.array(found)
    assert first.to_pylist() == [["n2084071"], None]
    # Taken over, not copied: both see the same memory.
    addresses = [array.values.buffers()[2].address for array in (first, second)]
    assert addresses[0] == addresses[1]
    del found
    assert second.to_pylist() == [["n2084071"], None]


def test_polars_series_are_labelled_and_taken_over(labeler: catlip.Labeler) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    series = polars.Series("caption", ["a dog", None, DOGS])
    found = polars.Series(labeler.keys(series))
    assert found.to_list() == [["n2084071"], None, DOGS_KEYS]


def test_a_producer_that_breaks_the_interface_is_told(labeler: catlip.Labeler) -> None:
    taken = pa.array(["a dog"]).__arrow_c_array__()

    class Fixed:
        def __init__(self, given: object) -> None:
            self.given = given

        def __arrow_c_array__(self) -> object:
            return self.given

    assert labeler.keys(Fixed(taken))
    with pytest.raises(ValueError, match="taken before"):
        labeler.keys(Fixed(taken))
    for wrong in (None, (1, 2), (taken[0],), (taken[1], taken[0])):
        with pytest.raises(ValueError):
            labeler.keys(Fixed(wrong))

    class Failing:
        def __arrow_c_stream__(self) -> object:
            raise OSError("the stream is gone")

    with pytest.raises(OSError, match="the stream is gone"):
        labeler.keys(Failing())


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        b"a dog",
        {"a dog"},
        numpy.array(["a dog"]),
        ["a dog", 3],
        ["a dog", b"a dog"],
        pa.array([1]),
        pa.array([["a dog"]]),
        pa.array([b"a dog"]),
        pa.table({"caption": ["a dog"]}),
        pa.array([1]).dictionary_encode(),
        pandas.Series([1, 2]),
    ],
    ids=repr,
)
def test_what_holds_no_captions_is_a_type_error_that_says_what_is_expected(
    labeler: catlip.Labeler, wrong: object
) -> None:
    for labelled in (labeler.keys, labeler.wnids, labeler.csr):
        with pytest.raises(TypeError, match="expected str"):
            labelled(wrong)


def test_half_a_surrogate_pair_is_named_with_row_and_index(labeler: catlip.Labeler) -> None:
    for wrong, row in ((["a dog", "a \ud83d dog"], 1), ("a \ud83d dog", 0)):
        with pytest.raises(catlip.CatlipError) as raised:
            labeler.keys(wrong)
        assert str(raised.value) == (
            f"row {row} cannot be labelled: it is not UTF-8: half of a surrogate pair at index 2"
        )
        assert raised.value.exit_code == 5


def strings_of(offsets: list[int], data: bytes) -> pa.Array:
    """An array that pyarrow does not check."""
    buffers = [None, pa.py_buffer(numpy.array(offsets, numpy.int32)), pa.py_buffer(data)]
    return pa.StringArray.from_buffers(len(offsets) - 1, buffers[1], buffers[2])


def test_bytes_that_are_no_utf_8_are_named_with_row_and_offset(labeler: catlip.Labeler) -> None:
    good = pa.array(["a dog"] * 3000)
    bad = strings_of([0, 5, 11], b"a dog" + b"a \xff dog"[:6])
    for captions, row in ((bad, 1), (pa.chunked_array([good, bad, bad]), 3001)):
        for labelled in (labeler.keys, labeler.csr):
            with pytest.raises(catlip.CatlipError) as raised:
                labelled(captions)
            assert str(raised.value) == (
                f"row {row} cannot be labelled: it is not UTF-8: byte 0xff at offset 2"
            )
            assert (raised.value.exit_code, raised.value.hint) == (5, None)


def test_offsets_that_lead_nowhere_are_named(labeler: catlip.Labeler) -> None:
    for offsets in ([0, 9, 4, 5], [0, -3, 4, 5]):
        with pytest.raises(catlip.CatlipError, match="row . cannot be labelled: its offsets"):
            labeler.keys(strings_of(offsets, b"a dog"))


def test_a_caption_of_ten_megabytes_is_labelled(labeler: catlip.Labeler) -> None:
    caption = "a dog " * (10_000_000 // 6)
    expected = ["n2084071"] * (10_000_000 // 6)
    assert labeler.keys(caption) == expected
    assert labeler.keys(pa.array([caption]))[0].as_py() == expected


def test_a_series_gives_a_series_with_its_index_and_name(labeler: catlip.Labeler) -> None:
    index = ["x", "y", "z", "w"]
    texts = ["a dog", None, DOGS, ""]
    plain = pandas.Series(texts, index=index, name="caption", dtype=object)
    plain["y"] = float("nan")
    found = labeler.keys(plain)
    assert isinstance(found, pandas.Series)
    assert (list(found.index), found.name) == (index, "caption")
    assert found.tolist() == [["n2084071"], None, DOGS_KEYS, []]
    assert listed(labeler.csr(plain))[0] == [0, 1, 1, 4, 4]
    for dtype in ("string[python]", "string[pyarrow]", pandas.ArrowDtype(pa.large_string())):
        found = labeler.keys(pandas.Series(texts, index=index, name="caption", dtype=dtype))
        assert (list(found.index), found.name) == (index, "caption")
        lists = [None if found.isna()[at] else list(found[at]) for at in index]
        assert lists == [["n2084071"], None, DOGS_KEYS, []]
    assert labeler.keys(pandas.Series([], dtype=object)).tolist() == []


def test_csr_without_a_vocabulary_has_offsets_of_wordnet(labeler: catlip.Labeler) -> None:
    for captions in ([DOGS, None, "", "a dog"], pa.array([DOGS, None, "", "a dog"])):
        offsets, ids = listed(labeler.csr(captions))
        assert offsets == [0, 3, 3, 3, 4]
        assert ids == [2084071, 9217230, 2084071, 2084071]
    assert listed(labeler.csr("a dog")) == [[0, 1], [2084071]]


def test_csr_arrays_are_read_where_they_lie(labeler: catlip.Labeler) -> None:
    offsets, ids = labeler.csr([DOGS, "a dog"])
    assert (len(offsets), offsets.dtype, ids.shape, ids.dtype) == (3, "int64", (4,), "int32")
    array = numpy.asarray(ids)
    assert (array.dtype, numpy.asarray(offsets).dtype) == (numpy.int32, numpy.int64)
    for taken in (array, numpy.from_dlpack(ids)):
        address = taken.__array_interface__["data"][0]
        assert address == ids.__array_interface__["data"][0]
    expected = array.tolist()
    del ids, offsets
    assert array.tolist() == expected
    assert numpy.asarray(labeler.csr([""])[1]).tolist() == []


def test_csr_with_a_vocabulary_has_its_labels_rising_and_none_twice(
    tmp_path: Path, data_set: Path, captions: list[str], prep: Program
) -> None:
    table, pickled = tmp_path / "vocab.parquet", tmp_path / "vocab.pkl"
    prep("vocab", "--input", data_set, "--output", table)
    prep("vocab", "--input", table, "--output", pickled)
    wnids = parquet.read_table(table)["wnid"].to_pylist()
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    plain = catlip.Labeler().wnids(captions)
    expected = [sorted({label_of[wnid] for wnid in row if wnid in label_of}) for row in plain]
    assert sum(map(len, expected)) > 100
    for vocab in (table, str(pickled)):
        labeler = catlip.Labeler(vocab=vocab)
        assert labeler.num_labels == len(wnids)
        offsets, ids = listed(labeler.csr(pa.array(captions)))
        rows = [ids[start:end] for start, end in zip(offsets, offsets[1:])]
        assert rows == expected
        assert labeler.wnids(captions) == plain


@pytest.mark.parametrize(
    "words, arguments",
    [
        (["--rule", "noun"], {"rule": "noun"}),
        (["--set", "nouns.phrase=false"], {"settings": ["nouns.phrase=false"]}),
        (["--set", "image.quality=3"], {"settings": ["image.quality=3"]}),
        (["--set", "caption.rule=nouns"], {"settings": ["caption.rule=nouns"]}),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_the_words_of_the_program(
    words: list[str], arguments: dict[str, object]
) -> None:
    done = run_prep("labels", *words, text="a dog\n")
    with pytest.raises(catlip.CatlipError) as raised:
        catlip.Labeler(**arguments)  # type: ignore[arg-type]
    assert f"error: {raised.value}" == done.stderr.strip()
    assert raised.value.exit_code == done.returncode
    hint = raised.value.hint
    assert (hint is None) == ("hint:" not in done.stderr)


def test_files_and_threads_that_are_wrong_are_told(tmp_path: Path) -> None:
    broken = tmp_path / "vocab.pkl"
    broken.write_bytes(b"no vocabulary")
    for vocab in (tmp_path / "none.parquet", broken):
        with pytest.raises(catlip.CatlipError, match=vocab.name) as raised:
            catlip.Labeler(vocab=vocab)
        assert raised.value.exit_code == 5
    for threads in (-1, 4097):
        with pytest.raises(catlip.CatlipError, match=f"`threads` is {threads}, expected 0 to 4096"):
            catlip.Labeler(threads=threads)
    with pytest.raises(TypeError):
        catlip.Labeler(3)  # type: ignore[arg-type]


def test_any_number_of_threads_gives_the_same_labels(captions: list[str]) -> None:
    array = pa.array(captions * 30)
    one = catlip.Labeler(threads=1).keys(array)
    assert len(array) > 2000
    for threads in (2, 7):
        assert catlip.Labeler(threads=threads).keys(array).equals(one)


def test_others_run_while_captions_are_labelled(captions: list[str]) -> None:
    array = pa.array(captions * 300)
    done = threading.Event()
    labelled: list[pa.Array] = []

    def label() -> None:
        labelled.append(catlip.Labeler(threads=1).keys(array))
        done.set()

    worker = threading.Thread(target=label)
    worker.start()
    turns = 0
    while not done.is_set():
        turns += 1
        time.sleep(0)
    worker.join()
    # With the GIL held there would be none between begin and end.
    assert turns > 20
    assert len(labelled[0]) == len(array)


INTERRUPTED = """
import numpy
import pyarrow as pa
import catlip
# One text of 64 kB, of which each row has a view: half an hour of work in little memory.
text = b"the and of with " * 4000
rows = 5_000_000
view = numpy.array([len(text), 0, 0, 0], numpy.int32)
views = pa.py_buffer(numpy.tile(view, rows))
captions = pa.Array.from_buffers(pa.string_view(), rows, [None, views, pa.py_buffer(text)])
print("begin", flush=True)
try:
    catlip.Labeler().csr(captions)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_ends_a_long_call_soon() -> None:
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begin\n"
    time.sleep(1)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=300)
    assert (output, child.returncode) == ("interrupted\n", 0)


NOT_COPIED = """
import resource
import numpy
import pyarrow as pa
import catlip
labeler = catlip.Labeler(threads=1)
labeler.csr(pa.array(["a dog"]))
text = b"the and of with " * 4000
num = 2500
data = pa.py_buffer(text * num)
offsets = pa.py_buffer(numpy.arange(num + 1, dtype=numpy.int32) * len(text))
captions = pa.StringArray.from_buffers(num, offsets, data)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
labeler.csr(captions)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(text) * num // 1024, after - before)
"""


def test_captions_of_an_arrow_array_are_not_copied() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", NOT_COPIED], capture_output=True, text=True, check=True
    ).stdout
    captions_kb, growth_kb = map(int, printed.split())
    assert captions_kb > 150_000
    assert growth_kb < 50_000


def labelled_in_a_child(captions: list[str]) -> list[list[str] | None]:
    return catlip.Labeler().keys(captions)


def test_a_process_may_fork_after_labelling_and_a_labeler_be_sent(captions: list[str]) -> None:
    labeler = catlip.Labeler("nouns", threads=2, settings=["nouns.phrases=false"])
    texts = captions * 20
    expected = labeler.keys(texts)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(labeler.keys, [texts, texts]) == [expected, expected]
    again = pickle.loads(pickle.dumps(labeler))
    assert (repr(again), again.id) == (repr(labeler), labeler.id)
    assert again.keys(texts) == expected


IMPORTS = """
import sys
import catlip
catlip.Labeler().keys(["a dog"])
catlip.Labeler().csr(("a dog", None))
print(sorted(name for name in ("numpy", "pandas", "pyarrow", "duckdb") if name in sys.modules))
"""


def test_nothing_is_imported_that_the_input_does_not_need() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    ).stdout
    assert printed == "[]\n"
    assert os.path.exists(catlip.__file__)
