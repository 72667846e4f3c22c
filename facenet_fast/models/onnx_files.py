"""ONNX files, by this package and by others."""

from __future__ import annotations

from typing import Any

from facenet_fast.errors import UserError, first_line
from facenet_fast.extras import import_extra
from facenet_fast.models.metadata import METADATA_KEY, Metadata
from facenet_fast.models.network import Network
from facenet_fast.models.runtimes import Port, network_of

__all__ = ["metadata_in_onnx", "read_onnx"]

_FATAL = 4  # of onnxruntime's levels; errors are exceptions here


def read_onnx(path: str, image_size: int | None = None) -> Network:
    """Read an ONNX file as a network, which onnxruntime runs on the CPU.

    Parameters
    ----------
    path : str
        The file, by `facenet_fast.export.freeze` or by anybody: one input, images channels last or first,
        and one output or one called ``embeddings``.
    image_size : int, optional
        Side of the images, for a model that takes any (160 by default).

    Raises
    ------
    UserError
        If onnxruntime is not installed, the file cannot be read, or it takes or gives something else.
    """
    session = _open(path)
    takes = [_port(value) for value in session.get_inputs()]
    return network_of(
        lambda images, output: session.run([output.name], {takes[0].name: images})[0],
        takes,
        [_port(value) for value in session.get_outputs()],
        _metadata_of(session, path),
        image_size=image_size,
        description=f"the ONNX model {path}",
    )


def metadata_in_onnx(path: str) -> Metadata | None:
    """Return what an ONNX file says of itself; None of files that others wrote.

    Raises
    ------
    UserError
        As `read_onnx`.
    """
    return _metadata_of(_open(path), path)


def _metadata_of(session: Any, path: str) -> Metadata | None:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return None if text is None else Metadata.from_json(text, path)


def _open(path: str) -> Any:
    onnxruntime = import_extra("onnxruntime", "reading ONNX")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no other base in common
        raise UserError(f"the ONNX model {path!r} cannot be read: {first_line(error)}") from error


def _port(value: Any) -> Port:
    # Sizes that vary have names, or none.
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    return Port(value.name, {"float": "float32", "double": "float64"}.get(dtype, dtype), shape)
