"""`facenet-fast freeze`: a trained network as one frozen graph, compared with its checkpoint first."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from facenet_fast.config import FreezeConfig
from facenet_fast.data.images import standardise
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.files import check_output, written_aside
from facenet_fast.models import (
    GRAPH_FEEDS,
    GRAPH_FETCH,
    GRAPH_PHASE,
    IMAGE_SIZE_ATTRIBUTE,
    STANDARDISATION_ATTRIBUTE,
    STORE_SIZE_ATTRIBUTE,
    THRESHOLDS_ATTRIBUTE,
    keras_embedder,
    load_embedder,
)
from facenet_fast.thresholds import Thresholds, load_thresholds, to_json

__all__ = ["freeze", "frozen_graph"]

_GRAPH_LABELS = "label_batch"
_LARGEST_DIFFERENCE = 1e-4
_N_COMPARED = 8


def freeze(config: FreezeConfig) -> None:
    """Write the network of a run as a frozen graph that the predecessor's scripts can feed.

    The file is written aside, read back, run on images beside the checkpoint, and only then given the name
    that was asked for: what bears that name is whole and right, or what it was before, or is not there.

    Parameters
    ----------
    config : FreezeConfig
        The run folder or checkpoint, and the file to write.

    Raises
    ------
    UserError
        If the run cannot be read, the file cannot be written, or the graph's embeddings differ from the
        checkpoint's by more than 1e-4 in any number.
    """
    from facenet_fast.checkpoints import find_checkpoint, load_model

    output_path = os.path.expanduser(config.output_path)
    check_output(output_path, ".pb", "a frozen graph")
    checkpoint = find_checkpoint(config.run_dir)
    print(f"Model directory: {os.path.dirname(checkpoint)}")
    print(f"Checkpoint file: {os.path.basename(checkpoint)}")
    model, settings = load_model(checkpoint)
    trained = keras_embedder(
        model,
        standardisation=settings.standardisation,
        image_size=settings.image_size,
        store_size=settings.store_size,
        description=f"the checkpoint {checkpoint}",
    )
    thresholds = load_thresholds(config.run_dir)
    if thresholds is not None:
        thresholds = dataclasses.replace(thresholds, checkpoint=os.path.basename(output_path))
    graph = frozen_graph(model, trained, thresholds)
    difference = _write_and_compare(graph, output_path, trained)
    print(f"{len(graph.node)} ops in the final graph: {output_path}")
    print(f"Largest difference to the checkpoint: {difference:.2e}")


def frozen_graph(
    model: Any, embedder: Embedder, thresholds: Thresholds | None = None
) -> tf.compat.v1.GraphDef:
    """Turn a Keras model into a graph of constants with the predecessor's names.

    Feed ``input:0`` or ``image_batch:0`` (float32, n x S x S x 3, standardised), fetch ``embeddings:0``.
    ``phase_train:0`` and ``label_batch:0`` may be fed and change nothing: the graph is for inference alone.

    Parameters
    ----------
    model : keras.Model
        float32 (n, S, S, 3) to (n, D).
    embedder : Embedder
        Says the image size and how images are standardised, which the graph's placeholder remembers.
    thresholds : Thresholds, optional
        Which distance means one person; the placeholder remembers that, too.

    Returns
    -------
    tf.compat.v1.GraphDef
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    images = tf.TensorSpec((None, embedder.image_size, embedder.image_size, 3), tf.float32)
    function = tf.function(lambda batch: model(batch, training=False)).get_concrete_function(images)
    constants = convert_variables_to_constants_v2(function)

    graph = tf.Graph()
    with graph.as_default():
        image_batch = tf.compat.v1.placeholder(tf.float32, images.shape, name=GRAPH_FEEDS[1])
        fed = tf.identity(image_batch, name=GRAPH_FEEDS[0])
        # Feeding either changes nothing, but the predecessor's validation script maps all three names.
        tf.compat.v1.placeholder_with_default(False, (), name=GRAPH_PHASE)
        tf.compat.v1.placeholder_with_default(tf.zeros((0,), tf.int32), (None,), name=_GRAPH_LABELS)
        (embeddings,) = tf.graph_util.import_graph_def(
            constants.graph.as_graph_def(),
            input_map={constants.inputs[0].name: fed},
            return_elements=[constants.outputs[0].name],
            name="network",
        )
        tf.identity(embeddings, name=GRAPH_FETCH)
    pruned = _needed_for(graph.as_graph_def(), [GRAPH_FETCH, GRAPH_PHASE, _GRAPH_LABELS])
    placeholder = next(node for node in pruned.node if node.name == GRAPH_FEEDS[1])
    placeholder.attr[IMAGE_SIZE_ATTRIBUTE].i = embedder.image_size
    placeholder.attr[STORE_SIZE_ATTRIBUTE].i = embedder.store_size
    placeholder.attr[STANDARDISATION_ATTRIBUTE].s = embedder.standardisation.encode()
    if thresholds is not None:
        placeholder.attr[THRESHOLDS_ATTRIBUTE].s = to_json(thresholds).encode()
    return pruned


def _needed_for(graph: tf.compat.v1.GraphDef, wanted: list[str]) -> tf.compat.v1.GraphDef:
    """Keep the operations that `wanted` are computed from, in their order.

    Control inputs (``^name``) go: they order effects, of which a graph of constants has none.
    """
    inputs = {node.name: [name for name in node.input if name[0] != "^"] for node in graph.node}
    needed, open_names = set(wanted), list(wanted)
    while open_names:
        new = {name.split(":")[0] for name in inputs[open_names.pop()]} - needed
        needed |= new
        open_names += new
    kept = tf.compat.v1.GraphDef()
    kept.CopyFrom(graph)
    del kept.node[:]
    for node in graph.node:
        if node.name in needed:
            copied = kept.node.add()
            copied.CopyFrom(node)
            del copied.input[:]
            copied.input.extend(inputs[node.name])
    return kept


def _write_and_compare(graph: tf.compat.v1.GraphDef, output_path: str, trained: Embedder) -> float:
    """Write aside, read back, compare, rename; return the largest difference. Leaves nothing on failure."""
    # Aside its name ends in .pb too, so that `load_embedder` reads it as it will read any user's.
    with written_aside(output_path) as aside:
        with open(aside, "xb") as file:
            file.write(graph.SerializeToString())
        difference = _largest_difference(load_embedder(aside), trained)
        if not difference <= _LARGEST_DIFFERENCE:
            raise UserError(
                f"the frozen graph's embeddings must equal the checkpoint's to {_LARGEST_DIFFERENCE}; "
                f"they differ by {difference:.2e}; nothing is written"
            )
    return difference


def _largest_difference(frozen: Embedder, trained: Embedder) -> float:
    """Compare embeddings of a batch and of one image alone, each standardised as the run says."""
    images = standardise(_face_like_images(_N_COMPARED, trained.image_size), trained.standardisation)
    largest = 0.0
    for batch in (images, images[:1]):
        wanted, got = trained.embed(batch), frozen.embed(batch)
        if not np.isfinite(wanted).all():
            raise UserError(f"embeddings must be finite; {trained.description} gives NaN or infinity")
        largest = max(largest, float(np.max(np.abs(wanted - got))))
    return largest


def _face_like_images(n_images: int, side: int) -> NDArray[np.uint8]:
    """Draw images that vary slowly, as photographs do: waves of falling strength, a little noise on top."""
    rng = np.random.default_rng(0)
    images = np.zeros((n_images, side, side, 3))
    along = np.linspace(0.0, np.pi, side)
    for waves in range(1, 6):
        for rows in range(waves + 1):
            wave = np.outer(np.cos(rows * along), np.cos((waves - rows) * along))
            images += rng.normal(scale=1 / waves, size=(n_images, 1, 1, 3)) * wave[:, :, None]
    images += rng.normal(scale=0.05, size=images.shape)
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    pixels: NDArray[np.uint8] = (255 * (images - low) / (high - low)).astype(np.uint8)
    return pixels
