"""Many steps of one mined pool, and one step of several: gradients by definition, draws, memory, runs."""

import json
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from facenet_fast.checkpoints import load_model
from facenet_fast.config import TrainConfig
from facenet_fast.data.sampling import IdentitySampler
from facenet_fast.errors import UserError
from facenet_fast.losses.triplet import l2_regularisation, mined_triplet_loss
from facenet_fast.mining import mine_triplets
from facenet_fast.training import loop
from facenet_fast.training.dealing import spread
from facenet_fast.training.loop import train
from facenet_fast.training.pools import Pool, PoolReader
from facenet_fast.training.run_folder import resumed_config
from facenet_fast.training.step import UniqueStep, step_seed
from facenet_fast.training.sub_pools import SeveralPoolsStep, SubPoolStep
from tests.training.test_step import config_of, plainly, pool_of, small_network, step_of, with_noise
from tests.training.test_step import loss_by_definition as by_definition


def network_of(kind):
    model = small_network(batch_norm=kind != "none")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = kind == "batch"
    return model


def mined_by_definition(model, pool, config, step, identities=None):
    """Every triplet of a pool in inference mode, as rows, with anchors among some identities."""
    seed = step_seed(config.seed, step)
    found = mine_triplets(
        model(plainly(pool.images), training=False).numpy(),
        pool.labels,
        strategy=config.strategy,
        margin=config.margin,
        seed=int(seed[0]) << 32 | int(seed[1]),
    )
    rows = zip(found.anchor.tolist(), found.positive.tolist(), found.negative.tolist(), strict=True)
    return [row for row in rows if identities is None or pool.labels[row[0]] in identities]


def loss_by_definition(model, pool, triplets, config, chunks):
    """The loss of triplets of a pool whose images pass in these chunks of rows, with these seeds."""
    embeddings = {}
    for rows, seed in chunks:
        for row, embedding in zip(
            rows, tf.unstack(model(with_noise(pool.images[rows], seed), training=True)), strict=True
        ):
            embeddings[int(row)] = embedding
    columns = [tf.stack([embeddings[row] for row in column]) for column in zip(*triplets, strict=True)]
    rows = tf.range(len(triplets))
    n = len(triplets)
    loss = mined_triplet_loss(
        tf.concat(columns, axis=0), rows, rows + n, rows + 2 * n, config.margin, config.loss == "soft_margin"
    )
    return loss + l2_regularisation(model.trainable_variables, config.weight_decay)


def chunks_of(labels, rows, config, step):
    if len(rows) <= config.batch_size:
        return [(rows, step_seed(config.seed, step))]
    parts = np.array_split(rows[spread(labels[rows])], -(-len(rows) // config.batch_size))
    return [(part, step_seed(config.seed, step, n)) for n, part in enumerate(parts)]


def assert_moved_as(model, before, gradients, rate, atol=2e-6):
    for variable, old, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose((old - variable.numpy()) / rate, gradient, rtol=2e-3, atol=atol)


# Many steps of a pool


@pytest.mark.parametrize(
    ("norm", "batch_size", "loss"),
    [
        ("frozen", 100, "hinge"),
        ("frozen", 7, "soft_margin"),
        ("batch", 100, "soft_margin"),
        ("batch", 7, "hinge"),
    ],
)
def test_each_step_is_automatic_differentiation_over_its_triplets(norm, batch_size, loss):
    config = config_of(
        sub_pool=2, batch_size=batch_size, loss=loss, weight_decay=0.01, identities_per_batch=5
    )
    pool, model, oracle = pool_of(5, 4), network_of(norm), network_of(norm)
    stepper = step_of(SubPoolStep, model, config, train=with_noise)
    everything = mined_by_definition(model, pool, config, 3)
    assert len(everything) > 15
    plan = stepper.plan(pool, 3)
    assert [len(work.identities) for work in plan] == [2, 2, 1]
    rate = float(stepper.optimizer.learning_rate)
    for step, work in enumerate(plan, 3):
        oracle.set_weights(model.get_weights())
        before = [v.numpy() for v in model.trainable_variables]
        triplets = [row for row in everything if pool.labels[row[0]] in work.identities]
        rows = np.unique(triplets)
        with tf.GradientTape() as tape:
            wanted = loss_by_definition(
                oracle, pool, triplets, config, chunks_of(pool.labels, rows, config, step)
            )
        gradients = tape.gradient(wanted, [v.value for v in oracle.trainable_variables])
        outcome = stepper.run(work, step)
        assert outcome.is_applied
        assert (outcome.n_triplets, outcome.n_images) == (len(triplets), len(rows))
        assert (outcome.mined.n_triplets, outcome.mined.n_pairs) == (len(everything), 5 * 4 * 3 // 2)
        assert outcome.loss == pytest.approx(float(wanted), rel=1e-4)
        assert outcome.gradient_norm == pytest.approx(float(tf.linalg.global_norm(gradients)), rel=1e-3)
        assert_moved_as(model, before, gradients, rate, atol=1e-5)
        for got, other in zip(model.non_trainable_variables, oracle.non_trainable_variables, strict=True):
            np.testing.assert_allclose(np.asarray(got.value), np.asarray(other.value), rtol=1e-5)


def recorder(passed):
    """Prepare images and keep what was passed, by call."""

    def prepare(images, seed=None):
        tf.numpy_function(lambda some: passed.append(some.copy()), [images], [])
        return plainly(images)

    return prepare


@pytest.mark.parametrize("batch_size", [100, 7])
@pytest.mark.parametrize("strategy", ["vgg_face", "batch_hard"])
def test_every_triplet_is_in_one_step_and_every_image_once_a_step(strategy, batch_size, monkeypatch):
    n_identities, n_each = 7, 3
    pool, passed, dealt = pool_of(n_identities, n_each), [], []
    config = config_of(
        sub_pool=2, strategy=strategy, batch_size=batch_size, learning_rate=1.0, identities_per_batch=7
    )
    stepper = step_of(SubPoolStep, small_network(), config, train=recorder(passed))
    stepper.prepare = type(stepper.prepare)(stepper.prepare.train, recorder(passed))
    everything = mined_by_definition(stepper.model, pool, config, 0)
    differentiate = stepper._differentiate_triplets
    monkeypatch.setattr(
        stepper,
        "_differentiate_triplets",
        lambda pool, rows, step: dealt.append(rows.tolist()) or differentiate(pool, rows, step),
    )
    plan = stepper.plan(pool, 0)
    assert passed == []
    anchors = np.concatenate([work.identities for work in plan])
    assert sorted(anchors.tolist()) == list(range(n_identities))
    assert [len(work.identities) for work in plan] == [2, 2, 2, 1]
    for step, work in enumerate(plan):
        del passed[:]
        outcome = stepper.run(work, step)
        assert max(map(len, passed)) <= batch_size
        images = [image.tobytes() for images in passed for image in images]
        in_triplets = [pool.images[row].tobytes() for row in np.unique(dealt[-1])]
        assert outcome.n_images == len(in_triplets)
        # All images are embedded before the first step; a step in chunks passes its own twice.
        n_passes = 1 if len(in_triplets) <= batch_size else 2
        whole = [image.tobytes() for image in pool.images] if step == 0 else []
        assert sorted(images) == sorted(whole + in_triplets * n_passes)
    rows = [tuple(row) for share in dealt for row in share]
    assert len(rows) == len(set(rows)) == len(everything)
    assert set(rows) == set(everything)
    for work, share in zip(plan, dealt, strict=True):
        assert {int(pool.labels[row[0]]) for row in share} <= set(work.identities.tolist())


def test_who_shares_a_step_is_drawn_by_seed_and_step():
    def shares(seed, step):
        config = config_of(sub_pool=3, seed=seed)
        plan = step_of(SubPoolStep, small_network(), config).plan(pool_of(9, 2), step)
        return [work.identities.tolist() for work in plan]

    assert shares(1, 5) == shares(1, 5)
    assert shares(1, 5) != shares(1, 6)
    assert shares(1, 5) != shares(2, 5)


@pytest.mark.parametrize("every", [0, 1, 2])
def test_the_rest_of_a_pool_is_mined_anew_with_the_weights_as_they_are(every, monkeypatch):
    config = config_of(sub_pool=1, remine_every=every, learning_rate=3.0, margin=2.0, identities_per_batch=5)
    pool, model = pool_of(5, 3), small_network(batch_norm=True)
    stepper, dealt = step_of(SubPoolStep, model, config), []
    differentiate = stepper._differentiate_triplets
    monkeypatch.setattr(
        stepper,
        "_differentiate_triplets",
        lambda pool, rows, step: dealt.append(rows.tolist()) or differentiate(pool, rows, step),
    )
    plan = stepper.plan(pool, 10)
    mined_at, wanted = [], []
    for n, work in enumerate(plan):
        embeddings = model(plainly(pool.images), training=False).numpy()
        if n == 0 or (every and n % every == 0):
            mined_at.append(n)
            left = [one for later in plan[n:] for one in later.identities.tolist()]
            wanted = mined_by_definition(model, pool, config, 10 + n, left)
            seen = embeddings
        outcome = stepper.run(work, 10 + n)
        assert outcome.is_applied
        assert outcome.mined.n_triplets == len(wanted)
        assert (outcome.mined.embed_seconds > 0) == (mined_at[-1] == n)
        assert (outcome.mined.seconds > 0) == (mined_at[-1] == n)
        share = [row for row in wanted if pool.labels[row[0]] in work.identities]
        assert sorted(map(tuple, dealt[-1])) == sorted(share)
        np.testing.assert_allclose(stepper.seen[0], seen, atol=1e-5)
        assert sorted(map(tuple, stepper.last_mined().rows.tolist())) == sorted(wanted)
    assert mined_at == {0: [0], 1: [0, 1, 2, 3, 4], 2: [0, 2, 4]}[every]
    # The weights have moved so far that it matters.
    first = mined_by_definition(small_network(batch_norm=True), pool, config, 10)
    assert set(mined_by_definition(model, pool, config, 10)) != set(first)


def test_identities_of_one_image_are_negatives_only():
    some = pool_of(5, 3)
    kept = np.array([0, 1, 2, 3, 4, 5, 6, 9, 12])
    pool = Pool(some.images[kept], some.labels[kept])  # two identities of three, three of one
    config = config_of(sub_pool=1, margin=3.9)
    stepper = step_of(SubPoolStep, small_network(), config)
    plan = stepper.plan(pool, 0)
    assert sorted(one for work in plan for one in work.identities.tolist()) == [0, 1]
    outcomes = [stepper.run(work, n) for n, work in enumerate(plan)]
    assert all(outcome.is_applied and outcome.n_images > 3 for outcome in outcomes)
    # Without a pair there is nothing to step on.
    (work,) = stepper.plan(Pool(some.images[::3], some.labels[::3]), 0)
    assert not stepper.run(work, 0).is_applied


def test_a_share_without_triplets_leaves_the_weights_alone():
    # Copies of one face each, but for one identity whose images are those of another.
    some = pool_of(4, 3)
    images = some.images[some.labels * 3].copy()
    images[1:3] = images[3]
    config = config_of(sub_pool=1, margin=1e-4, weight_decay=0.1, remine_every=1)
    model = small_network()
    stepper = step_of(SubPoolStep, model, config)
    mined = []
    for work in stepper.plan(Pool(images, some.labels), 0):
        before = model.get_weights()
        outcome = stepper.run(work, 0)
        assert outcome.is_finite
        is_still = all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
        assert is_still == (not outcome.is_applied) == (not outcome.n_triplets)
        assert outcome.loss > 0  # the weights' penalty
        mined.append((outcome.is_applied, outcome.mined.embed_seconds > 0))
    assert 0 < sum(applied for applied, _ in mined) < 4
    # Mined anew after a step only: without one nothing has changed.
    assert [again for _, again in mined] == [True, *(applied for applied, _ in mined[:-1])]


def test_embeddings_that_are_not_finite_leave_the_weights_alone():
    model = small_network()
    model.layers[-2].bias.assign(np.full(6, np.nan))
    stepper = step_of(SubPoolStep, model, config_of(sub_pool=2, precision="float16"))
    outcome = stepper.run(stepper.plan(pool_of(), 0)[0], 0)
    assert not outcome.is_finite
    assert not outcome.is_applied


@pytest.mark.parametrize("batch_size", [100, 5])
@pytest.mark.parametrize(
    ("kind", "settings"), [(SubPoolStep, {"sub_pool": 2}), (SeveralPoolsStep, {"pools_per_step": 2})]
)
def test_a_scaled_loss_moves_weights_as_the_loss_itself(kind, settings, batch_size):
    moved = {}
    for precision in ("float32", "float16"):
        model = small_network(batch_norm=True)
        stepper = step_of(kind, model, config_of(**settings, batch_size=batch_size, precision=precision))
        outcome = stepper.run(stepper.plan(joined(pool_of(), pool_of(seed=1)), 0)[0], 0)
        assert outcome.is_applied
        moved[precision] = (outcome.loss, outcome.gradient_norm, model.get_weights())
    for scaled, plain in zip(moved["float16"][2], moved["float32"][2], strict=True):
        np.testing.assert_allclose(scaled, plain, atol=1e-6)
    assert moved["float16"][:2] == pytest.approx(moved["float32"][:2], rel=1e-5)


# One step of several pools


def joined(*pools):
    images, labels = (
        np.concatenate(column) for column in zip(*((p.images, p.labels) for p in pools), strict=True)
    )
    return Pool(images, labels, tuple(len(pool.labels) for pool in pools))


@pytest.mark.parametrize(
    ("loss", "batch_size"), [("hinge", 100), ("hinge", 5), ("soft_margin", 10), ("log_sum_exp", 5)]
)
def test_several_pools_step_by_the_mean_of_their_gradients(loss, batch_size):
    """Each pool as `UniqueStep` takes it, with draws of its own; batch-norm's averages move one by one."""
    pools = [pool_of(4, 3, seed=1), pool_of(5, 2, seed=2), pool_of(3, 4, seed=3)]
    config = config_of(pools_per_step=3, loss=loss, batch_size=batch_size, weight_decay=0.01)
    model, oracle = (small_network(batch_norm=True, dropout=0.3) for _ in range(2))
    n_chunks, gradients, losses, counts = 0, [], [], []
    for pool in pools:
        n = len(pool.labels)
        order = spread(pool.labels) if n > batch_size else np.arange(n)
        parts = np.array_split(order, -(-n // batch_size))
        seeds = [step_seed(config.seed, 7, n_chunks + one) for one in range(len(parts))]
        n_chunks += len(parts)
        with tf.GradientTape() as tape:
            embeddings = tf.concat(
                [
                    oracle(with_noise(pool.images[rows], seed), training=True)
                    for rows, seed in zip(parts, seeds, strict=True)
                ],
                axis=0,
            )
            value, *count = by_definition(embeddings, pool.labels[order], config, seeds[0])
            value += l2_regularisation(oracle.trainable_variables, config.weight_decay)
        gradients.append(tape.gradient(value, [v.value for v in oracle.trainable_variables]))
        losses.append(float(value))
        counts.append(count)
    wanted = [sum(one) / 3 for one in zip(*gradients, strict=True)]

    stepper = step_of(SeveralPoolsStep, model, config, train=with_noise)
    before = [v.numpy() for v in model.trainable_variables]
    (work,) = stepper.plan(joined(*pools), 7)
    outcome = stepper.run(work, 7)
    assert outcome.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert [outcome.n_triplets, outcome.mined.n_triplets, outcome.mined.n_pairs] == np.sum(
        counts, axis=0
    ).tolist()
    assert outcome.n_images == 34
    assert outcome.gradient_norm == pytest.approx(float(tf.linalg.global_norm(wanted)), rel=1e-4)
    assert_moved_as(model, before, wanted, float(stepper.optimizer.learning_rate))
    for got, other in zip(model.non_trainable_variables, oracle.non_trainable_variables, strict=True):
        np.testing.assert_allclose(np.asarray(got.value), np.asarray(other.value), rtol=1e-5)


def test_a_step_does_not_depend_on_the_sizes_of_those_before():
    """To the last bit: a resumed run has made other steps than an unbroken one."""
    pools = [pool_of(4, 4), pool_of(4, 3), pool_of(3, 3), pool_of(2, 4)]
    for kind, settings in ((SubPoolStep, {"sub_pool": 1}), (SeveralPoolsStep, {"pools_per_step": 2})):
        seen = set()
        for first in range(4):
            config = config_of(**settings, batch_size=3, learning_rate=0.0, learning_rate_schedule_file="-")
            stepper = step_of(kind, small_network(), config)
            gradients = []
            stepper.apply = gradients.extend
            for pool in [pools[first], *pools]:
                stepper.run(stepper.plan(pool, 0)[0], 0)
            seen.add(b"".join(one.numpy().tobytes() for one in gradients[-4 * len(gradients) // 5 :]))
            # Graphs of other sizes may round differently, and on another machine or network do.
            assert stepper._carry.experimental_get_tracing_count() == 1
        assert len(seen) == 1


@pytest.mark.parametrize("batch_size", [100, 5])
def test_triplets_shown_are_rows_of_all_pools(batch_size):
    pools = joined(pool_of(3, 4, seed=1), pool_of(4, 3, seed=2))
    config = config_of(pools_per_step=2, batch_size=batch_size)
    stepper = step_of(SeveralPoolsStep, small_network(), config)
    embeddings = stepper.model(plainly(pools.images)).numpy()
    assert stepper.run(pools, 0).is_applied
    seen = stepper.last_mined()
    assert seen.rows.min() >= 12
    anchor, positive, negative = (embeddings[column] for column in seen.rows.T)
    np.testing.assert_allclose(seen.d_ap, np.square(anchor - positive).sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(seen.d_an, np.square(anchor - negative).sum(axis=1), atol=1e-5)
    assert (pools.labels[seen.rows[:, 0]] == pools.labels[seen.rows[:, 1]]).all()


@pytest.mark.parametrize("batch_size", [100, 5])
def test_a_pool_without_triplets_has_no_part_in_the_mean(batch_size):
    empty = Pool(pool_of().images, np.arange(12, dtype=np.int32))
    full, config = pool_of(seed=3), config_of(pools_per_step=2, batch_size=batch_size, weight_decay=0.1)
    moved = []
    for kind, pool in ((UniqueStep, full), (SeveralPoolsStep, joined(full, empty))):
        stepper = step_of(kind, small_network(), config)
        outcome = stepper.run(pool, 0)
        assert outcome.is_applied
        moved.append((outcome.loss, outcome.n_triplets, outcome.gradient_norm, stepper.model.get_weights()))
    assert moved[0][:3] == pytest.approx(moved[1][:3])
    for one, other in zip(moved[0][3], moved[1][3], strict=True):
        np.testing.assert_array_equal(one, other)
    stepper = step_of(SeveralPoolsStep, small_network(), config)
    outcome = stepper.run(joined(empty, empty), 0)
    assert (outcome.is_applied, outcome.is_finite, outcome.n_triplets) == (False, True, 0)


@pytest.mark.parametrize("place", [0, 1])
def test_one_pool_that_is_not_finite_spoils_the_step(place):
    pools = [pool_of(), pool_of(seed=1)]
    pools[place].images[0] = 255
    config = config_of(pools_per_step=2)

    def spoilt(images, seed):
        spoils = tf.reduce_all(images == 255, axis=[1, 2, 3], keepdims=True)
        return tf.where(spoils, np.nan, plainly(images))

    # Without a rectifier, which makes 0 of NaN.
    inputs = keras.Input(pools[0].images.shape[1:])
    x = keras.layers.Dense(6)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.UnitNormalization()(x))
    stepper = step_of(SeveralPoolsStep, model, config, train=spoilt)
    before = stepper.model.get_weights()
    outcome = stepper.run(joined(*pools), 0)
    assert np.isfinite(outcome.loss)  # of the other pool
    assert not outcome.is_finite
    for one, other in zip(before, stepper.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class Numbered:
    """Images that hold their own index; some cannot be read."""

    def __init__(self, bad=()):
        self.bad = bad

    def read(self, indices):
        images = np.zeros((len(indices), 1, 1, 3), np.uint8)
        images[:] = np.asarray(indices)[:, None, None, None]
        return images, ~np.isin(indices, self.bad)


def reader_of(pools_per_step, seed=5, bad=(1, 6, 15)):
    return PoolReader(IdentitySampler(np.arange(0, 21, 4), 3, 2, seed), Numbered(bad), pools_per_step)


def rows_of(pool):
    return list(zip(pool.images[:, 0, 0, 0].tolist(), pool.labels.tolist(), strict=True))


def test_pools_of_a_step_are_those_that_come_one_by_one():
    with reader_of(1) as single, reader_of(3) as several:
        for _ in range(4):
            parts = several.next().parts()
            assert [rows_of(part) for part in parts] == [rows_of(single.next()) for _ in range(3)]


def test_pools_of_a_step_are_resumed():
    with reader_of(2) as pools:
        for _ in range(3):
            pools.next()
        state = json.loads(json.dumps(pools.state()))
        wanted = [pools.next() for _ in range(4)]
    for now in (2, 1):
        with reader_of(now, seed=99) as resumed:
            resumed.restore(state)
            assert resumed.state() == state or now == 1
            first = [rows_of(part) for part in resumed.next().parts()]
            # With fewer pools a step only as many of those that were read ahead.
            assert first == [rows_of(part) for part in wanted[0].parts()][:now]
            if now == 2:
                assert [rows_of(resumed.next()) for _ in range(3)] == [rows_of(pool) for pool in wanted[1:]]


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sub_pool": 30}, "sub_pool must be below identities_per_batch, 30 (0: all of them); got 30"),
        (
            {"sub_pool": 3, "step": "triplets"},
            "sub_pool must be 0 with step='triplets', whose steps are of batch_size images; got 3",
        ),
        (
            {"sub_pool": 3, "loss": "log_sum_exp"},
            "sub_pool must be 0 with loss='log_sum_exp', which mines nothing",
        ),
        (
            {"remine_every": 2},
            "remine_every needs sub_pool, the identities in a step; got remine_every=2 alone",
        ),
        (
            {"pools_per_step": 2, "sub_pool": 3},
            "pools_per_step must be 1 with sub_pool=3, which makes many steps of one pool; got 2",
        ),
        (
            {"pools_per_step": 2, "step": "triplets"},
            "pools_per_step must be 1 with step='triplets', which makes",
        ),
        ({"pools_per_step": 0}, "pools_per_step must be at least 1; got 0"),
        ({"sub_pool": -1}, "sub_pool must be at least 0; got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UserError) as raised:
        TrainConfig(**settings)
    assert str(raised.value).startswith(message)


# Whole runs


def metrics(run_dir, name):
    lines = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] == name]


def test_a_run_makes_many_steps_of_each_pool(tiny, monkeypatch):
    read, n_pools, shown = PoolReader.next, [], []
    monkeypatch.setattr(PoolReader, "next", lambda self: n_pools.append(1) or read(self))
    monkeypatch.setattr("facenet_fast.training.doctor.LOOK_EVERY", 1)
    show = loop._Run._show_triplets
    monkeypatch.setattr(
        loop._Run,
        "_show_triplets",
        lambda self, pool: shown.append((pool, self.stepper.last_mined())) or show(self, pool),
    )
    changed = {"margin": 3.5, "sub_pool": 2, "epochs": 2, "epoch_size": 12, "sampling": "lookalike"}
    changed |= {"lookalike_group": 2, "n_held_out": 0, "baselines": False, "batch_size": 6}
    result = train(TrainConfig(**{**tiny, **changed}))
    assert result.n_steps == 24
    assert len(n_pools) == 12
    looks = metrics(result.run_dir, "health/mean_length")
    assert len(looks) == 12  # no pool is looked at twice
    losses = metrics(result.run_dir, "loss")
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
    for part in ("embed", "mine", "step"):
        assert min(metrics(result.run_dir, f"time/epoch_{part}")) > 0
    assert len(shown) == 2
    for pool, seen in shown:
        labels = pool.labels[seen.rows]
        assert (labels[:, 0] == labels[:, 1]).all()
        assert (labels[:, 0] != labels[:, 2]).all()


@pytest.mark.parametrize(
    ("settings", "last"), [({"sub_pool": 2, "remine_every": 1}, 1), ({"pools_per_step": 2}, 2)]
)
def test_an_interrupted_and_resumed_run_ends_where_an_unbroken_one_does(tiny, settings, last, monkeypatch):
    """With sub-pools from a pool's end, as an interrupt leaves out the rest of one."""
    settings = {**tiny, **settings, "margin": 3.5, "dropout": 0.3, "rotation_degrees": 10.0, "batch_size": 6}
    settings |= {"baselines": False, "epoch_size": 4, "epochs": 2, "n_held_out": 0}
    unbroken = train(TrainConfig(**settings))
    kind = SubPoolStep if "sub_pool" in settings else SeveralPoolsStep
    run = kind.run

    def run_and_interrupt(self, work, made):
        outcome = run(self, work, made)
        if made == last:
            signal.raise_signal(signal.SIGINT)
        return outcome

    with monkeypatch.context() as patched:
        patched.setattr(kind, "run", run_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(TrainConfig(**settings))
    (run_dir,) = (str(path) for path in Path(tiny["runs_dir"]).iterdir() if str(path) != unbroken.run_dir)
    train(resumed_config(run_dir, {}))
    assert metrics(run_dir, "loss") == metrics(unbroken.run_dir, "loss")
    got, wanted = (load_model(one)[0].get_weights() for one in (run_dir, unbroken.run_dir))
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pools_without_triplets_are_counted_one_by_one_and_widened(tiny, caplog):
    settings = {**tiny, "margin": 1e-12, "strategy": "facenet", "n_held_out": 0, "baselines": False}
    for more, told in (
        ({"sub_pool": 1, "max_empty_pools": 3}, "3"),
        ({"pools_per_step": 2, "max_empty_pools": 3}, "4"),
    ):
        caplog.clear()
        result = train(TrainConfig(**{**settings, "identities_per_batch": 2, **more}))
        assert result.n_steps == 0
        assert f"{told} pools in a row gave no triplet: pools are of 4 people from here on" in caplog.text
