from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from facenet_fast import export
from facenet_fast.checkpoints import Checkpoints, load_model
from facenet_fast.config import FreezeConfig
from facenet_fast.errors import UserError
from facenet_fast.export import freeze
from facenet_fast.models import read_graph
from tests.tiny_run import EMBEDDING_SIZE, IMAGE_SIZE, make_model, make_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("export") / "20240101-120000")


@pytest.fixture(scope="module")
def frozen_path(run_dir):
    path = run_dir / "frozen.pb"
    freeze(FreezeConfig(str(run_dir), str(path)))
    return path


def batch_of(n_images):
    return np.random.default_rng(1).normal(size=(n_images, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


def run_graph(path, feeds, input_map=None):
    """Run a graph as scripts written for TensorFlow 1 do."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.GraphDef()
        graph.ParseFromString(path.read_bytes())
        tf.graph_util.import_graph_def(graph, name="")
        return session.run("embeddings:0", feeds)


@pytest.mark.parametrize("feed", ["input:0", "image_batch:0"])
@pytest.mark.parametrize("phase", [{}, {"phase_train:0": False}, {"phase_train:0": True}])
def test_old_scripts_can_feed_it(feed, phase, frozen_path, run_dir):
    model, _ = load_model(str(run_dir))
    for n_images in (1, 4):
        got = run_graph(frozen_path, {feed: batch_of(n_images), **phase})
        assert got.shape == (n_images, EMBEDDING_SIZE)
        np.testing.assert_allclose(got, model(batch_of(n_images), training=False), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)


def test_predecessors_validation_can_map_its_inputs(frozen_path, run_dir):
    model, _ = load_model(str(run_dir))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        input_map = {
            "image_batch": tf.constant(batch_of(2)),
            "label_batch": tf.constant([0, 1]),
            "phase_train": tf.compat.v1.placeholder(tf.bool, name="phase_train"),
        }
        tf.graph_util.import_graph_def(read_graph(str(frozen_path)), input_map=input_map, name="")
        got = session.run("embeddings:0")
    np.testing.assert_allclose(got, model(batch_of(2), training=False), atol=1e-6)


def test_graph_is_for_inference_alone(frozen_path):
    graph = read_graph(str(frozen_path))
    operations = {node.op for node in graph.node}
    assert not [op for op in operations if re.search("Var|Queue|Decode|Switch|Merge|Call|Assert|Assign", op)]
    assert len(graph.library.function) == 0
    fed = [node.name for node in graph.node if node.op.startswith("Placeholder")]
    assert sorted(fed) == ["image_batch", "label_batch", "phase_train"]
    # Everything else leads to the embeddings, or is a default.
    inputs = {name.split(":")[0] for node in graph.node for name in node.input}
    ends = {node.name for node in graph.node} - inputs
    assert ends == {"embeddings", "label_batch", "phase_train"}


def test_prints_ops_and_largest_difference(run_dir, tmp_path, capsys):
    path = tmp_path / "out.pb"
    freeze(FreezeConfig(str(run_dir), str(path)))
    lines = capsys.readouterr().out.splitlines()
    n_ops = len(read_graph(str(path)).node)
    assert lines[:3] == [
        f"Model directory: {run_dir}",
        "Checkpoint file: model-20240101-120000.ckpt-7",
        f"{n_ops} ops in the final graph: {path}",
    ]
    difference = re.fullmatch(r"Largest difference to the checkpoint: (\S+)", lines[3])
    assert float(difference[1]) < 1e-6


def test_moved_run_and_prefix_and_existing_file(run_dir, tmp_path, frozen_path):
    moved = shutil.copytree(run_dir, tmp_path / "moved")
    path = tmp_path / "out.pb"
    path.write_bytes(b"old")
    freeze(FreezeConfig(str(moved / "model-20240101-120000.ckpt-7"), str(path)))
    feeds = {"input:0": batch_of(2)}
    np.testing.assert_array_equal(run_graph(path, feeds), run_graph(frozen_path, feeds))
    assert sorted(os.listdir(tmp_path)) == ["moved", "out.pb"]


def test_file_is_readable_as_other_new_files_are(run_dir, tmp_path):
    freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.pb")))
    (tmp_path / "other").write_text("")
    assert (tmp_path / "out.pb").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/out.pb", r"the output's folder must exist; got '.*nowhere/out\.pb'"),
        ("folder.pb", r"must be a file, OUT\.pb; '.*folder\.pb' is a folder"),
        ("out.tflite", r"must be called OUT\.pb, for a frozen graph; got '.*out\.tflite'"),
        ("file/out.pb", r"the output's folder must exist"),
    ],
)
def test_output_that_cannot_be_is_refused_before_any_work(output, message, tmp_path):
    (tmp_path / "folder.pb").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message):
        freeze(FreezeConfig(str(tmp_path / "no_run"), str(tmp_path / output)))


def test_folder_without_permission_is_refused(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root every folder is writable
    with pytest.raises(UserError, match=r"folder must be writable; got '.*out\.pb'"):
        freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.pb")))


@pytest.mark.parametrize("existing", [None, b"old"])
@pytest.mark.parametrize("failing", ["open", "replace"])
def test_full_disk_leaves_what_was_there(failing, existing, run_dir, tmp_path, monkeypatch):
    if existing:
        (tmp_path / "out.pb").write_bytes(existing)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"open": (export, "open", fail, False), "replace": (os, "replace", fail)}[failing])
    with pytest.raises(UserError, match=r"cannot write '.*out\.pb': No space left on device"):
        freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.pb")))
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == ({"out.pb": existing} if existing else {})


def test_graph_that_differs_is_refused_and_leaves_nothing(run_dir, tmp_path, monkeypatch):
    true_graph = export.frozen_graph

    def wrong_graph(model, *given):
        model.get_layer("bottleneck").kernel.assign(model.get_layer("bottleneck").kernel * -1.0)
        graph = true_graph(model, *given)
        model.get_layer("bottleneck").kernel.assign(model.get_layer("bottleneck").kernel * -1.0)
        return graph

    monkeypatch.setattr(export, "frozen_graph", wrong_graph)
    with pytest.raises(
        UserError, match=r"must equal the checkpoint's to 0\.0001; they differ by .*; nothing is written"
    ):
        freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.pb")))
    assert not list(tmp_path.iterdir())


def test_network_of_nan_is_refused_and_leaves_nothing(tmp_path):
    run_dir = make_run(tmp_path / "run")
    _, config = load_model(str(run_dir))
    model = make_model(config)
    model.get_layer("bottleneck").kernel.assign(np.full_like(model.get_layer("bottleneck").kernel, np.nan))
    Checkpoints(str(run_dir), {"averaged": model.weights}).save(8)
    with pytest.raises(
        UserError, match=r"embeddings must be finite; the checkpoint .*ckpt-8 gives NaN or infinity"
    ):
        freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.pb")))
    assert os.listdir(tmp_path) == ["run"]


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="must hold a checkpoint"):
        freeze(FreezeConfig(str(tmp_path), str(tmp_path / "out.pb")))


def test_images_to_compare_on_look_like_photographs():
    images = export._face_like_images(4, 32).astype(float)
    assert (images.min(axis=(1, 2, 3)) == 0).all()
    assert (images.max(axis=(1, 2, 3)) >= 254).all()
    between_neighbours = np.abs(np.diff(images, axis=2)).mean()
    assert between_neighbours < 0.3 * images.std()
