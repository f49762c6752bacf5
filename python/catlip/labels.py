"""Captions to labels: whatever holds captions in, the same shape of labels out.

In: a `str`, a list or tuple of `str` or `None`, a pyarrow array, a pandas Series, or anything with
the Arrow PyCapsule interface. Out: keys of synsets, or a CSR pair. Never: imports a library that
the input does not come from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, overload

from . import _catlip
from ._catlip import Array, ArrowArray, Keys

__all__ = ["ArrowArray", "Labeler"]

Listed = list[str | None] | tuple[str | None, ...] | list[str] | tuple[str, ...]


class Labeler:
    """Turns captions into WordNet 3.0 noun synsets, as `catlip-prep labels` does.

    `rule` is the name of a label rule, `settings` are some of its options, such as
    `["nouns.phrases=false"]`. `vocab` is the file of a vocabulary (Parquet, or the pickle of
    CatLIP, which is read and never run); it decides what `csr` gives, and nothing else. `threads`
    label at the same time; 0 for one a core.

    What `keys` and `wnids` return has the shape of what they are given: a list of `str` for a
    caption; a list of them for a list or tuple; for a pyarrow array or chunked array the same of
    `list<string>`; for a pandas Series a Series; and for what else has the Arrow PyCapsule
    interface an `ArrowArray`, which `pyarrow.array`, `polars.Series` and others take over without a
    copy. Null stays null.

    Raises `CatlipError` for a rule, setting or file that is wrong and for a row that is no caption,
    `TypeError` for what holds no captions.
    """

    def __init__(
        self,
        rule: str = "corenet",
        vocab: str | os.PathLike[str] | None = None,
        threads: int = 0,
        settings: Iterable[str] = (),
    ) -> None:
        self._said = (rule, vocab, threads, tuple(settings))
        self._labeler = _catlip.Labeler(rule, vocab, threads, list(self._said[3]))

    @property
    def id(self) -> str:
        """Rule, version and options that are not at their default, such as `corenet-1`."""
        return self._labeler.id

    @property
    def num_labels(self) -> int | None:
        """Labels of the vocabulary; `None` without one."""
        return self._labeler.num_labels

    @overload
    def keys(self, captions: str) -> list[str]: ...
    @overload
    def keys(self, captions: Listed) -> list[list[str] | None]: ...
    @overload
    def keys(self, captions: Any) -> Any: ...
    def keys(self, captions: Any) -> Any:
        """CatLIP's keys, such as `n2084071`, in token order, repeats kept."""
        return self._labelled(captions, Keys.Corenet)

    @overload
    def wnids(self, captions: str) -> list[str]: ...
    @overload
    def wnids(self, captions: Listed) -> list[list[str] | None]: ...
    @overload
    def wnids(self, captions: Any) -> Any: ...
    def wnids(self, captions: Any) -> Any:
        """ImageNet's names, such as `n02084071`, in token order, repeats kept."""
        return self._labelled(captions, Keys.Wnid)

    def csr(self, captions: Any) -> tuple[Array, Array]:
        """Sparse labels: `offsets` (int64, rows + 1) and `ids` (int32).

        Row `i` has `ids[offsets[i]:offsets[i + 1]]`. With a vocabulary these are label ids, rising
        and none twice, as a trainer wants them; without one WordNet offsets in token order, repeats
        kept. A null has none. `numpy.asarray`, `torch.from_dlpack` take both over without a copy.
        """
        if isinstance(captions, str):
            captions = [captions]
        series = _series(captions)
        return self._labeler.csr(captions if series is None else _listed(series))

    def _labelled(self, captions: Any, keys: Keys) -> Any:
        if isinstance(captions, str):
            return self._labeler.keys_of_text(captions, keys)
        if isinstance(captions, (list, tuple)):
            return self._labeler.keys_of_list(captions, keys)
        series = _series(captions)
        if series is not None:
            return self._labelled_series(series, keys)
        arrays = self._labeler.keys_of_arrow(captions, keys)
        pyarrow = sys.modules.get("pyarrow")
        if pyarrow is not None and isinstance(captions, pyarrow.Array):
            return pyarrow.array(arrays[0])
        if pyarrow is not None and isinstance(captions, pyarrow.ChunkedArray):
            return pyarrow.chunked_array(map(pyarrow.array, arrays), _list_type(pyarrow))
        return _catlip.joined_arrays(arrays)

    def _labelled_series(self, series: Any, keys: Keys) -> Any:
        pandas = sys.modules["pandas"]
        captions = _listed(series)
        if isinstance(captions, list):
            labels = self._labeler.keys_of_list(captions, keys)
            return pandas.Series(labels, index=series.index, name=series.name, dtype=object)
        pyarrow = sys.modules["pyarrow"]
        arrays = map(pyarrow.array, self._labeler.keys_of_arrow(captions, keys))
        labels = pyarrow.chunked_array(arrays, _list_type(pyarrow))
        array = pandas.arrays.ArrowExtensionArray(labels)
        return pandas.Series(array, index=series.index, name=series.name)

    def __reduce__(self) -> tuple[type[Labeler], tuple[Any, ...]]:
        return Labeler, self._said

    def __repr__(self) -> str:
        rule, vocab, threads, settings = self._said
        return f"Labeler({rule!r}, vocab={vocab!r}, threads={threads}, settings={settings!r})"


def _series(captions: Any) -> Any:
    """The captions, if they are a pandas Series."""
    pandas = sys.modules.get("pandas")
    return captions if pandas is not None and isinstance(captions, pandas.Series) else None


def _listed(series: Any) -> Any:
    """What a Series holds: Arrow data as it lies, else a list with `None` for what is missing."""
    arrow = getattr(sys.modules["pandas"].arrays, "ArrowExtensionArray", None)
    if arrow is not None and isinstance(series.array, arrow):
        return series.array.__arrow_array__()
    missing = series.isna()
    return [None if none else text for text, none in zip(series.tolist(), missing)]


def _list_type(pyarrow: Any) -> Any:
    return pyarrow.list_(pyarrow.field("item", pyarrow.string(), nullable=False))
