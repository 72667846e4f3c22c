"""Strategies that mining is tested on: every preset that picks, and every word in the company of others."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from facenet_fast import Interval, Strategy
from facenet_fast.mining import PRESETS
from facenet_fast.mining.strategies import BANDS, IF_EMPTY, PAIRS, PICKS

# Numbers are multiples of a quarter: in a batch whose distances are, they tie.
STRATEGIES: dict[str, Strategy] = {
    **{name: strategy for name, strategy in PRESETS.items() if strategy.pick != "every"},
    # bands
    "hard": Strategy("hard"),
    "farther": Strategy("farther"),
    "all": Strategy("all"),
    "semi_hard_nearest": Strategy("semi_hard", pick="nearest"),
    "relative": Strategy(Interval(-0.25, 0.5)),
    "relative_open": Strategy(Interval(-0.25, 0.25, low_is_open=True), "both_ways", "nearest"),
    "absolute": Strategy(Interval(0.75, 1.5, relative=False), "both_ways"),
    "absolute_open": Strategy(Interval(0.75, relative=False, low_is_open=True), pick="nearest"),
    # pairs
    "both_ways": Strategy("violating", "both_ways"),
    "hardest_positive": Strategy("violating", "hardest_positive"),
    "hardest_2_positives": Strategy("semi_hard", "hardest_positive", n_positives=2),
    "easiest_positive": Strategy("hard", "easiest_positive"),
    "easiest_3_positives": Strategy("farther", "easiest_positive", "nearest", n_positives=3),
    "moderate_positive": Strategy("all", "moderate_positive", "nearest"),
    "moderate_positive_uniform": Strategy("violating", "moderate_positive", n_negatives=2),
    "random_positives": Strategy("violating", "random_positives"),
    "random_3_positives": Strategy("semi_hard", "random_positives", n_positives=3, if_empty="nearest"),
    # picks
    "uniform_3": Strategy("violating", n_negatives=3),
    "uniform_3_of_all": Strategy("all", "random_positives", n_positives=2, n_negatives=3),
    "nearest_3": Strategy("semi_hard", "both_ways", "nearest", n_negatives=3),
    "farthest": Strategy("violating", "both_ways", "farthest"),
    "farthest_3": Strategy("semi_hard", pick="farthest", n_negatives=3),
    "weighted_3": Strategy("all", pick="distance_weighted", n_negatives=3),
    "weighted_semi_hard": Strategy("semi_hard", "both_ways", "distance_weighted"),
    "weighted_hardest_positive": Strategy(
        "all", "hardest_positive", "distance_weighted", n_negatives=2, near=0.25, far=1.75
    ),
    "weighted_skip": Strategy(
        "violating", pick="distance_weighted", skip_hardest=0.3, far=1.25, if_empty="farthest"
    ),
    # pairs without candidates
    "hard_or_nearest": Strategy("hard", if_empty="nearest"),
    "semi_hard_or_farthest": Strategy("semi_hard", n_negatives=3, if_empty="farthest"),
    "nearest_or_farthest": Strategy(
        Interval(0.5, 1.0), "both_ways", "nearest", n_negatives=3, if_empty="farthest"
    ),
    # screening
    "screened": Strategy("violating", max_positive_distance=1.0),
    "screened_hardest": Strategy("all", "hardest_positive", "nearest", max_positive_distance=1.0),
    "quantile": Strategy("semi_hard", positive_quantile=0.5),
    "quantile_hardest": Strategy("all", "hardest_positive", "nearest", n_positives=2, positive_quantile=0.75),
    "quantile_random": Strategy("violating", "random_positives", n_positives=2, positive_quantile=0.25),
    "screened_twice": Strategy(
        "farther", "both_ways", max_positive_distance=1.25, positive_quantile=0.75, if_empty="nearest"
    ),
    # negatives left out
    "skip_few": Strategy("violating", skip_hardest=0.05),
    "skip_many": Strategy("semi_hard", "both_ways", n_negatives=2, skip_hardest=0.3),
    "skip_nearest": Strategy("all", "hardest_positive", "nearest", skip_hardest=0.05),
    "skip_or_nearest": Strategy("hard", skip_hardest=0.3, if_empty="nearest"),
    "moderate_skip": Strategy("all", "moderate_positive", "nearest", skip_hardest=0.3),
    "moderate_screened": Strategy(
        "violating",
        "moderate_positive",
        skip_hardest=0.05,
        max_positive_distance=1.5,
        positive_quantile=0.75,
    ),
}

# Their pairs try random negatives first: those that a batch's size matters to.
DRAWING = sorted(
    name
    for name, strategy in STRATEGIES.items()
    if strategy.pick == "uniform" and not strategy.skip_hardest and strategy.pairs != "moderate_positive"
)


def distance_for(strategy: Strategy) -> str:
    """Return a distance that suits rows of any length."""
    return "cosine" if strategy.pick == "distance_weighted" else "squared_euclidean"


quarters = st.integers(-16, 16).map(lambda n: n / 4)
ends = st.one_of(quarters, st.floats(-20, 20), st.sampled_from([-float("inf"), float("inf")]))
intervals = st.builds(
    lambda low, high, relative, low_is_open: Interval(
        min(low, high), max(low, high) if low != high else float("inf"), relative, low_is_open
    ),
    ends.filter(lambda end: end < float("inf")),
    ends.filter(lambda end: end > -float("inf")),
    st.booleans(),
    st.booleans(),
)


@st.composite
def composed(draw: st.DrawFn) -> Strategy:
    pairs = draw(st.sampled_from(sorted(PAIRS)))
    options: dict[str, Any] = {}
    if pairs in ("hardest_positive", "easiest_positive", "random_positives"):
        options["n_positives"] = draw(st.integers(1, 4))
    pick = draw(st.sampled_from(sorted(set(PICKS) - {"every"})))
    if pick == "distance_weighted" and draw(st.booleans()):
        options["near"] = draw(st.floats(0.05, 1.9))
        options["far"] = draw(st.floats(options["near"] + 0.01, 2.5))
    maybe = draw(st.sets(st.sampled_from(["max_positive_distance", "positive_quantile", "skip_hardest"])))
    if "max_positive_distance" in maybe:
        options["max_positive_distance"] = draw(
            st.one_of(st.integers(1, 40).map(lambda n: n / 4), st.floats(0.01, 20))
        )
    if "positive_quantile" in maybe:
        options["positive_quantile"] = draw(st.floats(0.01, 1))
    if "skip_hardest" in maybe:
        options["skip_hardest"] = draw(st.floats(0, 0.99))
    return Strategy(
        draw(st.one_of(st.sampled_from(sorted(BANDS)), intervals)),
        pairs,
        pick,
        n_negatives=draw(st.integers(1, 4)),
        if_empty=draw(st.sampled_from(sorted(IF_EMPTY))),
        **options,
    )
