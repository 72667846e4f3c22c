"""Verification from image files: find the pairs, embed each image once, and let `verify` judge."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facenet_fast.data.identities import resolve_data_dirs
from facenet_fast.data.pairs import Pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder, ImageReader, embed_images
from facenet_fast.evaluation.verification import EUCLIDEAN, Verification, verify

__all__ = ["EmbeddedPairs", "embed_pairs", "find_pairs_file", "verify_images"]

PAIRS_FILE = "pairs.txt"


def find_pairs_file(images_dir: str, pairs_path: str = "") -> tuple[str, str]:
    """Find the pairs file of a folder of images, and where below that folder the images are.

    Parameters
    ----------
    images_dir : str
        A folder of identities, several joined by ``os.pathsep``, or ``orl``; or a folder that holds
        `pairs.txt` and the folder of identities ``images``, which is then taken.
    pairs_path : str
        The pairs file, if it is known. Else it is ``IMAGES_DIR/pairs.txt`` or ``IMAGES_DIR/../pairs.txt``.

    Returns
    -------
    pairs_path, images_dir : str

    Raises
    ------
    UserError
        If a folder or the file is missing.
    """
    data_dirs = resolve_data_dirs(images_dir)
    candidates = [os.path.join(data_dir, PAIRS_FILE) for data_dir in data_dirs]
    if os.path.isfile(candidates[0]) and os.path.isdir(os.path.join(data_dirs[0], "images")):
        images_dir = os.path.join(data_dirs[0], "images")
    if pairs_path:
        if not os.path.isfile(pairs_path):
            raise UserError(f"the pairs file must exist; got {pairs_path!r}")
        return pairs_path, images_dir
    candidates += [os.path.join(os.path.dirname(os.path.abspath(one)), PAIRS_FILE) for one in data_dirs]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate, images_dir
    raise UserError(f"no {PAIRS_FILE} in {images_dir!r} nor beside it; say which pairs to verify")


def verify_images(
    embedder: Embedder,
    pairs: Pairs,
    store: ImageReader | None = None,
    *,
    batch_size: int = 100,
    flipped: bool = False,
    metric: int = EUCLIDEAN,
    subtract_mean: bool = False,
    far_target: float = 1e-3,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Verify pairs of image files, each image being embedded once in however many pairs it is.

    Pairs with an image that cannot be read are left out: ``len(pairs) - len(result.is_same)`` of them.

    Parameters
    ----------
    embedder : Embedder
        What embeds.
    pairs : Pairs
        The pairs and their folds.
    store : ImageStore, optional
        The images of ``pairs.images()``, in that order. Keep one where the same pairs are verified again, and
        no image is decoded twice.
    batch_size, flipped, progress
        See `embed_images`.
    metric, subtract_mean, far_target
        See `verify`.

    Returns
    -------
    Verification

    Raises
    ------
    UserError
        If no image can be read, or for what `embed_images` and `verify` refuse.
    """
    embedded = embed_pairs(embedder, pairs, store, batch_size=batch_size, flipped=flipped, progress=progress)
    return verify(
        embedded.embeddings[embedded.left],
        embedded.embeddings[embedded.right],
        embedded.pairs.is_same,
        embedded.pairs.fold,
        metric=metric,
        subtract_mean=subtract_mean,
        far_target=far_target,
    )


@dataclass(frozen=True, eq=False)
class EmbeddedPairs:
    """Pairs whose images could be read, and their embeddings.

    Attributes
    ----------
    pairs : Pairs
        Those of the pairs.
    paths : tuple of str
        All images, readable or not.
    embeddings : float32 (n_images, D)
        Of each of `paths`; NaN where it cannot be read.
    left, right : int64 (n_pairs,)
        Rows of `embeddings`.
    """

    pairs: Pairs
    paths: tuple[str, ...]
    embeddings: NDArray[np.float32]
    left: NDArray[np.int64]
    right: NDArray[np.int64]


def embed_pairs(
    embedder: Embedder,
    pairs: Pairs,
    store: ImageReader | None = None,
    *,
    batch_size: int = 100,
    flipped: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EmbeddedPairs:
    """Embed the images of pairs, each once; see `verify_images`."""
    from facenet_fast.data.images import ImageStore

    paths, left, right = pairs.images()
    if store is None:
        store = ImageStore(paths, embedder.store_size, cache_bytes=0)  # each image is read once
    elif len(store.paths) != len(paths):
        raise ValueError(f"the store must hold the {len(paths)} images of the pairs; got {len(store.paths)}")
    embeddings = embed_images(embedder, store, batch_size=batch_size, flipped=flipped, progress=progress)
    readable = ~np.isnan(embeddings[:, 0])
    usable = readable[left] & readable[right]
    if not usable.any():
        raise UserError(f"verification needs images; of {len(pairs)} pairs none has two that can be read")
    return EmbeddedPairs(pairs.subset(usable), paths, embeddings, left[usable], right[usable])
