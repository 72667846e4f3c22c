"""`mine_triplets`: check the batch, group it by identity, call a backend, map the rows back."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from . import reference
from .devices import load_core
from .strategies import Strategy, resolve_strategy

__all__ = ["Triplets", "mine_triplets", "select_triplets"]

Path = TypeVar("Path")

# Squared distances between longer rows could leave float64's range; csrc/mining/batch.cpp holds its square.
_LARGEST_NORM = 1e150

# Stands for a mask of anchors where all rows are.
_ALL = np.empty(0, np.uint8)

_THREAD = threading.local()


@dataclass(frozen=True, eq=False)
class Triplets:
    """Mined triplets as three index arrays of one length, and what they were mined from.

    Attributes
    ----------
    anchor, positive, negative : int32 array, shape (n_triplets,)
        Rows of the mined batch.
    n_pairs : int
        (Anchor, positive) pairs that were looked at.
    n_pairs_with_negative : int
        Pairs that have at least one negative in the strategy's band.
    """

    anchor: npt.NDArray[np.int32]
    positive: npt.NDArray[np.int32]
    negative: npt.NDArray[np.int32]
    n_pairs: int
    n_pairs_with_negative: int

    def __len__(self) -> int:
        return len(self.anchor)


def mine_triplets(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    strategy: str | Strategy = "facenet",
    margin: float = 0.2,
    seed: int = 0,
    threads: int | None = None,
    anchors: slice | npt.ArrayLike | None = None,
    backend: Literal["native", "reference"] = "native",
) -> Triplets:
    """Pick a negative for every pair of images of one identity.

    With squared Euclidean distances ``d_ap`` (anchor to positive) and ``d_an`` (anchor to negative), a
    negative of the pair is a candidate where

    - ``"vgg_face"``: ``d_an - d_ap < margin``;
    - ``"facenet"``: ``d_ap < d_an`` and ``d_an - d_ap < margin`` (semi-hard);

    and one candidate is picked, each with the same probability. A pair without candidates gives no triplet.

    Decisions are those of float64 arithmetic, and picks are keyed by (seed, anchor, positive): the result is
    the same for any number of threads and any instruction set.

    Parameters
    ----------
    embeddings : array_like, shape (n_images, embedding_size)
        float32 or float64 (float16 and bfloat16 are widened); rows need not be unit length.
    labels : array_like, shape (n_images,)
        The identity of each row; any sortable type, in any order.
    strategy : str or Strategy, default "facenet"
        A key of `facenet_fast.mining.strategies.PRESETS`, or a `Strategy`.
    margin : float, default 0.2
        In squared distance; positive and finite.
    seed : int, default 0
        In ``[0, 2**64)``. Draw a new one for each batch.
    threads : int, optional
        Threads to mine with; default: as many as OpenMP would use (``OMP_NUM_THREADS``, else the cores that
        this process may run on).
    anchors : slice or array_like, optional
        Rows to take anchors from, as they would index `embeddings`; default: all. Positives and negatives
        come from all rows in any case. A part has those triplets of the whole that have their anchor in it:
        workers that mine a part each find together what one would.
    backend : {"native", "reference"}, default "native"
        ``"reference"`` is the specification in plain numpy: the same triplets, thousands of times slower.

    Returns
    -------
    Triplets
        In the order of the pairs: by identity, then anchor, then positive, each in the order of the batch.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If shapes do not fit, a row is not finite, or ``margin``, ``seed``, ``threads`` or ``strategy`` is
        outside what is allowed.

    References
    ----------
    Schroff, Kalenichenko, Philbin: FaceNet (CVPR 2015), section 3.2. Parkhi, Vedaldi, Zisserman: Deep Face
    Recognition (BMVC 2015), section 4.3.

    Examples
    --------
    >>> import numpy as np
    >>> from facenet_fast import mine_triplets
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [9.0]], dtype=np.float32)
    >>> triplets = mine_triplets(embeddings, ["ann", "ann", "bob", "eve"], margin=2.0)
    >>> triplets.anchor, triplets.positive, triplets.negative
    (array([0], dtype=int32), array([1], dtype=int32), array([2], dtype=int32))
    """
    rule = resolve_strategy(strategy)
    rows = _check_embeddings(embeddings)
    order, offsets = _group(labels, len(rows))
    is_anchor = _ALL if anchors is None else _check_anchors(anchors, len(rows))[order]
    margin = _check_margin(margin)
    seed = _check_integer("seed", seed, 0, 2**64 - 1)
    n_threads = 0 if threads is None else _check_integer("threads", threads, 1, 2**31 - 1)

    if backend == "native":
        columns, bad_row = load_core().mine(
            _workspace(), rows, order, offsets, is_anchor, rule.band, margin, seed, n_threads
        )
    elif backend == "reference":
        bad_row = _first_bad_row(rows)
        if bad_row < 0:
            columns = order[reference.mine(rows[order], offsets, is_anchor, rule, margin, seed)].T
    else:
        raise ValueError(f"backend must be 'native' or 'reference'; got {backend!r}")
    if bad_row >= 0:
        norm = math.hypot(*rows[bad_row].tolist())
        raise ValueError(
            f"embeddings must be finite, with norms below {_LARGEST_NORM:g}; row {bad_row} has norm {norm}"
        )

    if anchors is None:
        counts = np.diff(offsets)
        n_pairs = int((counts * (counts - 1) // 2).sum())
    else:
        ends = np.repeat(offsets[1:], np.diff(offsets))
        n_pairs = int((ends - np.arange(len(rows)) - 1)[is_anchor != 0].sum())
    anchor, positive, negative = columns
    return Triplets(
        anchor=anchor,
        positive=positive,
        negative=negative,
        n_pairs=n_pairs,
        n_pairs_with_negative=len(anchor),
    )


def select_triplets(
    embeddings: npt.ArrayLike,
    nrof_images_per_class: Sequence[int],
    image_paths: Sequence[Path],
    people_per_batch: int,
    alpha: float,
) -> tuple[list[tuple[Path, Path, Path]], int, int]:
    """Pick triplets as davidsandberg/facenet's function of this name does: same arguments, same return.

    Each pair of images of one class, the earlier one as the anchor, gets a uniformly drawn negative with
    ``d_an - d_ap < alpha`` (`mine_triplets` with ``strategy="vgg_face"``). The triplets come shuffled. Chance
    is taken from numpy's global generator: ``np.random.seed`` makes the result repeatable.

    Parameters
    ----------
    embeddings : array_like, shape (n_images, embedding_size)
        The images of the first class, then those of the second, and so on.
    nrof_images_per_class : sequence of int
        How many rows each class has; they add up to ``n_images``.
    image_paths : sequence, length n_images
        What the triplets are made of: ``image_paths[row]`` stands for a row.
    people_per_batch : int
        Anchors are taken from the first so many classes; negatives from all.
    alpha : float
        The margin, in squared distance.

    Returns
    -------
    triplets : list of (anchor_path, positive_path, negative_path)
    n_pairs : int
        Pairs that were looked at.
    n_triplets : int
        ``len(triplets)``.

    Raises
    ------
    ValueError
        If the counts, the paths and the embeddings do not fit each other; otherwise as `mine_triplets`.
    """
    whole = [
        _check_integer("every count in nrof_images_per_class", count, 0, len(image_paths))
        for count in nrof_images_per_class
    ]
    n_anchor_classes = _check_integer("people_per_batch", people_per_batch, 1, len(whole))
    if sum(whole) != len(image_paths):
        raise ValueError(
            "nrof_images_per_class must be counts that add up to the number of image_paths "
            f"({len(image_paths)}); got {whole}"
        )
    counts = np.array(whole, dtype=np.int64)
    labels = np.repeat(np.arange(len(counts)), counts)
    seed = int(np.random.randint(2**63, dtype=np.int64))
    anchors = slice(counts[:n_anchor_classes].sum())
    mined = mine_triplets(embeddings, labels, strategy="vgg_face", margin=alpha, seed=seed, anchors=anchors)

    triplets = [
        (image_paths[a], image_paths[p], image_paths[n])
        for a, p, n in np.random.permutation(
            np.stack((mined.anchor, mined.positive, mined.negative), 1)
        ).tolist()
    ]
    return triplets, mined.n_pairs, len(triplets)


def _check_embeddings(embeddings: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the embeddings as a C-contiguous float32 or float64 matrix in native byte order."""
    rows = np.asarray(embeddings)
    is_half = rows.dtype.name in ("float16", "bfloat16")
    if not is_half and (rows.dtype.kind != "f" or rows.dtype.itemsize not in (4, 8)):
        raise TypeError(f"embeddings must be float32 or float64; got {rows.dtype}")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"embeddings must have shape (n_images, embedding_size); got {rows.shape}")
    if len(rows) >= 2**31:
        raise ValueError(f"embeddings must have fewer than 2**31 rows; got {len(rows)}")
    dtype = np.dtype(np.float32) if is_half else rows.dtype.newbyteorder("=")
    return np.require(rows, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def _group(labels: npt.ArrayLike, n_rows: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the stable order of the rows by identity, and where each identity begins in it."""
    identities = np.asarray(labels)
    if identities.shape != (n_rows,):
        raise ValueError(
            f"labels must have shape ({n_rows},), one for each embedding; got {identities.shape}"
        )
    kind = identities.dtype.kind
    try:
        if kind not in "biuSU" and (identities != identities).any():
            raise ValueError("labels must not be NaN or NaT: those equal no identity, not even themselves")
        # numpy makes mixed values one type, in which 1 and "1", or two large numbers, are the same.
        if kind in "SUfc" and isinstance(labels, list | tuple) and identities.tolist() != list(labels):
            raise TypeError(f"some of them change when all are taken as {identities.dtype}")
        order = np.argsort(identities, kind="stable")
        ordered = identities[order]
        starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        # Some of Python's own types are "sorted" without complaint into no order at all, as sets are.
        if kind == "O" and not (ordered[starts - 1] < ordered[starts]).all():
            raise TypeError("some of them are neither equal nor one before the other")
    except TypeError as error:
        raise TypeError(f"labels must be of one sortable type; {error}") from error
    offsets = np.concatenate(([0], starts, [n_rows])) if n_rows else np.zeros(1, np.int64)
    return order.astype(np.int32), offsets.astype(np.int64, copy=False)


def _check_anchors(anchors: slice | npt.ArrayLike, n_rows: int) -> npt.NDArray[np.uint8]:
    """Return for each row whether it is an anchor."""
    rows = anchors if isinstance(anchors, slice) else np.asarray(anchors)
    if isinstance(rows, np.ndarray) and rows.size == 0:
        rows = rows.astype(np.intp)
    is_anchor = np.zeros(n_rows, np.uint8)
    try:
        is_anchor[rows] = 1
    except IndexError as error:
        raise ValueError(f"anchors must index the {n_rows} embeddings; {error}") from error
    except TypeError as error:
        raise TypeError(f"anchors must be a slice, row numbers or a mask; {error}") from error
    return is_anchor


def _check_margin(margin: float) -> float:
    try:
        value = float(margin)
    except OverflowError as error:
        raise ValueError("margin must be positive and finite; got a number beyond float's range") from error
    except (TypeError, ValueError) as error:
        raise TypeError(f"margin must be a number; got {margin!r}") from error
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"margin must be positive and finite; got {margin!r}")
    return value


def _check_integer(name: str, value: int, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a whole number; got {value!r}") from error
    if not low <= number <= high:
        raise ValueError(f"{name} must be in [{low}, {high}]; got {number}")
    return number


def _first_bad_row(rows: npt.NDArray[Any]) -> int:
    with np.errstate(over="ignore"):
        squared_norms = np.square(rows, dtype=np.float64).sum(axis=1)
    bad = np.flatnonzero(~(squared_norms < _LARGEST_NORM**2))  # NaN compares false: "not below" finds it too
    return int(bad[0]) if len(bad) else -1


def _workspace() -> Any:
    """Return this thread's own memory to mine in, kept between calls."""
    if not hasattr(_THREAD, "workspace"):
        _THREAD.workspace = load_core().Workspace()
    return _THREAD.workspace
