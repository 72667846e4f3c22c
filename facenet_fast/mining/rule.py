"""A strategy with all of its numbers: what a backend is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .sphere import Weights, weights
from .strategies import Interval, Strategy

__all__ = ["Rule", "make_rule"]


@dataclass(frozen=True)
class Rule:
    """What `Strategy` says in words and what its numbers come to, in the unit of the distances.

    Attributes
    ----------
    pairs, pick, if_empty, n_positives, n_negatives, skip_hardest
        As of `Strategy`.
    root : bool
        Whether the numbers of `max_d_ap` and `band` are of roots of squared distances.
    max_d_ap : float
        Pairs are looked at where ``d_ap`` is below this; infinite without such a limit.
    quantile : float
        `Strategy.positive_quantile`; 1 without one.
    band : Interval
        Where a negative is a candidate.
    reach : float
        And only below this squared distance.
    weights : Weights or None
        What ``"distance_weighted"`` picks by: weights of squared distances.
    """

    pairs: str
    pick: str
    if_empty: str
    n_positives: int
    n_negatives: int
    skip_hardest: float
    root: bool
    max_d_ap: float
    quantile: float
    band: Interval
    reach: float
    weights: Weights | None

    @property
    def draws(self) -> bool:
        """Whether pairs try random negatives first: not where looking at all of them is part of the rule."""
        return self.pick == "uniform" and self.skip_hardest == 0 and self.pairs != "moderate_positive"


def make_rule(strategy: Strategy, margin: float, size: int, unit: float, root: bool) -> Rule:
    """Return the rule of a strategy for embeddings of ``size`` numbers.

    Parameters
    ----------
    unit : float
        What a squared distance on the unit sphere is divided by: 2 for cosine.
    root : bool
        Whether the strategy's numbers are of distances that are not squared.
    """
    weighted = strategy.pick == "distance_weighted"
    limit = strategy.max_positive_distance
    return Rule(
        pairs=strategy.pairs,
        pick=strategy.pick,
        if_empty=strategy.if_empty,
        n_positives=strategy.n_positives,
        n_negatives=strategy.n_negatives,
        skip_hardest=strategy.skip_hardest,
        root=root,
        max_d_ap=math.inf if limit is None else limit,
        quantile=1.0 if strategy.positive_quantile is None else strategy.positive_quantile,
        band=strategy.interval(margin),
        reach=strategy.far * strategy.far / unit if weighted else math.inf,
        weights=weights(size, strategy.near, strategy.far, unit) if weighted else None,
    )
