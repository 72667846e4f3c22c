"""Nearest rows and nearest identities, against brute force in float64."""

from __future__ import annotations

import ctypes
import platform
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet_fast import Neighbors, mine_triplets, nearest_identities, nearest_neighbors
from facenet_fast.mining.batch import DISTANCES
from facenet_fast.mining.neighbors import EXCLUDE

from .batches import clustered, tied
from .contract import BACKENDS, attempt, specified
from .obvious import distances
from .test_miner import UPWARD

EDGES = [1, 2, 13, 14, 15, 16, 17, 255, 256, 257, 300]


def brute(
    queries: Any,
    database: Any = None,
    k: int = 1,
    *,
    exclude: str | None = None,
    labels: Any = None,
    query_labels: Any = None,
    distance: str = "squared_euclidean",
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    own = database is None
    d = distances(queries, queries if own else database, distance)
    n_queries, n_database = d.shape
    rows = np.arange(n_database)
    if exclude == "same_identity":
        d[np.asarray(labels if own else query_labels)[:, None] == np.asarray(labels)] = np.inf
    elif exclude == "same_row" or (exclude is None and own):
        d[np.arange(n_queries)[:, None] == rows] = np.inf
    order = np.stack([np.lexsort((rows, row)) for row in d]) if n_queries else np.empty((0, n_database), int)
    indices, nearest = np.full((n_queries, k), -1), np.full((n_queries, k), np.inf)
    indices[:, :n_database] = order[:, :k]
    nearest[:, :n_database] = np.take_along_axis(d, order, axis=1)[:, :k]
    indices[np.isinf(nearest)] = -1
    return indices, nearest


def assert_found(found: Neighbors, expected: Any, rtol: float = 1e-12) -> None:
    assert (found.indices.dtype, found.distances.dtype) == (np.int32, np.float64)
    np.testing.assert_array_equal(found.indices, expected[0])
    np.testing.assert_allclose(found.distances, expected[1], rtol=rtol, atol=1e-14)


def assert_equals_reference(*arguments: Any, threads: int | None = None, **options: Any) -> Neighbors:
    found = nearest_neighbors(*arguments, threads=threads, **options)
    expected = specified(nearest_neighbors, *arguments, **options)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)
    return found


def rows_of(n: int, size: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed + n).standard_normal((n, size)).astype(np.float32)


def some_options(exclude: str | None, n_queries: int, n_database: int, own: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"exclude": exclude}
    if exclude == "same_identity":
        options["labels"] = np.arange(n_database) * 7 % 5
        if not own:
            options["query_labels"] = np.arange(n_queries) % 6
    return options


# -- against brute force -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("exclude", [None, *EXCLUDE])
def test_neighbors_are_those_of_brute_force(exclude: str | None, distance: str, backend: Any) -> None:
    queries, database = rows_of(40, 9), rows_of(63, 9)
    for k in (1, 3, 62, 63, 64, 100):
        for others in (None, database, database[:7], database[:1]):
            n = len(queries if others is None else others)
            options = some_options(exclude, 40, n, others is None) | {"distance": distance}
            found = nearest_neighbors(queries, others, k, backend=backend, **options)
            assert found.indices.shape == found.distances.shape == (40, k)
            assert_found(found, brute(queries, others, k, **options))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("exclude", [None, *EXCLUDE])
def test_equally_near_rows_come_in_their_order(exclude: str | None, backend: Any) -> None:
    # Labels in no order: rows are compared by identity inside, and must come in their own order all the same.
    embeddings, _ = tied(70, 5)
    doubled = np.concatenate((embeddings, embeddings[::-1]))
    for rows in (embeddings, doubled, np.tile(embeddings[:3], (20, 1)), np.ones((50, 4), np.float32)):
        for k in (1, 4, 30):
            for others in (None, rows, rows[::2]):
                n = len(rows if others is None else others)
                options = some_options(exclude, len(rows), n, others is None)
                found = nearest_neighbors(rows, others, k, backend=backend, **options)
                assert_found(found, brute(rows, others, k, **options))


@pytest.mark.parametrize("n", EDGES)
def test_edges_of_tiles(instruction_set: str, n: int) -> None:
    for dtype in (np.float32, np.float64):
        rows = rows_of(n, 7).astype(dtype)
        for k in (1, 2, 20):
            for threads in (1, 3):
                assert_found(nearest_neighbors(rows, k=k, threads=threads), brute(rows, k=k))
        for m in (1, 14, 256, 257):
            others = rows_of(m, 7, 5).astype(dtype)
            for k in (1, 5):
                assert_found(nearest_neighbors(rows, others, k, threads=2), brute(rows, others, k))


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 128, 500])
def test_sizes_of_rows(instruction_set: str, size: int) -> None:
    queries, database = rows_of(21, size), rows_of(70, size, 1)
    for distance in ("squared_euclidean", "cosine"):
        options: dict[str, Any] = {"distance": distance}
        if size > 1 or distance == "squared_euclidean":
            assert_found(
                nearest_neighbors(queries, database, 6, **options), brute(queries, database, 6, **options)
            )
        assert_equals_reference(queries, database, 6, **options)


# -- against the specification, to the last bit ------------------------------------------------------------


@pytest.mark.parametrize("exclude", [None, *EXCLUDE])
@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_reference(instruction_set: str, exclude: str | None, distance: str, dtype: type) -> None:
    for embeddings, _ in (clustered(12, 7, 33, noise=0.3), tied(300, 5, 4)):
        rows = embeddings.astype(dtype)
        for k in (1, 10, 120):
            for others in (None, rows[::3]):
                n = len(rows if others is None else others)
                options = some_options(exclude, len(rows), n, others is None) | {"distance": distance}
                for threads in (1, 8):
                    assert_equals_reference(rows, others, k, threads=threads, **options)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-40, 1e-19, 1e19, 1e140])
def test_long_and_short_rows(instruction_set: str, scale: float) -> None:
    rows = rows_of(60, 12).astype(np.float64) * scale
    for distance in DISTANCES:
        assert_equals_reference(rows, None, 5, distance=distance)
        assert_equals_reference(rows[:20], rows[20:], 5, distance=distance)


def test_lengths_far_apart(instruction_set: str) -> None:
    for dtype in (np.float32, np.float64):
        rows = (rows_of(80, 16) * np.logspace(-12, 12, 80)[:, None]).astype(dtype)
        for k in (1, 7):
            assert_equals_reference(rows, None, k)
            assert_equals_reference(rows[::2], rows[1::2], k)
            assert_equals_reference(rows, None, k, distance="cosine")


def test_nearly_equal_rows(instruction_set: str) -> None:
    # Distances far below what a product of rows in float32 can tell apart.
    rng = np.random.default_rng(0)
    for step in (1e-3, 1e-5, 1e-7, 1e-12):
        rows = rng.standard_normal(33) + step * rng.integers(-3, 4, (90, 33))
        for dtype in (np.float32, np.float64):
            assert_equals_reference(rows.astype(dtype), None, 12, threads=2)
            assert_equals_reference(rows.astype(dtype), rows[::2].astype(dtype), 12, distance="cosine")


def test_rows_in_the_worst_order(instruction_set: str) -> None:
    # Ever nearer ones, so that each row passes what the ones before it left; and ever farther ones.
    for line in (np.linspace(100.0, 1.0, 700), np.linspace(1.0, 100.0, 700)):
        database = np.stack((line, 0 * line), axis=1).astype(np.float32)
        queries = np.zeros((5, 2), np.float32)
        for k in (1, 16, 300):
            for threads in (1, 3):
                assert_found(
                    nearest_neighbors(queries, database, k, threads=threads), brute(queries, database, k)
                )


def test_a_larger_database(instruction_set: str) -> None:
    database = rows_of(3000, 8)
    queries = database[::50] + np.float32(0.01)
    labels = np.arange(3000) % 37
    for threads in (1, 2):
        for k in (1, 33, 1000):
            assert_found(
                nearest_neighbors(queries, database, k, threads=threads), brute(queries, database, k)
            )
            options = {"exclude": "same_identity", "labels": labels, "query_labels": labels[::50]}
            found = nearest_neighbors(queries, database, k, threads=threads, **options)
            assert_found(found, brute(queries, database, k, **options))


rows_of_numbers = st.one_of(
    st.floats(-4, 4, width=32), st.integers(-2, 2).map(float), st.sampled_from([0.0, 1e-30, 1e20, -1e-3])
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_rows_equal_reference(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 20))
    distinct = data.draw(
        st.lists(st.lists(rows_of_numbers, min_size=size, max_size=size), min_size=1, max_size=12)
    )
    dtypes = st.sampled_from([np.float32, np.float64])
    picks = st.lists(st.integers(0, len(distinct) - 1), max_size=40)
    queries, database = (
        np.array([distinct[i] for i in data.draw(picks)], data.draw(dtypes)).reshape(-1, size)
        for _ in range(2)
    )
    others = data.draw(st.sampled_from([None, database]))
    n = len(queries if others is None else others)
    exclude = data.draw(st.sampled_from([None, *EXCLUDE]))
    options: dict[str, Any] = {
        "exclude": exclude,
        "k": data.draw(st.integers(1, 50)),
        "distance": data.draw(st.sampled_from(sorted(DISTANCES))),
    }
    if exclude == "same_identity":
        options["labels"] = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
        if others is not None:
            options["query_labels"] = data.draw(
                st.lists(st.integers(0, 4), min_size=len(queries), max_size=len(queries))
            )
    refused = attempt(lambda: nearest_neighbors(queries, others, backend="reference", **options))
    if isinstance(refused, tuple):
        assert attempt(lambda: nearest_neighbors(queries, others, **options)) == refused
        return
    assert_equals_reference(queries, others, threads=data.draw(st.integers(1, 3)), **options)


# -- the face ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_nothing_to_find(distance: str, backend: Any) -> None:
    rows = rows_of(5, 3)
    for queries, database in ((rows[:0], rows), (rows, rows[:0]), (rows[:0], rows[:0]), (rows[:0], None)):
        for exclude in (None, *EXCLUDE):
            n = len(queries if database is None else database)
            found = nearest_neighbors(
                queries,
                database,
                2,
                distance=distance,
                backend=backend,
                **some_options(exclude, len(queries), n, database is None),
            )
            assert found.indices.shape == found.distances.shape == (len(queries), 2)
            assert (found.indices == -1).all()
            assert np.isinf(found.distances).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_excluded(backend: Any) -> None:
    rows = np.array([[0.0], [1.0], [3.0], [3.0]])
    options: dict[str, Any] = {"k": 2, "backend": backend}
    assert nearest_neighbors(rows, **options).indices.tolist() == [[1, 2], [0, 2], [3, 1], [2, 1]]
    assert nearest_neighbors(rows, rows, **options).indices.tolist() == [[0, 1], [1, 0], [2, 3], [2, 3]]
    none = nearest_neighbors(rows, exclude="none", **options)
    assert none.indices.tolist() == [[0, 1], [1, 0], [2, 3], [2, 3]]
    same_row = nearest_neighbors(rows, rows[:2], exclude="same_row", **options)
    assert same_row.indices.tolist() == [[1, -1], [0, -1], [1, 0], [1, 0]]
    assert same_row.distances.tolist() == [[1.0, np.inf], [1.0, np.inf], [4.0, 9.0], [4.0, 9.0]]
    roots = nearest_neighbors(rows, rows[:2], exclude="same_row", distance="euclidean", **options)
    assert roots.indices.tolist() == same_row.indices.tolist()
    assert roots.distances.tolist() == [[1.0, np.inf], [1.0, np.inf], [2.0, 3.0], [2.0, 3.0]]
    names = ["ann", "bob", "ann", "bob"]
    same = nearest_neighbors(rows, exclude="same_identity", labels=names, **options)
    assert same.indices.tolist() == [[1, 3], [0, 2], [3, 1], [2, 0]]
    other = nearest_neighbors(
        rows, rows[1:], exclude="same_identity", labels=names[1:], query_labels=["cem", *names[1:]], **options
    )
    assert other.indices.tolist() == [[0, 1], [1, -1], [2, 0], [1, -1]]
    everyone = nearest_neighbors(rows, exclude="same_identity", labels=[0] * 4, **options)
    assert (everyone.indices == -1).all()


def test_views_and_types_of_rows() -> None:
    queries, database = rows_of(9, 6), rows_of(30, 6)
    expected = nearest_neighbors(queries, database, 4)
    wide = np.zeros((60, 12), np.float32)
    wide[::2, ::2] = database
    frozen = queries.copy()
    frozen.flags.writeable = False
    for same, others in (
        (queries, wide[::2, ::2]),
        (frozen, np.asfortranarray(database)),
        (queries.tolist(), database.tolist()),
        (queries.astype(">f4"), database.astype(np.float64)),
        (queries.astype(np.float64), database),
    ):
        found = nearest_neighbors(same, others, 4)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.distances, expected.distances)
    half = nearest_neighbors(queries.astype(np.float16), database.astype(np.float16), 4)
    wider = nearest_neighbors(
        queries.astype(np.float16).astype(np.float32), database.astype(np.float16).astype(np.float32), 4
    )
    np.testing.assert_array_equal(half.distances, wider.distances)


def test_labels_of_any_sortable_type() -> None:
    rows, codes = rows_of(30, 4), np.arange(30) * 7 % 5
    names = np.array(["ann", "bob", "cem", "dora", "eve"])
    options: dict[str, Any] = {"k": 3, "exclude": "same_identity"}
    expected = nearest_neighbors(rows, rows[:20], labels=codes[:20], query_labels=codes, **options)
    for same in (names[codes], codes.astype(float), codes.astype("u1"), names.astype(object)[codes]):
        for labels, query_labels in ((same[:20], same), (same[:20].tolist(), tuple(same.tolist()))):
            found = nearest_neighbors(rows, rows[:20], labels=labels, query_labels=query_labels, **options)
            np.testing.assert_array_equal(found.indices, expected.indices)


@pytest.mark.skipif(
    platform.machine() not in UPWARD, reason="the C library's number for rounding up is not known"
)
def test_the_callers_rounding_mode_does_not_matter_and_is_kept() -> None:
    rows = rows_of(120, 33)
    expected = nearest_neighbors(rows, k=9, threads=2)
    c_library = ctypes.CDLL(None)
    c_library.fesetround(UPWARD[platform.machine()])
    try:
        found = nearest_neighbors(rows, k=9, threads=2)
        kept = c_library.fegetround()
    finally:
        c_library.fesetround(0)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert kept == UPWARD[platform.machine()]


def test_memory_is_shared_with_mining_and_kept_apart_by_threads() -> None:
    rows, labels = clustered(20, 10, 16)
    expected = nearest_neighbors(rows, k=5)
    mined = mine_triplets(rows, labels)
    wrong: list[int] = []

    def work(s: int) -> None:
        for i in range(20):
            mine_triplets(rows[: 100 + s], labels[: 100 + s], strategy="batch_hard")
            found = nearest_neighbors(rows, k=5, threads=2)
            if (found.indices != expected.indices).any() or (found.distances != expected.distances).any():
                wrong.append(i)
            if (mine_triplets(rows, labels).negative != mined.negative).any():
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(s,)) for s in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


SAME = {"exclude": "same_identity"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, r"k must be in \[1, 2147483647\]; got 0"),
        ({"k": -1}, ValueError, r"k must be in \[1, 2147483647\]; got -1"),
        ({"k": 2**31}, ValueError, r"k must be in \[1, 2147483647\]; got 2147483648"),
        ({"k": 1.0}, TypeError, "k must be a whole number; got 1.0"),
        ({"k": None}, TypeError, "k must be a whole number; got None"),
        ({"threads": 0}, ValueError, "threads must be in"),
        ({"threads": "all"}, TypeError, "threads must be a whole number; got 'all'"),
        ({"distance": "l2"}, ValueError, "must be one of squared_euclidean, euclidean, cosine; got 'l2'"),
        ({"distance": None}, ValueError, "must be one of squared_euclidean, euclidean, cosine; got None"),
        ({"exclude": "self"}, ValueError, "must be one of none, same_row, same_identity; got 'self'"),
        ({"exclude": True}, ValueError, "exclude must be one of none, same_row, same_identity; got True"),
        (SAME, ValueError, "exclude='same_identity' needs labels, and query_labels if there is a database"),
        ({**SAME, "labels": [0] * 8}, ValueError, "needs labels, and query_labels if there is a database"),
        ({**SAME, "query_labels": [0] * 5}, ValueError, "exclude='same_identity' needs labels"),
        ({**SAME, "labels": [0] * 7, "query_labels": [0] * 5}, ValueError, r"labels .*\(8,\).*got \(7,\)"),
        ({**SAME, "labels": [0] * 8, "query_labels": [0] * 4}, ValueError, r"the queries' labels .*\(5,\)"),
        ({**SAME, "labels": [0] * 8, "query_labels": ["a"] * 5}, TypeError, "of one type, and the queries'"),
        ({**SAME, "labels": [np.nan] * 8, "query_labels": [0] * 5}, ValueError, "labels must not be NaN"),
        ({**SAME, "labels": [0] * 8, "query_labels": [np.nan] * 5}, ValueError, "the queries' labels must"),
        ({"queries": np.ones(4)}, ValueError, r"queries must have shape .*got \(4,\)"),
        ({"queries": np.ones((4, 0))}, ValueError, r"queries must have shape .*got \(4, 0\)"),
        ({"queries": np.ones((4, 4), int)}, TypeError, "queries must be float32 or float64; got int64"),
        ({"queries": None}, TypeError, "queries must be float32 or float64; got object"),
        ({"database": np.ones(4)}, ValueError, r"database must have shape .*got \(4,\)"),
        ({"database": np.ones((4, 4), complex)}, TypeError, "database must be float32 or float64"),
        ({"database": np.ones((4, 3))}, ValueError, "as many numbers .*got 4 and 3"),
        ({"queries": np.full((5, 4), np.nan)}, ValueError, "must be finite"),
        ({"database": np.full((8, 4), np.inf)}, ValueError, "must be finite"),
        ({"database": np.full((8, 4), 1e160)}, ValueError, "must be finite, with norms below 1e.150"),
        ({"database": np.zeros((8, 4)), "distance": "cosine"}, ValueError, "finite and not all zeros"),
        ({"queries": np.zeros((8, 4)), "distance": "cosine"}, ValueError, "must be finite and not all zeros"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_sentence(
    options: dict[str, Any], error: type[Exception], message: str, backend: Any
) -> None:
    arguments = {"queries": np.ones((5, 4)), "database": np.ones((8, 4)), "backend": backend, **options}
    with pytest.raises(error, match=message) as caught:
        nearest_neighbors(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", [nearest_neighbors, nearest_identities])
def test_a_backend_that_is_none(function: Any) -> None:
    arguments = [np.ones((5, 4))] + ([[0] * 5] if function is nearest_identities else [])
    with pytest.raises(ValueError, match="backend must be 'native' or 'reference'; got 'gpu'"):
        function(*arguments, backend="gpu")


def test_more_rows_than_can_be_numbered() -> None:
    many = np.broadcast_to(np.ones((1, 1), np.float32), (2**31, 1))
    with pytest.raises(ValueError, match=r"queries must have fewer than 2\*\*31 rows; got 2147483648"):
        nearest_neighbors(many)
    with pytest.raises(ValueError, match=r"database must have fewer than 2\*\*31 rows; got 2147483648"):
        nearest_neighbors(np.ones((1, 1)), many)


# -- identities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lookalikes_are_those_of_brute_force(distance: str, dtype: type, backend: Any) -> None:
    embeddings, codes = clustered(12, 5, 9, noise=1.0)
    embeddings = (embeddings * np.linspace(0.5, 3, 60)[:, None]).astype(dtype)
    names = np.array([f"name {i % 5}{i}" for i in range(12)])
    for labels, n in ((codes, 60), (names[codes], 60), (codes % 7, 33)):
        embeddings, labels = embeddings[:n], labels[:n]
        wide = embeddings.astype(np.float64)
        if distance == "cosine":
            wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        identities = sorted(set(labels.tolist()))
        centres = np.stack([wide[labels == identity].mean(axis=0) for identity in identities])
        for k in (1, 3, 20):
            alike = nearest_identities(embeddings, labels, k, distance=distance, backend=backend)
            assert alike.identities.tolist() == identities
            np.testing.assert_allclose(alike.centres, centres, rtol=1e-12, atol=1e-14)
            assert alike.centres.dtype == np.float64
            indices, nearest = brute(centres, k=k, distance=distance)
            np.testing.assert_array_equal(alike.indices, indices)
            np.testing.assert_allclose(alike.distances, nearest, rtol=1e-10, atol=1e-13)
            assert (alike.indices.dtype, alike.distances.dtype) == (np.int32, np.float64)


def test_lookalikes_equal_reference(instruction_set: str) -> None:
    for (embeddings, labels), scale in (
        (clustered(40, 4, 17), 1.0),
        (tied(90, 30), 1.0),
        (tied(90, 9), 1e-30),
    ):
        rows = embeddings * np.float32(scale)
        for distance in ("squared_euclidean", "cosine"):
            options: dict[str, Any] = {"k": 6, "distance": distance}
            expected = specified(nearest_identities, rows, labels, **options)
            for threads in (1, 3):
                alike = nearest_identities(rows, labels, threads=threads, **options)
                for name in ("identities", "indices", "distances", "centres"):
                    np.testing.assert_array_equal(getattr(alike, name), getattr(expected, name))


@pytest.mark.parametrize("backend", BACKENDS)
def test_few_identities(backend: Any) -> None:
    for n, n_identities in ((0, 0), (1, 1), (4, 1), (4, 2)):
        labels = np.arange(n) % max(n_identities, 1)
        alike = nearest_identities(rows_of(5, 3)[:n], labels, 3, backend=backend)
        assert alike.identities.tolist() == list(range(n_identities))
        assert alike.indices.shape == alike.distances.shape == (n_identities, 3)
        assert alike.centres.shape == (n_identities, 3)
        others = min(max(n_identities - 1, 0), 3)
        assert (alike.indices >= 0).sum() == np.isfinite(alike.distances).sum() == n_identities * others


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, r"k must be in \[1, 2147483647\]; got 0"),
        ({"labels": [0]}, ValueError, r"labels must have shape \(30,\), one for each embedding; got \(1,\)"),
        ({"labels": [np.nan] * 30}, ValueError, "labels must not be NaN"),
        ({"labels": None}, ValueError, "labels must have shape"),
        (
            {"embeddings": np.ones((30, 3), int)},
            TypeError,
            "embeddings must be float32 or float64; got int64",
        ),
        ({"embeddings": np.ones(30)}, ValueError, r"embeddings must have shape .*; got \(30,\)"),
        (
            {"embeddings": np.full((30, 3), np.nan)},
            ValueError,
            "embeddings must be finite.*row 0 has norm nan",
        ),
        (
            {"embeddings": np.zeros((30, 3)), "distance": "cosine"},
            ValueError,
            "not all zeros.*row 0 has norm 0",
        ),
        (
            {"distance": "manhattan"},
            ValueError,
            "distance must be one of squared_euclidean, euclidean, cosine; got 'manh",
        ),
        ({"threads": 0}, ValueError, "threads must be in"),
    ],
)
def test_bad_input_of_identities(
    change: dict[str, Any], error: type[Exception], message: str, backend: Any
) -> None:
    arguments = {"embeddings": rows_of(30, 3), "labels": np.arange(30) % 4, "backend": backend, **change}
    with pytest.raises(error, match=message) as caught:
        nearest_identities(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_a_bad_row_is_named_as_whose_it_is(distance: str, backend: Any) -> None:
    good, bad = rows_of(9, 3), rows_of(5, 3)
    bad[4, 1] = np.inf
    for queries, database, name in ((bad, good, "queries"), (good, bad, "database")):
        with pytest.raises(ValueError, match=f"^{name} must be finite.*row 4 has norm inf"):
            nearest_neighbors(queries, database, distance=distance, backend=backend)
