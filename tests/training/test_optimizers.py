"""Each of the predecessor's optimizers against its formula, written out."""

import keras
import numpy as np
import pytest

from facenet_fast.config import TrainConfig
from facenet_fast.training.optimizers import build_optimizer

RATE = 0.1
START = np.array([1.0, -2.0, 0.5], np.float64)
GRADIENTS = [np.array(g, np.float64) for g in ([0.5, -1.0, 0.0], [0.1, 2.0, -3.0], [-0.7, 0.2, 0.4])]


def adagrad(x, gradients):
    total = np.full(3, 0.1)
    for g in gradients:
        total = total + g * g
        x = x - RATE * g / np.sqrt(total)
    return x


def adadelta(x, gradients):
    squares, updates = np.zeros(3), np.zeros(3)
    for g in gradients:
        squares = 0.9 * squares + 0.1 * g * g
        update = np.sqrt(updates + 1e-6) / np.sqrt(squares + 1e-6) * g
        updates = 0.9 * updates + 0.1 * update * update
        x = x - RATE * update
    return x


def adam(x, gradients):
    m, v = np.zeros(3), np.zeros(3)
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        x = x - RATE * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 0.1)
    return x


def rmsprop(x, gradients):
    squares, momentum = np.ones(3), np.zeros(3)
    for g in gradients:
        squares = 0.9 * squares + 0.1 * g * g
        momentum = 0.9 * momentum + RATE * g / np.sqrt(squares + 1.0)
        x = x - momentum
    return x


def nesterov(x, gradients):
    accumulated = np.zeros(3)
    for g in gradients:
        accumulated = 0.9 * accumulated + g
        x = x - RATE * (g + 0.9 * accumulated)
    return x


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("ADAGRAD", adagrad),
        ("ADADELTA", adadelta),
        ("ADAM", adam),
        ("RMSPROP", rmsprop),
        ("MOM", nesterov),
    ],
)
def test_formula_and_constants(name, formula):
    variable = keras.Variable(START.astype(np.float32), name="kernel")
    optimizer = build_optimizer(TrainConfig(optimizer=name, learning_rate=RATE), [variable])
    for gradient in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))], [variable])
    np.testing.assert_allclose(variable.numpy(), formula(START, GRADIENTS), rtol=2e-5)


def test_adamw_decays_kernels_only():
    kernel = keras.Variable([2.0], name="kernel")
    beta = keras.Variable([2.0], name="beta")
    config = TrainConfig(optimizer="adamw", learning_rate=RATE, weight_decay=0.5)
    build_optimizer(config, [kernel, beta]).apply([keras.ops.zeros(1), keras.ops.zeros(1)], [kernel, beta])
    np.testing.assert_allclose(kernel.numpy(), [2.0 * (1 - RATE * 0.5)], rtol=1e-6)
    np.testing.assert_allclose(beta.numpy(), [2.0])
