"""The triplet loss over every triplet that violates the margin."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from .labelled import RecipeLoss, anchor_losses, mean_over_anchors
from .recipe import Recipe

__all__ = ["BatchAllTripletLoss", "batch_all_triplet_loss"]


def batch_all_triplet_loss(
    y_true: Any,
    y_pred: Any,
    margin: float = 0.2,
    distance: str = "squared_euclidean",
    *,
    sample_weight: Any = None,
    implementation: str = "auto",
) -> tf.Tensor:
    r"""Mean hinge over all triplets of a labelled batch that violate the margin.

    .. math:: \frac{1}{n} \sum_{d_{an} < d_{ap} + m} (d_{ap} - d_{an} + m)

    over every anchor, positive and negative, ``n`` of which violate. The native implementation makes loss and
    gradient in O(N² (E + K)) time and O(N (E + K)) memory for N images of K an identity
    (`facenet_fast.batch_all_loss`); the TensorFlow one takes N² K time.

    Parameters
    ----------
    y_true, y_pred, margin, distance, sample_weight, implementation
        As of `facenet_fast.losses.triplet_loss`.

    Returns
    -------
    tf.Tensor
        A scalar: 0 with gradient 0 where no triplet violates, NaN if an embedding is not finite.

    Raises
    ------
    TypeError, ValueError
        As `facenet_fast.losses.triplet_loss`.

    References
    ----------
    Hermans, Beyer and Leibe 2017, In Defense of the Triplet Loss, section 2 (equation 6), as the mean over
    the triplets that are not zero.

    Examples
    --------
    >>> from facenet_fast.losses import batch_all_triplet_loss
    >>> labels, embeddings = ["ann", "ann", "bob", "eve"], [[0.0], [1.0], [1.5], [9.0]]
    >>> float(batch_all_triplet_loss(labels, embeddings, margin=2.0))
    1.75
    """
    recipe = Recipe("batch_all", margin, distance)
    return mean_over_anchors(anchor_losses(y_true, y_pred, recipe, implementation, None), sample_weight)


@keras.saving.register_keras_serializable(package="facenet_fast")
class BatchAllTripletLoss(RecipeLoss):
    """`batch_all_triplet_loss` for `model.compile`.

    Parameters
    ----------
    margin, distance, implementation
        As of `batch_all_triplet_loss`.
    reduction : str, default "sum_over_batch_size"
        As Keras has it, over the anchors: the default is the mean over the triplets.
    name, dtype
        As of `keras.losses.Loss`.

    Raises
    ------
    TypeError, ValueError
        As `batch_all_triplet_loss`.

    Examples
    --------
    >>> import keras
    >>> from facenet_fast.losses import BatchAllTripletLoss
    >>> model = keras.Sequential([keras.layers.Dense(8), keras.layers.UnitNormalization()])
    >>> model.compile(optimizer="adam", loss=BatchAllTripletLoss(margin=0.2))
    """

    def __init__(
        self,
        margin: float = 0.2,
        distance: str = "squared_euclidean",
        *,
        implementation: str = "auto",
        reduction: str = "sum_over_batch_size",
        name: str | None = "batch_all_triplet_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(Recipe("batch_all", margin, distance), implementation, name, reduction, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the same loss of."""
        return {**super().get_config(), "distance": self.recipe.distance}
