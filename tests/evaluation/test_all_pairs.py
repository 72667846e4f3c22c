from __future__ import annotations

import numpy as np
import pytest

from facenet_fast.errors import UserError
from facenet_fast.evaluation.all_pairs import all_pairs_mistakes, compare_all_pairs
from facenet_fast.evaluation.mistakes import identity_errors, worst_pairs
from facenet_fast.evaluation.roc import exact_roc
from facenet_fast.evaluation.verification import distances


def people(n_identities=40, n_images=300, size=16, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_identities, n_images)
    rows = rng.standard_normal((n_identities, size))[labels] + 0.8 * rng.standard_normal((n_images, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype), labels


def listed(rows, labels, metric):
    left, right = np.triu_indices(len(rows), 1)
    return left, right, distances(rows[left], rows[right], metric), labels[left] == labels[right]


@pytest.mark.parametrize("metric", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_measures_lie_between_those_of_shifted_distances(metric, dtype):
    """Nothing is said of a pair's distance that is off by more than the error that is stated."""
    rows, labels = people(dtype=dtype)
    found = compare_all_pairs(rows, labels, metric=metric).roc
    _, _, measured, same = listed(rows, labels, metric)
    assert (found.n_same, found.n_different) == (same.sum(), (~same).sum())
    assert found.threshold_error < 2e-4
    error = found.threshold_error * (1 + 1e-9)
    nearer = exact_roc(np.where(same, measured, measured + 2 * error), same)
    farther = exact_roc(np.where(same, measured + 2 * error, measured), same)
    assert farther.auc - 1e-12 <= found.auc <= nearer.auc + 1e-12
    assert nearer.eer - 1e-12 <= found.eer <= farther.eer + 1e-12
    assert nearer.auc - farther.auc < 1e-3
    for far in (0.1, 0.01, 1e-3):
        point = found.at_far(far)
        assert np.mean(measured[~same] < point.threshold - error) <= point.far
        assert point.far <= np.mean(measured[~same] < point.threshold + error)
        assert np.mean(measured[same] < point.threshold - error) <= point.val
        assert point.val <= np.mean(measured[same] < point.threshold + error)
        assert point.val == pytest.approx(exact_roc(measured, same).at_far(far).val, abs=2e-3)


def test_equal_images_are_at_no_distance():
    """The predecessor's cosine of two equal images is beyond 1, and their angle NaN."""
    rows = np.repeat(people(n_images=6)[0], 2, axis=0)
    for metric in (0, 1):
        counted = compare_all_pairs(rows, np.arange(12) // 2, metric=metric)
        assert counted.n_same[0] == 6
        assert counted.roc.auc == 1.0


def test_distances_beyond_four():
    """Mirrored images' embeddings appended, they reach 8."""
    rows, labels = people(dtype=np.float64)
    twice = np.concatenate([rows, rows[:, ::-1]], axis=1)
    opposite = np.concatenate([twice, -twice])
    counted = compare_all_pairs(opposite, np.tile(labels, 2))
    reached = np.flatnonzero(counted.n_same + counted.n_different)[-1]
    assert counted.edges[reached + 1] == pytest.approx(8.0, abs=1e-3)
    assert counted.roc.fpr[-1] == counted.roc.tpr[-1] == 1.0


@pytest.mark.parametrize(
    ("rows", "labels", "metric", "message"),
    [
        (np.eye(3), [0, 1, 2], 0, "pairs of one identity and pairs of two; the images make 0 and 3"),
        (np.eye(3), [0, 0, 0], 0, "the images make 3 and 0"),
        (np.eye(1), [0], 0, "the images make 0 and 0"),
        ([[1.0], [np.nan], [0.0]], [0, 0, 1], 0, "embeddings must be finite"),
        ([[1.0], [0.0], [0.0]], [0, 0, 1], 1, "not all zeros"),
        (np.eye(3), [0, 0, 1], 2, "distance metric must be one of 0"),
    ],
)
def test_refuses(rows, labels, metric, message):
    with pytest.raises(UserError, match=message):
        compare_all_pairs(rows, labels, metric=metric)


@pytest.mark.parametrize("metric", [0, 1])
@pytest.mark.parametrize("n_images", [1, 2, 255, 256, 257, 530])
def test_mistakes_are_those_of_the_listed_pairs(metric, n_images):
    rows, codes = people(n_images=n_images, dtype=np.float64)
    if metric == 1:
        rows = rows * np.linspace(0.5, 2.0, n_images)[:, None]
    labels = np.array([f"person {code}" for code in codes])
    left, right, measured, same = listed(rows, labels, metric)
    threshold = {0: 1.1, 1: 0.35}[metric]
    found = all_pairs_mistakes(rows, labels, threshold, metric=metric, n=10)
    accepts, rejects = worst_pairs(measured, same, threshold, 10)
    assert found.false_accepts.tolist() == np.stack([left, right], axis=1)[accepts].tolist()
    assert found.false_rejects.tolist() == np.stack([left, right], axis=1)[rejects].tolist()
    assert found.n_false_accepts == np.count_nonzero((measured < threshold) & ~same)
    assert found.n_false_rejects == np.count_nonzero((measured >= threshold) & same)
    if n_images > 200:
        assert len(accepts) == len(rejects) == 10
        wanted = identity_errors(labels[left], labels[right], measured, same, threshold)
        assert found.identity_errors == wanted
