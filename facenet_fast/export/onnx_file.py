"""A graph of constants as an ONNX file."""

from __future__ import annotations

import tensorflow as tf

from facenet_fast.errors import UserError, first_line
from facenet_fast.extras import import_extra
from facenet_fast.models.graphs import GRAPH_FEEDS, GRAPH_FETCH
from facenet_fast.models.metadata import METADATA_KEY, Metadata
from facenet_fast.quiet import quiet

__all__ = ["write_onnx"]

# From 2022: what reads ONNX today reads it, and no network here needs operators of a later one.
_OPSET = 17


def write_onnx(graph: tf.compat.v1.GraphDef, metadata: Metadata, path: str) -> None:
    """Write a graph of constants as an ONNX file.

    It takes ``images``, float32 (batch, S, S, 3), standardised, channels last as in TensorFlow, and gives
    ``embeddings``, float32 (batch, D). Any batch will do, unless the graph was made for one size.

    Parameters
    ----------
    graph : tf.compat.v1.GraphDef
        As `facenet_fast.export.frozen_graph.frozen_graph` makes it.
    metadata : Metadata
        Becomes the file's property ``facenet_fast``.
    path : str
        The file.

    Raises
    ------
    UserError
        If tf2onnx is not installed, or ONNX has no operator for something that the network does.
    """
    onnx = import_extra("onnx", "writing ONNX")
    with quiet():  # it may be the first to import tensorflow's C++ parts
        convert = import_extra("tf2onnx.convert", "writing ONNX")

    sized = _without_erfc(graph)
    placeholder = next(node for node in sized.node if node.name == GRAPH_FEEDS[1])
    known = tf.TensorShape(placeholder.attr["shape"].shape)
    n_images = known[0] if known.rank else None
    images_shape = (n_images, metadata.image_size, metadata.image_size, 3)
    placeholder.attr["shape"].shape.CopyFrom(tf.TensorShape(images_shape).as_proto())

    feed, fetch = f"{placeholder.name}:0", f"{GRAPH_FETCH}:0"
    # It says that TensorFlow functions which it calls itself are deprecated.
    with quiet("tensorflow", "tf2onnx"):
        model, _ = convert.from_graph_def(
            sized,
            name="network",
            input_names=[feed],
            output_names=[fetch],
            opset=_OPSET,
            tensors_to_rename={feed: "images", fetch: GRAPH_FETCH},
        )

    batch = "batch" if n_images is None else n_images
    for value, name, shape in (
        (model.graph.input[0], "images", (batch, *images_shape[1:])),
        (model.graph.output[0], GRAPH_FETCH, (batch, metadata.embedding_size)),
    ):
        value.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    try:
        # tf2onnx leaves operations that it does not know as they are.
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise UserError(f"the network cannot be written as ONNX: {first_line(error)}") from error
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def _without_erfc(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Copy a graph with 1 - erf(x), which ONNX can say, for erfc(x), which it cannot: Keras' GELU has it."""
    copied = tf.compat.v1.GraphDef()
    copied.CopyFrom(graph)
    for node in [node for node in copied.node if node.op == "Erfc"]:
        erf, one, dtype = f"{node.name}/erf", f"{node.name}/one", node.attr["T"]
        copied.node.add(name=erf, op="Erf", input=list(node.input), attr={"T": dtype})
        value = tf.compat.v1.AttrValue(tensor=tf.make_tensor_proto(1.0, tf.as_dtype(dtype.type)))
        copied.node.add(name=one, op="Const", attr={"dtype": dtype, "value": value})
        node.op = "Sub"
        node.input[:] = [one, erf]
    return copied
