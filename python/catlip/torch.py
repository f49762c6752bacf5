"""The feed as a data set of PyTorch.

In: what `catlip.Feed` takes. Out: an `IterableDataset` of whole batches for
`DataLoader(batch_size=None)`, Lightning or Hugging Face's `Trainer`. Never: copies pixels, unless a
device is named.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed
import torch.utils.data

from ._catlip import Batch
from .feed import Feed, refuse_worker

__all__ = ["IterableFeed", "tensors", "to_device"]


def tensors(batch: Batch) -> dict[str, Any]:
    """The arrays of a batch as tensors over the same memory.

    ``images`` uint8 ``[n, 3, height, width]`` (or as the feed's layout says), ``label_offsets``
    int64 ``[n + 1]``, ``label_ids`` int64, ``weights`` float32 ``[n]``; ``ids``, a list of texts,
    and the numbers ``epoch`` and ``step``.
    """
    return {
        "images": torch.from_dlpack(batch.images),
        "label_offsets": torch.from_dlpack(batch.labels.offsets),
        "label_ids": torch.from_dlpack(batch.labels.ids),
        "weights": torch.from_dlpack(batch.weights),
        "ids": batch.ids,
        "epoch": batch.epoch,
        "step": batch.step,
    }


class IterableFeed(torch.utils.data.IterableDataset):
    """A feed as an `IterableDataset`: it gives whole batches, each walk is one epoch.

    ``DataLoader(IterableFeed("data/train"), batch_size=None)``, with ``num_workers=0``: the feed
    has threads of its own and refuses to run in a worker.

    It takes what `catlip.Feed` takes, and opens it when it is first used: ranks are then those of
    `torch.distributed` where that is begun, else those of the environment.

    collate: what becomes of a batch; `tensors` by default.
    """

    def __init__(
        self,
        *args: Any,
        collate: Callable[[Batch], Any] = tensors,
        **named: Any,
    ) -> None:
        super().__init__()
        self._args, self._named, self._collate = args, named, collate
        self._feed: Feed | None = None

    @property
    def feed(self) -> Feed:
        """The feed, opened now if it was not."""
        refuse_worker()
        if self._feed is None:
            named = dict(self._named)
            begun = torch.distributed.is_available() and torch.distributed.is_initialized()
            if begun and not named.get("held_out"):
                named.setdefault("rank", torch.distributed.get_rank())
                named.setdefault("world_size", torch.distributed.get_world_size())
            self._feed = Feed(*self._args, **named)
        return self._feed

    def __iter__(self) -> Iterator[Any]:
        return map(self._collate, self.feed)

    def __len__(self) -> int:
        return len(self.feed)

    def set_epoch(self, epoch: int) -> None:
        """As `Feed.set_epoch`."""
        self.feed.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """As `Feed.state_dict`."""
        return self.feed.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Feed.load_state_dict`."""
        self.feed.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process opens a feed of its own.
        return {**self.__dict__, "_feed": None}


def to_device(
    batches: Iterator[Batch] | Feed,
    device: torch.device | str,
    collate: Callable[[Batch], Mapping[str, Any]] = tensors,
) -> Iterator[dict[str, Any]]:
    """The batches with their tensors on a device, copied while others work.

    With ``Feed(page_lock=True)`` a copy goes on after it was asked for, so each batch is kept until
    the device says that it has it: a batch that were dropped would be filled with other pixels
    meanwhile.
    """
    device = torch.device(device)
    in_flight: deque[tuple[torch.cuda.Event, Any]] = deque()
    for batch in batches:
        host = collate(batch)
        moved = {
            key: value.to(device, non_blocking=True) if torch.is_tensor(value) else value
            for key, value in host.items()
        }
        if device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            in_flight.append((event, host))
            while in_flight and in_flight[0][0].query():
                in_flight.popleft()
        del batch, host
        yield moved
    for event, _ in in_flight:
        event.synchronize()
