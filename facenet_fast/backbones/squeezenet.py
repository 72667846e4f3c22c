"""SqueezeNet v1.0: few weights, all but the first convolution in fire modules."""

from __future__ import annotations

from typing import Any

import keras

from facenet_fast.backbones.blocks import convolve

__all__ = ["features"]

# Numbers of filters of fire2 to fire9, (squeeze, each kind of expand), and before which to halve the maps.
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
POOLED_BEFORE = (0, 3, 7)


def features(images: Any) -> Any:
    """Map images to 512 features, averaged over the image.

    The network of Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and < 0.5 MB
    model size" (arXiv:1602.07360, 2016), section 3.3 and table 1, up to fire9. Its last convolution, a filter
    for each class, and the average behind it are linear, so the average and the head's dense layer do the
    same. As in the predecessor's, batch-norm with offsets and without scales follows each convolution in the
    place of biases. It has the published 735,424 weights before the last convolution.

    Parameters
    ----------
    images : keras.KerasTensor
        Standardised images (n, S, S, 3), S at least 29.

    Returns
    -------
    keras.KerasTensor
        (n, 512).
    """
    x = _convolve(images, 96, 7, strides=2)
    for i, (n_squeezed, n_expanded) in enumerate(FIRES):
        if i in POOLED_BEFORE:
            x = keras.layers.MaxPooling2D(3, strides=2)(x)
        squeezed = _convolve(x, n_squeezed, 1)
        x = keras.layers.Concatenate()([_convolve(squeezed, n_expanded, size) for size in (1, 3)])
    return keras.layers.GlobalAveragePooling2D()(x)


def _convolve(x: Any, width: int, kernel_size: int, *, strides: int = 1) -> Any:
    return keras.layers.ReLU()(convolve(x, width, kernel_size, strides=strides, scale=False))
