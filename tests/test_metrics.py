"""Keras metrics against what they mean, counted one by one, alone and inside compile, fit and evaluate."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast import count_triplets, nearest_neighbors
from facenet_fast.metrics import (
    ActiveTripletFraction,
    MeanNegativeDistance,
    MeanPositiveDistance,
    RecallAtK,
)

DISTANCES = ("squared_euclidean", "euclidean", "cosine")
KINDS = (ActiveTripletFraction, MeanPositiveDistance, MeanNegativeDistance, RecallAtK)


def batch_of(n_rows, n_identities, seed=0, size=3, noise=0.6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_identities, n_rows)
    centres = np.random.default_rng(99).standard_normal((n_identities, size))
    return labels, (centres[labels] + noise * rng.standard_normal((n_rows, size))).astype(np.float32)


def distance_of(x, y, distance):
    x, y = x.astype(np.float64), y.astype(np.float64)
    if distance == "cosine":
        return 1 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
    return np.sum((x - y) ** 2) if distance == "squared_euclidean" else np.linalg.norm(x - y)


def literal(batches, distance, margin):
    """The fraction of active triplets and both mean distances, pair by pair and triplet by triplet."""
    active, d_ap, d_an = [], [], []
    for labels, rows in batches:
        d = [[distance_of(x, y, distance) for y in rows] for x in rows]
        every = range(len(rows))
        for i, j in itertools.combinations(every, 2):
            (d_ap if labels[i] == labels[j] else d_an).append(d[i][j])
        for a, p, n in itertools.product(every, repeat=3):
            if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
                active.append(d[a][p] - d[a][n] + margin > 0)
    return [np.mean(values) if values else 0.0 for values in (active, d_ap, d_an)]


def literal_recall(labels, rows, k, distance):
    """One image after the other, its neighbors sorted by distance and then by row."""
    hits = []
    for i, row in enumerate(rows):
        if np.sum(labels == labels[i]) > 1:
            others = sorted((distance_of(row, rows[j], distance), j) for j in range(len(rows)) if j != i)
            hits.append(any(labels[j] == labels[i] for _, j in others[:k]))
    return np.mean(hits) if hits else 0.0


def value_of(metric, *batches):
    metric.reset_state()
    for batch in batches:
        metric.update_state(*batch)
    return float(metric.result())


@pytest.mark.parametrize("distance", DISTANCES)
def test_equals_the_definition(distance):
    batches = [batch_of(n, 4, seed) for seed, n in enumerate((13, 20, 1, 7))]
    for margin in (0.05, 0.9):
        metrics = [
            ActiveTripletFraction(margin, distance),
            MeanPositiveDistance(distance),
            MeanNegativeDistance(distance),
        ]
        wanted = literal(batches, distance, margin)
        assert 0.05 < wanted[0] < 0.95
        for metric, value in zip(metrics, wanted, strict=True):
            assert value_of(metric, *batches) == pytest.approx(value, rel=1e-6)
            assert metric.result().dtype == tf.float32


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_active_triplets_are_those_that_are_mined(distance):
    labels, rows = batch_of(150, 9, size=16)
    active = count_triplets(rows, labels, margin=0.3, distance=distance).n_triplets
    same = labels[:, None] == labels
    valid = int(((same.sum(axis=1) - 1) * (~same).sum(axis=1)).sum())
    assert value_of(ActiveTripletFraction(0.3, distance), (labels, rows)) == np.float32(active / valid)


def test_exactly_on_the_margin_is_not_active():
    # d_an - d_ap is 1 for the anchor at 0.
    rows, labels = [[0.0], [0.0], [1.0]], [0, 0, 1]
    assert value_of(ActiveTripletFraction(1.0), (labels, rows)) == 0.0
    assert value_of(ActiveTripletFraction(1.0 + 1e-9), (labels, rows)) == 1.0


def test_close_rows_far_from_the_origin_keep_their_distances():
    rows = np.array([[10000.0, 1.0], [10000.0, 1.001], [10000.0, 3.0]], np.float32)
    d_ap = float(rows[1, 1]) - float(rows[0, 1])
    assert value_of(MeanPositiveDistance("euclidean"), ([1, 1, 2], rows)) == pytest.approx(d_ap, rel=1e-5)
    twins = np.random.default_rng(0).standard_normal((1, 128)).astype(np.float32)[[0, 0, 0]]
    assert value_of(MeanPositiveDistance("euclidean"), ([1, 1, 1], twins)) < 1e-6


def test_counts_beyond_what_float32_holds():
    # 600 * 199 * 400 triplets, beyond 2**25: float32 would not count two more.
    labels = np.repeat([0, 1, 2], 200)
    metric = ActiveTripletFraction()
    metric.update_state(labels, 9.0 * labels[:, None])
    metric.update_state([0, 0, 1], [[0.0], [1.0], [0.0]])
    total, count = (float(tf.convert_to_tensor(variable)) for variable in metric.variables)
    assert (total, count) == (2.0, 600 * 199 * 400 + 2)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("k", [1, 3, 50])
def test_recall_equals_the_definition_after_every_batch(distance, k):
    metric = RecallAtK(k, distance)
    labels, rows = batch_of(60, 20, size=2, noise=1.0)
    begin = 0
    for n in (7, 1, 20, 3, 29):
        metric.update_state(labels[begin : begin + n], rows[begin : begin + n])
        begin += n
        wanted = literal_recall(labels[:begin], rows[:begin], k, distance)
        assert float(metric.result()) == pytest.approx(wanted, rel=1e-6)
        assert float(metric.result()) == pytest.approx(wanted, rel=1e-6)
    assert k == 50 or 0.1 < wanted < 0.9


@pytest.mark.parametrize("k", [1, 2, 4, 20])
def test_recall_does_not_depend_on_batches_even_among_ties(k):
    rng = np.random.default_rng(5)
    labels, rows = rng.integers(0, 40, 90), rng.integers(0, 3, (90, 2)).astype(np.float32)
    found = nearest_neighbors(rows, k=k)
    counts = np.bincount(labels)[labels] > 1
    wanted = (labels[found.indices] == labels[:, None]).any(axis=1)[counts].mean()
    for ends in ([], [1, 2, 3, 50], list(range(1, 90)), [45]):
        parts = list(zip(np.split(labels, ends), np.split(rows, ends), strict=True))
        asked, once = RecallAtK(k), RecallAtK(k)
        for part in parts:
            asked.update_state(*part)
            asked.result()
        assert float(asked.result()) == pytest.approx(wanted, rel=1e-6)
        assert value_of(once, *parts) == pytest.approx(wanted, rel=1e-6)


def test_recall_where_there_are_fewer_than_k():
    ones = np.ones((3, 2), np.float32)
    assert value_of(RecallAtK(5), ([1, 1, 2], ones)) == 1.0
    assert value_of(RecallAtK(5), ([1, 2, 3], ones)) == 0.0
    assert value_of(RecallAtK(5), ([1], ones[:1]), ([2], ones[:1]), ([1], ones[:1])) == 1.0


def test_recall_of_many_batches_costs_one_search():
    # From the start again after every batch would look at 27 times as many distances.
    labels, rows = batch_of(4000, 400, size=8)
    looked_at = []

    def counted(queries, database=None, k=1, **options):
        looked_at.append(len(queries) * len(queries if database is None else database))
        return nearest_neighbors(queries, database, k, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facenet_fast.metrics.nearest_neighbors", counted)
        metric = RecallAtK(5)
        for part in np.split(np.arange(4000), 80):
            metric.update_state(labels[part], rows[part])
            metric.result()
    assert sum(looked_at) == 4000**2


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_count_is_zero(kind):
    metric = kind()
    assert float(metric.result()) == 0.0
    ones = np.ones((3, 2), np.float32)
    # No pair of one identity; no pair of two; one image; none; labels that do not even equal themselves.
    for labels in ([1, 2, 3], [1, 1, 1], [1], np.empty(0, np.int64), [np.nan] * 3):
        value = value_of(metric, (labels, ones[: len(labels)]))
        assert value == (1.0 if kind is RecallAtK and list(labels) == [1, 1, 1] else 0.0)
    # Such batches change nothing, and a reset forgets.
    good = batch_of(12, 3)
    value = value_of(metric, good)
    assert value > 0
    if kind is not RecallAtK:
        assert value_of(metric, ([7], ones[:1]), good) == value
    metric.reset_state()
    assert float(metric.result()) == 0.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_what_is_not_finite_is_not_hidden(kind, distance):
    labels, rows = batch_of(12, 3)
    for bad in (np.nan, np.inf):
        broken = rows.copy()
        broken[4, 1] = bad
        metric = kind(distance=distance)
        assert np.isnan(value_of(metric, (labels, rows), (labels, broken), (labels, rows)))
        assert value_of(metric, (labels, rows)) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_cosine_of_zeros_is_a_number(kind):
    labels, rows = batch_of(12, 3)
    rows[[2, 5]] = 0
    assert 0 < value_of(kind(distance="cosine"), (labels, rows)) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_type_and_either_shape(kind):
    labels, rows = batch_of(12, 3)
    metric = kind()
    wanted = value_of(metric, (labels, rows))
    large = labels + 100_000_001
    strings = np.array([f"name {label}" for label in labels])
    for given in (
        labels[:, None],
        large,
        labels + 2**40,
        (labels + 2**40).tolist(),
        labels.astype(np.uint8),
        labels.astype(np.float64),
        strings,
        strings[:, None],
        tf.constant(strings),
        keras.ops.convert_to_tensor(labels),
    ):
        assert value_of(metric, (given, rows)) == wanted
    assert wanted != value_of(metric, (large.astype(np.float32), rows))  # what has no difference to it


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_weight_zero_are_left_out(kind):
    labels, rows = batch_of(24, 3)
    kept = np.arange(24) % 3 > 0
    metric = kind()
    wanted = value_of(metric, (labels[kept], rows[kept]))
    padded = rows.copy()
    padded[~kept] = np.nan
    weights = np.where(kept, 0.3, 0.0)
    for weight in (weights, weights[:, None], kept, kept.astype(np.int64), weights.tolist()):
        assert value_of(metric, (labels, padded, weight)) == wanted
    assert value_of(metric, (labels, rows, 1.0)) == value_of(metric, (labels, rows))
    assert value_of(metric, (labels, rows, 0.0)) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_widened_before_anything_is_computed(kind):
    labels, rows = batch_of(20, 4)
    for dtype in (tf.float16, tf.bfloat16):
        half = tf.cast(rows, dtype)
        metric = kind()
        assert value_of(metric, (labels, half)) == value_of(metric, (labels, tf.cast(half, tf.float32)))


def test_float64_embeddings_stay_so():
    rows = np.array([[1.0], [1.0 + 3e-12], [1.0 + 1e-12]])
    assert value_of(RecallAtK(), ([0, 1, 0], rows)) == 1.0
    assert value_of(MeanNegativeDistance("euclidean"), ([0, 1, 0], rows)) == pytest.approx(2.5e-12, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_that_knows_no_number_of_rows_gives_the_same(kind):
    batches = [batch_of(n, 4, seed) for seed, n in enumerate((13, 0, 20))]
    metric, traced = kind(), kind()

    @tf.function(
        input_signature=[
            tf.TensorSpec(None, tf.int64),
            tf.TensorSpec([None, 3]),
            tf.TensorSpec([None]),
        ]
    )
    def update(y_true, y_pred, weights):
        traced.update_state(y_true, y_pred, weights)
        return traced.result()

    for labels, rows in batches:
        got = update(labels[:, None] if len(rows) == 13 else labels, rows, np.ones(len(rows), np.float32))
    assert float(got) == pytest.approx(value_of(metric, *batches), rel=1e-6)


def no_loss(y_true, y_pred):
    return 0.0 * tf.reduce_sum(y_pred, axis=1)


def model_for(metrics: Any, **options: Any) -> Any:
    """A network whose embeddings are its inputs, and learns all the same."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "linear", True, "identity")])
    model.compile("sgd", no_loss, metrics=metrics, **options)
    return model


def all_four() -> list[Any]:
    return [ActiveTripletFraction(0.4), MeanPositiveDistance("cosine"), MeanNegativeDistance(), RecallAtK(2)]


def wanted_of(labels, rows, batch_size):
    parts = [slice(i, i + batch_size) for i in range(0, len(rows), batch_size)]
    return {m.name: value_of(m, *((labels[part], rows[part]) for part in parts)) for m in all_four()}


@pytest.mark.parametrize("eagerly", [False, True])
def test_in_evaluate(eagerly):
    labels, rows = batch_of(50, 6)
    model = model_for(all_four(), run_eagerly=eagerly)
    for batch_size in (8, 50):
        got = model.evaluate(rows, labels, batch_size=batch_size, verbose=0, return_dict=True)
        assert got.pop("loss") == 0.0
        assert got == pytest.approx(wanted_of(labels, rows, batch_size), rel=1e-5)


def test_large_labels_differ_in_evaluate():
    # As float32 all are 1e8: all rows would be of one identity.
    small, rows = batch_of(40, 2, noise=2.0)
    labels = small + 100_000_001
    assert len(np.unique(labels)) == 2
    assert len(np.unique(labels.astype(np.float32))) == 1
    wanted, merged = wanted_of(small, rows, 5), wanted_of(0 * small, rows, 5)
    assert all(abs(wanted[name] - merged[name]) > 0.01 for name in wanted)
    data = tf.data.Dataset.from_tensor_slices((rows, labels[:, None])).batch(5)
    for given, batch_size in (((rows, labels), 5), ((rows, labels[:, None]), 5), ((data,), None)):
        model = model_for(all_four())
        got = model.evaluate(*given, batch_size=batch_size, verbose=0, return_dict=True)
        assert {name: got[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)


def test_in_fit_with_validation_data():
    labels, rows = batch_of(24, 4)
    other_labels, other_rows = batch_of(30, 4, seed=1)
    model = model_for(all_four())
    history = model.fit(
        rows,
        labels,
        batch_size=8,
        epochs=2,
        shuffle=False,
        validation_data=(other_rows, other_labels),
        validation_batch_size=10,
        verbose=0,
    ).history
    for prefix, wanted in (
        ("", wanted_of(labels, rows, 8)),
        ("val_", wanted_of(other_labels, other_rows, 10)),
    ):
        for name, value in wanted.items():
            # Each epoch starts anew; the weights do not move.
            assert history[prefix + name] == pytest.approx([value, value], rel=1e-5)


def test_weighted_metrics_leave_rows_out_and_steps_may_be_bundled():
    labels, rows = batch_of(32, 4)
    kept = np.arange(32) % 4 > 0
    model = model_for([], weighted_metrics=all_four(), steps_per_execution=2)
    got = model.evaluate(
        rows, labels, sample_weight=kept.astype(np.float32), batch_size=32, verbose=0, return_dict=True
    )
    wanted = wanted_of(labels[kept], rows[kept], 32)
    assert {name: got[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)


def test_mixed_precision():
    labels, rows = batch_of(32, 4)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, dtype="mixed_float16")])
    model.compile(loss=lambda y_true, y_pred: tf.reduce_sum(y_pred, axis=1), metrics=all_four())
    got = model.evaluate(rows, labels, batch_size=8, verbose=0, return_dict=True)
    embeddings = model.predict(rows, batch_size=8, verbose=0)
    assert embeddings.dtype == np.float16
    for name, value in wanted_of(labels, embeddings, 8).items():
        assert got[name] == pytest.approx(value, rel=1e-5)


def test_xla_compiles_all_but_recall_which_says_what_to_do():
    labels, rows = batch_of(32, 4)
    got = model_for(all_four()[:3], jit_compile=True).evaluate(
        rows, labels, batch_size=16, verbose=0, return_dict=True
    )
    for name, value in list(wanted_of(labels, rows, 16).items())[:3]:
        assert got[name] == pytest.approx(value, rel=1e-5)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="RecallAtK_needs_compile_with_jit_compile_False"
    ):
        model_for(all_four()[3:], jit_compile=True).evaluate(rows, labels, verbose=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_makes_the_same_metric(kind):
    metric = kind(distance="cosine", dtype="float64", **({"k": 7} if kind is RecallAtK else {}))
    metric.update_state(*batch_of(9, 2))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(copy) is kind
    assert copy.get_config() == metric.get_config()
    assert copy.get_config()["distance"] == "cosine"
    assert float(copy.result()) == 0.0
    assert metric.result().dtype == copy.result().dtype == tf.float64


def test_a_saved_model_measures_as_before(tmp_path):
    labels, rows = batch_of(40, 5)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model.compile(loss="mse", metrics=[ActiveTripletFraction(0.7, "euclidean"), RecallAtK(3, name="found")])
    targets = labels.astype(np.float32)[:, None]
    model.fit(rows, targets, verbose=0)
    wanted = model.evaluate(rows, targets, batch_size=8, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert wanted["found"] > 0
    assert loaded.evaluate(rows, targets, batch_size=8, verbose=0, return_dict=True) == pytest.approx(wanted)


def test_names():
    assert [metric().name for metric in KINDS] == [
        "active_triplet_fraction",
        "mean_positive_distance",
        "mean_negative_distance",
        "recall_at_1",
    ]
    assert RecallAtK(5).name == "recall_at_5"


def test_bad_arguments_are_refused():
    for kind in KINDS:
        with pytest.raises(
            ValueError, match=r"distance must be one of squared_euclidean, .*; got 'manhattan'"
        ):
            kind(distance="manhattan")
    with pytest.raises(ValueError, match=r"margin must be positive and finite; got -0\.1"):
        ActiveTripletFraction(-0.1)
    with pytest.raises(ValueError, match=r"k must be in \[1, .*; got 0"):
        RecallAtK(0)
    with pytest.raises(TypeError, match=r"k must be a whole number; got 1\.5"):
        RecallAtK(1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_batches_are_refused(kind):
    rows = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"y_pred must be embeddings of shape \(n, E\); got \(4,\)"):
        kind().update_state(np.arange(4), rows[:, 0])
    for labels in (np.arange(5), np.eye(4), np.zeros((2, 2))):
        with pytest.raises(ValueError, match=r"y_true must be labels of shape \(n,\) or \(n, 1\) .*; got "):
            kind().update_state(labels, rows)


@pytest.mark.slow
def test_replicas_of_one_process():
    code = """
import numpy as np, tensorflow as tf, keras
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from facenet_fast.metrics import *
rng = np.random.default_rng(0)
labels, rows = rng.integers(0, 9, 48), rng.standard_normal((48, 3)).astype(np.float32)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "linear", False, "identity")])
    metrics = [RecallAtK(2), MeanPositiveDistance(), ActiveTripletFraction()]
    model.compile(loss=lambda y_true, y_pred: tf.reduce_sum(y_pred, axis=1), metrics=metrics)
got = model.evaluate(rows, labels, batch_size=12, verbose=0, return_dict=True)
alone = RecallAtK(2), MeanPositiveDistance(), ActiveTripletFraction()
for metric in alone:
    for part in range(0, 48, 6):
        metric.update_state(labels[part : part + 6], rows[part : part + 6])
    np.testing.assert_allclose(got[metric.name], float(metric.result()), rtol=1e-6)
print("replicas:", strategy.num_replicas_in_sync)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "replicas: 2", ran.stderr
