"""Checkpoints of TensorFlow 1, a metagraph ``.meta`` and variables beside it, as networks."""

from __future__ import annotations

import os
import re
from typing import Any

import tensorflow as tf

from facenet_fast.checkpoints import find_checkpoint, step_of
from facenet_fast.errors import UserError, first_line
from facenet_fast.models.graphs import (
    VARIABLE_OPS,
    constant_node,
    graph_network,
    inference_graph,
    read_message,
)
from facenet_fast.models.network import Network

__all__ = ["find_tf1_checkpoint", "is_tf1_checkpoint", "read_tf1_checkpoint"]

_META = ".meta"
_CONFIG = "config.json"  # of runs of this project
_SINGLE_FILE = re.compile(r"\.ckpt-\d+$")
_FILE_OF_PREFIX = re.compile(r"\.(index|data-\d{5}-of-\d{5}|meta)$")


def is_tf1_checkpoint(path: str) -> bool:
    """Tell whether a path stands for a checkpoint of TensorFlow 1.

    Parameters
    ----------
    path : str
        A folder, a checkpoint's prefix ``FOLDER/NAME.ckpt-STEP`` or one of its files, or a ``.meta`` file.

    Returns
    -------
    bool
        Whether a ``.meta`` file is in the folder, and no ``config.json``, which runs of this project have.
    """
    folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    if not (os.path.isdir(path) or path.endswith(_META) or ".ckpt" in os.path.basename(path)):
        return False
    return bool(_metas_in(folder)) and not os.path.isfile(os.path.join(folder, _CONFIG))


def read_tf1_checkpoint(path: str, image_size: int | None = None) -> Network:
    """Read a checkpoint of TensorFlow 1 as a network.

    Of the metagraph only what turns images into embeddings is kept and run; its variables get the values that
    the checkpoint has under their names. Averages that were saved too (``NAME/ExponentialMovingAverage``) are
    not taken, as the predecessor did not.

    Parameters
    ----------
    path : str
        A folder with one ``.meta`` file, of which the newest checkpoint is taken; a checkpoint's prefix
        ``FOLDER/NAME.ckpt-STEP`` or one of its files; or the ``.meta`` file.
    image_size : int, optional
        Side of the images, for a graph that does not say it (160 by default).

    Returns
    -------
    Network
        Its graph is the inference graph, of constants (`facenet_fast.models.graphs.inference_graph`).

    Raises
    ------
    UserError
        If there is not one metagraph and a checkpoint that fits, they cannot be read, or the network takes or
        gives something else than images and embeddings.
    """
    meta_path, prefix = find_tf1_checkpoint(path)
    graph = inference_graph(_read_metagraph(meta_path), f"the metagraph {meta_path}")
    graph = _with_values(graph, prefix, meta_path)
    return graph_network(graph, f"the TensorFlow 1 checkpoint {prefix}", image_size=image_size)


def find_tf1_checkpoint(path: str) -> tuple[str, str]:
    """Find a metagraph's file and a checkpoint's prefix; parameter and errors as `read_tf1_checkpoint`."""
    path = os.path.abspath(path)
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    metas = _metas_in(folder)
    if path.endswith(_META) and not os.path.isdir(path):
        if os.path.basename(path) not in metas:
            raise UserError(f"the metagraph {path!r} must exist; it does not")
        prefix = path.removesuffix(_META)
        prefix = prefix if _is_checkpoint(prefix) else _find_prefix(folder)
        metas = [os.path.basename(path)] if _fits(os.path.basename(path), prefix) else metas
    else:
        prefix = _find_prefix(path)
        # In a folder that several models share, chance would decide what is newest.
        if path != folder and len(metas) > 1:
            metas = [meta for meta in metas if _fits(meta, prefix)] or metas
    if len(metas) != 1:
        raise UserError(
            f"{folder!r} must hold one metagraph (*{_META}) for {path!r}; found {', '.join(metas) or 'none'}"
        )
    return os.path.join(folder, metas[0]), prefix


def _metas_in(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(_META))
    except OSError:
        return []


def _fits(meta: str, prefix: str) -> bool:
    # The predecessor writes one metagraph for all checkpoints, TensorFlow by itself one for each.
    stem, name = meta.removesuffix(_META), os.path.basename(prefix)
    return name == stem or name.startswith(f"{stem}.ckpt")


def _is_checkpoint(prefix: str) -> bool:
    # The first format of TensorFlow 1 is one file without an ending.
    return os.path.isfile(prefix + ".index") or os.path.isfile(prefix)


def _find_prefix(path: str) -> str:
    prefix = path if os.path.isdir(path) else _FILE_OF_PREFIX.sub("", path)
    if os.path.isfile(prefix):
        return prefix
    try:
        return find_checkpoint(prefix)
    except UserError:
        files = os.listdir(path) if os.path.isdir(path) else []
        files = [file for file in files if _SINGLE_FILE.search(file)]
        if not files:
            raise
        return os.path.join(path, max(files, key=step_of))


def _read_metagraph(path: str) -> tf.compat.v1.GraphDef:
    metagraph = tf.compat.v1.MetaGraphDef()
    read_message(path, metagraph, "metagraph")
    return metagraph.graph_def


def _with_values(graph: tf.compat.v1.GraphDef, prefix: str, meta_path: str) -> tf.compat.v1.GraphDef:
    """Replace a graph's variables by constants of the values that a checkpoint has under their names."""
    values = _read_values([node for node in graph.node if node.op in VARIABLE_OPS], prefix, meta_path)
    result = tf.compat.v1.GraphDef(versions=graph.versions, library=graph.library)
    for node in graph.node:
        if node.name in values:
            node = constant_node(node.name, values[node.name])
        elif node.op == "ReadVariableOp":
            node = tf.compat.v1.NodeDef(
                name=node.name, op="Identity", input=node.input, attr={"T": node.attr["dtype"]}
            )
        result.node.append(node)
    return result


def _read_values(variables: list[Any], prefix: str, meta_path: str) -> dict[str, Any]:
    try:
        reader = tf.train.load_checkpoint(prefix)
        missing = [node.name for node in variables if not reader.has_tensor(node.name)]
        values = {} if missing else {node.name: reader.get_tensor(node.name) for node in variables}
    # A damaged file shows as any of these, depending on where TensorFlow stumbles.
    except (IndexError, RuntimeError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"the checkpoint {prefix!r} cannot be read: {first_line(error)}") from error
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(
            f"the checkpoint {prefix!r} must hold the {len(variables)} variables of {meta_path!r}; "
            f"it lacks {len(missing)}: {names}"
        )
    for node in variables:
        # No dimensions may also mean, in the oldest graphs, that the shape is not known.
        shape = tf.TensorShape(node.attr["shape"].shape)
        if shape.rank and not shape.is_compatible_with(values[node.name].shape):
            raise UserError(
                f"the checkpoint {prefix!r} must hold the variables of {meta_path!r}; "
                f"{node.name} must have the shape {shape}, got {values[node.name].shape}"
            )
    return values
