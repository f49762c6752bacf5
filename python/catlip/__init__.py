"""Pre-training vision models on web-scale image-text data as classification."""

from ._catlip import Array, Batch, CatlipError, __version__
from .data import DataSet, open
from .feed import Feed
from .grid import Grid, show
from .labels import ArrowArray, Labeler

__all__ = [
    "Array",
    "ArrowArray",
    "Batch",
    "CatlipError",
    "DataSet",
    "Feed",
    "Grid",
    "Labeler",
    "__version__",
    "open",
    "show",
]
