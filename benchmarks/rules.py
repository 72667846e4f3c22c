"""What each definition of "the right triplets" demands, decided slowly in float64: every contestant's judge.

A judge takes an answer, the rows and the labels, and raises `AssertionError` where the answer is not one that
the definition allows. Triplets come as three columns: anchors, positives, negatives. Rows of one identity lie
together. Of a large answer the judge looks at a part: anchors and triplets spread over all of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[Any]
Labels = npt.NDArray[Any]
Indices = npt.NDArray[np.integer]
Triplets = tuple[Indices, Indices, Indices] | Indices  # (3, n) will do

MARGIN = 0.2

# Anchors that are judged, or the distances that it may take, whichever is fewer; and triplets.
N_JUDGED, N_DISTANCES = 300, 600_000
N_TRIPLETS = 50_000

# What float32 distances of unit rows may be off by: most contestants decide in float32.
TOLERANCE = 1e-5


def one_violating_each(answer: Triplets, rows: Rows, labels: Labels, tolerance: float = TOLERANCE) -> None:
    """Demand of triplets: one for each pair that has a negative with ``d_an - d_ap < margin``."""
    _one_each(answer, rows, labels, -np.inf, tolerance)


def one_semi_hard_each(answer: Triplets, rows: Rows, labels: Labels, tolerance: float = TOLERANCE) -> None:
    """Demand of triplets: one for each pair that has a negative with ``0 < d_an - d_ap < margin``."""
    _one_each(answer, rows, labels, 0.0, tolerance)


def all_violating(answer: Triplets, rows: Rows, labels: Labels) -> None:
    """Demand of triplets: all with ``d_an - d_ap < margin``, either image of a pair as the anchor."""
    _are_triplets(answer, rows, labels, -np.inf, TOLERANCE)
    found = np.bincount(answer[0], minlength=len(rows))
    for anchor, positives, d_ap, d_an in _anchors(rows, labels):
        others = positives != anchor
        fewest = (d_an < d_ap[others, None] + MARGIN - TOLERANCE).sum()
        most = (d_an < d_ap[others, None] + MARGIN + TOLERANCE).sum()
        assert fewest <= found[anchor] <= most, f"anchor {anchor} has {found[anchor]} triplets"


def violating_counts(answer: Any, rows: Rows, labels: Labels) -> None:
    """Demand of counts: of each pair, both ways, the number of negatives with ``d_an - d_ap < margin``."""
    for anchor, positives, d_ap, d_an in _anchors(rows, labels):
        own = answer.anchor == anchor
        others = positives != anchor
        np.testing.assert_array_equal(answer.positive[own], positives[others])
        differences = d_an - d_ap[others, None]
        fewest, most = ((differences < MARGIN + e).sum(axis=1) for e in (-1e-12, 1e-12))
        assert (fewest <= answer.n_candidates[own]).all()
        assert (answer.n_candidates[own] <= most).all()


def hardest_each(answer: Triplets, rows: Rows, labels: Labels) -> None:
    """Demand of triplets: every row with its farthest positive and its nearest negative."""
    of_anchor = np.stack(list(answer), axis=1)[np.argsort(answer[0], kind="stable")]
    np.testing.assert_array_equal(of_anchor[:, 0], np.arange(len(rows)))
    for anchor, _, d_ap, d_an in _anchors(rows, labels):
        _, positive, negative = of_anchor[anchor]
        assert labels[positive] == labels[anchor] != labels[negative]
        assert _squared(rows[anchor], rows[[positive]])[0] >= d_ap.max() - TOLERANCE
        assert _squared(rows[anchor], rows[[negative]])[0] <= d_an.min() + TOLERANCE


def nearest_negative_each(answer: npt.NDArray[np.integer], rows: Rows, labels: Labels) -> None:
    """Demand of one row for each row: the nearest one of another identity."""
    assert (labels[answer] != labels).all()
    for anchor, _, _, d_an in _anchors(rows, labels):
        assert _squared(rows[anchor], rows[[answer[anchor]]])[0] <= d_an.min() + TOLERANCE


def semi_hard_distances(answer: npt.NDArray[Any], rows: Rows, labels: Labels) -> None:
    """Demand of an (n_rows, n_rows) matrix: for each anchor and positive, the chosen negative's distance.

    That is the nearest negative farther than the positive, or the farthest of all where none is.
    """
    for anchor, positives, d_ap, d_an in _anchors(rows, labels):
        for positive, d in zip(positives, d_ap, strict=True):
            if positive == anchor:
                continue
            chosen = answer[anchor, positive]
            assert np.abs(d_an - chosen).min() <= TOLERANCE, "not the distance of any negative"
            farther = d_an[d_an > d + TOLERANCE]
            expected = farther.min() if len(farther) else d_an.max()
            # A negative about as far as the positive may count as farther, or not.
            assert abs(chosen - expected) <= TOLERANCE or abs(chosen - d) <= 2 * TOLERANCE


def _one_each(answer: Triplets, rows: Rows, labels: Labels, low: float, tolerance: float) -> None:
    _are_triplets(answer, rows, labels, low, tolerance)
    assert (answer[0] < answer[1]).all(), "the anchor is the earlier image"
    have = np.unique(answer[0].astype(np.int64) * len(rows) + answer[1])
    assert len(have) == len(answer[0]), "a pair has two triplets"
    for anchor, positives, d_ap, d_an in _anchors(rows, labels):
        later = positives > anchor
        has = np.isin(anchor * len(rows) + positives[later], have)
        d_an = np.sort(d_an)

        def n_between(low: float, high: float, d_an: Rows = d_an, d_ap: Rows = d_ap[later]) -> Any:
            # Both ends are open.
            return np.searchsorted(d_an, d_ap + high) - np.searchsorted(d_an, d_ap + low, side="right")

        surely = n_between(low + tolerance, MARGIN - tolerance) > 0
        possibly = n_between(low - tolerance, MARGIN + tolerance) > 0
        assert (surely <= has).all(), f"anchor {anchor}: a pair that has candidates has no triplet"
        assert (has <= possibly).all(), f"anchor {anchor}: a pair that has no candidate has a triplet"


def _are_triplets(triplets: Triplets, rows: Rows, labels: Labels, low: float, tolerance: float) -> None:
    assert len(triplets[0]), "no triplet at all"
    some = slice(None, None, max(len(triplets[0]) // N_TRIPLETS, 1))
    anchor, positive, negative = (column[some] for column in triplets)
    assert (anchor != positive).all()
    assert (labels[anchor] == labels[positive]).all()
    assert (labels[anchor] != labels[negative]).all()
    for i in range(0, len(anchor), 1024):
        a, p, n = (rows[column[i : i + 1024]].astype(np.float64) for column in (anchor, positive, negative))
        difference = ((a - n) ** 2).sum(axis=1) - ((a - p) ** 2).sum(axis=1)
        assert (difference < MARGIN + tolerance).all()
        assert (difference > low - tolerance).all()


def _anchors(rows: Rows, labels: Labels) -> Iterator[tuple[int, npt.NDArray[np.intp], Rows, Rows]]:
    """Yield an anchor, the rows of its identity, the distances to those, and those to all negatives."""
    n_judged = min(N_JUDGED, N_DISTANCES // len(rows) + 1)
    for anchor in np.unique(np.linspace(0, len(rows) - 1, n_judged).astype(int)):
        squared = _squared(rows[anchor], rows)
        same = labels == labels[anchor]
        yield int(anchor), np.flatnonzero(same), squared[same], squared[~same]


def _squared(x: Rows, rows: Rows) -> Rows:
    difference = rows.astype(np.float64) - x.astype(np.float64)
    squared: Rows = np.einsum("ij,ij->i", difference, difference)
    return squared
