"""Who looks like whom to the network of now, so that pools can be made of people it confuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast.config import TrainConfig
from facenet_fast.data.identities import IdentityDataset
from facenet_fast.data.sampling import n_candidates
from facenet_fast.evaluation.embed import Embedder, ImageReader, embed_batches
from facenet_fast.mining import nearest_identities
from facenet_fast.models import keras_embedder
from facenet_fast.training.replicas import Replicas

__all__ = ["Lookalikes", "identity_sums", "nearest_lookalikes"]

_SECONDS_BETWEEN_LINES = 10.0


class Lookalikes:
    """Find the nearest identities of each, now and then, by all its training images.

    Parameters
    ----------
    config : TrainConfig
        Read: `sampling`, `lookalike_group`, `lookalike_every`, `epoch_size`, `batch_size`, `threads` and how
        images are prepared.
    dataset : IdentityDataset
        Who is on which image.
    store : ImageStore
        The images of the dataset.
    replicas : Replicas, optional
        Workers that embed a part of the images each; default: this process embeds all.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: IdentityDataset,
        store: ImageReader,
        replicas: Replicas | None = None,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._store = store
        self._replicas = replicas or Replicas()
        self._embedder: Embedder | None = None
        self._made_at: int | None = None  # the step of the last `found`

    def is_due(self, step: int) -> bool:
        """Tell whether to find them before this step: as an epoch begins, though not the first one."""
        config = self._config
        if config.sampling != "lookalike" or step == 0 or step % config.epoch_size:
            return False
        return self._made_at is None or step - self._made_at >= config.lookalike_every * config.epoch_size

    def find(self, model: Any, tell: Callable[[str], None]) -> npt.NDArray[np.int64]:
        """Embed all images in inference mode and find each identity's lookalikes.

        Parameters
        ----------
        model : keras.Model
            The network; the same one each time.
        tell : callable
            Takes a line of progress, every ten seconds.

        Returns
        -------
        int64 array, shape (n_identities, k)
            See `nearest_lookalikes`.

        Raises
        ------
        UserError
            If the network gives NaN, or another worker has ended.
        """
        if self._embedder is None:  # tracing a large network takes seconds
            config = self._config
            self._embedder = keras_embedder(
                model, standardisation=config.standardisation, store_size=config.store_size
            )
        told = time.perf_counter()

        def progress(n_done: int, n_images: int) -> None:
            nonlocal told
            if time.perf_counter() - told >= _SECONDS_BETWEEN_LINES:
                told = time.perf_counter()
                tell(f"Looking for lookalikes: {n_done} of {n_images} images embedded")

        parts = np.array_split(np.arange(len(self._dataset.labels)), self._replicas.n_workers)
        sums = identity_sums(
            self._embedder,
            self._store,
            self._dataset.labels,
            self._dataset.n_identities,
            indices=parts[self._replicas.worker],
            batch_size=self._config.batch_size,
            progress=progress,
        )
        sums = self._replicas.sum(sums)
        k = n_candidates(self._config.lookalike_group)
        return nearest_lookalikes(sums, k, threads=self._config.threads or None)

    def found(self, step: int) -> None:
        """Remember that they were found, and are known to the sampler, before this step."""
        self._made_at = step

    def state(self) -> dict[str, Any]:
        """Return what decides when they are due, as plain values for JSON."""
        return {"made_at": self._made_at}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, if there is one and lookalikes are asked for."""
        if self._config.sampling == "lookalike":
            self._made_at = state.get("made_at")


def identity_sums(
    embedder: Embedder,
    store: ImageReader,
    labels: npt.NDArray[np.integer],
    n_identities: int,
    *,
    indices: npt.NDArray[np.integer] | None = None,
    batch_size: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Sum the embeddings of each identity while they are made, so that they are never in memory together.

    Parameters
    ----------
    embedder : Embedder
        What embeds.
    store : ImageStore
        Image i is of identity ``labels[i]``.
    labels : int array, shape (n_images,)
    n_identities : int
    indices, batch_size, progress
        See `facenet_fast.evaluation.embed.embed_images`.

    Returns
    -------
    float64 array, shape (n_identities, D)
        Zeros where no image can be read.

    Raises
    ------
    UserError
        If the embedder gives anything but finite rows for images that can be read.
    """
    sums = np.zeros((n_identities, embedder.embedding_size))
    n_done = 0
    wanted = labels if indices is None else labels[indices]
    for rows in embed_batches(embedder, store, indices, batch_size=batch_size):
        of = wanted[n_done : n_done + len(rows)]
        is_read = ~np.isnan(rows[:, 0])
        np.add.at(sums, of[is_read], rows[is_read])
        n_done += len(rows)
        if progress is not None:
            progress(n_done, len(wanted))
    return sums


def nearest_lookalikes(
    sums: npt.NDArray[np.float64], k: int, *, threads: int | None = None
) -> npt.NDArray[np.int64]:
    """Return the k nearest other identities of each, by the angle between their embeddings' sums.

    The angle and not the distance of the means: means are the shorter the more an identity's images differ,
    and near to everything if they are short.

    Parameters
    ----------
    sums : float64 array, shape (n_identities, D)
        A row of zeros: nothing is known of the identity.
    k : int
        How many.
    threads : int, optional
        See `facenet_fast.nearest_identities`. The result is the same for any number.

    Returns
    -------
    int64 array, shape (n_identities, k)
        The nearest first; -1 where there are no more.

    Examples
    --------
    >>> nearest_lookalikes(np.array([[1.0, 0.0], [9.0, 1.0], [0.0, 0.0], [0.0, 1.0]]), 2).tolist()
    [[1, 3], [0, 3], [-1, -1], [1, 0]]
    """
    neighbors = np.full((len(sums), k), -1, dtype=np.int64)
    known = np.flatnonzero(sums.any(axis=1))
    if len(known):
        found = nearest_identities(sums[known], known, k, distance="cosine", threads=threads)
        neighbors[known] = np.where(found.indices < 0, -1, known[found.indices])
    return neighbors
