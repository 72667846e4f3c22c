"""Models that other runtimes run: what they must take and give to be networks of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet_fast.errors import UserError, first_line
from facenet_fast.models.graphs import GRAPH_FETCH
from facenet_fast.models.metadata import Metadata
from facenet_fast.models.network import DEFAULT_IMAGE_SIZE, Network, embedder_of, in_batches_of

__all__ = ["Port", "network_of"]


@dataclass(frozen=True)
class Port:
    """An array that a model takes or gives.

    Attributes
    ----------
    name : str
        Its name in the model.
    dtype : str
        As numpy calls it, where numpy has it.
    shape : tuple of int or None
        None where any number will do.

    Examples
    --------
    >>> print(Port("images", "float32", (None, 112, 112, 3)))
    images: float32 (?, 112, 112, 3)
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name}: {self.dtype} ({sides})"


def network_of(
    run: Callable[[NDArray[np.float32], Port], NDArray[np.float32]],
    takes: Sequence[Port],
    gives: Sequence[Port],
    metadata: Metadata | None,
    *,
    image_size: int | None,
    description: str,
) -> Network:
    """Make a network of a model that a runtime runs, ours or anybody's.

    Parameters
    ----------
    run : callable
        Takes images as the model's only input wants them, and which output to give.
    takes, gives : sequence of Port
        The model's inputs and outputs.
    metadata : Metadata or None
        What its file says of itself.
    image_size : int, optional
        Side of the images, for a model that takes any (160 by default).
    description : str
        What it is, for messages.

    Returns
    -------
    Network

    Raises
    ------
    UserError
        If it takes something else than one batch of images, channels last or first, gives something else than
        embeddings, or cannot be run.
    """
    sides = takes[0].shape[1:] if len(takes) == 1 and takes[0].dtype == "float32" else ()
    channels_last = len(sides) == 3 and sides[2] == 3 and sides[0] == sides[1]
    channels_first = len(sides) == 3 and sides[0] == 3 and sides[1] == sides[2]
    if not channels_last and not channels_first:
        raise UserError(
            f"the model must take one batch of images, float32 (n, S, S, 3) or (n, 3, S, S); "
            f"{description} takes {_listed(takes)}"
        )
    output = _embeddings_among(gives, description)

    def embed(images: NDArray[np.float32]) -> NDArray[np.floating]:
        return run(images if channels_last else np.ascontiguousarray(images.transpose(0, 3, 1, 2)), output)

    n_at_once = takes[0].shape[0]
    embed_any = embed if n_at_once is None else in_batches_of(n_at_once, embed)
    side = sides[1] or (metadata.image_size if metadata else image_size) or DEFAULT_IMAGE_SIZE
    try:
        # What files declare of their outputs is not always true; one image run now shows it.
        shape = embed_any(np.zeros((1, side, side, 3), dtype=np.float32)).shape
    except Exception as error:  # runtimes' errors have no other base in common
        raise UserError(f"{description} cannot embed a {side} x {side} image: {first_line(error)}") from error
    if len(shape) != 2 or shape[0] != 1:
        raise UserError(f"the model must give embeddings (n, D); {description} gives {shape} for 1 image")
    embedder = embedder_of(
        embed_any, metadata, image_size=side, embedding_size=shape[1], description=description
    )
    return Network(embedder, metadata)


def _embeddings_among(gives: Sequence[Port], description: str) -> Port:
    named = [port for port in gives if len(gives) == 1 or port.name == GRAPH_FETCH]
    if len(named) != 1 or named[0].dtype != "float32":
        raise UserError(
            f"the model must give one float32 array, or have one called {GRAPH_FETCH!r}; "
            f"{description} gives {_listed(gives)}"
        )
    return named[0]


def _listed(ports: Sequence[Port]) -> str:
    return ", ".join(str(port) for port in ports) or "nothing"
