"""The vocabulary of triplet mining: a strategy is pairs x band x pick, and presets carry their paper.

All distances ``d`` are in the unit of `mine_triplets`' ``distance`` (squared Euclidean, Euclidean or cosine).

*Pairs*: which (anchor, positive) pairs are looked at; `PAIRS` explains each word. Screening drops suspicious
positives first: those at ``max_positive_distance`` or beyond, and those beyond the ``positive_quantile``.

*Band*: where the negative must lie; `BANDS` explains each word, and an `Interval` is any other.

*Pick*: which negatives of the band are taken; `PICKS` explains each word.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .checks import check_flag, check_integer, check_number, check_word

__all__ = [
    "BANDS",
    "IF_EMPTY",
    "PAIRS",
    "PICKS",
    "PRESETS",
    "Interval",
    "Strategy",
    "resolve_strategy",
]

# Each table is the only list of its words: names, errors, tests and docs are read from it.
PAIRS: dict[str, str] = {
    "each_once": "every two images of an identity, the earlier one as the anchor",
    "both_ways": "every two images of an identity, each as the anchor of the other",
    "hardest_positive": "for each anchor its n_positives farthest positives",
    "easiest_positive": "for each anchor its n_positives nearest positives",
    "moderate_positive": "for each anchor that has negatives its farthest positive nearer than all of them, "
    "if there is one (Shi et al. 2016, Embedding Deep Metric for Person Re-identification)",
    "random_positives": "for each anchor n_positives of its positives, drawn without replacement",
}

PICKS: dict[str, str] = {
    "uniform": "n_negatives of the band, each as likely as any other, without replacement",
    "nearest": "the n_negatives nearest to the anchor, the first of them where some are equally near: "
    "by identity, then in the batch",
    "farthest": "the n_negatives farthest from the anchor, and the first of those equally far",
    "distance_weighted": "n_negatives of the band without replacement, drawn by the inverse density of "
    "distances on the unit sphere (Wu et al. 2017, Sampling Matters in Deep Embedding Learning, section 4)",
    "every": "all of the band: `stream_triplets` gives them in parts, `count_triplets` counts them",
}

IF_EMPTY: dict[str, str] = {
    "drop": "no triplet for the pair",
    "nearest": "the anchor's nearest negative",
    "farthest": "the anchor's farthest negative",
}


@dataclass(frozen=True)
class Interval:
    """Distances in which a negative is a candidate: ``low <= x < high``.

    Attributes
    ----------
    low, high : float
        Ends of the interval; infinite ones are no bound.
    relative : bool, default True
        ``x`` is ``d_an - d_ap``; otherwise it is ``d_an``.
    low_is_open : bool, default False
        Demand ``low < x``.

    Raises
    ------
    TypeError
        If an end is no number, or a flag neither True nor False.
    ValueError
        If an end is NaN, or ``low`` is not below ``high``.
    """

    low: float = -math.inf
    high: float = math.inf
    relative: bool = True
    low_is_open: bool = False

    def __post_init__(self) -> None:
        for name in ("relative", "low_is_open"):
            check_flag(f"{name} of an interval", getattr(self, name))
        for name in ("low", "high"):
            object.__setattr__(self, name, check_number(f"{name} of an interval", getattr(self, name)))
        if not self.low < self.high:
            raise ValueError(
                f"an interval's low must be below its high; got low={self.low} and high={self.high}"
            )

    def holds(self, d_ap: Any, d_an: Any) -> Any:
        """Say whether a negative at ``d_an`` is inside, in float64; arrays give arrays."""
        x = d_an - d_ap if self.relative else d_an
        return (self.low < x if self.low_is_open else self.low <= x) & (x < self.high)


# By name, the band that a margin makes.
BANDS: dict[str, Callable[[float], Interval]] = {
    # The negative violates the margin.
    "violating": lambda margin: Interval(high=margin),
    # It violates the margin and is farther than the positive.
    "semi_hard": lambda margin: Interval(low=0.0, high=margin, low_is_open=True),
    # It is nearer than the positive.
    "hard": lambda margin: Interval(high=0.0),
    # It is farther than the positive.
    "farther": lambda margin: Interval(low=0.0, low_is_open=True),
    "all": lambda margin: Interval(relative=False),
}


@dataclass(frozen=True)
class Strategy:
    """One rule of triplet selection.

    Attributes
    ----------
    band : str or Interval
        A key of `BANDS`: ``"violating"`` (``d_an - d_ap < margin``), ``"semi_hard"`` (also ``d_ap < d_an``),
        ``"hard"`` (``d_an < d_ap``), ``"farther"`` (``d_ap < d_an``), ``"all"``; or any `Interval`.
    pairs : str, default "each_once"
        A key of `PAIRS`.
    pick : str, default "uniform"
        A key of `PICKS`.
    n_positives : int, default 1
        Positives of an anchor that ``"hardest_positive"``, ``"easiest_positive"`` and ``"random_positives"``
        take; all where there are fewer.
    n_negatives : int, default 1
        Triplets of a pair; fewer where it has fewer candidates.
    max_positive_distance : float, optional
        Screening: only pairs with ``d_ap`` below this are looked at.
    positive_quantile : float, optional
        Screening, in (0, 1]: of all ``n`` pairs of images of one identity (in the batch, and with
        ``bank_positives`` between batch and bank), only those are looked at whose ``d_ap`` is at most the
        ``ceil(positive_quantile * n)``-th smallest.
    skip_hardest : float, default 0.0
        In [0, 1): the ``floor(skip_hardest * n)`` nearest of an anchor's ``n`` negatives are left out, as if
        they were not in the batch: wrong labels are often among them.
    if_empty : str, default "drop"
        What a pair gets that has no candidate; a key of `IF_EMPTY`.
    near, far : float, default 0.5 and 1.4
        ``"distance_weighted"`` only, Euclidean distances (not squared) between rows at unit length: negatives
        nearer than ``near`` weigh as those at it, as do those so far that they would weigh more; and those at
        ``far`` or beyond are no candidates.
    source : str
        Paper and section that the rule is from.

    Raises
    ------
    TypeError
        If a value is of the wrong type.
    ValueError
        If a word is not in the vocabulary (the message lists it), or a number is outside what is allowed.
    """

    band: str | Interval
    pairs: str = "each_once"
    pick: str = "uniform"
    n_positives: int = 1
    n_negatives: int = 1
    max_positive_distance: float | None = None
    positive_quantile: float | None = None
    skip_hardest: float = 0.0
    if_empty: str = "drop"
    near: float = 0.5
    far: float = 1.4
    source: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.band, Interval):
            check_word("band", self.band, BANDS, " or an Interval")
        check_word("pairs", self.pairs, PAIRS)
        check_word("pick", self.pick, PICKS)
        check_word("if_empty", self.if_empty, IF_EMPTY)
        for name in ("n_positives", "n_negatives"):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), 1, 2**31 - 1))
        numbers: dict[str, Callable[[float], bool]] = {
            "max_positive_distance must be positive": lambda x: x > 0,
            "positive_quantile must be in (0, 1]": lambda x: 0 < x <= 1,
            "skip_hardest must be in [0, 1)": lambda x: 0 <= x < 1,
            "near must be in [0.001, 2)": lambda x: 0.001 <= x < 2,
            "far must be above near": lambda x: x > self.near,
        }
        for sentence, holds in numbers.items():
            name = sentence.split()[0]
            given = getattr(self, name)
            if given is None and name in ("max_positive_distance", "positive_quantile"):
                continue
            value = check_number(name, given)
            if not holds(value):
                raise ValueError(f"{sentence}; got {given!r}")
            object.__setattr__(self, name, value)
        takes_n = ("hardest_positive", "easiest_positive", "random_positives")
        if self.n_positives != 1 and self.pairs not in takes_n:
            raise ValueError(f"n_positives is for pairs {', '.join(takes_n)}; got it with {self.pairs!r}")
        if self.pick == "every" and (self.n_negatives != 1 or self.if_empty != "drop"):
            raise ValueError("pick 'every' takes all candidates: it knows no n_negatives and no if_empty")

    def interval(self, margin: float) -> Interval:
        """Return the band that a margin makes."""
        return self.band if isinstance(self.band, Interval) else BANDS[self.band](margin)


PRESETS: dict[str, Strategy] = {
    "vgg_face": Strategy(
        "violating", source="Parkhi, Vedaldi, Zisserman 2015, Deep Face Recognition, section 4"
    ),
    "facenet": Strategy("semi_hard", source="Schroff, Kalenichenko, Philbin 2015, FaceNet, section 3.2"),
    "batch_hard": Strategy(
        "all",
        "hardest_positive",
        "nearest",
        source="Hermans, Beyer, Leibe 2017, In Defense of the Triplet Loss, section 2 (equation 5)",
    ),
    "batch_all": Strategy(
        "violating",
        "both_ways",
        "every",
        source="Hermans, Beyer, Leibe 2017, In Defense of the Triplet Loss, section 2 (equation 6)",
    ),
    "easy_positive": Strategy(
        "farther",
        "easiest_positive",
        "nearest",
        source="Xuan, Stylianou, Pless 2020, Improved Embeddings with Easy Positive Triplet Mining, "
        "section 3",
    ),
    "distance_weighted": Strategy(
        "all",
        "both_ways",
        "distance_weighted",
        source="Wu, Manmatha, Smola, Krähenbühl 2017, Sampling Matters in Deep Embedding Learning, section 4",
    ),
    "hardest": Strategy(
        "all", "each_once", "nearest", source="Schroff, Kalenichenko, Philbin 2015, FaceNet, section 3.2"
    ),
}


def resolve_strategy(strategy: str | Strategy) -> Strategy:
    """Return the `Strategy` that a preset's name stands for; a `Strategy` is returned as it is.

    Raises
    ------
    TypeError
        If it is neither a name nor a `Strategy`.
    ValueError
        If the name is no preset's; the message lists the presets.
    """
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str):
        raise TypeError(f"strategy must be a preset's name or a Strategy; got {strategy!r}")
    if strategy not in PRESETS:
        raise ValueError(f"strategy must be one of {', '.join(sorted(PRESETS))}; got {strategy!r}")
    return PRESETS[strategy]
