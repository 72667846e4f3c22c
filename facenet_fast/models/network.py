"""A trained network as it was read, whatever it was stored as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet_fast.evaluation.embed import Embedder
from facenet_fast.models.metadata import Metadata

__all__ = [
    "DEFAULT_IMAGE_SIZE",
    "DEFAULT_STANDARDISATION",
    "Network",
    "embedder_of",
    "in_batches_of",
]

DEFAULT_IMAGE_SIZE = 160  # of the predecessor's graphs, whose placeholders have no shape
DEFAULT_STANDARDISATION = "per_image"


@dataclass(frozen=True)
class Network:
    """A trained network.

    Attributes
    ----------
    embedder : Embedder
        Runs it.
    metadata : Metadata or None
        What its file says of itself; None of files that others wrote.
    keras_model : keras.Model or None
        The network itself, where it is stored as one.
    graph : tf.compat.v1.GraphDef or None
        The network as a graph of constants (`facenet_fast.models.graphs`), where it is stored as one.
    images_dir : str
        Folder of the images it was trained on; empty if that is not known.
    """

    embedder: Embedder
    metadata: Metadata | None = None
    keras_model: Any = None
    graph: Any = None
    images_dir: str = ""


def embedder_of(
    embed: Callable[[NDArray[np.float32]], NDArray[np.floating]],
    metadata: Metadata | None,
    *,
    image_size: int,
    embedding_size: int,
    description: str,
) -> Embedder:
    """Make an embedder of a function and of what its file says of itself.

    Parameters
    ----------
    embed : callable
        See `Embedder`.
    metadata : Metadata or None
        Says how images are prepared; without it they are standardised "per_image" and not cut.
    image_size, embedding_size : int
        What the function takes and gives.
    description : str
        What it is, for messages.

    Returns
    -------
    Embedder
    """
    return Embedder(
        embed=embed,
        image_size=image_size,
        standardisation=metadata.standardisation if metadata else DEFAULT_STANDARDISATION,
        embedding_size=embedding_size,
        description=description,
        store_size=metadata.store_size if metadata else 0,
    )


def in_batches_of(
    n: int, embed: Callable[[NDArray[np.float32]], NDArray[np.floating]]
) -> Callable[[NDArray[np.float32]], NDArray[np.floating]]:
    """Let a function that takes exactly `n` images take any number of them; blank images fill the last batch.

    Parameters
    ----------
    n : int
        Images at a time.
    embed : callable
        float32 (n, S, S, 3) to (n, D).

    Returns
    -------
    callable
        float32 (m, S, S, 3) to (m, D) for any m of at least 1.

    Examples
    --------
    >>> images = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1)
    >>> in_batches_of(2, lambda batch: batch.reshape(2, 1))(images).ravel().tolist()
    [0.0, 1.0, 2.0]
    """

    def embed_any(images: NDArray[np.float32]) -> NDArray[np.floating]:
        n_blank = -len(images) % n
        padded = np.concatenate([images, np.zeros((n_blank, *images.shape[1:]), dtype=images.dtype)])
        rows = [embed(padded[start : start + n]) for start in range(0, len(padded), n)]
        return np.concatenate(rows)[: len(images)]

    return embed_any
