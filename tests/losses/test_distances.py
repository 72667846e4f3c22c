import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.losses.distances import pairwise_distances, row_distances
from facenet_fast.losses.recipe import DISTANCES


def literal(x, y, distance):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if distance == "cosine":
        return 1.0 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
    squared = np.sum((x - y) ** 2)
    return np.sqrt(squared) if distance == "euclidean" else squared


def random_rows(n=9, size=5, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((n, size)).astype(dtype)


def gradient(function, rows, upstream):
    rows = tf.constant(rows)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        total = tf.reduce_sum(function(rows) * upstream)
    return tape.gradient(total, rows).numpy()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_are_those_of_the_definition(distance, dtype):
    rows = random_rows(dtype=dtype)
    expected = [[literal(x, y, distance) for y in rows] for x in rows]
    found = pairwise_distances(tf.constant(rows), distance)
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(np.diag(found), 0.0)
    np.testing.assert_array_equal(found, tf.transpose(found))
    by_row = row_distances(tf.constant(rows[:-1]), tf.constant(rows[1:]), distance)
    np.testing.assert_allclose(by_row, np.diag(expected, 1), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_finite_differences(distance):
    rows, step = random_rows(), 1e-6
    upstream = random_rows(9, 9, seed=1)
    found = gradient(lambda x: pairwise_distances(x, distance), rows, upstream)
    by_row = gradient(lambda x: row_distances(x[:-1], x[1:], distance), rows, np.diag(upstream, 1))
    chain = np.diag(np.diag(upstream, 1), 1)
    for weights, gradients in ((upstream, found), (chain, by_row)):

        def total(x, weights=weights):
            return sum(w * literal(x[i], x[j], distance) for (i, j), w in np.ndenumerate(weights) if i != j)

        for place in np.ndindex(*rows.shape):
            up, down = rows.copy(), rows.copy()
            up[place] += step
            down[place] -= step
            assert gradients[place] == pytest.approx((total(up) - total(down)) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_coincident_rows_are_at_zero_without_a_slope(distance):
    rows = np.repeat(random_rows(2, 64, np.float32), 5, axis=0)
    found = pairwise_distances(tf.constant(rows), distance).numpy()
    same = np.kron(np.eye(2), np.ones((5, 5))) > 0
    np.testing.assert_array_equal(found[same], 0.0)
    gradients = gradient(lambda x: pairwise_distances(x, distance), rows, same.astype(np.float32))
    np.testing.assert_array_equal(gradients, 0.0)
    gradients = gradient(lambda x: row_distances(x, tf.constant(rows), distance), rows, 1.0)
    np.testing.assert_array_equal(gradients, 0.0)


@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean"])
def test_small_distances_far_from_the_origin_are_not_lost(distance):
    rows = (1.0 + 1e-4 * random_rows(size=64)).astype(np.float32)
    expected = [[literal(x, y, distance) for y in rows] for x in rows]
    np.testing.assert_allclose(pairwise_distances(tf.constant(rows), distance), expected, rtol=1e-5)


def test_distances_that_floats_hold_are_exact():
    rows = tf.constant(np.random.default_rng(2).integers(-4, 5, (12, 7)) / 2, tf.float32)
    expected = tf.reduce_sum(tf.square(rows[:, None] - rows[None]), -1)
    np.testing.assert_array_equal(pairwise_distances(rows, "squared_euclidean"), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosine_takes_rows_of_any_length_and_of_zeros(dtype):
    big = np.finfo(dtype).max / 4
    small = np.finfo(dtype).tiny
    rows = np.array([[big, 0], [0, big], [small, 0], [small, small], [0, 0]], dtype)
    expected = 1.0 - np.array(
        [[1, 0, 1, 0.5**0.5, 0.5], [0, 1, 0, 0.5**0.5, 0.5], [1, 0, 1, 0.5**0.5, 0.5]], np.float64
    )
    expected[:, 4] = 0.5
    for found in (
        pairwise_distances(tf.constant(rows), "cosine").numpy()[:3],
        [row_distances(tf.constant(rows[[i] * 5]), tf.constant(rows), "cosine").numpy() for i in range(3)],
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    upright = np.array([[1, 0], [0, 0], [0, 2]], dtype)
    gradients = gradient(lambda x: pairwise_distances(x, "cosine"), upright, np.ones((3, 3), dtype))
    np.testing.assert_array_equal(gradients[1], 0.0)
    np.testing.assert_allclose(gradients[[0, 2]], [[0, -2], [-1, 0]], atol=1e-6)
    by_row = gradient(lambda x: row_distances(x, tf.constant(upright[::-1]), "cosine"), upright, 1.0)
    np.testing.assert_array_equal(by_row[1], 0.0)
    assert np.isfinite(by_row).all()


@pytest.mark.parametrize(
    "function", [lambda x, d: pairwise_distances(x, d), lambda x, d: row_distances(x, x, d)]
)
def test_an_unknown_distance_is_named(function):
    with pytest.raises(ValueError, match=r"distance must be one of squared_euclidean, .*; got 'l1'"):
        function(tf.zeros((2, 2)), "l1")
