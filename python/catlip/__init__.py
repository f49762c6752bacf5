"""Pre-training vision models on web-scale image-text data as classification."""

from ._catlip import CatlipError, __version__

__all__ = ["CatlipError", "__version__"]
