"""Trained networks as embedders, whether they are stored as a checkpoint, a .keras file or a frozen graph."""

from __future__ import annotations

import dataclasses
import logging
import os
import zipfile
from typing import Any

import numpy as np
import tensorflow as tf

from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder

__all__ = [
    "GRAPH_FEEDS",
    "GRAPH_FETCH",
    "GRAPH_PHASE",
    "IMAGE_SIZE_ATTRIBUTE",
    "STANDARDISATION_ATTRIBUTE",
    "STORE_SIZE_ATTRIBUTE",
    "THRESHOLDS_ATTRIBUTE",
    "keras_embedder",
    "load_embedder",
    "load_keras_file",
    "read_graph",
    "thresholds_in_graph",
]

# The names by which the predecessor's scripts feed and fetch a frozen graph.
GRAPH_FEEDS = ("input", "image_batch")
GRAPH_PHASE = "phase_train"
GRAPH_FETCH = "embeddings"

# What a graph cannot say by itself stands as attributes of its placeholder. TensorFlow passes over attributes
# that begin with an underscore.
IMAGE_SIZE_ATTRIBUTE = "_facenet_fast_image_size"
STORE_SIZE_ATTRIBUTE = "_facenet_fast_store_size"
STANDARDISATION_ATTRIBUTE = "_facenet_fast_standardisation"
THRESHOLDS_ATTRIBUTE = "_facenet_fast_thresholds"

_DEFAULT_IMAGE_SIZE = 160  # of the predecessor's graphs, whose placeholders have no shape
_DEFAULT_STANDARDISATION = "per_image"
_VARIABLE_OPS = frozenset({"Variable", "VariableV2", "VarHandleOp", "VarIsInitializedOp", "ReadVariableOp"})
_KINDS = "a run folder, a checkpoint's prefix RUN/model-STAMP.ckpt-STEP, a .keras file or a frozen .pb"

_logger = logging.getLogger("facenet_fast")


def load_embedder(
    model_path: str, *, image_size: int | None = None, standardisation: str | None = None
) -> Embedder:
    """Load a trained network.

    Parameters
    ----------
    model_path : str
        A run folder (its newest checkpoint is taken), a checkpoint's prefix, a ``.keras`` file, or a frozen
        ``.pb``: one by `facenet_fast.export.freeze` or by the predecessor, with a tensor ``input:0`` or
        ``image_batch:0`` to feed, ``embeddings:0`` to fetch and, perhaps, ``phase_train:0``.
    image_size : int, optional
        Side of the images in pixels; what the model says by default (160 if it says nothing).
    standardisation : {"per_image", "fixed"}, optional
        How to standardise; what the model says by default ("per_image" if it says nothing). Where both speak
        and differ, a warning is logged and this is done.

    Returns
    -------
    Embedder

    Raises
    ------
    UserError
        If there is no such model, it cannot be read, or it takes images of another size.
    """
    path = os.path.expanduser(model_path)
    if os.path.isfile(path) and path.endswith(".keras"):
        embedder = keras_embedder(
            load_keras_file(path), image_size=image_size, description=f"the Keras model {model_path}"
        )
        known_standardisation = None
    elif os.path.isfile(path) and path.endswith(".pb"):
        embedder, known_standardisation = _graph_embedder(path, image_size)
    elif os.path.isdir(path) or os.path.isfile(path + ".index") or ".ckpt-" in os.path.basename(path):
        embedder = _checkpoint_embedder(path)
        known_standardisation = embedder.standardisation
    elif os.path.exists(path):
        raise UserError(f"the model must be {_KINDS}; {model_path!r} is a file of another kind")
    else:
        raise UserError(f"the model must be {_KINDS}; {model_path!r} does not exist")
    _check_image_size(embedder, image_size, model_path)
    if standardisation is None or standardisation == embedder.standardisation:
        return embedder
    if known_standardisation is not None:
        _logger.warning(
            "%s was trained on images standardised %s, and is now given them standardised %s",
            model_path,
            known_standardisation,
            standardisation,
        )
    return dataclasses.replace(embedder, standardisation=standardisation)


def keras_embedder(
    model: Any,
    *,
    standardisation: str = _DEFAULT_STANDARDISATION,
    image_size: int | None = None,
    store_size: int = 0,
    description: str = "the network",
) -> Embedder:
    """Make an embedder of a Keras model in memory, run in inference mode; later changes of its weights count.

    Parameters
    ----------
    model : keras.Model
        float32 (n, S, S, 3), standardised, to (n, D).
    standardisation : {"per_image", "fixed"}
        How its images are standardised.
    image_size : int, optional
        S, for a model that takes any; by default what the model's input says.
    store_size : int
        See `Embedder`.
    description : str
        What it is, for messages.

    Returns
    -------
    Embedder

    Raises
    ------
    UserError
        If the model takes or gives something else.
    """
    side = _side_of(model, description) or image_size or _DEFAULT_IMAGE_SIZE
    output_shape = model.output_shape
    if not isinstance(output_shape, tuple) or len(output_shape) != 2 or output_shape[1] is None:
        raise UserError(f"the model must give embeddings (n, D); {description} gives {output_shape}")

    # Traced here and now, so that what the network cannot do shows before any image is read.
    images = tf.TensorSpec((None, side, side, 3), tf.float32)
    embed = tf.function(lambda batch: model(batch, training=False)).get_concrete_function(images)

    return Embedder(
        embed=lambda images: np.asarray(embed(tf.convert_to_tensor(images))),
        image_size=side,
        standardisation=standardisation,
        embedding_size=output_shape[1],
        description=description,
        store_size=store_size,
    )


def load_keras_file(path: str) -> Any:
    """Read a ``.keras`` file.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    keras.Model
        Not compiled.

    Raises
    ------
    UserError
        If it is not to be read.
    """
    import keras

    import facenet_fast.backbones.head  # noqa: F401 - registers the head's layer, which the file names

    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"the Keras model {path!r} cannot be read: {_first_line(error)}") from error


def read_graph(path: str) -> tf.compat.v1.GraphDef:
    """Read a frozen graph.

    Parameters
    ----------
    path : str
        The ``.pb`` file.

    Returns
    -------
    tf.compat.v1.GraphDef

    Raises
    ------
    UserError
        If the file is not to be read, is no graph, or is a graph without its weights.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    graph = tf.compat.v1.GraphDef()
    try:
        with open(path, "rb") as file:
            graph.ParseFromString(file.read())
    except OSError as error:
        raise UserError(f"the frozen graph {path!r} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(f"{path!r} must be a frozen graph; it is cut short or something else") from error
    names = {node.name for node in graph.node}
    if GRAPH_FETCH not in names or not names.intersection(GRAPH_FEEDS):
        found = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"{path!r} must be a frozen graph with {GRAPH_FEEDS[0]!r} or {GRAPH_FEEDS[1]!r} to feed and "
            f"{GRAPH_FETCH!r} to fetch; it has {len(names)} operations" + (f": {found}" if found else "")
        )
    if any(node.op in _VARIABLE_OPS for node in graph.node):
        raise UserError(f"{path!r} must be a frozen graph; its weights are not in it")
    return graph


def thresholds_in_graph(path: str) -> str:
    """Return what a frozen graph says of thresholds (`facenet_fast.thresholds`), or an empty text.

    Raises
    ------
    UserError
        As `read_graph`.
    """
    for node in read_graph(path).node:
        if THRESHOLDS_ATTRIBUTE in node.attr:
            return str(node.attr[THRESHOLDS_ATTRIBUTE].s.decode())
    return ""


def _checkpoint_embedder(path: str) -> Embedder:
    from facenet_fast.checkpoints import load_model

    model, config = load_model(path)
    return keras_embedder(
        model,
        standardisation=config.standardisation,
        image_size=config.image_size,
        store_size=config.store_size,
        description=f"the checkpoint {path}",
    )


def _graph_embedder(path: str, image_size: int | None) -> tuple[Embedder, str | None]:
    """Make an embedder of a frozen graph; also what its file says of standardisation."""
    graph = read_graph(path)
    nodes = {node.name: node for node in graph.node}
    feed = next(name for name in GRAPH_FEEDS if name in nodes)
    # A phase with a default need not be fed; the predecessor's has none.
    phases = [GRAPH_PHASE] if GRAPH_PHASE in nodes and nodes[GRAPH_PHASE].op == "Placeholder" else []
    try:
        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        pruned = imported.prune(
            [imported.graph.get_tensor_by_name(f"{name}:0") for name in (feed, *phases)],
            imported.graph.get_tensor_by_name(f"{GRAPH_FETCH}:0"),
        )
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        raise UserError(f"the frozen graph {path!r} cannot be imported: {_first_line(error)}") from error

    placeholder = nodes.get("image_batch", nodes[feed])
    side = _side_of_placeholder(placeholder) or image_size or _DEFAULT_IMAGE_SIZE

    def embed(images: Any) -> Any:
        fed = [tf.convert_to_tensor(images), *(tf.constant(False) for _ in phases)]
        return np.asarray(pruned(*fed))

    try:
        # One image run now shows what the graph gives, and that it can be run at all.
        shape = embed(np.zeros((1, side, side, 3), dtype=np.float32)).shape
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise UserError(
            f"the frozen graph {path!r} cannot embed a {side} x {side} image: {_first_line(error)}"
        ) from error
    if len(shape) != 2 or shape[0] != 1:
        raise UserError(
            f"the model must give embeddings (n, D); the frozen graph {path!r} gives {shape} for 1 image"
        )
    known = (
        placeholder.attr[STANDARDISATION_ATTRIBUTE].s.decode()
        if STANDARDISATION_ATTRIBUTE in placeholder.attr
        else None
    )
    store_size = placeholder.attr[STORE_SIZE_ATTRIBUTE].i if STORE_SIZE_ATTRIBUTE in placeholder.attr else 0
    embedder = Embedder(
        embed=embed,
        image_size=side,
        standardisation=known or _DEFAULT_STANDARDISATION,
        embedding_size=shape[1],
        description=f"the frozen graph {path}",
        store_size=store_size,
    )
    return embedder, known


def _side_of_placeholder(placeholder: Any) -> int | None:
    if IMAGE_SIZE_ATTRIBUTE in placeholder.attr:
        return int(placeholder.attr[IMAGE_SIZE_ATTRIBUTE].i)
    sides = [dimension.size for dimension in placeholder.attr["shape"].shape.dim[1:3]]
    return int(sides[0]) if len(sides) == 2 and sides[0] == sides[1] > 0 else None


def _side_of(model: Any, description: str) -> int | None:
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise UserError(f"the model must take one batch of images (n, S, S, 3); {description} takes {shape}")
    side: int | None = shape[1]
    return side


def _check_image_size(embedder: Embedder, image_size: int | None, model_path: str) -> None:
    if image_size is not None and image_size != embedder.image_size:
        raise UserError(
            f"the image size must be {embedder.image_size}, which {model_path} takes; got {image_size}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
