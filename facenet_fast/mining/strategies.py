"""The vocabulary of triplet mining: a strategy is pairs x band x pick, and presets carry their paper.

``pairs``
    Which (anchor, positive) pairs are looked at. ``"each_once"``: every two images of an identity, the
    earlier one as the anchor.
``band``
    Where the squared distance ``d_an`` of the negative must lie, given ``d_ap``. ``"violating"``:
    ``d_an - d_ap < margin``. ``"semi_hard"``: also ``d_ap < d_an``.
``pick``
    Which negative of the band is taken. ``"uniform"``: each with the same probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["PRESETS", "Band", "Strategy", "resolve_strategy"]

Band = Literal["violating", "semi_hard"]
Pairs = Literal["each_once"]
Pick = Literal["uniform"]


@dataclass(frozen=True)
class Strategy:
    """One rule of triplet selection.

    Attributes
    ----------
    band : {"violating", "semi_hard"}
        Interval of squared distance that the negative must lie in.
    pairs : {"each_once"}
        The (anchor, positive) pairs that are looked at.
    pick : {"uniform"}
        How one negative of the band is chosen.
    source : str
        Paper and section that the rule is from.

    Raises
    ------
    ValueError
        If a word is not in the vocabulary; the message lists it.
    """

    band: Band
    pairs: Pairs = "each_once"
    pick: Pick = "uniform"
    source: str = ""

    def __post_init__(self) -> None:
        for name, words in (("band", Band), ("pairs", Pairs), ("pick", Pick)):
            if getattr(self, name) not in get_args(words):
                choices = ", ".join(get_args(words))
                raise ValueError(f"{name} must be one of {choices}; got {getattr(self, name)!r}")


PRESETS: dict[str, Strategy] = {
    "vgg_face": Strategy("violating", source="Parkhi et al. 2015, Deep Face Recognition, section 4.3"),
    "facenet": Strategy("semi_hard", source="Schroff et al. 2015, FaceNet, section 3.2"),
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
