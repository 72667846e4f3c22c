"""Lookalikes: found by every image, kept over a resume, and met in pools; identities of few images too."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facenet_fast.checkpoints import load_model
from facenet_fast.config import TrainConfig
from facenet_fast.data.identities import IdentityDataset
from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError
from facenet_fast.evaluation.embed import Embedder
from facenet_fast.training import lookalike
from facenet_fast.training.lookalike import Lookalikes, identity_sums, nearest_lookalikes
from facenet_fast.training.loop import train
from facenet_fast.training.pools import PoolReader
from facenet_fast.training.run_folder import resumed_config
from facenet_fast.training.step import UniqueStep
from facenet_fast.training.time_split import PARTS


class FakeStore:
    """Images that hold their own index; some cannot be read."""

    store_size = 2

    def __init__(self, n_images, bad=()):
        self.paths = tuple(str(n) for n in range(n_images))
        self.bad = set(bad)

    def read(self, indices):
        images = np.zeros((len(indices), 2, 2, 3), np.uint8)
        images[:] = np.asarray(indices)[:, None, None, None]
        ok = np.array([index not in self.bad for index in indices], bool)
        return images, ok


def embedder_of(embeddings):
    """Take images of `FakeStore`, standardised as (x - 127.5) / 128, for those rows."""

    def embed(images):
        return embeddings[np.rint(images[:, 0, 0, 0] * 128 + 127.5).astype(int)]

    return Embedder(embed, 2, "fixed", embeddings.shape[1], "rows")


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nearest_by_angle(centres, k):
    """All pairs, in numpy, one by one."""
    known = [n for n in range(len(centres)) if np.linalg.norm(centres[n]) > 0]
    found = np.full((len(centres), k), -1)
    for one in known:
        angles = {
            other: np.arccos(
                np.clip(
                    centres[one]
                    @ centres[other]
                    / (np.linalg.norm(centres[one]) * np.linalg.norm(centres[other])),
                    -1,
                    1,
                )
            )
            for other in known
            if other != one
        }
        ranked = sorted(angles, key=lambda other: angles[other])[:k]
        found[one, : len(ranked)] = ranked
    return found


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_sums_are_those_of_the_images_that_can_be_read(batch_size):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), [3, 1, 5, 2, 4, 2])
    embeddings = unit_rows(rng.standard_normal((17, 8))).astype(np.float32)
    bad = [1, 3, 9, 10, 16]  # all of the second and of the fourth
    heard = []
    sums = identity_sums(
        embedder_of(embeddings),
        FakeStore(17, bad),
        labels,
        6,
        batch_size=batch_size,
        progress=lambda *done: heard.append(done),
    )
    for identity in range(6):
        rows = [n for n in range(17) if labels[n] == identity and n not in bad]
        np.testing.assert_allclose(
            sums[identity], embeddings[rows].astype(np.float64).sum(axis=0), rtol=0, atol=1e-14
        )
    assert not sums[[1, 3]].any()
    assert heard[-1] == (17, 17)
    assert len(heard) == -(-17 // batch_size)


def test_sums_of_shares_add_up():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), [3, 1, 5, 2, 4, 2])
    embedder, store = embedder_of(unit_rows(rng.standard_normal((17, 8))).astype(np.float32)), FakeStore(17)
    parts = np.array_split(np.arange(17), 3)
    sums = [identity_sums(embedder, store, labels, 6, indices=part, batch_size=4) for part in parts]
    np.testing.assert_allclose(sum(sums), identity_sums(embedder, store, labels, 6), rtol=0, atol=1e-14)
    assert not sums[0][4:].any()


@pytest.mark.parametrize("k", [1, 5, 60])
def test_nearest_are_those_of_numpy(k):
    rng = np.random.default_rng(1)
    sums = rng.standard_normal((40, 16)) * rng.uniform(0.01, 30, (40, 1))
    sums[[4, 17]] = 0.0
    expected = nearest_by_angle(sums, k)
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(nearest_lookalikes(sums, k, threads=threads), expected)


def test_nobody_is_alike_where_nothing_is_known():
    assert (nearest_lookalikes(np.zeros((3, 4)), 2) == -1).all()
    assert (nearest_lookalikes(np.eye(3)[:1], 2) == -1).all()


def test_confusable_people_meet():
    # 40 families of 5 people whose images are nearer to each other than to anybody else's.
    rng = np.random.default_rng(2)
    families = rng.standard_normal((40, 16))
    people = np.repeat(families, 5, axis=0) + 0.3 * rng.standard_normal((200, 16))
    order = rng.permutation(200)  # a family's numbers are no neighbors
    family_of = np.repeat(np.arange(40), 5)[order]
    people = people[order]
    neighbors = nearest_lookalikes(people, 8)
    n_own = (family_of[neighbors[:, :4]] == family_of[:, None]).sum(axis=1)
    assert n_own.mean() > 3.8

    def n_confusable(sampler):
        n = 0
        for _ in range(30):
            sizes = np.bincount(family_of[np.unique(sampler.next_pool()[1])])
            n += (sizes * (sizes - 1) // 2).sum()
        return n / 30

    plain = IdentitySampler(np.arange(0, 601, 3), 20, 2, seed=0)
    groups = IdentitySampler(np.arange(0, 601, 3), 20, 2, seed=0, group=4)
    groups.look_alike(neighbors)
    assert n_confusable(groups) > 2.5 * n_confusable(plain)


@pytest.mark.parametrize(("every", "due"), [(1, [5, 10, 15, 20, 25, 30, 35]), (2, [5, 15, 25, 35]), (9, [5])])
def test_when_they_are_looked_for(every, due):
    config = TrainConfig(sampling="lookalike", lookalike_every=every, epoch_size=5)
    dataset = IdentityDataset(("a", "b"), np.array([0, 1, 2]), ("a", "b"))
    lookalikes = Lookalikes(config, dataset, FakeStore(2))
    found = []
    for step in range(40):
        if step in (17, 25):  # a run is resumed; pools without triplets ask again for the same step
            state = json.loads(json.dumps(lookalikes.state()))
            lookalikes = Lookalikes(config, dataset, FakeStore(2))
            lookalikes.restore(state)
        if lookalikes.is_due(step):
            found.append(step)
            lookalikes.found(step)
            assert not lookalikes.is_due(step)
    assert found == due
    plain = Lookalikes(TrainConfig(epoch_size=5), dataset, FakeStore(2))
    plain.restore({"made_at": 5})
    assert not any(plain.is_due(step) for step in range(40))
    assert plain.state() == {"made_at": None}


def test_the_pool_that_is_read_ahead_is_of_the_lookalikes_known_when_it_was_drawn():
    neighbors = np.array([np.roll(np.arange(20), -one)[1:5] for one in range(20)])

    def reader(seed=5):
        sampler = IdentitySampler(np.arange(0, 61, 3), 4, 2, seed, group=2)
        return PoolReader(sampler, FakeStore(60))

    with reader() as plain, reader() as pools:
        for _ in range(3):
            np.testing.assert_array_equal(plain.next().labels, pools.next().labels)
        pools.look_alike(neighbors)
        state = json.loads(json.dumps(pools.state()))
        np.testing.assert_array_equal(plain.next().labels, pools.next().labels)
        after = [pools.next().labels.tolist() for _ in range(4)]
        assert [plain.next().labels.tolist() for _ in range(4)] != after
    with reader(seed=9) as resumed:
        resumed.restore(state)
        resumed.next()
        assert [resumed.next().labels.tolist() for _ in range(4)] == after


# Whole runs


@pytest.fixture
def many(tiny, tmp_path):
    """Settings of a run of nine steps, of three epochs, on 12 people of whom a pool holds four."""
    rng = np.random.default_rng(4)
    for person in range(12):
        folder = tmp_path / "many" / f"person_{person}"
        folder.mkdir(parents=True)
        pattern = np.kron(rng.integers(0, 200, (4, 4, 3)), np.ones((4, 4, 1)))
        for n in range(1, 4):
            pixels = pattern + rng.integers(0, 40, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"person_{person}_{n:04d}.png")
    return tiny | {
        "data_dir": str(tmp_path / "many"),
        "n_held_out": 0,
        "images_per_identity": 2,
        "epochs": 3,
        "baselines": False,
        "threads": 1,
        "sampling": "lookalike",
        "lookalike_group": 2,
    }


@pytest.fixture
def pools_of(monkeypatch):
    """Remember who met in each step, by the run."""
    met = []
    run = UniqueStep.run

    def remember(self, work, step):
        met.append(np.unique(work.labels).tolist())
        return run(self, work, step)

    monkeypatch.setattr(UniqueStep, "run", remember)
    return met


def measured(run_dir, name):
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["value"]) for line in lines if line["name"] == name]


def variables_of(checkpoint):
    import tensorflow as tf

    reader = tf.train.load_checkpoint(checkpoint)
    # Object graphs hold Keras' numbered names; the resumed run saved one time more.
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    names = [name for name in names if "save_counter" not in name]
    assert any("progress" in name for name in names)
    return {name: reader.get_tensor(name) for name in names}


def test_pools_are_uniform_first_and_of_lookalikes_then(many, pools_of, monkeypatch, capsys):
    found = []
    nearest = lookalike.nearest_lookalikes

    def remember(sums, k, threads):
        found.append(nearest(sums, k, threads=threads))
        return found[-1]

    monkeypatch.setattr(lookalike, "nearest_lookalikes", remember)
    monkeypatch.setattr(lookalike, "_SECONDS_BETWEEN_LINES", 0.0)
    result = train(TrainConfig(**many))
    out = capsys.readouterr().out
    assert out.count("Lookalikes of 12 people found in ") == 2
    assert out.count("Looking for lookalikes: 36 of 36 images embedded\n") == 2
    assert [table.shape for table in found] == [(12, 4)] * 2
    assert [step for step, _ in measured(result.run_dir, "time/lookalikes")] == [3, 6]
    seconds = {part: measured(result.run_dir, f"time/epoch_{part}") for part in PARTS}
    for (_, embedding), (_, finding) in zip(
        seconds["embed"][1:], measured(result.run_dir, "time/lookalikes"), strict=True
    ):
        assert embedding >= 0.9 * finding > seconds["embed"][0][1]
    lookalikes, pools_of[:] = pools_of[:], []
    train(TrainConfig(**many | {"sampling": "uniform"}))
    # The fourth pool was drawn before the first table was.
    assert lookalikes[:4] == pools_of[:4]
    assert lookalikes[4:] != pools_of[4:]
    for pool, table in zip(lookalikes[4:], found[:1] * 3 + found[1:] * 2, strict=True):
        assert any(other in table[one] for one in pool for other in pool)


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(many, pools_of, monkeypatch):
    settings = many | {"dropout": 0.3, "identity_power": 0.5, "repeat_images": True, "images_per_identity": 4}
    settings["lookalike_every"] = 2  # found before the fourth step, and not again
    unbroken = train(TrainConfig(**settings))
    wanted = variables_of(unbroken.checkpoint)
    met, pools_of[:] = pools_of[:], []
    run = UniqueStep.run

    for last in (3, 5):  # as an epoch ends, and within one that began with new lookalikes

        def run_and_interrupt(self, work, made, last=last):
            outcome = run(self, work, made)
            if made + 1 == last:
                signal.raise_signal(signal.SIGINT)
            return outcome

        with monkeypatch.context() as patched:
            patched.setattr(UniqueStep, "run", run_and_interrupt)
            with pytest.raises(KeyboardInterrupt):
                train(TrainConfig(**settings))
        run_dir = str(max(Path(settings["runs_dir"]).iterdir(), key=lambda path: path.stat().st_ctime_ns))
        resumed = train(resumed_config(run_dir, {}))
        assert pools_of == met
        got = variables_of(resumed.checkpoint)
        assert got.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)
        del pools_of[:]


def test_sampling_may_change_when_a_run_is_resumed(many, capsys):
    first = train(TrainConfig(**many | {"epochs": 2}))
    uniform = train(resumed_config(first.run_dir, {"epochs": 3, "sampling": "uniform"}))
    capsys.readouterr()
    again = train(resumed_config(uniform.run_dir, {"epochs": 4, "sampling": "lookalike"}))
    assert again.n_steps == 12
    assert "Lookalikes of 12 people found" in capsys.readouterr().out


def test_unreadable_images_are_nobodys_lookalikes(many, tmp_path):
    for path in sorted((tmp_path / "many" / "person_3").iterdir()):
        path.write_bytes(b"")
    (tmp_path / "many" / "person_4" / "person_4_0001.png").write_bytes(b"")
    assert train(TrainConfig(**many)).n_steps == 9


@pytest.mark.parametrize("step", ["unique", "triplets"])
def test_people_of_one_image_are_positives_if_images_are_repeated(tiny, faces_dir, step, monkeypatch):
    for identity in sorted(faces_dir.iterdir()):
        for path in sorted(identity.iterdir())[1:]:
            path.unlink()
    settings = tiny | {"n_held_out": 0, "step": step, "baselines": False, "margin": 3.5}
    with pytest.raises(UserError, match="two readable images"):
        train(TrainConfig(**settings))
    result = train(TrainConfig(**settings, repeat_images=True, rotation_degrees=20.0))
    assert result.n_steps == 6
    # The copies differ as far as they are augmented: the positive's distance is above 0, and so is the loss.
    assert all(value > 0 for _, value in measured(result.run_dir, "loss"))


def test_copies_of_an_image_are_augmented_each_in_its_own_way(many):
    from facenet_fast.training.loop import preparation
    from facenet_fast.training.step import step_seed

    images = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)), 6, axis=0).astype(np.uint8)
    prepare = preparation(TrainConfig(**many))
    copies = np.asarray(prepare.train(images, step_seed(1, 0)))
    assert all(not np.array_equal(copies[a], copies[b]) for a in range(6) for b in range(a))


def test_a_run_of_an_earlier_version_can_be_read(many):
    result = train(TrainConfig(**many | {"sampling": "uniform", "epochs": 1}))
    path = Path(result.run_dir, "config.json")
    settings = json.loads(path.read_text())
    for name in ("sampling", "lookalike_group", "lookalike_every", "identity_power", "repeat_images"):
        del settings[name]
    path.write_text(json.dumps(settings))
    assert load_model(result.run_dir)[1].sampling == "uniform"
