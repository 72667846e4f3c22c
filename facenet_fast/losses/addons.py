"""TensorFlow Addons' two triplet losses, by value: changing the import is all of the migration.

Their formulas need N³ and N² numbers of memory; here the triplets are mined. A batch without a triplet, for
want of two images of one identity or of a second identity, has loss 0; theirs is then NaN or a constant.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from facenet_fast.mining.checks import check_flag, check_positive, check_word
from facenet_fast.mining.strategies import Strategy

from . import native
from .distances import pairwise_distances
from .labelled import (
    LabelledLoss,
    RecipeLoss,
    anchor_losses,
    check_implementation,
    is_native,
    mean_over_anchors,
    not_finite,
    prepare,
)
from .recipe import Recipe
from .triplet import penalties

__all__ = [
    "DISTANCE_METRICS",
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
]

# Their words, and ours for the same.
DISTANCE_METRICS: dict[str, str] = {"L2": "euclidean", "squared-L2": "squared_euclidean", "angular": "cosine"}

# Each pair's nearest negative that is farther than the positive, or else the farthest of all.
_SEMI_HARD = Strategy("farther", "both_ways", "nearest", if_empty="farthest")


def triplet_semihard_loss(
    y_true: Any,
    y_pred: Any,
    margin: float = 1.0,
    distance_metric: str = "L2",
    *,
    sample_weight: Any = None,
    implementation: str = "auto",
) -> tf.Tensor:
    """Mean hinge over all pairs of images of one identity, each with its semi-hard negative.

    That is the nearest negative farther than the positive, or the farthest one if none is.

    Parameters
    ----------
    y_true : array_like, shape (N,) or (N, 1)
        Labels of any dtype.
    y_pred : array_like, shape (N, E)
        Embeddings, expected at unit length.
    margin : float, default 1.0
        In the unit of the distance.
    distance_metric : {"L2", "squared-L2", "angular"}, default "L2"
        Euclidean, squared Euclidean, or ``1 - cos``.
    sample_weight, implementation
        As of `facenet_fast.losses.triplet_loss`.

    Returns
    -------
    tf.Tensor
        A scalar: `tfa.losses.triplet_semihard_loss`'s value; 0 where there is no triplet, NaN if an embedding
        is not finite.

    Raises
    ------
    TypeError, ValueError
        As `facenet_fast.losses.triplet_loss`.

    References
    ----------
    Schroff, Kalenichenko and Philbin 2015, FaceNet, section 3.2.

    Examples
    --------
    >>> from facenet_fast.losses import triplet_semihard_loss
    >>> labels, embeddings = [1, 1, 2], [[0.0], [1.0], [1.5]]
    >>> float(triplet_semihard_loss(labels, embeddings))
    1.0
    """
    recipe = Recipe(_SEMI_HARD, margin, _distance(distance_metric))
    return mean_over_anchors(anchor_losses(y_true, y_pred, recipe, implementation, None), sample_weight)


def triplet_hard_loss(
    y_true: Any,
    y_pred: Any,
    margin: float = 1.0,
    soft: bool = False,
    distance_metric: str = "L2",
    *,
    sample_weight: Any = None,
    implementation: str = "auto",
) -> tf.Tensor:
    """Mean hinge over all images, each with its farthest positive and its nearest negative.

    An image that has no positive is its own.

    Parameters
    ----------
    y_true, y_pred, margin, distance_metric, sample_weight, implementation
        As of `triplet_semihard_loss`.
    soft : bool, default False
        ``log(1 + exp(d_ap - d_an))``, without the margin.

    Returns
    -------
    tf.Tensor
        A scalar: `tfa.losses.triplet_hard_loss`'s value; 0 where there is no triplet, NaN if an embedding is
        not finite.

    Raises
    ------
    TypeError, ValueError
        As `facenet_fast.losses.triplet_loss`.

    References
    ----------
    Hermans, Beyer and Leibe 2017, In Defense of the Triplet Loss, section 2 (equation 5).

    Examples
    --------
    >>> from facenet_fast.losses import triplet_hard_loss
    >>> labels, embeddings = [1, 1, 2], [[0.0], [1.0], [1.5]]
    >>> round(float(triplet_hard_loss(labels, embeddings)), 6)
    0.833333
    """
    check_flag("soft", soft)
    margin = check_positive("margin", margin)
    losses = _hard_losses(y_true, y_pred, margin, soft, _distance(distance_metric), implementation)
    return mean_over_anchors(losses, sample_weight)


@keras.saving.register_keras_serializable(package="facenet_fast")
class TripletSemiHardLoss(RecipeLoss):
    """`triplet_semihard_loss` for `model.compile`, as `tfa.losses.TripletSemiHardLoss`.

    Parameters
    ----------
    margin, distance_metric, implementation
        As of `triplet_semihard_loss`.
    name, reduction, dtype
        As of `keras.losses.Loss`; the loss is over the anchors.

    Raises
    ------
    TypeError, ValueError
        As `triplet_semihard_loss`.

    Examples
    --------
    >>> import keras
    >>> from facenet_fast.losses import TripletSemiHardLoss
    >>> model = keras.Sequential([keras.layers.Dense(8), keras.layers.UnitNormalization()])
    >>> model.compile(optimizer="adam", loss=TripletSemiHardLoss())
    """

    def __init__(
        self,
        margin: float = 1.0,
        distance_metric: str = "L2",
        name: str | None = "triplet_semihard_loss",
        *,
        implementation: str = "auto",
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            Recipe(_SEMI_HARD, margin, _distance(distance_metric)), implementation, name, reduction, dtype
        )
        self.distance_metric = distance_metric

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the same loss of."""
        return {**super().get_config(), "distance_metric": self.distance_metric}


@keras.saving.register_keras_serializable(package="facenet_fast")
class TripletHardLoss(LabelledLoss):
    """`triplet_hard_loss` for `model.compile`, as `tfa.losses.TripletHardLoss`.

    Parameters
    ----------
    margin, soft, distance_metric, implementation
        As of `triplet_hard_loss`.
    name, reduction, dtype
        As of `keras.losses.Loss`; the loss is over the anchors.

    Raises
    ------
    TypeError, ValueError
        As `triplet_hard_loss`.

    Examples
    --------
    >>> import keras
    >>> from facenet_fast.losses import TripletHardLoss
    >>> model = keras.Sequential([keras.layers.Dense(8), keras.layers.UnitNormalization()])
    >>> model.compile(optimizer="adam", loss=TripletHardLoss(soft=True))
    """

    def __init__(
        self,
        margin: float = 1.0,
        soft: bool = False,
        distance_metric: str = "L2",
        name: str | None = "triplet_hard_loss",
        *,
        implementation: str = "auto",
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        check_flag("soft", soft)
        check_implementation(implementation)
        self.margin = check_positive("margin", margin)
        self.soft = soft
        self.distance = _distance(distance_metric)
        self.distance_metric = distance_metric
        self.implementation = implementation

    def losses_of(self, labels: Any, embeddings: Any) -> tf.Tensor:
        """Return the losses of the anchors."""
        return _hard_losses(labels, embeddings, self.margin, self.soft, self.distance, self.implementation)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the same loss of."""
        return {
            **super().get_config(),
            "margin": self.margin,
            "soft": self.soft,
            "distance_metric": self.distance_metric,
            "implementation": self.implementation,
        }


def _distance(distance_metric: str) -> str:
    check_word("distance_metric", distance_metric, DISTANCE_METRICS)
    return DISTANCE_METRICS[distance_metric]


def _hard_losses(
    labels: Any, embeddings: Any, margin: float, soft: bool, distance: str, implementation: str
) -> tf.Tensor:
    is_mined = is_native(implementation)
    y, x = prepare(labels, embeddings)
    if is_mined:
        d_ap, d_an, has_triplets = native.hardest_of_anchors(y, x, distance)
    else:
        is_same = tf.equal(y[:, None], y[None, :])
        distances = pairwise_distances(x, distance)
        infinity = tf.constant(float("inf"), x.dtype)
        d_ap = tf.reduce_max(tf.where(is_same, distances, tf.zeros([], x.dtype)), axis=1)
        d_an = tf.reduce_min(tf.where(is_same, infinity, distances), axis=1)
        n_same, n_rows = tf.math.count_nonzero(is_same), tf.size(y, out_type=tf.int64)
        has_triplets = (n_same > n_rows) & (n_same < n_rows * n_rows)
    d_an = tf.where(has_triplets, d_an, tf.zeros_like(d_an))
    losses = penalties(d_ap, d_an, margin, soft) * tf.cast(has_triplets, x.dtype)
    return losses + not_finite(x)
