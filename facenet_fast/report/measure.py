"""One way to record a number: a TensorBoard scalar and a line of `metrics.jsonl`."""

from __future__ import annotations

import json
import math
import os
import time
from types import TracebackType

import tensorflow as tf

from facenet_fast.errors import UserError

__all__ = ["METRICS_FILE", "Measures"]

METRICS_FILE = "metrics.jsonl"


class Measures:
    """Record named numbers by step in a folder.

    Each becomes a scalar in TensorBoard's event file and a line
    ``{"step": 10, "name": "loss", "value": 0.2, "seconds": 1.5}`` of ``metrics.jsonl``; a number that is not
    finite is `null` there, as JSON has no other word for it. ``seconds`` counts from the creation of the
    object. A folder that has been recorded in before is added to.

    Parameters
    ----------
    logs_dir : str
        The folder, made if missing.

    Raises
    ------
    UserError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> logs_dir = tempfile.mkdtemp()
    >>> with Measures(logs_dir) as measures:
    ...     measures.measure("loss", 0.25, step=1)
    >>> with open(os.path.join(logs_dir, METRICS_FILE)) as file:
    ...     json.loads(file.read())["value"]
    0.25
    """

    def __init__(self, logs_dir: str) -> None:
        try:
            os.makedirs(logs_dir, exist_ok=True)
            # Line by line, so that a run that dies has told all it knew.
            self._lines = open(os.path.join(logs_dir, METRICS_FILE), "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"the folder of the logs must be writable; {logs_dir!r}: {error.strerror}"
            ) from error
        self._events = tf.summary.create_file_writer(logs_dir)
        self._start = time.perf_counter()

    def measure(self, name: str, value: float, step: int) -> None:
        """Record one number.

        Parameters
        ----------
        name : str
            As TensorBoard groups it: ``group/name``.
        value : float
            The number.
        step : int
            Optimiser steps made.
        """
        value = float(value)
        with self._events.as_default():
            tf.summary.scalar(name, value, step=step)
        line = {
            "step": step,
            "name": name,
            "value": value if math.isfinite(value) else None,
            "seconds": round(time.perf_counter() - self._start, 3),
        }
        self._lines.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Write out what TensorBoard's writer holds back."""
        self._events.flush()

    def __enter__(self) -> Measures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
        self._lines.close()
