"""Keras' own ``.keras`` file, with the model's metadata in it."""

from __future__ import annotations

import zipfile
from typing import Any

from facenet_fast.models.metadata import METADATA_FILE, Metadata

__all__ = ["write_keras"]


def write_keras(model: Any, metadata: Metadata, path: str) -> None:
    """Write a Keras model, and beside its weights the metadata, which Keras itself passes over.

    Parameters
    ----------
    model : keras.Model
        float32 (n, S, S, 3), standardised, to (n, D).
    metadata : Metadata
        What the model says of itself; in the file, which is a zip, as ``facenet_fast.json``.
    path : str
        The file; its name ends in ``.keras``. ``keras.saving.load_model`` reads it once
        `facenet_fast.backbones.head` is imported, which has the layer that normalises embeddings.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_FILE, metadata.to_json() + "\n")
