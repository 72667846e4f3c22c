"""Pixels become what a network takes: the middle cut out, values standardised; arrays and tensors alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facenet_fast.errors import UserError

__all__ = ["STANDARDISATIONS", "centre_crop", "standardise"]

#: How pixels may be standardised.
STANDARDISATIONS: tuple[str, ...] = ("per_image", "fixed")

_VALUES_AT_A_TIME = 2**16


def standardise(images: Any, kind: str) -> Any:
    """Standardise pixel values.

    ``"per_image"`` is ``(x - mean) / max(std, 1 / sqrt(N))`` with mean and standard deviation over the N
    values of an image, as `tf.image.per_image_standardization` has it; ``"fixed"`` is ``(x - 127.5) / 128``.

    Parameters
    ----------
    images : array or tensor, uint8 or float, shape (n, H, W, C)
        Pixels in 0 .. 255.
    kind : {"per_image", "fixed"}
        Which formula.

    Returns
    -------
    array or tensor of float32, shape (n, H, W, C)
        An array for an array, a TensorFlow tensor for a tensor.

    Raises
    ------
    UserError
        If `kind` is neither.

    Examples
    --------
    >>> images = np.array([0, 255], dtype=np.uint8).reshape(1, 1, 2, 1)
    >>> standardise(images, "fixed").ravel().tolist()
    [-0.99609375, 0.99609375]
    >>> standardise(images, "per_image").ravel().tolist()
    [-1.0, 1.0]
    """
    if kind not in STANDARDISATIONS:
        raise UserError(f"standardisation must be one of {', '.join(STANDARDISATIONS)}; got {kind!r}")
    if isinstance(images, np.ndarray):
        pixels = images.astype(np.float32)
        if kind == "fixed":
            pixels -= np.float32(127.5)
            pixels /= np.float32(128.0)
            return pixels
        rows = pixels.reshape(len(pixels), math.prod(images.shape[1:]))
        least = np.float32(1.0 / np.sqrt(rows.shape[1]))
        # A few images at a time, which stay in the cache for all of it.
        n_at_a_time = max(1, _VALUES_AT_A_TIME // rows.shape[1])
        for start in range(0, len(rows), n_at_a_time):
            block = rows[start : start + n_at_a_time]
            block -= block.mean(axis=1, keepdims=True)
            deviations = np.sqrt(np.square(block).mean(axis=1, keepdims=True))
            block /= np.maximum(deviations, least)
        return pixels

    import tensorflow as tf

    pixels = tf.cast(images, tf.float32)
    if kind == "fixed":
        return (pixels - 127.5) / 128.0
    n_values = tf.cast(tf.reduce_prod(tf.shape(pixels)[1:]), tf.float32)
    pixels -= tf.reduce_mean(pixels, axis=(1, 2, 3), keepdims=True)
    deviations = tf.sqrt(tf.reduce_mean(tf.square(pixels), axis=(1, 2, 3), keepdims=True))
    return pixels / tf.maximum(deviations, tf.math.rsqrt(n_values))


def centre_crop(images: Any, size: int) -> Any:
    """Cut ``size x size`` pixels out of the middle; where that is between pixels, nearer to the top left.

    Parameters
    ----------
    images : array or tensor, shape (n, H, W, C)
        Images whose height and width are known.
    size : int
        Side of the result; at most H and W.

    Returns
    -------
    array or tensor, shape (n, size, size, C)
        For an array a view.

    Raises
    ------
    ValueError
        If the images are smaller than that.
    """
    height, width = images.shape[1:3]
    if not 0 < size <= min(height, width):
        raise ValueError(f"the crop's size must be in 1 .. {min(height, width)}; got {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]
