"""The triplet loss without a margin: softplus in the place of the hinge."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from facenet_fast.mining.strategies import Strategy

from .labelled import RecipeLoss, anchor_losses, check_seed, mean_over_anchors
from .recipe import Recipe

__all__ = ["SoftMarginTripletLoss", "soft_margin_triplet_loss"]


def soft_margin_triplet_loss(
    y_true: Any,
    y_pred: Any,
    strategy: str | Strategy = "batch_hard",
    distance: str = "euclidean",
    *,
    margin: float = 0.2,
    sample_weight: Any = None,
    seed: int | None = None,
    implementation: str = "auto",
) -> tf.Tensor:
    r"""Mean soft margin over the triplets that a strategy picks from a labelled batch.

    .. math:: \frac{1}{n} \sum_{(a, p, n)} \log(1 + \exp(d_{ap} - d_{an}))

    It goes on pulling where a hinge is at rest. With ``"batch_all"``, and with any strategy that picks every
    candidate, the triplets are listed block by block: as slow as there are triplets.

    Parameters
    ----------
    y_true, y_pred, sample_weight, seed, implementation
        As of `facenet_fast.losses.triplet_loss`.
    strategy : str or Strategy, default "batch_hard"
        Which triplets.
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "euclidean"
    margin : float, default 0.2
        Of the strategy's band, if that has one; the loss has none.

    Returns
    -------
    tf.Tensor
        A scalar: 0 with gradient 0 where there is no triplet, NaN if an embedding is not finite.

    Raises
    ------
    TypeError, ValueError, tf.errors.InvalidArgumentError
        As `facenet_fast.losses.triplet_loss`.

    References
    ----------
    Hermans, Beyer and Leibe 2017, In Defense of the Triplet Loss, section 2 (the soft margin).

    Examples
    --------
    >>> from facenet_fast.losses import soft_margin_triplet_loss
    >>> labels, embeddings = ["ann", "ann", "bob"], [[0.0], [1.0], [1.5]]
    >>> round(float(soft_margin_triplet_loss(labels, embeddings)), 6)
    0.724077
    """
    recipe = Recipe(strategy, margin, distance, soft=True)
    check_seed(seed)
    return mean_over_anchors(anchor_losses(y_true, y_pred, recipe, implementation, seed), sample_weight)


@keras.saving.register_keras_serializable(package="facenet_fast")
class SoftMarginTripletLoss(RecipeLoss):
    """`soft_margin_triplet_loss` for `model.compile`.

    Parameters
    ----------
    strategy, distance, margin, seed, implementation
        As of `soft_margin_triplet_loss`.
    reduction : str, default "sum_over_batch_size"
        As Keras has it, over the anchors: the default is the mean over the triplets.
    name, dtype
        As of `keras.losses.Loss`.

    Raises
    ------
    TypeError, ValueError
        As `soft_margin_triplet_loss`.

    Examples
    --------
    >>> import keras
    >>> from facenet_fast.losses import SoftMarginTripletLoss
    >>> model = keras.Sequential([keras.layers.Dense(8), keras.layers.UnitNormalization()])
    >>> model.compile(optimizer="adam", loss=SoftMarginTripletLoss())
    """

    def __init__(
        self,
        strategy: str | Strategy = "batch_hard",
        distance: str = "euclidean",
        *,
        margin: float = 0.2,
        seed: int | None = None,
        implementation: str = "auto",
        reduction: str = "sum_over_batch_size",
        name: str | None = "soft_margin_triplet_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            Recipe(strategy, margin, distance, soft=True), implementation, name, reduction, dtype, seed
        )

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the same loss of."""
        return {**super().get_config(), **self.strategy_config()}
