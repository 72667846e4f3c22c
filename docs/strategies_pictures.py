"""Draw the pictures of docs/strategies.md from what the miner picks: python docs/strategies_pictures.py.

Every picture shows one small batch. On the left one anchor of it: its positives, its negatives, and how often
each negative is picked, over many seeds. On the right all triplets of the batch, by how much farther the
negative is than the positive.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Annulus, Circle, Patch
from PIL import Image

from facenet_fast import PRESETS, Interval, Strategy, mine_triplets, stream_triplets

IMAGES = Path(__file__).parent / "images"
MARGIN = 0.2
N_SEEDS = 2000  # for the anchor on the left; the histogram takes a hundredth, of all anchors
N_COLOURS = 64  # of a file: a third of the size, and no eye sees it
BLUE, ORANGE, GREY, PALE = "#0072b2", "#d55e00", "#9a9a9a", "#fbe9dc"
ANCHOR, SHOWN_POSITIVE = 0, 4


@dataclass(frozen=True, eq=False)
class World:
    """A batch, where its rows lie around the anchor in the picture, and how far the picture reaches."""

    embeddings: np.ndarray
    labels: np.ndarray
    places: np.ndarray
    reach: float


@dataclass(frozen=True)
class View:
    """A strategy and the world to show it in; `of_pair`: show one of the anchor's pairs, not all."""

    strategy: Strategy
    of_pair: bool = False
    on_sphere: bool = False


VIEWS: dict[str, View] = {
    "vgg_face": View(PRESETS["vgg_face"], of_pair=True),
    "facenet": View(PRESETS["facenet"], of_pair=True),
    "batch_hard": View(PRESETS["batch_hard"]),
    "batch_all": View(PRESETS["batch_all"]),
    "easy_positive": View(PRESETS["easy_positive"]),
    "distance_weighted": View(PRESETS["distance_weighted"], of_pair=True, on_sphere=True),
    "hardest": View(PRESETS["hardest"], of_pair=True),
    "moderate_positive": View(Strategy("all", "moderate_positive", "nearest")),
    "random_positives": View(Strategy("violating", "random_positives", n_positives=2)),
    "screening": View(Strategy("all", "hardest_positive", "nearest", max_positive_distance=0.5)),
    "hard": View(Strategy("hard", "both_ways"), of_pair=True),
    "farther": View(Strategy("farther", "both_ways", "nearest", if_empty="farthest"), of_pair=True),
    "interval": View(Strategy(Interval(low=-0.1, high=0.1)), of_pair=True),
    "skip_hardest": View(Strategy("all", "hardest_positive", "nearest", skip_hardest=0.1)),
    "n_negatives": View(Strategy("all", "hardest_positive", "nearest", n_negatives=3)),
}


def flat_world() -> World:
    """Return an anchor amid seven identities, in two dimensions: a picture of it hides nothing."""
    rng = np.random.default_rng(580)
    radii = np.array([0.0, 0.13, 0.2, 0.3, 0.39, 0.5, 0.62, 0.83])
    angles = np.array([0.0, 2.0, 0.1, 5.3, 3.1, 1.25, 2.45, 3.75])
    own = radii[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    around = np.arange(6) * np.pi / 3 + 0.15
    centres = 0.66 * np.stack((1.2 * np.cos(around), np.sin(around)), axis=1)
    others = np.repeat(centres, 8, axis=0) + 0.2 * rng.standard_normal((48, 2))
    embeddings = np.concatenate((own, others))
    return World(embeddings, np.repeat(np.arange(7), 8), embeddings, 0.88)


def sphere_world() -> World:
    """Return ten identities on a sphere of 16 dimensions, some more like the anchor's than others.

    In the picture a row is as far from the anchor as it is on the sphere, in the direction of two dimensions
    that is nearest to its own.
    """
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(10), 7)
    shared = np.linspace(1.5, 0.0, 10)[labels, None]  # by how much an identity is like the anchor's
    embeddings = shared * rng.standard_normal(16) + rng.standard_normal((10, 16))[labels]
    embeddings += 0.5 * rng.standard_normal((70, 16))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    away = embeddings - embeddings[ANCHOR]
    beside = away - np.outer(away @ embeddings[ANCHOR], embeddings[ANCHOR])
    directions = beside @ np.linalg.svd(beside, full_matrices=False)[2][:2].T
    lengths = np.linalg.norm(away, axis=1, keepdims=True)
    shown = np.linalg.norm(directions, axis=1, keepdims=True)
    return World(embeddings, labels, directions * lengths / np.where(shown > 0, shown, 1.0), 1.6)


def short(thing: Any) -> str:
    """Return the expression that makes a strategy, with what is not as by default."""
    if not is_dataclass(thing):
        return json.dumps(thing)
    words = []
    for field in fields(thing):
        value = getattr(thing, field.name)
        if field.name in ("band", "pairs", "pick"):
            words.append(short(value))
        elif value != field.default and field.name != "source":
            words.append(f"{field.name}={short(value)}")
    return f"{type(thing).__name__}({', '.join(words)})"


def mine(world: World, strategy: Strategy, seed: int, anchors: slice) -> np.ndarray:
    """Return triplets as rows of anchor, positive, negative; of every candidate where it picks every one."""
    arguments = {"strategy": strategy, "margin": MARGIN, "seed": seed, "anchors": anchors}
    if strategy.pick == "every":
        blocks = list(stream_triplets(world.embeddings, world.labels, **arguments))
    else:
        blocks = [mine_triplets(world.embeddings, world.labels, **arguments)]
    return np.concatenate([np.stack((b.anchor, b.positive, b.negative), axis=1) for b in blocks])


def is_drawn(strategy: Strategy) -> bool:
    """Say whether another seed may give other triplets."""
    return strategy.pick in ("uniform", "distance_weighted") or strategy.pairs == "random_positives"


def draw_anchor(axes: Any, world: World, view: View, n_seeds: int) -> None:
    """Draw the anchor, and its positives and negatives as large as they are often picked."""
    strategy, places = view.strategy, world.places
    seeds = range(n_seeds if is_drawn(strategy) else 1)
    mined = np.concatenate([mine(world, strategy, seed, slice(ANCHOR, ANCHOR + 1)) for seed in seeds])
    if view.of_pair:
        mined = mined[mined[:, 1] == SHOWN_POSITIVE]
    rows = np.arange(len(places))
    squared = np.square(world.embeddings - world.embeddings[ANCHOR]).sum(axis=1)
    is_own = world.labels == world.labels[ANCHOR]
    positives = np.unique(mined[:, 1])
    pairs_a_seed = strategy.n_positives if strategy.pairs == "random_positives" else len(positives)
    often = np.bincount(mined[:, 2], minlength=len(rows)) / (len(seeds) * pairs_a_seed)

    draw_band(axes, world, strategy, squared[positives[0]] if len(positives) == 1 else None)
    left_out = np.zeros(len(rows), bool)
    if strategy.skip_hardest:
        negatives = rows[~is_own]
        nearest = negatives[np.argsort(squared[negatives], kind="stable")]
        left_out[nearest[: int(strategy.skip_hardest * len(negatives))]] = True
    if strategy.max_positive_distance is not None:
        left_out |= is_own & (squared >= strategy.max_positive_distance)

    picked = often > 0
    others = is_own & ~np.isin(rows, [ANCHOR, *positives]) & ~left_out
    lines = [(row, BLUE) for row in positives]
    if len(positives) == 1:
        lines += [(row, ORANGE) for row in rows[often == 1]]
    for row, colour in lines:
        axes.plot(*places[[ANCHOR, row]].T, color=colour, linewidth=1.2, zorder=2)
    edge = {"edgecolors": "white", "linewidths": 0.7}
    sizes = 20 + 110 * often[picked] ** 0.7
    axes.scatter(*places[~is_own & ~picked & ~left_out].T, s=20, color=GREY, linewidths=0, zorder=3)
    axes.scatter(*places[others].T, s=42, facecolors="white", edgecolors=BLUE, linewidths=1.2, zorder=4)
    for rows_out, colour in ((left_out & is_own, BLUE), (left_out & ~is_own, GREY)):
        axes.scatter(*places[rows_out].T, s=42, marker="x", color=colour, linewidths=1.8, zorder=4)
    axes.scatter(*places[positives].T, s=60, color=BLUE, zorder=5, **edge)
    axes.scatter(*places[picked].T, s=sizes, color=ORANGE, zorder=5, **edge)
    axes.scatter(*places[ANCHOR], s=190, marker="*", color="black", zorder=6, **edge)
    axes.set(
        xlim=(-1.3 * world.reach, 1.3 * world.reach),
        ylim=(-world.reach, world.reach),
        aspect="equal",
        xticks=[],
        yticks=[],
        title=said(int(picked.sum()), int((~is_own).sum()), len(positives), len(seeds)),
    )


def said(n_picked: int, n_negatives: int, n_positives: int, n_seeds: int) -> str:
    """Return what the left shows, in words."""
    pairs = "the pair shown" if n_positives == 1 else "this anchor's pairs"
    seeds = f", over {n_seeds:,} seeds" if n_seeds > 1 else ""
    return f"{n_picked} of {n_negatives} negatives picked for {pairs}{seeds}"


def draw_band(axes: Any, world: World, strategy: Strategy, d_ap: float | None) -> None:
    """Shade where candidates of the pair lie, and draw the circles of its distances, if there is one pair."""
    band = strategy.interval(MARGIN)
    circles = []
    if d_ap is not None and not np.isinf([band.low, band.high]).all():
        base = d_ap if band.relative else 0.0
        inner, outer = np.sqrt(max(base + band.low, 0.0)), min(np.sqrt(base + band.high), 3 * world.reach)
        patch = Annulus((0, 0), outer, outer - inner) if inner else Circle((0, 0), outer)
        patch.set(facecolor=PALE, edgecolor="none", zorder=0)
        axes.add_patch(patch)
        for end in (band.low, band.high):
            if np.isfinite(end) and end:
                name = "margin" if end == MARGIN else f"{abs(end):g}"
                name = f"d_ap {'-' if end < 0 else '+'} {name}" if band.relative else name
                circles.append((np.sqrt(base + end), name, ORANGE))
    if strategy.pick == "distance_weighted":
        circles += [
            (strategy.near, f"near = {strategy.near}", ORANGE),
            (strategy.far, f"far = {strategy.far}", ORANGE),
        ]
    elif d_ap is not None:
        circles.append((np.sqrt(d_ap), "d_ap", BLUE))
    if strategy.max_positive_distance is not None:
        circles.append((np.sqrt(strategy.max_positive_distance), "max_positive_distance", BLUE))
    taken = list(world.places)
    for radius, name, colour in circles:
        draw_circle(axes, world.reach, radius, name, colour, taken)


def draw_circle(
    axes: Any, reach: float, radius: float, name: str, colour: str, taken: list[np.ndarray]
) -> None:
    """Draw a circle around the anchor, with its name where most room is on it, and note that place."""
    axes.add_patch(
        Circle((0, 0), radius, fill=False, edgecolor=colour, linestyle="--", linewidth=0.9, zorder=1)
    )
    width, height = 0.013 * reach * len(name), 0.03 * reach  # half of the name's
    angles = np.arange(72) * np.pi / 36
    spots = radius * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    spots = spots[(np.abs(spots) < (1.25 * reach - width, 0.95 * reach - height)).all(axis=1)]
    gaps = np.maximum(np.abs(spots[:, None] - np.array(taken)) - (width, height), 0.0)
    spot = spots[np.square(gaps).sum(axis=2).min(axis=1).argmax()]
    taken += [np.array([spot[0] + shift * width, spot[1]]) for shift in (-1, -0.5, 0, 0.5, 1)]
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
    axes.text(*spot, name, color=colour, ha="center", va="center", fontsize=7.5, zorder=2.5, bbox=box)


def draw_triplets(axes: Any, world: World, strategy: Strategy, n_seeds: int) -> None:
    """Draw how ``d_an - d_ap`` is distributed over the batch's triplets, and all negatives of their pairs."""
    seeds = range(max(1, n_seeds // 100) if is_drawn(strategy) else 1)
    mined = np.concatenate([mine(world, strategy, seed, slice(None)) for seed in seeds])
    squared = np.square(world.embeddings[:, None] - world.embeddings).sum(axis=2)
    a, p, n = mined.T
    pairs = np.unique(mined[:, :2], axis=0)
    every = (squared[pairs[:, 0]] - squared[tuple(pairs.T)][:, None])[
        world.labels[pairs[:, 0]][:, None] != world.labels
    ]
    bins = np.arange(-1.0, 1.4001, 0.05)
    for values, style in (
        (every, {"color": GREY, "alpha": 0.4}),
        (squared[a, n] - squared[a, p], {"color": ORANGE, "alpha": 0.85}),
        (every, {"color": "#606060", "histtype": "step", "linewidth": 0.8}),
    ):
        axes.hist(values, bins=bins, weights=np.full(len(values), 100 / len(values)), **style)
    axes.axvline(0, color=BLUE, linewidth=0.9, linestyle="--")
    axes.axvline(MARGIN, color=ORANGE, linewidth=0.9, linestyle="--")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the key
    axes.set(xlim=(bins[0], bins[-1]), xlabel="d_an - d_ap  (dashed: 0 and the margin)", ylabel="per cent")
    axes.set_title("all triplets of the batch")
    handles = [Patch(color=ORANGE, alpha=0.85), Patch(facecolor="#d7d7d7", edgecolor="#606060")]
    axes.legend(
        handles, ["picked", "all negatives of their pairs"], loc="upper right", fontsize=7.5, frameon=False
    )


def draw(path: Path, name: str, view: View, world: World, n_seeds: int = N_SEEDS) -> None:
    """Write one picture."""
    figure = Figure(figsize=(8, 3.7), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    draw_anchor(left, world, view, n_seeds)
    draw_triplets(right, world, view.strategy, n_seeds)
    prefix = f"{name}:  " if name in PRESETS else ""
    figure.suptitle(prefix + short(view.strategy), fontsize=9, family="monospace")
    for axes in (left, right):
        axes.title.set_fontsize(8.5)
        axes.tick_params(labelsize=7.5)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
    figure.legend(
        handles=key(view.strategy), loc="outside lower center", ncols=6, fontsize=7.5, frameon=False
    )
    buffer = io.BytesIO()
    figure.savefig(buffer)
    image = (
        Image.open(buffer)
        .convert("RGB")
        .quantize(N_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    )
    image.save(path, optimize=True)


def key(strategy: Strategy) -> list[Line2D]:
    """Return what the marks stand for."""
    marks = [
        ("*", "black", "black", 10, "anchor"),
        ("o", BLUE, BLUE, 7, "positive of a pair"),
        ("o", "white", BLUE, 6, "other positive"),
        ("o", ORANGE, ORANGE, 7, "picked; larger: more often"),
        ("o", GREY, GREY, 4.5, "never picked"),
    ]
    if strategy.skip_hardest or strategy.max_positive_distance is not None:
        marks.append(("x", GREY, GREY if strategy.skip_hardest else BLUE, 6, "left out"))
    return [
        Line2D(
            [], [], linestyle="", marker=m, markerfacecolor=f, markeredgecolor=e, markersize=s, label=label
        )
        for m, f, e, s, label in marks
    ]


def main(folder: Path = IMAGES, n_seeds: int = N_SEEDS) -> None:
    """Draw all pictures into a folder."""
    worlds = {False: flat_world(), True: sphere_world()}
    for name, view in VIEWS.items():
        draw(folder / f"strategy_{name}.png", name, view, worlds[view.on_sphere], n_seeds)


if __name__ == "__main__":
    main()
