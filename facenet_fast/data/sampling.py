"""Which images the next pool holds: P identities x K images, each visited before any is visited again."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast.data.identities import IdentityDataset
from facenet_fast.errors import UserError

__all__ = ["IdentitySampler"]

_logger = logging.getLogger("facenet_fast")

_Indices = npt.NDArray[np.int64]


class IdentitySampler:
    """Draw pools of `identities_per_batch` (P) identities with `images_per_identity` (K) images each.

    Identities are dealt from a shuffled queue that is filled again only when it is empty; the images of an
    identity likewise. No image is in one pool twice: an identity with fewer than K images gives all it has,
    and with fewer than P identities every pool holds all of them.

    Parameters
    ----------
    dataset : IdentityDataset or array of int, shape (n_identities + 1,)
        The dataset, or its offsets: identity ``i`` owns images ``offsets[i] .. offsets[i + 1] - 1``.
    identities_per_batch : int
        P, at least 2.
    images_per_identity : int
        K, at least 2.
    seed : int
        The same seed draws the same pools.

    Raises
    ------
    UserError
        If P or K is less than 2, fewer than two identities have images, or none has two images
        (there would be no positive pair).

    Examples
    --------
    >>> sampler = IdentitySampler([0, 3, 6, 9], identities_per_batch=2, images_per_identity=2, seed=0)
    >>> images, labels = sampler.next_pool()
    >>> len(images), (images // 3 == labels).all()
    (4, np.True_)
    """

    def __init__(
        self,
        dataset: IdentityDataset | npt.ArrayLike,
        identities_per_batch: int,
        images_per_identity: int,
        seed: int,
    ) -> None:
        offsets = dataset.offsets if isinstance(dataset, IdentityDataset) else np.asarray(dataset)
        if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
            raise ValueError("offsets must be a row of integers, one more than there are identities")
        self._offsets: _Indices = offsets.astype(np.int64)
        if self._offsets[0] != 0 or np.any(np.diff(self._offsets) < 0):
            raise ValueError("offsets must start with 0 and never fall")
        self.identities_per_batch = _at_least_two("identities_per_batch", identities_per_batch)
        self.images_per_identity = _at_least_two("images_per_identity", images_per_identity)
        self._rng = np.random.default_rng(seed)
        self._is_excluded = np.zeros(self.n_images, dtype=bool)
        self._n_usable: _Indices = np.diff(self._offsets)
        self._usable_identities: _Indices = np.flatnonzero(self._n_usable > 0)
        self._identity_queue: _Indices = self._usable_identities[:0]
        self._image_queues: dict[int, _Indices] = {}
        self._check_usable()
        n_usable = len(self._usable_identities)
        if n_usable < self.identities_per_batch:
            _logger.warning(
                "identities_per_batch is %d but only %d identities have images: every pool holds all of them",
                self.identities_per_batch,
                n_usable,
            )

    @property
    def n_identities(self) -> int:
        """Number of identities, including those left without images."""
        return len(self._offsets) - 1

    @property
    def n_images(self) -> int:
        """Number of images, including excluded ones."""
        return int(self._offsets[-1])

    @property
    def excluded(self) -> _Indices:
        """Indices of the images that are never drawn, ascending."""
        return np.flatnonzero(self._is_excluded).astype(np.int64)

    def next_pool(self) -> tuple[_Indices, npt.NDArray[np.int32]]:
        """Draw the next pool.

        Returns
        -------
        image_indices : array of int64, shape (n,)
            Indices into the dataset's paths, grouped by identity; n is P * K or less.
        labels : array of int32, shape (n,)
            The identity's index in the dataset, for each image.
        """
        identities, self._identity_queue = _deal(
            self._identity_queue, self._usable_identities, self.identities_per_batch, self._rng
        )
        images = [self._next_images(int(identity)) for identity in identities]
        labels = np.repeat(identities.astype(np.int32), [len(part) for part in images])
        return np.concatenate(images), labels

    def exclude(self, image_indices: Iterable[int] | npt.NDArray[np.integer]) -> None:
        """Never draw these images again (files that proved unreadable).

        Raises
        ------
        IndexError
            If an index is not in ``0 .. n_images - 1``.
        UserError
            If fewer than two identities, or no two images of one identity, are left.
        """
        bad = np.unique(np.fromiter(image_indices, dtype=np.int64))
        if len(bad) and not (bad[0] >= 0 and bad[-1] < self.n_images):
            raise IndexError(f"image indices must be in 0 .. {self.n_images - 1}; got {bad[0]} .. {bad[-1]}")
        fresh = bad[~self._is_excluded[bad]]
        if not len(fresh):
            return
        self._is_excluded[fresh] = True
        owners = self._owner(fresh)
        np.subtract.at(self._n_usable, owners, 1)
        for identity in np.unique(owners).tolist():
            queue = self._image_queues.get(identity)
            if queue is not None:
                self._image_queues[identity] = queue[~self._is_excluded[queue]]
        self._identity_queue = self._identity_queue[self._n_usable[self._identity_queue] > 0]
        self._usable_identities = np.flatnonzero(self._n_usable > 0)
        self._check_usable()

    def state(self) -> dict[str, Any]:
        """Return all that decides the next pools, as plain values that `json.dumps` takes."""
        return {
            "n_identities": self.n_identities,
            "n_images": self.n_images,
            "generator": self._rng.bit_generator.state,
            "identity_queue": self._identity_queue.tolist(),
            "image_queues": {
                str(identity): queue.tolist() for identity, queue in self._image_queues.items() if len(queue)
            },
            "excluded": self.excluded.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`: the next pools are exactly those that would have followed it.

        Raises
        ------
        UserError
            If the state was taken with a dataset of another size.
        """
        came = (state["n_identities"], state["n_images"])
        if came != (self.n_identities, self.n_images):
            raise UserError(
                "the data must be those that the sampler's state was saved with: "
                f"{came[0]} identities with {came[1]} images; got {self.n_identities} with {self.n_images}"
            )
        self._is_excluded[:] = False
        self._n_usable = np.diff(self._offsets)
        self._usable_identities = np.flatnonzero(self._n_usable > 0)
        self.exclude(state["excluded"])
        self._rng.bit_generator.state = state["generator"]
        self._identity_queue = np.asarray(state["identity_queue"], dtype=np.int64)
        self._image_queues = {
            int(identity): np.asarray(queue, dtype=np.int64)
            for identity, queue in state["image_queues"].items()
        }

    def _check_usable(self) -> None:
        n_usable = len(self._usable_identities)
        if n_usable < 2:
            raise UserError(f"at least 2 identities with readable images are needed to train; got {n_usable}")
        if self._n_usable.max() < 2:
            raise UserError(
                "at least one identity must have two readable images (there is no positive pair without); "
                f"each of the {n_usable} identities has one"
            )

    def _owner(self, image_indices: _Indices) -> _Indices:
        return np.searchsorted(self._offsets, image_indices, side="right").astype(np.int64) - 1

    def _next_images(self, identity: int) -> _Indices:
        everything = np.arange(self._offsets[identity], self._offsets[identity + 1])
        if self._n_usable[identity] < len(everything):
            everything = everything[~self._is_excluded[everything]]
        queue = self._image_queues.pop(identity, everything[:0])
        images, queue = _deal(queue, everything, self.images_per_identity, self._rng)
        if len(queue):
            self._image_queues[identity] = queue
        return images


def _deal(
    queue: _Indices, everything: _Indices, n: int, rng: np.random.Generator
) -> tuple[_Indices, _Indices]:
    """Take n different entries from the queue, filled again by a shuffle of everything where it runs out.

    Returns what was taken and what is left in the queue.
    """
    if n >= len(everything):
        return rng.permutation(everything), everything[:0]
    if n <= len(queue):
        return queue[:n], queue[n:]
    shuffled = rng.permutation(everything)
    # What the old queue still held is in this draw already: it keeps its place in the new queue for later.
    fresh = shuffled[~np.isin(shuffled, queue)][: n - len(queue)]
    return np.concatenate([queue, fresh]), shuffled[~np.isin(shuffled, fresh)]


def _at_least_two(name: str, value: int) -> int:
    value = operator.index(value)
    if value < 2:
        raise UserError(f"{name} must be at least 2; got {value}")
    return value
