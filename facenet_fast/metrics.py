"""Keras metrics of embeddings: how hard their triplets are, how far apart pairs are, who is found among all.

For ``model.compile(loss=..., metrics=[...])``, with labels as ``y_true`` and embeddings as ``y_pred``.
"""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .losses.distances import pairwise_distances
from .losses.recipe import DISTANCES
from .mining import nearest_neighbors
from .mining.batch import embeddings_as
from .mining.checks import check_integer, check_positive, check_word

__all__ = ["ActiveTripletFraction", "MeanNegativeDistance", "MeanPositiveDistance", "RecallAtK"]

# XLA's refusal names the operation, and so says what to do.
_ADVICE = "RecallAtK_needs_compile_with_jit_compile_False"


class _Ratio(keras.metrics.Metric):  # type: ignore[misc]
    """One sum over all batches by another; what is summed, subclasses say.

    Sums are in float64: float32 would count no further than to ``2**24`` triplets.
    """

    def __init__(self, distance: str, name: str, dtype: Any) -> None:
        check_word("distance", distance, DISTANCES)
        super().__init__(name=name, dtype=dtype)
        self.distance = distance
        self._total = self.add_variable((), "zeros", dtype="float64", name="total")
        self._count = self.add_variable((), "zeros", dtype="float64", name="count")

    def sums(self, d: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what a batch adds to either sum, from distances and masks of pairs, each (n, n)."""
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: labels (n,) or (n, 1), embeddings (n, E), and weights, of which 0 leaves a row out."""
        labels, embeddings, kept = _checked(y_true, y_pred, sample_weight)
        embeddings = tf.where(kept[:, None], tf.cast(embeddings, tf.float64), tf.zeros((), tf.float64))
        pair = kept[:, None] & kept[None, :]
        same = tf.equal(labels[:, None], labels[None, :])
        itself = tf.eye(tf.shape(labels)[0], dtype=tf.bool)
        total, count = self.sums(
            pairwise_distances(embeddings, self.distance), pair & same & ~itself, pair & ~same & ~itself
        )
        all_finite = tf.reduce_all(tf.math.is_finite(embeddings))
        self._total.assign_add(tf.where(all_finite, total, tf.constant(np.nan, tf.float64)))
        self._count.assign_add(count)

    def result(self) -> tf.Tensor:
        """Return the value so far; 0 where nothing was counted."""
        total, count = (tf.convert_to_tensor(variable) for variable in (self._total, self._count))
        return tf.cast(tf.math.divide_no_nan(total, count), self.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same metric."""
        return {**super().get_config(), "distance": self.distance}


@keras.saving.register_keras_serializable(package="facenet_fast")
class ActiveTripletFraction(_Ratio):
    """Of all valid triplets of the batches so far, the share that a hinge loss still learns from.

    A triplet is two rows of one batch and one identity, either as the anchor, and a row of another identity.
    It is active if ``d_ap - d_an + margin > 0``: if its hinge loss, equation 3 of Schroff et al. 2015,
    "FaceNet: A Unified Embedding for Face Recognition and Clustering", section 3.1, is not 0. Triplets are
    counted over all batches, not averaged batch by batch.

    Distances are in float64, and counts those of `facenet_fast.count_triplets` with ``"batch_all"``, but for
    triplets on the very edge. Memory is a few matrices (n, n) for a batch of n rows; time grows with their
    size times the images of the largest identity. XLA compiles it.

    Parameters
    ----------
    margin : float, default 0.2
        In the unit of the distance; positive.
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
        ``"cosine"`` is half the squared distance of the rows at unit length, where a row of zeros stays.
    name : str, default "active_triplet_fraction"
    dtype : str, optional
        Of the result.

    Raises
    ------
    ValueError
        If the margin is not positive and finite, the distance is another, or a batch's shapes do not fit.

    Notes
    -----
    - ``y_true``: labels (n,) or (n, 1) of any dtype, compared for equality alone. Keras itself turns floats
      given as numpy arrays into float32: give large labels as integers.
    - ``sample_weight``: rows of weight 0 are left out; no other weight makes a difference. (Keras passes
      weights to ``weighted_metrics`` only.)
    - The value is 0 where there was no triplet, and NaN once embeddings were not finite.
    - Under `tf.distribute`, triplets are those within each replica's part of a batch.

    Examples
    --------
    >>> metric = ActiveTripletFraction(margin=0.5)
    >>> metric.update_state([0, 0, 1], [[0.0], [1.0], [1.5]])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        margin: float = 0.2,
        distance: str = "squared_euclidean",
        name: str = "active_triplet_fraction",
        dtype: Any = None,
    ) -> None:
        self.margin = check_positive("margin", margin)
        super().__init__(distance, name, dtype)

    def sums(self, d: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the numbers of active and of valid triplets."""
        infinity = tf.constant(np.inf, d.dtype)
        d_an = tf.where(negative, d, infinity)
        n_positives = tf.reduce_sum(tf.cast(positive, tf.int32), axis=1)
        n_negatives = tf.reduce_sum(tf.cast(negative, tf.int32), axis=1)
        # Each anchor's positives as 1, 2, and so on: all anchors' first ones are looked at, then the second.
        ordinal = tf.where(positive, tf.cumsum(tf.cast(positive, tf.int32), axis=1), 0)

        def look(turn: tf.Tensor, n_active: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            d_ap = tf.reduce_sum(tf.where(ordinal == turn, d, tf.zeros((), d.dtype)), axis=1)
            d_ap = tf.where(turn <= n_positives, d_ap, -infinity)
            active = tf.reduce_sum(tf.cast(d_an - d_ap[:, None] < self.margin, tf.int32))
            return turn + 1, n_active + tf.cast(active, d.dtype)

        most = tf.reduce_max(n_positives)
        _, n_active = tf.while_loop(lambda turn, _: turn <= most, look, (1, tf.zeros((), d.dtype)))
        return n_active, tf.reduce_sum(tf.cast(n_positives, d.dtype) * tf.cast(n_negatives, d.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same metric."""
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="facenet_fast")
class MeanPositiveDistance(_Ratio):
    """Mean distance of two images of one identity, over all such pairs within the batches so far.

    Each pair counts once, and all pairs alike: batches weigh as many pairs as they have. Computed in float64
    with a few matrices (n, n); XLA compiles it.

    Parameters
    ----------
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
        ``"cosine"`` is half the squared distance of the rows at unit length, where a row of zeros stays.
    name : str, default "mean_positive_distance"
    dtype : str, optional
        Of the result.

    Raises
    ------
    ValueError
        If the distance is another, or a batch's shapes do not fit.

    Notes
    -----
    Labels, weights, values without a pair and `tf.distribute` are as of `ActiveTripletFraction`.

    Examples
    --------
    >>> metric = MeanPositiveDistance("euclidean")
    >>> metric.update_state([7, 7, 8], [[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
    >>> float(metric.result())
    5.0
    """

    def __init__(
        self,
        distance: str = "squared_euclidean",
        name: str = "mean_positive_distance",
        dtype: Any = None,
    ) -> None:
        super().__init__(distance, name, dtype)

    def sums(self, d: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the sum of distances of positives, and their number."""
        return _sum_and_number(d, positive)


@keras.saving.register_keras_serializable(package="facenet_fast")
class MeanNegativeDistance(_Ratio):
    """Mean distance of two images of different identities, over all such pairs within the batches so far.

    As `MeanPositiveDistance` otherwise: the gap between the two is what training widens. Where both fall to
    0, the network maps all images to one point.

    Parameters
    ----------
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
        ``"cosine"`` is half the squared distance of the rows at unit length, where a row of zeros stays.
    name : str, default "mean_negative_distance"
    dtype : str, optional
        Of the result.

    Raises
    ------
    ValueError
        If the distance is another, or a batch's shapes do not fit.

    Notes
    -----
    Labels, weights, values without a pair and `tf.distribute` are as of `ActiveTripletFraction`.

    Examples
    --------
    >>> metric = MeanNegativeDistance()
    >>> metric.update_state([7, 7, 8], [[0.0], [1.0], [2.0]])
    >>> float(metric.result())
    2.5
    """

    def __init__(
        self,
        distance: str = "squared_euclidean",
        name: str = "mean_negative_distance",
        dtype: Any = None,
    ) -> None:
        super().__init__(distance, name, dtype)

    def sums(self, d: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the sum of distances of negatives, and their number."""
        return _sum_and_number(d, negative)


@keras.saving.register_keras_serializable(package="facenet_fast")
class RecallAtK(keras.metrics.Metric):  # type: ignore[misc]
    """Share of images with one of their identity among their k nearest others, of all seen since a reset.

    Only images that have another of their identity count. In ``model.evaluate`` these are the images of the
    whole set, whatever its batches: the Recall@K of Song et al. 2016, "Deep Metric Learning via Lifted
    Structured Feature Embedding". Exact: neighbors are those of `facenet_fast.nearest_neighbors` on the
    collected rows, of equally near ones those that came first.

    Keras asks for the value after every batch. Only distances from and to new rows are looked at then: over
    all batches each once, as in one search among all rows (but in small steps, which take about five times as
    long). In ``fit``, where training data is measured too, an epoch's embeddings are collected, each made by
    the weights of its time: that value is a rough one, the one of the validation data is exact.

    Parameters
    ----------
    k : int, default 1
        Nearest others that are looked at.
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
        The first two find the same. ``"cosine"`` is half the squared distance of the rows at unit length,
        where a row of zeros stays.
    name : str, optional
        Default: ``"recall_at_1"`` for ``k=1``, and so on.
    dtype : str, optional
        Of the result.

    Raises
    ------
    ValueError
        If ``k`` is not positive, the distance is another, or a batch's shapes do not fit.

    Notes
    -----
    - The rows are kept in this process's memory, not in variables: ``4 * E + 9 * k + 8`` bytes each (8 for 4
      with ``"cosine"`` or float64 embeddings). They are no part of a saved model, and are reached through
      `tf.numpy_function`, which XLA refuses: use ``model.compile(..., jit_compile=False)``. Keras chooses XLA
      by itself on a GPU.
    - Under `tf.distribute.MirroredStrategy` all replicas are of one process and collect in one place: what
      ``evaluate`` returns is the value over all of them (which of equally near rows came first is chance).
      With several processes, as under `MultiWorkerMirroredStrategy`, each knows only the rows that it has
      seen itself, and its value is that of those. TPUs have no `tf.numpy_function`.
    - Labels and weights are as of `ActiveTripletFraction`. The value is 0 where no image has another of its
      identity, and NaN once embeddings were not finite.

    Examples
    --------
    >>> metric = RecallAtK(k=1)
    >>> metric.update_state(["ann", "bob"], [[0.0], [1.0]])
    >>> metric.update_state(["ann", "bob"], [[0.1], [9.0]])
    >>> float(metric.result())
    0.75
    """

    def __init__(
        self,
        k: int = 1,
        distance: str = "squared_euclidean",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.k = check_integer("k", k, 1, 2**31 - 1)
        check_word("distance", distance, DISTANCES)
        super().__init__(name=name or f"recall_at_{self.k}", dtype=dtype)
        self.distance = distance
        self._gallery = _Gallery(self.k, by_angle=distance == "cosine")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: labels (n,) or (n, 1), embeddings (n, E), and weights, of which 0 leaves a row out."""
        tf.numpy_function(
            self._gallery.add, _checked(y_true, y_pred, sample_weight), Tout=[], stateful=True, name=_ADVICE
        )

    def result(self) -> tf.Tensor:
        """Return the value over all rows so far; 0 where no image has another of its identity."""
        recall = tf.numpy_function(self._gallery.recall, [], Tout=tf.float64, stateful=True, name=_ADVICE)
        return tf.cast(tf.ensure_shape(recall, ()), self.dtype)

    def reset_state(self) -> None:
        """Forget all rows."""
        tf.numpy_function(self._gallery.clear, [], Tout=[], stateful=True, name=_ADVICE)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same metric, without rows."""
        return {**super().get_config(), "k": self.k, "distance": self.distance}


class _Gallery:
    """Rows seen so far, each with its k nearest others; rows added since the last answer have none yet."""

    def __init__(self, k: int, *, by_angle: bool) -> None:
        self._k = k
        self._by_angle = by_angle
        # Replicas of one process add at once.
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._code_of: dict[Any, int] = {}
            self._codes = np.empty(0, np.int64)
            self._rows: npt.NDArray[Any] | None = None
            self._nearest = _Nearest(0, self._k)
            self._new: list[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]] = []
            self._all_finite = True

    def add(self, labels: npt.NDArray[Any], rows: npt.NDArray[Any], kept: npt.NDArray[np.bool_]) -> None:
        """Add a batch, without the rows that are not kept."""
        labels, rows = labels[kept], rows[kept]
        with self._lock:
            self._all_finite = self._all_finite and bool(np.isfinite(rows).all())
            if len(rows) and self._all_finite:
                codes = [self._code_of.setdefault(label, len(self._code_of)) for label in labels.tolist()]
                self._new.append((np.array(codes, np.int64), self._prepared(rows)))

    def recall(self) -> np.float64:
        """Return the share of rows found, of those that have another of their identity."""
        with self._lock:
            if not self._all_finite:
                return np.float64(np.nan)
            self._search()
            can_be_found = np.bincount(self._codes)[self._codes] > 1
            n_found = int(self._nearest.same.any(axis=1).sum())
            return np.float64(n_found / max(int(can_be_found.sum()), 1))

    def _prepared(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return rows whose nearest by squared Euclidean distance are the nearest asked for."""
        if not self._by_angle:
            return rows
        prepared = np.zeros(rows.shape, np.float64)
        has_direction = rows.any(axis=1)
        prepared[has_direction] = embeddings_as("cosine", rows[has_direction], (("y_pred", len(rows)),))
        return prepared

    def _search(self) -> None:
        """Bring the nearest of all rows up to date."""
        if not self._new:
            return
        codes, rows = (np.concatenate(parts) for parts in zip(*self._new, strict=True))
        self._new = []
        nearest = _Nearest(len(rows), self._k)
        if self._rows is not None:
            # Earlier rows first, everywhere: of equally near ones they stay in front.
            nearest.offer(self._found(rows, codes, self._rows, self._codes))
            self._nearest.offer(self._found(self._rows, self._codes, rows, codes))
            self._rows = np.concatenate((self._rows, rows))
        else:
            self._rows = rows
        nearest.offer(self._found(rows, codes, None, codes))
        self._codes = np.concatenate((self._codes, codes))
        self._nearest = self._nearest + nearest

    def _found(
        self,
        queries: npt.NDArray[Any],
        query_codes: npt.NDArray[np.int64],
        database: npt.NDArray[Any] | None,
        codes: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return how far the nearest of a database, or other queries, are, and which are of one identity."""
        found = nearest_neighbors(queries, database, min(self._k, len(codes)))
        # -1 stands for none, at an infinite distance.
        same = (codes[found.indices] == query_codes[:, None]) & (found.indices >= 0)
        return found.distances, same


class _Nearest:
    """For each row, how far its k nearest others are, ascending, and which are of its identity."""

    def __init__(self, n_rows: int, k: int) -> None:
        self.distances = np.full((n_rows, k), np.inf)
        self.same = np.zeros((n_rows, k), np.bool_)

    def offer(self, found: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]) -> None:
        """Take in what is nearer than what is there; what is equally near comes behind it."""
        distances, same = found
        k = self.distances.shape[1]
        rows = np.flatnonzero(distances[:, 0] < self.distances[:, -1])
        both = np.concatenate((self.distances[rows], distances[rows]), axis=1)
        first = np.argsort(both, axis=1, kind="stable")[:, :k]
        self.distances[rows] = np.take_along_axis(both, first, axis=1)
        both_same = np.concatenate((self.same[rows], same[rows]), axis=1)
        self.same[rows] = np.take_along_axis(both_same, first, axis=1)

    def __add__(self, more: _Nearest) -> _Nearest:
        joined = _Nearest(0, self.distances.shape[1])
        joined.distances = np.concatenate((self.distances, more.distances))
        joined.same = np.concatenate((self.same, more.same))
        return joined


def _sum_and_number(d: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # Each pair is there both ways; either way it is the same mean.
    total = tf.reduce_sum(tf.where(chosen, d, tf.zeros((), d.dtype)))
    return total / 2, tf.reduce_sum(tf.cast(chosen, d.dtype)) / 2


def _checked(y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return labels (n,), embeddings (n, E) in float32 or float64, and which rows are kept (n,)."""
    embeddings = tf.convert_to_tensor(y_pred)
    if embeddings.dtype != tf.float64:
        embeddings = tf.cast(embeddings, tf.float32)
    if embeddings.shape.rank != 2:
        raise ValueError(f"y_pred must be embeddings of shape (n, E); got {embeddings.shape}")
    # TensorFlow takes Python's integers as int32, and fails on larger ones.
    labels = tf.convert_to_tensor(np.asarray(y_true) if isinstance(y_true, list | tuple) else y_true)
    shape, n = labels.shape, embeddings.shape[0]
    if not (shape.is_compatible_with((n,)) or shape.is_compatible_with((n, 1))):
        raise ValueError(
            f"y_true must be labels of shape (n,) or (n, 1) for y_pred {embeddings.shape}; got {shape}"
        )
    n_rows = tf.shape(embeddings)[:1]
    kept = tf.ones(n_rows, tf.bool)
    if sample_weight is not None:
        weights = tf.reshape(tf.convert_to_tensor(sample_weight), [-1])
        kept = tf.broadcast_to(weights != tf.zeros((), weights.dtype), n_rows)
    return tf.reshape(labels, n_rows), embeddings, kept
