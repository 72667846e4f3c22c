"""Candidates counted and listed: what brute force finds, whatever the size of a block."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet_fast import Interval, Strategy, Triplets, count_triplets, mine_triplets, stream_triplets
from facenet_fast.mining import PRESETS

from .batches import clustered, tied, uneven
from .contract import (
    BACKENDS,
    as_columns,
    as_rows,
    assert_counts_equal_reference,
    attempt,
)
from .obvious import look
from .strategies_table import STRATEGIES, composed, distance_for

EVERY = {
    "batch_all": PRESETS["batch_all"],
    "every_semi_hard": Strategy("semi_hard", pick="every"),
    "every_hard_of_hardest": Strategy("hard", "hardest_positive", "every", n_positives=2, skip_hardest=0.05),
    "every_of_random": Strategy("farther", "random_positives", "every", n_positives=2),
    "every_far": Strategy(Interval(2.0, relative=False), "both_ways", "every", positive_quantile=0.5),
    "every_at_all": Strategy("all", "both_ways", "every"),
    "none": Strategy(Interval(high=-100.0), "both_ways", "every"),
}
ALL = {**STRATEGIES, **EVERY}


def options_for(name: str, **options: Any) -> dict[str, Any]:
    return {"strategy": ALL[name], "distance": distance_for(ALL[name]), **options}


def streamed(*batch: Any, **options: Any) -> list[list[int]]:
    return [row for block in stream_triplets(*batch, **options) for row in as_rows(block).tolist()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ALL)
def test_counts_are_those_of_brute_force(name: str, backend: Any) -> None:
    strategy = ALL[name]
    for embeddings, labels in (clustered(7, 5, 6), uneven(45, 0.15, 4)):
        options = options_for(name, margin=0.5)
        counts = count_triplets(embeddings, labels, backend=backend, **options)
        facts = look(embeddings, labels, **options)
        expected = facts.counted()
        assert counts.anchor.dtype == counts.positive.dtype == counts.n_candidates.dtype == np.int32
        if strategy.pairs == "random_positives":
            assert len(counts) == sum(min(strategy.n_positives, len(p)) for p in facts.positives.values())
            looked_at = set(zip(counts.anchor.tolist(), counts.positive.tolist(), strict=True))
            assert len(looked_at) == len(counts)
            expected = [row for row in expected if row[:2] in looked_at]
        assert as_columns(counts).tolist() == [list(row) for row in expected]
        assert counts.n_triplets == sum(n for _, _, n in expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_mining_counts_if_asked(name: str, backend: Any) -> None:
    embeddings, labels = clustered(7, 6, 8)
    options = options_for(name, seed=3, backend=backend)
    mined = mine_triplets(embeddings, labels, count_candidates=True, **options)
    without = mine_triplets(embeddings, labels, **options)
    np.testing.assert_array_equal(as_rows(mined), as_rows(without))
    assert without.candidates is None
    assert mined.candidates is not None
    np.testing.assert_array_equal(
        as_columns(mined.candidates), as_columns(count_triplets(embeddings, labels, **options))
    )
    assert len(mined.candidates) == mined.n_pairs
    assert (mined.candidates.n_candidates > 0).sum() == mined.n_pairs_with_negative
    if STRATEGIES[name].if_empty == "drop":
        k = STRATEGIES[name].n_negatives
        assert np.minimum(mined.candidates.n_candidates, k).sum() == len(mined)


@pytest.mark.parametrize("name", ALL)
def test_counts_equal_reference(instruction_set: str, name: str) -> None:
    for threads in (1, 3):
        options = options_for(name, margin=0.25, seed=5, threads=threads)
        assert_counts_equal_reference(*clustered(9, 7, 33), **options)
    assert_counts_equal_reference(*tied(70, 6), **options_for(name, margin=0.25))
    options = options_for(name, margin=0.02, threads=2, anchors=slice(0, 270, 7), seed=1)
    assert_counts_equal_reference(*uneven(270, 0.1, 5), **options)


def test_counts_of_all_anchors_of_a_large_batch(instruction_set: str) -> None:
    embeddings, labels = clustered(130, 4, 8, noise=1.1)
    for name in ("batch_all", "facenet", "skip_many", "moderate_positive", "every_at_all"):
        for threads in (1, 3):
            assert_counts_equal_reference(embeddings, labels, **options_for(name, threads=threads))


@cache
def enumerated(name: str) -> list[list[int]]:
    return [list(row) for row in look(*clustered(6, 6, 6), **options_for(name)).enumerated()]


@pytest.mark.parametrize("name", ALL)
def test_a_stream_lists_what_brute_force_finds(instruction_set: str, name: str) -> None:
    batch, options = clustered(6, 6, 6), options_for(name, seed=9)
    counts = count_triplets(*batch, **options)
    pairs = set(zip(counts.anchor.tolist(), counts.positive.tolist(), strict=True))
    expected = [row for row in enumerated(name) if tuple(row[:2]) in pairs]
    assert counts.n_triplets == len(expected)
    for max_triplets in (9, 1001, 2**22):
        threads = 1 if max_triplets == 9 else 2
        blocks = list(stream_triplets(*batch, max_triplets=max_triplets, threads=threads, **options))
        assert [row for block in blocks for row in as_rows(block).tolist()] == expected
        assert sum(block.n_pairs for block in blocks) == len(pairs)
        for block in blocks:
            assert len(block) <= max_triplets or len(set(block.anchor.tolist())) == 1
        for block, after in itertools.pairwise(blocks):
            # The next block's first anchor would not have fitted any more.
            assert len(block) + (after.anchor == after.anchor[:1]).sum() > max_triplets or not len(after)


def assert_describes_itself(block: Triplets, embeddings: Any, distance: str = "squared_euclidean") -> None:
    a, p, n = (np.asarray(embeddings, np.float64)[i] for i in (block.anchor, block.positive, block.negative))
    for column in (block.anchor, block.positive, block.negative):
        assert column.dtype == np.int32
    assert block.candidates is None
    if len(block):
        d_ap, d_an = ((a - p) ** 2).sum(1), ((a - n) ** 2).sum(1)
        if distance == "euclidean":
            d_ap, d_an = np.sqrt(d_ap), np.sqrt(d_an)
        np.testing.assert_allclose(block.mean_d_ap, d_ap.mean(), rtol=1e-5)
        np.testing.assert_allclose(block.mean_d_an, d_an.mean(), rtol=1e-5)
    else:
        assert np.isnan([block.mean_d_ap, block.mean_d_an]).all()


def test_blocks_describe_themselves(instruction_set: str) -> None:
    embeddings, labels = uneven(120, 0.1, 5)
    for margin, max_triplets, distance in (
        (0.5, 50, "squared_euclidean"),
        (1e-4, 3, "squared_euclidean"),
        (100.0, 2**22, "squared_euclidean"),
        (0.2, 2**22, "euclidean"),
        (10.0, 77, "euclidean"),
    ):
        options: dict[str, Any] = {"margin": margin, "strategy": "batch_all", "distance": distance}
        counts = count_triplets(embeddings, labels, **options)
        first = 0
        for block in stream_triplets(embeddings, labels, max_triplets=max_triplets, **options):
            assert_describes_itself(block, embeddings, distance)
            n_candidates = counts.n_candidates[first : first + block.n_pairs]
            assert block.n_pairs_with_negative == (n_candidates > 0).sum()
            assert len(block) == n_candidates.sum()
            first += block.n_pairs
        assert first == len(counts)


@pytest.mark.parametrize("strategy", ["batch_all", Strategy("all", "random_positives", n_positives=2)])
def test_parts_banks_and_threads_of_a_stream(instruction_set: str, strategy: Any) -> None:
    embeddings, labels = clustered(10, 6, 6)
    whole = streamed(embeddings, labels, strategy=strategy, seed=4)
    for threads in (1, 3):
        for part in (slice(10, 30), [3, 50, 7], np.arange(60) % 2 == 0, []):
            rows = set(np.arange(60)[part].tolist()) if len(np.shape(part)) == 0 or len(part) else set()
            found = streamed(
                embeddings, labels, strategy=strategy, seed=4, threads=threads, anchors=part, max_triplets=99
            )
            assert found == [row for row in whole if row[0] in rows]
    batch, bank = (embeddings[:30], labels[:30]), (embeddings[30:], labels[30:])
    for bank_positives in (False, True):
        options: dict[str, Any] = {"bank": bank, "bank_positives": bank_positives, "strategy": strategy}
        counts = count_triplets(*batch, **options)
        found = streamed(*batch, max_triplets=77, **options)
        assert len(found) == counts.n_triplets
        if strategy == "batch_all":
            facts = look(*batch, PRESETS["batch_all"], bank=bank, bank_positives=bank_positives)
            assert found == [list(row) for row in facts.enumerated()]


def test_a_stream_of_nothing() -> None:
    for n in (0, 1, 4):
        for labels in (np.zeros(n, int), np.arange(n)):
            blocks = list(stream_triplets(np.eye(4, 3, dtype="f4")[:n], labels))
            assert sum(map(len, blocks)) == 0
            for block in blocks:
                assert_describes_itself(block, np.eye(4, 3))


def test_a_stream_is_of_the_batch_that_was_handed_in() -> None:
    embeddings, labels = clustered(6, 6, 6)
    expected = streamed(embeddings, labels, max_triplets=50)
    blocks = stream_triplets(embeddings, labels, max_triplets=50)
    got = [as_rows(next(blocks))]
    # Others may be mined between two of its blocks, with the same memory.
    mine_triplets(*clustered(9, 9, 33), strategy="batch_hard")
    list(stream_triplets(*clustered(5, 4, 8), strategy="batch_all"))
    got += [as_rows(block) for block in blocks]
    assert np.concatenate(got).tolist() == expected


def test_a_streams_errors_come_at_the_call() -> None:
    embeddings, labels = clustered(6, 6, 6)
    rows = embeddings.copy()
    rows[17, 2] = np.nan
    with pytest.raises(ValueError, match=r"embeddings must be finite.*row 17 has norm nan"):
        stream_triplets(rows, labels)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    strategy=composed(),
    data=st.tuples(st.integers(0, 2**32 - 1), st.integers(10, 40), st.integers(2, 8), st.integers(1, 6)),
    margin=st.integers(1, 8).map(lambda n: n / 4),
    anchors=st.sampled_from([None, slice(0, 20), slice(1, None, 3)]),
    max_triplets=st.integers(1, 60),
    seed=st.integers(0, 2**64 - 1),
    root=st.booleans(),
)
def test_a_stream_is_counted_and_every_pick_is_in_it(
    strategy: Strategy, data: Any, margin: float, max_triplets: int, anchors: Any, seed: int, root: bool
) -> None:
    batch = tied(data[1], data[3], data[2], seed=data[0])
    distance = "euclidean" if root and distance_for(strategy) != "cosine" else distance_for(strategy)
    options: dict[str, Any] = {"margin": margin, "seed": seed, "distance": distance, "anchors": anchors}
    counts = attempt(lambda: assert_counts_equal_reference(*batch, strategy=strategy, **options))
    if isinstance(counts, tuple):
        assert attempt(lambda: stream_triplets(*batch, strategy=strategy, **options)) == counts
        return
    rows = streamed(*batch, strategy=strategy, max_triplets=max_triplets, **options)
    assert len(rows) == counts.n_triplets
    mined = mine_triplets(*batch, strategy=replace(strategy, if_empty="drop"), **options)
    assert set(map(tuple, as_rows(mined).tolist())) <= set(map(tuple, rows))
    assert mined.n_pairs_with_negative == len({(a, p) for a, p, _ in rows})
