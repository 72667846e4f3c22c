"""Pools of decoded images, the next one being read while one is trained on; resumable to the image.

`PoolReader` reads all of a pool, `SharedPoolReader` the share of one of several workers.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError
from facenet_fast.training.dealing import deal

__all__ = ["ImageSource", "Pool", "PoolReader", "PoolShare", "SharedPoolReader", "Sharing"]

# Of the decoded images of a pool that is widened; one more is read ahead.
_MOST_BYTES = 2**30

# Indices of images, and the identity of each.
_Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class Pool:
    """Images of some identities.

    Attributes
    ----------
    images : uint8 array, shape (n_images, S, S, 3)
    labels : int32 array, shape (n_images,)
        Index of each image's identity in the data set.
    sizes : tuple of int
        Images of each pool, where several lie here one after the other; empty: it is one.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    sizes: tuple[int, ...] = ()

    def parts(self) -> list[Pool]:
        """Return the pools that lie here.

        Examples
        --------
        >>> two = Pool(np.zeros((5, 1, 1, 3), np.uint8), np.array([4, 4, 9, 4, 7], np.int32), sizes=(3, 2))
        >>> [pool.labels.tolist() for pool in two.parts()]
        [[4, 4, 9], [4, 7]]
        """
        if not self.sizes:
            return [self]
        ends = np.cumsum(self.sizes)[:-1]
        parts = zip(np.split(self.images, ends), np.split(self.labels, ends), strict=True)
        return [Pool(images, labels) for images, labels in parts]


@dataclass(frozen=True, eq=False)
class PoolShare(Pool):
    """What a worker has of a pool: the labels of all of it, and the images that it passes.

    Attributes
    ----------
    images : uint8 array, shape (n_own, S, S, 3)
    labels : int32 array, shape (n_images,)
        In the order of the chunks that the pool is passed in.
    start : int
        Row of the first image here.
    ends : tuple of int
        The row after the last of each chunk of the whole pool.
    """

    start: int = 0
    ends: tuple[int, ...] = ()


class ImageSource(Protocol):
    """What is asked of an image store (`facenet_fast.data.images.ImageStore`)."""

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Decode images; the second array tells which could be."""


class Sharing(Protocol):
    """What is asked of those who share a pool (`facenet_fast.training.replicas.Replicas`)."""

    n_replicas: int
    n_local: int
    first: int

    def sum(self, values: npt.ArrayLike) -> npt.NDArray[Any]:
        """Add up what each worker has."""


class PoolReader:
    """Draw and read pools one ahead.

    Images that cannot be read are left out of their pool and never drawn again.

    Parameters
    ----------
    sampler : IdentitySampler
        Says which images; it belongs to the reader from now on.
    store : ImageStore
        Reads them.
    pools_per_step : int, default 1
        Pools that are returned, and read ahead, as one.
    """

    def __init__(self, sampler: IdentitySampler, store: ImageSource, pools_per_step: int = 1) -> None:
        self._sampler = sampler
        self._store = store
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pools")
        # What `next` makes a pool of.
        self._ahead: Future[Any] | None = None
        self._identities_per_batch = sampler.identities_per_batch
        self._pools_per_step = pools_per_step
        self._drawn: list[_Drawn] = []

    def __enter__(self) -> PoolReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.shutdown(cancel_futures=True)

    def next(self) -> Pool:
        """Return the next pool and begin to read the one after it.

        Raises
        ------
        UserError
            If too few images can be read to make a triplet.
        """
        pool: Pool = self._pending().result()
        self._ahead = self._reader.submit(self._draw_and_read)
        return pool

    def look_alike(self, neighbors: npt.NDArray[np.int64]) -> None:
        """Have the sampler make groups of lookalikes, from the pool after the one that is read ahead on.

        Parameters
        ----------
        neighbors : int64 array, shape (n_identities, k)
            See `IdentitySampler.look_alike`.
        """
        self._pending().result()
        self._sampler.look_alike(neighbors)

    def widen(self) -> int:
        """Have pools hold twice as many identities, or all, from the one after that read ahead on.

        Returns
        -------
        int
            How many; 0 where pools hold all already, or would take more than 1 GiB of images.
        """
        pool = self._pending().result()
        now = self._sampler.identities_per_batch
        wider = min(2 * now, self._sampler.n_drawable)
        n_bytes = pool.images[:1].nbytes * len(pool.labels)
        if wider <= now or n_bytes * wider > _MOST_BYTES * now:
            return 0
        self._sampler.identities_per_batch = wider
        return wider

    def missing(self) -> npt.NDArray[np.int64]:
        """Return the identities that can be in no pool."""
        self._pending().result()
        return self._sampler.undrawable

    def state(self) -> dict[str, Any]:
        """Return what decides all pools not yet returned, as plain values for JSON."""
        self._pending().result()
        indices, labels = (np.concatenate(column) for column in zip(*self._drawn, strict=True))
        # The pool that is read ahead has left the sampler; a resumed run reads it again.
        state = {
            "sampler": self._sampler.state(),
            "indices": indices.tolist(),
            "labels": labels.tolist(),
            "n_more_identities": self._sampler.identities_per_batch - self._identities_per_batch,
        }
        if len(self._drawn) > 1:
            state["sizes"] = [len(labels) for _, labels in self._drawn]
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`; the data set must be the same.

        Raises
        ------
        UserError
            If the data set has another size.
        """
        if self._ahead is not None:
            self._ahead.result()
        self._sampler.restore(state["sampler"])
        self._sampler.identities_per_batch = self._identities_per_batch + state.get("n_more_identities", 0)
        indices = np.asarray(state["indices"], dtype=np.int64)
        labels = np.asarray(state["labels"], dtype=np.int32)
        ends = np.cumsum(state.get("sizes", [len(labels)]))[:-1]
        drawn = list(zip(np.split(indices, ends), np.split(labels, ends), strict=True))
        # A run may go on with another number of pools a step; it begins with those that were read ahead.
        self._drawn = drawn[: self._pools_per_step]
        self._ahead = self._reader.submit(self._read_drawn)

    def _pending(self) -> Future[Any]:
        if self._ahead is None:
            self._ahead = self._reader.submit(self._draw_and_read)
        return self._ahead

    def _draw_and_read(self) -> Pool:
        self._drawn = []
        pools: list[Pool] = []
        # A pool may hold no positive or no negative pair: unreadable files, or identities of one image. This
        # ends, as each identity has its turn; the sampler raises once too few readable images are left.
        while len(pools) < self._pools_per_step:
            drawn = self._sampler.next_pool()
            pool = self._read(*drawn)
            if _has_triplets(pool.labels):
                self._drawn.append(drawn)
                pools.append(pool)
        return _joined(pools)

    def _read_drawn(self) -> Pool:
        return _joined([self._read(*drawn) for drawn in self._drawn])

    def _read(self, indices: npt.NDArray[np.int64], labels: npt.NDArray[np.int32]) -> Pool:
        images, ok = self._store.read(indices)
        self._sampler.exclude(indices[~ok])
        return Pool(images[ok], labels[ok])


class SharedPoolReader(PoolReader):
    """Draw the same pools as all other workers, and read a share of each one ahead.

    Which images cannot be read the workers tell each other, and leave them out of the pool and of all later
    ones, as `PoolReader` does.

    Parameters
    ----------
    sampler, store
        As of `PoolReader`; the sampler is in the same state everywhere.
    sharing : Sharing
        Who shares the pools.
    batch_size : int
        Images that a replica passes at once, at most.
    """

    def __init__(
        self, sampler: IdentitySampler, store: ImageSource, sharing: Sharing, batch_size: int
    ) -> None:
        super().__init__(sampler, store)
        self._sharing = sharing
        self._batch_size = batch_size

    def next(self) -> PoolShare:
        """Return this worker's share of the next pool and begin to read that of the one after it.

        Raises
        ------
        UserError
            If too few images can be read to make a triplet, or this worker cannot read what another can.
        """
        pool = None
        while pool is None:
            attempt = self._pending().result()
            self._ahead = None
            pool = self._agreed(attempt)
        self._ahead = self._reader.submit(self._draw_and_read)
        return pool

    def _agreed(self, attempt: _Attempt) -> PoolShare | None:
        """Leave out what anybody could not read; return None where no triplet remains."""
        is_read = np.zeros(len(attempt.labels), np.int64)
        is_read[attempt.start : attempt.start + len(attempt.is_read)] = attempt.is_read
        kept = self._sharing.sum(is_read) > 0
        if not kept.all():
            self._sampler.exclude(attempt.indices[~kept])
            indices, labels = attempt.indices[kept], attempt.labels[kept]
            if not _has_triplets(labels):
                return None
            # Who passes what has changed. This is rare: no image is left out twice.
            attempt = self._attempt(indices, labels)
            if not attempt.is_read.all():
                raise UserError(
                    "every worker must be able to read the same images; here "
                    f"{np.count_nonzero(~attempt.is_read)} of a pool cannot be read that another worker read"
                )
        return PoolShare(attempt.images, attempt.labels, start=attempt.start, ends=attempt.ends)

    def _draw_and_read(self) -> Any:
        self._drawn = [self._sampler.next_pool()]
        return self._read_drawn()

    def _read_drawn(self) -> Any:
        return self._attempt(*self._drawn[0])

    def _attempt(self, indices: npt.NDArray[np.int64], labels: npt.NDArray[np.int32]) -> _Attempt:
        chunks = deal(labels, self._sharing.n_replicas, self._batch_size)
        order = np.concatenate(chunks)
        bounds = np.cumsum([0, *(len(rows) for rows in chunks)])
        n_each = len(chunks) // self._sharing.n_replicas
        first, last = self._sharing.first, self._sharing.first + self._sharing.n_local
        start, stop = bounds[first * n_each], bounds[last * n_each]
        images, is_read = self._store.read(indices[order[start:stop]])
        return _Attempt(
            indices[order], labels[order], images, is_read, int(start), tuple(bounds[1:].tolist())
        )


@dataclass(frozen=True, eq=False)
class _Attempt:
    """A drawn pool in the order of its chunks, and what this worker has read of it, from row `start` on."""

    indices: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    images: npt.NDArray[np.uint8]
    is_read: npt.NDArray[np.bool_]
    start: int
    ends: tuple[int, ...]


def _has_triplets(labels: npt.NDArray[np.integer]) -> bool:
    counts = np.unique(labels, return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() > 1)


def _joined(pools: list[Pool]) -> Pool:
    if len(pools) == 1:
        return pools[0]
    images = np.concatenate([pool.images for pool in pools])
    labels = np.concatenate([pool.labels for pool in pools])
    return Pool(images, labels, tuple(len(pool.labels) for pool in pools))
