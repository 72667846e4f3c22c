"""The receiver operating characteristic of pairs and what is read off it: AUC, EER, and VAL at a FAR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenet_fast.errors import UserError

__all__ = [
    "FARS",
    "ROC",
    "OperatingPoint",
    "area_under_curve",
    "check_both_kinds",
    "check_pairs",
    "equal_error_rate",
    "exact_roc",
    "reachable_fars",
    "threshold_above",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# What VAL is asked for at; those that the pairs cannot give are refused by name.
FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold does.

    Attributes
    ----------
    far_target : float
        The false accept rate asked for.
    far : float
        That reached: the largest that is not above `far_target`.
    val : float
        Validation rate, the share of same pairs accepted.
    threshold : float
        Accept distances below it. It lies halfway between the largest distance accepted and the next that
        occurs, so that ``<`` and ``<=`` judge alike. Where nothing is accepted it is 0 (or the smallest
        distance, if that is negative); where everything is, just above the largest distance.
    n_false_accepts, n_true_accepts : int
        Pairs accepted, of different and of one identity.
    """

    far_target: float
    far: float
    val: float
    threshold: float
    n_false_accepts: int
    n_true_accepts: int


@dataclass(frozen=True)
class ROC:
    """A receiver operating characteristic; entry i accepts the distances up to and with ``thresholds[i]``.

    Attributes
    ----------
    fpr, tpr : float64 (n,)
        Shares of different and of same pairs accepted, from 0 to 1. Where two entries differ, pairs lie
        between; a curve with an entry for every distance that occurs is exact.
    thresholds : float64 (n,)
        Ascending; the first is minus infinity, which accepts nothing.
    n_same, n_different : int
        Pairs of each kind behind it.
    threshold_error : float
        How far a distance may be from where it is counted: 0 if distances were sorted, more if they were
        counted in bins or in less than float64.
    """

    fpr: Floats
    tpr: Floats
    thresholds: Floats
    n_same: int
    n_different: int
    threshold_error: float = 0.0

    @property
    def fnr(self) -> Floats:
        """Share of same pairs rejected, ``1 - tpr``; with `fpr` it is the detection error tradeoff (DET)."""
        rejected: Floats = 1.0 - self.tpr
        return rejected

    @property
    def auc(self) -> float:
        """Area under the curve: the probability that a same pair is nearer than a different one.

        Equally near pairs count half.
        """
        return area_under_curve(self.fpr, self.tpr)

    @property
    def eer(self) -> float:
        """Equal error rate, where ``fpr = fnr`` on the line through the entries."""
        return equal_error_rate(self.fpr, self.tpr)

    def at_far(self, far_target: float) -> OperatingPoint:
        """Give the validation rate at a false accept rate, as in FaceNet [1]_, section 4.

        That is the share of same pairs accepted by the last entry with ``fpr <= far_target``; nothing is
        interpolated.

        Parameters
        ----------
        far_target : float
            Above 0 and at most 1.

        Returns
        -------
        OperatingPoint

        Raises
        ------
        UserError
            If `far_target` is out of range, or so small that even one false accept would exceed it.

        References
        ----------
        .. [1] Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015.

        Examples
        --------
        >>> roc = exact_roc([0.1, 0.3, 0.2, 0.4], [True, True, False, False])
        >>> point = roc.at_far(0.5)
        >>> point.far, point.val, point.threshold
        (0.5, 1.0, 0.35)
        """
        _, refused = reachable_fars(self.n_different, (far_target,))
        if refused:
            raise UserError(refused[0])
        entry = int(np.searchsorted(self.fpr, far_target, side="right")) - 1
        return OperatingPoint(
            far_target=far_target,
            far=float(self.fpr[entry]),
            val=float(self.tpr[entry]),
            threshold=threshold_above(self.thresholds, entry),
            n_false_accepts=round(float(self.fpr[entry]) * self.n_different),
            n_true_accepts=round(float(self.tpr[entry]) * self.n_same),
        )


def exact_roc(pair_distances: ArrayLike, is_same: ArrayLike) -> ROC:
    """Give the step-wise ROC with one point for every distance that occurs.

    Parameters
    ----------
    pair_distances : array_like (n_pairs,)
        Distances.
    is_same : array_like of bool (n_pairs,)
        Whether each pair shows one identity; both kinds must occur.

    Returns
    -------
    ROC
        From (0, 0), which accepts nothing, to (1, 1). Equal distances are accepted together.

    Raises
    ------
    UserError
        If shapes differ, a distance is not finite, or one kind of pairs is missing.

    Examples
    --------
    >>> roc = exact_roc([0.1, 0.3, 0.2, 0.4], [True, True, False, False])
    >>> roc.fpr, roc.tpr
    (array([0. , 0. , 0.5, 0.5, 1. ]), array([0. , 0.5, 0.5, 1. , 1. ]))
    """
    pair_distances, same = check_pairs(pair_distances, is_same)
    order = np.argsort(pair_distances, kind="stable")
    ascending = pair_distances[order]
    last_of_ties = np.append(ascending[1:] != ascending[:-1], True)
    true_accepts = np.cumsum(same[order])[last_of_ties]
    false_accepts = np.cumsum(~same[order])[last_of_ties]
    return ROC(
        fpr=np.append(0.0, false_accepts / false_accepts[-1]),
        tpr=np.append(0.0, true_accepts / true_accepts[-1]),
        thresholds=np.append(-np.inf, ascending[last_of_ties]),
        n_same=int(true_accepts[-1]),
        n_different=int(false_accepts[-1]),
    )


def area_under_curve(fpr: Floats, tpr: Floats) -> float:
    """Integrate a ROC curve by the trapezoidal rule.

    Examples
    --------
    >>> area_under_curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    0.5
    """
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2.0))


def equal_error_rate(fpr: Floats, tpr: Floats) -> float:
    """Find where the line through a ROC's points meets ``fpr = 1 - tpr``.

    Parameters
    ----------
    fpr, tpr : float64 (n_thresholds,)
        The curve, ascending from (0, 0) to (1, 1).

    Returns
    -------
    float

    Examples
    --------
    >>> equal_error_rate(np.array([0.0, 0.25, 1.0]), np.array([0.0, 0.75, 1.0]))
    0.25
    """
    reached = fpr + tpr
    after = int(np.argmax(reached >= 1.0))
    if after == 0:
        return float(fpr[0])
    before = after - 1
    share = (1.0 - reached[before]) / (reached[after] - reached[before])
    return float(fpr[before] + share * (fpr[after] - fpr[before]))


def reachable_fars(
    n_different: int,
    fars: Sequence[float] = FARS,
    *,
    rate: str = "VAL",
    counted: str = "pairs of different identities",
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Part the false accept rates that so many trials can give from those they cannot.

    A rate below ``1 / n_different`` cannot be told from 0.

    Parameters
    ----------
    n_different : int
        Trials that can be accepted falsely.
    fars : sequence of float
        Above 0 and at most 1; repeated ones count once.
    rate, counted : str
        What is asked for at these, and what the trials are, for the sentences.

    Returns
    -------
    reachable : tuple of float
        In the order of `fars`.
    refused : tuple of str
        A sentence for each of the others.

    Raises
    ------
    UserError
        If one of `fars` is out of range.

    Examples
    --------
    >>> reachable_fars(3000, (1e-3, 1e-5))
    ((0.001,), ('VAL at FAR=1e-05 needs at least 100000 pairs of different identities; got 3000',))
    """
    reachable, refused = [], []
    for far in dict.fromkeys(fars):
        if not 0 < far <= 1:
            raise UserError(f"FAR must be above 0 and at most 1; got {far}")
        if n_different > 0 and 1 / n_different <= far:
            reachable.append(far)
        else:
            refused.append(
                f"{rate} at FAR={far:g} needs at least {_n_needed(far)} {counted}; got {n_different}"
            )
    return tuple(reachable), tuple(refused)


def threshold_above(thresholds: Floats, entry: int) -> float:
    """Give the threshold that accepts, by ``<``, what an entry of a ROC accepts (see `OperatingPoint`).

    Parameters
    ----------
    thresholds : float64 (n,)
        Minus infinity, then the distances that occur, each once, ascending; two entries at least.
    entry : int
        0 to n - 1.

    Returns
    -------
    float

    Examples
    --------
    >>> thresholds = np.array([-np.inf, 0.25, 0.75])
    >>> [threshold_above(thresholds, entry) for entry in range(2)]
    [0.0, 0.5]
    """
    if entry == 0:
        return min(0.0, float(thresholds[1]))
    accepted = float(thresholds[entry])
    if entry == len(thresholds) - 1:
        return math.nextafter(accepted, math.inf)
    rejected = float(thresholds[entry + 1])
    halfway = accepted + (rejected - accepted) / 2
    return halfway if halfway > accepted else rejected  # of neighbouring floats none lies between


def check_pairs(pair_distances: ArrayLike, is_same: ArrayLike) -> tuple[Floats, Bools]:
    """Return distances and truth as arrays; both kinds of pairs must be there and all distances finite."""
    try:
        distances = np.asarray(pair_distances, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("distances must be an array of numbers (n_pairs,)") from None
    same = np.asarray(is_same)
    if distances.ndim != 1 or same.shape != distances.shape:
        raise UserError(
            f"distances and is_same must have one entry a pair; got shapes {distances.shape} and {same.shape}"
        )
    if not (same.dtype == bool or np.isin(same, (0, 1)).all()):
        raise UserError("is_same must hold only True and False; got other values")
    bad = np.flatnonzero(~np.isfinite(distances))
    if len(bad):
        raise UserError(
            f"distances must be finite; {len(bad)} of {len(distances)} are NaN or infinite, "
            f"first that of pair {bad[0]}"
        )
    same = same.astype(bool)
    check_both_kinds(same)
    return distances, same


def check_both_kinds(same: Bools) -> None:
    """Refuse pairs that are all of one kind."""
    n_same = int(np.count_nonzero(same))
    if n_same == 0 or n_same == len(same):
        raise UserError(
            "verification needs pairs of one identity and pairs of two; "
            f"got {n_same} same and {len(same) - n_same} different"
        )


def _n_needed(far: float) -> int:
    """Give the smallest n with ``1 / n <= far``; ``1 / far`` alone may be rounded to the next number."""
    n = math.ceil(1 / far)
    return n - 1 if n > 1 and 1 / (n - 1) <= far else n
