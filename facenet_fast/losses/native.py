"""Triplet losses on the native miner: it picks the triplets, or sums all of them up, and TensorFlow goes on.

`tf.numpy_function` reaches it, which runs in eager code and in a `tf.function`; XLA does not compile it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from facenet_fast.mining import mine_triplets, nearest_neighbors
from facenet_fast.mining.batch_all import batch_all_sums

from .distances import distances_between, rows_of_distance
from .recipe import Recipe
from .triplet import penalties

__all__ = ["hardest_of_anchors", "loss_by_anchor"]

_Array = npt.NDArray[Any]


def loss_by_anchor(
    labels: tf.Tensor, embeddings: tf.Tensor, recipe: Recipe, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum the losses of each anchor's triplets.

    As `facenet_fast.losses.dense.loss_by_anchor`, with the miner's picks: keyed by the seed, decided as
    float64 does. Embeddings that are not finite have no triplets.

    Parameters
    ----------
    labels : tf.Tensor, shape (N,)
        The identity of each row.
    embeddings : tf.Tensor, shape (N, E)
        float32 or float64.
    recipe : Recipe
    seed : tf.Tensor, shape (2,)
        int32.

    Returns
    -------
    sums : tf.Tensor, shape (N,)
        Of the embeddings' dtype, differentiable once with respect to them.
    n_triplets : tf.Tensor
        A scalar of the same dtype.

    Raises
    ------
    ValueError
        If the miner refuses the batch; the message is its own.
    tf.errors.InvalidArgumentError
        Likewise, in a `tf.function`.
    """
    # For the cosine, rows whose squared distances are what is asked for.
    rows, distance = rows_of_distance(embeddings, recipe.distance)
    if recipe.strategy.pick == "every":
        sums, n_triplets = _sums_of_all(labels, rows, recipe, distance, seed)
        return tf.cast(sums, embeddings.dtype), tf.cast(n_triplets, embeddings.dtype)

    # The weights are those of rows at unit length, which the miner knows of the cosine only.
    weighs = recipe.strategy.pick == "distance_weighted"
    mined_distance = recipe.distance if weighs else distance

    def mine(labels: _Array, rows: _Array, seed: _Array) -> tuple[_Array, _Array, _Array]:
        if not np.isfinite(rows).all():
            nothing = np.empty(0, np.int32)
            return nothing, nothing, nothing
        found = mine_triplets(
            rows,
            labels,
            strategy=recipe.strategy,
            margin=recipe.margin,
            distance=mined_distance,
            seed=_one_seed(seed),
        )
        return found.anchor, found.positive, found.negative

    anchor, positive, negative = _call(mine, [labels, rows, seed], [tf.int32] * 3, [[None]] * 3)
    d_ap = distances_between(rows, anchor, positive, distance)
    d_an = distances_between(rows, anchor, negative, distance)
    losses = penalties(d_ap, d_an, recipe.margin, recipe.soft)
    sums = tf.math.unsorted_segment_sum(losses, anchor, tf.shape(rows)[0])
    return tf.cast(sums, embeddings.dtype), tf.cast(tf.size(losses), embeddings.dtype)


def hardest_of_anchors(
    labels: tf.Tensor, embeddings: tf.Tensor, distance: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Measure from each row to its farthest positive and to its nearest negative.

    Parameters
    ----------
    labels : tf.Tensor, shape (N,)
    embeddings : tf.Tensor, shape (N, E)
    distance : str
        A key of `facenet_fast.losses.recipe.DISTANCES`.

    Returns
    -------
    d_ap, d_an : tf.Tensor, shape (N,)
        0 from a row without a positive.
    has_triplets : tf.Tensor
        A scalar: whether the batch holds a triplet. Without any, the distances are to some row or other.
    """
    rows, distance = rows_of_distance(embeddings, distance)

    def find(labels: _Array, rows: _Array) -> tuple[_Array, _Array, np.bool_]:
        n = len(rows)
        positive, negative = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
        if not np.isfinite(rows).all():
            return positive, negative, np.bool_(False)
        found = mine_triplets(rows, labels, strategy="batch_hard")
        if len(found):
            positive[found.anchor], negative[found.anchor] = found.positive, found.negative
            alone = np.setdiff1d(np.arange(n), found.anchor)
            nearest = nearest_neighbors(
                rows[alone], rows, exclude="same_identity", labels=labels, query_labels=labels[alone]
            )
            negative[alone] = nearest.indices[:, 0]
        return positive, negative, np.bool_(len(found) > 0)

    positive, negative, has_triplets = _call(
        find, [labels, rows], [tf.int32, tf.int32, tf.bool], [[None], [None], []]
    )
    every = tf.range(tf.shape(rows)[0])
    d_ap, d_an = (distances_between(rows, every, other, distance) for other in (positive, negative))
    return tf.cast(d_ap, embeddings.dtype), tf.cast(d_an, embeddings.dtype), has_triplets


def _sums_of_all(
    labels: tf.Tensor, rows: tf.Tensor, recipe: Recipe, distance: str, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    def sums_and_gradient(
        labels: _Array, rows: _Array, seed: _Array, weights: _Array
    ) -> tuple[_Array, np.int64, _Array]:
        if not np.isfinite(rows).all():
            return np.zeros(len(rows), rows.dtype), np.int64(0), np.zeros_like(rows)
        sums, counts, gradient = batch_all_sums(
            rows,
            labels,
            strategy=recipe.strategy,
            margin=recipe.margin,
            soft=recipe.soft,
            distance=distance,
            weights=weights,
            seed=_one_seed(seed),
        )
        return sums.astype(rows.dtype), counts.sum(), gradient

    def call(rows: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
        return _call(
            sums_and_gradient,
            [labels, rows, seed, weights],
            [rows.dtype, tf.int64, rows.dtype],
            [[None], [], rows.shape],
        )

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def sums_of(rows: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable[..., tf.Tensor]]:
        sums, n_triplets, gradient = call(rows, tf.ones_like(rows[:, 0]))

        def backward(upstream: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            # Most often all anchors count alike; weights of their own ask for a gradient of their own.
            first = upstream[:1]
            is_finite = tf.reduce_all(tf.math.is_finite(upstream))
            by_rows = tf.cond(
                tf.reduce_all(upstream == first) | ~is_finite,
                lambda: gradient * tf.reduce_sum(first),
                lambda: call(rows, upstream)[2],
            )
            return by_rows * tf.where(is_finite, tf.ones([], rows.dtype), np.nan)

        return (sums, n_triplets), backward

    sums, n_triplets = sums_of(rows)
    return sums, n_triplets


def _call(
    function: Callable[..., Any], inputs: list[tf.Tensor], dtypes: list[tf.DType], shapes: list[Any]
) -> list[tf.Tensor]:
    outputs: list[tf.Tensor] = tf.numpy_function(function, inputs, dtypes, stateful=False)
    for output, shape in zip(outputs, shapes, strict=True):
        output.set_shape(shape)
    return outputs


def _one_seed(seed: _Array) -> int:
    high, low = (int(part) & 0xFFFFFFFF for part in seed)
    return high << 32 | low
