"""Fair times on a machine that is never quite still: contestants take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

__all__ = ["Contestant", "Timing", "take_turns"]

# The workers of BLAS and of most thread pools spin for a while after a call, on cores that others need.
PAUSE_SECONDS = 0.2

# A turn: calls back to back, so that a call finds caches and threads as the one before left them.
TURN_SECONDS = 0.05
MOST_CALLS_A_TURN = 200


@dataclass(frozen=True)
class Contestant:
    """Something to time, and the state of the process that its turns are taken in."""

    call: Callable[[], Any]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median, the least, and of how many calls."""

    median: float
    least: float
    n_calls: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Sum up some calls."""
        return cls(statistics.median(seconds), min(seconds), len(seconds))


def take_turns(contestants: Mapping[str, Contestant], seconds_each: float, n_turns: int) -> dict[str, Timing]:
    """Time all of them, a turn each in rotation, for at least `n_turns` turns and until each used its time.

    A contestant whose first call takes longer than `seconds_each` is called once. Otherwise the first call is
    not counted, nor is the first of a turn of several.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    spent = dict.fromkeys(contestants, 0.0)
    first: dict[str, float] = {}
    for name, contestant in contestants.items():
        first[name] = sum(_turn(contestant, 1))
        if first[name] > seconds_each:
            seconds[name] = [first[name]]
            spent[name] = first[name]
    turn = 0
    while any(
        turn < n_turns or spent[name] < seconds_each for name in contestants if first[name] <= seconds_each
    ):
        for name, contestant in contestants.items():
            if spent[name] >= seconds_each and (turn >= n_turns or first[name] > seconds_each):
                continue
            estimate = statistics.median(seconds[name]) if seconds[name] else first[name]
            n_calls = min(max(int(TURN_SECONDS / estimate), 1), MOST_CALLS_A_TURN)
            measured = _turn(contestant, n_calls + (n_calls > 1))[n_calls > 1 :]
            seconds[name] += measured
            spent[name] += max(sum(measured), TURN_SECONDS)
        turn += 1
    return {name: Timing.of(all_) for name, all_ in seconds.items()}


def _turn(contestant: Contestant, n_calls: int) -> list[float]:
    measured = []
    time.sleep(PAUSE_SECONDS)
    with contestant.around():
        for _ in range(n_calls):
            begin = time.perf_counter()
            contestant.call()
            measured.append(time.perf_counter() - begin)
    return measured
