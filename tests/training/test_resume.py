"""A run that is ended at any moment, by anything, goes on as if nothing had been."""

import builtins
import contextlib
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from facenet_fast.checkpoints import Checkpoints, find_checkpoint, load_model, step_of
from facenet_fast.config import TrainConfig, read_train_config
from facenet_fast.errors import UserError
from facenet_fast.evaluation.verification import Verification
from facenet_fast.report.measure import Measures
from facenet_fast.training import loop
from facenet_fast.training.best import BestWeights
from facenet_fast.training.evaluators import Evaluator
from facenet_fast.training.loop import train
from facenet_fast.training.run_folder import RunFolder, make_run_folder, resumed_config
from facenet_fast.training.step import UniqueStep

# All that draws, averages, counts or falls with the step.
EVERYTHING = {
    "dropout": 0.3,
    "rotation_degrees": 10.0,
    "cutout": 0.3,
    "moving_average_decay": 0.9,
    "weight_decay": 0.01,
    "early_stop": 50,
    "baselines": False,
    "epochs": 3,
    "seed": 3,
}
STEPS = {
    "whole": {"step": "unique"},
    "chunks": {"step": "unique", "batch_size": 6},
    # Two triplets a step: epochs of three steps end in the middle of a pool.
    "triplets": {"step": "triplets", "batch_size": 6},
    # Two steps a pool, as above.
    "sub-pools": {"sub_pool": 2, "remine_every": 1, "batch_size": 6},
    "several pools": {"pools_per_step": 2, "batch_size": 6},
}


class Killed(BaseException):
    """What ends a run in these tests; no `except Exception` hears of it."""


def variables_of(run_dir):
    """Every variable of the newest checkpoint, by name, as bytes."""
    reader = tf.train.load_checkpoint(find_checkpoint(str(run_dir)))
    names = [name for name in reader.get_variable_to_shape_map() if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names if "progress" not in name}


def progress_of(run_dir):
    reader = tf.train.load_checkpoint(find_checkpoint(str(run_dir)))
    (name,) = [name for name in reader.get_variable_to_shape_map() if name.startswith("progress")]
    return json.loads(reader.get_tensor(name))


def metrics_of(run_dir):
    """Every line but those that tell times, in order."""
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], line["name"], line["value"])
        for line in lines
        if not line["name"].startswith(("time/", "images_per_second"))
    ]


def assert_same_run(got_dir, wanted_dir):
    assert step_of(find_checkpoint(str(got_dir))) == step_of(find_checkpoint(str(wanted_dir)))
    got, wanted = variables_of(got_dir), variables_of(wanted_dir)
    assert got.keys() == wanted.keys()
    assert len(got) > 10
    assert [name for name in got if got[name] != wanted[name]] == []
    assert progress_of(got_dir) == progress_of(wanted_dir)
    assert metrics_of(got_dir) == metrics_of(wanted_dir)
    best = [variables_of(Path(run_dir, "best")) for run_dir in (got_dir, wanted_dir)]
    assert best[0] == best[1]


@pytest.fixture(scope="module")
def everything(tmp_path_factory, make_faces, make_settings):
    """Settings of a run of nine steps in which everything happens; its faces are hard to tell apart."""
    folder = tmp_path_factory.mktemp("resume")
    faces_dir = make_faces(folder / "faces")
    rng = np.random.default_rng(0)
    for path in sorted(faces_dir.glob("*/*.png")):
        pixels = np.asarray(Image.open(path)) * 0.1 + rng.uniform(0, 200, (20, 20, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(os.path.dirname(__file__))
        yield {**make_settings(faces_dir, folder / "runs"), **EVERYTHING}


@pytest.fixture(scope="module")
def whole(everything):
    """Give a function that makes an unbroken run of these settings with changes, once, and its folder."""
    made = {}

    def run(changes):
        key = json.dumps(changes)
        if key not in made:
            made[key] = Path(train(TrainConfig(**{**everything, **changes})).run_dir)
        return made[key]

    return run


# Twice fifty steps


def test_twice_fifty_steps_are_a_hundred(everything, whole):
    changes = {
        "schedule": "constant",
        "warmup": 0.0,
        "learning_rate_decay_factor": 0.5,
        "learning_rate_decay_epochs": 1,
        "epoch_size": 25,
    }
    half = train(TrainConfig(**{**everything, **changes, "epochs": 2}))
    assert half.n_steps == 50
    again = train(resumed_config(half.run_dir, {"epochs": 4}))
    assert again.n_steps == 100
    assert_same_run(again.run_dir, whole({**changes, "epochs": 4}))


# Killed at any file operation


class Disk:
    """Stand in the way of everything that changes files, and end the run in the middle of the n-th change.

    From then on nothing is changed any more, whatever `finally` clauses try: the process is gone.
    """

    def __init__(self, monkeypatch, within, n):
        self.within = str(within)
        self.left = n
        self.is_dead = False
        real_open = builtins.open
        for module, name, half in (
            (os, "replace", None),
            (os, "remove", None),
            (os, "mkdir", None),
            (shutil, "rmtree", self._half_removed),
            (shutil, "copyfile", lambda source, target: real_open(target, "w").close()),
        ):
            monkeypatch.setattr(module, name, self._guarded(getattr(module, name), half))

        def open_(path, mode="r", *args, **options):
            if "w" in mode or "a" in mode:
                self._pass(path, lambda: real_open(path, mode).close())
            return real_open(path, mode, *args, **options)

        write = tf.train.Checkpoint.write

        def write_(checkpoint, prefix, *args):
            self._pass(prefix, lambda: self._half_written(write(checkpoint, prefix)))
            return write(checkpoint, prefix, *args)

        monkeypatch.setattr(builtins, "open", open_)
        monkeypatch.setattr(tf.train.Checkpoint, "write", write_)

    def _guarded(self, function, half):
        def guarded(*args, **options):
            path = args[-1] if half is None or len(args) > 1 else args[0]
            self._pass(path, half and (lambda: half(*args)))
            return function(*args, **options)

        return guarded

    def _pass(self, path, half):
        if not str(path).startswith(self.within):
            return
        if self.is_dead:
            raise Killed
        self.left -= 1
        if self.left < 0:
            self.is_dead = True
            if half:
                half()
            raise Killed

    def _half_removed(self, folder, **options):
        for path in sorted(Path(folder).glob("*"))[:1]:
            path.unlink()

    def _half_written(self, prefix):
        Path(prefix + ".index").unlink()
        os.truncate(prefix + ".data-00000-of-00001", 10)


def at_every_change(monkeypatch, prepare, change):
    """Yield what `prepare` makes, left as by a process killed in the n-th change, for every n."""
    for n in itertools.count():
        path = prepare(n)
        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            disk = Disk(patched, path, n)
            change(path)
        yield path
        if not disk.is_dead:
            assert n > 3
            return


@pytest.fixture
def variable():
    return tf.Variable(np.zeros(100))


@pytest.mark.parametrize(("step", "keep"), [(3, 2), (3, 1), (2, 2)])
def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch, variable, step, keep):
    """Of a new step, or of the newest once more."""

    def save(run_dir, number, value):
        variable.assign(np.full(100, value, float))
        Checkpoints(str(run_dir), {"v": [variable]}, keep=keep).save(number)

    def prepare(n):
        (tmp_path / str(n)).mkdir()
        for number in (1, 2):
            save(tmp_path / str(n), number, number)
        return tmp_path / str(n)

    found = []
    for run_dir in at_every_change(monkeypatch, prepare, lambda path: save(path, step, 30)):
        checkpoints = Checkpoints(str(run_dir), {"v": [variable]}, keep=keep)
        restored = checkpoints.restore()
        values = set(variable.numpy())
        assert values in ({restored}, {30.0})
        found.append((restored, *values))
        # TensorFlow finds no other, and what is killed leaves nothing in the way of what comes after.
        named = tf.train.latest_checkpoint(str(run_dir))
        assert named == find_checkpoint(str(run_dir)) or (named is None and step == 2)
        for number in (3, 4):
            checkpoints.save(number)
        files = [f"model-{run_dir.name}.ckpt-{number}" for number in (3, 4)[-keep:]]
        files = [name + ending for name in files for ending in (".data-00000-of-00001", ".index")]
        assert sorted(path.name for path in run_dir.iterdir() if path.name[0] != ".") == [
            "checkpoint",
            *files,
        ]
        assert not list(run_dir.glob(".*.aside"))
    before, between, after = (2, 2.0), (1, 1.0), (step, 30.0)
    assert [one for one, _ in itertools.groupby(found)] == (
        [before, after] if step == 3 else [before, between, after]
    )


def test_the_best_weights_are_whole_at_any_moment(tmp_path, monkeypatch, variable):
    monkeypatch.setattr("facenet_fast.training.run_folder._revision_info", lambda: "slow to ask for\n")

    class Averaged:
        weights = (variable,)

    def see(run_dir, step, value):
        variable.assign(np.full(100, step, float))
        fields = dict.fromkeys(Verification.__dataclass_fields__, value)
        BestWeights(str(run_dir), Averaged, "auc").see(Verification(**fields), step)

    def prepare(n):
        folder = make_run_folder(TrainConfig(runs_dir=str(tmp_path / str(n))))
        folder.write_training_set(1, 2)
        see(folder.run_dir, 5, 0.5)
        # A resumed run may have other settings.
        folder.write_settings(TrainConfig(runs_dir="elsewhere"))
        return folder.run_dir

    found = []
    for run_dir in at_every_change(monkeypatch, prepare, lambda path: see(path, 6, 0.6)):
        best_dir = os.path.join(run_dir, "best")
        read_train_config(os.path.join(best_dir, "config.json"))
        assert json.loads(Path(best_dir, "training_set.json").read_text()) == {
            "n_images": 1,
            "n_identities": 2,
        }
        step = Checkpoints(best_dir, {"averaged": [variable]}).restore()
        assert set(variable.numpy()) == {step}
        found.append(step)
        # A resumed run comes to the same step again.
        see(run_dir, 6, 0.6)
        assert Checkpoints(best_dir, {"averaged": [variable]}).restore() == 6
        assert len(list(Path(best_dir).glob("*.index"))) == 1
    assert [one for one, _ in itertools.groupby(found)] == [5, 6]


def test_settings_are_whole_at_any_moment(tmp_path, monkeypatch):
    monkeypatch.setattr("facenet_fast.training.run_folder._revision_info", lambda: "slow to ask for\n")

    def prepare(n):
        folder = make_run_folder(TrainConfig(runs_dir=str(tmp_path / str(n)), epochs=1))
        folder.write_training_set(1, 1)
        return folder.run_dir

    def change(run_dir):
        folder = RunFolder(run_dir, run_dir)
        folder.write_settings(TrainConfig(epochs=2))
        folder.write_training_set(2, 2)

    found = []
    for run_dir in at_every_change(monkeypatch, prepare, change):
        epochs = read_train_config(os.path.join(run_dir, "config.json")).epochs
        found.append((epochs, json.loads(Path(run_dir, "training_set.json").read_text())["n_images"]))
        assert Path(run_dir, "arguments.txt").read_text().endswith("\n")
    assert [one for one, _ in itertools.groupby(found)] == [(1, 1), (2, 1), (2, 2)]


@pytest.mark.parametrize("kind", STEPS)
def test_a_run_killed_among_its_files_ends_where_an_unbroken_one_does(
    everything, whole, kind, tmp_path, monkeypatch
):
    draw = random.Random(kind)
    config = TrainConfig(**{**everything, **STEPS[kind], "runs_dir": str(tmp_path)})
    # The first checkpoint is there after some forty changes; a resumed run begins with some fifteen.
    for first, last in ((41, 65), (0, 24)):
        with monkeypatch.context() as patched:
            Disk(patched, tmp_path, draw.randint(first, last))
            with pytest.raises(Killed):
                train(config)
        (run_dir,) = tmp_path.iterdir()
        with open(run_dir / "metrics.jsonl", "a") as file:
            file.write('{"step": 1, "na')
        config = resumed_config(str(run_dir), {})
    train(config)
    assert_same_run(run_dir, whole(STEPS[kind]))


@pytest.mark.parametrize("last", ["saved", "done"])
def test_a_run_killed_at_its_end_is_ended(everything, whole, last, tmp_path, monkeypatch, capsys):
    """With the last checkpoint there, and with all done: nothing is measured twice, nor trained beyond."""
    changes = {"learning_rate": 1e-12, "moving_average_decay": 0.0, "epochs": 6, "early_stop": 2}
    wanted = whole(changes)
    assert step_of(find_checkpoint(str(wanted))) == 9
    run_dir = tmp_path / "run"
    if last == "done":
        shutil.copytree(wanted, run_dir)
    else:
        with monkeypatch.context() as patched:
            patched.setattr(loop._Run, "conclude", lambda run: run.folder)
            folder = train(TrainConfig(**{**everything, **changes, "runs_dir": str(tmp_path)}))
        run_dir = Path(folder.run_dir)
    capsys.readouterr()
    seen = []
    monkeypatch.setattr(BestWeights, "see", lambda *args: seen.append(args))
    resumed = train(resumed_config(str(run_dir), {}))
    assert resumed.n_steps == 9
    assert seen == []
    assert set(resumed.results["held_out"]) == {"network after"}
    assert "Stopped early at step 9: 2 verifications no better" in capsys.readouterr().out
    assert_same_run(run_dir, wanted)


@pytest.mark.parametrize("moment", ["last step", "verification", "saving"])
def test_a_run_interrupted_at_an_epochs_end_goes_on_from_there(
    everything, whole, moment, tmp_path, monkeypatch
):
    kind, name, calls_before = {
        "last step": (UniqueStep, "run", 2),
        # The first is of "network before", or of what is kept in `best`.
        "verification": (Evaluator, "run", 1),
        "saving": (tf.train.Checkpoint, "write", 1),
    }[moment]
    original = getattr(kind, name)
    calls = itertools.count()

    def interrupted(self, *args):
        result = original(self, *args)
        if next(calls) == calls_before:
            signal.raise_signal(signal.SIGINT)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(kind, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(TrainConfig(**{**everything, "runs_dir": str(tmp_path)}))
    (run_dir,) = tmp_path.iterdir()
    assert step_of(find_checkpoint(str(run_dir))) == 3
    train(resumed_config(str(run_dir), {}))
    assert_same_run(run_dir, whole(STEPS["whole"]))


# Damaged checkpoints


def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path, caplog):
    wanted = whole(STEPS["whole"])
    run_dir = shutil.copytree(wanted, tmp_path / "run")
    newest = find_checkpoint(str(run_dir))
    assert step_of(newest) == 9
    os.truncate(newest + ".data-00000-of-00001", 100)
    train(resumed_config(str(run_dir), {}))
    (told,) = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert f"the checkpoint {newest!r} cannot be read" in told
    assert f"going on from the one before, {newest[: -len('9')]}6" in told
    assert_same_run(run_dir, wanted)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        flipped,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
    ],
)
def test_every_damage_is_seen(tmp_path, variable, damage, ending):
    checkpoints = Checkpoints(str(tmp_path), {"v": [variable]})
    for step in (1, 2, 3):
        variable.assign(np.full(100, step, float))
        newest = checkpoints.save(step)
    damage(Path(newest + ending))
    assert step_of(checkpoints.restore_whole()) == 2
    assert set(variable.numpy()) == {2}
    # Without any that is whole, the newest is the one to name.
    for step in (1, 2):
        Path(f"{newest[:-1]}{step}.data-00000-of-00001").write_bytes(b"")
    left = newest if os.path.exists(newest + ".index") else f"{newest[:-1]}2"
    with pytest.raises(UserError, match=re.escape(repr(left))):
        checkpoints.restore_whole()


def test_another_network_is_no_damage(tmp_path, variable):
    """Older checkpoints are not looked at: one that fits would be of long ago."""
    larger = {"v": [variable, tf.Variable(0.0)]}
    Checkpoints(str(tmp_path), larger).save(1)
    Checkpoints(str(tmp_path), {"v": [variable]}).save(2)
    with pytest.raises(UserError, match=r"ckpt-2' cannot be read into this network"):
        Checkpoints(str(tmp_path), larger).restore_whole()


def test_a_refused_change_leaves_a_run_as_it_was(everything, whole, tmp_path):
    run_dir = shutil.copytree(whole(STEPS["whole"]), tmp_path / "run")
    kept = {
        name: (run_dir / name).read_bytes() for name in ("config.json", "training_set.json", "metrics.jsonl")
    }
    with pytest.raises(UserError, match="cannot be read into this network"):
        train(resumed_config(str(run_dir), {"embedding_size": 9}))
    more_dir = shutil.copytree(everything["data_dir"], tmp_path / "more")
    shutil.copytree(more_dir / "person_1", more_dir / "person_7")
    with pytest.raises(UserError, match="the data must be those"):
        train(resumed_config(str(run_dir), {"data_dir": str(more_dir)}))
    assert {name: (run_dir / name).read_bytes() for name in kept} == kept


# Full disks


@pytest.fixture
def small_disk(tmp_path):
    """Give a function that mounts a file system of so many KiB, or skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes, *options):
        words = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            ",".join([f"size={kilobytes}k", *options]),
            "tmpfs",
            str(folder),
        ]
        try:
            done = subprocess.run(words, capture_output=True, check=False).returncode == 0
        except OSError:
            done = False
        if not done:
            pytest.skip("a file system of its own may not be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@pytest.mark.parametrize("room", [0, 40_000])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_space(
    everything, whole, room, small_disk, monkeypatch
):
    changes = {"epochs": 20, "epoch_size": 1, "keep_checkpoints": 100}
    disk = small_disk(20_000)
    filler = disk / "filler"
    save = loop._Run.save

    def save_and_fill(run):
        save(run)
        if run.step == 3:
            free = os.statvfs(disk)
            filler.write_bytes(bytes(free.f_bavail * free.f_frsize - room))

    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "save", save_and_fill)
        with pytest.raises(UserError, match="cannot write") as raised:
            train(TrainConfig(**{**everything, **changes, "runs_dir": str(disk)}))
    assert "No space left on device" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "Op:" not in str(raised.value)
    (run_dir,) = disk.glob("*/")
    assert 3 <= step_of(find_checkpoint(str(run_dir))) < 20
    load_model(str(run_dir))
    with pytest.raises(UserError, match="No space left on device"):
        train(resumed_config(str(run_dir), {}))
    filler.unlink()
    train(resumed_config(str(run_dir), {}))
    assert_same_run(run_dir, whole(changes))


@pytest.mark.parametrize("room", [0, 10, 500, 800])
def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path, variable, room):
    checkpoints = Checkpoints(str(tmp_path), {"v": [variable]}, keep=1)
    newest = checkpoints.save(1)
    files = {path.name for path in tmp_path.iterdir()}
    variable.assign(np.ones(100))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes with it: what is too large fails to be written.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(UserError, match="cannot write") as raised:
            checkpoints.save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == files
    assert find_checkpoint(str(tmp_path)) == newest
    checkpoints.restore()
    assert set(variable.numpy()) == {0.0}


def test_measures_that_find_no_room_are_told(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with Measures(str(tmp_path)) as measures:
            measures.measure("loss", 0.25, step=1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            with pytest.raises(UserError, match=r"cannot write '.*metrics.jsonl'"):
                measures.measure("loss", 0.25, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Measures(str(tmp_path)) as measures:
        measures.forget_after(1)
        measures.measure("loss", 0.5, step=2)
    assert metrics_of(tmp_path) == [(1, "loss", 0.25), (2, "loss", 0.5)]


def test_events_that_find_no_room_are_told(small_disk):
    disk = small_disk(100)
    with Measures(str(disk)) as measures:
        with open(disk / "large", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        # Else `metrics.jsonl` would be the first to find none.
        measures._lines.close()
        measures._lines = io.StringIO()
        try:
            for step in range(300):
                measures.measure("loss", 0.5, step)
                measures.flush()
        except UserError as error:
            told = str(error)
    (disk / "large").unlink()
    assert re.fullmatch(r"cannot write TensorBoard's events: /.*No space left on device", told)


# Processes that are killed


def arguments_of(settings):
    switches = {True: "--{}", False: "--no-{}"}
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(switches[value].format(name))
        else:
            words += [f"--{name}", str(value)]
    return words


@pytest.mark.large
def test_twenty_kills_change_nothing(everything, tmp_path):
    """By the system's own signal, at random moments, most of them while a checkpoint is written."""
    settings = {**everything, "epochs": 150, "epoch_size": 1, "early_stop": 0, "threads": 1}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    command = [sys.executable, "-m", "facenet_fast", "train"]
    runs_dir = tmp_path / "killed"
    draw = random.Random(0)
    words = arguments_of({**settings, "runs_dir": str(runs_dir)})
    n_kills = n_begun = saved = 0
    while n_kills < 20:
        log_path = tmp_path / f"log_{n_begun}"
        n_begun += 1
        with open(log_path, "w") as log:
            process = subprocess.Popen([*command, *words], stdout=log, stderr=log, env=environment)
        try:
            # Now and then before the first step.
            begun = "Epoch: [" if n_kills % 7 else "Training features"
            deadline = time.monotonic() + 300
            while begun not in log_path.read_text() and process.poll() is None:
                assert time.monotonic() < deadline, log_path.read_text()
                time.sleep(0.05)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=draw.uniform(0, 1.5))
            n_kills += process.poll() is None
        finally:
            process.kill()
            process.wait()
        told = log_path.read_text()
        assert "error" not in told
        assert process.returncode in (0, -signal.SIGKILL)
        (run_dir,) = runs_dir.iterdir()
        if not saved and not list(run_dir.glob("*.index")):
            with pytest.raises(UserError, match="there is nothing to go on from"):
                resumed_config(str(run_dir), {})
            shutil.rmtree(run_dir)
            continue
        words = ["--resume", str(run_dir)]
        # No more is lost than was not saved: what was said to be saved is there.
        lines = [line for line in (run_dir / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
        steps = [one["step"] for one in map(json.loads, lines) if one["name"] == "time/save_variables"]
        saved = step_of(find_checkpoint(str(run_dir)))
        assert saved >= max(steps, default=0)
    subprocess.run([*command, *words], env=environment, check=True)
    words = arguments_of({**settings, "runs_dir": str(tmp_path / "whole")})
    subprocess.run([*command, *words], env=environment, check=True)
    (whole,) = (tmp_path / "whole").iterdir()
    assert_same_run(run_dir, whole)
