"""The native implementation: what it asks of the miner, how often, and what it makes of the answers."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from facenet_fast import Interval, Strategy, mine_triplets
from facenet_fast.losses import native
from facenet_fast.losses.native import hardest_of_anchors, loss_by_anchor
from facenet_fast.losses.recipe import DISTANCES, Recipe
from facenet_fast.mining.batch_all import batch_all_sums
from tests.losses.literal import batch, distances, parts, preset_mask

MARGIN = 0.4
SEED = tf.constant([5, 7])


def sums_with_gradient(labels, rows, recipe, upstream, seed=SEED):
    x = tf.constant(rows)
    with tf.GradientTape() as tape:
        tape.watch(x)
        sums, n_triplets = loss_by_anchor(tf.constant(labels), x, recipe, seed)
        total = tf.reduce_sum(sums * tf.cast(upstream, sums.dtype))
    return sums.numpy(), float(n_triplets), tf.convert_to_tensor(tape.gradient(total, x)).numpy()


def listed_with_gradient(triplets, rows, recipe, upstream):
    """The same of listed triplets, by the formula."""
    x = tf.constant(rows, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        d = distances(x, recipe.distance)
        d_ap, d_an = (tf.gather_nd(d, np.stack((triplets[0], other), 1)) for other in triplets[1:])
        losses = tf.math.softplus(d_ap - d_an) if recipe.soft else tf.nn.relu(d_ap - d_an + recipe.margin)
        sums = tf.math.unsorted_segment_sum(losses, triplets[0], len(rows))
        total = tf.reduce_sum(sums * upstream)
    return sums.numpy(), tf.convert_to_tensor(tape.gradient(total, x)).numpy()


UPSTREAM = np.random.default_rng(1).uniform(0.5, 1.5, 11)
DRAWING = {
    "vgg_face": Strategy("violating"),
    "several": Strategy("violating", "both_ways", n_negatives=2),
    "random_positives": Strategy("all", "random_positives", "nearest", n_positives=2),
    "weighted": Strategy("all", "both_ways", "distance_weighted"),
    "farthest": Strategy("violating", "both_ways", "farthest", if_empty="nearest"),
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", DRAWING)
def test_picks_are_the_miners(name, distance, soft):
    rows, labels = batch()
    recipe = Recipe(DRAWING[name], MARGIN, distance, soft)
    for seed, number in (((5, 7), 5 << 32 | 7), ((-1, 3), 0xFFFFFFFF << 32 | 3), ((0, -2), 0xFFFFFFFE)):
        mined = mine_triplets(
            rows, labels, strategy=recipe.strategy, margin=MARGIN, distance=distance, seed=number
        )
        triplets = np.stack((mined.anchor, mined.positive, mined.negative))
        expected = listed_with_gradient(triplets, rows, recipe, UPSTREAM)
        sums, n_triplets, gradient = sums_with_gradient(labels, rows, recipe, UPSTREAM, tf.constant(seed))
        assert n_triplets == len(mined) > 2
        np.testing.assert_allclose(sums, expected[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_sums_of_all(distance, soft):
    rows, labels = batch()
    recipe = Recipe("batch_all", MARGIN, distance, soft)
    triplets = np.stack(np.nonzero(preset_mask("batch_all", rows, labels, MARGIN, distance)))
    for upstream in (np.full(11, 0.7), UPSTREAM, np.where(np.arange(11) == 4, 1.0, 0.0)):
        expected = listed_with_gradient(triplets, rows, recipe, upstream)
        sums, n_triplets, gradient = sums_with_gradient(labels, rows, recipe, upstream)
        assert n_triplets == triplets.shape[1] > 20
        np.testing.assert_allclose(sums, expected[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=2e-5)


def test_anchors_that_count_alike_cost_one_pass(monkeypatch):
    passes = []

    def counting(*arguments, **options):
        passes.append(options["weights"])
        return batch_all_sums(*arguments, **options)

    monkeypatch.setattr(native, "batch_all_sums", counting)
    rows, labels = batch()
    for upstream, n_passes in ((np.full(11, 2.0), 1), (UPSTREAM, 2)):
        passes.clear()
        sums_with_gradient(labels, rows, Recipe("batch_all", MARGIN), upstream)
        assert len(passes) == n_passes
        np.testing.assert_array_equal(passes[0], 1.0)
    np.testing.assert_allclose(passes[1], UPSTREAM)


def test_the_number_of_triplets_is_no_function_of_the_embeddings():
    rows, labels = batch(np.float32)
    for strategy in ("batch_all", "batch_hard"):
        x = tf.constant(rows)
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, n_triplets = loss_by_anchor(tf.constant(labels), x, Recipe(strategy, MARGIN), SEED)
        gradient = tape.gradient(n_triplets, x)
        assert gradient is None or not np.any(gradient)
        assert n_triplets.dtype == tf.float32
        assert n_triplets.shape == ()


@pytest.mark.parametrize("strategy", ["batch_all", "batch_hard"])
@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_graphs_know_their_shapes(strategy, distance):
    rows, labels = batch(np.float32)
    recipe = Recipe(strategy, MARGIN, distance)
    shapes = []

    def trace(y, x):
        sums, n_triplets = loss_by_anchor(y, x, recipe, SEED)
        gradient = tf.gradients(tf.reduce_sum(sums * sums), x)[0]
        shapes.append((sums.shape.rank, n_triplets.shape.rank, gradient.shape.as_list()))
        return sums, n_triplets, gradient

    sums, n_triplets, gradient = tf.function(trace)(tf.constant(labels), tf.constant(rows))
    assert shapes == [(1, 0, [11, 4])]
    eager = loss_by_anchor(tf.constant(labels), tf.constant(rows), recipe, SEED)
    np.testing.assert_allclose(sums, eager[0], rtol=1e-6)
    assert float(n_triplets) == float(eager[1])
    assert sums.dtype == n_triplets.dtype == gradient.dtype == tf.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distance", DISTANCES)
def test_hardest_of_anchors(distance, dtype):
    rows, labels = batch(dtype)
    d = distances(tf.constant(rows, tf.float64), distance).numpy()
    d_ap, d_an, has_triplets = hardest_of_anchors(tf.constant(labels), tf.constant(rows), distance)
    is_same = np.equal.outer(labels, labels)
    np.testing.assert_allclose(d_ap, np.where(is_same, d, 0.0).max(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(d_an, np.where(is_same, np.inf, d).min(axis=1), rtol=1e-5)
    assert np.count_nonzero(d_ap.numpy() == 0) == 2
    assert d_ap.dtype == d_an.dtype == tf.as_dtype(dtype)
    assert bool(has_triplets)


def test_no_hardest_where_there_are_no_triplets():
    rows, _ = batch(np.float32)
    for labels in (np.arange(11), np.zeros(11, int)):
        assert not bool(hardest_of_anchors(tf.constant(labels), tf.constant(rows), "euclidean")[2])
    for n in (0, 1):
        d_ap, d_an, has_triplets = hardest_of_anchors(
            tf.zeros(n, tf.int64), tf.constant(rows[:n]), "squared_euclidean"
        )
        assert d_ap.shape == d_an.shape == (n,)
        assert not bool(has_triplets)


@pytest.mark.parametrize("strategy", ["batch_all", "batch_hard"])
def test_embeddings_that_are_not_finite_have_no_triplets(strategy):
    rows, labels = batch()
    rows[3, 1] = np.nan
    sums, n_triplets = loss_by_anchor(tf.constant(labels), tf.constant(rows), Recipe(strategy), SEED)
    np.testing.assert_array_equal(sums, 0.0)
    assert float(n_triplets) == 0.0
    assert not bool(hardest_of_anchors(tf.constant(labels), tf.constant(rows), "euclidean")[2])


@pytest.mark.parametrize("strategy", ["batch_all", "batch_hard"])
def test_text_in_any_script(strategy):
    rows, labels = batch()
    names = tf.constant([f"Zoë 名 {label}" for label in labels])
    loss_of = partial(loss_by_anchor, embeddings=tf.constant(rows), recipe=Recipe(strategy), seed=SEED)
    for found, expected in zip(loss_of(names), loss_of(tf.constant(labels)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    nearest = hardest_of_anchors(names, tf.constant(rows), "squared_euclidean")
    for found, expected in zip(
        nearest, hardest_of_anchors(tf.constant(labels), tf.constant(rows), "squared_euclidean"), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_what_the_miner_refuses_is_said_in_its_words():
    rows, labels = batch()
    recipe = Recipe("distance_weighted")
    message = "distance_weighted needs embeddings of norm 1, or distance='cosine'"
    call = partial(loss_by_anchor, recipe=recipe, seed=SEED)
    with pytest.raises(ValueError, match=message):
        call(tf.constant(labels), tf.constant(2.0 * rows))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(call)(tf.constant(labels), tf.constant(2.0 * rows))


@pytest.mark.parametrize("distance", DISTANCES)
def test_numbers_of_a_strategy_are_in_the_unit_of_the_distance(distance):
    rows, labels = batch()
    d_ap, d_an, is_triplet = parts(rows, labels, distance)
    limit = float(np.median(d_ap[is_triplet.any(axis=2)]))
    band = Interval(0.8 * limit, 1.5 * limit, relative=False)
    strategy = Strategy(band, "both_ways", "every", max_positive_distance=1.01 * limit)
    mask = is_triplet & (d_an >= band.low) & (d_an < band.high) & (d_ap < 1.01 * limit)
    recipe = Recipe(strategy, MARGIN, distance)
    triplets = np.stack(np.nonzero(mask))
    expected = listed_with_gradient(triplets, rows, recipe, UPSTREAM)
    sums, n_triplets, gradient = sums_with_gradient(labels, rows, recipe, UPSTREAM)
    assert n_triplets == triplets.shape[1] > 5
    np.testing.assert_allclose(sums, expected[0], rtol=1e-9)
    np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-9)
