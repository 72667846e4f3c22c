from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from facenet_fast.errors import UserError
from facenet_fast.export.frozen_graph import frozen_graph
from facenet_fast.export.onnx_file import write_onnx
from facenet_fast.extras import import_extra
from facenet_fast.models.metadata import METADATA_KEY
from facenet_fast.models.onnx_files import metadata_in_onnx, read_onnx
from tests.frozen_graphs import (
    MEANS_SIZE,
    batch_of,
    means_graph,
    metadata_of,
    singular_values,
    small_resnet,
    tiny_model,
)
from tests.tiny_run import EMBEDDING_SIZE, IMAGE_SIZE

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

METADATA = metadata_of(IMAGE_SIZE, EMBEDDING_SIZE)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    write_onnx(frozen_graph(model, IMAGE_SIZE), METADATA, str(path))
    return str(path)


def sides_of(value):
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def test_file_is_valid_and_names_what_it_takes_and_gives(path):
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    (images,), (embeddings,) = written.graph.input, written.graph.output
    assert (images.name, sides_of(images)) == ("images", ["batch", IMAGE_SIZE, IMAGE_SIZE, 3])
    assert (embeddings.name, sides_of(embeddings)) == ("embeddings", ["batch", EMBEDDING_SIZE])
    for value in (images, embeddings):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert {entry.domain: entry.version for entry in written.opset_import}[""] == 17
    assert {entry.key: entry.value for entry in written.metadata_props} == {METADATA_KEY: METADATA.to_json()}


@pytest.mark.parametrize("n_images", [1, 3])
def test_onnxruntime_gives_the_embeddings_of_the_network(path, model, n_images):
    images = batch_of(n_images, IMAGE_SIZE)
    session = onnxruntime.InferenceSession(path)
    (embeddings,) = session.run(["embeddings"], {"images": images})
    np.testing.assert_allclose(embeddings, model(images, training=False), atol=1e-5)


def test_larger_network_read_back_gives_its_embeddings(tmp_path):
    model, path = small_resnet(), str(tmp_path / "small.onnx")
    write_onnx(frozen_graph(model, 32), metadata_of(32, 16), path)
    embedder = read_onnx(path).embedder
    images = batch_of(5, 32)
    for batch in (images, images[:1]):
        np.testing.assert_allclose(embedder.embed(batch), model(batch, training=False), atol=1e-5)


def test_metadata_travel(path):
    network = read_onnx(path)
    assert network.metadata == metadata_in_onnx(path) == METADATA
    embedder = network.embedder
    assert (embedder.image_size, embedder.embedding_size) == (IMAGE_SIZE, EMBEDDING_SIZE)
    assert (embedder.standardisation, embedder.store_size) == ("fixed", IMAGE_SIZE + 4)
    assert path in embedder.description


def test_graph_for_a_fixed_number_of_images_keeps_it_and_is_fed_any(tmp_path):
    path = str(tmp_path / "fixed.onnx")
    write_onnx(means_graph(4), metadata_of(MEANS_SIZE, 3), path)
    written = onnx.load(path).graph
    assert sides_of(written.input[0]) == [4, MEANS_SIZE, MEANS_SIZE, 3]
    assert sides_of(written.output[0]) == [4, 3]
    for n_images in (1, 4, 9):
        images = batch_of(n_images, MEANS_SIZE)
        got = read_onnx(path).embedder.embed(images)
        np.testing.assert_allclose(got, images.mean(axis=(1, 2)), atol=1e-6)


def test_graph_without_a_shape_takes_the_size_in_its_metadata(tmp_path):
    path = str(tmp_path / "shapeless.onnx")
    write_onnx(means_graph(shape=False), metadata_of(MEANS_SIZE, 3), path)
    assert sides_of(onnx.load(path).graph.input[0]) == ["batch", MEANS_SIZE, MEANS_SIZE, 3]
    images = batch_of(3, MEANS_SIZE)
    np.testing.assert_allclose(read_onnx(path).embedder.embed(images), images.mean(axis=(1, 2)), atol=1e-6)


def test_graph_that_is_written_is_not_changed(tmp_path):
    graph = means_graph(shape=False, embed=lambda images: tf.reduce_mean(tf.math.erfc(images), axis=[1, 2]))
    before = graph.SerializeToString(deterministic=True)
    write_onnx(graph, metadata_of(MEANS_SIZE, 3), str(tmp_path / "out.onnx"))
    assert graph.SerializeToString(deterministic=True) == before


def test_gelu(tmp_path):
    path = str(tmp_path / "gelu.onnx")
    graph = means_graph(
        embed=lambda images: tf.reduce_mean(0.5 * images * tf.math.erfc(-images / 2**0.5), axis=[1, 2])
    )
    write_onnx(graph, metadata_of(MEANS_SIZE, 3), path)
    images = 3 * batch_of(3, MEANS_SIZE)
    wanted = (images * scipy.stats.norm.cdf(images)).mean(axis=(1, 2))
    np.testing.assert_allclose(read_onnx(path).embedder.embed(images), wanted, atol=1e-6)


def test_writing_says_nothing(tmp_path, capfd, caplog, monkeypatch):
    from tensorflow.python.util import deprecation

    monkeypatch.setattr(deprecation, "_PRINTED_WARNING", {})  # each is told once a process
    write_onnx(means_graph(), metadata_of(MEANS_SIZE, 3), str(tmp_path / "out.onnx"))
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_network_beyond_onnx_is_refused_in_one_line(tmp_path):
    path = tmp_path / "out.onnx"
    with pytest.raises(UserError, match=r"^the network cannot be written as ONNX: .*Svd.*17$"):
        write_onnx(means_graph(embed=singular_values), metadata_of(MEANS_SIZE, MEANS_SIZE), str(path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("module", "act", "message"),
    [
        ("onnx", write_onnx, r"^writing ONNX needs onnx; install facenet-fast\[onnx\]$"),
        ("tf2onnx.convert", write_onnx, r"^writing ONNX needs tf2onnx; install facenet-fast\[onnx\]$"),
        ("onnxruntime", read_onnx, r"^reading ONNX needs onnxruntime; install facenet-fast\[onnx\]$"),
        ("onnxruntime", metadata_in_onnx, r"^reading ONNX needs onnxruntime; install facenet-fast\[onnx\]$"),
    ],
)
def test_missing_package_is_named_with_its_extra(module, act, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    path = str(tmp_path / "out.onnx")
    with pytest.raises(UserError, match=message):
        act(means_graph(), METADATA, path) if act is write_onnx else act(path)
    assert not os.path.exists(path)


def test_broken_package_says_what_is_broken(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    with pytest.raises(ImportError, match="libgomp"):
        import_extra("onnxruntime", "reading ONNX")


# Files by others.

FLOAT = onnx.TensorProto.FLOAT


def save(tmp_path, takes, gives, nodes, **properties):
    """Write an ONNX file of inputs and outputs (name, type, shape), and nodes (operator, inputs, output)."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, inputs, [output], **rest) for kind, inputs, output, rest in nodes],
        "foreign",
        [onnx.helper.make_tensor_value_info(*port) for port in takes],
        [onnx.helper.make_tensor_value_info(*port) for port in gives],
    )
    written = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=onnx.IR_VERSION_2021_7_30
    )
    onnx.helper.set_model_props(written, properties)
    onnx.checker.check_model(written)
    path = tmp_path / "foreign.onnx"
    onnx.save(written, path)
    return str(path)


def means_of(kind, name, axes, output):
    return (kind, [name], output, {"axes": axes, "keepdims": 0})


def test_channels_first_as_others_write_them(tmp_path, capfd):
    # The output is declared for one image whatever the input says, as in files of well-known face networks.
    path = save(
        tmp_path,
        [("input.1", FLOAT, ["?", 3, 10, 10])],
        [("683", FLOAT, [1, 3])],
        [means_of("ReduceMean", "input.1", [2, 3], "683")],
        author="somebody else",
    )
    network = read_onnx(path)
    assert network.metadata is None
    assert metadata_in_onnx(path) is None
    embedder = network.embedder
    assert (embedder.image_size, embedder.embedding_size) == (10, 3)
    assert (embedder.standardisation, embedder.store_size) == ("per_image", 10)
    images = batch_of(4, 10)
    np.testing.assert_allclose(embedder.embed(images), images.mean(axis=(1, 2)), atol=1e-6)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("shape", "axes"), [(["n", "h", "w", 3], [1, 2]), (["n", 3, "h", "w"], [2, 3]), ([1, 3, 5, 5], [2, 3])]
)
def test_size_asked_for_counts_where_the_model_takes_any(tmp_path, shape, axes):
    path = save(
        tmp_path,
        [("x", FLOAT, shape)],
        [("y", FLOAT, [None, 3])],
        [means_of("ReduceMean", "x", axes, "y")],
    )
    free = isinstance(shape[-2], str)
    assert read_onnx(path).embedder.image_size == (160 if free else 5)
    embedder = read_onnx(path, 7).embedder
    assert embedder.image_size == (7 if free else 5)
    images = batch_of(3, embedder.image_size)
    np.testing.assert_allclose(embedder.embed(images), images.mean(axis=(1, 2)), atol=1e-6)


def test_of_several_outputs_the_one_called_embeddings_is_taken(tmp_path):
    path = save(
        tmp_path,
        [("x", FLOAT, ["n", 4, 4, 3])],
        [("largest", FLOAT, ["n", 3]), ("embeddings", FLOAT, ["n", 3])],
        [
            means_of("ReduceMax", "x", [1, 2], "largest"),
            means_of("ReduceMean", "x", [1, 2], "embeddings"),
        ],
    )
    images = batch_of(2, 4)
    np.testing.assert_allclose(read_onnx(path).embedder.embed(images), images.mean(axis=(1, 2)), atol=1e-6)


IMAGES = ["n", 4, 4, 3]


@pytest.mark.parametrize(
    ("takes", "gives", "nodes", "message"),
    [
        (
            [("x", FLOAT, ["n", 4, 4, 1])],
            [("y", FLOAT, ["n", 1])],
            [means_of("ReduceMean", "x", [1, 2], "y")],
            r"must take one batch of images, float32 \(n, S, S, 3\) or \(n, 3, S, S\); .* takes "
            r"x: float32 \(\?, 4, 4, 1\)$",
        ),
        (
            [("x", FLOAT, ["n", 4, 6, 3])],
            [("y", FLOAT, ["n", 3])],
            [means_of("ReduceMean", "x", [1, 2], "y")],
            r"takes x: float32 \(\?, 4, 6, 3\)$",
        ),
        (
            [("x", FLOAT, ["n", 3])],
            [("y", FLOAT, ["n", 3])],
            [("Relu", ["x"], "y", {})],
            r"takes x: float32 \(\?, 3\)$",
        ),
        (
            [("x", onnx.TensorProto.DOUBLE, IMAGES)],
            [("y", onnx.TensorProto.DOUBLE, ["n", 3])],
            [means_of("ReduceMean", "x", [1, 2], "y")],
            r"takes x: float64 \(\?, 4, 4, 3\)$",
        ),
        (
            [("x", FLOAT, IMAGES), ("phase", FLOAT, [])],
            [("y", FLOAT, ["n", 3])],
            [means_of("ReduceMean", "x", [1, 2], "m"), ("Mul", ["m", "phase"], "y", {})],
            r"takes x: float32 \(\?, 4, 4, 3\), phase: float32 \(\)$",
        ),
        (
            [("x", FLOAT, IMAGES)],
            [("a", FLOAT, ["n", 3]), ("b", FLOAT, ["n", 3])],
            [means_of("ReduceMean", "x", [1, 2], "a"), means_of("ReduceMax", "x", [1, 2], "b")],
            r"must give one float32 array, or have one called 'embeddings'; .* gives "
            r"a: float32 \(\?, 3\), b: float32 \(\?, 3\)$",
        ),
        (
            [("x", FLOAT, IMAGES)],
            [("y", onnx.TensorProto.INT64, ["n", 4, 3])],
            [("ArgMax", ["x"], "y", {"axis": 1, "keepdims": 0})],
            r"gives y: int64 \(\?, 4, 3\)$",
        ),
        (
            [("x", FLOAT, IMAGES)],
            [("y", FLOAT, ["n", 4, 3])],
            [means_of("ReduceMean", "x", [1], "y")],
            r"must give embeddings \(n, D\); .* gives \(1, 4, 3\) for 1 image$",
        ),
        (
            [("x", FLOAT, IMAGES)],
            [("y", FLOAT, [1, 3])],
            [means_of("ReduceMean", "x", [0, 1], "m"), ("Flatten", ["m"], "y", {})],
            r"must give embeddings \(n, D\); .* gives \(4, 3\) for 1 image$",
        ),
    ],
)
def test_models_of_another_kind_are_refused_with_what_they_take_or_give(
    tmp_path, takes, gives, nodes, message
):
    with pytest.raises(UserError, match=message) as caught:
        read_onnx(save(tmp_path, takes, gives, nodes))
    assert "\n" not in str(caught.value)


def test_model_that_fails_on_an_image_is_refused_in_one_line(tmp_path, capfd):
    # Asks for as many numbers as the images have rows.
    path = save(
        tmp_path,
        [("x", FLOAT, ["n", "h", "w", 3])],
        [("y", FLOAT, ["rows"])],
        [("Shape", ["x"], "rows", {"start": 1, "end": 2}), ("Reshape", ["x", "rows"], "y", {})],
    )
    with pytest.raises(
        UserError, match=r"the ONNX model .*foreign.onnx cannot embed a 9 x 9 image: "
    ) as caught:
        read_onnx(path, 9)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("read", [read_onnx, metadata_in_onnx])
@pytest.mark.parametrize(
    "data", [b"", b"hello", bytes(range(255, 0, -1)), 0.3, 0.9, -1, None, "folder"], ids=str
)
def test_files_that_are_none_are_refused_in_one_line(data, read, path, tmp_path, capfd):
    other = tmp_path / "other.onnx"
    if data == "folder":
        other.mkdir()
    elif data is not None:
        with open(path, "rb") as file:
            whole = file.read()
        other.write_bytes(
            data if isinstance(data, bytes) else whole[: data if data < 0 else int(data * len(whole))]
        )
    with pytest.raises(UserError, match=r"^the ONNX model '.*other.onnx' cannot be read: .") as caught:
        read(str(other))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_metadata_that_are_none_are_refused(tmp_path):
    path = save(
        tmp_path,
        [("x", FLOAT, IMAGES)],
        [("y", FLOAT, ["n", 3])],
        [means_of("ReduceMean", "x", [1, 2], "y")],
        **{METADATA_KEY: "{}"},
    )
    for read in (read_onnx, metadata_in_onnx):
        with pytest.raises(
            UserError, match=r"holds a description of the model that facenet-fast did not write"
        ):
            read(path)
