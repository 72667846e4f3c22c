"""A graph of constants as a TensorFlow Lite (LiteRT) file, in full, half or 8-bit precision."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from facenet_fast.errors import UserError, first_line
from facenet_fast.export.frozen_graph import function_of
from facenet_fast.models.graphs import GRAPH_FETCH
from facenet_fast.models.metadata import METADATA_FILE, Metadata
from facenet_fast.quiet import quiet

__all__ = ["Precision", "write_tflite"]

Precision = Literal["float32", "float16", "int8"]


def write_tflite(
    graph: tf.compat.v1.GraphDef,
    metadata: Metadata,
    path: str,
    *,
    precision: Precision = "float32",
    calibration: Sequence[NDArray[np.float32]] | None = None,
) -> None:
    """Write a graph of constants as a TensorFlow Lite file.

    Its signature ``serving_default`` takes ``images``, float32 (n, S, S, 3), standardised, and gives
    ``embeddings``, float32 (n, D), in every precision. Any n will do once the input is resized to it, unless
    the graph was made for one size.

    Parameters
    ----------
    graph : tf.compat.v1.GraphDef
        As `facenet_fast.export.frozen_graph.frozen_graph` makes it.
    metadata : Metadata
        Becomes ``facenet_fast.json`` in a zip archive at the file's end, where TensorFlow Lite files carry
        what belongs to them.
    path : str
        The file.
    precision : {"float32", "float16", "int8"}
        "float16" stores weights in half precision and computes in single. "int8" stores weights and computes
        in integers of 8 bits, but for operations that have no such form.
    calibration : sequence of float32 arrays (1, S, S, 3), optional
        Standardised images like those to come, some hundred of them, from which "int8" takes the range of
        each activation. The other precisions need none.

    Raises
    ------
    UserError
        If "int8" has no images, or TensorFlow Lite has no operation for something that the network does.
    """
    from tensorflow.lite.python.convert import ConverterError

    if precision == "int8" and not calibration:
        raise UserError("int8 must have images to calibrate on; got none")

    embed, n_images = function_of(graph)
    images = tf.TensorSpec((n_images, metadata.image_size, metadata.image_size, 3), tf.float32, "images")

    module = tf.Module()
    module.embed = tf.function(lambda images: {GRAPH_FETCH: embed(images)}, input_signature=[images])
    try:
        with tempfile.TemporaryDirectory() as saved_dir, quiet("tensorflow"):
            # Of a saved model alone the converter keeps the names of what goes in and out. Gradients serve
            # nothing in it, and some (of swish) cannot be saved once their graph is frozen.
            tf.saved_model.save(
                module,
                saved_dir,
                signatures={"serving_default": module.embed},
                options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
            )
            converter = tf.lite.TFLiteConverter.from_saved_model(saved_dir)
            if precision != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if precision == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if precision == "int8" and calibration:
                converter.representative_dataset = lambda: _batches(calibration, n_images or 1)
            data = converter.convert()
    except (ConverterError, ValueError, RuntimeError) as error:
        # Before the reason stands where in the graph it arose: a call in a call in a call.
        reason = re.sub(r"^.*error: (loc\(.*\): )?", "", first_line(error))
        raise UserError(
            f"the network cannot be written as TensorFlow Lite in {precision}: {reason}"
        ) from error

    with open(path, "wb") as file:
        file.write(data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(METADATA_FILE), metadata.to_json())


def _batches(images: Sequence[NDArray[np.float32]], n: int) -> Iterator[list[Any]]:
    """Give what the converter asks for: batches of `n`, each in a list; the last repeats its own."""
    for start in range(0, len(images), n):
        batch = np.concatenate(images[start : start + n])
        yield [np.resize(batch, (n, *batch.shape[1:]))]
