"""The picture of a verification: ROC curves of all that was compared, and one of them as distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facenet_fast.evaluation.verification import Verification

__all__ = ["plot_verification"]

# Told apart by people with colour-blindness too (Okabe and Ito, 2008). The last of up to four results, the
# one that matters, is in strong blue; those it is compared with are fainter.
_COLOURS = ("#999999", "#56b4e9", "#e69f00", "#0072b2", "#009e73", "#d55e00")
_N_FAINT = 3
_SAME_COLOUR, _DIFFERENT_COLOUR = "#0072b2", "#d55e00"
_N_BINS = 60


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
