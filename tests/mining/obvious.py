"""What strategies mean, written a second time from their documentation, with nothing of the first.

Distances are exact in batches of halves; elsewhere nothing ties, so that their last bits do not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast import Interval, Strategy, Triplets

TAKES_N = ("hardest_positive", "easiest_positive", "random_positives")


def distances(x: Any, y: Any, distance: str = "squared_euclidean") -> npt.NDArray[np.float64]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if distance == "cosine":
        x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
        return 1.0 - x @ y.T
    squared = np.square(x[:, None] - y[None]).sum(-1)
    return np.sqrt(squared) if distance == "euclidean" else squared


@dataclass(frozen=True)
class Facts:
    """All that is certain before anything is drawn; rows of a bank come after those of the batch.

    Attributes
    ----------
    d : distances of all rows
    place : where each row comes by identity and row
    negatives : of each row of the batch, less those skipped, by identity and row
    positives : of each anchor, in order: those looked at, or those that are drawn from
    pairs : (anchor, positive) in the order of the result; with random positives, all that may be
    candidates : of each pair, by identity and row
    """

    d: npt.NDArray[np.float64]
    place: dict[int, int]
    negatives: dict[int, list[int]]
    positives: dict[int, list[int]]
    pairs: list[tuple[int, int]]
    candidates: dict[tuple[int, int], list[int]]

    def enumerated(self) -> list[tuple[int, int, int]]:
        return [(a, p, n) for a, p in self.pairs for n in self.candidates[a, p]]

    def counted(self) -> list[tuple[int, int, int]]:
        return [(a, p, len(self.candidates[a, p])) for a, p in self.pairs]


def look(
    embeddings: Any,
    labels: Any,
    strategy: Strategy,
    *,
    margin: float = 0.2,
    distance: str = "squared_euclidean",
    anchors: Any = None,
    bank: Any = None,
    bank_positives: bool = False,
) -> Facts:
    n = len(embeddings)
    of = list(labels)
    everything = np.asarray(embeddings, np.float64)
    if bank is not None:
        everything = np.concatenate((everything, np.asarray(bank[0], np.float64)))
        of += list(bank[1])
    d = distances(everything, everything, distance)
    rows = sorted(range(len(of)), key=lambda row: (of[row], row))
    place = {row: i for i, row in enumerate(rows)}
    may_be_positive = [row < n or bank_positives for row in range(len(of))]

    # "Of all n pairs of images of one identity, ... the ceil(positive_quantile * n)-th smallest."
    limit = math.inf
    if strategy.positive_quantile is not None:
        all_d_ap = sorted(
            d[a, p] for a in range(n) for p in range(a + 1, len(of)) if of[a] == of[p] and may_be_positive[p]
        )
        if all_d_ap:
            limit = all_d_ap[math.ceil(strategy.positive_quantile * len(all_d_ap)) - 1]

    negatives, positives = {}, {}
    for a in (row for row in rows if row < n):
        others = sorted((row for row in rows if of[row] != of[a]), key=lambda row: (d[a, row], place[row]))
        left = others[math.floor(strategy.skip_hardest * len(others)) :]
        negatives[a] = sorted(left, key=lambda row: place[row])

        sound = [p for p in rows if p != a and of[p] == of[a] and may_be_positive[p] and d[a, p] <= limit]
        if strategy.max_positive_distance is not None:
            sound = [p for p in sound if d[a, p] < strategy.max_positive_distance]
        positives[a] = sorted(_chosen(strategy, a, sound, d, negatives[a]))

    if anchors is not None:
        kept = set(np.arange(n)[anchors].tolist())
        positives = {a: found for a, found in positives.items() if a in kept}
    pairs = [(a, p) for a, found in positives.items() for p in found]
    candidates = {
        (a, p): [row for row in negatives[a] if _is_candidate(strategy, margin, distance, d[a, p], d[a, row])]
        for a, p in pairs
    }
    return Facts(d, place, negatives, positives, pairs, candidates)


def _chosen(
    strategy: Strategy, a: int, sound: list[int], d: npt.NDArray[np.float64], negatives: list[int]
) -> list[int]:
    if strategy.pairs == "each_once":
        return [p for p in sound if p > a]
    if strategy.pairs in ("both_ways", "random_positives"):
        return sound
    if strategy.pairs == "easiest_positive":
        return sorted(sound, key=lambda p: (d[a, p], p))[: strategy.n_positives]
    if strategy.pairs == "hardest_positive":
        return sorted(sound, key=lambda p: (-d[a, p], p))[: strategy.n_positives]
    assert strategy.pairs == "moderate_positive", strategy.pairs
    nearer = [p for p in sound if negatives and all(d[a, p] < d[a, row] for row in negatives)]
    return sorted(nearer, key=lambda p: (-d[a, p], p))[:1]


def _is_candidate(strategy: Strategy, margin: float, distance: str, d_ap: float, d_an: float) -> bool:
    on_sphere = {"squared_euclidean": d_an, "euclidean": d_an**2, "cosine": 2.0 * d_an}[distance]
    if strategy.pick == "distance_weighted" and not on_sphere < strategy.far**2:
        return False
    return is_in_band(strategy, margin, d_ap, d_an)


def is_in_band(strategy: Strategy, margin: float, d_ap: float, d_an: float) -> bool:
    band = strategy.band
    if isinstance(band, Interval):
        x = d_an - d_ap if band.relative else d_an
        return band.low <= x < band.high and not (band.low_is_open and x == band.low)
    return {
        "violating": d_an - d_ap < margin,
        "semi_hard": d_an - d_ap < margin and d_ap < d_an,
        "hard": d_an < d_ap,
        "farther": d_ap < d_an,
        "all": True,
    }[band]


def assert_obeys(mined: Triplets, facts: Facts, strategy: Strategy) -> None:
    """Hold all that is not left to chance to the facts."""
    d, place = facts.d, facts.place
    picks: dict[tuple[int, int], list[int]] = {}
    columns = (mined.anchor.tolist(), mined.positive.tolist(), mined.negative.tolist())
    for a, p, n in zip(*columns, strict=True):
        picks.setdefault((a, p), []).append(n)
    # By identity, then anchor, then positive; the triplets of a pair are together.
    assert list(picks) == sorted(picks, key=lambda pair: (place[pair[0]], place[pair[1]]))
    assert [pair for pair, found in picks.items() for _ in found] == list(zip(*columns[:2], strict=True))

    if strategy.pairs == "random_positives":
        n_positives = {a: min(strategy.n_positives, len(found)) for a, found in facts.positives.items()}
        assert mined.n_pairs == sum(n_positives.values())
        for a in facts.positives:
            assert len({p for b, p in picks if b == a}) <= n_positives[a]
    else:
        assert mined.n_pairs == len(facts.pairs)
        assert mined.n_pairs_with_negative == sum(len(found) > 0 for found in facts.candidates.values())

    pairs = list(picks) if strategy.pairs == "random_positives" else facts.pairs
    for a, p in pairs:
        found, candidates, negatives = picks.get((a, p), []), facts.candidates[a, p], facts.negatives[a]
        by_distance = sorted(candidates, key=lambda n: (d[a, n], place[n]))
        if not candidates and strategy.if_empty == "nearest":
            assert found == sorted(negatives, key=lambda n: (d[a, n], place[n]))[:1]
        elif not candidates and strategy.if_empty == "farthest":
            assert found == sorted(negatives, key=lambda n: (-d[a, n], place[n]))[:1]
        elif strategy.pick == "nearest":
            assert found == by_distance[: strategy.n_negatives]
        elif strategy.pick == "farthest":
            assert found == sorted(candidates, key=lambda n: (-d[a, n], place[n]))[: strategy.n_negatives]
        else:
            assert len(found) == len(set(found)) == min(strategy.n_negatives, len(candidates))
            assert set(found) <= set(candidates)

    if len(mined):
        for mean, column in ((mined.mean_d_ap, mined.positive), (mined.mean_d_an, mined.negative)):
            np.testing.assert_allclose(mean, d[mined.anchor, column].mean(), rtol=1e-5, atol=1e-12)
    else:
        assert math.isnan(mined.mean_d_ap)
        assert math.isnan(mined.mean_d_an)
