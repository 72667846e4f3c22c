"""Pictures of how training went, drawn from `metrics.jsonl`: learning curves, and where the time went."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "plot_learning_curves", "plot_time_split", "read_curves"]

_EVALUATORS = {"held_out": "held-out people", "lfw": "LFW"}
_JUDGED = {"accuracy": "accuracy", "auc": "AUC"}
_TIME_PREFIX = "time/epoch_"
# Told apart by people with colour-blindness too (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#f0e442", "#999999")
_REST_COLOUR = "#bbbbbb"
# Of more steps than this the mean of a window is drawn over the faint values.
_SMOOTH_FROM = 60


@dataclass(frozen=True, eq=False)
class Curve:
    """What one measure came to.

    Attributes
    ----------
    step : int64 (n,)
        Optimiser steps made.
    minutes : float64 (n,)
        Of training until then, the parts of a resumed run added up.
    value : float64 (n,)
        NaN where it was not finite.
    """

    step: NDArray[np.int64]
    minutes: NDArray[np.float64]
    value: NDArray[np.float64]


def read_curves(path: str) -> dict[str, Curve]:
    r"""Read `metrics.jsonl`, which the parts of a resumed run have each added to.

    The clock of each part begins at 0: where a line is earlier than that before it, a new part begins, which
    is counted from the end of the old one. Lines that a crash has cut off are left out.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    dict of str to Curve
        By the measure's name, in the order of the file.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "metrics.jsonl")
    >>> with open(path, "w") as file:
    ...     _ = file.write('{"step": 1, "name": "loss", "value": 0.5, "seconds": 60}\n')
    ...     _ = file.write('{"step": 2, "name": "loss", "value": 0.25, "seconds": 30}\n')
    >>> read_curves(path)["loss"].minutes
    array([1. , 1.5])
    """
    rows: dict[str, list[tuple[int, float, float]]] = {}
    before = last = 0.0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                one = json.loads(line)
                step, name, seconds = int(one["step"]), str(one["name"]), float(one["seconds"])
                value = float("nan") if one["value"] is None else float(one["value"])
            except (ValueError, KeyError, TypeError):
                continue
            if seconds < last:
                before += last
            last = seconds
            rows.setdefault(name, []).append((step, (before + seconds) / 60, value))
    return {name: _curve(some) for name, some in rows.items()}


def _curve(rows: list[tuple[int, float, float]]) -> Curve:
    step, minutes, value = zip(*rows, strict=True)
    return Curve(np.array(step), np.array(minutes), np.array(value))


def plot_learning_curves(path: str, curves: dict[str, Curve]) -> None:
    """Write a PNG of loss, active fraction, learning rate and verification, by step and by minutes.

    Parameters
    ----------
    path : str
        The file to write.
    curves : dict of str to Curve
        See `read_curves`; what is missing is not drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [
        ("loss", {"": curves.get("loss")}),
        ("active fraction", {"": curves.get("mining/active_fraction")}),
        ("learning rate", {"": curves.get("learning_rate")}),
        (
            "verification",
            {
                f"{judged}, {people}": curves.get(f"{group}/{key}")
                for group, people in _EVALUATORS.items()
                for key, judged in _JUDGED.items()
            },
        ),
    ]
    drawn = [
        (title, found)
        for title, lines in rows
        if (found := {label: curve for label, curve in lines.items() if curve is not None})
    ]
    if not drawn:
        raise ValueError("there must be measures to draw; got none")
    figure = Figure(figsize=(11, 0.6 + 2.3 * len(drawn)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(drawn), 2, sharex="col", sharey="row", squeeze=False)
    for (by_step, by_minutes), (title, lines) in zip(grid, drawn, strict=True):
        by_step.set_ylabel(title)
        for colour, (label, curve) in zip(_COLOURS, lines.items(), strict=False):
            _draw_line(by_step, curve.step, curve.value, colour, label)
            _draw_line(by_minutes, curve.minutes, curve.value, colour, label)
        for axes in (by_step, by_minutes):
            axes.grid(alpha=0.25)
            axes.margins(x=0.01)
        if any(lines):
            by_step.legend(loc="best", frameon=True, framealpha=0.9)
    grid[-1, 0].set_xlabel("step")
    grid[-1, 1].set_xlabel("minutes")
    figure.align_ylabels(grid[:, 0])
    figure.savefig(path, dpi=120)


def _draw_line(axes: Any, at: NDArray[Any], value: NDArray[np.float64], colour: str, label: str) -> None:
    # What is smooth already, like a learning rate, is drawn as it is.
    if len(value) < _SMOOTH_FROM or not _is_noisy(value):
        mark = "o" if len(value) < 30 else ""
        axes.plot(at, value, color=colour, linewidth=1.6, marker=mark, markersize=3.5, label=label)
        return
    axes.plot(at, value, color=colour, linewidth=0.7, alpha=0.35)
    # A tenth of a short curve, of a long one as much as can be seen.
    window = max(5, len(value) // 50)
    axes.plot(at, _smoothed(value, window), color=colour, linewidth=1.8, label=label)


def _is_noisy(value: NDArray[np.float64]) -> bool:
    """Say whether a curve turns back more often than at every tenth value."""
    rises = np.sign(np.diff(value[np.isfinite(value)]))
    return bool(np.count_nonzero(rises[1:] * rises[:-1] < 0) > len(rises) / 10)


def _smoothed(value: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean of each value and up to `window` before and after it, of finite ones."""
    is_number = np.isfinite(value)
    sums = np.concatenate([[0.0], np.cumsum(np.where(is_number, value, 0.0))])
    counts = np.concatenate([[0], np.cumsum(is_number)])
    at = np.arange(len(value))
    low, high = np.maximum(at - window, 0), np.minimum(at + window + 1, len(value))
    n = counts[high] - counts[low]
    return np.where(n > 0, (sums[high] - sums[low]) / np.maximum(n, 1), np.nan)


def plot_time_split(path: str, curves: dict[str, Curve]) -> None:
    """Write a PNG of where the seconds of each epoch went: stacked, with each part's share of all.

    Parameters
    ----------
    path : str
        The file to write.
    curves : dict of str to Curve
        See `read_curves`; read are the measures ``time/epoch_...``.

    Raises
    ------
    ValueError
        If there are none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    parts = {
        name.removeprefix(_TIME_PREFIX): curve
        for name, curve in curves.items()
        if name.startswith(_TIME_PREFIX)
    }
    if not parts:
        raise ValueError("there must be an epoch to draw; got none")
    # Of an epoch that was made again the last value counts.
    by_step = {
        part: dict(zip(curve.step.tolist(), curve.value, strict=True)) for part, curve in parts.items()
    }
    steps = sorted({step for values in by_step.values() for step in values})
    seconds = {
        name: np.nan_to_num([values.get(step, 0.0) for step in steps]).clip(min=0.0)
        for name, values in by_step.items()
    }
    total = sum(values.sum() for values in seconds.values()) or 1.0
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    epochs = np.arange(1, len(steps) + 1)
    bottom = np.zeros(len(steps))
    colours = iter(_COLOURS)
    # The largest part lies at the bottom, so that what is thin is seen above it.
    for name, values in sorted(seconds.items(), key=lambda part: (part[0] == "rest", -part[1].sum())):
        axes.bar(
            epochs,
            values,
            bottom=bottom,
            width=0.85 if len(steps) < 60 else 1.0,
            color=_REST_COLOUR if name == "rest" else next(colours),
            label=f"{name}  {100 * values.sum() / total:.1f} %",
        )
        bottom += values
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        xlim=(0.4, len(steps) + 0.6),
        xlabel="epoch",
        ylabel="seconds",
        title="Where the time went",
        ylim=(0, None),
    )
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)
