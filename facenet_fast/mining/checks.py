"""What is asked of numbers that a caller hands in."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable

__all__ = [
    "check_backend",
    "check_flag",
    "check_integer",
    "check_number",
    "check_positive",
    "check_threads",
    "check_word",
]


def check_number(name: str, value: float) -> float:
    """Return the value as a float that is not NaN."""
    number = _as_float(name, value, "a number in float's range; got one beyond it")
    if math.isnan(number):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return number


def check_positive(name: str, value: float) -> float:
    """Return the value as a float that is positive and finite."""
    number = _as_float(name, value, "positive and finite; got a number beyond float's range")
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be positive and finite; got {value!r}")
    return number


def check_integer(name: str, value: int, low: int, high: int) -> int:
    """Return the value as an int in ``[low, high]``."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a whole number; got {value!r}") from error
    if not low <= number <= high:
        raise ValueError(f"{name} must be in [{low}, {high}]; got {number}")
    return number


def check_threads(threads: int | None) -> int:
    """Return a wish for threads as the core takes it: 0 for none."""
    return 0 if threads is None else check_integer("threads", threads, 1, 2**31 - 1)


def check_backend(backend: str) -> None:
    """Demand a backend that there is."""
    if backend not in ("native", "reference"):
        raise ValueError(f"backend must be 'native' or 'reference'; got {backend!r}")


def check_word(name: str, word: object, words: Iterable[str], also: str = "") -> None:
    """Demand one of some words."""
    if not isinstance(word, str) or word not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}{also}; got {word!r}")


def _as_float(name: str, value: float, must: str) -> float:
    """Return the value as a float; what it must be is said where it is beyond float's range."""
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be {must}") from error
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a number; got {value!r}") from error


def check_flag(name: str, flag: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(flag, bool):
        raise TypeError(f"{name} must be True or False; got {flag!r}")
