"""What several networks are made of."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["convolve"]


def convolve(x: Any, width: int, kernel_size: int, *, strides: int = 1, **batch_norm: Any) -> Any:
    """Convolve, padded and without bias, and normalise over the batch.

    Parameters
    ----------
    x : keras.KerasTensor
        Feature maps (n, h, w, c).
    width : int
        Channels of the result.
    kernel_size, strides : int
        Of the convolution.
    **batch_norm
        Settings of `keras.layers.BatchNormalization`.

    Returns
    -------
    keras.KerasTensor
        (n, ceil(h / strides), ceil(w / strides), width).
    """
    x = keras.layers.Conv2D(
        width,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
    return keras.layers.BatchNormalization(**batch_norm)(x)
