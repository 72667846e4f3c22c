"""TensorFlow graphs of constants: every format is made from one, and ``.pb`` files hold one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from facenet_fast.models.graphs import GRAPH_FEEDS, GRAPH_FETCH, GRAPH_PHASE, METADATA_ATTRIBUTE, needed_for
from facenet_fast.models.metadata import Metadata

__all__ = ["frozen_graph", "function_of", "write_graph"]

_GRAPH_LABELS = "label_batch"
_PRODUCTS = ("Conv2D", "DepthwiseConv2dNative", "MatMul")


def frozen_graph(model: Any, image_size: int) -> tf.compat.v1.GraphDef:
    """Turn a Keras model into a graph of constants with the predecessor's names.

    Parameters
    ----------
    model : keras.Model
        float32 (n, S, S, 3) to (n, D).
    image_size : int
        S.

    Returns
    -------
    tf.compat.v1.GraphDef
        Feed ``input:0`` or ``image_batch:0`` (float32, n x S x S x 3, standardised), fetch ``embeddings:0``.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    images = tf.TensorSpec((None, image_size, image_size, 3), tf.float32)
    function = tf.function(lambda batch: model(batch, training=False)).get_concrete_function(images)
    constants = convert_variables_to_constants_v2(function)

    graph = tf.Graph()
    with graph.as_default():
        image_batch = tf.compat.v1.placeholder(tf.float32, images.shape, name=GRAPH_FEEDS[1])
        (embeddings,) = tf.graph_util.import_graph_def(
            constants.graph.as_graph_def(),
            input_map={constants.inputs[0].name: tf.identity(image_batch, name=GRAPH_FEEDS[0])},
            return_elements=[constants.outputs[0].name],
            name="network",
        )
        tf.identity(embeddings, name=GRAPH_FETCH)
    return _with_biases(needed_for(_folded(graph.as_graph_def()), [GRAPH_FETCH]))


def write_graph(graph: tf.compat.v1.GraphDef, metadata: Metadata, path: str) -> None:
    """Write a graph of constants as a ``.pb`` file that the predecessor's scripts can feed.

    ``phase_train:0`` and ``label_batch:0`` may be fed and change nothing: the graph is for inference alone.

    Parameters
    ----------
    graph : tf.compat.v1.GraphDef
        As `frozen_graph` makes it.
    metadata : Metadata
        What the graph's placeholder remembers.
    path : str
        The file.
    """
    written = tf.compat.v1.GraphDef()
    written.CopyFrom(graph)
    extra = tf.Graph()
    with extra.as_default():
        # The predecessor's validation script maps all three names.
        tf.compat.v1.placeholder_with_default(False, (), name=GRAPH_PHASE)
        tf.compat.v1.placeholder_with_default(tf.zeros((0,), tf.int32), (None,), name=_GRAPH_LABELS)
    written.node.extend(extra.as_graph_def().node)
    placeholder = next(node for node in written.node if node.name == GRAPH_FEEDS[1])
    placeholder.attr[METADATA_ATTRIBUTE].s = metadata.to_json().encode()
    with open(path, "wb") as file:
        file.write(written.SerializeToString())


def function_of(graph: tf.compat.v1.GraphDef) -> tuple[Any, int | None]:
    """Return a graph of constants as a function from images to embeddings, and how many it takes at once.

    Parameters
    ----------
    graph : tf.compat.v1.GraphDef
        As `frozen_graph` makes it, or of TensorFlow 1.

    Returns
    -------
    embed : tf.types.experimental.ConcreteFunction
        float32 (n, S, S, 3) to (n, D).
    n_at_once : int or None
        None for any number.
    """
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    images = imported.graph.get_tensor_by_name(f"{GRAPH_FEEDS[1]}:0")
    embed = imported.prune([images], imported.graph.get_tensor_by_name(f"{GRAPH_FETCH}:0"))
    return embed, images.shape[0] if images.shape.rank else None


def _folded(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Compute what is constant once and for all; kernels take up the factors of a batch-norm behind them."""
    from tensorflow.python.grappler import tf_optimizer

    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph, name="")
        metagraph = tf.compat.v1.train.export_meta_graph(graph=imported, graph_def=graph)
    metagraph.collection_def["train_op"].node_list.value.append(GRAPH_FETCH)  # so it is told what to keep
    options = tf.compat.v1.ConfigProto()
    rewriting = options.graph_options.rewrite_options
    rewriting.optimizers.append("constfold")
    rewriting.min_graph_nodes = -1  # small graphs too
    folded: tf.compat.v1.GraphDef = tf_optimizer.OptimizeGraph(options, metagraph)
    return folded


def _with_biases(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Write the sum of a convolution and a row of constants as `BiasAdd`, which OpenCV 5 asks for."""
    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        if node.op != "AddV2":
            continue
        inputs = sorted((nodes[name.split(":")[0]] for name in node.input), key=lambda one: one.op == "Const")
        product, row = inputs
        is_row = row.op == "Const" and len(row.attr["value"].tensor.tensor_shape.dim) == 1
        if product.op in _PRODUCTS and is_row:
            node.op = "BiasAdd"
            node.input[:] = [product.name, row.name]
            node.attr["data_format"].s = b"NHWC"
    return graph
