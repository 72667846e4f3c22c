"""The predecessor's Inception-ResNet-v1 in TensorFlow 1, with random weights, as it stores it.

Written from its description, operation by operation, to be what ours is compared with.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1


@dataclass(frozen=True)
class Stored:
    """The files of one network, and what it makes of some images."""

    folder: Path  # a checkpoint as the predecessor publishes it, and some that it does not use beside it
    prefix: Path
    graph: Path
    images: np.ndarray
    embeddings: np.ndarray


class Slim:
    """The few layers that the network is made of, under slim's names."""

    def __init__(self):
        self.n = 0

    def variable(self, name, shape, low=None, high=None, deviation=None):
        self.n += 1
        if deviation is None:
            draw = tf1.random_uniform_initializer(low, high, seed=self.n)
        else:
            draw = tf1.random_normal_initializer(0.0, deviation, seed=self.n)
        return tf1.get_variable(name, shape, tf.float32, draw, use_resource=False)

    def batch_norm(self, x):
        n = x.shape[-1]
        with tf1.variable_scope("BatchNorm"):
            beta = self.variable("beta", [n], -0.3, 0.5)
            mean = self.variable("moving_mean", [n], -0.3, 0.3)
            variance = self.variable("moving_variance", [n], 0.5, 1.5)
        return tf.nn.batch_normalization(x, mean, variance, beta, None, 1e-3)

    def conv(self, name, x, width, height_width, stride=1, padding="SAME", plain=False):
        height, across = height_width
        n_in = x.shape[-1]
        with tf1.variable_scope(name):
            # Of this deviation the variance stays what it was through kernel and ReLU.
            deviation = (2.0 / (height * across * int(n_in))) ** 0.5
            kernel = self.variable("weights", [height, across, n_in, width], deviation=deviation)
            x = tf.nn.conv2d(x, kernel, [1, stride, stride, 1], padding)
            if plain:
                return x + self.variable("biases", [width], -0.3, 0.3)
            return tf.nn.relu(self.batch_norm(x))


@contextmanager
def scope(*names):
    with tf1.variable_scope("/".join(names)):
        yield


def pool(x):
    return tf.nn.max_pool2d(x, 3, 2, "VALID")


def block35(slim, x):
    with scope("Branch_0"):
        a = slim.conv("Conv2d_1x1", x, 32, (1, 1))
    with scope("Branch_1"):
        b = slim.conv("Conv2d_0a_1x1", x, 32, (1, 1))
        b = slim.conv("Conv2d_0b_3x3", b, 32, (3, 3))
    with scope("Branch_2"):
        c = slim.conv("Conv2d_0a_1x1", x, 32, (1, 1))
        c = slim.conv("Conv2d_0b_3x3", c, 32, (3, 3))
        c = slim.conv("Conv2d_0c_3x3", c, 32, (3, 3))
    up = slim.conv("Conv2d_1x1", tf.concat([a, b, c], 3), 256, (1, 1), plain=True)
    return tf.nn.relu(x + 0.17 * up)


def block17(slim, x):
    with scope("Branch_0"):
        a = slim.conv("Conv2d_1x1", x, 128, (1, 1))
    with scope("Branch_1"):
        b = slim.conv("Conv2d_0a_1x1", x, 128, (1, 1))
        b = slim.conv("Conv2d_0b_1x7", b, 128, (1, 7))
        b = slim.conv("Conv2d_0c_7x1", b, 128, (7, 1))
    up = slim.conv("Conv2d_1x1", tf.concat([a, b], 3), 896, (1, 1), plain=True)
    return tf.nn.relu(x + 0.10 * up)


def block8(slim, x):
    with scope("Branch_0"):
        a = slim.conv("Conv2d_1x1", x, 192, (1, 1))
    with scope("Branch_1"):
        b = slim.conv("Conv2d_0a_1x1", x, 192, (1, 1))
        b = slim.conv("Conv2d_0b_1x3", b, 192, (1, 3))
        b = slim.conv("Conv2d_0c_3x1", b, 192, (3, 1))
    return slim.conv("Conv2d_1x1", tf.concat([a, b], 3), 1792, (1, 1), plain=True)


def mixed_6a(slim, x):
    with scope("Branch_0"):
        a = slim.conv("Conv2d_1a_3x3", x, 384, (3, 3), 2, "VALID")
    with scope("Branch_1"):
        b = slim.conv("Conv2d_0a_1x1", x, 192, (1, 1))
        b = slim.conv("Conv2d_0b_3x3", b, 192, (3, 3))
        b = slim.conv("Conv2d_1a_3x3", b, 256, (3, 3), 2, "VALID")
    return tf.concat([a, b, pool(x)], 3)


def mixed_7a(slim, x):
    with scope("Branch_0"):
        a = slim.conv("Conv2d_0a_1x1", x, 256, (1, 1))
        a = slim.conv("Conv2d_1a_3x3", a, 384, (3, 3), 2, "VALID")
    with scope("Branch_1"):
        b = slim.conv("Conv2d_0a_1x1", x, 256, (1, 1))
        b = slim.conv("Conv2d_1a_3x3", b, 256, (3, 3), 2, "VALID")
    with scope("Branch_2"):
        c = slim.conv("Conv2d_0a_1x1", x, 256, (1, 1))
        c = slim.conv("Conv2d_0b_3x3", c, 256, (3, 3))
        c = slim.conv("Conv2d_1a_3x3", c, 256, (3, 3), 2, "VALID")
    return tf.concat([a, b, c, pool(x)], 3)


def network(images, embedding_size):
    slim = Slim()
    with scope("InceptionResnetV1"):
        x = slim.conv("Conv2d_1a_3x3", images, 32, (3, 3), 2, "VALID")
        x = slim.conv("Conv2d_2a_3x3", x, 32, (3, 3), 1, "VALID")
        x = slim.conv("Conv2d_2b_3x3", x, 64, (3, 3))
        x = pool(x)
        x = slim.conv("Conv2d_3b_1x1", x, 80, (1, 1), 1, "VALID")
        x = slim.conv("Conv2d_4a_3x3", x, 192, (3, 3), 1, "VALID")
        x = slim.conv("Conv2d_4b_3x3", x, 256, (3, 3), 2, "VALID")
        for k in range(1, 6):
            with scope("Repeat", f"block35_{k}"):
                x = block35(slim, x)
        with scope("Mixed_6a"):
            x = mixed_6a(slim, x)
        for k in range(1, 11):
            with scope("Repeat_1", f"block17_{k}"):
                x = block17(slim, x)
        with scope("Mixed_7a"):
            x = mixed_7a(slim, x)
        for k in range(1, 6):
            with scope("Repeat_2", f"block8_{k}"):
                x = tf.nn.relu(x + 0.20 * block8(slim, x))
        with scope("Block8"):
            x += block8(slim, x)
        x = tf.reduce_mean(x, [1, 2])
        with scope("Bottleneck"):
            x = tf.matmul(x, slim.variable("weights", [1792, embedding_size], deviation=1792**-0.5))
            x = slim.batch_norm(x)
    return tf.nn.l2_normalize(x, 1, 1e-10, name="embeddings")


def store(folder, *, embedding_size=128, image_size=75):
    """Write the network's checkpoint and frozen graph, as the predecessor calls the files."""
    images = np.random.default_rng(1).normal(size=(2, image_size, image_size, 3)).astype(np.float32)
    with tf.Graph().as_default(), tf1.Session() as session:
        feed = tf1.placeholder(tf.float32, [None, image_size, image_size, 3], name="input")
        embeddings = network(feed, embedding_size)
        tf1.get_variable("global_step", [], tf.int64, tf1.zeros_initializer(), use_resource=False)
        tf1.get_variable("Logits/weights", [embedding_size, 10], use_resource=False)
        tf1.get_variable("InceptionResnetV1/Conv2d_1a_3x3/weights/Adam", [3, 3, 3, 32], use_resource=False)
        tf1.get_variable("centers", [10, embedding_size], use_resource=False)
        session.run(tf1.global_variables_initializer())
        prefix = folder / "model-20180402-114759.ckpt-275"
        tf1.train.Saver().save(session, str(prefix), write_meta_graph=False, latest_filename="not_published")
        tf1.train.export_meta_graph(str(folder / "model-20180402-114759.meta"))
        frozen = tf1.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), ["embeddings"]
        )
        graph = folder / "20180402-114759.pb"
        graph.write_bytes(frozen.SerializeToString())
        return Stored(folder, prefix, graph, images, session.run(embeddings, {feed: images}))
