"""TensorFlow graphs with the predecessor's names, reduced to what turns images into embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import tensorflow as tf

from facenet_fast.errors import UserError, first_line
from facenet_fast.models.metadata import METADATA_KEY, Metadata
from facenet_fast.models.network import DEFAULT_IMAGE_SIZE, Network, embedder_of, in_batches_of

__all__ = [
    "GRAPH_FEEDS",
    "GRAPH_FETCH",
    "GRAPH_PHASE",
    "METADATA_ATTRIBUTE",
    "VARIABLE_OPS",
    "constant_node",
    "graph_network",
    "inference_graph",
    "metadata_in_graph",
    "needed_for",
    "read_frozen_graph",
    "read_graph",
    "read_message",
]

# The names by which the predecessor's scripts feed and fetch a graph. The first is made of the second.
GRAPH_FEEDS = ("input", "image_batch")
GRAPH_PHASE = "phase_train"
GRAPH_FETCH = "embeddings"

# What a graph cannot say by itself stands as an attribute of its placeholder. TensorFlow passes over
# attributes that begin with an underscore.
METADATA_ATTRIBUTE = f"_{METADATA_KEY}"

VARIABLE_OPS = frozenset({"Variable", "VariableV2", "VarHandleOp"})
"""Operations that hold a weight under their own name."""

_SWITCHES = frozenset({"Switch", "RefSwitch"})
_MERGES = frozenset({"Merge", "RefMerge"})
# Left over, these need what nobody feeds, or wait for branches.
_PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2"})

_Tensor = tuple[str, int]
"""An operation's name and which of its outputs; output -1 is its end, for which control inputs wait."""
_CONTROL = -1


def read_frozen_graph(path: str, image_size: int | None = None) -> Network:
    """Read a frozen graph as a network.

    Parameters
    ----------
    path : str
        The ``.pb`` file, by `facenet_fast.export.freeze` or by the predecessor.
    image_size : int, optional
        Side of the images, for a graph that does not say it (160 by default).

    Returns
    -------
    Network
        Its graph is the inference graph (`inference_graph`).

    Raises
    ------
    UserError
        If it cannot be read, or takes or gives something else than images and embeddings.
    """
    stored, description = read_graph(path), f"the frozen graph {path}"
    metadata = metadata_in_graph(stored, path)
    graph = inference_graph(stored, description)
    if any(node.op in VARIABLE_OPS for node in graph.node):
        raise UserError(f"{path!r} must be a frozen graph; its weights are not in it")
    return graph_network(graph, description, metadata, image_size)


def metadata_in_graph(graph: tf.compat.v1.GraphDef, path: str) -> Metadata | None:
    """Return what a graph says of itself; None of graphs that others wrote."""
    for node in graph.node:
        if METADATA_ATTRIBUTE in node.attr:
            return Metadata.from_json(node.attr[METADATA_ATTRIBUTE].s, path)
    return None


def read_graph(path: str) -> tf.compat.v1.GraphDef:
    """Read the graph that a file holds, as it is.

    Parameters
    ----------
    path : str
        The ``.pb`` file.

    Returns
    -------
    tf.compat.v1.GraphDef

    Raises
    ------
    UserError
        If the file is not to be read, or is no graph.
    """
    graph = tf.compat.v1.GraphDef()
    read_message(path, graph, "frozen graph")
    return graph


def read_message(path: str, message: Any, what: str) -> None:
    """Fill a protocol buffer from a file; `what` says for people what it is.

    Raises
    ------
    UserError
        If the file is not to be read, or is none.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        with open(path, "rb") as file:
            message.ParseFromString(file.read())
    except OSError as error:
        raise UserError(f"the {what} {path!r} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(f"{path!r} must be a {what}; it is cut short or something else") from error


def inference_graph(graph: tf.compat.v1.GraphDef, where: str) -> tf.compat.v1.GraphDef:
    """Reduce a graph to what turns images into embeddings when it does not train.

    Whatever comes before the images goes (queues, decoders). ``phase_train`` is False, and of each `tf.cond`
    on it the branch that is then taken remains. What trains goes, and with it control inputs, devices and
    colocations. Variables stay. The graph is not imported for this: TensorFlow must know only the operations
    that remain, and refuses some frozen graphs for the branch that trains.

    Parameters
    ----------
    graph : tf.compat.v1.GraphDef
        With tensors ``input:0`` or ``image_batch:0``, ``embeddings:0`` and, perhaps, ``phase_train:0``.
    where : str
        What it is, for messages.

    Returns
    -------
    tf.compat.v1.GraphDef
        A placeholder ``image_batch``, its identity ``input``, the network, ``embeddings``, in this order; no
        other placeholder. The record in ``image_batch`` (`METADATA_ATTRIBUTE`), if there is one, is kept.

    Raises
    ------
    UserError
        If it has no such tensors, or its embeddings need more than images.

    Examples
    --------
    >>> with tf.Graph().as_default() as training:
    ...     images = tf.compat.v1.placeholder(tf.float32, (None, 2, 2, 3), name="image_batch")
    ...     phase = tf.compat.v1.placeholder(tf.bool, name="phase_train")
    ...     means = tf.reduce_mean(images, (1, 2))
    ...     _ = tf.where(phase, 0.0, means, name="embeddings")
    >>> graph = inference_graph(training.as_graph_def(), "the graph")
    >>> [node.name for node in graph.node if node.op == "Placeholder"]
    ['image_batch']
    """
    nodes = {node.name: node for node in graph.node}
    if GRAPH_FETCH not in nodes or not nodes.keys() & set(GRAPH_FEEDS):
        raise UserError(
            f"{where} must be a graph with {GRAPH_FEEDS[0]!r} or {GRAPH_FEEDS[1]!r} to feed and "
            f"{GRAPH_FETCH!r} to fetch; it has {len(nodes)} operations{_likely_names(graph)}"
        )
    present = [name for name in GRAPH_FEEDS if name in nodes]
    reached = _in_order(nodes, GRAPH_FETCH, (*present, GRAPH_PHASE), where)
    images = [name for name in present if name in reached] or present[:1]
    # A network may use both names, say one for the images' number: right if they are one tensor.
    if len(images) == 2 and (
        nodes[images[0]].op != "Identity" or _tensor(nodes[images[0]].input[0]) != (images[1], 0)
    ):
        raise UserError(f"{where} must compute embeddings from {images[0]!r} or {images[1]!r}; it needs both")

    reduction = _Reduction(graph, nodes, images, where)
    result = _first_nodes(graph, nodes, images[0])
    result.node.extend(reduction.nodes_for((GRAPH_FETCH, 0)))
    others = [node.name for node in result.node[1:] if node.op in _PLACEHOLDERS]
    if others:
        raise UserError(f"{where} must compute embeddings from images alone; it needs {_few(others)} too")
    branches = [node.name for node in result.node if node.op in _SWITCHES | _MERGES]
    if branches:
        raise UserError(
            f"{where} must branch on {GRAPH_PHASE!r} alone; what {_few(branches)} does depends on more"
        )
    return result


def graph_network(
    graph: tf.compat.v1.GraphDef,
    description: str,
    metadata: Metadata | None = None,
    image_size: int | None = None,
) -> Network:
    """Make a network of a graph of constants.

    Parameters
    ----------
    graph : tf.compat.v1.GraphDef
        As `inference_graph` gives it, without variables. A placeholder of unknown sides is given them.
    description : str
        What it is, for messages.
    metadata : Metadata, optional
        What it says of itself.
    image_size : int, optional
        Side of the images, where neither of them says it (160 by default).

    Returns
    -------
    Network
        It embeds any number of images, though the graph may take a fixed one.

    Raises
    ------
    UserError
        If it cannot be run, or gives something else than embeddings.
    """
    placeholder = next(node for node in graph.node if node.name == GRAPH_FEEDS[1])
    stored = tf.TensorShape(placeholder.attr["shape"].shape)
    side = metadata.image_size if metadata else _side_of(stored)
    side = side or image_size or DEFAULT_IMAGE_SIZE
    taken = tf.TensorShape((None, side, side, 3))
    if stored.is_compatible_with(taken):
        placeholder.attr["shape"].shape.CopyFrom(stored.merge_with(taken).as_proto())

    try:
        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        images, embeddings = (
            imported.graph.get_tensor_by_name(f"{name}:0") for name in (placeholder.name, GRAPH_FETCH)
        )
        pruned = imported.prune(images, embeddings)
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        raise UserError(f"{description} cannot be imported: {first_line(error)}") from error
    if not any(GRAPH_FEEDS[0] in node.input for node in graph.node):
        raise UserError(f"{description} must compute embeddings from images; it uses none")
    if images.dtype != tf.float32:
        raise UserError(f"{description} must take float32 images; it takes {images.dtype.name}")

    def run(images: Any) -> Any:
        return np.asarray(pruned(tf.convert_to_tensor(images)))

    # Either end may tell that the graph takes one number of images only.
    fixed = [tensor.shape[0] for tensor in (images, embeddings) if tensor.shape.rank and tensor.shape[0]]
    embed = in_batches_of(fixed[0], run) if fixed else run
    try:
        # One image run now shows what the graph gives, and that it can be run at all.
        shape = embed(np.zeros((1, side, side, 3), dtype=np.float32)).shape
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise UserError(f"{description} cannot embed a {side} x {side} image: {first_line(error)}") from error
    if len(shape) != 2 or shape[0] != 1:
        raise UserError(f"the model must give embeddings (n, D); {description} gives {shape} for 1 image")
    embedder = embedder_of(embed, metadata, image_size=side, embedding_size=shape[1], description=description)
    return Network(embedder, metadata, graph=graph)


def _side_of(shape: tf.TensorShape) -> int | None:
    sides = shape.as_list()[1:3] if shape.rank == 4 else [None]
    return sides[0] if sides[0] == sides[-1] else None


def needed_for(graph: tf.compat.v1.GraphDef, wanted: list[str]) -> tf.compat.v1.GraphDef:
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


class _Reduction:
    """Which operations of a graph run, and on what, when the phase is False.

    This is what TensorFlow's executor does with Switch and Merge: of a Switch only the output that its
    predicate names is alive; what has a dead input (a control input too) is dead; a Merge passes on the input
    that is alive. Where the predicate can be computed without images, all of this is known now.

    Parameters
    ----------
    graph, nodes
        The graph, and its operations by name.
    images : list of str
        Operations that become ``input``.
    where : str
        What the graph is, for messages.
    """

    def __init__(
        self, graph: tf.compat.v1.GraphDef, nodes: dict[str, Any], images: list[str], where: str
    ) -> None:
        self._graph = graph
        self._nodes = nodes
        # What a tensor is replaced by. The new phase has another name: graphs that are written get a
        # placeholder of the old one.
        self._sources: dict[_Tensor, _Tensor] = {(name, 0): (GRAPH_FEEDS[0], 0) for name in images}
        self._sources[GRAPH_PHASE, 0] = (f"{GRAPH_PHASE}/False", 0)
        self._dead: set[str] = set()
        self._taken: dict[str, int] = {}
        self._decided: dict[_Tensor, int | None] = {}

        replaced = {name for name, _ in self._sources}
        for name in _in_order(nodes, GRAPH_FETCH, replaced, where):
            if name not in replaced:
                self._reduce(nodes[name])
        if self._is_dead((GRAPH_FETCH, 0)):
            raise UserError(f"{where} must compute embeddings when {GRAPH_PHASE!r} is False; it does not")

    def nodes_for(self, tensor: _Tensor) -> list[Any]:
        """Return copies of the operations that a tensor is computed from, in the graph's order."""
        found: dict[str, list[_Tensor]] = {}
        waiting = [tensor]
        while waiting:
            name, _ = waiting.pop()
            if name in self._nodes and name not in found and name != GRAPH_FEEDS[0]:
                found[name] = [self._sources.get(one, one) for one in _data_inputs(self._nodes[name])]
                waiting += found[name]
        copies = []
        for node in self._graph.node:
            if node.name in found:
                copy = _bare(node)
                copy.input[:] = [f"{name}:{n}" if n else name for name, n in found[node.name]]
                copies.append(copy)
        phase, _ = self._sources[GRAPH_PHASE, 0]
        if tensor[0] == phase or any(phase in copy.input for copy in copies):
            copies.insert(0, constant_node(phase, np.False_))
        return copies

    def _reduce(self, node: Any) -> None:
        tensors = [_tensor(name) for name in node.input]
        inputs = [self._sources.get(tensor, tensor) for tensor in tensors if tensor[1] != _CONTROL]
        dead = [self._is_dead(tensor) for tensor in tensors]
        if node.op in _MERGES:
            alive = [one for one, is_dead in zip(inputs, dead, strict=False) if not is_dead]
            if not alive or any(dead[len(inputs) :]):
                self._dead.add(node.name)
            elif len(alive) == 1:
                self._sources[node.name, 0] = alive[0]
        elif any(dead):
            self._dead.add(node.name)
        elif node.op in _SWITCHES:
            taken = self._decide(inputs[1])
            if taken is not None:
                self._taken[node.name] = taken
                self._sources[node.name, taken] = inputs[0]
        elif node.op == "PlaceholderWithDefault":
            self._sources[node.name, 0] = inputs[0]

    def _is_dead(self, tensor: _Tensor) -> bool:
        name, output = tensor
        is_other_output = name in self._taken and output not in (self._taken[name], _CONTROL)
        return name in self._dead or is_other_output

    def _decide(self, predicate: _Tensor) -> int | None:
        """Compute a predicate; None if that takes more than constants."""
        while predicate[0] in self._nodes and self._nodes[predicate[0]].op == "Identity":
            (predicate,) = (self._sources.get(one, one) for one in _data_inputs(self._nodes[predicate[0]]))
        if predicate not in self._decided:
            part = _without_nodes(self._graph)
            part.node.extend(self.nodes_for(predicate))
            self._decided[predicate] = _compute(part, predicate)
        return self._decided[predicate]


def _compute(graph: tf.compat.v1.GraphDef, predicate: _Tensor) -> int | None:
    try:
        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        return int(imported.prune([], imported.graph.get_tensor_by_name("{}:{}".format(*predicate)))())
    except (ValueError, TypeError, KeyError, tf.errors.OpError):
        return None


def _first_nodes(graph: tf.compat.v1.GraphDef, nodes: dict[str, Any], feed: str) -> tf.compat.v1.GraphDef:
    """Return a graph of the placeholder and its identity alone."""
    dtype, shape = _type_of(graph, feed)
    result = _without_nodes(graph)
    placeholder = result.node.add(name=GRAPH_FEEDS[1], op="Placeholder")
    placeholder.attr["dtype"].type = dtype.as_datatype_enum
    placeholder.attr["shape"].shape.CopyFrom(shape.as_proto())
    stored = nodes.get(GRAPH_FEEDS[1])
    if stored is not None and METADATA_ATTRIBUTE in stored.attr:
        placeholder.attr[METADATA_ATTRIBUTE].CopyFrom(stored.attr[METADATA_ATTRIBUTE])
    identity = result.node.add(name=GRAPH_FEEDS[0], op="Identity", input=[placeholder.name])
    identity.attr["T"].type = dtype.as_datatype_enum
    return result


def _type_of(graph: tf.compat.v1.GraphDef, name: str) -> tuple[tf.DType, tf.TensorShape]:
    try:
        with tf.Graph().as_default():
            (tensor,) = tf.graph_util.import_graph_def(
                needed_for(graph, [name]), return_elements=[f"{name}:0"]
            )
        return tensor.dtype, tensor.shape if tensor.shape.rank is not None else _shape_in_queue(graph, name)
    except (ValueError, TypeError, KeyError, tf.errors.OpError):
        # Made by operations that this TensorFlow does not know. They go; what they made were images.
        return tf.float32, tf.TensorShape(None)


def _shape_in_queue(graph: tf.compat.v1.GraphDef, name: str) -> tf.TensorShape:
    """Return the shape of batches from the queue that a tensor is read from, where it is.

    Graphs lose it when they are frozen: only the queue remembers the shape of one image.
    """
    nodes = {node.name: node for node in graph.node}
    output = 0
    while nodes[name].op == "Identity":
        name, output = _tensor(nodes[name].input[0])
    if nodes[name].op.startswith(("QueueDequeueMany", "QueueDequeueUpTo")):
        queue, _ = _tensor(nodes[name].input[0])
        shapes = nodes[queue].attr["shapes"].list.shape
        if output < len(shapes):
            return tf.TensorShape([None]).concatenate(tf.TensorShape(shapes[output]))
    return tf.TensorShape(None)


def _without_nodes(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    # The version says which rules TensorFlow reads the operations by.
    return tf.compat.v1.GraphDef(versions=graph.versions, library=graph.library)


def _bare(node: Any) -> Any:
    """Copy an operation without where it ran, what it stood beside, and shapes that batches had then."""
    copy = tf.compat.v1.NodeDef()
    copy.CopyFrom(node)
    copy.device = ""
    for attribute in ("_class", "_output_shapes"):
        copy.attr.pop(attribute, None)
    return copy


def constant_node(name: str, value: Any) -> Any:
    """Make an operation that gives a value."""
    tensor = tf.make_tensor_proto(value)
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)
    return node


def _in_order(nodes: dict[str, Any], wanted: str, cut: Iterable[str], where: str) -> list[str]:
    """Return what must run for an operation (control inputs too), each after its inputs."""
    needs: dict[str, list[str]] = {}
    waiting = [wanted]
    while waiting:
        name = waiting.pop()
        if name in needs:
            continue
        if name not in nodes:
            raise UserError(f"{where} must be whole; it has no operation {name!r}")
        needs[name] = [] if name in cut else [_tensor(one)[0] for one in nodes[name].input]
        waiting += needs[name]
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise UserError(f"{where} must have no loops; it has one through {error.args[1][0]!r}") from error


def _tensor(name: str) -> _Tensor:
    """Split an operation's input as graphs write it.

    >>> _tensor("conv"), _tensor("split:1"), _tensor("^update")
    (('conv', 0), ('split', 1), ('update', -1))
    """
    if name.startswith("^"):
        return name[1:], _CONTROL
    name, _, output = name.partition(":")
    return name, int(output or 0)


def _data_inputs(node: Any) -> list[_Tensor]:
    return [tensor for tensor in map(_tensor, node.input) if tensor[1] != _CONTROL]


def _likely_names(graph: tf.compat.v1.GraphDef) -> str:
    """Name what may be meant for images and embeddings: placeholders, and what nothing depends on."""
    if len(graph.node) <= 5:
        return f": {_few([node.name for node in graph.node])}" if graph.node else ""
    inputs = {_tensor(name)[0] for node in graph.node for name in node.input}
    ends = [node for node in graph.node if node.name not in inputs and node.op not in ("Const", "NoOp")]
    names = [node.name for node in graph.node if node.op in _PLACEHOLDERS]
    # What people name themselves stands in no scope, or in few.
    names += sorted((node.name for node in ends if node.name not in names), key=lambda name: name.count("/"))
    return f", among them {_few(names)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
