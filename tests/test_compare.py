from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from facenet_fast.compare import compare
from facenet_fast.config import CompareConfig
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import embed_images
from facenet_fast.evaluation.verification import distances
from facenet_fast.models import load_embedder
from facenet_fast.thresholds import Threshold, Thresholds, save_thresholds
from tests.tiny_run import make_faces, make_run

KNOWN = Thresholds(
    metric=0,
    flipped=False,
    standardisation="per_image",
    checkpoint="model-run.ckpt-7",
    n_same=36,
    n_different=36,
    source="lfw/pairs.txt",
    points=(Threshold(0.1, 0.1, 0.9, 0.05, 0.975), Threshold(0.01, 0.0, 0.7, 0.02, 0.99)),
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("compare") / "run")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    faces = make_faces(tmp_path_factory.mktemp("faces") / "images")
    return tuple(
        str(faces / f"Person_{n}" / f"Person_{n}_{image:04d}.png") for n, image in ((0, 1), (0, 2), (3, 1))
    )


@pytest.fixture
def known(run_dir):
    def keep(**changes):
        save_thresholds(dataclasses.replace(KNOWN, **changes), str(run_dir))

    keep()
    yield keep
    os.remove(run_dir / "thresholds.json")


def expected(run_dir, images, metric=0, flipped=False, standardisation=None):
    from facenet_fast.data.images import ImageStore

    embedder = load_embedder(str(run_dir), standardisation=standardisation)
    rows = embed_images(embedder, ImageStore(images, embedder.store_size), flipped=flipped)
    return np.array([distances(np.broadcast_to(row, rows.shape), rows, metric) for row in rows])


def test_without_thresholds_the_distances_alone(run_dir, images, capsys):
    found = compare(CompareConfig(str(run_dir), images))
    assert found.distances == pytest.approx(expected(run_dir, images), abs=1e-6)
    assert found.is_same is None
    told = capsys.readouterr().out
    assert told.startswith(f"Images:\n   0: {images[0]}\n   1: {images[1]}\n   2: {images[2]}\n")
    assert "Distance matrix (squared Euclidean distance):" in told
    row = "".join(f"{d:10.4f}" for d in found.distances[1])
    assert f"\n   1{row}\n" in told
    assert "The model has no thresholds: run `facenet-fast validate`" in told


def test_the_models_threshold_judges(run_dir, images, known, capsys):
    found = compare(CompareConfig(str(run_dir), images))
    assert found.threshold == 0.02
    assert np.array_equal(found.is_same, found.distances < 0.02)
    told = capsys.readouterr().out
    assert "Same below 0.0200 (FAR=0.01, VAL=0.700 on lfw/pairs.txt, 36 pairs of one person" in told
    for left, right in ((0, 1), (0, 2), (1, 2)):
        d = found.distances[left, right]
        verdict = "same     " if d < 0.02 else "different"
        assert f"   {left}    {right}  {verdict}  {d:.4f}, cosine {1 - d / 2:.4f}" in told
    assert compare(CompareConfig(str(run_dir), images, far=0.1)).threshold == 0.05


def test_a_threshold_of_ones_own(run_dir, images, known, capsys):
    d = expected(run_dir, images)[0, 1]
    assert compare(CompareConfig(str(run_dir), images, threshold=d * 1.01)).is_same[0, 1]
    assert not compare(CompareConfig(str(run_dir), images, threshold=d * 0.99)).is_same[0, 1]
    assert "(as given)" in capsys.readouterr().out


def test_images_are_measured_as_the_thresholds_were_found(run_dir, images, known):
    known(metric=1, flipped=True, standardisation="fixed")
    found = compare(CompareConfig(str(run_dir), images))
    assert found.metric == 1
    wanted = expected(run_dir, images, metric=1, flipped=True, standardisation="fixed")
    assert found.distances == pytest.approx(wanted, abs=1e-5)
    assert found.distances != pytest.approx(expected(run_dir, images, metric=1), abs=1e-5)


def test_refuses(run_dir, images, known, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no image")

    def refused(match, **settings):
        with pytest.raises(UserError, match=match):
            compare(CompareConfig(**({"model": str(run_dir), "images": images} | settings)))

    refused("compare needs at least 2 images; got 1", images=images[:1])
    refused("an image must be readable; '.*text.jpg': no image", images=(images[0], str(text)))
    refused("an image must be readable; '.*none.png': No such file", images=(images[0], "none.png"))
    refused("threshold and far must not be given together", threshold=1.0, far=0.1)
    refused(r"thresholds for FAR 0\.1, 0\.01; got 0\.5", far=0.5)
    refused("distance_metric must be that of the model's thresholds, 0, .*; got 1", distance_metric=1)
    refused("'nowhere' does not exist", model="nowhere")
    os.rename(run_dir / "thresholds.json", run_dir / "aside")
    refused("far=0.1 needs thresholds, and '.*' has none; run `facenet-fast validate`", far=0.1)
    os.rename(run_dir / "aside", run_dir / "thresholds.json")
    assert compare(CompareConfig(str(run_dir), images, threshold=0.3, distance_metric=1)).metric == 1
