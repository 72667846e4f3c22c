"""`mine_triplets` and its kin: check the batch, group it by identity, call a backend, map the rows back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import reference
from .batch import Batch, first_bad_row, make_batch
from .checks import check_backend, check_integer, check_positive, check_threads, check_word
from .devices import DEVICES, load_core, load_cuda
from .rule import Rule, make_rule
from .strategies import Strategy, resolve_strategy

__all__ = ["CandidateCounts", "Triplets", "count_triplets", "mine_triplets", "stream_triplets"]

Backend = Literal["native", "reference"]
Device = Literal["cpu", "cuda", "auto"]
# Numpy's; of rows that were mined on a device where they lay, a `_cuda.DeviceArray`.
Column = npt.NDArray[np.int32] | Any
Bank = tuple[npt.ArrayLike, npt.ArrayLike]

_THREAD = threading.local()


@dataclass(frozen=True, eq=False)
class CandidateCounts:
    """How many negatives of each pair are in the strategy's band.

    Attributes
    ----------
    anchor, positive : int32 array, shape (n_pairs,)
        Rows of the mined batch: all pairs that the strategy looks at, by identity, anchor and positive.
    n_candidates : int32 array, shape (n_pairs,)

    Notes
    -----
    Arrays are numpy's, or on a device, as those of `Triplets`.
    """

    anchor: Column
    positive: Column
    n_candidates: Column

    def __len__(self) -> int:
        return len(self.anchor)

    @property
    def n_triplets(self) -> int:
        """The number of triplets in the band: the sum of `n_candidates`."""
        return int(np.asarray(self.n_candidates).sum(dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Triplets:
    """Mined triplets as three index arrays of one length, and what they were mined from.

    Attributes
    ----------
    anchor, positive, negative : int32 array, shape (n_triplets,)
        Rows of the mined batch. Row ``n_images + i`` is row ``i`` of the bank.
    n_pairs : int
        (Anchor, positive) pairs that were looked at.
    n_pairs_with_negative : int
        Pairs that have at least one negative in the strategy's band; those that have none, and a triplet all
        the same because of ``if_empty``, do not count.
    mean_d_ap, mean_d_an : float
        Mean distance of the triplets' positives and negatives from their anchors, to float32 precision; NaN
        where there are no triplets.
    candidates : CandidateCounts or None
        Candidates of each pair, where they were asked for.

    Notes
    -----
    The index arrays are where the rows were mined from: numpy's, or, of rows that lay on a device and were
    mined there, arrays on that device. Those have ``to_numpy()``, and are anybody's by ``__dlpack__`` and
    ``__cuda_array_interface__``: ``torch.from_dlpack(triplets.anchor)``, ``cupy.asarray(triplets.anchor)``.
    """

    anchor: Column
    positive: Column
    negative: Column
    n_pairs: int
    n_pairs_with_negative: int
    mean_d_ap: float
    mean_d_an: float
    candidates: CandidateCounts | None = None

    def __len__(self) -> int:
        return len(self.anchor)


@dataclass(frozen=True, eq=False)
class Request:
    """One checked call."""

    batch: Batch
    rule: Rule
    seed: int
    threads: int
    backend: str

    def native(self, function: str, *more: Any) -> Any:
        """Call the batch's miner; more arguments follow those that all of its functions take."""
        batch, rule = self.batch, self.rule
        core = load_cuda() if batch.device == "cuda" else load_core()
        weights = rule.weights
        native_rule = core.Rule(
            pairs=rule.pairs,
            n_positives=rule.n_positives,
            max_d_ap=rule.max_d_ap,
            quantile=rule.quantile,
            relative=rule.band.relative,
            low=rule.band.low,
            low_is_open=rule.band.low_is_open,
            high=rule.band.high,
            reach=rule.reach,
            root=rule.root,
            skip_hardest=rule.skip_hardest,
            pick=rule.pick,
            n_negatives=rule.n_negatives,
            if_empty=rule.if_empty,
            weights=()
            if weights is None
            else (
                weights.size,
                weights.unit,
                weights.lowest,
                weights.highest,
                weights.edges,
                weights.log_bounds,
            ),
        )
        return getattr(core, function)(
            workspace(batch.device),
            batch.rows,
            batch.order,
            batch.offsets,
            batch.members,
            batch.bank_positives,
            batch.is_anchor,
            native_rule,
            self.seed,
            self.threads,
            *more,
        )

    def reference(self) -> reference.Mined:
        """Ask the specification."""
        batch = self.batch
        batch.raise_bad_row(first_bad_row(batch.rows))
        rows = reference.Rows(
            batch.rows[batch.order], batch.offsets, batch.members, batch.bank_positives, batch.is_anchor
        )
        return reference.mine(rows, self.rule, self.seed)

    def counts(self) -> CandidateCounts:
        if self.backend == "reference":
            mined = self.reference()
            anchor, positive = self.batch.order[mined.pairs].T
            return CandidateCounts(anchor, positive, mined.n_candidates)
        columns, bad_row = self.native("count")
        self.batch.raise_bad_row(bad_row)
        return CandidateCounts(*columns)

    def mined(self, candidates: CandidateCounts | None = None) -> Triplets:
        if self.backend == "reference":
            mined = self.reference()
            anchor, positive, negative = self.batch.order[mined.triplets].T
            n_pairs, n_with_negative = len(mined.pairs), int((mined.n_candidates > 0).sum())
            sums = mined.sums
        else:
            columns, bad_row, (n_pairs, n_with_negative), sums = self.native("mine")
            self.batch.raise_bad_row(bad_row)
            anchor, positive, negative = columns
        return Triplets(
            anchor, positive, negative, n_pairs, n_with_negative, *_means(sums, len(anchor)), candidates
        )


def mine_triplets(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    strategy: str | Strategy = "facenet",
    margin: float = 0.2,
    distance: str = "squared_euclidean",
    seed: int = 0,
    threads: int | None = None,
    device: Device = "cpu",
    anchors: slice | npt.ArrayLike | None = None,
    bank: Bank | None = None,
    bank_positives: bool = False,
    count_candidates: bool = False,
    backend: Backend = "native",
) -> Triplets:
    """Pick negatives for pairs of images of one identity, by any strategy.

    A strategy says which (anchor, positive) pairs are looked at, in which band of distances a negative is a
    candidate, and which candidates are picked. With ``d_ap`` and ``d_an`` for the distances of positive and
    negative from the anchor, the presets are

    - ``"vgg_face"``: each pair once; one negative with ``d_an - d_ap < margin``, each equally likely;
    - ``"facenet"``: each pair once; the same with ``d_ap < d_an`` too (semi-hard);
    - ``"batch_hard"``: each anchor with its farthest positive and its nearest negative;
    - ``"easy_positive"``: each anchor with its nearest positive and the nearest negative farther than that;
    - ``"hardest"``: each pair once, with the anchor's nearest negative;
    - ``"distance_weighted"``: each pair both ways; one negative by the inverse density of its distance;
    - ``"batch_all"``: every violating triplet; for `stream_triplets` and `count_triplets`.

    A pair without candidates gives no triplet, unless the strategy says otherwise.

    Decisions are those of float64 arithmetic, and picks are keyed by (seed, anchor, positive): the result is
    the same for any number of threads and any instruction set.

    Parameters
    ----------
    embeddings : array_like, shape (n_images, embedding_size)
        float32 or float64 (float16 and bfloat16 are widened); rows need not be unit length. Arrays here are
        anybody's: numpy's, TensorFlow's, PyTorch's (detached), JAX's, CuPy's; results are numpy's, or, as
        `device` says, on the GPU that the rows lie on.
    labels : array_like, shape (n_images,)
        The identity of each row; any sortable type, in any order.
    strategy : str or Strategy, default "facenet"
        A key of `facenet_fast.mining.strategies.PRESETS`, or a `Strategy` of your own.
    margin : float, default 0.2
        In the unit of the distance; positive and finite. Bands other than ``"violating"`` and ``"semi_hard"``
        do not depend on it.
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
        ``"euclidean"`` is its root: margins, ends of an `Interval`, ``max_positive_distance`` and means are
        of distances that are not squared; which row is nearer is decided by the square. ``"cosine"`` is
        ``1 - cos``: half the squared Euclidean distance of the rows at unit length.
    seed : int, default 0
        In ``[0, 2**64)``. Draw a new one for each batch.
    threads : int, optional
        Threads to mine with; default: as many as OpenMP would use (``OMP_NUM_THREADS``, else the cores that
        this process may run on). A GPU has its own.
    device : {"cpu", "cuda", "auto"}, default "cpu"
        ``"cuda"`` mines the same triplets on a GPU; ``"auto"`` does so where there is one and it is likely to
        pay, and on the CPU elsewhere, without a word. Rows that lie on a device stay there, and the results
        with them, if they are C-contiguous float32 or float64, the distance is not ``"cosine"``, the strategy
        not by ``"distance_weighted"`` picks, and there is no bank; other rows go over the host, and results
        are numpy's. Labels always do: grouping is the host's. See ``docs/gpu.md``.
    anchors : slice or array_like, optional
        Rows to take anchors from, as they would index `embeddings`; default: all. Positives and negatives
        come from all rows in any case. A part has those triplets of the whole that have their anchor in it:
        workers that mine a part each find together what one would.
    bank : (embeddings, labels), optional
        A memory bank: more rows that are negatives, and never anchors. In the result, ``n_images + i`` is its
        row ``i``. Rows of the bank and of the batch with the same label are of the same identity.
    bank_positives : bool, default False
        Take positives from the bank too.
    count_candidates : bool, default False
        Also count the candidates of every pair, exactly. That is a search of its own: the call takes as long
        as `count_triplets` more, and strategies whose pairs find a negative by a few draws take many times
        longer.
    backend : {"native", "reference"}, default "native"
        ``"reference"`` is the specification in plain numpy: the same triplets, thousands of times slower.

    Returns
    -------
    Triplets
        In the order of the pairs: by identity, then anchor, then positive, each in the order of the batch.
        Picks of one pair are in the order in which they were drawn, or the nearest first.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If shapes do not fit, a row is not finite, or ``margin``, ``seed``, ``threads``, ``device`` or
        ``strategy`` is outside what is allowed.
    ImportError, RuntimeError
        If ``device="cuda"`` is not built, or has no GPU; the message says which, and what to do.
    MemoryError
        If the GPU has too little memory; the message says how much was asked for.

    References
    ----------
    Each preset's paper and section: ``PRESETS[name].source``.

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
    if rule.pick == "every":
        raise ValueError(
            "this strategy picks every candidate, which may be billions: stream_triplets gives them in "
            "parts, and count_triplets counts them"
        )
    request = check_request(
        embeddings,
        labels,
        rule,
        margin,
        distance,
        seed,
        threads,
        anchors,
        bank,
        bank_positives,
        backend,
        device,
    )
    return request.mined(request.counts() if count_candidates else None)


def count_triplets(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    strategy: str | Strategy = "batch_all",
    margin: float = 0.2,
    distance: str = "squared_euclidean",
    seed: int = 0,
    threads: int | None = None,
    device: Device = "cpu",
    anchors: slice | npt.ArrayLike | None = None,
    bank: Bank | None = None,
    bank_positives: bool = False,
    backend: Backend = "native",
) -> CandidateCounts:
    """Count the candidates of every pair that a strategy looks at, exactly; none is listed.

    Takes one search over all distances, and the memory of a few tiles and of the result.

    Parameters
    ----------
    embeddings, labels, strategy, margin, distance, seed, threads, device
        As of `mine_triplets`. (The seed matters to pairs that are drawn, ``"random_positives"``.)
    anchors, bank, bank_positives, backend
        As of `mine_triplets`.

    Returns
    -------
    CandidateCounts

    Raises
    ------
    TypeError, ValueError
        As `mine_triplets`.

    Examples
    --------
    >>> import numpy as np
    >>> from facenet_fast import count_triplets
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [9.0]], dtype=np.float32)
    >>> counts = count_triplets(embeddings, ["ann", "ann", "bob", "eve"], margin=2.0)
    >>> counts.n_candidates.tolist(), counts.n_triplets
    ([1, 1], 2)
    """
    rule = resolve_strategy(strategy)
    return check_request(
        embeddings,
        labels,
        rule,
        margin,
        distance,
        seed,
        threads,
        anchors,
        bank,
        bank_positives,
        backend,
        device,
    ).counts()


def stream_triplets(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    strategy: str | Strategy = "batch_all",
    margin: float = 0.2,
    distance: str = "squared_euclidean",
    seed: int = 0,
    threads: int | None = None,
    device: Device = "cpu",
    anchors: slice | npt.ArrayLike | None = None,
    bank: Bank | None = None,
    bank_positives: bool = False,
    max_triplets: int = 2**22,
) -> Iterator[Triplets]:
    """Yield every triplet in the band of a strategy, a block of anchors at a time.

    They are counted first, so that a block has as many anchors as fit ``max_triplets``, and one at least.
    Memory: 12 bytes a triplet of a block, and what `count_triplets` needs.

    Parameters
    ----------
    embeddings, labels, margin, distance, seed, threads, device, anchors, bank, bank_positives
        As of `mine_triplets`. Blocks are numpy's arrays in any case.
    strategy : str or Strategy, default "batch_all"
        Its pairs and band are taken, and every candidate, however many it would pick. (What is beyond the
        ``far`` of ``"distance_weighted"`` is no candidate.)
    max_triplets : int, default 2**22
        Triplets that a block may have, unless a single anchor has more.

    Yields
    ------
    Triplets
        The blocks one after the other are in the order of the pairs; the negatives of a pair, as those, by
        identity and then in the order of the batch.

    Raises
    ------
    TypeError, ValueError
        As `mine_triplets`, at the call.

    Examples
    --------
    >>> import numpy as np
    >>> from facenet_fast import stream_triplets
    >>> embeddings = np.array([[0.0], [1.0], [1.5], [9.0]], dtype=np.float32)
    >>> for block in stream_triplets(embeddings, ["ann", "ann", "bob", "eve"], margin=2.0):
    ...     print(block.anchor, block.positive, block.negative)
    [0 1] [1 0] [2 2]
    """
    rule = resolve_strategy(strategy)
    limit = check_integer("max_triplets", max_triplets, 1, 2**62)
    request = check_request(
        embeddings,
        labels,
        rule,
        margin,
        distance,
        seed,
        threads,
        anchors,
        bank,
        bank_positives,
        "native",
        device,
    )
    return stream_blocks(request, limit)


def stream_blocks(request: Request, max_triplets: int) -> Iterator[Triplets]:
    """Yield every candidate as `stream_triplets` does; at once counted, then listed block by block."""
    counts = request.counts()
    on_host = map(np.asarray, (counts.anchor, counts.positive, counts.n_candidates))
    return _blocks(request, CandidateCounts(*on_host), max_triplets)


def _blocks(request: Request, counts: CandidateCounts, max_triplets: int) -> Iterator[Triplets]:
    batch = request.batch
    starts, place = _starts_of_anchors(batch, counts)
    ends = np.append(starts[1:], len(counts))
    # Of all triplets, where those of a pair begin.
    first_triplet = np.concatenate(([0], np.cumsum(counts.n_candidates, dtype=np.int64)))
    begin = 0  # of the anchors that have pairs
    while begin < len(starts):
        done = first_triplet[starts[begin]]
        fits = int(np.searchsorted(first_triplet[ends], done + max_triplets, side="right"))
        end = max(fits, begin + 1)
        pairs = slice(starts[begin], ends[end - 1])
        is_anchor = np.zeros(len(batch.order), np.uint8)
        row_starts = np.zeros(len(batch.order), np.int64)
        is_anchor[place[begin:end]] = 1
        row_starts[place[begin:end]] = first_triplet[starts[begin:end]] - done
        n_candidates = counts.n_candidates[pairs]
        n = int(first_triplet[ends[end - 1]] - done)
        block = replace(request, batch=replace(batch, is_anchor=is_anchor))
        negative, sums = block.native("every", row_starts, n)
        yield Triplets(
            np.repeat(counts.anchor[pairs], n_candidates),
            np.repeat(counts.positive[pairs], n_candidates),
            np.asarray(negative),
            len(n_candidates),
            int((n_candidates > 0).sum()),
            *_means(sums, n),
        )
        begin = end


def _means(sums: tuple[float, float], n: int) -> tuple[float, float]:
    return (sums[0] / n, sums[1] / n) if n else (float("nan"), float("nan"))


def _starts_of_anchors(
    batch: Batch, counts: CandidateCounts
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where each anchor's pairs begin, and the anchor's place in the grouped order."""
    starts = np.flatnonzero(np.diff(counts.anchor, prepend=-1))
    place = np.empty(len(batch.order), np.intp)
    place[batch.order] = np.arange(len(batch.order))
    return starts, place[counts.anchor[starts]]


def count_and_take(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, *, strategy: str, margin: float, anchors: slice
) -> tuple[CandidateCounts, Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int32]]]:
    """Count candidates, and return with the counts what gives each pair its candidate of some rank.

    Returns
    -------
    counts : CandidateCounts
    take : function of an int64 array, shape (n_pairs,)
        Takes each pair's rank, below its number of candidates, or -1; returns their negatives, or -1.
    """
    rule = resolve_strategy(strategy)
    request = check_request(
        embeddings, labels, rule, margin, "squared_euclidean", 0, None, anchors, None, False, "native"
    )
    counts = request.counts()
    starts, place = _starts_of_anchors(request.batch, counts)
    row_starts = np.zeros(len(request.batch.order), np.int64)
    row_starts[place] = starts

    def take(ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        negatives: npt.NDArray[np.int32] = request.native("take", row_starts, ranks)
        return negatives

    return counts, take


def check_request(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    strategy: Strategy,
    margin: float,
    distance: str,
    seed: int,
    threads: int | None,
    anchors: slice | npt.ArrayLike | None,
    bank: Bank | None,
    bank_positives: bool,
    backend: str,
    device: str = "cpu",
) -> Request:
    margin = check_positive("margin", margin)
    seed = check_integer("seed", seed, 0, 2**64 - 1)
    n_threads = check_threads(threads)
    check_backend(backend)
    check_word("device", device, DEVICES)
    if backend == "reference" and device != "cpu":
        raise ValueError(
            f"device must be 'cpu' with backend='reference', which is plain numpy; got {device!r}"
        )
    batch = make_batch(
        embeddings,
        labels,
        distance=distance,
        anchors=anchors,
        bank=bank,
        bank_positives=bank_positives,
        on_sphere=strategy.pick == "distance_weighted",
        device=device,
    )
    rule = make_rule(strategy, margin, batch.rows.shape[1], batch.distance.unit, batch.distance.root)
    return Request(batch, rule, seed, n_threads, backend)


def workspace(device: str = "cpu") -> Any:
    """Return this thread's own memory to mine in with a device's miner, kept between calls."""
    kept = _THREAD.__dict__
    if device not in kept:
        kept[device] = (load_cuda() if device == "cuda" else load_core()).Workspace()
    return kept[device]
