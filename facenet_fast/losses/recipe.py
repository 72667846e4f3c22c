"""What a triplet loss is made of, checked: which triplets, which distance, which margin, which penalty."""

from __future__ import annotations

from dataclasses import dataclass

from facenet_fast.mining.checks import check_flag, check_positive, check_word
from facenet_fast.mining.strategies import Strategy, resolve_strategy

__all__ = ["DISTANCES", "Recipe"]

DISTANCES: dict[str, str] = {
    "squared_euclidean": "sum((x - y)**2)",
    "euclidean": "its square root",
    "cosine": "1 - cos(x, y): half the squared Euclidean distance of the rows at unit length",
}


@dataclass(frozen=True, init=False)
class Recipe:
    """One triplet loss, without its data.

    Parameters
    ----------
    strategy : str or Strategy
        Which triplets: a key of `facenet_fast.mining.PRESETS`, or a `Strategy` of your own; kept as a
        `Strategy`.
    margin : float, default 0.2
        In the unit of the distance; positive and finite.
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
        A key of `DISTANCES`. The numbers of the strategy are in its unit, but for those of
        ``"distance_weighted"``.
    soft : bool, default False
        A triplet's loss is ``max(d_ap - d_an + margin, 0)``; with `soft`, ``log(1 + exp(d_ap - d_an))``, in
        which only the strategy's band heeds the margin.

    Raises
    ------
    TypeError
        If a value is of the wrong type.
    ValueError
        If a word is not in the vocabulary (the message lists it), or the margin is not positive and finite.

    Examples
    --------
    >>> from facenet_fast.losses.recipe import Recipe
    >>> Recipe("batch_hard", margin=0.5, distance="euclidean").strategy.pairs
    'hardest_positive'
    """

    strategy: Strategy
    margin: float
    distance: str
    soft: bool

    def __init__(
        self,
        strategy: str | Strategy,
        margin: float = 0.2,
        distance: str = "squared_euclidean",
        soft: bool = False,
    ) -> None:
        check_word("distance", distance, DISTANCES)
        check_flag("soft", soft)
        object.__setattr__(self, "strategy", resolve_strategy(strategy))
        object.__setattr__(self, "margin", check_positive("margin", margin))
        object.__setattr__(self, "distance", distance)
        object.__setattr__(self, "soft", soft)
