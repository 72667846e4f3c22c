"""Checkpoints: names, what is found, what is restored, and what is refused."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.checkpoints import (
    Checkpoints,
    build_model,
    copy_weights,
    find_checkpoint,
    load_model,
    step_of,
)
from facenet_fast.config import TrainConfig
from facenet_fast.errors import UserError

CONFIG = TrainConfig(image_size=16, embedding_size=8)


@pytest.fixture
def run_dir(tmp_path):
    """A run folder with checkpoints 3 and 12, whose averaged weights are 0.25 and 0.5."""
    path = tmp_path / "20240101-120000"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    model = build_model(CONFIG)
    averaged = build_model(CONFIG)
    checkpoints = Checkpoints(str(path), {"model": model.weights, "averaged": averaged.weights})
    for step, value in ((3, 0.25), (12, 0.5)):
        averaged.set_weights([np.full(weight.shape, value, np.float32) for weight in averaged.weights])
        assert checkpoints.save(step) == str(path / f"model-20240101-120000.ckpt-{step}")
    return path


def value_of(model):
    (value,) = {float(x) for weight in model.get_weights() for x in np.unique(weight)}
    return value


def test_files_are_named_as_the_predecessors(run_dir):
    assert {path.name for path in run_dir.iterdir()} == {
        "checkpoint",
        "config.json",
        "model-20240101-120000.ckpt-3.index",
        "model-20240101-120000.ckpt-3.data-00000-of-00001",
        "model-20240101-120000.ckpt-12.index",
        "model-20240101-120000.ckpt-12.data-00000-of-00001",
    }


def test_a_folder_is_its_newest_checkpoint_with_the_averaged_weights(run_dir):
    model, config = load_model(str(run_dir))
    assert config == CONFIG
    assert value_of(model) == 0.5
    assert model(tf.zeros((2, 16, 16, 3))).shape == (2, 8)


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_a_prefix_or_one_of_its_files_is_that_checkpoint(run_dir, ending):
    model, _ = load_model(str(run_dir / f"model-20240101-120000.ckpt-3{ending}"))
    assert value_of(model) == 0.25


def test_a_moved_run_is_found(run_dir, tmp_path):
    text = (run_dir / "checkpoint").read_text()
    (run_dir / "checkpoint").write_text(text.replace('"model-', '"/gone/elsewhere/model-'))
    moved = shutil.move(run_dir, tmp_path / "moved")
    assert find_checkpoint(str(moved)) == str(moved / "model-20240101-120000.ckpt-12")


def test_without_the_checkpoint_file_the_highest_step_is_taken(run_dir):
    (run_dir / "checkpoint").unlink()
    assert step_of(find_checkpoint(str(run_dir))) == 12


def test_a_named_checkpoint_that_is_gone_is_passed_over(run_dir):
    (run_dir / "model-20240101-120000.ckpt-12.index").unlink()
    assert step_of(find_checkpoint(str(run_dir))) == 3


def test_restoring_gives_back_every_kind_of_variable(tmp_path):
    parts = {
        "weights": [keras.Variable([1.0, 2.0], name="a"), keras.Variable([[3]], name="b", dtype="int32")],
        "text": [tf.Variable("seven")],
    }
    checkpoints = Checkpoints(str(tmp_path), parts)
    checkpoints.save(7)
    parts["weights"][0].assign([0.0, 0.0])
    parts["weights"][1].assign([[0]])
    parts["text"][0].assign("")
    assert checkpoints.restore() == 7
    assert parts["weights"][0].numpy().tolist() == [1.0, 2.0]
    assert parts["weights"][1].numpy().tolist() == [[3]]
    assert parts["text"][0].numpy() == b"seven"


def test_another_object_goes_on_keeping_the_newest(tmp_path):
    variable = tf.Variable(0.0)
    Checkpoints(str(tmp_path), {"v": [variable]}, keep=2).save(1)
    second = Checkpoints(str(tmp_path), {"v": [variable]}, keep=2)
    second.save(2)
    second.save(3)
    assert sorted(step_of(str(path)[: -len(".index")]) for path in tmp_path.glob("*.index")) == [2, 3]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "cannot read the settings in"),
        (lambda run: (run / "config.json").write_text("{"), "must hold JSON"),
        (
            lambda run: (run / "model-20240101-120000.ckpt-12.index").write_bytes(b"short"),
            "cannot be read into this network",
        ),
        (
            lambda run: (run / "model-20240101-120000.ckpt-12.data-00000-of-00001").write_bytes(b"short"),
            "cannot be read into this network",
        ),
        (
            lambda run: (run / "config.json").write_text(json.dumps({"embedding_size": 9, "image_size": 16})),
            "cannot be read into this network",
        ),
        (lambda run: [path.unlink() for path in run.glob("*.index")], "must hold a checkpoint"),
        (shutil.rmtree, "no run folder and no checkpoint"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(run_dir, damage, message):
    damage(run_dir)
    with pytest.raises(UserError) as raised:
        load_model(str(run_dir))
    assert message in str(raised.value)
    assert str(run_dir) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    checkpoints = Checkpoints(str(run_dir), {"v": [tf.Variable(0.0)]})
    shutil.rmtree(run_dir)
    run_dir.write_text("a file now")
    with pytest.raises(UserError, match="cannot write a checkpoint"):
        checkpoints.save(1)


def test_weights_are_copied_and_a_head_of_another_size_stays_new(caplog):
    source = build_model(CONFIG)
    same = build_model(CONFIG)
    assert copy_weights(source, same, "here") == []
    for got, wanted in zip(same.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)

    other = build_model(TrainConfig(image_size=16, embedding_size=5, dropout=0.3))
    before = other.get_weights()
    kept = copy_weights(source, other, "here")
    assert kept == [weight.path for weight in other.weights if weight.path.startswith("bottleneck")]
    assert len(kept) == 4
    assert "the head starts from new weights" in caplog.text
    for weight, new, trained in zip(other.weights, before, source.get_weights(), strict=True):
        wanted = new if weight.path in kept else trained
        np.testing.assert_array_equal(weight.numpy(), wanted)


def test_weights_of_another_network_are_refused():
    images = keras.Input((16, 16, 3))
    stranger = keras.Model(images, keras.layers.Dense(8)(keras.layers.Flatten()(images)))
    with pytest.raises(UserError, match=r"'there' must hold the network .* weights; got .* with 2"):
        copy_weights(stranger, build_model(CONFIG), "there")
