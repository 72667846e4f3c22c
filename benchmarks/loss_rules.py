"""What each loss of labelled embeddings is, and its gradient, summed up slowly in float64: the judge of all.

A triplet's loss is ``max(d_ap - d_an + margin, 0)``; what differs is which triplets the mean is over. Rows of
one identity lie together, as many of each, at unit length: as `regimes.pool` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from facenet_fast import BatchAllLoss

from .regimes import Regime, pool
from .rules import MARGIN, Labels, Rows

__all__ = ["DEFINITIONS", "MARGINS", "Expected", "expected", "judge", "judge_some_rows"]

# Of unit rows a band of either is about as wide.
MARGINS = {"squared_euclidean": MARGIN, "euclidean": 0.08}

# What a difference of two float32 distances of unit rows may be off by.
DOUBT = 2e-6

# Parts of the loss, and of the length of the gradient, that a sum in float32 may be off by.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Expected:
    """A loss, its gradient, the number of its triplets, and of those that float32 may take for others."""

    loss: float
    n_triplets: int
    n_doubtful: int
    gradient: npt.NDArray[np.float64]


def judge(loss: float, gradient: Rows, right: Expected, is_exact: bool) -> None:
    """Hold a loss and its gradient against the right ones; the exact may mistake no triplet for another."""
    tolerance = TOLERANCE / 10 if is_exact else TOLERANCE
    # A triplet pulls at three rows; if they are unit rows, with no more than 4 at each.
    slack = 0.0 if is_exact else 12.0 * right.n_doubtful / right.n_triplets
    assert gradient.shape == right.gradient.shape
    assert abs(loss - right.loss) <= tolerance * right.loss + DOUBT
    error, length = (np.linalg.norm(g, axis=1).sum() for g in (gradient - right.gradient, right.gradient))
    assert error <= tolerance * length + slack, f"off by {error / length:.1e}, {right.n_doubtful} in doubt"


def judge_some_rows(found: BatchAllLoss, rows: Rows, labels: Labels, distance: str) -> None:
    """Hold the loss over violating triplets of a large batch against what is right of three identities."""
    identities = np.unique(np.linspace(0, labels[-1], 3).astype(int))
    some = np.isin(labels, identities)
    right = _Sums.of(rows, labels, distance, -np.inf, identities)
    np.testing.assert_array_equal(found.n_by_anchor[some], right.n_triplets)
    off = abs(found.loss_by_anchor[some] - right.losses)
    assert (off <= TOLERANCE / 10 * right.losses + DOUBT * right.n_triplets).all()
    errors = np.linalg.norm(found.gradient[some] * found.n_triplets - right.gradient, axis=1)
    assert errors.sum() <= TOLERANCE / 10 * np.linalg.norm(right.gradient, axis=1).sum()
    assert found.n_triplets == found.n_by_anchor.sum()
    np.testing.assert_allclose(found.loss, found.loss_by_anchor.sum() / found.n_triplets, rtol=1e-12)


# -- definitions ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def expected(
    definition: str, n_identities: int, n_images: int, size: int, regime: Regime, distance: str
) -> Expected:
    """Return what is right by a definition, a key of `DEFINITIONS`, of a pool."""
    return DEFINITIONS[definition](*pool(n_identities, n_images, size, regime), distance)


def _every(low: float) -> Callable[[Rows, Labels, str], Expected]:
    def sum_up(rows: Rows, labels: Labels, distance: str) -> Expected:
        sums = _Sums.of(rows, labels, distance, low, range(int(labels[-1]) + 1))
        n = int(sums.n_triplets.sum())
        return Expected(sums.losses.sum() / n, n, sums.n_doubtful, sums.gradient / n)

    return sum_up


def _semi_hard_each(rows: Rows, labels: Labels, distance: str) -> Expected:
    """Take of each pair the nearest negative that is farther than the positive, or else the farthest one."""
    squared, margin = _squared(rows, rows), MARGINS[distance]
    d = _of_squared(squared, distance)
    pulls = np.zeros_like(d)
    loss, n_pairs, n_doubtful = 0.0, 0, 0
    for anchor in range(len(rows)):
        positives, negatives = (
            np.flatnonzero(is_) for is_ in (labels == labels[anchor], labels != labels[anchor])
        )
        positives = positives[positives != anchor]
        negatives = negatives[np.argsort(d[anchor, negatives], kind="stable")]
        d_ap, d_an = d[anchor, positives], d[anchor, negatives]
        first, earliest, latest = (
            np.minimum(np.searchsorted(d_an, d_ap + e, side="right"), len(d_an) - 1)
            for e in (0.0, -DOUBT, DOUBT)
        )
        hinge = d_ap - d_an[first] + margin
        next_one = d_an[np.minimum(first + 1, len(d_an) - 1)]
        is_tied = (next_one - d_an[first] < DOUBT) & (first < len(d_an) - 1)
        n_doubtful += int(((earliest < latest) | is_tied | (abs(hinge) < DOUBT)).sum())
        loss += hinge.clip(0).sum()
        n_pairs += len(positives)
        np.add.at(pulls[anchor], positives, hinge > 0)
        np.subtract.at(pulls[anchor], negatives[first], hinge > 0)
    gradient = _gradient(pulls + pulls.T, squared, rows, rows, distance)
    return Expected(loss / n_pairs, n_pairs, n_doubtful, gradient / n_pairs)


# By name, which triplets the mean is over.
DEFINITIONS: dict[str, Callable[[Rows, Labels, str], Expected]] = {
    "every violating triplet": _every(-np.inf),
    "every semi-hard triplet": _every(0.0),
    "one semi-hard triplet a pair": _semi_hard_each,
}


# -- sums over every triplet ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sums:
    """Of the rows of some identities.

    Attributes
    ----------
    losses, n_triplets : array, shape (n_rows,)
        Of the triplets that have the row as their anchor.
    n_doubtful : int
        Triplets of those anchors that float32 may take for others.
    gradient : array, shape (n_rows, size)
        By these rows, of the sum of the losses of all triplets.
    """

    losses: npt.NDArray[np.float64]
    n_triplets: npt.NDArray[np.int64]
    n_doubtful: int
    gradient: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: Rows, labels: Labels, distance: str, low: float, identities: Iterable[int]) -> _Sums:
        """Sum up triplets with ``low < d_an - d_ap < margin``."""
        x, margin = rows.astype(np.float64), MARGINS[distance]
        n_identities = int(labels[-1]) + 1
        # From each row to those of its identity. Not to itself: a positive so near makes no triplet.
        d_ap = np.concatenate(
            [_of_squared(_squared(own, own), distance) for own in np.split(x, n_identities)]
        )
        d_ap[np.arange(len(x)), np.arange(len(x)) % d_ap.shape[1]] = -np.inf
        losses, counts, gradients, n_doubtful = [], [], [], 0
        for identity in identities:
            own, others = np.flatnonzero(labels == identity), np.flatnonzero(labels != identity)
            squared = _squared(x[own], x)
            d = _of_squared(squared, distance)
            pulls = np.zeros_like(d)
            for i, row in enumerate(own):
                beyond = d[i, others] - d_ap[row][:, None]  # as an anchor: (positives, negatives)
                inside = (low < beyond) & (beyond < margin)
                losses.append((margin - beyond[inside]).sum())
                counts.append(inside.sum())
                n_doubtful += int((np.minimum(abs(beyond - low), abs(beyond - margin)) < DOUBT).sum())
                pulls[i, own] += inside.sum(axis=1)
                pulls[i, others] -= inside.sum(axis=0)
            pulls[:, own] += pulls[:, own].T.copy()  # as a positive
            for i in range(len(own)):
                beyond = d[i, others][:, None] - d_ap[others]  # as a negative: (anchors, positives)
                pulls[i, others] -= ((low < beyond) & (beyond < margin)).sum(axis=1)
            gradients.append(_gradient(pulls, squared, x[own], x, distance))
        return cls(np.array(losses), np.array(counts), n_doubtful, np.concatenate(gradients))


def _squared(x: Rows, y: Rows) -> npt.NDArray[np.float64]:
    x, y = x.astype(np.float64), y.astype(np.float64)
    squared: npt.NDArray[np.float64] = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2.0 * x @ y.T
    return squared.clip(0.0)


def _of_squared(squared: npt.NDArray[np.float64], distance: str) -> npt.NDArray[np.float64]:
    return np.sqrt(squared) if distance == "euclidean" else squared


def _gradient(pulls: Rows, squared: Rows, x: Rows, y: Rows, distance: str) -> npt.NDArray[np.float64]:
    """Return the gradient by `x` of a loss, given that by the distances from rows of `x` to those of `y`."""
    by_squared = pulls
    if distance == "euclidean":
        by_squared = np.divide(pulls, 2.0 * np.sqrt(squared), out=np.zeros_like(pulls), where=pulls != 0)
    gradient: npt.NDArray[np.float64] = 2.0 * (by_squared.sum(axis=1)[:, None] * x - by_squared @ y)
    return gradient
