"""Packages that only some formats need: imported when they are, or the extra that brings them is named."""

from __future__ import annotations

import importlib
from typing import Any

from facenet_fast.errors import UserError

__all__ = ["import_extra"]

# Top module: its package, and the extra of ours that installs it.
_EXTRAS = {
    "onnx": ("onnx", "onnx"),
    "tf2onnx": ("tf2onnx", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "ai_edge_litert": ("ai-edge-litert", "tflite"),
}


def import_extra(module: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Its full name.
    purpose : str
        What needs it, for the message: "writing ONNX".

    Returns
    -------
    module

    Raises
    ------
    UserError
        If it, or a module that it needs itself, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package, extra = _EXTRAS[module.partition(".")[0]]
        raise UserError(f"{purpose} needs {package}; install facenet-fast[{extra}]") from error
