"""What the predecessor calls the weights of our Inception-ResNet-v1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

__all__ = ["NETWORK", "SCOPE", "weight_names", "weights_by_name"]

NETWORK = "inception_resnet_v1"
"""Our name of the network."""

SCOPE = "InceptionResnetV1"
"""The predecessor's name of the network."""

STEM = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "Conv2d_4b_3x3",
)

# The convolutions of Branch_0, Branch_1, ... of each kind of block; branches that only pool are left out.
BLOCK_35 = (
    ("Conv2d_1x1",),
    ("Conv2d_0a_1x1", "Conv2d_0b_3x3"),
    ("Conv2d_0a_1x1", "Conv2d_0b_3x3", "Conv2d_0c_3x3"),
)
BLOCK_17 = (("Conv2d_1x1",), ("Conv2d_0a_1x1", "Conv2d_0b_1x7", "Conv2d_0c_7x1"))
BLOCK_8 = (("Conv2d_1x1",), ("Conv2d_0a_1x1", "Conv2d_0b_1x3", "Conv2d_0c_3x1"))
MIXED_6A = (("Conv2d_1a_3x3",), ("Conv2d_0a_1x1", "Conv2d_0b_3x3", "Conv2d_1a_3x3"))
MIXED_7A = (
    ("Conv2d_0a_1x1", "Conv2d_1a_3x3"),
    ("Conv2d_0a_1x1", "Conv2d_1a_3x3"),
    ("Conv2d_0a_1x1", "Conv2d_0b_3x3", "Conv2d_1a_3x3"),
)

_BATCH_NORM = ("beta", "moving_mean", "moving_variance")

_Branches = tuple[tuple[str, ...], ...]
_Layer = tuple[str, bool]  # its scope; whether batch-norm follows it, else it has a bias


def weight_names() -> list[str]:
    """Names of the weights, of the embedding's bottleneck last.

    Examples
    --------
    >>> names = weight_names()
    >>> len(names), names[0], names[-4]
    (490, 'InceptionResnetV1/Conv2d_1a_3x3/weights', 'InceptionResnetV1/Bottleneck/weights')
    """
    return [name for layer in _layers() for name in _names(layer)]


def weights_by_name(model: keras.Model) -> dict[str, Any]:
    """Return the weights of a network under the predecessor's names.

    The layers are told by their order in the network alone. Keras' names of them depend on what else was
    built in the process.

    Parameters
    ----------
    model : keras.Model
        ``backbones.build("inception_resnet_v1", ...)``.

    Returns
    -------
    dict of str to keras.Variable
        In the order of `weight_names`; kernels have the predecessor's layout as they are.
    """
    with_kernel = (keras.layers.Conv2D, keras.layers.Dense)
    layers = [layer for layer in model.layers if isinstance(layer, with_kernel)]
    batch_norms = iter(
        [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    )
    named: dict[str, Any] = {}
    for description, layer in zip(_layers(), layers, strict=True):
        _, is_normed = description
        weights = layer.weights + (next(batch_norms).weights if is_normed else [])
        named.update(zip(_names(description), weights, strict=True))
    return named


def _names(layer: _Layer) -> list[str]:
    scope, is_normed = layer
    if is_normed:
        return [f"{scope}/weights", *(f"{scope}/BatchNorm/{name}" for name in _BATCH_NORM)]
    return [f"{scope}/weights", f"{scope}/biases"]


def _layers() -> Iterator[_Layer]:
    """Give the layers that have a kernel, in the order of a Keras model's layers."""
    for name in STEM:
        yield f"{SCOPE}/{name}", True
    for k in range(1, 6):
        yield from _residual_block(f"{SCOPE}/Repeat/block35_{k}", BLOCK_35)
    yield from _branches(f"{SCOPE}/Mixed_6a", MIXED_6A)
    for k in range(1, 11):
        yield from _residual_block(f"{SCOPE}/Repeat_1/block17_{k}", BLOCK_17)
    yield from _branches(f"{SCOPE}/Mixed_7a", MIXED_7A)
    for k in range(1, 6):
        yield from _residual_block(f"{SCOPE}/Repeat_2/block8_{k}", BLOCK_8)
    yield from _residual_block(f"{SCOPE}/Block8", BLOCK_8)
    yield f"{SCOPE}/Bottleneck", True


def _residual_block(scope: str, branches: _Branches) -> Iterator[_Layer]:
    yield from _branches(scope, branches)
    yield f"{scope}/Conv2d_1x1", False


def _branches(scope: str, branches: _Branches) -> Iterator[_Layer]:
    # Keras sorts layers by how many more follow on the way to the output: what is last of each branch stands
    # together, and before it what is last but one.
    for n_after in reversed(range(max(map(len, branches)))):
        for n, names in enumerate(branches):
            if n_after < len(names):
                yield f"{scope}/Branch_{n}/{names[-1 - n_after]}", True
