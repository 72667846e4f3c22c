"""TensorFlow Lite (LiteRT) files, by this package and by others."""

from __future__ import annotations

import threading
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet_fast.data.decoding import n_usable_cpus
from facenet_fast.errors import UserError, first_line
from facenet_fast.extras import import_extra
from facenet_fast.models.metadata import METADATA_FILE, Metadata
from facenet_fast.models.network import Network
from facenet_fast.models.runtimes import Port, network_of
from facenet_fast.quiet import quiet

__all__ = ["metadata_in_tflite", "read_tflite"]


def read_tflite(path: str, image_size: int | None = None) -> Network:
    """Read a TensorFlow Lite file as a network, which LiteRT runs on all usable CPUs.

    Parameters
    ----------
    path : str
        The file, by `facenet_fast.export.freeze` or by anybody: one input, images in float32, and one output
        or one called ``embeddings``.
    image_size : int, optional
        Side of the images, for a model that takes any (160 by default).

    Raises
    ------
    UserError
        If ai-edge-litert is not installed, the file cannot be read, or it takes or gives something else.
    """
    litert = import_extra("ai_edge_litert.interpreter", "reading TensorFlow Lite")
    metadata = metadata_in_tflite(path)
    # It names its delegate, once a process.
    with quiet():
        try:
            interpreter = litert.Interpreter(path, num_threads=n_usable_cpus())
            takes, gives = _ends_of(interpreter)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"the TensorFlow Lite model {path!r} cannot be read: {first_line(error)}"
            ) from error
        return network_of(
            _runner(interpreter, takes, gives),
            [_port(name, details) for name, details in takes.items()],
            [_port(name, details) for name, details in gives.items()],
            metadata,
            image_size=image_size,
            description=f"the TensorFlow Lite model {path}",
        )


def metadata_in_tflite(path: str) -> Metadata | None:
    """Return what a TensorFlow Lite file says of itself; None of files that others wrote.

    Raises
    ------
    UserError
        If the file or its record cannot be read.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if METADATA_FILE not in archive.namelist():
                    return None
                return Metadata.from_json(archive.read(METADATA_FILE), path)
        with open(path, "rb") as file:
            # The network before the archive may be whole, but how its images are prepared is lost.
            if METADATA_FILE.encode() in file.read():
                raise UserError(f"the TensorFlow Lite model {path!r} cannot be read: it is cut short")
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"the TensorFlow Lite model {path!r} cannot be read: {first_line(error)}") from error
    return None


def _ends_of(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs and outputs by name: the signature's names where there is one, else the tensors'."""
    signatures = interpreter.get_signature_list()
    if len(signatures) == 1:
        runner = interpreter.get_signature_runner()
        return runner.get_input_details(), runner.get_output_details()
    return (
        {details["name"]: details for details in interpreter.get_input_details()},
        {details["name"]: details for details in interpreter.get_output_details()},
    )


def _runner(interpreter: Any, takes: dict[str, Any], gives: dict[str, Any]) -> Any:
    lock = threading.Lock()
    shape: tuple[int, ...] = ()

    def run(images: NDArray[np.float32], output: Port) -> NDArray[np.float32]:
        nonlocal shape
        (images_index,) = (details["index"] for details in takes.values())
        with lock:  # an interpreter is for one thread at a time
            if images.shape != shape:
                interpreter.resize_tensor_input(images_index, images.shape)
                interpreter.allocate_tensors()
                shape = images.shape
            interpreter.set_tensor(images_index, images)
            interpreter.invoke()
            rows: NDArray[np.float32] = interpreter.get_tensor(gives[output.name]["index"])
        return rows

    return run


def _port(name: str, details: Any) -> Port:
    shape = tuple(int(size) if size >= 0 else None for size in details["shape_signature"])
    return Port(name, np.dtype(details["dtype"]).name, shape)
