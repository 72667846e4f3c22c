from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from facenet_fast._verification import count_accepts
from facenet_fast.errors import UserError
from facenet_fast.evaluation.verification import (
    distances,
    threshold_grid,
    verify,
)
from tests.evaluation.literal import literal_distance, literal_verification


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_pairs(n_pairs=240, n_folds=4, size=8, noise=0.6, seed=0, dtype=np.float64):
    """Pairs of noisy unit vectors, every fold with about as many same as different ones."""
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(n_pairs, size)) + 0.3
    is_same = rng.permuted(np.arange(n_pairs) % 2 == 0)
    right = np.where(
        is_same[:, None], left + noise * rng.normal(size=left.shape), rng.normal(size=left.shape)
    )
    fold = np.arange(n_pairs) * n_folds // n_pairs
    return unit_rows(left).astype(dtype), unit_rows(right).astype(dtype), is_same, fold


FIELDS = ("accuracy", "accuracy_std", "val", "val_std", "far")


@pytest.mark.parametrize("metric", [0, 1])
@pytest.mark.parametrize("subtract_mean", [False, True])
@pytest.mark.parametrize(
    ("seed", "noise", "dtype"), [(0, 0.6, np.float64), (1, 1.2, np.float32), (2, 0.1, np.float64)]
)
def test_verify_equals_the_literal_protocol(metric, subtract_mean, seed, noise, dtype):
    pairs = make_pairs(seed=seed, noise=noise, dtype=dtype)
    result = verify(*pairs, metric=metric, subtract_mean=subtract_mean)
    wanted = literal_verification(*pairs, metric, subtract_mean)
    for name in FIELDS:
        assert getattr(result, name) == pytest.approx(getattr(wanted, name), abs=1e-15), name
    np.testing.assert_allclose(result.tpr, wanted.tpr, rtol=0, atol=1e-15)
    np.testing.assert_allclose(result.fpr, wanted.fpr, rtol=0, atol=1e-15)
    assert result.auc == pytest.approx(wanted.auc, abs=1e-12)
    assert result.eer == pytest.approx(wanted.eer, abs=1e-9)


@pytest.mark.parametrize("far_target", [0.01, 0.3, 1.0])
def test_verify_equals_the_literal_protocol_at_other_far_targets(far_target):
    pairs = make_pairs(seed=3, noise=1.0)
    result = verify(*pairs, far_target=far_target)
    wanted = literal_verification(*pairs, 0, False, far_target=far_target)
    assert (result.val, result.val_std, result.far) == (wanted.val, wanted.val_std, wanted.far)


def test_folds_of_any_size_and_number_equal_the_literal_protocol():
    left, right, is_same, _ = make_pairs(seed=4)
    fold = np.sort(np.random.default_rng(0).integers(0, 3, len(is_same))) * 7 + 2
    result = verify(left, right, is_same, fold)
    wanted = literal_verification(left, right, is_same, fold, 0, False)
    assert [getattr(result, name) for name in FIELDS] == [getattr(wanted, name) for name in FIELDS]


def test_concatenated_embeddings_beyond_a_distance_of_four():
    left, right, is_same, fold = make_pairs(seed=5, noise=1.0)
    left, right = np.hstack([left, left]), np.hstack([right, right])
    largest = distances(left, right).max()
    assert 4 < largest < 8
    result = verify(left, right, is_same, fold)
    wanted = literal_verification(left, right, is_same, fold, 0, False, grid_end=8.0)
    assert [getattr(result, name) for name in FIELDS] == [getattr(wanted, name) for name in FIELDS]
    assert result.fpr[-1] == result.tpr[-1] == 1.0
    assert result.eer == pytest.approx(wanted.eer, abs=1e-9)
    assert result.auc == pytest.approx(wanted.auc, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 0.05, 30.0, 1e4])
def test_auc_does_not_depend_on_the_scale_of_the_embeddings(scale):
    left, right, is_same, fold = make_pairs(seed=6, noise=1.0)
    exact = roc_auc_score(is_same, -distances(left, right))
    result = verify(scale * left, scale * right, is_same, fold)
    assert result.auc == pytest.approx(exact, abs=0.01)
    assert len(result.thresholds) <= 4004


def test_thresholds_are_strict():
    # Distances of exactly 0.25 = 25 x 0.01: not accepted at 0.25.
    left = np.zeros((8, 1))
    right = np.array([0.5, 0.5, 1.0, 1.0] * 2)[:, None]
    is_same = np.array([True, True, False, False] * 2)
    result = verify(left, right, is_same, np.repeat([0, 1], 4))
    at = int(np.flatnonzero(result.thresholds == 0.25)[0])
    assert result.tpr[at] == 0.0
    assert result.tpr[at + 1] == 1.0
    assert result.threshold == result.thresholds[at + 1]
    assert (result.accuracy, result.accuracy_std, result.auc, result.eer) == (1.0, 0.0, 1.0, 0.0)


def test_distances_equal_their_definition():
    left, right, *_ = make_pairs(n_pairs=20)
    for metric in (0, 1):
        wanted = [literal_distance(a, b, metric) for a, b in zip(left, right, strict=True)]
        np.testing.assert_allclose(distances(left, right, metric), wanted, rtol=1e-12)


def test_equal_embeddings_have_angle_zero_not_nan():
    rows = unit_rows(np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32))
    assert distances(rows, rows, metric=1).max() < 1e-7
    np.testing.assert_allclose(distances(rows, -rows, metric=1), 1.0, atol=1e-7)


def test_zero_vector_has_no_direction():
    assert distances(np.zeros((1, 3)), np.ones((1, 3)), metric=1) == [0.5]


def test_verification_keeps_each_pairs_distance_of_its_own_test():
    left, right, is_same, fold = make_pairs()
    plain = verify(left, right, is_same, fold)
    np.testing.assert_array_equal(plain.distances, distances(left, right))
    centred = verify(left, right, is_same, fold, metric=1, subtract_mean=True)
    others = fold != 2
    mean = np.concatenate([left[others], right[others]]).mean(axis=0)
    np.testing.assert_allclose(
        centred.distances[fold == 2], distances(left - mean, right - mean, 1)[fold == 2], rtol=1e-12
    )


def test_grid_is_the_predecessors_where_distances_lie_within_it():
    np.testing.assert_array_equal(threshold_grid(0.01, 2.0), np.arange(0, 4, 0.01))
    np.testing.assert_array_equal(threshold_grid(0.001, 3.9), np.arange(0, 4, 0.001))
    np.testing.assert_array_equal(threshold_grid(0.01, 0.0), np.arange(0, 4, 0.01))


@pytest.mark.parametrize("largest", [1e-9, 0.1, 0.399, 3.989, 3.99, 3.9999, 4.0, 7.3, 39.9, 41.0, 1e6])
@pytest.mark.parametrize("step", [0.01, 0.001])
def test_last_threshold_accepts_every_distance(step, largest):
    grid = threshold_grid(step, largest)
    assert grid[0] == 0.0
    assert grid[-1] > largest
    assert 40 * 0.01 / step <= len(grid) <= 4004 * 0.01 / step
    if 0.4 <= largest <= 40:
        common = min(len(grid), round(4 / step))
        np.testing.assert_array_equal(grid[:common], np.arange(0, 4, step)[:common])


def test_collapsed_embeddings_are_told_apart_by_chance_only():
    _, _, is_same, fold = make_pairs()
    same_row = np.ones((len(is_same), 4)) / 2
    result = verify(same_row, same_row, is_same, fold)
    assert (result.auc, result.eer) == (0.5, 0.5)


def test_fold_of_one_kind_is_left_out_with_a_warning(caplog):
    left, right, is_same, _ = make_pairs(seed=7, noise=1.0)
    order = np.argsort(~is_same, kind="stable")  # same pairs first
    left, right, is_same = left[order], right[order], is_same[order]
    fold = np.arange(len(is_same)) * 3 // len(is_same)  # all same, mixed, all different
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        result = verify(left, right, is_same, fold)
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 3 folds hold pairs of one kind only; they are left out of the rates they cannot give"
    ]
    for name in (*FIELDS, "auc", "eer"):
        assert np.isfinite(getattr(result, name)), name
    d = distances(left, right)
    wanted_tpr = [np.mean([np.mean(d[is_same & (fold == k)] < t) for k in (0, 1)]) for t in result.thresholds]
    np.testing.assert_allclose(result.tpr, wanted_tpr, atol=1e-15)
    assert result.tpr[-1] == result.fpr[-1] == 1.0


def test_rate_that_no_fold_can_give_is_nan(caplog):
    left, right, is_same, _ = make_pairs()
    result = verify(left, right, is_same, is_same.astype(int))
    # The fold of different pairs, which alone has a FAR, is set up on same pairs, which have none.
    assert np.isnan(result.far)
    assert 0 < result.val < 1
    assert 0.5 < result.auc < 1
    assert "one kind only" in caplog.text


def bad_call(**changes):
    left, right, is_same, fold = make_pairs(n_pairs=20, n_folds=2)
    arguments = {"left": left, "right": right, "is_same": is_same, "fold": fold}
    options = {name: changes.pop(name) for name in ("metric", "far_target") if name in changes}
    for name, change in changes.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    return lambda: verify(*arguments.values(), **options)


def with_nan(rows):
    rows = rows.copy()
    rows[[3, 7], 1] = np.nan, np.inf
    return rows


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            bad_call(left=with_nan),
            r"must be finite; left holds NaN or infinity in 2 of 20 rows, first in row 3$",
        ),
        (bad_call(right=lambda rows: rows[:, :3]), r"must have one shape; got \(20, 8\) and \(20, 3\)"),
        (bad_call(left=lambda rows: rows[0]), r"left must have the shape \(n_pairs, D\); got \(8,\)"),
        (bad_call(left=[["a"]] * 20), r"left must be an array of numbers"),
        (
            bad_call(is_same=lambda same: same[:5]),
            r"is_same must have one entry a pair, \(20,\); got shape \(5,\)",
        ),
        (bad_call(is_same=np.arange(20)), r"is_same must hold only True and False"),
        (
            bad_call(is_same=np.ones(20, bool)),
            r"needs pairs of one identity and pairs of two; got 20 same and 0 diff",
        ),
        (bad_call(fold=np.zeros(20, int)), r"at least 2 folds; got 1"),
        (bad_call(metric=2), r"must be one of 0 \(squared Euclidean distance\), 1 \(.*\); got 2"),
        (bad_call(far_target=0.0), r"far_target must be above 0 and at most 1; got 0.0"),
    ],
)
def test_mistakes_are_told_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_count_accepts_equals_counting():
    rng = np.random.default_rng(0)
    thresholds = np.sort(np.append(rng.integers(0, 40, 60) / 10, [0.5, 0.5]))  # with duplicates
    d = rng.integers(0, 50, 300) / 10  # on thresholds, between and beyond them
    d[:3] = np.nan, np.inf, -1.0
    is_same = (rng.random(300) < 0.5).astype(np.uint8)
    fold = rng.integers(0, 4, 300).astype(np.int32)
    true_accepts, false_accepts = count_accepts(d, is_same, fold, 5, thresholds)
    for k in range(5):
        for t, threshold in enumerate(thresholds):
            accepted = (fold == k) & (d < threshold)
            assert true_accepts[k, t] == np.count_nonzero(accepted & (is_same == 1))
            assert false_accepts[k, t] == np.count_nonzero(accepted & (is_same == 0))


def test_count_accepts_of_nothing():
    none = np.zeros(0)
    for grid in (none, np.array([1.0])):
        counts = count_accepts(none, none.astype(np.uint8), none.astype(np.int32), 2, grid)
        assert [one.tolist() for one in counts] == [[[0] * len(grid)] * 2] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": [0, 2, 1]}, r"fold must lie in 0\.\.1; got 2 for pair 1"),
        ({"fold": [0, -1, 1]}, r"fold must lie in 0\.\.1; got -1 for pair 1"),
        ({"fold": [0, 1]}, r"one length; got 3, 3 and 2"),
        ({"grid": [0.0, 2.0, 1.0]}, r"thresholds must ascend; got 1.0 after 2.0"),
        ({"grid": [0.0, np.nan]}, r"thresholds must ascend"),
    ],
)
def test_count_accepts_refuses_what_would_corrupt_memory(changes, message):
    fold = np.array(changes.get("fold", [0, 0, 1]), dtype=np.int32)
    grid = np.array(changes.get("grid", [0.0, 1.0]))
    with pytest.raises(ValueError, match=message):
        count_accepts(np.ones(3), np.ones(3, np.uint8), fold, 2, grid)


def test_verification_imports_no_tensorflow():
    code = "import sys, facenet_fast.evaluation.verification; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
