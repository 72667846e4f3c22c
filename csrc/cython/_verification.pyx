# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, autotestdict=False
"""The sweeps under face verification: pairs accepted by each threshold, and measures of resampled pairs."""

import numpy as np

from libc.math cimport INFINITY, NAN, fmin, nextafter
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


cdef Py_ssize_t n_below(double threshold, const double[::1] ascending) noexcept nogil:
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = ascending.shape[0]
    cdef Py_ssize_t middle
    while low < high:
        middle = low + (high - low) // 2
        if ascending[middle] < threshold:
            low = middle + 1
        else:
            high = middle
    return low


cdef double accuracy_of_folds(
    const double[::1] distances,
    const uint8_t[::1] is_same,
    const int32_t[::1] fold,
    const int64_t[::1] weights,
    const int64_t[::1] fold_weights,
    const Py_ssize_t[::1] last_accepted,
    Py_ssize_t[::1] n_accepted,
    int64_t[::1] right_answers,
) noexcept nogil:
    """Judge each fold below the threshold after `last_accepted`, the best pair to end with for the others."""
    cdef Py_ssize_t n_pairs = distances.shape[0]
    cdef Py_ssize_t row, pair, last, following
    cdef Py_ssize_t n_judged = 0
    cdef int64_t total = 0
    cdef double threshold
    cdef double accuracy = 0.0
    for row in range(fold_weights.shape[0]):
        total += fold_weights[row]
    for row in range(fold_weights.shape[0]):
        right_answers[row] = 0
        n_accepted[row] = 0
        if fold_weights[row] == 0 or fold_weights[row] == total:
            continue
        last = last_accepted[row]
        following = last + 1
        while following < n_pairs and (fold[following] == row or weights[following] == 0):
            following += 1
        if last < 0:
            threshold = fmin(0.0, distances[following])
        elif following == n_pairs:
            threshold = nextafter(distances[last], INFINITY)
        else:
            threshold = distances[last] + (distances[following] - distances[last]) / 2
            if threshold <= distances[last]:
                threshold = distances[following]
        n_accepted[row] = n_below(threshold, distances)
    for pair in range(n_pairs):
        row = fold[pair]
        if (is_same[pair] != 0) == (pair < n_accepted[row]):
            right_answers[row] += weights[pair]
    for row in range(fold_weights.shape[0]):
        if fold_weights[row] != 0 and fold_weights[row] != total:
            accuracy += <double>right_answers[row] / <double>fold_weights[row]
            n_judged += 1
    return accuracy / n_judged if n_judged else NAN


def bootstrap(
    const double[::1] distances not None,
    const uint8_t[::1] is_same not None,
    const int32_t[::1] fold not None,
    Py_ssize_t n_folds,
    const int32_t[::1] left not None,
    const int32_t[::1] right not None,
    const int32_t[:, ::1] counts not None,
    const double[::1] fars not None,
):
    """Measure resamples of pairs: each pair counts as often as what it is made of was drawn.

    A pair whose `left` and `right` are one unit counts ``counts[resample, left]`` times, another one
    ``counts[resample, left] * counts[resample, right]`` times. One sweep over the sorted pairs gives every
    measure of a resample: O(resamples x pairs x folds), without the GIL.

    Parameters
    ----------
    distances : float64 (n_pairs,)
        In ascending order.
    is_same : uint8 (n_pairs,)
        Nonzero where both images show one identity.
    fold : int32 (n_pairs,)
        The fold of each pair, 0 to `n_folds` - 1.
    n_folds : int
        Number of folds; of one, there is no accuracy.
    left, right : int32 (n_pairs,)
        The units of each pair, 0 to n_units - 1.
    counts : int32 (n_resamples, n_units)
        How often each unit is drawn.
    fars : float64 (n_fars,)
        False accept rates at which VAL is given.

    Returns
    -------
    float64 (n_resamples, 3 + n_fars)
        Accuracy, AUC, EER and VALs, as `facenet_fast.evaluation.exact` defines them. Folds that no pair
        counts in, or no pair of the others, are left out of the accuracy; a row is NaN if one kind of pairs
        has no pair that counts.

    Raises
    ------
    ValueError
        If lengths differ, a fold or a unit is out of range, or the distances do not ascend.
    """
    cdef Py_ssize_t n_pairs = distances.shape[0]
    cdef Py_ssize_t n_resamples = counts.shape[0]
    cdef Py_ssize_t n_units = counts.shape[1]
    cdef Py_ssize_t n_fars = fars.shape[0]
    cdef Py_ssize_t resample, pair, row
    if not (is_same.shape[0] == fold.shape[0] == left.shape[0] == right.shape[0] == n_pairs):
        raise ValueError(
            "distances, is_same, fold, left and right must have one length; "
            f"got {n_pairs}, {is_same.shape[0]}, {fold.shape[0]}, {left.shape[0]} and {right.shape[0]}"
        )
    for pair in range(n_pairs):
        if fold[pair] < 0 or fold[pair] >= n_folds:
            raise ValueError(f"fold must lie in 0..{n_folds - 1}; got {fold[pair]} for pair {pair}")
        if left[pair] < 0 or left[pair] >= n_units or right[pair] < 0 or right[pair] >= n_units:
            raise ValueError(
                f"left and right must lie in 0..{n_units - 1}; "
                f"got {left[pair]} and {right[pair]} for pair {pair}"
            )
        if not (distances[pair] >= distances[pair - 1 if pair else 0]):
            raise ValueError(f"distances must ascend; got {distances[pair]} for pair {pair}")

    results = np.full((n_resamples, 3 + n_fars), np.nan)
    cdef double[:, ::1] result = results
    cdef int64_t[::1] weights = np.zeros(n_pairs, dtype=np.int64)
    cdef int64_t[::1] fold_weights = np.zeros(n_folds, dtype=np.int64)
    cdef int64_t[::1] right_answers = np.zeros(n_folds, dtype=np.int64)
    # True minus false accepts: those of a fold, and the most that its other folds have had.
    cdef int64_t[::1] gained = np.zeros(n_folds, dtype=np.int64)
    cdef int64_t[::1] most_gained = np.zeros(n_folds, dtype=np.int64)
    cdef Py_ssize_t[::1] last_accepted = np.zeros(n_folds, dtype=np.intp)
    cdef Py_ssize_t[::1] n_accepted = np.zeros(n_folds, dtype=np.intp)
    cdef int64_t weight, n_same, n_different, true_accepts, false_accepts, true_before, false_before, area
    cdef double fpr, tpr, fpr_before, reached, reached_before
    with nogil:
        for resample in range(n_resamples):
            n_same = n_different = 0
            for row in range(n_folds):
                fold_weights[row] = gained[row] = most_gained[row] = 0
                last_accepted[row] = -1
            for pair in range(n_pairs):
                weight = counts[resample, left[pair]]
                if left[pair] != right[pair]:
                    weight *= counts[resample, right[pair]]
                weights[pair] = weight
                fold_weights[fold[pair]] += weight
                if is_same[pair]:
                    n_same += weight
                else:
                    n_different += weight
            if n_same == 0 or n_different == 0:
                continue

            for row in range(n_fars):
                result[resample, 3 + row] = 0.0
            true_accepts = false_accepts = area = 0
            fpr_before = reached_before = 0.0
            pair = 0
            while pair < n_pairs:
                true_before = true_accepts
                false_before = false_accepts
                while True:  # equal distances are accepted together
                    weight = weights[pair]
                    if is_same[pair]:
                        true_accepts += weight
                        gained[fold[pair]] += weight
                    else:
                        false_accepts += weight
                        gained[fold[pair]] -= weight
                    pair += 1
                    if pair == n_pairs or distances[pair] != distances[pair - 1]:
                        break
                if true_accepts == true_before and false_accepts == false_before:
                    continue
                area += (false_accepts - false_before) * (true_accepts + true_before)
                fpr = <double>false_accepts / <double>n_different
                tpr = <double>true_accepts / <double>n_same
                reached = fpr + tpr
                if reached_before < 1.0 <= reached:
                    result[resample, 2] = fpr_before + (1.0 - reached_before) / (reached - reached_before) * (
                        fpr - fpr_before
                    )
                fpr_before = fpr
                reached_before = reached
                for row in range(n_fars):
                    if fpr <= fars[row]:
                        result[resample, 3 + row] = tpr
                for row in range(n_folds):
                    weight = true_accepts - false_accepts - gained[row]
                    if weight > most_gained[row]:
                        most_gained[row] = weight
                        last_accepted[row] = pair - 1
            result[resample, 0] = accuracy_of_folds(
                distances, is_same, fold, weights, fold_weights, last_accepted, n_accepted, right_answers
            )
            result[resample, 1] = <double>area / (2.0 * <double>n_same * <double>n_different)
    return results
