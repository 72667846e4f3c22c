from __future__ import annotations

import dataclasses
import json
import logging
import os

import numpy as np
import pytest

from facenet_fast.checkpoints import Checkpoints
from facenet_fast.config import FreezeConfig
from facenet_fast.errors import UserError
from facenet_fast.evaluation.roc import exact_roc
from facenet_fast.evaluation.verification import distances
from facenet_fast.export import freeze
from facenet_fast.thresholds import (
    Similarity,
    Threshold,
    Thresholds,
    load_thresholds,
    save_thresholds,
    similarity_of,
    thresholds_at,
)
from tests.tiny_run import make_run

FOUND = Thresholds(
    metric=0,
    flipped=False,
    standardisation="per_image",
    checkpoint="model-run.ckpt-7",
    n_same=300,
    n_different=3000,
    source="lfw/pairs.txt",
    points=(Threshold(0.1, 0.09, 0.95, 1.3, 0.35), Threshold(0.01, 0.0097, 0.8, 1.1, None)),
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("thresholds") / "run")


@pytest.fixture
def a_run(run_dir):
    yield run_dir
    (run_dir / "thresholds.json").unlink(missing_ok=True)


@pytest.mark.parametrize("size", [3, 64])
@pytest.mark.parametrize("length", [1.0, np.sqrt(2.0), 7.0])
@pytest.mark.parametrize("metric", [0, 1])
def test_similarity_is_the_cosine_at_that_distance(size, length, metric):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, size))
    rows *= length / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = similarity_of(rows, metric)
    cosines = np.sum(rows[:10] * rows[10:], axis=1) / length**2
    measured = distances(rows[:10], rows[10:], metric)
    assert [similarity(d) for d in measured] == pytest.approx(cosines.tolist())


def test_embeddings_of_many_lengths_have_no_similarity_by_squared_distance():
    rows = np.array([[1.0, 0.0], [0.0, 1.1]])
    assert similarity_of(rows, 0) is None
    assert similarity_of(np.zeros((2, 2)), 0) is None
    assert similarity_of(np.empty((0, 2)), 0) is None
    assert similarity_of(rows, 1) == Similarity(1)
    assert similarity_of(np.array([[1.0, 0.0], [np.nan, np.nan]]), 0) == Similarity(0, 1.0)  # unreadable


def test_points_that_are_kept():
    rng = np.random.default_rng(0)
    same = np.arange(40_000) < 20_000
    roc = exact_roc(rng.normal(np.where(same, 1.0, 2.0), 0.3), same)
    points = [roc.at_far(far) for far in (0.5, 0.1, 0.01, 1e-3, 1e-4)]
    kept = thresholds_at(points, Similarity(0))
    assert [point.far_target for point in kept] == [0.1, 0.01, 1e-3, 1e-4]
    for point, of_roc in zip(kept, points[1:], strict=True):
        assert (point.far, point.val, point.threshold) == (of_roc.far, of_roc.val, of_roc.threshold)
        assert point.similarity == pytest.approx(1 - point.threshold / 2)
    assert thresholds_at(points, None)[0].similarity is None


def test_what_is_saved_is_loaded(a_run):
    assert load_thresholds(str(a_run)) is None
    path = save_thresholds(FOUND, str(a_run))
    assert path == str(a_run / "thresholds.json")
    record = json.loads((a_run / "thresholds.json").read_text())
    assert record["distance"] == "squared Euclidean distance"
    assert record["points"][0]["threshold"] == 1.3
    prefix = str(a_run / "model-run.ckpt-7")
    for model in (str(a_run), prefix):
        assert load_thresholds(model) == FOUND
    later = dataclasses.replace(FOUND, source="later")
    save_thresholds(later, prefix)
    assert load_thresholds(str(a_run)) == later
    assert sorted(os.listdir(a_run)) == sorted({*os.listdir(a_run), "thresholds.json"})
    assert not [name for name in os.listdir(a_run) if name.endswith(".part")]


def test_files_have_theirs_beside_them(tmp_path):
    for name in ("model.pb", "model.keras"):
        (tmp_path / name).write_bytes(b"")
        found = dataclasses.replace(FOUND, checkpoint=name)
        path = save_thresholds(found, str(tmp_path / name))
        assert path == str(tmp_path / f"{name}.thresholds.json")
        assert load_thresholds(str(tmp_path / name)) == found
    assert load_thresholds(str(tmp_path / "other.keras")) is None


def test_a_run_that_has_gone_on_is_warned_of(tmp_path, caplog):
    run_dir = make_run(tmp_path / "run")
    save_thresholds(FOUND, str(run_dir))
    from facenet_fast.checkpoints import load_model

    model, _ = load_model(str(run_dir))
    Checkpoints(str(run_dir), {"averaged": model.weights}).save(9)
    with caplog.at_level(logging.WARNING, "facenet_fast"):
        assert load_thresholds(str(run_dir)) == FOUND
    assert "are those of model-run.ckpt-7, and the model is model-run.ckpt-9" in caplog.text


def test_a_frozen_graph_holds_its_runs(a_run, tmp_path):
    out = str(tmp_path / "model.pb")
    freeze(FreezeConfig(str(a_run), out))
    assert load_thresholds(out) is None
    save_thresholds(FOUND, str(a_run))
    freeze(FreezeConfig(str(a_run), out))
    assert load_thresholds(out) == dataclasses.replace(FOUND, checkpoint="model.pb")
    beside = dataclasses.replace(FOUND, checkpoint="model.pb", source="of the graph itself")
    save_thresholds(beside, out)
    assert load_thresholds(out) == beside


def test_which_threshold():
    assert FOUND.at(0.1) is FOUND.points[0]
    assert FOUND.at(1e-2) is FOUND.points[1]
    assert FOUND.at() is FOUND.points[1]  # the least there is
    more = (*FOUND.points, Threshold(1e-3, 1e-3, 0.5, 0.9, None), Threshold(1e-4, 1e-4, 0.4, 0.8, None))
    assert dataclasses.replace(FOUND, points=more).at() is more[2]
    only_small = dataclasses.replace(FOUND, points=more[3:])
    assert only_small.at() is more[3]
    with pytest.raises(UserError, match=r"thresholds for FAR 0\.1, 0\.01; got 0\.001"):
        FOUND.at(1e-3)
    with pytest.raises(UserError, match="verify it on more pairs"):
        dataclasses.replace(FOUND, points=()).at()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"points": 3}',
        json.dumps({**dataclasses.asdict(FOUND), "metric": 7}),
        json.dumps({**dataclasses.asdict(FOUND), "points": [{"threshold": 1.0}]}),
        json.dumps(dataclasses.asdict(FOUND)).replace("1.3", "NaN"),
        json.dumps(dataclasses.asdict(FOUND)).replace("1.3", '"near"'),
    ],
)
def test_refuses_other_files(text, tmp_path):
    (tmp_path / "model.pb").write_bytes(b"")
    (tmp_path / "model.pb.thresholds.json").write_text(text)
    with pytest.raises(UserError, match="must hold thresholds as `facenet-fast validate` writes them"):
        load_thresholds(str(tmp_path / "model.pb"))


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write '.*thresholds\.json': Not a directory"):
        save_thresholds(FOUND, str(tmp_path / "file" / "model.ckpt-7"))
