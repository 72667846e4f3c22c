"""TensorFlow's SavedModel folders, this package's and others'."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from facenet_fast.errors import UserError, first_line
from facenet_fast.models.metadata import METADATA_FILE, Metadata
from facenet_fast.models.network import DEFAULT_IMAGE_SIZE, Network, embedder_of, in_batches_of

__all__ = [
    "EMBEDDINGS",
    "ENCODED_IMAGES",
    "ENCODED_SIGNATURE",
    "EXTRA_ASSETS",
    "IMAGES",
    "IMAGES_SIGNATURE",
    "encoded_embedder",
    "is_saved_model",
    "metadata_in_saved_model",
    "read_saved_model",
]

IMAGES_SIGNATURE = "serving_default"
"""Name of the signature that takes standardised images; servers call it where no name is given."""
ENCODED_SIGNATURE = "serve_encoded"
"""Name of the signature that takes image files."""
IMAGES = "images"
# TensorFlow Serving's REST interface takes {"b64": ...} where a name ends like this one.
ENCODED_IMAGES = "image_bytes"
EMBEDDINGS = "embeddings"
"""Name of what both signatures give."""
EXTRA_ASSETS = "assets.extra"
"""The folder in a SavedModel that TensorFlow leaves to its users."""

# What loading a damaged or strange folder ends in, depending on where TensorFlow stumbles.
_LOAD_ERRORS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    tf.errors.OpError,
)


def is_saved_model(path: str) -> bool:
    """Say whether a folder holds a SavedModel, by the names of its files."""
    return any(os.path.isfile(os.path.join(path, f"saved_model.{ending}")) for ending in ("pb", "pbtxt"))


def read_saved_model(path: str, image_size: int | None = None) -> Network:
    """Read a SavedModel as a network.

    Its signature ``serving_default`` is run, or, where that takes something else, the only one that takes
    images and nothing else. Of several outputs the one called ``embeddings`` is taken.

    Parameters
    ----------
    path : str
        The folder, by `facenet_fast.export.saved_model.write_saved_model` or by anybody.
    image_size : int, optional
        Side of the images, for a model that does not say it (160 by default).

    Returns
    -------
    Network
        Without a graph or a Keras model.

    Raises
    ------
    UserError
        If it cannot be read, or takes or gives something else than images and embeddings.
    """
    metadata = metadata_in_saved_model(path)
    description = f"the SavedModel {path}"
    signature, images = _images_signature(_load(path).signatures, description)
    output = _embeddings_output(signature, description)
    fixed, height = (images.shape[0], images.shape[1]) if images.shape.rank == 4 else (None, None)
    side = metadata.image_size if metadata else height or image_size or DEFAULT_IMAGE_SIZE

    def embed(batch: NDArray[np.float32]) -> NDArray[np.floating]:
        return np.asarray(signature(**{images.name: tf.convert_to_tensor(batch)})[output])

    n_images = fixed or 1
    try:
        # A run now shows what the model gives, and that it can be run at all.
        shape = embed(np.zeros((n_images, side, side, 3), dtype=np.float32)).shape
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise UserError(f"{description} cannot embed {side} x {side} images: {first_line(error)}") from error
    if len(shape) != 2 or shape[0] != n_images:
        raise UserError(
            f"the model must give embeddings (n, D); {description} gives {shape} for n = {n_images}"
        )
    embedder = embedder_of(
        in_batches_of(fixed, embed) if fixed else embed,
        metadata,
        image_size=side,
        embedding_size=shape[1],
        description=description,
    )
    return Network(embedder, metadata)


def metadata_in_saved_model(path: str) -> Metadata | None:
    """Return what a SavedModel says of itself; None of folders that others wrote.

    Raises
    ------
    UserError
        If its record cannot be read.
    """
    record_path = os.path.join(path, EXTRA_ASSETS, METADATA_FILE)
    if not os.path.exists(record_path):
        return None
    try:
        with open(record_path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise UserError(f"the SavedModel {path!r} cannot be read: {error.strerror}") from error
    return Metadata.from_json(text, record_path)


def encoded_embedder(path: str) -> Callable[[Sequence[bytes]], NDArray[np.floating]] | None:
    """Return what embeds image files by a SavedModel's own decoder; None if it has none.

    Parameters
    ----------
    path : str
        The folder.

    Returns
    -------
    callable or None
        JPEG or PNG files to (n, D). A file that is neither, or damaged, is `tf.errors.InvalidArgumentError`.

    Raises
    ------
    UserError
        If the SavedModel cannot be read.
    """
    signatures = _load(path).signatures
    if ENCODED_SIGNATURE not in signatures:
        return None
    signature = signatures[ENCODED_SIGNATURE]

    def embed(files: Sequence[bytes]) -> NDArray[np.floating]:
        return np.asarray(signature(**{ENCODED_IMAGES: tf.constant(list(files), tf.string)})[EMBEDDINGS])

    return embed


def _load(path: str) -> Any:
    if not is_saved_model(path):
        raise UserError(f"a SavedModel must be a folder that holds saved_model.pb; {path!r} does not")
    try:
        return tf.saved_model.load(path)
    except _LOAD_ERRORS as error:
        raise UserError(f"the SavedModel {path!r} cannot be read: {first_line(error)}") from error


def _images_signature(signatures: Any, description: str) -> tuple[Any, tf.TensorSpec]:
    """Return the signature that takes images, and its input."""
    inputs = {name: _inputs_of(signature) for name, signature in signatures.items()}
    fitting = [name for name, specs in inputs.items() if len(specs) == 1 and _is_images(specs[0])]
    name = IMAGES_SIGNATURE if IMAGES_SIGNATURE in fitting else fitting[0] if len(fitting) == 1 else None
    if name is None:
        found = "; ".join(
            f"{name!r} takes {', '.join(map(_in_words, specs)) or 'nothing'}"
            for name, specs in inputs.items()
        )
        raise UserError(
            f"the model must have a signature {IMAGES_SIGNATURE!r}, or only one, that takes one batch of "
            f"images float32 (n, S, S, 3); {description} has {found or 'no signature'}"
        )
    return signatures[name], inputs[name][0]


def _inputs_of(signature: Any) -> list[tf.TensorSpec]:
    # The names of these specs are placeholders' names; those of the keyword arguments call the signature.
    _, keywords = signature.structured_input_signature
    return [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in sorted(keywords.items())]


def _is_images(spec: tf.TensorSpec) -> bool:
    if spec.dtype != tf.float32 or spec.shape.rank not in (None, 4):
        return False
    return spec.shape.rank is None or (spec.shape[1] == spec.shape[2] and spec.shape[3] in (None, 3))


def _in_words(spec: tf.TensorSpec) -> str:
    shape = tuple(spec.shape) if spec.shape.rank is not None else "of any shape"
    return f"{spec.name} {spec.dtype.name} {shape}"


def _embeddings_output(signature: Any, description: str) -> str:
    names = sorted(signature.structured_outputs)
    if len(names) != 1 and EMBEDDINGS not in names:
        raise UserError(
            f"the model must give one tensor, or one called {EMBEDDINGS!r}; {description} gives "
            f"{', '.join(names) or 'none'}"
        )
    return names[0] if len(names) == 1 else EMBEDDINGS
