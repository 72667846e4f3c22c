"""A bank's rows are negatives, positives if asked, and never anchors; what computes them does not show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet_fast import Interval, Strategy, count_triplets, mine_triplets
from facenet_fast.mining import PRESETS
from facenet_fast.mining.batch import DISTANCES

from .batches import clustered, tied, uneven
from .contract import (
    BACKENDS,
    as_columns,
    as_rows,
    assert_counts_equal_reference,
    assert_equals_reference,
    attempt,
)
from .strategies_table import STRATEGIES, composed, distance_for


def split(batch: tuple[Any, Any], n: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Take the first n rows as the batch, and the others as a bank."""
    return tuple((batch[0][part], batch[1][part]) for part in (slice(n), slice(n, None)))  # type: ignore[return-value]


def options_for(name: str, **options: Any) -> dict[str, Any]:
    return {"strategy": STRATEGIES[name], "distance": distance_for(STRATEGIES[name]), **options}


@pytest.mark.parametrize("name", STRATEGIES)
def test_equals_reference(instruction_set: str, name: str) -> None:
    batch, bank = split(clustered(8, 9, 17, noise=1.0), 30)
    for bank_positives in (False, True):
        for labels in (bank[1], bank[1] + 100, bank[1] % 3):
            options = options_for(name, bank=(bank[0], labels), bank_positives=bank_positives, seed=6)
            for threads in (1, 3):
                assert_equals_reference(*batch, threads=threads, **options)
        assert_counts_equal_reference(*batch, threads=2, **options)
        assert_equals_reference(*batch, anchors=np.array([5, 9, 20]), threads=2, **options)


@pytest.mark.parametrize("name", STRATEGIES)
def test_ties_and_odd_groups(instruction_set: str, name: str) -> None:
    for n, bank_positives in ((1, True), (13, False), (40, True), (59, False)):
        batch, bank = split(tied(60, 5), n)
        options = options_for(name, bank=bank, bank_positives=bank_positives, margin=0.5)
        assert_equals_reference(*batch, **options)


@pytest.mark.parametrize(
    "name", ["facenet", "batch_hard", "uniform_3", "weighted_3", "skip_many", "quantile"]
)
def test_a_bank_larger_than_its_batch(instruction_set: str, name: str) -> None:
    embeddings, labels = uneven(560, 0.05, 5)
    moved = np.random.default_rng(0).permutation(560)
    batch, bank = split((embeddings[moved], labels[moved]), 41)
    for bank_positives in (False, True):
        for threads in (1, 3):
            assert_equals_reference(
                *batch,
                **options_for(name, bank=bank, bank_positives=bank_positives, threads=threads, margin=0.1),
            )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_rows_of_a_bank_are_numbered_on_and_never_anchors(name: str, backend: Any) -> None:
    batch, bank = split(clustered(6, 8, 6, noise=1.5), 30)
    labels = np.concatenate((batch[1], bank[1]))
    for bank_positives in (False, True):
        mined = mine_triplets(
            *batch, **options_for(name, bank=bank, bank_positives=bank_positives, backend=backend)
        )
        assert mined.anchor.max() < 30
        assert (mined.positive.max() >= 30) == bank_positives
        assert mined.negative.max() >= 30
        assert max(mined.positive.max(), mined.negative.max()) < 48
        assert (labels[mined.anchor] == labels[mined.positive]).all()
        assert (labels[mined.anchor] != labels[mined.negative]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name, s in STRATEGIES.items() if s.positive_quantile is None])
def test_a_bank_is_a_batch_of_which_the_first_rows_are_anchors(name: str, backend: Any) -> None:
    # As far as nothing is drawn: how many draws pairs get is a matter of all pairs.
    strategy = replace(STRATEGIES[name], pick="nearest")
    if strategy.pairs == "random_positives":
        strategy = replace(strategy, n_positives=100)
    embeddings, labels = clustered(6, 8, 6)
    batch, bank = split((embeddings, labels), 30)
    options: dict[str, Any] = {"strategy": strategy, "backend": backend}
    banked = mine_triplets(*batch, bank=bank, bank_positives=True, **options)
    together = mine_triplets(embeddings, labels, anchors=slice(30), **options)
    np.testing.assert_array_equal(as_rows(banked), as_rows(together))
    assert (banked.n_pairs, banked.n_pairs_with_negative) == (
        together.n_pairs,
        together.n_pairs_with_negative,
    )
    # Without its positives, those of the batch alone.
    pairs = as_columns(count_triplets(*batch, bank=bank, **options))[:, :2]
    if strategy.pairs != "moderate_positive":
        np.testing.assert_array_equal(pairs, as_columns(count_triplets(*batch, **options))[:, :2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_an_empty_bank_is_none(name: str, backend: Any) -> None:
    embeddings, labels = clustered(6, 5, 6)
    options = options_for(name, seed=2, backend=backend)
    expected = mine_triplets(embeddings, labels, **options)
    for bank_labels in ([], np.empty(0, labels.dtype), np.empty(0, "U3")):
        for bank_positives in (False, True):
            mined = mine_triplets(
                embeddings,
                labels,
                bank=(np.empty((0, 6), np.float32), bank_labels),
                bank_positives=bank_positives,
                **options,
            )
            np.testing.assert_array_equal(as_rows(mined), as_rows(expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_has_no_anchors_whatever_its_bank(backend: Any) -> None:
    embeddings, labels = clustered(6, 5, 6)
    for name in STRATEGIES:
        mined = mine_triplets(
            embeddings[:0],
            labels[:0],
            bank=(embeddings, labels),
            bank_positives=True,
            count_candidates=True,
            **options_for(name, backend=backend),
        )
        assert len(mined) == mined.n_pairs == mined.n_pairs_with_negative == 0
        assert mined.candidates is not None
        assert len(mined.candidates) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bank_alone_may_have_the_positives_or_the_negatives(backend: Any) -> None:
    rows = np.array([[0.0], [5.0], [1.0], [2.0]])
    of_bank = (rows[2:], ["ann", "bob"])
    options: dict[str, Any] = {"strategy": "batch_hard", "backend": backend}
    # One image an identity in the batch, the other in the bank.
    assert len(mine_triplets(rows[:2], ["ann", "bob"], bank=of_bank, **options)) == 0
    mined = mine_triplets(rows[:2], ["ann", "bob"], bank=of_bank, bank_positives=True, **options)
    assert as_rows(mined).tolist() == [[0, 2, 3], [1, 3, 2]]
    # One identity in the batch, and its negatives in the bank.
    assert len(mine_triplets(rows[:2], ["ann", "ann"], **options)) == 0
    mined = mine_triplets(rows[:2], ["ann", "ann"], bank=(rows[2:], ["bob", "eve"]), **options)
    assert as_rows(mined).tolist() == [[0, 1, 2], [1, 0, 3]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_quantile_is_of_the_pairs_that_may_be(backend: Any) -> None:
    # In the batch 1, 4 and 9; with those of the bank also 16, 36, 9, 25, 1 and 9, but not 4, its own pair's.
    rows = np.array([[0.0], [1.0], [3.0], [4.0], [6.0], [100.0]])
    strategy = Strategy("all", positive_quantile=0.5, pick="every")
    batch = (rows[[0, 1, 2, 5]], [0, 0, 0, 1])
    bank = (rows[[3, 4]], [0, 0])
    counts = count_triplets(*batch, strategy=strategy, bank=bank, backend=backend)
    assert as_columns(counts)[:, :2].tolist() == [[0, 1], [1, 2]]
    counts = count_triplets(*batch, strategy=strategy, bank=bank, bank_positives=True, backend=backend)
    # The fifth of nine is 9.
    assert as_columns(counts)[:, :2].tolist() == [[0, 1], [0, 2], [1, 2], [1, 4], [2, 4], [2, 5]]


def test_widths_types_and_views_of_a_bank() -> None:
    batch, bank = split(clustered(6, 8, 6), 30)
    expected = as_rows(mine_triplets(*batch, bank=bank, bank_positives=True, seed=1))
    names = np.array(["ann", "bob", "cem", "dora", "eve", "fay"])
    wide = np.zeros((36, 12), np.float32)
    wide[::2, ::2] = bank[0]
    for same in (
        bank,
        list(bank),
        (bank[0].tolist(), bank[1].tolist()),
        (wide[::2, ::2], bank[1].astype(np.uint8)),
        (np.asfortranarray(bank[0]), bank[1].astype(float)),
        (bank[0].astype(">f4"), tuple(bank[1].tolist())),
    ):
        mined = mine_triplets(*batch, bank=same, bank_positives=True, seed=1)
        np.testing.assert_array_equal(as_rows(mined), expected)
    for own, others in (
        (names[batch[1]], names.astype(object)[bank[1]].astype(str)),
        (names.astype("U9")[batch[1]], names[bank[1]]),
        (names.astype(object)[batch[1]], names.astype(object)[bank[1]]),
        (names.astype("S")[batch[1]], names.astype("S")[bank[1]]),
        (batch[1].astype("M8[D]"), bank[1].astype("M8[D]")),
    ):
        mined = mine_triplets(batch[0], own, bank=(bank[0], others), bank_positives=True, seed=1)
        np.testing.assert_array_equal(as_rows(mined), expected)


def test_a_bank_of_the_other_precision(instruction_set: str) -> None:
    batch, bank = split(clustered(6, 8, 6), 30)
    for own, other in ((np.float32, np.float64), (np.float64, np.float32), (np.float16, np.float64)):
        rows, others = batch[0].astype(own), bank[0].astype(other) * 1.0000001
        mined = assert_equals_reference(rows, batch[1], bank=(others, bank[1]), seed=1)
        together = np.concatenate((rows.astype(np.float64), others.astype(np.float64)))
        labels = np.concatenate((batch[1], bank[1]))
        assert (labels[mined.anchor] != labels[mined.negative]).all()
        d_an = ((together[mined.anchor] - together[mined.negative]) ** 2).sum(1)
        np.testing.assert_allclose(mined.mean_d_an, d_an.mean(), rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_length_of_a_row_does_not_matter_to_cosine(backend: Any) -> None:
    batch, bank = split(clustered(6, 8, 6), 30)
    for name in STRATEGIES:
        options = {"strategy": STRATEGIES[name], "distance": "cosine", "seed": 3, "backend": backend}
        expected = as_rows(mine_triplets(*batch, bank=bank, **options))
        powers = 2.0 ** np.random.default_rng(0).integers(-30, 30, 48)[:, None]
        rows, others = batch[0] * powers[:30], bank[0] * powers[30:]
        mined = mine_triplets(rows, batch[1], bank=(others, bank[1]), **options)
        np.testing.assert_array_equal(as_rows(mined), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-100, 1.0, 1e100, 1e200, 1e305])
def test_cosine_of_any_length_that_is_a_number(scale: float, backend: Any) -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [3.0, 4.0]]) * scale
    mined = mine_triplets(
        rows, [0, 0, 1, 2, 3], strategy="batch_hard", distance="cosine", margin=0.5, backend=backend
    )
    assert as_rows(mined).tolist() == [[0, 1, 2], [1, 0, 4]]
    np.testing.assert_allclose([mined.mean_d_ap, mined.mean_d_an], [1.0, (1 - 0.5**0.5 + 0.2) / 2], rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_root_is_the_same_distance_in_another_unit(backend: Any) -> None:
    batch, bank = split(clustered(7, 6, 8), 30)
    bands: list[tuple[Any, Any]] = [
        *(("hard", "hard"), ("farther", "farther"), ("all", "all")),
        (Interval(0.25, 1.44, relative=False), Interval(0.5, 1.2, relative=False)),
    ]
    for pairs, pick in (
        ("both_ways", "nearest"),
        ("moderate_positive", "farthest"),
        ("each_once", "uniform"),
    ):
        for band, same in bands:
            squared, root = (
                mine_triplets(
                    *batch,
                    bank=bank,
                    strategy=Strategy(its, pairs, pick, max_positive_distance=limit, skip_hardest=0.1),
                    distance=distance,
                    backend=backend,
                )
                for its, limit, distance in ((band, 1.21, "squared_euclidean"), (same, 1.1, "euclidean"))
            )
            np.testing.assert_array_equal(as_rows(root), as_rows(squared))
            rows = np.concatenate((batch[0], bank[0])).astype(np.float64)
            for mean, column in ((root.mean_d_ap, root.positive), (root.mean_d_an, root.negative)):
                d = np.linalg.norm(rows[root.anchor] - rows[column], axis=1)
                np.testing.assert_allclose(mean, d.mean() if len(d) else np.nan, rtol=1e-5)


def test_cosine_distances_are_half_of_those_at_unit_length(instruction_set: str) -> None:
    embeddings, labels = clustered(7, 6, 8)
    longer = embeddings * np.linspace(0.1, 10, 42, dtype=np.float32)[:, None]
    for name, strategy in PRESETS.items():
        unit = embeddings.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        halved = count_triplets(longer, labels, strategy=strategy, distance="cosine", margin=0.1)
        whole = count_triplets(unit, labels, strategy=strategy, margin=0.2)
        np.testing.assert_array_equal(as_columns(halved), as_columns(whole))
        if name != "batch_all":
            mined = mine_triplets(longer, labels, strategy=strategy, distance="cosine", margin=0.1)
            same = mine_triplets(unit, labels, strategy=strategy, margin=0.2)
            np.testing.assert_array_equal(as_rows(mined), as_rows(same))
            np.testing.assert_allclose(2 * mined.mean_d_an, same.mean_d_an, rtol=1e-5)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    strategy=composed(),
    batch=st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 40), st.integers(1, 8), st.integers(2, 9)),
    n=st.sampled_from([0, *range(5, 40)]),
    exact=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "margin": st.integers(1, 8).map(lambda n: n / 4),
            "seed": st.integers(0, 2**64 - 1),
            "threads": st.integers(1, 3),
            "anchors": st.sampled_from([None, slice(0, 5), slice(1, None, 2)]),
            "bank_positives": st.booleans(),
            "count_candidates": st.booleans(),
            "distance": st.sampled_from(sorted(DISTANCES)),
        }
    ),
)
def test_any_bank_equals_reference(
    strategy: Strategy, batch: Any, n: int, exact: bool, options: dict[str, Any]
) -> None:
    seed, n_rows, n_identities, size = batch
    embeddings, labels = tied(n_rows, n_identities, size, seed=seed)
    if not exact:
        embeddings = embeddings + np.random.default_rng(seed).standard_normal(embeddings.shape) * 0.1
    (rows, own), bank = split((embeddings, labels), n)
    if strategy.pick == "distance_weighted":
        options |= {"distance": "cosine"}
    refused = attempt(
        lambda: mine_triplets(
            rows, own, bank=bank, strategy=strategy, distance=options["distance"], backend="reference"
        )
    )
    if isinstance(refused, tuple):
        options |= {"count_candidates": False}
        assert attempt(lambda: mine_triplets(rows, own, bank=bank, strategy=strategy, **options)) == refused
        return
    assert_equals_reference(rows, own, bank=bank, strategy=strategy, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_bad_row_is_named_as_whose_it_is(distance: str, backend: Any) -> None:
    (rows, labels), (others, their_labels) = split(clustered(6, 8, 6), 30)
    others[2, 3] = np.nan
    for bad, batch, bank in (
        ("the bank's embeddings must be finite.* row 2 has", (rows, labels), (others, their_labels)),
        ("^embeddings must be finite.* row 2 has", (others, their_labels), (rows, labels)),
    ):
        with pytest.raises(ValueError, match=bad):
            mine_triplets(*batch, bank=bank, distance=distance, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_off_the_sphere_is_named_as_whose_it_is(backend: Any) -> None:
    batch, (others, their_labels) = split(clustered(6, 8, 6), 30)
    others[4] *= 2
    with pytest.raises(ValueError, match="row 4 of the bank's embeddings has norm 2"):
        mine_triplets(*batch, bank=(others, their_labels), strategy="distance_weighted", backend=backend)


@pytest.mark.parametrize("flag", ["no", 1, None])
def test_bank_positives_is_a_flag(flag: Any) -> None:
    batch, bank = split(clustered(6, 8, 6), 30)
    with pytest.raises(TypeError, match="bank_positives must be True or False"):
        mine_triplets(*batch, bank=bank, bank_positives=flag)
