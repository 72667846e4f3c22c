"""Several devices and several processes take the steps of one, and outlive each other."""

import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.checkpoints import find_checkpoint, step_of
from facenet_fast.config import TrainConfig
from facenet_fast.errors import UserError
from facenet_fast.training.loop import train
from facenet_fast.training.replicas import Replicas, replicas_for
from facenet_fast.training.run_folder import resumed_config
from tests.training.workers import assert_equal_training, start_workers, train_on_devices

# All that draws: 16 images a pool. A bias before batch-norm has no gradient but rounding, of which AdamW
# would make steps: this network has none.
DRAWING = {
    "backbone": "tests.tiny_run:features",
    "n_held_out": 0,
    "baselines": False,
    "dropout": 0.3,
    "rotation_degrees": 10.0,
    "cutout": 0.3,
    "weight_decay": 0.01,
    "moving_average_decay": 0.9,
    "threads": 1,
    "learning_rate": 0.003,
}
WAYS = {
    "one chunk each": {"batch_size": 8},
    "three chunks each": {"batch_size": 3},
    "in the loss' penalty": {"batch_size": 8, "optimizer": "MOM", "loss": "soft_margin"},
    "all pairs": {"batch_size": 8, "loss": "log_sum_exp"},
    "all pairs in chunks": {"batch_size": 5, "loss": "log_sum_exp", "learning_rate": 0.001},
    "following": {"batch_size": 8, "strategy": "auto"},
}


@pytest.fixture
def drawing(tiny):
    return {**tiny, **DRAWING}


def only_run(runs_dir):
    (run_dir,) = runs_dir.iterdir()
    return run_dir


@pytest.fixture
def started():
    """Workers that do not outlive their test."""
    all_workers = []

    def start(*given, **options):
        begun = start_workers(*given, **options)
        all_workers.extend(begun)
        return begun

    yield start
    for worker in all_workers:
        worker.kill()


# -- as one device -------------------------------------------------------------------------------------------


def test_two_devices_step_as_one(drawing, tmp_path):
    """Chunks are as many as one device makes of the same pool, and in the same order."""
    alone = {name: train(TrainConfig(**{**drawing, **one})).run_dir for name, one in WAYS.items()}
    all_settings = [{**drawing, **one, "runs_dir": str(tmp_path / name)} for name, one in WAYS.items()]
    constant = {**drawing, "batch_size": 8, "schedule": "constant"}
    alone["resumed"] = train(TrainConfig(**constant)).run_dir
    resumed = tmp_path / "resumed"
    all_settings += [
        {**constant, "epochs": 1, "runs_dir": str(resumed)},
        {"resume": str(resumed), "epochs": 2},
    ]
    told = train_on_devices(tmp_path / "log", 2, all_settings)
    assert told.count("Devices that train: 2 (processes: 1)") == len(all_settings)
    for name, run_dir in alone.items():
        assert_equal_training(only_run(tmp_path / name), run_dir)


def test_two_workers_sample_the_same_lookalikes(drawing, tmp_path, started):
    """Or they would wait for each other for ever: pools of other people are of other sizes."""
    settings = {**drawing, "batch_size": 4, "sampling": "lookalike", "lookalike_group": 2, "epochs": 3}
    pair = started(tmp_path / "log", settings, settings)
    assert [worker.end() for worker in pair] == [0, 0], pair[0].said() + pair[1].said()


@pytest.mark.parametrize("described_by", ["TF_CONFIG", "Slurm"])
def test_two_workers_step_as_one_process(described_by, drawing, tmp_path, started):
    """A file that nobody can read is in one of the first pools."""
    settings = {**drawing, "batch_size": 4, "epochs": 3}
    broken = next((tmp_path / "faces").glob("person_1/*.png"))
    broken.write_bytes(b"no picture")
    alone = train(TrainConfig(**settings)).run_dir
    theirs = {**settings, "runs_dir": str(tmp_path / "theirs")}
    pair = started(tmp_path / "log", theirs, {**theirs, "log_every": 7}, described_by=described_by)
    assert [worker.end() for worker in pair] == [0, 0], pair[0].said() + pair[1].said()
    assert "Devices that train: 2 (processes: 2)" in pair[0].said()
    waiting, told = pair[1].said().splitlines()
    assert waiting.startswith("Waiting until all workers are there: localhost:")
    assert told == "Worker 1 of 2 trains; worker 0 tells how it goes"
    assert_equal_training(only_run(tmp_path / "theirs"), alone)


def test_a_run_goes_on_with_another_number_of_workers(drawing, tmp_path, started):
    two = {**drawing, "batch_size": 4, "epochs": 1, "schedule": "constant"}
    two["runs_dir"] = str(tmp_path / "theirs")
    pair = started(tmp_path / "log", two, two)
    assert [worker.end() for worker in pair] == [0, 0], pair[0].said()
    run_dir = only_run(tmp_path / "theirs")
    copy = tmp_path / "copy" / run_dir.name
    shutil.copytree(run_dir, copy)
    alone = train(resumed_config(str(run_dir), {"epochs": 2, "distribute": "none"})).run_dir
    words = ["--resume", str(copy), "--epochs", "2"]
    pair = started(tmp_path / "more", two, two, words=words)
    assert [worker.end() for worker in pair] == [0, 0], pair[0].said()
    assert "Resumed from" in pair[0].said()
    assert_equal_training(copy, alone)


# -- what workers must have in common ------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"margin": 0.7}, {"data_dir": "fewer"}])
def test_workers_of_other_settings_or_data_are_refused(other, drawing, tmp_path, started, make_faces):
    if "data_dir" in other:
        other = {"data_dir": str(make_faces(tmp_path / "fewer", n_each=4))}
    pair = started(tmp_path / "log", drawing, {**drawing, **other})
    assert [worker.end() for worker in pair] == [2, 2]
    expected = "margin must be the same for every worker; got 0.7 here, and the chief 1.0"
    if "data_dir" in other:
        expected = "data_dir must hold the same files for every worker"
    assert expected in pair[1].said()
    assert "another worker has ended" in pair[0].said()
    assert "Traceback" not in pair[0].said() + pair[1].said()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be told of the workers by the environment variable TF_CONFIG"),
        ("nonsense", "TF_CONFIG must be JSON of the form"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG must be JSON of the form"),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
            "must be of workers, and of one chief or none; got worker, ps",
        ),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
            "the task in TF_CONFIG must be in its cluster, .*; got type 'worker', index 2",
        ),
    ],
)
def test_workers_that_are_not_described(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(UserError, match=message):
        replicas_for(TrainConfig(distribute="multiworker"))


@pytest.mark.parametrize(
    "settings",
    [{"step": "triplets"}, {"sub_pool": 5}, {"pools_per_step": 2}],
    ids=lambda one: next(iter(one)),
)
def test_steps_that_are_not_shared(settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))} must be .* with distribute='mirrored'"):
        TrainConfig(**settings, distribute="mirrored")


def test_one_device_trains_as_without_a_strategy(drawing):
    assert train(TrainConfig(**drawing, distribute="mirrored")).n_steps == 6


def test_alone_everything_is_ones_own():
    alone = Replicas()
    assert alone.is_chief
    assert alone.sum([1.5, 2.5]).tolist() == [1.5, 2.5]
    assert alone.share_text("as it is") == "as it is"
    assert alone.share_decision(True)


# -- workers that are killed ---------------------------------------------------------------------------------


def kill_one_of_two(victim, seconds_after, settings, tmp_path, started):
    """Kill a worker while both train; return the step that the run goes on from."""
    runs_dir = tmp_path / "runs"
    long = {**settings, "runs_dir": str(runs_dir), "epochs": 100_000, "epoch_size": 4}
    pair = started(tmp_path / "log", long, long)
    pair[0].wait_for("Epoch: [2]")
    time.sleep(seconds_after)
    pair[victim].kill()
    survivor = pair[1 - victim]
    assert survivor.end() == 2
    said = survivor.said()
    assert said.count("error:") == 1, said
    assert "Traceback" not in said
    assert "as another worker has ended" in said
    run_dir = only_run(runs_dir)
    step = step_of(find_checkpoint(str(run_dir)))
    if victim == 0:
        assert step % 4 == 0
    else:
        assert f"saved {run_dir}/model-{run_dir.name}.ckpt-{step}" in said
    return run_dir, step


def finish(run_dir, step):
    """Resume alone, and see that nothing but chance of the pool in progress is lost."""
    epochs = step // 4 + 2
    result = train(resumed_config(str(run_dir), {"distribute": "none", "epochs": epochs}))
    assert result.n_steps == 4 * epochs
    weights = tf.train.load_checkpoint(result.checkpoint)
    for name in weights.get_variable_to_shape_map():
        if name.startswith(("model", "averaged", "optimizer")):
            assert np.isfinite(weights.get_tensor(name)).all()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_is_killed(victim, drawing, tmp_path, started):
    run_dir, step = kill_one_of_two(victim, 0.0, {**drawing, "batch_size": 4}, tmp_path, started)
    assert step >= 8
    finish(run_dir, step)


@pytest.mark.large
@pytest.mark.parametrize("n", range(10))
def test_ten_kills_of_either_worker(n, drawing, tmp_path, started):
    """At random moments, after which two workers go on, and then one."""
    settings = {**drawing, "batch_size": 4}
    rng = np.random.default_rng(n)
    run_dir, step = kill_one_of_two(n % 2, rng.uniform(0.0, 2.0), settings, tmp_path, started)
    pair = started(tmp_path / "more", settings, settings, words=["--resume", str(run_dir)])
    pair[0].wait_for("Resumed from")
    pair[0].wait_for("Epoch: [")
    pair[1 - n % 2].kill()
    assert pair[n % 2].end() == 2
    step = step_of(find_checkpoint(str(run_dir)))
    finish(run_dir, step)
