"""Small TensorFlow 1 models as the predecessor saved them: metagraphs with checkpoints, and frozen graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1

IMAGE_SIZE = 12
EMBEDDING_SIZE = 5


@dataclass(frozen=True)
class Tf1Model:
    """A model on disk, and the session it was saved from.

    Attributes
    ----------
    folder : Path
        Holds ``model-STAMP.meta``, ``model-STAMP.ckpt-7.*`` and ``checkpoint``.
    prefix : str
        Of the checkpoint.
    frozen_path : Path
        The frozen graph.
    embed : callable
        float32 (n, S, S, 3) to (n, D): the model as it was built, not training, run by a session.
    """

    folder: Path
    prefix: str
    frozen_path: Path
    embed: Callable[[np.ndarray], np.ndarray]


def write_tf1_model(
    folder: Path,
    *,
    phase: str = "placeholder",
    feed: str = "placeholder",
    resource: bool = False,
    batch_size: int | None = None,
    reshape_to: int | None = None,
    with_input: bool = True,
) -> Tf1Model:
    """Build a network with the habits of slim, give it random weights and averages, and save it.

    Parameters
    ----------
    folder : Path
        Is made.
    phase : {"placeholder", "default", "absent"}
        What ``phase_train`` is. The default of "default" is True: nobody may rely on it.
    feed : {"placeholder", "queue"}
        Where ``image_batch`` comes from.
    resource : bool
        Whether variables are resources, or references as they were before 2018.
    batch_size : int, optional
        The images that ``image_batch`` holds; any number by default.
    reshape_to : int, optional
        The images for which the network reshapes, while ``image_batch`` says nothing.
    with_input : bool
        Whether there is an ``input`` after ``image_batch``.
    """
    folder.mkdir(parents=True)
    with control_flow_of_tf1(), tf.Graph().as_default() as graph:
        tf1.set_random_seed(1)
        phase_train: Any = {
            "placeholder": lambda: tf1.placeholder(tf.bool, name="phase_train"),
            "default": lambda: tf1.placeholder_with_default(True, (), name="phase_train"),
            "absent": lambda: None,
        }[phase]()
        shape = (batch_size, IMAGE_SIZE, IMAGE_SIZE, 3)
        if feed == "queue":
            images = tf.identity(queued_images(batch_size), name="image_batch")
        else:
            images = tf1.placeholder(tf.float32, shape, name="image_batch")
        if with_input:
            images = tf.identity(images, name="input")
        with tf1.variable_scope("Net", use_resource=resource):
            rows = network(images, phase_train, reshape_to)
        embeddings = tf.nn.l2_normalize(rows, 1, 1e-10, name="embeddings")
        add_training(embeddings)

        session = tf1.Session(graph=graph)
        rng = np.random.default_rng(5)
        session.run(tf1.global_variables_initializer())
        for variable in tf1.global_variables():
            is_variance = variable.op.name.endswith("variance")
            low, high = (0.5, 1.5) if is_variance else (-0.4, 0.4)
            variable.load(
                rng.uniform(low, high, variable.shape).astype(variable.dtype.as_numpy_dtype), session
            )
        stem = f"model-{folder.name}"
        prefix = tf1.train.Saver().save(
            session, str(folder / f"{stem}.ckpt"), global_step=7, write_meta_graph=False
        )
        tf1.train.export_meta_graph(str(folder / f"{stem}.meta"))
        frozen_path = folder / f"{stem}.pb"
        frozen_path.write_bytes(freeze_as_predecessor(session).SerializeToString())

    def embed(images: np.ndarray) -> np.ndarray:
        feeds = {("input:0" if with_input else "image_batch:0"): images}
        if phase != "absent":
            feeds["phase_train:0"] = False
        return np.asarray(session.run("embeddings:0", feeds))

    return Tf1Model(folder, prefix, frozen_path, embed)


@contextlib.contextmanager
def control_flow_of_tf1() -> Iterator[None]:
    """Let `tf.cond` make Switch and Merge."""
    tf1.disable_control_flow_v2()
    try:
        yield
    finally:
        tf1.enable_control_flow_v2()


def network(images: Any, phase_train: Any, reshape_to: int | None) -> Any:
    """Convolve, normalise (both kinds), drop and multiply: what slim makes of each, in miniature."""
    x = tf.nn.conv2d(images, weights("conv1", (3, 3, 3, 4)), 1, "VALID")
    x = tf.nn.relu(batch_norm(x, phase_train, "norm1", fused=False))
    x = tf.nn.conv2d(x, weights("conv2", (3, 3, 4, 6)), 2, "SAME")
    x = tf.nn.relu(batch_norm(x, phase_train, "norm2", fused=True))
    x = tf.reduce_mean(x, axis=[1, 2])
    if reshape_to:
        # Not to (reshape_to, 6): TensorFlow takes that for granted and lets it go.
        x = tf.reshape(x, (1, reshape_to, 6))[0]
    if phase_train is not None:
        x = tf1.cond(phase_train, lambda: tf.nn.dropout(x, 0.5), lambda: tf.identity(x))
    return tf.matmul(x, weights("bottleneck", (6, EMBEDDING_SIZE)))


def weights(name: str, shape: tuple[int, ...]) -> Any:
    return tf1.get_variable(f"{name}/weights", shape)


def batch_norm(x: Any, phase_train: Any, name: str, *, fused: bool) -> Any:
    """Normalise by the batch and update the averages if training, by the averages if not."""
    with tf1.variable_scope(name):
        n_channels = x.shape[-1]
        beta = tf1.get_variable("beta", (n_channels,))
        ones = tf.ones((n_channels,))
        mean = tf1.get_variable("moving_mean", (n_channels,), trainable=False)
        variance = tf1.get_variable("moving_variance", (n_channels,), trainable=False)

        def updates(batch_mean: Any, batch_variance: Any) -> list[Any]:
            return [
                tf1.assign_sub(average, 0.1 * (average - value))
                for average, value in ((mean, batch_mean), (variance, batch_variance))
            ]

        def of_batch() -> tuple[Any, Any]:
            moments = tf.nn.moments(x, [0, 1, 2])
            with tf1.control_dependencies(updates(*moments)):
                return tf.identity(moments[0]), tf.identity(moments[1])

        def fused_of_batch() -> Any:
            y, *moments = tf1.nn.fused_batch_norm(x, ones, beta, epsilon=1e-3, is_training=True)
            with tf1.control_dependencies(updates(*moments)):
                return tf.identity(y)

        def fused_of_averages() -> Any:
            return tf1.nn.fused_batch_norm(x, ones, beta, mean, variance, 1e-3, is_training=False)[0]

        if fused:
            return (
                fused_of_averages()
                if phase_train is None
                else tf1.cond(phase_train, fused_of_batch, fused_of_averages)
            )
        used = (mean, variance)
        if phase_train is not None:
            # The averages come out of the branch itself, so that references go through RefSwitch.
            used = tf1.cond(phase_train, of_batch, lambda: (mean, variance))
        return tf.nn.batch_normalization(x, *used, beta, None, 1e-3)


def queued_images(batch_size: int | None) -> Any:
    """Read, decode and batch pictures in queues."""
    paths = tf1.placeholder(tf.string, (None,), name="image_paths")
    path_queue = tf.queue.FIFOQueue(100, [tf.string], [()], name="input_queue")
    path_queue.enqueue_many([paths])
    image = tf.image.decode_image(tf.io.read_file(path_queue.dequeue()), channels=3)
    image = tf1.image.resize_image_with_crop_or_pad(image, IMAGE_SIZE, IMAGE_SIZE)
    image.set_shape((IMAGE_SIZE, IMAGE_SIZE, 3))
    image_queue = tf.queue.FIFOQueue(100, [tf.float32], [(IMAGE_SIZE, IMAGE_SIZE, 3)], name="batch_join")
    image_queue.enqueue([tf.image.per_image_standardization(image)])
    if batch_size:
        return image_queue.dequeue_many(batch_size)
    return image_queue.dequeue_up_to(tf1.placeholder(tf.int32, (), name="batch_size"))


def add_training(embeddings: Any) -> None:
    """Add a loss, its gradients and an optimizer with slots, none of which inference needs."""
    tf1.placeholder(tf.int64, (None,), name="label_batch")
    loss = tf.reduce_sum(embeddings[:1], name="total_loss")
    learning_rate = tf1.placeholder(tf.float32, (), name="learning_rate")
    tf1.train.MomentumOptimizer(learning_rate, 0.9).minimize(
        loss, global_step=tf1.train.get_or_create_global_step(), name="train_op"
    )


def freeze_as_predecessor(session: Any) -> Any:
    """Turn variables into constants, after the predecessor's repairs of its batch normalisation."""
    graph = session.graph.as_graph_def()
    for node in graph.node:
        if node.op == "RefSwitch":
            node.op = "Switch"
            node.input[:] = [f"{name}/read" if "moving_" in name else name for name in node.input]
        elif node.op in ("AssignSub", "AssignAdd"):
            node.op = node.op.removeprefix("Assign")
            del node.attr["use_locking"]
    return tf1.graph_util.convert_variables_to_constants(session, graph, ["embeddings"])
