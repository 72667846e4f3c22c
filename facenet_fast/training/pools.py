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


@dataclass(frozen=True, eq=False)
class Pool:
    """Images of some identities.

    Attributes
    ----------
    images : uint8 array, shape (n_images, S, S, 3)
    labels : int32 array, shape (n_images,)
        Index of each image's identity in the data set.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]


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
    """

    def __init__(self, sampler: IdentitySampler, store: ImageSource) -> None:
        self._sampler = sampler
        self._store = store
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pools")
        self._ahead: Future[Pool] | None = None
        self._identities_per_batch = sampler.identities_per_batch
        self._drawn: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]] | None = None

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
        assert self._drawn is not None
        indices, labels = self._drawn
        # The pool that is read ahead has left the sampler; a resumed run reads it again.
        return {
            "sampler": self._sampler.state(),
            "indices": indices.tolist(),
            "labels": labels.tolist(),
            "n_more_identities": self._sampler.identities_per_batch - self._identities_per_batch,
        }

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
        self._ahead = self._reader.submit(self._read, indices, labels)

    def _pending(self) -> Future[Pool]:
        if self._ahead is None:
            self._ahead = self._reader.submit(self._draw_and_read)
        return self._ahead

    def _draw_and_read(self) -> Pool:
        # A pool may hold no positive or no negative pair: unreadable files, or identities of one image. This
        # ends, as each identity has its turn; the sampler raises once too few readable images are left.
        while True:
            pool = self._read(*self._sampler.next_pool())
            counts = np.unique(pool.labels, return_counts=True)[1]
            if len(counts) > 1 and counts.max() > 1:
                return pool

    def _read(self, indices: npt.NDArray[np.int64], labels: npt.NDArray[np.int32]) -> Pool:
        self._drawn = indices, labels
        images, ok = self._store.read(indices)
        self._sampler.exclude(indices[~ok])
        return Pool(images[ok], labels[ok])
