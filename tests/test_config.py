"""Settings: every default is legal, every bound is held, every mistake is one sentence."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from facenet_fast.config import (
    PRESETS,
    FreezeConfig,
    TrainConfig,
    ValidateConfig,
    from_mapping,
    read_settings,
    read_train_config,
)
from facenet_fast.errors import UserError

RECIPES = sorted((Path(__file__).resolve().parents[1] / "recipes").glob("*.json"))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_legal(preset):
    config = from_mapping(TrainConfig, PRESETS[preset])
    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[preset]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_legal_and_say_nothing_twice(path):
    settings = read_settings(path)
    config = from_mapping(TrainConfig, settings)
    assert {name: getattr(config, name) for name in settings} == settings
    assert "data_dir" not in settings


def test_there_are_recipes():
    assert RECIPES


def test_the_facenet_preset_is_the_predecessors():
    config = from_mapping(TrainConfig, PRESETS["facenet"])
    assert (config.identities_per_batch, config.images_per_identity, config.batch_size) == (45, 40, 90)
    assert (config.epochs, config.epoch_size, config.image_size) == (500, 1000, 160)
    assert (config.optimizer, config.learning_rate, config.margin) == ("ADAGRAD", 0.1, 0.2)
    assert (config.strategy, config.step, config.moving_average_decay) == ("vgg_face", "triplets", 0.9999)
    assert config.seed == 666


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 0}, "margin must be positive; got 0.0"),
        ({"margin": -0.1}, "margin must be positive; got -0.1"),
        ({"margin": float("nan")}, "margin must be finite; got nan"),
        ({"margin": "0.2"}, "margin must be of type float; got '0.2'"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"epochs": 1.5}, "epochs must be of type int; got 1.5"),
        ({"epochs": True}, "epochs must be of type int; got True"),
        ({"random_flip": 1}, "random_flip must be of type bool; got 1"),
        ({"images_per_identity": 1}, "images_per_identity must be at least 2; got 1"),
        ({"dropout": 1.0}, "dropout must be below 1.0; got 1.0"),
        ({"rotation_degrees": 200.0}, "rotation_degrees must be at most 180.0; got 200.0"),
        (
            {"optimizer": "adam"},
            "optimizer must be one of adamw, ADAGRAD, ADADELTA, ADAM, RMSPROP, MOM; got 'adam'",
        ),
        ({"standardisation": "none"}, "standardisation must be one of per_image, fixed; got 'none'"),
        ({"step": "both"}, "step must be one of unique, triplets; got 'both'"),
        (
            {"learning_rate": -1.0},
            "learning_rate must be positive unless learning_rate_schedule_file is given; got -1.0",
        ),
        (
            {"lfw_pairs": "pairs.txt"},
            "lfw_pairs needs lfw_dir, the folder of the images; got lfw_pairs='pairs.txt' alone",
        ),
        ({"data_dir": ""}, "data_dir must name a folder or 'orl'; got ''"),
        ({"gpu_memory_fraction": 0.0}, "gpu_memory_fraction must be positive; got 0.0"),
    ],
)
def test_wrong_training_settings(settings, message):
    with pytest.raises(UserError) as raised:
        TrainConfig(**settings)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distance_metric": 2}, "distance_metric must be one of 0, 1; got 2"),
        ({"lfw_folds": 1}, "lfw_folds must be at least 2; got 1"),
        ({"image_size": 0}, "image_size must be at least 1; got 0"),
        ({"image_size": "160"}, "image_size must be of type int; got '160'"),
    ],
)
def test_wrong_validation_settings(settings, message):
    with pytest.raises(UserError) as raised:
        ValidateConfig("orl", "run", **settings)
    assert str(raised.value) == message


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().margin = 1.0


def test_paths_may_be_path_objects_and_homes_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = TrainConfig(data_dir=os.pathsep.join(["~/a", "~/b"]), runs_dir=tmp_path)
    assert config.data_dir == os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    assert config.runs_dir == str(tmp_path)
    assert FreezeConfig("~/run", "~/out.pb").output_path == str(tmp_path / "out.pb")


def test_the_predecessors_model_names_are_ours():
    assert TrainConfig(backbone="models.inception_resnet_v1").backbone == "inception_resnet_v1"


def test_random_crop_reads_larger_images():
    assert TrainConfig(image_size=160).store_size == 160
    assert TrainConfig(image_size=160, random_crop=True).store_size == 184
    assert TrainConfig(image_size=64, central_fraction=0.8).store_size == 80
    assert TrainConfig(image_size=64, central_fraction=0.8, random_crop=True).store_size == 92


def test_settings_survive_json(tmp_path):
    config = TrainConfig(margin=0.35, seed=7, random_crop=True, lfw_dir="lfw")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert read_train_config(path) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must hold JSON"),
        ("[1]", "must hold a JSON object; got a list"),
        ('{"margn": 1}', "unknown setting 'margn'; did you mean 'margin'?"),
        ('{"margin": "wide"}', "margin must be of type float; got 'wide'"),
    ],
)
def test_wrong_config_files(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        read_train_config(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_config_file():
    with pytest.raises(UserError, match=r"cannot read the settings in '/nowhere/config.json'"):
        read_train_config("/nowhere/config.json")
