"""The one head of all networks: features, bottleneck, batch-norm, unit length."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

__all__ = ["L2Normalisation", "embed"]


# Keras' own UnitNormalization would do, but readers of the frozen graph (OpenCV's among them) know only the
# operations that tf.math.l2_normalize becomes.
@keras.saving.register_keras_serializable(package="facenet_fast")
class L2Normalisation(keras.layers.Layer):  # type: ignore[misc]
    """Scale each row to Euclidean length 1: ``x / sqrt(max(sum(x**2), 1e-24))``.

    A row of zeros stays zeros. The predecessor's bound, 1e-10, gives the same for any trained network, but
    not for a deep one before training, whose features may be as small as 1e-9 while batch-norm's averages
    still have their initial values.

    Examples
    --------
    >>> L2Normalisation()(tf.constant([[3.0, 4.0]])).numpy().tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise the rows of a tensor (n, E)."""
        return tf.math.l2_normalize(inputs, axis=-1, epsilon=1e-24)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the result: that of the input."""
        return input_shape


def embed(features: Any, embedding_size: int, *, dropout: float = 0.0, momentum: float = 0.99) -> Any:
    """Put the head on a network's features.

    Feature maps are flattened, not averaged: where faces are aligned, what is where matters. A network that
    wants the average takes it itself. Then dropout, a dense layer without bias, batch-norm with offsets and
    without scales (as the predecessor's bottleneck), and L2 normalisation.

    Parameters
    ----------
    features : keras.KerasTensor
        (n, F) or (n, h, w, F).
    embedding_size : int
        E, the length of the embedding.
    dropout : float, default 0
        Share of the features dropped while training.
    momentum : float, default 0.99
        Of the batch-norm averages; the predecessor's is 0.995.

    Returns
    -------
    keras.KerasTensor
        float32 (n, E), rows of length 1.
    """
    x = keras.layers.Flatten(name="features")(features)
    if dropout > 0:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    # In float32 whatever the network computes in: half precision tells embeddings apart to three digits only.
    x = keras.layers.Dense(embedding_size, use_bias=False, name="bottleneck", dtype="float32")(x)
    x = keras.layers.BatchNormalization(
        scale=False, momentum=momentum, epsilon=1e-3, name="bottleneck_batch_norm", dtype="float32"
    )(x)
    return L2Normalisation(dtype="float32", name="embeddings")(x)
