"""The strategies that are timed beside each other: the presets, and combinations over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facenet_fast import PRESETS, Interval, Strategy, count_triplets, mine_triplets

from .rules import MARGIN, Labels, Rows

__all__ = ["BASE", "TIMED", "prepare"]

# All others are compared with this one, trained: what a look at all distances has to cost.
BASE = "`vgg_face`"

# By the name that the table gives it.
TIMED: dict[str, Strategy] = {
    **{f"`{name}`": strategy for name, strategy in PRESETS.items() if strategy.pick != "every"},
    "`vgg_face`, both ways": Strategy("violating", "both_ways"),
    "`vgg_face`, 3 negatives": Strategy("violating", n_negatives=3),
    "`vgg_face`, nearest": Strategy("violating", pick="nearest"),
    "`vgg_face`, 3 nearest": Strategy("violating", pick="nearest", n_negatives=3),
    "`vgg_face`, moderate positive": Strategy("violating", "moderate_positive"),
    "`vgg_face`, 4 random positives": Strategy("violating", "random_positives", n_positives=4),
    "`vgg_face`, nearest 90 % of positives": Strategy("violating", positive_quantile=0.9),
    "`vgg_face`, hardest 5 % skipped": Strategy("violating", skip_hardest=0.05),
    "`facenet`, nearest": Strategy("semi_hard", pick="nearest"),
    "`facenet`, else the nearest of all": Strategy("semi_hard", if_empty="nearest"),
    "`facenet`, distance-weighted": Strategy("semi_hard", pick="distance_weighted"),
    "TensorFlow Addons' semi-hard": Strategy("farther", "both_ways", "nearest", if_empty="farthest"),
    "hard": Strategy("hard"),
    "0.5 <= `d_an` < 1.2": Strategy(Interval(0.5, 1.2, relative=False)),
}


def prepare(name: str, rows: Rows, labels: Labels) -> Callable[[], Any]:
    """Return a function that mines by the strategy of that name, or counts what ``batch_all`` would list."""
    if name == "`batch_all`, counted":
        return lambda: count_triplets(rows, labels, strategy="batch_all", margin=MARGIN)
    return lambda: mine_triplets(rows, labels, strategy=TIMED[name], margin=MARGIN, seed=1)
