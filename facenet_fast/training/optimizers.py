"""Optimizers by name, those of the predecessor with its constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from facenet_fast.config import TrainConfig

__all__ = ["build_optimizer"]

# TensorFlow 1's defaults are written out where Keras' differ: Adagrad starts its sums at 0.1 and adds
# nothing under the root, Adam adds 0.1, RMSProp adds 1 and starts its averages at 1.
_BUILDERS: dict[str, Callable[[TrainConfig], Any]] = {
    "adamw": lambda config: keras.optimizers.AdamW(
        config.learning_rate, beta_2=0.99, weight_decay=config.weight_decay
    ),
    "ADAGRAD": lambda config: keras.optimizers.Adagrad(
        config.learning_rate, initial_accumulator_value=0.1, epsilon=1e-30
    ),
    "ADADELTA": lambda config: keras.optimizers.Adadelta(config.learning_rate, rho=0.9, epsilon=1e-6),
    "ADAM": lambda config: keras.optimizers.Adam(config.learning_rate, beta_1=0.9, beta_2=0.999, epsilon=0.1),
    "RMSPROP": lambda config: keras.optimizers.RMSprop(
        config.learning_rate, rho=0.9, momentum=0.9, epsilon=1.0
    ),
    "MOM": lambda config: keras.optimizers.SGD(config.learning_rate, momentum=0.9, nesterov=True),
}


def build_optimizer(config: TrainConfig, variables: Sequence[keras.Variable]) -> keras.Optimizer:
    """Make the optimizer of a configuration, its variables included.

    Parameters
    ----------
    config : TrainConfig
        Read: `optimizer`, `weight_decay` (``adamw`` only: kernels decay by ``learning_rate * weight_decay`` a
        step; with the others it belongs to the loss); `precision` (float16's loss must be scaled up, or small
        gradients vanish, and its optimizer divides them again). The learning rate is set anew at each step.
    variables : sequence of keras.Variable
        What it will train.

    Returns
    -------
    keras.Optimizer
    """
    optimizer = _BUILDERS[config.optimizer](config)
    if config.optimizer == "adamw":
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    if config.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    if config.optimizer == "RMSPROP":
        for variable in optimizer.variables:
            if variable.path.endswith("velocity"):
                variable.assign(keras.ops.ones_like(variable))
    return optimizer
