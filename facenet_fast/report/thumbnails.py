"""A picture of mined triplets: the hardest, those in the middle, and some by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["choose_triplets", "triplet_grid"]

_SIDE = 80
_GAP = 4
_LINE = 14  # pixels of a line of text
_LABEL_WIDTH = 76
_INK = (20, 20, 20)
_N_EACH = 2


def choose_triplets(
    d_ap: NDArray[np.floating], d_an: NDArray[np.floating], seed: int
) -> list[tuple[str, int]]:
    """Choose two triplets each of the hardest, of the median, and of all by chance.

    Parameters
    ----------
    d_ap, d_an : array (n_triplets,)
        Distances from anchor to positive and to negative; the larger ``d_ap - d_an``, the harder.
    seed : int
        Of the choice by chance.

    Returns
    -------
    list of (str, int)
        Why a triplet is shown, and its row; no row comes twice, so of few triplets there are fewer.

    Examples
    --------
    >>> choose_triplets(np.array([0.1, 0.9, 0.5]), np.array([0.5, 0.5, 0.5]), seed=0)
    [('hardest', 1), ('hardest', 2), ('median', 0)]
    """
    by_hardness = np.argsort(d_an - d_ap, kind="stable").tolist()
    middle = max(0, (len(by_hardness) - _N_EACH) // 2)
    by_chance = np.random.default_rng(seed).permutation(by_hardness).tolist()
    kinds = (
        ("hardest", by_hardness),
        ("median", by_hardness[middle:]),
        ("random", by_chance),
    )
    chosen: dict[int, str] = {}
    for kind, rows in kinds:
        new = [row for row in rows if row not in chosen]
        chosen.update(dict.fromkeys(new[:_N_EACH], kind))
    return [(kind, row) for row, kind in chosen.items()]


def triplet_grid(
    images: NDArray[np.uint8],
    triplets: NDArray[np.integer],
    d_ap: NDArray[np.floating],
    d_an: NDArray[np.floating],
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Draw some triplets, one a row: anchor, positive, negative, and their squared distances.

    Parameters
    ----------
    images : uint8 (n_images, h, w, 3)
        A pool; shown at 80 pixels.
    triplets : int (n_triplets, 3)
        Rows of `images`: anchor, positive, negative. At least one triplet.
    d_ap, d_an : array (n_triplets,)
        Distances; see `choose_triplets`.
    seed : int, default=0
        Of the triplets chosen by chance.

    Returns
    -------
    uint8 (h, w, 3)
        Six rows, or fewer of fewer triplets.
    """
    chosen = choose_triplets(d_ap, d_an, seed)
    row_height = _SIDE + _LINE + _GAP
    width = _LABEL_WIDTH + 3 * (_SIDE + _GAP)
    grid = Image.new("RGB", (width, _LINE + _GAP + len(chosen) * row_height), "white")
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default()
    lefts = [_LABEL_WIDTH + column * (_SIDE + _GAP) for column in range(3)]
    draw.text((_GAP, 2), "d_an - d_ap", fill=_INK, font=font)
    for left, heading in zip(lefts, ("anchor", "positive", "negative"), strict=True):
        draw.text((left, 2), heading, fill=_INK, font=font)
    for number, (kind, row) in enumerate(chosen):
        top = _LINE + _GAP + number * row_height
        draw.text((_GAP, top + _SIDE // 2 - _LINE), kind, fill=_INK, font=font)
        draw.text((_GAP, top + _SIDE // 2), f"{d_an[row] - d_ap[row]:+.3f}", fill=_INK, font=font)
        for left, image in zip(lefts, triplets[row], strict=True):
            shown = Image.fromarray(images[image]).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
            grid.paste(shown, (left, top))
        for left, text in ((lefts[1], f"d_ap  {d_ap[row]:.3f}"), (lefts[2], f"d_an  {d_an[row]:.3f}")):
            draw.text((left, top + _SIDE + 1), text, fill=_INK, font=font)
    return np.asarray(grid)
