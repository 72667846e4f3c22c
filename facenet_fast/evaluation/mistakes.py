"""Which pairs are judged wrongly at a threshold, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenet_fast.errors import UserError

__all__ = ["IdentityErrors", "identity_errors", "worst_pairs"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class IdentityErrors:
    """How the pairs of one identity are judged.

    Attributes
    ----------
    name : str
        The identity.
    n_same, n_false_rejects : int
        Pairs of two of its images, and those of them that are rejected.
    n_different, n_false_accepts : int
        Pairs of one of its images and another identity's, and those of them that are accepted.
    """

    name: str
    n_same: int
    n_false_rejects: int
    n_different: int
    n_false_accepts: int

    @property
    def n_errors(self) -> int:
        """False rejects and false accepts together."""
        return self.n_false_rejects + self.n_false_accepts


def worst_pairs(
    distances: ArrayLike, is_same: ArrayLike, threshold: float, n: int = 24
) -> tuple[Indices, Indices]:
    """Find the pairs that a threshold judges wrongly by most.

    A pair is accepted if its distance d is below the threshold t, strictly.

    Parameters
    ----------
    distances : array_like (n_pairs,)
        Distances.
    is_same : array_like of bool (n_pairs,)
        Whether each pair shows one identity.
    threshold : float
        t.
    n : int
        How many of each kind at most; 24 by default.

    Returns
    -------
    false_accepts : int64 (n or fewer,)
        Pairs of different identities with d < t, nearest first.
    false_rejects : int64 (n or fewer,)
        Pairs of one identity with d >= t, farthest first. Equally far pairs are in their own order.

    Raises
    ------
    UserError
        If lengths differ, a distance or the threshold is NaN, or `n` is negative.

    Examples
    --------
    >>> worst_pairs([0.1, 0.9, 0.3, 0.2, 1.5], [True, True, False, False, True], threshold=0.5)
    (array([3, 2]), array([4, 1]))
    """
    measured, same = _checked(distances, is_same, threshold)
    if n < 0:
        raise UserError(f"n must be 0 or more; got {n}")
    accepted = np.flatnonzero(~same & (measured < threshold))
    rejected = np.flatnonzero(same & (measured >= threshold))
    nearest = np.argsort(measured[accepted], kind="stable")[:n]
    farthest = np.argsort(-measured[rejected], kind="stable")[:n]
    return accepted[nearest], rejected[farthest]


def identity_errors(
    left_identity: ArrayLike,
    right_identity: ArrayLike,
    distances: ArrayLike,
    is_same: ArrayLike,
    threshold: float,
) -> list[IdentityErrors]:
    """Count, identity by identity, the pairs that a threshold judges wrongly.

    A pair is accepted if its distance is below the threshold, strictly. A pair of different identities counts
    for both.

    Parameters
    ----------
    left_identity, right_identity : array_like (n_pairs,)
        Names or numbers of the identities.
    distances, is_same, threshold
        See `worst_pairs`.

    Returns
    -------
    list of IdentityErrors
        One for every identity, most errors first; of equally many by name.

    Raises
    ------
    UserError
        If lengths differ, a distance or the threshold is NaN, or `is_same` contradicts the identities.

    Examples
    --------
    >>> errors = identity_errors(["Ann", "Ann"], ["Ann", "Bob"], [0.9, 0.3], [True, False], threshold=0.5)
    >>> [(one.name, one.n_false_rejects, one.n_false_accepts) for one in errors]
    [('Ann', 1, 1), ('Bob', 0, 1)]
    """
    measured, same = _checked(distances, is_same, threshold)
    left, right = np.asarray(left_identity), np.asarray(right_identity)
    if left.shape != same.shape or right.shape != same.shape:
        raise UserError(
            f"identities must be one for each side of each of {len(same)} pairs; got the shapes "
            f"{left.shape} and {right.shape}"
        )
    names, index = np.unique(np.concatenate([left, right]), return_inverse=True)
    lefts, rights = index[: len(same)], index[len(same) :]
    contradicted = np.flatnonzero((lefts == rights) != same)
    if len(contradicted):
        pair = contradicted[0]
        raise UserError(
            f"is_same must be true where both identities are one; pair {pair} is of {str(left[pair])!r} and "
            f"{str(right[pair])!r} with is_same {bool(same[pair])}"
        )

    def counts(of: NDArray[np.intp], chosen: Bools) -> list[int]:
        counted: list[int] = np.bincount(of[chosen], minlength=len(names)).tolist()
        return counted

    def counts_of_both(chosen: Bools) -> list[int]:
        return [a + b for a, b in zip(counts(lefts, chosen), counts(rights, chosen), strict=True)]

    accepted = measured < threshold
    errors = map(
        IdentityErrors,
        map(str, names),
        counts(lefts, same),
        counts(lefts, same & ~accepted),
        counts_of_both(~same),
        counts_of_both(~same & accepted),
    )
    return sorted(errors, key=lambda one: (-one.n_errors, one.name))


def _checked(distances: ArrayLike, is_same: ArrayLike, threshold: float) -> tuple[Floats, Bools]:
    measured = np.asarray(distances, dtype=np.float64)
    same = np.asarray(is_same, dtype=bool)
    if measured.ndim != 1 or measured.shape != same.shape:
        raise UserError(
            f"distances and is_same must have one length; got the shapes {measured.shape} and {same.shape}"
        )
    if np.isnan(measured).any():
        raise UserError(f"distances must be numbers; got NaN for pair {int(np.argmax(np.isnan(measured)))}")
    if np.isnan(threshold):
        raise UserError("threshold must be a number; got NaN")
    return measured, same
