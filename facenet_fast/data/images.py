"""Everything between image files and a network, under one name, and batches as a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast.data.augmentation import Augmentation, augment
from facenet_fast.data.decoding import UnreadableImage, check_images, decode_image, decode_square
from facenet_fast.data.pixels import STANDARDISATIONS, centre_crop, standardise
from facenet_fast.data.store import ImageStore
from facenet_fast.errors import UserError

__all__ = [
    "STANDARDISATIONS",
    "Augmentation",
    "ImageStore",
    "Preprocessing",
    "UnreadableImage",
    "augment",
    "batches",
    "centre_crop",
    "check_images",
    "decode_image",
    "decode_square",
    "standardise",
]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to stored images before a network sees them, nothing of it random.

    Parameters
    ----------
    image_size : int
        Side of the square cut out of the middle.
    standardisation : {"per_image", "fixed"}, default="per_image"
        See `standardise`.

    Raises
    ------
    UserError
        If a value is not as described.
    """

    image_size: int
    standardisation: str = "per_image"

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UserError(f"image_size must be at least 1; got {self.image_size}")
        if self.standardisation not in STANDARDISATIONS:
            raise UserError(
                f"standardisation must be one of {', '.join(STANDARDISATIONS)}; got {self.standardisation!r}"
            )

    def __call__(self, images: Any) -> Any:
        """Cut and standardise pixels, shape (n, T, T, 3), into float32 (n, image_size, image_size, 3)."""
        return standardise(centre_crop(images, self.image_size), self.standardisation)


def batches(
    store: ImageStore,
    indices: Sequence[int] | npt.NDArray[np.integer],
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    n_prefetched: int = 2,
) -> Any:
    """Make a `tf.data.Dataset` of standardised batches, in order, read while the caller computes.

    Parameters
    ----------
    store : ImageStore
        Where the images come from.
    indices : sequence of int, length n
        Which images, in which order.
    preprocessing : Preprocessing
        Size and standardisation.
    batch_size : int
        Images a batch; the last one holds what is left.
    n_prefetched : int, default=2
        Batches that are read ahead.

    Returns
    -------
    tf.data.Dataset
        Of pairs: float32 images (batch, image_size, image_size, 3), and bool (batch,), False where the file
        is unreadable and the image blank (`store.bad` names it).

    Raises
    ------
    UserError
        If `batch_size` is less than 1, or the stored images are smaller than wanted.
    IndexError
        If an index is not one of the store's.
    """
    import tensorflow as tf

    wanted = np.asarray(indices, dtype=np.int64)
    if batch_size < 1:
        raise UserError(f"batch size must be at least 1; got {batch_size}")
    if preprocessing.image_size > store.store_size:
        raise UserError(
            f"image_size must be at most that of the stored images, {store.store_size}; "
            f"got {preprocessing.image_size}"
        )
    if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(store.paths)):
        raise IndexError(f"image indices must be in 0 .. {len(store.paths) - 1}")

    def read(batch: Any) -> tuple[Any, Any]:
        images, ok = tf.numpy_function(store.read, [batch], [tf.uint8, tf.bool])
        images = tf.ensure_shape(images, (None, store.store_size, store.store_size, 3))
        return preprocessing(images), tf.ensure_shape(ok, (None,))

    return tf.data.Dataset.from_tensor_slices(wanted).batch(batch_size).map(read).prefetch(n_prefetched)
