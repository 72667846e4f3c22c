"""`nearest_neighbors` and `nearest_identities`: exact nearest rows, on the tile engine of the miner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import reference
from .arrays import as_array
from .batch import (
    DISTANCES,
    check_embeddings,
    embeddings_as,
    first_bad_row,
    group,
    join_labels,
    raise_bad_row,
)
from .checks import check_backend, check_integer, check_threads, check_word
from .devices import load_core
from .miner import Backend, workspace

__all__ = ["EXCLUDE", "NearestIdentities", "Neighbors", "nearest_identities", "nearest_neighbors"]

EXCLUDE: dict[str, str] = {
    "none": "nothing",
    "same_row": "the row of the query's own number",
    "same_identity": "rows with the query's label",
}


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest rows of a database for each query, the nearest first.

    Attributes
    ----------
    indices : int32 array, shape (n_queries, k)
        Rows of the database; -1 where fewer than ``k`` are allowed.
    distances : float64 array, shape (n_queries, k)
        How far they are; infinite where there is none.
    """

    indices: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NearestIdentities:
    """The identities that are most alike, by the distances of their centres.

    Attributes
    ----------
    identities : array, shape (n_identities,)
        The labels, each once, sorted.
    indices : int32 array, shape (n_identities, k)
        For each of them the nearest others, as places in `identities`, the nearest first; -1 where fewer than
        ``k`` are.
    distances : float64 array, shape (n_identities, k)
        Of the centres; infinite where there is none.
    centres : float64 array, shape (n_identities, embedding_size)
    """

    identities: npt.NDArray[Any]
    indices: npt.NDArray[np.int32]
    distances: npt.NDArray[np.float64]
    centres: npt.NDArray[np.float64]


def nearest_neighbors(
    queries: npt.ArrayLike,
    database: npt.ArrayLike | None = None,
    k: int = 1,
    *,
    exclude: Literal["none", "same_row", "same_identity"] | None = None,
    labels: npt.ArrayLike | None = None,
    query_labels: npt.ArrayLike | None = None,
    distance: str = "squared_euclidean",
    threads: int | None = None,
    backend: Backend = "native",
) -> Neighbors:
    """Find the k nearest rows of a database for each query, exactly.

    Distances are those of float64 arithmetic; equally near rows come in their order. No matrix of distances
    is stored: memory is that of the rows, of the result and of what passes a sieve, about 100 MB at most.

    Parameters
    ----------
    queries : array_like, shape (n_queries, embedding_size)
        float32 or float64.
    database : array_like, shape (n_database, embedding_size), optional
        Default: the queries themselves.
    k : int, default 1
        Neighbors of each query.
    exclude : {"none", "same_row", "same_identity"}, optional
        Rows that are no neighbors of a query: none, the row of its own number, or all with its label.
        Default: ``"same_row"`` without a database, else ``"none"``.
    labels : array_like, shape (n_database,), optional
        Identities of the rows of the database, for ``"same_identity"``.
    query_labels : array_like, shape (n_queries,), optional
        Identities of the queries, for ``"same_identity"`` with a database.
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
        ``"euclidean"`` is its root, ``"cosine"`` is ``1 - cos``.
    threads : int, optional
        Default: as many as OpenMP would use.
    backend : {"native", "reference"}, default "native"

    Returns
    -------
    Neighbors

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If shapes do not fit, a row is not finite, labels are missing, or ``k`` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from facenet_fast import nearest_neighbors
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [9.0]], dtype=np.float32)
    >>> found = nearest_neighbors(embeddings, k=2)
    >>> found.indices.tolist()
    [[1, 2], [2, 0], [1, 0], [2, 1]]
    """
    check_word("distance", distance, DISTANCES)
    rows = check_embeddings(queries, "queries")
    base = 0
    if database is not None:
        others = check_embeddings(database, "database")
        if others.shape[1] != rows.shape[1]:
            raise ValueError(
                "queries and database must have as many numbers in a row; "
                f"got {rows.shape[1]} and {others.shape[1]}"
            )
        base = len(others)
        if base + len(rows) >= 2**31:
            raise ValueError("queries and database must have fewer than 2**31 rows together")
        rows = np.concatenate((others, rows))
    n_queries, n_database = len(rows) - base, base if database is not None else len(rows)
    k = check_integer("k", k, 1, 2**31 - 1)
    n_threads = check_threads(threads)
    if exclude is None:
        exclude = "same_row" if database is None else "none"
    check_word("exclude", exclude, EXCLUDE)
    check_backend(backend)

    order = np.arange(len(rows), dtype=np.int32)
    begins, ends = (np.zeros(n_queries, np.int64) for _ in range(2))
    if exclude == "same_row":
        begins = np.minimum(np.arange(n_queries), n_database)
        ends = np.minimum(begins + 1, n_database)
    elif exclude == "same_identity":
        if labels is None or (database is not None and query_labels is None):
            raise ValueError("exclude='same_identity' needs labels, and query_labels if there is a database")
        codes = _codes(labels, n_database, query_labels if database is not None else None, n_queries)
        order[:n_database] = np.argsort(codes[:n_database], kind="stable")
        sorted_codes = codes[order[:n_database]]
        begins, ends = (np.searchsorted(sorted_codes, codes[base:], side) for side in ("left", "right"))

    parts = (("database", base), ("queries", n_queries))
    rows = embeddings_as(distance, rows, parts)
    if backend == "reference":
        raise_bad_row(rows, first_bad_row(rows), parts)
        place = np.empty(n_database, np.int64)
        place[order[:n_database]] = np.arange(n_database)
        excluded = (begins[:, None] <= place) & (place < ends[:, None])
        indices, squared = reference.neighbors(rows[base:], rows[:n_database], k, excluded)
    else:
        indices, squared, bad_row = load_core().neighbors(
            workspace(),
            rows,
            order,
            base,
            n_database,
            begins.astype(np.int64),
            ends.astype(np.int64),
            k,
            n_threads,
        )
        raise_bad_row(rows, bad_row, parts)
    return Neighbors(indices, np.sqrt(squared) if DISTANCES[distance].root else squared)


def nearest_identities(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    k: int = 1,
    *,
    distance: str = "squared_euclidean",
    threads: int | None = None,
    backend: Backend = "native",
) -> NearestIdentities:
    """Find for each identity the k others whose centres are nearest: its lookalikes.

    An identity's centre is the mean of its embeddings, in float64; for ``distance="cosine"`` the mean of its
    embeddings at unit length.

    Parameters
    ----------
    embeddings : array_like, shape (n_images, embedding_size)
        float32 or float64.
    labels : array_like, shape (n_images,)
        The identity of each row; any sortable type, in any order.
    k : int, default 1
        Lookalikes of each identity.
    distance, threads, backend
        As of `nearest_neighbors`.

    Returns
    -------
    NearestIdentities

    Raises
    ------
    TypeError, ValueError
        As `nearest_neighbors`.

    Examples
    --------
    >>> import numpy as np
    >>> from facenet_fast import nearest_identities
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [9.0]], dtype=np.float32)
    >>> alike = nearest_identities(embeddings, ["ann", "ann", "bob", "eve"])
    >>> alike.identities.tolist(), alike.indices.tolist()
    (['ann', 'bob', 'eve'], [[1], [0], [1]])
    """
    check_word("distance", distance, DISTANCES)
    rows = check_embeddings(embeddings)
    order, offsets = group(labels, len(rows))
    parts = (("embeddings", len(rows)),)
    rows = embeddings_as(distance, rows, parts)
    raise_bad_row(rows, first_bad_row(rows), parts)
    starts, counts = offsets[:-1], np.diff(offsets)
    wide = rows[order].astype(np.float64)
    centres = np.add.reduceat(wide, starts, axis=0) / counts[:, None] if len(starts) else wide
    if distance == "cosine":
        centres *= np.sqrt(2.0)
    found = nearest_neighbors(centres, k=k, distance=distance, threads=threads, backend=backend)
    identities = as_array(labels, "labels")[order[starts]]
    return NearestIdentities(identities, found.indices, found.distances, centres)


def _codes(
    labels: npt.ArrayLike, n: int, query_labels: npt.ArrayLike | None, n_queries: int
) -> npt.NDArray[np.int64]:
    """Return a number for each identity, of the database's rows and then of the queries."""
    joined = (
        labels if query_labels is None else join_labels(labels, n, query_labels, n_queries, "the queries' ")
    )
    n_rows = n if query_labels is None else n + n_queries
    order, offsets = group(joined, n_rows)
    codes = np.empty(n_rows, np.int64)
    codes[order] = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return codes
