"""Errors that Python code of the package raises, of the same class as those of the programs."""

from __future__ import annotations

from types import ModuleType

from ._catlip import CatlipError

# Exit codes of `catlip-prep`, as the README tells them.
FAILED, USAGE, CONFIG, INPUT, DAMAGED = 1, 2, 3, 5, 7


def refused(message: str, hint: str | None = None, exit_code: int = FAILED) -> CatlipError:
    """An error with its hint and exit code."""
    error = CatlipError(message if hint is None else f"{message}\nhint: {hint}")
    error.hint = hint
    error.exit_code = exit_code
    return error


def needed(name: str, purpose: str) -> ModuleType:
    """Imports a library that only some calls need; says which one if it is not there."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        hint = f"install it: pip install {package}"
        raise refused(f"{purpose} needs {package}: {error}", hint) from error
