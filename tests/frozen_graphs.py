"""Graphs of constants and what they must give, for tests of what is made of them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from facenet_fast import backbones
from facenet_fast.config import TrainConfig
from facenet_fast.models.metadata import Metadata
from tests.tiny_run import EMBEDDING_SIZE, IMAGE_SIZE, make_model

MEANS_SIZE = 8


def metadata_of(image_size, embedding_size):
    return Metadata(
        image_size=image_size,
        store_size=image_size + 4,
        standardisation="fixed",
        embedding_size=embedding_size,
        source="model-20240101-120000.ckpt-7",
        thresholds={"unit": "squared distance", "thresholds": []},
    )


def tiny_model():
    config = TrainConfig(
        backbone="tests.tiny_run:features", image_size=IMAGE_SIZE, embedding_size=EMBEDDING_SIZE
    )
    return make_model(config)


def small_resnet():
    keras.utils.set_random_seed(5)
    return backbones.build("small_resnet", 32, 16)


def means_graph(n_images=None, *, shape=True, embed=lambda images: tf.reduce_mean(images, axis=[1, 2])):
    """A graph as old TensorFlow froze them, which gives the mean of each channel."""
    graph = tf.Graph()
    with graph.as_default():
        sides = (n_images, MEANS_SIZE, MEANS_SIZE, 3) if shape else None
        placeholder = tf.compat.v1.placeholder(tf.float32, sides, name="image_batch")
        images = tf.identity(placeholder, name="input")
        if n_images:
            # As in networks that were built for one size of batch: no other will pass.
            images = tf.reshape(images, sides)
        tf.identity(embed(images), name="embeddings")
    return graph.as_graph_def()


def singular_values(images):
    """What neither ONNX nor TensorFlow Lite has an operation for."""
    return tf.linalg.svd(tf.reduce_mean(images, axis=3), compute_uv=False)


def batch_of(n_images, image_size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_images, image_size, image_size, 3)).astype(np.float32)
