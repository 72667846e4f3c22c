"""Random changes to training images, drawn from an integer seed, many images at a time in TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from facenet_fast.data.pixels import centre_crop
from facenet_fast.errors import UserError

__all__ = ["Augmentation", "augment"]

_FULL = 255.0  # the range of pixel values


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image; every strength 0, the default, means that it does not.

    Brightness and contrast shift and scale all pixels alike, which per-image standardisation undoes except
    where values are clipped to 0 .. 255; they act fully under fixed standardisation.

    Parameters
    ----------
    random_crop : bool
        Cut the image out at a random place rather than in the middle.
    random_flip : bool
        Mirror left to right every second time.
    rotation_degrees : float
        Largest rotation either way, 0 to 180.
    scale : float
        Largest magnification and reduction: factors in ``1 - scale .. 1 + scale``; below 1.
    shift : float
        Largest shift either way along each axis, as a fraction of the image's side, 0 to 1.
    brightness : float
        Largest change either way, as a fraction of the full range, 0 to 1.
    contrast : float
        Distance from the image's mean is multiplied by ``1 - contrast .. 1 + contrast``, 0 to 1.
    cutout : float
        Side of a square around a random point that is set to the image's mean, as a fraction of the image's
        side, 0 to 1 (T. DeVries, G. Taylor, 2017, "Improved regularization of convolutional neural networks
        with cutout").

    Raises
    ------
    UserError
        If a strength is out of its range.
    """

    random_crop: bool = False
    random_flip: bool = False
    rotation_degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rotation_degrees <= 180.0:
            raise UserError(f"rotation_degrees must be in 0 .. 180; got {self.rotation_degrees}")
        if not 0.0 <= self.scale < 1.0:
            raise UserError(f"scale must be at least 0 and below 1; got {self.scale}")
        for name in ("shift", "brightness", "contrast", "cutout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} must be in 0 .. 1; got {getattr(self, name)}")

    @property
    def _moves_pixels(self) -> bool:
        return bool(self.random_crop or self.random_flip or self.rotation_degrees or self.scale or self.shift)


def augment(images: Any, augmentation: Augmentation, seed: Any, *, image_size: int | None = None) -> Any:
    """Change each image at random; the same seed, images and settings give the same result.

    Crop, mirror, rotation, magnification and shift are one bilinear resampling (what lies outside repeats the
    edge; crop and mirror alone are exact); then brightness, contrast and cutout. Made of TensorFlow's
    stateless operations, to be called inside a `tf.function` or eagerly. What is drawn for an image depends
    on the seed and its place in the batch, and not on which other settings are on.

    Parameters
    ----------
    images : tensor or array, uint8 or float, shape (n, T, T, 3)
        Pixels in 0 .. 255.
    augmentation : Augmentation
        What may happen.
    seed : pair of int, or int tensor of shape (2,)
        Chance.
    image_size : int, optional
        Side of the result, at most T; T by default.

    Returns
    -------
    tensor of float32, shape (n, image_size, image_size, 3)
        Pixels in 0 .. 255.

    Raises
    ------
    ValueError
        If `image_size` is larger than T.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    >>> changed = augment(images, Augmentation(random_flip=True), (1, 2))
    >>> bool(np.all(changed == images) or np.all(changed == images[:, :, ::-1]))
    True
    """
    import tensorflow as tf

    images = tf.cast(images, tf.float32)
    side = images.shape[1]
    size = side if image_size is None else image_size
    # One column a change, drawn whether used or not, so that switching one on leaves the others as they were.
    draws = tf.random.stateless_uniform((tf.shape(images)[0], len(_Draws._fields)), seed, -1.0, 1.0)
    drawn = _Draws(*tf.unstack(draws, axis=1))
    if augmentation._moves_pixels and size <= side:
        images = tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=_transforms(augmentation, drawn, side, size),
            output_shape=[size, size],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
    else:
        images = centre_crop(images, size)
    if augmentation.brightness or augmentation.contrast:
        mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
        factor = _per_image(1.0 + augmentation.contrast * drawn.contrast)
        offset = _per_image(augmentation.brightness * _FULL * drawn.brightness)
        images = tf.clip_by_value((images - mean) * factor + mean + offset, 0.0, _FULL)
    if augmentation.cutout:
        images = _cut_out(images, augmentation.cutout, drawn, size)
    return tf.ensure_shape(images, (None, size, size, 3))


class _Draws(NamedTuple):
    """One number in [-1, 1) an image for each thing that is left to chance; shapes (n,)."""

    crop_x: Any
    crop_y: Any
    mirror: Any
    turn: Any
    magnify: Any
    shift_x: Any
    shift_y: Any
    contrast: Any
    brightness: Any
    cut_x: Any
    cut_y: Any


def _transforms(augmentation: Augmentation, drawn: _Draws, side: int, size: int) -> Any:
    """Return rows (a, b, c, d, e, f, 0, 0): pixel (x, y) of the result is read at (ax + by + c, dx + ey + f).

    About the middle of the window that the crop leaves: mirrored, turned, magnified and shifted.
    """
    import tensorflow as tf

    half = (size - 1) / 2
    angle = augmentation.rotation_degrees * math.pi / 180 * drawn.turn
    step = 1.0 / (1.0 + augmentation.scale * drawn.magnify)
    mirror = tf.where(drawn.mirror < 0.0, -1.0, 1.0) if augmentation.random_flip else tf.ones_like(step)
    a, b = step * tf.cos(angle) * mirror, -step * tf.sin(angle)
    d, e = step * tf.sin(angle) * mirror, step * tf.cos(angle)
    middle_x, middle_y = (
        _crop_start(augmentation.random_crop, crop, side - size) + half + augmentation.shift * size * shift
        for crop, shift in ((drawn.crop_x, drawn.shift_x), (drawn.crop_y, drawn.shift_y))
    )
    c, f = middle_x - (a + b) * half, middle_y - (d + e) * half
    zero = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, zero, zero], axis=1)


def _crop_start(is_random: bool, draw: Any, room: int) -> Any:
    """Return the first pixel of the window, whole numbers in 0 .. room, each as likely."""
    import tensorflow as tf

    if not is_random:
        return tf.fill(tf.shape(draw), float(room // 2))
    return tf.minimum(tf.floor((draw + 1.0) / 2.0 * (room + 1)), float(room))


def _cut_out(images: Any, cutout: float, drawn: _Draws, size: int) -> Any:
    import tensorflow as tf

    pixels = tf.range(size, dtype=tf.float32) + 0.5
    columns, rows = (
        tf.abs(pixels - ((draw + 1.0) / 2.0 * size)[:, None]) < cutout * size / 2
        for draw in (drawn.cut_x, drawn.cut_y)
    )
    is_cut = (rows[:, :, None] & columns[:, None, :])[..., None]
    return tf.where(is_cut, tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True), images)


def _per_image(values: Any) -> Any:
    return values[:, None, None, None]
