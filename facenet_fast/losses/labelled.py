"""What all losses of labelled embeddings share: their inputs, their two implementations, their Keras class.

Each is at heart one number for each row, the mean of which is the loss: the losses of the triplets that have
the row as their anchor, times N over the number of triplets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from facenet_fast.mining.checks import check_integer, check_word
from facenet_fast.mining.strategies import PRESETS, Interval, Strategy

from . import dense, native
from .recipe import Recipe

__all__ = [
    "IMPLEMENTATIONS",
    "LabelledLoss",
    "RecipeLoss",
    "anchor_losses",
    "check_floating",
    "check_implementation",
    "check_seed",
    "is_native",
    "mean_over_anchors",
    "not_finite",
    "prepare",
    "strategy_config",
    "strategy_of",
]

IMPLEMENTATIONS: dict[str, str] = {
    "auto": "native, and tensorflow where XLA compiles",
    "native": "the compiled miner, on the CPU, through tf.numpy_function",
    "tensorflow": "plain TensorFlow operations with N x N numbers, for XLA, TPUs, and to check the other by",
}


def check_implementation(implementation: str) -> None:
    """Refuse a word that is no key of `IMPLEMENTATIONS`."""
    check_word("implementation", implementation, IMPLEMENTATIONS)


def check_seed(seed: int | None) -> None:
    """Refuse what is neither None nor an integer that seeds an operation."""
    if seed is not None:
        check_integer("seed", seed, 0, 2**31 - 1)


def is_native(implementation: str) -> bool:
    """Whether the native implementation is to be traced or run here.

    Raises
    ------
    ValueError
        If it is asked for by name inside a function that XLA compiles, or the word is unknown.
    """
    check_implementation(implementation)
    if implementation == "tensorflow":
        return False
    # Not public: what tf.function(jit_compile=True) and TPU strategies mark their graphs by.
    is_compiled = GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    if implementation == "native" and is_compiled:
        raise ValueError(
            "implementation='native' must not be compiled by XLA: compile the model with jit_compile=False, "
            "or ask for implementation='auto' or 'tensorflow'"
        )
    return not is_compiled


def check_floating(embeddings: tf.Tensor) -> None:
    """Refuse embeddings that are no floats."""
    if not embeddings.dtype.is_floating:
        raise TypeError(f"embeddings must be of a floating dtype; got {embeddings.dtype.name}")


def prepare(labels: Any, embeddings: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Return labels (N,) and embeddings (N, E) in float32, or float64 if they are.

    Embeddings of which any is not finite are NaN throughout, and so will be loss and gradient.

    Raises
    ------
    TypeError
        If the embeddings are not of a floating dtype.
    ValueError
        If the shapes are not those.
    """
    x = tf.convert_to_tensor(embeddings)
    check_floating(x)
    if x.dtype not in (tf.float32, tf.float64):
        x = tf.cast(x, tf.float32)
    y = _flat(labels)
    if x.shape.rank not in (2, None):
        raise ValueError(f"embeddings must have shape (n_images, embedding_size); got {x.shape}")
    if y.shape.rank not in (1, None) or not y.shape[:1].is_compatible_with(x.shape[:1]):
        raise ValueError(
            "labels must have shape (n_images,) or (n_images, 1), one for each of the embeddings and not a "
            f"column for each class; got {y.shape} with embeddings {x.shape}"
        )
    is_finite = tf.reduce_all(tf.math.is_finite(x))
    return y, x * tf.where(is_finite, tf.constant(1.0, x.dtype), tf.constant(np.nan, x.dtype))


def anchor_losses(
    labels: Any, embeddings: Any, recipe: Recipe, implementation: str, seed: int | None
) -> tf.Tensor:
    """Return the losses of the anchors, whose mean is the loss over the triplets.

    Parameters
    ----------
    labels, embeddings
        As `prepare` takes them.
    recipe : Recipe
    implementation : str
        A key of `IMPLEMENTATIONS`.
    seed : int or None
        Of the draws of this operation, as of TensorFlow's random operations: with it, or with
        `tf.random.set_seed`, one call after another draws the same in every run.

    Returns
    -------
    tf.Tensor, shape (N,)
        0 everywhere without triplets; NaN everywhere if an embedding is not finite.
    """
    choose = native if is_native(implementation) else dense
    y, x = prepare(labels, embeddings)
    draws = recipe.strategy.pick in ("uniform", "distance_weighted") or (
        recipe.strategy.pairs == "random_positives"
    )
    key = (
        tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32, seed=seed)
        if draws
        else tf.zeros([2], tf.int32)
    )
    sums, n_triplets = choose.loss_by_anchor(y, x, recipe, key)
    n_rows = tf.cast(tf.shape(x)[0], x.dtype)
    return tf.math.divide_no_nan(sums * n_rows, n_triplets) + not_finite(x)


def not_finite(prepared: tf.Tensor) -> tf.Tensor:
    """Return NaN where an embedding was not finite, and else 0."""
    return 0.0 * tf.reduce_sum(prepared[:1, :1])


def mean_over_anchors(losses: tf.Tensor, sample_weight: Any) -> tf.Tensor:
    """Return the mean over the anchors, each times its weight; 0 without any."""
    if sample_weight is not None:
        weights = tf.convert_to_tensor(sample_weight)
        if not weights.shape.is_compatible_with(losses.shape):
            raise ValueError(
                f"sample_weight must have shape {losses.shape}, a weight an anchor; got {weights.shape}"
            )
        losses *= tf.cast(weights, losses.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(tf.size(losses), losses.dtype))


class LabelledLoss(keras.losses.Loss):  # type: ignore[misc]
    """A Keras loss of labels and embeddings: `y_true` (N,) or (N, 1), `y_pred` (N, E).

    Labels are told apart as they come, of any dtype: Keras would make float32 of them, which does not tell
    16,777,216 from 16,777,217. `sample_weight` weighs the triplets of each anchor. Half precision is computed
    in float32.
    """

    # (labels, embeddings) -> (N,), made by the class itself.
    losses_of: Callable[[Any, Any], tf.Tensor]

    def __init__(self, name: str | None, reduction: str, dtype: Any) -> None:
        policy = keras.dtype_policies.get(dtype or keras.config.floatx())
        if policy.compute_dtype in ("float16", "bfloat16"):
            # Keras casts labels, too: half precision would not tell their numbers apart.
            policy = keras.dtype_policies.get("float32")
        super().__init__(name=name, reduction=reduction, dtype=policy)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """Return the loss, reduced as `reduction` says."""
        # Before Keras makes floats of them.
        check_floating(tf.convert_to_tensor(y_pred))
        return super().__call__(_number(y_true), y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Return the losses of the anchors, (N,)."""
        return self.losses_of(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the same loss of."""
        return {**super().get_config(), "dtype": self.dtype}


class RecipeLoss(LabelledLoss):
    """The Keras class of a recipe: what the triplets are and what each costs.

    Subclasses name their own arguments, and give them in `get_config`; implementation and seed, a strategy
    too, are seen to here.
    """

    def __init__(
        self,
        recipe: Recipe,
        implementation: str,
        name: str | None,
        reduction: str,
        dtype: Any,
        seed: int | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        check_seed(seed)
        check_implementation(implementation)
        self.recipe = recipe
        self.seed = seed
        self.implementation = implementation

    def losses_of(self, labels: Any, embeddings: Any) -> tf.Tensor:
        """Return the losses of the anchors."""
        return anchor_losses(labels, embeddings, self.recipe, self.implementation, self.seed)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the same loss of."""
        return {
            **super().get_config(),
            "margin": self.recipe.margin,
            "implementation": self.implementation,
        }

    def strategy_config(self) -> dict[str, Any]:
        """Return what a loss of any strategy adds to its configuration."""
        return {
            "strategy": strategy_config(self.recipe.strategy),
            "distance": self.recipe.distance,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RecipeLoss:
        """Make the loss of a `get_config`."""
        if "strategy" in config:
            config = {**config, "strategy": strategy_of(config["strategy"])}
        return cls(**config)


def _flat(labels: Any) -> tf.Tensor:
    """Return labels (N,) of labels (N, 1); others as they are."""
    y = tf.convert_to_tensor(labels)
    return tf.squeeze(y, axis=1) if y.shape.rank == 2 and y.shape[1] in (1, None) else y


def _number(labels: Any) -> tf.Tensor:
    """Return numbers in the place of labels of any dtype, small enough for float32."""
    y = _flat(labels)
    if y.shape.rank != 1:
        return y
    if GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        # XLA has no tf.unique: the first row of the same label.
        return tf.argmax(tf.equal(y[:, None], y[None, :]), axis=1, output_type=tf.int32)
    return tf.unique(y).idx


def strategy_config(strategy: Strategy) -> Any:
    """Return a strategy as plain values: a preset's name where it is one."""
    for name, preset in PRESETS.items():
        if strategy == preset:
            return name
    return asdict(strategy)


def strategy_of(config: Any) -> str | Strategy:
    """Return the strategy of a `strategy_config`."""
    if not isinstance(config, Mapping):
        return config  # type: ignore[no-any-return]
    fields = dict(config)
    if isinstance(fields["band"], Mapping):
        fields["band"] = Interval(**fields["band"])
    return Strategy(**fields)
