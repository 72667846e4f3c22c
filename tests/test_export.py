from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from facenet_fast import export
from facenet_fast.checkpoints import Checkpoints, load_model
from facenet_fast.config import EXPORTS, FreezeConfig, ValidateConfig
from facenet_fast.data.images import centre_crop, decode_square, standardise
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.export import certificate_path, freeze
from facenet_fast.export.certificate import RealImages, compare, draw_images
from facenet_fast.export.formats import FORMATS
from facenet_fast.models import keras_embedder, load_network, read_graph
from facenet_fast.thresholds import Threshold, Thresholds, load_thresholds, save_thresholds
from facenet_fast.validate import validate
from tests.tiny_run import EMBEDDING_SIZE, IMAGE_SIZE, make_faces, make_model, make_run

OUTPUTS = {
    "pb": "out.pb",
    "saved_model": "out",
    "tflite": "out.tflite",
    "tflite-float16": "out.tflite",
    "tflite-int8": "out.tflite",
    "onnx": "out.onnx",
    "keras": "out.keras",
}


@pytest.fixture(autouse=True)
def _needs_converters(request):
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("form")
    for package in FORMATS[name].packages if name else ():
        pytest.importorskip(package.replace("-", "_"))


@pytest.fixture(scope="module")
def faces_dir(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("faces") / "images")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, faces_dir):
    run_dir = make_run(
        tmp_path_factory.mktemp("export") / "20240101-120000", data_dir=str(faces_dir), random_crop=True
    )
    (run_dir / "training_set.json").write_text('{"n_images": 24, "n_identities": 6}')
    point = Threshold(far_target=0.01, far=0.005, val=0.9, threshold=1.25, similarity=0.375)
    save_thresholds(
        Thresholds(0, False, "per_image", "model-20240101-120000.ckpt-7", 36, 36, "pairs", (point,)),
        str(run_dir),
    )
    return run_dir


@pytest.fixture(scope="module")
def frozen_path(run_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen") / "frozen.pb"
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


def everything_in(folder):
    """Relative names and contents of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def negated(model):
    """The same network with the sign of its embeddings turned."""
    kernel = model.get_layer("bottleneck").kernel
    kernel.assign(kernel * -1.0)
    norm = model.get_layer("bottleneck_batch_norm")
    for weight in (norm.beta, norm.moving_mean):
        weight.assign(weight * -1.0)
    return model


def test_every_format_has_a_name_for_the_command_line():
    assert tuple(FORMATS) == EXPORTS == tuple(OUTPUTS)


@pytest.mark.parametrize("form", EXPORTS)
def test_every_format_gives_the_networks_embeddings_and_says_so(form, run_dir, faces_dir, tmp_path, capfd):
    path = tmp_path / OUTPUTS[form]
    certificate = freeze(FreezeConfig(str(run_dir), str(path), format=form))
    out, err = capfd.readouterr()
    assert err == ""

    model, _ = load_model(str(run_dir))
    dataset = sorted(faces_dir.rglob("*.png"))
    store_size = round(1.15 * IMAGE_SIZE)
    pixels = centre_crop(np.stack([decode_square(str(one), store_size) for one in dataset]), IMAGE_SIZE)
    images = standardise(pixels, "per_image")
    wanted = np.asarray(model(images, training=False))
    written = load_network(str(path))
    assert (written.embedder.image_size, written.embedder.store_size) == (IMAGE_SIZE, store_size)
    assert written.embedder.standardisation == "per_image"
    difference = np.abs(written.embedder.embed(images) - wanted).max()
    found = certificate["embeddings"]
    if form == "tflite-int8":  # half of the images are for calibration
        assert (found["n_images"], certificate["calibration_images"]) == (12, 12)
        assert difference < 0.2
    else:
        assert (found["n_images"], certificate["calibration_images"]) == (24, 0)
        np.testing.assert_allclose(found["largest_difference"], difference, atol=2e-7)
        assert found["largest_difference"] <= FORMATS[form].tolerance
    assert 0.9 < found["smallest_cosine"] <= 1.00001
    assert f"Largest difference to the network: {found['largest_difference']:.2e} on" in out
    assert f"Certificate: {certificate_path(str(path))}" in out

    # What it says of itself, and that thresholds go with it.
    said = written.metadata
    assert (said.source, said.backbone) == ("model-20240101-120000.ckpt-7", "tests.tiny_run:features")
    assert (said.n_images, said.n_identities, said.embedding_size) == (24, 6, EMBEDDING_SIZE)
    assert set(said.versions) >= {"facenet-fast", "tensorflow", *FORMATS[form].packages}
    thresholds = load_thresholds(str(path))
    assert (thresholds.checkpoint, thresholds.at(0.01).threshold) == (path.name, 1.25)

    stored = json.loads((tmp_path / f"{path.name}.certificate.json").read_text())
    assert stored == certificate
    assert (stored["file"], stored["format"], stored["images"]) == (path.name, form, str(faces_dir))
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name, f"{path.name}.certificate.json"]
    if path.is_file():
        assert stored["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_digest_of_a_folder_is_of_all_its_files(run_dir, tmp_path):
    first = freeze(FreezeConfig(str(run_dir), str(tmp_path / "out")))["sha256"]
    for path in sorted((tmp_path / "out").rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            path.write_bytes(data + b" ")
            assert export.digest(str(tmp_path / "out")) != first
            path.write_bytes(data)
    assert export.digest(str(tmp_path / "out")) == first


def test_saved_model_is_compared_on_files_too(run_dir, tmp_path):
    found = freeze(FreezeConfig(str(run_dir), str(tmp_path / "out")))["embeddings_of_files"]
    assert found["n_images"] == 24
    assert 0 < found["largest_difference"] < 0.02
    assert found["smallest_cosine"] > 0.99


@pytest.mark.parametrize("feed", ["input:0", "image_batch:0"])
@pytest.mark.parametrize("phase", [{}, {"phase_train:0": False}, {"phase_train:0": True}])
def test_old_scripts_can_feed_a_graph(feed, phase, frozen_path, run_dir):
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


def test_opencv_reads_the_graph(frozen_path, run_dir):
    cv2 = pytest.importorskip("cv2")
    model, _ = load_model(str(run_dir))
    network = cv2.dnn.readNetFromTensorflow(str(frozen_path))
    network.setInput(np.ascontiguousarray(batch_of(3).transpose(0, 3, 1, 2)))
    got = network.forward()
    np.testing.assert_allclose(got, model(batch_of(3), training=False), atol=1e-5)


def test_prints_what_it_did(run_dir, faces_dir, tmp_path, capsys):
    path = tmp_path / "out.pb"
    freeze(FreezeConfig(str(run_dir), str(path)))
    lines = capsys.readouterr().out.splitlines()
    n_ops = len(read_graph(str(path)).node)
    assert lines[:4] == [
        f"Model directory: {run_dir}",
        "Checkpoint file: model-20240101-120000.ckpt-7",
        f"{n_ops} ops in the final graph: {path}",
        "Images are to be standardised: per_image",
    ]
    difference = re.fullmatch(
        r"Largest difference to the network: (\S+) on 24 images of (.*) \(at most 0\.0001\)", lines[4]
    )
    assert float(difference[1]) < 1e-6
    assert difference[2] == str(faces_dir)


def test_moved_run_and_prefix_and_existing_file(run_dir, tmp_path, frozen_path):
    moved = shutil.copytree(run_dir, tmp_path / "moved")
    path = tmp_path / "out.pb"
    path.write_bytes(b"old")
    freeze(FreezeConfig(str(moved / "model-20240101-120000.ckpt-7"), str(path)))
    feeds = {"input:0": batch_of(2)}
    np.testing.assert_array_equal(run_graph(path, feeds), run_graph(frozen_path, feeds))
    assert sorted(os.listdir(tmp_path)) == ["moved", "out.pb", "out.pb.certificate.json"]


def test_file_is_readable_as_other_new_files_are(run_dir, tmp_path):
    freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.pb")))
    (tmp_path / "other").write_text("")
    assert (tmp_path / "out.pb").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_frozen_model_can_be_frozen_again(run_dir, frozen_path, tmp_path):
    pytest.importorskip("tf2onnx")
    freeze(FreezeConfig(str(frozen_path), str(tmp_path / "again.pb")))
    freeze(FreezeConfig(str(tmp_path / "again.pb"), str(tmp_path / "out.onnx")))
    freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.keras")))
    freeze(FreezeConfig(str(tmp_path / "out.keras"), str(tmp_path / "last.pb")))
    first = load_network(str(frozen_path))
    for name in ("again.pb", "out.onnx", "last.pb"):
        network = load_network(str(tmp_path / name))
        np.testing.assert_allclose(
            network.embedder.embed(batch_of(2)), first.embedder.embed(batch_of(2)), atol=1e-6
        )
        assert network.metadata.source == first.metadata.source
        assert network.metadata.n_images == 24


@pytest.mark.parametrize(("model", "output"), [("out", "a.pb"), ("frozen.pb", "a.keras")])
def test_what_cannot_be_made_of_a_model_is_refused(model, output, run_dir, frozen_path, tmp_path):
    freeze(FreezeConfig(str(run_dir), str(tmp_path / "out")))
    shutil.copy(frozen_path, tmp_path / "frozen.pb")
    before = everything_in(tmp_path)
    with pytest.raises(UserError, match=rf"must be .*a run, a checkpoint.*; got the .*{model}"):
        freeze(FreezeConfig(str(tmp_path / model), str(tmp_path / output)))
    assert everything_in(tmp_path) == before


def test_other_standardisation_travels_if_asked_for(run_dir, tmp_path, capsys, caplog):
    path = tmp_path / "out.pb"
    freeze(FreezeConfig(str(run_dir), str(path), use_fixed_image_standardization=True))
    assert "Images are to be standardised: fixed" in capsys.readouterr().out
    assert load_network(str(path)).metadata.standardisation == "fixed"
    assert "was trained on images standardised per_image" in caplog.text


def test_images_are_those_asked_for_or_the_runs_or_orls(run_dir, faces_dir, orl_dir, tmp_path):
    other = shutil.copytree(faces_dir / "Person_0", tmp_path / "other" / "Person_0").parent
    assert freeze(FreezeConfig(str(run_dir), str(tmp_path / "a.pb"), images_dir=str(other)))["images"] == str(
        other
    )
    moved = make_run(tmp_path / "run", data_dir=str(tmp_path / "gone"))
    found = freeze(FreezeConfig(str(moved), str(tmp_path / "b.pb"), n_images=3))
    assert (found["images"], found["embeddings"]["n_images"]) == ("orl", 3)


def test_images_that_cannot_be_read_are_passed_over(run_dir, faces_dir, tmp_path):
    images_dir = shutil.copytree(faces_dir, tmp_path / "faces")
    (images_dir / "Person_1" / "Person_1_0002.png").write_bytes(b"noise")
    found = freeze(FreezeConfig(str(run_dir), str(tmp_path / "a.pb"), images_dir=str(images_dir)))
    assert found["embeddings"]["n_images"] == 23
    for path in images_dir.rglob("*.png"):
        path.write_bytes(b"noise")
    with pytest.raises(UserError, match=r"must be readable; none of .*faces is"):
        freeze(FreezeConfig(str(run_dir), str(tmp_path / "b.pb"), images_dir=str(images_dir)))
    assert not (tmp_path / "b.pb").exists()


def test_lfw_delta_is_that_of_two_validations(run_dir, faces_dir, tmp_path, capsys):
    path = tmp_path / "out.tflite"
    pytest.importorskip("ai_edge_litert")
    found = freeze(FreezeConfig(str(run_dir), str(path), format="tflite-float16", lfw_dir=str(faces_dir)))
    lines = capsys.readouterr().out
    wanted = {
        name: validate(ValidateConfig(str(faces_dir), str(model), resamples=0, save_thresholds=False)).lfw
        for name, model in (("network", run_dir), ("written", path))
    }
    for measure in ("accuracy", "val", "auc", "eer"):
        values = {name: getattr(one, measure) for name, one in wanted.items()}
        for name, value in values.items():
            np.testing.assert_allclose(found["lfw"][name][measure], value, atol=1e-12)
        np.testing.assert_allclose(
            found["lfw"]["delta"][measure], values["written"] - values["network"], atol=1e-12
        )
    assert found["lfw"]["n_pairs"] == 72
    assert f"Accuracy on 72 pairs: {wanted['written'].accuracy:.5f}" in lines


def test_lfw_without_pairs_is_refused_before_any_work(tmp_path):
    (tmp_path / "lfw").mkdir()
    with pytest.raises(UserError, match=r"no pairs\.txt in"):
        freeze(FreezeConfig(str(tmp_path / "no_run"), str(tmp_path / "a.pb"), lfw_dir=str(tmp_path / "lfw")))


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("nowhere/out.pb", {}, r"the output's folder must exist; got '.*nowhere/out\.pb'"),
        ("folder.pb", {}, r"must be a file, OUT\.pb; '.*folder\.pb' is a folder"),
        ("out.h5", {}, r"must be called OUT\.keras, OUT\.onnx, OUT\.pb, OUT\.tflite, or OUT for .*out\.h5'"),
        ("out.pb", {"format": "onnx"}, r"must be called OUT\.onnx, for an ONNX model; got '.*out\.pb'"),
        ("file/out.pb", {}, r"the output's folder must exist"),
        ("full", {}, r"full"),
    ],
)
def test_output_that_cannot_be_is_refused_before_any_work(output, options, message, tmp_path):
    (tmp_path / "folder.pb").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=message):
        freeze(FreezeConfig(str(tmp_path / "no_run"), str(tmp_path / output), **options))
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("output", "package", "extra"), [("a.onnx", "tf2onnx", "onnx"), ("a.tflite", "ai_edge_litert", "tflite")]
)
def test_missing_converter_is_named_before_any_work(output, package, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package.replace('_', '.')}; install facenet-fast\[{extra}\]"):
        freeze(FreezeConfig(str(tmp_path / "no_run"), str(tmp_path / output)))


def test_folder_without_permission_is_refused(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root every folder is writable
    with pytest.raises(UserError, match=r"folder must be writable; got '.*out\.pb'"):
        freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.pb")))


@pytest.mark.parametrize("form", EXPORTS)
def test_full_disk_leaves_what_was_there(form, run_dir, tmp_path, monkeypatch):
    path = tmp_path / OUTPUTS[form]
    freeze(FreezeConfig(str(run_dir), str(path), format=form))
    before = everything_in(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(UserError, match=rf"cannot write '.*{path.name}': No space left on device"):
        freeze(FreezeConfig(str(run_dir), str(path), format=form))
    left = everything_in(tmp_path)
    left.setdefault(f"{path.name}.certificate.json", before[f"{path.name}.certificate.json"])
    assert left == before


@pytest.mark.parametrize("form", EXPORTS)
def test_model_that_differs_is_refused_and_leaves_what_was_there(form, run_dir, tmp_path, monkeypatch):
    path = tmp_path / OUTPUTS[form]
    freeze(FreezeConfig(str(run_dir), str(path), format=form))
    before = everything_in(tmp_path)
    # The network that is compared with is another than the one that is written.
    original = export.load_network

    def wrong_network(path, **options):
        network = original(path, **options)
        if path != str(run_dir):
            return network
        model, _ = load_model(path)
        wrong = keras_embedder(negated(model), store_size=network.embedder.store_size)
        return type(network)(wrong, network.metadata, network.keras_model, None, network.images_dir)

    monkeypatch.setattr(export, "load_network", wrong_network)
    with pytest.raises(
        UserError, match=r"must equal the network's to .*; they differ by .*; nothing is written"
    ):
        freeze(FreezeConfig(str(run_dir), str(path), format=form))
    assert everything_in(tmp_path) == before


def test_tolerance_can_be_narrower(run_dir, tmp_path):
    pytest.importorskip("ai_edge_litert")
    config = FreezeConfig(str(run_dir), str(tmp_path / "a.tflite"), format="tflite-float16", tolerance=1e-7)
    with pytest.raises(
        UserError, match=r"must equal the network's to 1e-07; they differ by .*; nothing is written"
    ):
        freeze(config)
    assert not list(tmp_path.iterdir())


def test_model_that_says_something_else_of_itself_is_refused(run_dir, tmp_path, monkeypatch):
    write = FORMATS["pb"].write

    def mislabelled(source, path):
        write(source, path)
        graph = read_graph(path)
        (placeholder,) = (node for node in graph.node if node.name == "image_batch")
        record = placeholder.attr["_facenet_fast"].s.replace(b"per_image", b"fixed")
        placeholder.attr["_facenet_fast"].s = record
        with open(path, "wb") as file:
            file.write(graph.SerializeToString())

    monkeypatch.setitem(export.FORMATS, "pb", type(FORMATS["pb"])("a graph", ".pb", 1e-4, mislabelled))
    with pytest.raises(
        UserError, match="must say of itself what it was given; standardisation, thresholds differ"
    ):
        freeze(FreezeConfig(str(run_dir), str(tmp_path / "out.pb")))
    assert not list(tmp_path.iterdir())


def test_network_of_nan_is_refused_and_leaves_nothing(tmp_path, faces_dir):
    run_dir = make_run(tmp_path / "run", data_dir=str(faces_dir))
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


def embedder_giving(rows):
    """An embedder whose answers are rows by the image's first value, one after the other."""

    def embed(images):
        return rows[images[:, 0, 0, 0].astype(int)]

    return Embedder(embed, 1, "fixed", rows.shape[1], "rows")


def test_comparison_finds_the_largest_difference_and_the_smallest_cosine():
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(50, 4)).astype(np.float32) * 10
    got = wanted.copy()
    got[37, 2] += 3.0
    got[11] *= -1.0
    images = np.arange(50, dtype=np.float32).reshape(50, 1, 1, 1)
    pixels = np.repeat(images, 3, axis=3)

    # "fixed" standardises these pixels to the images' numbers.
    fed = RealImages("here", ("a",) * 50, pixels * 128 + 127.5)
    found = compare(embedder_giving(got), embedder_giving(wanted), fed)
    lengths = np.linalg.norm(wanted, axis=1)
    assert found.n_images == 50
    np.testing.assert_allclose(
        found.largest_difference, np.abs(got - wanted).max() / np.median(lengths), rtol=1e-5
    )
    np.testing.assert_allclose(found.smallest_cosine, -1.0, rtol=1e-5)


def test_images_are_drawn_without_order_and_again_alike(faces_dir):
    paths = tuple(str(path) for path in sorted(faces_dir.rglob("*.png")))
    first = draw_images(paths, 5, "faces", image_size=20, store_size=24, seed=0)
    assert first.paths == draw_images(paths, 5, "faces", image_size=20, store_size=24, seed=0).paths
    assert first.paths != paths[:5]
    assert len(set(first.paths)) == 5
    wanted = centre_crop(np.stack([decode_square(path, 24) for path in first.paths]), 20)
    np.testing.assert_array_equal(first.pixels, wanted)


def test_pictures_that_lie_on_their_side_are_compared_upright(run_dir, tmp_path, faces_dir):
    side = Image.open(faces_dir / "Person_0" / "Person_0_0001.png").resize((60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("Person_0", "Person_1"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        side.save(tmp_path / "faces" / name / "a.jpg", exif=exif, quality=95)
    found = freeze(FreezeConfig(str(run_dir), str(tmp_path / "out"), images_dir=str(tmp_path / "faces")))
    assert found["embeddings_of_files"]["largest_difference"] < 0.02
