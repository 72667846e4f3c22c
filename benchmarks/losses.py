"""The ways to compute a loss of labelled embeddings and its gradient that people use today, each judged.

`RIVALS` is the only list: the report and the tests read it. Formulations are written from their definitions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facenet_fast import Strategy, batch_all_loss

from .loss_rules import DEFINITIONS, MARGINS, expected, judge
from .regimes import Regime
from .rivals import tensorflow, why_not
from .rules import Labels, Rows

__all__ = ["BASES", "NATIVE", "PEER_DISTANCE", "RIVALS", "LossRival"]

# What all rivals measure by unless told otherwise.
PEER_DISTANCE = "euclidean"

Compute = Callable[[], tuple[float, npt.NDArray[Any]]]


@dataclass(frozen=True)
class LossRival:
    """One way to compute a loss.

    Attributes
    ----------
    name : str
        As the table calls it.
    definition : str
        The loss: a key of `loss_rules.DEFINITIONS`.
    prepare : callable
        (rows, labels, distance, n_threads) to a function without arguments that returns the loss and its
        gradient. Compiling, starting threads and converting the batch happen here, untimed.
    packages : tuple of str
        What it imports.
    n_bytes : callable
        (n_rows, images per identity) to about what it allocates where all triplets violate, as measured.
    is_exact : bool
        Whether it must mistake no triplet for another.
    """

    name: str
    definition: str
    prepare: Callable[[Rows, Labels, str, int], Compute]
    packages: tuple[str, ...] = ()
    n_bytes: Callable[[int, int], float] = lambda n, k: 0.0
    is_exact: bool = False

    def why_not(self, n_rows: int, n_images: int, memory_limit: float) -> str:
        """Return why this rival cannot compute such a batch's loss here; empty if it can."""
        return why_not(self.packages, self.n_bytes(n_rows, n_images), memory_limit)

    def judge(
        self, answer: tuple[float, Rows], shape: tuple[int, int, int], regime: Regime, distance: str
    ) -> None:
        """Raise `AssertionError` unless the answer is right for that pool."""
        judge(*answer, expected(self.definition, *shape, regime, distance), self.is_exact)


# -- this library --------------------------------------------------------------------------------------------


def _native(strategy: Strategy | str) -> Callable[[Rows, Labels, str, int], Compute]:
    """Sum up with the threads that users get without asking."""

    def prepare(rows: Rows, labels: Labels, distance: str, n_threads: int) -> Compute:
        def compute() -> tuple[float, npt.NDArray[Any]]:
            found = batch_all_loss(
                rows, labels, strategy=strategy, margin=MARGINS[distance], distance=distance
            )
            return found.loss, found.gradient

        return compute

    return prepare


def _batch_all(tf: Any, labels: Any, rows: Any, distance: str, implementation: str) -> Any:
    from facenet_fast.losses import batch_all_triplet_loss

    return batch_all_triplet_loss(labels, rows, MARGINS[distance], distance, implementation=implementation)


def _semi_hard(tf: Any, labels: Any, rows: Any, distance: str, implementation: str) -> Any:
    from facenet_fast.losses.addons import DISTANCE_METRICS, triplet_semihard_loss

    metric = next(theirs for theirs, ours in DISTANCE_METRICS.items() if ours == distance)
    return triplet_semihard_loss(labels, rows, MARGINS[distance], metric, implementation=implementation)


# -- TensorFlow ----------------------------------------------------------------------------------------------


def _graph(
    loss_of: Callable[..., Any], is_compiled: bool = False, **options: Any
) -> Callable[[Rows, Labels, str, int], Compute]:
    """Compute ``loss_of(tf, labels, rows, distance, **options)`` and its gradient in one `tf.function`."""

    def prepare(rows: Rows, labels: Labels, distance: str, n_threads: int) -> Compute:
        tf = tensorflow(n_threads)
        inputs = tf.constant(rows), tf.constant(labels)

        @tf.function(jit_compile=is_compiled)  # type: ignore[untyped-decorator]
        def step(rows: Any, labels: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                tape.watch(rows)
                loss = loss_of(tf, labels, rows, distance, **options)
            return loss, tape.gradient(loss, rows)

        def compute() -> tuple[float, npt.NDArray[Any]]:
            loss, gradient = step(*inputs)
            return float(loss), np.asarray(gradient.numpy())

        step.get_concrete_function(*inputs)
        if is_compiled:
            compute()
        return compute

    return prepare


def _distances(tf: Any, rows: Any, distance: str) -> Any:
    """Return all distances, from products, with a finite slope at 0."""
    norms = tf.reduce_sum(tf.square(rows), axis=1)
    products = tf.matmul(rows, rows, transpose_b=True)
    squared = tf.nn.relu(norms[:, None] - 2.0 * products + norms[None, :])
    if distance == "squared_euclidean":
        return squared
    is_zero = tf.cast(squared == 0.0, squared.dtype)
    return tf.sqrt(squared + 1e-16 * is_zero) * (1.0 - is_zero)


def _cubic_batch_all(tf: Any, labels: Any, rows: Any, distance: str) -> Any:
    """Mask an N x N x N tensor of all differences, as omoindrot's tutorial formulates it."""
    d = _distances(tf, rows, distance)
    same = labels[:, None] == labels[None, :]
    positive = same & ~tf.eye(tf.size(labels), dtype=tf.bool)
    # [anchor, positive, negative]
    is_triplet = tf.cast(positive[:, :, None] & ~same[:, None, :], d.dtype)
    losses = tf.nn.relu((d[:, :, None] - d[:, None, :] + MARGINS[distance]) * is_triplet)
    n_violating = tf.reduce_sum(tf.cast(losses > 1e-16, d.dtype))
    return tf.reduce_sum(losses) / (n_violating + 1e-16)


def _cubic_semi_hard(tf: Any, labels: Any, rows: Any, distance: str) -> Any:
    """Reduce N x N rows of N distances by float masks, as TensorFlow Addons formulates it."""
    n = tf.size(labels)
    d = _distances(tf, rows, distance)
    same = labels[:, None] == labels[None, :]
    # Row (positive, anchor): from the anchor to all.
    d_an = tf.tile(d, [n, 1])
    farther = tf.tile(~same, [n, 1]) & (d_an > tf.reshape(tf.transpose(d), [-1, 1]))
    mask = tf.cast(farther, d.dtype)
    most = tf.reduce_max(d_an, axis=1, keepdims=True)
    nearest_farther = tf.reduce_min((d_an - most) * mask, axis=1, keepdims=True) + most
    has_farther = tf.transpose(tf.reshape(tf.reduce_sum(mask, axis=1) > 0.0, [n, n]))
    nearest_farther = tf.transpose(tf.reshape(nearest_farther, [n, n]))
    least = tf.reduce_min(d, axis=1, keepdims=True)
    farthest = tf.reduce_max((d - least) * tf.cast(~same, d.dtype), axis=1, keepdims=True) + least
    chosen = tf.where(has_farther, nearest_farther, farthest)
    is_pair = tf.cast(same, d.dtype) - tf.eye(n, dtype=d.dtype)
    losses = tf.nn.relu((d - chosen + MARGINS[distance]) * is_pair)
    return tf.reduce_sum(losses) / tf.reduce_sum(is_pair)


# -- PyTorch -------------------------------------------------------------------------------------------------


def _metric_learning(type_of_triplets: str) -> Callable[[Rows, Labels, str, int], Compute]:
    """Mine with `TripletMarginMiner`, take `TripletMarginLoss`'s mean over what is not 0, and go back."""

    def prepare(rows: Rows, labels: Labels, distance: str, n_threads: int) -> Compute:
        import torch
        from pytorch_metric_learning import distances, losses, miners

        torch.set_num_threads(n_threads)
        with warnings.catch_warnings():
            # The first way back looks for a GPU, and complains where TensorFlow has looked before.
            warnings.filterwarnings("ignore", "CUDA initialization")
            torch.ones(1, requires_grad=True).sum().backward()
        power = 2 if distance == "squared_euclidean" else 1
        measure = distances.LpDistance(normalize_embeddings=False, p=2, power=power)
        margin = MARGINS[distance]
        miner = miners.TripletMarginMiner(margin, type_of_triplets, distance=measure)
        loss_of = losses.TripletMarginLoss(margin, distance=measure)
        embeddings, identities = torch.from_numpy(rows).requires_grad_(), torch.from_numpy(labels)

        def compute() -> tuple[float, npt.NDArray[Any]]:
            embeddings.grad = None
            loss = loss_of(embeddings, identities, miner(embeddings, identities))
            loss.backward()
            return loss.item(), np.asarray(embeddings.grad.numpy())

        return compute

    return prepare


EVERY, EVERY_SEMI_HARD, ONE_EACH = DEFINITIONS

NATIVE = "facenet-fast, `batch_all_loss`"

RIVALS = (
    LossRival(NATIVE, EVERY, _native("batch_all"), is_exact=True),
    LossRival(
        "facenet-fast, `BatchAllTripletLoss`",
        EVERY,
        _graph(_batch_all, implementation="native"),
        ("tensorflow",),
        is_exact=True,
    ),
    LossRival(
        "facenet-fast, the same in plain TensorFlow",
        EVERY,
        _graph(_batch_all, implementation="tensorflow"),
        ("tensorflow",),
        lambda n, k: 110.0 * n**2,
    ),
    LossRival(
        "omoindrot's formulation",
        EVERY,
        _graph(_cubic_batch_all),
        ("tensorflow",),
        lambda n, k: 14.0 * n**3,
    ),
    LossRival(
        "omoindrot's formulation, compiled by XLA",
        EVERY,
        _graph(_cubic_batch_all, is_compiled=True),
        ("tensorflow",),
        lambda n, k: 9.0 * n**3,
    ),
    LossRival(
        "pytorch-metric-learning, `all`",
        EVERY,
        _metric_learning("all"),
        ("torch", "pytorch_metric_learning"),
        lambda n, k: 80.0 * n * (k - 1) * (n - k),
    ),
    LossRival(
        "facenet-fast, `batch_all_loss`, semi-hard",
        EVERY_SEMI_HARD,
        _native(Strategy("semi_hard", "both_ways", "every")),
        is_exact=True,
    ),
    LossRival(
        "pytorch-metric-learning, `semihard`",
        EVERY_SEMI_HARD,
        _metric_learning("semihard"),
        ("torch", "pytorch_metric_learning"),
        lambda n, k: 80.0 * n * (k - 1) * (n - k),
    ),
    LossRival(
        "facenet-fast, `TripletSemiHardLoss`",
        ONE_EACH,
        _graph(_semi_hard, implementation="native"),
        ("tensorflow",),
        is_exact=True,
    ),
    LossRival(
        "TensorFlow Addons' formulation",
        ONE_EACH,
        _graph(_cubic_semi_hard),
        ("tensorflow",),
        lambda n, k: 15.0 * n**3,
    ),
)

# By definition, the rival that the others are compared with: the first, of this library.
BASES = {rival.definition: rival.name for rival in reversed(RIVALS)}
