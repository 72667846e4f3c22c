"""The losses as users meet them: both implementations are the formula, in Keras, in graphs, on any batch."""

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast import PRESETS, Interval, Strategy
from facenet_fast.losses import (
    BatchAllTripletLoss,
    SoftMarginTripletLoss,
    TripletHardLoss,
    TripletLoss,
    TripletSemiHardLoss,
    batch_all_triplet_loss,
    labelled,
    soft_margin_triplet_loss,
    triplet_hard_loss,
    triplet_loss,
    triplet_semihard_loss,
)
from tests.losses.literal import (
    batch,
    by_anchor,
    first_once,
    hard_by_anchor,
    lowest,
    one_negative,
    parts,
    preset_mask,
    weighted_mean,
    with_gradient,
)

IMPLEMENTATIONS = ["native", "tensorflow"]
DISTANCES = ["squared_euclidean", "euclidean", "cosine"]
MARGIN = 0.3
WEIGHTS = np.random.default_rng(3).uniform(0.5, 1.5, 11)

SEMI_HARD = Strategy("semi_hard", "both_ways", "every")
FARTHEST = Strategy(Interval(-0.25, 0.5), "both_ways", "farthest")
ABSOLUTE = Strategy(Interval(0.5, 1.5, relative=False), "each_once", "every")


def semi_hard_or_farthest(ap, an, is_triplet):
    """Of each pair the nearest negative beyond the positive, or else the farthest of all."""
    beyond = lowest(an, is_triplet & (ap < an), 2)
    return beyond | (lowest(-an, is_triplet, 2) & ~beyond.any(axis=2, keepdims=True))


OWN_MASKS = {
    SEMI_HARD: lambda ap, an, is_triplet: is_triplet & (ap < an) & (an - ap < MARGIN),
    FARTHEST: lambda ap, an, is_triplet: lowest(-an, is_triplet & (an - ap >= -0.25) & (an - ap < 0.5), 2),
    ABSOLUTE: lambda ap, an, is_triplet: first_once(is_triplet) & (an >= 0.5) & (an < 1.5),
}


@dataclass(frozen=True)
class Case:
    """A loss, and by what it is defined."""

    loss: Any
    distance: str = "squared_euclidean"
    preset: str | None = None
    strategy: Strategy | None = None
    soft: bool = False

    @property
    def batch(self):
        """One on which those who draw have no choice."""
        is_drawn = self.preset and PRESETS[self.preset].pick in ("uniform", "distance_weighted")
        return one_negative() if is_drawn else batch()

    def losses(self, x, labels):
        """The losses of the anchors by the formula, in float64."""
        if self.loss.func is triplet_hard_loss:
            return hard_by_anchor(x, labels, MARGIN, self.distance, self.soft)
        rows = x.numpy()
        if self.preset is not None:
            mask = preset_mask(self.preset, rows, labels, MARGIN, self.distance)
        elif self.strategy is not None:
            mask = OWN_MASKS[self.strategy](*parts(rows, labels, self.distance))
        else:
            mask = semi_hard_or_farthest(*parts(rows, labels, self.distance))
        assert np.count_nonzero(mask) > 2
        return by_anchor(x, mask, MARGIN, self.distance, self.soft)

    @property
    def is_summed(self):
        """Whether the core sums up, in float32's precision."""
        summed = self.preset == "batch_all" or self.strategy is SEMI_HARD
        return summed and not self.soft


def triplet(distance="squared_euclidean", preset=None, strategy=None):
    function = partial(triplet_loss, strategy=preset or strategy, margin=MARGIN, distance=distance)
    return Case(function, distance, preset, strategy)


def soft_margin(distance="euclidean", preset=None, strategy=None):
    function = partial(
        soft_margin_triplet_loss, strategy=preset or strategy, margin=MARGIN, distance=distance
    )
    return Case(function, distance, preset, strategy, soft=True)


def batch_all(distance):
    return Case(partial(batch_all_triplet_loss, margin=MARGIN, distance=distance), distance, "batch_all")


def semi_hard(metric, distance):
    return Case(partial(triplet_semihard_loss, margin=MARGIN, distance_metric=metric), distance)


def hard(metric, distance, soft=False):
    function = partial(triplet_hard_loss, margin=MARGIN, distance_metric=metric, soft=soft)
    return Case(function, distance, soft=soft)


CASES = {
    **{name: triplet(DISTANCES[i % 3], name) for i, name in enumerate(PRESETS)},
    "of_own_every": triplet("euclidean", strategy=SEMI_HARD),
    "of_own_farthest": triplet("cosine", strategy=FARTHEST),
    "of_own_absolute": triplet(strategy=ABSOLUTE),
    **{f"batch_all_{distance}": batch_all(distance) for distance in DISTANCES},
    "soft_margin": soft_margin(preset="batch_hard"),
    "soft_margin_batch_all": soft_margin("cosine", "batch_all"),
    "soft_margin_of_own": soft_margin("squared_euclidean", strategy=FARTHEST),
    "semi_hard": semi_hard("L2", "euclidean"),
    "hard": hard("L2", "euclidean"),
    "hard_soft_cosine": hard("angular", "cosine", soft=True),
}
# One of each function, for what does not depend on the strategy.
ONES = {name: CASES[name] for name in ("of_own_farthest", "batch_all", "soft_margin", "semi_hard", "hard")}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", CASES)
def test_every_loss_is_its_literal_formula(name, implementation):
    case = CASES[name]
    rows, labels = case.batch
    tolerance = 1e-5 if case.is_summed and implementation == "native" else 1e-9
    for weights in (None, WEIGHTS):
        expected = with_gradient(rows, lambda x, w=weights: weighted_mean(case.losses(x, labels), w))
        loss, gradient = with_gradient(
            rows,
            lambda x, w=weights: case.loss(labels, x, sample_weight=w, implementation=implementation),
        )
        assert loss.dtype == gradient.dtype == np.float64
        assert loss == pytest.approx(expected[0], rel=tolerance)
        assert expected[0] > 0.01
        np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=tolerance)
        assert np.abs(expected[1]).max() > 0.01


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", PRESETS)
def test_native_presets_have_every_distance(name, distance):
    case = triplet(distance, name)
    rows, labels = case.batch
    expected = with_gradient(rows, lambda x: weighted_mean(case.losses(x, labels)))
    found = with_gradient(rows, lambda x: case.loss(labels, x, implementation="native"))
    for value, literal in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, literal, rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ONES)
def test_gradients_are_finite_differences(name, implementation):
    case = ONES[name]
    rows, labels = batch()
    loss_of = partial(case.loss, labels, sample_weight=WEIGHTS, implementation=implementation)
    _, gradient = with_gradient(rows, loss_of)
    # A sum of float32's precision wants a longer step.
    step, tolerance = (1e-3, 3e-3) if case.is_summed and implementation == "native" else (1e-6, 1e-7)
    for direction in np.random.default_rng(4).normal(size=(3, *rows.shape)):
        ahead, behind = (float(loss_of(rows + sign * step * direction)) for sign in (1, -1))
        assert (gradient * direction).sum() == pytest.approx((ahead - behind) / (2 * step), abs=tolerance)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ONES)
def test_half_precision_is_computed_in_float32(name, implementation):
    loss_of = ONES[name].loss
    rows, labels = batch()
    for dtype in (tf.float16, tf.bfloat16):
        half = tf.cast(rows, dtype)
        loss, gradient = with_gradient(half, lambda x: loss_of(labels, x, implementation=implementation))
        expected = with_gradient(
            tf.cast(half, tf.float32), lambda x: loss_of(labels, x, implementation=implementation)
        )
        assert loss == expected[0]
        assert loss.dtype == np.float32
        np.testing.assert_array_equal(gradient, expected[1].astype(gradient.dtype))
        assert gradient.dtype == dtype.as_numpy_dtype


def without(kind):
    rows, labels = batch(np.float32)
    # Nearer to each other than the margin.
    rows *= 0.1
    return {
        "no positive pair": (rows, np.arange(11)),
        "one identity": (rows, np.zeros(11, int)),
        "one row": (rows[:1], labels[:1]),
        "no rows": (rows[:0], labels[:0]),
    }[kind]


@pytest.mark.parametrize("kind", ["no positive pair", "one identity", "one row", "no rows"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ONES)
def test_without_triplets_loss_and_gradient_are_0(name, implementation, kind):
    rows, labels = without(kind)
    weights = WEIGHTS[: len(rows)]
    for w in (None, weights):
        loss, gradient = with_gradient(
            rows, lambda x, w=w: ONES[name].loss(labels, x, sample_weight=w, implementation=implementation)
        )
        assert loss == 0.0
        np.testing.assert_array_equal(gradient, np.zeros(rows.shape, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", [*ONES, "soft_margin_batch_all", "hard_soft_cosine"])
def test_an_embedding_that_is_not_finite_makes_all_nan(name, implementation, bad):
    rows, labels = batch(np.float32)
    rows[6, 2] = bad
    for labels_, weights in ((labels, None), (labels, WEIGHTS), (np.arange(11), None)):
        loss, gradient = with_gradient(
            rows,
            lambda x, y=labels_, w=weights: CASES[name].loss(
                y, x, sample_weight=w, implementation=implementation
            ),
        )
        assert np.isnan(loss)
        assert np.isnan(gradient).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", [*ONES, "batch_all_euclidean", "soft_margin_batch_all"])
def test_coincident_rows_have_finite_gradients(name, implementation):
    case = CASES[name]
    rows, labels = batch(np.float32)
    some = rows.copy()
    some[np.flatnonzero(labels == 5)[:2]] = some[np.flatnonzero(labels == 3)[0]]
    for x in (some, np.repeat(rows[:1], 11, axis=0)):
        loss, gradient = with_gradient(x, partial(case.loss, labels, implementation=implementation))
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()
    # Of the last, where all are one: what no distance costs, if there are triplets at all.
    if name != "of_own_farthest":
        assert loss == pytest.approx(np.log(2.0) if case.soft else MARGIN, rel=1e-5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "name", ["of_own_farthest", "soft_margin_batch_all", "hard_soft_cosine", "batch_all_cosine"]
)
def test_rows_of_zeros_have_a_cosine(name, implementation):
    rows, labels = batch()
    rows[[2, 7]] = 0.0
    loss, gradient = with_gradient(rows, partial(CASES[name].loss, labels, implementation=implementation))
    assert np.isfinite(loss)
    assert loss > 0
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[[2, 7]], 0.0)
    assert np.abs(gradient).max() > 0.01


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ONES)
def test_labels_of_any_dtype(name, implementation):
    rows, labels = batch(np.float32)
    loss_of = partial(ONES[name].loss, y_pred=rows, implementation=implementation)
    expected = float(loss_of(labels))
    for same in (
        labels.astype(np.uint8),
        labels.astype(np.float32),
        labels.tolist(),
        tf.constant(labels[:, None]),
        labels + 2**53,
        [f"who {label}" for label in labels],
        tf.constant([f"Zoë {label}" for label in labels]),
    ):
        assert float(loss_of(same)) == pytest.approx(expected, rel=1e-6)
    two = float(loss_of(labels == 5))
    assert two == pytest.approx(float(loss_of((labels == 5).astype(int))), rel=1e-6)
    assert two != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ONES)
def test_what_does_not_fit_is_refused(name, implementation):
    rows, labels = batch(np.float32)
    loss_of = partial(ONES[name].loss, implementation=implementation)
    one_hot = np.equal.outer(labels, np.arange(9)).astype(np.float32)
    with pytest.raises(ValueError, match=r"column for each class; got \(11, 9\) with embeddings \(11, 4"):
        loss_of(one_hot, rows)
    with pytest.raises(ValueError, match=r"one for each of the embeddings .*; got \(10,\) with"):
        loss_of(labels[:-1], rows)
    with pytest.raises(ValueError, match=r"labels must have shape \(n_images,\).*; got \(\) with embeddings"):
        loss_of(3, rows)
    with pytest.raises(ValueError, match=r"must have shape \(n_images, embedding_size\); got \(11, 2, 2\)"):
        loss_of(labels, rows.reshape(11, 2, 2))
    with pytest.raises(TypeError, match="embeddings must be of a floating dtype; got int32"):
        loss_of(labels, rows.astype(np.int32))
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(11,\), .*; got \(10,\)"):
        loss_of(labels, rows, sample_weight=WEIGHTS[:-1])


BAD_ARGUMENTS = [
    ({"margin": 0.0}, ValueError, "margin must be positive and finite; got 0.0"),
    ({"margin": None}, TypeError, "margin must be a number; got None"),
    ({"implementation": "numpy"}, ValueError, "must be one of auto, native, tensorflow; got 'numpy'"),
]
BAD_DISTANCE = [
    (
        {"distance": "L2"},
        ValueError,
        "distance must be one of squared_euclidean, euclidean, cosine; got 'L2'",
    ),
]
BAD_STRATEGY = [
    *BAD_DISTANCE,
    ({"strategy": "hardst"}, ValueError, "strategy must be one of batch_all, .*; got 'hardst'"),
    ({"strategy": None}, TypeError, "strategy must be a preset's name or a Strategy; got None"),
    ({"seed": -1}, ValueError, r"seed must be in \[0, 2147483647\]; got -1"),
    ({"seed": 0.5}, TypeError, "seed must be a whole number; got 0.5"),
]
BAD_METRIC = [
    ({"distance_metric": "L1"}, ValueError, "metric must be one of L2, squared-L2, angular; got 'L1'"),
]
BAD = [
    *((triplet_loss, TripletLoss, *bad) for bad in BAD_ARGUMENTS + BAD_STRATEGY),
    *((soft_margin_triplet_loss, SoftMarginTripletLoss, *bad) for bad in BAD_ARGUMENTS + BAD_STRATEGY),
    *((batch_all_triplet_loss, BatchAllTripletLoss, *bad) for bad in BAD_ARGUMENTS + BAD_DISTANCE),
    *((triplet_semihard_loss, TripletSemiHardLoss, *bad) for bad in BAD_ARGUMENTS + BAD_METRIC),
    *((triplet_hard_loss, TripletHardLoss, *bad) for bad in BAD_ARGUMENTS + BAD_METRIC),
    (triplet_hard_loss, TripletHardLoss, {"soft": 1}, TypeError, "soft must be True or False; got 1"),
]


@pytest.mark.parametrize(("function", "loss_class", "bad", "error", "message"), BAD)
def test_bad_arguments(function, loss_class, bad, error, message):
    rows, labels = batch(np.float32)
    with pytest.raises(error, match=message):
        function(labels, rows, **bad)
    with pytest.raises(error, match=message):
        loss_class(**bad)


# -- as Keras losses ---------------------------------------------------------------------------------------

CLASSES = {
    "of_own_farthest": partial(TripletLoss, FARTHEST, MARGIN, "cosine"),
    "batch_all": partial(BatchAllTripletLoss, MARGIN),
    "soft_margin": partial(SoftMarginTripletLoss, margin=MARGIN),
    "semi_hard": partial(TripletSemiHardLoss, MARGIN),
    "hard": partial(TripletHardLoss, MARGIN),
}
CASES["batch_all"] = CASES["batch_all_squared_euclidean"]
ONES["batch_all"] = CASES["batch_all"]

KERNEL = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
RATE = 0.1


def tiny_model(loss, optimizer=None, **options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    model.layers[0].kernel.assign(KERNEL)
    model.compile(optimizer=optimizer or keras.optimizers.SGD(RATE), loss=loss, **options)
    return model


def literal_step(case, labels, kernel, weights=None):
    """The loss of a batch, and the kernel after a step."""
    rows, _ = batch()
    loss, gradient = with_gradient(
        kernel.astype(np.float64), lambda k: weighted_mean(case.losses(rows @ k, labels), weights)
    )
    return loss, kernel - RATE * gradient


def fit_once(model, labels, **options):
    rows, _ = batch(np.float32)
    history = model.fit(rows, labels, batch_size=11, epochs=1, verbose=0, **options)
    return history.history["loss"][0], model.layers[0].kernel.numpy()


AS_LABELS = {
    "of_own_farthest": lambda labels: labels.astype(np.int64) + 2**24,
    "batch_all": lambda labels: labels[:, None].astype(np.int32) + 2**24,
    "soft_margin": lambda labels: labels.astype(np.uint8),
    "semi_hard": lambda labels: labels.astype(np.float32),
    "hard": lambda labels: labels == 5,
}


HEADS = [(name, implementation) for name in CLASSES for implementation in IMPLEMENTATIONS]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model with a head for each class and implementation, fitted for a step, saved, loaded, evaluated."""
    rows, labels = batch(np.float32)
    inputs = keras.Input((4,))
    names = ["-".join(head) for head in HEADS]
    outputs = {name: keras.layers.Dense(3, use_bias=False, name=name)(inputs) for name in names}
    model = keras.Model(inputs, outputs)
    for name in names:
        model.get_layer(name).kernel.assign(KERNEL)
    losses = {"-".join(head): CLASSES[head[0]](implementation=head[1]) for head in HEADS}
    model.compile(optimizer=keras.optimizers.SGD(RATE), loss=losses)
    targets = {"-".join(head): AS_LABELS[head[0]](labels) for head in HEADS}
    history = model.fit(rows, targets, batch_size=11, verbose=0).history
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    evaluated = loaded.evaluate(rows, targets, batch_size=11, verbose=0, return_dict=True)
    return model, history, loaded, evaluated


@pytest.mark.parametrize(("name", "implementation"), HEADS)
def test_fit_evaluate_save_and_load(name, implementation, fitted):
    model, history, loaded, evaluated = fitted
    head = f"{name}-{implementation}"
    labels = AS_LABELS[name](batch()[1]).ravel()
    expected, stepped = literal_step(ONES[name], labels, KERNEL)
    kernel = model.get_layer(head).kernel.numpy()
    assert history[f"{head}_loss"][0] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(kernel, stepped, rtol=0, atol=1e-5)
    assert np.abs(kernel - KERNEL).max() > 1e-3

    assert type(loaded.loss[head]) is CLASSES[name].func
    assert settings_of(loaded.loss[head]) == settings_of(model.loss[head])
    after, _ = literal_step(ONES[name], labels, kernel)
    assert evaluated[f"{head}_loss"] == pytest.approx(after, rel=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_run_eagerly_with_sample_weights(name):
    _, labels = batch()
    model = tiny_model(CLASSES[name](), run_eagerly=True)
    expected, stepped = literal_step(ONES[name], labels, KERNEL, WEIGHTS)
    loss, kernel = fit_once(model, labels, sample_weight=WEIGHTS)
    assert loss == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(kernel, stepped, rtol=0, atol=1e-5)


def test_text_labels_from_a_dataset():
    rows, labels = batch(np.float32)
    names = [f"who {label}" for label in labels]
    dataset = tf.data.Dataset.from_tensor_slices((rows, names)).batch(11)
    model = tiny_model(CLASSES["batch_all"]())
    expected, stepped = literal_step(ONES["batch_all"], labels, KERNEL)
    history = model.fit(dataset, shuffle=False, verbose=0)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(model.layers[0].kernel.numpy(), stepped, rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["of_own_farthest", "batch_all", "hard"])
def test_a_loop_of_ones_own(name, implementation):
    rows, labels = batch(np.float32)
    loss_of = CLASSES[name](implementation=implementation)

    def step(x, y, weights):
        kernel = tf.constant(KERNEL)
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = loss_of(y, x @ kernel, sample_weight=weights)
        return loss, tape.gradient(loss, kernel)

    # With N known only when it runs.
    shapes = [tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64), tf.TensorSpec([None])]
    graph = tf.function(step, input_signature=shapes)
    for weights in (np.full(11, 2.0, np.float32), WEIGHTS.astype(np.float32)):
        expected, stepped = literal_step(ONES[name], labels, KERNEL, weights)
        for loss, gradient in (f(rows, labels, weights) for f in (step, graph)):
            assert float(loss) == pytest.approx(expected, rel=1e-4)
            np.testing.assert_allclose(KERNEL - RATE * gradient.numpy(), stepped, rtol=0, atol=1e-5)
    # A later batch of another size through the same graph.
    loss, gradient = graph(rows[:1], labels[:1], weights[:1])
    assert float(loss) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def refuse(*_):
    raise AssertionError("the native implementation was asked")


def test_xla_compiles_what_auto_takes(monkeypatch):
    rows, labels = batch(np.float32)
    monkeypatch.setattr(labelled.native, "loss_by_anchor", refuse)
    loss_of = CLASSES["batch_all"]()
    with pytest.raises(AssertionError, match="the native implementation was asked"):
        loss_of(labels, rows)

    @tf.function(jit_compile=True)
    def step(x, y, weights):
        kernel = tf.constant(KERNEL)
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = loss_of(y, x @ kernel, sample_weight=weights)
        return loss, tape.gradient(loss, kernel)

    loss, gradient = step(rows, tf.constant(labels + 2**40), tf.constant(WEIGHTS, tf.float32))
    expected, stepped = literal_step(ONES["batch_all"], labels, KERNEL, WEIGHTS)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(KERNEL - RATE * gradient.numpy(), stepped, rtol=0, atol=1e-5)


def test_xla_compiles_a_model():
    _, labels = batch()
    model = tiny_model(TripletHardLoss(MARGIN), jit_compile=True)
    expected, stepped = literal_step(ONES["hard"], labels, KERNEL)
    loss, kernel = fit_once(model, labels.astype(np.int64) + 2**24)
    assert loss == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(kernel, stepped, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_xla_does_not_compile_the_native_one(name):
    rows, labels = batch(np.float32)
    message = "'native' must not be compiled by XLA: compile the model with jit_compile=False"
    compiled = tf.function(CLASSES[name](implementation="native"), jit_compile=True)
    with pytest.raises(ValueError, match=message):
        compiled(labels, rows)


def test_xla_does_not_compile_a_model_with_the_native_one():
    model = tiny_model(TripletLoss("batch_hard", implementation="native"), jit_compile=True)
    with pytest.raises(ValueError, match="'native' must not be compiled by XLA"):
        fit_once(model, batch()[1])


@pytest.mark.parametrize("name", CLASSES)
def test_reductions(name):
    rows, labels = batch(np.float32)
    expected = ONES[name].losses(tf.constant(rows, tf.float64), labels).numpy()
    for weights in (None, WEIGHTS):
        weighted = expected * (1.0 if weights is None else weights)
        for reduction, value in {
            "sum": weighted.sum(),
            "sum_over_batch_size": weighted.mean(),
            "mean": weighted.mean(),
            "mean_with_sample_weight": weighted.sum() / (11 if weights is None else weights.sum()),
            "none": weighted,
            None: weighted,
        }.items():
            found = CLASSES[name](reduction=reduction)(labels, rows, sample_weight=weights)
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)
            assert found.shape == np.shape(value)


@pytest.mark.parametrize("name", CLASSES)
def test_a_mask_leaves_out_anchors(name):
    rows, labels = batch(np.float32)
    expected = ONES[name].losses(tf.constant(rows, tf.float64), labels).numpy()
    is_seen = np.arange(11) % 3 > 0
    x = tf.constant(rows)
    x._keras_mask = tf.constant(is_seen)
    assert float(CLASSES[name]()(labels, x)) == pytest.approx(expected[is_seen].mean(), rel=1e-4)
    weighted = (expected * WEIGHTS)[is_seen].mean()
    assert float(CLASSES[name]()(labels, x, sample_weight=WEIGHTS)) == pytest.approx(weighted, rel=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_refuse_what_functions_refuse(name):
    rows, labels = batch(np.float32)
    loss_of = CLASSES[name]()
    one_hot = np.equal.outer(labels, np.arange(9)).astype(np.float32)
    with pytest.raises(ValueError, match=r"column for each class; got \(11, 9\) with embeddings \(11, 4"):
        loss_of(one_hot, rows)
    with pytest.raises(ValueError, match=r"one for each of the embeddings .*; got \(10,\) with"):
        loss_of(labels[:-1], rows)
    with pytest.raises(TypeError, match="embeddings must be of a floating dtype; got int64"):
        loss_of(labels, rows.astype(np.int64))


def test_fit_refuses_a_column_for_each_class():
    with pytest.raises(ValueError, match="not a column for each class"):
        fit_once(tiny_model(TripletLoss()), np.eye(11, 9, dtype=np.float32))


@pytest.mark.parametrize("name", CLASSES)
def test_computed_in_the_dtype_of_the_loss(name):
    rows, labels = batch()
    case = ONES[name]
    # The native sum is of float32's precision.
    implementation = "tensorflow" if case.is_summed else "native"
    for dtype in ("float64", keras.DTypePolicy("float64")):
        found = CLASSES[name](dtype=dtype, implementation=implementation)(labels, rows)
        assert found.dtype == tf.float64
        expected = float(weighted_mean(case.losses(tf.constant(rows), labels)))
        assert float(found) == pytest.approx(expected, rel=1e-9)
    assert CLASSES[name]()(labels, rows).dtype == tf.float32


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "bfloat16") for name in CLASSES),
        *(("hard", dtype) for dtype in ("float16", "mixed_float16", keras.DTypePolicy("mixed_bfloat16"))),
    ],
)
def test_a_loss_of_half_precision_is_computed_in_float32(name, dtype):
    # Of more labels than bfloat16 has whole numbers: 257 would be 256.
    labels = np.concatenate((np.arange(260), np.arange(255, 260)))
    rows = np.random.default_rng(6).normal(size=(len(labels), 2)).astype(np.float16)
    expected = CLASSES[name](implementation="native")(labels, rows)
    found = CLASSES[name](implementation="native", dtype=dtype)(labels, rows)
    assert found.dtype == tf.float32
    assert float(found) == float(expected)


def test_a_floatx_of_half_precision_is_not_that_of_losses():
    keras.config.set_floatx("bfloat16")
    try:
        assert TripletLoss().dtype == "float32"
    finally:
        keras.config.set_floatx("float32")
    assert TripletLoss().dtype == "float32"


@pytest.fixture
def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", ["batch_all", "hard"])
def test_a_model_of_mixed_precision(name, mixed_float16):
    rows, labels = batch(np.float32)
    # A scale at which nothing overflows: such steps are left out.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=64.0)
    model = tiny_model(CLASSES[name](), optimizer)
    assert model(rows).dtype == tf.float16
    embeddings = tf.cast(model(rows), tf.float64)
    expected = float(weighted_mean(ONES[name].losses(embeddings, labels)))
    _, stepped = literal_step(ONES[name], labels, KERNEL)
    loss, kernel = fit_once(model, labels)
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(kernel, stepped, rtol=0, atol=0.02 * np.abs(stepped - KERNEL).max())


CONFIGURED = {
    **{name: make() for name, make in CLASSES.items()},
    "preset": TripletLoss("easy_positive", 0.7, "euclidean", seed=4, implementation="tensorflow"),
    "interval": TripletLoss(
        Strategy(
            Interval(-0.5, float("inf"), low_is_open=True),
            "hardest_positive",
            "nearest",
            n_positives=2,
            n_negatives=3,
            max_positive_distance=1.5,
            positive_quantile=0.9,
            skip_hardest=0.1,
            if_empty="farthest",
            source="somebody",
        ),
        reduction="sum",
        name="mine",
    ),
    "soft_interval": SoftMarginTripletLoss(ABSOLUTE, "cosine", margin=0.4, seed=0, reduction=None),
    "all_of_batch_all": BatchAllTripletLoss(
        0.7, "cosine", implementation="native", name="b", dtype="float64"
    ),
    "all_of_semi_hard": TripletSemiHardLoss(0.7, "angular", "s", implementation="native", reduction="sum"),
    "all_of_hard": TripletHardLoss(
        0.7, True, "squared-L2", "h", implementation="tensorflow", reduction="none"
    ),
}


def settings_of(loss):
    known = {"name", "reduction", "recipe", "seed", "implementation", "margin", "soft", "distance", "dtype"}
    return {name: getattr(loss, name) for name in known | {"distance_metric"} if hasattr(loss, name)}


@pytest.mark.parametrize("name", CONFIGURED)
def test_configs_make_the_same_loss(name):
    loss = CONFIGURED[name]
    made = type(loss).from_config(loss.get_config())
    assert settings_of(made) == settings_of(loss)
    # Through a file, as models are saved.
    text = json.dumps(keras.saving.serialize_keras_object(loss))
    loaded = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(loaded) is type(loss)
    assert settings_of(loaded) == settings_of(loss)
    assert loaded.get_config() == loss.get_config()


def test_a_preset_is_configured_by_its_name():
    assert TripletLoss().get_config()["strategy"] == "facenet"
    assert TripletLoss(PRESETS["batch_hard"]).get_config()["strategy"] == "batch_hard"
    assert isinstance(TripletLoss(FARTHEST).get_config()["strategy"], dict)


def test_models_with_a_strategy_of_ones_own_are_saved(tmp_path):
    model = tiny_model(CONFIGURED["interval"])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert settings_of(loaded.loss) == settings_of(CONFIGURED["interval"])


# -- chance ------------------------------------------------------------------------------------------------


def drawn(loss_of, n=3):
    rng = np.random.default_rng(7)
    rows, labels = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 4, 40)
    return [float(loss_of(labels, rows)) for _ in range(n)]


@pytest.mark.parametrize(
    ("make", "implementation"),
    [(TripletLoss, "native"), (TripletLoss, "tensorflow"), (SoftMarginTripletLoss, "native")],
)
def test_seeds(make, implementation):
    def fresh(seed=None):
        options = {"distance": "squared_euclidean", "seed": seed, "implementation": implementation}
        return make("vgg_face", margin=1.0, **options)

    one = drawn(tf.function(fresh(5)))
    assert len(set(one)) == 3
    assert drawn(tf.function(fresh(5))) == one
    assert drawn(tf.function(fresh(6))) != one
    # And eagerly, where TensorFlow counts the calls since the last of these.
    for seed in (5, None):
        tf.random.set_seed(1)
        one = drawn(fresh(seed))
        tf.random.set_seed(1)
        assert drawn(fresh(seed)) == one
        assert len(set(one)) == 3
        tf.random.set_seed(2)
        assert drawn(fresh(seed)) != one
    assert drawn(fresh()) != drawn(fresh())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "strategy",
    [
        Strategy("violating", "random_positives", "nearest"),
        Strategy("violating", "hardest_positive", "uniform"),
        Strategy("violating", "random_positives", "every"),
    ],
)
def test_whatever_draws_draws_anew(strategy, implementation):
    loss_of = TripletLoss(strategy, 1.0, implementation=implementation)
    assert len(set(drawn(loss_of))) == 3


def test_weighted_draws_are_drawn_anew():
    loss_of = TripletLoss("distance_weighted", 1.0, "cosine", implementation="native")
    assert len(set(drawn(loss_of))) == 3


# -- more than one device, and what is imported --------------------------------------------------------------


def test_importing_the_package_does_not_import_tensorflow():
    code = "import sys, facenet_fast; print([name in sys.modules for name in ('tensorflow', 'keras')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False]", done.stdout


ON_TWO_DEVICES = """
import json, sys
import facenet_fast.losses
assert "tensorflow" in sys.modules and "keras" in sys.modules
import keras
import numpy as np
import tensorflow as tf
from facenet_fast.losses import BatchAllTripletLoss, TripletLoss

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
given = json.load(sys.stdin)
rows, kernel = (np.array(given[name], np.float32) for name in ("rows", "kernel"))
labels = np.array(given["labels"], np.int64) + 2**24
losses = {
    "batch_hard-native": TripletLoss("batch_hard", 0.3, implementation="native"),
    "batch_all-native": BatchAllTripletLoss(0.3, implementation="native"),
    "batch_hard-tensorflow": TripletLoss("batch_hard", 0.3, implementation="tensorflow"),
    "batch_all-tensorflow": BatchAllTripletLoss(0.3, implementation="tensorflow"),
}
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    inputs = keras.Input((4,))
    outputs = {name: keras.layers.Dense(3, use_bias=False, name=name)(inputs) for name in losses}
    model = keras.Model(inputs, outputs)
    for name in losses:
        model.get_layer(name).kernel.assign(kernel)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=losses)
targets = {name: labels for name in losses}
history = model.fit(rows, targets, batch_size=len(rows), shuffle=False, verbose=0).history
heads = {
    name: (history[name + "_loss"][0], model.get_layer(name).kernel.numpy().tolist()) for name in losses
}
print(json.dumps({"replicas": strategy.num_replicas_in_sync, "heads": heads}))
"""


def test_two_replicas_have_the_mean_of_their_losses():
    (rows, labels), (more, others) = batch(seed=0), batch(seed=2)
    # Halves, of which each replica has one.
    rows, labels = np.concatenate((rows, more)).astype(np.float32), np.concatenate((labels, others))
    given = {"rows": rows.tolist(), "kernel": KERNEL.tolist(), "labels": labels.tolist()}
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    assert len(found["heads"]) == 4
    for name, (loss, kernel) in found["heads"].items():
        case = triplet(preset=name.split("-")[0])

        def mean_of_halves(kernel, case=case):
            halves = [case.losses(rows[half] @ kernel, labels[half]) for half in (slice(11), slice(11, 22))]
            return (weighted_mean(halves[0]) + weighted_mean(halves[1])) / 2

        expected, gradient = with_gradient(KERNEL.astype(np.float64), mean_of_halves)
        assert loss == pytest.approx(expected, rel=1e-4), name
        np.testing.assert_allclose(kernel, KERNEL - RATE * gradient, rtol=0, atol=1e-5)
