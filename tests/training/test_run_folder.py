"""Run folders: one a run, with the settings that made it."""

import os

import pytest
import tensorflow as tf

from facenet_fast.checkpoints import Checkpoints
from facenet_fast.config import TrainConfig, read_train_config
from facenet_fast.errors import UserError
from facenet_fast.training.run_folder import make_run_folder, resumed_config


def test_runs_of_one_second_have_folders_of_their_own(tmp_path):
    config = TrainConfig(runs_dir=str(tmp_path / "new" / "runs"), margin=0.3)
    folders = [make_run_folder(config) for _ in range(4)]
    assert len({folder.run_dir for folder in folders}) == 4
    for folder in folders:
        assert read_train_config(os.path.join(folder.run_dir, "config.json")) == config
        assert folder.logs_dir == folder.run_dir


def test_resuming_opens_the_same_folder_and_keeps_what_is_changed(tmp_path):
    first = make_run_folder(TrainConfig(runs_dir=str(tmp_path), margin=0.3))
    Checkpoints(first.run_dir, {"v": [tf.Variable(0.0)]}).save(1)
    config = resumed_config(first.run_dir, {"epochs": 77})
    assert (config.margin, config.epochs) == (0.3, 77)
    second = make_run_folder(config)
    assert second.run_dir == first.run_dir
    # Not before the run has found that it can go on with them.
    assert read_train_config(os.path.join(second.run_dir, "config.json")).epochs == TrainConfig.epochs
    second.write_settings(config)
    kept = read_train_config(os.path.join(second.run_dir, "config.json"))
    assert (kept.epochs, kept.resume) == (77, "")


def test_resuming_what_is_no_run_is_told(tmp_path):
    with pytest.raises(UserError, match="no run folder and no checkpoint"):
        resumed_config(str(tmp_path / "none"), {})
    Checkpoints(str(tmp_path), {"v": [tf.Variable(0.0)]}).save(1)
    with pytest.raises(UserError, match="cannot read the settings in"):
        resumed_config(str(tmp_path), {})


def test_a_run_that_ended_before_its_first_checkpoint_has_nothing_to_go_on_from(tmp_path):
    run_dir = make_run_folder(TrainConfig(runs_dir=str(tmp_path))).run_dir
    with pytest.raises(UserError, match=r"has none: it ended .* there is nothing to go on from") as raised:
        resumed_config(run_dir, {})
    assert run_dir in str(raised.value)


def test_texts_tell_arguments_and_versions(tmp_path):
    folder = make_run_folder(TrainConfig(runs_dir=str(tmp_path)))
    with open(os.path.join(folder.logs_dir, "arguments.txt")) as file:
        assert "data_dir: orl\n" in file.read()
    with open(os.path.join(folder.logs_dir, "revision_info.txt")) as file:
        text = file.read()
    for name in ("arguments: ", "facenet-fast version: ", "tensorflow version: 2.", "git hash: "):
        assert f"\n{name}" in f"\n{text}"
