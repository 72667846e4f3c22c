"""`pair_histogram`: at which distance how many pairs lie, of all there are, without a list of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .batch import check_embeddings, embeddings_as, group, raise_bad_row
from .checks import check_integer, check_threads, check_word
from .devices import load_core
from .miner import workspace

__all__ = ["PairHistogram", "pair_histogram"]

_DISTANCES = ("squared_euclidean", "cosine")
_MOST_BINS = 2**16


@dataclass(frozen=True, eq=False)
class PairHistogram:
    """Numbers of pairs by distance.

    Attributes
    ----------
    edges : float64 array, shape (n_bins + 1,)
        Bin i is ``edges[i] <= d < edges[i + 1]``; all are of one width, and no pair is beyond the last edge.
    n_same, n_different : int64 array, shape (n_bins,)
        Pairs of one identity in each bin, and pairs of two.
    error : float
        A pair is counted at a distance that is no farther than this from its own.
    """

    edges: npt.NDArray[np.float64]
    n_same: npt.NDArray[np.int64]
    n_different: npt.NDArray[np.int64]
    error: float


def pair_histogram(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    n_bins: int = _MOST_BINS,
    distance: Literal["squared_euclidean", "cosine"] = "squared_euclidean",
    threads: int | None = None,
) -> PairHistogram:
    """Count all pairs of a batch by their distance.

    Each of the ``n (n - 1) / 2`` pairs is in one bin. Distances are made in tiles, in float32, and forgotten:
    memory is that of the rows, twice, and of the histogram. Numbers do not depend on that of the threads; on
    another instruction set pairs may be counted elsewhere, within `PairHistogram.error`. Bins reach as far as
    twice the largest distance from the embeddings' mean, squared: where embeddings are all alike, bins are as
    much finer.

    Parameters
    ----------
    embeddings : array_like, shape (n_images, embedding_size)
        float32 or float64.
    labels : array_like, shape (n_images,)
        The identity of each row; any sortable type, in any order.
    n_bins : int, default 65536
        1 to 65536.
    distance : {"squared_euclidean", "cosine"}, default "squared_euclidean"
        ``"cosine"`` is ``1 - cos``.
    threads : int, optional
        Default: as many as OpenMP would use.

    Returns
    -------
    PairHistogram

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If shapes do not fit, a row is not finite (or, for ``"cosine"``, zero), or ``n_bins`` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from facenet_fast import pair_histogram
    >>> embeddings = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    >>> found = pair_histogram(embeddings, ["ann", "ann", "bob"], n_bins=4)
    >>> found.n_same.tolist(), found.n_different.tolist()
    ([1, 0, 0, 0], [0, 1, 0, 1])
    """
    check_word("distance", distance, _DISTANCES)
    rows = check_embeddings(embeddings)
    n_bins = check_integer("n_bins", n_bins, 1, _MOST_BINS)
    n_threads = check_threads(threads)
    order, offsets = group(labels, len(rows))
    parts = (("embeddings", len(rows)),)
    rows = embeddings_as(distance, rows, parts)
    same, different, width, error, bad_row = load_core().histogram(
        workspace(), rows, order, offsets, n_bins, n_threads
    )
    raise_bad_row(rows, bad_row, parts)
    return PairHistogram(np.arange(n_bins + 1) * width, same, different, error)
