"""The formats that a network can be written as: one row each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet_fast.errors import UserError
from facenet_fast.export.frozen_graph import frozen_graph, write_graph
from facenet_fast.export.keras_file import write_keras
from facenet_fast.export.lite_file import Precision, write_tflite
from facenet_fast.export.onnx_file import write_onnx
from facenet_fast.export.saved_model import write_saved_model
from facenet_fast.models import Metadata, Network

__all__ = ["FORMATS", "Format", "Source", "format_of"]


@dataclass(frozen=True)
class Source:
    """What is written.

    Attributes
    ----------
    network : Network
        The network.
    metadata : Metadata
        What the file will say of itself.
    calibration : sequence of float32 (1, S, S, 3)
        Standardised images that stand for those to come, for formats that need to know how large numbers get.
    """

    network: Network
    metadata: Metadata
    calibration: Sequence[NDArray[np.float32]] = ()

    @cached_property
    def graph(self) -> Any:
        """The network as a graph of constants."""
        if self.network.graph is not None:
            return self.network.graph
        if self.network.keras_model is not None:
            return frozen_graph(self.network.keras_model, self.metadata.image_size)
        raise UserError(
            "what is frozen must be a run, a checkpoint, a .keras file or a frozen .pb; "
            f"got {self.network.embedder.description}"
        )


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes
    ----------
    what : str
        For people.
    ending : str
        Of file names; empty for folders.
    tolerance : float
        By how much a number of an embedding may differ from the network's, embeddings having length 1.
    write : callable
        Writes a `Source` to a path.
    packages : tuple of str
        What writes and runs it, beside TensorFlow (`facenet_fast.extras`).
    calibrated : bool
        Whether it needs calibration images.
    """

    what: str
    ending: str
    tolerance: float
    write: Callable[[Source, str], None]
    packages: tuple[str, ...] = ()
    calibrated: bool = False


def _graph(source: Source, path: str) -> None:
    write_graph(source.graph, source.metadata, path)


def _saved_model(source: Source, path: str) -> None:
    write_saved_model(source.graph, source.metadata, path)


def _tflite(precision: Precision, source: Source, path: str) -> None:
    calibration = source.calibration if precision == "int8" else None
    write_tflite(source.graph, source.metadata, path, precision=precision, calibration=calibration)


def _onnx(source: Source, path: str) -> None:
    write_onnx(source.graph, source.metadata, path)


def _keras(source: Source, path: str) -> None:
    if source.network.keras_model is None:
        raise UserError(
            "a .keras file must be made of a run, a checkpoint or another .keras file; "
            f"got {source.network.embedder.description}"
        )
    write_keras(source.network.keras_model, source.metadata, path)


_LITE = ("ai_edge_litert",)

FORMATS: dict[str, Format] = {
    "pb": Format("a frozen graph", ".pb", 1e-4, _graph),
    "saved_model": Format("a SavedModel", "", 1e-4, _saved_model),
    "tflite": Format("a TFLite model", ".tflite", 1e-4, partial(_tflite, "float32"), _LITE),
    "tflite-float16": Format("a TFLite model", ".tflite", 2e-2, partial(_tflite, "float16"), _LITE),
    "tflite-int8": Format("a TFLite model", ".tflite", 0.1, partial(_tflite, "int8"), _LITE, calibrated=True),
    "onnx": Format("an ONNX model", ".onnx", 1e-4, _onnx, ("onnx", "tf2onnx", "onnxruntime")),
    "keras": Format("a Keras model", ".keras", 1e-4, _keras),
}


def format_of(path: str, name: str | None) -> str:
    """Return the name of the format that is asked for, or that the file's ending says.

    Raises
    ------
    UserError
        If the ending is of no format.
    """
    if name is not None:
        return name
    ending = os.path.splitext(os.path.basename(path.rstrip(os.sep)))[1]
    for known, one in FORMATS.items():
        if one.ending == ending:
            return known
    endings = sorted({one.ending for one in FORMATS.values() if one.ending})
    raise UserError(
        f"the output must be called OUT{', OUT'.join(endings)}, or OUT for a SavedModel's folder; "
        f"got {path!r}"
    )
