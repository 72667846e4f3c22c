"""Face verification by the protocol of Labeled Faces in the Wild: accuracy, VAL at a FAR, AUC and EER.

Two images are accepted as one identity where the distance of their embeddings is below a threshold. The pairs
come in folds; what a fold is measured with (threshold, mean embedding) is found on the other folds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenet_fast.errors import UserError
from facenet_fast.evaluation.roc import ROC, area_under_curve, check_both_kinds, equal_error_rate, exact_roc

try:
    from facenet_fast._verification import count_accepts
except ImportError as error:  # pragma: no cover - only in a checkout that was never built
    raise ImportError(
        f"the compiled half of facenet_fast.evaluation is missing ({error}); build it with `pip install .`"
    ) from error

__all__ = [
    "EUCLIDEAN",
    "METRICS",
    "ROC",
    "Verification",
    "area_under_curve",
    "distances",
    "equal_error_rate",
    "exact_roc",
    "threshold_grid",
    "verify",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

EUCLIDEAN = 0
METRICS: dict[int, str] = {0: "squared Euclidean distance", 1: "angle between the embeddings, divided by pi"}

# The steps in which the published LFW numbers of the predecessor were found, over distances from 0 to 4:
# squared distances of unit vectors. They are kept so that numbers stay comparable to those tables.
_GRID_END = 4.0
_ACCURACY_STEP = 0.01
_VAL_STEP = 0.001
# Distances that reach less than a tenth of the grid, or more than ten times its end, get their own steps.
_GRID_STRETCH = 10.0

_PAIRS_AT_A_TIME = 64

_logger = logging.getLogger("facenet_fast")


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    accuracy, accuracy_std : float
        Share of pairs judged rightly: mean and population standard deviation over the folds.
    val, val_std : float
        Validation rate: share of same pairs accepted at the threshold that gave `far_target` false accepts on
        the other folds. NaN if no fold can give it.
    far : float
        Share of different pairs accepted at that same threshold, mean over the folds.
    auc : float
        Area under the curve (`fpr`, `tpr`).
    eer : float
        Equal error rate: where ``fpr = 1 - tpr`` on that curve.
    tpr, fpr : float64 (n_thresholds,)
        Shares of same and of different pairs accepted, mean over the folds, at `thresholds`.
    thresholds : float64 (n_thresholds,)
        The grid, ascending (`threshold_grid`).
    threshold : float
        The threshold of best accuracy, mean over the folds: the one to use on new pairs.
    far_target : float
        The false accept rate asked for.
    distances : float64 (n_pairs,)
        Every pair's distance, as measured when its own fold was tested.
    is_same : bool (n_pairs,)
        The truth, pair by pair.
    """

    accuracy: float
    accuracy_std: float
    val: float
    val_std: float
    far: float
    auc: float
    eer: float
    tpr: Floats
    fpr: Floats
    thresholds: Floats
    threshold: float
    far_target: float
    distances: Floats
    is_same: Bools

    @property
    def roc(self) -> ROC:
        """The exact, step-wise ROC over all pairs pooled, for plots."""
        return exact_roc(self.distances, self.is_same)


def distances(left: ArrayLike, right: ArrayLike, metric: int = EUCLIDEAN) -> Floats:
    """Measure row by row how far `left` is from `right`.

    Parameters
    ----------
    left, right : array_like (n, D)
        Embeddings.
    metric : {0, 1}
        0: squared Euclidean distance, ``sum((left - right)**2)``, 0 to 4 for unit vectors.
        1: angle, ``arccos(cos(left, right)) / pi``, 0 to 1. The cosine is clipped to [-1, 1], where rounding
        would make the angle of two equal vectors NaN; a zero vector, which has no direction, is at 0.5.

    Returns
    -------
    float64 (n,)

    Raises
    ------
    UserError
        If `metric` is another number.

    Examples
    --------
    >>> distances([[1.0, 0.0]], [[0.0, 1.0]], metric=0)
    array([2.])
    >>> distances([[1.0, 0.0]], [[0.0, 1.0]], metric=1)
    array([0.5])
    """
    left = np.asarray(left, dtype=np.float64)
    right = np.asarray(right, dtype=np.float64)
    check_metric(metric)
    if metric == EUCLIDEAN:
        squared: Floats = np.sum(np.square(left - right), axis=1)
        return squared
    dots = np.sum(left * right, axis=1)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    angles: Floats = np.arccos(np.clip(cosines, -1.0, 1.0)) / np.pi
    return angles


def threshold_grid(step: float, largest: float) -> Floats:
    """Lay thresholds over the distances from 0 to `largest`.

    The grid is the predecessor's, ``arange(0, 4, step)``, where all distances lie below its last threshold;
    it goes on in the same steps where some do not (flipped images included, embeddings are up to 8 apart), so
    that the last threshold accepts every pair. Where that would take more than ten times as many steps, or
    where all distances lie in the grid's first tenth, the steps grow or shrink with `largest` instead.

    Parameters
    ----------
    step : float
        Distance between two thresholds.
    largest : float
        The largest distance.

    Returns
    -------
    float64 (n_thresholds,)

    Examples
    --------
    >>> len(threshold_grid(0.01, largest=2.0))
    400
    >>> threshold_grid(0.01, largest=8.0)[-1] > 8.0
    np.True_
    """
    if 0 < largest < _GRID_END / _GRID_STRETCH:
        step *= largest / _GRID_END
        end = largest + 2 * step
    else:
        step *= max(1.0, largest / (_GRID_END * _GRID_STRETCH))
        end = _GRID_END if largest < _GRID_END - step else largest + 2 * step
    return np.arange(0.0, end, step)


def verify(
    left: ArrayLike,
    right: ArrayLike,
    is_same: ArrayLike,
    fold: ArrayLike,
    *,
    metric: int = EUCLIDEAN,
    subtract_mean: bool = False,
    far_target: float = 1e-3,
) -> Verification:
    """Verify pairs of embeddings fold by fold.

    For each fold in turn, with d a pair's distance and t a threshold of the grid (`threshold_grid`):

    - accuracy: the first t, in steps of 0.01, that judges most pairs of the other folds rightly (a pair is
      accepted if d < t, strictly) judges this fold's;
    - tpr, fpr: shares of this fold's same and different pairs with d < t;
    - VAL: on the other folds, t is interpolated linearly, in steps of 0.001, at a false accept rate of
      `far_target`; among thresholds of one rate the last counts. VAL and FAR are this fold's shares of
      accepted same and different pairs at that t.

    Folds are then averaged. This is the protocol of LFW [1]_ with VAL and FAR as in FaceNet [2]_, section 4,
    and the numbers are those of the predecessor's script wherever that gives any. A fold with pairs of one
    kind only is left out of the means of those rates it cannot give, with a warning. The steps are the same
    for both metrics, since published tables were made with them; `Verification.roc` needs no grid.

    Parameters
    ----------
    left, right : array_like (n_pairs, D)
        Embeddings of each pair's two images; computed with in float64.
    is_same : array_like of bool (n_pairs,)
        Whether each pair shows one identity.
    fold : array_like of int (n_pairs,)
        Fold of each pair; at least two folds.
    metric : {0, 1}
        Squared Euclidean distance, or angle / pi; see `distances`.
    subtract_mean : bool
        Subtract the mean embedding of the other folds' pairs (both sides) before measuring.
    far_target : float
        The false accept rate at which VAL is given, above 0 and at most 1.

    Returns
    -------
    Verification

    Raises
    ------
    UserError
        If shapes differ, an embedding is not finite, one kind of pairs is missing, there are fewer than two
        folds, or an option is out of range.

    References
    ----------
    .. [1] Huang et al., "Labeled Faces in the Wild", 2007.
    .. [2] Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR 2015.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> centres = rng.normal(size=(40, 8))
    >>> left = centres + 0.1 * rng.normal(size=(40, 8))
    >>> is_same = np.arange(40) % 2 == 1
    >>> right = np.where(is_same[:, None], centres, np.roll(centres, 1, axis=0))
    >>> result = verify(left, right, is_same, fold=np.arange(40) // 20)
    >>> print(f"{result.accuracy:.3f}+-{result.accuracy_std:.3f}, AUC {result.auc:.3f}")
    0.975+-0.025, AUC 1.000
    """
    left, right, same, fold_ids, n_folds = _checked_pairs(left, right, is_same, fold)
    check_metric(metric)
    if not 0 < far_target <= 1:
        raise UserError(f"far_target must be above 0 and at most 1; got {far_target}")
    _warn_of_one_kind_folds(same, fold_ids, n_folds)

    of_folds = _distances_by_tested_fold(left, right, fold_ids, n_folds, metric, subtract_mean)
    largest = max(float(one.max()) for one in of_folds)
    accuracy_grid = threshold_grid(_ACCURACY_STEP, largest)
    val_grid = threshold_grid(_VAL_STEP, largest)

    accuracies, thresholds, tprs, fprs, vals, fars = [], [], [], [], [], []
    for tested in range(n_folds):
        if tested == 0 or subtract_mean:  # otherwise every fold sees the same distances and the same counts
            coarse = _Counts.of(of_folds[tested], same, fold_ids, n_folds, accuracy_grid)
            fine = _Counts.of(of_folds[tested], same, fold_ids, n_folds, val_grid)
        best = int(np.argmax(coarse.right_answers_of_others(tested)))
        thresholds.append(accuracy_grid[best])
        accuracies.append(coarse.accuracy(tested)[best])
        tprs.append(coarse.tpr(tested))
        fprs.append(coarse.fpr(tested))
        far_threshold = _threshold_at_far(fine.fpr_of_others(tested), val_grid, far_target)
        accepted = of_folds[tested] < far_threshold
        vals.append(_share(accepted, same & (fold_ids == tested)) if np.isfinite(far_threshold) else np.nan)
        fars.append(_share(accepted, ~same & (fold_ids == tested)) if np.isfinite(far_threshold) else np.nan)

    tpr, fpr = _mean_of_defined(tprs), _mean_of_defined(fprs)
    defined_vals = np.array([value for value in vals if np.isfinite(value)])
    return Verification(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        val=float(_mean_of_defined(vals)),
        val_std=float(np.std(defined_vals)) if len(defined_vals) else float("nan"),
        far=float(_mean_of_defined(fars)),
        auc=area_under_curve(fpr, tpr),
        eer=equal_error_rate(fpr, tpr),
        tpr=tpr,
        fpr=fpr,
        thresholds=accuracy_grid,
        threshold=float(np.mean(thresholds)),
        far_target=far_target,
        distances=np.stack(of_folds)[fold_ids, np.arange(len(same))],
        is_same=same,
    )


@dataclass(frozen=True)
class _Counts:
    """Accepted pairs by fold and threshold, and how many pairs of each kind every fold holds."""

    true_accepts: NDArray[np.int64]
    false_accepts: NDArray[np.int64]
    n_same: NDArray[np.int64]
    n_different: NDArray[np.int64]

    @classmethod
    def of(
        cls, pair_distances: Floats, same: Bools, fold: NDArray[np.int32], n_folds: int, grid: Floats
    ) -> _Counts:
        true_accepts, false_accepts = count_accepts(
            np.ascontiguousarray(pair_distances), same.astype(np.uint8), fold, n_folds, grid
        )
        return cls(
            true_accepts,
            false_accepts,
            np.bincount(fold[same], minlength=n_folds),
            np.bincount(fold[~same], minlength=n_folds),
        )

    def right_answers_of_others(self, fold: int) -> NDArray[np.int64]:
        others = np.arange(len(self.n_same)) != fold
        n_different = self.n_different[others].sum()
        gained = self.true_accepts[others] - self.false_accepts[others]
        right: NDArray[np.int64] = n_different + gained.sum(axis=0)
        return right

    def fpr_of_others(self, fold: int) -> Floats:
        others = np.arange(len(self.n_same)) != fold
        return _rate(self.false_accepts[others].sum(axis=0), self.n_different[others].sum())

    def accuracy(self, fold: int) -> Floats:
        right = self.true_accepts[fold] + self.n_different[fold] - self.false_accepts[fold]
        return _rate(right, self.n_same[fold] + self.n_different[fold])

    def tpr(self, fold: int) -> Floats:
        return _rate(self.true_accepts[fold], self.n_same[fold])

    def fpr(self, fold: int) -> Floats:
        return _rate(self.false_accepts[fold], self.n_different[fold])


def _rate(counts: NDArray[np.int64], n: np.int64) -> Floats:
    if n == 0:
        return np.full(counts.shape, np.nan)
    rates: Floats = counts / float(n)
    return rates


def _share(accepted: Bools, among: Bools) -> float:
    n = int(np.count_nonzero(among))
    return float(np.count_nonzero(accepted & among) / n) if n else float("nan")


def _mean_of_defined(rows: list[Any]) -> Floats:
    """Average folds, without those that have no value: NaN as a number, or all along a curve."""
    stacked = np.asarray(rows, dtype=np.float64)
    defined = np.isfinite(stacked) if stacked.ndim == 1 else np.isfinite(stacked).all(axis=1)
    if not defined.any():
        return np.full(stacked.shape[1:], np.nan)
    means: Floats = np.mean(stacked[defined], axis=0)
    return means


def _threshold_at_far(far: Floats, thresholds: Floats, far_target: float) -> float:
    """Interpolate the threshold at `far_target` on an ascending curve; 0 accepts nothing, if out of reach."""
    if np.isnan(far[0]):
        return float("nan")
    if far[-1] < far_target:
        return 0.0
    last_of_ties = np.append(far[1:] != far[:-1], True)
    return float(np.interp(far_target, far[last_of_ties], thresholds[last_of_ties]))


def _distances_by_tested_fold(
    left: Floats, right: Floats, fold: NDArray[np.int32], n_folds: int, metric: int, subtract_mean: bool
) -> list[Floats]:
    if not subtract_mean:
        return [distances(left, right, metric)] * n_folds
    measured = []
    for tested in range(n_folds):
        others = fold != tested
        mean = np.mean(np.concatenate([left[others], right[others]]), axis=0)
        # A few pairs at a time: what is made of them stays in the cache, four times as fast as all at once.
        blocks = [slice(start, start + _PAIRS_AT_A_TIME) for start in range(0, len(left), _PAIRS_AT_A_TIME)]
        parts = [distances(left[block] - mean, right[block] - mean, metric) for block in blocks]
        measured.append(np.concatenate(parts))
    return measured


def _checked_pairs(
    left: ArrayLike, right: ArrayLike, is_same: ArrayLike, fold: ArrayLike
) -> tuple[Floats, Floats, Bools, NDArray[np.int32], int]:
    left = _checked_embeddings(left, "left")
    right = _checked_embeddings(right, "right")
    if left.shape != right.shape:
        raise UserError(f"left and right must have one shape; got {left.shape} and {right.shape}")
    same = np.asarray(is_same)
    folds = np.asarray(fold)
    for name, values in (("is_same", same), ("fold", folds)):
        if values.shape != (len(left),):
            raise UserError(f"{name} must have one entry a pair, ({len(left)},); got shape {values.shape}")
    if not (same.dtype == bool or np.isin(same, (0, 1)).all()):
        raise UserError("is_same must hold only True and False; got other values")
    same = same.astype(bool)
    check_both_kinds(same)
    names, compact = np.unique(folds, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"verification needs at least 2 folds; got {len(names)}")
    return left, right, same, compact.astype(np.int32), len(names)


def _checked_embeddings(embeddings: ArrayLike, name: str) -> Floats:
    try:
        checked = np.asarray(embeddings, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be an array of numbers (n_pairs, D)") from None
    if checked.ndim != 2:
        raise UserError(f"{name} must have the shape (n_pairs, D); got {checked.shape}")
    bad = np.flatnonzero(~np.isfinite(checked).all(axis=1))
    if len(bad):
        raise UserError(
            f"embeddings must be finite; {name} holds NaN or infinity in {len(bad)} of {len(checked)} rows, "
            f"first in row {bad[0]}"
        )
    return checked


def check_metric(metric: int) -> None:
    if metric not in METRICS:
        choices = ", ".join(f"{number} ({what})" for number, what in METRICS.items())
        raise UserError(f"distance metric must be one of {choices}; got {metric}")


def _warn_of_one_kind_folds(same: Bools, fold: NDArray[np.int32], n_folds: int) -> None:
    n_same = np.bincount(fold[same], minlength=n_folds)
    n_different = np.bincount(fold[~same], minlength=n_folds)
    one_kind = int(np.count_nonzero((n_same == 0) | (n_different == 0)))
    if one_kind:
        _logger.warning(
            "%d of %d folds hold pairs of one kind only; they are left out of the rates they cannot give",
            one_kind,
            n_folds,
        )
