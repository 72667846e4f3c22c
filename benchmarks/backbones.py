"""What each network costs: its parameters, the multiply-adds of an image, and images a second.

Multiply-adds are counted in the graph that embeds one image: those of convolutions and matrix products, as
papers count them; batch-norm, activations and pools are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .rivals import tensorflow
from .rules import MARGIN

__all__ = ["EMBEDDING_SIZE", "count_multiply_adds", "prepare_backbone"]

EMBEDDING_SIZE = 128
N_IMAGES_AN_IDENTITY = 4


def count_multiply_adds(network: Any) -> int:
    """Count the products that a network sums up to embed one image.

    Parameters
    ----------
    network : keras.Model
        Of images of a fixed size.

    Raises
    ------
    ValueError
        If the graph has products of a kind that is not counted here, or functions to look into.
    """
    import tensorflow as tf

    image = tf.TensorSpec((1, *network.input_shape[1:]), tf.float32)
    graph = tf.function(lambda x: network(x, training=False)).get_concrete_function(image).graph
    n_products = 0
    for operation in graph.get_operations():
        if operation.type in _TERMS:
            n_products += math.prod(operation.outputs[0].shape) * _TERMS[operation.type](operation)
        elif any(word in operation.type for word in _UNCOUNTED):
            raise ValueError(f"operations must be among {', '.join(_TERMS)}; got {operation.type}")
    return n_products


# How many products each number of the output sums up. Kernels are (height, width, inputs of a group, ...).
_TERMS: dict[str, Callable[[Any], int]] = {
    "Conv2D": lambda conv: math.prod(conv.inputs[1].shape[:3]),
    "DepthwiseConv2dNative": lambda conv: math.prod(conv.inputs[1].shape[:2]),
    "MatMul": lambda product: product.inputs[0].shape[0 if product.get_attr("transpose_a") else 1],
}
_UNCOUNTED = ("Conv", "MatMul", "Einsum", "Call", "While", "If", "Case")


def prepare_backbone(
    name: str, image_size: int, n_images: int, n_threads: int
) -> tuple[Any, dict[str, Callable[[], Any]]]:
    """Build a network; return it, and what to time: ``"embed"`` and ``"step"``, each of one batch.

    A step is a forward pass in training mode, the loss of mined triplets, the backward pass and the
    optimiser's update (SGD, whose own cost is the least). Mining is not in it: of so few images it takes
    less than a millisecond.
    """
    tf = tensorflow(n_threads)
    import keras

    from facenet_fast.backbones import build
    from facenet_fast.losses.triplet import mined_triplet_loss
    from facenet_fast.models import keras_embedder

    keras.utils.set_random_seed(0)
    network = build(name, image_size, EMBEDDING_SIZE)
    images = np.random.default_rng(0).normal(size=(n_images, image_size, image_size, 3)).astype(np.float32)
    embedder = keras_embedder(network)
    optimizer = keras.optimizers.SGD(1e-3)
    optimizer.build(network.trainable_variables)
    batch = tf.constant(images)
    anchor = np.arange(n_images)
    positive = anchor // N_IMAGES_AN_IDENTITY * N_IMAGES_AN_IDENTITY + (anchor + 1) % N_IMAGES_AN_IDENTITY
    triplets = [tf.constant(rows) for rows in (anchor, positive, (anchor + N_IMAGES_AN_IDENTITY) % n_images)]

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = mined_triplet_loss(network(batch, training=True), *triplets, MARGIN)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return loss

    return network, {"embed": lambda: embedder.embed(images), "step": lambda: float(step())}
