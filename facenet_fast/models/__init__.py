"""Trained networks as embedders, whatever they are stored as."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from facenet_fast.checkpoints import find_checkpoint
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.models.graphs import metadata_in_graph, read_frozen_graph, read_graph
from facenet_fast.models.keras_models import (
    keras_embedder,
    load_keras_file,
    metadata_in_keras_file,
    read_keras_file,
    read_run,
)
from facenet_fast.models.lite_files import metadata_in_tflite, read_tflite
from facenet_fast.models.metadata import Metadata
from facenet_fast.models.network import Network
from facenet_fast.models.onnx_files import metadata_in_onnx, read_onnx
from facenet_fast.models.saved_models import is_saved_model, metadata_in_saved_model, read_saved_model
from facenet_fast.models.tf1_checkpoints import find_tf1_checkpoint, is_tf1_checkpoint, read_tf1_checkpoint

__all__ = [
    "Metadata",
    "Network",
    "keras_embedder",
    "load_embedder",
    "load_keras_file",
    "load_network",
    "name_of_model",
    "read_graph",
    "read_metadata",
]

_logger = logging.getLogger("facenet_fast")


@dataclass(frozen=True)
class _Kind:
    """How models of one kind are read."""

    read: Callable[[str, int | None], Network]
    read_metadata: Callable[[str], Metadata | None]


_FILES = {
    ".pb": _Kind(read_frozen_graph, lambda path: metadata_in_graph(read_graph(path), path)),
    ".keras": _Kind(read_keras_file, metadata_in_keras_file),
    ".onnx": _Kind(read_onnx, metadata_in_onnx),
    ".tflite": _Kind(read_tflite, metadata_in_tflite),
}
_SAVED_MODEL = _Kind(read_saved_model, metadata_in_saved_model)

_KINDS = (
    "a run folder, a checkpoint's prefix RUN/model-STAMP.ckpt-STEP, a SavedModel's folder, a file "
    + ", ".join(f"MODEL{ending}" for ending in _FILES)
    + ", or a TensorFlow 1 folder of .meta and .ckpt-STEP"
)


def load_embedder(
    model_path: str, *, image_size: int | None = None, standardisation: str | None = None
) -> Embedder:
    """Load a trained network to embed images with.

    Parameters
    ----------
    model_path, image_size, standardisation
        See `load_network`.

    Returns
    -------
    Embedder

    Raises
    ------
    UserError
        As `load_network`.
    """
    return load_network(model_path, image_size=image_size, standardisation=standardisation).embedder


def load_network(
    model_path: str, *, image_size: int | None = None, standardisation: str | None = None
) -> Network:
    """Load a trained network.

    Parameters
    ----------
    model_path : str
        A run folder (its newest checkpoint is taken); a checkpoint's prefix; what `freeze` or another program
        writes: a SavedModel's folder, a ``.keras``, ``.onnx`` or ``.tflite`` file, a frozen ``.pb``; or a
        folder of TensorFlow 1, with a ``.meta`` and a checkpoint. Graphs of TensorFlow 1 have the
        predecessor's names: ``input:0`` or ``image_batch:0`` to feed, ``embeddings:0`` to fetch and, perhaps,
        ``phase_train:0``.
    image_size : int, optional
        Side of the images in pixels; what the model says by default (160 if it says nothing).
    standardisation : {"per_image", "fixed"}, optional
        How to standardise; what the model says by default ("per_image" if it says nothing). Where both speak
        and differ, a warning is logged and this is done.

    Returns
    -------
    Network

    Raises
    ------
    UserError
        If there is no such model, it cannot be read, or it takes images of another size.
    """
    path = os.path.expanduser(model_path)
    network = _read(path, model_path, image_size)
    embedder = network.embedder
    if image_size is not None and image_size != embedder.image_size:
        raise UserError(
            f"the image size must be {embedder.image_size}, which {model_path} takes; got {image_size}"
        )
    if standardisation is None or standardisation == embedder.standardisation:
        return network
    if network.metadata is not None:
        _logger.warning(
            "%s was trained on images standardised %s, and is now given them standardised %s",
            model_path,
            embedder.standardisation,
            standardisation,
        )
    return dataclasses.replace(
        network, embedder=dataclasses.replace(embedder, standardisation=standardisation)
    )


def read_metadata(model_path: str) -> Metadata | None:
    """Return what a model file says of itself; None of those that others wrote, and of runs.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    path = os.path.expanduser(model_path)
    kind = _kind(path)
    return kind.read_metadata(path) if kind else None


def describe(model_path: str) -> list[str]:
    """Return the lines by which commands say which model they run, as the predecessor's scripts do.

    Raises
    ------
    UserError
        If there is none.
    """
    path = os.path.expanduser(model_path)
    if _kind(path):
        return [f"Model filename: {model_path}"]
    metagraph, checkpoint = _checkpoint_of(path)
    return [
        f"Model directory: {os.path.dirname(checkpoint)}",
        *([f"Metagraph file: {os.path.basename(metagraph)}"] if metagraph else []),
        f"Checkpoint file: {os.path.basename(checkpoint)}",
    ]


def name_of_model(model_path: str) -> str:
    """Return the last component of a model's file or folder or, of a run, of its newest checkpoint's prefix.

    Raises
    ------
    UserError
        If there is none.
    """
    path = os.path.expanduser(model_path)
    if _kind(path):
        return os.path.basename(os.path.abspath(path))
    return os.path.basename(_checkpoint_of(path)[1])


def _checkpoint_of(path: str) -> tuple[str, str]:
    """Return the metagraph's file, empty for runs, and the checkpoint's prefix."""
    return find_tf1_checkpoint(path) if is_tf1_checkpoint(path) else ("", find_checkpoint(path))


def _kind(path: str) -> _Kind | None:
    """Return how a file or a SavedModel is read; None for checkpoints, and for what is no model."""
    if os.path.isdir(path):
        return _SAVED_MODEL if is_saved_model(path) else None
    return _FILES.get(os.path.splitext(path)[1]) if os.path.isfile(path) else None


def _read(path: str, name: str, image_size: int | None) -> Network:
    kind = _kind(path)
    if kind:
        return kind.read(path, image_size)
    if is_tf1_checkpoint(path):
        return read_tf1_checkpoint(path, image_size)
    if os.path.isdir(path) or os.path.isfile(path + ".index") or ".ckpt-" in os.path.basename(path):
        return read_run(path)
    if os.path.exists(path):
        raise UserError(f"the model must be {_KINDS}; {name!r} is a file of another kind")
    raise UserError(f"the model must be {_KINDS}; {name!r} does not exist")
