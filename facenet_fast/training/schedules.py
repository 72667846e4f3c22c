"""The learning rate at each step: warm-up and cosine, constant, or from a file; decayed in a staircase."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable

from facenet_fast.config import TrainConfig
from facenet_fast.errors import UserError

__all__ = ["learning_rate_schedule", "read_schedule_file"]

_logger = logging.getLogger("facenet_fast")

# What ends training in a schedule file: `91: -1` or `91: -`.
_SENTINELS = ("-", "-1")


def learning_rate_schedule(config: TrainConfig) -> Callable[[int], float | None]:
    r"""Make the function from the number of steps done to the learning rate of the next.

    With n steps in all, the first w = ``warmup`` * n of them warming up, step s has

    - ``schedule="cosine"``: :math:`r (s + 1) / w` while s < w, then
      :math:`r (1 + \cos(\pi (s - w) / (n - w))) / 2`;
    - ``schedule="constant"``: r;
    - ``learning_rate <= 0``: the rate that the schedule file gives for epoch ``s // epoch_size``;

    each times ``learning_rate_decay_factor ** (s // (learning_rate_decay_epochs * epoch_size))``.

    Parameters
    ----------
    config : TrainConfig
        The settings; a schedule file is read at once.

    Returns
    -------
    callable
        int to float, or to `None` where the schedule file says that training ends.

    Raises
    ------
    UserError
        If the schedule file cannot be read or a line of it is wrong.

    Examples
    --------
    >>> rate = learning_rate_schedule(TrainConfig(learning_rate=0.1, schedule="constant",
    ...     learning_rate_decay_factor=0.5, learning_rate_decay_epochs=2, epoch_size=10))
    >>> rate(0), rate(19), rate(20)
    (0.1, 0.1, 0.05)
    """
    base = _base_schedule(config)
    steps_between_decays = config.learning_rate_decay_epochs * config.epoch_size

    def rate(step: int) -> float | None:
        value = base(step)
        if value is None:
            return None
        return value * config.learning_rate_decay_factor ** (step // steps_between_decays)

    return rate


def read_schedule_file(path: str) -> list[tuple[int, float | None]]:
    """Read lines ``epoch: learning rate``.

    ``#`` starts a comment. An entry holds from its epoch on until the next; the last one holds for ever. The
    rate ``-1`` or ``-`` ends training before its epoch.

    Returns
    -------
    list of (epoch, learning rate or None)
        Epochs ascend from 0; `None` ends training.

    Raises
    ------
    UserError
        If the file cannot be read, has no entry, does not start at epoch 0, or a line is malformed (with its
        number). A blank line between others is passed over with a warning.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().rstrip().split("\n")
    except OSError as error:
        raise UserError(f"the schedule file must be readable; {path!r}: {error.strerror}") from error
    entries: list[tuple[int, float | None]] = []
    blank = [str(number) for number, line in enumerate(lines, start=1) if not line.strip()]
    for number, line in enumerate(lines, start=1):
        content = line.split("#", 1)[0].strip()
        if not content:
            continue
        try:
            entry = _parse_entry(content)
        except ValueError as error:
            raise UserError(f"{path!r}, line {number}: {error}") from None
        if entries and entry[0] <= entries[-1][0]:
            raise UserError(
                f"{path!r}, line {number}: epochs must ascend; got {entry[0]} after {entries[-1][0]}"
            )
        if not entries and entry[0] != 0:
            raise UserError(f"{path!r}, line {number}: the first entry must be for epoch 0; got {entry[0]}")
        entries.append(entry)
    if not entries:
        raise UserError(f"{path!r} must hold lines 'epoch: learning rate'; found none")
    if blank:
        _logger.warning("%s: blank lines passed over: %s", os.path.basename(path), ", ".join(blank))
    return entries


def _base_schedule(config: TrainConfig) -> Callable[[int], float | None]:
    if config.learning_rate <= 0:
        entries = read_schedule_file(config.learning_rate_schedule_file)
        return lambda step: _entry_at(entries, step // config.epoch_size)
    if config.schedule == "constant":
        return lambda step: config.learning_rate
    return lambda step: config.learning_rate * _cosine(step, config.n_steps, config.warmup)


def _entry_at(entries: list[tuple[int, float | None]], epoch: int) -> float | None:
    return next(rate for start, rate in reversed(entries) if start <= epoch)


def _cosine(step: int, n_steps: int, warmup: float) -> float:
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - n_warmup) / (n_steps - n_warmup))))


def _parse_entry(content: str) -> tuple[int, float | None]:
    epoch, colon, rate = (part.strip() for part in content.partition(":"))
    if not colon or not epoch.isdecimal():
        raise ValueError(f"a line must be 'epoch: learning rate'; got {content!r}")
    if rate in _SENTINELS:
        return int(epoch), None
    try:
        value = float(rate)
    except ValueError:
        value = math.nan
    if value == -1:
        return int(epoch), None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"a learning rate must be positive, or -1 to stop; got {rate!r}")
    return int(epoch), value
