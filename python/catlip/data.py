"""A data set of `catlip-prep` as pyarrow data sets and DuckDB views.

In: path or URL of a data set, the number of a snapshot. Out: its column sets, each alone or side
by side, without the rows that the snapshot leaves out. Never: lists a folder or reads a manifest;
which files make up a snapshot is what Rust says.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import _catlip
from .errors import DAMAGED, USAGE, needed, refused

__all__ = ["DataSet", "open"]

# The ledger of rejected samples: its rows are not those of the other column sets.
LEDGER = "rejects"


def open(place: str | os.PathLike[str], snapshot: int | None = None) -> DataSet:
    """Opens a data set: a folder, or `s3://…`, `gs://…`, `az://…` with the usual variables.

    `snapshot` is a number, or `None` for the newest. The folder is not looked at again: changes
    make new snapshots, and this one stays as it is.

    Raises `CatlipError` where no data set is, or a damaged one.
    """
    return DataSet(_catlip.Snapshot(os.fspath(place), snapshot))


class DataSet:
    """A snapshot of a data set, open for reading.

    `data["captions"]` is a pyarrow `Dataset` of one column set. All column sets but `rejects` have
    the same rows in the same order; `joined` puts them side by side.
    """

    def __init__(self, snapshot: _catlip.Snapshot) -> None:
        self._snapshot = snapshot

    @property
    def place(self) -> str:
        """Path or URL."""
        return self._snapshot.place

    @property
    def snapshot(self) -> int:
        """The number of the snapshot."""
        return self._snapshot.number

    @property
    def sets(self) -> list[str]:
        """The names of the column sets."""
        return self._snapshot.sets

    @property
    def num_dropped(self) -> int:
        """Rows that the snapshot leaves out."""
        return self._snapshot.num_dropped

    def __len__(self) -> int:
        return self._snapshot.num_rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.sets)

    def __getitem__(self, name: str) -> Any:
        return self.dataset(name)

    def __repr__(self) -> str:
        what = f"{len(self)} rows of {', '.join(self.sets)}"
        return f"<catlip.DataSet {self.place}, snapshot {self.snapshot}: {what}>"

    def dataset(self, name: str, with_dropped: bool = False) -> Any:
        """One column set as a pyarrow `Dataset` over the files of the snapshot, in order of rows.

        Files keep the rows that a snapshot leaves out, and a `Dataset` cannot pass over them. So a
        snapshot that leaves rows out is refused here, unless `with_dropped` asks for them too.
        """
        dataset = needed("pyarrow.dataset", "a column set as a Dataset")
        files = self._snapshot.files(name)
        if self.num_dropped and name != LEDGER and not with_dropped:
            raise refused(
                f"snapshot {self.snapshot} of {self.place} leaves {self.num_dropped} rows out, "
                "which a pyarrow Dataset of its files would show",
                'read it by `joined(["' + name + '"])` or `duckdb()`, or ask for those rows too '
                "with `with_dropped=True`",
                USAGE,
            )
        form = dataset.ParquetFileFormat()
        if self._snapshot.is_local:
            fs = needed("pyarrow.fs", "a column set").LocalFileSystem()
            paths = [self._source(name, part, file) for part, file, _ in files]
        else:
            fs = _file_system(self._snapshot, name)
            paths = [file for _, file, _ in files]
        fragments = [form.make_fragment(path, fs) for path in paths]
        schema = self._schema(name)
        return dataset.FileSystemDataset(fragments, schema, form, fs)

    def joined(
        self,
        sets: Sequence[str] | None = None,
        columns: Iterable[str] | None = None,
        batch_rows: int = 1024,
    ) -> Any:
        """Columns of several sets side by side, row by row, as a `pyarrow.RecordBatchReader`.

        `sets` are names, by default all that every part has but the ledger; `columns` are the names
        of the columns to read, by default all. Rows that the snapshot leaves out are left out. A
        column whose name an earlier set has is called `SET.COLUMN`; of `sample_id`, which is the
        same in all, there is one. Memory: a row group of each set, and `batch_rows` rows.
        """
        pyarrow = needed("pyarrow", "joined column sets")
        names = self._rowwise(sets)
        if batch_rows < 1:
            raise refused(f"`batch_rows` is {batch_rows}, expected at least 1", None, USAGE)
        found = self._columns(names, columns)
        schema = pyarrow.schema([column.field for column in found])
        batches = self._joined_batches(found, schema, batch_rows)
        return pyarrow.RecordBatchReader.from_batches(schema, batches)

    def column_names(self, sets: Sequence[str] | None = None) -> list[str]:
        """The names that the columns of `sets` have in `joined`."""
        return [column.field.name for column in self._columns(self._rowwise(sets), None)]

    def duckdb(self, con: Any = None, schema: str = "main") -> Any:
        """A DuckDB connection with a view of each column set, and `joined` with all side by side.

        Views are called as the sets, such as `captions` or `"synsets.corenet-1"`, and do not show
        rows that the snapshot leaves out. Besides the columns of the set they have `part_name` and
        `part_row`. `con` is the connection to use, by default a new one in memory; the views lie in
        its `schema`, where those of the same names are replaced.
        """
        duckdb = needed("duckdb", "a data set as relations")
        if not self._snapshot.is_local:
            raise refused(
                f"{self.place} is not in the file system, where DuckDB would read it",
                "hand it what was joined: con.from_arrow(data.joined([...]))",
                USAGE,
            )
        con = duckdb.connect() if con is None else con
        inside = _quoted(schema)
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {inside}")
        if self.num_dropped:
            self._fill_dropped(con, inside)
        names = [name for name in self.sets if self._is_whole(name)]
        for name in names:
            con.execute(self._view(name, inside))
        con.execute(_joined_view(con, [name for name in names if name != LEDGER], inside))
        return con

    def _is_whole(self, name: str) -> bool:
        """Whether every part has the set; readers refuse it else."""
        try:
            return bool(self._snapshot.files(name))
        except _catlip.CatlipError:
            return False

    def _rowwise(self, sets: Sequence[str] | None) -> list[str]:
        """The sets to join, each of which every part has."""
        if isinstance(sets, str):
            raise TypeError(f"`sets` is the str {sets!r}, expected a list of names")
        if sets is None:
            return [name for name in self.sets if name != LEDGER and self._is_whole(name)]
        if not sets or LEDGER in sets or len(set(sets)) < len(sets):
            known = ", ".join(name for name in self.sets if name != LEDGER)
            message = f"`sets` is {list(sets)}, expected different ones of {known}"
            raise refused(message, f"`{LEDGER}` has rows of its own: read it alone", USAGE)
        for name in sets:
            self._snapshot.files(name)
        return list(sets)

    def _source(self, name: str, part: str, file: str) -> Any:
        """A file as pyarrow reads it, checked to have the length that the manifest tells."""
        opened = self._snapshot.open(name, part)
        return os.path.join(self.place, file) if self._snapshot.is_local else _Stored(opened)

    def _schema(self, name: str) -> Any:
        """The columns of a set, as its first file has them."""
        parquet = needed("pyarrow.parquet", "a column set")
        part, file, _ = self._snapshot.files(name)[0]
        return parquet.read_schema(self._source(name, part, file)).remove_metadata()

    def _columns(self, names: list[str], wanted: Iterable[str] | None) -> list[_Column]:
        """The columns of the sets under the names that they have side by side."""
        columns: list[_Column] = []
        taken: set[str] = set()
        for name in names:
            for field in self._schema(name):
                if field.name in taken and field.name == "sample_id":
                    continue
                called = f"{name}.{field.name}" if field.name in taken else field.name
                taken.add(called)
                columns.append(_Column(name, field.name, field.with_name(called)))
        if wanted is None:
            return columns
        wanted = list(wanted)
        for column in wanted:
            if column not in taken:
                known = ", ".join(sorted(taken))
                raise refused(f"there is no column {column!r}; known: {known}", None, USAGE)
        return [column for column in columns if column.field.name in wanted]

    def _joined_batches(self, columns: list[_Column], schema: Any, rows: int) -> Iterator[Any]:
        pyarrow = needed("pyarrow", "joined column sets")
        sets = list(dict.fromkeys(column.set for column in columns))
        order = [(sets.index(column.set), column.name) for column in columns]
        for files in zip(*(self._snapshot.files(name) for name in sets)):
            part, start = files[0][0], 0
            keep = self._kept(part, files[0][2])
            streams = [
                self._batches(name, file, [c.name for c in columns if c.set == name], rows)
                for name, file in zip(sets, files)
            ]
            for batches in _aligned(streams):
                arrays = [batches[at].column(name) for at, name in order]
                batch = pyarrow.record_batch(arrays, schema=schema)
                end = start + batch.num_rows
                yield batch if keep is None else batch.filter(keep.slice(start, batch.num_rows))
                start = end

    def _batches(
        self, name: str, file: tuple[str, str, int], columns: list[str], rows: int
    ) -> Iterator[Any]:
        parquet = needed("pyarrow.parquet", "joined column sets")
        part, path, expected = file
        with parquet.ParquetFile(self._source(name, part, path)) as opened:
            found = opened.metadata.num_rows
            if found != expected:
                message = f"{self.place}/{path}: number of rows is {found}, expected {expected}"
                raise refused(message, None, DAMAGED)
            yield from opened.iter_batches(batch_size=rows, columns=columns)

    def _kept(self, part: str, rows: int) -> Any:
        """Which rows of a part are not left out, as an Arrow array; `None` for all."""
        dropped = self._snapshot.dropped(part)
        if dropped is None:
            return None
        pyarrow = needed("pyarrow", "joined column sets")
        buffers = [None, pyarrow.py_buffer(dropped)]
        compute = needed("pyarrow.compute", "joined column sets")
        return compute.invert(pyarrow.BooleanArray.from_buffers(pyarrow.bool_(), rows, buffers))

    def _view(self, name: str, inside: str) -> str:
        """The statement that makes the view of a column set."""
        paths = [os.path.join(self.place, file) for _, file, _ in self._snapshot.files(name)]
        listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        left_out = ""
        if self.num_dropped and name != LEDGER:
            left_out = (
                f"WHERE NOT EXISTS (FROM {inside}.catlip_dropped AS d "
                "WHERE d.part_name = f.part_name AND d.part_row = f.part_row)"
            )
        # A file is called `part-`, the name of its part, `-`, digits of the config (FORMAT.md).
        return f"""
            CREATE OR REPLACE VIEW {inside}.{_quoted(name)} AS
            SELECT * FROM (
                SELECT regexp_extract(filename, 'part-([0-9.]+)-[0-9a-f]+[.]parquet$', 1)
                        AS part_name,
                    file_row_number AS part_row,
                    * EXCLUDE (filename, file_row_number)
                FROM read_parquet([{listed}], filename = true, file_row_number = true)
            ) AS f {left_out}"""

    def _fill_dropped(self, con: Any, inside: str) -> None:
        """The table of the rows that the snapshot leaves out."""
        table = f"{inside}.catlip_dropped"
        con.execute(f"CREATE OR REPLACE TABLE {table} (part_name VARCHAR, part_row BIGINT)")
        for part, _, rows in self._snapshot.files("meta"):
            bits = self._snapshot.dropped(part) or b""
            dropped = [row for row in range(rows) if bits and bits[row >> 3] >> (row & 7) & 1]
            if dropped:
                con.execute(f"INSERT INTO {table} SELECT ?, unnest(?::BIGINT[])", [part, dropped])


class _Column:
    """A column of a set under the name that it has beside those of others."""

    def __init__(self, set: str, name: str, field: Any) -> None:
        self.set, self.name, self.field = set, name, field


def _aligned(streams: list[Iterator[Any]]) -> Iterator[list[Any]]:
    """Batches of the same rows of each stream, cut wherever one of them ends a batch."""
    heads: list[Any] = [None] * len(streams)
    while True:
        for at, stream in enumerate(streams):
            while heads[at] is None or heads[at].num_rows == 0:
                heads[at] = next(stream, None)
                if heads[at] is None:
                    return
        rows = min(head.num_rows for head in heads)
        yield [head.slice(0, rows) for head in heads]
        heads = [head.slice(rows) for head in heads]


def _quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _joined_view(con: Any, names: list[str], inside: str) -> str:
    """The statement that makes the view of all sets side by side."""
    taken: set[str] = set()
    selected = []
    for name in names:
        view = f"{inside}.{_quoted(name)}"
        for column, *_ in con.execute(f"DESCRIBE {view}").fetchall():
            if column in taken and column in ("part_name", "part_row", "sample_id"):
                continue
            called = f"{name}.{column}" if column in taken else column
            taken.add(called)
            selected.append(f"{_quoted(name)}.{_quoted(column)} AS {_quoted(called)}")
    first, *others = (f"{inside}.{_quoted(name)} AS {_quoted(name)}" for name in names)
    joins = "".join(f" JOIN {other} USING (part_name, part_row)" for other in others)
    select = f"SELECT {', '.join(selected)} FROM {first}{joins}"
    return f"CREATE OR REPLACE VIEW {inside}.joined AS {select}"


class _Stored(io.RawIOBase):
    """A file of a store, as Python reads files."""

    def __init__(self, file: _catlip.File) -> None:
        super().__init__()
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.num_bytes}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        rest = max(self._file.num_bytes - self._at, 0)
        found = self._file.read_at(self._at, rest if size is None or size < 0 else min(size, rest))
        self._at += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


def _file_system(snapshot: _catlip.Snapshot, name: str) -> Any:
    """The files of a column set in a store, as a file system of pyarrow: by our own way there."""
    fs = needed("pyarrow.fs", "a column set in a store")
    pyarrow = needed("pyarrow", "a column set in a store")
    parts = {file: part for part, file, _ in snapshot.files(name)}

    class Files(fs.FileSystemHandler):  # type: ignore[misc, name-defined]
        """Read-only; knows the files of one column set."""

        def __eq__(self, other: object) -> bool:
            return self is other

        def get_type_name(self) -> str:
            return "catlip"

        def normalize_path(self, path: str) -> str:
            return path

        def get_file_info(self, paths: list[str]) -> list[Any]:
            kind = {True: fs.FileType.File, False: fs.FileType.NotFound}
            return [fs.FileInfo(path, kind[path in parts]) for path in paths]

        def get_file_info_selector(self, selector: Any) -> list[Any]:
            return self.get_file_info(list(parts))

        def open_input_file(self, path: str) -> Any:
            return pyarrow.PythonFile(_Stored(snapshot.open(name, parts[path])), mode="r")

        open_input_stream = open_input_file

        def _refuse(self, *_: Any) -> Any:
            raise refused(f"files of {snapshot.place} are read and never written", None, USAGE)

        create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
        delete_file = move = copy_file = open_output_stream = open_append_stream = _refuse

    return fs.PyFileSystem(Files())
