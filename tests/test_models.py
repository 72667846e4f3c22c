from __future__ import annotations

import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.checkpoints import load_model
from facenet_fast.config import FreezeConfig
from facenet_fast.errors import UserError
from facenet_fast.export import freeze
from facenet_fast.models import keras_embedder, load_embedder
from tests.tiny_run import EMBEDDING_SIZE, IMAGE_SIZE, make_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("models") / "20240101-120000")


@pytest.fixture(scope="module")
def model_paths(run_dir):
    """The same network in each form there is."""
    model, _ = load_model(str(run_dir))
    model.save(run_dir / "model.keras")
    freeze(FreezeConfig(str(run_dir), str(run_dir / "frozen.pb")))
    return {
        "run": str(run_dir),
        "prefix": str(run_dir / "model-20240101-120000.ckpt-7"),
        "keras": str(run_dir / "model.keras"),
        "frozen": str(run_dir / "frozen.pb"),
    }


def batch_of(n_images, seed=0):
    return np.random.default_rng(seed).normal(size=(n_images, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", ["run", "prefix", "keras", "frozen"])
def test_every_form_gives_the_embeddings_of_the_network(kind, model_paths):
    embedder = load_embedder(model_paths[kind])
    assert (embedder.image_size, embedder.embedding_size) == (IMAGE_SIZE, EMBEDDING_SIZE)
    assert embedder.standardisation == "per_image"
    assert model_paths[kind] in embedder.description
    model, _ = load_model(model_paths["run"])
    for n_images in (5, 1):
        batch = batch_of(n_images)
        np.testing.assert_allclose(embedder.embed(batch), model(batch, training=False), atol=1e-6)


def test_run_settings_travel_with_the_checkpoint_and_the_graph(tmp_path):
    run_dir = make_run(tmp_path / "run", standardisation="fixed", random_crop=True)
    freeze(FreezeConfig(str(run_dir), str(tmp_path / "frozen.pb")))
    for path in (run_dir, tmp_path / "frozen.pb"):
        embedder = load_embedder(str(path))
        assert embedder.standardisation == "fixed"
        assert embedder.store_size == round(1.15 * IMAGE_SIZE)


@pytest.mark.parametrize("kind", ["run", "frozen"])
def test_other_standardisation_than_trained_with_is_used_with_a_warning(kind, model_paths, caplog):
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        assert load_embedder(model_paths[kind], standardisation="per_image").standardisation == "per_image"
        assert not caplog.records
        assert load_embedder(model_paths[kind], standardisation="fixed").standardisation == "fixed"
    assert "was trained on images standardised per_image" in caplog.text


def test_keras_file_says_nothing_of_standardisation_so_there_is_no_warning(model_paths, caplog):
    assert load_embedder(model_paths["keras"], standardisation="fixed").standardisation == "fixed"
    assert not caplog.records


@pytest.mark.parametrize("kind", ["run", "keras", "frozen"])
def test_other_image_size_than_the_networks_is_refused(kind, model_paths):
    assert load_embedder(model_paths[kind], image_size=IMAGE_SIZE).image_size == IMAGE_SIZE
    with pytest.raises(UserError, match=f"image size must be {IMAGE_SIZE}, .*; got 160"):
        load_embedder(model_paths[kind], image_size=160)


def test_network_for_any_size_takes_the_size_asked_for(tmp_path):
    images = keras.Input((None, None, 3))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    model.save(tmp_path / "any.keras")
    embedder = load_embedder(str(tmp_path / "any.keras"), image_size=10)
    assert (embedder.image_size, embedder.embedding_size) == (10, 3)


def predecessors_graph(tmp_path, *, with_input=True):
    """A graph as the predecessor froze them: no shapes, a phase that must be fed."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, name="image_batch")
        if with_input:
            images = tf.identity(images, name="input")
        phase = tf.compat.v1.placeholder(tf.bool, name="phase_train")
        means = tf.reduce_mean(images, axis=[1, 2]) + tf.where(phase, 1000.0, 0.0)
        tf.identity(means, name="embeddings")
    path = tmp_path / "predecessor.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return str(path)


@pytest.mark.parametrize("with_input", [True, False])
def test_predecessors_graph_is_fed_phase_train(tmp_path, with_input):
    embedder = load_embedder(predecessors_graph(tmp_path, with_input=with_input), standardisation="fixed")
    assert (embedder.image_size, embedder.embedding_size, embedder.standardisation) == (160, 3, "fixed")
    batch = batch_of(2)
    np.testing.assert_allclose(embedder.embed(batch), batch.mean(axis=(1, 2)), atol=1e-5)


def test_keras_embedder_sees_later_weights_and_runs_in_inference_mode(run_dir):
    model, _ = load_model(str(run_dir))
    embedder = keras_embedder(model)
    before = embedder.embed(batch_of(3))
    np.testing.assert_allclose(embedder.embed(batch_of(3))[:1], before[:1], atol=1e-6)
    model.get_layer("bottleneck").kernel.assign(np.ones_like(model.get_layer("bottleneck").kernel))
    assert np.abs(embedder.embed(batch_of(3)) - before).max() > 0.01


def write(path, data):
    path.write_bytes(data)
    return path


def graph_with(*names):
    graph = tf.Graph()
    with graph.as_default():
        for name in names:
            tf.constant(1.0, name=name)
    return graph.as_graph_def().SerializeToString()


def graph_with_variable():
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="input")
        weight = tf.compat.v1.get_variable("weight", (), use_resource=True)
        tf.identity(tf.reduce_mean(images * weight, axis=[1, 2]), name="embeddings")
    return graph.as_graph_def().SerializeToString()


def graph_of_unknown_operation():
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(graph_with("input", "embeddings"))
    graph.node[1].op = "NoSuchOperation"
    return graph.SerializeToString()


def graph_giving_scalars():
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="input")
        tf.identity(tf.reduce_mean(images), name="embeddings")
    return graph.as_graph_def().SerializeToString()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing", None, r"the model must be a run folder, .*'.*missing' does not exist"),
        ("missing.pb", None, r"'.*missing.pb' does not exist"),
        ("model-x.ckpt-9", None, r"no run folder and no checkpoint '.*model-x.ckpt-9'"),
        ("notes.txt", lambda: b"hello", r"'.*notes.txt' is a file of another kind"),
        (
            "empty.pb",
            lambda: b"",
            r"with 'input' or 'image_batch' to feed and 'embeddings' to fetch; it has 0 oper",
        ),
        (
            "noise.pb",
            lambda: bytes(range(255, 0, -1)),
            r"must be a frozen graph; it is cut short or something else",
        ),
        ("other.pb", lambda: graph_with("a", "b"), r"it has 2 operations: a, b$"),
        ("weightless.pb", graph_with_variable, r"must be a frozen graph; its weights are not in it"),
        ("unknown.pb", graph_of_unknown_operation, r"cannot be imported: .*NoSuchOperation"),
        ("scalar.pb", graph_giving_scalars, r"must give embeddings \(n, D\); .* gives \(\) for 1 image"),
        ("empty.keras", lambda: b"", r"the Keras model '.*empty.keras' cannot be read"),
        ("noise.keras", lambda: b"PK\x03\x04 not a zip", r"the Keras model '.*noise.keras' cannot be read"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path, name, make, message):
    path = tmp_path / name
    if make is not None:
        path.write_bytes(make())
    with pytest.raises(UserError, match=message) as caught:
        load_embedder(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["keras", "frozen"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_files_cut_short_are_refused(kind, part, model_paths, tmp_path):
    with open(model_paths[kind], "rb") as file:
        data = file.read()
    path = write(tmp_path / f"short.{model_paths[kind].rpartition('.')[2]}", data[: int(part * len(data))])
    with pytest.raises(UserError, match="short") as caught:
        load_embedder(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("config.json", b"{not json", r"must hold JSON"),
        ("config.json", None, r"cannot read the settings in"),
        ("model-20240101-120000.ckpt-7.data-00000-of-00001", b"short", r"cannot be read"),
        ("model-20240101-120000.ckpt-7.index", b"noise", r"cannot be read"),
    ],
)
def test_damaged_runs_are_refused(run_dir, tmp_path, file, data, message):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    (copy / file).unlink()
    if data is not None:
        (copy / file).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        load_embedder(str(copy))
    assert "\n" not in str(caught.value)


def test_folder_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="must hold a checkpoint"):
        load_embedder(str(tmp_path))


def wrong_models():
    image, grey = keras.Input((8, 8, 3)), keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()
    yield keras.Model(grey, flat(grey)), r"\(n, S, S, 3\); the network takes \(None, 8, 8, 1\)"
    yield keras.Model([image, grey], flat(image)), r"must take one batch of images"
    yield (
        keras.Model(image, keras.layers.Conv2D(2, 3)(image)),
        r"give embeddings \(n, D\); .* \(None, 6, 6, 2\)",
    )
    yield keras.Model(image, [flat(image), flat(image)]), r"must give embeddings \(n, D\)"


def test_networks_of_other_shapes_are_refused():
    for model, message in wrong_models():
        with pytest.raises(UserError, match=message):
            keras_embedder(model)
