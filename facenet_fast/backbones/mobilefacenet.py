"""MobileFaceNet: inverted residuals for faces, whose last map is weighed place by place, not averaged."""

from __future__ import annotations

from typing import Any

import keras

from facenet_fast.backbones.blocks import convolve

__all__ = ["features"]

# Rows of table 1: by how much a block widens inside, its channels, how many, and the stride of the first.
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def features(images: Any) -> Any:
    """Map images to 512 features, each a weighted sum over the last map.

    The network of Chen, Liu, Gao and Han, "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face
    Verification on Mobile Devices" (CCBR 2018), table 1, with PReLU throughout. It is made for 112 pixels,
    whose last map is 7 x 7. The linear global depthwise convolution (section 3.1) has a kernel as large as
    that map, so weights fit images of one size. The last linear convolution, 1 x 1, is the head's dense layer
    and batch-norm. With 128 numbers it has the published 0.99 M parameters.

    Parameters
    ----------
    images : keras.KerasTensor
        Standardised images (n, S, S, 3), S at least 16.

    Returns
    -------
    keras.KerasTensor
        (n, 1, 1, 512).
    """
    x = _activate(convolve(images, 64, 3, strides=2))
    x = _activate(_convolve_depthwise(x, 3))
    for expansion, width, n_blocks, strides in STAGES:
        for block in range(n_blocks):
            x = _bottleneck(x, expansion, width, strides=strides if block == 0 else 1)
    x = _activate(convolve(x, 512, 1))
    return _convolve_depthwise(x, x.shape[1], padding="valid")


def _bottleneck(x: Any, expansion: int, width: int, strides: int) -> Any:
    y = _activate(convolve(x, expansion * x.shape[-1], 1))
    y = _activate(_convolve_depthwise(y, 3, strides=strides))
    y = convolve(y, width, 1)
    return keras.layers.Add()([x, y]) if strides == 1 and x.shape[-1] == width else y


def _activate(x: Any) -> Any:
    slopes = keras.initializers.Constant(0.25)  # He et al. 2015, "Delving Deep into Rectifiers", section 2.1
    return keras.layers.PReLU(alpha_initializer=slopes, shared_axes=(1, 2))(x)


def _convolve_depthwise(x: Any, kernel_size: int, *, strides: int = 1, padding: str = "same") -> Any:
    x = keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        depthwise_initializer="he_normal",
    )(x)
    return keras.layers.BatchNormalization()(x)
