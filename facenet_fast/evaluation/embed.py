"""Embeddings of many images, in order, batch by batch, from whatever turns standardised images into rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facenet_fast.errors import UserError

__all__ = ["Embedder", "ImageReader", "embed_batches", "embed_images"]

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Embedder:
    """A function from images to embeddings, with what must be known to feed it.

    Attributes
    ----------
    embed : callable
        float32 (n, S, S, 3), standardised, to (n, D); any n of at least 1.
    image_size : int
        S, the side of its images in pixels.
    standardisation : {"per_image", "fixed"}
        How pixels are standardised before (`facenet_fast.data.images.standardise`).
    embedding_size : int
        D.
    description : str
        What it is, for people.
    store_size : int
        The side to which images are resized before S x S pixels are cut from their middle; 0 means
        `image_size`. A network trained on random crops saw faces larger than S by the crop's margin.
    """

    embed: Callable[[Floats], NDArray[np.floating]]
    image_size: int
    standardisation: str
    embedding_size: int
    description: str
    store_size: int = 0

    def __post_init__(self) -> None:
        if self.store_size == 0:
            object.__setattr__(self, "store_size", self.image_size)


class ImageReader(Protocol):
    """What is asked of an image store here (`facenet_fast.data.images.ImageStore`)."""

    @property
    def paths(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def store_size(self) -> int: ...  # noqa: D102

    def read(self, indices: Indices) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]: ...  # noqa: D102


def embed_images(
    embedder: Embedder,
    store: ImageReader,
    indices: NDArray[np.integer] | None = None,
    *,
    batch_size: int = 100,
    flipped: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Embed images in order, the next batch being read while one is embedded.

    Parameters
    ----------
    embedder : Embedder
        What embeds.
    store : ImageStore
        Where the images are; at least as large as the embedder wants them, the middle is cut out.
    indices : int array (n,), optional
        Which images of the store, in which order; all by default.
    batch_size : int
        Images at a time, 1 or more; the last batch takes what is left.
    flipped : bool
        Also embed each image mirrored left to right and append that row: (n, 2 D), not normalised again.
    progress : callable, optional
        Called after each batch with the number of images done and of all images.

    Returns
    -------
    float32 (n, D)
        A row of NaN for every image that cannot be read (the store names them).

    Raises
    ------
    UserError
        If the embedder gives anything but finite rows for images that can be read.
    """
    n_images = len(store.paths) if indices is None else len(indices)
    embeddings = np.empty((n_images, _width(embedder, flipped)), dtype=np.float32)
    n_done = 0
    for rows in embed_batches(embedder, store, indices, batch_size=batch_size, flipped=flipped):
        embeddings[n_done : n_done + len(rows)] = rows
        n_done += len(rows)
        if progress is not None:
            progress(n_done, n_images)
    return embeddings


def embed_batches(
    embedder: Embedder,
    store: ImageReader,
    indices: NDArray[np.integer] | None = None,
    *,
    batch_size: int = 100,
    flipped: bool = False,
) -> Iterator[Floats]:
    """Embed images in order and yield the rows of each batch, for more images than should be in memory.

    The next batch is read, cut and standardised while one is embedded and while the caller uses its rows.

    Parameters
    ----------
    embedder, store, indices, batch_size, flipped
        See `embed_images`.

    Yields
    ------
    float32 (at most batch_size, D)
        As the rows of `embed_images`.

    Raises
    ------
    UserError
        As `embed_images`.
    """
    from facenet_fast.data.images import centre_crop, standardise

    if batch_size < 1:
        raise UserError(f"batch size must be at least 1; got {batch_size}")
    wanted = np.arange(len(store.paths)) if indices is None else np.asarray(indices)
    batches = [wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size)]

    def read(batch: Indices) -> tuple[Floats, NDArray[np.bool_]]:
        images, ok = store.read(batch)
        cut = centre_crop(images[ok], embedder.image_size)
        return np.asarray(standardise(cut, embedder.standardisation), dtype=np.float32), ok

    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = [reader.submit(read, batch.astype(np.int64)) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            images, ok = ahead.pop().result()
            for following in batches[number + 1 : number + 2]:
                ahead.append(reader.submit(read, following.astype(np.int64)))
            embeddings = np.full((len(batch), _width(embedder, flipped)), np.nan, dtype=np.float32)
            if len(images):
                views = [images, np.ascontiguousarray(images[:, :, ::-1])] if flipped else [images]
                embeddings[ok] = np.concatenate([_embed(embedder, view) for view in views], axis=1)
                _check_finite(embeddings[ok], [store.paths[index] for index in batch[ok]])
            yield embeddings


def _width(embedder: Embedder, flipped: bool) -> int:
    return embedder.embedding_size * (2 if flipped else 1)


def _embed(embedder: Embedder, batch: Floats) -> Floats:
    rows = np.asarray(embedder.embed(batch), dtype=np.float32)
    if rows.shape != (len(batch), embedder.embedding_size):
        raise UserError(
            f"embeddings must have the shape ({len(batch)}, {embedder.embedding_size}); "
            f"{embedder.description} gave {rows.shape}"
        )
    return rows


def _check_finite(rows: Floats, paths: list[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise UserError(
            f"embeddings must be finite; {len(bad)} of {len(rows)} images gave NaN or infinity, "
            f"first {paths[bad[0]]}"
        )
