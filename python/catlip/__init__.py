"""Pre-training vision models on web-scale image-text data as classification."""

from ._catlip import Array, Batch, CatlipError, __version__
from .feed import Feed

__all__ = ["Array", "Batch", "CatlipError", "Feed", "__version__"]
