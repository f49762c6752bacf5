"""Pre-training vision models on web-scale image-text data as classification."""

from ._catlip import CatlipError, __version__
from .data import DataSet, open
from .grid import Grid, show
from .labels import ArrowArray, Labeler, Numbers

__all__ = [
    "ArrowArray",
    "CatlipError",
    "DataSet",
    "Grid",
    "Labeler",
    "Numbers",
    "__version__",
    "open",
    "show",
]
