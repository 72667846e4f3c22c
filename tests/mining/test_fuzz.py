"""Whatever is handed in: the specified result or one clear sentence; never a crash, never a wrong answer."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facenet_fast import mine_triplets, select_triplets
from facenet_fast.mining import PRESETS, Triplets
from facenet_fast.mining.devices import load_core

FUZZ = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def attempt(call: Callable[[], Any]) -> Any:
    """Return what came out, or the class and the only line of an error that a user may see."""
    try:
        return call()
    except (TypeError, ValueError) as error:
        sentence = str(error)
        kind = type(error)
    assert sentence
    assert "\n" not in sentence
    return kind, sentence


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


def assert_agrees_with_labels(triplets: Triplets, labels: list[Any]) -> None:
    """By Python's own equality, which knows nothing of numpy's conversions."""
    assert triplets.n_pairs == sum(bool(x == y) for x, y in combinations(labels, 2))
    for a, p, n in zip(triplets.anchor, triplets.positive, triplets.negative, strict=True):
        assert a < p
        assert labels[a] == labels[p]
        assert labels[a] != labels[n]


# -- the Python face ---------------------------------------------------------------------------------------

any_option = st.one_of(st.none(), st.text(max_size=3), st.floats(), st.integers(), st.just([]), st.just(1j))
margins = st.one_of(st.floats(1e-6, 1e3), st.sampled_from([5e-324, 1e308, 10**400, 1, True]), any_option)
seeds = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([2**64, -1, np.uint64(2**64 - 1)]), any_option)
thread_counts = st.one_of(
    st.none(), st.integers(1, 5), st.sampled_from([100_000, 2**31 - 1, 2**31, 2**70, 0, -1]), any_option
)
strategies = st.one_of(st.sampled_from(sorted(PRESETS)), any_option)


@FUZZ
@given(
    data=st.data(),
    n=st.integers(0, 14),
    wild=st.sampled_from([None, None, None, None, "margin", "seed", "threads", "strategy"]),
)
def test_mining_anything(data: st.DataObject, n: int, wild: str | None) -> None:
    embeddings = data.draw(embeddings_of(n))
    labels = data.draw(labels_of(n))
    options: dict[str, Any] = {
        "margin": data.draw(st.floats(1e-3, 20)),
        "seed": data.draw(st.integers(0, 2**64 - 1)),
        "threads": data.draw(st.integers(1, 3)),
        "strategy": data.draw(st.sampled_from(sorted(PRESETS))),
    }
    if wild:
        choices = {"margin": margins, "seed": seeds, "threads": thread_counts, "strategy": strategies}
        options[wild] = data.draw(choices[wild])
    # An iterator would be used up by the first of the two calls.
    if hasattr(labels, "__next__"):
        assert isinstance(attempt(lambda: mine_triplets(embeddings, labels, **options)), tuple)
        return

    mined = attempt(lambda: mine_triplets(embeddings, labels, **options))
    specified = attempt(lambda: mine_triplets(embeddings, labels, **options, backend="reference"))
    if isinstance(specified, tuple):
        assert mined == specified
        return
    for name in ("anchor", "positive", "negative"):
        assert getattr(mined, name).dtype == np.int32
        np.testing.assert_array_equal(getattr(mined, name), getattr(specified, name))
    assert (mined.n_pairs, mined.n_pairs_with_negative) == (
        specified.n_pairs,
        specified.n_pairs_with_negative,
    )
    assert_agrees_with_labels(mined, list(labels))


@FUZZ
@given(
    counts=st.lists(st.integers(0, 4), max_size=5),
    wild=st.lists(st.sampled_from([1.0, 2.5, "2", None, -1, 2**63 - 1, 2**70, np.int8(3), True]), max_size=3),
    people=st.one_of(st.integers(-1, 6), any_option),
    alpha=st.one_of(st.floats(0.1, 9), any_option),
    n_more_paths=st.sampled_from([0, 0, 0, 1, -1]),
    n_more_rows=st.sampled_from([0, 0, 0, 1, -1]),
)
def test_selecting_anything(
    counts: list[Any], wild: list[Any], people: Any, alpha: Any, n_more_paths: int, n_more_rows: int
) -> None:
    n = sum(counts)
    rows = np.random.default_rng(0).standard_normal((max(n + n_more_rows, 0), 5)).astype(np.float32)
    paths = [f"{i}.png" for i in range(max(n + n_more_paths, 0))]
    np.random.seed(0)
    got = attempt(lambda: select_triplets(rows, [*counts, *wild], paths, people, alpha))
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


# -- the compiled module, which only the Python face should call -----------------------------------------

N_ROWS = 6


def core_arguments() -> dict[str, Any]:
    return {
        "workspace": load_core().Workspace(),
        "embeddings": np.random.default_rng(0).standard_normal((N_ROWS, 5)).astype(np.float32),
        "order": np.arange(N_ROWS, dtype=np.int32)[::-1].copy(),
        "offsets": np.array([0, 2, 2, 6]),
        "is_anchor": np.empty(0, np.uint8),
        "band": "violating",
        "margin": 9.0,
        "seed": 1,
        "threads": 2,
    }


def test_the_core_takes_what_fits() -> None:
    (anchors, _, _), bad_row = load_core().mine(**core_arguments())
    assert (len(anchors), bad_row) == (1 + 6, -1)
    for change in (
        {"embeddings": core_arguments()["embeddings"].astype("f8")},
        {"is_anchor": np.full(N_ROWS, 255, np.uint8)},
        {"threads": 0},
        {"threads": -3},
    ):
        (anchors, _, _), _ = load_core().mine(**{**core_arguments(), **change})
        assert len(anchors) == 1 + 6


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
        {"band": "hardest"},
        {"band": None},
        {"margin": "wide"},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 0.5},
        {"threads": 2**31},
        {"threads": None},
    ],
)
def test_the_core_refuses_what_it_would_read_out_of_bounds(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        load_core().mine(**{**core_arguments(), **change})


@FUZZ
@given(
    order=st.lists(st.integers(-1, N_ROWS), min_size=N_ROWS - 1, max_size=N_ROWS + 1),
    offsets=st.lists(st.integers(-1, N_ROWS + 1), max_size=5),
    anchors=st.lists(st.integers(0, 1), min_size=N_ROWS, max_size=N_ROWS),
    band=st.sampled_from(["violating", "semi_hard"]),
    margin=st.floats(),
    threads=st.integers(-1, 3),
)
def test_the_core_stays_inside_its_arrays(
    order: list[int], offsets: list[int], anchors: list[int], band: str, margin: float, threads: int
) -> None:
    arguments = {
        **core_arguments(),
        "order": np.array(order, np.int32),
        "offsets": np.array([0, *offsets, N_ROWS]),
        "is_anchor": np.array(anchors, np.uint8),
        "band": band,
        "margin": margin,
        "threads": threads,
    }
    fits = len(order) == N_ROWS and min(order) >= 0 and max(order) < N_ROWS
    rises = bool((np.diff(arguments["offsets"]) >= 0).all())
    if not (fits and rises):
        with pytest.raises(ValueError, match=r"order must|offsets must"):
            load_core().mine(**arguments)
        return
    columns, bad_row = load_core().mine(**arguments)
    assert bad_row == -1
    assert all(((column >= 0) & (column < N_ROWS)).all() for column in columns)
