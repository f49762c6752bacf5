"""Data sets as pyarrow and DuckDB read them: snapshots, rows left out, stores, grids."""

from __future__ import annotations

import html.parser
import shutil
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.dataset as dataset
import pyarrow.parquet as parquet
import pytest

import catlip
from catlip.grid import png
from conftest import Program, run_prep

SETS = ["captions", "images", "meta", "synsets.corenet-1"]


@pytest.fixture(scope="module")
def changed(
    data_set: Path, tmp_path_factory: pytest.TempPathFactory, prep: Program
) -> tuple[Path, list[str]]:
    """A data set of snapshots: 1 as it was made, 2 with labels of `nouns`, 3 without some rows."""
    place = tmp_path_factory.mktemp("changed") / "it's a set"
    shutil.copytree(data_set, place)
    prep("relabel", place, "--rule", "nouns")
    keys = catlip.open(place).joined(["meta"]).read_all()["key"].to_pylist()
    dropped = [keys[0], keys[17], keys[-1]]
    listed = place.parent / "keys.txt"
    listed.write_text("".join(key + "\n" for key in dropped))
    prep("drop", place, "--keys", listed)
    return place, dropped


def all_rows(place: Path, name: str) -> pa.Table:
    """Every row of a column set, by the names of its files."""
    return pa.concat_tables(parquet.read_table(file) for file in sorted(place.glob(f"{name}/*")))


def test_a_column_set_is_a_dataset_of_the_files_of_the_snapshot(data_set: Path) -> None:
    data = catlip.open(data_set)
    assert sorted(set(data) - {"rejects"}) == SETS
    assert (data.snapshot, len(data), data.num_dropped) == (1, 96, 0)
    for name in SETS:
        found = data[name]
        assert isinstance(found, dataset.Dataset)
        assert found.count_rows() == 96
        assert found.to_table().equals(all_rows(data_set, name))
    assert data["rejects"].count_rows() == 0
    # Pushed down, as a Dataset does.
    wide = data["meta"].to_table(columns=["key"], filter=dataset.field("width") > 0)
    assert (wide.column_names, wide.num_rows) == (["key"], 96)


def test_files_that_no_snapshot_names_are_not_seen(data_set: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    shutil.copytree(data_set, place)
    file = next((place / "meta").iterdir())
    shutil.copy(file, file.with_name("part-000099-00000000.parquet"))
    data = catlip.open(place)
    assert data["meta"].count_rows() == 96
    assert data.joined(["meta"]).read_all().num_rows == 96


@pytest.mark.parametrize("batch_rows", [1, 7, 64, 5000])
def test_sets_are_joined_row_by_row(data_set: Path, batch_rows: int) -> None:
    joined = catlip.open(data_set).joined(batch_rows=batch_rows).read_all()
    assert joined.column_names.count("sample_id") == 1
    for name in SETS:
        for column in (whole := all_rows(data_set, name)).column_names:
            assert joined[column].to_pylist() == whole[column].to_pylist()


def test_joined_reads_the_columns_that_are_asked_for(data_set: Path) -> None:
    data = catlip.open(data_set)
    joined = data.joined(["meta", "captions"], columns=["captions", "key"])
    assert joined.schema.names == ["key", "captions"]
    assert joined.read_all().num_rows == 96
    with pytest.raises(catlip.CatlipError, match="no column 'colour'; known: captions, "):
        data.joined(["meta", "captions"], columns=["colour"])


def test_rows_that_a_snapshot_leaves_out_are_shown_nowhere(
    changed: tuple[Path, list[str]],
) -> None:
    place, dropped = changed
    data = catlip.open(place)
    assert (data.snapshot, len(data), data.num_dropped) == (3, 93, 3)
    whole = all_rows(place, "meta")["key"].to_pylist()
    kept = [key for key in whole if key not in dropped]
    for batch_rows in (1, 10, 1000):
        joined = data.joined(["meta", "captions"], batch_rows=batch_rows).read_all()
        assert joined["key"].to_pylist() == kept
    texts = all_rows(place, "captions")["captions"].to_pylist()
    of_kept = [text for key, text in zip(whole, texts) if key not in dropped]
    assert joined["captions"].to_pylist() == of_kept
    with pytest.raises(catlip.CatlipError, match="leaves 3 rows out") as raised:
        data["captions"]
    assert "with_dropped=True" in raised.value.hint
    assert data.dataset("captions", with_dropped=True).count_rows() == 96


def test_older_snapshots_stay_as_they_were(changed: tuple[Path, list[str]]) -> None:
    place, _ = changed
    first = catlip.open(place, snapshot=1)
    assert sorted(set(first) - {"rejects"}) == SETS
    assert first["meta"].count_rows() == first.joined(["meta"]).read_all().num_rows == 96
    with pytest.raises(catlip.CatlipError, match="snapshot 4") as raised:
        catlip.open(place, snapshot=4)
    done = run_prep("inspect", place, "--snapshot", 4)
    assert f"error: {raised.value}" == done.stderr.strip()


def test_columns_of_one_name_are_told_apart(changed: tuple[Path, list[str]]) -> None:
    sets = ["synsets.corenet-1", "synsets.nouns-1"]
    joined = catlip.open(changed[0]).joined(sets).read_all()
    assert joined.column_names == ["synsets", "synsets.nouns-1.synsets"]
    assert joined["synsets"] != joined["synsets.nouns-1.synsets"]


@pytest.mark.parametrize(
    "sets", [[], ["rejects"], ["meta", "meta"], ["colours"]], ids=str
)
def test_sets_that_do_not_go_together_are_refused(data_set: Path, sets: list[str]) -> None:
    with pytest.raises(catlip.CatlipError):
        catlip.open(data_set).joined(sets)
    with pytest.raises(TypeError, match="expected a list"):
        catlip.open(data_set).joined("meta")


def test_duckdb_sees_the_same_rows(changed: tuple[Path, list[str]]) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    place, dropped = changed
    data = catlip.open(place)
    con = data.duckdb()
    count = con.execute("SELECT count(*), count(DISTINCT sample_id) FROM images").fetchone()
    assert count == (93, 93)
    ordered = con.execute("SELECT key, captions FROM joined ORDER BY part_name, part_row")
    expected = data.joined(["meta", "captions"], columns=["key", "captions"]).read_all()
    assert ordered.fetchall() == [tuple(row.values()) for row in expected.to_pylist()]
    keys = {key for (key,) in con.execute("SELECT key FROM meta").fetchall()}
    assert not keys & set(dropped)
    names = {column for column, *_ in con.execute("DESCRIBE joined").fetchall()}
    assert {"image", "synsets", "synsets.nouns-1.synsets", "part_row"} <= names
    assert con.execute("SELECT count(*) FROM rejects").fetchone() == (0,)


def test_duckdb_holds_several_snapshots_in_schemas(changed: tuple[Path, list[str]]) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    con = duckdb.connect()
    for number in (1, 3):
        assert catlip.open(changed[0], number).duckdb(con, schema=f"at {number}") is con
    both = con.execute('SELECT (SELECT count(*) FROM "at 1".meta), count(*) FROM "at 3".meta')
    assert both.fetchone() == (96, 93)


def test_places_that_hold_no_data_set_are_told_in_the_words_of_the_program(
    tmp_path: Path, shards: Path
) -> None:
    for place in (tmp_path / "nothing", shards):
        with pytest.raises(catlip.CatlipError) as raised:
            catlip.open(place)
        done = run_prep("inspect", place)
        assert f"error: {raised.value}" == done.stderr.strip()
        assert raised.value.exit_code == done.returncode


def test_a_file_that_is_cut_or_gone_is_told(data_set: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    shutil.copytree(data_set, place)
    file = next((place / "captions").iterdir())
    whole = file.read_bytes()
    data = catlip.open(place)
    for change in (lambda: file.write_bytes(whole[:-1]), file.unlink):
        change()
        for read in (lambda: data["captions"], lambda: data.joined(["captions"]).read_all()):
            with pytest.raises(catlip.CatlipError, match=file.name) as raised:
                read()
            assert raised.value.exit_code == 7


def test_a_data_set_in_a_store_is_read_by_the_way_of_the_programs(
    data_set: Path,
    shards: Path,
    prep: Program,
    s3: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    place = "s3://lake/train"
    prep("run", "--quiet", "--input", shards / "train-*.tar", "--output", place)
    here, there = catlip.open(data_set), catlip.open(place)
    assert there.place == place
    for name in SETS:
        assert there[name].to_table().equals(here[name].to_table())
    key = dataset.field("key") == here["meta"].to_table()["key"][5]
    assert there["meta"].to_table(filter=key).num_rows == 1
    assert there.joined().read_all().equals(here.joined().read_all())
    assert len(catlip.show(there)) == 16
    with pytest.raises(catlip.CatlipError, match="not in the file system"):
        there.duckdb()
    with pytest.raises(catlip.CatlipError) as raised:
        catlip.open("s3://lake/nothing")
    done = run_prep("inspect", "s3://lake/nothing")
    assert f"error: {raised.value}" == done.stderr.strip()


class Images(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_data_set_is_shown_with_images_captions_and_names(
    changed: tuple[Path, list[str]],
) -> None:
    place, dropped = changed
    grid = catlip.show(catlip.open(place, snapshot=1), n=5)
    page = Images(grid._repr_html_())
    assert (len(grid), page.tags.count("img")) == (5, 5)
    assert all(source.startswith("data:image/") for source in page.sources)
    row = next(iter(catlip.open(place, snapshot=1).joined(["captions", "synsets.corenet-1"])))
    assert row["captions"][0][0]["text"].as_py() in page.text
    # Of two sets of labels none is shown, and no row that is left out.
    later = catlip.show(catlip.open(place), n=93)
    assert len(later) == 93
    assert dropped[0] not in str(later)


def test_a_table_is_shown_and_its_captions_are_no_html() -> None:
    hostile = '<script>alert(1)</script> & "quotes" \' <img src=x onerror=y>'
    table = pa.table({
        "image": [png(numpy.zeros((2, 3, 3), numpy.uint8)), b"no image at all", None],
        "caption": [hostile, "x" * 1000, None],
        "synsets": [[2084071, 2084071], [1], None],
        "key": ['" onload="z', "b", "c"],
    })
    for rows in (table, table.to_batches()[0], table.to_reader()):
        grid = catlip.show(rows, n=10)
        page = Images(grid._repr_html_())
        assert len(grid) == 3
        assert page.tags.count("img") == 1
        assert "script" not in page.tags
        assert hostile in page.text
        assert page.text.count("dog") == 1
        assert "x" * 301 not in page.text
        assert "no known format" in page.text and "no image" in page.text
        assert len(repr(grid).splitlines()) == 3


class Batch:
    """What a batch of a feed looks like."""

    def __init__(self, images: Any) -> None:
        self.images = images
        self.ids = [f"id {at}" for at in range(len(images))]
        self.captions = [["a dog"], [], ["<b>"], []]


def test_pixels_of_a_batch_are_shown_whichever_axis_is_the_colours() -> None:
    import base64

    pixels = numpy.arange(4 * 5 * 6 * 3, dtype=numpy.uint8).reshape(4, 5, 6, 3)
    shown = [
        catlip.show(Batch(images), n=3)._repr_html_()
        for images in (pixels, numpy.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    ]
    assert shown[0] == shown[1]
    assert "a dog" in shown[0] and "&lt;b&gt;" in shown[0] and "id 2" in shown[0]
    sources = Images(shown[0]).sources
    expected = [base64.b64encode(png(image)).decode() for image in pixels[:3]]
    assert [source.split(",")[1] for source in sources] == expected
    with pytest.raises(TypeError, match="expected uint8 of four dimensions"):
        catlip.show(Batch(pixels.astype(numpy.float32)))


def test_what_cannot_be_shown_is_told() -> None:
    with pytest.raises(TypeError, match="expected a DataSet"):
        catlip.show(3)
    with pytest.raises(catlip.CatlipError, match="expected 1 to 1000"):
        catlip.show(pa.table({"key": ["a"]}), n=0)
