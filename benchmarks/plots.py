"""The plots of docs/performance.md: what mining costs as the batch grows, and what training buys by when."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Curves", "plot_growth", "plot_wall_clock"]

# (regime, strategy or "product"): points (x, milliseconds).
Curves = dict[tuple[str, str], list[tuple[float, float]]]

COLOURS = {"trained": "#1b62a5", "untrained": "#d9701e"}
LINES = {"vgg_face": "-", "facenet": "--"}
WAYS = {"unique": "#1b62a5", "triplets": "#d9701e"}
MEASURES = {"auc": ("AUC", "-"), "accuracy": ("accuracy", "--")}


def plot_growth(panels: Mapping[str, Curves], path: Path) -> None:
    """Draw a panel for each set of curves, both axes logarithmic, and save them as one picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, all_axes = plt.subplots(2, 2, figsize=(10, 7.2), constrained_layout=True)
    for axes, (label, curves) in zip(all_axes.flat, panels.items(), strict=True):
        for (regime, name), points in curves.items():
            x, milliseconds = zip(*points, strict=True)
            if name != "product":
                style = {"color": COLOURS[regime], "linestyle": LINES[name], "linewidth": 1.8}
                axes.plot(x, milliseconds, marker="o", markersize=3.5, label=f"{regime}, {name}", **style)
            elif regime == "trained":  # the product costs the same in either regime
                axes.plot(
                    x, milliseconds, color="0.45", linestyle=":", linewidth=1.8, label="N x N x D sgemm"
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(x, [f"{value:,.0f}" for value in x])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_tick_params(which="minor", size=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(label)
        axes.set_ylabel("milliseconds")
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes.flat[0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_wall_clock(panels: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw a panel for each data set, accuracy and AUC of each way to step against minutes, as one picture.

    Parameters
    ----------
    panels : mapping of str to mapping of str to wall_clock.Trained
        By title, then by way.
    path : Path
        The file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    width = 5.2 * len(panels)
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(width, 4.2), squeeze=False, constrained_layout=True
    )
    for axes, (title, ways) in zip(all_axes.flat, panels.items(), strict=True):
        for way, trained in ways.items():
            for measure, (label, line) in MEASURES.items():
                style = {"color": WAYS[way], "linestyle": line, "linewidth": 1.8}
                axes.plot(trained.minutes, getattr(trained, measure), label=f"{way}, {label}", **style)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("minutes of training")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes.flat[-1].legend(frameon=False, fontsize=9, loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
