"""SE-ResNet-50: ResNet-50 whose every block weighs its channels by what the whole image shows."""

from __future__ import annotations

from typing import Any

import keras

from facenet_fast.backbones.blocks import convolve

__all__ = ["features"]

# Widths of the stages' inner convolutions and how many blocks each has; a block ends four times as wide.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
EXPANSION = 4

# How many times narrower the hidden layer is that weighs the channels: r in the paper.
REDUCTION = 16


def features(images: Any) -> Any:
    """Map images to 2048 features, averaged over the image.

    The network of Hu, Shen and Sun, "Squeeze-and-Excitation Networks" (CVPR 2018), table 1, without its
    classifier: the bottleneck blocks of He et al., "Deep Residual Learning for Image Recognition" (CVPR
    2016), which halve in their first convolution, each with a squeeze and excitation (section 3) before the
    sum. The stem is the published one, 7 x 7 with stride 2 and a pool, made for 224 pixels: 112 pixels end as
    a 4 x 4 map.

    Parameters
    ----------
    images : keras.KerasTensor
        Standardised images (n, S, S, 3), S at least 32.

    Returns
    -------
    keras.KerasTensor
        (n, 2048).
    """
    x = keras.layers.ReLU()(convolve(images, 64, 7, strides=2))
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for stage, (width, n_blocks) in enumerate(STAGES):
        for block in range(n_blocks):
            x = _residual_block(x, width, strides=2 if stage > 0 and block == 0 else 1)
    return keras.layers.GlobalAveragePooling2D()(x)


def _residual_block(x: Any, width: int, strides: int) -> Any:
    n_channels = EXPANSION * width
    residual = keras.layers.ReLU()(convolve(x, width, 1, strides=strides))
    residual = keras.layers.ReLU()(convolve(residual, width, 3))
    residual = _excite(convolve(residual, n_channels, 1))
    shortcut = x if x.shape[-1] == n_channels else convolve(x, n_channels, 1, strides=strides)
    return keras.layers.ReLU()(keras.layers.Add()([shortcut, residual]))


def _excite(x: Any) -> Any:
    n_channels = x.shape[-1]
    weights = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    weights = keras.layers.Conv2D(n_channels // REDUCTION, 1, activation="relu")(weights)
    weights = keras.layers.Conv2D(n_channels, 1, activation="sigmoid")(weights)
    return keras.layers.Multiply()([x, weights])
