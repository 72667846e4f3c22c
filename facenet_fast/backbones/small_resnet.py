"""Residual networks for small images of aligned faces, sized to train in minutes on two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from facenet_fast.backbones.blocks import convolve

__all__ = ["features", "medium_features"]

# Chosen for time: twice as wide trains at half the speed. On two splits of the ORL faces, with equal steps,
# that verified once better (held-out AUC 0.985 against 0.981) and once worse (0.958 against 0.963).
WIDTHS = (16, 32, 64, 96)

# For 112 pixels and a quarter of an hour or more (docs/recipes.md has what else was tried).
MEDIUM_STEM = 16
MEDIUM_WIDTHS = (48, 96, 192, 256)

# Of the batch-norm averages: a short training has a few hundred steps, which 0.99 would not live to see.
MOMENTUM = 0.9


def features(images: Any) -> Any:
    """Map images to a small grid of features.

    A stem at half resolution, then one residual block a stage, every stage but the first at half the
    resolution before it; so 64 pixels end as a 4 x 4 grid. Basic blocks of He et al., "Deep Residual Learning
    for Image Recognition" (CVPR 2016), with an average pool in the shortcut where the resolution halves.
    Depthwise convolutions would have fewer operations, but run slower on CPUs.

    Parameters
    ----------
    images : keras.KerasTensor
        Standardised images (n, S, S, 3).

    Returns
    -------
    keras.KerasTensor
        (n, ceil(S / 16), ceil(S / 16), 96).
    """
    return _stages(images, WIDTHS[0], WIDTHS, first_stride=1)


def medium_features(images: Any) -> Any:
    """Map images to a small grid of features, by wider stages than those of `features`.

    A narrow stem at half resolution, then four residual blocks, each at half the resolution before it: what
    most of the work is done on is a quarter of the image's side, so that fine images can be afforded.

    Parameters
    ----------
    images : keras.KerasTensor
        Standardised images (n, S, S, 3).

    Returns
    -------
    keras.KerasTensor
        (n, ceil(S / 32), ceil(S / 32), 256).
    """
    return _stages(images, MEDIUM_STEM, MEDIUM_WIDTHS, first_stride=2)


def _stages(images: Any, stem: int, widths: Sequence[int], first_stride: int) -> Any:
    x = keras.layers.ReLU()(_convolve(images, stem, stride=2))
    for stage, width in enumerate(widths):
        x = _residual_block(x, width, stride=first_stride if stage == 0 else 2)
    return x


def _residual_block(x: Any, width: int, stride: int) -> Any:
    residual = keras.layers.ReLU()(_convolve(x, width, stride=stride))
    residual = _convolve(residual, width)
    shortcut = keras.layers.AveragePooling2D(stride, padding="same")(x) if stride > 1 else x
    if shortcut.shape[-1] != width:
        shortcut = _convolve(shortcut, width, kernel_size=1)
    return keras.layers.ReLU()(keras.layers.Add()([shortcut, residual]))


def _convolve(x: Any, width: int, *, kernel_size: int = 3, stride: int = 1) -> Any:
    return convolve(x, width, kernel_size, strides=stride, momentum=MOMENTUM)
