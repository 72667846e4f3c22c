"""Every image against every other: the ROC by the native histogram of pairs, and what is judged wrongly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facenet_fast.errors import UserError
from facenet_fast.evaluation.mistakes import IdentityErrors
from facenet_fast.evaluation.roc import ROC
from facenet_fast.evaluation.verification import EUCLIDEAN, check_metric
from facenet_fast.mining import pair_histogram

__all__ = ["AllPairs", "AllPairsMistakes", "all_pairs_mistakes", "compare_all_pairs"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# Rows that are compared with all others at a time, in float64: 27 MB of distances to 13,000 images.
_ROWS_AT_A_TIME = 256


@dataclass(frozen=True, eq=False)
class AllPairs:
    """All pairs of images by distance.

    Attributes
    ----------
    roc : ROC
        With an entry for each bin that holds pairs.
    edges : float64 (n_bins + 1,)
        Distances between which the bins lie, ascending.
    n_same, n_different : int64 (n_bins,)
        Pairs of one identity and of two in each.
    """

    roc: ROC
    edges: Floats
    n_same: Indices
    n_different: Indices


@dataclass(frozen=True, eq=False)
class AllPairsMistakes:
    """What a threshold judges wrongly, of all pairs of images.

    Attributes
    ----------
    false_accepts, false_rejects : int64 (n or fewer, 2)
        Rows of the two images: the nearest different pairs below the threshold, nearest first, and the
        farthest same ones from it on, farthest first.
    n_false_accepts, n_false_rejects : int
        How many there are in all.
    identity_errors : list of IdentityErrors
        One for every identity, as `facenet_fast.evaluation.mistakes.identity_errors` gives them.
    """

    false_accepts: Indices
    false_rejects: Indices
    n_false_accepts: int
    n_false_rejects: int
    identity_errors: list[IdentityErrors]


def compare_all_pairs(
    embeddings: ArrayLike, labels: ArrayLike, *, metric: int = EUCLIDEAN, threads: int | None = None
) -> AllPairs:
    """Measure all ``n (n - 1) / 2`` pairs of images.

    No pair is stored: 13,000 images of 512 numbers, 84 million pairs, take about as long as their matrix
    product. For the ROC each pair counts in the middle of its bin, of 65,536; `ROC.threshold_error` bounds
    how far that is from its distance, float32's error included. A rate that is read off at a threshold lies
    between those that float64 gives for thresholds lower and higher by that much.

    Parameters
    ----------
    embeddings : array_like (n, D)
        float32 or float64.
    labels : array_like (n,)
        The identity of each.
    metric : {0, 1}
        As of `facenet_fast.evaluation.verification.distances`.
    threads : int, optional
        Default: as many as OpenMP would use.

    Returns
    -------
    AllPairs

    Raises
    ------
    UserError
        If an embedding is not finite (or zero, where angles are asked for), or there are no two images of one
        identity or of two.

    Examples
    --------
    >>> embeddings = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> roc = compare_all_pairs(embeddings, ["ann", "ann", "bob", "bob"]).roc
    >>> roc.n_same, roc.n_different, roc.auc
    (2, 4, 1.0)
    """
    check_metric(metric)
    try:
        found = pair_histogram(
            embeddings,
            labels,
            distance="squared_euclidean" if metric == EUCLIDEAN else "cosine",
            threads=threads,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    half_width = (found.edges[1] - found.edges[0]) / 2
    centres = found.edges[:-1] + half_width
    reach = found.error + half_width
    scale = _angle if metric != EUCLIDEAN else np.asarray
    occurs = (found.n_same + found.n_different) > 0
    true_accepts, false_accepts = np.cumsum(found.n_same), np.cumsum(found.n_different)
    n_same, n_different = int(true_accepts[-1]), int(false_accepts[-1])
    if n_same == 0 or n_different == 0:
        raise UserError(
            "verification needs pairs of one identity and pairs of two; "
            f"the images make {n_same} and {n_different}"
        )
    measured = centres[occurs]
    farther, nearer = scale(measured + reach) - scale(measured), scale(measured) - scale(measured - reach)
    roc = ROC(
        fpr=np.append(0.0, false_accepts[occurs] / n_different),
        tpr=np.append(0.0, true_accepts[occurs] / n_same),
        thresholds=np.append(-np.inf, scale(measured)),
        n_same=n_same,
        n_different=n_different,
        threshold_error=float(np.max(np.maximum(farther, nearer))),
    )
    return AllPairs(roc, scale(found.edges), found.n_same, found.n_different)


def all_pairs_mistakes(
    embeddings: ArrayLike, labels: ArrayLike, threshold: float, *, metric: int = EUCLIDEAN, n: int = 24
) -> AllPairsMistakes:
    """Find what a threshold judges wrongly, of all pairs: the worst, and how many of each identity.

    Every image is compared with every other by matrix products in float64, a few rows at a time.

    Parameters
    ----------
    embeddings, labels, metric
        As of `compare_all_pairs`.
    threshold : float
        Pairs with ``d < threshold`` are accepted.
    n : int
        Pairs of each kind to return, at most.

    Returns
    -------
    AllPairsMistakes

    Examples
    --------
    >>> embeddings = np.array([[0.0], [0.3], [0.2], [1.1]])
    >>> found = all_pairs_mistakes(embeddings, ["ann", "ann", "bob", "bob"], threshold=0.1)
    >>> found.false_accepts.tolist(), found.false_rejects.tolist()
    ([[1, 2], [0, 2]], [[2, 3]])
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    if metric == EUCLIDEAN:
        limit = threshold
    else:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        limit = 2.0 - 2.0 * np.cos(np.pi * threshold)
    rows = rows - rows.mean(axis=0)  # no distance changes, and products lose fewer digits
    squared_norms = np.einsum("ij,ij->i", rows, rows)
    accepts, rejects = _Worst(n), _Worst(n)
    by_row = np.zeros((2, len(rows)), dtype=np.int64)
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        block = slice(start, min(start + _ROWS_AT_A_TIME, len(rows)))
        squared = squared_norms[block, None] + squared_norms - 2.0 * (rows[block] @ rows.T)
        same = codes[block, None] == codes
        accepted = squared < limit
        wrong = (accepted & ~same, ~accepted & same)
        own = np.arange(block.start, block.stop)
        wrong[1][own - start, own] = False
        for kind, (pairs, worst, sign) in enumerate(zip(wrong, (accepts, rejects), (1.0, -1.0), strict=True)):
            by_row[kind, block] = np.count_nonzero(pairs, axis=1)
            left, right = np.nonzero(np.triu(pairs, start + 1))
            worst.add(sign * squared[left, right], left + start, right)
    n_of = np.bincount(codes)
    n_wrong = [np.bincount(codes, of_kind).astype(np.int64) for of_kind in by_row]
    errors = [
        IdentityErrors(
            name=str(name),
            n_same=int(n_of[i] * (n_of[i] - 1) // 2),
            n_false_rejects=int(n_wrong[1][i] // 2),
            n_different=int(n_of[i] * (len(rows) - n_of[i])),
            n_false_accepts=int(n_wrong[0][i]),
        )
        for i, name in enumerate(names)
    ]
    return AllPairsMistakes(
        accepts.pairs,
        rejects.pairs,
        int(by_row[0].sum() // 2),
        int(by_row[1].sum() // 2),
        sorted(errors, key=lambda one: (-one.n_errors, one.name)),
    )


class _Worst:
    """The n pairs of smallest key, in order of key and then of rows."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._keys: Floats = np.empty(0)
        self.pairs: Indices = np.empty((0, 2), dtype=np.int64)

    def add(self, keys: Floats, left: Indices, right: Indices) -> None:
        keys = np.concatenate([self._keys, keys])
        pairs = np.concatenate([self.pairs, np.stack([left, right], axis=1)])
        order = np.lexsort((pairs[:, 1], pairs[:, 0], keys))[: self._n]
        self._keys, self.pairs = keys[order], pairs[order]


def _angle(cosine_distance: Floats) -> Floats:
    angles: Floats = np.arccos(np.clip(1.0 - cosine_distance, -1.0, 1.0)) / np.pi
    return angles
