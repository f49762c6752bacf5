"""Batches for a training loop: `for batch in catlip.Feed("data/train"): ...`.

In: data sets or plain shards, a recipe of `catlip-train`. Out: batches whose arrays PyTorch, NumPy
and JAX take over without a copy, in the order that `catlip-train feed --ids` prints.
Never: needs PyTorch; works in a worker of a DataLoader, since it has threads of its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from . import _catlip
from .errors import USAGE, refused
from .page_lock import Cuda, PageLock

if TYPE_CHECKING:
    from ._catlip import Batch

Place = str | os.PathLike[str]


class Feed:
    """Batches of data sets, epoch after epoch, in an order that can be resumed anywhere.

    Each ``for batch in feed`` is one epoch, or what is left of it: after ``break``, or
    ``load_state_dict``, the next loop goes on behind the batch that was handed out last. A loop may
    as well count ``len(feed)`` steps. How many epochs there are is the loop's to say:
    ``train.epochs`` and ``train.steps`` do not count here.

    data: a folder or URL (``s3://``, ``gs://``, ``az://``) that ``catlip-prep run`` wrote, plain
        shards such as ``"train-{000..099}.tar"``, or a list of these, mixed by ``data.weights``.
    recipe: a TOML file as ``catlip-train fit --recipe`` takes it.
    settings: ``"section.key=value"``, each of which wins over the recipe. ``train.batch`` counts
        the images of a step over all ranks; ``train.image_px``, ``train.seed``,
        ``augment.crop_*``, ``feed.threads`` (all cores) and ``feed.memory_bytes`` are others. The
        manual of all keys is ``trainer/train.default.toml``.
    vocab: a Parquet file or CatLIP's pickle; None: made from the training rows, as ``fit`` does.
    rank, world_size: which share of each step this process gets; None: as ``torchrun`` says in RANK
        and WORLD_SIZE, else all of it. The shares of two ranks may differ by a few images.
    layout: ``"nchw"`` for images ``[n, 3, height, width]``, whose channels lie innermost in memory
        (PyTorch's ``channels_last``), or ``"nhwc"`` for ``[n, height, width, 3]`` of the same
        bytes.
    page_lock: lock batches in memory for a GPU, through PyTorch; or an object that does.
    held_out: the rows that ``data.holdout_percent`` holds out, in the order in which they lie, the
        centre of each image, the last batch padded; for one rank.
    captions: whether batches have ``captions``.
    labels: which labels, such as ``"corenet-1"``, where the data set has several.
    snapshot: which snapshot of each data set; None: the newest.

    Memory: ``feed.queue_batches`` + 1 batches, labels and row groups, within
    ``feed.memory_bytes``. The arrays of a batch stay valid as long as somebody has them, even when
    the feed is gone; each batch that is kept besides the last one takes new memory, so that
    nothing waits for it.

    Raises CatlipError with the words, ``hint`` and ``exit_code`` of the programs.
    """

    def __init__(
        self,
        data: Place | Sequence[Place],
        recipe: Place | None = None,
        settings: Iterable[str] = (),
        vocab: Place | None = None,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        layout: Literal["nchw", "nhwc"] = "nchw",
        page_lock: bool | PageLock = False,
        held_out: bool = False,
        captions: bool = False,
        labels: str | None = None,
        snapshot: int | Sequence[int] | None = None,
    ) -> None:
        if layout not in ("nchw", "nhwc"):
            raise ValueError(f'layout is {layout!r}, expected "nchw" or "nhwc"')
        if isinstance(settings, str):
            raise TypeError(f'settings is a text, expected a list of texts: ["{settings}"]')
        said = list(settings)
        if labels is not None:
            said.append(f"data.label_set={json.dumps(labels)}")
        if snapshot is not None:
            numbers = [snapshot] if isinstance(snapshot, int) else list(snapshot)
            said.append(f"data.snapshots={numbers}")
        self._rank, self._world_size = ranks(rank, world_size)
        if held_out and self._world_size > 1:
            raise ValueError(
                f"held_out with world_size={self._world_size}: one rank reads the held-out rows; "
                "pass rank=0, world_size=1"
            )
        places = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        self._feed = _catlip.Feed({
            "data": [os.fspath(place) for place in places],
            "recipe": recipe,
            "settings": said,
            "vocab": vocab,
            "rank": self._rank,
            "world_size": self._world_size,
            "channels_first": layout == "nchw",
            "page_lock": (Cuda() if page_lock is True else page_lock) or None,
            "held_out": held_out,
            "captions": captions,
        })

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch, or those that are left of it."""
        refuse_worker()
        return _Epoch(self._feed, self.epoch)

    def __len__(self) -> int:
        """Steps of the epoch of the next batch, with those that were handed out."""
        return self._feed.num_steps()

    @property
    def rank(self) -> int:
        """Which share of each step this process gets."""
        return self._rank

    @property
    def world_size(self) -> int:
        """Of how many."""
        return self._world_size

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0: after an epoch's last batch the next one."""
        return self._feed.place()[0]

    @property
    def step(self) -> int:
        """Steps of that epoch that were handed out."""
        return self._feed.place()[1]

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch; stays where it is if that is somewhere in it."""
        self._feed.enter_epoch(epoch)

    @property
    def vocab(self) -> list[tuple[str, str]]:
        """What each label is: WordNet synset, such as ``n02084071``, and its head word."""
        return self._feed.vocab()

    @property
    def num_labels(self) -> int:
        """Labels of the vocabulary."""
        return self._feed.num_labels

    def state_dict(self) -> dict[str, Any]:
        """Where it is: behind the batch that was handed out last, whatever was read ahead.

        Of numbers and texts only, the same on every rank; any number of ranks and threads goes on
        from it.
        """
        return json.loads(self._feed.state())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state; refuses one of other data, order or labels."""
        self._feed.load_state(json.dumps(dict(state)))

    def stats(self) -> dict[str, Any]:
        """What its threads have done since they last began; empty before the first batch.

        ``decoded`` images, ``bad_rows`` that did not decode and the last of them, seconds of all
        threads in ``decode_secs`` and ``read_secs``, seconds that the loop waited in ``wait_secs``,
        ``ready_batches``, bytes of row groups.
        """
        return self._feed.stats()

    def close(self) -> None:
        """Ends its threads; a later loop begins them anew, where it is."""
        self._feed.rest()


class _Epoch:
    """One walk; it ends with its epoch, while the feed goes on to the next."""

    def __init__(self, feed: _catlip.Feed, epoch: int) -> None:
        self._feed, self._epoch = feed, epoch

    def __iter__(self) -> _Epoch:
        return self

    def __next__(self) -> Batch:
        batch = self._feed.next(self._epoch)
        if batch is None:
            raise StopIteration
        return batch


def ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size: those given, those of torchrun, or 0 of 1."""
    said = {"RANK": rank, "WORLD_SIZE": world_size}
    for name, value in said.items():
        text = os.environ.get(name)
        if value is None and text:
            try:
                said[name] = int(text)
            except ValueError:
                raise ValueError(f"{name} is {text!r}, expected a number") from None
    rank, world_size = said["RANK"], said["WORLD_SIZE"]
    if rank is None and world_size is None:
        return 0, 1
    if rank is None or world_size is None:
        known, absent = ("WORLD_SIZE", "rank") if rank is None else ("RANK", "world_size")
        raise ValueError(
            f"{known} is {said[known]}, but nothing says the {absent}: pass {absent}=…, or start "
            "the process by torchrun"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}: expected 0 to {world_size - 1}")
    return rank, world_size


def refuse_worker() -> None:
    """Refuses to feed from a worker of a DataLoader."""
    torch_data = sys.modules.get("torch.utils.data")
    worker = torch_data and torch_data.get_worker_info()
    if worker:
        raise refused(
            f"a feed in worker {worker.id} of {worker.num_workers} of a DataLoader, each of which "
            "would read all rows",
            "use DataLoader(..., num_workers=0): the feed decodes in threads of its own",
            USAGE,
        )
