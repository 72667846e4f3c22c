"""Keras models: in memory, of a run, or from a ``.keras`` file."""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import Any

import numpy as np
import tensorflow as tf

from facenet_fast.checkpoints import find_checkpoint, load_model, read_training_set
from facenet_fast.errors import UserError, first_line
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.models.metadata import METADATA_FILE, Metadata
from facenet_fast.models.network import DEFAULT_IMAGE_SIZE, DEFAULT_STANDARDISATION, Network

__all__ = ["keras_embedder", "load_keras_file", "metadata_in_keras_file", "read_keras_file", "read_run"]


def read_run(path: str) -> Network:
    """Read the newest checkpoint of a run folder, or the checkpoint of that prefix.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    checkpoint = find_checkpoint(path)
    model, config = load_model(checkpoint)
    embedder = keras_embedder(
        model,
        standardisation=config.standardisation,
        image_size=config.image_size,
        store_size=config.store_size,
        description=f"the checkpoint {checkpoint}",
    )
    n_images, n_identities = read_training_set(os.path.dirname(checkpoint)) or (None, None)
    metadata = Metadata(
        image_size=embedder.image_size,
        store_size=embedder.store_size,
        standardisation=embedder.standardisation,
        embedding_size=embedder.embedding_size,
        source=os.path.basename(checkpoint),
        backbone=config.backbone,
        n_images=n_images,
        n_identities=n_identities,
    )
    return Network(embedder, metadata, keras_model=model, images_dir=config.data_dir)


def read_keras_file(path: str, image_size: int | None = None) -> Network:
    """Read a ``.keras`` file as a network.

    Parameters
    ----------
    path : str
        The file, by `facenet_fast.export.freeze` or by anybody.
    image_size : int, optional
        Side of the images, for a model that takes any.

    Raises
    ------
    UserError
        If it cannot be read, or takes or gives something else than images and embeddings.
    """
    model, metadata = load_keras_file(path), metadata_in_keras_file(path)
    embedder = keras_embedder(
        model,
        standardisation=metadata.standardisation if metadata else DEFAULT_STANDARDISATION,
        image_size=image_size,
        store_size=metadata.store_size if metadata else 0,
        description=f"the Keras model {path}",
    )
    return Network(embedder, metadata, keras_model=model)


def metadata_in_keras_file(path: str) -> Metadata | None:
    """Return what a ``.keras`` file says of itself; None of files that others wrote.

    Raises
    ------
    UserError
        If the file or its record cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if METADATA_FILE not in archive.namelist():
                return None
            text = archive.read(METADATA_FILE)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"the Keras model {path!r} cannot be read: {first_line(error)}") from error
    return Metadata.from_json(text, path)


def keras_embedder(
    model: Any,
    *,
    standardisation: str = DEFAULT_STANDARDISATION,
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
    side = _side_of(model, description) or image_size or DEFAULT_IMAGE_SIZE
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
        raise UserError(f"the Keras model {path!r} cannot be read: {first_line(error)}") from error


def _side_of(model: Any, description: str) -> int | None:
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise UserError(f"the model must take one batch of images (n, S, S, 3); {description} takes {shape}")
    side: int | None = shape[1]
    return side
