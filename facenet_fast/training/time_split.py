"""Where the time of an epoch goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PARTS", "TimeSplit"]

#: What is told apart: waiting for images, embedding a pool before it is mined (`step="triplets"`, `sub_pool`)
#: and all images to find lookalikes, mining, the network's forward and backward passes with the weights'
#: update, and everything else.
PARTS = ("read", "embed", "mine", "step", "rest")


class TimeSplit:
    """Seconds by part, from the creation of the object on.

    Examples
    --------
    >>> split = TimeSplit()
    >>> with split.of("read"):
    ...     time.sleep(0.01)
    >>> split.seconds()["read"] >= 0.01, list(split.seconds()) == list(PARTS)
    (True, True)
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds = dict.fromkeys(PARTS[:-1], 0.0)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count a block as that part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - start

    def move(self, seconds: float, part: str, within: str) -> None:
        """Count as one part what was counted as another, within which it happened."""
        self._seconds[part] += seconds
        self._seconds[within] -= seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part until now; together they are all there were."""
        spent = time.perf_counter() - self._start
        return {**self._seconds, "rest": spent - sum(self._seconds.values())}

    def line(self) -> str:
        """Say it in one line, like ``12.3 s: read 0.4 %, embed 0.0 %, mine 0.9 %, step 97.5 %, ...``."""
        seconds = self.seconds()
        spent = sum(seconds.values())
        shares = ", ".join(f"{part} {100 * value / spent:.1f} %" for part, value in seconds.items())
        return f"{spent:.1f} s: {shares}"
