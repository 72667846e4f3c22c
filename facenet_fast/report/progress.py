"""How far a long look at images is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["image_progress"]

_SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def image_progress(
    n_images: int, n_done: int = 0, stream: TextIO | None = None
) -> Iterator[Callable[[int], None]]:
    """Show how many images are done, while the block lasts.

    Parameters
    ----------
    n_images : int
        All there are.
    n_done : int, default=0
        How many of them were done before; they say nothing about the speed.
    stream : text file, optional
        Where to show it; default: standard output.

    Yields
    ------
    callable
        To be called with the number of images done.
    """
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        yield _Lines(n_images, n_done, stream)
        return
    from rich import console, progress

    with progress.Progress(
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("images"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=console.Console(file=stream, highlight=False),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=n_images, completed=n_done)
        yield lambda n_now: bar.update(task, completed=n_now)


class _Lines:
    def __init__(self, n_images: int, n_done: int, stream: TextIO) -> None:
        self._n_images, self._n_before, self._stream = n_images, n_done, stream
        self._start = self._told = time.monotonic()

    def __call__(self, n_done: int) -> None:
        now = time.monotonic()
        if now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            speed = (n_done - self._n_before) / (now - self._start)
            print(f"{n_done} of {self._n_images} images, {speed:.0f} a second", file=self._stream, flush=True)
