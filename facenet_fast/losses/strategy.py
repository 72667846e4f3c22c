"""The triplet loss over the triplets that a strategy of the miner picks."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from facenet_fast.mining.strategies import Strategy

from .labelled import RecipeLoss, anchor_losses, check_seed, mean_over_anchors
from .recipe import Recipe

__all__ = ["TripletLoss", "triplet_loss"]


def triplet_loss(
    y_true: Any,
    y_pred: Any,
    strategy: str | Strategy = "facenet",
    margin: float = 0.2,
    distance: str = "squared_euclidean",
    *,
    sample_weight: Any = None,
    seed: int | None = None,
    implementation: str = "auto",
) -> tf.Tensor:
    r"""Mean hinge over the triplets that a strategy picks from a labelled batch.

    .. math:: \frac{1}{n} \sum_{(a, p, n)} \max(d_{ap} - d_{an} + m, 0)

    Parameters
    ----------
    y_true : array_like, shape (N,) or (N, 1)
        Labels of any dtype: rows of one label are of one identity.
    y_pred : array_like, shape (N, E)
        Embeddings, best at unit length (but for ``"cosine"``). Half precision is computed in float32.
    strategy : str or Strategy, default "facenet"
        Which triplets: a key of `facenet_fast.PRESETS`, or any `facenet_fast.Strategy`.
    margin : float, default 0.2
        In the unit of the distance; positive.
    distance : {"squared_euclidean", "euclidean", "cosine"}, default "squared_euclidean"
        ``"cosine"`` is ``1 - cos``.
    sample_weight : array_like, shape (N,), optional
        What the triplets of each anchor count. An image of weight 0 still is a positive and a negative.
    seed : int, optional
        Of the draws of strategies that draw, as `tf.random` operations take it. XLA does not heed it.
    implementation : {"auto", "native", "tensorflow"}, default "auto"
        ``"native"``: the compiled miner, on the CPU, wherever the embeddings are; not where XLA compiles.
        ``"tensorflow"``: plain TensorFlow, with N x N numbers; the same triplets, where nothing is drawn and
        no distance is within rounding of a band's edge. ``"auto"``: the former, unless XLA compiles.

    Returns
    -------
    tf.Tensor
        A scalar: 0 with gradient 0 where there is no triplet, NaN if an embedding is not finite.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If shapes do not fit, a word is unknown, or the margin is not positive; or if the miner refuses the
        batch: ``"distance_weighted"`` wants rows at unit length.
    tf.errors.InvalidArgumentError
        For that last reason, in a `tf.function`.

    References
    ----------
    Schroff, Kalenichenko and Philbin 2015, FaceNet, section 3.1 (equation 3), as a mean; for the strategies,
    `docs/strategies.md`.

    Examples
    --------
    >>> from facenet_fast.losses import triplet_loss
    >>> labels, embeddings = ["ann", "ann", "bob"], [[0.0], [1.0], [1.5]]
    >>> float(triplet_loss(labels, embeddings, "batch_hard", margin=2.0))
    1.75
    """
    recipe = Recipe(strategy, margin, distance)
    check_seed(seed)
    return mean_over_anchors(anchor_losses(y_true, y_pred, recipe, implementation, seed), sample_weight)


@keras.saving.register_keras_serializable(package="facenet_fast")
class TripletLoss(RecipeLoss):
    """`triplet_loss` for `model.compile`.

    Parameters
    ----------
    strategy, margin, distance, seed, implementation
        As of `triplet_loss`.
    reduction : str, default "sum_over_batch_size"
        As Keras has it, over the anchors: the default is the mean over the triplets.
    name, dtype
        As of `keras.losses.Loss`.

    Raises
    ------
    TypeError, ValueError
        As `triplet_loss`.

    Examples
    --------
    >>> import keras
    >>> from facenet_fast.losses import TripletLoss
    >>> model = keras.Sequential([keras.layers.Dense(8), keras.layers.UnitNormalization()])
    >>> model.compile(optimizer="adam", loss=TripletLoss("batch_hard", margin=0.2))
    """

    def __init__(
        self,
        strategy: str | Strategy = "facenet",
        margin: float = 0.2,
        distance: str = "squared_euclidean",
        *,
        seed: int | None = None,
        implementation: str = "auto",
        reduction: str = "sum_over_batch_size",
        name: str | None = "triplet_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(Recipe(strategy, margin, distance), implementation, name, reduction, dtype, seed)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the same loss of."""
        return {**super().get_config(), **self.strategy_config()}
