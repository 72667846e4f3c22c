"""The ways to mine a batch that people use today, each written from its definition and judged by it.

`RIVALS` is the only list: the report and the tests read it. A rival that needs a package which is not
installed, or more memory than there is, is left out with a reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast import count_triplets, mine_triplets, nearest_neighbors

from . import rules
from .rules import MARGIN, Indices, Labels, Rows, Triplets

Mine = Callable[[], Any]


@dataclass(frozen=True)
class Rival:
    """One way to mine.

    Attributes
    ----------
    name : str
        As the tables call it.
    finds : str
        The definition that it implements.
    prepare : callable
        (rows, labels, n_threads) to a function without arguments that mines them and returns the answer.
        Compiling, starting threads and converting the batch happen here, untimed.
    judge : callable
        (answer, rows, labels): raises `AssertionError` if the definition does not allow the answer.
    packages : tuple of str
        What it imports.
    n_bytes : callable
        (n_rows, images per identity) to about what it allocates, from the shapes of its arrays.
    prepare_part : callable, optional
        (rows, labels, n_identities) to a function that does so many identities' share of the work, where
        doing all of a large batch would take minutes.
    """

    name: str
    finds: str
    prepare: Callable[[Rows, Labels, int], Mine]
    judge: Callable[[Any, Rows, Labels], None]
    packages: tuple[str, ...] = ()
    n_bytes: Callable[[int, int], float] = lambda n, k: 0.0
    prepare_part: Callable[[Rows, Labels, int], Mine] | None = None

    def why_not(self, n_rows: int, n_images: int, memory_limit: float) -> str:
        """Return why this rival cannot mine such a batch here; empty if it can."""
        return why_not(self.packages, self.n_bytes(n_rows, n_images), memory_limit)


def why_not(packages: tuple[str, ...], n_bytes: float, memory_limit: float) -> str:
    """Return why something that needs these packages and so much memory cannot run here; empty if it can."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (extra `bench`)"
    return f"needs {say_bytes(n_bytes)}" if n_bytes > memory_limit else ""


def say_bytes(n: float) -> str:
    """Write a number of bytes with two digits and a unit."""
    exponent = next((e for e in (0, 3, 6, 9) if n < 10 ** (e + 3)), 12)
    unit = {0: "B", 3: "kB", 6: "MB", 9: "GB", 12: "TB"}[exponent]
    value = n / 10**exponent
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"


# -- this library --------------------------------------------------------------------------------------------


def _native(strategy: str) -> Callable[[Rows, Labels, int], Mine]:
    """Mine with the threads that users get without asking."""

    def prepare(rows: Rows, labels: Labels, n_threads: int) -> Mine:
        def mine() -> Triplets:
            mined = mine_triplets(rows, labels, strategy=strategy, margin=MARGIN, seed=1)
            return mined.anchor, mined.positive, mined.negative

        return mine

    return prepare


# -- numpy ---------------------------------------------------------------------------------------------------


def predecessors_loop(
    rows: npt.NDArray[np.float64],
    counts: list[int],
    margin: float,
    rng: np.random.RandomState,
    n_identities: int | None = None,
) -> Indices:
    """Select triplets pair by pair in numpy, on float64 rows, as trainers have done since 2016.

    Anchors are of the first `n_identities` identities, of all where that is None. Returns (3, n_triplets).
    """
    triplets = []
    start = 0
    for count in counts[:n_identities]:
        for j in range(count - 1):
            anchor = start + j
            d_an = np.sum(np.square(rows[anchor] - rows), axis=1)
            d_an[start : start + count] = np.nan
            for positive in range(anchor + 1, start + count):
                d_ap = np.sum(np.square(rows[anchor] - rows[positive]))
                with np.errstate(invalid="ignore"):
                    candidates = np.where(d_an - d_ap < margin)[0]
                if len(candidates):
                    triplets.append((anchor, positive, candidates[rng.randint(len(candidates))]))
        start += count
    return np.array(triplets).reshape(-1, 3).T


def prepare_predecessors_loop(rows: Rows, labels: Labels, n_identities: int | None) -> Mine:
    """Return the loop over anchors of the first identities; its cost is the same for each of them."""
    wide, counts, rng = rows.astype(np.float64), np.bincount(labels).tolist(), np.random.RandomState(1)
    return lambda: predecessors_loop(wide, counts, MARGIN, rng, n_identities)


def _vectorised(rows: Rows, labels: Labels, n_threads: int) -> Mine:
    """Take distances of many anchors from BLAS; sorted, the candidates of a pair are a prefix."""
    stripe_rows = 512
    norms = np.einsum("ij,ij->i", rows, rows)
    columns = np.ascontiguousarray(rows.T)
    begins, ends = np.searchsorted(labels, labels), np.searchsorted(labels, labels, side="right")
    stripe = np.empty((stripe_rows, len(rows)), np.float32)
    rng = np.random.default_rng(1)

    def mine() -> Triplets:
        found = []
        for anchor in range(len(rows)):
            if anchor % stripe_rows == 0:
                own = stripe[: len(rows) - anchor]
                np.matmul(rows[anchor : anchor + len(own)], columns, out=own)
                own *= -2
                own += norms
                own += norms[anchor : anchor + len(own), None]
            squared, begin, end = own[anchor % stripe_rows], begins[anchor], ends[anchor]
            if anchor + 1 == end:
                continue
            limits = squared[anchor + 1 : end] + np.float32(MARGIN)
            squared[begin:end] = np.inf
            near = np.flatnonzero(squared < limits.max())
            distances = squared[near]
            order = np.argsort(distances)
            n_candidates = np.searchsorted(distances[order], limits)
            has = np.flatnonzero(n_candidates)
            ranks = (rng.random(len(has)) * n_candidates[has]).astype(np.int64)
            found.append(np.stack([np.full(len(has), anchor), anchor + 1 + has, near[order[ranks]]], axis=1))
        return np.concatenate(found).T

    return mine


# -- numba ---------------------------------------------------------------------------------------------------


@cache
def _numba_pick() -> Callable[..., None]:
    import numba

    @numba.njit(parallel=True)  # type: ignore[untyped-decorator,unused-ignore]
    def pick(
        product: Any,
        first: int,
        n: int,
        norms: Any,
        begins: Any,
        ends: Any,
        first_pair: Any,
        chance: Any,
        out: Any,
    ) -> None:
        for i in numba.prange(n):
            anchor = first + i
            begin, end = begins[anchor], ends[anchor]
            squared = norms[anchor] + norms - np.float32(2) * product[i]
            for positive in range(anchor + 1, end):
                pair = first_pair[anchor] + positive - anchor - 1
                limit = squared[positive] + np.float32(MARGIN)
                n_candidates = 0
                for column in range(begin):
                    n_candidates += squared[column] < limit
                for column in range(end, len(norms)):
                    n_candidates += squared[column] < limit
                rank = int(chance[pair] * n_candidates)
                picked = -1
                if n_candidates:
                    for column in range(len(norms)):
                        if squared[column] < limit and (column < begin or column >= end):
                            if rank == 0:
                                picked = column
                                break
                            rank -= 1
                out[pair, 0], out[pair, 1], out[pair, 2] = anchor, positive, picked

    return pick  # type: ignore[no-any-return,unused-ignore]


def _numba(rows: Rows, labels: Labels, n_threads: int) -> Mine:
    """Take distances of many anchors from BLAS; each thread counts and picks in two passes over a row."""
    import numba

    pick = _numba_pick()
    stripe_rows = 512
    norms = np.einsum("ij,ij->i", rows, rows)
    columns = np.ascontiguousarray(rows.T)
    bounds = np.searchsorted(labels, labels), np.searchsorted(labels, labels, side="right")
    begins, ends = (bound.astype(np.int64) for bound in bounds)
    first_pair = np.concatenate([[0], np.cumsum(ends - np.arange(len(rows)) - 1)])
    product = np.empty((stripe_rows, len(rows)), np.float32)
    rng = np.random.default_rng(1)

    def mine() -> Triplets:
        chance = rng.random(int(first_pair[-1]))
        out = np.empty((len(chance), 3), np.int32)
        for first in range(0, len(rows), stripe_rows):
            n = min(stripe_rows, len(rows) - first)
            np.matmul(rows[first : first + n], columns, out=product[:n])
            pick(product, first, n, norms, begins, ends, first_pair, chance, out)
        return out[out[:, 2] >= 0].T

    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    nothing = np.zeros(0), np.zeros((0, 3), np.int32)
    pick(product, 0, 0, norms, begins, ends, first_pair, *nothing)  # compiles
    return mine


# -- TensorFlow ----------------------------------------------------------------------------------------------


def tensorflow(n_threads: int) -> Any:
    """Import TensorFlow with so many threads, unless it runs already."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(n_threads)
    except RuntimeError:  # threads run already: they keep the number that was asked for first
        pass
    return tf


def _tensorflow_batch_hard(rows: Rows, labels: Labels, n_threads: int) -> Mine:
    tf = tensorflow(n_threads)
    embeddings, identities = tf.constant(rows), tf.constant(labels)

    @tf.function  # type: ignore[untyped-decorator]
    def mine(embeddings: Any, identities: Any) -> tuple[Any, Any]:
        norms = tf.reduce_sum(tf.square(embeddings), axis=1)
        products = tf.matmul(embeddings, embeddings, transpose_b=True)
        squared = norms[:, None] - 2.0 * products + norms[None, :]
        same = identities[:, None] == identities[None, :]
        positive = tf.argmax(tf.where(same, squared, -1.0), axis=1)
        negative = tf.argmin(tf.where(same, np.float32(np.inf), squared), axis=1)
        return positive, negative

    def run() -> Triplets:
        positive, negative = mine(embeddings, identities)
        return np.arange(len(rows)), positive.numpy(), negative.numpy()

    mine.get_concrete_function(embeddings, identities)
    return run


def _tensorflow_semi_hard(rows: Rows, labels: Labels, n_threads: int) -> Mine:
    """Choose by one masked reduction over an N x N x N tensor, as TensorFlow Addons formulates it."""
    tf = tensorflow(n_threads)
    embeddings, identities = tf.constant(rows), tf.constant(labels)

    @tf.function  # type: ignore[untyped-decorator]
    def mine(embeddings: Any, identities: Any) -> Any:
        norms = tf.reduce_sum(tf.square(embeddings), axis=1)
        products = tf.matmul(embeddings, embeddings, transpose_b=True)
        squared = norms[:, None] - 2.0 * products + norms[None, :]
        other = identities[:, None] != identities[None, :]
        # [anchor, positive, negative]
        farther = other[:, None, :] & (squared[:, None, :] > squared[:, :, None])
        nearest_farther = tf.reduce_min(tf.where(farther, squared[:, None, :], np.float32(np.inf)), axis=2)
        farthest = tf.reduce_max(tf.where(other, squared, -1.0), axis=1, keepdims=True)
        return tf.where(tf.math.is_finite(nearest_farther), nearest_farther, farthest)

    def run() -> npt.NDArray[Any]:
        return np.asarray(mine(embeddings, identities).numpy())

    mine.get_concrete_function(embeddings, identities)
    return run


# -- PyTorch and faiss ---------------------------------------------------------------------------------------


def _metric_learning(make_miner: Callable[[Any, Any], Any]) -> Callable[[Rows, Labels, int], Mine]:
    def prepare(rows: Rows, labels: Labels, n_threads: int) -> Mine:
        import torch
        from pytorch_metric_learning import distances, miners

        torch.set_num_threads(n_threads)
        miner = make_miner(miners, distances.LpDistance(normalize_embeddings=False, p=2, power=2))
        embeddings, identities = torch.from_numpy(rows), torch.from_numpy(labels)

        def mine() -> Triplets:
            anchor, positive, negative = miner(embeddings, identities)
            return anchor.numpy(), positive.numpy(), negative.numpy()

        return mine

    return prepare


def _faiss(rows: Rows, labels: Labels, n_threads: int) -> Mine:
    """Ask for more neighbours than an identity has images: the first stranger is the nearest one."""
    import faiss

    faiss.omp_set_num_threads(n_threads)
    n_neighbours = min(int(np.bincount(labels).max()) + 8, len(rows))

    def mine() -> npt.NDArray[Any]:
        index = faiss.IndexFlatL2(rows.shape[1])
        index.add(rows)
        _, neighbours = index.search(rows, n_neighbours)
        strangers = labels[neighbours] != labels[:, None]
        return np.asarray(neighbours[np.arange(len(rows)), strangers.argmax(axis=1)])

    return mine


ONE_VIOLATING = "one violating negative a pair, uniformly"

RIVALS = (
    Rival(
        "facenet-fast, `vgg_face`",
        ONE_VIOLATING,
        _native("vgg_face"),
        lambda answer, rows, labels: rules.one_violating_each(answer, rows, labels, tolerance=1e-12),
    ),
    Rival(
        "facenet-fast, `facenet`",
        "one semi-hard negative a pair, uniformly",
        _native("facenet"),
        lambda answer, rows, labels: rules.one_semi_hard_each(answer, rows, labels, tolerance=1e-12),
    ),
    Rival(
        "facenet-fast, `batch_hard`",
        "each anchor's hardest positive and negative",
        _native("batch_hard"),
        rules.hardest_each,
    ),
    Rival(
        "facenet-fast, `count_triplets`",
        "how many triplets violate, pair by pair",
        lambda rows, labels, n_threads: lambda: count_triplets(rows, labels, margin=MARGIN),
        rules.violating_counts,
    ),
    Rival(
        "facenet-fast, `nearest_neighbors`",
        "each anchor's nearest negative",
        lambda rows, labels, n_threads: (
            lambda: nearest_neighbors(rows, labels=labels, exclude="same_identity").indices[:, 0]
        ),
        rules.nearest_negative_each,
    ),
    Rival(
        "the predecessor's loop",
        ONE_VIOLATING,
        lambda rows, labels, n_threads: prepare_predecessors_loop(rows, labels, None),
        lambda answer, rows, labels: rules.one_violating_each(answer, rows, labels, tolerance=1e-12),
        prepare_part=prepare_predecessors_loop,
    ),
    Rival("numpy, vectorised", ONE_VIOLATING, _vectorised, rules.one_violating_each),
    Rival("numba, `prange` and BLAS", ONE_VIOLATING, _numba, rules.one_violating_each, ("numba",)),
    Rival(
        "TensorFlow, batch-hard",
        "each anchor's hardest positive and negative",
        _tensorflow_batch_hard,
        rules.hardest_each,
        ("tensorflow",),
        lambda n, k: 16.0 * n**2,
    ),
    Rival(
        "TensorFlow Addons' formulation",
        "nearest semi-hard negative a pair",
        _tensorflow_semi_hard,
        rules.semi_hard_distances,
        ("tensorflow",),
        lambda n, k: 8.0 * n**3,
    ),
    Rival(
        "pytorch-metric-learning `TripletMarginMiner`",
        "all violating triplets",
        _metric_learning(
            lambda miners, distance: miners.TripletMarginMiner(margin=MARGIN, distance=distance)
        ),
        rules.all_violating,
        ("torch", "pytorch_metric_learning"),
        lambda n, k: 74.0 * n * (k - 1) * (n - k),
    ),
    Rival(
        "pytorch-metric-learning `BatchHardMiner`",
        "each anchor's hardest positive and negative",
        _metric_learning(lambda miners, distance: miners.BatchHardMiner(distance=distance)),
        rules.hardest_each,
        ("torch", "pytorch_metric_learning"),
        lambda n, k: 27.0 * n**2,
    ),
    Rival(
        "faiss, flat index",
        "each anchor's nearest negative",
        _faiss,
        rules.nearest_negative_each,
        ("faiss",),
        lambda n, k: 12.0 * n * (k + 8),
    ),
)
