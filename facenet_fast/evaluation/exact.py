"""Verification without a grid: measures over the distances that occur, with intervals by the bootstrap.

A measure of one test set is one draw of what could have come. Its interval says how much of it is chance of
the draw: people are drawn anew, with replacement, and the measure is taken again, a thousand times over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenet_fast.data.decoding import n_usable_cpus
from facenet_fast.errors import UserError
from facenet_fast.evaluation.roc import (
    FARS,
    ROC,
    OperatingPoint,
    check_pairs,
    exact_roc,
    reachable_fars,
    threshold_above,
)

try:
    from facenet_fast._verification import bootstrap
except ImportError as error:  # pragma: no cover - only in a checkout that was never built
    raise ImportError(
        f"the compiled half of facenet_fast.evaluation is missing ({error}); build it with `pip install .`"
    ) from error

__all__ = ["ExactVerification", "Interval", "exact_verification", "of_roc"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.int32]

# Resamples that a thread takes at a time: few where one is large, so that their counts stay below 16 MB.
_MOST_AT_A_TIME = 32
_COUNTS_AT_A_TIME = 2**22
# More undefined resamples than this share, and what is left is no sample of the measure any more.
_MOST_UNDEFINED = 0.1


@dataclass(frozen=True)
class Interval:
    """The ends between which a measure lies, at the confidence asked for; NaN where they cannot be said."""

    low: float
    high: float


@dataclass(frozen=True)
class ExactVerification:
    """What `exact_verification` found.

    Attributes
    ----------
    roc : ROC
        Over all pairs.
    accuracy, accuracy_std : float
        Share of pairs judged rightly at the best threshold of the other folds: mean and population standard
        deviation over the folds. NaN without folds.
    best_accuracy : float
        The largest share of all pairs that one threshold judges rightly. It is optimistic: the threshold was
        chosen on the pairs it judges.
    threshold : float
        That threshold; accept distances below it.
    auc, eer : float
        Of `roc`.
    operating_points : tuple of OperatingPoint
        VAL at each false accept rate that the pairs can give.
    refused : tuple of str
        A sentence for each that they cannot.
    intervals : mapping of str to Interval
        By ``"accuracy"`` (with folds), ``"auc"``, ``"eer"`` and ``"val@0.001"`` (``f"val@{far:g}"``); empty
        if not asked for.
    confidence : float
        Share of intervals that are to hold the measure's true value.
    n_resamples : int
        Resamples behind them; 0 if not asked for.
    resampled : {"identities", "pairs", ""}
        What was drawn anew.
    """

    roc: ROC
    accuracy: float
    accuracy_std: float
    best_accuracy: float
    threshold: float
    auc: float
    eer: float
    operating_points: tuple[OperatingPoint, ...]
    refused: tuple[str, ...]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    confidence: float = 0.95
    n_resamples: int = 0
    resampled: str = ""


def of_roc(roc: ROC, fars: Sequence[float] = FARS) -> ExactVerification:
    """Give what a ROC alone can: no accuracy by folds and no intervals, which need the pairs.

    Parameters
    ----------
    roc : ROC
        For instance of all pairs of a data set, counted in bins.
    fars : sequence of float
        False accept rates, as in `exact_verification`.

    Returns
    -------
    ExactVerification

    Raises
    ------
    UserError
        If a false accept rate is out of range.

    Examples
    --------
    >>> found = of_roc(exact_roc([0.1, 0.3, 0.2, 0.4], [True, True, False, False]), fars=(0.5,))
    >>> found.best_accuracy, found.threshold, found.auc
    (0.75, 0.15000000000000002, 0.75)
    """
    reachable, refused = reachable_fars(roc.n_different, fars)
    gained = np.rint(roc.tpr * roc.n_same) - np.rint(roc.fpr * roc.n_different)
    best = int(np.argmax(gained))
    return ExactVerification(
        roc=roc,
        accuracy=float("nan"),
        accuracy_std=float("nan"),
        best_accuracy=float((gained[best] + roc.n_different) / (roc.n_same + roc.n_different)),
        threshold=threshold_above(roc.thresholds, best),
        auc=roc.auc,
        eer=roc.eer,
        operating_points=tuple(roc.at_far(far) for far in reachable),
        refused=refused,
    )


def exact_verification(
    distances: ArrayLike,
    is_same: ArrayLike,
    *,
    fold: ArrayLike | None = None,
    left_identity: ArrayLike | None = None,
    right_identity: ArrayLike | None = None,
    fars: Sequence[float] = FARS,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ExactVerification:
    """Verify pairs by their distances, with every distance that occurs as a threshold.

    Nothing depends on the scale of the distances: no grid is laid over them and nothing is interpolated, but
    for the EER's point between two steps.

    - Accuracy: for each fold, the threshold that judges most pairs of the other folds rightly, the smallest
      of equally good ones; it lies halfway between two distances of the other folds. Folds are averaged.
    - VAL at a FAR: `ROC.at_far`. AUC and EER: `ROC`.
    - Intervals: from the ``(1 - confidence) / 2`` to the ``(1 + confidence) / 2`` quantile of the measure
      over the resamples. Where identities are known they are drawn, as many as there are, with replacement;
      of one that is drawn ``w_i`` times, a same pair counts ``w_i`` times, and a different pair with one
      drawn ``w_j`` times counts ``w_i w_j`` times [1]_. Without identities pairs are drawn, same and
      different ones each by themselves. The measure is that of the whole set: folds stay what they were, and
      each fold's threshold is found anew. Resamples without pairs of both kinds give no value; if more than a
      tenth do, the interval is NaN.

    Give identities where they are known: pairs of one person are alike, and resamples of pairs, which take
    them for independent, make intervals too narrow [2]_ (in simulations of alike pairs, 61 to 96 % as wide
    as they should be). Resampled identities err on the safe side: right where everybody is compared to
    everybody, too wide, up to 1.7 times, where most people are in one different pair only.

    Parameters
    ----------
    distances : array_like (n_pairs,)
        Distances, small for one identity; negated similarities will do.
    is_same : array_like of bool (n_pairs,)
        Whether each pair shows one identity; both kinds must occur.
    fold : array_like (n_pairs,), optional
        Fold of each pair; at least two folds. Folds of one kind, and of any size, are fine.
    left_identity, right_identity : array_like (n_pairs,), optional
        Who the two images of each pair show: labels of any one sortable type.
    fars : sequence of float
        False accept rates at which to give VAL, above 0 and at most 1.
    n_resamples : int
        Resamples for the intervals; 0 for none.
    confidence : float
        Above 0 and below 1.
    seed : int
        For the resamples: each is a function of the seed and its number.

    Returns
    -------
    ExactVerification

    Raises
    ------
    UserError
        If shapes differ, a distance is not finite, one kind of pairs is missing, there are fewer than two
        folds, identities contradict `is_same`, or an option is out of range.

    References
    ----------
    .. [1] Snijders and Borgatti, "Non-Parametric Standard Errors and Tests for Network Statistics",
       Connections 22(2), 1999: the bootstrap of vertices.
    .. [2] Fogliato, Patil and Perona, "Confidence Intervals for Error Rates in 1:1 Matching Tasks: Critical
       Statistical Analysis and Recommendations", International Journal of Computer Vision, 2024.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> is_same = np.arange(400) % 2 == 0
    >>> d = rng.normal(np.where(is_same, 1.0, 2.0), 0.4)
    >>> found = exact_verification(d, is_same, fold=np.arange(400) // 40, fars=(0.1, 1e-3))
    >>> low, high = found.intervals["accuracy"].low, found.intervals["accuracy"].high
    >>> f"{found.accuracy:.3f}, between {low:.3f} and {high:.3f}"
    '0.915, between 0.864 and 0.941'
    >>> found.refused
    ('VAL at FAR=0.001 needs at least 1000 pairs of different identities; got 200',)
    """
    pair_distances, same = check_pairs(distances, is_same)
    if n_resamples < 0:
        raise UserError(f"n_resamples must not be negative; got {n_resamples}")
    if not 0 < confidence < 1:
        raise UserError(f"confidence must be above 0 and below 1; got {confidence}")
    if seed < 0:
        raise UserError(f"seed must not be negative; got {seed}")
    folds, n_folds = _fold_codes(fold, len(same))
    identities = _identity_codes(left_identity, right_identity, same)
    found = of_roc(exact_roc(pair_distances, same), fars)
    if n_folds > 1:
        accuracies = _fold_accuracies(pair_distances, same, folds, n_folds)
        found = replace(found, accuracy=float(np.mean(accuracies)), accuracy_std=float(np.std(accuracies)))
    if n_resamples == 0:
        return found
    reachable = tuple(point.far_target for point in found.operating_points)
    measures = _measures_of_resamples(
        pair_distances, same, folds, n_folds, identities, reachable, n_resamples, seed
    )
    names = ("accuracy", "auc", "eer", *(f"val@{far:g}" for far in reachable))
    return replace(
        found,
        intervals={
            name: _interval(values, confidence)
            for name, values in zip(names, measures.T, strict=True)
            if name != "accuracy" or n_folds > 1
        },
        confidence=confidence,
        n_resamples=n_resamples,
        resampled="pairs" if identities is None else "identities",
    )


def _fold_accuracies(distances: Floats, same: Bools, fold: Codes, n_folds: int) -> list[float]:
    accuracies = []
    for tested in range(n_folds):
        here = fold == tested
        accepted = distances[here] < _best_threshold(distances[~here], same[~here])
        accuracies.append(float(np.mean(accepted == same[here])))
    return accuracies


def _best_threshold(distances: Floats, same: Bools) -> float:
    order = np.argsort(distances, kind="stable")
    ascending = distances[order]
    last_of_ties = np.append(ascending[1:] != ascending[:-1], True)
    gained = np.append(0, np.cumsum(np.where(same[order], 1, -1))[last_of_ties])
    return threshold_above(np.append(-np.inf, ascending[last_of_ties]), int(np.argmax(gained)))


def _measures_of_resamples(
    distances: Floats,
    same: Bools,
    fold: Codes,
    n_folds: int,
    identities: tuple[Codes, Codes] | None,
    fars: Sequence[float],
    n_resamples: int,
    seed: int,
) -> Floats:
    """Give accuracy, AUC, EER and VALs (columns) of each resample (rows)."""
    order = np.argsort(distances, kind="stable")
    sorted_pairs = (distances[order], same[order].astype(np.uint8), fold[order], n_folds)
    if identities is None:
        left = right = np.arange(len(same), dtype=np.int32)
        strata = [np.flatnonzero(same[order]), np.flatnonzero(~same[order])]
    else:
        left, right = identities[0][order], identities[1][order]
        strata = [np.arange(max(left.max(), right.max()) + 1)]
    n_units = sum(len(stratum) for stratum in strata)
    step = max(1, min(_MOST_AT_A_TIME, _COUNTS_AT_A_TIME // n_units))
    wanted = np.asarray(fars, dtype=np.float64)

    def measure(numbers: range) -> Floats:
        counts = np.empty((len(numbers), n_units), dtype=np.int32)
        for row, number in zip(counts, numbers, strict=True):
            rng = np.random.default_rng([seed, number])
            for stratum in strata:
                n = len(stratum)
                row[stratum] = np.bincount(rng.integers(n, size=n), minlength=n)
        return bootstrap(*sorted_pairs, left, right, counts, wanted)

    parts = [range(start, min(start + step, n_resamples)) for start in range(0, n_resamples, step)]
    with ThreadPoolExecutor(max_workers=n_usable_cpus()) as threads:
        return np.concatenate(list(threads.map(measure, parts)))


def _interval(values: Floats, confidence: float) -> Interval:
    defined = values[~np.isnan(values)]
    if len(values) - len(defined) > _MOST_UNDEFINED * len(values):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(defined, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(float(low), float(high))


def _fold_codes(fold: ArrayLike | None, n_pairs: int) -> tuple[Codes, int]:
    """Return folds as 0, 1, ... and their number; without any, all pairs are in one."""
    if fold is None:
        return np.zeros(n_pairs, dtype=np.int32), 1
    folds = np.asarray(fold)
    if folds.shape != (n_pairs,):
        raise UserError(f"fold must have one entry a pair, ({n_pairs},); got shape {folds.shape}")
    names, codes = np.unique(folds, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"verification needs at least 2 folds; got {len(names)}")
    return codes.astype(np.int32), len(names)


def _identity_codes(
    left_identity: ArrayLike | None, right_identity: ArrayLike | None, same: Bools
) -> tuple[Codes, Codes] | None:
    """Return who is left and who is right in each pair, as 0, 1, ..."""
    if left_identity is None and right_identity is None:
        return None
    if left_identity is None or right_identity is None:
        raise UserError("left_identity and right_identity must be given together; got one of them")
    left, right = np.asarray(left_identity), np.asarray(right_identity)
    for name, labels in (("left_identity", left), ("right_identity", right)):
        if labels.shape != same.shape:
            raise UserError(f"{name} must have one entry a pair, {same.shape}; got shape {labels.shape}")
    try:
        names, codes = np.unique(np.concatenate([left, right]), return_inverse=True)
    except TypeError as error:
        raise UserError(f"identities must be labels of one sortable type; {error}") from None
    left_codes, right_codes = np.split(codes.astype(np.int32), 2)
    wrong = np.flatnonzero((left_codes == right_codes) != same)
    if len(wrong):
        first = wrong[0]
        raise UserError(
            "same pairs must show one identity and different pairs two; "
            f"pair {first} is {'same' if same[first] else 'different'}, "
            f"of {names[left_codes[first]]} and {names[right_codes[first]]}"
        )
    return left_codes, right_codes
