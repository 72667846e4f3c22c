from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.errors import UserError
from facenet_fast.export.frozen_graph import frozen_graph
from facenet_fast.export.lite_file import write_tflite
from facenet_fast.models.lite_files import metadata_in_tflite, read_tflite
from facenet_fast.models.metadata import METADATA_FILE, Metadata
from facenet_fast.quiet import quiet
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

litert = pytest.importorskip("ai_edge_litert.interpreter")

METADATA = metadata_of(IMAGE_SIZE, EMBEDDING_SIZE)
PRECISIONS = ("float32", "float16", "int8")


def calibration(image_size, n_images=16, scale=1.0):
    return list(scale * batch_of(n_images, image_size, seed=1)[:, None])


def cosines(left, right):
    left, right = np.asarray(left), np.asarray(right)
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def paths(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lite")
    graph = frozen_graph(model, IMAGE_SIZE)
    paths = {precision: str(folder / f"{precision}.tflite") for precision in PRECISIONS}
    for precision, path in paths.items():
        write_tflite(graph, METADATA, path, precision=precision, calibration=calibration(IMAGE_SIZE))
    return paths


@pytest.mark.parametrize("precision", PRECISIONS)
def test_signature_takes_and_gives_float32_by_name(precision, paths, model):
    interpreter = litert.Interpreter(paths[precision])
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["embeddings"]}
    }
    runner = interpreter.get_signature_runner("serving_default")
    takes, gives = runner.get_input_details()["images"], runner.get_output_details()["embeddings"]
    assert list(takes["shape_signature"]) == [-1, IMAGE_SIZE, IMAGE_SIZE, 3]
    assert gives["shape_signature"][-1] == EMBEDDING_SIZE
    assert takes["dtype"] == gives["dtype"] == np.float32
    for n_images in (1, 3):
        images = batch_of(n_images, IMAGE_SIZE)
        embeddings = runner(images=images)["embeddings"]
        assert embeddings.shape == (n_images, EMBEDDING_SIZE)
        assert cosines(embeddings, model(images, training=False)).min() > 0.98


@pytest.mark.parametrize(
    ("precision", "largest_difference"), [("float32", 1e-5), ("float16", 1e-2), ("int8", 0.15)]
)
def test_read_back_gives_the_embeddings_of_the_network(precision, largest_difference, paths, model):
    embedder = read_tflite(paths[precision]).embedder
    for n_images in (3, 1, 5):
        images = batch_of(n_images, IMAGE_SIZE)
        wanted = model(images, training=False)
        np.testing.assert_allclose(embedder.embed(images), wanted, atol=largest_difference)


def test_larger_network_in_each_precision(tmp_path):
    model = small_resnet()
    graph, images = frozen_graph(model, 32), batch_of(6, 32)
    wanted = model(images, training=False)
    sizes = {}
    for precision, largest_difference in (("float32", 1e-5), ("float16", 1e-2), ("int8", None)):
        path = str(tmp_path / f"{precision}.tflite")
        write_tflite(graph, metadata_of(32, 16), path, precision=precision, calibration=calibration(32))
        embedder, sizes[precision] = read_tflite(path).embedder, os.path.getsize(path)
        for batch in (images, images[:1]):
            got = embedder.embed(batch)
            if largest_difference is not None:
                np.testing.assert_allclose(got, wanted[: len(batch)], atol=largest_difference)
            assert cosines(got, wanted[: len(batch)]).min() > 0.9
        kinds = {details["dtype"] for details in litert.Interpreter(path).get_tensor_details()}
        assert (np.float16 in kinds, np.int8 in kinds) == (precision == "float16", precision == "int8")
        if precision == "int8":
            # Activations too: without images to calibrate on the converter leaves those in float32.
            interpreter = litert.Interpreter(path)
            between = [details for details in interpreter.get_tensor_details() if "Relu" in details["name"]]
            assert between
            assert all(details["dtype"] == np.int8 for details in between)
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert sizes["int8"] < 0.35 * sizes["float32"]


def test_int8_takes_its_ranges_from_the_images_given(model, tmp_path):
    graph, images = frozen_graph(model, IMAGE_SIZE), batch_of(8, IMAGE_SIZE)
    wanted = model(images, training=False)
    worst = []
    for scale in (1.0, 0.02):
        path = str(tmp_path / "out.tflite")
        given = calibration(IMAGE_SIZE, scale=scale)
        write_tflite(graph, METADATA, path, precision="int8", calibration=given)
        worst.append(cosines(read_tflite(path).embedder.embed(images), wanted).min())
    assert worst[0] > 0.98 > 0.9 > worst[1]


@pytest.mark.parametrize("images", [None, []])
def test_int8_without_images_is_refused(images, tmp_path):
    path = tmp_path / "out.tflite"
    with pytest.raises(UserError, match=r"^int8 must have images to calibrate on; got none$"):
        write_tflite(means_graph(), METADATA, str(path), precision="int8", calibration=images)
    assert not path.exists()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_metadata_are_a_file_in_a_zip_archive_and_travel(precision, paths):
    with zipfile.ZipFile(paths[precision]) as archive:
        assert archive.namelist() == [METADATA_FILE]
        assert Metadata.from_json(archive.read(METADATA_FILE), "") == METADATA
    network = read_tflite(paths[precision])
    assert network.metadata == metadata_in_tflite(paths[precision]) == METADATA
    embedder = network.embedder
    assert (embedder.image_size, embedder.embedding_size) == (IMAGE_SIZE, EMBEDDING_SIZE)
    assert (embedder.standardisation, embedder.store_size) == ("fixed", IMAGE_SIZE + 4)
    assert paths[precision] in embedder.description


@pytest.mark.parametrize("precision", PRECISIONS)
def test_graph_for_a_fixed_number_of_images_keeps_it_and_is_fed_any(precision, tmp_path):
    path = str(tmp_path / "fixed.tflite")
    # 6 images to calibrate on do not fill batches of 4.
    write_tflite(
        means_graph(4),
        metadata_of(MEANS_SIZE, 3),
        path,
        precision=precision,
        calibration=calibration(MEANS_SIZE, 6),
    )
    (details,) = litert.Interpreter(path).get_input_details()
    assert list(details["shape_signature"]) == [4, MEANS_SIZE, MEANS_SIZE, 3]
    embedder = read_tflite(path).embedder
    for n_images in (1, 4, 9):
        images = batch_of(n_images, MEANS_SIZE)
        tolerance = 0.1 if precision == "int8" else 1e-6
        np.testing.assert_allclose(embedder.embed(images), images.mean(axis=(1, 2)), atol=tolerance)


def test_graph_without_a_shape_takes_the_size_in_its_metadata(tmp_path):
    path = str(tmp_path / "shapeless.tflite")
    write_tflite(means_graph(shape=False), metadata_of(MEANS_SIZE, 3), path)
    (details,) = litert.Interpreter(path).get_input_details()
    assert list(details["shape_signature"]) == [-1, MEANS_SIZE, MEANS_SIZE, 3]
    images = batch_of(3, MEANS_SIZE)
    np.testing.assert_allclose(read_tflite(path).embedder.embed(images), images.mean(axis=(1, 2)), atol=1e-6)


def test_activation_with_a_gradient_of_its_own(tmp_path):
    images = keras.Input((MEANS_SIZE, MEANS_SIZE, 3))
    model = keras.Model(images, keras.ops.mean(keras.ops.silu(images), axis=(1, 2)))
    path = str(tmp_path / "out.tflite")
    write_tflite(frozen_graph(model, MEANS_SIZE), metadata_of(MEANS_SIZE, 3), path)
    batch = batch_of(2, MEANS_SIZE)
    wanted = (batch / (1 + np.exp(-batch))).mean(axis=(1, 2))
    np.testing.assert_allclose(read_tflite(path).embedder.embed(batch), wanted, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_writing_says_nothing(precision, tmp_path, capfd, caplog):
    path = str(tmp_path / "out.tflite")
    given = calibration(MEANS_SIZE)
    write_tflite(means_graph(), metadata_of(MEANS_SIZE, 3), path, precision=precision, calibration=given)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_reading_says_nothing_in_a_new_process(paths):
    # LiteRT speaks when it first runs a model, and then no more.
    code = f"""\
from facenet_fast.quiet import quiet
with quiet():
    import tensorflow
from facenet_fast.models.lite_files import read_tflite
print(read_tflite({paths["float32"]!r}).embedder.embedding_size)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == (f"{EMBEDDING_SIZE}\n", "")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_network_beyond_tflite_is_refused_in_one_line_and_the_converter_heard(precision, tmp_path, capfd):
    path = tmp_path / "out.tflite"
    with pytest.raises(
        UserError,
        match=f"^the network cannot be written as TensorFlow Lite in {precision}: 'tf.Svd' op is neither",
    ) as caught:
        write_tflite(
            means_graph(embed=singular_values),
            metadata_of(MEANS_SIZE, MEANS_SIZE),
            str(path),
            precision=precision,
            calibration=calibration(MEANS_SIZE, 2),
        )
    assert "\n" not in str(caught.value)
    assert "Custom ops: Svd" in capfd.readouterr().err
    assert not path.exists()


def test_missing_package_is_named_with_its_extra(paths, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    message = r"^reading TensorFlow Lite needs ai-edge-litert; install facenet-fast\[tflite\]$"
    with pytest.raises(UserError, match=message):
        read_tflite(paths["float32"])
    assert metadata_in_tflite(paths["float32"]) == METADATA


def test_one_embedder_serves_several_threads(paths, model):
    embedder = read_tflite(paths["float32"]).embedder
    batches = [batch_of(1 + seed % 5, IMAGE_SIZE, seed) for seed in range(60)]
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(embedder.embed, batches))
    for rows, batch in zip(got, batches, strict=True):
        np.testing.assert_allclose(rows, model(batch, training=False), atol=1e-5)


# Files by others.


def save(tmp_path, function, *shapes, signature=True, dtype=tf.float32):
    """Convert a function of arrays with one of the converter's other doors."""
    module = tf.Module()
    specs = [tf.TensorSpec(shape, dtype, f"x{n}") for n, shape in enumerate(shapes)]
    module.function = tf.function(function, input_signature=specs)
    with quiet("tensorflow"):
        if signature:
            tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.function)
            converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
        else:
            graph = tf.Graph()
            with graph.as_default(), tf.compat.v1.Session() as session:
                fed = [tf.compat.v1.placeholder(spec.dtype, spec.shape, spec.name) for spec in specs]
                results = function(*fed)
                named = [tf.identity(value, name) for name, value in results.items()]
                converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, fed, named)
        data = converter.convert()
    path = tmp_path / "foreign.tflite"
    path.write_bytes(data)
    return str(path)


def means(images, axes=(1, 2)):
    return tf.reduce_mean(images, axis=axes)


@pytest.mark.parametrize("signature", [True, False])
@pytest.mark.parametrize(("shape", "axes"), [((1, 6, 6, 3), (1, 2)), ((None, 3, 6, 6), (2, 3))])
def test_files_without_metadata_are_read(tmp_path, shape, axes, signature):
    path = save(tmp_path, lambda images: {"output": means(images, axes)}, shape, signature=signature)
    network = read_tflite(path)
    assert network.metadata is None
    assert metadata_in_tflite(path) is None
    embedder = network.embedder
    assert (embedder.image_size, embedder.embedding_size) == (6, 3)
    assert (embedder.standardisation, embedder.store_size) == ("per_image", 6)
    images = batch_of(4, 6)
    np.testing.assert_allclose(embedder.embed(images), images.mean(axis=(1, 2)), atol=1e-6)


def test_size_asked_for_counts_where_the_model_takes_any(tmp_path):
    path = save(tmp_path, lambda images: {"output": means(images)}, (None, None, None, 3))
    assert read_tflite(path).embedder.image_size == 160
    images = batch_of(2, 7)
    np.testing.assert_allclose(
        read_tflite(path, 7).embedder.embed(images), images.mean(axis=(1, 2)), atol=1e-6
    )


@pytest.mark.parametrize("signature", [True, False])
def test_of_several_outputs_the_one_called_embeddings_is_taken(tmp_path, signature):
    path = save(
        tmp_path,
        lambda images: {"a": 2 * means(images), "embeddings": means(images), "z": 3 * means(images)},
        (None, 4, 4, 3),
        signature=signature,
    )
    images = batch_of(2, 4)
    np.testing.assert_allclose(read_tflite(path).embedder.embed(images), images.mean(axis=(1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "shapes", "dtype", "message"),
    [
        (
            lambda x: {"y": means(x)},
            [(None, 4, 4, 1)],
            tf.float32,
            r"must take one batch of images, .* takes x0: float32 \(\?, 4, 4, 1\)$",
        ),
        (
            lambda x: {"y": means(tf.cast(x, tf.float32))},
            [(1, 4, 4, 3)],
            tf.uint8,
            r"takes x0: uint8 \(1, 4, 4, 3\)$",
        ),
        (
            lambda x, y: {"y": means(x) * y},
            [(None, 4, 4, 3), (3,)],
            tf.float32,
            r"takes x0: float32 \(\?, 4, 4, 3\), x1: float32 \(3\)$",
        ),
        (
            lambda x: {"a": means(x), "b": 2 * means(x)},
            [(None, 4, 4, 3)],
            tf.float32,
            r"must give one float32 array, or have one called 'embeddings'; .* gives a: .*, b: ",
        ),
        (
            lambda x: {"y": tf.argmax(means(x), axis=1)},
            [(None, 4, 4, 3)],
            tf.float32,
            r"gives y: int64 \(\?\)$",
        ),
        (
            lambda x: {"y": means(x, 1)},
            [(None, 4, 4, 3)],
            tf.float32,
            r"must give embeddings \(n, D\); .* gives \(1, 4, 3\) for 1 image$",
        ),
    ],
)
def test_models_of_another_kind_are_refused_with_what_they_take_or_give(
    tmp_path, function, shapes, dtype, message
):
    path = save(tmp_path, function, *shapes, dtype=dtype)
    with pytest.raises(UserError, match=message) as caught:
        read_tflite(path)
    assert "\n" not in str(caught.value)


def test_model_that_fails_on_an_image_is_refused_in_one_line(tmp_path, capfd):
    # Asks for as many numbers as the images have rows.
    path = save(tmp_path, lambda x: {"y": tf.reshape(x, tf.shape(x)[1:2])}, (None, None, None, 3))
    with pytest.raises(
        UserError, match=r"Lite model .*foreign.tflite cannot embed a 9 x 9 image: "
    ) as caught:
        read_tflite(path, 9)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x1c\0\0\0TFL3" + bytes(range(255, 0, -1)), 0.3, 0.9, None, "folder"], ids=repr
)
def test_files_that_are_none_are_refused_in_one_line(data, paths, tmp_path, capfd):
    other = tmp_path / "other.tflite"
    if data == "folder":
        other.mkdir()
    elif data is not None:
        with open(paths["int8"], "rb") as file:
            whole = file.read()
        other.write_bytes(data if isinstance(data, bytes) else whole[: int(data * len(whole))])
    with pytest.raises(UserError, match=r"Lite model '.*other.tflite' cannot be read: .") as caught:
        read_tflite(str(other))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_file_that_lost_its_end_is_refused_although_the_network_is_whole(paths, tmp_path):
    with open(paths["float32"], "rb") as file:
        whole = file.read()
    for n_lost in (1, 200):
        path = tmp_path / "short.tflite"
        path.write_bytes(whole[:-n_lost])
        litert.Interpreter(str(path))
        for read in (read_tflite, metadata_in_tflite):
            with pytest.raises(UserError, match=r"'.*short.tflite' cannot be read: it is cut short"):
                read(str(path))


def test_metadata_that_are_none_are_refused(tmp_path):
    path = save(tmp_path, lambda images: {"output": means(images)}, (1, 6, 6, 3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_FILE, "{}")
    for read in (read_tflite, metadata_in_tflite):
        with pytest.raises(
            UserError, match=r"holds a description of the model that facenet-fast did not write"
        ):
            read(path)


def test_archives_of_others_are_passed_over(tmp_path):
    path = save(tmp_path, lambda images: {"output": means(images)}, (1, 6, 6, 3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "somebody")
    assert metadata_in_tflite(path) is None
    assert read_tflite(path).metadata is None


# What is kept down.


def loud(tmp_path, body):
    """Run a block in a process of its own, whose standard error is a file as any program's may be."""
    code = f"""\
import logging, os, sys
from facenet_fast.errors import UserError
from facenet_fast.quiet import quiet
logging.basicConfig(format="%(message)s")
print("before", file=sys.stderr)
try:
    with quiet("chatty"):
        os.write(2, b"from C++\\n")
        print("from Python", file=sys.stderr)
        logging.getLogger("chatty").error("from a logger")
        {body}
except (UserError, OSError):
    pass
print("after", file=sys.stderr)
logging.getLogger("chatty").warning("a logger after")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stderr.splitlines()


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("pass", []),
        ("raise UserError('said')", []),
        ("raise OSError('unforeseen')", ["from C++", "from Python"]),
        ("\n        with quiet(): os.write(2, b'deeper\\n')\n        os.write(2, b'still in it\\n')", []),
    ],
)
def test_quiet_shows_what_was_said_only_where_something_unforeseen_fails(body, shown, tmp_path):
    assert loud(tmp_path, body) == ["before", *shown, "after", "a logger after"]


def test_quiet_in_several_threads_gives_standard_error_back(capfd):
    def whisper(n):
        with quiet():
            os.write(2, b"whisper\n")
            time.sleep(0.001 * (n % 3))
        return n

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(whisper, range(40))) == list(range(40))
    os.write(2, b"aloud\n")
    assert capfd.readouterr().err == "aloud\n"
