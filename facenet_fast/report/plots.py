"""Pictures of a verification: ROC and DET curves, and the distances behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenet_fast.errors import UserError
from facenet_fast.evaluation.roc import ROC, OperatingPoint
from facenet_fast.evaluation.verification import Verification

__all__ = [
    "DistanceHistogram",
    "plot_before_after",
    "plot_det",
    "plot_distances",
    "plot_roc",
    "plot_verification",
]

# Told apart by people with colour-blindness too (Okabe and Ito, 2008). The last of up to four results, the
# one that matters, is in strong blue; those it is compared with are fainter.
_COLOURS = ("#999999", "#56b4e9", "#e69f00", "#0072b2", "#009e73", "#d55e00")
_N_FAINT = 3
_SAME_COLOUR, _DIFFERENT_COLOUR, _MARK_COLOUR = "#0072b2", "#d55e00", "#e69f00"
_N_BINS = 60
# Single plots are shown some 500 pixels wide, two of theirs to each: drawn small, their text is large.
_SINGLE_SIZE, _SINGLE_DPI = (4.7, 4.1), 220
# Rates named on the axes of a DET plot, below and above one half.
_DET_TICKS = (*(10.0**power for power in range(-9, -2)), 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)


@dataclass(frozen=True)
class DistanceHistogram:
    """How many pairs of each kind are how far apart.

    Attributes
    ----------
    edges : float64 (n_bins + 1,)
        Ends of the bins, ascending.
    n_same, n_different : int64 (n_bins,)
        Pairs of one identity and of two in each bin.

    Raises
    ------
    UserError
        If the lengths do not fit.
    """

    edges: NDArray[np.float64]
    n_same: NDArray[np.int64]
    n_different: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.edges) - 1 == len(self.n_same) == len(self.n_different) >= 1:
            raise UserError(
                f"a histogram must have one edge more than bins, of which 1 or more; got {len(self.edges)} "
                f"edges, {len(self.n_same)} and {len(self.n_different)} bins"
            )

    @classmethod
    def of(cls, distances: ArrayLike, is_same: ArrayLike) -> DistanceHistogram:
        """Count pairs in 60 bins from 0 to the largest distance.

        Parameters
        ----------
        distances : array_like (n_pairs,)
            Distances, at least one, none negative.
        is_same : array_like of bool (n_pairs,)
            Whether each pair shows one identity.

        Returns
        -------
        DistanceHistogram

        Examples
        --------
        >>> histogram = DistanceHistogram.of([0.1, 0.2, 2.0], [True, True, False])
        >>> histogram.n_same.sum(), histogram.n_different[-1]
        (np.int64(2), np.int64(1))
        """
        measured, same = np.asarray(distances, dtype=np.float64), np.asarray(is_same, dtype=bool)
        edges = np.linspace(0.0, float(measured.max()) or 1.0, _N_BINS + 1)
        return cls(edges, *(np.histogram(measured[chosen], edges)[0] for chosen in (same, ~same)))


def plot_verification(path: str, results: Mapping[str, Verification], shown: str, title: str = "") -> None:
    """Write a PNG: on the left the exact ROC of each result, on the right the distances of one.

    The ROC's axis of false accepts is logarithmic, since what matters lies at its low end.

    Parameters
    ----------
    path : str
        The file to write.
    results : mapping of str to Verification
        What to compare, in the order of the legend.
    shown : str
        The result whose distances are drawn.
    title : str
        What the pairs are.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: no global state, no window, safe in any thread.
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_rocs(left, results)
    _draw_distances(right, results[shown], shown)
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)


def plot_before_after(path: str, results: Mapping[str, Verification]) -> None:
    """Write a PNG of the distances of several results, one below the other on one axis.

    Parameters
    ----------
    path : str
        The file to write.
    results : mapping of str to Verification
        Of the same pairs, the first at the top; at least one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 + 3.2 * len(results)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(results), 1, squeeze=False)[:, 0]
    furthest = max(float(result.distances.max()) for result in results.values())
    for axes, (name, result) in zip(rows, results.items(), strict=True):
        _draw_distances(axes, result, name)
        axes.set_xlim(0.0, 1.02 * furthest or 1.0)
        axes.label_outer()
    figure.savefig(path, dpi=120)


def _draw_rocs(axes: Any, results: Mapping[str, Verification]) -> None:
    colours = _COLOURS[max(0, _N_FAINT + 1 - len(results)) :]
    lowest = min(1.0 / max(int(np.count_nonzero(~result.is_same)), 1) for result in results.values())
    for number, (name, result) in enumerate(results.items()):
        roc = result.roc
        axes.step(
            np.maximum(roc.fpr, lowest / 2),
            roc.tpr,
            where="post",
            color=colours[number % len(colours)],
            linewidth=2.2 if number == len(results) - 1 else 1.5,
            label=f"{name}  (AUC {result.auc:.3f})",
        )
    chance = np.geomspace(lowest / 2, 1.0, 200)
    axes.plot(chance, chance, color="black", linewidth=0.8, linestyle=":", label="chance")
    axes.set(
        xscale="log",
        xlim=(lowest / 2, 1.0),
        ylim=(0.0, 1.02),
        xlabel="false accept rate (different people taken for one)",
        ylabel="true accept rate (VAL)",
        title="Verification ROC",
    )
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=True, framealpha=0.9)


def _draw_distances(axes: Any, result: Verification, name: str) -> None:
    bins = np.linspace(0.0, float(result.distances.max()) * 1.02 or 1.0, _N_BINS + 1)
    kinds = (
        (result.is_same, _SAME_COLOUR, "one person"),
        (~result.is_same, _DIFFERENT_COLOUR, "two people"),
    )
    for chosen, colour, label in kinds:
        axes.hist(
            result.distances[chosen],
            bins=bins,
            density=True,
            color=colour,
            alpha=0.6,
            label=f"{label} ({np.count_nonzero(chosen)} pairs)",
        )
    axes.axvline(
        result.threshold,
        color="black",
        linewidth=1.0,
        linestyle="--",
        label=f"threshold {result.threshold:.2f} (accuracy {result.accuracy:.3f})",
    )
    axes.set(
        xlim=(0.0, bins[-1]),
        xlabel="distance of the pair",
        ylabel="density of pairs",
        title=f"Distances, {name}",
    )
    # Room for the legend above the bars.
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])
    axes.legend(loc="upper right", frameon=True, framealpha=0.9)


def plot_roc(file: str | IO[bytes], roc: ROC, points: Sequence[OperatingPoint] = ()) -> None:
    """Write a PNG of an exact ROC, false accepts on a logarithmic axis, with its operating points.

    Parameters
    ----------
    file : str or binary file
        Where to.
    roc : ROC
        The curve.
    points : sequence of OperatingPoint
        Marked at the FAR that they were asked for.
    """
    with _single_plot(file) as axes:
        # Rates below one pair do not occur; a curve that starts at FAR 0 comes in from the left edge.
        lowest = min(0.5 / max(roc.n_different, 1), 0.05)
        axes.step(
            np.maximum(roc.fpr, lowest),
            roc.tpr,
            where="post",
            color=_SAME_COLOUR,
            linewidth=2.0,
            label=f"AUC {roc.auc:.4f}",
        )
        _mark(axes, [(point.far_target, point.val) for point in points])
        for point in points:
            axes.annotate(
                f"{point.val:.3f}",
                (point.far_target, point.val),
                # Below the curve, which rises to the right; above it where below is off the picture.
                xytext=(5, -14 if point.val > 0.1 else 7),
                textcoords="offset points",
                fontsize="small",
            )
        chance = np.geomspace(lowest, 1.0, 200)
        axes.plot(chance, chance, color="black", linewidth=0.8, linestyle=":", label="chance")
        axes.set(
            xscale="log",
            xlim=(lowest, 1.0),
            ylim=(0.0, 1.02),
            xlabel="false accept rate (FAR)",
            ylabel="true accept rate (VAL)",
            title="ROC",
        )
        # Where the curve leaves most room: a good one runs along the top, a poor one along the bottom.
        high = roc.tpr[np.searchsorted(roc.fpr, np.sqrt(lowest), side="right") - 1] > 0.5
        axes.legend(loc="lower right" if high else "upper left", frameon=True, framealpha=0.9)


def plot_det(file: str | IO[bytes], roc: ROC, points: Sequence[OperatingPoint] = ()) -> None:
    """Write a PNG of the detection error trade-off [1]_: both error rates on normal-deviate axes.

    Normal deviates make a straight line of two normal distributions of distances; the lower, the better.

    Parameters
    ----------
    file : str or binary file
        Where to.
    roc : ROC
        The curve.
    points : sequence of OperatingPoint
        Marked at the FAR that they were asked for.

    References
    ----------
    .. [1] Martin et al., "The DET Curve in Assessment of Detection Task Performance", Eurospeech 1997.
    """
    from scipy.stats import norm

    # Half of one pair: what errors that do not occur are drawn as, since zero is infinitely far.
    lowest = [min(0.5 / max(n, 1), 0.05) for n in (roc.n_different, roc.n_same)]
    with _single_plot(file) as axes:
        fpr, fnr = (
            np.clip(rate, least, 1 - least)
            for rate, least in zip((roc.fpr, 1.0 - roc.tpr), lowest, strict=True)
        )
        # As far as one half, and on to where the curve is at its other end and at its EER.
        right = max(0.5, min(1.5 * roc.eer, 1 - lowest[0]))
        top = max(0.5, right, float(fnr[np.searchsorted(fpr, lowest[0], side="right") - 1]))
        axes.step(
            norm.ppf(fpr), norm.ppf(fnr), where="post", color=_SAME_COLOUR, linewidth=2.0, label="errors"
        )
        _mark(
            axes,
            [
                (norm.ppf(point.far_target), norm.ppf(np.clip(1 - point.val, lowest[1], 1 - lowest[1])))
                for point in points
                if point.far_target <= right
            ],
        )
        ends = norm.ppf([min(lowest), max(right, top)])
        axes.plot(
            ends, ends, color="black", linewidth=0.8, linestyle=":", label=f"equal errors: EER {roc.eer:.4f}"
        )
        axes.set(
            xlim=norm.ppf([lowest[0], right]),
            ylim=norm.ppf([lowest[1], top]),
            xlabel="false accepts, % of different pairs",
            ylabel="false rejects, % of same pairs",
            title="DET",
        )
        for set_ticks, low, high in (
            (axes.set_xticks, lowest[0], right),
            (axes.set_yticks, lowest[1], top),
        ):
            ticks = [tick for tick in _DET_TICKS if low <= tick <= high]
            set_ticks(norm.ppf(ticks), [f"{100 * tick:g}" for tick in ticks])
        axes.tick_params(axis="x", rotation=45)
        # Good curves run below the upper right corner, poor ones through it.
        axes.legend(loc="upper right" if roc.eer < 0.15 else "lower left", frameon=True, framealpha=0.9)


def plot_distances(
    file: str | IO[bytes], histogram: DistanceHistogram, threshold: float, distance_name: str = "distance"
) -> None:
    """Write a PNG of how far pairs are apart, each kind's densities, with a threshold.

    Parameters
    ----------
    file : str or binary file
        Where to.
    histogram : DistanceHistogram
        The distances; many bins are drawn as at most 60.
    threshold : float
        The threshold.
    distance_name : str
        What is on the axis.
    """
    edges, kinds = _coarse(histogram)
    with _single_plot(file) as axes:
        for counts, colour, label in zip(
            kinds, (_SAME_COLOUR, _DIFFERENT_COLOUR), ("one identity", "two identities"), strict=True
        ):
            n_pairs = int(counts.sum())
            axes.stairs(
                counts / (max(n_pairs, 1) * np.diff(edges)),
                edges,
                fill=True,
                color=colour,
                alpha=0.6,
                label=f"{label}: {n_pairs:,} pairs",
            )
        axes.axvline(
            threshold, color="black", linewidth=1.0, linestyle="--", label=f"threshold {threshold:.4g}"
        )
        axes.set(
            xlim=(edges[0], max(edges[-1], threshold)),
            xlabel=distance_name,
            ylabel="density of pairs",
            title="Distances",
        )
        # Room for the legend above the bars.
        axes.set_ylim(bottom=0.0, top=1.45 * axes.get_ylim()[1])
        axes.legend(loc="upper right", frameon=True, framealpha=0.9)


@contextmanager
def _single_plot(file: str | IO[bytes]) -> Iterator[Any]:
    """Give the axes of a plot of its own and write it when they are drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SINGLE_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    yield axes
    figure.savefig(file, format="png", dpi=_SINGLE_DPI)


def _mark(axes: Any, at: Sequence[tuple[float, float]]) -> None:
    if at:
        axes.plot(
            *zip(*at, strict=True),
            linestyle="",
            marker="o",
            markersize=6,
            markerfacecolor=_MARK_COLOUR,
            markeredgecolor="black",
            clip_on=False,
            label="operating points",
        )


def _coarse(
    histogram: DistanceHistogram,
) -> tuple[NDArray[np.float64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Leave out empty bins beyond the last pair and join neighbours until there are at most 60."""
    occupied = np.flatnonzero(histogram.n_same + histogram.n_different)
    n_bins = int(occupied[-1]) + 1 if len(occupied) else len(histogram.n_same)
    starts = np.arange(0, n_bins, -(-n_bins // _N_BINS))
    same, different = (
        np.add.reduceat(counts[:n_bins], starts) for counts in (histogram.n_same, histogram.n_different)
    )
    return np.append(histogram.edges[starts], histogram.edges[n_bins]), (same, different)
