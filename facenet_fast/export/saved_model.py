"""TensorFlow's SavedModel: a folder for TensorFlow Serving and the like, which also takes image files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from facenet_fast.data.pixels import centre_crop, standardise
from facenet_fast.errors import first_line
from facenet_fast.export.frozen_graph import function_of
from facenet_fast.models.metadata import METADATA_FILE, Metadata
from facenet_fast.models.saved_models import (
    EMBEDDINGS,
    ENCODED_IMAGES,
    ENCODED_SIGNATURE,
    EXTRA_ASSETS,
    IMAGES,
    IMAGES_SIGNATURE,
)
from facenet_fast.quiet import quiet

__all__ = ["decode_squares", "write_saved_model"]


def write_saved_model(graph: tf.compat.v1.GraphDef, metadata: Metadata, path: str) -> None:
    """Write a graph of constants as a SavedModel, which holds the weights once and the metadata beside them.

    It has two signatures, which both give ``{"embeddings": float32 (n, D)}``:

    - ``serving_default`` takes ``images``, float32 (n, S, S, 3), standardised;
    - ``serve_encoded`` takes ``image_bytes``, a string (n,): whole files, JPEG or PNG, which it prepares as
      `decode_squares` says, cuts to S x S pixels and standardises as the metadata say.

    Parameters
    ----------
    graph : tf.compat.v1.GraphDef
        Of constants, with ``image_batch:0`` to feed and ``embeddings:0`` to fetch. Where it takes a fixed
        number of images, ``serving_default`` takes that number; ``serve_encoded`` takes any.
    metadata : Metadata
        What the model says of itself; in the folder as ``assets.extra/facenet_fast.json``.
    path : str
        The folder; new or empty.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    side = metadata.image_size
    embed, n_at_a_time = function_of(graph)

    def embed_images(images: Any) -> dict[str, Any]:
        return {EMBEDDINGS: tf.ensure_shape(embed(images), (n_at_a_time, metadata.embedding_size))}

    def embed_files(files: Any) -> dict[str, Any]:
        squares = decode_squares(files, metadata.store_size)
        images = standardise(centre_crop(squares, side), metadata.standardisation)
        rows = _in_batches_of(n_at_a_time, embed, images) if n_at_a_time else embed(images)
        return {EMBEDDINGS: tf.ensure_shape(rows, (None, metadata.embedding_size))}

    images = tf.TensorSpec((n_at_a_time, side, side, 3), tf.float32, IMAGES)
    files = tf.TensorSpec((None,), tf.string, ENCODED_IMAGES)
    signatures = {
        IMAGES_SIGNATURE: tf.function(embed_images).get_concrete_function(images),
        ENCODED_SIGNATURE: tf.function(embed_files).get_concrete_function(files),
    }
    try:
        # TensorFlow notes where it wrote, which is a name that is changed at once. Gradients serve nothing,
        # and some (of swish) cannot be saved once their graph is frozen.
        with quiet("tensorflow"):
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
            tf.saved_model.save(tf.Module(), path, signatures=signatures, options=options)
    except tf.errors.OpError as error:
        raise OSError(first_line(error)) from error
    os.mkdir(os.path.join(path, EXTRA_ASSETS))
    with open(os.path.join(path, EXTRA_ASSETS, METADATA_FILE), "w", encoding="utf-8") as file:
        file.write(metadata.to_json() + "\n")


def decode_squares(files: Any, size: int) -> Any:
    """Decode image files to squares in TensorFlow, as `facenet_fast.data.images.decode_square` does.

    Not for BMP, WebP and PGM, and one step is missing: pictures that EXIF says to turn are not turned, since
    TensorFlow cannot read that. The other pixels are equal or, by rounding, one or two grey levels off.

    Parameters
    ----------
    files : string tensor (n,)
        JPEG or PNG: colour, grey or with a palette; transparency is dropped, 16-bit samples keep their upper
        8 bits.
    size : int
        Side of the squares.

    Returns
    -------
    uint8 tensor (n, size, size, 3)
        RGB. A file that is damaged or something else is `tf.errors.InvalidArgumentError`.
    """
    return tf.map_fn(
        lambda file: _resized(
            tf.cond(
                tf.io.is_jpeg(file),
                lambda: _decoded_jpeg(file, size),
                lambda: tf.io.decode_png(file, channels=3),
            ),
            size,
        ),
        files,
        fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
    )


def _decoded_jpeg(file: Any, size: int) -> Any:
    """Decode a JPEG at the smallest of 1/1, 1/2, 1/4 and 1/8 that has twice the wanted size, or at 1/1."""

    def at(ratio: int) -> Callable[[], Any]:
        # As Pillow sets the decoder.
        return lambda: tf.io.decode_jpeg(
            file, channels=3, ratio=ratio, fancy_upscaling=True, dct_method="INTEGER_ACCURATE"
        )

    reduction = tf.reduce_min(tf.io.extract_jpeg_shape(file)[:2]) // (2 * size)
    n_halvings = tf.reduce_sum(tf.cast(reduction >= tf.constant([2, 4, 8]), tf.int32))
    return tf.switch_case(n_halvings, [at(1), at(2), at(4), at(8)])


def _resized(image: Any, size: int) -> Any:
    # One axis after the other and rounded between: as Pillow does it.
    for shape in ((tf.shape(image)[0], size), (size, size)):
        image = tf.cast(tf.image.resize(image, shape, antialias=True) + 0.5, tf.uint8)
    return tf.ensure_shape(image, (size, size, 3))


def _in_batches_of(n: int, embed: Callable[[Any], Any], images: Any) -> Any:
    """Embed any number of images with what takes `n`; blank images fill the last batch."""
    n_images = tf.shape(images)[0]
    padded = tf.pad(images, [(0, -n_images % n), (0, 0), (0, 0), (0, 0)])
    rows = tf.map_fn(embed, tf.reshape(padded, (-1, n, *images.shape[1:])))
    return tf.reshape(rows, (-1, rows.shape[-1]))[:n_images]
