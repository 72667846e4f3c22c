# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, autotestdict=False
"""The sweep under face verification: how many pairs each threshold accepts, fold by fold."""

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t


cdef Py_ssize_t first_accepting(double distance, const double* thresholds, Py_ssize_t n_thresholds) noexcept nogil:
    # The comparison is spelled `distance < threshold` so that a NaN distance is accepted by no threshold.
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = n_thresholds
    cdef Py_ssize_t middle
    while low < high:
        middle = low + (high - low) // 2
        if distance < thresholds[middle]:
            high = middle
        else:
            low = middle + 1
    return low


def count_accepts(
    const double[::1] distances not None,
    const uint8_t[::1] is_same not None,
    const int32_t[::1] fold not None,
    Py_ssize_t n_folds,
    const double[::1] thresholds not None,
):
    """Count the pairs with ``distance < threshold``, for every fold and threshold.

    Each pair is placed once, by binary search, at the first threshold that accepts it; running sums over
    the thresholds do the rest: O(pairs log(thresholds) + folds x thresholds) instead of pairs x thresholds.

    Parameters
    ----------
    distances : float64 (n_pairs,)
        One distance a pair. A NaN is accepted by no threshold.
    is_same : uint8 (n_pairs,)
        Nonzero where both images show one identity.
    fold : int32 (n_pairs,)
        The fold of each pair, 0 to `n_folds` - 1.
    n_folds : int
        Number of folds.
    thresholds : float64 (n_thresholds,)
        In ascending order.

    Returns
    -------
    true_accepts, false_accepts : int64 (n_folds, n_thresholds)
        Accepted pairs of one identity, and of two.

    Raises
    ------
    ValueError
        If lengths differ, a fold is out of range, or the thresholds do not ascend.
    """
    cdef Py_ssize_t n_pairs = distances.shape[0]
    cdef Py_ssize_t n_thresholds = thresholds.shape[0]
    cdef Py_ssize_t pair, place, row
    if is_same.shape[0] != n_pairs or fold.shape[0] != n_pairs:
        raise ValueError(
            "distances, is_same and fold must have one length; "
            f"got {n_pairs}, {is_same.shape[0]} and {fold.shape[0]}"
        )
    if n_folds < 0:
        raise ValueError(f"n_folds must not be negative; got {n_folds}")
    for pair in range(n_pairs):
        if fold[pair] < 0 or fold[pair] >= n_folds:
            raise ValueError(f"fold must lie in 0..{n_folds - 1}; got {fold[pair]} for pair {pair}")
    for place in range(1, n_thresholds):
        if not thresholds[place - 1] <= thresholds[place]:
            raise ValueError(f"thresholds must ascend; got {thresholds[place]} after {thresholds[place - 1]}")

    true_accepts = np.zeros((n_folds, n_thresholds), dtype=np.int64)
    false_accepts = np.zeros((n_folds, n_thresholds), dtype=np.int64)
    cdef int64_t[:, ::1] true_view = true_accepts
    cdef int64_t[:, ::1] false_view = false_accepts
    if n_thresholds == 0:
        return true_accepts, false_accepts
    with nogil:
        for pair in range(n_pairs):
            place = first_accepting(distances[pair], &thresholds[0], n_thresholds)
            if place < n_thresholds:
                if is_same[pair]:
                    true_view[fold[pair], place] += 1
                else:
                    false_view[fold[pair], place] += 1
        for row in range(n_folds):
            for place in range(1, n_thresholds):
                true_view[row, place] += true_view[row, place - 1]
                false_view[row, place] += false_view[row, place - 1]
    return true_accepts, false_accepts
