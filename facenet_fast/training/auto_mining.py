"""Mining that follows training: harder triplets once they can be learnt, easier ones before a collapse.

Schroff et al. 2015 ("FaceNet", section 3.2) take semi-hard negatives, as the hardest may draw all embeddings
to one point early in training; Hermans et al. 2017 ("In Defense of the Triplet Loss", section 2) the hardest
of a batch. Harwood et al. 2017 ("Smart Mining for Deep Metric Learning") have a controller adapt mining while
training. This one leads from the former to the latter, by signs that need no verification: the share of
triplets that violate the margin, and whether harder mining's negatives are farther than its positives yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast.config import TrainConfig
from facenet_fast.mining import count_triplets, mine_triplets
from facenet_fast.mining.strategies import PRESETS, Strategy

__all__ = ["HARDER_BELOW", "LEVELS", "LONGEST_MEAN", "REST", "STAY", "AutoMining", "Sight", "sight_of"]

LEVELS: dict[str, Strategy] = {
    "a semi-hard negative by chance": PRESETS["facenet"],
    "the nearest semi-hard negative": Strategy("semi_hard", pick="nearest"),
    "the nearest violating negative": Strategy("violating", pick="nearest"),
    "the farthest positive and the nearest violating negative": Strategy(
        "violating", "hardest_positive", "nearest"
    ),
}
"""What is mined, the easiest first. The first three look at the same pairs, and give none an easier negative
than the one before: the nearest of the same candidates, then the nearest of more."""

HARDER_BELOW = 0.25
"""Part of a pool's triplets that violate the margin below which mining may become harder: half of the half,
or more, that do where distances tell nothing about people. (The demo: 0.57 at step 20, 0.20 at step 60.)"""

LONGEST_MEAN = 0.98
"""Length of the mean embedding beyond which mining becomes easier: before the doctor speaks of a collapse, at
0.995, and above the 0.93 that a network may have in inference mode before any training."""

STAY = 10
"""Pools mined at a level before it is judged: as many as the averages are of, more or less."""

REST = 100
"""Pools mined at a level that training went back to before a harder one: time to recover in."""

# Of the averages: the last pool is a tenth of them, the ten pools before it most of the rest.
_MEMORY = 0.9

# As many triplets show a mean; the distances of all would take longer than mining them.
_MOST_LOOKED_AT = 2048

_Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Sight:
    """What a pool shows.

    Attributes
    ----------
    violating : float
        Of its triplets, each two images of an identity once with each image of another, the part with
        ``d_an - d_ap < margin``.
    mean_length : float
        Euclidean length of the mean embedding.
    gaps : tuple of float
        Mean ``d_an - d_ap`` of what each of `LEVELS` but the first would pick (of very many of 2,048); NaN
        where it picks nothing. The mean hinge loss is the margin less the gap.
    """

    violating: float
    mean_length: float
    gaps: tuple[float, ...]


class AutoMining:
    """Choose the strategy that mines the next pool by what the pools before have shown.

    Parameters
    ----------
    config : TrainConfig
        Read: `margin`, `threads`.

    Attributes
    ----------
    level : int
        Place in `LEVELS` of what mines the next pool.

    Examples
    --------
    >>> mining = AutoMining(TrainConfig())
    >>> sight = Sight(violating=0.2, mean_length=0.1, gaps=(0.2, 0.1, -0.1))
    >>> [n for n in range(1, 41) if mining.follow(sight)], mining.level
    ([10, 20], 2)
    """

    def __init__(self, config: TrainConfig) -> None:
        self._margin = config.margin
        self._threads = config.threads or None
        self.level = 0
        self._wait = STAY  # pools until a harder level may be chosen
        self._n_since = 0  # pools since the level was chosen
        # Of `Sight.violating` and `Sight.gaps`; None before the first.
        self._averages: list[float | None] = [None] * len(LEVELS)
        self._last: Any = None

    @property
    def strategy(self) -> Strategy:
        """What mines the next pool."""
        return list(LEVELS.values())[self.level]

    def look(self, seen: tuple[npt.NDArray[np.float32], _Integers] | None) -> str:
        """Look at a pool that was mined, at none twice, and choose what mines the next.

        Parameters
        ----------
        seen : tuple of float32 array, shape (N, E), and int array, shape (N,)
            Finite embeddings and their identities; None: there are none to look at.

        Returns
        -------
        str
            What changed and why, in one line; empty where nothing did.
        """
        # With `step="triplets"` one pool makes many steps.
        if seen is None or seen is self._last:
            return ""
        self._last = seen
        return self.follow(sight_of(*seen, self._margin, self._threads))

    def follow(self, sight: Sight) -> str:
        """Choose a level by what one more pool shows; return as `look` does."""
        shown = [sight.violating, *sight.gaps]
        self._averages = [_averaged(*both) for both in zip(self._averages, shown, strict=True)]
        self._n_since += 1
        violating, *gaps = self._averages
        assert violating is not None
        # The first level has no gap to look at: its negatives are farther than the positives, always.
        here = gaps[self.level - 1] if self.level else None
        harder = gaps[self.level] if self.level < len(gaps) else None
        # No average: a collapse takes few steps.
        if sight.mean_length > LONGEST_MEAN:
            why = f"the mean embedding has the length {sight.mean_length:.3f} of 1"
            return self._change(-1, REST, why) if self.level else ""
        if here is not None and here <= 0 and self._n_since >= STAY:
            why = f"its negatives were nearer than its positives, by {-here:.3f} on average"
            return self._change(-1, REST, why)
        is_time = self._n_since >= self._wait and violating < HARDER_BELOW
        if is_time and harder is not None and harder > 0:
            why = f"only {100 * violating:.0f} % of the triplets violate the margin"
            return self._change(+1, STAY, why)
        return ""

    def _change(self, by: int, wait: int, why: str) -> str:
        self.level += by
        self._wait = wait
        self._n_since = 0
        way = "harder" if by > 0 else "easier"
        return f"{way} mining, level {self.level} ({list(LEVELS)[self.level]}), as {why}"

    def state(self) -> dict[str, Any]:
        """Return what a resumed run must know, as plain values for JSON."""
        return {
            "level": self.level,
            "wait": self._wait,
            "n_since": self._n_since,
            "averages": self._averages,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, if there is one."""
        self.level = state.get("level", self.level)
        self._wait = state.get("wait", self._wait)
        self._n_since = state.get("n_since", self._n_since)
        self._averages = list(state.get("averages", self._averages))


def sight_of(
    embeddings: npt.NDArray[np.float32], labels: _Integers, margin: float, threads: int | None = None
) -> Sight:
    """Look at a pool; that takes a search over all distances for each of `LEVELS`.

    Parameters
    ----------
    embeddings : float32 array, shape (N, E)
        Finite numbers.
    labels : int array, shape (N,)
        The identity of each.
    margin : float
        In squared distance.
    threads : int, optional
        As for `mine_triplets`.
    """
    counts = np.unique(labels, return_counts=True)[1]
    n_triplets = int(np.sum(counts * (counts - 1) // 2 * (len(labels) - counts)))
    n_violating = count_triplets(
        embeddings, labels, strategy=PRESETS["vgg_face"], margin=margin, threads=threads
    ).n_triplets
    gaps = []
    for strategy in list(LEVELS.values())[1:]:
        mined = mine_triplets(embeddings, labels, strategy=strategy, margin=margin, threads=threads)
        # Not the mined means: rounding there may depend on the threads, and a resumed run must decide alike.
        some = np.linspace(0, max(len(mined) - 1, 0), min(len(mined), _MOST_LOOKED_AT)).astype(np.int64)
        columns = (mined.anchor, mined.positive, mined.negative)
        anchor, positive, negative = (embeddings[column[some]] for column in columns)
        gap = np.square(anchor - negative).sum(axis=1) - np.square(anchor - positive).sum(axis=1)
        gaps.append(float(gap.mean(dtype=np.float64)) if len(mined) else math.nan)
    return Sight(
        violating=n_violating / max(n_triplets, 1),
        mean_length=float(np.linalg.norm(embeddings.mean(axis=0, dtype=np.float64))),
        gaps=tuple(gaps),
    )


def _averaged(average: float | None, value: float) -> float | None:
    if math.isnan(value):
        return average
    return value if average is None else _MEMORY * average + (1.0 - _MEMORY) * value
