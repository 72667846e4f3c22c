"""The native miner equals the specification, pick for pick, whatever computes it."""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet_fast import Strategy, count_triplets, mine_triplets, stream_triplets
from facenet_fast.mining import PRESETS
from facenet_fast.mining.batch import DISTANCES

from .batches import clustered, tied, uneven
from .contract import BACKENDS, INSTRUCTION_SETS, as_rows, assert_equals_reference, attempt
from .strategies_table import DRAWING, STRATEGIES, composed, distance_for

# FE_UPWARD
UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}

SQUARED = sorted(name for name, strategy in STRATEGIES.items() if distance_for(strategy) != "cosine")


def options_for(name: str, **options: Any) -> dict[str, Any]:
    return {"strategy": STRATEGIES[name], "distance": distance_for(STRATEGIES[name]), **options}


@pytest.mark.parametrize("name", STRATEGIES)
def test_equals_reference(instruction_set: str, name: str) -> None:
    for noise, dtype in itertools.product((0.2, 0.7, 5.0), (np.float32, np.float64)):
        embeddings, labels = clustered(9, 7, 33, noise=noise)
        for threads in (1, 2, 3, 8) if noise == 0.7 else (2,):
            assert_equals_reference(
                embeddings.astype(dtype), labels, strategy=STRATEGIES[name], seed=5, threads=threads
            )


@pytest.mark.parametrize("name", STRATEGIES)
def test_equals_reference_by_cosine(instruction_set: str, name: str) -> None:
    embeddings, labels = clustered(9, 7, 17, noise=1.0)
    embeddings = embeddings * np.logspace(-3, 3, len(labels))[:, None]
    options: dict[str, Any] = {"strategy": STRATEGIES[name], "distance": "cosine", "seed": 2**64 - 1}
    for dtype, threads in itertools.product((np.float32, np.float64), (1, 3)):
        assert_equals_reference(embeddings.astype(dtype), labels, margin=0.1, threads=threads, **options)


# Every other one: their words meet roots no differently.
@pytest.mark.parametrize("name", [*STRATEGIES][::2])
def test_equals_reference_by_root(instruction_set: str, name: str) -> None:
    options: dict[str, Any] = {"strategy": STRATEGIES[name], "distance": "euclidean", "seed": 8}
    for (embeddings, labels), dtype in zip(
        (clustered(9, 7, 33, noise=0.2), clustered(9, 7, 33, noise=0.7)),
        (np.float64, np.float32),
        strict=True,
    ):
        assert_equals_reference(embeddings.astype(dtype), labels, margin=0.1, threads=2, **options)
    if distance_for(STRATEGIES[name]) == "cosine":
        return
    # Whole distances, of rows on a grid of 3 x 4, that tie with each other and with the edges of bands.
    rng = np.random.default_rng(6)
    grid, labels = rng.integers(0, 4, (80, 2)) * np.array([3.0, 4.0]), rng.integers(0, 9, 80)
    for rows, margin in ((grid, 1.0), (grid / 4, 0.25), (grid * 2.0**-400, 2.0**-400), (0 * grid, 0.5)):
        assert_equals_reference(rows, labels, margin=margin, threads=3, **options)


@pytest.mark.parametrize("name", STRATEGIES)
def test_blocks_chunks_and_tiles_meet(instruction_set: str, name: str) -> None:
    # More rows than a block and columns than a chunk, neither a multiple of a tile; identities of all sizes.
    embeddings, labels = uneven(283, 0.06, 5)
    mined = assert_equals_reference(embeddings, labels, **options_for(name, margin=0.02, seed=2, threads=2))
    assert mined.n_pairs > 0
    if name in ("vgg_face", "facenet"):
        assert 0 < len(mined) < mined.n_pairs
    if name in PRESETS:
        assert_equals_reference(
            embeddings, labels, **options_for(name, margin=0.02, seed=2, threads=2, anchors=slice(0, 283, 7))
        )


@pytest.mark.parametrize("name", [*DRAWING[::2], *sorted(set(PRESETS) & set(STRATEGIES)), "skip_many"])
def test_large_batches_sample_before_they_search(instruction_set: str, name: str) -> None:
    # From 512 rows on, pairs with a wide band draw first; several blocks of rows meet each other.
    embeddings, labels = clustered(130, 4, 8, noise=1.1)
    for threads in (1, 3):
        mined = assert_equals_reference(embeddings, labels, strategy=STRATEGIES[name], threads=threads)
        assert len(mined) > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_ties_are_decided_as_specified(instruction_set: str, name: str) -> None:
    # Most distances tie with each other, and with the edges of the band.
    for n_identities in (3, 12):
        embeddings, labels = tied(90, n_identities)
        for margin in (0.25, 0.5):
            mined = assert_equals_reference(embeddings, labels, **options_for(name, margin=margin, seed=3))
            assert mined.n_pairs > 0 or STRATEGIES[name].pairs == "moderate_positive"


@pytest.mark.parametrize("name", STRATEGIES)
def test_long_and_short_embeddings(instruction_set: str, name: str) -> None:
    embeddings, labels = clustered(6, 5, 12)
    for scale in (1e-300, 1e-160, 1e-30, 1e-19, 1e19, 1e140):
        rows = embeddings.astype(np.float64) * scale
        margin = max(0.2 * scale * scale, 5e-324)
        mined = assert_equals_reference(rows, labels, **options_for(name, margin=margin))
        if scale > 1e-150 and name in ("vgg_face", "facenet", "batch_hard", "distance_weighted"):
            assert len(mined) > 0


def test_lengths_far_apart_in_one_batch(instruction_set: str) -> None:
    embeddings, labels = clustered(8, 6, 16)
    embeddings = embeddings * np.logspace(-12, 12, 48, dtype=np.float32)[:, None]
    for margin in (1e-20, 1e-3, 1.0):
        for name in STRATEGIES:
            assert_equals_reference(embeddings, labels, **options_for(name, margin=margin))


def test_collapsed_embeddings(instruction_set: str) -> None:
    labels = np.arange(60) % 6
    for row in (np.zeros(8), np.full(8, 0.3)):
        embeddings = np.tile(row, (60, 1)).astype(np.float32)
        for name in STRATEGIES if row.any() else SQUARED:
            assert_equals_reference(embeddings, labels, **options_for(name))
        assert len(mine_triplets(embeddings, labels, strategy="facenet", margin=0.2)) == 0
        assert len(mine_triplets(embeddings, labels, strategy="vgg_face", margin=0.2)) == 6 * 45


@pytest.mark.parametrize("name", STRATEGIES)
def test_few_rows_and_few_dimensions(instruction_set: str, name: str) -> None:
    rng = np.random.default_rng(8)
    for n, size in itertools.product((2, 3, 5, 15, 17), (3, 8, 9)):
        embeddings, labels = rng.standard_normal((n, size)), rng.integers(0, 3, n)
        assert_equals_reference(embeddings, labels, **options_for(name, margin=1.0, threads=2))


rows_of_numbers = st.one_of(
    st.floats(-4, 4, width=32), st.integers(-2, 2).map(float), st.sampled_from([0.0, 1e-30, 1e20, -1e-3])
)


@st.composite
def batches(draw: st.DrawFn) -> tuple[npt.NDArray[Any], list[Any]]:
    size = draw(st.integers(1, 20))
    distinct = draw(
        st.lists(st.lists(rows_of_numbers, min_size=size, max_size=size), min_size=1, max_size=12)
    )
    n = draw(st.sampled_from([1, 2, 3, 10, 20, 30, 40]))
    chosen = draw(st.lists(st.integers(0, len(distinct) - 1), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 5), min_size=len(chosen), max_size=len(chosen)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return np.array([distinct[i] for i in chosen], dtype=dtype), labels


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    batch=batches(),
    strategy=st.one_of(st.sampled_from(sorted(STRATEGIES)).map(STRATEGIES.__getitem__), composed()),
    margin=st.one_of(st.floats(1e-6, 1e6), st.integers(1, 16).map(lambda n: n / 4)),
    distance=st.sampled_from(sorted(DISTANCES)),
    seed=st.integers(0, 2**64 - 1),
    threads=st.integers(1, 4),
    count_candidates=st.booleans(),
)
def test_any_batch_equals_reference(
    batch: tuple[npt.NDArray[Any], list[Any]], strategy: Strategy, distance: str, **options: Any
) -> None:
    if strategy.pick == "distance_weighted":
        distance = "cosine"
    refused = attempt(
        lambda: mine_triplets(*batch, strategy=strategy, distance=distance, backend="reference")
    )
    if isinstance(refused, tuple):
        assert attempt(lambda: mine_triplets(*batch, strategy=strategy, distance=distance)) == refused
        return
    assert_equals_reference(*batch, strategy=strategy, distance=distance, **options)


def assert_parts_make_the_whole(name: str, backend: Any, threads: int | None) -> None:
    embeddings, labels = clustered(7, 7, 16, noise=0.7)
    shuffled = np.random.default_rng(1).permutation(49)
    embeddings, labels = embeddings[shuffled], labels[shuffled]
    options = options_for(name, seed=7, threads=threads, backend=backend)
    whole = mine_triplets(embeddings, labels, **options)
    if name in ("vgg_face", "facenet"):
        assert 0 < len(whole) < whole.n_pairs
    mask = np.arange(49) % 3 == 0
    for parts in (
        [slice(None)],
        [slice(0, 20), slice(20, 21), slice(21, None)],
        [range(0, 49, 2), range(1, 49, 2)],
        [mask, ~mask],
        [[5, 40, 3], np.delete(np.arange(49), [5, 40, 3]), []],
    ):
        mined = [mine_triplets(embeddings, labels, anchors=part, **options) for part in parts]
        for part, found in zip(parts, mined, strict=True):
            rows = np.arange(49)[part if len(np.shape(part)) == 0 or len(part) else slice(0)]
            assert set(found.anchor) <= set(rows)
            np.testing.assert_array_equal(as_rows(found), as_rows(whole)[np.isin(whole.anchor, rows)])
        assert sum(len(found) for found in mined) == len(whole)
        assert sum(found.n_pairs for found in mined) == whole.n_pairs
        assert sum(found.n_pairs_with_negative for found in mined) == whole.n_pairs_with_negative


@pytest.mark.parametrize("name", STRATEGIES)
def test_parts_of_the_anchors_make_the_whole(instruction_set: str, name: str) -> None:
    assert_parts_make_the_whole(name, "native", 2)


@pytest.mark.parametrize("name", STRATEGIES)
def test_parts_of_the_anchors_make_the_whole_of_the_specification(name: str) -> None:
    assert_parts_make_the_whole(name, "reference", None)


def test_a_part_of_a_large_batch_searches_alone() -> None:
    # Few open anchors meet all columns in blocks of their own, and not in tiles that serve both sides.
    embeddings, labels = clustered(110, 7, 16, noise=0.4)
    whole = as_rows(mine_triplets(embeddings, labels, margin=0.1))
    for n in (1, 100, 700):
        part = as_rows(mine_triplets(embeddings, labels, margin=0.1, anchors=slice(n)))
        np.testing.assert_array_equal(part, whole[whole[:, 0] < n])


def test_seed_moves_the_picks_and_nothing_else() -> None:
    embeddings, labels = clustered(10, 6, 16)
    first, again, other = (mine_triplets(embeddings, labels, margin=1.0, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(as_rows(first), as_rows(again))
    np.testing.assert_array_equal(as_rows(first)[:, :2], as_rows(other)[:, :2])
    assert (first.negative != other.negative).any()


def test_labels_of_any_sortable_type() -> None:
    embeddings, labels = clustered(6, 5, 8)
    expected = as_rows(mine_triplets(embeddings, labels, margin=1.0))
    names = np.array(["ann", "bob", "cem", "dora", "eve", "fay"])
    for same in (names[labels], labels.astype(np.uint8), labels.astype(float), names.astype(object)[labels]):
        np.testing.assert_array_equal(as_rows(mine_triplets(embeddings, same, margin=1.0)), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_nothing_to_mine_is_an_empty_result(n: int, backend: Any) -> None:
    for name in STRATEGIES:
        for labels in (np.zeros(n, int), np.arange(n)):
            mined = mine_triplets(
                np.ones((n, 3), np.float32),
                labels,
                count_candidates=True,
                **options_for(name, backend=backend),
            )
            assert len(mined) == mined.n_pairs_with_negative == 0
            assert mined.anchor.dtype == mined.positive.dtype == mined.negative.dtype == np.int32
            assert np.isnan([mined.mean_d_ap, mined.mean_d_an]).all()
            assert mined.candidates is not None
            assert len(mined.candidates) == mined.n_pairs
            assert mined.candidates.n_triplets == 0


def test_strided_read_only_and_foreign_byte_order() -> None:
    embeddings, labels = clustered(6, 5, 8)
    expected = as_rows(mine_triplets(embeddings, labels))
    wide = np.zeros((60, 16), np.float32)
    wide[::2, ::2] = embeddings
    frozen = embeddings.copy()
    frozen.flags.writeable = False
    for same in (
        wide[::2, ::2],
        np.asfortranarray(embeddings),
        frozen,
        embeddings.astype(">f4"),
        embeddings.tolist(),
    ):
        np.testing.assert_array_equal(as_rows(mine_triplets(same, labels)), expected)


def test_half_precision_is_widened() -> None:
    embeddings, labels = clustered(6, 5, 8)
    half = embeddings.astype(np.float16)
    expected = as_rows(mine_triplets(half.astype(np.float32), labels))
    np.testing.assert_array_equal(as_rows(mine_triplets(half, labels)), expected)


def test_one_large_identity() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((2100, 4)).astype(np.float32)
    labels = np.arange(2100) >= 2000
    mined = mine_triplets(embeddings, labels, strategy="vgg_face", margin=0.1, seed=1)
    assert mined.n_pairs == 2000 * 1999 // 2 + 100 * 99 // 2
    a, p, n = (embeddings[i].astype(np.float64) for i in (mined.anchor, mined.positive, mined.negative))
    assert (((a - n) ** 2).sum(1) - ((a - p) ** 2).sum(1) < 0.1 + 1e-12).all()
    assert (labels[mined.anchor] == labels[mined.positive]).all()
    assert (labels[mined.anchor] != labels[mined.negative]).all()


def test_threads_may_mine_at_the_same_time() -> None:
    embeddings, labels = clustered(20, 10, 32)
    names = [
        "facenet",
        "batch_hard",
        "distance_weighted",
        "skip_many",
        "moderate_positive",
        "random_3_positives",
    ]
    expected = [
        as_rows(mine_triplets(embeddings, labels, strategy=STRATEGIES[name], seed=s))
        for s, name in enumerate(names)
    ]
    got: dict[int, npt.NDArray[np.int32]] = {}

    def work(s: int) -> None:
        for _ in range(20):
            strategy = STRATEGIES[names[s]]
            got[s] = as_rows(mine_triplets(embeddings, labels, strategy=strategy, seed=s, threads=2))

    workers = [threading.Thread(target=work, args=(s,)) for s in range(len(names))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for s, rows in enumerate(expected):
        np.testing.assert_array_equal(got[s], rows)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"margin": 0}, ValueError, "margin must be positive and finite; got 0"),
        ({"margin": -0.1}, ValueError, "margin must be positive and finite; got -0.1"),
        ({"margin": float("nan")}, ValueError, "margin must be positive and finite; got nan"),
        ({"margin": "wide"}, TypeError, "margin must be a number; got 'wide'"),
        (
            {"strategy": "semi_hard"},
            ValueError,
            f"strategy must be one of {', '.join(sorted(PRESETS))}; got 'semi_hard'",
        ),
        ({"strategy": ["facenet"]}, TypeError, "a preset's name or a Strategy; got ..facenet.."),
        ({"seed": -1}, ValueError, r"seed must be in \[0, 18446744073709551615\]; got -1"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number; got 1.5"),
        ({"threads": 0}, ValueError, "threads must be in"),
        ({"anchors": [0, 30]}, ValueError, "anchors must index the 30 embeddings; index 30 is out of bounds"),
        ({"anchors": [True]}, ValueError, "anchors must index the 30 embeddings"),
        ({"anchors": [0.5]}, ValueError, "anchors must index the 30 embeddings"),
        ({"anchors": "first"}, ValueError, "anchors must index the 30 embeddings"),
        ({"anchors": slice("a", "b")}, TypeError, "anchors must be a slice, row numbers or a mask"),
        (
            {"labels": [0, 1]},
            ValueError,
            r"labels must have shape \(30,\), one for each embedding; got \(2,\)",
        ),
        ({"labels": [[0] * 30]}, ValueError, "labels must have shape"),
        ({"labels": [float("nan")] * 30}, ValueError, "labels must not be NaN"),
        ({"labels": [None, "x"] * 15}, TypeError, "labels must be of one sortable type"),
        (
            {"embeddings": np.ones((30, 4), int)},
            TypeError,
            "embeddings must be float32 or float64; got int64",
        ),
        ({"embeddings": np.ones((30, 4), complex)}, TypeError, "embeddings must be float32 or float64"),
        ({"embeddings": np.ones(30)}, ValueError, r"shape \(n_images, embedding_size\); got \(30,\)"),
        ({"embeddings": np.ones((30, 0))}, ValueError, r"got \(30, 0\)"),
        ({"embeddings": np.ones((30, 4, 2))}, ValueError, r"got \(30, 4, 2\)"),
        *(
            ({"distance": word}, ValueError, f"of squared_euclidean, euclidean, cosine; got {word!r}")
            for word in ("l2", "Cosine", None, 2)
        ),
        *(
            (
                {"strategy": "distance_weighted", "embeddings": np.full((30, 4), 0.6), "distance": distance},
                ValueError,
                "needs embeddings of norm 1, or distance='cosine'.*row 0 of embeddings has norm 1.2$",
            )
            for distance in ("squared_euclidean", "euclidean")
        ),
        (
            {"strategy": "distance_weighted", "embeddings": np.diag(np.where(np.arange(30) == 7, 0.9, 1))},
            ValueError,
            "distance_weighted needs embeddings of norm 1.*row 7 of embeddings has norm 0.9$",
        ),
        (
            {"strategy": "distance_weighted", "embeddings": np.ones((30, 2)) / np.sqrt(2)},
            ValueError,
            "distance_weighted needs embeddings of 3 numbers at least; got 2$",
        ),
        *(
            (
                {"distance": "cosine", "embeddings": np.eye(30, dtype=dtype) * (np.arange(30) != 9)},
                ValueError,
                r"finite and not all zeros: their cosine is asked for; row 9 has norm 0\.0$",
            )
            for dtype in ("f4", "f8")
        ),
        (
            {"distance": "cosine", "embeddings": np.where(np.arange(30)[:, None] == 4, np.nan, np.eye(30))},
            ValueError,
            "finite and not all zeros: their cosine is asked for; row 4 has norm nan$",
        ),
        (
            {"distance": "cosine", "embeddings": np.where(np.eye(30) > 0, np.inf, 1.0)},
            ValueError,
            "finite and not all zeros: their cosine is asked for; row 0 has norm inf$",
        ),
        *(
            ({"bank": bank}, error, message)
            for bank, error, message in [
                (np.ones((3, 8)), TypeError, r"bank must be two arrays, \(embeddings, labels\); got ndarray"),
                ("ab", TypeError, r"bank must be two arrays, \(embeddings, labels\); got str"),
                ((np.ones((3, 8)),), TypeError, r"bank must be two arrays, \(embeddings, labels\)"),
                ((np.ones((3, 8)), [0] * 3, 1), TypeError, "bank must be two arrays"),
                ((np.ones((3, 7)), [0] * 3), ValueError, "the bank's embeddings must have 8 numbers.*got 7"),
                ((np.ones(8), [0]), ValueError, r"the bank's embeddings must have shape .*got \(8,\)"),
                ((np.ones((3, 8), int), [0] * 3), TypeError, "the bank's embeddings must be float32"),
                ((None, [0] * 3), TypeError, "the bank's embeddings must be float32 or float64; got object"),
                ((np.ones((3, 8)), [0] * 2), ValueError, r"the bank's labels .* \(3,\).*got \(2,\)"),
                ((np.ones((3, 8)), None), ValueError, r"the bank's labels must have shape \(3,\).*got \(\)"),
                ((np.ones((3, 8)), ["a"] * 3), TypeError, "labels must be of one type.*got int64 and <U1"),
                ((np.ones((3, 8)), [b"a"] * 3), TypeError, "labels must be of one type, and the bank's too"),
                ((np.ones((3, 8)), [1, "a", 1]), TypeError, "the bank's labels must be of one sortable type"),
                ((np.ones((3, 8)), [np.nan] * 3), ValueError, "the bank's labels must not be NaN"),
                ((np.full((3, 8), np.nan), [0] * 3), ValueError, "embeddings must be finite"),
            ]
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [mine_triplets, count_triplets, stream_triplets])
def test_bad_input_is_one_clear_sentence(
    function: Any, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    embeddings, labels = clustered(6, 5, 8)
    arguments = {"embeddings": embeddings, "labels": labels, **change}
    with pytest.raises(error, match=message) as caught:
        function(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", [mine_triplets, count_triplets])
def test_a_backend_that_is_none(function: Any) -> None:
    for backend in ("gpu", None, 1):
        with pytest.raises(ValueError, match=f"backend must be 'native' or 'reference'; got {backend!r}"):
            function(*clustered(6, 5, 8), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("strategy", ["batch_all", Strategy("hard", pick="every")])
def test_every_candidate_may_be_too_many_for_one_result(strategy: Any, backend: Any) -> None:
    with pytest.raises(ValueError, match=r"^this strategy picks every .*stream_triplets.*count_triplets"):
        mine_triplets(*clustered(6, 5, 8), strategy=strategy, backend=backend)


@pytest.mark.parametrize("max_triplets", [0, -1, 2**63, 1.5, "all", None])
def test_a_block_that_holds_nothing(max_triplets: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^max_triplets must be "):
        stream_triplets(*clustered(6, 5, 8), max_triplets=max_triplets)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf"), (1e160, "1e")]
)
def test_the_first_row_that_is_not_finite_is_named(backend: Any, value: float, shown: str) -> None:
    embeddings, labels = clustered(6, 5, 8)
    rows = embeddings.astype(np.float64)
    rows[[17, 23], 3] = value
    with pytest.raises(ValueError, match=f"norms below 1e.150; row 17 has norm {shown}"):
        mine_triplets(rows, labels, backend=backend)


@pytest.mark.skipif(
    platform.machine() not in UPWARD, reason="the C library's number for rounding up is not known"
)
def test_the_callers_rounding_mode_does_not_matter_and_is_kept() -> None:
    embeddings, labels = clustered(9, 7, 33, noise=0.7)
    c_library = ctypes.CDLL(None)
    for strategy in STRATEGIES.values():
        expected = as_rows(mine_triplets(embeddings, labels, strategy=strategy, seed=5, threads=2))
        c_library.fesetround(UPWARD[platform.machine()])
        try:
            mined = as_rows(mine_triplets(embeddings, labels, strategy=strategy, seed=5, threads=2))
            kept = c_library.fegetround()
        finally:
            c_library.fesetround(0)
        np.testing.assert_array_equal(mined, expected)
        assert kept == UPWARD[platform.machine()]


@pytest.mark.parametrize("scale", [1e-19, 1e-30, 1e-40])
def test_denormals_are_numbers_like_others(instruction_set: str, scale: float) -> None:
    embeddings, labels = clustered(6, 6, 33, noise=0.7)
    small = embeddings.astype(np.float64) * scale
    mixed = embeddings.copy()
    mixed[:, ::2] *= np.float32(1e-41)
    for name in STRATEGIES:
        options = options_for(name, seed=5, threads=2)
        for rows in (small, small.astype(np.float32)):
            assert_equals_reference(rows, labels, margin=0.2 * scale**2, **options)
        assert_equals_reference(mixed, labels, **options)


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip()


def test_mining_never_imports_tensorflow() -> None:
    code = (
        "import sys, facenet_fast, numpy as np\n"
        "facenet_fast.mine_triplets(np.eye(4, dtype='f'), [0, 0, 1, 1])\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'tensorflow', 'keras', 'sklearn', 'scipy'}))"
    )
    assert run_python(code) == "[]"


def test_environment_forces_the_instruction_set() -> None:
    code = "from facenet_fast.mining.devices import load_core; print(load_core().instruction_set())"
    for name in INSTRUCTION_SETS:
        assert run_python(code, FACENET_FAST_ISA=name) == name


def test_an_impossible_instruction_set_lists_the_possible() -> None:
    code = (
        "import numpy as np, facenet_fast\n"
        "try: facenet_fast.mine_triplets(np.eye(4), [0, 0, 1, 1])\n"
        "except ValueError as error: print(error)"
    )
    message = run_python(code, FACENET_FAST_ISA="sse9")
    assert all(name in message for name in ("sse9", "baseline"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_mines() -> None:
    code = (
        "import os, warnings, numpy as np\n"
        "warnings.simplefilter('ignore')\n"
        "from facenet_fast import mine_triplets\n"
        "e = np.random.default_rng(0).standard_normal((300, 64)).astype('f'); y = np.arange(300) % 30\n"
        "first = len(mine_triplets(e, y, threads=2))\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if len(mine_triplets(e, y, threads=2)) == first else 1)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "print(status, len(mine_triplets(e, y, threads=2)) == first)"
    )
    assert run_python(code) == "0 True"


def test_a_missing_extension_becomes_advice() -> None:
    code = (
        "import sys; sys.modules['facenet_fast._core'] = None\n"
        "import facenet_fast, numpy as np\n"
        "try: facenet_fast.mine_triplets(np.eye(4), [0, 0, 1, 1])\n"
        "except ImportError as error: print(error)"
    )
    message = run_python(code)
    assert "pip install" in message
    assert "backend='reference'" in message
