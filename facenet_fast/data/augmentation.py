"""Random changes to training images, drawn from an integer seed, many images at a time in TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from facenet_fast.data.pixels import centre_crop
from facenet_fast.errors import UserError

__all__ = ["Augmentation", "augment"]

_FULL = 255.0  # the range of pixel values

# A pixel (r, g, b) times this is its brightness in all three channels (ITU-R BT.601, as JPEG has it) ...
_GREY = np.repeat([[0.299], [0.587], [0.114]], 3, axis=1)
# ... and times this its colour without its brightness, by a quarter turn in the plane of YIQ, red to green.
_YIQ = np.array([[0.299, 0.596, 0.211], [0.587, -0.274, -0.523], [0.114, -0.322, 0.312]])
_QUARTER_TURN = _YIQ @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ np.linalg.inv(_YIQ)

# Each of these draws from a stream of its own, numbered by its place: append, never reorder.
_STREAMS = ("saturation", "hue", "grey", "blur", "downscale", "jpeg")


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image; every strength 0, the default, means that it does not.

    Strengths are limits: what happens to an image is drawn evenly from nothing up to them. Brightness and
    contrast shift and scale all pixels alike, which per-image standardisation undoes except where values are
    clipped to 0 .. 255; they act fully under fixed standardisation.

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
    saturation : float
        A pixel's distance from the grey of its brightness is multiplied by ``1 - saturation ..
        1 + saturation``, 0 to 1.
    hue : float
        Largest turn of all colours either way, as a fraction of the full circle, 0 to 0.5. Brightness stays.
    grey : float
        Probability that an image loses its colours, 0 to 1.
    blur : float
        Largest standard deviation of a Gaussian blur, as a fraction of the image's side, 0 to 1.
    downscale : float
        Largest reduction, as a fraction of the side: an image is made smaller, down to ``1 - downscale`` of
        its side, with antialiasing, and enlarged again; below 1. As of faces far from a camera; so trained
        M. Kim, A. K. Jain and X. Liu, 2022, "AdaFace: quality adaptive margin for face recognition".
    jpeg : int
        Lowest quality at which an image is saved as JPEG and read again, 1 to 100: qualities are drawn from
        ``jpeg .. 100``. 0: never.

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
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    downscale: float = 0.0
    jpeg: int = 0

    def __post_init__(self) -> None:
        for name in ("scale", "downscale"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"{name} must be at least 0 and below 1; got {getattr(self, name)}")
        limits: dict[str, float] = {"rotation_degrees": 180, "hue": 0.5, "jpeg": 100}
        for name in ("shift", "brightness", "contrast", "cutout", "saturation", "grey", "blur"):
            limits[name] = 1
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name} must be in 0 .. {most}; got {getattr(self, name)}")

    @property
    def _resamples(self) -> bool:
        return bool(self.rotation_degrees or self.scale or self.shift)


def augment(images: Any, augmentation: Augmentation, seed: Any, *, image_size: int | None = None) -> Any:
    """Change each image at random; the same seed, images and settings give the same result.

    Crop, mirror, rotation, magnification and shift are one bilinear resampling (what lies outside repeats the
    edge; crop and mirror alone are exact). Then come brightness and contrast; saturation, hue and grey; blur
    and downscale; JPEG; and cutout. Made of TensorFlow's stateless operations, to be called inside a
    `tf.function` or eagerly. What is drawn for an image depends on the seed and its place in the batch, and
    not on which other settings are on.

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
    # All columns are drawn, used or not, so that switching one on leaves the others as they were.
    draws = tf.random.stateless_uniform((tf.shape(images)[0], len(_Draws._fields)), seed, -1.0, 1.0)
    drawn = _Draws(*tf.unstack(draws, axis=1))
    if augmentation._resamples and size <= side:
        images = tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=_transforms(augmentation, drawn, side, size),
            output_shape=[size, size],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
    elif (augmentation.random_crop or augmentation.random_flip) and size <= side:
        images = _windows(images, augmentation, drawn, size)
    else:
        images = centre_crop(images, size)
    if augmentation.brightness or augmentation.contrast:
        mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
        factor = _per_image(1.0 + augmentation.contrast * drawn.contrast)
        offset = _per_image(augmentation.brightness * _FULL * drawn.brightness)
        images = tf.clip_by_value((images - mean) * factor + mean + offset, 0.0, _FULL)
    if augmentation.saturation or augmentation.hue or augmentation.grey:
        images = _recolour(images, augmentation, seed)
    if augmentation.blur or augmentation.downscale:
        images = _soften(images, augmentation, seed)
    if augmentation.jpeg:
        images = _through_jpeg(images, augmentation.jpeg, seed)
    if augmentation.cutout:
        images = _cut_out(images, augmentation.cutout, drawn, size)
    return tf.ensure_shape(images, (None, size, size, 3))


class _Draws(NamedTuple):
    """One number in [-1, 1) an image for each of these; shapes (n,).

    They are columns of one draw, so that one more would change all. What is new draws from a stream of its
    own (`_STREAMS`).
    """

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


def _windows(images: Any, augmentation: Augmentation, drawn: _Draws, size: int) -> Any:
    """Crop and mirror without resampling, in a quarter of its time or less: `tf.reverse` would take most."""
    import tensorflow as tf

    room, pixels = images.shape[1] - size, tf.range(size)
    top, left = (
        tf.cast(_crop_start(augmentation.random_crop, crop, room), tf.int32)[:, None]
        for crop in (drawn.crop_y, drawn.crop_x)
    )
    columns = left + pixels
    if augmentation.random_flip:
        columns = tf.where(drawn.mirror[:, None] < 0.0, columns[:, ::-1], columns)
    images = tf.gather(images, top + pixels, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


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


def _recolour(images: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Scale and turn the colours of an image: one 3 x 3 matrix for all its pixels.

    With the factor f (0: grey) and the angle t it is ``c I + (1 - c) G + s Q``, where ``c = f cos t`` and
    ``s = f sin t``, G leaves the brightness alone, and Q turns the colour by a right angle.
    """
    import tensorflow as tf

    n, size = tf.shape(images)[0], images.shape[1]
    factor = 1.0 + augmentation.saturation * _draw("saturation", seed, n)
    is_grey = (_draw("grey", seed, n) + 1.0) / 2.0 < augmentation.grey
    factor = tf.where(is_grey, 0.0, factor)
    angle = 2 * math.pi * augmentation.hue * _draw("hue", seed, n)
    keep, turn = ((factor * part)[:, None, None] for part in (tf.cos(angle), tf.sin(angle)))
    identity, grey, quarter = (tf.constant(m, tf.float32) for m in (np.eye(3), _GREY, _QUARTER_TURN))
    matrix = keep * identity + (1.0 - keep) * grey + turn * quarter
    changed = tf.matmul(tf.reshape(images, (-1, size * size, 3)), matrix)
    return tf.clip_by_value(tf.reshape(changed, (-1, size, size, 3)), 0.0, _FULL)


def _soften(images: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Blur, then reduce and enlarge: all are linear along each axis, so one matrix an image does both."""
    import tensorflow as tf

    n, size = tf.shape(images)[0], images.shape[1]
    matrix = tf.eye(size, batch_shape=[n])
    if augmentation.blur:
        matrix = _blurring(augmentation.blur * size * (_draw("blur", seed, n) + 1.0) / 2.0, size)
    if augmentation.downscale:
        kept = 1.0 - augmentation.downscale * (_draw("downscale", seed, n) + 1.0) / 2.0
        smaller = tf.maximum(tf.round(kept * size), 1.0)
        up, down = _resizing(smaller, size)
        matrix = tf.matmul(up, tf.matmul(down, matrix))
    for _ in range(2):
        images = tf.reshape(tf.matmul(matrix, tf.reshape(images, (-1, size, size * 3))), (-1, size, size, 3))
        images = tf.transpose(images, (0, 2, 1, 3))
    return images


def _blurring(sigmas: Any, size: int) -> Any:
    """Return matrices (n, size, size) that blur along an axis; at the edge only what is inside has weight."""
    import tensorflow as tf

    # A thousandth of a pixel is no blur: all other weights are 0 then, and nothing is divided by 0.
    widths = tf.maximum(sigmas, 1e-3)[:, None, None]
    pixels = tf.range(size, dtype=tf.float32)
    weights = tf.exp(-(((pixels[:, None] - pixels) / widths) ** 2) / 2.0)
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)


def _resizing(smaller: Any, size: int) -> tuple[Any, Any]:
    """Return matrices that enlarge from `smaller` pixels, shape (n,), and that reduce to them.

    Both (n, size, size), with zeros beyond the smaller image; weights are triangles around where a pixel's
    middle comes to lie, as wide as the reduction asks.
    """
    import tensorflow as tf

    factor = (size / smaller)[:, None, None]
    pixels = tf.range(size, dtype=tf.float32)
    is_there = tf.cast(pixels < smaller[:, None], tf.float32)
    middles = (pixels + 0.5)[None, :, None]
    down = tf.nn.relu(1.0 - tf.abs(middles * factor - (pixels + 0.5)) / factor) * is_there[:, :, None]
    up = tf.nn.relu(1.0 - tf.abs(middles / factor - (pixels + 0.5))) * is_there[:, None, :]
    return tuple(tf.math.divide_no_nan(m, tf.reduce_sum(m, axis=2, keepdims=True)) for m in (up, down))


def _through_jpeg(images: Any, lowest: int, seed: Any) -> Any:
    import tensorflow as tf

    draws = (_draw("jpeg", seed, tf.shape(images)[0]) + 1.0) / 2.0
    qualities = tf.cast(tf.minimum(lowest + tf.floor(draws * (101 - lowest)), 100.0), tf.int32)

    def saved_and_read(image_and_quality: tuple[Any, Any]) -> Any:
        image, quality = image_and_quality
        encoded = tf.raw_ops.EncodeJpegVariableQuality(images=image, quality=quality)
        return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")

    pixels = tf.cast(tf.round(images), tf.uint8)
    spec = tf.TensorSpec(images.shape[1:], tf.uint8)
    return tf.cast(tf.map_fn(saved_and_read, (pixels, qualities), fn_output_signature=spec), tf.float32)


def _cut_out(images: Any, cutout: float, drawn: _Draws, size: int) -> Any:
    import tensorflow as tf

    pixels = tf.range(size, dtype=tf.float32) + 0.5
    columns, rows = (
        tf.abs(pixels - ((draw + 1.0) / 2.0 * size)[:, None]) < cutout * size / 2
        for draw in (drawn.cut_x, drawn.cut_y)
    )
    is_cut = rows[:, :, None] & tf.repeat(columns, 3, axis=1)[:, None, :]
    mean = tf.reduce_mean(images, axis=(1, 2, 3))[:, None]
    # In rows of all values of an image: three times as fast as with a mask that is repeated over channels.
    n_values = size * size * 3
    values = tf.where(tf.reshape(is_cut, (-1, n_values)), mean, tf.reshape(images, (-1, n_values)))
    return tf.reshape(values, (-1, size, size, 3))


def _draw(change: str, seed: Any, n: Any) -> Any:
    """Draw n numbers in [-1, 1) from the change's own stream."""
    import tensorflow as tf

    stream = tf.random.fold_in(seed, _STREAMS.index(change) + 1)
    return tf.random.stateless_uniform((n,), stream, -1.0, 1.0)


def _per_image(values: Any) -> Any:
    return values[:, None, None, None]
