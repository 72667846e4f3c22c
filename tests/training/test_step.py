"""The optimiser step against full-batch automatic differentiation, and its bookkeeping."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.config import LOSSES, TrainConfig
from facenet_fast.errors import UserError
from facenet_fast.losses import SoftMarginTripletLoss, TripletLoss
from facenet_fast.losses.triplet import l2_regularisation, mined_triplet_loss
from facenet_fast.mining import mine_triplets
from facenet_fast.training.dealing import spread
from facenet_fast.training.pools import Pool
from facenet_fast.training.step import (
    Preparation,
    TripletStep,
    UniqueStep,
    step_seed,
)

SIZE = 8


def small_network(*, batch_norm=False, dropout=0.0, seed=1):
    keras.utils.set_random_seed(seed)
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(images)
    if batch_norm:
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=3)(x)
    x = keras.layers.Dense(6)(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.UnitNormalization()(x))


def config_of(**settings):
    return TrainConfig(
        **{
            "image_size": SIZE,
            "embedding_size": 6,
            "strategy": "vgg_face",
            "margin": 0.5,
            "optimizer": "MOM",
            "learning_rate": 0.1,
            "batch_size": 100,
            "moving_average_decay": 0.0,
            "weight_decay": 0.0,
            **settings,
        }
    )


def plainly(images, seed=None):
    return tf.cast(images, tf.float32) / 128.0 - 1.0


def with_noise(images, seed):
    return plainly(images) + tf.random.stateless_uniform(tf.shape(images), seed)


def pool_of(n_identities=4, n_each=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_identities, dtype=np.int32), n_each)
    faces = rng.integers(0, 200, (n_identities, SIZE, SIZE, 3))
    images = faces[labels] + rng.integers(0, 56, (len(labels), SIZE, SIZE, 3))
    return Pool(images.astype(np.uint8), labels)


def step_of(kind, model, config, averaged=None, train=plainly):
    optimizer = keras.optimizers.SGD(config.learning_rate)
    if config.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return kind(model, optimizer, averaged or model, Preparation(train, plainly), config)


def loss_by_definition(embeddings, labels, config, seed):
    """The loss as it is written, and the numbers of its terms, of triplets, and of pairs looked at."""
    if config.loss == "log_sum_exp":
        d = tf.reduce_sum((embeddings[:, None] - embeddings[None]) ** 2, axis=2)
        is_same = np.equal.outer(labels, labels)
        is_pair = is_same & ~np.eye(len(labels), dtype=bool) & ~is_same.all(axis=1)[:, None]
        excess = tf.where(~is_same[:, None, :], d[:, :, None] - d[:, None, :] + config.margin, -np.inf)
        each = tf.math.log(1.0 + tf.reduce_sum(tf.exp(config.sharpness * excess), axis=2)) / config.sharpness
        n_violating = np.count_nonzero(is_pair & (excess.numpy() > 0).any(axis=2))
        n_pairs = np.count_nonzero(is_pair)
        return tf.reduce_sum(tf.where(is_pair, each, 0.0)) / n_pairs, n_pairs, n_violating, n_pairs
    mined = mine_triplets(
        embeddings.numpy(),
        labels,
        strategy=config.strategy,
        margin=config.margin,
        seed=int(seed[0]) << 32 | int(seed[1]),
    )
    rows = mined.anchor, mined.positive, mined.negative
    if config.loss == "hinge":
        loss = mined_triplet_loss(embeddings, *rows, config.margin)
    else:
        anchors, positives, negatives = (tf.gather(embeddings, one) for one in rows)
        d_ap = tf.reduce_sum((anchors - positives) ** 2, axis=1)
        d_an = tf.reduce_sum((anchors - negatives) ** 2, axis=1)
        loss = tf.reduce_mean(tf.math.log(1.0 + tf.exp(d_ap - d_an)))
    return loss, len(mined), len(mined), mined.n_pairs


def gradients_by_definition(model, pool, config, step):
    """Full-batch automatic differentiation, in the order of the pool."""
    seed = step_seed(config.seed, step)
    with tf.GradientTape() as tape:
        embeddings = model(plainly(pool.images), training=False)
        loss, *counts = loss_by_definition(embeddings, pool.labels, config, seed)
        loss += l2_regularisation(model.trainable_variables, config.weight_decay)
    return loss, tape.gradient(loss, [v.value for v in model.trainable_variables]), counts


def counts_of(outcome):
    return [outcome.n_triplets, outcome.mined.n_triplets, outcome.mined.n_pairs]


def moved_by(step, pool):
    before = [v.numpy() for v in step.model.trainable_variables]
    outcome = step.run(step.plan(pool, 0)[0], 0)
    rate = float(step.optimizer.learning_rate)
    after = [v.numpy() for v in step.model.trainable_variables]
    return outcome, [(b - a) / rate for b, a in zip(before, after, strict=True)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("name", LOSSES)
def test_whole_pool_is_full_batch_autodiff(name, weight_decay):
    config, pool, model = config_of(loss=name, weight_decay=weight_decay), pool_of(), small_network()
    loss, expected, counts = gradients_by_definition(model, pool, config, 0)
    outcome, moved = moved_by(step_of(UniqueStep, model, config), pool)
    assert min(counts) > 5
    assert counts_of(outcome) == counts
    assert outcome.is_applied
    assert outcome.loss == pytest.approx(float(loss), rel=1e-5)
    assert outcome.gradient_norm == pytest.approx(float(tf.linalg.global_norm(expected)), rel=1e-4)
    for got, wanted in zip(moved, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "batch_size"), [*(("hinge", n) for n in (3, 5, 11)), ("soft_margin", 5), ("log_sum_exp", 5)]
)
def test_chunks_give_the_gradient_of_the_whole_pool(name, batch_size):
    config = config_of(loss=name, batch_size=batch_size, weight_decay=0.01)
    pool, model = pool_of(), small_network()
    # The draws of mining are keyed by row, and chunks lay the rows out in their own order.
    order = spread(pool.labels)
    laid_out = Pool(pool.images[order], pool.labels[order])
    loss, expected, counts = gradients_by_definition(model, laid_out, config, 0)
    outcome, moved = moved_by(step_of(UniqueStep, model, config), pool)
    assert counts_of(outcome) == counts
    assert min(counts) > 5
    assert outcome.n_images == len(pool.labels)
    assert outcome.loss == pytest.approx(float(loss), rel=1e-5)
    for got, wanted in zip(moved, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_chunks_repeat_dropout_and_noise_and_move_batch_norm_once(name):
    """Against one tape over the same chunks in the same order, each with its own statistics and draws."""
    config, pool = config_of(loss=name, batch_size=5), pool_of()
    oracle = small_network(batch_norm=True, dropout=0.4)
    model = small_network(batch_norm=True, dropout=0.4)
    order = spread(pool.labels)
    chunks = np.array_split(order, 3)
    with tf.GradientTape() as tape:
        embeddings = tf.concat(
            [
                oracle(with_noise(pool.images[rows], step_seed(config.seed, 0, n)), training=True)
                for n, rows in enumerate(chunks)
            ],
            axis=0,
        )
        loss, *_ = loss_by_definition(embeddings, pool.labels[order], config, step_seed(config.seed, 0))
    expected = tape.gradient(loss, [v.value for v in oracle.trainable_variables])

    outcome, moved = moved_by(step_of(UniqueStep, model, config, train=with_noise), pool)
    assert outcome.loss == pytest.approx(float(loss), rel=1e-5)
    for got, wanted in zip(moved, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=2e-6)
    for got, wanted in zip(model.non_trainable_variables, oracle.non_trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(got.value), np.asarray(wanted.value), rtol=1e-5)


@pytest.mark.parametrize("name", ["hinge", "soft_margin"])
def test_a_pool_in_chunks_and_in_triplets_costs_the_same(name):
    """And as the Keras losses have it: of the same triplets, where nothing is drawn."""
    pool, seen = pool_of(), {}
    keras_losses = {
        "hinge": TripletLoss("batch_hard", 0.5),
        "soft_margin": SoftMarginTripletLoss("batch_hard", "squared_euclidean"),
    }
    for way, kind, batch_size in [
        ("whole", UniqueStep, 100),
        ("chunks", UniqueStep, 5),
        ("triplets", TripletStep, 100),
    ]:
        model = small_network()
        seen["Keras"] = float(keras_losses[name](pool.labels, model(plainly(pool.images))))
        config = config_of(loss=name, strategy="batch_hard", batch_size=batch_size)
        outcome, moved = moved_by(step_of(kind, model, config), pool)
        seen[way] = outcome.loss, outcome.gradient_norm, outcome.n_triplets, np.concatenate(moved, axis=None)
    assert seen["whole"][0] == pytest.approx(seen["Keras"], rel=1e-5)
    for way in ("chunks", "triplets"):
        assert seen[way][:3] == pytest.approx(seen["whole"][:3], rel=1e-4)
        np.testing.assert_allclose(seen[way][3], seen["whole"][3], rtol=1e-3, atol=2e-6)


def test_log_sum_exp_is_not_of_triplets():
    with pytest.raises(UserError, match=r"loss log_sum_exp must be taken with step='unique', .*'triplets'"):
        config_of(loss="log_sum_exp", step="triplets")


@pytest.mark.parametrize("batch_size", [100, 5])
def test_log_sum_exp_goes_on_where_no_negative_is_within_the_margin(batch_size):
    some = pool_of()
    pool, model = Pool(some.images[some.labels * 3], some.labels), small_network()
    config = config_of(loss="log_sum_exp", margin=1e-4, sharpness=1.0, batch_size=batch_size)
    outcome, moved = moved_by(step_of(UniqueStep, model, config), pool)
    assert counts_of(outcome) == [24, 0, 24]
    assert outcome.is_applied
    assert any((change != 0).any() for change in moved)
    # But not where there is no pair at all.
    for labels in (np.arange(12, dtype=np.int32), np.zeros(12, np.int32)):
        config = config_of(loss="log_sum_exp", weight_decay=0.1, batch_size=batch_size)
        outcome, moved = moved_by(step_of(UniqueStep, small_network(), config), Pool(some.images, labels))
        assert counts_of(outcome) == [0, 0, 0]
        assert not outcome.is_applied
        assert outcome.is_finite
        assert all((change == 0).all() for change in moved)


@pytest.mark.parametrize(("kind", "name"), [*((UniqueStep, name) for name in LOSSES), (TripletStep, "hinge")])
def test_steps_lower_the_loss(kind, name):
    config, pool = config_of(loss=name, batch_size=30, margin=1.0), pool_of(6, 4)
    model = small_network()
    step = step_of(kind, model, config)
    losses = []
    for n in range(25):
        losses.extend(step.run(work, n).loss for work in step.plan(pool, n))
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])


def test_triplet_step_mines_in_inference_mode_and_deals_every_triplet_once():
    config, pool = config_of(batch_size=10), pool_of(5, 4)
    model = small_network(batch_norm=True, dropout=0.5)
    step = step_of(TripletStep, model, config)
    before = [v.numpy() for v in model.non_trainable_variables]
    plan = step.plan(pool, 7)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.value), value)
    seed = step_seed(config.seed, 7)
    mined = mine_triplets(
        model(plainly(pool.images), training=False).numpy(),
        pool.labels,
        strategy="vgg_face",
        margin=0.5,
        seed=int(seed[0]) << 32 | int(seed[1]),
    )
    expected = set(zip(mined.anchor.tolist(), mined.positive.tolist(), mined.negative.tolist(), strict=True))
    dealt = [tuple(row) for work in plan for row in work.rows.reshape(3, -1).T.tolist()]
    assert len(dealt) == len(set(dealt)) == len(mined)
    assert set(dealt) == expected
    # Ten images make three triplets; only the last batch may have fewer.
    assert {len(work.rows) for work in plan[:-1]} == {9}
    assert len(plan[-1].rows) in (3, 6, 9)


@pytest.mark.parametrize("batch_size", [100, 5])
def test_no_triplet_leaves_the_weights_alone(batch_size):
    # Copies of one face each: no negative is within so small a margin of the positive.
    some = pool_of()
    pool, model = Pool(some.images[some.labels * 3], some.labels), small_network()
    config = config_of(margin=1e-4, weight_decay=0.1, batch_size=batch_size)
    outcome, moved = moved_by(step_of(UniqueStep, model, config), pool)
    assert outcome.n_triplets == 0
    assert not outcome.is_applied
    assert outcome.is_finite
    assert all((change == 0).all() for change in moved)
    assert step_of(TripletStep, model, config).plan(pool, 0) == []


@pytest.mark.parametrize(("name", "batch_size"), [("hinge", 100), ("hinge", 5), ("log_sum_exp", 100)])
def test_embeddings_that_are_not_finite_leave_the_weights_alone(name, batch_size):
    model = small_network()
    model.layers[-2].bias.assign(tf.fill([6], np.float32("nan")))
    config = config_of(loss=name, batch_size=batch_size)
    outcome, _ = moved_by(step_of(UniqueStep, model, config), pool_of())
    assert not outcome.mined.is_finite
    assert not outcome.is_finite
    assert not outcome.is_applied
    with pytest.raises(FloatingPointError, match="not finite"):
        step_of(TripletStep, model, config_of()).plan(pool_of(), 0)


def test_average_follows_with_the_predecessors_warm_up():
    model, averaged = small_network(), small_network()
    step = step_of(UniqueStep, model, config_of(moving_average_decay=0.15, margin=2.0), averaged)
    expected = [v.numpy() for v in averaged.weights]
    for n in range(1, 4):
        assert step.run(pool_of(seed=n), n).is_applied
        # 2/11 = 0.18 exceeds 0.15 from the first step on.
        decay = min(0.15, (1 + n) / (10 + n))
        weights = [v.numpy() for v in model.weights]
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, weights, strict=True)]
    for got, wanted in zip(averaged.weights, expected, strict=True):
        np.testing.assert_allclose(np.asarray(got.value), wanted, rtol=1e-5, atol=1e-7)


# Clipping, and the scaled loss of float16


@pytest.mark.parametrize(("kind", "batch_size"), [(UniqueStep, 100), (UniqueStep, 5), (TripletStep, 30)])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_long_gradients_are_shortened(kind, batch_size, precision):
    def moved(clip_norm):
        model = small_network()
        config = config_of(batch_size=batch_size, clip_norm=clip_norm, precision=precision)
        stepper = step_of(kind, model, config)
        before = [weight.numpy() for weight in model.trainable_variables]
        outcome = stepper.run(stepper.plan(pool_of(), 0)[0], 0)
        assert outcome.is_applied
        after = [weight.numpy() for weight in model.trainable_variables]
        return np.concatenate([(b - a).ravel() for a, b in zip(after, before, strict=True)]), outcome

    plain, outcome = moved(0.0)
    length = np.linalg.norm(plain)
    assert length == pytest.approx(0.1 * outcome.gradient_norm, rel=1e-5)
    shortened, clipped = moved(outcome.gradient_norm / 4)
    assert clipped.gradient_norm == pytest.approx(outcome.gradient_norm, rel=1e-5)  # as it was
    np.testing.assert_allclose(shortened, plain / 4, atol=1e-6 * length)
    np.testing.assert_allclose(moved(outcome.gradient_norm * 1.01)[0], plain, atol=1e-6 * length)


@pytest.mark.parametrize(("kind", "batch_size"), [(UniqueStep, 100), (UniqueStep, 5), (TripletStep, 30)])
def test_a_scaled_loss_moves_weights_as_the_loss_itself(kind, batch_size):
    moved = {}
    for precision in ("float32", "float16"):
        model = small_network(batch_norm=True)
        config = config_of(batch_size=batch_size, precision=precision, weight_decay=0.01)
        stepper = step_of(kind, model, config)
        outcome = stepper.run(stepper.plan(pool_of(), 0)[0], 0)
        moved[precision] = (outcome.loss, outcome.gradient_norm, model.get_weights())
    for scaled, plain in zip(moved["float16"][2], moved["float32"][2], strict=True):
        np.testing.assert_allclose(scaled, plain, atol=1e-6)
    assert moved["float16"][:2] == pytest.approx(moved["float32"][:2], rel=1e-5)


def test_a_gradient_beyond_float16_halves_the_scale_and_moves_nothing():
    model = small_network()
    averaged = small_network(seed=2)
    stepper = step_of(UniqueStep, model, config_of(precision="float16", moving_average_decay=0.9), averaged)
    stepper.optimizer.dynamic_scale.assign(3e38)
    before, average = model.get_weights(), averaged.get_weights()
    outcome = stepper.run(pool_of(), 0)
    assert (outcome.is_rescaled, outcome.is_finite, outcome.is_applied) == (True, True, False)
    assert float(stepper.optimizer.dynamic_scale) == pytest.approx(1.5e38)
    for weights, old in ((model.get_weights(), before), (averaged.get_weights(), average)):
        for one, other in zip(weights, old, strict=True):
            np.testing.assert_array_equal(one, other)
    stepper.optimizer.dynamic_scale.assign(1024.0)
    assert stepper.run(pool_of(), 0).is_applied


class NoSlope(keras.layers.Layer):
    """Adds 0, with a slope that is not a number."""

    def build(self, shape):
        self.w = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return x + tf.sqrt(self.w * 0.0)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_gradient_that_no_scale_mends_is_not_finite(precision):
    plain = small_network()
    model = keras.Model(plain.input, NoSlope()(plain.output))
    stepper = step_of(UniqueStep, model, config_of(precision=precision))
    n_rescaled = 0
    while (outcome := stepper.run(pool_of(), 0)).is_rescaled:
        n_rescaled += 1
    assert not outcome.is_finite
    assert np.isfinite(outcome.loss)
    assert n_rescaled == {"float32": 0, "float16": 25}[precision]  # 2**15 to 2**-10


def test_seeds_differ_by_step_and_chunk_and_repeat():
    seeds = {tuple(step_seed(1, step, chunk)) for step in range(50) for chunk in range(4)}
    assert len(seeds) == 200
    assert tuple(step_seed(1, 3, 2)) in seeds
    assert tuple(step_seed(2, 3, 2)) not in seeds


def test_spread_takes_every_row_once_and_mixes():
    labels = np.repeat([5, 1, 9], [4, 2, 3])
    order = spread(labels)
    assert sorted(order) == list(range(9))
    assert labels[order].tolist() == [5, 1, 9, 5, 1, 9, 5, 9, 5]


def test_a_batch_size_that_is_no_multiple_of_three_is_rounded_with_a_notice(caplog):
    step = step_of(TripletStep, small_network(), config_of(batch_size=11))
    assert "batch_size counts images, three a triplet: 11 is taken as 9" in caplog.text
    assert max(len(work.rows) for work in step.plan(pool_of(), 0)) == 9
