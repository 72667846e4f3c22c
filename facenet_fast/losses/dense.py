"""Triplet losses in plain TensorFlow: mining, loss and gradient of any strategy in a graph XLA compiles.

The distances between all rows are made once, (N, N). Which triplets there are, their losses and the slope of
the loss at each distance are found without being differentiated; the loss is then linear in the distances.
Pairs are looked at a tile at a time, ``(pairs, N)``, so memory is that of a few (N, N) matrices however many
triplets there are.

Where `facenet_fast.mining` decides as float64 does, this decides by distances in the embeddings' dtype. Of
equally far rows the first in the batch is taken. Chance has the same distribution, not the same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from facenet_fast.mining.sphere import weights
from facenet_fast.mining.strategies import Strategy

from .distances import pairwise_distances
from .recipe import Recipe

__all__ = ["loss_and_slopes", "loss_by_anchor"]

# Elements of a tile: 4 MiB of float32, a few such temporaries.
_TILE_SIZE = 2**20

# What a squared distance on the unit sphere is, by the distance of its rows.
_ON_SPHERE = {
    "squared_euclidean": lambda d: d,
    "euclidean": tf.square,
    "cosine": lambda d: 2.0 * d,
}

# Its bits are the same on every device, compiled or not.
_GENERATOR = "philox"


def loss_by_anchor(
    labels: tf.Tensor, embeddings: tf.Tensor, recipe: Recipe, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mine triplets and sum the losses of each anchor's.

    Works eagerly, in a `tf.function` (N need not be known) and compiled by XLA (labels that are not strings).
    With ``"distance_weighted"`` rows are taken to be at unit length unless the distance is ``"cosine"``.

    Parameters
    ----------
    labels : tf.Tensor, shape (N,)
        The identity of each row; any dtype that `tf.equal` compares.
    embeddings : tf.Tensor, shape (N, E)
        float32 or float64.
    recipe : Recipe
        Which triplets, and what each one's loss is.
    seed : tf.Tensor, shape (2,)
        int32. Equal seeds give equal picks.

    Returns
    -------
    sums : tf.Tensor, shape (N,)
        For each row the sum of the losses of the triplets that it is the anchor of; of the embeddings' dtype,
        differentiable once with respect to them. The selection is held fixed.
    n_triplets : tf.Tensor
        A scalar of the same dtype: how many triplets there are in all; not differentiable.

    Raises
    ------
    ValueError
        If the strategy picks ``"distance_weighted"`` and E is unknown or below 3.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from facenet_fast.losses.dense import loss_by_anchor
    >>> from facenet_fast.losses.recipe import Recipe
    >>> embeddings = tf.constant([[0.0], [1.0], [1.5]])
    >>> recipe = Recipe("batch_hard", margin=2.0)
    >>> sums, n_triplets = loss_by_anchor(tf.constant([7, 7, 9]), embeddings, recipe, tf.constant([0, 0]))
    >>> sums.numpy().tolist(), float(n_triplets)
    ([0.75, 2.75, 0.0], 2.0)
    """
    distances = pairwise_distances(embeddings, recipe.distance)
    is_same = tf.equal(labels[:, None], labels[None, :])
    # Stopped on both sides: neither a tape nor a graph's gradient then keeps what the tiles were made of.
    graph = _graph(recipe, embeddings.shape[-1], embeddings.dtype)
    fixed = graph(is_same, tf.stop_gradient(distances), seed)
    sums, n_triplets, slopes = (tf.stop_gradient(output) for output in fixed)
    linear = tf.reduce_sum(slopes * distances, axis=1)
    return sums + (linear - tf.stop_gradient(linear)), tf.cast(n_triplets, embeddings.dtype)


@lru_cache(maxsize=256)
def _graph(recipe: Recipe, size: int | None, dtype: tf.DType) -> Callable[..., Any]:
    """Return `loss_and_slopes` of a recipe as a graph: an eager tape sees one operation and not all tiles."""

    def fixed(is_same: tf.Tensor, distances: tf.Tensor, seed: tf.Tensor) -> Any:
        return loss_and_slopes(is_same, distances, seed, recipe, size)

    specs = ((None, None), tf.bool), ((None, None), dtype), ((2,), tf.int32)
    # Kept for later calls, so with nothing of where the first one happens to be made.
    with tf.init_scope(), tf.device(None):
        graph: Callable[..., Any] = tf.function(fixed, autograph=False).get_concrete_function(
            *(tf.TensorSpec(*spec) for spec in specs)
        )
    return graph


def loss_and_slopes(
    is_same: tf.Tensor, distances: tf.Tensor, seed: tf.Tensor, recipe: Recipe, size: int | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Find the triplets, and how their loss depends on the distances; nothing in it is to be differentiated.

    Parameters
    ----------
    is_same : tf.Tensor, shape (N, N)
        Whether two rows are of one identity.
    distances : tf.Tensor, shape (N, N)
    seed : tf.Tensor, shape (2,)
    recipe : Recipe
    size : int or None
        E, which the weights of ``"distance_weighted"`` depend on.

    Returns
    -------
    sums : tf.Tensor, shape (N,)
    n_triplets : tf.Tensor
        int64.
    slopes : tf.Tensor, shape (N, N)
        Of the sum of row ``a``, the derivatives by the distances ``a`` to all others.
    """
    strategy, dtype = recipe.strategy, distances.dtype
    band = strategy.interval(recipe.margin)
    n_rows = tf.shape(distances)[0]
    positives_seed, picks_seed = tf.unstack(tf.random.split(seed, alg=_GENERATOR))

    negatives = _without_nearest(distances, ~is_same, strategy.skip_hardest)
    is_pair = _pairs(distances, is_same, negatives, strategy, positives_seed)
    if strategy.if_empty != "drop":
        sign = 1.0 if strategy.if_empty == "nearest" else -1.0
        instead = _lowest(sign * distances, negatives, 1)
    eligible = negatives
    if strategy.pick == "distance_weighted":
        on_sphere = _ON_SPHERE[recipe.distance](distances)
        eligible = negatives & (on_sphere < strategy.far * strategy.far)
        log_weights = _log_weights(on_sphere, strategy, size)

    # Pair number i is row ``anchor``'s ``nth`` positive: ends[anchor - 1] <= i < ends[anchor].
    nth_positive = _count_up(is_pair)
    n_pairs = _count(is_pair)
    ends = tf.cumsum(n_pairs)
    starts = ends - n_pairs
    n_all_pairs = tf.reduce_sum(n_pairs)
    n_at_once = tf.clip_by_value(_TILE_SIZE // tf.maximum(n_rows, 1), 1, tf.maximum(n_rows, 1))
    # Out here, as XLA does not know these sizes inside the loop.
    places, columns = tf.range(n_at_once), _indices(n_rows)[None, :]

    def add_tile(
        tile: tf.Tensor, sums: tf.Tensor, n_triplets: tf.Tensor, slopes: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        number = tile * n_at_once + places
        # Numbers beyond the last pair fill the last tile; what stands there is masked.
        is_there = (number < n_all_pairs)[:, None]
        anchor = tf.minimum(tf.searchsorted(ends, number, side="right"), n_rows - 1)
        nth = tf.cast(number - tf.gather(starts, anchor), tf.float32)[:, None]
        positive = tf.minimum(_count(tf.gather(nth_positive, anchor) <= nth), n_rows - 1)
        is_positive = columns == tf.cast(positive, tf.float32)[:, None]

        d_an = tf.gather(distances, anchor)
        d_ap = tf.gather(d_an, positive, batch_dims=1)[:, None]
        candidates = tf.gather(eligible, anchor) & band.holds(d_ap, d_an) & is_there
        if strategy.pick == "every":
            picks = candidates
        else:
            if strategy.pick == "nearest":
                keys = d_an
            elif strategy.pick == "farthest":
                keys = -d_an
            else:
                tile_seed = tf.random.fold_in(picks_seed, tile, alg=_GENERATOR)
                keys = _uniform(tf.shape(d_an), tile_seed)
                if strategy.pick == "distance_weighted":
                    # The largest of log(weight) + Gumbel noise are a draw by weight without replacement.
                    keys = tf.math.log(-tf.math.log(keys)) - tf.gather(log_weights, anchor)
            picks = _lowest(keys, candidates, strategy.n_negatives)
        if strategy.if_empty != "drop":
            is_empty = ~tf.reduce_any(candidates, axis=1, keepdims=True)
            picks |= tf.gather(instead, anchor) & is_empty & is_there

        excess = d_ap - d_an
        if recipe.soft:
            losses, slope = tf.math.softplus(excess), tf.sigmoid(excess)
        else:
            losses = tf.nn.relu(excess + recipe.margin)
            slope = tf.cast(losses > 0, dtype)
        losses, slope = (tf.where(picks, values, tf.zeros([], dtype)) for values in (losses, slope))
        by_positive = tf.where(is_positive, tf.reduce_sum(slope, axis=1, keepdims=True), 0.0)
        return (
            tile + 1,
            tf.tensor_scatter_nd_add(sums, anchor[:, None], tf.reduce_sum(losses, axis=1)),
            n_triplets + tf.cast(tf.reduce_sum(_count(picks)), tf.int64),
            tf.tensor_scatter_nd_add(slopes, anchor[:, None], by_positive - slope),
        )

    _, sums, n_triplets, slopes = tf.while_loop(
        lambda tile, *_: tile * n_at_once < n_all_pairs,
        add_tile,
        (tf.constant(0), tf.zeros(n_rows, dtype), tf.zeros([], tf.int64), tf.zeros((n_rows, n_rows), dtype)),
        parallel_iterations=1,
    )
    return sums, n_triplets, slopes


def _pairs(
    distances: tf.Tensor, is_same: tf.Tensor, negatives: tf.Tensor, strategy: Strategy, seed: tf.Tensor
) -> tf.Tensor:
    """Mark in each row the positives that the strategy looks at."""
    index = _indices(tf.shape(distances)[0])
    is_later = index[:, None] < index[None, :]
    positives = is_same & (is_later | tf.transpose(is_later))
    limit = strategy.positive_quantile
    if limit is not None:
        positives &= distances <= _quantile(distances, positives & is_later, limit)
    if strategy.max_positive_distance is not None:
        positives &= distances < strategy.max_positive_distance

    if strategy.pairs == "each_once":
        return positives & is_later
    if strategy.pairs == "both_ways":
        return positives
    if strategy.pairs == "hardest_positive":
        return _lowest(-distances, positives, strategy.n_positives)
    if strategy.pairs == "easiest_positive":
        return _lowest(distances, positives, strategy.n_positives)
    if strategy.pairs == "moderate_positive":
        nearest = tf.reduce_min(tf.where(negatives, distances, _infinity(distances)), axis=1, keepdims=True)
        return _lowest(-distances, positives & (distances < nearest), 1)
    if strategy.pairs == "random_positives":
        return _lowest(_uniform(tf.shape(distances), seed), positives, strategy.n_positives)
    raise NotImplementedError(strategy.pairs)


def _without_nearest(distances: tf.Tensor, negatives: tf.Tensor, share: float) -> tf.Tensor:
    """Leave out that share of each row's negatives."""
    if share == 0:
        return negatives
    # In float64, as the specification multiplies.
    n_skipped = tf.cast(tf.floor(tf.cast(_count(negatives), tf.float64) * share), tf.int32)
    return negatives & ~_lowest(distances, negatives, n_skipped)


def _quantile(distances: tf.Tensor, pairs: tf.Tensor, share: float) -> tf.Tensor:
    """Return the ``ceil(share * n)``-th smallest of the n distances that are marked."""
    n = tf.cast(tf.reduce_sum(_count(pairs)), tf.float64)
    place = tf.maximum(tf.cast(tf.math.ceil(n * share), tf.int32) - 1, 0)
    infinity = _infinity(distances)
    # One more, so that there is a first even of none.
    flat = tf.concat((tf.reshape(tf.where(pairs, distances, infinity), [-1]), infinity[None]), axis=0)
    return tf.sort(flat)[place]


def _lowest(keys: tf.Tensor, among: tf.Tensor, n: int | tf.Tensor) -> tf.Tensor:
    """Mark in each row those n of the marked that have the lowest keys: of equal ones, the first.

    Parameters
    ----------
    n : int or tf.Tensor of shape (n_rows,)
        All where there are fewer.
    """
    width = tf.shape(keys)[1]
    keyed = tf.where(among, keys, _infinity(keys))
    if isinstance(n, int) and n == 1:
        lowest = among & (keys == tf.reduce_min(keyed, axis=1, keepdims=True))
        columns = _indices(width)[None, :]
        return lowest & (columns == tf.reduce_min(tf.where(lowest, columns, np.inf), axis=1, keepdims=True))
    ordered = -tf.math.top_k(-keyed, tf.minimum(n, width) if isinstance(n, int) else width).values
    n = tf.minimum(n, _count(among))
    last = tf.gather(ordered, tf.maximum(n - 1, 0), batch_dims=1)[:, None]
    below, level = among & (keys < last), among & (keys == last)
    n_level = tf.cast(n - _count(below), tf.float32)[:, None]
    return below | (level & (_count_up(level) <= n_level))


def _log_weights(on_sphere: tf.Tensor, strategy: Strategy, size: int | None) -> tf.Tensor:
    """Return `facenet_fast.mining.sphere.Weights.log_weight` of squared distances on the unit sphere."""
    if size is None:
        raise ValueError("distance_weighted needs embeddings of a known size; got shape (n_images, None)")
    ends = weights(size, strategy.near, strategy.far, 1.0)
    # In float64: float32 does not hold what lies just below 4, where the second logarithm ends.
    squared = tf.clip_by_value(tf.cast(on_sphere, tf.float64), ends.lowest, ends.highest)
    logarithm = (2 - size) / 2 * tf.math.log(squared) - (size - 3) / 2 * tf.math.log(1.0 - squared / 4.0)
    return tf.cast(logarithm, tf.float32)


def _uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw float32 numbers in (0, 1)."""
    # From bits: XLA makes other floats of them than TensorFlow does.
    bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg=_GENERATOR)
    return (tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.float32) + 0.5) * 2.0**-23


# Marks are counted, and columns numbered, in float32, which holds all whole numbers up to 2**24: TensorFlow
# does most arithmetic of int32 on the CPU, wherever the tensors are.


def _count(marks: tf.Tensor) -> tf.Tensor:
    """Count the marks of each row; int32."""
    return tf.cast(tf.reduce_sum(tf.cast(marks, tf.float32), axis=1), tf.int32)


def _count_up(marks: tf.Tensor) -> tf.Tensor:
    """Count the marks of each row up to each column, its own included; float32."""
    return tf.cumsum(tf.cast(marks, tf.float32), axis=1)


def _indices(n: tf.Tensor) -> tf.Tensor:
    """Return 0, 1, .. n - 1 as float32."""
    return tf.cast(tf.range(n), tf.float32)


def _infinity(like: tf.Tensor) -> tf.Tensor:
    return tf.constant(np.inf, like.dtype)
