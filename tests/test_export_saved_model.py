from __future__ import annotations

import dataclasses
import gc
import io
import json
import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from facenet_fast.config import TrainConfig
from facenet_fast.data.images import centre_crop, decode_square, standardise
from facenet_fast.errors import UserError
from facenet_fast.export import saved_model
from facenet_fast.export.frozen_graph import frozen_graph
from facenet_fast.export.saved_model import decode_squares, write_saved_model
from facenet_fast.files import folder_written_aside
from facenet_fast.models.metadata import Metadata
from facenet_fast.models.saved_models import (
    encoded_embedder,
    is_saved_model,
    metadata_in_saved_model,
    read_saved_model,
)
from tests.tiny_run import EMBEDDING_SIZE, IMAGE_SIZE, make_model

METADATA = Metadata(IMAGE_SIZE, IMAGE_SIZE + 6, "per_image", EMBEDDING_SIZE, "model-x.ckpt-7", "tests", 24, 6)


@pytest.fixture(scope="module")
def model():
    return make_model(
        TrainConfig(backbone="tests.tiny_run:features", image_size=IMAGE_SIZE, embedding_size=EMBEDDING_SIZE)
    )


@pytest.fixture(scope="module")
def graph(model):
    return frozen_graph(model, IMAGE_SIZE)


@pytest.fixture(scope="module")
def saved_path(graph, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    write_saved_model(graph, METADATA, str(path))
    return path


@pytest.fixture(scope="module")
def signatures(saved_path):
    return tf.saved_model.load(str(saved_path)).signatures


def batch_of(n_images):
    return np.random.default_rng(1).normal(size=(n_images, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


def picture(width, height, seed=0):
    """Smooth shapes and some grain: what resizing and JPEG treat as they treat photographs."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (7, 6, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grainy = np.asarray(smooth) + rng.normal(scale=12, size=(height, width, 3))
    return Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))


def encoded(image, kind, **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def with_clear_part(image):
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def sixteen_bit_grey(image):
    values = np.asarray(image.convert("L")).astype(np.uint16) * 257 - np.uint16(90)
    return Image.fromarray(values)


FILES = {
    "jpeg of the wanted size": encoded(picture(24, 24), "JPEG"),
    "jpeg smaller than wanted": encoded(picture(17, 11), "JPEG"),
    "jpeg 3 x": encoded(picture(75, 80), "JPEG", quality=90),
    "jpeg 4 x": encoded(picture(96, 96), "JPEG", quality=90),
    "jpeg 8 x": encoded(picture(199, 193), "JPEG", quality=90),
    "jpeg 17 x": encoded(picture(410, 430), "JPEG", quality=90, subsampling=0),
    "jpeg 8 x, wide": encoded(picture(420, 200), "JPEG", quality=90, subsampling=1),
    "jpeg 8 x, tall, progressive": encoded(picture(210, 480), "JPEG", quality=90, progressive=True),
    "jpeg, grey": encoded(picture(60, 50).convert("L"), "JPEG", quality=90),
    "png": encoded(picture(60, 50), "PNG"),
    "png smaller than wanted": encoded(picture(13, 20), "PNG"),
    "png 8 x": encoded(picture(200, 230), "PNG"),
    "png, grey": encoded(picture(60, 50).convert("L"), "PNG"),
    "png, grey and clear": encoded(with_clear_part(picture(60, 50)).convert("LA"), "PNG"),
    "png, part clear": encoded(with_clear_part(picture(60, 50)), "PNG"),
    "png, palette": encoded(picture(60, 50).quantize(40), "PNG"),
    "png, palette with a clear colour": encoded(picture(60, 50).quantize(40), "PNG", transparency=3),
    "png, black and white": encoded(picture(60, 50).convert("1"), "PNG"),
    "png, 16-bit grey": encoded(sixteen_bit_grey(picture(60, 50)), "PNG"),
}


@pytest.mark.parametrize("size", [IMAGE_SIZE, IMAGE_SIZE + 6])
def test_pixels_are_those_that_networks_are_trained_on(size):
    squares = decode_squares(tf.constant(list(FILES.values())), size)
    assert (squares.shape, squares.dtype) == ((len(FILES), size, size, 3), tf.uint8)
    for name, square in zip(FILES, squares.numpy(), strict=True):
        difference = np.abs(square.astype(int) - decode_square("", size, FILES[name]))
        # Where Pillow's sums, in integers, end on the other side of a half.
        assert difference.max() <= 2, name
        assert difference.mean() < 0.15, name


def test_decoded_in_full_size_pixels_would_differ():
    """Else the test above could not tell that reduced decoding is what Pillow's draft mode does."""
    for name in ("jpeg 4 x", "jpeg 8 x", "jpeg 17 x"):
        whole = Image.open(io.BytesIO(FILES[name])).resize((24, 24), Image.Resampling.BILINEAR)
        difference = np.abs(np.asarray(whole).astype(int) - decode_square("", 24, FILES[name]))
        assert difference.max() > 2 or difference.mean() > 0.15, name


def test_signatures_are_what_servers_are_told(signatures):
    assert sorted(signatures) == ["serve_encoded", "serving_default"]
    for name, key, shape, dtype in (
        ("serving_default", "images", [None, IMAGE_SIZE, IMAGE_SIZE, 3], tf.float32),
        ("serve_encoded", "image_bytes", [None], tf.string),
    ):
        positional, keywords = signatures[name].structured_input_signature
        assert (positional, list(keywords)) == ((), [key])
        assert (keywords[key].shape.as_list(), keywords[key].dtype) == (shape, dtype)
        (output,) = signatures[name].structured_outputs.items()
        assert output[0] == "embeddings"
        assert (output[1].shape.as_list(), output[1].dtype) == ([None, EMBEDDING_SIZE], tf.float32)


@pytest.mark.parametrize("n_images", [1, 3])
def test_images_give_the_embeddings_of_the_network(n_images, signatures, model):
    got = signatures["serving_default"](images=tf.constant(batch_of(n_images)))["embeddings"]
    np.testing.assert_allclose(got, model(batch_of(n_images), training=False), atol=1e-6)


def prepared(file, metadata):
    square = decode_square("", metadata.store_size, file)[None]
    return standardise(centre_crop(square, metadata.image_size), metadata.standardisation)


@pytest.mark.parametrize(("standardisation", "store_size"), [("per_image", 24), ("fixed", 31)])
def test_files_give_the_embeddings_of_their_images(standardisation, store_size, graph, model, tmp_path):
    metadata = dataclasses.replace(METADATA, standardisation=standardisation, store_size=store_size)
    write_saved_model(graph, metadata, str(tmp_path / "model"))
    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serve_encoded"]
    files = list(FILES.values())
    want = model(np.concatenate([prepared(file, metadata) for file in files]), training=False).numpy()
    distances = np.linalg.norm(want[:, None] - want[None], axis=2)[np.triu_indices(len(want), 1)]
    assert np.median(distances) > 0.1
    for n_images in (len(files), 3, 1):
        got = signature(image_bytes=tf.constant(files[:n_images]))["embeddings"]
        np.testing.assert_allclose(got, want[:n_images], atol=5e-3)


@pytest.mark.parametrize("kind", ["jpeg 3 x", "png"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "GIF"])
def test_damaged_files_are_an_invalid_argument(kind, damage, signatures):
    file = FILES[kind]
    bad = {
        "cut": file[: len(file) // 2],
        "noise": file[:4] + bytes(range(256)),
        "empty": b"",
        "GIF": b"GIF89a" + bytes(20),
    }[damage]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["serve_encoded"](image_bytes=tf.constant([file, bad]))


def fixed_graph(graph, n_images):
    fixed = tf.compat.v1.GraphDef()
    fixed.CopyFrom(graph)
    placeholder = next(node for node in fixed.node if node.name == "image_batch")
    placeholder.attr["shape"].shape.dim[0].size = n_images
    return fixed


def test_graph_of_a_fixed_number_of_images(graph, model, tmp_path):
    path = str(tmp_path / "fixed")
    write_saved_model(fixed_graph(graph, 4), METADATA, path)
    loaded = tf.saved_model.load(path)
    spec = loaded.signatures["serving_default"].structured_input_signature[1]["images"]
    assert spec.shape.as_list() == [4, IMAGE_SIZE, IMAGE_SIZE, 3]
    got = loaded.signatures["serving_default"](images=tf.constant(batch_of(4)))["embeddings"]
    np.testing.assert_allclose(got, model(batch_of(4), training=False), atol=1e-6)
    files = list(FILES.values())[:9]
    want = model(np.concatenate([prepared(file, METADATA) for file in files]), training=False)
    for n_images in (9, 8, 4, 1):
        got = loaded.signatures["serve_encoded"](image_bytes=tf.constant(files[:n_images]))["embeddings"]
        np.testing.assert_allclose(got, want[:n_images], atol=5e-3)
    embed = read_saved_model(path).embedder.embed
    for n_images in (1, 4, 7):
        np.testing.assert_allclose(
            embed(batch_of(n_images)), model(batch_of(n_images), training=False), atol=1e-6
        )


def test_weights_are_stored_once(tmp_path):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(4000)(keras.layers.Flatten()(images)))
    metadata = Metadata(8, 8, "fixed", 4000, "x")
    write_saved_model(frozen_graph(model, 8), metadata, str(tmp_path / "model"))
    n_bytes = sum(path.stat().st_size for path in (tmp_path / "model").rglob("*") if path.is_file())
    assert n_bytes < 1.2 * 4 * model.count_params()


def test_metadata_are_a_file_for_people_and_programs(saved_path):
    record = json.loads((saved_path / "assets.extra" / "facenet_fast.json").read_text(encoding="utf-8"))
    assert record == dataclasses.asdict(METADATA)
    assert metadata_in_saved_model(str(saved_path)) == METADATA


def test_tensorflow_notes_nothing_on_writing(graph, tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.INFO, tf.get_logger().name)
    write_saved_model(graph, METADATA, str(tmp_path / "model"))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert tf.get_logger().level == logging.INFO


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("failing", ["model", "metadata"])
def test_full_disk_leaves_what_was_there(failing, existing, graph, tmp_path, monkeypatch):
    path = tmp_path / "model"
    if existing:
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"old")

    def fail_in_tensorflow(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "x/saved_model.pb; No space left on device\nmore")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    if failing == "model":
        monkeypatch.setattr(tf.saved_model, "save", fail_in_tensorflow)
    else:
        monkeypatch.setattr(saved_model, "open", fail, raising=False)

    def write():
        with folder_written_aside(str(path), is_saved_model) as aside:
            write_saved_model(graph, METADATA, aside)

    with pytest.raises(UserError, match=r"^cannot write '.*model': .*No space left on device$"):
        write()
    left = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == ({"model/saved_model.pb": b"old"} if existing else {})


def test_folder_that_cannot_be_made_is_an_os_error_in_one_line(graph, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file is not a directory") as caught:
        write_saved_model(graph, METADATA, str(tmp_path / "file" / "model"))
    assert "\n" not in str(caught.value)


def test_reader_takes_what_was_written(saved_path, model):
    network = read_saved_model(str(saved_path))
    assert (network.metadata, network.graph, network.keras_model) == (METADATA, None, None)
    embedder = network.embedder
    assert (embedder.image_size, embedder.store_size) == (IMAGE_SIZE, IMAGE_SIZE + 6)
    assert (embedder.standardisation, embedder.embedding_size) == ("per_image", EMBEDDING_SIZE)
    assert embedder.description == f"the SavedModel {saved_path}"
    for n_images in (1, 3):
        got = embedder.embed(batch_of(n_images))
        np.testing.assert_allclose(got, model(batch_of(n_images), training=False), atol=1e-6)


def test_reader_of_files_takes_what_was_written(saved_path, model):
    embed = encoded_embedder(str(saved_path))
    files = list(FILES.values())[:5]
    want = model(np.concatenate([prepared(file, METADATA) for file in files]), training=False)
    np.testing.assert_allclose(embed(files), want, atol=5e-3)
    with pytest.raises(tf.errors.InvalidArgumentError):
        embed([b"no image"])


def save(path, *, outputs=("out",), size=8, channels=3, batch=None, dtype=tf.float32, names=("serve",), n=1):
    """Save a model as others would, its weight a variable; it gives mean colours times 2."""

    class Others(tf.Module):
        def __init__(self):
            super().__init__()
            self.weight = tf.Variable(2.0)

    module = Others()

    def means(*inputs):
        rows = tf.reduce_mean(tf.cast(inputs[0], tf.float32), [1, 2]) * module.weight
        return {name: rows + len(name) for name in outputs}

    spec = tf.TensorSpec(None if size == "any" else (batch, size, size, channels), dtype, "images")
    function = tf.function(means).get_concrete_function(
        spec, *(tf.TensorSpec((), tf.bool, f"phase{k}") for k in range(1, n))
    )
    tf.saved_model.save(module, str(path), signatures=dict.fromkeys(names, function))
    return str(path)


@pytest.mark.parametrize(
    ("settings", "image_size", "side", "offset"),
    [
        ({"names": ("serving_default",)}, None, 8, 3),
        ({"names": ("another",)}, None, 8, 3),
        ({"names": ("serving_default", "another")}, None, 8, 3),
        ({"outputs": ("another", "embeddings", "z")}, None, 8, 10),
        ({"batch": 2}, None, 8, 3),
        ({"size": None}, None, 160, 3),
        ({"size": None}, 9, 9, 3),
        ({"size": "any"}, 9, 9, 3),
    ],
)
def test_models_of_others_are_read(settings, image_size, side, offset, tmp_path):
    network = read_saved_model(save(tmp_path / "others", **settings), image_size)
    gc.collect()  # what the signature needs, it keeps
    embedder = network.embedder
    assert network.metadata is None
    assert (embedder.image_size, embedder.store_size, embedder.embedding_size) == (side, side, 3)
    assert embedder.standardisation == "per_image"
    images = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(np.float32)
    np.testing.assert_allclose(embedder.embed(images), 2 * images.mean(axis=(1, 2)) + offset, atol=1e-5)
    assert encoded_embedder(str(tmp_path / "others")) is None


def test_models_that_keras_exports_are_read(model, tmp_path):
    model.export(str(tmp_path / "exported"), verbose=False)
    embed = read_saved_model(str(tmp_path / "exported")).embedder.embed
    np.testing.assert_allclose(embed(batch_of(3)), model(batch_of(3), training=False), atol=1e-6)


def test_models_of_tensorflow_1_are_read(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        images = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="x")
        weight = tf.compat.v1.get_variable("weight", initializer=3.0)
        rows = tf.reduce_mean(images * weight, [1, 2])
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(
            session, str(tmp_path / "old"), {"images": images}, {"rows": rows}
        )
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    embedder = read_saved_model(str(tmp_path / "old")).embedder
    gc.collect()
    np.testing.assert_allclose(embedder.embed(images), 3 * images.mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": ()}, r"must have a signature 'serving_default'.*others has no signature"),
        ({"names": ("a", "b")}, r"has 'a' takes images float32 \(None, 8, 8, 3\); 'b' takes images float32"),
        ({"channels": 1}, r"'serve' takes images float32 \(None, 8, 8, 1\)"),
        ({"dtype": tf.uint8}, r"'serve' takes images uint8 \(None, 8, 8, 3\)"),
        ({"n": 2}, r"'serve' takes images float32 \(None, 8, 8, 3\), phase1 bool \(\)"),
        ({"outputs": ("a", "b")}, r"one tensor, or one called 'embeddings'; .*others gives a, b"),
    ],
)
def test_models_of_others_that_do_something_else_are_refused(settings, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        read_saved_model(save(tmp_path / "others", **settings))
    assert "\n" not in str(caught.value)


def save_function(path, function):
    spec = tf.TensorSpec((None, 8, 8, 3), tf.float32, "images")
    tf.saved_model.save(
        tf.Module(), str(path), signatures={"serve": tf.function(function).get_concrete_function(spec)}
    )
    return str(path)


def test_outputs_that_are_no_embeddings_are_refused(tmp_path):
    path = save_function(tmp_path / "others", lambda images: {"out": tf.reduce_mean(images)})
    with pytest.raises(UserError, match=r"must give embeddings \(n, D\); .*others gives \(\) for n = 1"):
        read_saved_model(path)


def test_models_that_do_not_run_are_refused(tmp_path):
    def fail(images):
        with tf.control_dependencies([tf.debugging.assert_greater(tf.reduce_mean(images), 1.0)]):
            return {"out": tf.reduce_mean(images, [1, 2])}

    with pytest.raises(UserError, match=r"others cannot embed 8 x 8 images: ") as caught:
        read_saved_model(save_function(tmp_path / "others", fail))
    assert "\n" not in str(caught.value)


def test_metadata_of_another_size_than_the_models_are_refused(saved_path, tmp_path):
    copy = shutil.copytree(saved_path, tmp_path / "copy")
    other = dataclasses.replace(METADATA, image_size=30)
    (copy / "assets.extra" / "facenet_fast.json").write_text(other.to_json(), encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot embed 30 x 30 images"):
        read_saved_model(str(copy))


@pytest.mark.parametrize("read", [read_saved_model, encoded_embedder])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), r"must be a folder that holds saved_model.pb; '.*broken' does not"),
        (lambda path: None, r"must be a folder that holds saved_model.pb; '.*broken' does not"),
        (lambda path: path.write_bytes(b"x"), r"must be a folder that holds saved_model.pb"),
    ],
)
def test_what_is_no_saved_model_is_refused(make, message, read, tmp_path):
    make(tmp_path / "broken")
    with pytest.raises(UserError, match=message):
        read(str(tmp_path / "broken"))


def cut(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])


@pytest.mark.parametrize("read", [read_saved_model, encoded_embedder])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_graphs_cut_short_are_refused(part, read, saved_path, tmp_path):
    copy = shutil.copytree(saved_path, tmp_path / "copy")
    cut(copy / "saved_model.pb", part)
    with pytest.raises(UserError, match=r"the SavedModel '.*copy' cannot be read: ") as caught:
        read(str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: shutil.rmtree(path / "variables"),
        lambda path: (path / "variables" / "variables.index").unlink(),
        lambda path: cut(path / "variables" / "variables.index", 0.5),
        lambda path: cut(path / "variables" / "variables.data-00000-of-00001", 0.5),
        lambda path: (path / "saved_model.pb").write_bytes(bytes(range(255, 0, -1))),
    ],
)
def test_models_without_their_weights_are_refused(damage, tmp_path):
    path = save(tmp_path / "others")
    damage(tmp_path / "others")
    with pytest.raises(UserError, match=r"the SavedModel '.*others' cannot be read: ") as caught:
        read_saved_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"\xff\xfe", b'{"image_size": 0}'])
def test_damaged_metadata_are_refused(record, saved_path, tmp_path):
    copy = shutil.copytree(saved_path, tmp_path / "copy")
    (copy / "assets.extra" / "facenet_fast.json").write_bytes(record)
    for read in (metadata_in_saved_model, read_saved_model):
        with pytest.raises(UserError, match=r"facenet_fast.json' holds a description"):
            read(str(copy))


def test_metadata_that_cannot_be_opened_are_refused(saved_path, tmp_path):
    copy = shutil.copytree(saved_path, tmp_path / "copy")
    (copy / "assets.extra" / "facenet_fast.json").unlink()
    assert metadata_in_saved_model(str(copy)) is None
    (copy / "assets.extra" / "facenet_fast.json").mkdir()
    with pytest.raises(UserError, match=r"copy' cannot be read: Is a directory"):
        metadata_in_saved_model(str(copy))
