from __future__ import annotations

import numpy as np
import pytest

from facenet_fast import pair_histogram


def clustered(n_identities, n_images, size, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_identities), n_images))
    rows = rng.standard_normal((n_identities, size))[labels] + rng.standard_normal((len(labels), size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype), labels


def sorted_distances(rows, labels, distance):
    """Every pair's distance by a loop, of one identity and of two."""
    rows, same, different = rows.astype(np.float64), [], []
    for i in range(len(rows)):
        for j in range(i):
            if distance == "cosine":
                d = 1 - rows[i] @ rows[j] / (np.linalg.norm(rows[i]) * np.linalg.norm(rows[j]))
            else:
                d = np.sum((rows[i] - rows[j]) ** 2)
            (same if labels[i] == labels[j] else different).append(d)
    return np.sort(same), np.sort(different)


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n_bins", "threads"), [(1, 1), (10, 2), (65536, 1), (65536, 3)])
def test_no_pair_is_farther_from_its_bin_than_is_said(distance, dtype, n_bins, threads):
    rows, labels = clustered(25, 6, 20, dtype=dtype)
    rows = rows * np.linspace(0.5, 2.0, len(rows), dtype=dtype)[:, None]
    found = pair_histogram(rows, labels, n_bins=n_bins, distance=distance, threads=threads)
    assert found.edges[0] == 0.0
    assert len(found.edges) == n_bins + 1
    assert found.error < 1e-5 * found.edges[-1]
    for counts, distances in zip(
        (found.n_same, found.n_different), sorted_distances(rows, labels, distance), strict=True
    ):
        assert counts.sum() == len(distances)
        before = np.cumsum(counts)
        error = found.error + 1e-12
        assert np.all(np.searchsorted(distances, found.edges[1:] - error) <= before)
        assert np.all(before <= np.searchsorted(distances, found.edges[1:] + error))


def test_bins_are_as_fine_as_the_embeddings_are_alike():
    rows, labels = clustered(10, 4, 8, dtype=np.float64)
    wide = pair_histogram(rows, labels)
    collapsed = pair_histogram(1.0 + 1e-5 * rows, labels)
    assert collapsed.edges[-1] == pytest.approx(1e-10 * wide.edges[-1], rel=1e-3)
    assert collapsed.error == pytest.approx(1e-10 * wide.error, rel=1e-3)


def test_threads_do_not_show():
    rows, labels = clustered(60, 6, 16)
    one, three = (pair_histogram(rows, labels, threads=threads) for threads in (1, 3))
    assert np.array_equal(one.n_same, three.n_same)
    assert np.array_equal(one.n_different, three.n_different)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows(n):
    found = pair_histogram(np.ones((n, 3)), ["ann"] * n, n_bins=4)
    assert found.n_same.sum() == n * (n - 1) // 2
    assert found.n_different.sum() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"distance": "euclidean"}, ValueError, "distance must be"),
        ({"n_bins": 0}, ValueError, r"n_bins must be in \[1, 65536\]; got 0"),
        ({"n_bins": 65537}, ValueError, "n_bins must be in"),
        ({"threads": 0}, ValueError, "threads must be in"),
        ({"labels": [0, 1]}, ValueError, "labels must have shape"),
        ({"embeddings": [[0.0], [np.nan], [1.0]]}, ValueError, "embeddings must be finite"),
        ({"embeddings": [[0.0], [2.0], [1.0]], "distance": "cosine"}, ValueError, "not all zeros"),
        ({"embeddings": np.zeros((3, 2), int)}, TypeError, "must be float32 or float64"),
    ],
)
def test_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        pair_histogram(**({"embeddings": [[0.0], [1.0], [3.0]], "labels": [0, 0, 1]} | arguments))
