"""Proof that a written model gives the embeddings of the network it was made from."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facenet_fast.data.images import ImageStore, centre_crop, decode_image, standardise
from facenet_fast.data.pairs import Pairs
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.evaluation.verify_images import verify_images

__all__ = [
    "Comparison",
    "RealImages",
    "compare",
    "compare_encoded",
    "digest",
    "draw_images",
    "verification_delta",
]

Floats = NDArray[np.float32]

_BATCH = 32
_ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True, eq=False)
class RealImages:
    """Images drawn from a folder.

    Attributes
    ----------
    source : str
        The folder, for people.
    paths : tuple of str
        The files.
    pixels : uint8 (n, S, S, 3)
        As the network takes them, but for the standardisation.
    """

    source: str
    paths: tuple[str, ...]
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """How far a model is from the network it was made from.

    Attributes
    ----------
    n_images : int
        Images compared, in batches and one alone.
    largest_difference : float
        Between two numbers of the same place in the same image's embedding, as a share of the embeddings'
        length where that is above 1.
    smallest_cosine : float
        Between both embeddings of one image.
    """

    n_images: int
    largest_difference: float
    smallest_cosine: float


def draw_images(
    paths: Sequence[str], n_images: int, source: str, *, image_size: int, store_size: int, seed: int
) -> RealImages:
    """Draw images that can be read.

    Parameters
    ----------
    paths : sequence of str
        Files to draw from.
    n_images : int
        How many; all where there are fewer.
    source : str
        Where they are from, for people.
    image_size, store_size : int
        See `Embedder`.
    seed : int
        Of the draw.

    Returns
    -------
    RealImages

    Raises
    ------
    UserError
        If none can be read.
    """
    order = np.random.default_rng(seed).permutation(len(paths))
    chosen = [paths[index] for index in order[:n_images]]
    store = ImageStore(chosen, store_size, cache_bytes=0)
    pixels, ok = store.read(np.arange(len(chosen)))
    if not ok.any():
        raise UserError(f"images to compare the written model on must be readable; none of {source} is")
    return RealImages(
        source,
        tuple(path for path, readable in zip(chosen, ok, strict=True) if readable),
        np.ascontiguousarray(centre_crop(pixels[ok], image_size)),
    )


def compare(written: Embedder, trained: Embedder, images: RealImages) -> Comparison:
    """Compare the embeddings of images, in batches and of one image alone.

    Raises
    ------
    UserError
        If the network itself gives numbers that are not finite, or the model does not give embeddings of its
        size.
    """
    standardised = standardise(images.pixels, trained.standardisation)
    wanted = _in_batches(trained.embed, standardised)
    if not np.isfinite(wanted).all():
        raise UserError(f"embeddings must be finite; {trained.description} gives NaN or infinity")
    batched = _comparison(_in_batches(written.embed, standardised), wanted)
    alone = _comparison(_in_batches(written.embed, standardised[:1]), wanted[:1])
    return Comparison(
        batched.n_images,
        # A maximum of numpy's, which NaN goes through.
        float(np.maximum(batched.largest_difference, alone.largest_difference)),
        min(batched.smallest_cosine, alone.smallest_cosine),
    )


def compare_encoded(
    embed_files: Callable[[list[bytes]], Floats], trained: Embedder, images: RealImages
) -> Comparison:
    """Compare embeddings of image files, prepared by the written model, with those prepared by us.

    Files are given as they are where they are JPEG or PNG and stand upright, else as PNG.
    """
    standardised = standardise(images.pixels, trained.standardisation)
    files = [_file(path) for path in images.paths]
    return _comparison(_in_batches(embed_files, files), _in_batches(trained.embed, standardised))


def verification_delta(written: Embedder, trained: Embedder, pairs: Pairs) -> dict[str, Any]:
    """Verify the same pairs with both, and return the measures of each and their differences."""
    # The written model says of itself that it takes the same images: they are decoded once.
    store = ImageStore(pairs.images()[0], trained.store_size)
    measures = {}
    for name, embedder in (("network", trained), ("written", written)):
        found = verify_images(embedder, pairs, store)
        measures[name] = {"accuracy": found.accuracy, "val": found.val, "auc": found.auc, "eer": found.eer}
    delta = {name: measures["written"][name] - value for name, value in measures["network"].items()}
    return {"n_pairs": len(pairs), **measures, "delta": delta}


def digest(path: str) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their names, in the order of these."""
    found = hashlib.sha256()
    if os.path.isfile(path):
        _add_file(found, path)
        return found.hexdigest()
    for relative in sorted(_files_below(path)):
        found.update(relative.encode() + b"\0")
        _add_file(found, os.path.join(path, relative))
    return found.hexdigest()


def _in_batches(embed: Callable[[Any], NDArray[np.floating]], images: Any) -> Floats:
    """Embed arrays of images, or lists of files."""
    batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return np.concatenate([np.asarray(embed(batch), dtype=np.float32) for batch in batches])


def _comparison(got: Floats, wanted: Floats) -> Comparison:
    if got.shape != wanted.shape:
        raise UserError(f"the written model must give embeddings {wanted.shape}; it gives {got.shape}")
    lengths = np.linalg.norm(wanted, axis=1), np.linalg.norm(got, axis=1)
    cosines = np.sum(got * wanted, axis=1) / np.maximum(lengths[0] * lengths[1], np.finfo(np.float32).tiny)
    unit = max(1.0, float(np.median(lengths[0])))
    return Comparison(len(got), float(np.max(np.abs(got - wanted)) / unit), float(np.min(cosines)))


def _file(path: str) -> bytes:
    with Image.open(path) as image:
        as_it_is = image.format in ("JPEG", "PNG") and image.getexif().get(_ORIENTATION, 1) == 1
    if as_it_is:
        with open(path, "rb") as file:
            return file.read()
    encoded = io.BytesIO()
    Image.fromarray(decode_image(path)).save(encoded, "PNG")
    return encoded.getvalue()


def _files_below(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")


def _add_file(found: Any, path: str) -> None:
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
