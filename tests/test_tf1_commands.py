"""Models of TensorFlow 1 through every command that runs a model, as the predecessor's scripts ran them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facenet_fast.checkpoints import find_checkpoint
from facenet_fast.cli import main
from facenet_fast.config import EXPORTS
from facenet_fast.data.images import decode_square, standardise
from facenet_fast.models import load_network
from facenet_fast.thresholds import load_thresholds
from tests.test_export import OUTPUTS
from tests.tf1_models import EMBEDDING_SIZE, IMAGE_SIZE, write_tf1_model
from tests.tiny_run import make_faces


@pytest.fixture(scope="module")
def faces_dir(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("tf1_faces") / "images")


@pytest.fixture(params=["free batch", "batch of 3"])
def model(request, tmp_path):
    return write_tf1_model(
        tmp_path / "20170512-110547",
        phase="placeholder",
        feed="placeholder",
        batch_size=3 if request.param == "batch of 3" else None,
    )


def embeddings_of(model, faces_dir, standardisation):
    """Embed all faces by the original's own session, three at a time, which all of its batch sizes take."""
    paths = sorted(faces_dir.rglob("*.png"))
    images = standardise(np.stack([decode_square(str(path), IMAGE_SIZE) for path in paths]), standardisation)
    return np.concatenate([model.embed(images[start : start + 3]) for start in range(0, len(images), 3)])


@pytest.mark.parametrize("kind", ["folder", "prefix", "frozen_path"])
@pytest.mark.parametrize("fixed", [False, True])
def test_validate_embeds_as_the_original_and_says_how(kind, fixed, model, faces_dir, capsys):
    path = str(getattr(model, kind))
    flags = ["--use-fixed-image-standardization"] if fixed else []
    assert main(["validate", str(faces_dir), path, "--resamples", "0", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    if kind == "frozen_path":
        assert lines[0] == f"Model filename: {path}"
        said = lines[1]
    else:
        assert lines[:3] == [
            f"Model directory: {model.folder}",
            "Metagraph file: model-20170512-110547.meta",
            "Checkpoint file: model-20170512-110547.ckpt-7",
        ]
        said = lines[3]
    assert said == "Images standardised: " + (
        "fixed (as asked)"
        if fixed
        else "per_image (the model does not say; --use-fixed-image-standardization if it was trained so)"
    )
    thresholds = load_thresholds(path)
    assert thresholds.standardisation == ("fixed" if fixed else "per_image")
    assert thresholds.checkpoint == "model-20170512-110547." + ("pb" if kind == "frozen_path" else "ckpt-7")


@pytest.mark.parametrize("fixed", [False, True])
def test_embed_and_compare(fixed, model, faces_dir, tmp_path, capsys):
    flags = ["--use-fixed-image-standardization"] if fixed else []
    out = tmp_path / "faces.npz"
    assert main(["embed", str(faces_dir), str(model.folder), str(out), *flags]) == 0
    wanted = embeddings_of(model, faces_dir, "fixed" if fixed else "per_image")
    np.testing.assert_allclose(np.load(out)["embeddings"], wanted, atol=1e-5)
    images = [str(faces_dir / f"Person_{n}" / f"Person_{n}_0001.png") for n in (0, 1)]
    capsys.readouterr()
    assert main(["compare", str(model.frozen_path), *images, *flags]) == 0
    distance = np.sum((wanted[0] - wanted[4]) ** 2)  # four images each
    assert f"{distance:10.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("form", [name for name in EXPORTS if name != "keras"])
def test_freeze_writes_it_in_every_format(form, model, faces_dir, tmp_path, capsys):
    if form.startswith("tflite"):
        pytest.importorskip("ai_edge_litert")
    if form == "onnx":
        pytest.importorskip("tf2onnx")
    path = tmp_path / OUTPUTS[form]
    words = ["--format", form, "--images-dir", str(faces_dir), "--use-fixed-image-standardization"]
    # A network of two layers and random weights, five numbers an embedding: 8 bits are few.
    words += ["--tolerance", "0.5"] if form == "tflite-int8" else []
    assert main(["freeze", str(model.folder), str(path), *words]) == 0
    assert "Metagraph file: model-20170512-110547.meta" in capsys.readouterr().out
    written = load_network(str(path))
    assert written.metadata.source == "model-20170512-110547.ckpt-7"
    assert written.metadata.standardisation == "fixed"
    assert (written.embedder.image_size, written.embedder.embedding_size) == (IMAGE_SIZE, EMBEDDING_SIZE)
    images = np.random.default_rng(0).normal(size=(7, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)
    wanted = np.concatenate([model.embed(images[start : start + 3]) for start in (0, 3)])
    wanted = np.concatenate([wanted, model.embed(images[[6, 6, 6]])[:1]])
    tolerance = {"tflite-int8": 0.5, "tflite-float16": 0.02}.get(form, 1e-5)
    np.testing.assert_allclose(written.embedder.embed(images), wanted, atol=tolerance)
    certificate = json.loads((tmp_path / f"{path.name}.certificate.json").read_text())
    assert certificate["embeddings"]["largest_difference"] <= certificate["tolerance"]


def test_a_keras_file_cannot_be_made_of_it(model, tmp_path, capsys):
    assert main(["freeze", str(model.folder), str(tmp_path / "out.keras")]) == 2
    assert (
        "must be made of a run, a checkpoint or another .keras file; got the TensorFlow 1 checkpoint"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.glob("out*"))


def test_other_image_size_than_its_own_is_refused(model, faces_dir, capsys):
    assert main(["validate", str(faces_dir), str(model.folder), "--image-size", "160"]) == 2
    assert f"the image size must be {IMAGE_SIZE}, " in capsys.readouterr().err


def test_the_checkpoint_that_is_named_is_read(model):
    assert find_checkpoint(str(model.folder)) == model.prefix
