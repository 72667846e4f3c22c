"""What the doctor sees, when it speaks, and what is done about it; and that it leaves the healthy alone."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from facenet_fast.checkpoints import load_model
from facenet_fast.config import TrainConfig
from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError
from facenet_fast.losses import log_sum_exp_triplet_loss
from facenet_fast.losses.triplet import loss_of_triplets
from facenet_fast.training.doctor import Doctor, effective_rank, loss_at_rest, spread_of
from facenet_fast.training.loop import train
from facenet_fast.training.pools import PoolReader
from facenet_fast.training.run_folder import resumed_config
from facenet_fast.training.step import TripletStep, UniqueStep

STEPS = {"unique": UniqueStep, "triplets": TripletStep}
LABELS = np.repeat(np.arange(10), 4)


def metrics(run_dir, name):
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["value"]) for line in lines if line["name"] == name]


def weights_of(run_dir):
    return load_model(str(run_dir))[0].get_weights()


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "facenet_fast"]


@pytest.fixture
def tiny(tiny):
    """Without verification and augmentation, which take longer than the steps."""
    plain = {"random_flip": False, "rotation_degrees": 0.0, "scale": 0.0, "shift": 0.0}
    # Nearly as far as two unit vectors can be apart: there are always triplets to learn from.
    return {**tiny, **plain, "margin": 3.5, "n_held_out": 0, "identities_per_batch": 6, "baselines": False}


# What is measured


@pytest.mark.parametrize("shape", [(40, 6), (5, 12)])
def test_effective_rank_is_that_of_the_singular_values(shape):
    points = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1])
    squares = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    shares = [one / squares.sum() for one in squares if one > 1e-12]
    assert effective_rank(points) == pytest.approx(np.exp(-sum(p * np.log(p) for p in shares)))
    assert effective_rank(np.ones(shape)) == 1.0


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_spread_is_that_of_all_pairs(offset):
    rng = np.random.default_rng(1)
    labels = np.array([4, 4, 9, 4, 2, 2, 7])
    points = rng.normal(size=(7, 3)) + offset
    d = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    same = [d[i, j] for i in range(7) for j in range(7) if i != j and labels[i] == labels[j]]
    different = [d[i, j] for i in range(7) for j in range(7) if labels[i] != labels[j]]
    spread = spread_of(points, labels)
    assert spread.d_ap == pytest.approx(np.mean(same))
    assert spread.d_an == pytest.approx(np.mean(different))
    assert spread.mean_length == pytest.approx(np.linalg.norm(points.mean(axis=0)))
    assert spread.most_rank == 3


def test_loss_at_rest_is_the_loss_of_equal_distances():
    labels = np.array([0, 0, 0, 1, 1, 2])
    corners = tf.eye(6)
    triplet = corners[0:1], corners[1:2], corners[3:4]
    for settings, loss in (
        ({"loss": "hinge"}, loss_of_triplets(*triplet, margin=0.4)),
        ({"loss": "soft_margin"}, loss_of_triplets(*triplet, margin=0.4, soft=True)),
        ({"loss": "log_sum_exp", "sharpness": 3.0}, log_sum_exp_triplet_loss(labels, corners, 0.4, 3.0)),
    ):
        config = TrainConfig(margin=0.4, **settings)
        assert loss_at_rest(config, labels) == pytest.approx(float(loss))


# What is said


def poorly(kind):
    """Embeddings and a loss with one ailment."""
    rng = np.random.default_rng(2)
    people = rng.normal(size=(10, 16))[LABELS]
    noise = rng.normal(size=(40, 16))
    if kind == "becoming one":
        return unit(100.0 + people), 0.4
    if kind == "dimensions":
        return unit(people * (np.arange(16) == 0) + 0.01 * noise), 0.2
    if kind == "rests":
        return np.eye(40, dtype=np.float32), 0.5
    return unit(people + 0.3 * noise), 0.3


@pytest.mark.parametrize("kind", ["becoming one", "dimensions", "rests", "healthy"])
def test_each_ailment_is_told_once_until_it_clears(kind, caplog):
    embeddings, loss = poorly(kind)
    healthy = poorly("healthy")
    doctor = Doctor(TrainConfig(margin=0.5), ["a"] * 10)
    step = 0

    def look(n, embeddings, loss):
        nonlocal step
        for _ in range(n):
            step += 10
            assert set(doctor.look((embeddings, LABELS), lambda: loss, step)) == {
                "health/effective_rank",
                "health/mean_length",
            }

    look(4, embeddings, loss)
    assert not told(caplog)
    # As a resumed run goes on.
    state = json.loads(json.dumps(doctor.state()))
    doctor = Doctor(TrainConfig(margin=0.5), ["a"] * 10)
    doctor.restore(state)
    look(10, embeddings, loss)
    look(1, *healthy)
    look(5, embeddings, loss)
    lines = told(caplog)
    if kind == "healthy":
        assert not lines
    else:
        assert [line.split(":")[0] for line in lines] == ["step 50", "step 200"]
        assert all(kind in line for line in lines)


def test_it_looks_every_tenth_step_at_no_pool_twice():
    doctor = Doctor(TrainConfig(), ["a"] * 10)
    seen = poorly("healthy")[0], LABELS

    def loss():
        return 0.3

    assert doctor.look(seen, loss, 9) == {}
    assert doctor.look(None, loss, 10) == {}
    assert doctor.look(seen, loss, 10) != {}
    assert doctor.look(seen, loss, 20) == {}
    assert doctor.look((seen[0].copy(), LABELS), loss, 30) != {}


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("hinge", "all embeddings are becoming one"),
        ("soft_margin", "the loss rests at 0.693, "),
        # Each pair has 20 negatives: log(1 + 20 exp(16 * 3.5)) / 16.
        ("log_sum_exp", "the loss rests at 3.687, "),
    ],
)
def test_a_run_that_cannot_learn_is_told_so(loss, sentence, tiny, faces_dir, caplog, monkeypatch):
    (first, *others) = sorted(faces_dir.glob("*/*.png"))
    for path in others:
        shutil.copy(first, path)
    if "rests" in sentence:

        def see_equal_distances(self, embeddings, labels):
            self.seen = np.eye(len(labels), dtype=np.float32), labels.copy()

        monkeypatch.setattr(UniqueStep, "see", see_equal_distances)
    # A weight penalty, which the loss at rest is without.
    settings = {"loss": loss, "optimizer": "MOM", "weight_decay": 0.1, "epochs": 1, "epoch_size": 50}
    settings["learning_rate"] = 1e-4  # so that the penalty is that of the step before to three digits
    result = train(TrainConfig(**{**tiny, **settings}))
    (line,) = told(caplog)
    assert line.startswith(f"step 50: {sentence}")
    assert [step for step, _ in metrics(result.run_dir, "health/effective_rank")] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("changed", [{"batch_size": 6}, {"step": "triplets"}, {"loss": "log_sum_exp"}])
def test_a_healthy_run_hears_nothing(changed, tiny, caplog):
    settings = {**tiny, "epochs": 1, "epoch_size": 50, **changed}
    result = train(TrainConfig(**settings))
    assert not told(caplog)
    lengths = [value for _, value in metrics(result.run_dir, "health/mean_length")]
    assert lengths
    assert all(0 <= value < 1 for value in lengths)


# Numbers that are not finite


def poison(monkeypatch, kind, when):
    """Before a step, make a weight NaN if `when` says so; return what weight each step found."""
    run, starts = kind.run, []

    def run_poisoned(self, work, made):
        starts.append((made, self.model.weights[0].numpy()))
        if when(made):
            self.model.weights[0].assign(np.full(self.model.weights[0].shape, np.nan))
        return run(self, work, made)

    monkeypatch.setattr(kind, "run", run_poisoned)
    return starts


def once(step):
    left = [step]

    def when(made):
        return made == step and bool(left) and bool(left.pop() or True)

    return when


@pytest.mark.parametrize("step", list(STEPS))
def test_a_rollback_goes_on_from_the_last_epoch_at_half_the_rate(step, tiny, monkeypatch, caplog):
    settings = {**tiny, "step": step, "on_nan": "rollback", "schedule": "constant"}
    starts = poison(monkeypatch, STEPS[step], once(4))
    result = train(TrainConfig(**{**settings, "batch_size": 6}))
    assert result.n_steps == 6
    assert [made for made, _ in starts] == [0, 1, 2, 3, 4, 3, 4, 5]
    np.testing.assert_array_equal(starts[5][1], starts[3][1])
    assert not np.array_equal(starts[6][1], starts[4][1])  # other images
    assert metrics(result.run_dir, "learning_rate") == [
        (made + 1, pytest.approx(0.01 if made < 3 else 0.005)) for made in range(6)
    ]
    assert "step 4: the loss is no longer finite (learning rate 0.01): went back to step 3" in caplog.text
    assert all(np.isfinite(weight).all() for weight in weights_of(result.run_dir))


def test_a_network_that_is_lost_in_the_last_step_of_an_epoch_is_not_saved(tiny, monkeypatch, caplog):
    apply, n_made = UniqueStep._apply, []

    def apply_and_lose(self, gradients):
        apply(self, gradients)
        lost = tf.py_function(lambda: n_made.append(1) or len(n_made) == 3, [], tf.bool)
        weight = self.model.weights[0].value
        weight.assign(tf.where(lost, np.nan, weight))

    monkeypatch.setattr(UniqueStep, "_apply", apply_and_lose)
    result = train(TrainConfig(**tiny, on_nan="rollback"))
    assert "step 3: the loss is no longer finite" in caplog.text
    assert "went back to step 0" in caplog.text
    assert (result.n_steps, len(n_made)) == (6, 9)
    assert all(np.isfinite(weight).all() for weight in weights_of(result.run_dir))


@pytest.mark.parametrize("step", list(STEPS))
def test_rollbacks_that_do_not_help_end_with_the_reason(step, tiny, monkeypatch, caplog):
    poison(monkeypatch, STEPS[step], lambda made: made == 4)
    settings = {**tiny, "step": step, "on_nan": "rollback", "batch_size": 6}
    with pytest.raises(UserError, match=r"at step 4, .* no longer finite, after 5 rollbacks in a row: lower"):
        train(TrainConfig(**settings))
    assert [line.split("go on with other images at ")[1] for line in told(caplog) if "went back" in line] == [
        f"{0.5**n:g} times the rate" for n in range(1, 6)
    ]


def test_a_run_interrupted_before_and_after_a_rollback_ends_where_an_unbroken_one_does(tiny, monkeypatch):
    settings = {**tiny, "on_nan": "rollback", "dropout": 0.3, "epochs": 3}
    with monkeypatch.context() as patch:
        poison(patch, UniqueStep, once(4))
        unbroken = train(TrainConfig(**settings))
    poison(monkeypatch, UniqueStep, once(4))
    run, n_made = UniqueStep.run, []

    def run_and_interrupt(self, work, made):
        outcome = run(self, work, made)
        n_made.append(made)
        # Within the second epoch: before the rollback, and in the step that it is tried again in.
        if n_made in ([0, 1, 2, 3], [0, 1, 2, 3, 4, 3, 4]):
            signal.raise_signal(signal.SIGINT)
        return outcome

    monkeypatch.setattr(UniqueStep, "run", run_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(TrainConfig(**settings))
    (run_dir,) = (str(path) for path in Path(tiny["runs_dir"]).iterdir() if str(path) != unbroken.run_dir)
    with pytest.raises(KeyboardInterrupt):
        train(resumed_config(run_dir, {}))
    train(resumed_config(run_dir, {}))
    assert n_made == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8]
    for name in ("loss", "learning_rate"):
        assert metrics(run_dir, name) == metrics(unbroken.run_dir, name)
    for got, wanted in zip(weights_of(run_dir), weights_of(unbroken.run_dir), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_rollbacks_of_different_epochs_are_not_in_a_row(tiny, monkeypatch, caplog):
    left = [1, 4, 7, 10, 13, 16]
    poison(monkeypatch, UniqueStep, lambda made: made in left and not left.remove(made))
    assert train(TrainConfig(**{**tiny, "on_nan": "rollback", "epochs": 6})).n_steps == 18
    assert caplog.text.count("went back") == 6


# Pools without triplets, people without images


def test_pools_without_triplets_are_widened_before_training_stops(tiny, caplog, monkeypatch):
    read, sizes = PoolReader.next, []

    def remember(self):
        pool = read(self)
        sizes.append(len(np.unique(pool.labels)))
        return pool

    monkeypatch.setattr(PoolReader, "next", remember)
    settings = {**tiny, "identities_per_batch": 2, "max_empty_pools": 3}
    result = train(TrainConfig(**{**settings, "margin": 1e-12, "strategy": "facenet"}))
    assert result.n_steps == 0
    # One pool is read ahead.
    assert sizes == [2, 2, 2, 2, 4, 4, 4, 6, 6]
    assert [line.split(": ")[-1] for line in told(caplog)[:2]] == [
        "pools are of 4 people from here on",
        "pools are of 6 people from here on",
    ]
    assert "3 pools in a row gave no triplet: all negatives are beyond the margin" in told(caplog)[2]


class Blank:
    def read(self, indices):
        return np.zeros((len(indices), 2, 2, 3), np.uint8), np.ones(len(indices), bool)


def test_wider_pools_are_resumed():
    def reader(n=2):
        return PoolReader(IdentitySampler(np.arange(0, 30, 3), n, 2, seed=1), Blank())

    with reader() as first, reader() as second:
        first.next()
        assert first.widen() == 4
        second.restore(json.loads(json.dumps(first.state())))
        for _ in range(5):
            wanted, got = first.next(), second.next()
            np.testing.assert_array_equal(got.labels, wanted.labels)
        assert len(np.unique(got.labels)) == 4
        assert [second.widen(), second.widen(), second.widen()] == [8, 9, 0]


def test_people_who_are_never_in_a_pool_are_named_once(tiny, faces_dir, caplog):
    for path in (faces_dir / "person_3").iterdir():
        path.write_bytes(b"no image")
    train(TrainConfig(**{**tiny, "epochs": 3}))
    lines = [line for line in told(caplog) if "never in a pool" in line]
    assert lines == ["never in a pool, as none of their images can be read: 1 of 6 people: person_3"]


def test_single_images_that_are_left_out_are_named(tiny, faces_dir, caplog):
    pixels = np.zeros((20, 20, 3), np.uint8)
    for n in range(7):
        (faces_dir / f"single_{n}").mkdir()
        Image.fromarray(pixels).save(faces_dir / f"single_{n}" / "1.png")
    train(TrainConfig(**tiny, single_image_weight=0.0))
    (line,) = [line for line in told(caplog) if "never in a pool" in line]
    assert "single_image_weight is 0" in line
    assert line.endswith("7 of 13 people: single_0, single_1, single_2, single_3, single_4, ...")
