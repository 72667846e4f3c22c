"""TensorFlow Addons' two losses, written down from what they are: value, gradient, how they are called."""

import inspect
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.losses import (
    TripletHardLoss,
    TripletSemiHardLoss,
    triplet_hard_loss,
    triplet_semihard_loss,
)
from facenet_fast.losses.addons import DISTANCE_METRICS
from tests.losses.literal import distances, with_gradient

IMPLEMENTATIONS = ["native", "tensorflow"]
SIZE = 4


def semi_hard(labels, embeddings, margin, metric):
    """For all ordered pairs of an identity: the least distance to a negative beyond the positive, or else the
    largest to any; the mean of their hinges.
    """
    d = distances(embeddings, DISTANCE_METRICS[metric])
    is_same = np.equal.outer(labels, labels)
    is_pair = is_same & ~np.eye(len(labels), dtype=bool)
    d_ap, d_an = d[:, :, None], d[:, None, :]
    is_beyond = tf.logical_and(~is_same[:, None, :], d_an > d_ap)
    outside = tf.reduce_min(tf.where(is_beyond, d_an, np.inf), axis=2)
    inside = tf.reduce_max(tf.where(is_same, -np.inf, d), axis=1, keepdims=True)
    chosen = tf.where(tf.reduce_any(is_beyond, axis=2), outside, inside)
    hinges = tf.maximum(d - chosen + margin, 0.0)
    return tf.reduce_sum(tf.where(is_pair, hinges, 0.0)) / is_pair.sum()


def hard(labels, embeddings, margin, metric, soft):
    """For all rows: the largest distance to a positive, 0 without one, and the least to a negative."""
    d = distances(embeddings, DISTANCE_METRICS[metric])
    is_same = np.equal.outer(labels, labels)
    farthest = tf.reduce_max(tf.where(is_same, d, 0.0), axis=1)
    nearest = tf.reduce_min(tf.where(is_same, np.inf, d), axis=1)
    excess = farthest - nearest
    return tf.reduce_mean(tf.math.log1p(tf.exp(excess)) if soft else tf.maximum(excess + margin, 0.0))


def random_batch(seed, n=14, n_identities=6):
    """Unit rows of identities of any number of images, of which some have one."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_identities, n)
    rows = rng.normal(size=(n_identities, SIZE))[labels] + rng.normal(size=(n, SIZE))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def test_batches_have_identities_of_one_image_and_of_more():
    for seed in range(4):
        sizes = np.unique(random_batch(seed)[1], return_counts=True)[1]
        assert sizes.min() == 1
        assert sizes.max() > 2


def assert_is(literal, function, batch, dtype=np.float64, tolerance=1e-5):
    rows, labels = batch
    expected = with_gradient(rows.astype(dtype).astype(np.float64), partial(literal, labels))
    found = with_gradient(rows.astype(dtype), partial(function, labels))
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=tolerance)
    return expected[0]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("margin", [0.2, 1.0])
@pytest.mark.parametrize("metric", DISTANCE_METRICS)
def test_semi_hard(metric, margin, implementation):
    options = {"margin": margin, "distance_metric": metric}
    for seed in range(4):
        loss = assert_is(
            partial(semi_hard, margin=margin, metric=metric),
            partial(triplet_semihard_loss, **options, implementation=implementation),
            random_batch(seed),
        )
        assert loss > 0.02


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("margin", [0.2, 1.0])
@pytest.mark.parametrize("metric", DISTANCE_METRICS)
def test_hard(metric, margin, soft, implementation):
    options = {"margin": margin, "soft": soft, "distance_metric": metric}
    for seed in range(4):
        loss = assert_is(
            partial(hard, margin=margin, metric=metric, soft=soft),
            partial(triplet_hard_loss, **options, implementation=implementation),
            random_batch(seed),
        )
        assert loss > 0.02


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_precision(dtype, implementation):
    # Of float16's values; the gradient is cast to float16 at the end.
    tolerance = 1e-3 if dtype == np.float16 else 1e-5
    for seed in range(3):
        rows, labels = random_batch(seed)
        assert_is(
            partial(semi_hard, margin=1.0, metric="L2"),
            partial(triplet_semihard_loss, implementation=implementation),
            (rows, labels),
            dtype,
            tolerance,
        )
        assert_is(
            partial(hard, margin=1.0, metric="L2", soft=False),
            partial(triplet_hard_loss, implementation=implementation),
            (rows, labels),
            dtype,
            tolerance,
        )
        half = rows.astype(dtype)
        loss = triplet_hard_loss(labels, half, implementation=implementation)
        expected = hard(labels, tf.constant(half.astype(np.float64)), 1.0, "L2", False)
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_pair_beyond_all_negatives_has_the_farthest(implementation):
    # From 0, the positive is at 5, the negatives are at 1 and 3; from 5 they are at 4 and 2.
    labels, rows = [1, 1, 2, 2], np.array([[0.0], [5.0], [1.0], [3.0]])
    options = {"distance_metric": "L2", "implementation": implementation}
    # Of 1 and 3, at 2: from 1 beyond 2 is 4, at 5; from 3 it is 3, at 0.
    expected = [5 - 3 + 0.5, 5 - 4 + 0.5, 0.0, 0.0]
    assert float(triplet_semihard_loss(labels, rows, 0.5, **options)) == pytest.approx(np.mean(expected))
    assert float(semi_hard(labels, tf.constant(rows), 0.5, "L2")) == pytest.approx(np.mean(expected))
    # Farthest positive less nearest negative.
    expected = [5 - 1 + 0.5, 5 - 2 + 0.5, 2 - 1 + 0.5, 2 - 2 + 0.5]
    assert float(triplet_hard_loss(labels, rows, 0.5, **options)) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_negative_as_far_as_the_positive_is_not_beyond_it(implementation):
    labels, rows = [1, 1, 2, 2], np.array([[0.0], [1.0], [-1.0], [4.0]])
    # From 0 the positive is at 1, and so is a negative: the next is at 4. From 1: 2, before 3. From -1 and 4,
    # at 5 of each other: the farthest, at 2 and at 4.
    expected = [0.0, 0.0, 5 - 2 + 0.5, 5 - 4 + 0.5]
    loss = triplet_semihard_loss(labels, rows, 0.5, "L2", implementation=implementation)
    assert float(loss) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("metric", DISTANCE_METRICS)
def test_a_row_alone_is_its_own_positive(metric, implementation):
    rows, _ = random_batch(5, n=4)
    labels = np.array([0, 0, 1, 2])
    d = distances(tf.constant(rows), DISTANCE_METRICS[metric]).numpy()
    expected = [
        d[0, 1] - min(d[0, 2], d[0, 3]) + 3.0,
        d[0, 1] - min(d[1, 2], d[1, 3]) + 3.0,
        0.0 - min(d[2, 0], d[2, 1], d[2, 3]) + 3.0,
        0.0 - min(d[3, 0], d[3, 1], d[3, 2]) + 3.0,
    ]
    loss_of = TripletHardLoss(
        3.0, False, metric, reduction="none", dtype="float64", implementation=implementation
    )
    np.testing.assert_allclose(loss_of(labels, rows), expected, rtol=1e-9)


def test_arguments_are_theirs():
    theirs = {
        TripletSemiHardLoss: {"margin": 1.0, "distance_metric": "L2", "name": "triplet_semihard_loss"},
        TripletHardLoss: {"margin": 1.0, "soft": False, "distance_metric": "L2", "name": "triplet_hard_loss"},
        triplet_semihard_loss: {"margin": 1.0, "distance_metric": "L2"},
        triplet_hard_loss: {"margin": 1.0, "soft": False, "distance_metric": "L2"},
    }
    for function, expected in theirs.items():
        places = inspect.signature(function).parameters.values()
        by_place = [p for p in places if p.kind is p.POSITIONAL_OR_KEYWORD]
        if not inspect.isclass(function):
            assert [p.name for p in by_place[:2]] == ["y_true", "y_pred"]
            by_place = by_place[2:]
        assert {p.name: p.default for p in by_place} == expected
        assert [p.name for p in by_place] == list(expected)
        assert all(p.default is not p.empty for p in places if p.kind is p.KEYWORD_ONLY)


def test_arguments_by_place_are_those_by_name():
    semi = TripletSemiHardLoss(0.5, "angular", "mine")
    assert (semi.recipe.margin, semi.distance_metric, semi.recipe.distance, semi.name) == (
        0.5,
        "angular",
        "cosine",
        "mine",
    )
    hardest = TripletHardLoss(0.5, True, "squared-L2", "mine")
    assert (hardest.margin, hardest.soft, hardest.distance_metric, hardest.distance, hardest.name) == (
        0.5,
        True,
        "squared-L2",
        "squared_euclidean",
        "mine",
    )
    assert (TripletSemiHardLoss().name, TripletHardLoss().name) == (
        "triplet_semihard_loss",
        "triplet_hard_loss",
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_classes_are_their_functions(implementation):
    rows, labels = random_batch(1)
    rows = rows.astype(np.float32)
    for margin, metric in ((0.5, "L2"), (0.2, "angular")):
        given = {"margin": margin, "distance_metric": metric, "implementation": implementation}
        value = float(TripletSemiHardLoss(**given)(labels, rows))
        assert value == pytest.approx(float(triplet_semihard_loss(labels, rows, **given)), rel=1e-6)
        for soft in (False, True):
            value = float(TripletHardLoss(soft=soft, **given)(labels[:, None], rows))
            assert value == pytest.approx(
                float(triplet_hard_loss(labels, rows, soft=soft, **given)), rel=1e-6
            )


def test_a_model_compiles_with_them_by_a_change_of_the_import():
    rows, labels = random_batch(2)
    for loss in (TripletSemiHardLoss(margin=0.5), TripletHardLoss(0.5, soft=True)):
        model = keras.Sequential([keras.Input((SIZE,)), keras.layers.UnitNormalization()])
        model.compile(optimizer="sgd", loss=loss, run_eagerly=True)
        literal = (
            semi_hard(labels, tf.constant(rows), 0.5, "L2")
            if isinstance(loss, TripletSemiHardLoss)
            else hard(labels, tf.constant(rows), 0.5, "L2", True)
        )
        found = model.evaluate(rows.astype(np.float32), labels, batch_size=len(rows), verbose=0)
        assert found == pytest.approx(float(literal), rel=1e-5)
