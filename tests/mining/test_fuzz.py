"""Whatever is handed in: the specified result or one clear sentence; never a crash, never a wrong answer."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facenet_fast import (
    CandidateCounts,
    Neighbors,
    Strategy,
    count_triplets,
    mine_triplets,
    nearest_identities,
    nearest_neighbors,
    select_triplets,
    stream_triplets,
)
from facenet_fast.mining import PRESETS, Triplets
from facenet_fast.mining.batch import DISTANCES
from facenet_fast.mining.devices import load_core
from facenet_fast.mining.neighbors import EXCLUDE
from facenet_fast.mining.rule import make_rule

from .contract import BACKENDS, as_rows, attempt
from .strategies_table import STRATEGIES, composed

FUZZ = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def mostly(usual: st.SearchStrategy[Any], wild: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([*[usual] * 9, wild]).flatmap(lambda chosen: chosen)


# -- embeddings --------------------------------------------------------------------------------------------

odd_numbers = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 5e-324, 1e-30, 1e20, 3e38, 1e154, 1e300]
not_numbers = [np.nan, np.inf, -np.inf]
good_types = ["f4", "f8", "f2", ">f4", ">f8", ">f2"]
bad_types = ["i4", "u1", "?", "c8", "c16", "g", "U3", "S2", "O", "M8[s]", "m8[s]"]


def misaligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.hasobject:
        return array
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    moved = np.ndarray(array.shape, array.dtype, memory.data)
    moved[...] = array
    return moved


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


def spread_out(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    wide = np.zeros(tuple(3 * n for n in array.shape), array.dtype)
    view = wide[tuple(slice(0, 3 * n, 3) for n in array.shape)]
    view[...] = array
    return view


VIEWS: list[Callable[[npt.NDArray[Any]], Any]] = [
    lambda array: array,
    lambda array: array[::-1],
    lambda array: array[..., ::-1],
    lambda array: array.copy()[::-1][::-1],
    lambda array: np.broadcast_to(array[:1], array.shape),
    lambda array: np.broadcast_to(array[..., :1], array.shape),
    lambda array: array.T,
    np.asfortranarray,
    spread_out,
    misaligned,
    read_only,
    lambda array: array.tolist(),
    lambda array: memoryview(array) if array.dtype.kind == "f" and array.dtype.isnative else array,
    lambda array: array[:0],
    lambda array: array[:, :0],
    lambda array: array[0],
    lambda array: array[None],
]
SAME_SHAPE = 12


@st.composite
def embeddings_of(draw: st.DrawFn, n: int) -> Any:
    size = draw(st.integers(1, 20))
    kind = draw(st.sampled_from(["few", "any", "any", "any", "odd", "broken"]))
    numbers = {
        "few": st.integers(-1, 1).map(float),
        "any": st.floats(-4, 4),
        "odd": st.sampled_from(odd_numbers),
        "broken": st.one_of(st.floats(-4, 4), st.sampled_from(not_numbers)),
    }[kind]
    distinct = draw(st.lists(numbers, min_size=1, max_size=30))
    chosen = draw(st.randoms(use_true_random=False)).choices(distinct, k=n * size)
    values = np.array(chosen, float).reshape(n, size)
    dtype = np.dtype(draw(st.sampled_from(good_types * 12 + bad_types)))
    with np.errstate(all="ignore"):
        if dtype.kind in "iuM":
            values = np.nan_to_num(values, posinf=0, neginf=0).clip(0, 100)
        array = values.astype("i8").astype(dtype) if dtype.kind in "Mm" else values.astype(dtype)
    usual = st.integers(0, SAME_SHAPE - 1)
    view = draw(st.one_of(usual, usual, usual, st.integers(0, len(VIEWS) - 1)))
    return VIEWS[view](array) if n else array


# -- labels ------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([2**53, 2**53 + 1, 2**63, 2**64 - 1, 2**70, -(2**70)]),
    st.booleans(),
    st.none(),
    st.sampled_from([0.0, 0.5, 1.0, float("nan"), float("inf"), 2.0**53]),
    st.sampled_from(["", "a", "b", "1", "a\0", "é", "😀"]),
    st.sampled_from([b"", b"a", b"1", b"a\0"]),
    st.sampled_from([1j, 0j, complex(float("nan"), 0)]),
    st.sampled_from([Fraction(1, 2), Decimal(1), datetime.date(2020, 1, 1), datetime.timedelta(1)]),
    st.sampled_from([frozenset({1}), frozenset({2}), frozenset(), (1, 2), (1,), [1], object()]),
    st.sampled_from(
        [np.float32(0.1), np.int8(1), np.datetime64("2020-01-01"), np.datetime64("NaT"), np.str_("a")]
    ),
)
label_types = [
    "i1", ">i2", "i8", "u8", ">u8", "?", "f2", "f4", ">f8", "g", "c8", "U3", ">U3", "S2", "V2",
    "M8[D]", "m8[s]", "O", [("a", "i4"), ("b", "S1")], [("a", "f4")],
]  # fmt: skip


def objects(values: list[Any]) -> npt.NDArray[Any]:
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


@st.composite
def labels_of(draw: st.DrawFn, n: int) -> Any:
    if draw(st.booleans()):
        numbers = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), dtype="i8")
        dtype = np.dtype(draw(st.sampled_from(label_types)))  # type: ignore[call-overload]
        if dtype.names:
            array = np.zeros(n, dtype)
            array[dtype.names[0]] = numbers
        elif dtype.kind == "V":
            array = np.array([b"ab", b"cd", b"a", b""], dtype)[numbers]
        else:
            array = numbers.astype(dtype)
        if n and dtype.kind in "fcMm" and draw(st.integers(0, 7)) == 0:
            array[draw(st.integers(0, n - 1))] = "NaT" if dtype.kind in "Mm" else np.nan
        view = draw(st.sampled_from([0, 1, 3, 8, 9, 10]))
        return VIEWS[view](array) if n and dtype.kind != "O" else array
    of_one_type = st.sampled_from(
        [st.integers(-2, 2), st.text(max_size=2), st.dates(), st.tuples(st.booleans())]
    )
    kind = draw(st.one_of(of_one_type, of_one_type, st.just(scalars)))
    few = draw(st.lists(kind, min_size=1, max_size=4))
    values = draw(st.lists(st.sampled_from(few), min_size=n, max_size=n))
    length = draw(st.sampled_from([n, n, n, n, n, n + 1, 0]))
    values = (values + few)[:length]
    return draw(st.sampled_from([list, list, tuple, tuple, objects, objects, iter]))(values)


def assert_agrees_with_labels(triplets: Triplets, labels: list[Any], n_images: int) -> None:
    """By Python's own equality, which knows nothing of numpy's conversions."""
    for a, p, n in as_rows(triplets).tolist():
        assert a < n_images
        assert a != p
        assert labels[a] == labels[p]
        assert labels[a] != labels[n]


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, tuple):
        assert found == expected
        return
    if not isinstance(expected, Triplets | CandidateCounts | Neighbors):
        assert found == expected
        return
    for field in fields(expected):
        value, specified = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(specified, np.ndarray):
            assert value.dtype == specified.dtype
            np.testing.assert_array_equal(value, specified)
        elif not isinstance(specified, float):  # means are to float32 precision only
            assert_same(value, specified)


# -- the Python face ---------------------------------------------------------------------------------------

any_option = st.one_of(st.none(), st.text(max_size=3), st.floats(), st.integers(), st.just([]), st.just(1j))
margins = st.one_of(st.floats(1e-6, 1e3), st.sampled_from([5e-324, 1e308, 10**400, 1, True]), any_option)
seeds = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([2**64, -1, np.uint64(2**64 - 1)]), any_option)
thread_counts = st.one_of(
    st.none(), st.integers(1, 5), st.sampled_from([100_000, 2**31 - 1, 2**31, 2**70, 0, -1]), any_option
)
strategies = st.one_of(st.sampled_from(sorted(PRESETS)), any_option)
distances = st.one_of(st.sampled_from([*DISTANCES, "Cosine", ""]), any_option)
banks = st.one_of(
    any_option,
    st.tuples(any_option, any_option),
    st.tuples(embeddings_of(3), labels_of(3)),
    st.just(np.ones((2, 5))),
)
max_numbers = st.one_of(st.sampled_from([1, 2**62, 2**63, 0, -1, True]), any_option)


@st.composite
def batches_and_banks(draw: st.DrawFn) -> tuple[Any, Any, Any, int]:
    """Draw a batch that may have a bank of as wide rows; the labels of both as lists, and how many images."""
    n, n_more = draw(st.sampled_from([*range(14), *[14] * 14])), draw(st.sampled_from([*[0] * 9, *range(9)]))
    embeddings, labels = draw(embeddings_of(n + n_more)), draw(labels_of(n + n_more))
    fits = isinstance(embeddings, np.ndarray) and embeddings.shape[:1] == (n + n_more,)
    if not n_more or not fits or not hasattr(labels, "__len__") or len(labels) != n + n_more:
        return embeddings, labels, None, n + n_more
    return embeddings[:n], labels[:n], (embeddings[n:], labels[n:]), n


any_strategy = st.one_of(
    st.sampled_from(sorted(PRESETS)),
    st.sampled_from(sorted(STRATEGIES)).map(STRATEGIES.__getitem__),
    composed(),
)


@FUZZ
@given(
    data=st.data(),
    batch=batches_and_banks(),
    wild=st.sampled_from(
        [*[None] * 8, "margin", "seed", "threads", "strategy", "distance", "bank", "max_triplets", "anchors"]
    ),
)
def test_mining_anything(data: st.DataObject, batch: Any, wild: str | None) -> None:
    embeddings, labels, bank, n_images = batch
    options: dict[str, Any] = {
        "margin": data.draw(st.floats(1e-3, 20)),
        "seed": data.draw(st.integers(0, 2**64 - 1)),
        "threads": data.draw(st.integers(1, 3)),
        "strategy": data.draw(any_strategy),
        "distance": data.draw(st.sampled_from(sorted(DISTANCES))),
        "bank": bank,
        "bank_positives": data.draw(st.booleans()),
    }
    max_triplets = 5
    if wild:
        choices = {
            "margin": margins,
            "seed": seeds,
            "threads": thread_counts,
            "strategy": strategies,
            "distance": distances,
            "bank": banks,
            "anchors": any_option,
            "max_triplets": max_numbers,
        }
        options[wild] = data.draw(choices[wild])
        max_triplets = options.pop("max_triplets", max_triplets)
    # An iterator would be used up by the first of the calls.
    if hasattr(labels, "__next__"):
        assert isinstance(attempt(lambda: mine_triplets(embeddings, labels, **options)), tuple)
        return

    mined = attempt(lambda: mine_triplets(embeddings, labels, **options))
    specified = attempt(lambda: mine_triplets(embeddings, labels, **options, backend="reference"))
    assert_same(mined, specified)
    counted = attempt(lambda: count_triplets(embeddings, labels, **options))
    assert_same(counted, attempt(lambda: count_triplets(embeddings, labels, **options, backend="reference")))
    blocks = attempt(lambda: [*stream_triplets(embeddings, labels, **options, max_triplets=max_triplets)])
    if isinstance(counted, tuple):
        assert isinstance(blocks, tuple)
        assert isinstance(mined, tuple)
        return
    together = [*labels, *(options["bank"][1] if options["bank"] is not None else [])]
    if isinstance(blocks, list):
        assert sum(map(len, blocks)) == counted.n_triplets
        for block in blocks:
            assert_agrees_with_labels(block, together, n_images)
    if isinstance(mined, Triplets):
        assert mined.n_pairs == len(counted)
        assert_agrees_with_labels(mined, together, n_images)
        if options["strategy"] in ("facenet", "vgg_face") and options["bank"] is None and wild != "anchors":
            assert mined.n_pairs == sum(bool(x == y) for x, y in combinations(labels, 2))


@FUZZ
@given(
    data=st.data(),
    n=st.integers(0, 12),
    n_more=st.one_of(st.none(), st.integers(0, 9)),
    wild=st.sampled_from([*[None] * 5, "k", "threads", "distance", "exclude", "labels", "query_labels"]),
)
def test_neighbors_of_anything(data: st.DataObject, n: int, n_more: int | None, wild: str | None) -> None:
    queries = data.draw(embeddings_of(n if n_more is None else n + n_more))
    database = None
    if n_more is not None and isinstance(queries, np.ndarray) and queries.shape[:1] == (n + n_more,):
        queries, database = queries[:n], queries[n:]
    elif n_more is not None:
        database = data.draw(embeddings_of(n_more))
    exclude = data.draw(st.sampled_from([None, *EXCLUDE]))
    options: dict[str, Any] = {
        "k": data.draw(st.integers(1, 14)),
        "threads": data.draw(st.integers(1, 3)),
        "distance": data.draw(st.sampled_from(sorted(DISTANCES))),
        "exclude": exclude,
    }
    if exclude == "same_identity" or wild in ("labels", "query_labels"):
        options["labels"] = data.draw(labels_of(n if n_more is None else n_more))
        options["query_labels"] = data.draw(st.one_of(labels_of(n), st.just(options["labels"])))
    if wild:
        options[wild] = data.draw(
            {
                "k": max_numbers.filter(lambda k: not isinstance(k, int) or not 100 < k < 2**31),
                "threads": thread_counts,
                "distance": distances,
            }.get(wild, any_option)
        )
    if any(hasattr(options.get(name), "__next__") for name in ("labels", "query_labels")):
        attempt(lambda: nearest_neighbors(queries, database, **options))
        return
    found = attempt(lambda: nearest_neighbors(queries, database, **options))
    assert_same(found, attempt(lambda: nearest_neighbors(queries, database, **options, backend="reference")))
    if isinstance(found, Neighbors) and options["exclude"] == "same_identity":
        own = database is None
        labels = list(options["labels"])
        for label, indices in zip(
            labels if own else options["query_labels"], found.indices.tolist(), strict=True
        ):
            expected = sum(label != other for other in labels)
            assert sum(i >= 0 for i in indices) == min(expected, len(indices))
            assert all(labels[i] != label for i in indices if i >= 0)


@FUZZ
@given(
    data=st.data(),
    n=st.integers(0, 14),
    distance=mostly(st.sampled_from(sorted(DISTANCES)), distances),
    k=st.integers(1, 9),
)
def test_lookalikes_of_anything(data: st.DataObject, n: int, distance: Any, k: int) -> None:
    embeddings, labels = data.draw(embeddings_of(n)), data.draw(labels_of(n))
    alike = attempt(lambda: nearest_identities(embeddings, labels, k, distance=distance))
    if isinstance(alike, tuple):
        return
    assert len(alike.identities) == len({repr(label) for label in np.asarray(labels).tolist()})
    assert alike.indices.shape == alike.distances.shape == (len(alike.identities), k)
    assert (alike.indices < len(alike.identities)).all()
    specified = nearest_identities(embeddings, labels, k, distance=distance, backend="reference")
    np.testing.assert_array_equal(alike.indices, specified.indices)
    np.testing.assert_array_equal(alike.distances, specified.distances)


@FUZZ
@given(
    counts=mostly(
        st.lists(st.integers(0, 4), min_size=4, max_size=6), st.lists(st.integers(0, 4), max_size=5)
    ),
    wild=mostly(
        st.just([]),
        st.lists(st.sampled_from([1.0, 2.5, "2", None, -1, 2**63 - 1, 2**70, np.int8(3), True]), max_size=3),
    ),
    people=mostly(st.integers(1, 4), st.one_of(st.integers(-1, 6), any_option)),
    alpha=mostly(st.floats(0.1, 9), any_option),
    n_more_paths=st.sampled_from([*[0] * 9, 1, -1]),
    n_more_rows=st.sampled_from([*[0] * 9, 1, -1]),
    rng=mostly(st.sampled_from(["keyed", "numpy"]), any_option),
)
def test_selecting_anything(
    counts: list[Any], wild: list[Any], people: Any, alpha: Any, n_more_paths: int, n_more_rows: int, rng: Any
) -> None:
    n = sum(counts)
    rows = np.random.default_rng(0).standard_normal((max(n + n_more_rows, 0), 5)).astype(np.float32)
    paths = [f"{i}.png" for i in range(max(n + n_more_paths, 0))]
    np.random.seed(0)
    got = attempt(lambda: select_triplets(rows, [*counts, *wild], paths, people, alpha, rng))
    if isinstance(got[0], type):
        return
    triplets, n_pairs, n_triplets = got
    owner = np.repeat(np.arange(len(counts) + len(wild)), [int(c) for c in [*counts, *wild]])
    assert len(owner) == len(paths) == len(rows)
    assert len(triplets) == n_triplets <= n_pairs
    for triplet in triplets:
        a, p, n = (owner[paths.index(path)] for path in triplet)
        assert a == p != n
        assert a < people


@pytest.mark.parametrize("threads", [65, 100_000, 2**31 - 1])
def test_more_threads_than_any_machine_has(threads: int) -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.standard_normal((400, 8)).astype(np.float32), np.arange(400) % 20
    mined, expected = (mine_triplets(embeddings, labels, threads=t) for t in (threads, 1))
    np.testing.assert_array_equal(mined.negative, expected.negative)


def test_more_rows_than_can_be_numbered() -> None:
    for dtype in (np.float32, np.float16):
        embeddings = np.broadcast_to(np.ones((1, 1), dtype), (2**31, 1))
        with pytest.raises(ValueError, match=r"fewer than 2\*\*31 rows; got 2147483648"):
            mine_triplets(embeddings, [0])


@pytest.mark.parametrize(
    "labels",
    [
        [1, "1", 1, "1"],
        [b"a", "a", b"a", "a"],
        [2**53, 2**53 + 1, 2**53, 0.5],
        [2**64 - 1, 2**64 - 2, -1, -1],
        ["a", "a\0", "a", "a\0"],
        objects([frozenset({1}), frozenset({2})] * 2),
        objects([2.0, float("nan"), 1.0, 2.0]),
        np.array(["NaT", "2020", "NaT", "2020"], "M8[D]"),
        [None] * 4,
    ],
)
def test_labels_that_numpy_would_confuse_are_refused(labels: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="labels must"):
        mine_triplets(np.eye(4), labels)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("labels", "others"),
    [
        (np.array([2**63 + 1, 2**63 + 2, 2**63 + 3, 2**63 + 4], np.uint64), [-1]),
        ([2**53, 2**53 + 1, 2**53 + 2, 2**53 + 3], [0.5]),
        (np.array([2**53, 2**53 + 1, 2**53 + 2, 2**53 + 3]), np.array([3.0], np.float32)),
        (np.array([0, 1, 2, 3]), ["0"]),
        (["a", "b", "c", "d"], [b"a"]),
        (np.array([0, 1, 2, 3], "M8[s]"), [0]),
    ],
)
def test_labels_of_two_arrays_that_numpy_would_confuse(labels: Any, others: Any, backend: Any) -> None:
    # All are different: either that is seen, or they are refused.
    rows, more = np.eye(5)[:4], np.eye(5)[4:]
    counts = attempt(lambda: count_triplets(rows, labels, bank=(more, others), backend=backend))
    assert isinstance(counts, tuple) or len(counts) == 0
    for one, other in (((rows, labels), (more, others)), ((more, others), (rows, labels))):
        found = attempt(
            lambda one=one, other=other: nearest_neighbors(
                one[0],
                other[0],
                4,
                exclude="same_identity",
                labels=other[1],
                query_labels=one[1],
                backend=backend,
            )
        )
        assert isinstance(found, tuple) or (found.indices >= 0).sum() == 4


# -- the compiled module, which only the Python face should call -----------------------------------------

N_ROWS = 6
TASKS = ["mine", "count", "take", "every"]


def core_rule(**change: Any) -> Any:
    return load_core().Rule(**{**RULE, **change})


RULE: dict[str, Any] = {
    "pairs": "each_once",
    "n_positives": 1,
    "max_d_ap": float("inf"),
    "quantile": 1.0,
    "relative": True,
    "low": -float("inf"),
    "low_is_open": False,
    "high": 9.0,
    "reach": float("inf"),
    "root": False,
    "skip_hardest": 0.0,
    "pick": "uniform",
    "n_negatives": 1,
    "if_empty": "drop",
    "weights": (),
}


def core_arguments(task: str = "mine") -> dict[str, Any]:
    arguments = {
        "workspace": load_core().Workspace(),
        "embeddings": np.random.default_rng(0).standard_normal((N_ROWS, 5)).astype(np.float32),
        "order": np.arange(N_ROWS, dtype=np.int32)[::-1].copy(),
        "offsets": np.array([0, 2, 2, 6]),
        "members": np.array([2, 2, 6]),
        "bank_positives": False,
        "is_anchor": np.empty(0, np.uint8),
        "rule": core_rule(),
        "seed": 1,
        "threads": 2,
    }
    if task == "take":
        # Of the pairs (0, 1); (2, 3), (2, 4), (2, 5), (3, 4), (3, 5), (4, 5) the nearest candidate by row.
        arguments |= {"row_starts": np.array([0, 0, 1, 4, 6, 0]), "ranks": np.zeros(7, np.int64)}
    elif task == "every":
        arguments |= {"row_starts": np.array([0, 0, 4, 10, 14, 0]), "n": 16}
    return arguments


def ask_core(task: str, **change: Any) -> Any:
    return getattr(load_core(), task)(**{**core_arguments(task), **change})


def test_the_core_takes_what_fits() -> None:
    for change in (
        {},
        {"embeddings": core_arguments()["embeddings"].astype("f8")},
        {"is_anchor": np.full(N_ROWS, 255, np.uint8)},
        {"threads": 0},
        {"threads": -3},
    ):
        (anchors, _, _), bad_row, (n_pairs, n_with_negative), sums = ask_core("mine", **change)
        assert (len(anchors), bad_row, n_pairs, n_with_negative) == (1 + 6, -1, 7, 7)
        assert all(total > 0 for total in sums)
        (anchors, _, n_candidates), bad_row = ask_core("count", **change)
        assert (len(anchors), bad_row) == (1 + 6, -1)
        assert n_candidates.tolist() == [4, 2, 2, 2, 2, 2, 2]
        negatives, _ = ask_core("every", **change)
        assert negatives.tolist() == [3, 2, 1, 0] + [5, 4] * 6
        assert ask_core("take", **change).tolist() == [3, 5, 5, 5, 5, 5, 5]
    assert ask_core("take", ranks=np.array([3, -1, 1, 0, -1, -1, 1])).tolist() == [0, -1, 4, 5, -1, -1, 4]


rows_in_order = np.arange(N_ROWS, dtype=np.int32)


@pytest.mark.parametrize(
    "change",
    [
        {"workspace": None},
        {"workspace": object()},
        {"embeddings": np.float32(1)},
        {"embeddings": np.ones(N_ROWS, np.float32)},
        {"embeddings": np.ones((N_ROWS, 5, 1), np.float32)},
        {"embeddings": np.asfortranarray(np.ones((N_ROWS, 5), np.float32))},
        {"embeddings": np.ones((N_ROWS, 10), np.float32)[:, ::2]},
        {"embeddings": np.broadcast_to(np.float32(1), (N_ROWS, 5))},
        {"embeddings": np.broadcast_to(np.ones((1, 1), np.float32), (2**31, 1))},
        {"embeddings": np.ones((N_ROWS, 5), ">f4")},
        {"embeddings": np.ones((N_ROWS, 5), np.float16)},
        {"embeddings": np.ones((N_ROWS, 5), np.int32)},
        {"embeddings": misaligned(np.ones((N_ROWS, 5), np.float32))},
        {"embeddings": misaligned(np.ones((N_ROWS, 5), np.float64))},
        {"embeddings": np.ones((N_ROWS - 1, 5), np.float32)},
        {"embeddings": np.ones((N_ROWS + 1, 5), np.float32)},
        {"embeddings": np.ones((0, 5), np.float32)},
        {"order": rows_in_order.astype(np.int64)},
        {"order": rows_in_order.astype(">i4")},
        {"order": rows_in_order.reshape(2, 3)},
        {"order": rows_in_order.reshape(1, N_ROWS)},
        {"order": rows_in_order[:-1].copy()},
        {"order": np.append(rows_in_order, np.int32(0))},
        {"order": rows_in_order[:0]},
        {"order": rows_in_order[::-1]},
        {"order": misaligned(rows_in_order)},
        {"order": rows_in_order + np.int32(1)},
        {"order": rows_in_order - np.int32(1)},
        {"order": np.full(N_ROWS, 2**31 - 1, np.int32)},
        {"order": np.full(N_ROWS, -(2**31), np.int32)},
        {"offsets": np.array([0, 6], np.int32)},
        {"offsets": np.array([0, 6], ">i8")},
        {"offsets": np.array([0.0, 6.0])},
        {"offsets": np.array([[0, 6]])},
        {"offsets": np.array([0, 2, 4, 6])[::3]},
        {"offsets": misaligned(np.array([0, 6]))},
        {"offsets": np.array([], np.int64)},
        {"offsets": np.array(0)},
        {"offsets": np.array([0])},
        {"offsets": np.array([6])},
        {"offsets": np.array([1, 6])},
        {"offsets": np.array([-1, 6])},
        {"offsets": np.array([0, 5])},
        {"offsets": np.array([0, 7])},
        {"offsets": np.array([0, 4, 3, 6])},
        {"offsets": np.array([0, 9, 6])},
        {"offsets": np.array([0, -3, 6])},
        {"offsets": np.array([0, 2**62, 6])},
        {"offsets": np.array([0, -(2**63), 6])},
        {"is_anchor": np.ones(N_ROWS)},
        {"is_anchor": np.ones(N_ROWS, bool)},
        {"is_anchor": np.ones(N_ROWS - 1, np.uint8)},
        {"is_anchor": np.ones(N_ROWS + 1, np.uint8)},
        {"is_anchor": np.ones((1, N_ROWS), np.uint8)},
        {"is_anchor": np.ones(2 * N_ROWS, np.uint8)[::2]},
        {"is_anchor": None},
        {"members": np.array([2, 2, 6], np.int32)},
        {"members": np.array([2.0, 2.0, 6.0])},
        {"members": np.array([2, 6])},
        {"members": np.array([2, 2, 6, 6])},
        {"members": np.array([[2, 2, 6]])},
        {"members": np.array([], np.int64)},
        {"members": np.array([3, 2, 6])},
        {"members": np.array([2, 1, 6])},
        {"members": np.array([2, 2, 7])},
        {"members": np.array([-1, 2, 6])},
        {"members": np.array([2, 2, 2**62])},
        {"members": np.array([2, 0, 2, 0, 6, 0])[::2]},
        {"members": misaligned(np.array([2, 2, 6]))},
        {"members": None},
        {"rule": None},
        {"rule": object()},
        {"rule": "facenet"},
        {"rule": ()},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 0.5},
        {"threads": 2**31},
        {"threads": None},
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_the_core_refuses_what_it_would_read_out_of_bounds(task: str, change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        ask_core(task, **change)


@pytest.mark.parametrize(
    ("task", "change"),
    [
        *(
            (task, {"row_starts": row_starts})
            for task in ("take", "every")
            for row_starts in [
                None,
                np.zeros(N_ROWS),
                np.zeros(N_ROWS, np.int32),
                np.zeros(N_ROWS - 1, np.int64),
                np.zeros(N_ROWS + 1, np.int64),
                np.zeros((1, N_ROWS), np.int64),
                np.zeros(2 * N_ROWS, np.int64)[::2],
                np.full(N_ROWS, -1),
                np.full(N_ROWS, 17),
                np.full(N_ROWS, 2**62),
                np.full(N_ROWS, -(2**63)),
                misaligned(np.zeros(N_ROWS, np.int64)),
            ]
        ),
        *(
            ("take", {"ranks": ranks})
            for ranks in [
                None,
                np.zeros(7),
                np.zeros(7, np.int32),
                np.zeros(14, np.int64)[::2],
                np.zeros(0, np.int64),
                np.zeros(5, np.int64),
                misaligned(np.zeros(7, np.int64)),
            ]
        ),
        *(("every", {"n": n}) for n in [None, -1, 0, 13, 1.5, -(2**63), "16"]),
        ("mine", {"rule": core_rule(pick="every")}),
    ],
)
def test_the_core_refuses_where_to_that_is_out_of_bounds(task: str, change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        ask_core(task, **change)


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in ("pairs", "pick", "if_empty") for value in ("hardest", "", None, 3)),
        *({name: value} for name in ("n_positives", "n_negatives") for value in (-1, 1.5, None, 2**64)),
        {"n_negatives": 0},
        *(
            {name: value}
            for name in ("max_d_ap", "quantile", "low", "high", "reach", "skip_hardest")
            for value in (None, "wide")
        ),
        {"quantile": 0.0},
        {"quantile": 1.1},
        {"quantile": float("nan")},
        {"skip_hardest": 1.0},
        {"skip_hardest": -0.1},
        {"skip_hardest": float("nan")},
        {"weights": None},
        {"weights": (3, 1.0, 0.25, 2.0)},
        {"weights": (3, 1.0, 0.25, 2.0, (0.25,), (0.0, 0.0))},
        {"weights": (3, 1.0, 0.25, 2.0, (0.25, 2.0), (0.0, 0.0))},
        {"weights": (3, 1.0, 0.25, 2.0, (2.0, 0.25), (0.0, 0.0, 0.0))},
        {"weights": (3, 1.0, 0.25, 2.0, (0.25, 2.0), (0.0, 0.0, 0.0, 0.0))},
        {"pick": "distance_weighted"},
    ],
)
def test_the_core_refuses_what_is_no_rule(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        core_rule(**change)


small = st.integers(-1, N_ROWS + 1)


@FUZZ
@given(
    order=st.lists(st.integers(-1, N_ROWS), min_size=N_ROWS - 1, max_size=N_ROWS + 1),
    offsets=st.lists(small, max_size=5),
    members=st.lists(small, max_size=6),
    anchors=st.lists(st.integers(0, 1), min_size=N_ROWS, max_size=N_ROWS),
    strategy=composed(),
    margin=st.floats(0.01, 20),
    threads=st.integers(-1, 3),
    bank_positives=st.booleans(),
    root=st.booleans(),
    repair=st.booleans(),
)
def test_the_core_stays_inside_its_arrays(
    order: list[int],
    offsets: list[int],
    members: list[int],
    anchors: list[int],
    strategy: Strategy,
    margin: float,
    threads: int,
    bank_positives: bool,
    root: bool,
    repair: bool,
) -> None:
    begins = np.array([0, *(sorted(set(offsets) - {-1, N_ROWS + 1}) if repair else offsets), N_ROWS])
    ends = np.array([*members, *[N_ROWS] * 9][: len(begins) - 1]).clip(begins[:-1], begins[1:])
    arguments: dict[str, Any] = {
        "order": np.resize(np.array(order, np.int32), N_ROWS).clip(0, N_ROWS - 1)
        if repair
        else np.array(order, "i4"),
        "offsets": begins,
        "members": ends if repair else np.array(members, np.int64),
        "is_anchor": np.array(anchors, np.uint8),
        "bank_positives": bank_positives,
        "rule": core_rule(**numbers_of(strategy, margin, root)),
        "threads": threads,
    }
    order, members = arguments["order"].tolist(), arguments["members"].tolist()
    fits = len(order) == N_ROWS and min(order) >= 0 and max(order) < N_ROWS
    rises = bool((np.diff(begins) >= 0).all())
    between = len(members) == len(begins) - 1 and bool(
        ((begins[:-1] <= members) & (members <= begins[1:])).all()
    )
    if not (fits and rises and between):
        for task in TASKS:
            with pytest.raises(ValueError, match=r"order must|offsets must|members must"):
                ask_core(task, **arguments)
        return
    for task in ("mine", "count"):
        columns, bad_row, *_ = ask_core(task, **arguments)
        assert bad_row == -1
        for column in columns if task == "mine" else columns[:2]:
            assert ((column >= 0) & (column < N_ROWS)).all()


# Draws where results go, which may be anything at all: it must be refused, or written inside.
TRY_PLACES = """
import numpy as np
from tests.mining.test_fuzz import N_ROWS, ask_core, core_rule

rng = np.random.default_rng(0)
for _ in range(500):
    change = {
        "rule": core_rule(high=rng.choice([-5.0, 1.0, 9.0]), pairs=rng.choice(["each_once", "both_ways"])),
        "is_anchor": rng.integers(0, 2, N_ROWS).astype(np.uint8),
        "threads": int(rng.integers(1, 3)),
    }
    row_starts = rng.integers(0, rng.choice([1, 4, 20]), N_ROWS)
    ranks = rng.integers(-2, rng.choice([0, 2, 9]), rng.integers(0, 12))
    for task, places in (("take", {"ranks": ranks}), ("every", {"n": int(rng.integers(0, 40))})):
        try:
            found = ask_core(task, row_starts=row_starts, **places, **change)
        except ValueError:
            continue
        negatives = found if task == "take" else found[0]
        assert ((negatives >= -1) & (negatives < N_ROWS)).all(), (task, negatives)
print("inside")
"""


def test_the_core_writes_inside_what_it_is_told_to() -> None:
    # In a process of its own, as what is not so may be its end.
    done = subprocess.run(
        [sys.executable, "-c", TRY_PLACES],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "inside\n"), done.stderr[-2000:]


def numbers_of(strategy: Strategy, margin: float, root: bool) -> dict[str, Any]:
    rule = make_rule(strategy, margin, 5, 1.0, root)
    weights = rule.weights
    return {
        "pairs": rule.pairs,
        "n_positives": rule.n_positives,
        "max_d_ap": rule.max_d_ap,
        "quantile": rule.quantile,
        "relative": rule.band.relative,
        "low": rule.band.low,
        "low_is_open": rule.band.low_is_open,
        "high": rule.band.high,
        "reach": rule.reach,
        "root": rule.root,
        "skip_hardest": rule.skip_hardest,
        "pick": rule.pick,
        "n_negatives": rule.n_negatives,
        "if_empty": rule.if_empty,
        "weights": ()
        if weights is None
        else (
            weights.size,
            weights.unit,
            weights.lowest,
            weights.highest,
            weights.edges,
            weights.log_bounds,
        ),
    }


def neighbor_arguments() -> dict[str, Any]:
    """Two queries behind a database of four, the first of which may not find the first two of it."""
    return {
        "workspace": load_core().Workspace(),
        "embeddings": np.random.default_rng(0).standard_normal((N_ROWS, 5)).astype(np.float32),
        "order": np.array([3, 2, 1, 0, 4, 5], np.int32),
        "first_query": 4,
        "n_database": 4,
        "begins": np.array([0, 0]),
        "ends": np.array([2, 0]),
        "k": 3,
        "threads": 2,
    }


def test_the_core_takes_neighbors_that_fit() -> None:
    indices, distances, bad_row = load_core().neighbors(**neighbor_arguments())
    assert bad_row == -1
    assert sorted(indices[0].tolist()) == [-1, 0, 1]
    assert np.isinf(distances[0, 2])
    assert len(set(indices[1].tolist()) & {0, 1, 2, 3}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"workspace": None},
        {"embeddings": np.ones((N_ROWS, 5), np.float16)},
        {"embeddings": np.ones(N_ROWS, np.float32)},
        {"order": rows_in_order[:-1].copy()},
        {"order": rows_in_order + np.int32(1)},
        {
            "order": rows_in_order[::-1].copy()
        },  # a query stands among the database, and a row of it among them
        {"order": misaligned(rows_in_order)},
        {"first_query": 3},
        {"first_query": 7},
        {"first_query": -1},
        {"first_query": 2**63},
        {"n_database": 3},
        {"n_database": 5},
        {"n_database": 7},
        {"first_query": 7, "n_database": 7},
        *(
            {name: value}
            for name in ("begins", "ends")
            for value in [
                None,
                np.zeros(2),
                np.zeros(2, np.int32),
                np.zeros(1, np.int64),
                np.zeros(3, np.int64),
                np.zeros((1, 2), np.int64),
                np.zeros(4, np.int64)[::2],
                np.array([-1, 0]),
                np.array([5, 5]),
                np.array([2**62, 2**62]),
                np.array([-(2**63), 0]),
                misaligned(np.zeros(2, np.int64)),
            ]
        ),
        {"begins": np.array([3, 0])},
        {"ends": np.array([2, 5])},
        {"k": 0},
        {"k": -1},
        {"k": None},
        {"threads": None},
    ],
)
def test_the_core_refuses_neighbors_out_of_bounds(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        load_core().neighbors(**{**neighbor_arguments(), **change})


@FUZZ
@given(
    order=st.permutations(range(N_ROWS)),
    first_query=st.integers(0, N_ROWS + 1),
    n_database=st.integers(0, N_ROWS + 1),
    begins=st.lists(small, min_size=1, max_size=N_ROWS),
    ends=st.lists(small, min_size=1, max_size=N_ROWS),
    k=st.integers(1, 9),
    threads=st.integers(-1, 3),
)
def test_the_core_finds_neighbors_inside_its_arrays(
    order: list[int], begins: list[int], ends: list[int], **options: Any
) -> None:
    found = attempt(
        lambda: load_core().neighbors(
            **{
                **neighbor_arguments(),
                **options,
                "order": np.array(order, np.int32),
                "begins": np.array(begins),
                "ends": np.array(ends),
            }
        )
    )
    if isinstance(found[0], type):
        return
    indices, distances, bad_row = found
    assert bad_row == -1
    assert indices.shape == distances.shape
    assert ((indices >= -1) & (indices < N_ROWS)).all()
    assert ((indices == -1) == np.isinf(distances)).all()
