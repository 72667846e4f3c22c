"""Which images the next pool holds: P identities x K images, each visited before any is visited again.

Or, once it is known who looks like whom, groups of identities that are hard to tell apart.
"""

from __future__ import annotations

import base64
import logging
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast.data.identities import IdentityDataset
from facenet_fast.errors import UserError

__all__ = ["IdentitySampler", "n_candidates"]

_logger = logging.getLogger("facenet_fast")

_Indices = npt.NDArray[np.int64]

# By `power`, more images than that do not make an identity more frequent still.
_MOST_IMAGES_THAT_COUNT = 30


def n_candidates(group: int) -> int:
    """How many nearest identities the other ``group - 1`` of a group are drawn from: twice the group.

    So a lookalike is met at about every second visit, by chance: one person under two names, who are always
    nearest to each other, do not meet every time, and a group is not the same again in each round. It costs
    nothing: on LFW the hardest negatives of groups of 8 were at 0.383 if drawn from the nearest 8, at 0.377
    from 16, 0.383 from 32 and 0.397 from 64 (mean squared distance; 0.518 in uniform pools).

    Examples
    --------
    >>> n_candidates(8)
    16
    """
    return 2 * group


class IdentitySampler:
    """Draw pools of `identities_per_batch` (P) identities with `images_per_identity` (K) images each.

    Identities are dealt from a shuffled queue that is filled again only when it is empty; the images of an
    identity likewise. No image is in one pool twice: an identity with fewer than K images gives all it has,
    and with fewer than P identities every pool holds all of them. Who has one image is a negative only.

    With `group`, and once `look_alike` has told who looks like whom, a pool is made of groups instead: the
    next identity of the queue, the group's seed, and ``group - 1`` of the `n_candidates` nearest to it, drawn
    at random (E. Smirnov et al., 2017, "Doppelganger mining for face representation learning", who pair an
    identity with its most similar ones; W. Ge et al., 2018, "Deep metric learning with hierarchical triplet
    loss", whose anchor-neighbor sampling takes such groups). No identity is in a pool twice: a seed that is
    in it already only brings its lookalikes, so that each is a seed once before any is again.

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
    group : int, default 0
        Identities in a group of lookalikes, at most P; less than 2: there are no groups.
    power : float, default 0
        Above 0, identities are drawn by chance instead of in turn, each in proportion to
        ``min(n_images, 30) ** power``. (As none is in a pool twice, the largest come a little less often
        where P is not small against the number of identities.)
    repeat : bool, default False
        An identity with fewer than K images gives some again, until they are K, each as often as another.
    single_image_weight : float, default 1
        How often identities of one image are drawn, relative to others: 0 never; less than 1: by chance
        instead of in turn.

    Raises
    ------
    UserError
        If P or K is less than 2, fewer than two identities have images, or none has two images and they are
        not repeated (there would be no positive pair).

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
        *,
        group: int = 0,
        power: float = 0.0,
        repeat: bool = False,
        single_image_weight: float = 1.0,
    ) -> None:
        offsets = dataset.offsets if isinstance(dataset, IdentityDataset) else np.asarray(dataset)
        if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
            raise ValueError("offsets must be a row of integers, one more than there are identities")
        self._offsets: _Indices = offsets.astype(np.int64)
        if self._offsets[0] != 0 or np.any(np.diff(self._offsets) < 0):
            raise ValueError("offsets must start with 0 and never fall")
        self.identities_per_batch = _at_least_two("identities_per_batch", identities_per_batch)
        self.images_per_identity = _at_least_two("images_per_identity", images_per_identity)
        self._group = min(group, self.identities_per_batch)
        self._power = power
        self._repeat = repeat
        self._single_image_weight = single_image_weight
        self._neighbors: _Indices | None = None
        self._rng = np.random.default_rng(seed)
        self._is_excluded = np.zeros(self.n_images, dtype=bool)
        self._n_usable: _Indices = np.diff(self._offsets)
        self._find_usable()
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

    @property
    def n_drawable(self) -> int:
        """Number of identities that can be in a pool."""
        return len(self._usable_identities)

    @property
    def undrawable(self) -> _Indices:
        """Identities that cannot: all their images are excluded, or single ones are left out; ascending."""
        return np.flatnonzero(~self._is_usable).astype(np.int64)

    def next_pool(self) -> tuple[_Indices, npt.NDArray[np.int32]]:
        """Draw the next pool.

        Returns
        -------
        image_indices : array of int64, shape (n,)
            Indices into the dataset's paths, grouped by identity; n is P * K or less. With `repeat` an index
            may come several times.
        labels : array of int32, shape (n,)
            The identity's index in the dataset, for each image.
        """
        identities = self._next_identities()
        images = [self._next_images(int(identity)) for identity in identities]
        labels = np.repeat(identities.astype(np.int32), [len(part) for part in images])
        return np.concatenate(images), labels

    def look_alike(self, neighbors: npt.ArrayLike) -> None:
        """Learn which identities are hard to tell apart; pools are made of groups of them from here on.

        Parameters
        ----------
        neighbors : array of int, shape (n_identities, k)
            The nearest other identities of each, the nearest first; -1 where fewer than ``k`` are.
        """
        wanted: _Indices = np.asarray(neighbors, dtype=np.int64)
        if wanted.ndim != 2 or len(wanted) != self.n_identities or np.any(wanted >= self.n_identities):
            raise ValueError("neighbors must be a row of identities for each identity")
        self._neighbors = wanted

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
        self._find_usable()
        self._identity_queue = self._identity_queue[self._is_usable[self._identity_queue]]
        self._check_usable()

    def state(self) -> dict[str, Any]:
        """Return all that decides the next pools, as plain values that `json.dumps` takes."""
        state = {
            "n_identities": self.n_identities,
            "n_images": self.n_images,
            "generator": self._rng.bit_generator.state,
            "identity_queue": self._identity_queue.tolist(),
            "image_queues": {
                str(identity): queue.tolist() for identity, queue in self._image_queues.items() if len(queue)
            },
            "excluded": self.excluded.tolist(),
        }
        if self._neighbors is not None:
            # Millions of numbers for many identities: text of bytes is a tenth of the time of a list.
            state["neighbors"] = base64.b64encode(self._neighbors.astype("<i4").tobytes()).decode("ascii")
        return state

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
        self._find_usable()
        self.exclude(state["excluded"])
        self._rng.bit_generator.state = state["generator"]
        self._identity_queue = np.asarray(state["identity_queue"], dtype=np.int64)
        self._image_queues = {
            int(identity): np.asarray(queue, dtype=np.int64)
            for identity, queue in state["image_queues"].items()
        }
        self._neighbors = None
        # A run may be resumed without groups, or with the first ones.
        if self._group >= 2 and "neighbors" in state:
            numbers = np.frombuffer(base64.b64decode(state["neighbors"]), dtype="<i4")
            self.look_alike(numbers.reshape(self.n_identities, -1))

    def _check_usable(self) -> None:
        n_usable = len(self._usable_identities)
        if n_usable < 2:
            images = "readable images" if self._single_image_weight > 0 else "two readable images or more"
            raise UserError(f"at least 2 identities with {images} are needed to train; got {n_usable}")
        if self._n_usable.max() < 2 and not self._repeat:
            raise UserError(
                "at least one identity must have two readable images (there is no positive pair without); "
                f"each of the {n_usable} identities has one"
            )

    def _find_usable(self) -> None:
        """Note which identities may be drawn."""
        self._is_usable = self._n_usable >= (1 if self._single_image_weight > 0 else 2)
        self._usable_identities: _Indices = np.flatnonzero(self._is_usable)

    def _next_identities(self) -> _Indices:
        n = min(self.identities_per_batch, len(self._usable_identities))
        if self._group < 2 or self._neighbors is None:
            return self._draw(self._usable_identities, n) if self._is_weighted else self._take(n)
        # As many seeds as there are places suffice: each is in the pool afterwards.
        seeds = iter(self._draw(self._usable_identities, n)) if self._is_weighted else None
        chosen: dict[int, None] = {}
        while len(chosen) < n:
            seed = int(self._take(1)[0] if seeds is None else next(seeds))
            chosen[seed] = None
            alike = self._neighbors[seed, : n_candidates(self._group)]
            alike = alike[(alike >= 0) & self._is_usable[alike]]
            fresh = [one for one in alike.tolist() if one not in chosen]
            n_others = min(self._group - 1, n - len(chosen))
            if fresh:
                others = self._draw(np.asarray(fresh, dtype=np.int64), n_others)
                chosen.update(dict.fromkeys(others.tolist()))
        return np.fromiter(chosen, dtype=np.int64)

    def _take(self, n: int) -> _Indices:
        """Take the next n identities of the queue."""
        identities, self._identity_queue = _deal(self._identity_queue, self._usable_identities, n, self._rng)
        return identities

    @property
    def _is_weighted(self) -> bool:
        return self._power > 0 or 0 < self._single_image_weight < 1

    def _draw(self, identities: _Indices, n: int) -> _Indices:
        """Draw n of these identities, or all if they are fewer, by their weights, in random order."""
        # Of clocks that ring at random, the one of twice the rate is twice as often the first (P. Efraimidis
        # and P. Spirakis, 2006, "Weighted random sampling with a reservoir").
        rings = self._rng.standard_exponential(len(identities))
        if self._is_weighted:
            n_images = np.minimum(self._n_usable[identities], _MOST_IMAGES_THAT_COUNT)
            rates = n_images.astype(np.float64) ** self._power
            rings /= np.where(n_images == 1, self._single_image_weight, 1.0) * rates
        return identities[np.argsort(rings)[:n]]

    def _owner(self, image_indices: _Indices) -> _Indices:
        return np.searchsorted(self._offsets, image_indices, side="right").astype(np.int64) - 1

    def _next_images(self, identity: int) -> _Indices:
        everything = np.arange(self._offsets[identity], self._offsets[identity + 1])
        if self._n_usable[identity] < len(everything):
            everything = everything[~self._is_excluded[everything]]
        queue = self._image_queues.pop(identity, everything[:0])
        n_rounds, n_more = 0, self.images_per_identity
        if self._repeat:
            n_rounds, n_more = divmod(n_more, len(everything))
        images, queue = _deal(queue, everything, n_more, self._rng)
        if len(queue):
            self._image_queues[identity] = queue
        if n_rounds:
            return np.concatenate([*(self._rng.permutation(everything) for _ in range(n_rounds)), images])
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
