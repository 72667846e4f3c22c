"""What a run shows while it goes: a live display on a terminal, plain greppable lines elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

__all__ = ["Console", "PlainConsole", "Progress", "TerminalConsole", "console_for"]


@dataclass(frozen=True)
class Progress:
    """Where training is.

    Attributes
    ----------
    epoch, n_epochs : int
        The epoch, counted from 0, and how many there are.
    step, epoch_size : int
        Steps made in this epoch and steps of an epoch.
    seconds : float
        Of the last step, reading included.
    loss, learning_rate : float
        Of the last step.
    n_triplets, n_pairs : int
        Triplets mined for it, and pairs looked at.
    """

    epoch: int
    n_epochs: int
    step: int
    epoch_size: int
    seconds: float
    loss: float
    learning_rate: float
    n_triplets: int
    n_pairs: int


class PlainConsole:
    """Lines only: for files, pipes and grep; the predecessor's `Epoch:` lines with more columns behind.

    Parameters
    ----------
    stream : text file
        Where lines go.
    every : int
        Steps between two lines of progress; the last of an epoch always has one.
    """

    def __init__(self, stream: TextIO, every: int = 1) -> None:
        self._stream = stream
        self._every = every

    def __enter__(self) -> PlainConsole:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def line(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def detail(self, text: str) -> None:
        """Print a line that a live display leaves out."""
        self.line(text)

    def progress(self, now: Progress) -> None:
        """Print a line of progress if it is time for one."""
        if now.step % self._every == 0 or now.step == now.epoch_size:
            self.line(
                f"Epoch: [{now.epoch}][{now.step}/{now.epoch_size}]\tTime {now.seconds:.3f}"
                f"\tLoss {now.loss:2.3f}\tTriplets {now.n_triplets}/{now.n_pairs}"
                f"\tRate {now.learning_rate:.2e}"
            )


class TerminalConsole:
    """A bar that fills, with the numbers of the last step; lines scroll above it.

    Parameters
    ----------
    stream : text file
        The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich import console, progress

        self._console = console.Console(file=stream, highlight=False)
        self._bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("loss {task.fields[loss]}  triplets {task.fields[triplets]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: progress.TaskID | None = None

    def __enter__(self) -> TerminalConsole:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """Leave out what the bar makes needless."""

    def progress(self, now: Progress) -> None:
        """Move the bar; the last step takes it away."""
        done = now.epoch * now.epoch_size + now.step
        total = now.n_epochs * now.epoch_size
        fields: dict[str, Any] = {
            "epoch": f"{now.epoch + 1}/{now.n_epochs}",
            "loss": f"{now.loss:.3f}",
            "triplets": f"{now.n_triplets}/{now.n_pairs}",
        }
        if self._task is None:
            self._bar.start()
            # Steps made by an earlier run say nothing about the speed of this one.
            self._task = self._bar.add_task("", total=total, completed=done, **fields)
        self._bar.update(self._task, completed=done, **fields)
        if done >= total:
            self._bar.stop()


Console = PlainConsole | TerminalConsole


def console_for(stream: TextIO | None = None, every: int = 1) -> Console:
    """Choose the display that a stream (default: standard output) can show."""
    stream = sys.stdout if stream is None else stream
    return TerminalConsole(stream) if stream.isatty() else PlainConsole(stream, every)
