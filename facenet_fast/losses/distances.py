"""Distances of embeddings as TensorFlow differentiates them: finite gradients, coincident rows included."""

from __future__ import annotations

import tensorflow as tf

from facenet_fast.mining.checks import check_word

from .recipe import DISTANCES

__all__ = ["distances_between", "pairwise_distances", "row_distances", "rows_of_distance"]


def pairwise_distances(embeddings: tf.Tensor, distance: str) -> tf.Tensor:
    """Return the distances between all rows.

    Computed from a matrix of products in float64, whatever the embeddings are: float32 would lose the small
    distances of a young embedding, whose rows are all alike, and GPUs multiply float32 with ten bits
    (TensorFloat-32) unless told otherwise. It costs little beside the network that made the embeddings.

    Parameters
    ----------
    embeddings : tf.Tensor, shape (n, E)
        float32 or float64.
    distance : {"squared_euclidean", "euclidean", "cosine"}
        A key of `facenet_fast.losses.recipe.DISTANCES`. For ``"cosine"``, rows of zeros are at 0.5 from all
        others.

    Returns
    -------
    tf.Tensor, shape (n, n)
        Of the embeddings' dtype: symmetric, not negative, exactly 0 on the diagonal. Where a distance is 0,
        so is its gradient.

    Raises
    ------
    ValueError
        If the distance is no key; the message lists them.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from facenet_fast.losses.distances import pairwise_distances
    >>> pairwise_distances(tf.constant([[0.0, 0.0], [3.0, 4.0]]), "euclidean").numpy().tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    check_word("distance", distance, DISTANCES)
    rows = tf.cast(embeddings, tf.float64)
    if distance == "cosine":
        rows = _at_unit_length(rows)
    # Seen from one of them, rows that are near each other are short: less cancels, and exact stays exact.
    rows -= tf.stop_gradient(rows[:1])
    products = tf.matmul(rows, rows, transpose_b=True)
    # Of the same products: so a row is at exactly 0 from itself, and from those that coincide with it.
    squared_norms = tf.linalg.diag_part(products)
    products = 0.5 * (products + tf.transpose(products))
    squared = tf.nn.relu(squared_norms[:, None] + squared_norms[None, :] - 2.0 * products)
    return tf.cast(_of_squared(squared, distance), embeddings.dtype)


def row_distances(x: tf.Tensor, y: tf.Tensor, distance: str) -> tf.Tensor:
    """Return the distance between each row of one matrix and the same row of another.

    Computed from the differences, in the dtype of the rows.

    Parameters
    ----------
    x, y : tf.Tensor, shape (n, E)
        float32 or float64.
    distance : {"squared_euclidean", "euclidean", "cosine"}
        As of `pairwise_distances`.

    Returns
    -------
    tf.Tensor, shape (n,)
        Where a distance is 0, so is its gradient.

    Raises
    ------
    ValueError
        If the distance is no key; the message lists them.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from facenet_fast.losses.distances import row_distances
    >>> row_distances(tf.constant([[1.0, 0.0]]), tf.constant([[0.0, 2.0]]), "cosine").numpy().tolist()
    [1.0]
    """
    check_word("distance", distance, DISTANCES)
    if distance == "cosine":
        x, y = _at_unit_length(x), _at_unit_length(y)
    return _of_squared(tf.reduce_sum(tf.math.squared_difference(x, y), axis=-1), distance)


def rows_of_distance(embeddings: tf.Tensor, distance: str) -> tuple[tf.Tensor, str]:
    """Return rows, and a distance that is not ``"cosine"``, between which the distances are those asked for.

    For ``"cosine"`` these are the rows at length ``1 / sqrt(2)``, in float64, and their squared distances.
    """
    check_word("distance", distance, DISTANCES)
    if distance != "cosine":
        return embeddings, distance
    return _at_unit_length(tf.cast(embeddings, tf.float64)) * 0.5**0.5, "squared_euclidean"


def distances_between(rows: tf.Tensor, left: tf.Tensor, right: tf.Tensor, distance: str) -> tf.Tensor:
    """Return the distances between rows given by number; as `row_distances` otherwise."""
    return row_distances(tf.gather(rows, left), tf.gather(rows, right), distance)


def _of_squared(squared: tf.Tensor, distance: str) -> tf.Tensor:
    """Return the distances that squared Euclidean ones (cosine: of rows at unit length) are."""
    if distance == "cosine":
        return 0.5 * squared
    if distance == "euclidean":
        # The root's slope at 0 is infinite: there it is taken of something else, and not used.
        is_apart = squared > 0
        return tf.where(is_apart, tf.sqrt(tf.where(is_apart, squared, 1.0)), 0.0)
    return squared


def _at_unit_length(rows: tf.Tensor) -> tf.Tensor:
    """Return the rows at unit length; rows of zeros stay, and have no gradient."""
    # A row's length does not matter, so this changes no gradient; it keeps the squares in range.
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(rows), axis=-1, keepdims=True))
    rows = tf.math.divide_no_nan(rows, largest)
    squared_norms = tf.reduce_sum(tf.square(rows), axis=-1, keepdims=True)
    is_long = largest > 0
    return tf.where(is_long, rows * tf.math.rsqrt(tf.where(is_long, squared_norms, 1.0)), 0.0)
