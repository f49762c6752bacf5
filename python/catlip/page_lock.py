"""Batches that are locked in memory, so that a GPU copies them at the full speed of its bus.

In: where pages lie. Out: the same pages, locked by the device's driver. Never: touches another
device than PyTorch's current one.
"""

from __future__ import annotations

from typing import Protocol

from ._catlip import CatlipError
from .errors import CONFIG, refused


class PageLock(Protocol):
    """Whoever locks pages. Called on the feed's threads, too, with the GIL."""

    def register(self, address: int, num_bytes: int) -> None:
        """Locks the pages at an address, or raises what the driver says."""

    def unregister(self, address: int) -> None:
        """Unlocks them, before they are freed."""


class Cuda:
    """Locks pages through the CUDA runtime that PyTorch has loaded."""

    # cudaHostRegisterPortable: for every context of the process.
    _PORTABLE = 1

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise _refused(f"page_lock=True needs PyTorch: {error}") from error
        if not torch.cuda.is_available():
            why = "is built without CUDA" if torch.version.cuda is None else "finds no GPU"
            raise _refused(f"page_lock=True needs a GPU, but PyTorch {torch.__version__} {why}")
        self._runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]

    def register(self, address: int, num_bytes: int) -> None:
        code = self._runtime.cudaHostRegister(address, num_bytes, self._PORTABLE)
        if int(code) != 0:
            raise RuntimeError(f"cudaHostRegister answers {code}")

    def unregister(self, address: int) -> None:
        self._runtime.cudaHostUnregister(address)


def _refused(message: str) -> CatlipError:
    return refused(message, "leave page_lock out: copies to a GPU are slower then", CONFIG)
