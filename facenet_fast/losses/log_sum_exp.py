"""The triplet loss of each pair against all negatives at once: log-sum-exp in the place of the hardest one.

No triplets are picked. Rows are looked at a block of anchors at a time, ``(anchors, N)``, and again for the
gradient, so memory is that of a few blocks, however large the pool is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import tensorflow as tf

from facenet_fast.mining.checks import check_positive, check_word

from .distances import rows_of_distance
from .labelled import LabelledLoss, mean_over_anchors, not_finite, prepare
from .recipe import DISTANCES

__all__ = ["LogSumExpTripletLoss", "log_sum_exp_triplet_loss", "mean_over_pairs", "pair_sums"]

# Elements of a block: 4 MiB of float32, a few such temporaries, two of float64.
_BLOCK_SIZE = 2**20


def log_sum_exp_triplet_loss(
    y_true: Any,
    y_pred: Any,
    margin: float = 0.2,
    sharpness: float = 16.0,
    distance: str = "squared_euclidean",
    *,
    sample_weight: Any = None,
) -> tf.Tensor:
    r"""Mean smooth hinge over all pairs of images of one identity, each against all of its negatives.

    .. math:: \frac{1}{n} \sum_{(a, p)} \frac{1}{s} \log\Big(1 + \sum_n e^{s (d_{ap} - d_{an} + m)}\Big)

    over the n ordered pairs, with margin m and sharpness s. The sharper, the nearer it is to the hinge of the
    hardest negative, ``max(d_ap - min_n d_an + m, 0)``, which it is never below; the softer, the more
    negatives have a say. It does not rest where all negatives are beyond the margin. With ``L_a`` the
    log-sum-exp of ``-s d_an`` over the negatives of an anchor, a pair costs
    ``softplus(s (d_ap + m) + L_a) / s``: O(N² E) time, and memory of a few blocks of rows.

    Parameters
    ----------
    y_true : array_like, shape (N,) or (N, 1)
        Labels of any dtype.
    y_pred : array_like, shape (N, E)
        Embeddings, best at unit length.
    margin : float, default 0.2
        In the unit of the distance.
    sharpness : float, default 16.0
        One over the difference of distances that counts as small.
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
    sample_weight : array_like, shape (N,), optional
        Weighs the pairs of each anchor.

    Returns
    -------
    tf.Tensor
        A scalar: 0 with gradient 0 where no pair has a negative, NaN if an embedding is not finite.

    Raises
    ------
    TypeError, ValueError
        As `facenet_fast.losses.triplet_loss`.

    References
    ----------
    Sohn 2016, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, section 3.1: one positive
    against many negatives. Song et al. 2016, Deep Metric Learning via Lifted Structured Feature Embedding,
    section 4: all pairs of a batch, with log-sum-exp as a smooth maximum. Sun et al. 2020, Circle Loss,
    section 2: margin and scale within it (equation 1), and that it becomes the hinge of the hardest
    (equation 3); theirs sums over the positives, too.

    Examples
    --------
    >>> from facenet_fast.losses import log_sum_exp_triplet_loss
    >>> labels, embeddings = ["ann", "ann", "bob"], [[0.0], [1.0], [1.5]]
    >>> round(float(log_sum_exp_triplet_loss(labels, embeddings, sharpness=1.0)), 6)
    0.788507
    """
    losses = _anchor_losses(y_true, y_pred, *_checked(margin, sharpness, distance))
    return mean_over_anchors(losses, sample_weight)


@keras.saving.register_keras_serializable(package="facenet_fast")
class LogSumExpTripletLoss(LabelledLoss):
    """`log_sum_exp_triplet_loss` for `model.compile`.

    Parameters
    ----------
    margin, sharpness, distance
        As of `log_sum_exp_triplet_loss`.
    reduction : str, default "sum_over_batch_size"
        As Keras has it, over the anchors: the default is the mean over the pairs.
    name, dtype
        As of `keras.losses.Loss`.

    Raises
    ------
    TypeError, ValueError
        As `log_sum_exp_triplet_loss`.

    Examples
    --------
    >>> import keras
    >>> from facenet_fast.losses import LogSumExpTripletLoss
    >>> model = keras.Sequential([keras.layers.Dense(8), keras.layers.UnitNormalization()])
    >>> model.compile(optimizer="adam", loss=LogSumExpTripletLoss(margin=0.2))
    """

    def __init__(
        self,
        margin: float = 0.2,
        sharpness: float = 16.0,
        distance: str = "squared_euclidean",
        *,
        reduction: str = "sum_over_batch_size",
        name: str | None = "log_sum_exp_triplet_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.margin, self.sharpness, self.distance = _checked(margin, sharpness, distance)

    def losses_of(self, labels: Any, embeddings: Any) -> tf.Tensor:
        """Return the losses of the anchors."""
        return _anchor_losses(labels, embeddings, self.margin, self.sharpness, self.distance)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the same loss of."""
        return {
            **super().get_config(),
            "margin": self.margin,
            "sharpness": self.sharpness,
            "distance": self.distance,
        }


def _checked(margin: float, sharpness: float, distance: str) -> tuple[float, float, str]:
    check_word("distance", distance, DISTANCES)
    return check_positive("margin", margin), check_positive("sharpness", sharpness), distance


def _anchor_losses(labels: Any, embeddings: Any, margin: float, sharpness: float, distance: str) -> tf.Tensor:
    """Return the losses of the anchors, whose mean is the loss over the pairs."""
    y, x = prepare(labels, embeddings)
    # The cosine's come in float64.
    rows, distance = rows_of_distance(x, distance)
    sums, n_pairs, _ = pair_sums(y, rows, margin, sharpness, distance)
    n_rows = tf.cast(tf.shape(x)[0], x.dtype)
    return tf.math.divide_no_nan(tf.cast(sums, x.dtype) * n_rows, tf.cast(n_pairs, x.dtype)) + not_finite(x)


def mean_over_pairs(
    labels: Any, embeddings: Any, margin: float, sharpness: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`log_sum_exp_triplet_loss` of squared distances, and the counts of `pair_sums`, for training."""
    y, x = prepare(labels, embeddings)
    sums, n_pairs, n_violating = pair_sums(y, x, margin, sharpness)
    loss = tf.math.divide_no_nan(tf.reduce_sum(sums), tf.cast(n_pairs, x.dtype)) + not_finite(x)
    return loss, n_pairs, n_violating


def pair_sums(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    margin: float,
    sharpness: float,
    distance: str = "squared_euclidean",
    anchors: tuple[Any, Any] | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sum the losses of each anchor's pairs.

    Works eagerly, in a `tf.function` (N need not be known) and compiled by XLA (labels that are not strings).

    Parameters
    ----------
    labels : tf.Tensor, shape (N,)
        The identity of each row.
    embeddings : tf.Tensor, shape (N, E)
        float32 or float64; finite, as `facenet_fast.losses.labelled.prepare` sees to.
    margin, sharpness : float
        Positive.
    distance : {"squared_euclidean", "euclidean"}
    anchors : tuple of two int, optional
        First row that is an anchor, and the one after the last; default: all are. Sums, counts and gradients
        of parts of the rows add up to those of all.

    Returns
    -------
    sums : tf.Tensor, shape (N,)
        For each row the sum of the losses of the pairs that it is the anchor of; differentiable once. 0 for
        rows that are no anchors.
    n_pairs : tf.Tensor
        int32: how many ordered pairs of two rows of one identity have a negative.
    n_violating : tf.Tensor
        int32: how many of them have one with ``d_an < d_ap + margin``.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from facenet_fast.losses.log_sum_exp import pair_sums
    >>> labels, embeddings = tf.constant([7, 7, 9]), tf.constant([[0.0], [1.0], [1.5]])
    >>> sums, n_pairs, n_violating = pair_sums(labels, embeddings, margin=0.5, sharpness=100.0)
    >>> sums.numpy().round(3).tolist(), int(n_pairs), int(n_violating)
    ([0.0, 1.25, 0.0], 2, 1)
    """
    if labels.dtype == tf.string:
        # Numbers are compared faster, and a graph may be on a device that has no text.
        labels = tf.unique(labels).idx
    forward, backward = _graphs(margin, sharpness, distance, embeddings.dtype, labels.dtype)
    first, last = (tf.cast(row, tf.int32) for row in anchors or (0, tf.shape(embeddings)[0]))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def sums_of(rows: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable[..., tf.Tensor]]:
        sums, n_pairs, n_violating, nearest, spread = forward(labels, rows, first, last)

        def gradient(upstream: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
            return backward(labels, rows, first, last, nearest, spread, upstream)

        return (sums, n_pairs, n_violating), gradient

    sums, n_pairs, n_violating = sums_of(embeddings)
    return sums, n_pairs, n_violating


@lru_cache(maxsize=256)
def _graphs(
    margin: float, sharpness: float, distance: str, dtype: tf.DType, label_dtype: tf.DType
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return loss and gradient as graphs: an eager tape sees one operation each and not all blocks."""
    blocks = _Blocks(margin, sharpness, distance)
    labels, rows = tf.TensorSpec([None], label_dtype), tf.TensorSpec([None, None], dtype)
    column, row = tf.TensorSpec([None], dtype), tf.TensorSpec([], tf.int32)
    # Kept for later calls, so with nothing of where the first one happens to be made.
    with tf.init_scope(), tf.device(None):
        forward = tf.function(blocks.losses, autograph=False)
        backward = tf.function(blocks.gradient, autograph=False)
        return (
            forward.get_concrete_function(labels, rows, row, row),
            backward.get_concrete_function(labels, rows, row, row, column, column, column),
        )


@dataclass(frozen=True)
class _Blocks:
    """Loss and gradient of one formula, by blocks of anchors.

    The log-sum-exp of an anchor's negatives is kept in two parts, so that distances are subtracted before
    they are multiplied: ``-s * nearest``, and ``spread``, which is at least 0, or minus infinity without any.
    In blocks, ``beyond`` is ``s (d - nearest)``. Each pass over a block takes time: there are few of them.
    """

    margin: float
    sharpness: float
    distance: str

    def losses(
        self, labels: tf.Tensor, rows: tf.Tensor, first: tf.Tensor, last: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Return what `pair_sums` does, and of each row as an anchor ``nearest`` and ``spread``."""

        def add_block(
            block: _Block, columns: tf.Tensor, n_pairs: tf.Tensor, n_violating: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            infinity = tf.constant(float("inf"), rows.dtype)
            nearest = tf.reduce_min(tf.where(block.is_negative, block.distances, infinity), axis=1)
            has_negative = nearest < infinity
            nearest = tf.where(has_negative, nearest, 0.0)
            beyond = self.sharpness * (block.distances - nearest[:, None])
            each = tf.where(block.is_negative, tf.exp(-beyond), 0.0)
            spread = tf.math.log(tf.reduce_sum(each, axis=1))
            costs = tf.where(block.is_pair, _softplus(self._excess(beyond, spread)), 0.0)
            losses = tf.reduce_sum(costs, axis=1) / self.sharpness
            is_violating = block.is_pair & (beyond > -self.sharpness * self.margin)
            is_there = block.is_there & has_negative
            found = tf.stack((losses, nearest, spread), axis=1)
            found = tf.where(block.is_there[:, None], found, 0.0)
            return (
                tf.tensor_scatter_nd_add(columns, block.anchors[:, None], found),
                n_pairs + _count(block.is_pair, is_there),
                n_violating + _count(is_violating, is_there),
            )

        none = tf.zeros([], tf.int32)
        columns = tf.zeros((tf.shape(rows)[0], 3), rows.dtype)
        columns, n_pairs, n_violating = self._over_blocks(
            labels, rows, first, last, add_block, (columns, none, none)
        )
        losses, nearest, spread = tf.unstack(columns, axis=1)
        return losses, n_pairs, n_violating, nearest, spread

    def gradient(
        self,
        labels: tf.Tensor,
        rows: tf.Tensor,
        first: tf.Tensor,
        last: tf.Tensor,
        nearest: tf.Tensor,
        spread: tf.Tensor,
        upstream: tf.Tensor,
    ) -> tf.Tensor:
        """Return the gradient of the losses, each times its part of `upstream`, by the rows."""
        wide = self._wide(rows)

        def add_block(block: _Block, gradient: tf.Tensor) -> tuple[tf.Tensor]:
            beyond = self.sharpness * (block.distances - tf.gather(nearest, block.anchors)[:, None])
            its_spread = tf.gather(spread, block.anchors)
            # Of d = |x - y|**2: 2 (x - y) by x, and as much the other way by y.
            by_loss = 2.0 * tf.where(block.is_there, tf.gather(upstream, block.anchors), 0.0)
            to_pairs = tf.sigmoid(self._excess(beyond, its_spread)) * by_loss[:, None]
            to_pairs = tf.where(block.is_pair, to_pairs, 0.0)
            shares = tf.exp(-beyond - its_spread[:, None])
            to_negatives = -tf.reduce_sum(to_pairs, axis=1, keepdims=True) * shares
            slopes = tf.where(block.is_negative, to_negatives, to_pairs)
            if self.distance == "euclidean":
                slopes = tf.math.divide_no_nan(slopes, 2.0 * block.distances)
            slopes = tf.cast(slopes, wide.dtype)
            own = tf.gather(wide, block.anchors)
            by_anchor = tf.reduce_sum(slopes, axis=1)[:, None] * own - tf.matmul(slopes, wide)
            pull = tf.matmul(slopes, own, transpose_a=True)
            by_other = tf.reduce_sum(slopes, axis=0)[:, None] * wide - pull
            return (tf.tensor_scatter_nd_add(gradient + by_other, block.anchors[:, None], by_anchor),)

        (gradient,) = self._over_blocks(labels, rows, first, last, add_block, (tf.zeros_like(wide),))
        return tf.cast(gradient, rows.dtype)

    def _wide(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the rows as they are multiplied: seen from one of them, so that those alike are short.

        In float64 where float32 is not enough: GPUs multiply it with ten bits (TensorFloat-32) unless told
        otherwise, and a root magnifies what is wrong with small distances. On CPUs it takes several times as
        long.
        """
        needs_more = self.distance == "euclidean" or tf.config.list_physical_devices("GPU")
        wide = tf.cast(rows, tf.float64 if needs_more else rows.dtype)
        return wide - wide[:1]

    def _excess(self, beyond: tf.Tensor, spread: tf.Tensor) -> tf.Tensor:
        return beyond + (self.sharpness * self.margin + spread)[:, None]

    def _over_blocks(
        self,
        labels: tf.Tensor,
        rows: tf.Tensor,
        first: tf.Tensor,
        last: tf.Tensor,
        add_block: Callable[..., Any],
        sums: tuple[tf.Tensor, ...],
    ) -> tuple[tf.Tensor, ...]:
        """Add up what `add_block` makes of all blocks of the anchors from `first` to before `last`."""
        n_rows = tf.shape(rows)[0]
        n_at_once = tf.clip_by_value(_BLOCK_SIZE // tf.maximum(n_rows, 1), 1, tf.maximum(n_rows, 1))
        # Out here, as XLA does not know these sizes inside the loop.
        places, columns = tf.range(n_at_once), tf.range(n_rows)
        wide = self._wide(rows)
        squared_norms = tf.reduce_sum(tf.square(wide), axis=1)

        def add(number: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Numbers beyond the last anchor fill the last block; what stands there is masked.
            anchors = first + number * n_at_once + places
            is_there = anchors < last
            anchors = tf.minimum(anchors, last - 1)
            products = tf.matmul(-2.0 * tf.gather(wide, anchors), wide, transpose_b=True)
            squared = tf.gather(squared_norms, anchors)[:, None] + squared_norms + products
            distances = tf.cast(tf.nn.relu(squared), rows.dtype)
            if self.distance == "euclidean":
                distances = tf.sqrt(distances)
            is_same = tf.equal(tf.gather(labels, anchors)[:, None], labels)
            block = _Block(anchors, is_there, distances, is_same & (anchors[:, None] != columns), ~is_same)
            return number + 1, *add_block(block, *sums)

        _, *sums_of_all = tf.while_loop(
            lambda number, *_: first + number * n_at_once < last,
            add,
            (tf.constant(0), *sums),
            parallel_iterations=1,
        )
        return tuple(sums_of_all)


@dataclass(frozen=True)
class _Block:
    """Some anchors beside all rows.

    Attributes
    ----------
    anchors : tf.Tensor, shape (n,)
        Rows.
    is_there : tf.Tensor, shape (n,)
        Whether an anchor is none that only fills the block.
    distances : tf.Tensor, shape (n, N)
        Not exactly 0 from a row to itself.
    is_pair, is_negative : tf.Tensor, shape (n, N)
        Whether another row is of the anchor's identity, and whether it is of another one.
    """

    anchors: tf.Tensor
    is_there: tf.Tensor
    distances: tf.Tensor
    is_pair: tf.Tensor
    is_negative: tf.Tensor


def _count(marks: tf.Tensor, in_rows: tf.Tensor) -> tf.Tensor:
    """Count the marks of some rows."""
    by_row = tf.math.count_nonzero(marks, axis=1, dtype=tf.int32)
    return tf.reduce_sum(tf.where(in_rows, by_row, 0))


def _softplus(x: tf.Tensor) -> tf.Tensor:
    # In a third of the time of TensorFlow's.
    return tf.nn.relu(x) + tf.math.log1p(tf.exp(-tf.abs(x)))
