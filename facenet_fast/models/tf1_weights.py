"""The predecessor's Inception-ResNet-v1 as a Keras model: from a TensorFlow 1 checkpoint or frozen graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from facenet_fast import backbones
from facenet_fast.backbones.tf1_names import NETWORK, SCOPE, weight_names, weights_by_name
from facenet_fast.errors import UserError, first_line
from facenet_fast.models.graphs import read_graph
from facenet_fast.models.tf1_checkpoints import find_tf1_checkpoint, is_tf1_checkpoint

__all__ = ["is_tf1", "load_tf1_model"]

_BOTTLENECK = f"{SCOPE}/Bottleneck/weights"
# What the layers of a network of this kind call their variables. A graph's other constants are none.
_KINDS = frozenset({"weights", "biases", "beta", "gamma", "moving_mean", "moving_variance"})


@dataclass(frozen=True)
class _Variables:
    """What a file holds: shapes by name, and how one is read."""

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], npt.NDArray[Any]]


def is_tf1(path: str) -> bool:
    """Tell the predecessor's weights, a frozen graph or a checkpoint with its metagraph, from our runs.

    Examples
    --------
    >>> is_tf1("20180402-114759.pb"), is_tf1("model.keras")
    (True, False)
    """
    return path.endswith(".pb") or is_tf1_checkpoint(path)


def load_tf1_model(path: str) -> tuple[keras.Model, list[str]]:
    """Load the predecessor's Inception-ResNet-v1 by the names of its variables.

    Parameters
    ----------
    path : str
        As of `facenet_fast.models.tf1_checkpoints.read_tf1_checkpoint`, or a frozen graph ``.pb``.

    Returns
    -------
    model : keras.Model
        Our `inception_resnet_v1`, with the embedding size that the file's bottleneck has.
    not_used : list of str
        What else the file holds, but for optimizer slots, step counters and the classifier (``Logits/``).

    Raises
    ------
    UserError
        If there is no such file, it cannot be read, or it holds another network.
    """
    variables = _read_graph(path) if path.endswith(".pb") else _read_checkpoint(path)
    in_file = {name: _name_in_file(name, variables.shapes) for name in weight_names()}
    _check_names(in_file.values(), variables.shapes, path)
    *_, embedding_size = 1, *variables.shapes[in_file[_BOTTLENECK]]
    # Its weights fit images of any size.
    model = backbones.build(NETWORK, image_size=160, embedding_size=embedding_size)
    weights = {in_file[name]: weight for name, weight in weights_by_name(model).items()}
    for name, weight in weights.items():
        if variables.shapes[name] != tuple(weight.shape):
            raise UserError(
                f"{path!r} must hold the predecessor's Inception-ResNet-v1; {name} must have the shape "
                f"{tuple(weight.shape)}, got {variables.shapes[name]}"
            )
    try:
        for name, weight in weights.items():
            weight.assign(variables.read(name))
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"{path!r} cannot be read: {first_line(error)}") from error
    return model, _not_used(variables.shapes, weights)


def _name_in_file(name: str, names: Collection[str]) -> str:
    # Earlier versions have the bottleneck outside the network's scope.
    outside = name.removeprefix(f"{SCOPE}/")
    return outside if name.startswith(f"{SCOPE}/Bottleneck/") and outside in names else name


def _check_names(wanted: Collection[str], names: Collection[str], path: str) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        found = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"{path!r} must hold the predecessor's Inception-ResNet-v1; of its {len(wanted)} variables it "
            f"has {len(wanted) - len(missing)}, not {missing[0]}; it holds {found or 'no variables'}"
        )


def _not_used(shapes: Mapping[str, tuple[int, ...]], used: Collection[str]) -> list[str]:
    def is_expected(name: str) -> bool:
        is_slot = name.rpartition("/")[0] in used
        is_counter = shapes[name] == ()
        return is_slot or is_counter or name.startswith("Logits/")

    return sorted(name for name in shapes if name not in used and not is_expected(name))


def _read_checkpoint(path: str) -> _Variables:
    _, prefix = find_tf1_checkpoint(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(f"the checkpoint {prefix!r} cannot be read: {first_line(error)}") from error
    return _Variables(shapes, reader.get_tensor)


def _read_graph(path: str) -> _Variables:
    tensors = {
        node.name: node.attr["value"].tensor
        for node in read_graph(path).node
        if node.op == "Const" and node.name.rpartition("/")[2] in _KINDS
    }
    return _Variables(
        {name: tuple(dim.size for dim in tensor.tensor_shape.dim) for name, tensor in tensors.items()},
        lambda name: np.asarray(tf.make_ndarray(tensors[name])),
    )
