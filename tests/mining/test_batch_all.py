"""The loss over every triplet: number, sum and gradient are those of the triplets one by one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from facenet_fast import (
    PRESETS,
    BatchAllLoss,
    Interval,
    Strategy,
    batch_all_loss,
    count_triplets,
    stream_triplets,
)
from facenet_fast.mining import batch_all

from .batches import clustered, tied, uneven
from .literal_loss import (
    DISTANCES,
    Literal,
    Triples,
    distances_of,
    literal_loss,
    reach_of,
    triplets_of,
)

MARGIN = 0.3

# Those that the core sums up.
SUMMED = {
    "batch_all": PRESETS["batch_all"],
    "each_once": Strategy("violating", "each_once"),
    "semi_hard": Strategy("semi_hard", "both_ways", "every"),
    "hard": Strategy("hard", "both_ways", "every"),
    "interval": Strategy(Interval(-0.25, 0.125), "both_ways", "every"),
    "interval_open": Strategy(Interval(0.0, 0.25, low_is_open=True), "each_once", "every"),
    "hardest_2": Strategy("violating", "hardest_positive", "nearest", n_positives=2, n_negatives=3),
    "easiest": Strategy("violating", "easiest_positive", "every"),
    "screened": Strategy("violating", "both_ways", "every", max_positive_distance=0.9),
    "quantile": Strategy("violating", "both_ways", "every", positive_quantile=0.4),
}
# Those that it does not, which are listed.
LISTED = {
    "all": Strategy("all", "both_ways", "every"),
    "farther": Strategy("farther", "each_once", "every"),
    "beyond_the_margin": Strategy(Interval(-0.1, 0.5), "both_ways", "every"),
    "absolute": Strategy(Interval(0.5, 1.2, relative=False), "both_ways", "every"),
    "absolute_within_the_margin": Strategy(Interval(high=0.6, relative=False), "both_ways", "every"),
    "moderate": Strategy("violating", "moderate_positive", "every"),
    "skip": Strategy("violating", "both_ways", "every", skip_hardest=0.2),
    "distance_weighted": PRESETS["distance_weighted"],
    "within_reach": Strategy("violating", "both_ways", "distance_weighted", far=1.0),
}
ALL = {**SUMMED, **LISTED}


def margin_for(name: str) -> float:
    return 0.7 if name == "absolute_within_the_margin" else MARGIN


def batch(dtype: Any = np.float64, seed: int = 0) -> tuple[Any, Any]:
    """Unit rows of five identities, two of which have one image."""
    rows, labels = clustered(3, 4, 4, noise=1.0, seed=seed)
    more, _ = clustered(2, 1, 4, seed=seed + 1)
    rows = np.concatenate((rows, more)).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(dtype), np.concatenate((labels, [7, 8]))


def expect(rows: Any, labels: Any, strategy: Any, **options: Any) -> tuple[Literal, Triples]:
    if isinstance(strategy, str):
        strategy = PRESETS[strategy]
    distance = options.get("distance", "squared_euclidean")
    d = distances_of(np.asarray(rows).astype(np.float64), distance)
    found = triplets_of(d, labels, strategy, options.get("margin", 0.2), reach_of(strategy, distance))
    return literal_loss(rows, found, **options), found


def assert_equal(found: BatchAllLoss, expected: Literal, tolerance: float = 1e-5) -> None:
    """Hold numbers to be exact, and sums to be near by the size of what is summed up."""
    assert found.n_triplets == expected.n_triplets
    np.testing.assert_array_equal(found.n_by_anchor, expected.n_by_anchor)
    largest = float(expected.loss_by_anchor.max(initial=0.0))
    np.testing.assert_allclose(
        found.loss_by_anchor, expected.loss_by_anchor, rtol=tolerance, atol=tolerance * largest
    )
    assert found.loss == pytest.approx(expected.loss, rel=tolerance)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=tolerance * expected.size)


def assert_same(found: BatchAllLoss, other: BatchAllLoss) -> None:
    for field in dataclasses.fields(BatchAllLoss):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(other, field.name))


@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", ALL)
def test_every_strategy_is_its_triplets_one_by_one(name: str, distance: str, soft: bool) -> None:
    rows, labels = batch()
    options: dict[str, Any] = {"margin": margin_for(name), "distance": distance, "soft": soft}
    options["weights"] = np.random.default_rng(1).uniform(0.5, 1.5, len(rows))
    expected, _ = expect(rows, labels, ALL[name], **options)
    found = batch_all_loss(rows, labels, strategy=ALL[name], **options)
    assert expected.n_triplets > 1
    assert expected.loss > 0
    assert_equal(found, expected)
    counted = count_triplets(rows, labels, strategy=ALL[name], margin=margin_for(name), distance=distance)
    assert found.n_triplets == counted.n_candidates.sum()
    np.testing.assert_array_equal(
        found.n_by_anchor, np.bincount(counted.anchor, counted.n_candidates, len(rows))
    )


def test_the_result_has_the_types_it_says() -> None:
    rows, labels = batch(np.float32)
    found = batch_all_loss(rows, labels)
    assert type(found.loss) is float
    assert type(found.n_triplets) is int
    assert found.gradient.dtype == np.float32
    assert found.loss_by_anchor.dtype == np.float64
    assert found.n_by_anchor.dtype == np.int64
    assert found.gradient.shape == rows.shape
    assert found.loss_by_anchor.shape == found.n_by_anchor.shape == labels.shape


@pytest.mark.parametrize("name", ALL)
def test_what_the_core_sums_up_is_not_listed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    inner = batch_all._listed

    def listing(*arguments: Any) -> Any:
        listed.append(name)
        return inner(*arguments)

    monkeypatch.setattr(batch_all, "_listed", listing)
    batch_all_loss(*batch(), strategy=ALL[name], margin=margin_for(name))
    assert bool(listed) == (name in LISTED)
    batch_all_loss(*batch(), strategy=ALL[name], margin=margin_for(name), soft=True)
    assert len(listed) == 1 + (name in LISTED)


@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_finite_differences(distance: str, soft: bool) -> None:
    rows, labels = batch()
    rows *= 1.3
    options: dict[str, Any] = {"margin": MARGIN, "distance": distance, "soft": soft}
    options["weights"] = np.random.default_rng(2).uniform(0.5, 1.5, len(rows))
    # Of the band the formula's hinge is continuous at the edge of, and listed in float64.
    strategy = Strategy("all", "both_ways", "every")
    found = batch_all_loss(rows, labels, strategy=strategy, **options)
    step = 1e-6
    for place in np.ndindex(*rows.shape):
        up, down = rows.copy(), rows.copy()
        up[place] += step
        down[place] -= step
        losses = [batch_all_loss(x, labels, strategy=strategy, **options).loss for x in (up, down)]
        assert found.gradient[place] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_summed_gradient_is_a_finite_difference_of_the_formula(distance: str) -> None:
    rows, labels = batch(seed=4)
    options: dict[str, Any] = {"margin": MARGIN, "distance": distance}
    found = batch_all_loss(rows, labels, **options)
    expected, triplets = expect(rows, labels, "batch_all", **options)
    step = 1e-6
    for place in [(0, 1), (3, 0), (7, 3), (len(rows) - 1, 2)]:
        up, down = rows.copy(), rows.copy()
        up[place] += step
        down[place] -= step
        losses = [literal_loss(x, triplets, **options).loss for x in (up, down)]
        slope = (losses[0] - losses[1]) / (2 * step)
        assert expected.gradient[place] == pytest.approx(slope, abs=1e-7)
        assert found.gradient[place] == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
def test_random_positives_are_those_of_the_seed(soft: bool) -> None:
    rows, labels = clustered(4, 6, 5, noise=1.0)
    strategy = Strategy("violating", "random_positives", "every", n_positives=2)
    options: dict[str, Any] = {"strategy": strategy, "margin": MARGIN}
    sums = set()
    for seed in (0, 5):
        listed = [
            (int(a), int(p), int(n))
            for block in stream_triplets(rows, labels, seed=seed, **options)
            for a, p, n in zip(block.anchor, block.positive, block.negative, strict=True)
        ]
        found = batch_all_loss(rows, labels, seed=seed, soft=soft, **options)
        assert_equal(found, literal_loss(rows, listed, margin=MARGIN, soft=soft))
        sums.add(found.loss)
    assert len(sums) == 2


@pytest.mark.parametrize("distance", DISTANCES)
def test_of_a_larger_batch(distance: str) -> None:
    # Beyond a tile and a block of the core, of all sizes of identities.
    rows, labels = uneven(230, 0.08, 3)
    order = np.random.default_rng(5).permutation(len(rows))
    rows, labels = rows[order], labels[order]
    weights = np.random.default_rng(6).uniform(-1.0, 1.0, len(rows))
    found = batch_all_loss(rows, labels, margin=0.5, distance=distance, weights=weights)
    x = rows.astype(np.float64)
    if distance == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    d = np.square(x[:, None] - x[None]).sum(-1) * (0.5 if distance == "cosine" else 1.0)
    d = np.sqrt(d) if distance == "euclidean" else d
    losses, counts = np.zeros(len(x)), np.zeros(len(x), np.int64)
    for a in range(len(x)):
        is_same = labels == labels[a]
        for p in np.flatnonzero(is_same):
            excess = d[a, p] - d[a, ~is_same] + 0.5
            if p != a:
                losses[a] += excess[excess > 0].sum()
                counts[a] += (excess > 0).sum()
    np.testing.assert_array_equal(found.n_by_anchor, counts)
    np.testing.assert_allclose(found.loss_by_anchor, losses, rtol=1e-5, atol=1e-5 * losses.max())
    assert found.loss == pytest.approx(float(weights @ losses) / counts.sum(), rel=1e-5)


@pytest.mark.parametrize("name", ["batch_all", "semi_hard", "hardest_2", "skip"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_results_do_not_depend_on_threads(name: str, distance: str) -> None:
    # More than a block of the core has; of what is listed, less.
    rows, labels = uneven(300 if name in SUMMED else 80, 0.1, 5)
    options: dict[str, Any] = {"strategy": ALL[name], "distance": distance, "margin": 0.5}
    options["weights"] = np.random.default_rng(7).uniform(0.5, 1.5, len(rows))
    one, *others = (batch_all_loss(rows, labels, threads=threads, **options) for threads in (1, 2, 3, None))
    assert one.n_triplets > 400
    for found in others:
        assert_same(found, one)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">f8", "bfloat16"])
@pytest.mark.parametrize("name", ["batch_all", "all"])
@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_dtypes(dtype: Any, name: str, distance: str) -> None:
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    rows, labels = batch(dtype)
    options: dict[str, Any] = {"margin": MARGIN, "distance": distance}
    found = batch_all_loss(rows, labels, strategy=ALL[name], **options)
    assert_equal(found, expect(rows, labels, ALL[name], **options)[0])
    assert found.gradient.dtype == (np.float64 if rows.dtype.itemsize == 8 else np.float32)
    assert found.gradient.dtype.isnative


def test_rows_that_are_not_next_to_each_other() -> None:
    rows, labels = batch()
    apart = np.asfortranarray(np.repeat(rows, 2, axis=0))[::2]
    assert not apart.flags.c_contiguous
    assert_same(batch_all_loss(apart, labels), batch_all_loss(rows, labels))


@pytest.mark.parametrize("name", ["batch_all", "all"])
def test_nothing_that_is_handed_in_is_written_to(name: str) -> None:
    rows, labels = batch()
    weights = np.full(len(rows), 2.0)
    for array in (rows, labels, weights):
        array.setflags(write=False)
    for distance in ("squared_euclidean", "cosine"):
        batch_all_loss(rows, labels, strategy=ALL[name], distance=distance, weights=weights)


@pytest.mark.parametrize("name", ["batch_all", "all"])
@pytest.mark.parametrize("kind", ["some 0", "negative", "all 0", "int", "bool", "list", "float16"])
def test_weights(kind: str, name: str) -> None:
    rows, labels = batch()
    rng = np.random.default_rng(8)
    weights: Any = {
        "some 0": rng.integers(0, 2, len(rows)) * rng.uniform(0.5, 1.5, len(rows)),
        "negative": rng.normal(size=len(rows)),
        "all 0": np.zeros(len(rows)),
        "int": rng.integers(-2, 3, len(rows)),
        "bool": rng.random(len(rows)) < 0.5,
        "list": rng.uniform(0.5, 1.5, len(rows)).tolist(),
        "float16": rng.uniform(0.5, 1.5, len(rows)).astype(np.float16),
    }[kind]
    found = batch_all_loss(rows, labels, strategy=ALL[name], margin=MARGIN, weights=weights)
    expected, _ = expect(rows, labels, ALL[name], margin=MARGIN, weights=weights)
    assert_equal(found, expected)
    plain = batch_all_loss(rows, labels, strategy=ALL[name], margin=MARGIN)
    np.testing.assert_array_equal(found.loss_by_anchor, plain.loss_by_anchor)
    np.testing.assert_array_equal(found.n_by_anchor, plain.n_by_anchor)
    if kind == "all 0":
        assert found.loss == 0.0
        np.testing.assert_array_equal(found.gradient, 0.0)


@pytest.mark.parametrize("block", [1, 7, 100])
@pytest.mark.parametrize("distance", DISTANCES)
def test_blocks_add_up(block: int, distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = batch()
    options: dict[str, Any] = {"strategy": LISTED["all"], "margin": MARGIN, "distance": distance}
    options["weights"] = np.random.default_rng(9).uniform(0.5, 1.5, len(rows))
    whole = batch_all_loss(rows, labels, **options)
    n_by_anchor = whole.n_by_anchor.max()
    # An anchor has more than a block, one, or a part of it.
    assert (n_by_anchor > block) == (block < 100)
    monkeypatch.setattr(batch_all, "_LISTED", block)
    parts = batch_all_loss(rows, labels, **options)
    assert parts.n_triplets == whole.n_triplets == 3 * 4 * 3 * 10
    np.testing.assert_array_equal(parts.n_by_anchor, whole.n_by_anchor)
    np.testing.assert_allclose(parts.loss_by_anchor, whole.loss_by_anchor, rtol=1e-13)
    np.testing.assert_allclose(parts.gradient, whole.gradient, rtol=1e-10, atol=1e-14)


NO_TRIPLETS = {
    "no two images": (9, np.arange(9)),
    "one identity": (9, np.zeros(9, int)),
    "one row": (1, [3]),
    "no rows": (0, []),
}


@pytest.mark.parametrize("kind", NO_TRIPLETS)
@pytest.mark.parametrize("name", ["batch_all", "all", "quantile", "hardest_2", "moderate"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_batches_without_triplets(kind: str, name: str, distance: str) -> None:
    n, labels = NO_TRIPLETS[kind]
    rows = np.random.default_rng(10).normal(size=(n, 3)).astype(np.float32)
    for soft in (False, True):
        found = batch_all_loss(
            rows, np.asarray(labels, int), strategy=ALL[name], distance=distance, soft=soft, weights=[2.0] * n
        )
        assert found.loss == 0.0
        assert found.n_triplets == 0
        np.testing.assert_array_equal(found.gradient, np.zeros((n, 3), np.float32))
        np.testing.assert_array_equal(found.loss_by_anchor, np.zeros(n))
        np.testing.assert_array_equal(found.n_by_anchor, np.zeros(n))


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairs_without_a_negative_in_the_band(distance: str) -> None:
    rows = np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.2]])
    found = batch_all_loss(rows, [1, 1, 2], margin=0.1, distance=distance)
    assert (found.loss, found.n_triplets) == (0.0, 0)
    np.testing.assert_array_equal(found.gradient, 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_collapsed_batch_has_a_loss_and_no_gradient(distance: str, soft: bool, dtype: Any) -> None:
    rows = np.repeat(batch(dtype)[0][:1], 8, axis=0)
    found = batch_all_loss(rows, [0, 1] * 4, distance=distance, soft=soft)
    assert found.n_triplets == 8 * 3 * 4
    assert found.loss == pytest.approx(np.log(2.0) if soft else 0.2, rel=1e-6)
    np.testing.assert_allclose(found.gradient, 0.0, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["batch_all", "all"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_coincident_rows(distance: str, name: str, dtype: Any) -> None:
    rows, labels = batch(dtype)
    a, p, *_ = np.flatnonzero(labels == 0)
    rows[p] = rows[a]
    rows[-1] = rows[a]
    options: dict[str, Any] = {"margin": MARGIN, "distance": distance}
    found = batch_all_loss(rows, labels, strategy=ALL[name], **options)
    assert_equal(found, expect(rows, labels, ALL[name], **options)[0])


@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean"])
def test_ties_with_the_edge_of_the_band(distance: str) -> None:
    rows, labels = tied(24, 4)
    margins = (0.25, 0.5, 1.0)
    if distance == "euclidean":
        # On a line, where roots are exact.
        rows, margins = rows[:, :1] + rows[:, 1:2], (0.5, 1.0)
    d = np.square(rows[:, None] - rows[None]).sum(-1, dtype=np.float64)
    d = np.sqrt(d) if distance == "euclidean" else d
    is_same = labels[:, None] == labels[None]
    is_pair = (is_same & ~np.eye(24, dtype=bool))[:, :, None] & ~is_same[:, None, :]
    x = d[:, None, :] - d[:, :, None]
    for margin in margins:
        assert (is_pair & (x == margin)).any()
        assert batch_all_loss(rows, labels, margin=margin, distance=distance).n_triplets == np.count_nonzero(
            is_pair & (x < margin)
        )
    open_band = Strategy("semi_hard", "both_ways", "every")
    assert batch_all_loss(rows, labels, strategy=open_band, margin=0.5, distance=distance).n_triplets == (
        np.count_nonzero(is_pair & (x > 0) & (x < 0.5))
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["batch_all", "semi_hard", "farther"])
@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean"])
def test_rows_far_from_the_origin(distance: str, name: str, dtype: Any) -> None:
    # In float32 their spread is of sixteen steps, and their squares tell them apart no more.
    rows, labels = batch()
    rows = (1000.0 + 1e-3 * rows).astype(dtype)
    margin = 3e-4 if distance == "euclidean" else 3e-7
    options: dict[str, Any] = {"margin": margin, "distance": distance}
    found = batch_all_loss(rows, labels, strategy=ALL[name], **options)
    x = rows.astype(np.float64) - 1000.0
    expected, _ = expect(x, labels, ALL[name], **options)
    assert expected.n_triplets > 10
    assert_equal(found, expected)


@pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e4, 1e15])
@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean"])
def test_rows_of_any_scale(distance: str, scale: float) -> None:
    rows, labels = batch()
    power = 1 if distance == "euclidean" else 2
    one = batch_all_loss(rows, labels, margin=MARGIN, distance=distance)
    found = batch_all_loss(rows * scale, labels, margin=MARGIN * scale**power, distance=distance)
    np.testing.assert_array_equal(found.n_by_anchor, one.n_by_anchor)
    assert found.loss == pytest.approx(one.loss * scale**power, rel=1e-5)
    np.testing.assert_allclose(found.gradient / scale ** (power - 1), one.gradient, atol=1e-5)


@pytest.mark.parametrize(("shortest", "longest"), [(1e-3, 1e3), (1e-180, 1e-170), (1e150, 1e170)])
def test_the_length_of_rows_does_not_matter_to_their_cosine(shortest: float, longest: float) -> None:
    rows, labels = batch()
    rows = rows.astype(np.float64)
    lengths = np.exp(np.random.default_rng(11).uniform(np.log(shortest), np.log(longest), (len(rows), 1)))
    options: dict[str, Any] = {"margin": MARGIN, "distance": "cosine"}
    one, found = batch_all_loss(rows, labels, **options), batch_all_loss(rows * lengths, labels, **options)
    np.testing.assert_array_equal(found.n_by_anchor, one.n_by_anchor)
    np.testing.assert_allclose(found.gradient * lengths, one.gradient, atol=1e-6)
    # And turns to the side alone.
    np.testing.assert_allclose((found.gradient * rows * lengths).sum(axis=1), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    "as_labels",
    [
        lambda labels: [f"who {label}" for label in labels],
        lambda labels: np.array([b"%d" % label for label in labels]),
        lambda labels: labels.astype(np.uint8),
        lambda labels: labels.astype(np.int64) + 2**53,
        lambda labels: labels.astype(np.uint64) + np.uint64(2**63),
        lambda labels: labels / 7.0,
        lambda labels: np.array([f"{label}" for label in labels], dtype=object),
        lambda labels: np.datetime64("2020-01-01") + labels,
    ],
)
def test_labels_of_any_dtype(as_labels: Any) -> None:
    rows, labels = batch()
    assert_same(batch_all_loss(rows, as_labels(labels)), batch_all_loss(rows, labels))


def test_labels_true_and_false() -> None:
    rows, labels = batch()
    assert_same(batch_all_loss(rows, labels == 0), batch_all_loss(rows, (labels == 0).astype(int)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": np.ones(3)}, ValueError, r"weights must be a number for each of the 14 embeddings; got"),
        ({"weights": 1.0}, ValueError, r"for each of the 14 embeddings; got float64 of shape \(\)"),
        ({"weights": np.ones((14, 1))}, ValueError, r"got float64 of shape \(14, 1\)"),
        ({"weights": ["1"] * 14}, ValueError, "a number for each of the 14 embeddings; got <U1"),
        ({"weights": np.ones(14, complex)}, ValueError, "got complex128"),
        ({"weights": [1.0] * 13 + [np.nan]}, ValueError, "weights must be finite; that of row 13 is not"),
        ({"weights": [1.0, -np.inf] * 7}, ValueError, "weights must be finite; that of row 1 is not"),
        ({"soft": 1}, TypeError, "soft must be True or False; got 1"),
        ({"margin": 0.0}, ValueError, "margin must be positive and finite; got 0.0"),
        ({"margin": float("nan")}, ValueError, "margin must be positive and finite; got nan"),
        ({"margin": "1e"}, TypeError, "margin must be a number; got '1e'"),
        ({"distance": "L2"}, ValueError, "distance must be one of squared_euclidean, .*; got 'L2'"),
        ({"strategy": "hardst"}, ValueError, "strategy must be one of batch_all, .*; got 'hardst'"),
        ({"strategy": 3}, TypeError, "strategy must be a preset's name or a Strategy; got 3"),
        ({"seed": -1}, ValueError, r"seed must be in \[0, .*\]; got -1"),
        ({"threads": 0}, ValueError, "threads must be in"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        batch_all_loss(*batch(), **options)


@pytest.mark.parametrize("name", ["batch_all", "all", "skip"])
@pytest.mark.parametrize("soft", [False, True], ids=["hinge", "soft"])
def test_bad_embeddings_and_labels(name: str, soft: bool) -> None:
    rows, labels = batch()
    options: dict[str, Any] = {"strategy": ALL[name], "soft": soft}
    with pytest.raises(ValueError, match=r"labels must have shape \(14,\), one for each embedding; got"):
        batch_all_loss(rows, labels[:-1], **options)
    with pytest.raises(TypeError, match="embeddings must be float32 or float64; got int64"):
        batch_all_loss(rows.astype(np.int64), labels, **options)
    with pytest.raises(ValueError, match=r"embeddings must have shape \(n_images, embedding_size\); got"):
        batch_all_loss(rows[0], labels, **options)
    for bad in (np.nan, np.inf):
        spoilt = rows.copy()
        spoilt[5, 1] = bad
        with pytest.raises(ValueError, match=r"embeddings must be finite, with norms below .*; row 5 has"):
            batch_all_loss(spoilt, labels, **options)
        with pytest.raises(ValueError, match=r"embeddings must be finite and not all zeros: .*; row 5 has"):
            batch_all_loss(spoilt, labels, distance="cosine", **options)
    rows[4] = 0.0
    with pytest.raises(ValueError, match=r"not all zeros: their cosine is asked for; row 4 has norm 0"):
        batch_all_loss(rows, labels, distance="cosine", **options)


def test_distance_weighted_wants_unit_rows() -> None:
    rows, labels = batch()
    with pytest.raises(ValueError, match="distance_weighted needs embeddings of norm 1"):
        batch_all_loss(2.0 * rows, labels, strategy="distance_weighted")
