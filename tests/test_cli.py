"""The command line: flags from the settings, old command lines, and errors in one line."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys

import pytest

import facenet_fast
from facenet_fast.cli import main
from facenet_fast.config import (
    AUGMENTATIONS,
    PRESETS,
    ClassifyConfig,
    CompareConfig,
    DataConfig,
    EmbedConfig,
    FreezeConfig,
    TrainConfig,
    ValidateConfig,
)


@pytest.fixture
def called_with(monkeypatch):
    """Run a command line up to its one call; return the configuration that the call got."""
    got = []
    for module, function in (
        ("training.loop", "train"),
        ("validate", "validate"),
        ("export", "freeze"),
        ("embed", "embed_folder"),
        ("compare", "compare"),
        ("classify", "classify"),
        ("check_data", "check_data"),
    ):
        monkeypatch.setattr(importlib.import_module(f"facenet_fast.{module}"), function, got.append)

    def run(line):
        assert main(line.split()) == 0
        return got.pop()

    return run


def error_of(line, capsys):
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (told,) = captured.err.splitlines()
    assert told.startswith("facenet-fast: error: ")
    return told.removeprefix("facenet-fast: error: ")


def write_run(run_dir, settings):
    """Write what the command line looks at before it resumes a run: settings, and any checkpoint."""
    (run_dir / "config.json").write_text(settings)
    (run_dir / "model-1.ckpt-7.index").touch()


def test_train_without_arguments_is_the_demo(called_with):
    assert called_with("train") == TrainConfig()


@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_every_setting_has_a_flag_in_both_spellings(called_with, field, tmp_path, monkeypatch):
    example = {str: "some", int: 12, float: 0.25, bool: True}[type(field.default)]
    value = {
        "standardisation": "fixed",
        "sampling": "lookalike",
        "step": "triplets",
        "loss": "soft_margin",
        "optimizer": "MOM",
        "schedule": "constant",
        "precision": "bfloat16",
        "best_by": "eer",
        "on_nan": "rollback",
        "distribute": "mirrored",
    }.get(field.name, example)
    extra = {"lfw_pairs": " --lfw-dir x", "remine_every": " --sub-pool 3"}.get(field.name, "")
    if field.name == "resume":
        write_run(tmp_path, "{}")
        value = str(tmp_path)
    for flag in (f"--{field.name}", f"--{field.name.replace('_', '-')}"):
        words = flag if value is True else f"{flag} {value}"
        assert getattr(called_with(f"train {words}{extra}"), field.name) == value
    if value is True:
        assert getattr(called_with(f"train --no-{field.name}"), field.name) is False


def test_the_predecessors_training_command(called_with):
    """As its wiki has it, and people copy."""
    config = called_with(
        "train --logs_base_dir /logs/facenet/ --models_base_dir /models/facenet/ "
        "--data_dir /datasets/casia/casia_maxpy_mtcnnalign_182_160 --image_size 160 "
        "--model_def models.inception_resnet_v1 --lfw_dir /datasets/lfw/lfw_mtcnnalign_160 "
        "--optimizer RMSPROP --learning_rate 0.01 --weight_decay 1e-4 --max_nrof_epochs 500"
    )
    assert config == TrainConfig(
        logs_dir="/logs/facenet/",
        runs_dir="/models/facenet/",
        data_dir="/datasets/casia/casia_maxpy_mtcnnalign_182_160",
        image_size=160,
        backbone="inception_resnet_v1",
        lfw_dir="/datasets/lfw/lfw_mtcnnalign_160",
        optimizer="RMSPROP",
        learning_rate=0.01,
        weight_decay=1e-4,
        epochs=500,
    )


def test_every_flag_of_the_predecessors_trainer(called_with):
    config = called_with(
        "train --logs_base_dir l --models_base_dir m --gpu_memory_fraction 0.5 --pretrained_model p "
        "--data_dir d --model_def models.inception_resnet_v1 --max_nrof_epochs 7 --batch_size 60 "
        "--image_size 96 --people_per_batch 20 --images_per_person 30 --epoch_size 11 --alpha 0.3 "
        "--embedding_size 64 --random_crop --random_flip --keep_probability 0.8 --weight_decay 0.001 "
        "--optimizer ADAM --learning_rate -1 --learning_rate_decay_epochs 4 "
        "--learning_rate_decay_factor 0.9 --moving_average_decay 0.99 --seed 5 "
        "--learning_rate_schedule_file s.txt --lfw_pairs q --lfw_dir w --lfw_nrof_folds 9"
    )
    assert config == TrainConfig(
        logs_dir="l",
        runs_dir="m",
        gpu_memory_fraction=0.5,
        pretrained_model="p",
        data_dir="d",
        backbone="inception_resnet_v1",
        epochs=7,
        batch_size=60,
        image_size=96,
        identities_per_batch=20,
        images_per_identity=30,
        epoch_size=11,
        margin=0.3,
        embedding_size=64,
        random_crop=True,
        random_flip=True,
        dropout=0.2,
        weight_decay=0.001,
        optimizer="ADAM",
        learning_rate=-1.0,
        learning_rate_decay_epochs=4,
        learning_rate_decay_factor=0.9,
        moving_average_decay=0.99,
        seed=5,
        learning_rate_schedule_file="s.txt",
        lfw_pairs="q",
        lfw_dir="w",
        lfw_folds=9,
    )


def test_beginnings_of_flags_work(called_with):
    """Users of the predecessor pass `--max_nrof_epoch 5`."""
    assert called_with("train --max_nrof_epoch 5 --people 9").epochs == 5


def test_the_predecessors_validation_command(called_with):
    config = called_with(
        "validate /datasets/lfw /models/20180402 --lfw_batch_size 50 --image_size 160 --lfw_pairs p.txt "
        "--lfw_nrof_folds 9 --distance_metric 1 --use_flipped_images --subtract_mean "
        "--use_fixed_image_standardization"
    )
    assert config == ValidateConfig(
        images_dir="/datasets/lfw",
        model="/models/20180402",
        batch_size=50,
        image_size=160,
        pairs="p.txt",
        lfw_folds=9,
        distance_metric=1,
        use_flipped_images=True,
        subtract_mean=True,
        use_fixed_image_standardization=True,
    )


def test_the_predecessors_freezing_command(called_with):
    assert called_with("freeze /models/20180402 out.pb") == FreezeConfig("/models/20180402", "out.pb")


def test_comparing_takes_any_number_of_images(called_with):
    config = called_with("compare /models/20180402 a.jpg ~/b.jpg c.jpg --far 0.01 --image_size 160")
    images = ("a.jpg", os.path.expanduser("~/b.jpg"), "c.jpg")
    assert config == CompareConfig("/models/20180402", images, far=0.01, image_size=160)


def test_embedding(called_with):
    config = called_with("embed people /models/20180402 out.npz --use-flipped-images")
    assert config == EmbedConfig("people", "/models/20180402", "out.npz", use_flipped_images=True)


def test_checking_a_data_set(called_with):
    config = called_with("data check people --against lfw --quarantine-path quarantine.txt")
    assert config == DataConfig("check", "people", against="lfw", quarantine_path="quarantine.txt")


def test_the_predecessors_classifying_commands(called_with):
    config = called_with(
        "classify TRAIN /datasets/people /models/20180402 people.npz --batch_size 1000 "
        "--min_nrof_images_per_class 40 --nrof_train_images_per_class 35 --use_split_dataset --seed 5"
    )
    assert config == ClassifyConfig(
        "TRAIN",
        "/datasets/people",
        "/models/20180402",
        "people.npz",
        batch_size=1000,
        min_images_per_identity=40,
        train_images_per_identity=35,
        use_split_dataset=True,
        seed=5,
    )


def test_presets_give_defaults_and_flags_win(called_with):
    config = called_with("train --preset facenet --alpha 0.5")
    assert config == TrainConfig(**{**PRESETS["facenet"], "margin": 0.5})


def test_a_file_of_settings_gives_defaults_and_flags_win(called_with, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"margin": 0.3, "epochs": 7, "rotation_degrees": 1.0}')
    config = called_with(f"train --config {recipe} --preset facenet --augment light --epochs 8")
    settings = {**PRESETS["facenet"], **AUGMENTATIONS["light"], "margin": 0.3, "rotation_degrees": 1.0}
    assert config == TrainConfig(**{**settings, "epochs": 8})


def test_the_settings_of_a_resumed_run_start_a_new_one(called_with, tmp_path):
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(TrainConfig(margin=0.3, resume="runs/before").to_dict()))
    assert called_with(f"train --config {settings}") == TrainConfig(margin=0.3)


def test_mistakes_in_a_file_of_settings(tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    assert "cannot read the settings" in error_of(f"train --config {recipe}", capsys)
    recipe.write_text('{"margn": 0.3}')
    message = error_of(f"train --config {recipe}", capsys)
    assert "unknown setting 'margn'; did you mean 'margin'?" in message
    write_run(tmp_path, "{}")
    message = error_of(f"train --resume {tmp_path} --config {recipe}", capsys)
    assert "config must not be given with resume" in message


def test_backbone_list_prints_all_networks(capsys):
    assert main(["train", "--backbone", "list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {
        "small_resnet",
        "inception_resnet_v1",
        "inception_resnet_v2",
        "densenet121",
        "mobilenet_v3_small",
        "efficientnet_v2_b0",
    } <= set(names)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --margin 0", "margin must be positive; got 0.0"),
        ("train --alpha=-1", "margin must be positive; got -1.0"),
        ("train --keep_probability 0", "dropout must be below 1.0; got 1.0"),
        ("train --epochs many", "argument --epochs: invalid int value: 'many'"),
        ("train --optimizer SGD", "optimizer must be one of adamw, ADAGRAD"),
        ("train --nonsense 1", "unrecognized arguments: --nonsense 1"),
        ("train extra", "unrecognized arguments: extra"),
        ("train --image 3", "ambiguous option: --image could match --image-size"),
        ("train --preset resnet", "argument --preset: invalid choice: 'resnet'"),
        ("validate", "the following arguments are required: IMAGES_DIR, MODEL"),
        ("validate a b --distance_metric 3", "distance_metric must be one of 0, 1; got 3"),
        ("validate a b --lfw-folds 1", "lfw_folds must be at least 2; got 1"),
        ("validate a b --protocol roc", "protocol must be one of lfw, exact; got 'roc'"),
        ("validate a b --confidence 1", "confidence must be below 1.0; got 1.0"),
        ("validate a b --all-pairs --pairs auto", "pairs must not be given with all_pairs"),
        ("compare model", "the following arguments are required: IMAGES"),
        ("compare model a b --far 0", "far must be positive; got 0.0"),
        ("freeze run", "the following arguments are required: OUTPUT_PATH"),
        ("", "the following arguments are required"),
        ("tarin", "invalid choice: 'tarin'"),
    ],
)
def test_mistakes_are_told_in_one_line(line, message, capsys):
    assert message in error_of(line, capsys)


def test_resume_takes_the_settings_of_its_run(called_with, tmp_path, capsys):
    write_run(tmp_path, '{"margin": 0.4, "epochs": 3}')
    config = called_with(f"train --resume {tmp_path} --epochs 9")
    assert (config.margin, config.epochs, config.resume) == (0.4, 9, str(tmp_path))
    assert "preset must not be given" in error_of(f"train --resume {tmp_path} --preset demo", capsys)


def test_an_interrupt_is_status_130(monkeypatch, capsys):
    import facenet_fast.training.loop

    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(facenet_fast.training.loop, "train", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "facenet-fast: interrupted\n"


def test_warnings_are_told_with_our_name(monkeypatch, capsys):
    import logging

    import facenet_fast.training.loop

    monkeypatch.setattr(
        facenet_fast.training.loop,
        "train",
        lambda config: logging.getLogger("facenet_fast").warning("left out %s", "x.png"),
    )
    for _ in range(2):
        assert main(["train"]) == 0
        assert capsys.readouterr().err == "facenet-fast: warning: left out x.png\n"


CONFIGS = {
    "train": TrainConfig,
    "validate": ValidateConfig,
    "freeze": FreezeConfig,
    "embed": EmbedConfig,
    "compare": CompareConfig,
    "classify": ClassifyConfig,
    "data": DataConfig,
}


@pytest.mark.parametrize("command", CONFIGS)
def test_help_names_every_setting(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for field in dataclasses.fields(CONFIGS[command]):
        if field.metadata["positional"]:
            assert field.name.upper() in out
        else:
            assert "--" + field.name.replace("_", "-") in out
        for alias in field.metadata["aliases"]:
            assert f"--{alias}" in out


def test_help_and_version_need_no_tensorflow():
    code = (
        "import sys\n"
        "from facenet_fast.cli import main\n"
        "try:\n"
        "    main(['train', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "main(['train', '--backbone', 'list'])\n"
        "main(['train', '--margin', '0'])\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_module_is_the_command():
    answer = subprocess.run(
        [sys.executable, "-m", "facenet_fast", "--version"], check=True, capture_output=True, text=True
    )
    assert answer.stdout == f"facenet-fast {facenet_fast.__version__}\n"


def test_tensorflow_is_imported_quietly():
    code = (
        "from facenet_fast.cli import _import_tensorflow, _prepare\n"
        "import sys\n"
        "_prepare()\n"
        "_import_tensorflow()\n"
        "assert 'tensorflow' in sys.modules\n"
        "sys.stderr.write('still here')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    answer = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert answer.stderr == "still here"
