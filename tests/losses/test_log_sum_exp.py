"""The log-sum-exp loss against its literal formula, on any batch, in Keras, in graphs, in little memory."""

import json
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.losses import LogSumExpTripletLoss, log_sum_exp, log_sum_exp_triplet_loss
from facenet_fast.losses.log_sum_exp import mean_over_pairs, pair_sums
from tests.losses.literal import batch, distances, parts, weighted_mean, with_gradient

DISTANCES = ["squared_euclidean", "euclidean", "cosine"]
MARGIN, SHARPNESS = 0.3, 4.0
WEIGHTS = np.random.default_rng(3).uniform(0.5, 1.5, 11)


def losses_by_formula(x, labels, margin=MARGIN, sharpness=SHARPNESS, distance="squared_euclidean"):
    """The losses of the anchors, N x N x N, in float64: the logarithm of the sum as it stands."""
    d = distances(x, distance)
    _, _, is_triplet = parts(x.numpy(), labels, distance)
    is_pair = is_triplet.any(axis=2)
    each = tf.exp(sharpness * (d[:, :, None] - d[:, None, :] + margin))
    costs = tf.math.log(1.0 + tf.reduce_sum(tf.where(is_triplet, each, 0.0), axis=2)) / sharpness
    return tf.reduce_sum(tf.where(is_pair, costs, 0.0), axis=1) * (len(is_pair) / np.count_nonzero(is_pair))


def value_by_loops(x, labels, margin, sharpness):
    """The loss in numpy, pair by pair, and the counts: for whom formulas in masks are hard to read."""
    costs, n_violating = [], 0
    for a, anchor in enumerate(x):
        d_an = ((x[labels != labels[a]] - anchor) ** 2).sum(axis=1)
        for p in np.flatnonzero(labels == labels[a]):
            if p != a and len(d_an):
                d_ap = ((x[p] - anchor) ** 2).sum()
                costs.append(np.logaddexp.reduce([0.0, *sharpness * (d_ap - d_an + margin)]) / sharpness)
                n_violating += bool((d_an < d_ap + margin).any())
    return np.mean(costs) if costs else 0.0, len(costs), n_violating


@pytest.fixture(params=[None, 25], ids=["one block", "blocks of two rows"])
def block_size(request, monkeypatch):
    """All eleven rows at once, or so many that the last block is not full."""
    if request.param:
        monkeypatch.setattr(log_sum_exp, "_BLOCK_SIZE", request.param)
    log_sum_exp._graphs.cache_clear()
    yield
    log_sum_exp._graphs.cache_clear()


@pytest.mark.parametrize("distance", DISTANCES)
def test_it_is_its_literal_formula(distance, block_size):
    rows, labels = batch()
    loss_of = partial(log_sum_exp_triplet_loss, labels, margin=MARGIN, sharpness=SHARPNESS, distance=distance)
    for weights in (None, WEIGHTS):
        expected = with_gradient(
            rows,
            lambda x, w=weights: weighted_mean(losses_by_formula(x, labels, distance=distance), w),
        )
        loss, gradient = with_gradient(rows, lambda x, w=weights: loss_of(x, sample_weight=w))
        assert loss == pytest.approx(expected[0], rel=1e-12)
        np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-12)
        assert np.abs(gradient).max() > 0.01
        single = with_gradient(rows.astype(np.float32), lambda x, w=weights: loss_of(x, sample_weight=w))
        assert single[0].dtype == single[1].dtype == np.float32
        assert single[0] == pytest.approx(expected[0], rel=1e-5)
        np.testing.assert_allclose(single[1], expected[1], rtol=0, atol=1e-5)


def test_gradients_are_finite_differences():
    rows, labels = batch()
    _, gradient = with_gradient(rows, lambda x: log_sum_exp_triplet_loss(labels, x, MARGIN, SHARPNESS))
    for direction in np.random.default_rng(4).normal(size=(3, *rows.shape)):
        ahead, behind = (
            value_by_loops(rows + sign * 1e-6 * direction, labels, MARGIN, SHARPNESS)[0] for sign in (1, -1)
        )
        assert (gradient * direction).sum() == pytest.approx((ahead - behind) / 2e-6, abs=1e-8)


def pool(n_identities, n_each, size, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_identities), n_each)
    x = rng.normal(size=(n_identities, size))[labels] + rng.normal(size=(len(labels), size))
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


@pytest.mark.parametrize("sharpness", [1.0, 16.0, 200.0])
@pytest.mark.parametrize("margin", [0.1, 0.8])
def test_pools_in_float32(margin, sharpness):
    x, labels = pool(12, 6, 16)
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(len(labels)) < 0.2, 100 + np.arange(len(labels)), labels)  # some alone
    loss, n_pairs, n_violating = mean_over_pairs(labels, x.astype(np.float32), margin, sharpness)
    expected = value_by_loops(x, labels, margin, sharpness)
    assert float(loss) == pytest.approx(expected[0], rel=1e-5)
    assert (int(n_pairs), int(n_violating)) == expected[1:]
    assert 0 < expected[2] < expected[1]


def test_the_sharper_the_nearer_it_is_to_the_hardest_negatives_hinge():
    x, labels = pool(8, 4, 8)
    d = distances(tf.constant(x), "squared_euclidean").numpy()
    is_same = np.equal.outer(labels, labels)
    hinge = np.maximum(d - np.where(is_same, np.inf, d).min(axis=1)[:, None] + 0.2, 0.0)
    hardest = hinge[is_same & ~np.eye(len(x), dtype=bool)].mean()
    losses = [float(log_sum_exp_triplet_loss(labels, x, 0.2, sharpness)) for sharpness in (1, 16, 256, 4096)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 2 * hardest
    assert losses[-1] == pytest.approx(hardest, rel=1e-6)


# -- nasty batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "n_rows"),
    [(np.arange(11), 11), (np.zeros(11, int), 11), ([1], 1), (np.zeros(0, int), 0)],
    ids=["no positive", "no negative", "one row", "no rows"],
)
def test_without_a_pair_loss_and_gradient_are_0(labels, n_rows):
    rows = batch(np.float32)[0][:n_rows]
    for weights in (None, WEIGHTS[:n_rows]):
        loss, gradient = with_gradient(
            rows, lambda x, w=weights: log_sum_exp_triplet_loss(labels, x, sample_weight=w)
        )
        assert loss == 0.0
        np.testing.assert_array_equal(gradient, np.zeros(rows.shape, np.float32))
    assert [int(count) for count in mean_over_pairs(labels, rows, 0.2, 16.0)[1:]] == [0, 0]


@pytest.mark.parametrize("distance", DISTANCES)
def test_collapsed_rows(distance):
    rows, labels = batch(np.float32)
    loss_of = partial(log_sum_exp_triplet_loss, labels, margin=0.2, sharpness=16.0, distance=distance)
    one = np.repeat(rows[:1], 11, axis=0)
    loss, gradient = with_gradient(one, loss_of)
    n_negatives = (labels[:, None] != labels).sum(axis=1)[:, None]
    costs = np.log1p(n_negatives * np.exp(16.0 * 0.2)) / 16.0
    is_pair = (labels[:, None] == labels) & ~np.eye(11, dtype=bool)
    assert loss == pytest.approx(np.broadcast_to(costs, (11, 11))[is_pair].mean(), rel=1e-5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
    # Nearly: what little there is between the rows still points the right way.
    near = (rows[:1] + 1e-6 * rows).astype(np.float32)
    _, gradient = with_gradient(near, loss_of)
    _, expected = with_gradient(near.astype(np.float64), loss_of)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("scale", [1e3, 1e8, 1e15])
def test_far_rows_overflow_nothing(scale):
    rows, labels = batch()
    d = distances(tf.constant(rows), "squared_euclidean").numpy()
    is_same = np.equal.outer(labels, labels)
    hinge = np.maximum(d - np.where(is_same, np.inf, d).min(axis=1)[:, None], 0.0)
    hardest = hinge[is_same & ~np.eye(11, dtype=bool)].mean()
    loss, gradient = with_gradient(
        (scale * rows).astype(np.float32), lambda x: log_sum_exp_triplet_loss(labels, x)
    )
    assert loss / scale**2 == pytest.approx(hardest, rel=1e-5)
    assert np.isfinite(gradient).all()
    assert 0.01 < np.abs(gradient / scale).max() < 10


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_makes_all_nan(bad):
    rows, labels = batch(np.float32)
    rows[6, 2] = bad
    for who in (labels, np.arange(11)):
        loss, gradient = with_gradient(rows, lambda x, y=who: log_sum_exp_triplet_loss(y, x))
        assert np.isnan(loss)
        assert np.isnan(gradient).all()


def test_half_precision_is_computed_in_float32():
    rows, labels = batch()
    half = tf.cast(rows, tf.float16)
    loss, gradient = with_gradient(half, partial(log_sum_exp_triplet_loss, labels))
    assert loss.dtype == np.float32
    assert gradient.dtype == np.float16
    assert loss == log_sum_exp_triplet_loss(labels, tf.cast(half, tf.float32)).numpy()


def test_labels_of_any_dtype():
    rows, labels = batch(np.float32)
    expected = float(log_sum_exp_triplet_loss(labels, rows))
    for same in (
        labels.astype(np.uint8),
        labels.astype(np.float32),
        tf.constant(labels[:, None]),
        labels + 2**53,
        [f"who {label}" for label in labels],
    ):
        assert float(log_sum_exp_triplet_loss(same, rows)) == expected
        assert float(LogSumExpTripletLoss()(same, rows)) == pytest.approx(expected, rel=1e-6)
    assert float(log_sum_exp_triplet_loss(labels == 5, rows)) != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"margin": 0.0}, ValueError, "margin must be positive and finite; got 0.0"),
        ({"sharpness": -1.0}, ValueError, "sharpness must be positive and finite; got -1.0"),
        ({"sharpness": None}, TypeError, "sharpness must be a number; got None"),
        ({"distance": "L2"}, ValueError, "distance must be one of squared_euclidean, euclidean, cosine; got"),
    ],
)
def test_bad_arguments(bad, error, message):
    rows, labels = batch(np.float32)
    with pytest.raises(error, match=message):
        log_sum_exp_triplet_loss(labels, rows, **bad)
    with pytest.raises(error, match=message):
        LogSumExpTripletLoss(**bad)


# -- in graphs and in Keras --------------------------------------------------------------------------------


def test_anchors_in_parts_add_up_to_all(block_size):
    x, labels = pool(7, 4, 5)
    everything = sums_and_gradient(labels, x)
    parts = [sums_and_gradient(labels, x, bounds) for bounds in ((0, 0), (0, 3), (3, 20), (20, 28))]
    for whole, *some in zip(everything, *parts, strict=True):
        np.testing.assert_allclose(sum(some), whole, rtol=1e-5, atol=1e-6)
    assert not parts[2][0][:3].any()
    assert not parts[2][0][20:].any()
    assert not any(one.any() for one in parts[0])


def sums_and_gradient(labels, x, anchors=None):
    """Sums of the anchors, the gradient of their sum, and the two counts."""
    rows = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        sums, *counts = pair_sums(tf.constant(labels), rows, MARGIN, SHARPNESS, anchors=anchors)
        loss = tf.reduce_sum(sums)
    return sums.numpy(), tape.gradient(loss, rows).numpy(), *(count.numpy() for count in counts)


@pytest.mark.parametrize("jit", [False, True])
def test_in_graphs_and_compiled_by_xla(jit, block_size):
    rows, labels = batch(np.float32)

    def step(x, y, weights):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = log_sum_exp_triplet_loss(y, x, MARGIN, SHARPNESS, sample_weight=weights)
        return loss, tape.gradient(loss, x)

    shapes = [tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64), tf.TensorSpec([None])]
    graph = tf.function(step, input_signature=shapes, jit_compile=jit)
    weights = WEIGHTS.astype(np.float32)
    expected = with_gradient(
        rows.astype(np.float64), lambda x: weighted_mean(losses_by_formula(x, labels), weights)
    )
    loss, gradient = graph(rows, labels, weights)
    assert float(loss) == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-5)
    loss, gradient = graph(rows[:1], labels[:1], weights[:1])
    assert float(loss) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("jit", [False, True])
def test_fit_save_and_load(jit, tmp_path):
    rows, labels = batch(np.float32)
    kernel = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    model.layers[0].kernel.assign(kernel)
    loss_of = LogSumExpTripletLoss(MARGIN, SHARPNESS, "cosine")
    model.compile(keras.optimizers.SGD(0.1), loss_of, jit_compile=jit)
    history = model.fit(rows, labels + 2**24, batch_size=11, verbose=0, sample_weight=WEIGHTS)

    def by_formula(k):
        return weighted_mean(losses_by_formula(rows @ k, labels, distance="cosine"), WEIGHTS)

    loss, gradient = with_gradient(kernel.astype(np.float64), by_formula)
    assert history.history["loss"][0] == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose(model.layers[0].kernel, kernel - 0.1 * gradient, rtol=0, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").loss
    assert type(loaded) is LogSumExpTripletLoss
    assert loaded.get_config() == loss_of.get_config()
    text = json.loads(json.dumps(keras.saving.serialize_keras_object(loss_of)))
    assert keras.saving.deserialize_keras_object(text).get_config() == loss_of.get_config()


def test_reductions_and_masks():
    rows, labels = batch(np.float32)
    expected = losses_by_formula(tf.constant(rows, tf.float64), labels).numpy()
    make = partial(LogSumExpTripletLoss, MARGIN, SHARPNESS)
    for reduction, value in {"sum": expected.sum(), "none": expected}.items():
        np.testing.assert_allclose(make(reduction=reduction)(labels, rows), value, rtol=1e-5)
    x = tf.constant(rows)
    x._keras_mask = tf.constant(np.arange(11) % 3 > 0)
    assert float(make()(labels, x)) == pytest.approx(expected[np.arange(11) % 3 > 0].mean(), rel=1e-5)


# -- cost --------------------------------------------------------------------------------------------------

MEMORY = """
import resource
import numpy as np, tensorflow as tf
from facenet_fast.losses import log_sum_exp_triplet_loss

@tf.function
def step(x, y):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = log_sum_exp_triplet_loss(y, x)
    return loss, tape.gradient(loss, x)

def peak(n):
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    assert np.isfinite(step(tf.constant(x), tf.constant(np.arange(n) // 20))[1]).all()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak(100)
print(peak({n}) - before)
"""


def test_no_matrix_of_all_distances_is_made():
    n = 6_000
    found = subprocess.run(
        [sys.executable, "-c", MEMORY.replace("{n}", str(n))], capture_output=True, text=True, check=True
    )
    assert int(found.stdout.split()[-1]) * 1024 < n * n * 4 / 2  # one such matrix takes 144 MB
