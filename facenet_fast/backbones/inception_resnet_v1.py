"""Inception-ResNet-v1 as the predecessor has it, constants included, so that its weights fit."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras

__all__ = ["features"]

# The predecessor's batch-norm: these constants, offsets but no scales.
MOMENTUM = 0.995
EPSILON = 1e-3


def features(images: Any) -> Any:
    """Map images to 1792 features, averaged over the image.

    The network of Szegedy, Ioffe, Vanhoucke and Alemi, "Inception-v4, Inception-ResNet and the Impact of
    Residual Connections on Learning" (AAAI 2017), figures 10 to 15, as FaceNet's public reimplementation
    trains it: convolutions with batch-norm and no bias, but those that end a residual branch with a bias and
    no batch-norm; residuals scaled by 0.17, 0.10 and 0.20; and a last block of the third kind that is neither
    scaled nor followed by an activation. With the head for 128 numbers it has 22,808,144 parameters.

    Parameters
    ----------
    images : keras.KerasTensor
        Standardised images (n, S, S, 3), S at least 75; the predecessor's S is 160.

    Returns
    -------
    keras.KerasTensor
        (n, 1792).
    """
    x = _stem(images)
    for _ in range(5):
        x = _add_residual(x, _branches_35(x), scale=0.17)
    x = _reduction_a(x)
    for _ in range(10):
        x = _add_residual(x, _branches_17(x), scale=0.10)
    x = _reduction_b(x)
    for _ in range(5):
        x = _add_residual(x, _branches_8(x), scale=0.20)
    x = _add_residual(x, _branches_8(x), scale=1.0, activation=None)
    return keras.layers.GlobalAveragePooling2D()(x)


def _stem(x: Any) -> Any:
    x = _convolve(x, 32, 3, strides=2, padding="valid")
    x = _convolve(x, 32, 3, padding="valid")
    x = _convolve(x, 64, 3)
    x = _pool(x)
    x = _convolve(x, 80, 1)
    x = _convolve(x, 192, 3, padding="valid")
    return _convolve(x, 256, 3, strides=2, padding="valid")


def _branches_35(x: Any) -> list[Any]:
    return [
        _convolve(x, 32, 1),
        _chain(x, (32, 1), (32, 3)),
        _chain(x, (32, 1), (32, 3), (32, 3)),
    ]


def _branches_17(x: Any) -> list[Any]:
    return [_convolve(x, 128, 1), _chain(x, (128, 1), (128, (1, 7)), (128, (7, 1)))]


def _branches_8(x: Any) -> list[Any]:
    return [_convolve(x, 192, 1), _chain(x, (192, 1), (192, (1, 3)), (192, (3, 1)))]


def _reduction_a(x: Any) -> Any:
    return keras.layers.Concatenate()(
        [
            _halve(x, 384),
            _halve(_chain(x, (192, 1), (192, 3)), 256),
            _pool(x),
        ]
    )


def _reduction_b(x: Any) -> Any:
    return keras.layers.Concatenate()(
        [
            _halve(_convolve(x, 256, 1), 384),
            _halve(_convolve(x, 256, 1), 256),
            _halve(_chain(x, (256, 1), (256, 3)), 256),
            _pool(x),
        ]
    )


def _add_residual(x: Any, branches: list[Any], *, scale: float, activation: str | None = "relu") -> Any:
    residual = keras.layers.Conv2D(x.shape[-1], 1)(keras.layers.Concatenate()(branches))
    if scale != 1.0:
        residual = keras.layers.Rescaling(scale)(residual)
    x = keras.layers.Add()([x, residual])
    return keras.layers.Activation(activation)(x) if activation else x


def _chain(x: Any, *convolutions: tuple[int, int | tuple[int, int]]) -> Any:
    for width, kernel_size in convolutions:
        x = _convolve(x, width, kernel_size)
    return x


def _convolve(
    x: Any, width: int, kernel_size: int | tuple[int, int], *, strides: int = 1, padding: str = "same"
) -> Any:
    x = keras.layers.Conv2D(width, kernel_size, strides=strides, padding=padding, use_bias=False)(x)
    x = keras.layers.BatchNormalization(scale=False, momentum=MOMENTUM, epsilon=EPSILON)(x)
    return keras.layers.ReLU()(x)


_halve = partial(_convolve, kernel_size=3, strides=2, padding="valid")


def _pool(x: Any) -> Any:
    return keras.layers.MaxPooling2D(3, strides=2)(x)
