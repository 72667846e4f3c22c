"""What is asked of numbers that a caller hands in."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable

__all__ = ["check_integer", "check_number", "check_positive", "check_word"]


def check_number(name: str, value: float) -> float:
    """Return the value as a float that is not NaN."""
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be a number in float's range; got one beyond it") from error
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a number; got {value!r}") from error
    if math.isnan(number):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return number


def check_positive(name: str, value: float) -> float:
    """Return the value as a float that is positive and finite."""
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be positive and finite; got a number beyond float's range") from error
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a number; got {value!r}") from error
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


def check_word(name: str, word: object, words: Iterable[str], also: str = "") -> None:
    """Demand one of some words."""
    if not isinstance(word, str) or word not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}{also}; got {word!r}")
