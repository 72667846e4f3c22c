"""Run folders: one a run, with the settings that made it."""

import os

import pytest

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
    config = resumed_config(first.run_dir, {"epochs": 77})
    assert (config.margin, config.epochs) == (0.3, 77)
    second = make_run_folder(config)
    assert second.run_dir == first.run_dir
    kept = read_train_config(os.path.join(second.run_dir, "config.json"))
    assert (kept.epochs, kept.resume) == (77, "")


def test_resuming_what_is_no_run_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot read the settings in"):
        resumed_config(str(tmp_path), {})


def test_texts_tell_arguments_and_versions(tmp_path):
    folder = make_run_folder(TrainConfig(runs_dir=str(tmp_path)))
    with open(os.path.join(folder.logs_dir, "arguments.txt")) as file:
        assert "data_dir: orl\n" in file.read()
    with open(os.path.join(folder.logs_dir, "revision_info.txt")) as file:
        text = file.read()
    for name in ("arguments: ", "facenet-fast version: ", "tensorflow version: 2.", "git hash: "):
        assert f"\n{name}" in f"\n{text}"
