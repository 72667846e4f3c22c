"""What losses of labelled embeddings are by definition: masks of N x N x N triplets, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# N x N x N: whether a triplet (anchor, positive, negative) counts.
Mask = npt.NDArray[np.bool_]


def batch(dtype: Any = np.float64, seed: int = 0) -> tuple[Any, Any]:
    """Unit rows of three identities of four, three and two images, and two of one, in no order; labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation([5, 5, 5, 5, 3, 3, 3, 8, 8, 1, 2])
    rows = rng.normal(size=(9, 4))[labels] + 1.2 * rng.normal(size=(11, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(dtype), labels


def one_negative(dtype: Any = np.float64) -> tuple[Any, Any]:
    """The same rows as one identity, but for one row: who draws a negative has no choice."""
    rows, _ = batch(dtype, seed=1)
    return rows, np.array([4, 4, 4, 4, 4, 9, 4, 4, 4, 4, 4])


def distances(x: tf.Tensor, distance: str) -> tf.Tensor:
    if distance == "cosine":
        x = x / tf.norm(x, axis=1, keepdims=True)
        return 1.0 - tf.reduce_sum(x[:, None] * x[None], axis=2)
    squared = tf.reduce_sum((x[:, None] - x[None]) ** 2, axis=2)
    if distance == "squared_euclidean":
        return squared
    is_apart = squared > 0
    return tf.where(is_apart, tf.sqrt(tf.where(is_apart, squared, 1.0)), 0.0)


def parts(rows: Any, labels: Any, distance: str) -> tuple[Any, Any, Mask]:
    """d_ap and d_an as N x N x N, and which are triplets: two of an identity, and one of another."""
    d = distances(tf.constant(rows, tf.float64), distance).numpy()
    is_same = np.equal.outer(labels, labels)
    is_pair = is_same & ~np.eye(len(labels), dtype=bool)
    return d[:, :, None], d[:, None, :], is_pair[:, :, None] & ~is_same[:, None, :]


def first_once(mask: Mask) -> Mask:
    """Of each pair the earlier row as the anchor."""
    n = len(mask)
    return mask & np.triu(np.ones((n, n), bool))[:, :, None]


def lowest(values: Any, mask: Mask, axis: int) -> Mask:
    keyed = np.where(mask, values, np.inf)
    return mask & (keyed == keyed.min(axis=axis, keepdims=True))


# By the name of a preset: (d_ap, d_an, is_triplet, margin, farthest) -> which count.
PRESET_MASKS: dict[str, Callable[..., Mask]] = {
    "vgg_face": lambda ap, an, is_triplet, margin, _: first_once(is_triplet) & (an - ap < margin),
    "facenet": lambda ap, an, is_triplet, margin, _: first_once(is_triplet) & (ap < an) & (an - ap < margin),
    "batch_hard": lambda ap, an, is_triplet, margin, _: (
        lowest(-ap, is_triplet, 1) & lowest(an, is_triplet, 2)
    ),
    "batch_all": lambda ap, an, is_triplet, margin, _: is_triplet & (an - ap < margin),
    "easy_positive": lambda ap, an, is_triplet, margin, _: lowest(
        an, lowest(ap, is_triplet, 1) & (ap < an), 2
    ),
    "distance_weighted": lambda ap, an, is_triplet, margin, farthest: is_triplet & (an < farthest),
    "hardest": lambda ap, an, is_triplet, margin, _: lowest(an, first_once(is_triplet), 2),
}
# Euclidean distance 1.4.
FARTHEST = {"squared_euclidean": 1.96, "euclidean": 1.4, "cosine": 0.98}


def preset_mask(name: str, rows: Any, labels: Any, margin: float, distance: str) -> Mask:
    return PRESET_MASKS[name](*parts(rows, labels, distance), margin, FARTHEST[distance])


def by_anchor(x: tf.Tensor, mask: Mask, margin: float, distance: str, soft: bool = False) -> tf.Tensor:
    """The losses of the anchors: of their triplets, times N over the number of all."""
    d = distances(x, distance)
    excess = d[:, :, None] - d[:, None, :]
    losses = tf.math.log(1.0 + tf.exp(excess)) if soft else tf.maximum(excess + margin, 0.0)
    sums = tf.reduce_sum(tf.where(mask, losses, 0.0), axis=(1, 2))
    return sums * (len(mask) / max(np.count_nonzero(mask), 1))


def hard_by_anchor(x: tf.Tensor, labels: Any, margin: float, distance: str, soft: bool = False) -> tf.Tensor:
    """Of each row, also of one alone, by its farthest positive and its nearest negative."""
    d = distances(x, distance)
    is_same = np.equal.outer(labels, labels)
    nearest = tf.reduce_min(tf.where(is_same, np.inf, d), axis=1)
    excess = tf.reduce_max(tf.where(is_same, d, 0.0), axis=1) - nearest
    return tf.math.log(1.0 + tf.exp(excess)) if soft else tf.maximum(excess + margin, 0.0)


def weighted_mean(losses: tf.Tensor, weights: Any = None) -> tf.Tensor:
    return tf.reduce_mean(losses if weights is None else losses * weights)


def with_gradient(x: Any, function: Callable[[tf.Tensor], tf.Tensor]) -> tuple[Any, Any]:
    """Return a loss of embeddings and its gradient, as numpy's."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = function(x)
    return loss.numpy(), tf.convert_to_tensor(tape.gradient(loss, x)).numpy()
