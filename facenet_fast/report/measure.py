"""One way to record a number: a TensorBoard scalar and a line of `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from facenet_fast.errors import UserError, first_line
from facenet_fast.files import written_aside

__all__ = ["METRICS_FILE", "Measures", "forget_after"]

METRICS_FILE = "metrics.jsonl"

_Summary = tf.compat.v1.Summary
_N_BINS = 30


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
            self._path = os.path.join(logs_dir, METRICS_FILE)
            self._lines = _open(self._path)
        except OSError as error:
            raise UserError(
                f"the folder of the logs must be writable; {logs_dir!r}: {error.strerror}"
            ) from error
        try:
            with self._told():
                self._events = tf.summary.create_file_writer(logs_dir)
        except UserError:
            self._lines.close()
            raise
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

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        self.measure_all({name: value}, step)

    def measure_all(self, values: Mapping[str, float], step: int) -> None:
        """Record the numbers of a step in one go: one event of TensorBoard's, which costs less than one each.

        Parameters
        ----------
        values : mapping of str to float
            The numbers by name; see `measure`.
        step : int
            Optimiser steps made.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        seconds = round(time.perf_counter() - self._start, 3)
        numbers = {name: float(value) for name, value in values.items()}
        lines = [
            {
                "step": step,
                "name": name,
                "value": value if math.isfinite(value) else None,
                "seconds": seconds,
            }
            for name, value in numbers.items()
        ]
        try:
            self._lines.write("".join(json.dumps(line) + "\n" for line in lines))
        except OSError as error:
            raise UserError(f"cannot write {self._path!r}: {error.strerror}") from error
        self._show(
            {name: ("scalars", tf.make_tensor_proto(value, tf.float32)) for name, value in numbers.items()},
            step,
        )

    def show_histograms(self, values: Mapping[str, ArrayLike], step: int) -> None:
        """Show in TensorBoard how values are spread, in 30 bins of one width from the least to the largest.

        Parameters
        ----------
        values : mapping of str to array_like (n,)
            The values by name, of any number; those that are not finite are left out, and names without any.
        step : int
            Optimiser steps made.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        all_bins = {name: _bins(np.asarray(some, dtype=np.float64)) for name, some in values.items()}
        self._show(
            {
                name: ("histograms", tf.make_tensor_proto(bins, tf.float64))
                for name, bins in all_bins.items()
                if len(bins)
            },
            step,
        )

    def show_image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """Show a picture in TensorBoard.

        Parameters
        ----------
        name : str
            As TensorBoard groups it.
        image : uint8 (h, w, 3)
            The picture.
        step : int
            Optimiser steps made.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        height, width = image.shape[:2]
        # The quickest compression: on faces a fifth of the usual one's time, for a third more bytes.
        encoded = tf.io.encode_png(image, compression=1).numpy()
        strings = [str(width).encode(), str(height).encode(), encoded]
        self._show({name: ("images", tf.make_tensor_proto(strings, tf.string))}, step)

    def _show(self, tensors: Mapping[str, tuple[str, Any]], step: int) -> None:
        """Write what TensorBoard's plugins show of tensors, as one event."""
        if not tensors:
            return
        # What `tf.summary.scalar`, `histogram` and `image` write too, each by an event of its own.
        shown = [
            _Summary.Value(
                tag=name,
                tensor=tensor,
                metadata=tf.compat.v1.SummaryMetadata(
                    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin)
                ),
            )
            for name, (plugin, tensor) in tensors.items()
        ]
        with self._told(), self._events.as_default():
            tf.summary.experimental.write_raw_pb(_Summary(value=shown).SerializeToString(), step=step)

    def forget_after(self, step: int) -> None:
        """Leave out of `metrics.jsonl` what was measured after a step, which a resumed run measures again.

        TensorBoard's events stay: its files can only be added to.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        self._lines.close()
        forget_after(self._path, step, lambda line: int(json.loads(line)["step"]))
        self._lines = _open(self._path)

    def flush(self) -> None:
        """Write out what TensorBoard's writer holds back.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        with self._told():
            self._events.flush()

    def __enter__(self) -> Measures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What is still to be written of the lines is what could not be, which has been told.
        with contextlib.suppress(OSError):
            self._lines.close()
        # The error that ends the run is the one to tell.
        with self._told() if error is None else contextlib.suppress(tf.errors.OpError):
            self._events.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what TensorBoard's writer raises, perhaps of what was measured long before."""
        try:
            yield
        except tf.errors.OpError as failure:
            raise UserError(f"cannot write TensorBoard's events: {first_line(failure)}") from failure


def _bins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count finite values: a bin's left and right end and how many are in it, a row (n_bins or 0, 3)."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.empty((0, 3))
    counts, edges = np.histogram(finite, _N_BINS)
    return np.stack([edges[:-1], edges[1:], counts], axis=1)


def forget_after(path: str, step: int, step_of: Callable[[str], int]) -> None:
    r"""Leave the lines of later steps out of a file, and half lines, which a process that dies may leave.

    Parameters
    ----------
    path : str
        The file, written aside first; nothing is done where there is none.
    step : int
        The last step to keep.
    step_of : callable
        Reads a line's step; a `ValueError`, `KeyError` or `TypeError` says that it is no line.

    Raises
    ------
    UserError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "lines.txt")
    >>> with open(path, "w") as file:
    ...     _ = file.write("1 a\n2 b\n3 c\n")
    >>> forget_after(path, 2, lambda line: int(line.split()[0]))
    >>> with open(path) as file:
    ...     file.read()
    '1 a\n2 b\n'
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return
    kept = [line for line in lines if line.endswith("\n") and _is_kept(line, step, step_of)]
    if kept != lines:
        with written_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
            file.writelines(kept)


def _is_kept(line: str, step: int, step_of: Callable[[str], int]) -> bool:
    try:
        return step_of(line) <= step
    except (ValueError, KeyError, TypeError):
        return False


def _open(path: str) -> TextIO:
    # Line by line, so that a run that dies has told all it knew.
    return open(path, "a", buffering=1, encoding="utf-8")
