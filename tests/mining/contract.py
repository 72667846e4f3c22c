"""What it takes to equal the specification, and to refuse what it does not cover."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast import CandidateCounts, Triplets, count_triplets, mine_triplets
from facenet_fast.mining.devices import load_core

BACKENDS = ["native", "reference"]
INSTRUCTION_SETS = load_core().instruction_sets()

_SPECIFIED: dict[bytes, Any] = {}


def as_rows(triplets: Triplets) -> npt.NDArray[np.int32]:
    return np.stack([triplets.anchor, triplets.positive, triplets.negative], axis=1)


def as_columns(counts: CandidateCounts) -> npt.NDArray[np.int32]:
    return np.stack([counts.anchor, counts.positive, counts.n_candidates], axis=1)


def specified(function: Any, *arguments: Any, **options: Any) -> Any:
    """Ask the specification, once for all instruction sets and numbers of threads."""
    key = pickle.dumps((function, arguments, sorted(options.items())))
    if key not in _SPECIFIED:
        _SPECIFIED[key] = function(*arguments, **options, backend="reference")
    return _SPECIFIED[key]


def assert_equals_reference(
    embeddings: Any, labels: Any, *, threads: int | None = None, device: Any = "cpu", **options: Any
) -> Triplets:
    mined: Triplets = mine_triplets(embeddings, labels, threads=threads, device=device, **options)
    expected: Triplets = specified(mine_triplets, embeddings, labels, **options)
    np.testing.assert_array_equal(as_rows(mined), as_rows(expected))
    for column in (mined.anchor, mined.positive, mined.negative):
        assert column.dtype == np.int32
    assert (mined.n_pairs, mined.n_pairs_with_negative) == (expected.n_pairs, expected.n_pairs_with_negative)
    # To float32 precision, which is that of the rows and not of a difference of theirs.
    rows = np.asarray(embeddings, np.float64)
    longest = 1.0 if options.get("distance") == "cosine" or not rows.size else np.square(rows).sum(1).max()
    if options.get("distance") == "euclidean":
        longest = np.sqrt(longest)
    for name in ("mean_d_ap", "mean_d_an"):
        np.testing.assert_allclose(
            getattr(mined, name), getattr(expected, name), rtol=1e-5, atol=1e-6 * longest + 1e-310
        )
    if options.get("count_candidates"):
        assert mined.candidates is not None
        np.testing.assert_array_equal(as_columns(mined.candidates), as_columns(expected.candidates))
    else:
        assert mined.candidates is None
    return mined


def assert_counts_equal_reference(
    embeddings: Any, labels: Any, *, threads: int | None = None, device: Any = "cpu", **options: Any
) -> CandidateCounts:
    counts: CandidateCounts = count_triplets(embeddings, labels, threads=threads, device=device, **options)
    expected: CandidateCounts = specified(count_triplets, embeddings, labels, **options)
    np.testing.assert_array_equal(as_columns(counts), as_columns(expected))
    assert counts.n_triplets == expected.n_triplets
    return counts


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
