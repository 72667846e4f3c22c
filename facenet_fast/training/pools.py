"""Pools of decoded images, the next one being read while one is trained on; resumable to the image."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facenet_fast.data.sampling import IdentitySampler

__all__ = ["ImageSource", "Pool", "PoolReader"]

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


class ImageSource(Protocol):
    """What is asked of an image store (`facenet_fast.data.images.ImageStore`)."""

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Decode images; the second array tells which could be."""


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
        self._ahead: Future[Pool] | None = None
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
        pool = self._pending().result()
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
        if wider <= now or pool.images.nbytes * wider > _MOST_BYTES * now:
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

    def _pending(self) -> Future[Pool]:
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
            counts = np.unique(pool.labels, return_counts=True)[1]
            if len(counts) > 1 and counts.max() > 1:
                self._drawn.append(drawn)
                pools.append(pool)
        return _joined(pools)

    def _read_drawn(self) -> Pool:
        return _joined([self._read(*drawn) for drawn in self._drawn])

    def _read(self, indices: npt.NDArray[np.int64], labels: npt.NDArray[np.int32]) -> Pool:
        images, ok = self._store.read(indices)
        self._sampler.exclude(indices[~ok])
        return Pool(images[ok], labels[ok])


def _joined(pools: list[Pool]) -> Pool:
    if len(pools) == 1:
        return pools[0]
    images = np.concatenate([pool.images for pool in pools])
    labels = np.concatenate([pool.labels for pool in pools])
    return Pool(images, labels, tuple(len(pool.labels) for pool in pools))
