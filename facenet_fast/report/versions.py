"""What the numbers of a run or a report were made with."""

from __future__ import annotations

import platform
from importlib import metadata

import facenet_fast

__all__ = ["versions"]

_PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pillow", "matplotlib")


def versions(*others: str) -> dict[str, str]:
    """Return the versions of facenet-fast, Python and the packages that numbers depend on.

    Parameters
    ----------
    *others : str
        More packages, by the names under which they are installed.

    Examples
    --------
    >>> list(versions())[:2]
    ['facenet-fast', 'python']
    """
    return {
        "facenet-fast": facenet_fast.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in (*_PACKAGES, *others)},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
