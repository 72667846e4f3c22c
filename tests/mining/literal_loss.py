"""The loss over every triplet of a band and its gradient, from the formula, one triplet after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast import Strategy

from .obvious import is_in_band

DISTANCES = ("squared_euclidean", "euclidean", "cosine")

Triples = list[tuple[int, int, int]]


def distance_of(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], distance: str) -> float:
    if distance == "cosine":
        return 1.0 - float(x @ y) / math.hypot(*x) / math.hypot(*y)
    squared = float(((x - y) ** 2).sum())
    return math.sqrt(squared) if distance == "euclidean" else squared


def slope_of(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], distance: str) -> npt.NDArray[Any]:
    """The gradient of the distance by its first row: 0 where two rows coincide."""
    if distance == "cosine":
        x_norm, y_norm = math.hypot(*x), math.hypot(*y)
        return (float(x @ y) / x_norm / y_norm * x / x_norm - y / y_norm) / x_norm
    if distance == "euclidean":
        return (x - y) / (distance_of(x, y, distance) or 1.0)
    return 2.0 * (x - y)


def distances_of(rows: npt.NDArray[np.float64], distance: str) -> npt.NDArray[np.float64]:
    """All distances; a row is at 0 from itself."""
    d = np.zeros((len(rows), len(rows)))
    for i, x in enumerate(rows):
        for j, y in enumerate(rows):
            if i != j:
                d[i, j] = distance_of(x, y, distance)
    return d


def reach_of(strategy: Strategy, distance: str) -> float:
    """How far negatives may be, in the unit of the distance."""
    if strategy.pick != "distance_weighted":
        return math.inf
    return {
        "squared_euclidean": strategy.far**2,
        "euclidean": strategy.far,
        "cosine": strategy.far**2 / 2,
    }[distance]


def triplets_of(
    d: npt.NDArray[np.float64], labels: Any, strategy: Strategy, margin: float, reach: float = math.inf
) -> Triples:
    """All candidates of all pairs, where no distances tie; pairs that are drawn are not known here."""
    of = list(labels)
    rows = range(len(of))
    every_d_ap = sorted(d[a, p] for a in rows for p in rows if a < p and of[a] == of[p])
    limit = math.inf
    if strategy.positive_quantile is not None and every_d_ap:
        limit = every_d_ap[math.ceil(strategy.positive_quantile * len(every_d_ap)) - 1]
    found: Triples = []
    for a in rows:
        others = sorted((n for n in rows if of[n] != of[a]), key=lambda n: d[a, n])
        negatives = others[math.floor(strategy.skip_hardest * len(others)) :]
        positives = [p for p in rows if p != a and of[p] == of[a] and d[a, p] <= limit]
        if strategy.max_positive_distance is not None:
            positives = [p for p in positives if d[a, p] < strategy.max_positive_distance]
        nearest_first = sorted(positives, key=lambda p: d[a, p])
        nearest = min((d[a, n] for n in negatives), default=-math.inf)
        chosen = {
            "each_once": [p for p in positives if p > a],
            "both_ways": positives,
            "hardest_positive": nearest_first[::-1][: strategy.n_positives],
            "easiest_positive": nearest_first[: strategy.n_positives],
            "moderate_positive": [p for p in nearest_first if d[a, p] < nearest][-1:],
        }[strategy.pairs]
        found += [
            (a, p, n)
            for p in chosen
            for n in negatives
            if is_in_band(strategy, margin, d[a, p], d[a, n]) and d[a, n] < reach
        ]
    return found


@dataclass(frozen=True)
class Literal:
    """What `facenet_fast.mining.BatchAllLoss` says, and of what size the gradient's terms are."""

    loss: float
    n_triplets: int
    gradient: npt.NDArray[np.float64]
    loss_by_anchor: npt.NDArray[np.float64]
    n_by_anchor: npt.NDArray[np.int64]
    size: float


def literal_loss(
    embeddings: Any,
    triplets: Triples,
    *,
    margin: float = 0.2,
    distance: str = "squared_euclidean",
    soft: bool = False,
    weights: Any = None,
) -> Literal:
    x = np.asarray(embeddings).astype(np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    d = distances_of(x, distance)
    losses, counts, gradient, terms = np.zeros(len(x)), np.zeros(len(x), np.int64), np.zeros_like(x), 0.0
    for a, p, n in triplets:
        excess = d[a, p] - d[a, n]
        if soft:
            loss, slope = math.log(1.0 + math.exp(excess)), 1.0 / (1.0 + math.exp(-excess))
        else:
            loss, slope = max(excess + margin, 0.0), float(excess + margin > 0)
        losses[a] += loss
        counts[a] += 1
        toward, away = slope_of(x[a], x[p], distance), slope_of(x[a], x[n], distance)
        gradient[a] += w[a] * slope * (toward - away)
        gradient[p] += w[a] * slope * slope_of(x[p], x[a], distance)
        gradient[n] -= w[a] * slope * slope_of(x[n], x[a], distance)
        terms += abs(w[a]) * slope * float(np.abs(toward).max() + np.abs(away).max())
    n = max(len(triplets), 1)
    return Literal(float(w @ losses) / n, len(triplets), gradient / n, losses, counts, terms / n)
